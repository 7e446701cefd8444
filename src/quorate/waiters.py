"""Waiters: those who wait for one reply. Knows futures; does not know what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from quorate.errors import MachineError, QuorateError


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


def as_it_is(reply: object) -> object:
    """Give the reply unchanged: it holds nothing of the machine."""
    return reply


class FutureWaiter(msgspec.Struct, eq=False):
    """Someone in this process who waits for a reply.

    Attributes:
        future: resolved with what ``detach`` makes of a reply.
        deadline: when to give up, seconds on the monotonic clock.
        detach: gives a reply that the caller may keep.
    """

    future: asyncio.Future[Any]
    deadline: float
    detach: Callable[[object], object] = as_it_is

    def succeed(self, reply: object) -> None:
        """Resolve the future, unless it is resolved or was cancelled."""
        if self.future.done():
            return
        try:
            self.future.set_result(self.detach(reply))
        except MachineError as error:
            self.future.set_exception(error)

    def fail(self, error: QuorateError) -> None:
        """Fail the future, unless it is resolved or was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)
