"""A random walk of a group of bare ``Raft`` objects: what may go wrong goes wrong, decided by one seed.

Messages are lost, delayed, repeated, reordered, and come again long after; disks take their time; peers crash and start
anew; clocks drift; members, snapshots, transfers and reads come at any moment. No two seeds are of one mind: each draws
how often everything happens, and leaves some of it out, for what happens all the time hides what needs quiet. After
each input the invariants of the peer are checked, and
what no peer may contradict: who led a term, what was committed, how new a read is. At the end all is well again, and
the group must be too. No shell and no asyncio.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import msgspec

from quorate.core import Raft
from quorate.core.configuration import Configuration, Member, decode_configuration
from quorate.core.invariants import check, check_step, facts
from quorate.core.messages import AppendEntries, InstallSnapshot, RequestPreVote
from quorate.core.state import Follower, Leader
from quorate.errors import ConfigurationError, NotLeader
from quorate.settings import Settings
from quorate.testing.drive import join
from quorate.types import Address, HardState, Index, Kind, PeerId, Stored
from tests.core.promises import Promises, check_answers, check_bound

NAMES = [PeerId(name) for name in "1234567"]

OLD_MAX = 100
"""How many of the messages that have arrived may come once more."""


class Disk:
    """Term, vote, compaction and entries, each entry a run of its own."""

    def __init__(self):
        self.hard_state = HardState()
        self.compaction = None
        self.runs = {}

    def write(self, ready):
        self.hard_state = ready.hard_state or self.hard_state
        if ready.compaction:
            self.compaction = ready.compaction
            start = float("inf") if ready.compaction.replaces_log else ready.compaction.start
            self.runs = {index: run for index, run in self.runs.items() if index > start}
        if ready.entries:
            self.runs = {index: kept for index, kept in self.runs.items() if index < ready.entries[0].first}
        for run in ready.entries:
            self.runs |= {index: run.part(Index(index), Index(index)) for index in range(run.first, run.last + 1)}

    def copy(self):
        copy = Disk()
        copy.hard_state, copy.compaction, copy.runs = self.hard_state, self.compaction, dict(self.runs)
        return copy

    @property
    def start(self):
        return self.compaction.start if self.compaction else 0

    @property
    def last(self):
        return max(self.runs, default=self.start)

    def configurations(self):
        found = [(run.first, run.payloads[0]) for run in self.runs.values() if run.kind == Kind.CONFIGURATION]
        return tuple(sorted(found))

    def stored(self):
        indexes = sorted(self.runs)
        assert indexes == list(range(self.start + 1, self.last + 1)), "what is on the disk has no hole"
        terms = [
            (index, self.runs[index].term)
            for index in indexes
            if index == indexes[0] or self.runs[index].term != self.runs[index - 1].term
        ]
        bare = next((index for index in indexes if self.runs[index].kind is Kind.BARE), Index(0))
        found = self.configurations()
        return Stored(self.hard_state, tuple(terms), Index(self.last), found, 0.0, self.compaction, bare)


@dataclass(eq=False)
class Peer:
    """One peer: its core, its disk, what it handed out for writing, its machine's last index, its clock."""

    disk: Disk
    memory: Disk
    rate: float
    offset: float
    raft: Raft | None = None
    facts: object = None
    applied: int = 0
    commit: int = 0
    life: int = 0
    writes: deque = field(default_factory=deque)
    snapshots: list = field(default_factory=list)


class Walk:
    """One seed's world. ``run`` raises AssertionError when something that must never happen did."""

    def __init__(self, seed):
        self.dice = dice = random.Random(seed)
        self.now = 0.0
        patience = dice.choice([0.15, 0.3])
        self.settings = Settings(
            heartbeat_interval=patience / dice.choice([2, 3, 6]),
            election_timeout_min=patience,
            election_timeout_max=patience * dice.choice([1.2, 1.5, 2.0]),
            in_flight_max=dice.choice([1, 2, 8]),
            trailing_entries=dice.choice([0, 1, 4]),
            snapshot_entries=dice.choice([1, 4]),
            catch_up_timeout=2.0,
            clock_drift_max=0.1,
            **dice.choice([{}, {"command_bytes_max": 100, "uncommitted_bytes_max": 100}]),
        )
        drift = self.settings.clock_drift_max
        self.peers = {
            name: Peer(Disk(), Disk(), 1 + dice.choice([-drift, 0.0, drift]), dice.uniform(0, 1000)) for name in NAMES
        }
        self.flight = []  # (sender, to, message)
        self.old = deque(maxlen=OLD_MAX)  # the same, of those that have arrived
        self.late = []  # (when, the same, of those that were kept back)
        self.shipping = []  # (sender, life, to, message)
        self.reading = {}  # (name, to): (life, the entries offered, which are being read from the disk)
        self.cut = set()
        self.alone = None  # a leader that was cut off from all others
        self.promises = Promises()
        self.absent = None  # who stays away when all is well
        self.leaders = {}  # term: who led it
        self.speakers = {}  # term: who spoke as its leader; perhaps only after it led no longer
        self.committed = {}  # index: (term, payload, by whom it was first seen committed: the term)
        self.floors = {}  # (name, life, read): how much was committed when it was asked
        self.highest = 0
        self.number = 0
        self.counts = dict.fromkeys(("elections", "commits", "reads", "leases", "changes", "installs"), 0)
        self.pace = dice.choice([0.001, 0.003, 0.01, 0.02])
        self.loss = dice.choice([0.0, 0.05, 0.1, 0.3])
        self.repetition = dice.choice([0.0, 0.03, 0.1, 0.3])
        self.disorder = dice.choice([0.0, 0.3, 1.0])
        self.briskness = dice.choice([0.4, 0.8, 0.8])
        self.haste = dice.choice([0.3, 0.9])
        self.deeds = self.draw_deeds()
        # Where entries are read from the disk they are attached late. With dice of their own: no other walk is another.
        self.disk_dice = random.Random(f"disk {seed}")
        self.read_share = self.disk_dice.choice([0.0, 0.0, 0.0, 0.3])
        for name in NAMES:
            self.start(name)
        founders = self.involved = NAMES[: dice.choice([1, 3, 3, 4, 5, 5])]
        configuration = Configuration("group", tuple(self.member(name) for name in founders))
        for name in founders:
            self.peers[name].raft.form(configuration, self.clock(name))
            self.obey(name)
            self.persist(name)

    @staticmethod
    def member(name, kind="voter", priority=0):
        return Member(name, Address(name, "127.0.0.1", 7000 + int(name)), kind, priority)

    def clock(self, name):
        peer = self.peers[name]
        return peer.offset + self.now * peer.rate

    # Starting, inputs, and obeying.

    def start(self, name):
        peer = self.peers[name]
        peer.memory = peer.disk.copy()
        peer.raft = Raft(name, self.settings, peer.disk.stored(), self.dice.random, self.clock(name))
        peer.facts = facts(peer.raft.state)
        peer.commit = peer.applied = peer.raft.state.commit_index
        peer.life += 1
        self.obey(name)

    def crash(self, name):
        peer = self.peers[name]
        peer.raft = None
        peer.writes.clear()
        peer.snapshots.clear()
        self.reading = {key: read for key, read in self.reading.items() if key[0] != name}
        self.floors = {key: floor for key, floor in self.floors.items() if key[0] != name}

    def give(self, name, act):
        peer = self.peers[name]
        act(peer.raft)
        self.check(name)
        if self.dice.random() < self.haste:
            self.obey(name)

    def obey(self, name):
        peer = self.peers[name]
        for _ in range(8):
            ready = peer.raft.ready()
            if ready.writes or ready.messages:
                self.check(name)
            peer.memory.write(ready)
            if ready.compaction and ready.compaction.replaces_log:
                assert ready.compaction.snapshot.index > peer.applied, "a snapshot takes nothing back"
                peer.applied = ready.compaction.snapshot.index
                peer.snapshots.clear()
                self.counts["installs"] += 1
            if ready.writes or ready.commit_index != peer.commit:
                self.check_memory(name, peer)
            for envelope in ready.messages:
                self.send(name, envelope, may_attach_less=True)
            if ready.writes or ready.messages_after_persist:
                peer.writes.append(ready)
            peer.commit = ready.commit_index
            for read in ready.reads:
                floor = self.floors.pop((name, peer.life, read.id))
                assert read.index >= floor, f"{name} reads at {read.index} when {floor} was committed before"
                self.counts["reads"] += 1
            for read in ready.dropped:
                del self.floors[name, peer.life, read]
            if not ready.messages:
                return

    def send(self, name, envelope, *, may_attach_less=False):
        peer, message = self.peers[name], envelope.message
        if isinstance(message, AppendEntries | InstallSnapshot):
            speaker = self.speakers.setdefault(message.term, name)
            assert speaker == name, (
                f"election safety: {speaker} and {name} both speak as leaders of term {message.term}"
            )
        if isinstance(message, InstallSnapshot):
            self.shipping.append((name, peer.life, envelope.to, message))
            return
        if not envelope.first:
            self.post(name, envelope.to, message)
        elif (name, envelope.to) not in self.reading:  # Else what is being read goes first.
            if self.disk_dice.random() < self.read_share:
                self.reading[name, envelope.to] = (peer.life, envelope)
            else:
                self.attach(name, envelope, may_attach_less=may_attach_less)

    def attach(self, name, envelope, *, may_attach_less):
        """Send entries as far as they are held, if they are still owed; tell whether they are."""
        peer, message, last = self.peers[name], envelope.message, envelope.last
        role = peer.raft.state.role
        follows = isinstance(role, Leader) and envelope.to in role.progress
        if message.term != peer.raft.state.term or not follows or envelope.first <= peer.memory.start:
            return False
        if may_attach_less and self.dice.random() < 0.2:
            last = self.dice.randint(envelope.first, last)
            peer.raft.sent(envelope.to, last)
        runs = [peer.memory.runs[index] for index in range(envelope.first, last + 1)]
        if role.progress[envelope.to].is_witness:
            runs = [run.without_commands() for run in runs]
        self.post(name, envelope.to, msgspec.structs.replace(message, entries=join(runs)))
        return True

    def post(self, name, to, message):
        self.promises.note_sent(name, to, message, self.peers[name].disk)
        if self.dice.random() >= self.loss:
            self.flight.append((name, to, message))

    def read_on(self):
        for name, to in [key for key in self.reading if self.disk_dice.random() < 0.2]:
            self.finish_reading(name, to)

    def finish_reading(self, name, to):
        """Send what was read from the disk: some of what was offered, as far as that was durable."""
        life, offered = self.reading.pop((name, to))
        peer = self.peers[name]
        if peer.raft is None or peer.life != life or peer.raft.state.term != offered.message.term:
            return
        last = min(self.disk_dice.randint(offered.first, offered.last), peer.raft.state.persisted_index)
        if last < offered.first or not self.attach(
            name, msgspec.structs.replace(offered, last=Index(last)), may_attach_less=False
        ):
            last = offered.first - 1
        if last < peer.raft.state.log.last:
            self.give(name, lambda raft: raft.sent(to, Index(last)))

    def persist(self, name):
        peer = self.peers[name]
        ready = peer.writes.popleft()
        peer.disk.write(ready)
        for envelope in ready.messages_after_persist:
            self.send(name, envelope)
        if ready.writes:
            self.give(name, lambda raft: raft.persisted(ready.number))

    def deliver(self, place):
        sender, to, message = self.flight.pop(place)
        if self.dice.random() < self.repetition:
            self.flight.append((sender, to, message))
        self.old.append((sender, to, message))
        if (sender, to) not in self.cut:
            self.arrive(sender, to, message)

    def arrive(self, sender, to, message):
        if self.peers[to].raft is not None:
            self.give(to, lambda raft: self.receive(raft, sender, message))

    def receive(self, raft, sender, message):
        state = raft.state
        committed, vote, waiting = state.commit_index, state.hard_state, len(state.outbox.messages)
        raft.receive(sender, message, self.clock(state.peer))
        check_answers(message, committed, state, state.outbox.messages[waiting:])
        self.promises.check_patience(state.peer, state, vote, message)

    def tick(self, name):
        self.give(name, lambda raft: raft.tick(self.clock(name)))

    def ship(self, place, *, works):
        sender, life, to, message = self.shipping.pop(place)
        arrives = works and self.peers[to].raft is not None and (sender, to) not in self.cut
        if arrives:
            self.give(to, lambda raft: self.receive(raft, sender, message))
            if self.dice.random() < 0.1:
                self.shipping.append((sender, -1, to, message))
        peer = self.peers[sender]
        if peer.raft is not None and peer.life == life:
            self.give(sender, lambda raft: raft.shipped(to, message.snapshot.index, is_complete=arrives))

    # Clients.

    def leading(self):
        """Give those that take themselves for leaders."""
        return [n for n in self.involved if self.peers[n].raft and isinstance(self.peers[n].raft.state.role, Leader)]

    def write(self, name):
        self.propose(self.dice.choice(self.leading() or [name]))

    def propose(self, name):
        self.number += 1
        payloads = [b"%d" % self.number] * self.dice.choice([1, 1, 3])
        self.try_to(name, lambda raft: check_bound(raft.propose(payloads, self.clock(name)), raft.state))

    def try_to(self, name, act):
        try:
            self.give(name, act)
        except (NotLeader, ConfigurationError):
            self.check(name)
            return False
        return True

    def read(self, name, *, by_lease=False):
        def ask(raft):
            read = raft.read(self.clock(name), by_lease=by_lease)
            self.floors[name, self.peers[name].life, read] = self.highest
            if by_lease and raft.state.outbox.reads and raft.state.outbox.reads[-1].id == read:
                self.counts["leases"] += 1
                self.promises.check_lease(name, raft.state, self.clock)

        self.try_to(name, ask)

    def change(self, name):
        chosen = self.dice.sample(NAMES, self.dice.randint(1, 5))
        kinds = ["voter", "voter", "voter", "learner", "witness"]
        members = [self.member(n, self.dice.choice(kinds), self.dice.choice([0, 0, 1])) for n in chosen]
        if self.try_to(name, lambda raft: raft.change(members, self.clock(name))):
            self.counts["changes"] += 1
            self.involved = sorted({*self.involved, *chosen})

    def apply(self, name):
        peer = self.peers[name]
        index = peer.applied + 1
        run = peer.memory.runs[index]
        seen = self.committed.get(index)
        if seen is not None and run.kind is not Kind.BARE:
            assert seen[:2] == (run.term, run.payloads[0]), f"{name} applies another entry at {index}"
        peer.applied = index

    def take_snapshot(self, name):
        peer = self.peers[name]
        if peer.applied > peer.raft.state.snapshot_index:
            peer.snapshots.append(peer.raft.snapshot_at(Index(peer.applied), 0.0))

    def finish_snapshot(self, name):
        if self.peers[name].snapshots:
            snapshot = self.peers[name].snapshots.pop(0)
            self.give(name, lambda raft: raft.compacted(snapshot))

    # Checks.

    def check(self, name):
        peer = self.peers[name]
        state = peer.raft.state
        check(state)
        after = facts(state)
        check_step(peer.facts, after)
        before, peer.facts = peer.facts, after
        assert state.uncommitted_bytes == sum(size for _, size in state.uncommitted), "what waits is counted"
        self.promises.check_kept(name, state)
        if after.is_leader:
            if not before.is_leader or before.hard_state.term < after.hard_state.term:
                self.promises.check_elected(name, state, self.peers, self.clock)
            self.promises.check_matches(name, state, self.peers)
        self.highest = max(self.highest, state.commit_index)
        # A lone voter wins its election before its vote is durable: nobody hears of that, and it may win it once more.
        if isinstance(state.role, Leader) and state.durable.term == state.term:
            self.check_leader(name, state)
        if isinstance(state.role, Follower) and state.role.leader is not None:
            follows = state.role.leader
            assert self.speakers.get(state.term) == follows, f"{name} follows {follows}, who does not lead {state.term}"

    def check_leader(self, name, state):
        if state.term in self.leaders:
            assert self.leaders[state.term] == name, f"election safety: two lead term {state.term}"
            return
        self.leaders[state.term] = name
        self.counts["elections"] += 1
        for index, (term, _, by) in self.committed.items():
            held = index < state.log.start or (index <= state.log.last and state.log.term(Index(index)) == term)
            assert held or by >= state.term, f"leader completeness: {name} leads {state.term} without {index}"

    def check_memory(self, name, peer):
        """Check that the log is what was handed out for writing, and note what is committed."""
        state, memory = peer.raft.state, peer.memory
        assert (state.log.start, state.log.last) == (memory.start, memory.last), "the log is what was handed out"
        for index in range(memory.start + 1, memory.last + 1):
            assert state.log.term(Index(index)) == memory.runs[index].term, "the log is what was handed out"
        held = memory.compaction.snapshot if memory.compaction else None
        found = [(held.configuration_index, held.configuration)] if held else []
        found += [pair for pair in memory.configurations() if not held or pair[0] > held.index]
        expected = [(index, decode_configuration(payload)) for index, payload in found]
        assert state.configurations == expected, "configurations are those of the log"
        for index in range(memory.start + 1, state.commit_index + 1):
            run = memory.runs[index]
            if index not in self.committed:
                if run.kind is Kind.BARE:
                    continue  # a witness does not know what the command is
                self.committed[index] = (run.term, run.payloads[0], state.term)
                self.counts["commits"] += 1
            term, payload, _ = self.committed[index]
            same = term == run.term and (run.kind is Kind.BARE or payload == run.payloads[0])
            assert same, f"state machine safety: {name} holds another entry {index} committed"
        if held and held.index in self.committed:
            assert self.committed[held.index][0] == held.term, "a snapshot is of what was committed"

    # The walk.

    def step(self):
        dice = self.dice
        self.now += dice.expovariate(1 / self.pace)
        for name in self.involved:
            peer = self.peers[name]
            if peer.raft and peer.raft.deadline() <= self.clock(name) and dice.random() < 0.7:
                self.tick(name)
        for due in [kept for when, kept in self.late if when <= self.now]:
            for sender, to, message in due:
                self.arrive(sender, to, message)
        self.late = [(when, kept) for when, kept in self.late if when > self.now]
        self.read_on()
        for _ in range(4):
            if self.flight and dice.random() < self.briskness:
                place = dice.randrange(len(self.flight)) if dice.random() < self.disorder else 0
                self.deliver(place)
        if self.shipping and dice.random() < 0.1:
            self.ship(dice.randrange(len(self.shipping)), works=dice.random() < 0.7)
        name = dice.choice(self.involved)
        if self.peers[name].raft is not None:
            self.move(name, self.peers[name])
            self.act(name, dice.random())
        elif dice.random() < 0.1:
            self.start(name)

    def move(self, name, peer):
        """Let one peer's shell go on: its core's wishes, its disk, its machine."""
        dice = self.dice
        if dice.random() < 0.3:
            self.obey(name)
        if peer.writes and dice.random() < 0.7:
            self.persist(name)
        for _ in range(dice.choice([0, 1, 5])):
            if peer.applied < peer.commit:
                self.apply(name)

    def draw_deeds(self):
        """Draw how often each deed is done in this walk: in a share of the steps that all of them hardly fill."""
        dice, trouble = self.dice, 0.005 * self.dice.choice([0.2, 1.0, 1.0, 3.0])
        deeds = [
            (0.15, self.write),
            (0.05, self.read),
            (0.10, self.read_by_lease),
            (0.02, self.take_snapshot),
            (0.03, self.finish_snapshot),
            (0.01, self.change),
            (trouble, self.transfer),
            (2 * trouble, self.part),
            (trouble, self.strand),
            (0.02, self.echo),
            (0.01, self.hold),
            (trouble, self.crash),
            (trouble, self.restart),
            (trouble, self.stall),
            (2 * trouble, self.lose),
        ]
        drawn = [(share * dice.choice([0.0, 0.3, 1.0, 1.0, 3.0]), deed) for share, deed in deeds]
        drawn.append((dice.choice([0.01, 0.05]), self.heal))
        most = max(1.0, sum(share for share, _ in drawn))
        return [(share / most, deed) for share, deed in drawn]

    def act(self, name, chance):
        """Do what comes next on a scale from 0 to 1; beyond what is listed nothing is done."""
        for share, deed in self.deeds:
            chance -= share
            if chance < 0:
                deed(name)
                return

    def read_by_lease(self, name):
        self.read(self.dice.choice([name, *self.leading()]), by_lease=True)

    def echo(self, name):
        """Let a message that has arrived come once more: one of another term than its receiver's, if there is one."""
        if self.old:
            of_another = self.dice.random() < 0.5 and [packet for packet in self.old if self.is_of_another_term(packet)]
            self.flight.append(self.dice.choice(of_another or self.old))

    def is_of_another_term(self, packet):
        _, to, message = packet
        peer = self.peers[to]
        return peer.raft and not isinstance(message, RequestPreVote) and message.term != peer.raft.state.term

    def hold(self, name):
        """Keep back what is on its way from one peer, or to it: it comes late, whatever links are cut by then."""
        end = self.dice.randrange(2)
        kept = [packet for packet in self.flight if packet[end] == name]
        self.flight = [packet for packet in self.flight if packet[end] != name]
        self.late.append((self.now + self.dice.uniform(0, 4 * self.settings.election_timeout_min), kept))

    def heal(self, name):
        """Mend all links; seldom before those that a leader was cut off from have found another."""
        if self.alone is None or len(self.leading()) != 1 or self.dice.random() < 0.2:
            self.cut, self.alone = set(), None

    def transfer(self, name):
        to = self.dice.choice([None, *self.involved])
        self.try_to(name, lambda raft: raft.transfer(to, self.clock(name)))

    def lose(self, name):
        """Tell one peer, or all at once, that another cannot be reached, rightly or not: most often its leader."""
        leader = self.peers[name].raft.state.leader
        lost = leader if leader and self.dice.random() < 0.8 else self.dice.choice(self.involved)
        for told in self.involved if self.dice.random() < 0.3 else [name]:
            if self.peers[told].raft is not None:
                self.give(told, lambda raft, told=told: raft.unreachable(lost, self.clock(told)))

    def part(self, name):
        """Cut some links of one peer, or all between two halves, or one of a leader's; in one direction or in both."""
        self.alone = None
        if self.dice.random() < 0.3 and self.leading():
            leader = self.dice.choice(self.leading())
            self.cut = {(leader, name), (name, leader)} if self.dice.random() < 0.7 else {(leader, name)}
            return
        is_halved = self.dice.random() < 0.3
        apart = self.dice.sample(self.involved, len(self.involved) // 2) if is_halved else [name]
        share, one_way = (1.0, 0.05) if is_halved else (0.7, 0.3)
        links = [(one, other) for one in apart for other in self.involved if other not in apart]
        self.cut = {link for link in links if self.dice.random() < share}
        self.cut |= {(b, a) for a, b in sorted(self.cut) if self.dice.random() >= one_way}

    def strand(self, name):
        """Leave a leader alone, and mend all other links; it may take writes that nobody else will have, or too late.

        One that follows on a leader which is alone already is the next.
        """
        leading = [leader for leader in self.leading() if leader != self.alone]
        if self.alone and not leading:
            return
        self.alone = alone = self.dice.choice(leading or [name])
        links = [(alone, other) for other in self.involved if other != alone]
        for _ in range(self.dice.randrange(4)):
            self.propose(alone)
        if self.dice.random() < 0.5 and self.peers[alone].raft is not None:
            self.obey(alone)
            self.hold(alone)
        self.cut = {*links, *((other, alone) for _, other in links)}

    def restart(self, name):
        """Crash, and be back at once."""
        self.crash(name)
        self.start(name)

    def stall(self, name):
        """Let time pass in which nobody moves."""
        self.now += self.dice.uniform(0, 0.5)

    def calm(self, span, enough=lambda: False):
        """Let all be well, for so long or until it is enough: messages arrive in order, disks are quick, all are up."""
        self.loss = self.repetition = 0.0
        self.haste = 1.0
        self.cut = set()
        for name, peer in self.peers.items():
            if peer.raft is None and name != self.absent:
                self.start(name)
        end = self.now + span
        while self.now < end and not enough():
            self.now += 0.01
            for name, peer in self.peers.items():
                if peer.raft is not None:
                    self.go_on(name, peer)
            for _ in range(len(self.flight)):
                self.deliver(0)
            for _ in range(len(self.shipping)):
                self.ship(0, works=True)

    def go_on(self, name, peer):
        """Let one peer do all that it has to do, with a quick disk."""
        self.obey(name)
        for key in [key for key in self.reading if key[0] == name]:
            self.finish_reading(*key)
        while peer.writes:
            self.persist(name)
        while peer.applied < peer.commit:
            self.apply(name)
        if peer.raft.deadline() <= self.clock(name):
            self.tick(name)

    def is_well(self):
        """Tell whether one peer leads, and all that are to know what it knows do."""
        leaders = [self.peers[name].raft.state for name in self.leading()]
        if len(leaders) != 1 or not leaders[0].configuration.is_settled or leaders[0].role.transfer:
            return False
        everyone = leaders[0].configuration.everyone
        members = [(member, self.peers[member.id].raft.state) for member in everyone if member.id != self.absent]
        return all(
            (state.commit_index == self.highest and state.configuration == leaders[0].configuration)
            or (state.bare and member.kind == "learner")
            for member, state in members
        ) and not self.waiting(leaders[0].configuration)

    def waiting(self, configuration):
        """Give the reads that wait at members."""
        return {key for key in self.floors if key[0] in {member.id for member in configuration.everyone}}

    def dispensable(self):
        """Give those without whom a majority is left of all that may be in force anywhere; nobody beside witnesses.

        A witness votes for nobody who lacks what it holds, and cannot lead: there one more may be needed.
        """
        found = []
        for peer in self.peers.values():
            states = [] if peer.raft is None else peer.raft.state.configurations
            held = [decode_configuration(payload) for _, payload in peer.disk.configurations()]
            if peer.disk.compaction:
                held.append(decode_configuration(peer.disk.compaction.snapshot.configuration))
            found += [*(configuration for _, configuration in states), *held]
        if any(member.kind == "witness" for configuration in found for member in configuration.everyone):
            return []
        groups = [group for configuration in found for group in configuration.groups]
        return [name for name in self.involved if all(len(group) > 2 for group in groups if name in group)]

    def run(self, steps):
        """Walk that many steps, then let all be well, but for one peer perhaps, and see that the group is."""
        for _ in range(steps):
            self.step()
        self.absent = self.dice.choice([None, *self.dispensable()])
        if self.absent:
            self.crash(self.absent)
        self.calm(5.0, self.is_well)
        before = self.highest
        leaders = self.leading()
        assert len(leaders) == 1, f"when all is well somebody leads, not {leaders}"
        state = self.peers[leaders[0]].raft.state
        assert state.configuration.is_settled, f"a change comes to its end: {state.configuration}"
        if state.role.transfer is None:
            self.propose(leaders[0])
            self.calm(1.0, lambda: self.highest > before and self.is_well())
        assert self.highest > before or state.role.transfer, "when all is well writes are committed"
        current = state.configuration
        for member in current.everyone:
            if member.id == self.absent:
                continue
            other = self.peers[member.id].raft.state
            if other.bare and member.kind == "learner":
                continue  # it was a witness: it takes nothing before its data directory was emptied
            assert other.commit_index == self.highest, f"{member.id} catches up: {other.commit_index}/{self.highest}"
            assert other.configuration == current, f"{member.id} knows the members"
        waiting = self.waiting(current)
        assert not waiting, f"reads are answered or dropped: {waiting}"
        return self.counts
