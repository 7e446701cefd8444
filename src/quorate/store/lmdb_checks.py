"""How an LMDB database is scanned and checked, and what the engine's errors mean. Knows no writing.

The engine trusts its file: a flipped bit in one of its pages can end the process, or hide a record as if it had never
been written. What is done about it, before the engine may open a file, and at every start:

- The file is walked page by page by ``lmdb.verify``, in Python, so that damage cannot end the process: every page
  reachable once, keys in order, as many records as are counted.
- The two meta pages must be those of two commits in a row. Were the newer one damaged, the engine would take the
  older without a word, and the last commit, perhaps a vote, would be gone.
- Every record of every log must have its checksum, under its key, and be found by that key. A record that got another
  key is missing elsewhere, and where is not known: so damage to one log stops all peers of the node.

What is not seen: damage that happens while the store is open, until a record is read (checksums, contiguous indexes)
or the store is opened again; and that the file was put back to an earlier state, if its mark was too, or if the
commits since the mark are the only ones missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Generator, Iterator
from pathlib import Path

import lmdb
from lmdb.verify import VerifyError, verify

from quorate.errors import Corrupted, DiskFull, StoreError
from quorate.store.files import disk_errors
from quorate.store.mark import store_damage
from quorate.store.records import decode_run, entries_prefix, entry_key, record_body
from quorate.types import Index, Run

ENGINE = 0
"""The major version of LMDB whose file format is checked here. Named at each open: the package has two, and an
environment variable chooses between them."""

ROOM_BYTES = 1024 * 1024
"""With less room than this a write that was cut short counts as one on a full disk."""

_META = struct.Struct("=40xIH42x4xH42x8xQ")
"""What is read of a meta page: page size, flags of the table of free pages, flags of the main table, commit number."""

_FREE_FLAGS = 0x0008  # the keys are integers
_NO_SUBDIR = 0x4000  # how the file was opened; kept with those flags, and of no consequence

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)


def store_error_from_engine(error: lmdb.Error, directory: Path) -> StoreError:
    """Turn what the engine raises for the store in a directory into errors of quorate."""
    if isinstance(error, _DAMAGE):
        return Corrupted(store_damage(directory, str(error)))
    # A write for which there is room in part is cut short, and the engine calls that an I/O error.
    full = error.code in (errno.ENOSPC, errno.EDQUOT) or (error.code == errno.EIO and _room(directory) < ROOM_BYTES)
    if full:
        return DiskFull(f"the disk of {directory} is full; free some room and start again: {error}")
    return StoreError(f"the database in {directory} failed: {error}")


def _room(directory: Path) -> int:
    """Give the bytes that are free on the disk of a directory."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


@contextlib.contextmanager
def engine_errors(directory: Path) -> Iterator[None]:
    """Translate what the engine raises inside the ``with``; all other errors pass as they are.

    Raises:
        StoreError: what the engine said, in our words.
    """
    try:
        yield
    except lmdb.Error as error:
        translated = store_error_from_engine(error, directory)
        raise translated from error


def scan_runs(transaction: lmdb.Transaction[bytes], log: str, first: Index) -> Generator[Run]:
    """Give the stored runs of a log in order, from the one that holds ``first`` on."""
    prefix = entries_prefix(log)
    cursor = transaction.cursor()
    if not (cursor.set_range(entry_key(log, first)) and cursor.key() == entry_key(log, first)):
        found = cursor.prev() if cursor.key() else cursor.last()
        if not (found and cursor.key().startswith(prefix)):
            cursor.set_range(prefix)
    # At the end a cursor has an empty key.
    while cursor.key().startswith(prefix):
        yield decode_run(log, cursor.key(), cursor.value())
        cursor.next()


def check_file(directory: Path, path: Path) -> None:
    """Check all that the engine relies on in the file of a database, which nobody has open.

    Raises:
        Corrupted: the engine must not open it.
        StoreError: the disk failed.
    """
    with disk_errors(f"reading {path}"):
        try:
            problems: list[str] = verify(path, subdir=False)  # type: ignore[no-untyped-call]
        except (VerifyError, LookupError, ValueError, struct.error) as error:
            problems = [str(error)]
        problems = problems or _meta_problems(path)
    if problems:
        raise Corrupted(store_damage(directory, f"{path.name}: {problems[0]}"))


def _meta_problems(path: Path) -> list[str]:
    """Say what is wrong with the two meta pages of a file that ``verify`` accepts, and would go unnoticed."""
    with path.open("rb") as file:
        meta = _META.unpack(file.read(_META.size))
        file.seek(meta[0])
        other = _META.unpack(file.read(_META.size))
    older, newer = sorted((meta, other), key=lambda page: page[-1])
    problems: list[str] = []
    if newer[-1] != older[-1] + 1:
        problems.append(f"its meta pages are of the commits {older[-1]} and {newer[-1]}, not of two in a row")
    if newer[1] & ~_NO_SUBDIR != _FREE_FLAGS or newer[2] != 0:
        problems.append("the flags of its tables are not those it was made with")
    return problems


def check_content(path: Path, transaction: lmdb.Transaction[bytes]) -> None:
    """Check the checksum of every record in a database file, whatever its key, and that it is found by its key.

    Raises:
        Corrupted: one is not what was written there.
    """
    for key, record in transaction.cursor():
        try:
            record_body(key, record)
        except ValueError as error:
            raise Corrupted(_damaged_record(path, key, f"cannot be read: {error}")) from error
        # The keys by which the engine searches stand apart from the records, and `verify` does not compare them.
        if transaction.get(key) != record:
            raise Corrupted(_damaged_record(path, key, "is there, and is not found"))


def _damaged_record(path: Path, key: bytes, fact: str) -> str:
    """Say what is wrong with a record."""
    return store_damage(path.parent, f"{path.name}: the record under {key!r} {fact}")
