"""A disk on virtual time that forgets at a crash what was not synced, and the executor that takes its time over it.

The contract is ``quorate.store``'s: of what was appended and not synced a crash keeps some whole batches from the
front, and nothing else. Of a snapshot's file that was being put in place it keeps the whole or nothing. Knows nothing
of elections; what it writes is told to an ``Observer``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from quorate.errors import DiskFull
from quorate.store import Batch
from quorate.store.directory import MemoryDirectory
from quorate.store.memory import MemoryStore
from quorate.store.snapshots import MemorySnapshots
from quorate.testing.clock import ProcessClock, VirtualLoop
from quorate.types import Index, Run, Snapshot, Stored

T = TypeVar("T")


class Observer(Protocol):
    """Who wants to know what a disk holds."""

    def written(self, batch: Batch) -> None:
        """Learn that a batch was appended, and is not durable yet."""
        ...

    def persisted(self, count: int) -> None:
        """Learn that the first ``count`` batches that were not durable are now."""
        ...

    def forgot(self) -> None:
        """Learn that all batches that were not durable are lost."""
        ...


class SimulatedDisk:
    """A ``LogStore`` that survives its process.

    Attributes:
        unsynced: batches that were appended and are not durable yet.
    """

    def __init__(self, observer: Observer) -> None:
        """Begin empty."""
        self.unsynced: list[Batch] = []
        self._observer = observer
        self._visible = MemoryStore()
        self._durable = MemoryStore()
        self._flushing = 0

    def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Read one log whole; see ``LogStore.load``."""
        return self._visible.load(log, visit)

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches in order; see ``LogStore.append``."""
        self._visible.append(batches)
        self.unsynced += batches
        for batch in batches:
            self._observer.written(batch)

    def sync(self) -> None:
        """Begin to make durable what was appended; it is once the executor's job is done."""
        self._flushing = len(self.unsynced)

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        """Read entries; see ``LogStore.read``."""
        return self._visible.read(log, first, last, bytes_max)

    def close(self) -> None:
        """Do nothing: the disk outlives its process."""

    def finish(self) -> None:
        """End the flush that ``sync`` began."""
        self._keep(self._flushing)
        self._flushing = 0

    def crash(self, random: Random) -> None:
        """Lose what was not synced, but for some batches from its front that had reached the disk all the same."""
        share = random.choice((0.0, random.random(), 1.0))
        self._keep(round(share * len(self.unsynced)))
        self._flushing = 0
        self.unsynced.clear()
        self._observer.forgot()
        self._visible = self._durable.copy()

    def _keep(self, count: int) -> None:
        """Make the first batches durable."""
        if count:
            self._durable.append(self.unsynced[:count])
            del self.unsynced[:count]
            self._observer.persisted(count)


class PlannedFull(DiskFull):
    """A disk that the simulation wants to be full, and of which the product may therefore complain."""


class SimulatedSnapshots(MemorySnapshots):
    """A ``SnapshotStore`` that survives its process.

    Attributes:
        is_full: asked before each piece is written whether there is no room for it.
    """

    def __init__(self, seen: Callable[[str], None]) -> None:
        """Begin empty; ``seen`` is told each step, by a word."""
        super().__init__()
        self.is_full: Callable[[], bool] = lambda: False
        self._seen = seen
        self._placing: list[Snapshot] = []

    def write(self, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Put a snapshot in place; see ``SnapshotStore.write``."""
        self._make_room()
        super().write(snapshot, chunks)
        self._placing.append(snapshot)
        self._seen("snapshot")

    def receive(self, snapshot: Snapshot, offset: int, piece: bytes) -> int:
        """Add a piece; see ``SnapshotStore.receive``."""
        self._make_room()
        self._seen("piece")
        return super().receive(snapshot, offset, piece)

    def received(self, snapshot: Snapshot, size: int) -> None:
        """Verify all pieces, and put the file in place; see ``SnapshotStore.received``."""
        super().received(snapshot, size)
        self._placing.append(snapshot)
        self._seen("received")

    def drop_before(self, index: Index, but: Collection[Index] = ()) -> None:
        """Remove old ones; see ``SnapshotStore.drop_before``."""
        super().drop_before(index, but)
        self._seen("drops")

    def holds(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot is durably in place."""
        return snapshot in self._files and snapshot not in self._placing

    def finish(self) -> None:
        """End what the executor's job did: it is durable."""
        self._placing.clear()

    def crash(self, random: Random) -> None:
        """Lose what was being put in place, or not; pieces on their way stay until the next start."""
        for snapshot in self._placing:
            if random.random() < 0.5:
                self._files.pop(snapshot, None)
        self._placing.clear()

    def _make_room(self) -> None:
        """Find room for what is to be written.

        Raises:
            PlannedFull: there is none.
        """
        if self.is_full():
            raise PlannedFull("there is no room on the simulated disk")


class SimulatedDirectory(MemoryDirectory):
    """The identity of one peer, and its snapshots; both survive its process."""

    def __init__(self, snapshots: SimulatedSnapshots, make_id: Callable[[], str]) -> None:
        """Know nobody."""
        super().__init__(make_id)
        self._own = snapshots

    def snapshots(self, name: str) -> SimulatedSnapshots:
        """Give the place of the peer's snapshots."""
        return self._own


class Durable(Protocol):
    """What becomes durable when a job of an executor ends."""

    def finish(self) -> None:
        """End the job."""
        ...


class SimulatedExecutor:
    """Runs the jobs of one process on its disk, one at a time; a ``quorate.store.disk.Executor``."""

    def __init__(self, loop: VirtualLoop, clock: ProcessClock, disk: Durable, latency: Callable[[], float]) -> None:
        """Begin with nothing to do; ``latency`` gives how many seconds the next job takes."""
        self._loop = loop
        self._clock = clock
        self._disk = disk
        self._latency = latency
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = deque()
        self._is_busy = False

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Run ``job``, then call ``done`` with its result, or with None and what it raised."""
        self._jobs.append((job, done))
        if not self._is_busy:
            self._start()

    async def drain(self) -> None:
        """Do nothing: there is no thread that would hold up the loop."""

    def stop(self) -> None:
        """Do nothing: there is no thread to let go of."""

    def _start(self) -> None:
        """Begin the next job: what it appends has reached the disk's cache at once, and is durable when it ends."""
        if not self._jobs:
            return
        self._is_busy = True
        job, done = self._jobs.popleft()
        result, failure = None, None
        try:
            result = job()
        except BaseException as error:  # as a thread would hand it over
            failure = error
        self._loop.call_later(self._latency(), self._end, lambda: done(result, failure))

    def _end(self, done: Callable[[], None]) -> None:
        """End a job. A paused process hears of it when it goes on; the disk itself does not pause."""
        if not self._clock.is_dead:
            self._disk.finish()
            self._clock.call_soon(lambda: self._tell(done))

    def _tell(self, done: Callable[[], None]) -> None:
        """Tell the process, and go on with what waits."""
        self._is_busy = False
        self._start()
        done()
