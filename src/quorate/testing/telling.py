"""KV that emits events and sets timers, which do not show in what it answers: so clients judge it as they judge KV."""

from __future__ import annotations

from typing import ClassVar

from quorate.events import Event
from quorate.machine import write
from quorate.machines import KV

RUNG_MAX = 50
"""How many of the timers that have run are remembered."""


class Written(Event):
    """A text was appended to a key."""

    key: str


class Rang(Event):
    """A timer has run that the entry with that index had set."""

    number: int


class TellingKV(KV):
    """Each append emits an event and sets a timer; each third one takes back the timer set before it.

    Attributes:
        rung: of the timers that have run, which it was, when, and at which index.
        last: the id of the timer set last.
    """

    emits: ClassVar[tuple[type[Event], ...]] = (Written, Rang)
    rung: list[tuple[int, float, int]]
    last: int

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self.rung = []
        self.last = 0

    @write
    def append(self, key: str, value: str) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Append as KV does, and say so; ring up to 0.8 s later."""
        self.emit(Written(key))
        if self.context.index % 3 == 0:
            self.cancel_call(self.last)
        self.last = self.call_later(self.context.index % 5 * 0.2, TellingKV.ring, self.context.index)
        return super().append(key, value)

    @write
    def ring(self, number: int) -> None:
        """Note that a timer has run, and say so."""
        self.rung = [*self.rung[-RUNG_MAX:], (number, self.context.now, self.context.index)]
        self.emit(Rang(number))
