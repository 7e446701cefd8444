"""What the engine's write-ahead log proves by itself: held against logs that the engine wrote, whole and damaged."""

from __future__ import annotations

import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from rocksdict import Rdict, WriteBatch

from quorate.store.rocksdb_recovery import open_database
from quorate.store.rocksdb_wal import durable_before_last_write

BLOCK = 32 * 1024


def sizes(seed: int) -> list[int]:
    """Give sizes of values: most are small, some are larger than a block, and some end close to the end of one."""
    dice = random.Random(seed)
    choices = [lambda: dice.randrange(300), lambda: dice.randrange(3 * BLOCK), lambda: BLOCK - dice.randrange(60)]
    return [dice.choices(choices, [8, 1, 2])[0]() for _ in range(30)]


def written(path: Path, values: list[int], seed: int = 0) -> tuple[bytes, list[int]]:
    """Write values of these sizes, one after the other; give the log, and where it ended after each of them."""
    dice = random.Random(seed)
    ends = []
    with closing(open_database(path, create=True)) as database:
        for number, size in enumerate(values):
            database.put(b"%d" % number, dice.randbytes(size))
            database.flush_wal(False)
            ends.append(log_of(path).stat().st_size)
        content = log_of(path).read_bytes()
    return content, ends


def log_of(path: Path) -> Path:
    (log,) = path.glob("*.log")
    return log


def found_in(directory: Path, *logs: bytes) -> int:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for number, content in enumerate(logs):
        (directory / f"{4 + number:06}.log").write_bytes(content)
    return durable_before_last_write(directory, marked=0)


def test_a_database_without_a_log_proves_nothing(tmp_path):
    assert found_in(tmp_path / "none") == 0
    assert found_in(tmp_path / "empty", b"") == 0
    assert found_in(tmp_path / "zeros", bytes(3 * BLOCK)) == 0
    assert durable_before_last_write(tmp_path / "missing", marked=0) == 0


@pytest.mark.parametrize("seed", range(3))
def test_all_writes_but_the_last_are_found_wherever_the_log_ends(tmp_path, seed):
    values = sizes(seed)
    content, ends = written(tmp_path / "db", values, seed)
    for count, end in enumerate(ends, 1):
        # One whose first part is too short for its number is not seen, and proves nothing of the one before.
        assert found_in(tmp_path / "cut", content[:end]) in (count - 1, count - 2)
        assert found_in(tmp_path / "torn", content[: end - 1]) in (count - 1, count - 2)


def test_a_write_that_changes_many_keys_counts_as_all_of_them(tmp_path):
    with closing(open_database(tmp_path / "db", create=True)) as database:
        for _ in range(3):
            with_many(database, 10)
        content = log_of(tmp_path / "db").read_bytes()
    assert found_in(tmp_path / "copy", content) == 20


def with_many(database: Rdict, count: int) -> None:
    batch = WriteBatch(raw_mode=True)
    for number in range(count):
        batch.put(b"%d" % number, b"value")
    database.write(batch)


@pytest.mark.parametrize("seed", range(20))
def test_damage_hides_no_sound_write_behind_it(tmp_path, seed):
    """Not even in its own block, where the engine itself looks at nothing more."""
    values = [size % 300 for size in sizes(seed)]
    content, ends = written(tmp_path / "db", values, seed)
    dice = random.Random(seed)
    at = dice.randrange(ends[-2])
    damaged = bytearray(content)
    length = dice.choice([1, 4, 100, ends[-2] - at])
    damaged[at : min(at + length, ends[-2])] = dice.randbytes(min(at + length, ends[-2]) - at)
    assert found_in(tmp_path / "copy", bytes(damaged)) == len(values) - 1


def test_of_two_logs_the_later_one_counts_unless_nothing_in_it_is_sound(tmp_path):
    first, _ = written(tmp_path / "db", [10] * 5)
    assert found_in(tmp_path / "copy", first, b"") == 4
    assert found_in(tmp_path / "copy", first, bytes(500)) == 4
    assert found_in(tmp_path / "copy", b"", first) == 4


def test_logs_are_ordered_by_number(tmp_path):
    first, ends = written(tmp_path / "db", [10] * 5)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "999999.log").write_bytes(first[: ends[1]])
    (tmp_path / "copy" / "1000000.log").write_bytes(first)
    assert durable_before_last_write(tmp_path / "copy", marked=0) == 4


def test_a_copy_of_a_log_inside_a_value_is_no_write(tmp_path):
    inner, _ = written(tmp_path / "inner", [10] * 50)
    with closing(open_database(tmp_path / "outer", create=True)) as database:
        database.put(b"a", inner)
        database.put(b"b", inner)
        outer = log_of(tmp_path / "outer").read_bytes()
    assert found_in(tmp_path / "copy", outer) == 1


def holding(path: Path, before: int) -> tuple[bytes, list[int]]:
    """Write seven values, of which the sixth holds the copy of a log that begins behind ``before`` changes."""
    with closing(open_database(path / "inner", create=True)) as inner:
        if before:
            with_many(inner, before)
        begin = log_of(path / "inner").stat().st_size
        for number in range(50):
            inner.put(b"%d" % number, b"value")
        copy = log_of(path / "inner").read_bytes()[begin:]
    ends = []
    with closing(open_database(path / "outer", create=True)) as outer:
        for number in range(7):
            outer.put(b"%d" % number, b"a copy: " + copy if number == 5 else b"value")
            ends.append(log_of(path / "outer").stat().st_size)
        return log_of(path / "outer").read_bytes(), ends


@pytest.mark.covers("pitfall 71")
@pytest.mark.parametrize("before", [0, 1000])
@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_copy_of_a_log_inside_a_torn_write_is_no_write(tmp_path, before, cut):
    content, ends = holding(tmp_path, before)
    assert found_in(tmp_path / "copy", content[: ends[5] - cut]) == 4


def test_a_write_that_cannot_follow_is_not_believed_behind_a_record_of_which_nothing_is_known(tmp_path):
    content, ends = holding(tmp_path, 1000)
    assert found_in(tmp_path / "copy", content[: ends[4]] + bytes(7) + content[ends[4] + 7 : ends[5] - 3]) == 4


@pytest.mark.parametrize("bit", range(16))
def test_a_write_behind_one_with_a_damaged_length_is_found_though_that_holds_a_copy(tmp_path, bit):
    content, ends = holding(tmp_path, 0)
    damaged = bytearray(content)
    damaged[ends[4] + 4 + bit // 8] ^= 1 << bit % 8
    assert found_in(tmp_path / "copy", bytes(damaged)) >= 6
