"""What fails in the simulator becomes a script of a few events, which fails the same way, and not without the fault."""

import pytest

from quorate.testing import Simulation
from quorate.testing.shrinking.cores import EVENTS_MAX, Script, shrunk_cores, violation
from quorate.testing.shrinking.minimizing import Budget, minimized
from quorate.testing.shrinking.recording import Recorder

from . import test_planted_faults as faults

ATTEMPTS_MAX = 500

# Each with a seed that it fails, and what it violates there.
CORES = {
    faults.vote_by_length_alone: (106, "LeaderCompleteness"),
    faults.half_is_a_quorum: (3, "ElectionSafety"),
    faults.acknowledgement_before_fsync: (0, "PersistBeforeSend"),
    faults.commit_beyond_what_was_compared: (3, "StateMachineSafety"),
}


def shrunk(seed: int, invariant: str) -> Script:
    simulation = Simulation(seed)
    recorder = Recorder.of(simulation)
    failure = simulation.run().failure
    assert failure is not None
    assert failure.startswith(f"{invariant}:")
    budget = Budget(lambda: False, ATTEMPTS_MAX)
    script = shrunk_cores(recorder, invariant, simulation.profile.settings, budget)
    assert script is not None
    return script


@pytest.mark.parametrize("plant", CORES, ids=lambda plant: plant.__name__)
def test_a_violation_in_the_cores_becomes_a_short_scenario(
    plant: faults.Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, invariant = CORES[plant]
    plant(monkeypatch)
    script = shrunk(seed, invariant)
    assert script.events <= EVENTS_MAX
    text = script.text("# A script.\n")
    assert violation(text, "script").startswith(f"{invariant}:")
    monkeypatch.undo()
    assert violation(text, "script") == ""


def test_what_was_recorded_is_not_disturbed() -> None:
    simulation = Simulation(0)
    Recorder.of(simulation)
    assert simulation.run().digest == Simulation(0).run().digest


def test_nothing_that_is_not_needed_is_kept() -> None:
    needed = {3, 50, 51, 98}

    def attempt(items: list[int]) -> list[int] | None:
        return list(items) if needed <= set(items) and (50 in items) == (70 in items) else None

    assert minimized(range(100), attempt, Budget(lambda: False, 10_000)) == [3, 50, 51, 70, 98]
    kept = minimized(range(100), attempt, Budget(lambda: False, 5))
    assert needed <= set(kept)
