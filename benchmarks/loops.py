"""Closed loops: callers that make one call after the other, and how long their calls took. Used inside the programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """What the callers of one case saw.

    Attributes:
        count: calls that ended in the time measured, whenever they began: so slow ones count in full.
        total: calls altogether, those of the warm-up among them.
        seconds: the time measured.
        p50: the median of how long a call took, seconds.
        p99: the same for 99 of 100.
        p999: the same for 999 of 1000.
    """

    count: int
    total: int
    seconds: float
    p50: float
    p99: float
    p999: float

    @property
    def per_second(self) -> float:
        """Calls per second."""
        return self.count / self.seconds


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the value that the given share of the ordered values, of which there is one at least, does not exceed."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def outcome(latencies: list[float], total: int, seconds: float) -> Outcome:
    """Sum up one case.

    Raises:
        RuntimeError: no call ended in time.
    """
    if not latencies:
        raise RuntimeError(f"no call ended within {seconds:g} s")
    ordered = sorted(latencies)
    p50, p99, p999 = (quantile(ordered, share) for share in (0.5, 0.99, 0.999))
    return Outcome(len(ordered), total, seconds, p50, p99, p999)


async def closed_loops(
    caller: Callable[[int], Callable[[], Awaitable[object]]], callers: int, seconds: float, warm_up: float
) -> Outcome:
    """Let ``callers`` loops call for ``warm_up`` seconds unmeasured, and then for ``seconds``.

    Args:
        caller: gives what a caller calls again and again; given its number. Preparing that is no part of a call.
        callers: how many call at once.
        seconds: how long is measured.
        warm_up: how long is not.
    """
    clock = time.perf_counter
    latencies: list[float] = []
    begin = clock() + warm_up
    end = begin + seconds

    async def loop(call: Callable[[], Awaitable[object]]) -> int:
        calls = 0
        start = clock()
        while start < end:
            await call()
            done = clock()
            calls += 1
            if begin <= done <= end:
                latencies.append(done - start)
            start = done
        return calls

    totals = await asyncio.gather(*(loop(caller(number)) for number in range(callers)))
    return outcome(latencies, sum(totals), seconds)
