"""Where one peer's snapshots are kept, and the form of their files.

A file is ``MAGIC``, then records. A record is its kind, 1 byte; the length of its body, 4 bytes big-endian; the body;
and 4 bytes of the CRC-32 of ``MAGIC`` and of all kinds, lengths and bodies up to here. The first record holds the
``Snapshot`` in MessagePack; then come the chunks of the state, each as one record or several; the last one
holds their number. So a record that was changed, moved, dropped or put in is noticed at the latest where it ends.

Blocking, and called by one thread at a time. Knows no machine: chunks are bytes.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import msgspec

from quorate.errors import Corrupted
from quorate.store.files import disk_errors, put_in_place, replacing
from quorate.types import Index, Snapshot

T = TypeVar("T")

WITH_ROOM = ", and it is tried anew"
"""What follows when a disk that was full no longer is: a snapshot that fails stops nobody."""

MAGIC = b"quorate snapshot 1\n"
"""Begins every file; its number is that of the form."""

RECORD_BYTES_MAX = 1024 * 1024
"""Longest body: checked before it is read. A longer chunk goes on in the next record."""

HEADER, MORE, LAST, END = b"H", b"+", b".", b"E"
"""The kinds: what the snapshot stands for; a part of a chunk; the last part of a chunk; the end."""

SUFFIX = ".snapshot"
PART = ".part"
"""Ends the name of a file that is being received."""

_encoder = msgspec.msgpack.Encoder()


class SnapshotStore(Protocol):
    """One peer's snapshots: the latest, and while a new one is made or received, that one beside it.

    A snapshot that ``write`` or ``received`` has put in place survives every crash. What was shipped so far may be
    lost at a crash, and is resumed if it was not.
    """

    def write(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Put a snapshot in place, durably and whole: after a crash it is there as it is, or not at all.

        Args:
            snapshot: what it stands for.
            chunks: the state. What iterating them raises is raised as it is.

        Raises:
            DiskFull: there is no room; nothing of it is left behind.
            StoreError: the disk failed; nothing of it is left behind.
        """
        ...

    def size(self, snapshot: Snapshot) -> int:
        """Give the bytes of its whole file.

        Raises:
            Corrupted: it is not there.
            StoreError: the disk failed.
        """
        ...

    def read_bytes(self, snapshot: Snapshot, offset: int, length: int) -> bytes:
        """Read a piece of its file for shipping, unchecked: ``received`` checks the whole.

        Returns:
            ``length`` bytes from ``offset`` on; fewer only where the file ends.

        Raises:
            Corrupted: it is not there.
            StoreError: the disk failed.
        """
        ...

    def chunks(self, snapshot: Snapshot) -> Iterator[bytes]:
        """Yield the state, each chunk once it is verified. Only when all were taken is it known to be whole.

        Raises:
            Corrupted: it is not there, or not what was written.
            StoreError: the disk failed.
        """
        ...

    def receive(self, snapshot: Snapshot, offset: int, piece: bytes) -> int:
        """Add a piece of a file that is being shipped; of another snapshot than before, it begins anew.

        Args:
            snapshot: what it stands for.
            offset: where the piece belongs. Unless that is where the last one ended, nothing changes.
            piece: bytes of the file; may be empty, to ask how many are here.

        Returns:
            How many bytes are here now: where to go on.

        Raises:
            DiskFull: there is no room; nothing of it is left behind.
            StoreError: the disk failed; nothing of it is left behind.
        """
        ...

    def received(self, snapshot: Snapshot, size: int) -> None:
        """Verify all pieces as one file, and put it in place, durably.

        Args:
            snapshot: what it stands for.
            size: the bytes of the whole file.

        Raises:
            Corrupted: it is not the whole file, or is damaged, or stands for something else; it is removed.
            StoreError: the disk failed; it is removed, too.
        """
        ...

    def keep(self, snapshot: Snapshot | None) -> None:
        """Remove all but one snapshot, or all; what is being received, too. Called at the start.

        Raises:
            StoreError: the disk failed.
        """
        ...

    def drop_before(self, index: Index, but: Collection[Index] = ()) -> None:
        """Remove the snapshots below an index: it is durable that the log begins behind the one at ``index``.

        Args:
            index: that of the first one to stay.
            but: the indexes of older ones that stay as well: they are being sent.

        Raises:
            StoreError: the disk failed.
        """
        ...


def stateless(snapshot: Snapshot) -> bytes:
    """Give the file of a snapshot without state: what a witness keeps."""
    file = io.BytesIO()
    write_snapshot(file, snapshot, ())
    return file.getvalue()


def write_snapshot(file: BinaryIO, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
    """Write a whole file."""
    file.write(MAGIC)
    checksum = _write_record(file, HEADER, _encoder.encode(snapshot), zlib.crc32(MAGIC))
    count = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while len(rest) > RECORD_BYTES_MAX:
            checksum = _write_record(file, MORE, rest[:RECORD_BYTES_MAX], checksum)
            rest = rest[RECORD_BYTES_MAX:]
        checksum = _write_record(file, LAST, rest, checksum)
        count += 1
    _write_record(file, END, count.to_bytes(8, "big"), checksum)


def _write_record(file: BinaryIO, kind: bytes, body: bytes | memoryview, checksum: int) -> int:
    """Write one record; give the checksum with it."""
    head = kind + len(body).to_bytes(4, "big")
    checksum = zlib.crc32(body, zlib.crc32(head, checksum))
    file.write(head)
    file.write(body)
    file.write(checksum.to_bytes(4, "big"))
    return checksum


def read_snapshot(file: BinaryIO, snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the chunks of a file that must stand for ``snapshot``, each once it is verified.

    Raises:
        ValueError: it is not what was written.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it does not begin as a snapshot does that this version can read")
    kind, body, checksum = _read_record(file, zlib.crc32(MAGIC))
    if (kind, body) != (HEADER, _encoder.encode(snapshot)):
        raise ValueError("it stands for another snapshot")
    count = 0
    parts: list[bytes] = []
    while True:
        kind, body, checksum = _read_record(file, checksum)
        if kind not in (MORE, LAST):
            break
        parts.append(body)
        if kind == LAST:
            yield b"".join(parts)
            parts.clear()
            count += 1
    if (kind, body, parts) != (END, count.to_bytes(8, "big"), []):
        raise ValueError(f"it ends otherwise than {count} chunks do")
    if file.read(1):
        raise ValueError("it goes on behind its end")


def _read_record(file: BinaryIO, checksum: int) -> tuple[bytes, bytes, int]:
    """Read one record; give its kind, its body, and the checksum with it.

    Raises:
        ValueError: it is not what was written.
    """
    head = file.read(5)
    length = int.from_bytes(head[1:], "big")
    if length > RECORD_BYTES_MAX:
        raise ValueError("a record is too long")
    body = file.read(length)
    checksum = zlib.crc32(body, zlib.crc32(head, checksum))
    if file.read(4) != checksum.to_bytes(4, "big"):
        raise ValueError("it ends too early, or a checksum does not match")
    return head[:1], body, checksum


def check_received(file: BinaryIO, snapshot: Snapshot, size: int) -> None:
    """Check that a file that was shipped is whole, and stands for ``snapshot``.

    Raises:
        ValueError: it is not, or does not.
    """
    there = file.seek(0, os.SEEK_END)
    if there != size:
        raise ValueError(f"{there} of {size} bytes are there")
    file.seek(0)
    for _ in read_snapshot(file, snapshot):
        pass


def damage(where: object, fact: object) -> str:
    """Say that a peer's own snapshot cannot be believed, and what to do."""
    return (
        f"{where} is damaged: {fact}. The log no longer holds what it stands for: check the disk, then give this peer"
        " an empty data directory and let it join its group anew"
    )


def damage_on_the_way(where: object, fact: object) -> str:
    """Say that what was shipped is not a snapshot, and what follows."""
    return f"{where} did not arrive as it should: {fact}. It was thrown away, and can be sent anew"


class SnapshotFiles:
    """Snapshots as files of one directory: ``INDEX-TERM.snapshot``, and ``INDEX-TERM-CHECKSUM.part`` on their way."""

    def __init__(self, directory: Path) -> None:
        """Use a directory, which exists and holds nothing else."""
        self._directory = directory

    def write(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Put a snapshot in place; see ``SnapshotStore.write``."""
        path = self._path(snapshot)
        with disk_errors(f"writing {path}", with_room=WITH_ROOM), replacing(path) as file:
            write_snapshot(file, snapshot, chunks)

    def size(self, snapshot: Snapshot) -> int:
        """Give the bytes of its whole file; see ``SnapshotStore.size``."""
        return self._reading(snapshot, lambda file: file.seek(0, os.SEEK_END))

    def read_bytes(self, snapshot: Snapshot, offset: int, length: int) -> bytes:
        """Read a piece of its file; see ``SnapshotStore.read_bytes``."""

        def read(file: BinaryIO) -> bytes:
            file.seek(offset)
            return file.read(length)

        return self._reading(snapshot, read)

    def chunks(self, snapshot: Snapshot) -> Iterator[bytes]:
        """Yield the state; see ``SnapshotStore.chunks``.

        Raises:
            Corrupted: it is not there, or not what was written.
        """
        path = self._path(snapshot)
        with disk_errors(f"reading {path}"):
            try:
                with path.open("rb") as file:
                    yield from read_snapshot(file, snapshot)
            except (FileNotFoundError, ValueError) as error:
                raise Corrupted(damage(path, error)) from error

    def receive(self, snapshot: Snapshot, offset: int, piece: bytes) -> int:
        """Add a piece; see ``SnapshotStore.receive``."""
        part = self._part(snapshot)
        with disk_errors(f"receiving {part}", with_room=WITH_ROOM):
            if not part.exists():
                self._remove(other for other in self._directory.glob("*" + PART))
            try:
                with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                    if file.seek(0, os.SEEK_END) == offset:
                        file.write(piece)
                    return file.tell()
            except BaseException:
                # On a full disk it would take the room of the logs, perhaps until the next start.
                part.unlink(missing_ok=True)
                raise

    def received(self, snapshot: Snapshot, size: int) -> None:
        """Verify all pieces, and put the file in place; see ``SnapshotStore.received``.

        Raises:
            Corrupted: it is not the whole file, or damaged, or stands for something else.
        """
        part = self._part(snapshot)
        with disk_errors(f"receiving {part}", with_room=WITH_ROOM):
            try:
                with part.open("rb") as file:
                    check_received(file, snapshot, size)
            except (FileNotFoundError, ValueError) as error:
                part.unlink(missing_ok=True)
                raise Corrupted(damage_on_the_way(part, error)) from error
            try:
                put_in_place(part, self._path(snapshot))
            except BaseException:
                # Of pieces whose sync failed nothing is known; a second one would succeed, and prove nothing.
                part.unlink(missing_ok=True)
                raise

    def keep(self, snapshot: Snapshot | None) -> None:
        """Remove all but one snapshot; see ``SnapshotStore.keep``."""
        kept = snapshot and self._path(snapshot)
        with disk_errors(f"tidying {self._directory}"):
            self._remove(path for path in self._directory.iterdir() if path != kept)

    def drop_before(self, index: Index, but: Collection[Index] = ()) -> None:
        """Remove the snapshots below an index; see ``SnapshotStore.drop_before``."""
        with disk_errors(f"tidying {self._directory}"):
            there = [(int(path.name.split("-")[0]), path) for path in self._directory.glob("*" + SUFFIX)]
            self._remove(path for at, path in there if at < index and at not in but)

    def _path(self, snapshot: Snapshot) -> Path:
        return self._directory / f"{snapshot.index}-{snapshot.term}{SUFFIX}"

    def _part(self, snapshot: Snapshot) -> Path:
        checksum = zlib.crc32(_encoder.encode(snapshot))
        return self._directory / f"{snapshot.index}-{snapshot.term}-{checksum:08x}{PART}"

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            path.unlink()

    def _reading(self, snapshot: Snapshot, read: Callable[[BinaryIO], T]) -> T:
        """Give what ``read`` makes of a snapshot's file.

        Raises:
            Corrupted: it is not there.
        """
        path = self._path(snapshot)
        with disk_errors(f"reading {path}"):
            try:
                with path.open("rb") as file:
                    return read(file)
            except FileNotFoundError as error:
                raise Corrupted(damage(path, error)) from error


class MemorySnapshots:
    """Snapshots for as long as the object lives: for stores in memory, and the simulator's disks.

    What ``write`` and ``received`` put in place survives a crash that is played; what is being received does not, if
    ``keep`` is called at the start as it should be.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._files: dict[Snapshot, bytes] = {}
        self._part: tuple[Snapshot, bytearray] | None = None

    def write(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Put a snapshot in place; see ``SnapshotStore.write``."""
        file = io.BytesIO()
        write_snapshot(file, snapshot, chunks)
        self._files[snapshot] = file.getvalue()

    def size(self, snapshot: Snapshot) -> int:
        """Give the bytes of its whole file; see ``SnapshotStore.size``."""
        return len(self._file(snapshot))

    def read_bytes(self, snapshot: Snapshot, offset: int, length: int) -> bytes:
        """Read a piece of its file; see ``SnapshotStore.read_bytes``."""
        return self._file(snapshot)[offset : offset + length]

    def chunks(self, snapshot: Snapshot) -> Iterator[bytes]:
        """Yield the state; see ``SnapshotStore.chunks``.

        Raises:
            Corrupted: it is not there, or not what was written.
        """
        file = io.BytesIO(self._file(snapshot))
        try:
            yield from read_snapshot(file, snapshot)
        except ValueError as error:
            raise Corrupted(damage(snapshot, error)) from error

    def receive(self, snapshot: Snapshot, offset: int, piece: bytes) -> int:
        """Add a piece; see ``SnapshotStore.receive``."""
        if self._part is None or self._part[0] != snapshot:
            self._part = snapshot, bytearray()
        content = self._part[1]
        if len(content) == offset:
            content += piece
        return len(content)

    def received(self, snapshot: Snapshot, size: int) -> None:
        """Verify all pieces, and put the file in place; see ``SnapshotStore.received``.

        Raises:
            Corrupted: it is not the whole file, or damaged, or stands for something else.
        """
        part, self._part = self._part, None
        content = bytes(part[1]) if part is not None and part[0] == snapshot else b""
        try:
            check_received(io.BytesIO(content), snapshot, size)
        except ValueError as error:
            raise Corrupted(damage_on_the_way(snapshot, error)) from error
        self._files[snapshot] = content

    def keep(self, snapshot: Snapshot | None) -> None:
        """Remove all but one snapshot; see ``SnapshotStore.keep``."""
        self._part = None
        self._files = {kept: file for kept, file in self._files.items() if kept == snapshot}

    def drop_before(self, index: Index, but: Collection[Index] = ()) -> None:
        """Remove the snapshots below an index; see ``SnapshotStore.drop_before``."""
        self._files = {kept: file for kept, file in self._files.items() if kept.index >= index or kept.index in but}

    def _file(self, snapshot: Snapshot) -> bytes:
        """Give a snapshot's file.

        Raises:
            Corrupted: it is not there.
        """
        try:
            return self._files[snapshot]
        except KeyError as error:
            raise Corrupted(damage(snapshot, "it is not there")) from error
