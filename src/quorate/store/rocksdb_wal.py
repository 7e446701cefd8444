"""What RocksDB's write-ahead log (WAL) proves by itself: that everything before the last write begun in it was durable.

At most one write of the store is ever unsynced (``rocksdb.py``), so whoever finds that a write was begun knows that
all before it had been synced. The engine does not tell: a record whose length is damaged hides what follows it, and
then looks like the torn end that a crash leaves. So the files are read here, in the engine's form: blocks of 32 KiB
with records that cross none of them, each of a masked CRC-32C (4 bytes), a length (2), a type (1) and a payload; a
write is one whole record or several parts, and begins with its sequence number (8 bytes) and the number of its changes
(4), each of which takes one sequence number; all little-endian. Reads files only.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 32 * 1024
_HEADER = struct.Struct("<IHB")
_BEGINNING = struct.Struct("<QI")
_SEQUENCE_BYTES = 8

_CHANGE_BYTES_MIN = 3
"""How many bytes a change takes at least: what it does, and the lengths of what it does it to."""

_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

_FIRST_LOG, _LAST_SEQUENCE = 2, 4
_NUMBERS = (_FIRST_LOG, 3, _LAST_SEQUENCE, 9, 10, 203)
"""The tags in a manifest that a number follows: these two; the next file, the log before, the oldest log, tables."""
_TEXTS = (1, 1 << 13 | 1)
"""The tags in a manifest that a text follows: the name of the order, the database's id."""

_BLOCK_OF_MIDDLE = _HEADER.pack(0, _BLOCK_BYTES - _HEADER.size, _MIDDLE)[4:]
"""How a block goes on, after its checksum, in which a write neither begins nor ends."""


def durable_before_last_write(database: Path, marked: int) -> int:
    """Give the sequence number before that of the last write begun in a database's WAL: all up to it was durable.

    Args:
        database: the directory of a database that is not open.
        marked: a sequence number that is near: behind damage only writes are found that come within 2**32 after it.

    Returns:
        0 when there is no write in the WAL of which the beginning is sound.

    Raises:
        OSError: the disk refused.
    """
    resumption = _resumption(marked)
    for path in reversed(_logs(database)):
        content = path.read_bytes()
        first = _first_change(content)
        for at in reversed(range(0, len(content), _BLOCK_BYTES)):
            sequence = max(_writes_begun(content[at : at + _BLOCK_BYTES], resumption, first, at), default=0)
            if sequence:
                return sequence - 1
    return 0


def _resumption(marked: int) -> re.Pattern[bytes]:
    """Give what the next sound write may look like, from its checksum on: by the upper half of its number."""
    near = [re.escape((marked // 2**32 + more).to_bytes(4, "little")) for more in (0, 1)]
    return re.compile(rb"(?=.{6}[\x01\x02].{4}(?:%b|%b))" % (near[0], near[1]), re.DOTALL)


def _writes_begun(block: bytes, resumption: re.Pattern[bytes], first: int = 0, before: int = 0) -> Iterator[int]:
    """Give the sequence numbers of the writes that begin in a block, of those whose first record is sound.

    Args:
        block: what there is of it.
        resumption: what the next sound write behind damage may look like.
        first: the sequence number with which the log begins; 0 when it is not known.
        before: how many bytes of the log are before this block.
    """
    if block[4 : _HEADER.size] == _BLOCK_OF_MIDDLE:
        return
    last, last_at = first, -before
    at = 0
    while at + _HEADER.size < len(block):
        end = _end_of_sound(block, at)
        if end is None:
            # Damage, and how far it goes is not known: the next sound record may begin anywhere behind.
            resumed = _resumed(block, at, resumption, last, last_at)
            if resumed is None:
                return
            at = resumed
            continue
        if block[at + 6] in (_WHOLE, _FIRST) and end - at >= _HEADER.size + _SEQUENCE_BYTES:
            last, last_at = _sequence(block, at), at
            yield last
        at = end


def _resumed(block: bytes, broken: int, resumption: re.Pattern[bytes], last: int, last_at: int) -> int | None:
    """Give where the first sound write behind a broken record begins; None if there is none.

    What was written may hold the copy of a log. So a write is not believed inside of a record, unless that was broken
    only by its length, or its kind is none; and none with a number that cannot follow ``last``, of the write that
    begins at ``last_at``.
    """
    checksum, length, kind = _HEADER.unpack_from(block, broken)
    end = broken + _HEADER.size + length if _WHOLE <= kind <= _LAST else broken
    passed, passed_checksum = broken + 6, 0
    for match in resumption.finditer(block, broken + 1):
        at = match.start()
        if _end_of_sound(block, at) is None:
            continue
        if last and not last <= _sequence(block, at) <= last + (at - last_at) // _CHANGE_BYTES_MIN:
            continue
        if at >= end:
            return at
        passed_checksum = _crc32c(block[passed:at], passed_checksum)
        passed = max(passed, at)
        if _masked(passed_checksum) == checksum:
            return at
    return None


def _end_of_sound(block: bytes, at: int) -> int | None:
    """Give where a record ends; None if it is not sound."""
    if at + _HEADER.size > len(block):
        return None
    checksum, length, kind = _HEADER.unpack_from(block, at)
    end: int = at + _HEADER.size + length
    if not _WHOLE <= kind <= _LAST or end > len(block) or _masked(_crc32c(block[at + 6 : end])) != checksum:
        return None
    return end


def _sequence(block: bytes, at: int) -> int:
    """Give the sequence number of the write that begins with a record."""
    return int.from_bytes(block[at + _HEADER.size : at + _HEADER.size + _SEQUENCE_BYTES], "little")


def beginnings(database: Path, marked: int) -> Iterator[tuple[Path, int, int]]:
    """Give for each log of a database's WAL what was durable before it, and what of that is there.

    The engine goes on to another log only once all in the one before is durable, and removes that only when all of it
    is in tables. But it replays each up to what it takes for a torn end, and misses none that is gone: damage to one
    would hide what it held, and leave what came later.

    Args:
        database: the directory of a database that is not open.
        marked: as for ``durable_before_last_write``.

    Returns:
        The log, the sequence number before that of its first write, and that of the last change that can be read in the
        tables and the logs before. Nothing for a log of which that is not known, and nothing for those that the engine
        has in tables, of which it may have removed some.

    Raises:
        OSError: the disk refused.
    """
    tables = _in_tables(database)
    if tables is None:
        return
    needed, readable = tables
    resumption = _resumption(marked)
    earlier = None
    for path in (path for path in _logs(database) if int(path.stem) >= needed):
        if earlier is not None:
            readable = max(readable, _last_change(earlier.read_bytes(), resumption))
        with path.open("rb") as file:
            first = _first_change(file.read(_BLOCK_BYTES))
        if first:
            yield path, first - 1, readable
        earlier = path


def _logs(database: Path) -> list[Path]:
    """Give a database's logs in their order."""
    return sorted((path for path in database.glob("*.log") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def _in_tables(database: Path) -> tuple[int, int] | None:
    """Give the number of the first log that is not yet in tables, and the sequence number of the last change that is.

    The database's manifest tells them; None where it does not. It has the form of a log. A record may begin with texts
    and numbers, in any order: a tag and a text, which is a length and so many bytes, or a tag and a number. The first
    other tag ends them.
    """
    current = database / "CURRENT"
    if not current.is_file():
        return None
    manifest = database / current.read_text("ascii", "replace").strip()
    if not manifest.is_file():
        return None
    told: dict[int, int] = {}
    for record in _records(manifest.read_bytes()):
        tag, at = _number(record, 0)
        while tag in _TEXTS or tag in _NUMBERS:
            number, at = _number(record, at)
            if tag in _TEXTS:
                at += number
            else:
                told[tag] = max(told.get(tag, 0), number)
            tag, at = _number(record, at)
    return (told[_FIRST_LOG], told.get(_LAST_SEQUENCE, 0)) if _FIRST_LOG in told else None


def _number(record: bytes, at: int) -> tuple[int, int]:
    """Read a number as the manifest has them, seven bits in each byte, lowest first; give it, and where it ends."""
    number = 0
    for shift, byte in enumerate(record[at : at + 10]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, at + shift + 1
    return 0, len(record)


def _first_change(content: bytes) -> int:
    """Give the sequence number with which a log begins; 0 when the beginning of its first write is not sound."""
    is_sound = _end_of_sound(content[:_BLOCK_BYTES], 0) is not None
    return _sequence(content, 0) if is_sound and content[6] in (_WHOLE, _FIRST) else 0


def _last_change(content: bytes, resumption: re.Pattern[bytes]) -> int:
    """Give the sequence number of the last change that can be read of a log from its beginning; 0 when there is none.

    Where not even its first write can be read, that before the first one that can.
    """
    last = 0
    for record in _records(content):
        if len(record) >= _BEGINNING.size:
            sequence, count = _BEGINNING.unpack_from(record)
            last = sequence + count - 1
    if not last:
        for at in range(0, len(content), _BLOCK_BYTES):
            for sequence in _writes_begun(content[at : at + _BLOCK_BYTES], resumption):
                return sequence - 1
    return last


def _records(content: bytes) -> Iterator[bytes]:
    """Give what is whole in a log, up to its end or damage that hides what is behind; the engine checks the rest."""
    at = 0
    parts: list[bytes] = []
    while at + _HEADER.size <= len(content):
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _HEADER.size:
            at += left
            continue
        _, length, kind = _HEADER.unpack_from(content, at)
        end = at + _HEADER.size + length
        if not _WHOLE <= kind <= _LAST or end > min(at + left, len(content)):
            return
        if kind in (_WHOLE, _FIRST):
            parts.clear()
        parts.append(content[at + _HEADER.size : end])
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts.clear()
        at = end


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
        table.append(value)
    return tuple(table)


def _crc32c(content: bytes, before: int = 0) -> int:
    """Give the checksum of what follows what has the checksum ``before``."""
    table = _crc32c_table()
    value = before ^ 0xFFFFFFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _masked(checksum: int) -> int:
    """Give a checksum in the form in which the engine keeps it."""
    return (checksum >> 15 | checksum << 17) + 0xA282EAD8 & 0xFFFFFFFF
