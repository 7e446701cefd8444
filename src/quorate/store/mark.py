"""The mark of a store on disk: what its database must at least hold. Kept beside the database, and outlives its damage.

Without it a database that was deleted, replaced or rolled back would look like a healthy one. A lower bound, which
costs a sync or two of its own and is therefore not written with each write: with the sync that makes a term or vote
durable, before anybody is told of it; about a second after any other write (``store/disk.py``); at open and at close.
What happened to changes after the last mark is not seen by it. It is replaced whole, so that a crash leaves the old
mark or the new one, and one that cannot be read is damage. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from quorate.errors import Corrupted, StoreError
from quorate.store import Batch
from quorate.store.files import disk_errors, replace_file
from quorate.store.records import decode_record, encode_record

_NAME = "mark"


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Which database is current, and how much of it is known to be durable.

    Attributes:
        database: what the engine knows its current database by.
        sequence: what the database must at least hold: every change up to this sequence number was synced. Counts
            every change to it, so it stands for all logs, votes, truncations and compactions at once.
    """

    database: str
    sequence: int


_decoder = msgspec.msgpack.Decoder(Mark)


def read_mark(directory: Path) -> Mark | None:
    """Read the mark of a store, or None when there is none.

    Raises:
        Corrupted: it is not what was written.
        StoreError: the disk failed.
    """
    path = directory / _NAME
    with disk_errors(f"reading {path}"):
        if not path.exists():
            return None
        record = path.read_bytes()
    try:
        return decode_record(_NAME.encode(), record, _decoder)
    except ValueError as error:
        raise Corrupted(store_damage(directory, f"{path} cannot be read: {error}")) from error


def write_mark(directory: Path, mark: Mark) -> None:
    """Replace the mark of a store, durably.

    Raises:
        StoreError: the disk failed; the old mark stands.
    """
    with disk_errors(f"writing {directory / _NAME}"):
        replace_file(directory / _NAME, encode_record(_NAME.encode(), mark))


def _which(directory: Path) -> tuple[int, int]:
    """Tell which directory it is that is reached by this path now.

    Raises:
        StoreError: none, or the disk failed.
    """
    with disk_errors(f"looking for {directory}"):
        found = directory.stat()
    return found.st_dev, found.st_ino


class MarkKeeper:
    """Keeps the mark of an open store: with each sync of a term or vote, and when it is told to."""

    def __init__(self, directory: Path, mark: Mark) -> None:
        """Go on from the mark that a store has."""
        self._directory = directory
        self._opened = _which(directory)
        self._mark = mark
        self._promised = False

    def appended(self, batches: Sequence[Batch]) -> None:
        """Learn what was appended; the next sync makes it durable."""
        self._promised = self._promised or any(batch.hard_state is not None for batch in batches)

    def synced(self, durable: int) -> None:
        """Learn that a sync has ended, with every change up to ``durable`` on the disk.

        Raises:
            StoreError: the disk failed; the old mark stands.
        """
        if self._promised:
            # Here and not a moment later: now others are told of it.
            self.save(durable)
            self._promised = False

    def save(self, durable: int) -> None:
        """Write what is known to be durable, if it is more than was written.

        Raises:
            StoreError: the disk failed, or another directory lies in the place of this one; the old mark stands.
        """
        if durable > self._mark.sequence:
            self.check_in_place()
            self._mark = Mark(self._mark.database, durable)
            write_mark(self._directory, self._mark)

    def check_in_place(self) -> None:
        """Check that the directory is still the one that was opened: what is written by its path would harm another.

        Raises:
            StoreError: another one is there now, or none, or the disk failed.
        """
        if _which(self._directory) != self._opened:
            raise StoreError(
                f"{self._directory} is another directory than the one that this node opened, which was moved away"
                " meanwhile: stop whatever runs on it, and put back what was there"
            )


def check_is_there(directory: Path) -> None:
    """Check that a store which peers of this node had is there.

    Raises:
        Corrupted: there is none, or its mark is not what was written.
        StoreError: the disk failed.
    """
    if read_mark(directory) is None:
        raise Corrupted(store_damage(directory, "it holds no store (no file mark), and its peers had one"))


def check_mark(directory: Path, mark: Mark, sequence: int, where: object) -> None:
    """Check that a database holds at least what was durable in it.

    Args:
        directory: the store's directory.
        mark: what was durable.
        sequence: the sequence number of the last change that can be read.
        where: what it was read in, for the message.

    Raises:
        Corrupted: it does not.
    """
    if sequence < mark.sequence:
        fact = f"{mark.sequence} changes were durable, and only {sequence} can be read in {where}"
        raise Corrupted(store_damage(directory, fact))


def store_damage(directory: Path, fact: str) -> str:
    """Say what is wrong with a store that cannot be believed, and what to do."""
    return (
        f"{directory} is damaged: {fact}. Check the disk, then give this node an empty data directory and let its peers"
        " join their groups anew (join=…): with this one they could vote twice or forget what they acknowledged"
    )
