"""Virtual time: an event loop that never sleeps, and the clock of one simulated process.

Time jumps from one call to the next, so hours pass in seconds and every run is the same. Knows no threads and no
sockets; what happens at one instant happens in the order in which it was scheduled.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


class Stalled(Exception):
    """Everyone waits, and nothing is scheduled that could end it."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop on virtual time, which begins at 0.0.

    ``BaseEventLoop`` gives tasks, futures and ``run_until_complete``; what it would ask a selector for, this one
    knows: nothing comes from outside, so when nothing is ready the clock moves on to the first timer.
    """

    def __init__(self) -> None:
        """Begin at time 0.0 with nothing to do."""
        super().__init__()
        self._now = 0.0
        self._soon: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Give virtual time, seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call after what is ready already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at an instant; one in the past is now."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _run_once(self) -> None:
        """Run what is ready; when nothing is, move on to the first timer.

        Raises:
            Stalled: there is none.
        """
        soon = self._soon
        if not soon:
            while True:
                if not self._timers:
                    raise Stalled(f"at {self._now:.3f} s nothing is scheduled")
                when, _, timer = heapq.heappop(self._timers)
                if not timer.cancelled():
                    break
            self._now = max(self._now, when)
            soon.append(timer)
        for _ in range(len(soon)):
            handle = soon.popleft()
            if not handle.cancelled():
                handle._run()

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread that could have to wake this one."""


class Call:
    """A call that a process scheduled; see ``quorate.loop.Handle``."""

    __slots__ = ("callback", "when")

    def __init__(self, callback: Callable[[], object], when: float) -> None:
        """Remember what to call, and at which instant of the process's clock; 0.0 for as soon as may be."""
        self.callback: Callable[[], object] | None = callback
        self.when: float = when

    def cancel(self) -> None:
        """Take it back."""
        self.callback = None


class ProcessClock:
    """The monotonic clock of one process, which can be paused and killed; a ``quorate.loop.Clock``.

    Attributes:
        is_paused: whether everything that becomes due is held until ``resume``.
        is_dead: whether everything is dropped.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float = 1.0) -> None:
        """Begin with a clock that runs ``rate`` times as fast as virtual time."""
        self.is_paused: bool = False
        self.is_dead: bool = False
        self._loop = loop
        self._rate = rate
        self._reached = 0.0
        self._held: list[Call] = []

    def time(self) -> float:
        """Give the process's monotonic clock, seconds; never before the instant of a call that it has made."""
        self._reached = max(self._reached, self._loop.time() * self._rate)
        return self._reached

    def call_soon(self, callback: Callable[[], object], /) -> Call:
        """Call when what is under way has finished."""
        call = Call(callback, 0.0)
        self._loop.call_soon(self._run, call)
        return call

    def call_at(self, when: float, callback: Callable[[], object], /) -> Call:
        """Call at that instant of ``time``."""
        call = Call(callback, when)
        self._loop.call_at(when / self._rate, self._run, call)
        return call

    def pause(self) -> None:
        """Hold everything from now on, as SIGSTOP does."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on: what was held comes first, in its order."""
        self.is_paused = False
        held, self._held = self._held, []
        for call in held:
            self._loop.call_soon(self._run, call)

    def kill(self) -> None:
        """Drop everything, now and later, as SIGKILL does."""
        self.is_dead = True
        self._held.clear()

    def _run(self, call: Call) -> None:
        """Make a call, unless the process is paused or dead."""
        if self.is_dead or call.callback is None:
            return
        if self.is_paused:
            self._held.append(call)
            return
        self._reached = max(self._reached, call.when)
        call.callback()
