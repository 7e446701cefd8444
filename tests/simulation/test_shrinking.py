"""What fails in the simulator becomes a script of a few events, which fails the same way, and not without the fault."""

from pathlib import Path

import pytest

from quorate.machines import KV
from quorate.testing import Simulation
from quorate.testing.__main__ import main
from quorate.testing.shrinking.acts import Acts, line, parsed
from quorate.testing.shrinking.cores import EVENTS_MAX, Script, shrunk_cores, violation
from quorate.testing.shrinking.minimizing import Budget, minimized
from quorate.testing.shrinking.recording import Recorder
from quorate.testing.shrinking.seeds import kv_workload, replayed, shrunk_seed
from quorate.testing.shrinking.worlds import World, parse_world, run_world, world_text

from . import test_planted_faults as faults

ATTEMPTS_MAX = 500

# Each with a seed that it fails, and what it violates there.
CORES = {
    faults.vote_by_length_alone: (1609, "LeaderCompleteness"),
    faults.half_is_a_quorum: (0, "ElectionSafety"),
    faults.acknowledgement_before_fsync: (0, "PersistBeforeSend"),
    faults.commit_beyond_what_was_compared: (22, "StateMachineSafety"),
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


def test_a_violation_of_the_shell_becomes_a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.vote_not_persisted(monkeypatch)
    shrunk = shrunk_seed(0, Budget(lambda: False, ATTEMPTS_MAX))
    assert shrunk is not None
    assert shrunk.text.startswith("# Seed 0, at the end: PersistBeforeSend:")
    assert 0 < shrunk.events <= EVENTS_MAX
    assert replayed(shrunk.text, "script").startswith("PersistBeforeSend:")
    monkeypatch.undo()
    assert replayed(shrunk.text, "script") == ""


def test_a_seed_that_passes_is_not_shrunk() -> None:
    assert shrunk_seed(0, Budget(lambda: False, ATTEMPTS_MAX)) is None


def test_acts_are_recorded_told_and_done_again() -> None:
    simulation = Simulation(8)
    recorded = Acts.of(simulation)
    assert simulation.run().digest == Simulation(8).run().digest
    assert {"crash", "cut", "write"} <= {act.verb for act in recorded.acts}
    assert [parsed(line(act, KV), KV) for act in recorded.acts] == recorded.acts
    world = World(8, simulation.profile, tuple(recorded.acts))
    again = run_world(world, kv_workload)
    assert parse_world(world_text(again, KV, "# A script."), KV) == again.world
    assert run_world(again.world, kv_workload).report.digest == again.report.digest


def test_the_commands_shrink_and_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script.txt"
    with monkeypatch.context() as planted:
        faults.half_is_a_quorum(planted)
        assert main(["shrink", "--seed", "0", "--out", str(path)]) == 0
        assert f"python -m quorate.testing replay {path}" in capsys.readouterr().out
        assert main(["replay", str(path)]) == 1
        assert capsys.readouterr().out.startswith("ElectionSafety:")
    assert main(["replay", str(path)]) == 0
    assert main(["shrink", "--seed", "0"]) == 2


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
