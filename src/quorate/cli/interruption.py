"""A command that a signal ends: its work is cancelled once, and what it started is cleared up undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a command: Ctrl-C, a service manager, a terminal that is closed."""


class Interrupted(Exception):
    """A signal ended the command.

    Attributes:
        number: which one.
    """

    def __init__(self, number: signal.Signals) -> None:
        """Remember the signal."""
        super().__init__(number.name)
        self.number = number


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run work that the first SIGINT, SIGTERM or SIGHUP cancels.

    Raises:
        Interrupted: a signal ended it.
    """
    signals: list[signal.Signals] = []
    task = asyncio.current_task()
    assert task is not None, "this runs as a task"

    def leave(number: signal.Signals) -> None:
        signals.append(number)
        if len(signals) == 1:  # A second one must not disturb the clearing up.
            task.cancel()

    for number in ALL:
        asyncio.get_running_loop().add_signal_handler(number, leave, number)
    try:
        return await work
    except asyncio.CancelledError:
        raise Interrupted(signals[0]) from None


@contextlib.contextmanager
def as_by_keyboard() -> Iterator[None]:
    """Have each signal that ends a command raise KeyboardInterrupt inside the ``with``, unless it is ignored."""
    before = {number: signal.getsignal(number) for number in ALL}
    try:
        for number, taken in before.items():
            if taken is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, taken in before.items():
            signal.signal(number, taken)
