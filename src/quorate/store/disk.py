"""The one disk thread of a node: what all its peers want written goes to the store in groups, each with one sync.

While a group is being written the next one gathers, so the slower the disk the larger the groups; no timer decides
that. One timer there is for a store that keeps a mark of what is durable: begun by a write, so an idle disk has none.
The rules are here and know no thread: an ``Executor`` runs the jobs, a real thread or a simulator's virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from quorate.errors import Corrupted, StoreError
from quorate.store import Batch, LogStore, MarkedStore
from quorate.types import Index, Run, Stored

T = TypeVar("T")

MARK_AFTER = 1.0
"""Seconds from a write until the store marks how much is durable: so much the mark lags, and so rarely it costs."""


def _tell_nobody(_: StoreError) -> None:
    """Leave the failure to the one who was told that the whole disk failed."""


def store_error_from(error: BaseException) -> StoreError:
    """Give what a store raised as a ``StoreError``, with the cause attached when it was another error."""
    if isinstance(error, StoreError):
        return error
    failure = StoreError(f"the disk failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


class Executor(Protocol):
    """Runs jobs away from the loop, one at a time, in the order in which they were submitted."""

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Run ``job``, then call ``done`` with its result, or with None and what it raised.

        ``done`` is called on the loop's thread, after ``submit`` has returned.
        """
        ...

    async def drain(self) -> None:
        """Wait until every submitted job is done, while the loop goes on: ``stop`` would hold it up as long."""
        ...

    def stop(self) -> None:
        """Let go of what runs the jobs; every submitted one is done, later ones are not. Idempotent."""
        ...


async def blocking(executor: Executor, job: Callable[[], T]) -> T:
    """Run what blocks away from the loop; give its result, or raise what it raised."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    executor.submit(job, done)
    return await future


class ThreadExecutor:
    """Runs jobs on one thread of its own, begun by the first job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "quorate-disk") -> None:
        """Remember the loop that is told of finished jobs, and what the thread is called."""
        self._loop = loop
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_over = False

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Queue a job; see ``Executor.submit``. Once it was stopped, ``done`` is told of a ``StoreError``."""
        if self._is_over:
            # What it is about to touch may be another process's by now.
            self._loop.call_soon(done, None, StoreError(f"{self._name} has ended: its node was stopped"))
            return

        def run() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = job()
            except BaseException as error:
                failure = error
            # A loop that is closed has nobody left to be told.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, result, failure)

        if self._thread is None:
            # A daemon, so that a program that ends without `stop` ends: to the disk that is a crash like any other.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(run)

    async def drain(self) -> None:
        """Wait until every submitted job is done; see ``Executor.drain``."""
        if self._thread is not None:
            await blocking(self, lambda: None)

    def stop(self) -> None:
        """End the thread, after the jobs that were submitted. Idempotent."""
        self._is_over = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (run := self._jobs.get()) is not None:
            run()


class _Job(msgspec.Struct, Generic[T], frozen=True):
    """One piece of work for the disk, and who is told how it went.

    Attributes:
        run: the work, done away from the loop.
        done: told the result.
        refused: told why there is none.
        of_one_log: whether damage that it finds stops only the one who asked, and not the whole disk.
    """

    run: Callable[[], T]
    done: Callable[[T], None]
    refused: Callable[[StoreError], None]
    of_one_log: bool = False


class Disk:
    """Group commit over all peers of a node. Everything here is called on the loop's thread.

    A failure is final: what the disk holds then is not known, and a second try proves nothing. ``failed`` is called
    once, and from then on nothing is reported as done.
    """

    def __init__(self, store: LogStore, executor: Executor, failed: Callable[[StoreError], None]) -> None:
        """Take over a store, which nobody else may use from now on.

        Args:
            store: where the batches go.
            executor: runs the jobs.
            failed: told once, with the reason, when the disk has failed.
        """
        self._store = store
        self._marked = store if isinstance(store, MarkedStore) else None
        self._mark_timer: asyncio.TimerHandle | None = None
        self._executor = executor
        self._failed = failed
        self._writes: list[tuple[Sequence[Batch], Callable[[], None]]] = []
        self._reads: deque[_Job[Any]] = deque()
        self._busy = False
        self._read_is_next = False
        self._accepting = True
        self._broken = False
        self._closing = False
        self._stopped: asyncio.Future[None] | None = None

    def write(self, batches: Sequence[Batch], done: Callable[[], None]) -> None:
        """Write batches, and call ``done`` once they are durable; batches of one log keep their order.

        Does nothing once the disk has failed or is stopping.
        """
        if self._accepting:
            self._writes.append((batches, done))
            self._start()

    def read(
        self, log: str, first: Index, last: Index, bytes_max: int, done: Callable[[tuple[Run, ...]], None]
    ) -> None:
        """Read entries as ``LogStore.read`` does, and call ``done`` with them; a failed read fails the disk.

        Sees what was appended before it runs, which may be less than what ``write`` has accepted: ask only for
        entries whose write was reported as done. Does nothing once the disk has failed or is stopping.
        """
        if self._accepting:
            self._reads.append(_Job(lambda: self._store.read(log, first, last, bytes_max), done, _tell_nobody))
            self._start()

    async def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Load a log as ``LogStore.load`` does, among the reads; ``visit`` is called on the disk's thread.

        Sees all that was written to it before, by a peer that was stopped a moment ago.

        Raises:
            Corrupted: this log is damaged; the others go on.
            StoreError: the disk has failed or is stopping.
        """
        if not self._accepting:
            raise StoreError(f"{log} cannot be loaded: the disk of this node has failed or is stopping")
        loaded: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()

        def done(stored: Stored) -> None:
            if not loaded.done():
                loaded.set_result(stored)

        def refused(error: StoreError) -> None:
            if not loaded.done():
                loaded.set_exception(error)

        if self._writes:
            # Were some of them written behind its back, the new life of a peer would acknowledge what they truncated.
            self._read_is_next = False
        self._reads.append(_Job(lambda: self._store.load(log, visit), done, refused, of_one_log=True))
        self._start()
        return await loaded

    async def stop(self) -> None:
        """Finish what was asked, close the store and let go of the executor. Idempotent."""
        self._accepting = False
        self._mark_never()
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._start()
        await asyncio.shield(self._stopped)

    def _start(self) -> None:
        """Give the executor its next job: one read between two groups of writes, if any waits."""
        if self._busy:
            return
        if self._reads and (self._read_is_next or not self._writes):
            self._read_is_next = False
            self._run(self._reads.popleft())
        elif self._writes:
            self._read_is_next = True
            self._run(self._group())
        elif self._stopped is not None and not self._closing:
            self._closing = True
            self._run(_Job(self._store.close, lambda _: self._end(), lambda _: self._end()))

    def _group(self) -> _Job[None]:
        """Make one job of all writes that wait."""
        writes, self._writes = self._writes, []

        def run() -> None:
            self._store.append([batch for batches, _ in writes for batch in batches])
            self._store.sync()

        def done(_: None) -> None:
            self._mark_soon()
            for _batches, written in writes:
                written()

        return _Job(run, done, _tell_nobody)

    def _mark_soon(self) -> None:
        """Have the store mark what is durable a while from now: all that is written until then needs no other mark."""
        if self._marked is not None and self._mark_timer is None and self._accepting:
            self._mark_timer = asyncio.get_running_loop().call_later(MARK_AFTER, self._mark_now, self._marked)

    def _mark_now(self, marked: MarkedStore) -> None:
        self._mark_timer = None
        self._reads.append(_Job(marked.mark, lambda _: None, _tell_nobody))
        self._start()

    def _mark_never(self) -> None:
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None

    def _run(self, job: _Job[T]) -> None:
        def finished(result: T | None, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                failure = store_error_from(error)
                if not (job.of_one_log and isinstance(failure, Corrupted)):
                    self._fail(failure)
                job.refused(failure)
                self._start()
            else:
                # The disk goes on first: it works while the loop tells who waited.
                self._start()
                job.done(cast(T, result))

        self._busy = True
        self._executor.submit(job.run, finished)

    def _fail(self, failure: StoreError) -> None:
        if self._broken:
            return
        self._broken, self._accepting = True, False
        self._mark_never()
        self._writes.clear()
        waiting, self._reads = self._reads, deque()
        for job in waiting:
            job.refused(failure)
        self._failed(failure)

    def _end(self) -> None:
        self._executor.stop()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)
