"""What every store shares: the form of a record, what a batch changes, and what a log must look like when it is read.

A record is a CRC-32 of its key and its body, 4 bytes big-endian, and the body in MessagePack. The key is part of the
checksum, so that a record which turns up under another log or index is seen. A log has one record for each run, one
for term and vote, and one for its compaction, which tells where the log begins: a run that spans that place stays
whole, and is clipped when it is read. Knows nothing of engines and files.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

import msgspec

from quorate.errors import Corrupted
from quorate.store import Batch
from quorate.types import Compaction, HardState, Index, Kind, Run, Stored, Term, is_name

T = TypeVar("T")

_CHECKSUM_BYTES = 4

_encoder = msgspec.msgpack.Encoder()
_run_decoder = msgspec.msgpack.Decoder(Run)
_hard_state_decoder = msgspec.msgpack.Decoder(HardState)
_compaction_decoder = msgspec.msgpack.Decoder(Compaction)


class Extent(NamedTuple):
    """Where one log begins and ends.

    Attributes:
        start: the log begins right behind this index; 0 for one that was never compacted.
        last: the index of the last entry; ``start`` when there is none.
        snapshot_index: the log may not end below this one; 0 for one that was never compacted.
    """

    start: Index = Index(0)
    last: Index = Index(0)
    snapshot_index: Index = Index(0)

    @classmethod
    def of(cls, compaction: Compaction | None, last_run: Run | None) -> Extent:
        """Give the extent of a log with this compaction, whose last stored run is this one."""
        last = last_run.last if last_run is not None else Index(0)
        if compaction is None:
            return cls(last=last)
        return cls(compaction.start, max(last, compaction.start), compaction.snapshot.index)


class Changes(NamedTuple):
    """What a batch changes on disk, all of it or nothing.

    Attributes:
        drops: ranges of keys, each from its first key up to but not including its second; dropped before any put.
        puts: keys and their records.
    """

    drops: list[tuple[bytes, bytes]]
    puts: list[tuple[bytes, bytes]]


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


def compaction_key(log: str) -> bytes:
    """Give the key of what the log's beginning was replaced by."""
    return b"%s\0C" % log.encode()


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
    try:
        return decoder.decode(record_body(key, record))
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


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


def decode_compaction(log: str, record: bytes | None) -> Compaction | None:
    """Read the record of the compaction; None stands for a log that begins at index 1.

    Raises:
        Corrupted: it is not what was written.
    """
    if record is None:
        return None
    try:
        return decode_record(compaction_key(log), record, _compaction_decoder)
    except ValueError as error:
        raise Corrupted(damage(log, f"where it begins cannot be read: {error}")) from error


def damage(log: str, fact: str) -> str:
    """Say what is wrong with a log that cannot be believed, and what to do."""
    return (
        f"the log of {log} is damaged: {fact}. Check the disk, then give {log} an empty data directory and let it join"
        " its group anew: with this one it could vote twice or forget what it acknowledged"
    )


def extent_after(batch: Batch, extent: Extent) -> Extent:
    """Check that a batch fits its log, and give where the log begins and ends with it.

    Raises:
        ValueError: it does not fit: the caller is at fault.
    """
    log, compaction = batch.log, batch.compaction
    if compaction is not None:
        _check_compaction(log, compaction, extent)
        last = compaction.start if compaction.replaces_log else extent.last
        extent = Extent(compaction.start, last, compaction.snapshot.index)
    if batch.runs:
        _check_runs(log, batch.runs, extent)
        extent = Extent(extent.start, batch.runs[-1].last, extent.snapshot_index)
    if extent.last < extent.snapshot_index:
        raise ValueError(
            f"the log of {log} would end at {extent.last}, below its snapshot, which is of {extent.snapshot_index}"
        )
    return extent


def _check_compaction(log: str, compaction: Compaction, extent: Extent) -> None:
    start = compaction.start
    if not extent.start <= start <= compaction.snapshot.index:
        raise ValueError(
            f"the log of {log} begins behind {extent.start} and cannot begin behind {start}, with a snapshot of"
            f" {compaction.snapshot.index}"
        )
    if start > extent.last and not compaction.replaces_log:
        raise ValueError(f"the log of {log} ends at {extent.last} and cannot begin behind {start}")


def _check_runs(log: str, runs: Sequence[Run], extent: Extent) -> None:
    expected = runs[0].first
    if not extent.start < expected <= extent.last + 1:
        raise ValueError(
            f"entries from {expected} on do not fit the log of {log}, which begins behind {extent.start} and ends at"
            f" {extent.last}"
        )
    for run in runs:
        if run.first != expected or not run.payloads:
            raise ValueError(f"runs for the log of {log} are not contiguous at {expected}")
        expected = Index(run.last + 1)


def drops_entries(batch: Batch, extent: Extent) -> bool:
    """Tell whether ``changes_of`` may have to look at the runs of a log of this extent."""
    return batch.compaction is not None or bool(batch.runs and batch.runs[0].first <= extent.last)


def changes_of(batch: Batch, extent: Extent, scan: Callable[[Index], Generator[Run]]) -> Changes:
    """Give what a batch changes in a log.

    Args:
        batch: it fits, by ``extent_after``.
        extent: of the log, without the batch.
        scan: gives the stored runs of the log in order, from the one that holds an index on.

    Raises:
        Corrupted: an entry that the log must hold is missing.
    """
    log, compaction = batch.log, batch.compaction
    last = extent.last
    changes = Changes([], [])
    if compaction is not None:
        if compaction.replaces_log:
            changes.drops.append((entries_prefix(log), entries_end_key(log)))
            last = compaction.start
        elif compaction.start > extent.start:
            changes.drops.append((entries_prefix(log), _first_kept_key(log, compaction.start, last, scan)))
        key = compaction_key(log)
        changes.puts.append((key, encode_record(key, compaction)))
    if batch.runs:
        first = batch.runs[0].first
        if first <= last:
            spanning = _run_holding(log, first, scan)
            changes.drops.append((entry_key(log, first), entries_end_key(log)))
            if spanning.first < first:
                changes.puts.append(_run_record(log, spanning.part(spanning.first, Index(first - 1))))
        changes.puts.extend(_run_record(log, run) for run in batch.runs)
    if batch.hard_state is not None:
        key = hard_state_key(log)
        changes.puts.append((key, encode_record(key, batch.hard_state)))
    return changes


def _first_kept_key(log: str, start: Index, last: Index, scan: Callable[[Index], Generator[Run]]) -> bytes:
    """Give the first key that a log keeps when it begins behind ``start``."""
    if start == last:
        return entries_end_key(log)
    return entry_key(log, _run_holding(log, Index(start + 1), scan).first)


def _run_holding(log: str, index: Index, scan: Callable[[Index], Generator[Run]]) -> Run:
    """Give the stored run that holds an entry.

    Raises:
        Corrupted: there is none.
    """
    with closing(scan(index)) as runs:
        run = next(runs, None)
    if run is None or not run.first <= index <= run.last:
        raise Corrupted(damage(log, f"entry {index} is missing"))
    return run


def _run_record(log: str, run: Run) -> tuple[bytes, bytes]:
    key = entry_key(log, run.first)
    return key, encode_record(key, run)


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


def check_log(
    log: str,
    runs: Iterable[Run],
    hard_state: HardState,
    compaction: Compaction | None,
    visit: Callable[[Run], None] | None,
) -> Stored:
    """Verify one log whole; see ``LogStore.load``.

    Args:
        log: the peer's name.
        runs: all that are stored, in order.
        hard_state: the term and vote stored beside them.
        compaction: the one stored beside them.
        visit: called with each run, without what was compacted.

    Raises:
        Corrupted: an entry is missing, or the log cannot have been written so.
    """
    check = LogCheck(log, compaction)
    for run in runs:
        shown = check.add(run)
        if shown is not None and visit is not None:
            visit(shown)
    return check.stored(hard_state)


class LogCheck:
    """Reads one log from its first run to its last, and gathers what the core needs of it."""

    def __init__(self, log: str, compaction: Compaction | None = None) -> None:
        """Begin before the first entry."""
        self._log = log
        self._compaction = compaction
        self._start = self._last = compaction.start if compaction is not None else Index(0)
        self._term = compaction.term if compaction is not None else Term(0)
        self._time = compaction.snapshot.time if compaction is not None else 0.0
        self._terms: list[tuple[Index, Term]] = []
        self._configurations: list[tuple[Index, bytes]] = []
        self._bare = Index(0)

    def add(self, run: Run) -> Run | None:
        """Take the next run.

        Returns:
            What of it the log still holds; None when all of it was compacted.

        Raises:
            Corrupted: entries are missing before it, or its term is lower than one before it.
        """
        if run.payloads and run.last <= self._start:
            return None
        if run.first <= self._start:
            run = run.part(Index(self._start + 1), run.last)
        if run.first != self._last + 1 or not run.payloads:
            fact = f"entry {self._last + 1} is missing, though the entries from {run.first} on are there"
            raise Corrupted(damage(self._log, fact))
        if run.term < self._term:
            raise Corrupted(damage(self._log, f"the term falls from {self._term} to {run.term} at entry {run.first}"))
        if run.term > self._term or not self._terms:
            self._terms.append((run.first, run.term))
        if run.kind is Kind.CONFIGURATION:
            self._configurations += [(Index(run.first + at), payload) for at, payload in enumerate(run.payloads)]
        if run.kind is Kind.BARE:
            self._bare = self._bare or run.first
        self._last, self._term, self._time = run.last, run.term, run.time
        return run

    def stored(self, hard_state: HardState) -> Stored:
        """Give what was gathered, with the term and vote that were stored beside it.

        Raises:
            Corrupted: the log ends before its snapshot does.
        """
        compaction = self._compaction
        if compaction is not None and self._last < compaction.snapshot.index:
            fact = f"entry {self._last + 1} is missing, though its snapshot is of {compaction.snapshot.index}"
            raise Corrupted(damage(self._log, fact))
        terms, configurations = tuple(self._terms), tuple(self._configurations)
        return Stored(hard_state, terms, self._last, configurations, self._time, compaction, self._bare)
