"""What clients saw of a group: which calls they made, when, and how each ended.

A ``Recorder`` notes it on any clock, virtual or real, and the list of ``Operation`` it gives is what
``linearizability.py`` judges. Knows no nodes, and nothing of what the calls mean.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from quorate.errors import MachineError, NotCommitted, NotLeader, Overloaded, Rejected, Stopped, Unavailable
from quorate.machine import ReadMethod, WriteMethod

CERTAINLY_NOT = (NotLeader, Overloaded, Stopped, NotCommitted, Unavailable)
"""What says of a write that it did not happen, and never will."""

Fate = Literal["ok", "failed", "unknown"]
"""It ran, and was answered / it certainly did not happen / it may have, or still may."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client, from its beginning to its end.

    Attributes:
        client: who called; only for people. One client may have several calls under way.
        method: ``KV.set``, or a ``Command`` or ``Query`` that carries its arguments itself.
        args: its arguments, by position.
        called: when the call began, in nanoseconds on a clock that all clients share and that never goes back.
        returned: when it ended, on the same clock. Invariant: not before ``called``; None exactly if the fate is
            unknown: such a call may take effect at any time after it began, or never.
        fate: how it ended.
        output: what was answered if the fate is ok: the reply, or the ``Rejected`` or ``MachineError`` with which the
            machine answered; else None.
    """

    client: int
    method: Any
    args: tuple[Any, ...] = ()
    called: int
    returned: int | None
    fate: Fate
    output: Any = None

    def __post_init__(self) -> None:
        """Check what would make a history meaningless.

        Raises:
            ValueError: it ends before it begins, or has an end with an unknown fate, or none with a known one.
        """
        if (self.returned is None) != (self.fate == "unknown"):
            raise ValueError(f"{self.call}, {self.fate}, returned at {self.returned}: only an unknown fate has no end")
        if self.returned is not None and self.returned < self.called:
            raise ValueError(f"{self.call} returned at {self.returned}, before it was called at {self.called}")

    @property
    def call(self) -> str:
        """The call as a person would write it, long values cut short."""
        name = self.method.name if isinstance(self.method, (WriteMethod, ReadMethod)) else None
        return f"{name}({', '.join(map(shorten, self.args))})" if name is not None else shorten(self.method)

    def __str__(self) -> str:
        """Give the call and how it ended."""
        ending = answer(self.output) if self.fate == "ok" else "?" if self.fate == "unknown" else "did not happen"
        return f"{self.call} -> {ending}"


class Recorder:
    """Notes what clients see, while they see it.

    ::

        recorder = Recorder()
        number = recorder.invoke(1, KV.set, "a", "1")
        try:
            recorder.ok(number, await kv.write(KV.set, "a", "1"))
        except BaseException as error:
            recorder.raised(number, error)
            raise

    Several threads may use one if its clock is one they share, as ``time.monotonic_ns`` is.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Begin empty; ``clock`` gives nanoseconds and never goes back."""
        self._clock = clock
        self._operations: dict[int, Operation] = {}
        self._numbers = itertools.count()

    def invoke(self, client: int, method: object, *args: object) -> int:
        """Note that a call is about to begin; before anything of it leaves the client.

        Args:
            client: who calls.
            method: a method of the machine, or a ``Command`` or ``Query``.
            args: its arguments.

        Returns:
            The number by which to say how it ended. One that never ends is of unknown fate.
        """
        number = next(self._numbers)
        self._operations[number] = Operation(
            client=client, method=method, args=args, called=self._clock(), returned=None, fate="unknown"
        )
        return number

    def ok(self, number: int, output: object) -> None:
        """Note the reply of a call, or the ``Rejected`` or ``MachineError`` with which the machine answered.

        Raises:
            ValueError: the call has ended before.
        """
        self._end(number, "ok", output)

    def fail(self, number: int) -> None:
        """Note that a call certainly did not happen, and never will.

        Raises:
            ValueError: the call has ended before.
        """
        self._end(number, "failed", None)

    def unknown(self, number: int) -> None:
        """Note that nobody will learn what became of a call: as if it had never ended.

        Raises:
            ValueError: the call has ended before.
        """
        if self._operations[number].returned is not None:
            raise ValueError(f"call {number} has ended: {self._operations[number]}")

    def raised(self, number: int, error: BaseException) -> None:
        """Note that a call of quorate raised: what the machine said is its answer, and some errors say "no".

        All else, a cancelled call among it, is of unknown fate.

        Raises:
            ValueError: the call has ended before.
        """
        if isinstance(error, (Rejected, MachineError)):
            self.ok(number, error)
        elif isinstance(error, CERTAINLY_NOT):
            self.fail(number)
        else:
            self.unknown(number)

    def operations(self) -> list[Operation]:
        """Give all calls so far, in the order in which they began."""
        return [self._operations[number] for number in sorted(self._operations)]

    def _end(self, number: int, fate: Fate, output: object) -> None:
        """Note an end.

        Raises:
            ValueError: the call has ended before.
        """
        self.unknown(number)
        begun = self._operations[number]
        self._operations[number] = msgspec.structs.replace(begun, returned=self._clock(), fate=fate, output=output)


def answer(output: object) -> str:
    """Give an answer as a person would write it, cut short."""
    return f"{type(output).__name__}({output})"[:40] if isinstance(output, Exception) else shorten(output)


def shorten(value: object) -> str:
    """Give a value as Python shows it, at most 24 characters of it."""
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:12]}…{text[-11:]}"
