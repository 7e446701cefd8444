"""One seed decides everything: the same trace, whatever Python's hash seed, and another for another seed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quorate.testing import Simulation
from quorate.testing.__main__ import main
from quorate.testing.runner import print_seeds

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


def test_a_failing_seed_prints_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quorate.core.election.is_quorum", lambda groups, agrees: True)
    assert main(["sim", "--seed", "0"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"make sim SEED=0  (ElectionSafety|LeaderCompleteness): peer\d", last)


def test_many_seeds_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_seeds(first=20, count=3, jobs=1, budget=None)
    printed = capsys.readouterr().out
    assert printed.startswith("3 seeds from 20 on: ")
    assert "virtual hours" in printed
    assert "crash" in printed
    assert printed.endswith("failing:  none\n")
