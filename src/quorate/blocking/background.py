"""Background: an event loop in a thread of its own, and calls to it from threads that wait.

Calls that threads make at the same time go over together, with one wake-up. Knows threads and tasks; does not know what
is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from quorate.errors import OutcomeUnknown, QuorateError

P = ParamSpec("P")
R = TypeVar("R")

BEGIN_SECONDS = 2.0
"""How long the thread of a loop may take to run once whoever begins it was interrupted."""

END_SECONDS = 2.0
"""How long calls that are under way may take to end once what they call has been closed."""


class LoopThread(threading.Thread):
    """The thread of a background loop: whatever runs in it must not wait for such a loop."""


class Call:
    """One call on its way: made by a thread that waits, carried out by the loop.

    Attributes:
        make: makes the coroutine, in the loop's thread.
        task: what runs it; None until then.
        done: released once there is a result or an error.
        is_done: whether it was: who is interrupted does not know whether he has acquired it.
        result: what it returned.
        error: what it raised; None if it did not.
    """

    __slots__ = ("done", "error", "is_done", "make", "result", "task")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin unanswered."""
        self.make: Callable[[], Coroutine[Any, Any, Any]] = make
        self.task: asyncio.Task[None] | None = None
        self.done: threading.Lock = threading.Lock()
        self.done.acquire()
        self.is_done: bool = False
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Let whoever waits go on; called by the loop's thread alone."""
        if not self.is_done:
            self.is_done = True
            self.done.release()


class Life:
    """The loop in one process, from the first call to the end.

    Attributes:
        lock: held by whoever begins it.
        closing: held by whoever closes it. Reentrant, as the other one: a signal handler may interrupt him, and close.
        loop: the loop; None until it has begun.
        thread: the loop's.
    """

    def __init__(self, ended: Callable[[], QuorateError]) -> None:
        """Begin nothing yet; ``ended`` makes the error of calls that come too late."""
        self.lock: threading.RLock = threading.RLock()
        self.closing: threading.RLock = threading.RLock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: LoopThread | None = None
        self._ended = ended
        self._has_begun = threading.Event()
        self._inbox: deque[Call] = deque()
        self._waker: int | None = None
        self._is_over = False
        self._end = asyncio.Event()

    def begin(self) -> None:
        """Start the thread; with the lock held.

        Raises:
            RuntimeError: no further thread can be had.
        """
        loop = asyncio.new_event_loop()
        # A daemon, so that a program that never closes anything ends; ``finish`` closes it then.
        self.loop, self.thread = loop, LoopThread(target=self._run, args=(loop,), name="quorate-blocking", daemon=True)
        try:
            self.thread.start()
        except BaseException as error:
            # Whoever was interrupted may have been so before the thread was there: then the next call begins anew.
            if isinstance(error, RuntimeError) or not self._has_begun.wait(BEGIN_SECONDS):
                self.loop = self.thread = None
                loop.close()
            raise

    def hand_over(self, call: Call) -> None:
        """Give a call to the loop; of several threads that do, one wakes it.

        It takes no lock: what a signal handler or the garbage collector calls in the midst of this would wait for the
        loop, and the loop for the lock.

        Raises:
            QuorateError: this life has ended.
        """
        ours = threading.get_ident()
        self._inbox.append(call)
        if self._waker is None or self._waker == ours:  # The latter: this interrupts the call that is to wake it.
            self._waker = ours
            self._wake(self._receive)
        if self._is_over:
            with contextlib.suppress(ValueError):  # The loop has taken it: it will end.
                self._inbox.remove(call)
                raise self._ended()

    def leave(self, call: Call) -> None:
        """Have a call cancelled, wherever it is, and wait until it has ended, though one is interrupted once more."""
        end, is_cancelled = time.monotonic() + END_SECONDS, False
        while not call.is_done and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(BaseException):
                if not is_cancelled:
                    self._wake(self._cancel, call)
                    is_cancelled = True
                call.done.acquire(timeout=left)

    def end(self) -> None:
        """Begin no further call, and let the thread end."""
        self._wake(self._end.set)

    def _wake(self, callback: Callable[..., object], *args: object) -> None:
        """Have the loop call something; one that is closed has failed every call already."""
        assert self.loop is not None, "calls are handed over once the loop has begun"
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *args)

    # In the loop's thread.

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop until the end."""
        self._has_begun.set()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        """Wait for the end, then for what is under way, and fail what came too late."""
        await self._end.wait()
        self._is_over = True
        self._receive()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*others, return_exceptions=True)

    def _receive(self) -> None:
        """Begin the calls that were handed over, in their order; fail those that came too late."""
        self._waker = None  # First: whoever sees it still set has his call taken now.
        for call in self._take():
            if self._is_over:  # A task might be cancelled before its first step, and nobody let the caller go on.
                call.error = self._ended()
                call.finish()
            else:
                call.task = asyncio.create_task(self._carry_out(call))

    def _take(self) -> list[Call]:
        """Take the calls that were handed over."""
        calls: list[Call] = []
        with contextlib.suppress(IndexError):  # Whoever came too late took his back meanwhile.
            calls.extend(self._inbox.popleft() for _ in range(len(self._inbox)))
        return calls

    async def _carry_out(self, call: Call) -> None:
        """Carry out a call; whoever waits for it goes on at once, and not a turn of the loop later."""
        try:
            call.result = await call.make()
        except asyncio.CancelledError:
            call.error = OutcomeUnknown("the call was cut short: what it was made to was closed")
        except BaseException as error:
            call.error = error
        finally:
            call.finish()

    def _cancel(self, call: Call) -> None:
        """Cancel a call, if it has not ended.

        Those that wait are begun first: a thread that was interrupted may have left them there without waking the loop.
        """
        self._receive()
        if call.task is None:
            call.finish()
        else:
            # Later than its first step: a task that is cancelled before it never reaches what lets the caller go on.
            asyncio.get_running_loop().call_soon(call.task.cancel)


class Background:
    """An event loop in a thread of its own, for threads that wait; it begins with the first call.

    A process that was forked from this one has none of its threads: there it begins anew.
    """

    def __init__(
        self,
        close: Callable[[], Coroutine[Any, Any, None]],
        ended: Callable[[], QuorateError],
        forked: Callable[[], None],
    ) -> None:
        """Begin nothing yet.

        Args:
            close: closes what is called; the last thing that the loop does.
            ended: makes the error of calls that come after that.
            forked: called in a forked process before the loop begins there; what it raises, the call raises.
        """
        self.has_ended: bool = False
        self._close = close
        self._ended = ended
        self._forked = forked
        # Those of the processes that this one was forked from are kept: their sockets must not be closed from here.
        self._lives: dict[int, Life] = {}

    def call(self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have the loop carry out a call, and wait for what it returns or raises.

        Whoever is interrupted meanwhile (by Ctrl-C) leaves when the call has been cancelled.

        Raises:
            RuntimeError: called from the thread of such a loop, which would wait for itself.
            QuorateError: it has ended.
        """
        refuse_own_thread()
        call = Call(lambda: function(*args, **kwargs))
        life = self._life()
        try:
            life.hand_over(call)
            call.done.acquire()
        except QuorateError:
            raise
        except BaseException:
            life.leave(call)
            raise
        if call.error is None:
            result: R = call.result
            return result
        try:
            raise call.error
        finally:
            del call  # Else the error's traceback and this frame hold each other.

    def look(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain function in the loop's thread, so that nothing changes meanwhile; here, if there is none."""
        life = self._lives.get(os.getpid())
        if life is None or life.thread is None or self.has_ended or threading.current_thread() is life.thread:
            return function(*args, **kwargs)

        async def answer() -> R:
            return function(*args, **kwargs)

        return self.call(answer)

    def check_process(self) -> None:
        """Check that what is called is not that of a process from which this one was forked.

        Raises:
            QuorateError: as what ``forked`` raises.
        """
        life = self._lives.get(os.getpid())
        if self._lives and (life is None or life.thread is None):
            self._forked()

    def stop(self) -> None:
        """Close what is called, and end the thread; calls under way fail. Idempotent; begins nothing.

        Raises:
            RuntimeError: called from the thread of such a loop.
        """
        refuse_own_thread()
        life = self._lives.get(os.getpid())
        if life is None or life.thread is None:
            self.has_ended = True
            return
        with life.closing:
            if self.has_ended:
                return
            try:
                self.call(self._close)
            finally:
                self.has_ended = True
                life.end()
                life.thread.join()

    def _life(self) -> Life:
        """Give the loop of this process, begun now if need be.

        Raises:
            QuorateError: it has ended, or what is called is of no use in a forked process.
        """
        process = os.getpid()
        life = self._lives.get(process)
        if life is not None and life.thread is not None:
            return life
        if self.has_ended:
            raise self._ended()
        # Without a lock of its own, which a thread that was not forked with us might hold: this is one step.
        life = self._lives.setdefault(process, Life(self._ended))
        with life.lock:
            if life.thread is None:
                if len(self._lives) > 1:
                    self._forked()
                # At the end of the program too, if nobody has called ``stop``. First: what follows may be interrupted.
                weakref.finalize(self, finish, life, process, self._close)
                life.begin()
        return life


def refuse_own_thread() -> None:
    """Refuse to wait in the thread of a background loop.

    Raises:
        RuntimeError: this is such a thread.
    """
    if isinstance(threading.current_thread(), LoopThread):
        raise RuntimeError(
            "quorate.blocking was called from within its own event loop, such as by a state machine, and would wait for"
            " ever; there, await the names of quorate itself"
        )


def finish(life: Life, process: int, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """End a loop that nobody has a use for any longer, unless it has ended: what a program forgot to close."""
    if life.thread is None or not life.thread.is_alive() or process != os.getpid():
        return
    call = Call(close)
    with contextlib.suppress(QuorateError):
        life.hand_over(call)
        if threading.current_thread() is not life.thread:
            call.done.acquire(timeout=END_SECONDS)
    life.end()
    if threading.current_thread() is not life.thread:
        life.thread.join(END_SECONDS)
