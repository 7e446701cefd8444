"""Every store keeps the contract, and the suite that says so finds the stores that do not."""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from quorate.errors import Corrupted
from quorate.store import Batch
from quorate.store.lmdb import LMDBStore
from quorate.store.memory import MemoryStore
from quorate.store.records import LogCheck, compaction_key, encode_record
from quorate.store.rocksdb import RocksDBStore
from quorate.testing import conformance, durability
from quorate.testing.logs import OpenStore
from quorate.types import Index, Kind, Run

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
        pass


class TruncationOfWholeRuns(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append(batches)
        for batch in batches:
            kept = self._log(batch.log)
            if batch.runs and kept.firsts and kept.firsts[0] < batch.runs[0].first:
                at = kept.firsts.index(batch.runs[0].first)
                if kept.extent.last > 9:
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
        super().append([replace(b, hard_state=None) if b.log in known else b for b in batches])


class LastBatchFirst(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append(sorted(batches, key=lambda batch: (batch.log, -sum(len(run.payloads) for run in batch.runs))))


class HalfABatch(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append([Batch(batch.log, batch.hard_state, ()) for batch in batches if batch.hard_state])
        super().append([replace(batch, hard_state=None) for batch in batches])


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
        return replace(stored, time=0.0)


class NoBareEntries(MemoryStore):
    def load(self, log, visit=None):
        return replace(super().load(log, visit), bare=Index(0))


class BareEntriesOfBefore(MemoryStore):
    """Finds them also where they were compacted."""

    def load(self, log, visit=None):
        stored, runs = super().load(log, visit), self._runs(log, self._log(log), 0)
        return replace(stored, bare=next((run.first for run in runs if run.kind is Kind.BARE), Index(0)))


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


class NoCompaction(MemoryStore):
    def append(self, batches: Sequence[Batch]) -> None:
        super().append([replace(batch, compaction=None) for batch in batches])


class ForgetsToDrop(MemoryStore):
    """Remembers where a log begins, and shows what was before it all the same."""

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        kept = self._log(log)
        kept.extent, extent = kept.extent._replace(start=Index(0)), kept.extent
        try:
            return super().read(log, first, last, bytes_max)
        finally:
            kept.extent = extent

    def _compact(self, log, kept, compaction):
        firsts, records = kept.firsts[:], kept.records[:]
        super()._compact(log, kept, compaction)
        if not compaction.replaces_log:
            kept.firsts, kept.records = firsts, records


class DropsWholeRuns(MemoryStore):
    """Also the one that spans the start."""

    def _compact(self, log, kept, compaction):
        super()._compact(log, kept, compaction)
        if kept.firsts and kept.firsts[0] <= compaction.start:
            del kept.firsts[0], kept.records[0]


class ForgetsItsCompaction(MemoryStore):
    def load(self, log, visit=None):
        stored = super().load(log, visit)
        return stored if stored.terms else replace(stored, compaction=None, last=Index(0), time=0.0)


class KeepsTheTail(MemoryStore):
    """Of a log that is replaced."""

    def _compact(self, log, kept, compaction):
        beyond = max(kept.extent.last, compaction.start)
        super()._compact(log, kept, replace(compaction, replaces_log=compaction.start >= kept.extent.last))
        kept.extent = kept.extent._replace(last=beyond)
        kept.compaction = encode_record(compaction_key(log), compaction)


class CompactsAtTheEnd(MemoryStore):
    """Of an append, whatever stood before in it."""

    def append(self, batches: Sequence[Batch]) -> None:
        super().append(sorted(batches, key=lambda batch: batch.compaction is not None))


class CompactsNeighbours(MemoryStore):
    def _compact(self, log, kept, compaction):
        for name in self._logs:
            if name.startswith(log):
                super()._compact(name, self._logs[name], compaction)


class CompactionFirst(MemoryStore):
    """Writes a compaction before it looks at what stands beside it."""

    def append(self, batches: Sequence[Batch]) -> None:
        super().append([Batch(batch.log, None, (), batch.compaction) for batch in batches if batch.compaction])
        super().append([replace(batch, compaction=None) for batch in batches])


class AnyCompaction(MemoryStore):
    """Takes whatever it is told."""

    def append(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.compaction is not None:
                self._compact(batch.log, self._log(batch.log), batch.compaction)
            super().append([replace(batch, compaction=None)])


@pytest.mark.parametrize(
    ("wrong", "case"),
    [
        (Inventive, conformance.an_unknown_log_is_empty),
        (ReadsOnlyWhatIsSynced, conformance.what_was_appended_is_read_at_once),
        (NoTimes, conformance.a_restart_gives_back_all_that_the_core_needs),
        (NoVisits, conformance.a_restart_gives_back_all_that_the_core_needs),
        (NoBareEntries, conformance.the_first_bare_entry_is_found_after_a_restart),
        (BareEntriesOfBefore, conformance.the_first_bare_entry_is_found_after_a_restart),
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
        (NoCompaction, conformance.a_compacted_log_begins_behind_its_start),
        (ForgetsToDrop, conformance.a_compacted_log_begins_behind_its_start),
        (DropsWholeRuns, conformance.a_compacted_log_begins_behind_its_start),
        (NoTimes, conformance.a_restart_gives_back_a_compaction_and_only_what_is_behind_it),
        (ForgetsItsCompaction, conformance.a_restart_gives_back_a_compaction_and_only_what_is_behind_it),
        (DropsWholeRuns, conformance.truncation_meets_the_start_of_a_compacted_log),
        (NoTruncation, conformance.truncation_meets_the_start_of_a_compacted_log),
        (KeepsTheTail, conformance.a_replaced_log_holds_nothing_of_what_was_there),
        (CompactsAtTheEnd, conformance.compactions_of_one_append_take_effect_in_order),
        (CompactsNeighbours, conformance.compactions_leave_other_logs_alone),
        (CompactionFirst, conformance.a_compaction_that_does_not_fit_is_refused_whole),
        (AnyCompaction, conformance.a_compaction_that_does_not_fit_is_refused_whole),
        (ForgetsToDrop, conformance.any_history_leaves_what_its_model_does),
        (DropsWholeRuns, conformance.any_history_leaves_what_its_model_does),
        (KeepsTheTail, conformance.any_history_leaves_what_its_model_does),
        (NoBareEntries, conformance.any_history_leaves_what_its_model_does),
        (NoVisits, conformance.any_history_leaves_what_its_model_does),
        (ForgetsItsCompaction, conformance.any_history_leaves_what_its_model_does),
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
            super().write([replace(batch, hard_state=None)])


class WritesCompactionsApart(NaiveStore):
    def write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            super().write([replace(batch, compaction=None)])
            if batch.compaction is not None:
                super().write([Batch(batch.log, None, (), batch.compaction)])


class WritesNoCompaction(NaiveStore):
    def write(self, batches: Sequence[Batch]) -> None:
        super().write([replace(batch, compaction=None) for batch in batches])


class Opened(NaiveStore):
    """Is opened by a method that stores derived from it inherit."""

    @classmethod
    def open(cls, directory: Path) -> Opened:
        return cls(directory)


class InheritsItsOpen(WritesWhenClosed, Opened):
    """Is wrong, and found by the name of a class that is not."""


class OfOneThread(NaiveStore):
    """Is bound to the thread that opened it, as connections of ``sqlite3`` are unless told otherwise."""

    def __init__(self, directory: Path) -> None:
        self.thread = threading.get_ident()
        super().__init__(directory)

    def append(self, batches: Sequence[Batch]) -> None:
        assert threading.get_ident() == self.thread, "this store belongs to another thread"
        super().append(batches)


torn_lines = functools.partial(conformance.torn_tails_are_repaired_by_dropping_whole_batches, tail="lines")


def test_a_naive_store_keeps_what_it_can(tmp_path):
    for case in (*conformance.CASES, torn_lines):
        case(NaiveStore, tmp_path / str(id(case)))
    durability.killing_the_process_loses_nothing_that_was_synced(Opened.open, tmp_path / "killed")
    durability.any_thread_may_call_after_another(NaiveStore, tmp_path / "threads")


@pytest.mark.parametrize(
    ("wrong", "case"),
    [
        (WritesWhenClosed, durability.killing_the_process_loses_nothing_that_was_synced),
        (NaiveStore, durability.a_second_open_is_refused),
        (OfOneThread, durability.any_thread_may_call_after_another),
        (WritesNoCompaction, durability.killing_the_process_loses_nothing_that_was_synced),
        (NaiveStore, durability.a_flipped_bit_is_never_silent),
        (NaiveStore, durability.a_flipped_bit_in_a_compaction_is_never_silent),
        (WritesHalves, torn_lines),
        (WritesCompactionsApart, torn_lines),
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


def test_a_store_is_killed_as_what_it_is_though_it_inherits_what_opens_it(tmp_path):
    with pytest.raises(AssertionError, match="was synced"):
        durability.killing_the_process_loses_nothing_that_was_synced(InheritsItsOpen.open, tmp_path / "store")


@pytest.mark.parametrize("hidden", [lambda directory: NaiveStore(directory), functools.partial(NaiveStore)])
def test_what_opens_must_be_found_under_its_name_by_other_processes(hidden, tmp_path):
    with pytest.raises(AssertionError, match="found in a module, under its name"):
        durability.killing_the_process_loses_nothing_that_was_synced(hidden, tmp_path / "store")


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
