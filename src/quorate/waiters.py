"""Waiters: those who wait for one reply. Knows futures; does not know what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Iterable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

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


def check_home(home: asyncio.AbstractEventLoop | None) -> None:
    """Refuse what is not called in the event loop that a node runs on; one that is stopped has none.

    Raises:
        RuntimeError: this is another one.
    """
    if home is not None and asyncio.get_running_loop() is not home:
        raise RuntimeError(
            "this node runs on another event loop, or in the process that this one was forked from: call it there, or"
            " use a node of quorate.blocking from any thread"
        )


def future_in(home: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """Make what a call waits for that is made in the event loop of a node.

    From another thread it would come in the midst of a turn of that loop, and take the place of another call.

    Raises:
        RuntimeError: this is another event loop; nothing was sent.
    """
    if asyncio.get_running_loop() is not home:
        check_home(home)
    return home.create_future()


class Watching(Hashable, Protocol):
    """Someone who waits until something happens, for long maybe.

    Attributes:
        waiter: who waits.
        call: by what it may be taken back; None where only ``Watchers.remove`` does that.
    """

    waiter: Waiter
    call: Hashable


W = TypeVar("W", bound=Watching)


def key_of(watcher: Watching) -> Hashable:
    """Give what someone is found by: the call, else who it is."""
    return watcher if watcher.call is None else watcher.call


class Watchers(dict[Hashable, W]):
    """Those who wait until something happens, each by its call, or by itself; ``pop(call, None)`` takes a call back."""

    __slots__ = ()

    def add(self, watcher: W) -> None:
        """Have one more wait; of two with the same call the first alone can be taken back."""
        if watcher.call in self:
            watcher.call = None
        self[key_of(watcher)] = watcher

    def remove(self, watcher: W) -> None:
        """Forget someone who waits no longer."""
        self.pop(key_of(watcher), None)

    def take_due(self, now: float) -> list[W]:
        """Give those whose deadline has passed, and forget them."""
        due = [watcher for watcher in self.values() if watcher.waiter.deadline <= now]
        for watcher in due:
            self.remove(watcher)
        return due

    def deadline(self) -> float:
        """Give the first deadline of all; infinity when nobody waits."""
        return first_deadline(watcher.waiter for watcher in self.values())


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
            self.fail(error)
        except asyncio.InvalidStateError:
            pass  # It was cancelled just now, by Ctrl-C: a signal's handler may run between any two steps.

    def fail(self, error: QuorateError) -> None:
        """Fail the future, unless it is resolved or was cancelled."""
        with contextlib.suppress(asyncio.InvalidStateError):
            self.future.set_exception(error)
