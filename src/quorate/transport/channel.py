"""Calls over frames: what is the same whether the frames travel by TCP or in memory. Knows no sockets and no addresses.

Values posted in one turn of the loop leave as one frame: one flush for all of them, and no timer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

from quorate.errors import Unavailable
from quorate.transport.calls import Failure, Reply, Request
from quorate.transport.frames import FrameKind, encode_frames, encode_value, fits


class Outbox:
    """Encoded values that wait for the end of this turn of the loop."""

    def __init__(self, kind: FrameKind, write: Callable[[bytes], None], bytes_max: int) -> None:
        """Collect values of one kind for ``write``, which takes whole frames with bodies up to ``bytes_max``."""
        self._kind = kind
        self._write = write
        self._bytes_max = bytes_max
        self._values: list[bytes] = []

    def post(self, value: bytes) -> None:
        """Take an encoded value that ``fits``."""
        if not self._values:
            asyncio.get_running_loop().call_soon(self.flush)
        self._values.append(value)

    def flush(self) -> None:
        """Write what was posted, now."""
        values, self._values = self._values, []
        for frame in encode_frames(self._kind, values, self._bytes_max):
            self._write(frame)


class Replies:
    """The way back to one caller: the ``Answer`` that goes with its requests."""

    def __init__(self, write: Callable[[bytes], None], bytes_max: int) -> None:
        """Send replies by ``write``, which takes whole frames and drops them once the caller is gone."""
        self._bytes_max = bytes_max
        self._outbox = Outbox(FrameKind.REPLIES, write, bytes_max)

    def answer(self, reply: Reply) -> None:
        """Send a reply with all others of this turn; one too long for a frame goes as the failure that says so."""
        encoded = encode_value(reply)
        if not fits(encoded, self._bytes_max):
            message = f"the reply has {len(encoded)} bytes: too many for one frame (frame_bytes_max)"
            encoded = encode_value(Reply(reply.id, Failure("OutcomeUnknown", message)))
        self._outbox.post(encoded)

    def flush(self) -> None:
        """Write the replies that wait for the end of the turn, now."""
        self._outbox.flush()


class FrameChannel:
    """A ``Channel``: gives requests their ids, and each caller the reply with its id."""

    def __init__(
        self, node: str, write: Callable[[bytes], None], hang_up: Callable[[], Awaitable[None]], bytes_max: int
    ) -> None:
        """Speak to ``node`` by ``write``, which takes whole frames; ``hang_up`` closes what lies beneath."""
        self._node = node
        self._hang_up = hang_up
        self._bytes_max = bytes_max
        self._outbox = Outbox(FrameKind.REQUESTS, write, bytes_max)
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._broken: str | None = None

    async def call(self, request: Request) -> Reply:
        """Send a request, with an id of this channel, and wait for its reply.

        Raises:
            ValueError: the request is longer than a frame may be; it was not sent.
            Unavailable: the connection was gone before the request was sent.
            ConnectionError: it broke afterwards; whether the request was carried out is unknown.
        """
        number = next(self._ids)
        encoded = encode_value(Request(number, request.peer, request.call))
        if not fits(encoded, self._bytes_max):
            raise ValueError(f"the request has {len(encoded)} bytes: too many for one frame (frame_bytes_max)")
        if self._broken is not None:
            raise Unavailable(self._broken)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._outbox.post(encoded)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._broken is not None

    async def close(self) -> None:
        """Close the connection; calls under way fail with ``ConnectionError``. Idempotent."""
        self.break_off(f"the connection to {self._node} was closed on this side")
        await self._hang_up()

    def receive(self, replies: Sequence[Reply]) -> None:
        """Hand replies to their callers; one whose caller has given up is dropped."""
        for reply in replies:
            future = self._waiting.pop(reply.id, None)
            if future is not None and not future.done():
                future.set_result(reply)

    def break_off(self, reason: str) -> None:
        """Fail the calls under way, and all later ones: the connection is gone. The first reason given counts."""
        if self._broken is not None:
            return
        self._broken = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(reason))
