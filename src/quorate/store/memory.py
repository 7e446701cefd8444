"""A store in memory, for tests and toys: obeys the contract of ``LogStore``, except that a crash loses everything.

It keeps encoded records, never the objects it was given, so that what a disk would not give back, it does not either.
A peer must not come back under its old id with such a store once its process is gone: its vote would be forgotten.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from quorate.store import Batch
from quorate.store.records import (
    Extent,
    check_log,
    check_log_name,
    compaction_key,
    decode_compaction,
    decode_hard_state,
    decode_run,
    encode_record,
    entry_key,
    extent_after,
    hard_state_key,
    take_runs,
)
from quorate.types import Compaction, Index, Run, Stored


@dataclasses.dataclass(slots=True)
class _Log:
    """One log as records.

    Attributes:
        hard_state: the record of term and vote, or None before the first.
        compaction: the record of what its beginning was replaced by, or None.
        firsts: the first index of each stored run, ascending.
        records: the record of each, in the same order.
        extent: where it begins and ends.
    """

    hard_state: bytes | None = None
    compaction: bytes | None = None
    firsts: list[Index] = dataclasses.field(default_factory=list)
    records: list[bytes] = dataclasses.field(default_factory=list)
    extent: Extent = dataclasses.field(default_factory=Extent)

    def copy(self) -> _Log:
        """Give another one that holds the same."""
        return dataclasses.replace(self, firsts=list(self.firsts), records=list(self.records))


class MemoryStore:
    """Keeps logs for as long as the object lives; ``close`` and ``load`` again to play a restart."""

    def __init__(self) -> None:
        """Begin with no logs."""
        self._logs: dict[str, _Log] = {}

    def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Read and verify one log whole; see ``LogStore.load``.

        Raises:
            Corrupted: a record is not what was written.
        """
        kept = self._log(log)
        compaction = decode_compaction(log, kept.compaction)
        return check_log(log, self._runs(log, kept, 0), decode_hard_state(log, kept.hard_state), compaction, visit)

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches in order; see ``LogStore.append``.

        Raises:
            ValueError: a batch does not fit its log; those before it are written.
        """
        for batch in batches:
            kept = self._log(batch.log)
            extent = extent_after(batch, kept.extent)
            if batch.compaction is not None:
                self._compact(batch.log, kept, batch.compaction)
            if batch.runs:
                self._truncate(batch.log, kept, batch.runs[0].first)
                self._put(batch.log, kept, batch.runs)
            kept.extent = extent
            if batch.hard_state is not None:
                kept.hard_state = encode_record(hard_state_key(batch.log), batch.hard_state)

    def sync(self) -> None:
        """Return at once: nothing here outlives the process."""

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        """Read entries from ``first`` on; see ``LogStore.read``.

        Raises:
            Corrupted: a record is not what was written.
        """
        kept = self._log(log)
        last = min(last, kept.extent.last)
        if not kept.extent.start < first <= last:
            return ()
        holding = bisect.bisect_right(kept.firsts, first) - 1
        return take_runs(log, self._runs(log, kept, holding), first, last, bytes_max)

    def close(self) -> None:
        """Keep everything: there is nothing to let go of."""

    def copy(self) -> MemoryStore:
        """Give another store that holds the same."""
        copied = MemoryStore()
        copied._logs = {name: log.copy() for name, log in self._logs.items()}
        return copied

    def _log(self, log: str) -> _Log:
        kept = self._logs.get(log)
        if kept is None:
            check_log_name(log)
            kept = self._logs[log] = _Log()
        return kept

    def _put(self, log: str, kept: _Log, runs: Sequence[Run]) -> None:
        for run in runs:
            kept.firsts.append(run.first)
            kept.records.append(encode_record(entry_key(log, run.first), run))

    def _compact(self, log: str, kept: _Log, compaction: Compaction) -> None:
        """Drop every run that ends at or before the new start: all of them, if the log is replaced."""
        if compaction.replaces_log or compaction.start == kept.extent.last:
            count = len(kept.firsts)
        else:
            count = bisect.bisect_right(kept.firsts, compaction.start + 1) - 1
        del kept.firsts[:count], kept.records[:count]
        last = compaction.start if compaction.replaces_log else kept.extent.last
        kept.extent = Extent(compaction.start, last, compaction.snapshot.index)
        kept.compaction = encode_record(compaction_key(log), compaction)

    def _truncate(self, log: str, kept: _Log, cut: Index) -> None:
        """Drop every entry from ``cut`` on; a run that spans it keeps its part before."""
        if cut > kept.extent.last:
            return
        holding = bisect.bisect_right(kept.firsts, cut) - 1
        spanning = decode_run(log, entry_key(log, kept.firsts[holding]), kept.records[holding])
        del kept.firsts[holding:], kept.records[holding:]
        if spanning.first < cut:
            self._put(log, kept, [spanning.part(spanning.first, Index(cut - 1))])

    def _runs(self, log: str, kept: _Log, begin: int) -> Iterator[Run]:
        for first, record in zip(kept.firsts[begin:], kept.records[begin:], strict=True):
            yield decode_run(log, entry_key(log, first), record)
