"""Callers: takes the requests of a connection as fast as their answers leave, and a bounded number in one turn.

Whoever sends a frame decides how many requests are in it: without bounds one frame could hold up the loop for longer
than an election takes, and fill the memory with answers that nobody reads. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from quorate.transport import Receiver
from quorate.transport.calls import (
    CancelCall,
    Failure,
    LeaderCall,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    StatusCall,
    WatchCall,
    WatchStatusCall,
    WriteCall,
    WritesCall,
)
from quorate.transport.channel import Replies
from quorate.transport.connection import Connection
from quorate.transport.frames import FrameError

TURN_MAX = 1_024
"""How many commands and queries of one connection are taken in one turn of the loop."""

UNANSWERED_MAX = 4_096
"""How many requests of one connection may be unanswered before no further ones are taken."""

WATCHES_MAX = 10_000
"""How many calls of one connection may wait for something to happen; further ones are refused."""

ONE_BY_ONE: set[type] = {WriteCall, ReadCall, StatusCall, OpenSessionCall}
"""The calls with one answer each, which comes in any case and soon."""

LONG = (WatchCall, WatchStatusCall, LeaderCall)
"""The calls that may stay unanswered for long while nothing is wrong: they hold up no others."""

_call_of, _id_of = attrgetter("call"), attrgetter("id")


class Caller:
    """The other side of a connection for calls."""

    def __init__(self, connection: Connection, receiver: Receiver, bytes_max: int, *, is_local: bool) -> None:
        """Take nothing yet.

        Args:
            connection: carries the requests, and the replies back.
            receiver: carries the requests out.
            bytes_max: the longest body of a frame. Answers of twice as many bytes may be unsent, as far as can be told
                from the length of those before.
            is_local: whether any call can be taken back, and is then not answered.
        """
        self._connection = connection
        self._receiver = receiver
        self._bytes_max = bytes_max
        self._is_local = is_local
        self._replies = Replies(connection.write, bytes_max, lambda: connection.is_full, self._sent)
        self._waiting: deque[Request] = deque()
        self._unanswered: set[int] = set()  # Their ids: one that was taken back may be answered all the same.
        self._watching: set[int] = set()
        self._is_due = False

    def receive(self, requests: list[Request]) -> None:
        """Take requests: at once if there is room, else in their order once there is."""
        count = len(requests)
        if (
            count <= TURN_MAX
            and not self._waiting
            and not self._connection.is_full
            and len(self._unanswered) + count <= self._unanswered_max()
            and set(map(type, map(_call_of, requests))) <= ONE_BY_ONE
        ):
            self._expect(list(map(_id_of, requests)))
            self._receiver.receive_requests(requests, self._replies.answer)
            return
        self._waiting.extend(requests)
        if not self._is_due:
            self._take()

    def drained(self) -> None:
        """Go on: the connection has room for answers again."""
        self._replies.flush()
        self._go_on()

    def flush(self) -> None:
        """Write the replies that were given, whether there is room or not: the connection is about to close."""
        self._replies.flush(at_once=True)

    def leave(self) -> None:
        """Let go of what waits: the connection is gone.

        At once, for the garbage collector would find it late: it counts neither requests nor replies.
        """
        self._waiting.clear()
        self._replies.drop()

    def _unanswered_max(self) -> int:
        """Tell how many requests may be unanswered, so that the answers are not too many bytes."""
        return min(UNANSWERED_MAX, 2 * self._bytes_max // (self._replies.answer_bytes + 1))

    def _take(self) -> None:
        """Take so many of the requests that wait as may be taken in one turn."""
        self._is_due = False
        if not self._connection.open:
            self._waiting.clear()
            return
        taken: list[Request] = []
        last = min(len(self._unanswered) + TURN_MAX, max(1, self._unanswered_max()))
        try:
            while (
                self._waiting
                and len(taken) < TURN_MAX
                and len(self._unanswered) < last
                and not self._connection.is_full
            ):
                request = self._waiting.popleft()
                if self._count(request):
                    taken.append(request)
            self._receiver.receive_requests(taken, self._replies.answer)
        except Exception as error:
            self._connection.fail(error)
        self._go_on()

    def _count(self, request: Request) -> bool:
        """Count the answers that a request will have; return False for one that is refused.

        Raises:
            FrameError: see ``_expect``.
        """
        call = request.call
        if isinstance(call, LONG):
            if len(self._watching) >= WATCHES_MAX:
                full = f"{WATCHES_MAX} calls of this connection wait for something to happen already"
                self._expect([request.id])  # So that a turn refuses no more than it may take.
                self._replies.answer(Reply(request.id, Failure("Overloaded", full)))
                return False
            self._watching.add(request.id)
        elif isinstance(call, CancelCall):
            if call.request in self._watching:
                self._watching.discard(call.request)
            elif self._is_local:
                self._unanswered.discard(call.request)
        else:
            count = len(call.commands) if isinstance(call, WritesCall) else 1
            self._expect(range(request.id, request.id + count))
        return True

    def _expect(self, ids: Sequence[int]) -> None:
        """Note which answers are due.

        Raises:
            FrameError: one has the id of another one: how many are due could not be told.
        """
        due = len(self._unanswered) + len(ids)
        self._unanswered.update(ids)
        if len(self._unanswered) < due:
            raise FrameError("it makes two calls with one id")

    def _sent(self, replies: Sequence[Reply]) -> None:
        """Learn that replies were written: there may be room for more requests."""
        told = list(map(_id_of, replies))
        self._unanswered.difference_update(told)
        self._watching.difference_update(told)
        if self._waiting:
            self._go_on()

    def _go_on(self) -> None:
        """Read on if nothing waits; else read nothing, and take more in the next turn if there is room."""
        connection = self._connection
        if not self._waiting:
            if not connection.is_full:
                connection.resume_reading()
            return
        connection.pause_reading()
        has_room = not connection.is_full and len(self._unanswered) < max(1, self._unanswered_max())
        if has_room and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._take)
