"""Figure 13 of the paper, line by line, and §7: what a follower does with the snapshot of a leader."""

from __future__ import annotations

import pytest

from quorate.core.configuration import encode_configuration
from quorate.core.messages import AppendEntriesReply, InstallSnapshot
from quorate.core.state import Follower
from quorate.testing.drive import make_append, make_configuration, obey, receive, start
from quorate.types import Compaction, Index, PeerId, Snapshot, Term


def snapshot(index, term, count=3, at=1):
    payload = encode_configuration(make_configuration(count))
    return Snapshot(Index(index), Term(term), 0.0, Index(at), payload)


def install(index, term, of=3, count=3, at=1):
    return InstallSnapshot(Term(of), PeerId("2"), snapshot(index, term, count, at))


def terms(raft):
    log = raft.state.log
    return [log.term(Index(index)) for index in range(log.start + 1, log.last + 1)]


def test_install_snapshot_1_reply_immediately_if_term_is_below_current_term():
    """1. Reply immediately if term < currentTerm."""
    raft = start(log=(1, 1), term=4)
    assert receive(raft, "2", install(9, 2)) == [AppendEntriesReply(Term(4), False, Index(0))]
    assert (terms(raft), raft.state.leader) == ([1, 1], None)


def test_install_snapshot_a_leader_of_the_term_is_followed():
    """The rules for all servers, and for candidates, hold of this RPC as well (§5.1, §5.2)."""
    raft = start(chance=0.5)
    raft.tick(10.0)
    obey(raft)
    first = raft.deadline()
    receive(raft, "2", install(9, 2), 10.1)
    assert (type(raft.state.role), raft.state.term, raft.state.leader) == (Follower, 3, "2")
    assert raft.deadline() > first


@pytest.mark.covers("pitfall 58")
def test_install_snapshot_6_retain_the_log_if_it_holds_the_last_included_entry():
    """6. If existing log entry has same index and term as snapshot's last included entry, retain log entries following
    it and reply.
    """
    raft = start(log=(1, 1, 2, 2, 2))
    raft.receive(PeerId("2"), install(4, 2), 0.0)
    ready = raft.ready()
    assert (ready.compaction, ready.entries) == (None, ())
    assert (terms(raft), ready.commit_index) == ([1, 1, 2, 2, 2], 4)
    assert "snapshot 4 is in our log -> keep the log" in [event.text for event in ready.events]


@pytest.mark.covers("pitfall 58")
@pytest.mark.parametrize("log", [(1, 1), (1, 1, 1, 1, 1), (1, 1, 1, 1)], ids=["shorter", "longer", "as long"])
def test_install_snapshot_7_discard_the_entire_log(log):
    """7. Discard the entire log. Row 58: also what stands behind an entry that conflicts."""
    raft = start(log=log)
    raft.receive(PeerId("2"), install(4, 2), 0.0)
    ready = raft.ready()
    assert ready.compaction == Compaction(snapshot(4, 2), Index(4), Term(2), replaces_log=True)
    assert (terms(raft), raft.state.log.last, raft.state.log.last_term) == ([], 4, 2)


@pytest.mark.covers("pitfall 53")
def test_install_snapshot_8_reset_the_state_machine_and_load_the_cluster_configuration():
    """8. Reset state machine using snapshot contents (and load snapshot's cluster configuration). Row 53."""
    raft = start(log=(1, 1))
    raft.receive(PeerId("2"), install(4, 2, count=5, at=3), 0.0)
    assert (raft.ready().commit_index, raft.state.groups) == (4, make_configuration(5).groups)
    assert raft.state.configurations == [(3, make_configuration(5))]


def test_install_snapshot_the_reply_waits_until_what_it_says_is_durable():
    """As with all that promises something about our disk (Figure 2, persistent state)."""
    raft = start(log=(1, 1))
    raft.receive(PeerId("2"), install(4, 2), 0.0)
    ready = raft.ready()
    assert ready.messages == ()
    [reply] = ready.messages_after_persist
    assert reply.message == AppendEntriesReply(Term(3), True, Index(4))
    raft.persisted(ready.number)
    assert raft.state.persisted_index == 4
    [again] = receive(raft, "2", install(4, 2))
    assert again == reply.message


@pytest.mark.covers("pitfall 59")
def test_a_snapshot_of_what_is_committed_here_already_is_not_installed():
    """A late one would take back what was applied since. Row 59."""
    raft = start(log=(1, 1, 1, 1), term=3)
    receive(raft, "2", make_append("2", 3, (4, 1), [3], commit=5))
    for index, term in ((3, 1), (5, 3)):
        raft.receive(PeerId("2"), install(index, term), 0.0)
        ready = raft.ready()
        assert (ready.compaction, raft.state.commit_index, terms(raft)) == (None, 5, [1, 1, 1, 1, 3])
        assert [envelope.message.match_index for envelope in ready.messages] == [index]
        assert ready.events[-1].text == f"snapshot {index} is not above commit index 5 -> ignore"


@pytest.mark.covers("pitfall 60")
def test_two_snapshots_shortly_after_each_other():
    """Row 60: each while the other may still be on its way to the disk."""
    raft = start(log=(1, 1))
    raft.receive(PeerId("2"), install(4, 2), 0.0)
    raft.receive(PeerId("2"), install(9, 2), 0.0)
    first = raft.ready()
    raft.receive(PeerId("2"), install(6, 2), 0.0)
    raft.receive(PeerId("2"), install(12, 3), 0.0)
    second = raft.ready()
    assert [ready.compaction.snapshot.index for ready in (first, second)] == [9, 12]
    raft.persisted(first.number)
    assert raft.state.persisted_index == 0
    raft.persisted(second.number)
    assert raft.state.persisted_index == raft.state.commit_index == 12
