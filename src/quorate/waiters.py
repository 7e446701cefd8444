"""Waiters: those who wait for one reply. Knows futures; does not know what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from quorate.errors import MachineError, QuorateError
from quorate.replies import ReplyType, StaleReplyType


class Waiter(Protocol):
    """Someone who waits for one reply: resolved once, and silent when resolved again."""

    @property
    def deadline(self) -> float:
        """When to give up, seconds on the monotonic clock."""
        ...

    def succeed(self, reply: object) -> None:
        """Hand over what the machine's handler returned."""
        ...

    def fail(self, error: QuorateError) -> None:
        """Hand over why there is no reply, or what the machine's handler refused."""
        ...


def first_deadline(waiters: Iterable[Waiter]) -> float:
    """Give the first deadline of those that wait; infinity when nobody does."""
    return min(map(attrgetter("deadline"), waiters), default=float("inf"))


class FutureWaiter(msgspec.Struct, eq=False, gc=False):
    """Someone in this process who waits for a reply.

    The garbage collector does not see it, as it would have to look at one for each call that is under way; so whoever
    awaits the future should not hold its waiter meanwhile: were its event loop thrown away, they would hold each other.

    Attributes:
        future: resolved with a reply that its caller may keep.
        deadline: when to give up, seconds on the monotonic clock.
        reply: what the reply is like; None for one that holds nothing of the machine.
    """

    future: asyncio.Future[Any]
    deadline: float
    reply: ReplyType | StaleReplyType | None = None

    def succeed(self, reply: object) -> None:
        """Resolve the future, unless it is resolved or was cancelled."""
        if self.future.done():
            return
        kind = self.reply
        try:
            self.future.set_result(reply if kind is None or type(reply) in kind.shared else kind.detach(reply))
        except MachineError as error:
            self.future.set_exception(error)

    def fail(self, error: QuorateError) -> None:
        """Fail the future, unless it is resolved or was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)
