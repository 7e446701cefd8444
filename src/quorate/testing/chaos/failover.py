"""Failover: the leader of three real nodes is killed while a client writes, again and again; how long do writes pause?

Measured is from just before SIGKILL is sent to the acknowledgement of the first write that *began* after it: replies
that were on their way do not count. The node that was killed is started again, and the next kill waits until it has
caught up. Settings are the defaults; nothing stands between the nodes but loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from quorate import Client, QuorateError, Settings, connect
from quorate.machines import KV
from quorate.testing.chaos.cluster import Cluster, Recipe
from quorate.testing.chaos.isolation import Loopback
from quorate.testing.chaos.run import running

NODES = 3

STEADY_SECONDS = (0.2, 0.8)
"""From how long to how long the client writes undisturbed before a kill: so that no heartbeat is in step with it."""

PATIENCE = 60.0
"""Seconds within which a write must succeed again, and a node must have caught up."""

LOOK = 0.05
"""Seconds between two looks at how far a node is."""

MEDIAN_MAX = 1.2
P99_MAX = 3.0
"""The bar, in election timeouts."""


class Failovers(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        store: the name of the nodes' store.
        election_timeout_min: the shortest election timeout that is drawn, seconds.
        election_timeout_max: the longest.
        pauses: from each kill to the next acknowledged write, seconds.
        writes: how many writes were acknowledged in all.
    """

    store: str
    election_timeout_min: float
    election_timeout_max: float
    pauses: Sequence[float]
    writes: int

    @property
    def timeout(self) -> float:
        """The election timeout that is drawn on average, seconds."""
        return (self.election_timeout_min + self.election_timeout_max) / 2

    @property
    def is_good(self) -> bool:
        """Whether the bar is met."""
        return (
            quantile(self.pauses, 0.5) <= MEDIAN_MAX * self.timeout
            and quantile(self.pauses, 0.99) <= P99_MAX * self.timeout
        )


class Writer:
    """A client that writes, one write after the other.

    Attributes:
        acknowledged: how many were.
        latest: when the last acknowledged write began and was acknowledged, seconds on the monotonic clock.
    """

    def __init__(self, kv: Client[KV]) -> None:
        """Begin with nothing written."""
        self.acknowledged: int = 0
        self.latest: tuple[float, float] = 0.0, 0.0
        self._kv = kv
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            begun = time.monotonic()
            with contextlib.suppress(QuorateError):
                await self._kv.write(KV.set, "key", str(self.acknowledged))
                self.latest = begun, time.monotonic()
                self.acknowledged += 1
                self._changed.set()

    async def acknowledged_since(self, instant: float) -> float:
        """Wait for the first write that began after an instant; give when it was acknowledged.

        Raises:
            TimeoutError: there is none within ``PATIENCE``.
        """
        async with asyncio.timeout(PATIENCE):
            while self.latest[0] <= instant:
                self._changed.clear()
                await self._changed.wait()
        return self.latest[1]


async def measure(kills: int, store: str) -> Failovers:
    """Kill the leader that many times.

    Raises:
        NodeGone: a node did not start.
        Refused: the group could not be formed.
        TimeoutError: no write succeeded again.
    """
    settings = Settings()
    directory = Path(tempfile.mkdtemp(prefix=f"quorate-failover-{os.getpid()}-"))
    recipe = Recipe(directory, store)
    pauses: list[float] = []
    try:
        async with (
            running(recipe, Loopback([f"n{number}" for number in range(1, NODES + 1)])) as cluster,
            connect(KV, *cluster.addresses) as kv,
            writing(kv) as writer,
        ):
            for number in range(1, kills + 1):
                pauses.append(await kill_leader(cluster, kv, writer))
                print(f"kill {number}: {pauses[-1] * 1000:.0f} ms", flush=True)
            writes = writer.acknowledged
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return Failovers(
        store=store,
        election_timeout_min=settings.election_timeout_min,
        election_timeout_max=settings.election_timeout_max,
        pauses=pauses,
        writes=writes,
    )


@contextlib.asynccontextmanager
async def writing(kv: Client[KV]) -> AsyncIterator[Writer]:
    """Write for as long as the context lasts."""
    writer = Writer(kv)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def kill_leader(cluster: Cluster, kv: Client[KV], writer: Writer) -> float:
    """Kill the leader, and start it again; give how long writes paused, seconds.

    Raises:
        TimeoutError: no write succeeded again, or the node did not catch up.
    """
    await writer.acknowledged_since(time.monotonic())
    await asyncio.sleep(random.uniform(*STEADY_SECONDS))
    leader = cluster.nodes[(await kv.leader()).name]
    instant = time.monotonic()
    await leader.kill()
    pause = await writer.acknowledged_since(instant) - instant
    await leader.start()
    await caught_up(leader.name, kv)
    return pause


async def caught_up(name: str, kv: Client[KV]) -> None:
    """Wait until a node has applied what is committed now.

    Raises:
        TimeoutError: it does not come to that.
    """
    wanted = 0
    async with asyncio.timeout(PATIENCE):
        while True:
            applied = {status.name: status.last_applied for status in await kv.status()}
            wanted = wanted or max(applied.values())
            if applied.get(name, 0) >= wanted:
                return
            await asyncio.sleep(LOOK)


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value below which that share of all values lies, the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def table(measured: Failovers) -> str:
    """Give what was measured as a person reads it."""
    timeout, pauses = measured.timeout, measured.pauses
    rows = {
        "min": min(pauses),
        "median": quantile(pauses, 0.5),
        "p90": quantile(pauses, 0.9),
        "p99": quantile(pauses, 0.99),
        "max": max(pauses),
    }
    lowest, highest = measured.election_timeout_min * 1000, measured.election_timeout_max * 1000
    return "\n".join(
        [
            f"{len(pauses)} kills of the leader of {NODES} nodes, store {measured.store}, {measured.writes} writes",
            f"election timeouts are drawn from {lowest:.0f} to {highest:.0f} ms, {timeout * 1000:.0f} ms on average",
            *(
                f"{name:7} {pause * 1000:6.0f} ms  {pause / timeout:5.2f} election timeouts"
                for name, pause in rows.items()
            ),
            f"the bar: median at most {MEDIAN_MAX:g}, p99 at most {P99_MAX:g} election timeouts"
            f" -> {'met' if measured.is_good else 'NOT MET'}",
        ]
    )
