"""What one peer's log holds, entry by entry, with what its beginning was replaced by: in memory, or on a disk of words.

Written as a store would write it (``quorate.store.Batch``), and read back as a store would tell it. Knows no peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from quorate.types import Compaction, HardState, Index, Kind, Run, Stored


@dataclass(slots=True)
class Contents:
    """The entries that a log holds, each as a run of its own.

    Attributes:
        entries: ascending and without a gap, from right behind ``start`` on.
        compaction: what the beginning was replaced by; None in a log that begins at index 1.
        writes: how often it was written to.
    """

    entries: list[Run] = field(default_factory=list)
    compaction: Compaction | None = None
    writes: int = 0

    @property
    def start(self) -> Index:
        """The log begins right behind this index."""
        return self.compaction.start if self.compaction else Index(0)

    @property
    def last(self) -> Index:
        """The index of the last entry; ``start`` when there is none."""
        return Index(self.start + len(self.entries))

    def entry(self, index: int) -> Run | None:
        """Give the entry at ``index``, or None when it is not held."""
        return self.entries[index - self.start - 1] if self.start < index <= self.last else None

    def part(self, first: int, last: int) -> Sequence[Run]:
        """Give the entries from ``first``, which is above ``start``, to ``last``, as far as they are held."""
        return self.entries[first - self.start - 1 : max(0, last - self.start)]

    def write(self, compaction: Compaction | None, runs: Sequence[Run]) -> None:
        """Replace the beginning, if a compaction is given, and write runs over what stood from the first one on."""
        self.writes += compaction is not None or len(runs) > 0
        if compaction is not None:
            assert self.start <= compaction.start, "what was dropped does not come back"
            assert compaction.replaces_log or compaction.start <= self.last, "only what is held is dropped"
            self.entries = [] if compaction.replaces_log else list(self.part(compaction.start + 1, self.last))
            self.compaction = compaction
        for run in runs:
            assert self.start < run.first <= self.last + 1, "what is written leaves no hole"
            del self.entries[run.first - self.start - 1 :]
            self.entries.extend(run.part(Index(index), Index(index)) for index in range(run.first, run.last + 1))

    def copy(self) -> Contents:
        """Give contents of their own that hold the same."""
        return Contents(list(self.entries), self.compaction)

    def stored(self, hard_state: HardState) -> Stored:
        """Tell what a store would of them."""
        pairs = zip([None, *self.entries], self.entries, strict=False)
        firsts = [run for before, run in pairs if before is None or before.term != run.term]
        return Stored(
            hard_state=hard_state,
            terms=tuple((run.first, run.term) for run in firsts),
            last=self.last,
            configurations=tuple(
                (run.first, run.payloads[0]) for run in self.entries if run.kind == Kind.CONFIGURATION
            ),
            compaction=self.compaction,
            bare=next((run.first for run in self.entries if run.kind is Kind.BARE), Index(0)),
        )


def join(entries: Sequence[Run]) -> tuple[Run, ...]:
    """Join consecutive entries of one term and kind into runs, as a store gives them."""
    runs: list[Run] = []
    for entry in entries:
        if runs and (runs[-1].term, runs[-1].kind) == (entry.term, entry.kind):
            payloads = (*runs[-1].payloads, *entry.payloads)
            runs[-1] = msgspec.structs.replace(runs[-1], payloads=payloads)
        else:
            runs.append(entry)
    return tuple(runs)
