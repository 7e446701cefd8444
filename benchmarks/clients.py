"""What a client's comforts cost beside doing without them: ``python -m benchmarks.clients [--rounds 5]``.

Blocking calls beside awaited ones; events beside none, and watchers beside nobody; sessions beside
``exactly_once=False``; the local socket beside TCP. One node of one peer in a process of its own, without a disk and
without a quorum, which is the worst case: whatever a real group waits for is added to both sides.

In each round the two sides of a case take turns, and a ratio is taken within a round. Each is measured twice: the time
that a call takes of the whole (so many callers call one after the other), and the CPU of both processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

import quorate.blocking
from benchmarks.loops import closed_loops
from benchmarks.processes import Programs, cpu_seconds, free_ports
from benchmarks.programs.noting import Noted, Notes
from benchmarks.systems import VALUE
from quorate import Watch, connect
from quorate.blocking.background import Background
from quorate.errors import Stopped


class Place(msgspec.Struct, frozen=True):
    """The node that is asked.

    Attributes:
        address: of its peer.
        local: of its local socket.
        pid: the number of its process.
    """

    address: str
    local: str
    pid: int


class Cost(msgspec.Struct, frozen=True):
    """What one call of many took.

    Attributes:
        seconds: of the time that all of them took.
        cpu: of the CPU of both processes, seconds.
    """

    seconds: float
    cpu: float


Side = Callable[[Place, float], Cost]
"""One side of a case: measures for so many seconds."""


class Meter:
    """Reads the CPU of both processes from now on."""

    def __init__(self, place: Place) -> None:
        self._pid = place.pid
        self._begun = self._read()

    def _read(self) -> float:
        return time.process_time() + cpu_seconds([self._pid])

    def cost(self, count: int, seconds: float, calls: int) -> Cost:
        """Give what one took of ``count`` in so many seconds, where there were so many calls altogether."""
        return Cost(seconds / count, (self._read() - self._begun) / calls)


# Calls that are awaited.


async def loops(place: Place, call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> Cost:
    """Measure a call that is awaited, in so many loops."""
    meter = Meter(place)
    found = await closed_loops(lambda _: call, callers, seconds, seconds / 5)
    return meter.cost(found.count, found.seconds, found.total)


def read_by(local: bool, callers: int, place: Place, seconds: float) -> Cost:
    """Measure reads that are awaited, at the local socket or by TCP."""

    async def measure() -> Cost:
        async with connect(Notes, place.local if local else place.address) as notes:
            await notes.read(Notes.get)
            return await loops(place, lambda: notes.read(Notes.get), callers, seconds)

    return asyncio.run(measure())


def write_by(once: bool, callers: int, place: Place, seconds: float) -> Cost:
    """Measure writes, in a session or without one."""

    async def measure() -> Cost:
        async with connect(Notes, place.address, exactly_once=once) as notes:
            await notes.write(Notes.keep, VALUE)
            return await loops(place, lambda: notes.write(Notes.keep, VALUE), callers, seconds)

    return asyncio.run(measure())


def write_and_tell(watchers: int | None, callers: int, place: Place, seconds: float) -> Cost:
    """Measure writes that emit an event to so many watchers, each with a connection of its own; or emit none."""

    async def measure() -> Cost:
        async with contextlib.AsyncExitStack() as rooms:
            notes = await rooms.enter_async_context(connect(Notes, place.address))
            others = [await rooms.enter_async_context(connect(Notes, place.address)) for _ in range(watchers or 0)]
            watches = [await rooms.enter_async_context(other.watch(Noted)) for other in others]
            counts = [asyncio.create_task(count(watch)) for watch in watches]
            method = Notes.keep if watchers is None else Notes.note
            await notes.write(Notes.keep, VALUE)
            found = await loops(place, lambda: notes.write(method, VALUE), callers, seconds)
            await notes.write(Notes.note, "")
            told = set(await asyncio.gather(*counts))
            assert len(told) <= 1, "each has seen each event"
            return found

    return asyncio.run(measure())


async def count(watch: Watch[Noted]) -> int:
    """Count events, up to an empty one."""
    seen = 0
    async for change in watch:
        if not change.event.text:
            break
        seen += 1
    return seen


def task(place: Place, seconds: float) -> Cost:
    """Measure a task that does nothing."""
    return asyncio.run(loops(place, lambda: asyncio.create_task(nothing()), 1, seconds))


async def nothing() -> None:
    """Do nothing."""


# Threads that wait.


def threads(place: Place, call: Callable[[], object], callers: int, seconds: float) -> Cost:
    """Measure a call that blocks, in so many threads."""
    counts = [0] * callers

    def loop(number: int, end: float) -> None:
        while time.perf_counter() < end:
            call()
            counts[number] += 1

    def run_all(seconds: float) -> None:
        end = time.perf_counter() + seconds
        running = [threading.Thread(target=loop, args=(number, end)) for number in range(callers)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    run_all(seconds / 5)
    counts = [0] * callers
    meter, begun = Meter(place), time.perf_counter()
    run_all(seconds)
    return meter.cost(sum(counts), time.perf_counter() - begun, sum(counts))


def read_blocking(callers: int, place: Place, seconds: float) -> Cost:
    """Measure reads that block."""
    with quorate.blocking.connect(Notes, place.address) as notes:
        return threads(place, lambda: notes.read(Notes.get), callers, seconds)


def call_of_nothing(place: Place, seconds: float) -> Cost:
    """Measure a call to the loop in the background that does nothing."""
    background = Background(nothing, lambda: Stopped("it has ended"), lambda: None)
    try:
        return threads(place, lambda: background.call(nothing), 1, seconds)
    finally:
        background.stop()


def wake_and_be_woken(place: Place, seconds: float) -> Cost:
    """Measure two threads that wake each other, which is what a call that blocks cannot do without."""
    asked, answered = threading.Semaphore(0), threading.Semaphore(0)
    is_over = threading.Event()

    def answer() -> None:
        while not is_over.is_set():
            asked.acquire()
            answered.release()

    def ask() -> None:
        asked.release()
        answered.acquire()

    other = threading.Thread(target=answer)
    other.start()
    try:
        return threads(place, ask, 1, seconds)
    finally:
        is_over.set()
        asked.release()
        other.join()


CASES: tuple[tuple[str, Side, Side], ...] = (
    *(
        (f"a read, {callers} at once: blocking, beside awaited", partial(read_by, False, callers), blocking)
        for callers in (1, 16, 64)
        for blocking in [partial(read_blocking, callers)]
    ),
    ("nothing at all: a blocking call, beside a task", task, call_of_nothing),
    ("nothing at all: a blocking call, beside two threads that wake each other", wake_and_be_woken, call_of_nothing),
    *(
        (f"a write, {callers} at once: in a session, beside none", partial(write_by, False, callers), once)
        for callers in (1, 64)
        for once in [partial(write_by, True, callers)]
    ),
    *(
        (f"a read, {callers} at once: by the local socket, beside TCP", partial(read_by, False, callers), local)
        for callers in (1, 64)
        for local in [partial(read_by, True, callers)]
    ),
    *(
        (f"a write, {callers} at once: {text}", partial(write_and_tell, before, callers), telling)
        for callers in (1, 64)
        for text, before, watchers in (
            ("that emits, beside none", None, 0),
            ("1 watcher, beside nobody", 0, 1),
            ("10 watchers, beside nobody", 0, 10),
        )
        for telling in [partial(write_and_tell, watchers, callers)]
    ),
)
"""Each with doing without first."""


def measure(place: Place, rounds: int, seconds: float, chosen: str) -> None:
    """Measure all cases with a word in their names, and print them as a table."""
    print("| | without, µs | with, µs | ratio [lowest–highest] | CPU without, µs | with, µs | ratio of CPU |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for title, without, comfort in CASES:
        if chosen not in title:
            continue
        pairs = [(without(place, seconds), comfort(place, seconds)) for _ in range(rounds)]
        time_of = row([(one.seconds, other.seconds) for one, other in pairs])
        cpu_of = row([(one.cpu, other.cpu) for one, other in pairs])
        print(f"| {title} | {time_of} | {cpu_of} |", flush=True)


def row(pairs: list[tuple[float, float]]) -> str:
    """Give the medians of both sides, µs, and that of the ratios with the lowest and highest."""
    ratios = sorted(other / one for one, other in pairs)
    one, other = (statistics.median(side) * 1e6 for side in zip(*pairs, strict=True))
    return f"{one:,.0f} | {other:,.0f} | {statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]"


async def run(rounds: int, seconds: float, chosen: str) -> None:
    """Start the node, and measure in a thread beside it."""
    address = f"peer1@127.0.0.1:{free_ports(1)[0]}"
    with tempfile.TemporaryDirectory(prefix="quorate-") as directory:
        path = Path(directory) / "socket"
        async with Programs() as programs:
            node = await programs.start_python(address, "noting", address, path)
            await node.ask("form")
            await asyncio.to_thread(measure, Place(address, f"unix:{path}", node.pid), rounds, seconds, chosen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each side of each case in each round")
    parser.add_argument("--only", default="", metavar="WORDS", help="the cases with these words in their names")
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.seconds, options.only))
