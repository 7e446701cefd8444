"""Every store keeps the contract, and the suite that says so finds the stores that do not."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from quorate.errors import Corrupted
from quorate.store import Batch
from quorate.store.lmdb import LMDBStore
from quorate.store.memory import MemoryStore
from quorate.store.records import LogCheck
from quorate.store.rocksdb import RocksDBStore
from quorate.testing import conformance, durability
from quorate.testing.logs import OpenStore
from quorate.types import Index, Run

MEMORIES: dict[Path, MemoryStore] = {}


def open_memory(directory: Path) -> MemoryStore:
    return MEMORIES.setdefault(directory, MemoryStore())


STORES: dict[str, OpenStore] = {"memory": open_memory, "rocksdb": RocksDBStore.open, "lmdb": LMDBStore.open}
every_case = pytest.mark.parametrize("case", conformance.CASES, ids=lambda case: case.__name__)
every_durable_case = pytest.mark.parametrize("case", conformance.DURABLE_CASES, ids=lambda case: case.__name__)


@every_case
@pytest.mark.parametrize("name", STORES)
def test_every_store_keeps_the_contract(name, case, tmp_path):
    case(STORES[name], tmp_path / "store")


@every_durable_case
@pytest.mark.parametrize("name", ["rocksdb", "lmdb"])
def test_every_durable_store_outlives_its_process(name, case, tmp_path):
    case(STORES[name], tmp_path / "store")


def test_rocksdb_repairs_torn_tails(tmp_path):
    conformance.torn_tails_are_repaired_by_dropping_whole_batches(STORES["rocksdb"], tmp_path / "store", "db-*/*.log")


# The suite itself: stores that are wrong in one way, each with the case that must say so


class NoTruncation(MemoryStore):
    def _truncate(self, log, kept, cut):
        kept.last = Index(cut - 1)


class TruncationOfWholeRuns(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append(batches)
        for batch in batches:
            kept = self._log(batch.log)
            if batch.runs and kept.firsts and kept.firsts[0] < batch.runs[0].first:
                at = kept.firsts.index(batch.runs[0].first)
                if kept.last > 9:
                    del kept.firsts[at - 1], kept.records[at - 1]


class NamesWithoutCase(MemoryStore):
    def _log(self, log):
        return super()._log(log.lower())


class AnyName(MemoryStore):
    def _log(self, log):
        return super()._log("x" + log.encode().hex()[:100])


class NoVoteWithoutEntries(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append([batch for batch in batches if batch.runs])


class FirstVote(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        known = {batch.log for batch in batches if self._log(batch.log).hard_state is not None}
        super().append([Batch(b.log, None if b.log in known else b.hard_state, b.runs) for b in batches])


class LastBatchFirst(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append(sorted(batches, key=lambda batch: batch.log + str(-len(batch.runs[0].payloads))))


class HalfABatch(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append([Batch(batch.log, batch.hard_state, ()) for batch in batches if batch.hard_state])
        super().append([Batch(batch.log, None, batch.runs) for batch in batches if batch.runs])


class ReadsAll(MemoryStore):
    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        return super().read(log, first, last, 1 << 40)


class ReadsNoLargeEntry(MemoryStore):
    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        runs = super().read(log, first, last, bytes_max)
        return runs if sum(run.size for run in runs) <= bytes_max else ()


class ReadsWholeRuns(MemoryStore):
    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        runs = tuple(self._runs(log, self._log(log), 0))
        return tuple(run for run in runs if run.last >= first and run.first <= last)


class NoTimes(MemoryStore):
    def load(self, log, visit=None):
        stored = super().load(log, visit)
        return msgspec.structs.replace(stored, time=0.0)


class NoVisits(MemoryStore):
    def load(self, log, visit=None):
        return super().load(log)


class ReadsOnlyWhatIsSynced(MemoryStore):
    def __init__(self):
        super().__init__()
        self.waiting: list[Batch] = []

    def append(self, batches: Sequence[Batch]) -> None:
        self.waiting += batches

    def sync(self) -> None:
        super().append(self.waiting)
        self.waiting = []


class ClosesOnce(MemoryStore):
    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Inventive(MemoryStore):
    def load(self, log, visit=None):
        self._log(log)
        return LogCheck(log).stored(conformance.HardState(conformance.Term(1)))


@pytest.mark.parametrize(
    ("wrong", "case"),
    [
        (Inventive, conformance.an_unknown_log_is_empty),
        (ReadsOnlyWhatIsSynced, conformance.what_was_appended_is_read_at_once),
        (NoTimes, conformance.a_restart_gives_back_all_that_the_core_needs),
        (NoVisits, conformance.a_restart_gives_back_all_that_the_core_needs),
        (NoVoteWithoutEntries, conformance.a_vote_without_entries_is_kept),
        (FirstVote, conformance.the_last_hard_state_counts),
        (NoTruncation, conformance.truncation_at_any_entry_keeps_what_is_before_and_nothing_after),
        (TruncationOfWholeRuns, conformance.truncation_at_any_entry_keeps_what_is_before_and_nothing_after),
        (NoTruncation, conformance.an_overwritten_tail_does_not_come_back_when_the_log_grows_over_it),
        (LastBatchFirst, conformance.batches_of_one_append_take_effect_in_order),
        (NamesWithoutCase, conformance.logs_whose_names_begin_alike_do_not_mix),
        (AnyName, conformance.a_name_that_no_peer_may_have_is_refused),
        (ReadsWholeRuns, conformance.any_range_can_be_read),
        (ReadsAll, conformance.a_read_gives_about_the_bytes_asked_for_but_one_entry_at_least),
        (ReadsNoLargeEntry, conformance.a_read_gives_about_the_bytes_asked_for_but_one_entry_at_least),
        (ReadsAll, conformance.a_large_entry_is_read_alone_and_ends_a_read_before_it),
        (ReadsNoLargeEntry, conformance.a_large_entry_is_read_alone_and_ends_a_read_before_it),
        (HalfABatch, conformance.a_batch_that_does_not_fit_is_refused_whole),
        (ClosesOnce, conformance.closing_twice_is_closing_once),
    ],
)
def test_a_store_that_is_wrong_is_found(wrong, case, tmp_path):
    kept: dict[Path, MemoryStore] = {}
    with pytest.raises((AssertionError, Corrupted, ValueError)):
        case(lambda directory: kept.setdefault(directory, wrong()), tmp_path / "store")


def test_every_case_finds_some_wrong_store():
    (mark,) = [mark for mark in test_a_store_that_is_wrong_is_found.pytestmark if mark.name == "parametrize"]
    assert {case for _, case in mark.args[1]} == set(conformance.CASES)


batches_decoder = msgspec.msgpack.Decoder(list[Batch])


class NaiveStore(MemoryStore):
    """Writes each append as a line of a file, without checksum or lock, and believes what it reads."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir(exist_ok=True)
        self.file = (directory / "lines").open("ab+")
        self.file.seek(0)
        for line in self.whole(self.file.read().split(b"\n")[:-1]):
            super().append(batches_decoder.decode(base64.b64decode(line)))

    def whole(self, lines: list[bytes]) -> list[bytes]:
        return lines

    def append(self, batches: Sequence[Batch]) -> None:
        super().append(batches)
        self.write(batches)

    def write(self, batches: Sequence[Batch]) -> None:
        self.file.write(base64.b64encode(msgspec.msgpack.encode(list(batches))) + b"\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class WritesWhenClosed(NaiveStore):
    """Has synced nothing when it says so."""

    def __init__(self, directory: Path) -> None:
        self.waiting: list[Batch] = []
        super().__init__(directory)

    def write(self, batches: Sequence[Batch]) -> None:
        self.waiting += batches

    def close(self) -> None:
        if not self.file.closed:
            super().write(self.waiting)
            super().close()


class WritesHalves(NaiveStore):
    """Writes what is to be atomic in two pieces."""

    def write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            super().write([Batch(batch.log, batch.hard_state, ())])
            super().write([Batch(batch.log, None, batch.runs)])


def test_a_naive_store_keeps_what_it_can(tmp_path):
    for case in conformance.CASES:
        case(NaiveStore, tmp_path / case.__name__)
    durability.killing_the_process_loses_nothing_that_was_synced(NaiveStore, tmp_path / "killed")


@pytest.mark.parametrize(
    ("wrong", "case"),
    [
        (WritesWhenClosed, durability.killing_the_process_loses_nothing_that_was_synced),
        (NaiveStore, durability.a_second_open_is_refused),
        (NaiveStore, durability.a_flipped_bit_is_never_silent),
        (WritesHalves, functools.partial(conformance.torn_tails_are_repaired_by_dropping_whole_batches, tail="lines")),
    ],
)
def test_a_durable_store_that_is_wrong_is_found(wrong, case, tmp_path):
    with pytest.raises((AssertionError, ValueError)):
        case(wrong, tmp_path / "store")


def test_a_store_whose_files_are_elsewhere_proves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="no flipped bit was noticed"):
        durability.a_flipped_bit_is_never_silent(
            lambda directory: NaiveStore(tmp_path / "elsewhere"), tmp_path / "store"
        )


def test_check_runs_every_case(monkeypatch):
    seen: list[str] = []

    def note(name):
        def case(open_store, directory, *tail):
            assert not directory.exists()
            assert directory.parent.is_dir()
            seen.append(" ".join((name, *tail)))

        case.__name__ = name
        return case

    monkeypatch.setattr(conformance, "CASES", (note("one"), note("two")))
    monkeypatch.setattr(conformance, "DURABLE_CASES", (note("three"),))
    monkeypatch.setattr(conformance, "torn_tails_are_repaired_by_dropping_whole_batches", note("torn"))
    conformance.check(open_memory, durable=False)
    conformance.check(open_memory, tail="*.log")
    assert seen == ["one", "two", "one", "two", "three", "torn *.log"]
