"""The store on LMDB, chosen by name: one file, no write-ahead log, no threads of its own. Knows how that engine fails.

A write is one transaction, and durable when its commit returns: the engine syncs the new pages, and only then the
meta page that points at them. So a crash leaves either all of it or nothing, commits never overtake one another, and
there is no torn tail to repair. The engine's unsynced modes would halve the syncs, and give up that order: not used.

A store's directory holds the database, ``logs.mdb``; ``mark``, which lags by about a second; and ``lock``: the
engine's own lock would let a second process in, and is not used. Pages have no checksums, and a damaged one can end
the process or hide a record. So nothing is read before the whole file is checked, which is what an open costs
(``lmdb_checks.py``).
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb

from quorate.errors import Corrupted
from quorate.store import Batch
from quorate.store.files import ASIDE, DirectoryLock, disk_errors, make_directory, sync_path
from quorate.store.lmdb_checks import ENGINE, check_content, check_file, engine_errors, scan_runs
from quorate.store.mark import Mark, MarkKeeper, check_is_there, check_mark, read_mark, store_damage, write_mark
from quorate.store.records import (
    Extent,
    changes_of,
    check_log,
    check_log_name,
    compaction_key,
    decode_compaction,
    decode_hard_state,
    encode_record,
    extent_after,
    hard_state_key,
    take_runs,
)
from quorate.types import Compaction, Index, Run, Stored

DATABASE = "logs.mdb"

MAP_BYTES = 64 * 1024 * 1024
"""How large a database may grow before more of it is mapped into memory; doubled each time that it has."""

_BEGUN = b"\0begun"
"""The key of the mark that the database was begun with: by its id a database of another store is known."""


class LMDBStore:
    """The logs of one node in one LMDB database. Made by ``open``; see the module for what it keeps where."""

    def __init__(self, directory: Path, lock: DirectoryLock, database: lmdb.Environment, mark: Mark) -> None:
        """Take over a checked database, whose whole content is durable, and the lock of its directory."""
        self._directory = directory
        self._lock = lock
        self._database = database
        self._mark = MarkKeeper(directory, mark)
        self._durable: int = database.info()["last_txnid"]
        self._extents: dict[str, Extent] = {}

    @classmethod
    def open(cls, directory: Path, *, create: bool = True) -> LMDBStore:
        """Open the store in a directory, and check every record in it.

        Args:
            directory: the store's own directory; its parent exists.
            create: whether to begin an empty store where there is none. Not for peers that had one: without it they
                would have forgotten their votes.

        Raises:
            Corrupted: anything in it is missing or damaged, of whichever log.
            StoreLocked: it is open already, here or in another process.
            StoreError: the disk failed.
        """
        if not create:
            check_is_there(directory)
        with disk_errors(f"opening {directory}"):
            make_directory(directory)
            lock = DirectoryLock(directory)
        try:
            mark = read_mark(directory) or begin(directory)
            database = open_database(directory, mark)
            try:
                store = cls(directory, lock, database, mark)
                store.mark()
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.close()
            raise
        return store

    def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Read and verify one log whole; all that is there is durable. See ``LogStore.load``.

        Raises:
            Corrupted: a record is damaged or missing.
            StoreError: the disk failed.
        """
        check_log_name(log)
        with engine_errors(self._directory), self._database.begin() as transaction:
            compaction = read_compaction(transaction, log)
            hard_state = decode_hard_state(log, transaction.get(hard_state_key(log)))
            start = compaction.start if compaction is not None else Index(0)
            return check_log(log, scan_runs(transaction, log, Index(start + 1)), hard_state, compaction, visit)

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches in one transaction, durable when this returns; see ``LogStore.append``.

        Raises:
            DiskFull: there is no room; none of the batches counts as written.
            StoreError: the disk failed; the store must not be used further.
            ValueError: a batch does not fit its log; none is written.
        """
        try:
            with engine_errors(self._directory):
                while not self._append(batches):
                    self._database.set_mapsize(2 * self._database.info()["map_size"])
        except BaseException:
            # What was reached is not known: the next call asks the engine.
            self._extents.clear()
            raise
        self._mark.appended(batches)

    def sync(self) -> None:
        """Have nothing to wait for, since each commit was; mark how far they got if a term or vote was among them.

        Raises:
            StoreError: the disk failed; the store must not be used further.
        """
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
        with engine_errors(self._directory), self._database.begin() as transaction:
            extent = self._extent(transaction, log)
            last = min(last, extent.last)
            if not extent.start < first <= last:
                return ()
            return take_runs(log, scan_runs(transaction, log, first), first, last, bytes_max)

    def close(self) -> None:
        """Let go of the database; idempotent.

        Raises:
            StoreError: the disk failed; the database is let go of all the same.
        """
        if not self._lock.is_held:
            return  # It is closed, or that of the process which this one was forked from.
        try:
            self.mark()
        finally:
            self._database.close()
            self._lock.close()

    def _append(self, batches: Sequence[Batch]) -> bool:
        """Write the batches in one transaction; tell whether they fitted into the map. If not, nothing was written."""
        extents: dict[str, Extent] = {}
        try:
            # Begun and ended in one call, and so on one thread: the engine binds a transaction to its thread.
            with self._database.begin(write=True) as transaction:
                for batch in batches:
                    log = batch.log
                    extent = extents[log] if log in extents else self._extent(transaction, log)
                    extents[log] = extent_after(batch, extent)
                    changes = changes_of(batch, extent, functools.partial(scan_runs, transaction, log))
                    for first_key, end_key in changes.drops:
                        drop(transaction, first_key, end_key)
                    for key, record in changes.puts:
                        transaction.put(key, record)
        except lmdb.MapFullError:
            return False
        self._extents.update(extents)
        # Not the number of the transaction: a commit that changed nothing leaves none behind.
        self._durable = self._database.info()["last_txnid"]
        return True

    def _extent(self, transaction: lmdb.Transaction[bytes], log: str) -> Extent:
        """Give where a log begins and ends, asking the engine the first time."""
        extent = self._extents.get(log)
        if extent is None:
            check_log_name(log)
            run = next(scan_runs(transaction, log, Index(2**64 - 1)), None)
            extent = self._extents[log] = Extent.of(read_compaction(transaction, log), run)
        return extent


def begin(directory: Path) -> Mark:
    """Make an empty store.

    Raises:
        Corrupted: there is a database that is not empty, but no mark.
        StoreError: the disk failed.
    """
    path = directory / DATABASE
    if path.exists():
        # A crash between making the database and writing the mark leaves an empty one, and that is all it may leave.
        check_file(directory, path)
        with contextlib.closing(open_environment(path)) as database:
            if database.stat()["entries"] > 1:
                raise Corrupted(store_damage(directory, "the file mark is missing"))
    mark = Mark(secrets.token_hex(8), 1)
    aside = path.with_name(DATABASE + ASIDE)
    with disk_errors(f"making {path}"), engine_errors(directory):
        aside.unlink(missing_ok=True)
        with contextlib.closing(open_environment(aside)) as database, database.begin(write=True) as transaction:
            transaction.put(_BEGUN, encode_record(_BEGUN, mark))
        aside.replace(path)
        sync_path(directory)
    write_mark(directory, mark)
    return mark


def open_database(directory: Path, mark: Mark) -> lmdb.Environment:
    """Open the database that a mark stands for, once everything in it is durable and checked.

    Raises:
        Corrupted: it is missing, of another store, less than was durable, or damaged.
        StoreError: the disk failed.
    """
    path = directory / DATABASE
    if not path.exists():
        raise Corrupted(store_damage(directory, f"{DATABASE} is missing"))
    with disk_errors(f"opening {path}"):
        # After a crash of the process alone, the last meta page may be in memory only.
        sync_path(path)
    check_file(directory, path)
    with engine_errors(directory):
        database = open_environment(path)
        try:
            with database.begin() as transaction:
                check_mark(directory, mark, transaction.id(), path)
                check_content(path, transaction)
                if transaction.get(_BEGUN) != encode_record(_BEGUN, Mark(mark.database, 1)):
                    raise Corrupted(store_damage(directory, f"{DATABASE} is that of another store"))
        except BaseException:
            database.close()
            raise
    return database


def open_environment(path: Path) -> lmdb.Environment:
    """Open a database file, making it if it is not there. The directory is locked, and the file checked.

    Raises:
        lmdb.Error: as the engine says.
    """
    return lmdb.open(str(path), subdir=False, lock=False, map_size=MAP_BYTES, mode=0o600, lib_version=ENGINE)


def read_compaction(transaction: lmdb.Transaction[bytes], log: str) -> Compaction | None:
    """Read what the beginning of a log was replaced by; None for a log that begins at index 1.

    Raises:
        Corrupted: it is not what was written.
    """
    return decode_compaction(log, transaction.get(compaction_key(log)))


def drop(transaction: lmdb.Transaction[bytes], first_key: bytes, end_key: bytes) -> None:
    """Drop the records from ``first_key`` up to but not including ``end_key``."""
    cursor = transaction.cursor()
    cursor.set_range(first_key)
    # A cursor moves on when it deletes, and has an empty key at the end.
    while cursor.key() and cursor.key() < end_key:
        cursor.delete()
