"""Waiters: those who wait for one reply. Knows futures; does not know what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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


def as_it_is(_: str, reply: object) -> object:
    """Give the reply unchanged: it holds nothing of the machine."""
    return reply


class FutureWaiter(msgspec.Struct, eq=False):
    """Someone in this process who waits for a reply.

    Attributes:
        future: resolved with what ``detach(name, reply)`` makes of a reply.
        deadline: when to give up, seconds on the monotonic clock.
        name: the name in the log of the write or read.
        detach: gives a reply that the caller may keep.
    """

    future: asyncio.Future[Any]
    deadline: float
    name: str = ""
    detach: Callable[[str, object], object] = as_it_is

    def succeed(self, reply: object) -> None:
        """Resolve the future, unless it is resolved or was cancelled."""
        if self.future.done():
            return
        try:
            self.future.set_result(self.detach(self.name, reply))
        except MachineError as error:
            self.future.set_exception(error)

    def fail(self, error: QuorateError) -> None:
        """Fail the future, unless it is resolved or was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)
