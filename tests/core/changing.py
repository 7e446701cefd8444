"""What tests of changes of members share: a leader whose group is to change, and logs that hold configurations."""

from __future__ import annotations

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply
from quorate.testing.drive import lead, make_member, obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term


def members(*names, **kinds):
    """Make members: voters by their names, others as ``four="learner"`` by name and kind."""
    wanted = [make_member(name) for name in names]
    wanted += [make_member(name.removeprefix("m"), kind) for name, kind in kinds.items()]
    return tuple(sorted(wanted, key=lambda member: member.address.name))


def acknowledge(raft, *names, later=0.0):
    """Let these peers acknowledge all that the leader holds."""
    for name in names:
        raft.state.now += later
        receive(raft, name, AppendEntriesReply(raft.state.term, True, raft.state.log.last, raft.state.role.round))


def leader(peers=3, **settings):
    """Start a leader of term 2 whose no-op is committed and whose followers hold all of it."""
    raft = start(peers=peers, **settings)
    lead(raft)
    acknowledge(raft, *raft.state.others)
    assert raft.state.commit_index == 2
    return raft


def change(raft, *names, **kinds):
    raft.change(members(*names, **kinds), raft.state.now)
    obey(raft)


def seen(raft):
    """Give the members with a vote, those who leave, and those wanted, by name."""
    now = raft.state.configuration
    return tuple("".join(member.id for member in group) for group in (now.voters, now.outgoing, now.target))


def log_with(*configurations):
    """Give an AppendEntries of leader 2 in term 1 whose entries, from index 2 on, are these configurations."""
    payloads = tuple(map(encode_configuration, configurations))
    run = Run(Term(1), Index(2), Kind.CONFIGURATION, 0.0, payloads)
    return AppendEntries(Term(1), PeerId("2"), Index(1), Term(1), Index(0), 0, (run,))


OLD, NEW = members("1", "2", "3"), members("1", "2", "4")
CATCHING_UP = Configuration("group", members("1", "2", "3", m4="learner"), (), NEW, OLD)
JOINT = Configuration("group", NEW, OLD)
FINAL = Configuration("group", NEW)
