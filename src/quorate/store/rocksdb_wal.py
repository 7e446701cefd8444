"""What RocksDB's write-ahead log (WAL) proves by itself: that everything before the last write begun in it was durable.

At most one write of the store is ever unsynced (``rocksdb.py``), so whoever finds that a write was begun knows that
all before it had been synced. The engine does not tell: a record whose length is damaged hides what follows it, and
then looks like the torn end that a crash leaves. So the files are read here, in the engine's form: blocks of 32 KiB
with records that cross none of them, each of a masked CRC-32C (4 bytes), a length (2), a type (1) and a payload; a
write is one whole record or several parts, and begins with its sequence number (8 bytes); all little-endian. Reads
files only.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 32 * 1024
_HEADER = struct.Struct("<IHB")
_SEQUENCE_BYTES = 8

_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4

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
    # By number: the names have six digits at least.
    for path in sorted(database.glob("*.log"), key=lambda path: (len(path.name), path.name), reverse=True):
        content = path.read_bytes()
        for at in reversed(range(0, len(content), _BLOCK_BYTES)):
            sequence = max(_writes_begun(content[at : at + _BLOCK_BYTES], resumption), default=0)
            if sequence:
                return sequence - 1
    return 0


def _resumption(marked: int) -> re.Pattern[bytes]:
    """Give what the next sound write may look like, from its checksum on: by the upper half of its number."""
    near = [re.escape((marked // 2**32 + more).to_bytes(4, "little")) for more in (0, 1)]
    return re.compile(rb"(?=.{6}[\x01\x02].{4}(?:%b|%b))" % (near[0], near[1]), re.DOTALL)


def _writes_begun(block: bytes, resumption: re.Pattern[bytes]) -> Iterator[int]:
    """Give the sequence numbers of the writes that begin in a block, of those whose first record is sound."""
    if block[4 : _HEADER.size] == _BLOCK_OF_MIDDLE:
        return
    at = 0
    while at + _HEADER.size < len(block):
        checksum, length, kind = _HEADER.unpack_from(block, at)
        end = at + _HEADER.size + length
        if not _WHOLE <= kind <= _LAST or end > len(block) or _masked(_crc32c(block[at + 6 : end])) != checksum:
            # Damage, and how far it goes is not known: the next sound record may begin anywhere behind.
            resumed = resumption.search(block, at + 1)
            if resumed is None:
                return
            at = resumed.start()
            continue
        if kind in (_WHOLE, _FIRST) and length >= _SEQUENCE_BYTES:
            yield int.from_bytes(block[at + _HEADER.size : at + _HEADER.size + _SEQUENCE_BYTES], "little")
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


def _crc32c(content: bytes) -> int:
    table = _crc32c_table()
    value = 0xFFFFFFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def _masked(checksum: int) -> int:
    """Give a checksum in the form in which the engine keeps it."""
    return (checksum >> 15 | checksum << 17) + 0xA282EAD8 & 0xFFFFFFFF
