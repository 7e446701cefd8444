"""A group of bare ``Raft`` objects, moved by hand: virtual time, messages that wait to be delivered, disks that wait.

What the scenario texts run on. No shell, no sockets, no threads: each ``Ready`` is obeyed here in the order of its
fields. Every message is encoded and decoded on its way. After each input the invariants of the peer are checked, and
those of all peers together (``Record``). It may not know what a test expects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from quorate.core import Configuration, Envelope, Message, Raft, Ready
from quorate.core.invariants import Facts, check, check_step, facts
from quorate.core.messages import AppendEntries, RequestVote, RequestVoteReply
from quorate.core.state import Leader
from quorate.settings import Settings
from quorate.testing.drive import decode, encode, join, make_configuration, make_log, make_stored
from quorate.types import HardState, Index, PeerId, ReadId, Run, Term

PEERS_MAX = 9
"""Peers are named by one digit, so that the order of their names is that of their numbers."""


@dataclass(slots=True, eq=False)
class Packet:
    """One message on its way; two that say the same are still two.

    Attributes:
        sender: who sent it.
        to: whom it is for.
        body: its bytes.
        is_lost: whether it was sent on a link that is cut.
    """

    sender: PeerId
    to: PeerId
    body: bytes
    is_lost: bool

    @property
    def message(self) -> Message:
        """The message, decoded anew each time."""
        return decode(self.body)


Trace = Callable[[PeerId, Ready | Packet], None]
"""Called with a peer and what it did: a ``Ready`` that it handed out, or a message that it sent."""


@dataclass(slots=True)
class Peer:
    """One peer of the group, and its disk.

    Attributes:
        raft: the core.
        log: every entry that was handed out for writing, as runs of one entry; what a cache would hold.
        hard_state: term and vote as they stand on the disk.
        durable_log: the entries that stand on the disk.
        writes: what was handed out and is not durable yet, with the messages that wait for it.
        facts: what was true after the last input.
        alive: false between a crash and the restart.
        disk_waits: whether writes wait for ``Group.persist``.
    """

    raft: Raft
    log: list[Run]
    hard_state: HardState
    durable_log: list[Run]
    facts: Facts
    writes: deque[Ready] = field(default_factory=deque)
    alive: bool = True
    disk_waits: bool = False


@dataclass(slots=True)
class Record:
    """All that ever happened in the group and may not be contradicted (Raft, Figure 3).

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


class Group:
    """Peers named ``1``, ``2``, … and everything between them, moved by hand.

    Attributes:
        configuration: the members.
        settings: the knobs of all of them.
        peers: by name.
        now: virtual seconds.
        flight: messages sent and not yet delivered, oldest first.
        cut: directed links ``(from, to)`` on which everything is lost.
        record: what may not be contradicted.
    """

    def __init__(self, count: int, settings: Settings, trace: Trace) -> None:
        """Start ``count`` peers, 1 to 9, each with the first configuration in its log.

        Args:
            count: how many.
            settings: the knobs of all of them.
            trace: called with everything that happens.

        Raises:
            ValueError: there are too few or too many.
        """
        if not 1 <= count <= PEERS_MAX:
            raise ValueError(f"a group has 1 to {PEERS_MAX} peers, not {count}")
        self.configuration: Configuration = make_configuration(count)
        self.settings: Settings = settings
        self.now: float = 0.0
        self.flight: list[Packet] = []
        self.cut: set[tuple[PeerId, PeerId]] = set()
        self.record: Record = Record()
        self._trace = trace
        self.peers: dict[PeerId, Peer] = {}
        for member in self.configuration.voters:
            self.place(member.id, HardState(Term(1)), make_log(self.configuration, [1]))

    def place(self, name: PeerId, hard_state: HardState, log: list[Run]) -> None:
        """Put a peer there, stopped before and started now, whose disk holds just this."""
        # Each peer always draws the same span, and those with lower numbers the shorter ones.
        chance = (int(name) - 1) / PEERS_MAX
        raft = Raft(name, self.settings, make_stored(hard_state, log), lambda: chance, self.now)
        self.peers[name] = Peer(raft, list(log), hard_state, list(log), facts(raft.state))

    # Inputs.

    def give(self, name: PeerId, act: Callable[[Raft], object]) -> None:
        """Let ``act`` give a live peer an input, check what is true then, and obey what it wants done.

        Raises:
            ValueError: the peer is down.
        """
        peer = self.peers[name]
        if not peer.alive:
            raise ValueError(f"{name} is down")
        act(peer.raft)
        self._check(name, peer)
        self.obey(name)

    def tick(self, name: PeerId) -> None:
        """Tick one peer now."""
        self.give(name, lambda raft: raft.tick(self.now))

    def tick_at_deadline(self, name: PeerId) -> None:
        """Let time pass up to the deadline of one peer, and tick that peer alone."""
        self.now = max(self.now, self.peers[name].raft.deadline())
        self.tick(name)

    def propose(self, name: PeerId, commands: Sequence[bytes]) -> None:
        """Propose commands to one peer.

        Raises:
            NotLeader: it does not lead.
        """
        self.give(name, lambda raft: raft.propose(commands, self.now))

    def transfer(self, name: PeerId, to: PeerId | None) -> None:
        """Have one peer hand over leadership.

        Raises:
            NotLeader: it does not lead.
            ConfigurationError: it cannot.
        """
        self.give(name, lambda raft: raft.transfer(to, self.now))

    def read(self, name: PeerId) -> None:
        """Ask one peer for a read index.

        Raises:
            NotLeader: it does not lead.
        """

        def ask(raft: Raft) -> None:
            self.record.reads[name, raft.read(self.now)] = len(self.record.committed)

        self.give(name, ask)

    def deliver(self, packets: Iterable[Packet]) -> None:
        """Deliver these messages, whether in flight or not; those to a peer that is down are lost."""
        for packet in list(packets):
            if packet in self.flight:
                self.flight.remove(packet)
            if self.peers[packet.to].alive:
                self._receive(packet)

    def _receive(self, packet: Packet) -> None:
        self.give(packet.to, lambda raft: raft.receive(packet.sender, packet.message, self.now))

    def persist(self, name: PeerId) -> None:
        """Make the oldest write of one peer durable; send what waited for it."""
        peer = self.peers[name]
        ready = peer.writes.popleft()
        peer.hard_state = ready.hard_state or peer.hard_state
        overwrite(peer.durable_log, ready.entries)
        for envelope in ready.messages_after_persist:
            self._send(name, peer, envelope)
        self.give(name, lambda raft: raft.persisted(ready.number))

    def crash(self, name: PeerId) -> None:
        """Stop a peer: what its disk had not finished is lost."""
        peer = self.peers[name]
        peer.alive, peer.writes = False, deque()
        peer.log = list(peer.durable_log)

    def restart(self, name: PeerId) -> None:
        """Start a peer anew from its disk."""
        peer = self.peers[name]
        self.place(name, peer.hard_state, peer.durable_log)
        self.obey(name)

    def settle(self) -> None:
        """Deliver everything, with what is sent in answer, until all is quiet; no time passes."""
        while self.flight:
            self.deliver(list(self.flight))

    def run(self, span: float) -> None:
        """Let that many virtual seconds pass: ticks at their deadlines, messages without delay."""
        end = self.now + span
        self.settle()
        while True:
            live = [(peer.raft.deadline(), name) for name, peer in self.peers.items() if peer.alive]
            deadline, name = min(live)
            if deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.tick(name)
            self.settle()

    # Obeying.

    def obey(self, name: PeerId) -> None:
        """Take ``ready()`` and obey it, until there is nothing more to do."""
        peer = self.peers[name]
        while True:
            ready = peer.raft.ready()
            overwrite(peer.log, ready.entries)
            self._check(name, peer)
            for read in ready.reads:
                floor = self.record.reads.pop((name, read.id))
                assert read.index >= floor, f"{name} reads at index {read.index} when {floor} was committed before"
            for dropped in ready.dropped:
                del self.record.reads[name, dropped]
            self._trace(name, ready)
            for envelope in ready.messages:
                self._send(name, peer, envelope)
            if ready.writes or ready.messages_after_persist:
                peer.writes.append(ready)
            while peer.writes and not peer.disk_waits:
                self.persist(name)
            if not ready.messages:
                return

    def _send(self, name: PeerId, peer: Peer, envelope: Envelope) -> None:
        """Encode a message and let it fly, with the entries attached that it offers."""
        message = envelope.message
        if isinstance(message, AppendEntries) and envelope.first:
            if message.term != peer.raft.state.term:
                return
            message = self._attach(peer, envelope, message)
        self._note_vote(name, envelope.to, message)
        packet = Packet(name, envelope.to, encode(message), (name, envelope.to) in self.cut)
        self._trace(name, packet)
        if not packet.is_lost:
            self.flight.append(packet)

    def _attach(self, peer: Peer, envelope: Envelope, message: AppendEntries) -> AppendEntries:
        """Attach as many of the entries offered as ``append_bytes_max`` allows, one at least."""
        entries: list[Run] = []
        size = 0
        for entry in peer.log[envelope.first - 1 : envelope.last]:
            size += entry.size
            if entries and size > self.settings.append_bytes_max:
                peer.raft.sent(envelope.to, entries[-1].last)
                break
            entries.append(entry)
        return msgspec.structs.replace(message, entries=join(entries))

    # Checks.

    def _check(self, name: PeerId, peer: Peer) -> None:
        """Check what is true of this peer, of its last step, and of all peers together.

        Raises:
            AssertionError: it is not; the message says what.
        """
        state = peer.raft.state
        check(state)
        after = facts(state)
        check_step(peer.facts, after)
        peer.facts = after
        if state.outbox.entries:
            return  # The log here is that of the last Ready: what follows is checked at the next one.
        assert [entry.term for entry in peer.log] == [state.log.term(Index(i + 1)) for i in range(state.log.last)], (
            f"what {name} hands out for writing is what its log says"
        )
        self._check_log_matching(name, peer)
        self._check_committed(name, peer)
        if isinstance(state.role, Leader):
            first = self.record.leaders.setdefault(state.term, name)
            assert first == name, f"election safety: {first} and {name} both lead term {state.term}"

    def _check_log_matching(self, name: PeerId, peer: Peer) -> None:
        """Check that if two logs hold an entry with the same index and term, they are identical up to it (§5.3).

        Raises:
            AssertionError: they are not.
        """
        for other_name, other in self.peers.items():
            pairs = list(zip(peer.log, other.log, strict=False))
            agreed = max((place for place, (a, b) in enumerate(pairs, 1) if a.term == b.term), default=0)
            assert peer.log[:agreed] == other.log[:agreed], (
                f"log matching: {name} and {other_name} differ up to {agreed}"
            )

    def _check_committed(self, name: PeerId, peer: Peer) -> None:
        """Check that nothing committed ever changes, that a leader holds all of it, and that it is durable.

        Raises:
            AssertionError: it is not so.
        """
        state, committed = peer.raft.state, self.record.committed
        for entry in peer.log[len(committed) : state.commit_index]:
            holders = sum(other.durable_log[entry.first - 1 : entry.first] == [entry] for other in self.peers.values())
            assert 2 * holders > len(self.peers), f"entry {entry.first} is committed but not durable on a majority"
            committed.append(entry)
        shared = min(state.commit_index, len(committed))
        assert peer.log[:shared] == committed[:shared], f"state machine safety: {name} holds other entries committed"
        if isinstance(state.role, Leader) and max(self.record.leaders, default=0) < state.term:
            held = peer.log[: len(committed)] == committed
            assert held, f"leader completeness: {name} leads term {state.term} without all that is committed"

    def _note_vote(self, name: PeerId, to: PeerId, message: Message) -> None:
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
        first = self.record.votes.setdefault((term, name), candidate)
        assert first == candidate, f"{name} votes for {first} and for {candidate} in term {term}"


def overwrite(log: list[Run], entries: Iterable[Run]) -> None:
    """Write runs into a log of runs of one entry, dropping what stood there from the first one on."""
    for run in entries:
        del log[run.first - 1 :]
        log.extend(run.part(Index(index), Index(index)) for index in range(run.first, run.last + 1))
