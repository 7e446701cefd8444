"""The default store: RocksDB, through ``rocksdict``. Knows how that engine fails, and believes none of its silences.

All logs of a node live in one key space, so that one flush of the write-ahead log (WAL) makes all peers durable. What
its directory holds, and what is done about damage at start, stands in ``rocksdb_recovery.py``; the mark kept there
lags by at most ``MARK_EVERY`` syncs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import rocksdict
from rocksdict import Rdict

from quorate.errors import Corrupted, StoreError
from quorate.store import Batch
from quorate.store.mark import Mark, check_mark, read_mark, store_damage, write_mark
from quorate.store.records import (
    check_log_name,
    check_runs,
    damage,
    encode_record,
    entries_end_key,
    entry_key,
    hard_state_key,
    take_runs,
)
from quorate.store.rocksdb_recovery import (
    begin,
    engine_errors,
    open_database,
    read_log,
    recover,
    scan_runs,
    store_error_from_engine,
)
from quorate.types import Index, Run, Stored

MARK_EVERY = 128
"""Syncs between two writes of the mark: rare enough to cost a few hundredths, and the bound of what it lags."""

STALL_PAUSE = 0.005
"""Seconds between two tries of a write that the engine put off."""

STALL_TRIES = 6000
"""Tries before a write that the engine keeps putting off counts as failed: half a minute."""


class RocksDBStore:
    """The logs of one node in one RocksDB database. Made by ``open``; see the module for what it keeps where."""

    def __init__(self, directory: Path, database: Rdict, mark: Mark) -> None:
        """Take over an open database whose whole content is durable."""
        self._directory = directory
        self._database = database
        self._mark = mark
        self._durable = database.latest_sequence_number()
        self._unsynced = False
        self._syncs_since_mark = 0
        self._closed = False
        self._lasts: dict[str, Index] = {}
        self._write_options = rocksdict.WriteOptions()
        # The engine would hold the interpreter's lock for as long as it delays a write; told not to, it refuses.
        self._write_options.no_slowdown = True

    @classmethod
    def open(cls, directory: Path, *, create: bool = True) -> RocksDBStore:
        """Open the store in a directory, repairing what a crash left.

        Args:
            directory: the store's own directory; its parent exists.
            create: whether to begin an empty store where there is none. Not for peers that had one: without it they
                would have forgotten their votes.

        Raises:
            Corrupted: what was durable is missing or damaged.
            StoreLocked: it is open already, here or in another process.
            StoreError: the disk failed.
        """
        mark = read_mark(directory)
        if mark is None:
            if not create:
                raise Corrupted(store_damage(directory, "it holds no store, and its peers had one"))
            mark = begin(directory)
        try:
            database = open_database(directory / mark.database, create=False)
        except Corrupted:
            mark = recover(directory, mark)
            database = open_database(directory / mark.database, create=False)
        try:
            check_mark(directory, mark, database.latest_sequence_number())
        except Corrupted:
            database.close()
            raise
        store = cls(directory, database, mark)
        store._save_mark()
        return store

    def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Read and verify one log whole, and make durable what was read; see ``LogStore.load``.

        Raises:
            Corrupted: a record is damaged or missing.
            StoreError: the disk failed.
        """
        check_log_name(log)
        stored = read_log(self._database, log, visit)
        self.sync()
        return stored

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches in order, as one write of the engine where none truncates; see ``LogStore.append``.

        Raises:
            DiskFull: there is no room; none of the batches counts as written.
            StoreError: the disk failed; the store must not be used further.
            ValueError: a batch does not fit its log.
        """
        try:
            self._append(batches)
        except BaseException:
            # What was reached is not known: the next call asks the engine.
            self._lasts.clear()
            raise

    def sync(self) -> None:
        """Return when everything appended before is durable; see ``LogStore.sync``.

        Raises:
            StoreError: the flush failed; the store must not be used further.
        """
        if not self._unsynced:
            return
        with engine_errors():
            sequence = self._database.latest_sequence_number()
            # Unlike a synced write, this lets other threads run while the disk works.
            self._database.flush_wal(True)
        self._unsynced = False
        self._durable = sequence
        self._syncs_since_mark += 1
        if self._syncs_since_mark >= MARK_EVERY:
            self._save_mark()

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        """Read entries from ``first`` on; see ``LogStore.read``.

        Raises:
            Corrupted: a record is damaged or missing.
            StoreError: the disk failed.
        """
        last = min(last, self._last(log))
        if first > last:
            return ()
        with contextlib.closing(scan_runs(self._database, log, first)) as runs:
            return take_runs(log, runs, first, last, bytes_max)

    def close(self) -> None:
        """Note what is durable and let go of the disk; idempotent.

        Raises:
            StoreError: the disk failed; what was synced is unharmed.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._save_mark()
        finally:
            with engine_errors():
                self._database.close()

    def _append(self, batches: Sequence[Batch]) -> None:
        cut: tuple[bytes, bytes] | None = None
        puts: list[tuple[bytes, bytes]] = []
        lasts: dict[str, Index] = {}
        for batch in batches:
            log = batch.log
            if batch.runs:
                last = lasts.get(log)
                if last is None:
                    last = self._last(log)
                check_runs(log, batch.runs, last)
                first = batch.runs[0].first
                if first <= last:
                    # The run that spans the cut may be among those not yet written; rare enough to write them first.
                    self._write(cut, puts)
                    cut, puts = (entry_key(log, first), entries_end_key(log)), self._kept_part(log, first)
                puts += [(key := entry_key(log, run.first), encode_record(key, run)) for run in batch.runs]
                lasts[log] = batch.runs[-1].last
            if batch.hard_state is not None:
                key = hard_state_key(log)
                puts.append((key, encode_record(key, batch.hard_state)))
        self._write(cut, puts)
        self._lasts.update(lasts)

    def _kept_part(self, log: str, cut: Index) -> list[tuple[bytes, bytes]]:
        """Give the record of what remains of the run that spans ``cut``: nothing when it begins there.

        Raises:
            Corrupted: no run holds ``cut``, though the log goes on beyond it.
        """
        with contextlib.closing(scan_runs(self._database, log, cut)) as runs:
            spanning = next(runs, None)
        if spanning is None or not spanning.first <= cut <= spanning.last:
            raise Corrupted(damage(log, f"entry {cut} is missing"))
        if spanning.first == cut:
            return []
        key = entry_key(log, spanning.first)
        return [(key, encode_record(key, spanning.part(spanning.first, Index(cut - 1))))]

    def _write(self, cut: tuple[bytes, bytes] | None, puts: Sequence[tuple[bytes, bytes]]) -> None:
        """Write atomically: drop the keys from ``cut[0]`` up to but not including ``cut[1]``, then put the records.

        An engine that puts the write off is asked again before anything later is written.

        Raises:
            StoreError: the disk failed, or was too slow for half a minute.
        """
        if not puts:
            return
        if self._unsynced:
            # The engine begins a new WAL now and then. Were both the old one and the new unsynced, a power cut could
            # keep the later write and lose the earlier one. So at most one write is ever unsynced.
            self.sync()
        for _ in range(STALL_TRIES):
            # A batch is used up by a write, even by one that was refused.
            batch = rocksdict.WriteBatch(raw_mode=True)
            if cut is not None:
                batch.delete_range(*cut)
            for key, record in puts:
                batch.put(key, record)
            try:
                self._database.write(batch, self._write_options)
            except Exception as error:
                if not str(error).startswith("Result incomplete:"):
                    translated = store_error_from_engine(error)
                    raise translated from error
                time.sleep(STALL_PAUSE)
            else:
                self._unsynced = True
                return
        raise StoreError(f"the database put off a write for {STALL_TRIES * STALL_PAUSE:.0f} s: the disk is too slow")

    def _last(self, log: str) -> Index:
        """Give the last index of a log, asking the engine the first time."""
        last = self._lasts.get(log)
        if last is None:
            check_log_name(log)
            with contextlib.closing(scan_runs(self._database, log, Index(2**64 - 1))) as runs:
                run = next(runs, None)
            last = self._lasts[log] = run.last if run is not None else Index(0)
        return last

    def _save_mark(self) -> None:
        """Note what is known to be durable, if it is more than was noted."""
        if self._durable > self._mark.sequence:
            self._mark = Mark(self._mark.database, self._durable)
            write_mark(self._directory, self._mark)
        self._syncs_since_mark = 0
