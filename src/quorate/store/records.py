"""What every store shares: the form of a record, and what a log must look like when it is read.

A record is a CRC-32 of its key and its body, 4 bytes big-endian, and the body in MessagePack. The key is part of the
checksum, so that a record which turns up under another log or index is seen. Knows nothing of engines and files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from quorate.errors import Corrupted
from quorate.types import HardState, Index, Kind, Run, Stored, Term, is_name

T = TypeVar("T")

_CHECKSUM_BYTES = 4

_encoder = msgspec.msgpack.Encoder()
_run_decoder = msgspec.msgpack.Decoder(Run)
_hard_state_decoder = msgspec.msgpack.Decoder(HardState)


def entries_prefix(log: str) -> bytes:
    """Give what the keys of all runs of the log begin with, and no other key does."""
    return b"%s\0E" % log.encode()


def entry_key(log: str, index: Index) -> bytes:
    """Give the key of the run that begins at ``index``: keys of one log sort by index."""
    return entries_prefix(log) + index.to_bytes(8, "big")


def entries_end_key(log: str) -> bytes:
    """Give the first key beyond all runs of the log."""
    return b"%s\0F" % log.encode()


def hard_state_key(log: str) -> bytes:
    """Give the key of the log's term and vote."""
    return b"%s\0H" % log.encode()


def check_log_name(log: str) -> None:
    """Refuse a log whose name could run into another's keys.

    Raises:
        ValueError: the text is no peer's name.
    """
    if not is_name(log):
        raise ValueError(f"{log!r} cannot name a log: a name is 1 to 128 letters, digits, '.', '_' and '-'")


def encode_record(key: bytes, value: msgspec.Struct) -> bytes:
    """Write a value as the record that stands under ``key``."""
    body = _encoder.encode(value)
    return zlib.crc32(body, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "big") + body


def decode_record(key: bytes, record: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    """Read the record that stood under ``key``.

    Raises:
        ValueError: it is not what was written there.
    """
    return decoder.decode(record_body(key, record))


def record_body(key: bytes, record: bytes) -> memoryview:
    """Give the body of the record that stood under ``key``, undecoded.

    Raises:
        ValueError: its checksum shows that it is not what was written there.
    """
    body = memoryview(record)[_CHECKSUM_BYTES:]
    if record[:_CHECKSUM_BYTES] != zlib.crc32(body, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "big"):
        raise ValueError("its checksum does not match")
    return body


def decode_run(log: str, key: bytes, record: bytes) -> Run:
    """Read the record of a run.

    Raises:
        Corrupted: it is not what was written under ``key``.
    """
    try:
        return decode_record(key, record, _run_decoder)
    except ValueError as error:
        raise Corrupted(
            damage(log, f"the entries from {int.from_bytes(key[-8:], 'big')} on cannot be read: {error}")
        ) from error


def decode_hard_state(log: str, record: bytes | None) -> HardState:
    """Read the record of term and vote; None, for a log that has none yet, is term 0.

    Raises:
        Corrupted: it is not what was written.
    """
    if record is None:
        return HardState()
    try:
        return decode_record(hard_state_key(log), record, _hard_state_decoder)
    except ValueError as error:
        raise Corrupted(damage(log, f"its term and vote cannot be read: {error}")) from error


def damage(log: str, fact: str) -> str:
    """Say what is wrong with a log that cannot be believed, and what to do."""
    return (
        f"the log of {log} is damaged: {fact}. Check the disk, then give {log} an empty data directory and let it join"
        " its group anew: with this one it could vote twice or forget what it acknowledged"
    )


def check_runs(log: str, runs: Sequence[Run], last: Index) -> None:
    """Check that runs may be appended to a log whose last index is ``last``.

    Raises:
        ValueError: they are not contiguous, leave a gap, or hold no entry: the caller is at fault.
    """
    expected = runs[0].first
    if not 1 <= expected <= last + 1:
        raise ValueError(f"entries from {expected} on leave a gap in the log of {log}, which ends at {last}")
    for run in runs:
        if run.first != expected or not run.payloads:
            raise ValueError(f"runs for the log of {log} are not contiguous at {expected}")
        expected = Index(run.last + 1)


def take_runs(log: str, runs: Iterable[Run], first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
    """Take entries ``first`` to ``last`` inclusive from stored runs, about ``bytes_max`` but one entry at least.

    Args:
        log: the peer's name, for the message.
        runs: in order, beginning with the one that holds ``first``.
        first: the first index wanted.
        last: the last index wanted; the log holds it.
        bytes_max: the limit, counted as ``Run.size`` does.

    Raises:
        Corrupted: an entry that the log must hold is missing.
    """
    taken: list[Run] = []
    expected, room = first, bytes_max
    for run in runs:
        begins = run.first if taken else max(run.first, first)
        if begins != expected or expected > run.last:
            break
        wanted = run.part(expected, last)
        piece = _fitting(wanted, room, at_least=0 if taken else 1)
        if piece is not None:
            taken.append(piece)
        if piece is not wanted or wanted.last == last:
            return tuple(taken)
        expected, room = Index(wanted.last + 1), room - wanted.size
    raise Corrupted(damage(log, f"entry {expected} is missing"))


def _fitting(run: Run, room: int, at_least: int) -> Run | None:
    """Give as many of the run's first entries as fit into ``room`` bytes: the run itself when all do."""
    if run.size <= room:
        return run
    count = 0
    for payload in run.payloads:
        room -= len(payload) + 16
        if room < 0:
            break
        count += 1
    count = max(count, at_least)
    return run.part(run.first, Index(run.first + count - 1)) if count else None


class LogCheck:
    """Reads one log from its first run to its last, and gathers what the core needs of it."""

    def __init__(self, log: str) -> None:
        """Begin before the first entry."""
        self._log = log
        self._last = Index(0)
        self._time = 0.0
        self._terms: list[tuple[Index, Term]] = []
        self._configurations: list[tuple[Index, bytes]] = []

    def add(self, run: Run) -> None:
        """Take the next run.

        Raises:
            Corrupted: entries are missing before it, or its term is lower than one before it.
        """
        if run.first != self._last + 1 or not run.payloads:
            fact = f"entry {self._last + 1} is missing, though the entries from {run.first} on are there"
            raise Corrupted(damage(self._log, fact))
        term = self._terms[-1][1] if self._terms else Term(0)
        if run.term < term:
            raise Corrupted(damage(self._log, f"the term falls from {term} to {run.term} at entry {run.first}"))
        if run.term > term:
            self._terms.append((run.first, run.term))
        if run.kind is Kind.CONFIGURATION:
            self._configurations += [(Index(run.first + at), payload) for at, payload in enumerate(run.payloads)]
        self._last, self._time = run.last, run.time

    def stored(self, hard_state: HardState) -> Stored:
        """Give what was gathered, with the term and vote that were stored beside it."""
        return Stored(hard_state, tuple(self._terms), self._last, tuple(self._configurations), self._time)
