"""The default store: RocksDB, through ``rocksdict``. Knows how that engine fails, and believes none of its silences.

All logs of a node live in one key space, so that one flush of the write-ahead log (WAL) makes all peers durable. What
its directory holds, and what is done about damage at start, stands in ``rocksdb_recovery.py``; the mark kept there
lags by about a second, and never behind a term or vote.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import rocksdict
from rocksdict import Rdict

from quorate.errors import Corrupted, StoreError
from quorate.store import Batch
from quorate.store.files import DirectoryLock, disk_errors, make_directory
from quorate.store.mark import Mark, MarkKeeper, check_is_there, check_mark, read_mark, store_damage
from quorate.store.records import (
    Changes,
    Extent,
    changes_of,
    check_log_name,
    drops_entries,
    extent_after,
    take_runs,
)
from quorate.store.rocksdb_recovery import (
    begin,
    check_earlier_logs,
    engine_errors,
    open_database,
    raise_mark,
    read_compaction,
    read_log,
    recover,
    scan_runs,
    set_aside,
    store_error_from_engine,
)
from quorate.types import Index, Run, Stored

STALL_PAUSE = 0.005
"""Seconds between two tries of a write that the engine put off."""

STALL_TRIES = 6000
"""Tries before a write that the engine keeps putting off counts as failed: half a minute."""


class Kept(msgspec.Struct, gc=False):
    """Keeps something until the process ends: it holds itself as well, and the garbage collector does not see it."""

    kept: object
    itself: object = None

    def __post_init__(self) -> None:
        """Hold itself."""
        self.itself = self


class RocksDBStore:
    """The logs of one node in one RocksDB database. Made by ``open``; see the module for what it keeps where."""

    def __init__(self, directory: Path, lock: DirectoryLock, database: Rdict, mark: Mark) -> None:
        """Take over an open database whose whole content is durable, and the lock of its directory."""
        self._directory = directory
        self._lock = lock
        # A forked process never lets go of its copy: that would wait for the engine's threads, which were not forked.
        self._keep_open = functools.partial(Kept, database)
        self._lock.forked = self._keep_open
        self._database = database
        self._mark = MarkKeeper(directory, mark)
        self._durable = database.latest_sequence_number()
        self._unsynced = False
        self._extents: dict[str, Extent] = {}
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
        if not create:
            check_is_there(directory)
        with disk_errors(f"opening {directory}"):
            make_directory(directory)
            # The engine's own lock would come too late: the mark may be raised before.
            lock = DirectoryLock(directory)
        try:
            mark = read_mark(directory) or begin(directory)
            if not (directory / mark.database).is_dir():
                fact = f"{directory / mark.database} is missing, which is the current one by the file mark"
                raise Corrupted(store_damage(directory, fact))
            mark = raise_mark(directory, mark)
            check_earlier_logs(directory, mark)
            try:
                database = open_database(directory / mark.database, create=False)
            except Corrupted:
                mark = recover(directory, mark)
                database = open_database(directory / mark.database, create=False)
            try:
                where = f"the write-ahead log in {directory / mark.database}"
                check_mark(directory, mark, database.latest_sequence_number(), where)
                set_aside(directory, mark)
                store = cls(directory, lock, database, mark)
                store.mark()
            except BaseException:
                # What a background job of the engine has found meanwhile would hide why.
                with contextlib.suppress(Exception):
                    database.close()
                raise
        except BaseException:
            lock.close()
            raise
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
        """Write the batches in order, as one write of the engine where none drops entries; see ``LogStore.append``.

        Raises:
            DiskFull: there is no room; none of the batches counts as written.
            StoreError: the disk failed; the store must not be used further.
            ValueError: a batch does not fit its log.
        """
        try:
            self._append(batches)
        except BaseException:
            # What was reached is not known: the next call asks the engine.
            self._extents.clear()
            raise
        self._mark.appended(batches)

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
        self._mark.synced(self._durable)

    def mark(self) -> None:
        """Note how much is durable; see ``MarkedStore.mark``.

        Raises:
            StoreError: the disk failed; the store must not be used further.
        """
        self._mark.save(self._durable)

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        """Read entries from ``first`` on; see ``LogStore.read``.

        Raises:
            Corrupted: a record is damaged or missing.
            StoreError: the disk failed.
        """
        extent = self._extent(log)
        last = min(last, extent.last)
        if not extent.start < first <= last:
            return ()
        with contextlib.closing(scan_runs(self._database, log, first)) as runs:
            return take_runs(log, runs, first, last, bytes_max)

    def close(self) -> None:
        """Note what is durable and let go of the disk; idempotent.

        Raises:
            StoreError: the disk failed; what was synced is unharmed.
        """
        if not self._lock.is_held:
            return  # It is closed, or that of the process which this one was forked from.
        try:
            self._mark.check_in_place()
        except StoreError:
            # At its end the engine would write files into what lies in that place, and remove some there.
            self._keep_open()
            self._lock.close()
            raise
        try:
            self.mark()
        finally:
            try:
                with engine_errors():
                    self._database.close()
            finally:
                self._lock.close()

    def _append(self, batches: Sequence[Batch]) -> None:
        waiting = Changes([], [])
        extents: dict[str, Extent] = {}
        for batch in batches:
            log = batch.log
            extent = extents[log] if log in extents else self._extent(log)
            extents[log] = extent_after(batch, extent)
            if drops_entries(batch, extent):
                # What is dropped may be among what is not yet written; rare enough to write that first.
                self._write(waiting)
                waiting = Changes([], [])
            changes = changes_of(batch, extent, functools.partial(scan_runs, self._database, log))
            waiting.drops.extend(changes.drops)
            waiting.puts.extend(changes.puts)
        self._write(waiting)
        self._extents.update(extents)

    def _write(self, changes: Changes) -> None:
        """Write changes atomically.

        An engine that puts the write off is asked again before anything later is written.

        Raises:
            StoreError: the disk failed, or was too slow for half a minute.
        """
        if not changes.puts:
            return
        if self._unsynced:
            # The engine begins a new WAL now and then. Were both the old one and the new unsynced, a power cut could
            # keep the later write and lose the earlier one. So at most one write is ever unsynced.
            self.sync()
        for _ in range(STALL_TRIES):
            try:
                self._offer(changes)
            except Exception as error:
                if not str(error).startswith("Result incomplete:"):
                    translated = store_error_from_engine(error)
                    raise translated from error
                time.sleep(STALL_PAUSE)
            else:
                self._unsynced = True
                return
        raise StoreError(f"the database put off a write for {STALL_TRIES * STALL_PAUSE:.0f} s: the disk is too slow")

    def _offer(self, changes: Changes) -> None:
        """Ask the engine once to write changes, all of them or nothing."""
        if len(changes.puts) == 1 and not changes.drops:
            # One run of one peer, as most writes are: a batch for it costs half as much again.
            self._database.put(*changes.puts[0], self._write_options)
            return
        batch = rocksdict.WriteBatch(raw_mode=True)
        for first_key, end_key in changes.drops:
            batch.delete_range(first_key, end_key)
        for key, record in changes.puts:
            batch.put(key, record)
        self._database.write(batch, self._write_options)

    def _extent(self, log: str) -> Extent:
        """Give where a log begins and ends, asking the engine the first time."""
        extent = self._extents.get(log)
        if extent is None:
            check_log_name(log)
            with contextlib.closing(scan_runs(self._database, log, Index(2**64 - 1))) as runs:
                run = next(runs, None)
            extent = self._extents[log] = Extent.of(read_compaction(self._database, log), run)
        return extent
