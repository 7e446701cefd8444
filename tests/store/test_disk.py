"""The disk thread: what is grouped, in which order it is told, and that a failure is final."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from quorate.errors import Corrupted, DiskFull, StoreError
from quorate.store import Batch
from quorate.store.disk import Disk, ThreadExecutor, blocking
from quorate.store.memory import MemoryStore
from quorate.types import Index, Kind, Run, Stored, Term

ALL = 1 << 30


def run(index: int) -> Run:
    return Run(Term(1), Index(index), Kind.COMMAND, 1.0, (b"%d" % index,))


def batch(log: str, *indexes: int) -> Batch:
    return Batch(log, None, tuple(run(index) for index in indexes))


class HandDriven:
    """An executor that runs its next job when told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable, Callable]] = []
        self.stopped = False

    def submit(self, job, done) -> None:
        assert not self.jobs, "one job at a time"
        self.jobs.append((job, done))

    def stop(self) -> None:
        self.stopped = True

    def step(self) -> None:
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    def drain(self) -> None:
        while self.jobs:
            self.step()


class Watched(MemoryStore):
    """Notes what is called, and raises what it is told to raise, once for each call named."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.faults: dict[str, BaseException] = {}

    def _note(self, call: str, detail: str = "") -> None:
        self.calls.append(f"{call} {detail}".strip())
        if call in self.faults:
            raise self.faults.pop(call)

    def append(self, batches: Sequence[Batch]) -> None:
        self._note("append", " ".join(f"{each.log}:{each.runs[0].first}" for each in batches))
        super().append(batches)

    def sync(self) -> None:
        self._note("sync")

    def read(self, log, first, last, bytes_max) -> tuple[Run, ...]:
        self._note("read", f"{log}:{first}")
        return super().read(log, first, last, bytes_max)

    def load(self, log, visit=None) -> Stored:
        self._note("load", log)
        return super().load(log, visit)

    def close(self) -> None:
        self._note("close")


class Bench:
    """A disk on a hand-driven executor, and a list of what was reported, in order."""

    def __init__(self, store: Watched | None = None) -> None:
        self.store = store or Watched()
        self.executor = HandDriven()
        self.told: list[object] = []
        self.failures: list[StoreError] = []
        self.disk = Disk(self.store, self.executor, self.failures.append)

    def write(self, name: str, *batches: Batch) -> None:
        self.disk.write(batches, lambda: self.told.append(name))

    def read(self, first: int, log: str = "a") -> None:
        self.disk.read(log, Index(first), Index(ALL), ALL, self.told.append)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_writes_that_wait_go_as_one_group_with_one_sync(bench):
    bench.write("first", batch("a", 1))
    bench.write("second", batch("b", 1), batch("a", 2))
    bench.write("third", batch("a", 3))
    assert bench.store.calls == []
    bench.executor.step()
    assert (bench.store.calls, bench.told) == (["append a:1", "sync"], ["first"])
    bench.executor.step()
    assert bench.store.calls[2:] == ["append b:1 a:2 a:3", "sync"]
    assert bench.told == ["first", "second", "third"]
    assert not bench.executor.jobs


@pytest.mark.covers("pitfall 69")
def test_nothing_is_reported_before_the_sync(bench):
    bench.write("first", batch("a", 1))
    job, done = bench.executor.jobs.pop()
    job()
    assert (bench.store.calls, bench.told) == (["append a:1", "sync"], [])
    done(None, None)
    assert bench.told == ["first"]


def test_the_next_group_is_under_way_before_the_last_one_is_told(bench):
    busy: list[int] = []
    bench.disk.write([batch("a", 1)], lambda: busy.append(len(bench.executor.jobs)))
    bench.write("second", batch("a", 2))
    bench.executor.step()
    assert busy == [1]


def test_who_is_told_may_write_again(bench):
    def again() -> None:
        bench.told.append("first")
        bench.write("third", batch("a", 3))
        bench.write("fourth", batch("a", 4))

    bench.disk.write([batch("a", 1)], again)
    bench.write("second", batch("a", 2))
    bench.executor.drain()
    assert bench.told == ["first", "second", "third", "fourth"]
    assert [call for call in bench.store.calls if call != "sync"] == ["append a:1", "append a:2", "append a:3 a:4"]


def test_a_write_of_nothing_is_told_after_those_before_it(bench):
    bench.write("first", batch("a", 1))
    bench.write("nothing")
    bench.executor.drain()
    assert bench.told == ["first", "nothing"]


def test_one_read_runs_between_two_groups_and_neither_starves(bench):
    bench.write("w1", batch("a", 1))
    bench.read(1)
    bench.read(1)
    bench.write("w2", batch("a", 2))
    bench.executor.step()
    bench.write("w3", batch("a", 3))
    bench.executor.drain()
    assert bench.store.calls == ["append a:1", "sync", "read a:1", "append a:2 a:3", "sync", "read a:1"]
    assert bench.told == ["w1", (run(1),), "w2", "w3", (run(1), run(2), run(3))]


def test_reads_run_one_after_another_when_nothing_is_written(bench):
    bench.read(1)
    bench.read(1, "b")
    bench.executor.drain()
    assert bench.told == [(), ()]


@pytest.mark.covers("pitfall 68")
@pytest.mark.parametrize("call", ["append", "sync", "read"])
@pytest.mark.parametrize("error", [DiskFull("no room"), OSError(5, "broken"), ValueError("no fit"), Corrupted("bad")])
def test_a_failure_is_told_once_and_is_final(bench, call, error):
    bench.store.faults[call] = error
    bench.read(1)
    bench.write("w1", batch("a", 1))
    bench.read(1)
    bench.executor.drain()
    calls = list(bench.store.calls)
    told = list(bench.told)
    assert "w1" not in told
    bench.write("w2", batch("a", 1))
    bench.read(1)
    assert not bench.executor.jobs
    assert (bench.store.calls, bench.told) == (calls, told)
    (failure,) = bench.failures
    if isinstance(error, StoreError):
        assert failure is error
    else:
        assert type(failure) is StoreError
        assert failure.__cause__ is error
        assert str(error) in str(failure)


async def test_stop_finishes_what_was_asked_and_closes_last(bench):
    bench.write("w1", batch("a", 1))
    bench.write("w2", batch("a", 2))
    bench.read(1)
    stopping = asyncio.ensure_future(bench.disk.stop())
    await asyncio.sleep(0)
    bench.write("too late", batch("a", 3))
    assert not bench.executor.stopped
    bench.executor.drain()
    await stopping
    await bench.disk.stop()
    assert bench.told == ["w1", (run(1),), "w2"]
    assert bench.store.calls[-1] == "close"
    assert bench.store.calls.count("close") == 1
    assert bench.executor.stopped
    assert bench.failures == []


async def test_stop_after_a_failure_only_closes(bench):
    bench.store.faults = {"sync": OSError("broken"), "close": OSError("still broken")}
    bench.write("w1", batch("a", 1))
    bench.write("w2", batch("a", 2))
    bench.executor.drain()
    stopping = asyncio.ensure_future(bench.disk.stop())
    await asyncio.sleep(0)
    bench.executor.drain()
    await stopping
    assert bench.store.calls == ["append a:1", "sync", "close"]
    assert (bench.told, len(bench.failures)) == ([], 1)


async def test_a_store_that_cannot_be_closed_is_a_failure_and_stop_still_ends(bench):
    bench.store.faults["close"] = OSError("broken")
    stopping = asyncio.ensure_future(bench.disk.stop())
    await asyncio.sleep(0)
    bench.executor.drain()
    await stopping
    assert len(bench.failures) == 1


async def test_a_log_is_loaded_between_the_writes(bench):
    bench.write("w1", batch("a", 1))
    visited: list[Run] = []
    loading = asyncio.ensure_future(bench.disk.load("a", visited.append))
    await asyncio.sleep(0)
    bench.write("w2", batch("a", 2))
    bench.executor.drain()
    assert (await loading).last == 1
    assert visited == [run(1)]
    assert bench.store.calls == ["append a:1", "sync", "load a", "append a:2", "sync"]


async def test_a_log_is_loaded_behind_all_that_was_written_to_it_before(bench):
    """A peer that is stopped and started again must not begin with less than what its old life still has written."""
    bench.write("w1", batch("a", 1))
    bench.write("w2", batch("a", 2))
    bench.read(1)
    loading = asyncio.ensure_future(bench.disk.load("a"))
    await asyncio.sleep(0)
    bench.executor.drain()
    assert (await loading).last == 2
    assert bench.store.calls == ["append a:1", "sync", "append a:2", "sync", "read a:1", "load a"]


async def test_a_damaged_log_stops_only_the_one_who_loads_it(bench):
    bench.store.faults["load"] = Corrupted("bad")
    loading = asyncio.ensure_future(bench.disk.load("a"))
    await asyncio.sleep(0)
    bench.write("w1", batch("b", 1))
    bench.executor.drain()
    with pytest.raises(Corrupted, match="bad"):
        await loading
    assert (bench.told, bench.failures) == (["w1"], [])


async def test_a_load_fails_when_the_disk_does_before_during_and_after(bench):
    bench.write("w1", batch("a", 1))
    bench.store.faults["load"] = OSError("broken")
    first, second = asyncio.ensure_future(bench.disk.load("a")), asyncio.ensure_future(bench.disk.load("b"))
    await asyncio.sleep(0)
    bench.executor.drain()
    for loading in (first, second, asyncio.ensure_future(bench.disk.load("c"))):
        with pytest.raises(StoreError):
            await loading
    assert len(bench.failures) == 1
    assert bench.store.calls == ["append a:1", "sync", "load a"]


class Marked(Watched):
    """A store that is asked to mark what is durable."""

    def mark(self) -> None:
        self._note("mark")


@pytest.fixture
def marked(monkeypatch) -> Bench:
    monkeypatch.setattr("quorate.store.disk.MARK_AFTER", 0)
    return Bench(Marked())


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_while_after_a_write_the_store_marks_what_is_durable_once(marked):
    marked.write("w1", batch("a", 1))
    await turns()
    assert len(marked.executor.jobs) == 1
    marked.executor.step()
    await turns()
    marked.executor.drain()
    assert marked.store.calls == ["append a:1", "sync", "mark"]
    await turns()
    assert not marked.executor.jobs, "an idle disk is left alone"
    marked.write("w2", batch("a", 2))
    marked.executor.drain()
    await turns()
    marked.executor.drain()
    assert marked.store.calls[3:] == ["append a:2", "sync", "mark"]
    assert marked.told == ["w1", "w2"]


async def test_a_busy_disk_is_marked_between_two_groups(marked):
    marked.write("w1", batch("a", 1))
    marked.write("w2", batch("a", 2))
    marked.executor.step()
    marked.write("w3", batch("a", 3))
    await turns()
    marked.executor.drain()
    assert marked.store.calls == ["append a:1", "sync", "append a:2", "sync", "mark", "append a:3", "sync"]


async def test_what_is_read_needs_no_mark(marked):
    marked.read(1)
    marked.executor.drain()
    await turns()
    assert not marked.executor.jobs


async def test_a_mark_that_cannot_be_written_is_a_failure_of_the_disk(marked):
    marked.store.faults["mark"] = DiskFull("no room")
    marked.write("w1", batch("a", 1))
    marked.executor.drain()
    await turns()
    marked.executor.drain()
    assert [str(failure) for failure in marked.failures] == ["no room"]


async def test_a_disk_that_stops_or_has_failed_waits_for_no_mark(marked, monkeypatch):
    monkeypatch.setattr("quorate.store.disk.MARK_AFTER", 60)
    for fault in (None, DiskFull("no room")):
        bench = Bench(Marked())
        bench.write("w1", batch("a", 1))
        bench.executor.drain()
        timer = bench.disk._mark_timer
        assert timer is not None
        if fault is not None:
            bench.store.faults["sync"] = fault
            bench.write("w2", batch("a", 2))
            bench.executor.drain()
        stopping = asyncio.ensure_future(bench.disk.stop())
        await turns()
        bench.executor.drain()
        await stopping
        assert timer.cancelled()
        assert bench.store.calls[-1] == "close"


class SlowSync(MemoryStore):
    """A store whose sync lasts until it is let go, and notes on which threads it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.syncing = threading.Event()
        self.let_go = threading.Event()
        self.threads: set[int] = set()

    def sync(self) -> None:
        self.threads.add(threading.get_ident())
        self.syncing.set()
        assert self.let_go.wait(30)

    def close(self) -> None:
        self.threads.add(threading.get_ident())


@pytest.mark.covers("pitfall 82")
async def test_on_a_real_thread_the_loop_goes_on_while_the_disk_syncs():
    store, failures, told = SlowSync(), [], []
    disk = Disk(store, ThreadExecutor(asyncio.get_running_loop()), failures.append)
    written = asyncio.Event()
    disk.write([batch("a", 1)], lambda: told.append(threading.get_ident()))
    disk.write([batch("a", 2)], written.set)
    await asyncio.to_thread(store.syncing.wait)
    for _ in range(100):
        await asyncio.sleep(0)
    assert told == []
    store.let_go.set()
    await written.wait()
    assert told == [threading.get_ident()]
    await disk.stop()
    assert len(store.threads) == 1
    assert threading.get_ident() not in store.threads
    assert failures == []
    assert "quorate-disk" not in [thread.name for thread in threading.enumerate()]


async def test_on_a_real_thread_a_failure_arrives_on_the_loop():
    store, failed = Watched(), asyncio.Event()
    store.faults["append"] = KeyError("a bug")
    disk = Disk(store, ThreadExecutor(asyncio.get_running_loop()), lambda error: failed.set())
    disk.write([batch("a", 1)], failed.set)
    await failed.wait()
    await disk.stop()
    assert store.calls == ["append a:1", "close"]


async def test_stopping_a_disk_that_was_never_used_ends():
    store = Watched()
    disk = Disk(store, ThreadExecutor(asyncio.get_running_loop()), pytest.fail)
    await disk.stop()
    assert store.calls == ["close"]


async def test_a_thread_that_was_stopped_does_no_more_jobs():
    """A peer that was still starting would write into a directory that another process may have locked by now."""
    executor, done = ThreadExecutor(asyncio.get_running_loop(), "quorate-late"), []
    assert await blocking(executor, lambda: 1) == 1
    executor.stop()
    with pytest.raises(StoreError, match=r"quorate-late has ended: its node was stopped"):
        await blocking(executor, lambda: done.append("late"))
    executor.stop()
    assert done == []
    assert "quorate-late" not in [thread.name for thread in threading.enumerate()]
