"""How a peer stands: its role and term, who leads, and who the members are; and those who wait until that changes.

Nothing is kept of what was: whoever waits names what is known by a mark, and is told what is now as soon as that is
something else. Knows the core as a value to look at; knows no sockets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable

import msgspec

from quorate.core import Raft
from quorate.core.state import ROLE_NAMES
from quorate.errors import Overloaded, QuorateError, Stopped
from quorate.transport.calls import StandingIs
from quorate.types import Status
from quorate.waiters import Waiter, Watchers

STANDING_WATCHERS_MAX = 10_000
"""The most who may wait at one peer: each costs some hundred bytes."""


class StandingWatcher(msgspec.Struct, eq=False):
    """Someone who waits until a peer stands otherwise.

    Attributes:
        waiter: who waits; resolved with ``StandingIs``.
        mark: stands for what is known; empty when that is nothing.
        call: see ``Watching``.
    """

    waiter: Waiter
    mark: bytes
    call: Hashable = None


class Standing:
    """How one peer stands, and who waits for a change of it."""

    def __init__(self, raft: Raft, status: Callable[[], Status]) -> None:
        """Look at a core; ``status`` gives what those are told who wait."""
        self._raft = raft
        self._status = status
        self._watchers: Watchers[StandingWatcher] = Watchers()
        self._seen: object = None
        self._mark = b""

    def add(self, watcher: StandingWatcher) -> None:
        """Tell someone how the peer stands: now, or as soon as it stands otherwise than is known."""
        self._compare()
        if watcher.mark != self._mark:
            watcher.waiter.succeed(StandingIs(self._mark, self._status()))
        elif len(self._watchers) >= STANDING_WATCHERS_MAX:
            watcher.waiter.fail(Overloaded(f"{STANDING_WATCHERS_MAX} wait for changes of this peer already"))
        else:
            self._watchers.add(watcher)

    def remove(self, watcher: StandingWatcher) -> None:
        """Forget someone who waits no longer."""
        self._watchers.remove(watcher)

    def cancel(self, call: Hashable) -> None:
        """Forget who waits by a call, if anybody does."""
        self._watchers.pop(call, None)

    def look(self) -> None:
        """Tell all who wait, if the peer stands otherwise than it did: called once in each turn."""
        if self._watchers:
            self._compare()

    def expire(self, now: float) -> None:
        """Answer those whose deadline has passed: it is as it was."""
        for watcher in self._watchers.take_due(now):
            watcher.waiter.succeed(StandingIs(self._mark, self._status()))

    def deadline(self) -> float:
        """Give the first deadline of those who wait; infinity when nobody does."""
        return self._watchers.deadline()

    def stop(self, failure: QuorateError) -> None:
        """Tell all who wait that this peer has stopped, and why."""
        watchers, self._watchers = self._watchers, Watchers()
        for watcher in watchers.values():
            watcher.waiter.fail(Stopped(str(failure)))

    def _compare(self) -> None:
        """Look at the core; if it is not as it was, tell all who wait, for all of them know what was."""
        state = self._raft.state
        seen = type(state.role), state.term, state.leader, state.configuration
        if seen == self._seen:
            return
        self._seen = seen
        self._mark = mark_of((state.peer, ROLE_NAMES[type(state.role)], *seen[1:]))
        watchers, self._watchers = self._watchers, Watchers()
        if watchers:
            answer = StandingIs(self._mark, self._status())
            for watcher in watchers.values():
                watcher.waiter.succeed(answer)


def mark_of(standing: tuple[object, ...]) -> bytes:
    """Give a short mark of how a peer stands: the same in every process, so that it holds over reconnects."""
    return hashlib.blake2b(msgspec.msgpack.encode(standing), digest_size=16).digest()


def as_stopped(status: Status, why: str) -> Status:
    """Say of a peer what it knew when it stopped, and that it leads nobody any longer."""
    status = msgspec.structs.replace(status, why=f"it has stopped: {why}")
    return msgspec.structs.replace(status, role="follower", leader=None) if status.role == "leader" else status
