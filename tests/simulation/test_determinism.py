"""One seed decides everything: the same trace, whatever Python's hash seed, and another for another seed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quorate.testing import Simulation
from quorate.testing.__main__ import main
from quorate.testing.coverage import ROLES
from quorate.testing.determinism import differing
from quorate.testing.runner import print_seeds, run_seeds

SOURCE = Path(__file__).parents[2] / "src"


def traced(seed: int, hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "quorate.testing", "sim", "--seed", str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


@pytest.mark.parametrize("seed", [3, 8])
def test_the_trace_is_the_same_under_any_hash_seed(seed: int) -> None:
    first, second = traced(seed, "0"), traced(seed, "4242")
    assert first.splitlines()[-1].startswith("trace ")
    assert len(first.splitlines()) > 50
    assert first == second


def test_a_second_run_in_one_process_is_the_same() -> None:
    first, other, second = (Simulation(seed, keep_trace=True).run() for seed in (5, 6, 5))
    assert first == second
    assert first.digest != other.digest


PLANT = """
import sys
from quorate.testing.faults import Faults
from quorate.testing.__main__ import main

def victim(self):
    running = {process.name for process in self._processes if process.role is not None}
    return next((process for name in running for process in self._processes if process.name == name), None)

Faults._victim = victim
sys.exit(main())
"""
"""A victim is the first of a set of names: which one that is depends on Python's hash seed."""


def test_seeds_are_compared_over_hash_seeds_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    assert differing(first=2, count=2, jobs=2) == []


def test_a_planted_set_that_is_walked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    assert differing(first=2, count=2, jobs=2, command=[sys.executable, "-c", PLANT])


def test_a_failing_seed_prints_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quorate.core.election.is_quorum", lambda groups, agrees: True)
    failing = next(seed for seed in range(50) if Simulation(seed).run().failure)
    assert main(["sim", "--seed", str(failing)]) == 1
    *_, again, shorter = capsys.readouterr().out.splitlines()
    assert re.match(r"make sim SEED=\d+  (ElectionSafety|LeaderCompleteness): peer\d", again)
    assert shorter == f"make shrink SEED={failing}  makes a short script of it"


def test_reports_of_several_processes_come_in_the_order_of_the_seeds() -> None:
    reports = list(run_seeds(first=5, count=20, jobs=2, budget=None))
    assert [report.seed for report in reports] == list(range(5, 25))
    assert reports[3].digest == Simulation(8).run().digest


def test_many_seeds_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_seeds(first=20, count=3, jobs=1, budget=None)
    printed = capsys.readouterr().out
    assert printed.startswith("3 seeds from 20 on: ")
    assert "virtual hours" in printed
    assert "crash" in printed
    assert "never visited" in printed
    assert printed.endswith("failing:  none\n")


def test_a_report_is_written_and_an_empty_cell_fails_the_run(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    arguments = ["sim", "--first", "20", "--seeds", "3", "--jobs", "1", "--report", str(path)]
    assert main(arguments) == 0
    written = json.loads(path.read_text())
    assert written["seeds"] == 3
    assert written["faults_total"] == sum(written["faults"].values()) > 0
    assert {cell["role"] for cell in written["coverage"]} <= set(ROLES)
    assert written["below_floor"] == []
    assert len(written["never_visited"]) > 0
    assert main([*arguments, "--coverage-floor", "1"]) == 1
