"""What is true of several peers together, over all that ever happened: Raft's Figure 3, and what clients were told.

``History`` is shown every input of every peer, every batch on every disk, every message before it leaves, every entry
applied and every call answered. Each check costs a few comparisons: what agreed once is not compared again. What is
true of one peer alone is in ``core/invariants.py``. Knows no time and no network.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from quorate.apply import Apply
from quorate.core.invariants import Facts, check, check_step, facts
from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from quorate.core.quorum import has_majority
from quorate.core.state import Leader, State
from quorate.machine import StateMachine
from quorate.store import Batch
from quorate.transport import Packet
from quorate.types import HardState, Index, PeerId, Run, Term

Entry = tuple[Term, int]
"""An entry as it is compared: its term, and a digest of all it holds."""

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


@dataclass(slots=True)
class Piece:
    """One batch as it is compared.

    Attributes:
        hard_state: term and vote, or None when they did not change.
        first: the index of the first entry; meaningless without entries.
        entries: what is written from there on.
    """

    hard_state: HardState | None
    first: Index
    entries: list[Entry]


@dataclass(slots=True)
class Book:
    """What one peer's disk holds.

    Attributes:
        peer: the peer's id; None before its first start.
        hard_state: term and vote that are durable.
        written: all entries, durable or not.
        durable: the entries that survive a crash.
        pieces: the batches that are not durable yet.
    """

    peer: PeerId | None = None
    hard_state: HardState = HardState()
    written: list[Entry] = field(default_factory=list)
    durable: list[Entry] = field(default_factory=list)
    pieces: deque[Piece] = field(default_factory=deque)


class History:
    """All that happened in one group, and may not be contradicted.

    Attributes:
        violation: the first one; None as long as all is well.
        events: inputs to peers that were checked.
        committed: every entry that any peer ever held committed, from index 1 on.
        committed_in: the term in which each of them was. Invariant: ascending.
        applied: the same as the machines saw it.
        leaders: who led each term.
        books: what each disk holds, by the peer's name.
    """

    def __init__(self, names: Sequence[str], alarm: Callable[[], None]) -> None:
        """Begin before anything has happened; ``alarm`` is called at the first violation."""
        self.violation: Violation | None = None
        self.events: int = 0
        self.committed: list[Entry] = []
        self.committed_in: list[Term] = []
        self.applied: list[int] = []
        self.leaders: dict[Term, PeerId] = {}
        self.books: dict[str, Book] = {name: Book() for name in names}
        self._alarm = alarm
        self._entries: dict[tuple[int, Term], tuple[Term, int]] = {}
        self._places: dict[int, int] = {}
        self._refused: dict[int, str] = {}
        self._proposed: Counter[int] = Counter()
        self._machines: dict[Index, tuple[int, str]] = {}
        self._states: dict[PeerId, State] = {}

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
        book = self.books[name]
        self._states[state.peer] = state
        book.peer = state.peer
        held = [(term, first) for first, term in zip(state.log.starts, state.log.terms, strict=True)]
        expected = stretches(book.durable)
        if held != expected or state.log.last != len(book.durable) or state.hard_state != book.hard_state:
            raise self.fail("DiskTruth", f"{name} starts with another log, term or vote than its disk holds")

    def stepped(self, name: str, state: State, before: Facts) -> Facts:
        """Check one peer after one input; give what the next step is compared with.

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
            self._commits(name, state)
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
        # Log matching: if the last committed entry is there, all before it are.
        if last and (state.log.last < last or state.log.term(Index(last)) != self.committed[last - 1][0]):
            raise self.fail("LeaderCompleteness", f"{name} leads term {state.term} without entry {last} (§5.4)")

    def _commits(self, name: str, state: State) -> None:
        """Check that what a peer holds committed is durable on a quorum, and is what others hold committed.

        Raises:
            Violation: it is not so.
        """
        log = state.log
        for index in range(len(self.committed) + 1, state.commit_index + 1):
            term = log.term(Index(index))
            held = [
                book.durable[index - 1]
                for book in self.books.values()
                if len(book.durable) >= index and book.durable[index - 1][0] == term
            ]
            if not has_majority(len(held), len(self.books)):
                text = f"{name} holds entry {index} of term {term} committed, and it is durable on {len(held)}"
                raise self.fail("CommittedOnQuorum", f"{text} of {len(self.books)} (§5.3)")
            self.committed.append(held[0])
            self.committed_in.append(state.term)
        if log.term(state.commit_index) != self.committed[state.commit_index - 1][0]:
            raise self.fail("StateMachineSafety", f"{name} holds another entry {state.commit_index} committed (§5.4.3)")

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

    # Disks.

    def written(self, name: str, batch: Batch) -> None:
        """Check a batch that was appended to a peer's log.

        Raises:
            Violation: it contradicts another peer's log, or leaves a hole.
        """
        book, entries = self.books[name], []
        first = batch.runs[0].first if batch.runs else Index(0)
        if batch.runs:
            if first > len(book.written) + 1:
                raise self.fail("NoHole", f"{name} writes entry {first} behind entry {len(book.written)}")
            del book.written[first - 1 :]
        previous = book.written[-1][0] if book.written else Term(0)
        for run in batch.runs:
            for index, payload in enumerate(run.payloads, run.first):
                digest = hash((run.kind, run.time, payload))
                known = self._entries.setdefault((index, run.term), (previous, digest))
                if known != (previous, digest):
                    raise self.fail("LogMatching", f"entry {index} of term {run.term} is another on {name} (§5.3)")
                entries.append((run.term, digest))
                previous = run.term
        book.written += entries
        book.pieces.append(Piece(batch.hard_state, first, entries))

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
                book.hard_state = piece.hard_state
            if piece.entries:
                self._check_overwritten(name, book, piece)
                del book.durable[piece.first - 1 :]
                book.durable += piece.entries

    def forgot(self, name: str) -> None:
        """Note that a crash lost what was not durable.

        A lone voter wins its term and writes the first entries of it in one batch. If that is lost nobody knows of
        them, and it may lead the same term again with others.
        """
        book = self.books[name]
        for piece in book.pieces:
            for index, (term, _) in enumerate(piece.entries, piece.first):
                if term > book.hard_state.term and self.leaders.get(term) == book.peer:
                    self._entries.pop((index, term), None)
        book.pieces.clear()
        book.written = list(book.durable)

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
        """Check that a disk that holds a committed entry keeps it.

        Raises:
            Violation: it does not.
        """
        for index in range(piece.first, min(len(book.durable), len(self.committed)) + 1):
            place = index - piece.first
            new = piece.entries[place] if place < len(piece.entries) else None
            if book.durable[index - 1] == self.committed[index - 1] != new:
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

    # Machines and calls.

    def applies(self, name: str, runs: Sequence[Run]) -> None:
        """Check entries before a peer's machine sees them.

        Raises:
            Violation: they are not committed, or another machine saw others.
        """
        for run in runs:
            if run.last > len(self.committed):
                raise self.fail("AppliedIsCommitted", f"{name} applies entry {run.last} before it is committed")
            for index, payload in enumerate(run.payloads, run.first):
                digest = hash((run.kind, run.time, payload))
                if index > len(self.applied):
                    self.applied.append(digest)
                    self._note_applied(index, hash(payload))
                elif digest != self.applied[index - 1]:
                    raise self.fail("StateMachineSafety", f"{name} applies another entry {index} (§5.4.3)")

    def has_applied(self, name: str, apply: Apply) -> None:
        """Check that machines which applied as much are equal.

        Raises:
            Violation: two are not.
        """
        if apply.last_applied % DIGEST_EVERY == 0:
            digest = hash(machine_state(apply.machine))
            known, other = self._machines.setdefault(apply.last_applied, (digest, name))
            if known != digest:
                text = f"the machines of {name} and {other} differ at index {apply.last_applied}"
                raise self.fail("MachinesEqual", f"{text}: is every handler deterministic?")

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

    def place(self, command: bytes) -> int | None:
        """Give the index at which a command was last applied; None if it was not."""
        return self._places.get(hash(command))

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


def stretches(entries: Sequence[Entry]) -> list[tuple[Term, int]]:
    """Give the term and first index of each stretch of entries of one term."""
    found: list[tuple[Term, int]] = []
    for index, (term, _) in enumerate(entries, 1):
        if not found or found[-1][0] != term:
            found.append((term, index))
    return found


def broken_promise(book: Book, packet: Packet, to: State | None) -> str | None:
    """Say which promise of a message the sender's disk does not keep; None when it keeps them all.

    Args:
        book: what the sender's disk holds.
        packet: the message.
        to: the state of the peer it is for.
    """
    durable, message = book.hard_state, packet.message
    match message:
        case RequestVote():
            if durable.term < message.term or (durable.term == message.term and durable.voted_for != packet.sender):
                return f"asks for votes in term {message.term} before its own vote is durable (§5.2)"
        case RequestVoteReply(vote_granted=True):
            if durable.term < message.term or (durable.term == message.term and durable.voted_for != packet.to):
                return f"grants its vote in term {message.term} before that is durable (§5.2)"
        case AppendEntriesReply(success=True):
            if durable.term < message.term:
                return f"acknowledges in term {message.term} before that term is durable (§5.1)"
            # In a later term it may have been truncated again: it was there when that was promised.
            if durable.term == message.term and not holds(book, message.match_index, message.term, to):
                return f"acknowledges entry {message.match_index} before it is durable (§5.3)"
        case AppendEntries():
            if durable.term < message.term:
                return f"leads term {message.term} before that term is durable (§5.1)"
        case _:
            pass
    return None


def holds(book: Book, match_index: Index, term: Term, leader: State | None) -> bool:
    """Tell whether a disk holds the entry that is acknowledged to the leader of a term, as far as that still leads."""
    if match_index > len(book.durable):
        return False
    if match_index == 0 or leader is None or not isinstance(leader.role, Leader) or leader.term != term:
        return True
    return match_index <= leader.log.last and leader.log.term(match_index) == book.durable[match_index - 1][0]


def machine_state(machine: StateMachine) -> bytes:
    """Give a machine's attributes, but for those that begin with an underscore, in a form that can be compared."""
    state = {name: value for name, value in vars(machine).items() if name != "context" and not name.startswith("_")}
    return msgspec.msgpack.encode(state, enc_hook=repr)
