"""What stores on disk do when a compacted log is damaged, that they free room, and what a crash leaves of one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest
from rocksdict import Options, Rdict

from quorate.errors import Corrupted, StoreError
from quorate.store import Batch, rocksdb_recovery
from quorate.store.cache import Cache
from quorate.store.lmdb import LMDBStore
from quorate.store.records import compaction_key, encode_record, entry_key
from quorate.store.rocksdb import RocksDBStore
from quorate.testing.disk import SimulatedDisk
from quorate.testing.durability import copy_directory
from quorate.testing.logs import ALL, OpenStore, append, entries_of, make_compaction, make_run, numbered, read_entries
from quorate.types import HardState, Index, Run, Term

STORES: dict[str, OpenStore] = {"rocksdb": RocksDBStore.open, "lmdb": LMDBStore.open}


@contextlib.contextmanager
def tampered(name: str, path: Path) -> Iterator[Any]:
    """Open the database of a closed store behind its back; what is given has ``put``, ``get`` and ``delete``."""
    if name == "rocksdb":
        with closing(Rdict(str(path / "db-1"), Options(raw_mode=True))) as database:
            yield database
    else:
        with (
            closing(lmdb.open(str(path / "logs.mdb"), subdir=False, lock=False)) as database,
            database.begin(write=True) as transaction,
        ):
            yield transaction


@pytest.fixture(params=STORES)
def name(request) -> str:
    return request.param


@pytest.fixture
def compacted(name, tmp_path) -> Path:
    """A closed store of entries 3 to 9, of which those from 6 on are shown, with a snapshot of 7."""
    with closing(STORES[name](tmp_path / "store")) as store:
        append(store, "peer1", numbered(2, 1, 2), numbered(2, 3, 7), numbered(2, 8, 9), hard_state=HardState(Term(2)))
        append(store, "peer1", compaction=make_compaction(2, 7, 5))
        store.sync()
    return tmp_path / "store"


def put(database: Any, key: bytes, value: Any) -> None:
    database.put(key, encode_record(key, value))


def entry(index: int) -> bytes:
    return entry_key("peer1", Index(index))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda database: database.put(compaction_key("peer1"), b"\0\0\0\0\x94"), "cannot be read"),
        (lambda database: put(database, compaction_key("peer1"), HardState()), "where it begins cannot be read"),
        (
            lambda database: database.put(compaction_key("peer2"), database.get(compaction_key("peer1"))),
            "cannot be read",
        ),
        (lambda database: database.delete(compaction_key("peer1")), "entry 1 is missing"),
        (lambda database: database.delete(entry(3)), "entry 6 is missing"),
        (lambda database: put(database, entry(3), numbered(2, 3, 5)), "entry 6 is missing"),
        (lambda database: (database.delete(entry(3)), database.delete(entry(8))), "entry 6 is missing"),
        (lambda database: put(database, entry(8), numbered(2, 7, 9)), "entry 8 is missing"),
        (
            lambda database: (put(database, entry(3), numbered(2, 3, 6)), database.delete(entry(8))),
            "entry 7 is missing, though its snapshot is of 7",
        ),
        (lambda database: put(database, entry(3), numbered(1, 3, 7)), "term falls from 2 to 1 at entry 6"),
    ],
    ids=[
        "flipped",
        "of another kind",
        "of another log",
        "gone",
        "first gone",
        "first short",
        "all gone",
        "overlapping",
        "below the snapshot",
        "old term",
    ],
)
def test_a_compacted_log_that_is_not_what_was_written_is_reported(name, compacted, change, fact):
    with tampered(name, compacted) as database:
        change(database)

    def load_all() -> None:
        with closing(STORES[name](compacted)) as store:
            store.load("peer1")
            store.load("peer2")

    with pytest.raises(Corrupted, match=fact):
        load_all()


def test_reads_and_appends_report_a_damaged_compaction(name, compacted):
    with tampered(name, compacted) as database:
        put(database, compaction_key("peer1"), HardState())
    with closing(STORES[name](compacted)) as store:
        with pytest.raises(Corrupted, match="where it begins"):
            store.read("peer1", Index(6), Index(9), ALL)
        with pytest.raises(Corrupted, match="where it begins"):
            append(store, "peer1", numbered(2, 10, 10))


def test_a_compaction_reports_that_the_entry_behind_it_is_missing(name, compacted):
    with tampered(name, compacted) as database:
        database.delete(entry(8))
        put(database, entry(9), numbered(2, 9, 9))
    with closing(STORES[name](compacted)) as store, pytest.raises(Corrupted, match="entry 8 is missing"):
        append(store, "peer1", compaction=make_compaction(2, 7))


def test_a_compacted_log_that_was_never_loaded_goes_on_where_it_ends(name, compacted):
    with closing(STORES[name](compacted)) as store:
        assert read_entries(store, "peer1", 5) == []
        append(store, "peer1", numbered(3, 10, 10), compaction=make_compaction(2, 9))
        store.sync()
    with closing(STORES[name](compacted)) as store:
        with pytest.raises(ValueError, match="cannot begin behind 8"):
            append(store, "peer1", compaction=make_compaction(3, 9, 8))
        assert read_entries(store, "peer1", 10) == entries_of(numbered(3, 10, 10))
        append(store, "peer1", compaction=make_compaction(3, 10))
    with closing(STORES[name](compacted)) as store:
        append(store, "peer1", numbered(3, 11, 11))
        assert store.load("peer1").last == 11


def test_a_batch_of_nothing_changes_nothing(name, compacted):
    with closing(STORES[name](compacted)) as store:
        store.append([Batch("peer1", None, ())])
        store.sync()
    with closing(STORES[name](compacted)) as store:
        assert store.load("peer1").last == 9


def test_a_compaction_looks_at_one_record_however_long_the_log(tmp_path, monkeypatch):
    seen: list[bytes] = []
    decode = rocksdb_recovery.decode_run
    with closing(RocksDBStore.open(tmp_path / "store")) as store:
        append(store, "peer1", *(numbered(1, index, index) for index in range(1, 501)))
        monkeypatch.setattr(rocksdb_recovery, "decode_run", lambda *record: seen.append(record[1]) or decode(*record))
        append(store, "peer1", compaction=make_compaction(1, 450, 400))
    assert seen == [entry(401)]


def size_of(path: Path, pattern: str) -> int:
    total = 0
    for file in path.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # the engine removes files as it likes
            total += file.stat().st_size
    return total


def append_and_compact(store: Any, count: int) -> None:
    """Append entries of 1 KB, ten at once, and keep about a hundred of them."""
    for first in range(1, count, 10):
        append(store, "peer1", make_run(1, first, *[b"%-1000d" % first] * 10))
        if first % 50 == 1 and first > 100:
            append(store, "peer1", compaction=make_compaction(1, first - 50, first - 100))


def test_rocksdb_gives_room_back_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(rocksdb_recovery, "MEMTABLE_BYTES", 64 * 1024)
    with closing(RocksDBStore.open(tmp_path / "store")) as store:
        append_and_compact(store, 4000)
        deadline = time.monotonic() + 20.0
        while size_of(tmp_path, "store/db-1/*.sst") > 1_000_000:
            assert time.monotonic() < deadline, "4 MB were written, 100 KB are kept, and no room is given back"
            time.sleep(0.05)


def test_lmdb_writes_into_the_room_that_was_given_back(tmp_path):
    with closing(LMDBStore.open(tmp_path / "store")) as store:
        append_and_compact(store, 4000)
    assert size_of(tmp_path, "store/logs.mdb") < 1_000_000


def test_a_read_reports_that_the_log_ends_too_early(tmp_path):
    with closing(RocksDBStore.open(tmp_path / "store")) as store:
        append(store, "peer1", numbered(1, 1, 2), numbered(1, 3, 4))
        store._database.delete(entry(3))
        with pytest.raises(Corrupted, match="entry 3 is missing"):
            store.read("peer1", Index(2), Index(4), ALL)


# RocksDB: a damaged tail


def wide(index: int, count: int = 1) -> Run:
    return make_run(1, index, *(b"%-200d" % at for at in range(index, index + count)))


def damage_tail(path: Path) -> None:
    """Zero a page near the end of the write-ahead log."""
    (wal,) = [file for file in path.glob("db-1/*.log") if file.stat().st_size]
    content = bytearray(wal.read_bytes())
    content[-8192:-4096] = bytes(4096)
    wal.write_bytes(content)


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.covers("pitfall 62")
def test_a_repair_keeps_a_compaction_that_was_durable_and_drops_one_that_was_not_whole(tmp_path, is_durable):
    compaction = make_compaction(1, 45, 40)
    path, image = tmp_path / "store", tmp_path / "image"
    with closing(RocksDBStore.open(path)) as store:
        for index in range(1, 51):
            append(store, "peer1", wide(index))
            store.sync()
        if is_durable:
            append(store, "peer1", compaction=compaction)
            store.sync()
        append(store, "peer1", wide(51, 100), compaction=None if is_durable else compaction)
        copy_directory(path, image)
    damage_tail(image)
    with closing(RocksDBStore.open(image)) as store:
        stored = store.load("peer1")
        first = 41 if is_durable else 1
        assert (stored.last, stored.compaction) == (50, compaction if is_durable else None)
        assert read_entries(store, "peer1", first) == entries_of(*(wide(at) for at in range(first, 51)))
    assert (image / "db-2").exists()


@pytest.mark.parametrize("replaces_log", [False, True])
def test_a_durable_compaction_that_cannot_be_read_back_is_reported(tmp_path, replaces_log):
    path, image = tmp_path / "store", tmp_path / "image"
    with closing(RocksDBStore.open(path)) as store:
        append(store, "peer1", wide(1, 50))
        store.sync()
        large = make_compaction(1, 50, 40, configuration=b"c" * 20_000)
        if replaces_log:
            large = make_compaction(1, 60, replaces_log=True, configuration=b"c" * 20_000)
        append(store, "peer1", compaction=large)
        store.sync()
        store.mark()
        copy_directory(path, image)
    damage_tail(image)
    with pytest.raises(StoreError, match="is damaged"):
        RocksDBStore.open(image)


# The simulator's disk


class Deaf:
    """Wants to know nothing of what a disk holds."""

    def written(self, batch: Batch) -> None: ...

    def persisted(self, count: int) -> None: ...

    def forgot(self) -> None: ...


@pytest.mark.covers("pitfall 62")
def test_a_crash_of_the_simulated_disk_keeps_a_compaction_whole_or_not_at_all():
    compaction = make_compaction(1, 4, 3)
    outcomes = set()
    for seed in range(30):
        disk = SimulatedDisk(Deaf())
        append(disk, "peer1", numbered(1, 1, 5), hard_state=HardState(Term(1)))
        disk.sync()
        disk.finish()
        append(disk, "peer1", numbered(2, 6, 6), hard_state=HardState(Term(2)), compaction=compaction)
        append(disk, "peer1", compaction=make_compaction(3, 9, replaces_log=True), hard_state=HardState(Term(3)))
        disk.crash(Random(seed))
        stored = disk.load("peer1")
        start = stored.compaction.start if stored.compaction is not None else 0
        outcomes.add((stored.hard_state.term, stored.last, start))
        assert len(read_entries(disk, "peer1", start + 1)) == stored.last - start
        append(disk, "peer1", numbered(4, stored.last + 1, stored.last + 1))
    assert outcomes == {(1, 5, 0), (2, 6, 3), (3, 9, 9)}


# The cache


def test_a_cleared_cache_holds_nothing_and_goes_on_anywhere():
    cache = Cache(1000)
    for index in range(1, 100):
        cache.append(numbered(1, index, index))
        cache.trim(Index(index))
    cache.clear()
    assert (cache.bytes, cache.take(Index(99), Index(99), ALL)) == (0, None)
    cache.append(numbered(2, 50, 51))
    assert cache.take(Index(50), Index(60), ALL) == (numbered(2, 50, 51),)
    assert cache.bytes == numbered(2, 50, 51).size
