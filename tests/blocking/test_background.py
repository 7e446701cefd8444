"""The loop in the background: one wake-up for many calls, interruptions at any instant, one end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from quorate.blocking.background import Background, Life, LoopThread
from quorate.errors import OutcomeUnknown, QuorateError, Stopped, Unavailable


class Called:
    """What is called in the background: notes what happens to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.going = threading.Event()
        self.cancelled = threading.Event()

    async def echo(self, word: str) -> str:
        self.seen.append(word)
        return word

    async def fail(self) -> None:
        raise Unavailable("nobody is there")

    async def hang(self, seconds: float = 60.0) -> None:
        self.going.set()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            self.cancelled.set()
            raise

    async def close(self) -> None:
        self.seen.append("closed")


@pytest.fixture
def called() -> Called:
    return Called()


def make(called: Called) -> Background:
    return Background(called.close, lambda: Stopped("it has ended"), lambda: None)


@pytest.fixture
def background(called: Called) -> Iterator[Background]:
    background = make(called)
    yield background
    background.stop()


def life_of(background: Background) -> Life:
    return background._lives[os.getpid()]


def in_threads(count: int, function) -> list[threading.Thread]:
    threads = [threading.Thread(target=function, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_nothing_begins_before_the_first_call(called):
    before = threading.active_count()
    background = make(called)
    assert background.look(lambda: threading.current_thread()) is threading.main_thread()
    background.stop()
    assert threading.active_count() == before
    assert called.seen == []


def test_results_and_errors_come_back(background, called):
    assert background.call(called.echo, "a") == "a"
    with pytest.raises(Unavailable, match="nobody is there"):
        background.call(called.fail)
    assert background.look(lambda: threading.current_thread().name) == "quorate-blocking"


def test_calls_of_many_threads_wake_the_loop_once(background, called, monkeypatch):
    background.call(called.echo, "first")
    life = life_of(background)
    loop, wakes = life.loop, []
    assert loop is not None
    free, held = threading.Event(), threading.Event()
    loop.call_soon_threadsafe(lambda: (held.set(), free.wait()))  # the loop is busy with something else
    assert held.wait(10)
    real = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args, **kwargs: (wakes.append(1), real(*args, **kwargs)))
    threads = in_threads(50, lambda number: background.call(called.echo, str(number)))
    while len(life._inbox) < 50:
        pass
    free.set()
    for thread in threads:
        thread.join()
    assert len(wakes) < 5  # Two that come in the same instant may both do it.
    assert sorted(called.seen[1:], key=int) == [str(number) for number in range(50)]


def test_a_call_from_the_loop_s_own_thread_raises_at_once(background, called):
    async def wait_for_myself() -> str:
        return background.call(called.echo, "never")

    with pytest.raises(RuntimeError, match="its own event loop"):
        background.call(wait_for_myself)
    with pytest.raises(RuntimeError, match="its own event loop"):
        background.look(background.stop)
    assert called.seen == []


def test_a_call_from_the_thread_of_another_background_raises_too(background, called):
    """Two of one process: what the other's loop waits for may well be what this one should do."""
    other = make(Called())

    async def cross() -> str:
        return background.call(called.echo, "never")

    with pytest.raises(RuntimeError, match="its own event loop"):
        other.call(cross)
    other.stop()


async def test_it_may_be_called_where_another_loop_runs(called):
    background = make(called)
    assert background.call(called.echo, "a") == "a"
    background.stop()


def interrupt(called: Called) -> threading.Thread:
    """Press Ctrl-C once a call hangs; once more if that comes in the moment before the interpreter waits for a lock.

    Python looks for signals between two of its steps: one that comes after the last look interrupts no wait.
    """

    def press() -> None:
        called.going.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        if not called.cancelled.wait(10):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_call_is_cancelled_and_the_next_one_works(background, called):
    thread = interrupt(called)
    with pytest.raises(KeyboardInterrupt):
        background.call(called.hang)
    thread.join()
    assert called.seen == ["cancelled"]
    assert background.call(called.echo, "a") == "a"


@pytest.mark.parametrize("place", ["before it is handed over", "before the loop is woken", "after that"])
def test_an_interruption_anywhere_leaves_nothing_stuck(background, called, monkeypatch, place):
    background.call(called.echo, "a")
    life = life_of(background)
    real_hand_over, real_wake = life.hand_over, life._wake

    def hand_over(call) -> None:
        monkeypatch.undo()
        if place == "before the loop is woken":
            monkeypatch.setattr(life, "_wake", lambda *_: None)
        if place != "before it is handed over":
            real_hand_over(call)
        life._wake = real_wake
        raise KeyboardInterrupt

    monkeypatch.setattr(life, "hand_over", hand_over)
    with pytest.raises(KeyboardInterrupt):
        background.call(called.hang)
    assert background.call(called.echo, "b") == "b"
    assert [word for word in called.seen if word != "cancelled"] == ["a", "b"]


class Interrupting:
    """Stands for the lock that a thread waits for: each of some waits is interrupted, before or when it has ended."""

    def __init__(self, lock: threading.Lock, *interruptions: str) -> None:
        self.lock = lock
        self.interruptions = list(interruptions)
        self.waits = 0

    def acquire(self, timeout: float = -1) -> bool:
        self.waits += 1
        place = self.interruptions.pop(0) if self.interruptions else ""
        acquired = place != "before" and self.lock.acquire(timeout=timeout)
        if place:
            raise KeyboardInterrupt
        return acquired

    def release(self) -> None:
        self.lock.release()

    def locked(self) -> bool:
        return self.lock.locked()


def lock_of_next_call(life: Life, monkeypatch: pytest.MonkeyPatch, *interruptions: str) -> list[Interrupting]:
    """Have the waits for the next call interrupted; give its lock, once there is one."""
    real, locks = life.hand_over, list[Interrupting]()

    def hand_over(call) -> None:
        monkeypatch.undo()
        call.done = Interrupting(call.done, *interruptions)
        locks.append(call.done)
        real(call)

    monkeypatch.setattr(life, "hand_over", hand_over)
    return locks


def test_who_is_interrupted_once_more_leaves_when_the_call_has_ended(background, called, monkeypatch):
    """Else the next call meets the one that was left: a watch would say that another thread waits for it."""
    background.call(called.echo, "a")
    locks = lock_of_next_call(life_of(background), monkeypatch, "before", "before")
    with pytest.raises(KeyboardInterrupt):
        background.call(called.hang)
    assert called.seen == ["a", "cancelled"]
    assert locks[0].waits >= 2


def test_who_is_interrupted_as_the_call_ends_waits_for_it_no_longer(background, called, monkeypatch):
    background.call(called.echo, "a")
    locks = lock_of_next_call(life_of(background), monkeypatch, "after")
    with pytest.raises(KeyboardInterrupt):
        background.call(called.echo, "b")
    assert (called.seen, locks[0].waits) == (["a", "b"], 1)


def signal_once(monkeypatch: pytest.MonkeyPatch, life: Life, place: str) -> None:
    """Have a signal come in the midst of the next call's being handed over."""

    class Inbox(deque):
        def append(self, call) -> None:
            super().append(call)
            life._inbox = deque(self)
            signal.raise_signal(signal.SIGUSR1)

    def wake(*args) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)
        life._wake(*args)

    if place == "put there":
        life._inbox = Inbox()
    else:
        monkeypatch.setattr(life, "_wake", wake)


@contextlib.contextmanager
def handled_by(function) -> Iterator[None]:
    """Have SIGUSR1 handled while a test runs."""
    before = signal.signal(signal.SIGUSR1, lambda *_: function())
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("place", ["put there", "about to wake"])
def test_a_signal_handler_may_call_while_a_call_is_handed_over(background, called, monkeypatch, place):
    """Else both wait for ever: the handler for a loop that only the call beneath it would wake."""
    background.call(called.echo, "a")
    life = life_of(background)
    with handled_by(lambda: background.call(called.echo, "handler")):
        signal_once(monkeypatch, life, place)
        assert background.call(called.echo, "b") == "b"
    assert sorted(called.seen) == ["a", "b", "handler"]


@pytest.mark.parametrize("place", ["put there", "about to wake"])
def test_a_signal_handler_may_stop_what_is_being_stopped(called, monkeypatch, place):
    background = make(called)
    background.call(called.echo, "a")
    life = life_of(background)
    with handled_by(background.stop):
        signal_once(monkeypatch, life, place)  # in the call that closes
        background.stop()
    assert background.has_ended
    assert set(called.seen) == {"a", "closed"}
    assert life.thread is not None
    assert not life.thread.is_alive()


def test_a_call_that_does_not_end_when_all_is_closed_fails_and_may_have_happened(called, monkeypatch):
    monkeypatch.setattr("quorate.blocking.background.END_SECONDS", 0.05)
    background, errors = make(called), []

    def hang(_: int) -> None:
        try:
            background.call(called.hang)
        except QuorateError as error:
            errors.append(error)

    threads = in_threads(3, hang)
    assert called.going.wait(10)
    background.stop()
    for thread in threads:
        thread.join()
    kinds = [type(error) for error in errors]
    assert len(kinds) == 3
    assert OutcomeUnknown in kinds
    assert set(kinds) <= {OutcomeUnknown, Stopped}  # the latter: it was not handed over any longer


def test_stop_is_idempotent_from_any_thread_and_calls_after_it_fail(called):
    background = make(called)
    background.call(called.echo, "a")
    for thread in in_threads(10, lambda _: background.stop()):
        thread.join()
    background.stop()
    assert called.seen == ["a", "closed"]
    with pytest.raises(Stopped, match="it has ended"):
        background.call(called.echo, "b")


def test_a_call_that_comes_while_it_ends_fails_and_does_not_hang(called):
    background = make(called)
    background.call(called.echo, "a")

    def call_on_and_on() -> None:
        while True:
            background.call(called.echo, "late")

    life_of(background).end()
    with pytest.raises(Stopped, match="it has ended"):
        call_on_and_on()
    background.has_ended = True


def test_a_call_that_is_taken_when_the_end_has_begun_fails(called, monkeypatch):
    """The loop may take it in its last turn: a task would be cancelled there before its first step."""
    background = make(called)
    background.call(called.echo, "a")
    life = life_of(background)
    real = life._wake

    def wake(*args) -> None:
        monkeypatch.undo()
        life._is_over = True
        real(*args)
        while life._inbox:
            pass

    monkeypatch.setattr(life, "_wake", wake)
    with pytest.raises(Stopped, match="it has ended"):
        background.call(called.echo, "late")
    assert called.seen == ["a"]
    life.end()
    background.has_ended = True


@pytest.mark.parametrize("is_begun", [False, True])
def test_an_interruption_while_it_begins_takes_nothing_from_later_calls_nor_from_the_end(called, monkeypatch, is_begun):
    """Ctrl-C comes as it likes: just before the thread is there, or while that is waited for."""
    monkeypatch.setattr("quorate.blocking.background.BEGIN_SECONDS", 0.2)
    background = make(called)
    real = LoopThread.start

    def start(thread: LoopThread) -> None:
        monkeypatch.setattr(LoopThread, "start", real)
        if is_begun:
            real(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(LoopThread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        background.call(called.echo, "a")
    before = threading.active_count()
    assert background.call(called.echo, "b") == "b"
    assert threading.active_count() == before + (not is_begun)
    thread = life_of(background).thread
    assert thread is not None
    del background
    gc.collect()
    thread.join(10)
    assert called.seen == ["b", "closed"]


def test_what_is_dropped_without_a_stop_ends_by_itself(called):
    background = make(called)
    background.call(called.echo, "a")
    life = life_of(background)
    assert life.thread is not None
    del background
    gc.collect()
    life.thread.join(10)
    assert not life.thread.is_alive()
    assert called.seen == ["a", "closed"]
