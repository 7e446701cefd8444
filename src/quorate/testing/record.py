"""The peers of a group with their disks, and what is true of all of them together, ever (Raft, Figure 3).

Checked after each input of any of them. Which majorities decide is what the configuration in force says, one that is
joint included; what a snapshot stands for is compared with what was committed. Moves nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from quorate.core import Message, Raft, Ready
from quorate.core.invariants import Facts
from quorate.core.messages import AppendEntriesReply, RequestVote, RequestVoteReply
from quorate.core.quorum import Voters, is_quorum
from quorate.core.state import Leader, State
from quorate.testing.books import Book, Entries, broken_promise
from quorate.testing.contents import Contents
from quorate.transport import Packet
from quorate.types import HardState, Index, Kind, PeerId, ReadId, Run, Snapshot, Term


@dataclass(slots=True)
class Peer:
    """One peer of the group, and its disk.

    Attributes:
        raft: the core.
        log: all that was handed out for writing; what a cache would hold.
        hard_state: term and vote as they stand on the disk.
        durable_log: the log as it stands on the disk.
        facts: what was true after the last input.
        compared: its facts, and how often its log was written to, when it was last compared with the others; None
            before that.
        writes: what was handed out and is not durable yet, with the messages that wait for it.
        alive: false between a crash and the restart.
        disk_waits: whether writes wait for ``Group.persist``.
    """

    raft: Raft
    log: Contents
    hard_state: HardState
    durable_log: Contents
    facts: Facts
    compared: tuple[Facts, int] | None = None
    writes: deque[Ready] = field(default_factory=deque)
    alive: bool = True
    disk_waits: bool = False


Peers = Mapping[PeerId, Peer]
"""The peers of a group by name."""


@dataclass(slots=True)
class Record:
    """All that ever happened in the group and may not be contradicted.

    Attributes:
        leaders: who led each term.
        votes: whom each voter told, in each term, that it had its vote.
        committed: the entry at each index that any peer ever held committed.
        reads: for each read that is not yet answered, how much was committed anywhere when it was asked.
    """

    leaders: dict[Term, PeerId] = field(default_factory=dict)
    votes: dict[tuple[Term, PeerId], PeerId] = field(default_factory=dict)
    committed: list[Run] = field(default_factory=list)
    reads: dict[tuple[PeerId, ReadId], int] = field(default_factory=dict)

    def check(self, name: PeerId, peers: Peers) -> None:
        """Check one peer after an input, once all that it hands out for writing stands in its log here.

        Raises:
            AssertionError: something is wrong; the message says what.
        """
        peer = peers[name]
        state = peer.raft.state
        assert peer.log.start == state.log.start, f"the log of {name} begins where its core believes"
        assert [entry.term for entry in peer.log.entries] == [
            state.log.term(Index(index)) for index in range(state.log.start + 1, state.log.last + 1)
        ], f"what {name} hands out for writing is what its log says"
        now = (peer.facts, peer.log.writes)
        if now == peer.compared:
            return  # Whoever else writes or commits compares itself with this one.
        check_log_matching(name, peers)
        self._check_committed(name, peers)
        self._check_snapshot(name, state.snapshot)
        if isinstance(state.role, Leader):
            first = self.leaders.setdefault(state.term, name)
            assert first == name, f"election safety: {first} and {name} both lead term {state.term}"
        peer.compared = now

    def _check_committed(self, name: PeerId, peers: Peers) -> None:
        """Check that nothing committed ever changes, that a leader holds all of it, and that it is durable.

        Raises:
            AssertionError: it is not so.
        """
        peer = peers[name]
        state, log, committed = peer.raft.state, peer.log, self.committed
        groups = groups_at(state, peer.compared[0].last) if peer.compared else state.groups
        for index in range(len(committed) + 1, state.commit_index + 1):
            entry = log.entry(index)
            assert entry is not None, f"{name} has a snapshot of entry {index}, which nobody ever held committed"
            holders = {holder for holder, other in peers.items() if holds(other, entry)}
            assert is_quorum(groups, holders.__contains__), f"entry {index} is committed but not durable on a majority"
            committed.append(entry)
        shared = range(log.start + 1, min(state.commit_index, len(committed)) + 1)
        agrees = all(is_same(log.entry(index), committed[index - 1]) for index in shared)
        assert agrees, f"state machine safety: {name} holds other entries committed"
        if isinstance(state.role, Leader) and max(self.leaders, default=0) < state.term:
            wanted = range(log.start + 1, len(committed) + 1)
            # In full, whoever sent it what: entries that say nothing are good for a witness alone.
            held = all(log.entry(index) == committed[index - 1] for index in wanted)
            assert held, f"leader completeness: {name} leads term {state.term} without all that is committed"

    def _check_snapshot(self, name: PeerId, snapshot: Snapshot | None) -> None:
        """Check that a snapshot stands for what was committed, with the configuration that was in force there.

        Raises:
            AssertionError: it does not.
        """
        if snapshot is None:
            return
        covered = self.committed[: snapshot.index]
        assert len(covered) == snapshot.index, f"the snapshot of {name} holds what nobody ever held committed"
        assert covered[-1].term == snapshot.term, f"the snapshot of {name} names another term than was committed"
        latest = next(entry for entry in reversed(covered) if entry.kind == Kind.CONFIGURATION)
        found = (snapshot.configuration_index, snapshot.configuration)
        assert found == (latest.first, latest.payloads[0]), f"the snapshot of {name} holds another configuration"

    def check_promise(self, name: PeerId, to: PeerId, message: Message, peers: Peers) -> None:
        """Check that the disk of a peer keeps what a message promises that it sends.

        Raises:
            AssertionError: it does not.
        """
        peer, other, durable = peers[name], peers.get(to), Entries()
        if isinstance(message, AppendEntriesReply):  # Only what it acknowledges is looked up.
            log = peer.durable_log
            durable = Entries(log.start, Term(0), [(entry.term, None) for entry in log.entries])
        book = Book(name, peer.hard_state, durable=durable)
        broken = broken_promise(book, Packet("", name, to, message), other.raft.state if other else None)
        assert broken is None, f"{name} {broken}"

    def note_vote(self, name: PeerId, to: PeerId, message: Message) -> None:
        """Check that a voter gives one vote in a term, restarts included.

        Raises:
            AssertionError: it gave two.
        """
        match message:
            case RequestVote(term=term):
                candidate = name
            case RequestVoteReply(term=term, vote_granted=True):
                candidate = to
            case _:
                return
        first = self.votes.setdefault((term, name), candidate)
        assert first == candidate, f"{name} votes for {first} and for {candidate} in term {term}"


def check_log_matching(name: PeerId, peers: Peers) -> None:
    """Check that if two logs hold an entry with the same index and term, they are identical up to it (§5.3).

    Raises:
        AssertionError: they are not.
    """
    ours = peers[name]
    for other_name, other in peers.items():
        first = max(ours.log.start, other.log.start) + 1
        last = min(ours.log.last, other.log.last)
        pairs = list(zip(ours.log.part(first, last), other.log.part(first, last), strict=True))
        agreed = max((place for place, (a, b) in enumerate(pairs, 1) if a.term == b.term), default=0)
        same = all(is_same(a, b) for a, b in pairs[:agreed])
        assert same, f"log matching: {name} and {other_name} differ up to {first + agreed - 1}"


def groups_at(state: State, last: Index) -> Voters:
    """Give whose majorities decided when the log ended there: an input may commit first, and then append."""
    found = [configuration.groups for index, configuration in state.configurations if index <= last]
    return found[-1] if found else state.groups


def holds(peer: Peer, entry: Run) -> bool:
    """Tell whether a disk holds an entry, or a snapshot that covers it."""
    durable = peer.durable_log
    return durable.start >= entry.first or is_same(durable.entry(entry.first), entry)


def is_same(held: Run | None, entry: Run) -> bool:
    """Tell whether two entries are the same one, as far as a witness's says what it is."""
    if held is None or Kind.BARE not in (held.kind, entry.kind):
        return held == entry
    return held.without_commands() == entry.without_commands()
