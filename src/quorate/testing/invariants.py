"""What is true of several peers together, over all that ever happened: Raft's Figure 3, and what clients were told.

``History`` is shown every input of every peer, every batch on every disk, every message before it leaves, every
snapshot, every entry applied and every call answered. Each check costs a few comparisons: what agreed once is not
compared again. What is true of one peer alone is in ``core/invariants.py``. Knows no time and no network.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from quorate.apply import Apply
from quorate.calling import describe
from quorate.context import Context
from quorate.core import Configuration
from quorate.core.configuration import decode_configuration
from quorate.core.invariants import Facts, check, check_step, facts
from quorate.core.quorum import Voters
from quorate.core.state import Leader, State
from quorate.errors import MachineError, Rejected
from quorate.events import Emitted
from quorate.firing import fire_due
from quorate.machine import StateMachine
from quorate.store import Batch
from quorate.tables import encode_tables
from quorate.testing.books import Book, Entry, Piece, broken_promise, digests, majorities
from quorate.testing.effects import Effects
from quorate.testing.machine.canonical import canonical
from quorate.testing.machine.contract import state_of
from quorate.transport import Packet
from quorate.types import HardState, Index, Kind, PeerId, Run, Snapshot, Term

DIGEST_EVERY = 4
"""Machines are compared when the last index of a batch that was applied is a multiple of this."""


class Violation(Exception):
    """Something happened that must never happen.

    Attributes:
        invariant: its name in the literature, such as ``ElectionSafety``.
    """

    def __init__(self, invariant: str, text: str) -> None:
        """Name what was violated, and say how."""
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class History:
    """All that happened in one group, and may not be contradicted.

    Attributes:
        violation: the first one; None as long as all is well.
        events: inputs to peers that were checked.
        committed: every entry that any peer ever held committed, from index 1 on.
        committed_in: the term in which each of them was. Invariant: ascending.
        configurations: the index and payload of every configuration that was committed. Invariant: ascending.
        runs: what the first machine to apply it applied, from index 1 on.
        leaders: who led each term.
        books: what each disk holds, by the peer's name.
    """

    def __init__(self, names: Sequence[str], alarm: Callable[[], None]) -> None:
        """Begin before anything has happened; ``alarm`` is called at the first violation."""
        self.violation: Violation | None = None
        self.events: int = 0
        self.committed: list[Entry] = []
        self.committed_in: list[Term] = []
        self.configurations: list[tuple[Index, bytes]] = []
        self.runs: list[Run] = []
        self.leaders: dict[Term, PeerId] = {}
        self.books: dict[str, Book] = {name: Book() for name in names}
        self._alarm = alarm
        self._entries: dict[tuple[int, Term], tuple[Term, int | None]] = {}
        self._payloads: dict[tuple[int, Term], bytes] = {}
        self._places: dict[int, int] = {}
        self._refused: dict[int, str] = {}
        self._proposed: Counter[int] = Counter()
        self._machines: dict[Index, tuple[int, str]] = {}
        self._states: dict[PeerId, State] = {}
        self._effects = Effects()

    def fail(self, invariant: str, text: str) -> Violation:
        """Note a violation, and give what to raise: whoever catches that cannot undo the note."""
        violation = Violation(invariant, text)
        if self.violation is None:
            self.violation = violation
            self._alarm()
        return violation

    # Peers.

    def started(self, name: str, state: State) -> None:
        """Check that a peer starts from what its disk holds.

        Raises:
            Violation: it does not.
        """
        book, log = self.books[name], state.log
        self._states[state.peer] = state
        book.peer = state.peer
        held = [(term, first) for first, term in zip(log.starts, log.terms, strict=True)]
        here = (log.start, log.start_term, held, log.last, state.hard_state)
        durable = book.durable
        if here != (durable.start, durable.start_term, durable.stretches(), durable.last, book.hard_state):
            raise self.fail("DiskTruth", f"{name} starts with another log, term or vote than its disk holds")

    def stepped(self, name: str, state: State, before: Facts, groups: Voters) -> Facts:
        """Check one peer after one input; give what the next step is compared with.

        Args:
            name: the peer.
            state: its state.
            before: what was true of it before.
            groups: whose majorities decided before.

        Raises:
            Violation: something is wrong.
        """
        self.events += 1
        after = facts(state)
        try:
            check(state)
            check_step(before, after)
        except AssertionError as error:
            raise self.fail("CoreInvariants", f"{name}: {error}") from error
        if after.is_leader and not (before.is_leader and before.hard_state.term == after.hard_state.term):
            self._elected(name, state)
        if after.commit_index > before.commit_index:
            self._commits(name, state, groups)
        if groups is not state.groups:
            self._reconfigures(name, state)
        return after

    def _elected(self, name: str, state: State) -> None:
        """Check that nobody else led this term, and that the new leader holds all that earlier terms committed.

        One that was paused may count its votes when a later term has long begun: of that it need not know.

        Raises:
            Violation: it is not so.
        """
        if self.leaders.setdefault(state.term, state.peer) != state.peer:
            raise self.fail("ElectionSafety", f"{name} is the second leader of term {state.term} (§5.2)")
        last = bisect_left(self.committed_in, state.term)
        log = state.log
        # Log matching: if the last committed entry is there, all before it are.
        if log.last < last or (last > log.start and log.term(Index(last)) != self.committed[last - 1][0]):
            raise self.fail("LeaderCompleteness", f"{name} leads term {state.term} without entry {last} (§5.4)")

    def _commits(self, name: str, state: State, groups: Voters) -> None:
        """Check that what a peer holds committed is durable on a quorum, and is what others hold committed.

        Whoever is the first to hold it committed leads, and the quorum is one of the configuration it had in force.

        Raises:
            Violation: it is not so.
        """
        log = state.log
        for index in range(len(self.committed) + 1, state.commit_index + 1):
            term = log.term(Index(index))
            books = self.books.values()
            holders = {book.peer for book in books if book.peer and book.durable.holds(index, term)}
            if not majorities(groups, holders):
                text = f"{name} holds entry {index} of term {term} committed, and it is durable on {len(holders)} alone"
                raise self.fail("CommittedOnQuorum", f"{text} (§5.3; joint: a majority of each group, thesis 4.3)")
            self.committed.append((term, self._entries[index, term][1]))
            self.committed_in.append(state.term)
            payload = self._payloads.get((index, term))
            if payload is not None:
                self.configurations.append((Index(index), payload))
        if log.term(state.commit_index) != self.committed[state.commit_index - 1][0]:
            raise self.fail("StateMachineSafety", f"{name} holds another entry {state.commit_index} committed (§5.4.3)")

    def _reconfigures(self, name: str, state: State) -> None:
        """Check that one change is under way at a time, and that none began before its leader knew what is committed.

        Raises:
            Violation: it is not so.
        """
        if len(state.configurations) < 2:
            return
        index, (before, _) = state.configurations[-1][0], state.configurations[-2]
        if before > len(self.committed):
            text = f"{name} has configuration {index} in force, and {before} is not committed"
            raise self.fail("OneChangeAtATime", f"{text} (thesis 4.1)")
        role = state.role
        if isinstance(role, Leader) and index >= role.first_index and self.committed_in[-1] < state.term:
            text = f"{name} changes the members in term {state.term} before it has committed an entry of it"
            raise self.fail("ChangeAfterCommit", f"{text} (the fault found in 2015)")

    def check_read(self, name: str, index: Index, floor: int) -> None:
        """Check that a read sees all that was committed, anywhere, when it was asked.

        Args:
            name: the peer that answers it.
            index: the read index.
            floor: how much was committed when the peer was asked.

        Raises:
            Violation: it does not.
        """
        if index < floor:
            text = f"{name} reads at index {index}, and {floor} was committed before it was asked (thesis 6.4)"
            raise self.fail("ReadFloor", text)

    def check_snapshot(self, name: str, snapshot: Snapshot) -> None:
        """Check that a snapshot stands for what is committed, the configuration in it too.

        Raises:
            Violation: it does not.
        """
        place = bisect_right(self.configurations, snapshot.index, key=lambda found: found[0])
        latest = self.configurations[place - 1] if place else None
        is_committed = snapshot.index <= len(self.committed) and snapshot.term == self.committed[snapshot.index - 1][0]
        if not is_committed or latest != (snapshot.configuration_index, snapshot.configuration):
            raise self.fail(
                "SnapshotIsCommitted", f"{name} has a snapshot {snapshot.index} of what is not committed (§7)"
            )

    # Disks.

    def wiped(self, name: str) -> None:
        """Note that a disk was emptied: whoever starts from it is another peer."""
        self.books[name] = Book()

    def written(self, name: str, batch: Batch, *, is_witness: bool = False) -> None:
        """Check a batch that was appended to a peer's log.

        Args:
            name: the peer.
            batch: what was appended.
            is_witness: whether the peer's own log names it as a witness, or as one to be.

        Raises:
            Violation: it contradicts another peer's log, or leaves a hole, or holds what a witness is not to have.
        """
        if is_witness and any(run.kind is Kind.COMMAND for run in batch.runs):
            raise self.fail("WitnessHoldsNoData", f"{name} is a witness, and was sent what commands say")
        book, entries = self.books[name], list[Entry]()
        log = book.written
        if batch.compaction is not None:
            self.check_snapshot(name, batch.compaction.snapshot)
            log.compact(batch.compaction)
        first = batch.runs[0].first if batch.runs else Index(0)
        if batch.runs:
            if not log.start < first <= log.last + 1:
                raise self.fail("NoHole", f"{name} writes entry {first} behind entry {log.last}")
            log.cut(first)
        previous = log.last_term
        for run in batch.runs:
            for index, digest in enumerate(digests(run), run.first):
                self._compare(name, index, run.term, previous, digest)
                if run.kind is Kind.CONFIGURATION:
                    self._payloads[index, run.term] = run.payloads[index - run.first]
                entries.append((run.term, digest))
                previous = run.term
        log.held += entries
        book.pieces.append(Piece(batch.hard_state, batch.compaction, first, entries))

    def _compare(self, name: str, index: int, term: Term, previous: Term, digest: int | None) -> None:
        """Check that an entry, and the term of the one before it, are the same on every disk.

        Raises:
            Violation: they are not.
        """
        known = self._entries.get((index, term))
        if known is None or (known[0] == previous and known[1] is None):
            self._entries[index, term] = (previous, digest)
        elif known[0] != previous or digest not in (None, known[1]):
            raise self.fail("LogMatching", f"entry {index} of term {term} is another on {name} (§5.3)")

    def persisted(self, name: str, count: int) -> None:
        """Check what became durable on a peer's disk.

        Raises:
            Violation: a vote was changed, or a committed entry overwritten.
        """
        book = self.books[name]
        for _ in range(count):
            piece = book.pieces.popleft()
            if piece.hard_state is not None:
                self._check_hard_state(name, book.hard_state, piece.hard_state)
            self._check_overwritten(name, book, piece)
            book.persist(piece)

    def check_disk(self, name: str, runs: Iterable[Run]) -> None:
        """Check that a peer's disk gives back what was written to it, when nothing is on its way there.

        Raises:
            Violation: it gives back something else.
        """
        if [(run.term, digest) for run in runs for digest in digests(run)] != self.books[name].durable.held:
            raise self.fail("DiskTruth", f"the disk of {name} gives back another log than was written to it")

    def check_kept(self, name: str, holds: Callable[[Snapshot], bool]) -> None:
        """Check that the snapshot which a peer's durable log begins with is there; ``holds`` tells of each.

        Raises:
            Violation: it is gone.
        """
        snapshot = self.books[name].snapshot
        if snapshot is not None and not holds(snapshot):
            raise self.fail(
                "SnapshotIsKept", f"snapshot {snapshot.index}, which the log of {name} begins with, is gone"
            )

    def forgot(self, name: str) -> None:
        """Note that a crash lost what was not durable.

        A lone voter wins its term and writes the first entries of it in one batch. If that is lost nobody knows of
        them, and it may lead the same term again with others; or another may, where both vote by now.
        """
        book = self.books[name]
        lost = [term for term, leader in self.leaders.items() if leader == book.peer and term > book.hard_state.term]
        for piece in book.pieces:
            for index, (term, _) in enumerate(piece.entries, piece.first):
                if term in lost:
                    self._entries.pop((index, term), None)
                    self._payloads.pop((index, term), None)
        for term in lost:
            del self.leaders[term]
        book.forget()

    def _check_hard_state(self, name: str, before: HardState, after: HardState) -> None:
        """Check that the term on a disk never falls, and that the vote in it is never another.

        Raises:
            Violation: it is not so.
        """
        if after.term < before.term:
            raise self.fail("TermMonotonic", f"{name} was in term {before.term}, and writes term {after.term}")
        if after.term == before.term and before.voted_for not in (None, after.voted_for):
            raise self.fail("VoteOnce", f"{name} changes its vote in term {after.term} (§5.2)")

    def _check_overwritten(self, name: str, book: Book, piece: Piece) -> None:
        """Check that a disk that holds a committed entry keeps it, or a snapshot that stands for it.

        Only from the term on in which the entry was committed: before, it was not counted, and its leader may lack it.

        Raises:
            Violation: it does not.
        """
        log, low = book.durable, piece.first if piece.entries else book.durable.last + 1
        if piece.compaction is not None and piece.compaction.replaces_log:
            low = piece.compaction.start + 1
        committed = bisect_right(self.committed_in, (piece.hard_state or book.hard_state).term)
        for index in range(max(low, log.start + 1), min(log.last, committed) + 1):
            if log.entry(index)[0] == self.committed[index - 1][0] != piece.kept(index, log):
                raise self.fail("AckedDurable", f"{name} overwrites entry {index}, which is committed (§5.4.3)")

    # Messages.

    def sent(self, name: str, packets: Sequence[Packet]) -> None:
        """Check that no message leaves before what it promises is durable.

        Raises:
            Violation: one does.
        """
        book = self.books[name]
        for packet in packets:
            broken = broken_promise(book, packet, self._states.get(packet.to))
            if broken:
                raise self.fail("PersistBeforeSend", f"{name} {broken}")

    # Members.

    @property
    def configuration(self) -> Configuration | None:
        """The latest configuration that was committed."""
        return decode_configuration(self.configurations[-1][1]) if self.configurations else None

    def possible_configurations(self) -> Iterator[Configuration]:
        """Give the configuration that is committed, and every later one that some disk holds: it may be yet."""
        if self.configurations:
            yield decode_configuration(self.configurations[-1][1])
        for (index, term), payload in self._payloads.items():
            logs = [book.written for book in self.books.values()]
            if index > len(self.committed) and any(log.last >= index and log.holds(index, term) for log in logs):
                yield decode_configuration(payload)

    # Machines and calls.

    def applies(self, name: str, runs: Sequence[Run], *, is_witness: bool) -> None:
        """Check entries before a peer's machine sees them.

        Raises:
            Violation: they are not committed, or another machine saw others.
        """
        for run in runs:
            if run.last > len(self.committed):
                raise self.fail("AppliedIsCommitted", f"{name} applies entry {run.last} before it is committed")
            for index, digest in enumerate(digests(run), run.first):
                if digest != self.committed[index - 1][1] and not (is_witness and digest is None):
                    raise self.fail("StateMachineSafety", f"{name} applies another entry {index} (§5.4.3)")
            noted = self.runs[-1].last if self.runs else Index(0)
            if run.last > noted and not is_witness:
                fresh = run.part(Index(noted + 1), run.last)
                self.runs.append(fresh)
                for index, _, command in self._effects.of(fresh):
                    self._note_applied(index, hash(command))

    def has_applied(self, name: str, apply: Apply) -> None:
        """Check that machines which applied as much are equal: now and then, and where a snapshot was taken.

        Raises:
            Violation: two are not.
        """
        if apply.last_applied % DIGEST_EVERY == 0 or apply.last_applied in self._machines:
            self.compare_machine(name, apply)

    def compare_machine(self, name: str, apply: Apply) -> None:
        """Check that a machine is what others are, or were, that applied as much.

        Raises:
            Violation: it is not.
        """
        if apply.is_witness:
            return
        digest = hash((machine_state(apply.machine), encode_tables(apply.tables)))
        known, other = self._machines.setdefault(apply.last_applied, (digest, name))
        if known != digest:
            text = f"the machines of {name} and {other} differ at index {apply.last_applied}"
            raise self.fail("MachinesEqual", f"{text}: is every handler deterministic?")

    def replayed(self, machine: type[StateMachine]) -> bytes:
        """Give the state of a machine of that class that runs all that was ever to take effect, one after the other."""
        return machine_state(self._replay(machine))

    def emitted(self, machine: type[StateMachine]) -> list[Emitted]:
        """Give the events that such a machine emits."""
        return self._replay(machine).effects.emitted

    def _replay(self, machine: type[StateMachine]) -> StateMachine:
        """Make that machine."""
        described, fresh, log, now = describe(machine), machine(), Effects(), 0.0
        for run in self.runs:
            now = max(now, run.time)
            _ = list(fire_due(described, fresh, now, run.first))
            for index, time, command in log.of(run):
                fresh.context = Context(time, index)
                with contextlib.suppress(Rejected, MachineError):
                    described.run_write(fresh, command)
        return fresh

    def called(self, command: bytes) -> None:
        """Note that a client writes a command."""
        self._proposed[hash(command)] += 1

    def acknowledged(self, command: bytes) -> int:
        """Check that a command that a client was told is written is committed; give its index.

        Raises:
            Violation: it is not.
        """
        place = self._places.get(hash(command))
        if place is None:
            raise self.fail("AckedDurable", "a client was told that its write happened, and no peer has applied it")
        return place

    def place(self, command: bytes) -> int | None:
        """Give the index at which a command took effect; None if it did not yet, or was written more than once."""
        return self._places.get(hash(command)) if self._proposed[hash(command)] == 1 else None

    def refused(self, command: bytes, error: str) -> None:
        """Check that a command of which a client was told that it certainly did not happen never does.

        Raises:
            Violation: it did.
        """
        key = hash(command)
        if self._proposed[key] > 1:
            return  # Somebody else wrote the same, and may have been luckier.
        if key in self._places:
            raise self.fail("RefusedIsFinal", f"a client was told {error}, and its write stands at {self._places[key]}")
        self._refused[key] = error

    def _note_applied(self, index: int, key: int) -> None:
        """Note where a command was applied first.

        Raises:
            Violation: a client was told that it never would be.
        """
        self._places[key] = index
        if key in self._refused and self._proposed[key] == 1:
            raise self.fail(
                "RefusedIsFinal", f"a client was told {self._refused[key]}, and its write stands at {index}"
            )


def machine_state(machine: StateMachine) -> bytes:
    """Give a machine's state in a form that can be compared, wherever it is held: in the machine, or in its class yet.

    The order of a set counts for nothing: one that was restored from a snapshot may well hold it in another.
    """
    return canonical(sorted(state_of(describe(type(machine)), machine).items())).encode()
