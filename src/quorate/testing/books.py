"""What each disk holds, as the simulator notes it down: the entries by term and digest, term and vote, the snapshot.

A batch is noted when it is written, and counts when it is durable; a crash takes back what was not. Knows no peers'
states: what may be written, and what may be promised, is in ``invariants.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from quorate.core.state import Leader, State
from quorate.transport import Packet
from quorate.types import Compaction, HardState, Index, Kind, PeerId, Run, Snapshot, Term

Entry = tuple[Term, int | None]
"""An entry as it is compared: its term, and a digest of all it holds; None where a witness keeps no command."""


@dataclass(slots=True)
class Entries:
    """A log as it is compared.

    Attributes:
        start: the index right before the first entry that is held.
        start_term: the term of the entry there.
        held: the entries behind it.
    """

    start: Index = Index(0)
    start_term: Term = Term(0)
    held: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self.start + len(self.held)

    @property
    def last_term(self) -> Term:
        """The term of the last entry."""
        return self.held[-1][0] if self.held else self.start_term

    def entry(self, index: int) -> Entry:
        """Give the entry at an index, above ``start``."""
        return self.held[index - self.start - 1]

    def holds(self, index: int, term: Term) -> bool:
        """Tell whether the entry of that term at that index is here, or was and is in a snapshot by now."""
        return index <= self.start or (index <= self.last and self.entry(index)[0] == term)

    def cut(self, first: int) -> None:
        """Drop the entries from ``first`` on, which is above ``start``."""
        del self.held[first - self.start - 1 :]

    def compact(self, compaction: Compaction) -> None:
        """Begin behind a compaction's start, with nothing if it replaces the log."""
        if compaction.replaces_log:
            self.held.clear()
        else:
            del self.held[: compaction.start - self.start]
        self.start, self.start_term = compaction.start, compaction.term

    def copy(self) -> Entries:
        """Give another one that is alike."""
        return Entries(self.start, self.start_term, list(self.held))

    def stretches(self) -> list[tuple[Term, int]]:
        """Give the term and first index of each stretch of entries of one term."""
        found: list[tuple[Term, int]] = []
        for index, (term, _) in enumerate(self.held, self.start + 1):
            if not found or found[-1][0] != term:
                found.append((term, index))
        return found


@dataclass(slots=True)
class Piece:
    """One batch as it is compared.

    Attributes:
        hard_state: term and vote, or None when they did not change.
        compaction: what the log's beginning was replaced by, or None.
        first: the index of the first entry; meaningless without entries.
        entries: what is written from there on.
    """

    hard_state: HardState | None
    compaction: Compaction | None
    first: Index
    entries: list[Entry]

    def kept(self, index: int, before: Entries) -> Term | None:
        """Give the term of the entry at an index once this is written; None if there is none any more.

        Args:
            index: of an entry that ``before`` holds, and that no snapshot of this piece stands for.
            before: the log before.
        """
        if self.entries and index >= self.first:
            place = index - self.first
            return self.entries[place][0] if place < len(self.entries) else None
        return None if self.compaction and self.compaction.replaces_log else before.entry(index)[0]


@dataclass(slots=True)
class Book:
    """What one peer's disk holds.

    Attributes:
        peer: the peer's id; None before its first start.
        hard_state: term and vote that are durable.
        written: all entries, durable or not.
        durable: the entries that survive a crash.
        snapshot: the one that stands for what is before these; None as long as they begin with the first.
        pieces: the batches that are not durable yet.
    """

    peer: PeerId | None = None
    hard_state: HardState = HardState()
    written: Entries = field(default_factory=Entries)
    durable: Entries = field(default_factory=Entries)
    snapshot: Snapshot | None = None
    pieces: deque[Piece] = field(default_factory=deque)

    def persist(self, piece: Piece) -> None:
        """Note that the first batch that was not durable is now: it is ``piece``."""
        if piece.hard_state is not None:
            self.hard_state = piece.hard_state
        if piece.compaction is not None:
            self.durable.compact(piece.compaction)
            self.snapshot = piece.compaction.snapshot
        if piece.entries:
            self.durable.cut(piece.first)
            self.durable.held += piece.entries

    def forget(self) -> None:
        """Note that a crash lost what was not durable."""
        self.pieces.clear()
        self.written = self.durable.copy()


def digests(run: Run) -> list[int | None]:
    """Give the digest of each entry of a run; None for a command as a witness keeps it."""
    if run.kind is Kind.BARE:
        return [None] * len(run.payloads)
    return [hash((run.kind, run.time, payload)) for payload in run.payloads]


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
            if durable.term == message.term and not holds(book.durable, message.match_index, message.term, to):
                return f"acknowledges entry {message.match_index} before it is durable (§5.3)"
        case AppendEntries():
            if durable.term < message.term:
                return f"leads term {message.term} before that term is durable (§5.1)"
        case _:
            pass
    return None


def holds(durable: Entries, match_index: Index, term: Term, leader: State | None) -> bool:
    """Tell whether a disk holds the entry that is acknowledged to the leader of a term, as far as that still leads."""
    if match_index > durable.last:
        return False
    if leader is None or not isinstance(leader.role, Leader) or leader.term != term:
        return True
    if match_index <= max(durable.start, leader.log.start):
        return True  # What is in a snapshot was compared when it was committed.
    return match_index <= leader.log.last and durable.holds(match_index, leader.log.term(match_index))


def majorities(groups: Sequence[Sequence[PeerId]], holders: set[PeerId]) -> bool:
    """Tell whether a majority of each group is among the holders: counted here anew, not as the core counts."""
    return all(2 * sum(peer in holders for peer in group) > len(group) for group in groups)
