"""A group of bare ``Raft`` objects, moved by hand: virtual time, messages that wait to be delivered, disks that wait.

What the scenario texts run on. No shell, no sockets, no threads: each ``Ready`` is obeyed here in the order of its
fields. What is committed is applied at once, and a snapshot stands for it without a file: its message is the file.
Every message is encoded and decoded on its way. After each input the invariants of the peer are checked, and those of
all peers together (``Record``). It may not know what a test expects.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from quorate.core import Configuration, Envelope, Member, Message, Raft, Ready
from quorate.core.invariants import check, check_step, facts
from quorate.core.messages import AppendEntries
from quorate.core.state import Leader
from quorate.settings import Settings
from quorate.testing.contents import Contents, join
from quorate.testing.drive import decode, encode, make_configuration, make_log
from quorate.testing.record import Peer, Record
from quorate.types import HardState, Index, PeerId, Run, Term

PEERS_MAX = 9
"""Peers are named by one digit, so that the order of their names is that of their numbers."""
LIVES_MAX = 2**20
"""How often peers may be started."""


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


class Group:
    """Peers named ``1``, ``2``, … and everything between them, moved by hand.

    Attributes:
        configuration: the members.
        settings: the knobs of all of them.
        peers: by name.
        now: virtual seconds.
        ahead: by how many seconds the clocks of some peers run ahead of that.
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
        self.ahead: dict[PeerId, float] = {}
        self.flight: list[Packet] = []
        self.cut: set[tuple[PeerId, PeerId]] = set()
        self.record: Record = Record()
        self._trace = trace
        self._lives = 0
        self.peers: dict[PeerId, Peer] = {}
        for member in self.configuration.members:
            self.place(member.id, HardState(Term(1)), Contents(make_log(self.configuration, [1])))

    def place(self, name: PeerId, hard_state: HardState, log: Contents) -> None:
        """Put a peer there, stopped before and started now, whose disk holds just this."""
        # Each peer always draws the same span, and those with lower numbers the shorter ones. What is drawn first
        # tells the lives of a peer apart.
        self._lives += 1
        dice = itertools.chain([self._lives / LIVES_MAX], itertools.repeat((int(name) - 1) / PEERS_MAX))
        raft = Raft(name, self.settings, log.stored(hard_state), lambda: next(dice), self.clock(name))
        self.peers[name] = Peer(raft, log.copy(), hard_state, log.copy(), facts(raft.state))

    def clock(self, name: PeerId) -> float:
        """Give the time as it is for one peer."""
        return self.now + self.ahead.get(name, 0.0)

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
        self.give(name, lambda raft: raft.tick(self.clock(name)))

    def tick_at_deadline(self, name: PeerId) -> None:
        """Let time pass up to the deadline of one peer, and tick that peer alone."""
        self.now = max(self.now, self.peers[name].raft.deadline() - self.ahead.get(name, 0.0))
        self.tick(name)

    def propose(self, name: PeerId, commands: Sequence[bytes]) -> None:
        """Propose commands to one peer.

        Raises:
            NotLeader: it does not lead.
        """
        self.give(name, lambda raft: raft.propose(commands, self.clock(name)))

    def transfer(self, name: PeerId, to: PeerId | None) -> None:
        """Have one peer hand over leadership.

        Raises:
            NotLeader: it does not lead.
            ConfigurationError: it cannot.
        """
        self.give(name, lambda raft: raft.transfer(to, self.clock(name)))

    def unreachable(self, name: PeerId, lost: PeerId) -> None:
        """Tell one peer that another cannot be reached."""
        self.give(name, lambda raft: raft.unreachable(lost, self.clock(name)))

    def change(self, name: PeerId, members: Sequence[Member]) -> None:
        """Have one peer change the members of the group to these.

        Raises:
            NotLeader: it does not lead.
            ConfigurationError: it cannot.
        """
        self.give(name, lambda raft: raft.change(members, self.clock(name)))

    def read(self, name: PeerId, *, by_lease: bool = False) -> None:
        """Ask one peer for a read index.

        Raises:
            NotLeader: it knows of no leader.
        """

        def ask(raft: Raft) -> None:
            read = raft.read(self.clock(name), by_lease=by_lease)
            self.record.reads[name, read] = len(self.record.committed)

        self.give(name, ask)

    def snapshot(self, name: PeerId, index: Index | None) -> None:
        """Have one peer take a snapshot at an index that it holds committed, or of all that it does.

        Raises:
            ValueError: it does not hold that committed, or a later snapshot was taken.
        """
        state = self.peers[name].raft.state
        at = state.commit_index if index is None else index
        if not state.snapshot_index < at <= state.commit_index:
            raise ValueError(f"{name} can take a snapshot above {state.snapshot_index} up to {state.commit_index}")
        self.give(name, lambda raft: raft.compacted(raft.snapshot_at(at, 0.0)))

    def shipped(self, name: PeerId, to: PeerId, *, is_complete: bool) -> None:
        """Tell a leader how sending the snapshot ended that is under way.

        Raises:
            ValueError: none is under way to that peer.
        """
        role = self.peers[name].raft.state.role
        index = role.progress[to].installing if isinstance(role, Leader) else Index(0)
        if not index:
            raise ValueError(f"no snapshot is under way from {name} to {to}")
        self.give(name, lambda raft: raft.shipped(to, index, is_complete=is_complete))

    def deliver(self, packets: Iterable[Packet]) -> None:
        """Deliver these messages, whether in flight or not; those to a peer that is down are lost."""
        for packet in list(packets):
            if packet in self.flight:
                self.flight.remove(packet)
            if self.peers[packet.to].alive:
                self._receive(packet)

    def _receive(self, packet: Packet) -> None:
        self.give(packet.to, lambda raft: raft.receive(packet.sender, packet.message, self.clock(packet.to)))

    def persist(self, name: PeerId) -> None:
        """Make the oldest write of one peer durable; send what waited for it."""
        peer = self.peers[name]
        ready = peer.writes.popleft()
        peer.hard_state = ready.hard_state or peer.hard_state
        peer.durable_log.write(ready.compaction, ready.entries)
        for envelope in ready.messages_after_persist:
            self._send(name, peer, envelope)
        self.give(name, lambda raft: raft.persisted(ready.number))

    def crash(self, name: PeerId) -> None:
        """Stop a peer: what its disk had not finished is lost."""
        peer = self.peers[name]
        peer.alive, peer.writes = False, deque()
        peer.log = peer.durable_log.copy()

    def restart(self, name: PeerId) -> None:
        """Start a peer anew from its disk."""
        peer = self.peers[name]
        for read in [key for key in self.record.reads if key[0] == name]:
            del self.record.reads[read]  # Whoever asked is gone too.
        self.place(name, peer.hard_state, peer.durable_log)
        self.obey(name)

    def wait(self, span: float) -> None:
        """Let that many virtual seconds pass in which nobody moves."""
        self.now += span

    def settle(self) -> None:
        """Deliver everything, with what is sent in answer, until all is quiet; no time passes."""
        while self.flight:
            self.deliver(list(self.flight))

    def run(self, span: float) -> None:
        """Let that many virtual seconds pass: ticks at their deadlines, messages without delay."""
        end = self.now + span
        self.settle()
        while True:
            live = [(name, peer.raft.deadline()) for name, peer in self.peers.items() if peer.alive]
            deadline, name = min((deadline - self.ahead.get(name, 0.0), name) for name, deadline in live)
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
            peer.log.write(ready.compaction, ready.entries)
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
            role = peer.raft.state.role
            progress = role.progress.get(envelope.to) if isinstance(role, Leader) else None
            if message.term != peer.raft.state.term or progress is None:
                return
            message = self._attach(peer, envelope, message, is_witness=progress.is_witness)
        self.record.note_vote(name, envelope.to, message)
        self.record.check_promise(name, envelope.to, message, self.peers)
        packet = Packet(name, envelope.to, encode(message), (name, envelope.to) in self.cut)
        self._trace(name, packet)
        if not packet.is_lost:
            self.flight.append(packet)

    def _attach(self, peer: Peer, envelope: Envelope, message: AppendEntries, *, is_witness: bool) -> AppendEntries:
        """Attach as many of the entries offered as ``append_bytes_max`` allows, one at least; bare to a witness."""
        entries: list[Run] = []
        size = 0
        for held in peer.log.part(envelope.first, envelope.last):
            entry = held.without_commands() if is_witness else held
            size += entry.size
            if entries and size > self.settings.append_bytes_max:
                peer.raft.sent(envelope.to, entries[-1].last)
                break
            entries.append(entry)
        return msgspec.structs.replace(message, entries=join(entries))

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
        # While something waits to be handed out, the log here is that of the last Ready: the next one is compared.
        if not state.outbox.entries and state.outbox.compaction is None:
            self.record.check(name, self.peers)
