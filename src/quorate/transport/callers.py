"""Callers: takes the requests of a connection as fast as their answers leave, and a bounded number in one turn.

Whoever sends a frame decides how many requests are in it: without bounds one frame could hold up the loop for longer
than an election takes, and fill the memory with answers that nobody reads. Knows nothing of what is asked.

**All callers share an allowance**: what their answers may be together. Those that wait to be taken are counted, and of
requests whose answers are not made yet it is supposed that they will be as long as others of late. Beyond it requests
wait, and nothing more is read from whoever sent them, but for one request of whoever waits for no answer: so everybody
goes on, in small steps, whoever else takes nothing. An answer that is longer than was supposed, and for which there is
no room, is let go of if it was read: the read is made again once there is room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
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
from quorate.transport.channel import LONG_BYTES, Replies, value_size
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

ANSWERS_MAX = 8
"""The answers to all callers may be as long as so many of the longest frames; twice that with those that are taken for
whoever waits for none, and once more as much with those to writes, which cannot be made again."""

UNTAKEN_SECONDS = 10.0
"""Who takes nothing for so long, and up to twice as long, while others have to wait for it, is hung up on."""

_call_of, _id_of = attrgetter("call"), attrgetter("id")


class Allowance:
    """What the answers to all callers of a transport may be together.

    Attributes:
        answer_bytes: how long an answer may well be: what the latest long ones were.
    """

    def __init__(self, frame_bytes_max: int, warn: Callable[[str, str, object], None]) -> None:
        """Have given nothing away.

        Args:
            frame_bytes_max: the longest body of a frame.
            warn: logs a warning: its kind, its text, and what stands in the text.
        """
        self.answer_bytes: int = frame_bytes_max // 64
        self._bytes_max = ANSWERS_MAX * frame_bytes_max
        self._warn = warn
        self._held = 0
        self._claimed = 0
        self._claims: dict[Caller, tuple[int, int]] = {}
        self._holders: dict[Caller, float] = {}  # Whose answers wait, and since when none was taken; the longest first.
        self._waiting: dict[Caller, None] = {}  # Who has requests and no room for the answers, the longest first.
        self._timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> int:
        """How many bytes the answers to further requests may be."""
        return self._bytes_max - self._claimed

    def has_room(self, size: int) -> bool:
        """Tell whether one answer more, which is made, may be kept."""
        return self._held + size <= self._bytes_max

    @property
    def spare(self) -> int:
        """How many requests may be taken of somebody who waits for no answer, though nothing is left."""
        return 1 if self._held < 2 * self._bytes_max else 0

    def note(self, caller: Caller, held: int, expected: int) -> None:
        """Learn how many bytes of answers a caller holds now, and how many more are expected for it."""
        before = self._claims.pop(caller, (0, 0))
        self._held += held - before[0]
        self._claimed += held + expected - before[0] - before[1]
        if held or expected:
            self._claims[caller] = held, expected
        if held < before[0] or not held:
            self._holders.pop(caller, None)
        if held:
            self._holders.setdefault(caller, asyncio.get_running_loop().time())
        while self._waiting and (self.left > 0 or self.spare):
            first = next(iter(self._waiting))
            del self._waiting[first]
            if first.go_on() or first in self._waiting:
                break  # It says what is left, once it has taken some; or that is too little for its next answer.
        if self._held > 3 * self._bytes_max:
            self._hang_up(next(iter(self._holders)))

    def wait(self, caller: Caller) -> None:
        """Let a caller go on once there is room."""
        self._waiting.setdefault(caller)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(UNTAKEN_SECONDS, self._sweep)

    def stop(self) -> None:
        """Look after them no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        """Hang up on those who have taken nothing for long, if others wait for it."""
        loop = asyncio.get_running_loop()
        since = loop.time() - UNTAKEN_SECONDS
        for caller, then in list(self._holders.items()) if self._waiting else ():
            if then <= since:
                caller.account()
            if self._holders.get(caller, loop.time()) <= since:  # Else it has taken something meanwhile.
                self._hang_up(caller)
        self._timer = loop.call_later(UNTAKEN_SECONDS, self._sweep) if self._waiting else None

    def _hang_up(self, caller: Caller) -> None:
        """Let go of all that waits to be taken by a caller, and of its connection."""
        self._warn("untaken", "%s takes no answers, and others have no room for theirs -> closed", caller.remote)
        caller.hang_up()

    def leave(self, caller: Caller) -> None:
        """Forget a caller that is gone."""
        self._waiting.pop(caller, None)
        self.note(caller, 0, 0)


class Caller:
    """The other side of a connection for calls."""

    def __init__(
        self, connection: Connection, receiver: Receiver, allowance: Allowance, bytes_max: int, *, is_local: bool
    ) -> None:
        """Take nothing yet.

        Args:
            connection: carries the requests, and the replies back.
            receiver: carries the requests out.
            allowance: what the answers to all callers may be.
            bytes_max: the longest body of a frame. Answers of twice as many bytes may be unsent, as far as can be told
                from the length of those before.
            is_local: whether any call can be taken back, and is then not answered.
        """
        self._connection = connection
        self._receiver = receiver
        self._allowance = allowance
        self._bytes_max = bytes_max
        self._is_local = is_local
        self._replies = Replies(connection.write, bytes_max, lambda: connection.is_full, self._sent, self._puts_off)
        self._replies.answer_bytes = allowance.answer_bytes
        self._made = 0  # Bytes of long answers that wait to be written.
        self._waiting: deque[Request] = deque()
        self._unanswered: set[int] = set()  # Their ids: one that was taken back may be answered all the same.
        self._reads: dict[int, Request] = {}  # Those of them that may be made again; of one frame, others as well.
        self._watching: set[int] = set()
        self._is_due = False

    def receive(self, requests: list[Request]) -> None:
        """Take requests: at once if there is room, else in their order once there is."""
        count = len(requests)
        if count <= TURN_MAX and not self._waiting and count <= self._room():
            kinds = set(map(type, map(_call_of, requests)))
            if kinds <= ONE_BY_ONE:
                ids = list(map(_id_of, requests))
                self._expect(ids)
                if ReadCall in kinds:
                    self._reads.update(zip(ids, requests, strict=True))
                self.account()
                self._receiver.receive_requests(requests, self._replies.answer)
                return
        self._waiting.extend(requests)
        if not self._is_due:
            self._take()

    def drained(self) -> None:
        """Go on: the connection has room for answers again."""
        self.account()
        self._replies.flush()
        self.go_on()

    def flush(self) -> None:
        """Write the replies that were given, whether there is room or not: the connection is about to close."""
        self._replies.flush(at_once=True)

    def leave(self) -> None:
        """Let go of what waits: the connection is gone.

        At once, for the garbage collector would find it late: it counts neither requests nor replies.
        """
        self._waiting.clear()
        self._replies.drop()
        self._allowance.leave(self)

    @property
    def remote(self) -> str:
        """Who it is, for people to read."""
        return self._connection.remote

    def hang_up(self) -> None:
        """Let go of all that waits to be taken, and of the connection."""
        self._connection.abort()

    def _room(self) -> int:
        """Tell how many more requests may be taken now, so that the answers are not too many bytes."""
        if self._connection.is_full:
            return 0
        size, due = self._replies.answer_bytes + 1, len(self._unanswered)
        own = max(1, min(UNANSWERED_MAX, 2 * self._bytes_max // size)) - due
        shared = self._allowance.left // size
        return min(own, shared) if shared > 0 or due or self._made else self._allowance.spare

    def account(self) -> None:
        """Say what is held and what is expected: after requests were taken, and answers made, written or taken."""
        held = self._made + (self._connection.unsent if self._connection.is_full else 0)
        self._allowance.note(self, held, len(self._unanswered) * self._replies.answer_bytes)

    def _puts_off(self, reply: Reply) -> bool:
        """Count a long answer; or let go of it, for which there is no room, and see to it that it is made again."""
        size = value_size(reply)
        self._replies.answer_bytes = max(self._replies.answer_bytes, size)
        request = self._reads.pop(reply.id, None)
        if request is None or type(request.call) is not ReadCall or not self._made or self._allowance.has_room(size):
            self._made += size
            self.account()
            return False
        self._unanswered.discard(reply.id)
        self._waiting.appendleft(request)
        self.account()
        self.go_on()
        return True

    def _take(self) -> None:
        """Take so many of the requests that wait as may be taken in one turn."""
        self._is_due = False
        if not self._connection.open:
            self._waiting.clear()
            return
        taken: list[Request] = []
        last = len(self._unanswered) + min(TURN_MAX, self._room())
        try:
            while self._waiting and len(taken) < TURN_MAX and len(self._unanswered) < last:
                request = self._waiting.popleft()
                if self._count(request):
                    taken.append(request)
            self.account()
            self._receiver.receive_requests(taken, self._replies.answer)
        except Exception as error:
            self._connection.fail(error)
        self.go_on()

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
            if isinstance(call, ReadCall):
                self._reads[request.id] = request
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
        if not self._unanswered:
            self._reads.clear()
        for number in told if self._reads else ():
            self._reads.pop(number, None)
        if self._made:
            self._made -= sum(size for size in map(value_size, replies) if size >= LONG_BYTES)
        self._allowance.answer_bytes = self._replies.answer_bytes
        self.account()
        if self._waiting:
            self.go_on()

    def go_on(self) -> bool:
        """Read on if nothing waits; else read nothing, and take more in the next turn if there is room.

        Returns:
            Whether more is about to be taken.
        """
        connection = self._connection
        if not self._waiting:
            if not connection.is_full:
                connection.resume_reading()
            return False
        connection.pause_reading()
        if not self._is_due and self._room() > 0:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._take)
        elif not self._is_due and not connection.is_full:
            self._allowance.wait(self)
        return self._is_due
