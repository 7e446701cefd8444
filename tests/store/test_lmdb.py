"""What LMDB does after crashes and on damaged disks, and that none of it passes for a healthy log."""

from __future__ import annotations

import errno
import random
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import lmdb
import pytest

from quorate.errors import Corrupted, DiskFull, StoreError, StoreLocked
from quorate.store import Batch, lmdb_checks
from quorate.store import lmdb as lmdb_store
from quorate.store.lmdb import LMDBStore
from quorate.store.mark import Mark, read_mark, write_mark
from quorate.store.records import encode_record, entry_key, hard_state_key
from quorate.types import HardState, Index, Kind, Run, Term

ALL = 1 << 30
PAGE = 4096
COMMIT_AT = 144  # where in a meta page the number of its commit stands
FLAGS_AT = 92  # and the flags of the main table
BRANCH, LEAF = 0x01, 0x02  # flags of a page


def numbered(term: int, first: int, last: int, size: int = 200) -> Run:
    payloads = tuple((b"%d" % at).ljust(size) for at in range(first, last + 1))
    return Run(Term(term), Index(first), Kind.COMMAND, 1.0, payloads)


def append(store: LMDBStore, first: int, last: int) -> None:
    """Append one batch: the entries, and a term that tells how far it got."""
    store.append([Batch("peer1", HardState(Term(last)), (numbered(1, first, last),))])


def append_entry(store: LMDBStore, index: int) -> None:
    """Append an entry alone."""
    store.append([Batch("peer1", None, (numbered(1, index, index),))])


def append_synced(store: LMDBStore, count: int) -> None:
    """Append entries 1 to ``count``, each with a batch and a sync of its own."""
    for index in range(1, count + 1):
        append(store, index, index)
        store.sync()


def loaded(path: Path) -> tuple[int, int]:
    """Open a store, verify what it holds, and give the last index and the term."""
    with closing(LMDBStore.open(path)) as store:
        stored = store.load("peer1")
        runs = store.read("peer1", Index(1), stored.last, ALL)
        payloads = [int(payload) for run in runs for payload in run.payloads]
        assert payloads == list(range(1, stored.last + 1))
        return stored.last, stored.hard_state.term


def image_of(path: Path, name: str = "image") -> Path:
    """Copy the files as they are now: what a crash at this instant would leave, had every write reached the disk."""
    image = path.with_name(name)
    shutil.copytree(path, image)
    return image


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the bytes of the database of a closed store."""
    file = path / "logs.mdb"
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)


def tamper(path: Path, change: Callable[[lmdb.Transaction], object]) -> None:
    """Change the records of a closed store behind its back."""
    with (
        closing(lmdb.open(str(path / "logs.mdb"), subdir=False, lock=False)) as database,
        database.begin(write=True) as transaction,
    ):
        change(transaction)


def newest_meta(content: bytearray) -> int:
    """Give where the meta page of the last commit begins."""
    return max((0, PAGE), key=lambda at: struct.unpack_from("=Q", content, at + COMMIT_AT))


def pages(content: bytearray, flags: int) -> list[int]:
    """Give where pages of a kind begin."""
    starts = range(2 * PAGE, len(content), PAGE)
    return [at for at in starts if struct.unpack_from("=H", content, at + 10) == (flags,)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[LMDBStore]:
    with closing(LMDBStore.open(path)) as store:
        yield store


@pytest.fixture
def closed(path: Path) -> Path:
    """A closed store of 100 entries in three levels of pages."""
    with closing(LMDBStore.open(path)) as store:
        append_synced(store, 100)
    return path


class Faulty:
    """A database whose write transactions fail as told when they are begun."""

    def __init__(self, database: lmdb.Environment) -> None:
        self.database = database
        self.error: Exception | None = None

    def begin(self, write: bool = False) -> lmdb.Transaction:
        if write and self.error is not None:
            raise self.error
        return self.database.begin(write=write)

    def __getattr__(self, name: str):
        return getattr(self.database, name)


class NoGrowth(Faulty):
    """A database that is refused a larger map."""

    def set_mapsize(self, size: int) -> None:
        raise coded(lmdb.MemoryError("mdb_env_set_mapsize"), errno.ENOMEM)


def coded(error: lmdb.Error, code: int) -> lmdb.Error:
    """Give an error as the engine does: the constructor alone sets no code."""
    error.code = code
    return error


# What a crash leaves


def test_what_was_appended_is_durable_before_any_sync(store, path):
    append(store, 1, 5)
    assert loaded(image_of(path)) == (5, 5)


def test_a_commit_whose_meta_page_was_not_written_never_happened(store, path):
    append_synced(store, 20)
    before = (path / "logs.mdb").read_bytes()
    store.append([Batch("peer1", HardState(Term(21)), (numbered(1, 21, 300),))])
    image = image_of(path)
    rewrite(image, lambda content: content.__setitem__(slice(0, 2 * PAGE), before[: 2 * PAGE]))
    assert loaded(image) == (20, 20)
    with closing(LMDBStore.open(image)) as recovered:
        append(recovered, 21, 22)
    assert loaded(image) == (22, 22)


def test_a_first_start_that_crashed_before_its_mark_is_begun_again(store, path):
    store.close()
    (path / "mark").unlink()
    (path / "logs.mdb.new").write_bytes(b"half")
    assert loaded(path) == (0, 0)


def test_a_first_start_that_crashed_before_its_database_was_whole_is_begun_again(path):
    path.mkdir()
    (path / "logs.mdb.new").write_bytes(bytes(2 * PAGE))
    assert loaded(path) == (0, 0)


# What a crash does not leave: damage


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_reported_or_means_nothing(closed, seed):
    content = (closed / "logs.mdb").read_bytes()
    mark = (closed / "mark").read_bytes()
    chance = random.Random(seed)
    reported = 0
    for _ in range(100):
        bit = chance.randrange(8 * len(content))
        rewrite(closed, lambda damaged, bit=bit: damaged.__setitem__(bit // 8, damaged[bit // 8] ^ 1 << bit % 8))
        try:
            assert loaded(closed) == (100, 100), f"bit {bit}"
        except Corrupted:
            reported += 1
        (closed / "logs.mdb").write_bytes(content)
        (closed / "mark").write_bytes(mark)
    assert reported > 10


@pytest.mark.parametrize("bit", [0, 1, 5, 40])
def test_a_meta_page_that_seems_to_be_of_another_commit_does_not_undo_the_last_one(closed, bit):
    def flip(content: bytearray) -> None:
        content[newest_meta(content) + COMMIT_AT + bit // 8] ^= 1 << bit % 8

    rewrite(closed, flip)
    for _ in range(2):
        with pytest.raises(Corrupted):
            LMDBStore.open(closed)


def test_a_meta_page_that_points_to_an_older_commit_is_reported_beyond_what_the_mark_lags(closed):
    def roll_back(content: bytearray) -> None:
        content[newest_meta(content) : newest_meta(content) + PAGE] = bytes(PAGE)

    rewrite(closed, roll_back)
    with pytest.raises(Corrupted):
        LMDBStore.open(closed)


def test_a_table_that_would_keep_two_votes_under_one_key_is_reported(closed):
    def allow_duplicates(content: bytearray) -> None:
        content[newest_meta(content) + FLAGS_AT] ^= 0x04

    rewrite(closed, allow_duplicates)
    with pytest.raises(Corrupted, match="flags of its tables"):
        LMDBStore.open(closed)


def test_a_record_that_a_page_hides_is_reported(closed):
    def hide_last(content: bytearray) -> None:
        for at in pages(content, LEAF):
            (lower,) = struct.unpack_from("=H", content, at + 12)
            struct.pack_into("=H", content, at + 12, max(lower - 2, 16))

    rewrite(closed, hide_last)
    with pytest.raises(Corrupted, match=r"entries|leaf"):
        LMDBStore.open(closed)


def test_a_record_that_no_search_would_find_is_reported(closed):
    def mislead(content: bytearray) -> None:
        for page in pages(content, BRANCH):
            (lower,) = struct.unpack_from("=H", content, page + 12)
            (last,) = struct.unpack_from("=H", content, page + lower - 2)
            assert content.startswith(b"peer1\0E", page + last + 8), "the least key of the last page below"
            content[page + last + 8] = ord("q")

    rewrite(closed, mislead)
    with pytest.raises(Corrupted, match="is there, and is not found"):
        LMDBStore.open(closed)


def record(index: int, run: Run) -> tuple[bytes, bytes]:
    key = entry_key("peer1", Index(index))
    return key, encode_record(key, run)


def other(index: int) -> bytes:
    return entry_key("peer1", Index(index))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda transaction: transaction.put(other(3), transaction.get(other(4))), "its checksum"),
        (lambda transaction: transaction.put(other(3), b""), "its checksum"),
        (lambda transaction: transaction.put(hard_state_key("peer1"), b"\0\0\0\0\x92\1\xc0"), "its checksum"),
        (
            lambda transaction: transaction.put(hard_state_key("peer2"), transaction.pop(hard_state_key("peer1"))),
            "peer2",
        ),
        (lambda transaction: transaction.put(b"strange", b"record"), "b'strange'"),
    ],
    ids=["moved", "emptied", "vote", "vote under another name", "strange"],
)
def test_a_record_that_is_not_what_was_written_stops_the_store(closed, change, fact):
    tamper(closed, change)
    for _ in range(2):
        with pytest.raises(Corrupted, match=rf"logs\.mdb: the record under .*{fact}"):
            LMDBStore.open(closed)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda transaction: transaction.delete(other(1)), "entry 1 is missing"),
        (lambda transaction: transaction.delete(other(3)), "entry 3 is missing"),
        (lambda transaction: transaction.put(*record(3, numbered(1, 4, 4))), "entry 3 is missing"),
        (lambda transaction: transaction.put(*record(3, numbered(1, 3, 4))), "entry 5 is missing"),
        (lambda transaction: transaction.put(*record(3, numbered(0, 3, 3))), "term falls from 1 to 0 at entry 3"),
    ],
    ids=["first gone", "one gone", "misplaced", "overlapping", "old term"],
)
def test_a_log_that_is_not_what_was_written_is_reported(closed, change, fact):
    tamper(closed, change)
    with closing(LMDBStore.open(closed)) as tampered, pytest.raises(Corrupted, match=fact):
        tampered.load("peer1")


def test_a_read_reports_a_missing_entry_wherever_it_begins(closed):
    tamper(closed, lambda transaction: transaction.delete(other(3)))
    with closing(LMDBStore.open(closed)) as store:
        for first in (1, 2, 3):
            with pytest.raises(Corrupted, match="entry 3 is missing"):
                store.read("peer1", Index(first), Index(5), ALL)
        assert store.read("peer1", Index(1), Index(2), ALL) == (numbered(1, 1, 1), numbered(1, 2, 2))
        with pytest.raises(Corrupted, match="entry 3 is missing"):
            append(store, 3, 3)
        append(store, 101, 101)


def test_a_file_that_is_too_short_is_reported(closed):
    for size in ((closed / "logs.mdb").stat().st_size // 2, 2 * PAGE, PAGE, 100, 0):
        image = image_of(closed, f"image-{size}")
        rewrite(image, lambda content, size=size: content.__delitem__(slice(size, None)))
        with pytest.raises(Corrupted, match=r"logs\.mdb"):
            LMDBStore.open(image)


@pytest.mark.parametrize("gone", ["logs.mdb", "mark"])
def test_a_store_of_which_a_part_is_gone_is_reported_and_not_begun_anew(closed, gone):
    (closed / gone).unlink()
    for _ in range(2):
        with pytest.raises(Corrupted, match=gone):
            LMDBStore.open(closed)


def test_a_damaged_mark_is_reported(closed):
    content = (closed / "mark").read_bytes()
    (closed / "mark").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Corrupted, match="mark"):
        LMDBStore.open(closed)


def test_the_database_of_another_store_is_reported(closed, tmp_path):
    with closing(LMDBStore.open(tmp_path / "other")) as store:
        append_synced(store, 200)
    shutil.copy(tmp_path / "other" / "logs.mdb", closed / "logs.mdb")
    with pytest.raises(Corrupted, match="that of another store"):
        LMDBStore.open(closed)


def test_an_older_copy_of_the_database_is_reported(store, path):
    append(store, 1, 1)
    older = image_of(path)
    append_synced(store, 1)
    store.close()
    shutil.copy(older / "logs.mdb", path / "logs.mdb")
    with pytest.raises(Corrupted, match="3 changes were durable, and only 2 can be read"):
        LMDBStore.open(path)


def test_a_store_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(Corrupted, match="holds no store"):
        LMDBStore.open(tmp_path / "store", create=False)
    assert not (tmp_path / "store").exists()


# The engine's moods


def test_the_map_grows_with_the_database(path, monkeypatch):
    monkeypatch.setattr(lmdb_store, "MAP_BYTES", 16 * PAGE)
    with closing(LMDBStore.open(path)) as store:
        assert store._database.info()["map_size"] == 16 * PAGE
        append(store, 1, 10)
        store.append([Batch("peer1", HardState(Term(2)), (numbered(2, 5, 3000),))])
        assert store._database.info()["map_size"] == 256 * PAGE
    assert loaded(path) == (3000, 2)
    with closing(LMDBStore.open(path)) as store:
        append_synced(store, 100)
    assert loaded(path) == (100, 100)


def test_a_write_for_which_the_map_is_too_small_leaves_nothing_half_done(path, monkeypatch):
    monkeypatch.setattr(lmdb_store, "MAP_BYTES", 16 * PAGE)
    with closing(LMDBStore.open(path)) as store:
        append(store, 1, 10)
        monkeypatch.setattr(store, "_database", NoGrowth(store._database))
        with pytest.raises(StoreError, match="mdb_env_set_mapsize"):
            store.append([Batch("peer1", HardState(Term(2)), (numbered(2, 5, 3000),)), Batch("peer2", None, ())])
        assert store.read("peer1", Index(1), Index(ALL), ALL) == (numbered(1, 1, 10),)
        append(store, 11, 12)
    assert loaded(path) == (12, 12)


def test_a_full_disk_loses_nothing(store, path, monkeypatch):
    append(store, 1, 3)
    faulty = Faulty(store._database)
    monkeypatch.setattr(store, "_database", faulty)
    faulty.error = coded(lmdb.DiskError("mdb_txn_commit"), errno.ENOSPC)
    with pytest.raises(DiskFull, match="free some room"):
        append(store, 4, 4)
    faulty.error = None
    append(store, 4, 4)
    assert store.load("peer1").last == 4


def test_a_failed_write_marks_nothing_as_durable(store, path, monkeypatch):
    append(store, 1, 1)
    store.sync()
    faulty = Faulty(store._database)
    monkeypatch.setattr(store, "_database", faulty)
    faulty.error = coded(lmdb.Error("mdb_txn_commit"), errno.EIO)
    with pytest.raises(StoreError, match="mdb_txn_commit"):
        append(store, 2, 2)
    store.close()
    mark = read_mark(path)
    assert mark is not None
    assert mark.sequence == 2


@pytest.mark.parametrize(
    ("error", "room", "kind"),
    [
        (lmdb.CorruptedError("mdb_get"), ALL, Corrupted),
        (lmdb.PageNotFoundError("mdb_get"), ALL, Corrupted),
        (lmdb.InvalidError("mdb_env_open"), ALL, Corrupted),
        (lmdb.VersionMismatchError("mdb_env_open"), ALL, Corrupted),
        (coded(lmdb.DiskError("mdb_txn_commit"), errno.ENOSPC), ALL, DiskFull),
        (coded(lmdb.Error("mdb_txn_commit"), errno.EDQUOT), ALL, DiskFull),
        (coded(lmdb.Error("mdb_txn_commit"), errno.EIO), 4096, DiskFull),
        (coded(lmdb.Error("mdb_txn_commit"), errno.EIO), ALL, StoreError),
        (coded(lmdb.PanicError("mdb_txn_begin"), -30795), ALL, StoreError),
    ],
)
def test_each_error_of_the_engine_becomes_one_of_ours(error, room, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_checks, "_room", lambda directory: room)
    translated = lmdb_checks.store_error_from_engine(error, tmp_path)
    assert type(translated) is kind
    assert str(error) in str(translated)
    assert str(tmp_path) in str(translated)


def test_the_mark_never_lags_behind_a_vote_and_is_exact_when_told_so_and_after_a_close(store, path):
    marks = []

    def note() -> None:
        mark = read_mark(path)
        assert mark is not None
        marks.append(mark.sequence)

    for index in (1, 2):
        append(store, index, index)
        store.sync()
        note()
    for index in (3, 4):
        append_entry(store, index)
        store.sync()
        note()
    store.mark()
    note()
    append_entry(store, 5)
    store.sync()
    store.close()
    note()
    assert marks == [2, 3, 3, 3, 5, 6]


def test_a_term_that_was_written_before_something_else_is_marked_with_the_sync_of_both(store, path):
    append(store, 1, 1)
    append_entry(store, 2)
    store.sync()
    mark = read_mark(path)
    assert mark is not None
    assert mark.sequence == store._database.info()["last_txnid"]


def test_a_store_in_use_is_refused_before_its_database_is_looked_at(store, path):
    (path / "logs.mdb").unlink()
    with pytest.raises(StoreLocked, match="in use by process"):
        LMDBStore.open(path)


def test_a_failed_open_lets_go_of_the_directory(closed):
    content = (closed / "logs.mdb").read_bytes()
    tamper(closed, lambda transaction: transaction.put(b"strange", b"record"))
    with pytest.raises(Corrupted):
        LMDBStore.open(closed)
    (closed / "logs.mdb").write_bytes(content)
    assert loaded(closed) == (100, 100)


def test_any_thread_may_use_the_store_after_another(path):
    failures: list[BaseException] = []

    def use(store: LMDBStore, index: int) -> None:
        try:
            append(store, index, index)
            assert store.load("peer1").last == index
        except BaseException as failure:
            failures.append(failure)

    with closing(LMDBStore.open(path)) as store:
        for index in range(1, 5):
            thread = threading.Thread(target=use, args=(store, index))
            thread.start()
            thread.join()
    assert failures == []
    assert loaded(path) == (4, 4)


def test_only_the_owner_may_read_the_logs(closed):
    assert {file.name: file.stat().st_mode & 0o077 for file in closed.iterdir()} == {
        "lock": 0,
        "logs.mdb": 0,
        "mark": 0,
    }


def test_a_closed_store_refuses_with_an_error_of_ours(store):
    append(store, 1, 1)
    store.close()
    with pytest.raises(StoreError):
        store.read("peer1", Index(1), Index(1), ALL)
    with pytest.raises(StoreError):
        append(store, 2, 2)


def test_a_start_that_fails_leaves_the_store_free_for_the_next_one(store, path, monkeypatch):
    append_synced(store, 3)
    store.close()
    mark = read_mark(path)
    assert mark is not None
    # As a crash leaves it that comes before the next mark.
    write_mark(path, Mark(mark.database, 1))

    def full(*_: object) -> None:
        raise DiskFull("no room, for now")

    with monkeypatch.context() as patched:
        patched.setattr("quorate.store.mark.write_mark", full)
        with pytest.raises(DiskFull) as kept:
            LMDBStore.open(path)
    assert loaded(path) == (3, 3), kept
