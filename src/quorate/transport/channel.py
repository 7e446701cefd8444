"""Calls over frames: what is the same whether the frames travel by TCP or in memory. Knows no sockets and no addresses.

Values posted in one turn of the loop leave as one frame: one flush for all of them, and no timer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

from quorate.errors import Unavailable
from quorate.transport.calls import (
    COMMANDS_MAX,
    Call,
    CancelCall,
    Failure,
    FirstWrite,
    Reply,
    Request,
    StaleValue,
    Value,
    WritesCall,
    encodable,
    singly,
)
from quorate.transport.frames import (
    ARRAY_HEADER_BYTES_MAX,
    FrameKind,
    encode_frames,
    encode_one_frame,
    encode_value,
    fits,
)

FOREVER = float("inf")

SILENT_SECONDS = 1.0
"""A connection by which nothing has come for so long, though something was asked, takes no further calls once one of
them has run out of time. Something between the two machines may have forgotten it, and acknowledge what is sent all the
same: another connection is answered, and this one never."""

REFUSED = (TypeError, ValueError, OverflowError)
"""What the encoder raises for values that no frame can carry: text that is not UTF-8, or numbers beyond 64 bits."""

LONG_BYTES = 4096
"""A reply that long is counted while it waits to be taken: thousands of them would fill the memory."""


def value_size(reply: Reply) -> int:
    """Tell how long the value in a reply is; 0 for any other answer."""
    answer = reply.answer
    return len(answer.value) if isinstance(answer, (Value, StaleValue)) else 0


class Replies:
    """The way back to one caller: the ``Answer`` that goes with its requests.

    Attributes:
        answer_bytes: how long a reply may well be, as those of late were; much, until there were some.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        bytes_max: int,
        is_full: Callable[[], bool] = lambda: False,
        sent: Callable[[Sequence[Reply]], None] = lambda replies: None,
        puts_off: Callable[[Reply], bool] = lambda reply: False,
    ) -> None:
        """Send nothing yet.

        Args:
            write: takes whole frames, and drops them once the caller is gone.
            bytes_max: the longest body of a frame.
            is_full: whether what was written waits to be taken: then replies are kept until ``flush`` is called again.
            sent: told of the replies that were written.
            puts_off: told of each long reply; True where it is not kept, since the request will be made again.
        """
        self._write = write
        self._bytes_max = bytes_max
        self._is_full = is_full
        self._sent = sent
        self._puts_off = puts_off
        self._replies: list[Reply] = []
        self._is_dropped = False
        self.answer_bytes: int = bytes_max // 64

    def answer(self, reply: Reply) -> None:
        """Send a reply with all others of this turn; one too long for a frame goes as the failure that says so."""
        if self._is_dropped:
            return
        if value_size(reply) >= LONG_BYTES and self._puts_off(reply):
            return
        if not self._replies:
            asyncio.get_running_loop().call_soon(self.flush)
        self._replies.append(reply)

    def drop(self) -> None:
        """Let go of all replies, those that come too: the caller is gone."""
        self._is_dropped = True
        self._replies = []

    def flush(self, *, at_once: bool = False) -> None:
        """Write the replies that wait for the end of the turn, now, as far as they are taken.

        Args:
            at_once: whether to write them all, taken or not.
        """
        if not self._replies or (self._is_full() and not at_once):
            return
        replies, self._replies = self._replies, []
        if len(replies) * self.answer_bytes <= self._bytes_max:
            try:
                frame = encode_one_frame(FrameKind.REPLIES, replies, self._bytes_max)
            except REFUSED:  # One of them is to blame: which one, is seen below.
                frame = None
            if frame is not None:
                self._send(frame, replies)
                return
        # Many bytes: they are encoded as they are taken, and each once, so that they are not held several times.
        encoded: list[bytes] = []
        length = begun = 0
        for position, reply in enumerate(replies):
            value = self._encode(reply)
            if encoded and length + len(value) > self._bytes_max - ARRAY_HEADER_BYTES_MAX:
                self._send(encode_frames(FrameKind.REPLIES, encoded, self._bytes_max)[0], replies[begun:position])
                encoded, length, begun = [], 0, position
                if self._is_full() and not at_once:
                    self._replies = replies[begun:]
                    return
            encoded.append(value)
            length += len(value)
        self._send(encode_frames(FrameKind.REPLIES, encoded, self._bytes_max)[0], replies[begun:])

    def _send(self, frame: bytes, replies: Sequence[Reply]) -> None:
        """Write a frame, and learn from it how long replies are."""
        self.answer_bytes = max(len(frame) // len(replies), self.answer_bytes // 2)
        self._write(frame)
        self._sent(replies)

    def _encode(self, reply: Reply) -> bytes:
        """Encode a reply, or what says that it is too long for a frame, or cannot be encoded."""
        try:
            encoded = encode_value(reply)
        except REFUSED as error:
            message = encodable(f"the reply cannot be encoded: {error}")
        else:
            if fits(encoded, self._bytes_max):
                return encoded
            size = len(encoded)
            message = f"the reply has {size} bytes: too many for one frame (Settings.frame_bytes_max of the node)"
        # It is what the machine gave, and would be no better if it were asked again.
        return encode_value(Reply(reply.id, Failure("MachineError", message)))


class FrameChannel:
    """A ``Channel``: gives requests their ids, and each caller the reply with its id.

    Deadlines are swept: one timer for all calls, set for the first of them. Where nothing comes, it takes no further
    calls: see ``SILENT_SECONDS``.

    Attributes:
        commands_max: the most writes that travel as one request; with 1 each goes as a ``WriteCall``.
    """

    commands_max: int = COMMANDS_MAX

    def __init__(
        self, node: str, write: Callable[[bytes], None], hang_up: Callable[[], Awaitable[None]], bytes_max: int
    ) -> None:
        """Speak to ``node`` by ``write``, which takes whole frames; ``hang_up`` closes what lies beneath."""
        self._loop = asyncio.get_running_loop()  # Looking it up asks the operating system for more than all the rest.
        self._node = node
        self._write = write
        self._hang_up = hang_up
        self._bytes_max = bytes_max
        self._requests: list[Request] = []
        # What may still join the last of the requests: place in the session, session, timeout and peer of a write.
        self._next: tuple[int, int, float, str] | None = None
        self._commands: list[bytes] = []  # Those of that request, where it is one for writes.
        self._taken_back: dict[asyncio.Future[Reply], str] = {}
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._sweep_at = FOREVER
        self._timer: asyncio.TimerHandle | None = None
        self._broken: str | None = None
        self._asked_at: float | None = None  # When something was asked first since something has come.
        self._is_retired = False
        self._ending: asyncio.Task[None] | None = None

    async def call(self, request: Request, deadline: float = FOREVER) -> Reply:
        """Send a request, with an id of this channel, and wait for its reply, until the deadline.

        Raises:
            ValueError: the request is longer than a frame may be; it was not sent.
            Unavailable: the connection was gone before the request was sent.
            ConnectionError: it broke afterwards; whether the request was carried out is unknown.
            TimeoutError: there was no reply until the deadline; the same is unknown.
        """
        return await self.post(request.peer, request.call, deadline)

    def post(self, peer: str, call: Call | FirstWrite, deadline: float = FOREVER) -> asyncio.Future[Reply]:
        """Send a call, as ``call`` does, without waiting: its reply, or the error, comes into the future.

        Whoever gives up cancels the future; nobody else minds.

        Raises:
            Unavailable: the connection was gone before the call was sent.
        """
        if self._broken is not None or self._is_retired:
            raise Unavailable(self._broken or f"{self._node} has said nothing for too long")
        number = next(self._ids)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = future, deadline
        if deadline < self._sweep_at:
            self._set_sweep(deadline)
        if not isinstance(call, FirstWrite):
            self._next = None
        elif self.commands_max == 1:
            call = call.call()
        else:
            if (
                self._next == (call.sequence, call.session, call.timeout, peer)
                and len(self._commands) < self.commands_max
            ):
                self._commands.append(call.command)
                self._next = (call.sequence + 1, call.session, call.timeout, peer)
                return future
            self._commands = [call.command]
            self._next = (call.sequence + 1, call.session, call.timeout, peer)
            call = WritesCall(self._commands, call.timeout, call.session, call.sequence, call.settled())
        if not self._requests and not self._taken_back:
            self._loop.call_soon(self._flush)
        self._requests.append(Request(number, peer, call))
        return future

    def take_back(self, peer: str, reply: asyncio.Future[Reply]) -> None:
        """Tell a peer that nobody waits any longer for the reply to a call that it may keep for long."""
        if self._broken is not None:
            return
        if not self._requests and not self._taken_back:
            self._loop.call_soon(self._flush)
        self._taken_back[reply] = peer

    @property
    def closed(self) -> bool:
        """Whether the connection is gone, or takes no further calls since nothing comes by it."""
        return self._broken is not None or self._is_retired

    async def close(self) -> None:
        """Close the connection; calls under way fail with ``ConnectionError``. Idempotent."""
        self.break_off(f"the connection to {self._node} was closed on this side")
        await self._hang_up()

    def receive(self, replies: Sequence[Reply]) -> None:
        """Hand replies to their callers; one whose caller has given up is dropped."""
        self._asked_at = None
        for reply in replies:
            waiting = self._waiting.pop(reply.id, None)
            if waiting is not None and not waiting[0].done():
                waiting[0].set_result(reply)
        self._end_if_retired()

    def break_off(self, reason: str) -> None:
        """Fail the calls under way, and all later ones: the connection is gone. The first reason given counts."""
        if self._broken is not None:
            return
        self._broken = reason
        self._set_sweep(FOREVER)
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(reason))

    def _flush(self) -> None:
        """Write the requests of this turn, and which of those before are taken back."""
        requests, self._requests, self._next = self._requests, [], None
        if self._taken_back:
            requests += self._cancels()
        if not requests:
            return
        if self._asked_at is None:
            self._asked_at = self._loop.time()
        try:
            frame = encode_one_frame(FrameKind.REQUESTS, requests, self._bytes_max)
        except REFUSED:
            frame = None
        if frame is not None:
            self._write(frame)
            return
        single = [each for request in requests for each in singly(request)]
        encoded = [value for request in single if (value := self._encode(request)) is not None]
        for frame in encode_frames(FrameKind.REQUESTS, encoded, self._bytes_max):
            self._write(frame)

    def _cancels(self) -> list[Request]:
        """Make the requests that take back calls; those that were answered meanwhile need none."""
        gone, self._taken_back = self._taken_back, {}
        numbers = [number for number, (future, _) in self._waiting.items() if future in gone]
        return [Request(next(self._ids), gone[self._waiting.pop(number)[0]], CancelCall(number)) for number in numbers]

    def _encode(self, request: Request) -> bytes | None:
        """Encode one request; None for one that cannot be sent, once its caller is told why."""
        try:
            encoded = encode_value(request)
        except REFUSED as refused:
            error: Exception = refused
        else:
            if fits(encoded, self._bytes_max):
                return encoded
            error = ValueError(f"the request has {len(encoded)} bytes: too many for one frame (frame_bytes_max)")
        waiting = self._waiting.pop(request.id, None)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_exception(error)
        return None

    def _set_sweep(self, deadline: float) -> None:
        """Sweep next at that deadline; never at infinity."""
        if self._timer is not None:
            self._timer.cancel()
        self._sweep_at = deadline
        self._timer = None
        if deadline < FOREVER:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        """Fail the calls whose deadline has passed, and look again at the first deadline of the others."""
        now = max(self._sweep_at, asyncio.get_running_loop().time())  # A timer may come a trifle early.
        first = FOREVER
        count = len(self._waiting)
        for number, (future, deadline) in list(self._waiting.items()):
            if deadline > now:
                first = min(first, deadline)
                continue
            del self._waiting[number]
            if not future.done():
                future.set_exception(TimeoutError("no reply in time"))
        self._set_sweep(first)
        has_failed = len(self._waiting) < count
        if has_failed and self._asked_at is not None and now - self._asked_at >= SILENT_SECONDS:
            self._is_retired = True
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        """Close the connection, if it takes no further calls and none is under way."""
        if self._is_retired and not self._waiting and self._ending is None:
            self._ending = self._loop.create_task(self.close(), name=f"leave the connection to {self._node}")
