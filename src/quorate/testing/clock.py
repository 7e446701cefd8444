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
from contextvars import Context, copy_context
from typing import Protocol, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


CALLS_MAX = 100_000
"""More calls than this at one instant are taken for a loop that never ends."""


class Stalled(Exception):
    """Everyone waits, and nothing is scheduled that could end it; or time stands, and calls go on and on."""


class Due(Protocol):
    """What a ``VirtualLoop`` does when its turn has come."""

    def cancelled(self) -> bool:
        """Tell whether it is not to be done after all."""
        ...

    def run(self) -> None:
        """Do it, unless it was taken back."""
        ...


class Timer(asyncio.TimerHandle):
    """A call that was scheduled; as light as may be, for a run makes some of them at each of its steps."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> None:
        """Remember what to call; the class it is made from would ask the loop whether to remember by whom."""
        self._when = when
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def __repr__(self) -> str:
        """Name what is called."""
        return f"<call of {self._callback!r} at {self._when:.3f} s>"

    def cancel(self) -> None:
        """Take it back."""
        self._cancelled = True

    def run(self) -> None:
        """Make the call, unless it was taken back."""
        if not self._cancelled:
            self._context.run(self._callback, *self._args)


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop on virtual time, which begins at 0.0.

    ``BaseEventLoop`` gives tasks, futures and ``run_until_complete``; what it would ask a selector for, this one
    knows: nothing comes from outside, so when nothing is ready the clock moves on to the first timer.
    """

    def __init__(self) -> None:
        """Begin at time 0.0 with nothing to do."""
        super().__init__()
        self._now = 0.0
        self._soon: deque[Due] = deque()
        self._timers: list[tuple[float, int, Due]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Give virtual time, seconds."""
        return self._now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call after what is ready already."""
        handle = Timer(self._now, callback, args, context)
        self._soon.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at an instant; one in the past is now."""
        handle = Timer(when, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call after so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def add(self, due: Due, when: float | None = None) -> None:
        """Have something done at an instant, or after what is ready already."""
        if when is None:
            self._soon.append(due)
        else:
            heapq.heappush(self._timers, (when, next(self._order), due))

    def _run_once(self) -> None:
        """Run what is ready, and move on to the next timer when nothing is, until somebody stops the loop.

        Raises:
            Stalled: nothing is ready, and there is no timer; or there are calls without end at one instant.
        """
        soon, timers, calls = self._soon, self._timers, 0
        while not self._stopping:  # type: ignore[attr-defined]
            if soon:
                due = soon.popleft()
            elif timers:
                when, _, due = heapq.heappop(timers)
                if due.cancelled():
                    continue  # Nothing happens at that instant.
                if when > self._now:
                    self._now, calls = when, 0
            else:
                raise Stalled(f"at {self._now:.3f} s nothing is scheduled")
            calls += 1
            if calls > CALLS_MAX:
                raise Stalled(f"at {self._now:.3f} s there are calls without end")
            try:
                due.run()
            except Exception as error:  # as asyncio does: what one call raises ends no other
                self.call_exception_handler({"message": f"{due!r} raised", "exception": error})

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread that could have to wake this one."""


class Call:
    """A call that a process scheduled; see ``quorate.loop.Handle``."""

    __slots__ = ("_clock", "callback", "when")

    def __init__(self, clock: ProcessClock, callback: Callable[[], object], when: float) -> None:
        """Remember what to call, and at which instant of the process's clock; 0.0 for as soon as may be."""
        self._clock = clock
        self.callback: Callable[[], object] | None = callback
        self.when: float = when

    def cancel(self) -> None:
        """Take it back."""
        self.callback = None

    def cancelled(self) -> bool:
        """Tell whether it was taken back."""
        return self.callback is None

    def run(self) -> None:
        """Make the call, unless it was taken back, or the process is paused or dead."""
        clock, callback = self._clock, self.callback
        if clock.is_dead or callback is None:
            return
        if clock.is_paused:
            clock.hold(self)
        else:
            clock.reach(self.when)
            callback()


class ProcessClock:
    """The monotonic clock of one process, which can be paused and killed; a ``quorate.loop.Clock``.

    Attributes:
        is_paused: whether everything that becomes due is held until ``resume``.
        is_dead: whether everything is dropped.
    """

    def __init__(self, loop: VirtualLoop, rate: float = 1.0) -> None:
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
        call = Call(self, callback, 0.0)
        self._loop.add(call)
        return call

    def call_at(self, when: float, callback: Callable[[], object], /) -> Call:
        """Call at that instant of ``time``."""
        call = Call(self, callback, when)
        self._loop.add(call, when / self._rate)
        return call

    def pause(self) -> None:
        """Hold everything from now on, as SIGSTOP does."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on: what was held comes first, in its order."""
        self.is_paused = False
        held, self._held = self._held, []
        for call in held:
            self._loop.add(call)

    def kill(self) -> None:
        """Drop everything, now and later, as SIGKILL does."""
        self.is_dead = True
        self._held.clear()

    def hold(self, call: Call) -> None:
        """Keep a call that has become due until ``resume``."""
        self._held.append(call)

    def reach(self, when: float) -> None:
        """Show ``when`` at least from now on: its call is made."""
        self._reached = max(self._reached, when)
