"""Exactly once, on virtual time: a few thousand of the writes of which ``make once`` makes a million; it can fail."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from quorate import OutcomeUnknown, Unavailable, sessions
from quorate.sessions import is_over
from quorate.testing.history.operations import Recorder
from quorate.testing.invariants import History
from quorate.testing.once import REPLY_LOSS, Ledger, broken, run_seed
from tests.simulation.test_planted_sessions import (
    a_write_applied_at_each_try,
    numbers_of_all_clients_in_one_table,
    sessions_left_out_of_the_snapshot,
)

SEEDS = ((1, 30.0), (6, 30.0), (5, 200.0))
"""Seeds and virtual seconds: two in which much is written, and one whose clients sleep longer than sessions last."""


@pytest.mark.covers("pitfall 67", "pitfall 79", "pitfall 80")
def test_each_write_takes_effect_once_though_a_fifth_of_the_replies_is_lost():
    total = Counter[str]()
    for seed, span in SEEDS:
        outcome = run_seed(seed, span)
        assert outcome.failure is None, outcome.failure
        total.update(outcome.counts)
    assert total["answered"] > 3000
    assert abs(total["replies lost"] / total["replies sent"] - REPLY_LOSS) < 0.1
    hard = "writes that came to the log again", "sessions expired", "leader changes", "snapshots installed", "in doubt"
    assert min(total[word] for word in hard) > 0, total
    assert total["took effect"] - total["answered"] <= total["in doubt"] < total["writes"] / 10


# The check.


def recorded(*calls: tuple[int, int, object]) -> Recorder:
    """Record writes: client, number, and what it was answered; an error for one that raised."""
    recorder = Recorder(itertools.count().__next__)
    for client, number, reply in calls:
        made = recorder.invoke(client, Ledger.add, number)
        if isinstance(reply, Exception):
            recorder.raised(made, reply)
        else:
            recorder.ok(made, reply)
    return recorder


UNAVAILABLE, UNKNOWN = Unavailable("…"), OutcomeUnknown("…")


@pytest.mark.parametrize(
    ("entries", "calls", "said"),
    [
        ([1, 2], [(1, 1, 1), (1, 2, 2)], None),
        ([1, 3], [(1, 1, 1), (1, 2, UNKNOWN), (1, 3, UNKNOWN), (1, 4, UNAVAILABLE)], None),
        ([2, 1], [(1, 1, 2), (2, 2, 1)], None),
        ([1, 2, 1], [(1, 1, 1), (1, 2, 2)], "write 1 took effect twice: at place 1 and at place 3"),
        ([2], [(1, 1, 1), (1, 2, 1)], "write 1 was answered, and never took effect"),
        ([1, 2], [(1, 1, 1), (1, 2, 3)], "write 2 took effect at place 2, and the reply says 3"),
        ([1], [(1, 1, UNAVAILABLE)], "write 1 took effect at place 1, and its caller was told that it did not happen"),
        ([2, 1], [(1, 1, 2), (1, 2, 1)], "write 2 took effect before an earlier one of client 1"),
        ([2, 1], [(1, 1, UNKNOWN), (1, 2, 1)], "write 2 took effect before an earlier one of client 1"),
        ([1, 7], [(1, 1, 1)], "write 7 took effect, and nobody made it"),
    ],
)
def test_what_is_not_exactly_once_is_told(entries, calls, said):
    assert broken(entries, recorded(*calls).operations()) == said


# Faults. The simulator sees each of them before the run has ended: so here it is blind, and only what stands in the
# machine at the end, and what the callers were told, can tell.


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the simulator compare no machines, and hold no call against the log."""
    monkeypatch.setattr(History, "compare_machine", lambda self, name, apply: None)
    monkeypatch.setattr(History, "replayed", lambda self, machine: b"")
    monkeypatch.setattr(History, "acknowledged", lambda self, command: 0)
    monkeypatch.setattr(History, "refused", lambda self, command, error: None)
    monkeypatch.setattr("quorate.testing.simulation.machine_state", lambda machine: b"")


def expiry_by_a_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each peer asks its own clock, here one that jumps ahead now and then."""
    ticks = itertools.count(1)
    monkeypatch.setattr(sessions, "is_over", lambda session, now: next(ticks) % 60 == 0 or is_over(session, now))


PLANTED = [
    sessions_left_out_of_the_snapshot,
    numbers_of_all_clients_in_one_table,
    expiry_by_a_local_clock,
    a_write_applied_at_each_try,
]


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED, ids=[plant.__name__ for plant in PLANTED])
def test_planted_fault_is_caught(monkeypatch, blind, plant):
    plant(monkeypatch)
    outcomes = (run_seed(seed, 15.0) for seed in range(10))
    failure = next((outcome.failure for outcome in outcomes if outcome.failure), "nothing was violated")
    assert failure.startswith("ExactlyOnce: "), failure
