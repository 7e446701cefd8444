"""The recent entries of one log in memory: what is sent to followers and applied without asking the disk.

Holds references to runs, never copies. Knows nothing of terms or of who needs what.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from quorate.types import Index, Kind, Run, Term

COMPACT_AT = 1024
"""Dropped runs after which the lists are shortened, so that dropping costs the same for each."""

DROPPED = Run(Term(0), Index(0), Kind.NOOP, 0.0, (b"",))
"""Stands in the place of a dropped run until then: a run may hold a thousand entries, and a thousand of them much."""


class Cache:
    """Contiguous runs at the end of one log.

    Attributes:
        bytes: what the payloads weigh, by ``Run.size``.
    """

    def __init__(self, bytes_max: int) -> None:
        """Start empty; beyond ``bytes_max`` runs are dropped from the front, as far as ``trim`` allows."""
        self._bytes_max = bytes_max
        self._firsts: list[Index] = []
        self._runs: list[Run] = []
        self._sizes: list[int] = []  # What a run weighs is asked for each follower, and costs a look at each payload.
        self._head = 0
        self.bytes: int = 0

    def append(self, run: Run) -> None:
        """Add a run; everything from its first index on is dropped first."""
        if self._runs and run.first <= self._runs[-1].last:
            self._truncate(run.first)
        self._firsts.append(run.first)
        self._runs.append(run)
        self._sizes.append(run.size)
        self.bytes += self._sizes[-1]

    def trim(self, last: Index) -> None:
        """Drop runs from the front while too much is held, but none that reaches beyond ``last``."""
        while self.bytes > self._bytes_max and self._head < len(self._runs) and self._runs[self._head].last <= last:
            self.bytes -= self._sizes[self._head]
            self._runs[self._head] = DROPPED
            self._head += 1
        if self._head >= COMPACT_AT:
            del self._runs[: self._head], self._firsts[: self._head], self._sizes[: self._head]
            self._head = 0

    def clear(self) -> None:
        """Drop everything: the log goes on elsewhere."""
        self._firsts.clear()
        self._runs.clear()
        self._sizes.clear()
        self._head = self.bytes = 0

    def take(self, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...] | None:
        """Give the entries from ``first`` to ``last`` as far as ``bytes_max`` allows, but one at least.

        Returns:
            Contiguous runs from ``first`` on; None when ``first`` is not held.
        """
        place = bisect_right(self._firsts, first, lo=self._head) - 1
        if place < self._head or self._runs[place].last < first:
            return None
        taken: list[Run] = []
        room = bytes_max
        while place < len(self._runs) and self._firsts[place] <= last:
            held = self._runs[place]
            run = held.part(first, last)
            size = self._sizes[place] if run is held else run.size
            if size > room:
                if not taken:
                    taken.append(front(run, room))
                break
            room -= size
            taken.append(run)
            place += 1
        return tuple(taken)

    def _truncate(self, first: Index) -> None:
        """Drop the entries from ``first`` on."""
        place = max(bisect_left(self._firsts, first), self._head)
        self.bytes -= sum(self._sizes[place:])
        del self._runs[place:], self._firsts[place:], self._sizes[place:]
        if len(self._runs) > self._head and self._runs[-1].last >= first:
            cut = self._runs[-1]
            kept = cut.part(cut.first, Index(first - 1))
            self._runs[-1] = kept
            self.bytes += kept.size - self._sizes[-1]
            self._sizes[-1] = kept.size


def front(run: Run, bytes_max: int) -> Run:
    """Give as much of a run, from its front, as ``bytes_max`` allows, but one entry at least."""
    room, count = bytes_max, 0
    for payload in run.payloads:
        room -= len(payload) + 16
        if room < 0 and count:
            break
        count += 1
    return run.part(run.first, Index(run.first + count - 1))
