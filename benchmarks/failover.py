"""Failover: how long nobody's write is acknowledged after the leader's process was killed, quorate's and etcd's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.peers import start_members
from benchmarks.processes import Program, Programs
from benchmarks.quorate_cluster import start_node, start_nodes
from benchmarks.systems import VALUE
from quorate import QuorateError, connect
from quorate.machines import KV

ATTEMPT_SECONDS = 0.25
"""How long one try at etcd may take: while it has no leader it answers nothing."""

SETTLED_SECONDS = 2.0
"""How long a cluster is left alone, under its writers, once the killed member is back."""

REST = ("rocksdb", "uvloop", "1", "100000")


class Writers:
    """Loops that write until they are stopped, and when a write was acknowledged last."""

    def __init__(self, tries: list[Callable[[], Awaitable[None]]], failures: tuple[type[BaseException], ...]) -> None:
        self.acknowledged: asyncio.Queue[float] = asyncio.Queue()
        self.failures = failures
        self.loops = [asyncio.ensure_future(self.loop(once)) for once in tries]

    async def loop(self, once: Callable[[], Awaitable[None]]) -> None:
        """Write, one after the other; who fails tries again at once, or nearly."""
        while True:
            begin = time.perf_counter()
            try:
                await once()
            except self.failures:
                await asyncio.sleep(0.001)
            else:
                self.acknowledged.put_nowait(begin)

    async def gap_after(self, instant: float) -> float:
        """Give the seconds from an instant to the first acknowledgement of a write that began after it."""
        while await self.acknowledged.get() < instant:
            pass
        return time.perf_counter() - instant

    def forget(self) -> None:
        """Drop what was acknowledged so far."""
        while not self.acknowledged.empty():
            self.acknowledged.get_nowait()

    async def stop(self) -> None:
        """End the loops."""
        for loop in self.loops:
            loop.cancel()
        await asyncio.gather(*self.loops, return_exceptions=True)


async def gap(writers: Writers, leader: Program) -> float:
    """Kill the leader, and give how long it takes until a write is acknowledged."""
    writers.forget()
    instant = time.perf_counter()
    leader.kill()
    async with asyncio.timeout(30):
        return await writers.gap_after(instant)


async def quorate_gaps(kills: int) -> list[float]:
    """Kill quorate's leader again and again; it starts anew each time, with its data."""
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses, members = await start_nodes(programs, Path(directory), *REST[:2])
            await members[0].ask("form", addresses)
            async with connect(KV, *addresses) as kv:

                async def once() -> None:
                    await kv.write(KV.set, "key", VALUE)

                writers = Writers([once] * 4, (QuorateError,))
                found = []
                try:
                    for _ in range(kills):
                        await asyncio.sleep(SETTLED_SECONDS)
                        place = addresses.index(str(await kv.leader()))
                        found.append(await gap(writers, members[place]))
                        await members[place].end()
                        members[place] = await start_node(programs, Path(directory), addresses[place], *REST)
                finally:
                    await writers.stop()
                return found


async def post(endpoint: str, path: str, body: dict[str, str]) -> dict[str, object]:
    """Ask etcd over its JSON gateway, on a connection of its own.

    Raises:
        OSError: it could not be reached, did not answer in time, or refused.
    """
    text = json.dumps(body).encode()
    host, _, port = endpoint.removeprefix("http://").partition(":")
    async with asyncio.timeout(ATTEMPT_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(text)) + text)
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise OSError(f"{endpoint} refused: {answer!r}")
    found: dict[str, object] = json.loads(answer)
    return found


async def etcd_leader(endpoints: list[str]) -> int:
    """Give the place of the endpoint that leads."""
    while True:
        for place, endpoint in enumerate(endpoints):
            with contextlib.suppress(OSError, TimeoutError):
                status = await post(endpoint, "/v3/maintenance/status", {})
                header = status["header"]
                if isinstance(header, dict) and status.get("leader") == header["member_id"]:
                    return place
        await asyncio.sleep(0.05)


async def etcd_gaps(kills: int) -> list[float]:
    """Kill etcd's leader; each time a fresh cluster, with a writer at each member."""
    found = []
    body = {"key": base64.b64encode(b"key").decode(), "value": base64.b64encode(VALUE.encode()).decode()}
    for _ in range(kills):
        with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
            async with Programs() as programs:
                endpoints, members = await start_members(programs, Path(directory))

                def writing(endpoint: str) -> Callable[[], Awaitable[None]]:
                    async def once() -> None:
                        await post(endpoint, "/v3/kv/put", body)

                    return once

                leader = members[await etcd_leader(endpoints)]
                writers = Writers([writing(endpoint) for endpoint in endpoints], (OSError, TimeoutError))
                try:
                    await asyncio.sleep(SETTLED_SECONDS)
                    found.append(await gap(writers, leader))
                finally:
                    await writers.stop()
    return found


async def failover(rounds: int, scale: float) -> dict[str, list[float]]:
    """Measure both: 6 kills of quorate's leader for each round, and 2 of etcd's."""
    found = {"quorate": await quorate_gaps(max(1, int(6 * rounds * scale)))}
    if shutil.which("etcd") is not None:
        found["etcd"] = await etcd_gaps(max(1, int(2 * rounds * scale)))
    return found
