"""The term of every index, and no payload (Raft, Figure 2, "log[]").

A few bytes for each term: stretches of entries of one term are one pair of numbers. Knows nothing of disks, peers or
what is committed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from quorate.types import Index, Term


@dataclass(slots=True)
class Log:
    """The terms of one peer's log, from behind what was compacted on.

    Attributes:
        start: the index right before the first entry that is still held; 0 in a log that was never compacted.
        start_term: the term of the entry at ``start``.
        starts: the first index of each stretch of entries of one term. Invariant: strictly ascending.
        terms: the term of each stretch. Invariant: strictly ascending, as long as ``starts``.
        last: index of the last entry; ``start`` when none is held.
    """

    start: Index = Index(0)
    start_term: Term = Term(0)
    starts: list[Index] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    last: Index = Index(0)

    @property
    def last_term(self) -> Term:
        """The term of the last entry, 0 for an empty log."""
        return self.terms[-1] if self.terms else self.start_term

    def term(self, index: Index) -> Term:
        """Give the term of the entry at ``index``, from ``start`` to ``last``."""
        if index <= self.start:
            return self.start_term
        return self.terms[bisect_right(self.starts, index) - 1]

    def matches(self, index: Index, term: Term) -> bool:
        """Tell whether the log holds an entry with that term at that index; index 0 with term 0 always matches.

        What was compacted was committed, and a leader's entries are the same there (Raft §5.4.3, Leader Completeness).
        """
        return index < self.start or (index <= self.last and self.term(index) == term)

    def first_of_term_at(self, index: Index) -> Index:
        """Give the first index held of the stretch of one term that ``index``, from ``start`` to ``last``, lies in."""
        return self.starts[bisect_right(self.starts, index) - 1] if index > self.start else self.start

    def last_of_term(self, term: Term) -> Index:
        """Give the last index of that term, or 0 when the log holds none of it; never 0 for the term at ``start``."""
        place = bisect_left(self.terms, term)
        if place == len(self.terms) or self.terms[place] != term:
            return self.start if term == self.start_term else Index(0)
        return Index(self.starts[place + 1] - 1) if place + 1 < len(self.starts) else self.last

    def append(self, term: Term, count: int) -> None:
        """Add ``count`` entries of a term that is not below ``last_term``."""
        if not self.terms or term != self.terms[-1]:
            self.starts.append(Index(self.last + 1))
            self.terms.append(term)
        self.last = Index(self.last + count)

    def truncate(self, first: Index) -> None:
        """Drop the entries from ``first`` on (``start + 1`` to ``last + 1``)."""
        keep = bisect_left(self.starts, first)
        del self.starts[keep:], self.terms[keep:]
        self.last = Index(first - 1)

    def compact(self, start: Index) -> None:
        """Drop the entries up to ``start`` (``self.start`` to ``last``)."""
        self.start_term = self.term(start)
        self.start = start
        drop = bisect_right(self.starts, start)
        if self.last > start and (drop == len(self.starts) or self.starts[drop] > start + 1):
            drop -= 1
            self.starts[drop] = Index(start + 1)
        del self.starts[:drop], self.terms[:drop]

    def reset(self, start: Index, term: Term) -> None:
        """Drop everything, and begin behind an entry that a snapshot stands for."""
        self.start, self.start_term, self.last = start, term, start
        self.starts.clear()
        self.terms.clear()
