"""Faults planted in events and timers, each of which the simulator must catch, and what it calls them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from quorate.recent import Recent
from quorate.tables import Tables, frozen
from quorate.testing.simulation import Simulation
from quorate.testing.telling import TellingKV
from quorate.testing.workload import KVWorkload
from quorate.timers import Timers, TimerTable
from quorate.watching import Watch

from .searching import first_failure, invariant_of, usual_world

Plant = Callable[[pytest.MonkeyPatch], None]


def run(seed: int) -> str | None:
    return Simulation(seed, KVWorkload(16, TellingKV)).run().failure


def events_twice_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Watch._take

    def forgetful(self, answer):
        place = self._place
        take(self, answer)
        if answer.events and answer.events[0].index % 7 == 0:
            self._place = place

    monkeypatch.setattr(Watch, "_take", forgetful)


def events_lost_at_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that was given a snapshot believes that nothing was emitted before it."""
    restart = Recent.restart

    def silent(self, applied):
        restart(self, applied)
        self.first = (1, 0)

    monkeypatch.setattr(Recent, "restart", silent)


def timers_left_out_of_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.apply.frozen", lambda tables, chunks: frozen(Tables(tables.sessions), chunks))


def timers_by_a_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pop, ticks = Timers.pop, itertools.count()
    monkeypatch.setattr(Timers, "pop", lambda self, now: pop(self, now - next(ticks) % 3 * 0.05))


def timers_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then a timer stays though it was run."""
    pop, count = Timers.pop, itertools.count(1)

    def repeating(self, now):
        found = pop(self, now)
        if found is not None and next(count) % 5 == 0:
            self.set(now + 0.01, found[1], now)
        return found

    monkeypatch.setattr(Timers, "pop", repeating)


def ids_of_another_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count(1)
    made = Timers.set

    def confused(self, when, call, now):
        self.table.made += next(count) % 2
        return made(self, when, call, now)

    monkeypatch.setattr(Timers, "set", confused)


PLANTED: list[tuple[Plant, set[str]]] = [
    (events_twice_after_a_resume, {"EventsOnce"}),
    (timers_left_out_of_the_snapshot, {"MachinesEqual"}),
    (timers_by_a_local_clock, {"MachinesEqual", "EventsOnce"}),
    (timers_run_again, {"MachinesEqual", "EventsOnce"}),
    (ids_of_another_peer, {"MachinesEqual"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch, plant: Plant, expected: set[str]) -> None:
    plant(monkeypatch)
    failure = next(filter(None, map(run, range(60))), "nothing was violated")
    assert failure.split(":")[0] in expected, failure


@pytest.mark.slow
def test_events_lost_at_a_snapshot_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few seeds have a peer that was given a snapshot and is then asked for what was before it; here many have."""
    events_lost_at_a_snapshot(monkeypatch)

    settings = {"snapshot_entries": 5, "trailing_entries": 0}
    world_of = usual_world(settings=settings, span=2.0, size=3, clients=2, pause=0.05, tells=True)
    failure = first_failure(range(40), lambda: KVWorkload(16, TellingKV), world_of)
    assert invariant_of(failure) in {"EventsOnce", "EventsArrive"}


def test_without_a_fault_nothing_is_found() -> None:
    assert [run(seed) for seed in range(6)] == [None] * 6


def test_a_leader_that_is_about_to_leave_writes_nothing_for_the_sake_of_time() -> None:
    """Seed 29: it may propose nothing any more, and stopped when its first timer was due."""
    assert run(29) is None


def test_the_table_of_timers_is_a_part_of_what_is_compared() -> None:
    assert Tables().timers == TimerTable()
