"""How a RocksDB database is opened, read and, after a crash, recovered; and what its errors mean. Knows no appending.

A store's directory holds the database, ``db-N``, and ``mark``: which database is current, and a lower bound of what is
durable in it, as the engine's sequence number (it counts every change, so it stands for all logs, votes, truncations
and compactions at once); and ``lock``, held before any of them is touched. What is found at start, and what follows:

- Before anything else the mark is raised to what the write-ahead log (WAL) itself proves to have been durable: all but
  the last write begun in it (``rocksdb_wal.py``).
- A WAL of several logs, as a process leaves it that is killed before the memtable of the earlier is a table: all but
  the last were synced whole. One that is gone, or ends, or seems to, before the next begins: ``Corrupted``. So is one
  that does not begin where the tables end, and a database without any log.
- A WAL that ends too early, as a killed process or a power cut leaves it: its torn end is dropped.
- A WAL damaged before its end. A power cut may zero a page that was never synced, which is harmless; a bad disk may
  damage what was acknowledged, which is not. A copy of the database is recovered up to the damage, and becomes current
  only if it reaches the mark and every record and log in it is sound; else ``Corrupted``.
- Fewer changes than the mark counts, or anything else that is not what was written: ``Corrupted``.

So a torn end or a repair can hide only that the end of the WAL is gone or damaged with nothing sound behind, and only
entries that were written after the mark: in the last second or so before the crash. It never hides a term or vote.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import rocksdict
from rocksdict import Rdict

from quorate.errors import Corrupted, DiskFull, StoreError, StoreLocked
from quorate.store.files import copy_directory, disk_errors, sync_path
from quorate.store.mark import Mark, check_mark, store_damage, write_mark
from quorate.store.records import (
    check_log,
    compaction_key,
    decode_compaction,
    decode_hard_state,
    decode_run,
    entries_prefix,
    entry_key,
    hard_state_key,
)
from quorate.store.rocksdb_wal import beginnings, durable_before_last_write
from quorate.types import Compaction, Index, Run, Stored

MEMTABLE_BYTES = 8 * 1024 * 1024
"""Entries held in memory before they become a table on disk; about as much is replayed at start."""

TABLES_MAX = 16
"""Tables that are written before the engine rewrites them as one. A log is dropped from its beginning, so most entries
are gone by then; with the engine's own 4 each was rewritten, and large ones cost half as much again. So many tables
hold twice what makes a snapshot due by default, and that much room is given back late."""

DAMAGED = ".damaged"
"""Ends the name of a database of which a copy was recovered."""

_logger = logging.getLogger("quorate.store")


def store_error_from_engine(error: Exception, database: Path | None = None) -> StoreError:
    """Turn what the engine raises, which is told apart by its text alone, into errors of quorate.

    Args:
        error: what it raised.
        database: the directory that it was asked about; None where it names its files itself.
    """
    text = " ".join(str(error).split())
    is_missing = "(create_if_missing is false)" in text or text.startswith("IO error: No such file or directory")
    is_damaged = text.startswith("Corruption:") or is_missing
    if database is not None and str(database) not in text:
        # Of the binding's own file it says what is wrong, and not where.
        text = f"{text} ({database / 'rocksdict-config.json' if '(os error' in text else database})"
    if is_damaged:
        return Corrupted(
            f"the database is damaged: {text.rstrip('.')}. Check the disk, then give this node an empty data directory"
            " and let its peers join their groups anew (join=…)"
        )
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return DiskFull(f"the disk is full; free some room and start again: {text}")
    if text.startswith(("IO error: lock hold by current process", "IO error: While lock file")):
        return StoreLocked(f"the database is in use by another node; stop that one first: {text}")
    return StoreError(f"the database failed: {text}; check the disk, and that all of it may be read and written")


@contextlib.contextmanager
def engine_errors(database: Path | None = None) -> Iterator[None]:
    """Translate what the engine raises inside the ``with``; errors of quorate pass as they are.

    Args:
        database: as for ``store_error_from_engine``.

    Raises:
        StoreError: what the engine said, in our words.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        translated = store_error_from_engine(error, database)
        raise translated from error


def open_database(path: Path, *, create: bool, up_to_damage: bool = False) -> Rdict:
    """Open a database; what is recovered from its WAL is in synced tables when this returns.

    Args:
        path: its directory.
        create: whether to make it if it is missing.
        up_to_damage: whether to accept a WAL that is damaged before its end, and drop what follows the damage.

    Raises:
        StoreError: as the engine says.
    """
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(create)
    recovery = rocksdict.DBRecoveryMode
    options.set_wal_recovery_mode(
        recovery.point_in_time() if up_to_damage else recovery.tolerate_corrupted_tail_records()
    )
    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_level_zero_file_num_compaction_trigger(TABLES_MAX)
    options.set_level_zero_slowdown_writes_trigger(2 * TABLES_MAX)
    options.set_level_zero_stop_writes_trigger(3 * TABLES_MAX)
    options.set_compression_type(rocksdict.DBCompressionType.none())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1024 * 1024)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    with engine_errors(path):
        return Rdict(str(path), options)


def scan_runs(database: Rdict, log: str, first: Index) -> Generator[Run]:
    """Give the stored runs of a log in order, from the one that holds ``first`` on."""
    prefix = entries_prefix(log)
    with engine_errors():
        iterator = database.iter()
        try:
            iterator.seek_for_prev(entry_key(log, first))
            iterator.status()
            if not iterator.valid() or not iterator.key().startswith(prefix):
                iterator.seek(prefix)
            # Not left to bounds in ReadOptions: they were seen not to hold.
            while iterator.valid() and (key := iterator.key()).startswith(prefix):
                yield decode_run(log, key, iterator.value())
                iterator.next()
            # A damaged block ends the loop just as the end of the log does; only this tells them apart.
            iterator.status()
        finally:
            # A database stays open for as long as an iterator lives, and a traceback would keep this one.
            del iterator


def read_log(database: Rdict, log: str, visit: Callable[[Run], None] | None) -> Stored:
    """Read and verify one log whole."""
    compaction = read_compaction(database, log)
    with engine_errors():
        hard_state = decode_hard_state(log, database.get(hard_state_key(log)))
    start = compaction.start if compaction is not None else Index(0)
    # Begun where the log does: the engine would have to step over all that was dropped before.
    with contextlib.closing(scan_runs(database, log, Index(start + 1))) as runs:
        return check_log(log, runs, hard_state, compaction, visit)


def read_compaction(database: Rdict, log: str) -> Compaction | None:
    """Read what the beginning of a log was replaced by; None for a log that begins at index 1."""
    with engine_errors():
        record = database.get(compaction_key(log))
    return decode_compaction(log, record)


def _log_names(database: Rdict) -> list[str]:
    """Give the names of all logs in the database."""
    names: list[str] = []
    with engine_errors():
        iterator = database.iter()
        try:
            iterator.seek_to_first()
            while iterator.valid():
                name = iterator.key().partition(b"\0")[0]
                names.append(name.decode("ascii", "replace"))
                iterator.seek(name + b"\1")
            iterator.status()
        finally:
            del iterator
    return names


def begin(directory: Path) -> Mark:
    """Make an empty store.

    Raises:
        Corrupted: there is a database that is not empty, but no mark.
        StoreError: the disk failed.
    """
    mark = Mark("db-1", 0)
    path = directory / mark.database
    with engine_errors(path), contextlib.closing(open_database(path, create=True)) as database:
        # A crash between making the database and writing the mark leaves an empty one, and that is all it may leave.
        if database.latest_sequence_number() > 0:
            raise Corrupted(store_damage(directory, "the file mark is missing"))
    write_mark(directory, mark)
    return mark


def raise_mark(directory: Path, mark: Mark) -> Mark:
    """Raise the mark of a store that is not open to what its WAL proves to have been durable.

    On the disk too, for opening the database replaces the WAL, and the proof with it.

    Raises:
        StoreError: the disk failed; the old mark stands.
    """
    database = directory / mark.database
    with disk_errors(f"reading {database}"):
        durable = durable_before_last_write(database, mark.sequence)
    if durable <= mark.sequence:
        return mark
    raised = Mark(mark.database, durable)
    write_mark(directory, raised)
    return raised


def check_earlier_logs(directory: Path, mark: Mark) -> None:
    """Check of a store that is not open that all is there and can be read which came before each log of its WAL.

    Raises:
        Corrupted: what was durable is missing.
        StoreError: the disk failed.
    """
    database = directory / mark.database
    with disk_errors(f"reading {database}"):
        if not any(database.glob("*.log")):
            # Each open makes one, durable before the one before is removed.
            raise Corrupted(store_damage(directory, f"{database} has lost its write-ahead log, the files *.log"))
        for path, durable, readable in beginnings(database, mark.sequence):
            check_mark(directory, Mark(mark.database, durable), readable, f"what comes before {path}")


def recover(directory: Path, mark: Mark) -> Mark:
    """Recover a copy of a damaged database up to the damage, and make it current if nothing durable is missing.

    Args:
        directory: the store's directory.
        mark: its mark.

    Returns:
        The new mark. The damaged database is left beside, until the next such recovery.

    Raises:
        Corrupted: something that was durable is missing.
        StoreError: the disk failed.
    """
    damaged = directory / mark.database
    copy = directory / f"db-{int(mark.database.removeprefix('db-')) + 1}"
    with disk_errors(f"copying {damaged}"):
        for leftover in directory.glob("db-*"):
            if leftover != damaged:
                shutil.rmtree(leftover)
        copy_directory(damaged, copy)
    try:
        database = open_database(copy, create=False, up_to_damage=True)
        with engine_errors(copy), contextlib.closing(database):
            check_mark(directory, mark, database.latest_sequence_number(), f"the write-ahead log in {damaged}")
            recovered = Mark(copy.name, database.latest_sequence_number())
            for log in _log_names(database):
                read_log(database, log, None)
        with disk_errors(f"copying {damaged}"):
            for path in copy.iterdir():
                sync_path(path)
            sync_path(copy)
    except StoreError as error:
        shutil.rmtree(copy, ignore_errors=True)
        # Whoever looks for what it names finds only what the copy was made of.
        raise type(error)(str(error).replace(str(copy), str(damaged))) from error
    write_mark(directory, recovered)
    _logger.warning(
        "%s: the write-ahead log was damaged beyond what is known to be durable, with no sound write behind, as a power"
        " cut leaves it -> recovered as %s without the damage. If a bad disk did it, entries of the last second before"
        " are lost; %s may be removed",
        directory,
        copy.name,
        damaged.name + DAMAGED,
    )
    return recovered


def set_aside(directory: Path, mark: Mark) -> None:
    """Give a database that is no longer the current one a name that no mark has: an old mark must not make it current.

    Raises:
        StoreError: the disk failed.
    """
    with disk_errors(f"tidying {directory}"):
        for path in directory.glob("db-*"):
            if path.name != mark.database and path.suffix != DAMAGED:
                path.rename(path.with_name(path.name + DAMAGED))
