"""Links: the connections of a client, opened when they are needed and shared by all of its calls.

Knows addresses and channels; does not know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.errors import Unavailable
from quorate.transport import Channel, Transport
from quorate.transport.local import Target

CLOSED = "the client was closed; connect makes another"
"""Why a call of a client that was closed is not made."""

OTHER_LOOP = (
    "this client belongs to another event loop, that of its first calls: connect again in this one (each asyncio.run"
    " has one of its own, also in a process that was forked), or share a client of quorate.blocking among threads"
)
"""What is said to those who take a client from one event loop to another."""


class Links:
    """The connections of a client, shared by all that ``with_options`` made of it.

    Attributes:
        leader: who led last, as far as is known.
        place: which of the client's addresses was asked last.
        nearest: which of them is asked for stale reads.
        closed: whether the client was closed, for good.
    """

    def __init__(self) -> None:
        """Have no connections."""
        self.leader: Target | None = None
        self.place = 0
        self.nearest = 0
        self.closed: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: Transport | None = None
        self._channels: dict[str, Channel] = {}
        self._opening: dict[str, asyncio.Task[Channel]] = {}

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Give the event loop of the connections, that of the first call: from another one all answers would be lost.

        Raises:
            RuntimeError: this is another one.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError(OTHER_LOOP)
            self._loop = loop
        return loop

    def open_channel(self, node: str) -> Channel | None:
        """Give the connection to a node if it is open."""
        channel = self._channels.get(node)
        return channel if channel is not None and not channel.closed else None

    async def channel(self, node: str, make_transport: Callable[[], Transport]) -> Channel:
        """Give the open connection to a node, opened now if need be; callers that wait for one share it.

        Raises:
            Unavailable: it cannot be reached, or the client was closed.
            CancelledError: the caller was cancelled.
        """
        channel = self.open_channel(node)
        if channel is not None:
            return channel
        if self.closed:
            raise Unavailable(CLOSED)
        if self._transport is None:
            self._transport = make_transport()
        task = self._opening.get(node)
        if task is None:
            task = self._opening[node] = asyncio.create_task(self._transport.connect(node))
            task.add_done_callback(lambda done: self._opened(node, done))
        try:
            # Shielded: a caller that gives up must not take the connection away from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if task.cancelled() and me is not None and not me.cancelling():
                raise Unavailable(CLOSED) from None
            raise

    async def close(self) -> None:
        """Close all connections, for good. Idempotent."""
        self.closed = True
        for task in list(self._opening.values()):
            task.cancel()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()
        transport, self._transport, self._loop = self._transport, None, None
        if transport is not None:
            await transport.stop()

    def start_over(self) -> None:
        """Forget the connections, and close none: they are those of the process which this one was forked from."""
        self._loop, self._transport, self._channels, self._opening = None, None, {}, {}

    def _opened(self, node: str, task: asyncio.Task[Channel]) -> None:
        """Keep a connection that was opened."""
        self._opening.pop(node, None)
        if not task.cancelled() and task.exception() is None:
            self._channels[node] = task.result()
