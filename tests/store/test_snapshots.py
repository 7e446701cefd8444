"""Where snapshots are kept: whole or not at all, no damage silent, and shipping that goes on where it was."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.errors import Corrupted, DiskFull, StoreError
from quorate.store import files, snapshots
from quorate.store.directory import DataDirectory, MemoryDirectory
from quorate.store.snapshots import MemorySnapshots, SnapshotFiles, SnapshotStore, read_snapshot, stateless
from quorate.types import Index, Snapshot, Term

FIRST = Snapshot(Index(10), Term(2), 1.5, Index(1), b"configuration")
SECOND = Snapshot(Index(20), Term(3), 2.5, Index(12), b"another")
CHUNKS = [b"first", b"", b"x" * 100, b"last"]


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    return SnapshotFiles(tmp_path) if request.param == "files" else MemorySnapshots()


def written(snapshot: Snapshot, chunks: list[bytes]) -> bytes:
    """Give a whole file."""
    source = MemorySnapshots()
    source.write(snapshot, chunks)
    return source.read_bytes(snapshot, 0, source.size(snapshot))


def ship(store: SnapshotStore, snapshot: Snapshot, content: bytes, step: int = 7) -> None:
    at = store.receive(snapshot, 0, b"")
    while at < len(content):
        at = store.receive(snapshot, at, content[at : at + step])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Written and read.


def test_what_is_written_is_read(store):
    store.write(FIRST, iter(CHUNKS))
    store.write(SECOND, [])
    assert list(store.chunks(FIRST)) == CHUNKS
    assert list(store.chunks(SECOND)) == []
    store.write(FIRST, [b"again"])
    assert list(store.chunks(FIRST)) == [b"again"]


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_chunks_come_back_also_those_that_span_records(chunks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "RECORD_BYTES_MAX", 40)
        assert list(read_snapshot(io.BytesIO(written(FIRST, chunks)), FIRST)) == chunks


def test_a_chunk_may_be_larger_than_a_record(store):
    large = bytes(2 * snapshots.RECORD_BYTES_MAX + 1)
    store.write(FIRST, [large, large[: snapshots.RECORD_BYTES_MAX], b"end"])
    assert [len(chunk) for chunk in store.chunks(FIRST)] == [2097153, 1048576, 3]


def test_the_file_is_read_in_pieces(store):
    store.write(FIRST, CHUNKS)
    size = store.size(FIRST)
    pieces = [store.read_bytes(FIRST, at, 10) for at in range(0, size, 10)]
    assert b"".join(pieces) == written(FIRST, CHUNKS)
    assert store.read_bytes(FIRST, size, 10) == b""


def test_a_snapshot_that_is_not_there_is_corrupted(store):
    for ask in (
        lambda: store.size(FIRST),
        lambda: store.read_bytes(FIRST, 0, 1),
        lambda: list(store.chunks(FIRST)),
    ):
        with pytest.raises(Corrupted, match="empty data directory"):
            ask()


def test_keep_removes_all_else(store):
    for snapshot in (FIRST, SECOND):
        store.write(snapshot, CHUNKS)
    store.receive(SECOND, 0, b"piece")
    store.keep(SECOND)
    assert store.receive(SECOND, 0, b"") == 0
    assert list(store.chunks(SECOND)) == CHUNKS
    with pytest.raises(Corrupted):
        store.size(FIRST)
    store.keep(None)
    with pytest.raises(Corrupted):
        store.size(SECOND)


def test_keep_leaves_one_file(tmp_path):
    store = SnapshotFiles(tmp_path)
    store.write(FIRST, CHUNKS)
    store.write(SECOND, CHUNKS)
    (tmp_path / "30-3.snapshot.new").write_bytes(b"torn by a crash")
    store.receive(FIRST, 0, b"piece")
    store.keep(FIRST)
    assert names(tmp_path) == ["10-2.snapshot"]
    store.keep(None)
    assert names(tmp_path) == []


def test_what_a_log_no_longer_begins_behind_is_dropped_and_what_is_on_its_way_stays(store):
    for snapshot in (FIRST, SECOND):
        store.write(snapshot, CHUNKS)
    store.receive(FIRST, 0, b"piece")
    store.drop_before(FIRST.index)
    assert [list(store.chunks(snapshot)) for snapshot in (FIRST, SECOND)] == [CHUNKS, CHUNKS]
    store.drop_before(SECOND.index)
    assert list(store.chunks(SECOND)) == CHUNKS
    with pytest.raises(Corrupted):
        store.size(FIRST)
    assert store.receive(FIRST, 0, b"") == len(b"piece")


def test_a_witness_keeps_the_file_of_no_state(store):
    content = stateless(FIRST)
    assert content == written(FIRST, [])
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == []


def test_directories_give_each_peer_its_own(tmp_path):
    memory = MemoryDirectory()
    with closing(DataDirectory.open(tmp_path / "a", "127.0.0.1:7001")) as directory:
        for place in (memory, directory):
            for name in ("peer1", "peer2"):
                place.identity(name)
            place.snapshots("peer1").write(FIRST, CHUNKS)
            assert list(place.snapshots("peer1").chunks(FIRST)) == CHUNKS
            with pytest.raises(Corrupted):
                place.snapshots("peer2").size(FIRST)
        assert names(tmp_path / "a" / "peers" / "peer1") == ["identity", "snapshots"]
        assert names(tmp_path / "a" / "peers" / "peer1" / "snapshots") == ["10-2.snapshot"]
        assert directory.peers() == ["peer1", "peer2"]


# Damage.


def readable(content: bytes, snapshot: Snapshot = FIRST) -> list[bytes] | None:
    """Give the chunks of a file; None if it is refused, which must never follow a chunk that was not written."""
    chunks: list[bytes] = []
    try:
        for chunk in read_snapshot(io.BytesIO(content), snapshot):
            chunks.append(chunk)
            assert chunks == CHUNKS[: len(chunks)], "what was not verified was given out"
    except ValueError:
        return None
    return chunks


def test_every_flipped_bit_is_found():
    content = written(FIRST, CHUNKS)
    assert readable(content) == CHUNKS
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        assert readable(bytes(damaged)) is None, f"bit {bit} was flipped, and nothing said"


def test_every_torn_or_longer_file_is_found():
    content = written(FIRST, CHUNKS)
    assert [size for size in range(len(content)) if readable(content[:size]) is not None] == []
    assert readable(content + b"\0") is None
    assert readable(content + content) is None


def test_records_that_were_moved_doubled_or_dropped_are_found():
    content = written(FIRST, [b"a" * 10, b"b" * 10, b"c" * 10])
    start = content.index(b"a" * 10) - 5
    a, b, c = (content[start + 19 * n : start + 19 * (n + 1)] for n in range(3))
    end = content[start + 57 :]
    for order in ((b, a, c), (a, a, b, c), (a, c), (a, b), ()):
        damaged = content[:start] + b"".join(order) + end
        with pytest.raises(ValueError, match="checksum"):
            list(read_snapshot(io.BytesIO(damaged), FIRST))


def signed(*records: tuple[bytes, bytes]) -> bytes:
    """Make a file of any records whose checksums are right."""
    content, checksum = snapshots.MAGIC, zlib.crc32(snapshots.MAGIC)
    for kind, body in records:
        head = kind + len(body).to_bytes(4, "big")
        checksum = zlib.crc32(head + body, checksum)
        content += head + body + checksum.to_bytes(4, "big")
    return content


def test_files_that_are_wrong_though_their_checksums_are_right_are_found():
    header, end = (b"H", msgspec.msgpack.encode(FIRST)), (b"E", bytes(8))
    assert readable(signed(header, end)) == []
    assert readable(signed(header, (b".", b"first"), (b"E", b"\0" * 7 + b"\1"))) == [b"first"]
    for records in (
        (end,),
        ((b".", header[1]), end),
        ((b"H", msgspec.msgpack.encode(SECOND)), end),
        (header, (b".", b"first"), end),
        (header, (b"+", b"first"), end),
        (header, (b"H", bytes(8))),
        (header, (b"E", bytes(7))),
        (header, (b".", bytes(snapshots.RECORD_BYTES_MAX + 1)), (b"E", b"\0" * 7 + b"\1")),
        (header,),
    ):
        assert readable(signed(*records)) is None, records


def test_damage_says_what_to_do(tmp_path):
    store = SnapshotFiles(tmp_path)
    store.write(FIRST, CHUNKS)
    os.truncate(tmp_path / "10-2.snapshot", store.size(FIRST) - 1)
    taken = store.chunks(FIRST)
    assert list(islice(taken, len(CHUNKS))) == CHUNKS  # each of them is verified; the whole is not there
    with pytest.raises(Corrupted, match=r"10-2\.snapshot is damaged: it ends too early.* join its group anew"):
        next(taken)


def test_a_file_of_another_snapshot_is_not_taken_for_it(tmp_path):
    store = SnapshotFiles(tmp_path)
    store.write(FIRST, CHUNKS)
    later = msgspec.structs.replace(FIRST, time=9.0)  # which has the same name
    with pytest.raises(Corrupted, match="it stands for another snapshot"):
        list(store.chunks(later))


# Failing and crashing while it is written.


@pytest.mark.parametrize("failure", [RuntimeError("the machine's"), KeyboardInterrupt()])
def test_what_the_chunks_raise_leaves_nothing_behind_and_the_old_one_whole(store, tmp_path, failure):
    def failing() -> Iterator[bytes]:
        yield b"first"
        raise failure

    store.write(FIRST, CHUNKS)
    for snapshot in (FIRST, SECOND):
        with pytest.raises(type(failure)):
            store.write(snapshot, failing())
    assert list(store.chunks(FIRST)) == CHUNKS
    with pytest.raises(Corrupted):
        store.size(SECOND)
    assert names(tmp_path) in (["10-2.snapshot"], [])


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, StoreError)])
@pytest.mark.parametrize("failing", ["fsync", "open"])
def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, monkeypatch, number, error, failing):
    def refuse(*_: object) -> int:
        raise OSError(number, "refused")

    store = SnapshotFiles(tmp_path)
    store.write(FIRST, CHUNKS)
    content = written(SECOND, CHUNKS)
    ship(store, SECOND, content)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, failing, refuse)
        for ask in (lambda: store.write(FIRST, [b"new"]), lambda: store.received(SECOND, len(content))):
            with pytest.raises(error) as raised:
                ask()
            assert type(raised.value) is error
    assert [name for name in names(tmp_path) if not name.endswith(".part")] == ["10-2.snapshot"]
    assert list(store.chunks(FIRST)) == CHUNKS


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full is Linux's")
def test_a_disk_that_is_full_while_a_snapshot_arrives_gets_its_room_back(tmp_path):
    """Not at the next start: the logs need it."""
    store = SnapshotFiles(tmp_path)
    content = written(FIRST, CHUNKS)
    assert store.receive(FIRST, 0, content[:10]) == 10
    [part] = tmp_path.iterdir()
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="the disk is full; free some room, and it is tried anew"):
        store.receive(FIRST, 0, content)
    assert names(tmp_path) == []
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS


def test_pieces_whose_sync_failed_are_not_believed_when_a_second_one_succeeds(tmp_path, monkeypatch):
    """The second one proves nothing: the system may have dropped what it could not write, and told so once."""

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "refused")

    store = SnapshotFiles(tmp_path)
    content = written(FIRST, CHUNKS)
    ship(store, FIRST, content)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", refuse)
        with pytest.raises(StoreError, match="refused"):
            store.received(FIRST, len(content))
    assert store.receive(FIRST, len(content), b"") == 0
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS


@pytest.mark.covers("pitfall 62")
def test_a_file_is_durable_before_it_has_its_name_and_the_name_before_it_counts(tmp_path, monkeypatch):
    steps: list[str] = []
    sync, replace = files.sync_path, Path.replace

    def noted_sync(path: Path) -> None:
        steps.append(f"sync {path.name}")
        sync(path)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append(f"{path.name} -> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(files, "sync_path", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    directory = tmp_path / "snapshots"
    directory.mkdir()
    store = SnapshotFiles(directory)
    store.write(FIRST, CHUNKS)
    assert steps == ["sync 10-2.snapshot.new", "10-2.snapshot.new -> 10-2.snapshot", "sync snapshots"]
    steps.clear()
    ship(store, SECOND, written(SECOND, CHUNKS))
    store.received(SECOND, len(written(SECOND, CHUNKS)))
    part = f"20-3-{zlib.crc32(msgspec.msgpack.encode(SECOND)):08x}.part"
    assert steps == [f"sync {part}", f"{part} -> 20-3.snapshot", "sync snapshots"]


WRITER = """
import itertools, sys
from pathlib import Path
from quorate.store.snapshots import SnapshotFiles
from quorate.types import Snapshot

store = SnapshotFiles(Path(sys.argv[1]))
for index in itertools.count(1):
    snapshot = Snapshot(index, 1, float(index), 1, b"")
    store.write(snapshot, (bytes([index % 256]) * 10_000 for _ in range(100)))
    print(index, flush=True)
    store.keep(snapshot)
"""


@pytest.mark.parametrize("lines", [1, 5, 40])
@pytest.mark.covers("pitfall 62")
def test_killing_the_writer_leaves_the_last_snapshot_whole(tmp_path, lines):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        told = int(list(islice(process.stdout, lines))[-1])
        process.send_signal(signal.SIGKILL)
        told = max([told, *map(int, process.stdout.read().split())])
    assert process.returncode == -signal.SIGKILL
    store = SnapshotFiles(tmp_path)
    whole = [int(name.partition("-")[0]) for name in names(tmp_path) if name.endswith(".snapshot")]
    assert max(whole) in (told, told + 1)
    for index in whole:
        chunks = list(store.chunks(Snapshot(Index(index), Term(1), float(index), Index(1), b"")))
        assert chunks == [bytes([index % 256]) * 10_000] * 100
    last = Snapshot(Index(max(whole)), Term(1), float(max(whole)), Index(1), b"")
    store.keep(last)
    assert names(tmp_path) == [f"{last.index}-1.snapshot"]


# Shipping.


def test_a_shipped_snapshot_is_put_in_place(store):
    content = written(FIRST, CHUNKS)
    ship(store, FIRST, content)
    with pytest.raises(Corrupted):
        store.size(FIRST)  # not yet
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS
    assert store.receive(FIRST, 0, b"") == 0


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), max_size=30))
@pytest.mark.covers("pitfall 66")
def test_pieces_that_come_twice_late_or_too_early_change_nothing(tries):
    content, store = written(FIRST, CHUNKS), MemorySnapshots()
    there = 0
    for offset, length in tries:
        piece = content[offset : offset + length]
        if offset == there:
            there += len(piece)
        assert store.receive(FIRST, offset, piece) == there
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS


@pytest.mark.covers("pitfall 66")
def test_shipping_goes_on_after_a_restart(tmp_path):
    content = written(FIRST, CHUNKS)
    assert SnapshotFiles(tmp_path).receive(FIRST, 0, content[:30]) == 30
    store = SnapshotFiles(tmp_path)
    assert store.receive(FIRST, 0, content[:40]) == 30
    assert store.receive(FIRST, 31, content[31:]) == 30
    assert store.receive(FIRST, 30, content[30:]) == len(content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS
    assert names(tmp_path) == ["10-2.snapshot"]


@pytest.mark.parametrize(
    "other", [SECOND, msgspec.structs.replace(FIRST, time=9.0), msgspec.structs.replace(FIRST, configuration=b"")]
)
@pytest.mark.covers("pitfall 66")
def test_pieces_of_another_snapshot_are_never_mixed_in(store, other):
    content = written(FIRST, CHUNKS)
    store.receive(FIRST, 0, content[:30])
    assert store.receive(other, 30, content[30:]) == 0
    assert store.receive(other, 0, written(other, CHUNKS)) == len(written(other, CHUNKS))
    assert store.receive(FIRST, 30, content[30:]) == 0  # the older one was dropped
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS


@pytest.mark.covers("pitfall 66")
def test_a_shipped_file_that_is_wrong_is_thrown_away_and_may_be_sent_anew(store):
    content = written(FIRST, CHUNKS)
    flipped = bytearray(content)
    flipped[random.Random(1).randrange(len(content))] ^= 16
    halves = written(FIRST, [b"first of another leader", *CHUNKS])[:80] + content[80:]
    for wrong in (bytes(flipped), content[:-1], content + b"\0", halves, written(SECOND, CHUNKS), b""):
        ship(store, FIRST, wrong)
        with pytest.raises(Corrupted, match=r"did not arrive as it should: .*can be sent anew"):
            store.received(FIRST, len(wrong))
        assert store.receive(FIRST, 0, b"") == 0
    ship(store, FIRST, content)
    with pytest.raises(Corrupted, match=rf"{len(content)} of {len(content) + 1} bytes are there"):
        store.received(FIRST, len(content) + 1)
    ship(store, FIRST, content)
    store.received(FIRST, len(content))
    assert list(store.chunks(FIRST)) == CHUNKS


def test_nothing_shipped_is_nothing_received(store):
    with pytest.raises(Corrupted):
        store.received(FIRST, 0)
