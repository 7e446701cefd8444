"""The simulator takes any machine: replies of ``None``, sets, machines that only read; and finds what differs."""

from __future__ import annotations

import functools

import pytest

from quorate import StateMachine, read, write
from quorate.testing import SimulationFailure, random_calls, simulate
from tests.plugin.machines import Seats


class Silent(Seats):
    @write
    def take(self, seat: int, guest: str) -> None:
        self.taken[seat] = guest


class Free(StateMachine):
    seats: set[int]

    def __init__(self) -> None:
        self.seats = set()

    @write
    def add(self, seat: int) -> None:
        self.seats.add(seat)

    @write
    def remove(self, seat: int) -> None:
        self.seats.discard(seat)

    @read
    def is_free(self, seat: int) -> bool:
        return seat in self.seats


def test_a_reply_of_none_is_an_answer() -> None:
    (report,) = simulate(Silent, seeds=[0])
    assert report.outcomes["ok"] > report.outcomes.get("cancelled", 0)


def test_equal_sets_in_different_orders_are_equal() -> None:
    simulate(Free, random_calls(Free, seat=range(0, 800, 8)), seeds=range(2))


BIRTHS = iter(range(10**6))


class Numbered(Silent):
    number: int

    def __init__(self) -> None:
        super().__init__()
        self.number = next(BIRTHS)


def test_machines_that_differ_are_found() -> None:
    with pytest.raises(SimulationFailure, match="MachinesEqual"):
        simulate(Numbered, seeds=range(2))


class Hushed(StateMachine):
    """Keeps its state under a name with an underscore, and begins with defaults of the class."""

    said: int = 0
    last: str | None = None
    _births: int

    def __init__(self) -> None:
        self._births = 0

    @write
    def say(self, word: str) -> int:
        if word > "c":
            self.last = word
            self.said += 1
        return self.said

    @functools.cached_property
    def birthplace(self) -> str:
        return "here"

    @read
    def where(self) -> str:
        return self.birthplace


class HushedAndNumbered(Hushed):
    def __init__(self) -> None:
        self._births = next(BIRTHS)


def test_a_machine_is_its_state_wherever_that_is_held() -> None:
    simulate(Hushed, seeds=range(8))
    with pytest.raises(SimulationFailure, match="MachinesEqual"):
        simulate(HushedAndNumbered, seeds=range(2))
