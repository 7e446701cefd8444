"""A way between two nodes that forgets connections and does not say so: it takes all that is sent, and passes none."""

from __future__ import annotations

import asyncio
import contextlib

from quorate.types import parse_node

WAYS = ("there", "back")


class SwallowingProxy:
    """A proxy on loopback to a node. What it swallows are the connections that are open when ``swallow`` is called.

    Attributes:
        dialled: how many connections it has taken.
        target: the node, ``host:port``; to be set before anybody dials.
        open: while it is not set all is held back, also who dials: the node is paused.
    """

    def __init__(self) -> None:
        self.dialled = 0
        self.target = ""
        self.open = asyncio.Event()
        self.open.set()
        self._lines: list[set[str]] = []  # For each connection which of its ways are swallowed.
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> SwallowingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def address(self) -> str:
        """Where it is dialled."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def swallow(self, *ways: str) -> None:
        """Pass nothing more there (to the node) or back by the connections that are open now, nor their ends."""
        for line in self._lines:
            line.update(ways)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        await self.open.wait()
        line: set[str] = set()
        self._lines.append(line)
        host, port = parse_node(self.target)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        self._writers += [writer, far_writer]
        for way, source, sink in (("there", reader, far_writer), ("back", far_reader, writer)):
            task = asyncio.create_task(self._pump(line, way, source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, line: set[str], way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                await self.open.wait()
                if way not in line:
                    writer.write(chunk)
        await self.open.wait()
        if way not in line:
            writer.close()
