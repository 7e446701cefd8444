"""KV that emits events and sets timers, which do not show in what it answers: so it is judged as KV is."""

from __future__ import annotations

from quorate import Event, write
from quorate.machines import KV


class Written(Event):
    key: str


class Rang(Event):
    number: int


class AlarmedKV(KV):
    emits = (Written, Rang)
    rung: list[tuple[int, float, int]]
    last: int

    def __init__(self) -> None:
        super().__init__()
        self.rung = []
        self.last = 0

    @write
    def append(self, key: str, value: str) -> str:
        self.emit(Written(key))
        if self.context.index % 3 == 0:
            self.cancel_call(self.last)
        self.last = self.call_later(self.context.index % 5 * 0.2, AlarmedKV.ring, self.context.index)
        return super().append(key, value)  # type: ignore[no-any-return]

    @write
    def ring(self, number: int) -> None:
        self.rung = [*self.rung[-50:], (number, self.context.now, self.context.index)]
        self.emit(Rang(number))
