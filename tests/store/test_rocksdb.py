"""What RocksDB does after crashes and on damaged disks, and that none of it passes for a healthy log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from quorate.errors import Corrupted, DiskFull, StoreError, StoreLocked
from quorate.store import Batch, rocksdb, rocksdb_recovery
from quorate.store.mark import Mark, read_mark
from quorate.store.records import encode_record, entry_key, hard_state_key
from quorate.store.rocksdb import RocksDBStore
from quorate.types import HardState, Index, Kind, PeerId, Run, Term

ALL = 1 << 30
BLOCK = 32 * 1024


def numbered(term: int, first: int, last: int) -> Run:
    return Run(Term(term), Index(first), Kind.COMMAND, 1.0, tuple(b"%-200d" % at for at in range(first, last + 1)))


def append(store: RocksDBStore, first: int, last: int) -> None:
    """Append one batch: the entries, and a term that tells how far it got."""
    store.append([Batch("peer1", HardState(Term(last)), (numbered(1, first, last),))])


def append_entries_synced(store: RocksDBStore, first: int, last: int) -> None:
    """Append entries, each with a batch and a sync of its own, and no term that would be marked at once."""
    for index in range(first, last + 1):
        store.append([Batch("peer1", None, (numbered(1, index, index),))])
        store.sync()


def append_synced(store: RocksDBStore, count: int) -> None:
    """Append entries 1 to ``count``, each with a batch and a sync of its own."""
    for index in range(1, count + 1):
        append(store, index, index)
        store.sync()


def loaded(path: Path) -> tuple[int, int]:
    """Open a store, verify what it holds, and give the last index and the term."""
    with closing(RocksDBStore.open(path)) as store:
        stored = store.load("peer1")
        runs = store.read("peer1", Index(1), stored.last, ALL)
        payloads = [payload for run in runs for payload in run.payloads]
        assert payloads == [b"%-200d" % at for at in range(1, stored.last + 1)]
        return stored.last, stored.hard_state.term


def image_of(path: Path, name: str = "image") -> Path:
    """Copy the files as they are now: what a crash at this instant would leave, had every write reached the disk."""
    image = path.with_name(name)
    shutil.copytree(path, image)
    return image


def only(path: Path, pattern: str) -> Path:
    """Give the one file that is not empty and matches."""
    (file,) = [file for file in path.glob(pattern) if file.stat().st_size]
    return file


def damage(file: Path, at: int, change: Callable[[bytes], bytes], size: int) -> None:
    """Change ``size`` bytes from ``at`` on, counted from the end when negative."""
    content = bytearray(file.read_bytes())
    at %= len(content)
    content[at : at + size] = change(bytes(content[at : at + size]))
    file.write_bytes(content)


def image_with_a_damaged_end(store: RocksDBStore, path: Path) -> Path:
    """Write five entries that are durable and some that are not, and give an image whose last page is zeros."""
    append_synced(store, 5)
    append(store, 6, 100)
    image = image_of(path)
    damage(only(image, "db-1/*.log"), -4096, zeroed, 4096)
    return image


def flipped(content: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in content)


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def tamper(path: Path, change: Callable[[Rdict], None]) -> None:
    """Change the records of a closed store behind its back."""
    with closing(Rdict(str(path / "db-1"), Options(raw_mode=True))) as database:
        change(database)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path) -> Iterator[RocksDBStore]:
    with closing(RocksDBStore.open(path)) as store:
        yield store


class Faulty:
    """A database that refuses writes and flushes as told (an empty refusal lets one pass), and notes each of them."""

    def __init__(self, database: Rdict) -> None:
        self.database = database
        self.refusals: list[str] = []
        self.flush_refusal: str | None = None
        self.calls: list[str] = []

    def write(self, batch, options) -> None:
        self._refuse()
        self.database.write(batch, options)

    def put(self, key, record, options) -> None:
        self._refuse()
        self.database.put(key, record, options)

    def _refuse(self) -> None:
        self.calls.append("write")
        if self.refusals and (refusal := self.refusals.pop(0)):
            raise Exception(refusal)

    def flush_wal(self, sync: bool) -> None:
        self.calls.append("flush" if sync else "flush of nothing but buffers")
        if self.flush_refusal is not None:
            raise Exception(self.flush_refusal)
        self.database.flush_wal(sync)

    def __getattr__(self, name: str):
        return getattr(self.database, name)


@pytest.fixture
def faulty(store: RocksDBStore) -> Faulty:
    faulty = Faulty(store._database)
    store._database = faulty
    return faulty


# What a crash leaves


def test_what_a_start_has_read_is_durable_without_the_wal_it_came_from(store, path):
    append(store, 1, 50)
    image = image_of(path)
    with closing(RocksDBStore.open(image)) as recovered:
        recovered.load("peer1")
        copy = image_of(image, "copy")
    for wal in copy.glob("db-1/*.log"):
        wal.write_bytes(b"")
    assert loaded(copy) == (50, 50)


@pytest.mark.covers("pitfall 71")
@pytest.mark.parametrize("at", [-4096, -20_000, -30_000])
def test_a_zeroed_page_in_a_tail_that_was_never_synced_is_repaired(store, path, at, caplog):
    append_synced(store, 50)
    append(store, 51, 200)
    image = image_of(path)
    damage(only(image, "db-1/*.log"), at, zeroed, 4096)
    assert loaded(image) == (50, 50)
    assert "recovered as db-2" in caplog.text
    with closing(RocksDBStore.open(image)) as recovered:
        append(recovered, 51, 60)
        recovered.sync()
    assert loaded(image) == (60, 60)


def test_a_second_repair_removes_what_the_first_left_behind(store, path):
    image = image_with_a_damaged_end(store, path)
    with closing(RocksDBStore.open(image)) as recovered:
        append(recovered, 6, 100)
        again = image_of(image, "again")
    damage(only(again, "db-2/*.log"), -4096, zeroed, 4096)
    assert loaded(again) == (5, 5)
    assert sorted(file.name for file in again.iterdir()) == ["db-2.damaged", "db-3", "lock", "mark"]


# What a crash does not leave: damage to what was durable


@pytest.mark.covers("pitfall 71")
@pytest.mark.parametrize("at", [100, 3000, 6000, -300])
def test_a_flip_in_what_was_synced_is_reported_and_nothing_is_changed(store, path, at):
    append_synced(store, 50)
    image = image_of(path)
    damage(only(image, "db-1/*.log"), at, flipped, 4)
    for _ in range(2):
        with pytest.raises(Corrupted):
            RocksDBStore.open(image)
    assert sorted(file.name for file in image.iterdir()) == ["db-1", "lock", "mark"]


def start_of(wal: bytes, entry: int) -> int:
    """Give where the write of an entry begins in the engine's log: 21 bytes before its key."""
    return wal.rindex(b"peer1\0E", 0, wal.index(b"%-200d" % entry)) - 21


@pytest.mark.parametrize(
    "change",
    [
        lambda wal: wal.replace(b"%-200d" % 20, b"%-200d" % 21, 1),
        # Taken for a torn end by the engine: the record seems to be longer than the file.
        lambda wal: wal[: (at := start_of(wal, 20)) + 5] + b"\x7f" + wal[at + 6 :],
        lambda wal: wal[: (at := start_of(wal, 20))] + bytes(4096) + wal[at + 4096 :],
        lambda wal: wal[: start_of(wal, 20)] + bytes(start_of(wal, 50) - start_of(wal, 20)) + wal[start_of(wal, 50) :],
    ],
    ids=["payload", "length", "page", "all up to the last"],
)
def test_damage_with_a_sound_write_behind_it_is_reported_whatever_the_mark_says(store, path, change):
    append_entries_synced(store, 1, 50)
    assert read_mark(path) == Mark("db-1", 0)
    image = image_of(path)
    wal = only(image, "db-1/*.log")
    wal.write_bytes(change(wal.read_bytes()))
    for _ in range(2):
        with pytest.raises(Corrupted, match="49 changes were durable, and only 19 can be read"):
            RocksDBStore.open(image)


def test_damage_to_the_last_write_alone_is_taken_for_one_that_was_never_synced(store, path):
    append_entries_synced(store, 1, 50)
    image = image_of(path)
    damage(only(image, "db-1/*.log"), -100, flipped, 4)
    assert loaded(image) == (49, 0)


@pytest.mark.parametrize("at", range(0, 120, 3))
def test_a_vote_that_was_told_of_survives_no_flip(store, path, at):
    append_entries_synced(store, 1, 2)
    store.append([Batch("peer1", HardState(Term(7), PeerId("candidate")), ())])
    store.sync()
    image = image_of(path)
    wal = only(image, "db-1/*.log")
    damage(wal, wal.stat().st_size - 1 - at, flipped, 1)
    for _ in range(2):
        with pytest.raises(Corrupted):
            RocksDBStore.open(image)


@pytest.mark.parametrize("marked", [False, True])
def test_what_was_marked_is_missed_though_the_log_ends_between_two_writes(store, path, marked):
    append_entries_synced(store, 1, 20)
    if marked:
        store.mark()
    image = image_of(path)
    wal = only(image, "db-1/*.log")
    os.truncate(wal, start_of(wal.read_bytes(), 15))
    if not marked:
        assert loaded(image) == (14, 0)
        return
    with pytest.raises(Corrupted, match="20 changes were durable, and only 14 can be read"):
        RocksDBStore.open(image)


def test_a_tail_cut_below_what_was_synced_is_reported(store, path):
    append_synced(store, 50)
    image = image_of(path)
    wal = only(image, "db-1/*.log")
    os.truncate(wal, wal.stat().st_size - 7)
    with pytest.raises(Corrupted, match="100 changes were durable"):
        RocksDBStore.open(image)


def test_a_missing_wal_is_reported(store, path):
    append_synced(store, 5)
    image = image_of(path)
    only(image, "db-1/*.log").unlink()
    with pytest.raises(Corrupted):
        RocksDBStore.open(image)


@pytest.fixture
def killed(tmp_path: Path, monkeypatch) -> tuple[Path, int]:
    """Give what a process leaves that is killed when it has gone on to another WAL, and where its last write begins."""
    monkeypatch.setattr(rocksdb_recovery, "MEMTABLE_BYTES", 64 * 1024)
    ends = [0]
    with closing(RocksDBStore.open(tmp_path / "running")) as store:
        for term in range(1, 100):
            image = image_of(tmp_path / "running", f"killed-{term}")
            first = only(image, "db-1/*.log") if term > 1 else None
            votes = HardState(Term(term), PeerId("candidate" * 1000))
            store.append([Batch("peer1", votes, (numbered(1, term, term),))])
            store.sync()
            logs = sorted((tmp_path / "running").glob("db-1/*.log"))
            if first is not None and first.name != logs[-1].name:
                shutil.copy(logs[-1], image / "db-1")
                return image, ends[-2]
            ends.append(logs[-1].stat().st_size)
    raise AssertionError("the engine went on to no other log")


@pytest.mark.parametrize(
    "lose",
    [Path.unlink, lambda log: os.truncate(log, 0), lambda log: log.write_bytes(bytes(log.stat().st_size))],
    ids=["gone", "emptied", "of zeros"],
)
def test_a_first_log_that_is_lost_whole_is_told_though_no_log_misses_an_entry(tmp_path, monkeypatch, lose):
    """Tables hold all before it, and where they end is known: what it held of a peer with nothing behind was lost."""
    monkeypatch.setattr(rocksdb_recovery, "MEMTABLE_BYTES", 64 * 1024)
    path = tmp_path / "store"
    with closing(RocksDBStore.open(path)) as store:
        append_synced(store, 3)
    with closing(RocksDBStore.open(path)) as store:
        store.append([Batch("peer2", HardState(Term(9), PeerId("candidate")), ())])
        store.sync()
        [first] = logs_of(path)
        image = image_of(path)
        # One more name for it: the engine removes its own, at any time from when it has another log.
        (image / "db-1" / first.name).unlink()
        os.link(first, image / "db-1" / first.name)
        for term in range(4, 100):
            store.append([Batch("peer1", HardState(Term(term), PeerId("candidate" * 1000)), ())])
            store.sync()
            if (last := logs_of(path)[-1]) != first:
                break
        shutil.copy(last, image / "db-1")
    assert len(logs_of(image)) == 2
    lose(image / "db-1" / first.name)
    for _ in range(2):
        with pytest.raises(Corrupted, match=f"changes were durable, and only 6 can be read in .*{last.name}"):
            RocksDBStore.open(image)


def test_a_database_that_has_lost_all_its_logs_is_told(store, path):
    append_entries_synced(store, 1, 3)
    image = image_of(path)
    only(image, "db-1/*.log").unlink()
    for _ in range(2):
        with pytest.raises(Corrupted, match=r"db-1 has lost its write-ahead log, the files \*\.log"):
            RocksDBStore.open(image)


def test_an_old_mark_does_not_bring_back_a_database_of_which_a_copy_was_recovered(store, path):
    image = image_with_a_damaged_end(store, path)
    mark = (image / "mark").read_bytes()
    with closing(RocksDBStore.open(image)) as recovered:
        append(recovered, 6, 7)
    newer = (image / "mark").read_bytes()
    (image / "mark").write_bytes(mark)
    for _ in range(2):
        with pytest.raises(Corrupted, match="db-1 is missing, which is the current one by the file mark"):
            RocksDBStore.open(image)
    (image / "mark").write_bytes(newer)
    assert loaded(image) == (7, 7)


def test_a_recovery_that_was_killed_before_it_put_the_damaged_database_aside_is_finished(store, path):
    image = image_with_a_damaged_end(store, path)
    assert loaded(image) == (5, 5)
    (image / "db-1.damaged").rename(image / "db-1")
    assert loaded(image) == (5, 5)
    assert sorted(file.name for file in image.iterdir()) == ["db-1.damaged", "db-2", "lock", "mark"]


def logs_of(path: Path) -> list[Path]:
    return sorted(path.glob("db-1/*.log"))


def test_a_wal_of_two_logs_is_replayed_whole(killed):
    image, _ = killed
    assert len(logs_of(image)) == 2
    last, term = loaded(image)
    assert last == term > 5


@pytest.mark.covers("pitfall 71")
@pytest.mark.parametrize("damaged", ["length of the last", "kind of the first", "cut by the last"])
def test_damage_to_a_log_that_another_follows_is_not_taken_for_a_torn_end(killed, damaged):
    image, last = killed
    first, _ = logs_of(image)
    if damaged == "cut by the last":
        os.truncate(first, last)
    elif damaged == "kind of the first":
        # Into one that the engine has for logs that are used again.
        damage(first, 6, lambda byte: bytes([byte[0] ^ 4]), 1)
    else:
        # Of its last part, which is in the last block.
        damage(first, max(last, first.stat().st_size // BLOCK * BLOCK) + 5, lambda byte: bytes([byte[0] ^ 0x80]), 1)
    for _ in range(2):
        with pytest.raises(Corrupted, match="changes were durable, and only"):
            RocksDBStore.open(image)


def test_a_log_of_zeros_or_with_zeros_behind_its_last_write_is_sound(killed):
    image, _ = killed
    first, _ = logs_of(image)
    first.write_bytes(first.read_bytes() + bytes(2 * BLOCK))
    first.with_name("000001.log").write_bytes(b"")
    first.with_name("000002.log").write_bytes(bytes(2 * BLOCK))
    last, term = loaded(image)
    assert last == term > 5


def test_a_log_that_is_in_tables_already_may_end_anywhere(killed):
    """The engine removes the latest of them first, and may be killed meanwhile."""
    image, last = killed
    first, _ = logs_of(image)
    left = first.read_bytes()[:last]
    with closing(RocksDBStore.open(image)) as recovered:
        stored = recovered.load("peer1")
        append(recovered, stored.last + 1, stored.last + 1)
        again = image_of(image, "again")
    (again / "db-1" / first.name).write_bytes(left)
    assert len(logs_of(again)) == 2
    assert loaded(again) == (stored.last + 1, stored.last + 1)


def test_a_repair_is_refused_when_a_log_in_the_copy_has_a_hole(store, path):
    append_synced(store, 5)
    store._database.delete(entry_key("peer1", Index(3)))
    append(store, 6, 100)
    image = image_of(path)
    damage(only(image, "db-1/*.log"), -4096, zeroed, 4096)
    with pytest.raises(Corrupted, match="entry 3 is missing"):
        RocksDBStore.open(image)


@pytest.mark.parametrize("part", [0.1, 0.5])
def test_a_damaged_table_is_reported_and_the_database_let_go(store, path, part):
    append_synced(store, 100)
    store.close()
    RocksDBStore.open(path).close()
    table = only(path, "db-1/*.sst")
    damage(table, int(table.stat().st_size * part), flipped, 64)
    for _ in range(2):
        # Keeping the error, and so its traceback, must not keep the database open.
        with closing(RocksDBStore.open(path)) as damaged, pytest.raises(Corrupted):
            damaged.load("peer1")
    with closing(RocksDBStore.open(path)) as damaged, pytest.raises(Corrupted):
        damaged.read("peer1", Index(1), Index(100), ALL)


@pytest.mark.parametrize("change", [str.lower, lambda name: name.replace("0", "1", 1)])
def test_a_database_that_does_not_find_its_files_is_damaged(store, path, change):
    append_synced(store, 5)
    store.close()
    current = path / "db-1" / "CURRENT"
    current.write_text(change(current.read_text()))
    for _ in range(2):
        with pytest.raises(Corrupted, match="give this node an empty data directory"):
            RocksDBStore.open(path)


def test_a_missing_table_is_reported(store, path):
    append_synced(store, 5)
    store.close()
    RocksDBStore.open(path).close()
    only(path, "db-1/*.sst").unlink()
    with pytest.raises(Corrupted):
        RocksDBStore.open(path)


def record(index: int, run: Run) -> tuple[bytes, bytes]:
    key = entry_key("peer1", Index(index))
    return key, encode_record(key, run)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda database: database.delete(entry_key("peer1", Index(1))), "entry 1 is missing"),
        (lambda database: database.delete(entry_key("peer1", Index(3))), "entry 3 is missing"),
        (
            lambda database: database.put(entry_key("peer1", Index(3)), database.get(entry_key("peer1", Index(4)))),
            "from 3 on cannot be read: its checksum",
        ),
        (
            lambda database: database.put(
                entry_key("peer1", Index(3)), flipped(database.get(entry_key("peer1", Index(3))))
            ),
            "from 3 on cannot be read: its checksum",
        ),
        (lambda database: database.put(entry_key("peer1", Index(3)), b""), "from 3 on cannot be read"),
        (lambda database: database.put(*record(3, numbered(1, 4, 4))), "entry 3 is missing"),
        (lambda database: database.put(*record(3, numbered(1, 3, 4))), "entry 5 is missing"),
        (lambda database: database.put(*record(3, numbered(0, 3, 3))), "term falls from 1 to 0 at entry 3"),
        (lambda database: database.put(hard_state_key("peer1"), b"\0\0\0\0\x92\1\xc0"), "term and vote cannot be read"),
    ],
    ids=["first gone", "one gone", "moved", "flipped", "emptied", "misplaced", "overlapping", "old term", "vote"],
)
def test_a_record_that_is_not_what_was_written_is_reported(store, path, change, fact):
    append_synced(store, 5)
    store.close()
    tamper(path, change)
    with closing(RocksDBStore.open(path)) as tampered, pytest.raises(Corrupted, match=fact):
        tampered.load("peer1")


def test_a_read_reports_a_missing_entry_wherever_it_begins(store):
    append_synced(store, 5)
    store._database.delete(entry_key("peer1", Index(3)))
    for first in (1, 2, 3):
        with pytest.raises(Corrupted, match="entry 3 is missing"):
            store.read("peer1", Index(first), Index(5), ALL)
    assert store.read("peer1", Index(1), Index(2), ALL) == (numbered(1, 1, 1), numbered(1, 2, 2))
    with pytest.raises(Corrupted, match="entry 3 is missing"):
        append(store, 3, 3)


@pytest.mark.parametrize("gone", ["db-1", "mark"])
def test_a_store_of_which_a_part_is_gone_is_reported_and_not_begun_anew(store, path, gone):
    append_synced(store, 5)
    store.close()
    shutil.rmtree(path / gone) if gone == "db-1" else (path / gone).unlink()
    for _ in range(2):
        with pytest.raises(Corrupted):
            RocksDBStore.open(path)


def test_a_damaged_mark_is_reported(store, path):
    append_synced(store, 5)
    store.close()
    damage(path / "mark", -1, flipped, 1)
    with pytest.raises(Corrupted, match="mark"):
        RocksDBStore.open(path)


def test_a_first_start_that_crashed_before_its_mark_is_begun_again(store, path):
    store.close()
    (path / "mark").unlink()
    assert loaded(path) == (0, 0)


def test_a_store_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(Corrupted, match="holds no store"):
        RocksDBStore.open(tmp_path / "store", create=False)
    assert not (tmp_path / "store").exists()


# The engine's moods


class Stubborn:
    """A database that cannot be closed without a complaint, as one of which a background job has found damage."""

    def __init__(self, database: Rdict) -> None:
        self.database = database

    def close(self) -> None:
        self.database.close()
        raise Exception("Corruption: block checksum mismatch in 000014.sst")

    def __getattr__(self, name: str):
        return getattr(self.database, name)


@pytest.mark.parametrize(
    ("opener", "said"),
    [(rocksdb, "100 changes were durable, and only 98 can be read"), (rocksdb_recovery, "block checksum mismatch")],
)
def test_what_the_engine_says_at_the_end_of_a_start_that_fails_is_ours_and_hides_nothing(
    store, path, monkeypatch, opener, said
):
    append_synced(store, 50)
    image = image_of(path)
    wal = only(image, "db-1/*.log")
    if opener is rocksdb:
        os.truncate(wal, wal.stat().st_size - 7)
    else:
        damage(wal, -300, flipped, 4)
    open_database = opener.open_database
    monkeypatch.setattr(opener, "open_database", lambda *where, **how: Stubborn(open_database(*where, **how)))
    for _ in range(2):
        with pytest.raises(Corrupted, match=said):
            RocksDBStore.open(image)


def test_a_write_that_is_put_off_is_tried_again_before_any_later_one(store, faulty, monkeypatch):
    monkeypatch.setattr(rocksdb, "STALL_PAUSE", 0)
    faulty.refusals = ["Result incomplete: Write stall"] * 3
    append(store, 1, 5)
    append(store, 3, 4)
    assert store.load("peer1").last == 4
    assert faulty.calls == ["write"] * 4 + ["flush", "write", "flush"]


def test_a_write_that_is_put_off_for_too_long_fails(store, faulty, monkeypatch):
    monkeypatch.setattr(rocksdb, "STALL_PAUSE", 0)
    monkeypatch.setattr(rocksdb, "STALL_TRIES", 3)
    faulty.refusals = ["Result incomplete: Write stall"] * 3
    with pytest.raises(StoreError, match="put off"):
        append(store, 1, 1)


def test_at_most_one_write_is_ever_unsynced(store, faulty):
    append(store, 1, 1)
    append(store, 2, 2)
    store.sync()
    store.sync()
    append(store, 3, 3)
    assert faulty.calls == ["write", "flush", "write", "flush", "write"]


def test_what_a_failed_write_left_is_asked_of_the_engine(store, faulty):
    append(store, 1, 3)
    faulty.refusals = ["", "IO error: No space left on device: While appending to file"]
    with pytest.raises(DiskFull):
        store.append([Batch("peer1", None, (numbered(1, 4, 6),)), Batch("peer1", None, (numbered(1, 5, 9),))])
    assert store.read("peer1", Index(1), Index(9), ALL) == (numbered(1, 1, 3), numbered(1, 4, 6))
    append(store, 4, 4)
    assert store.load("peer1").last == 4


@pytest.mark.covers("pitfall 68")
def test_a_failed_flush_marks_nothing_as_durable(store, faulty, path):
    append(store, 1, 1)
    store.sync()
    append(store, 2, 2)
    faulty.flush_refusal = "IO error: While fdatasync: Input/output error"
    with pytest.raises(StoreError, match="Input/output error"):
        store.sync()
    store.close()
    mark = read_mark(path)
    assert mark is not None
    assert mark.sequence == 2


def test_the_mark_never_lags_behind_a_vote_and_is_exact_when_told_so_and_after_a_close(store, path):
    append_synced(store, 2)
    assert read_mark(path) == Mark("db-1", 4)
    append_entries_synced(store, 3, 5)
    assert read_mark(path) == Mark("db-1", 4)
    store.mark()
    assert read_mark(path) == Mark("db-1", 7)
    append_entries_synced(store, 6, 6)
    store.close()
    assert read_mark(path) == Mark("db-1", 8)


def test_a_term_among_changes_that_need_two_writes_is_marked_with_the_last_of_them(store, path):
    """What is truncated within one append is written first, and synced behind the caller's back."""
    append_entries_synced(store, 1, 3)
    store.append(
        [
            Batch("peer2", HardState(Term(2)), ()),
            Batch("peer1", HardState(Term(2)), (numbered(2, 2, 2),)),
        ]
    )
    store.sync()
    assert read_mark(path) == Mark("db-1", store._database.latest_sequence_number())


def test_a_store_in_use_is_refused_before_its_mark_is_touched(store, path):
    append_entries_synced(store, 1, 3)
    before = (path / "mark").stat()
    with pytest.raises(StoreLocked):
        RocksDBStore.open(path)
    assert (path / "mark").stat() == before
    store.close()
    assert loaded(path) == (3, 0)


@pytest.mark.parametrize("failing", ["quorate.store.mark.write_mark", "quorate.store.rocksdb.check_mark"])
def test_a_start_that_fails_leaves_the_store_free_for_the_next_one(store, path, monkeypatch, failing):
    append_entries_synced(store, 1, 3)
    image = image_of(path)

    def full(*_: object) -> None:
        raise DiskFull("no room, for now")

    with monkeypatch.context() as patched:
        patched.setattr(failing, full)
        with pytest.raises(DiskFull) as kept:
            RocksDBStore.open(image)
    # Keeping the error, and so its traceback, must not keep the database open.
    assert loaded(image) == (3, 0), kept


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Corruption: checksum mismatch", Corrupted),
        ("Invalid argument: db-1/CURRENT: does not exist (create_if_missing is false)", Corrupted),
        ("IO error: No such file or directory: While opening a file: db-1/MANIFEST-000005: No such file", Corrupted),
        ("IO error: No space left on device: While appending to file: 000004.log", DiskFull),
        ("IO error: lock hold by current process, acquire time 1: db-1/LOCK: No locks available", StoreLocked),
        ("IO error: While lock file: db-1/LOCK: Resource temporarily unavailable", StoreLocked),
        ("IO error: While fdatasync: Input/output error", StoreError),
        ("DB instance already closed", StoreError),
    ],
)
def test_each_text_of_the_engine_becomes_one_error(text, kind):
    error = rocksdb_recovery.store_error_from_engine(Exception(text))
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "rocksdict-config.json"])
def test_whatever_the_engine_says_of_a_database_the_error_names_what_is_there(store, path, name):
    """Not the copy from which a repair was tried, and which is gone."""
    append(store, 1, 1)
    store.close()
    (file,) = (path / "db-1").glob(name)
    if name.endswith(".json"):
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(b"?")
    with pytest.raises(StoreError) as raised:
        RocksDBStore.open(path)
    assert str(path / "db-1") in str(raised.value)
    assert str(path / "db-2") not in str(raised.value)


def test_a_closed_store_refuses_with_an_error_of_ours(store):
    append(store, 1, 1)
    store.close()
    with pytest.raises(StoreError):
        store.read("peer1", Index(1), Index(1), ALL)
    with pytest.raises(StoreError):
        append(store, 2, 2)
