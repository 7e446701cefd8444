"""What a blocking call costs beside the same call awaited: ``python -m benchmarks.blocking [--rounds 5]``.

One node of one peer, whose store is memory, in a process of its own: no disk and no quorum, so that the calls
themselves are what is measured. Here a client that is awaited and its blocking twin take turns, with one caller and
with many (tasks, threads), in each round, and a ratio is taken within a round. The last line is a call to the loop in
the background that does nothing at all, against a task that is awaited.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import quorate.blocking
from benchmarks.loops import closed_loops
from benchmarks.processes import Programs, free_ports
from benchmarks.quorate_cluster import start_node
from quorate import connect
from quorate.blocking.background import Background
from quorate.errors import Stopped
from quorate.machines import KV

CALLERS = (1, 16, 64)


def threaded_loops(call: Callable[[], object], callers: int, seconds: float) -> float:
    """Let so many threads call one time after the other; give the seconds that one call takes of the whole."""
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def loop(number: int) -> None:
        while time.perf_counter() < end:
            call()
            counts[number] += 1

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begin) / sum(counts)


def awaited(address: str, callers: int, seconds: float) -> float:
    """Measure a client that is awaited."""

    async def measure() -> float:
        async with connect(KV, address) as kv:
            found = await closed_loops(lambda _: kv.read(KV.get, "key0"), callers, seconds, seconds / 5)
            return found.seconds / found.count

    return asyncio.run(measure())


def blocking(address: str, callers: int, seconds: float) -> float:
    """Measure its twin."""
    with quorate.blocking.connect(KV, address) as kv:
        threaded_loops(lambda: kv.read(KV.get, "key0"), callers, seconds / 5)
        return threaded_loops(lambda: kv.read(KV.get, "key0"), callers, seconds)


async def nothing() -> None:
    """Do nothing."""


def empty_awaited(_: str, __: int, seconds: float) -> float:
    """Measure a task that does nothing."""

    async def measure() -> float:
        found = await closed_loops(lambda _: asyncio.create_task(nothing()), 1, seconds, seconds / 5)
        return found.seconds / found.count

    return asyncio.run(measure())


def empty_blocking(_: str, __: int, seconds: float) -> float:
    """Measure a call that does nothing."""
    background = Background(nothing, lambda: Stopped("it has ended"), lambda: None)
    try:
        return threaded_loops(lambda: background.call(nothing), 1, seconds)
    finally:
        background.stop()


def measure(address: str, rounds: int, seconds: float) -> None:
    """Measure everything, and print it."""
    print(f"{'':20} {'awaited':>10} {'blocking':>10} {'ratio: median [lowest-highest]':>34}")
    cases = [(f"{callers} callers", awaited, blocking, callers) for callers in CALLERS]
    for title, one, other, callers in (*cases, ("nothing", empty_awaited, empty_blocking, 1)):
        pairs = [(one(address, callers, seconds), other(address, callers, seconds)) for _ in range(rounds)]
        ratios = sorted(second / first for first, second in pairs)
        first, second = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
        ratio = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
        print(f"{title:20} {first:7.1f} µs {second:7.1f} µs {ratio:>34}", flush=True)


async def run(rounds: int, seconds: float) -> None:
    """Start the node, and measure in a thread beside it."""
    address = f"peer1@127.0.0.1:{free_ports(1)[0]}"
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            node = await start_node(programs, Path(directory), address, "memory", "asyncio", "1", "1000000000")
            await node.ask("form", [address])
            await node.ask("write", "value")
            await asyncio.to_thread(measure, address, rounds, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case in each round")
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.seconds))
