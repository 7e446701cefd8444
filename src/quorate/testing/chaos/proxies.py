"""A proxy on loopback for each ordered pair of nodes: what stands between them where there can be no namespaces.

Each node is told to reach each other one at the proxy of that pair. Bytes are held back while a link is cut, and go on
afterwards, as TCP has it; a loss is a stall of about the time that TCP takes to send again. Clients go past the
proxies, unless a node sends them on: then they take its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence

from quorate import Address
from quorate.testing.chaos.isolation import Wrapping, loopback_addresses
from quorate.testing.chaos.links import Links

CHUNK = 65536
STALL = 0.2
"""Seconds that a lost chunk is late: the shortest time after which Linux sends a segment again."""


class Proxies:
    """The proxies of a group; see ``Isolation``."""

    def __init__(self, names: Sequence[str], links: Links, chance: random.Random) -> None:
        """Describe them; nothing listens before ``start``."""
        self.text = "all on loopback, with a proxy for each pair of nodes"
        self.addresses: Mapping[str, Address] = loopback_addresses(names)
        self._links = links
        self._chance = chance
        self._told: dict[str, dict[str, str]] = {name: {} for name in names}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def wrapping(self, name: str) -> Wrapping:
        """Give where a node reaches the others."""
        return Wrapping(told=self._told[name])

    async def start(self) -> None:
        """Listen."""
        for source in self.addresses:
            for target in self.addresses:
                if source != target:
                    await self._listen(source, target)

    async def close(self) -> None:
        """Close all."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, source: str, target: str) -> None:
        """Listen for what one node dials to reach another."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "asyncio accepts in a task"
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):  # cancelled by close alone
                await self._connect(source, target, reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        self._told[source][target] = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _connect(
        self, source: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Join an accepted connection to one of the target's, until one of them ends."""
        await self._links.until_open(source, target)
        await self._links.until_open(target, source)
        address = self.addresses[target]
        try:
            far_reader, far_writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            return
        with contextlib.closing(far_writer):
            ways = (self._pump(source, target, reader, far_writer), self._pump(target, source, far_reader, writer))
            tasks = [asyncio.ensure_future(way) for way in ways]
            ended = asyncio.Event()
            for task in tasks:
                task.add_done_callback(lambda _: ended.set())
            try:
                await ended.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, source: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes from one side to the other, until it ends; its end is not seen before the link is open."""
        while True:
            with contextlib.suppress(ConnectionError):
                chunk = await reader.read(CHUNK)
                link = self._links.find(source, target)
                await asyncio.sleep(link.delay + (STALL if self._chance.random() < link.loss else 0))
                await self._links.until_open(source, target)
                if chunk:
                    writer.write(chunk)
                    await writer.drain()
                    continue
            await self._links.until_open(source, target)
            return
