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
    """The terms of one peer's log; the first index is 1.

    Attributes:
        starts: the first index of each stretch of entries of one term. Invariant: strictly ascending.
        terms: the term of each stretch. Invariant: strictly ascending, as long as ``starts``.
        last: index of the last entry, 0 for an empty log.
    """

    starts: list[Index] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    last: Index = Index(0)

    @property
    def last_term(self) -> Term:
        """The term of the last entry, 0 for an empty log."""
        return self.terms[-1] if self.terms else Term(0)

    def term(self, index: Index) -> Term:
        """Give the term of the entry at ``index``, from 0 (before the first entry: term 0) to ``last``."""
        if index == 0:
            return Term(0)
        return self.terms[bisect_right(self.starts, index) - 1]

    def matches(self, index: Index, term: Term) -> bool:
        """Tell whether the log holds an entry with that term at that index; index 0 with term 0 always matches."""
        return index <= self.last and self.term(index) == term

    def first_of_term_at(self, index: Index) -> Index:
        """Give the first index of the stretch of one term that ``index``, from 1 to ``last``, lies in."""
        return self.starts[bisect_right(self.starts, index) - 1]

    def last_of_term(self, term: Term) -> Index:
        """Give the last index of that term, or 0 when the log holds none of it."""
        place = bisect_left(self.terms, term)
        if place == len(self.terms) or self.terms[place] != term:
            return Index(0)
        return Index(self.starts[place + 1] - 1) if place + 1 < len(self.starts) else self.last

    def append(self, term: Term, count: int) -> None:
        """Add ``count`` entries of a term that is not below ``last_term``."""
        if term != self.last_term:
            self.starts.append(Index(self.last + 1))
            self.terms.append(term)
        self.last = Index(self.last + count)

    def truncate(self, first: Index) -> None:
        """Drop the entries from ``first`` on (1 to ``last + 1``)."""
        keep = bisect_left(self.starts, first)
        del self.starts[keep:], self.terms[keep:]
        self.last = Index(first - 1)
