"""``shrink``: a failing seed becomes a script of a few events; ``replay``: a script is run, and fails as it did.

Knows real time and files; what a script is, the modules beside this one know.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from quorate.testing.shrinking.cores import shrunk_cores, violation
from quorate.testing.shrinking.minimizing import Budget
from quorate.testing.shrinking.recording import Recorder
from quorate.testing.simulation import Simulation

SECONDS = 60.0
"""How many seconds of a core shrinking may take, unless it is told otherwise."""
FOLDER = Path("build/shrunk")
"""Where scripts are kept, unless it is told otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``shrink`` takes."""
    parser.add_argument("--seed", type=int, required=True, help="the seed that fails")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of a core, at most ({SECONDS:.0f})")
    parser.add_argument("--out", type=Path, help=f"where the script is written ({FOLDER}/seed-N.txt)")


def run(chosen: argparse.Namespace) -> int:
    """Shrink one seed; give the exit status: 0 when there is a script, 1 when there is none, 2 when the seed passes."""
    begun = time.process_time()
    simulation = Simulation(chosen.seed)
    recorder = Recorder.of(simulation)
    report = simulation.run()
    if report.failure is None:
        print(f"seed {chosen.seed} passes: there is nothing to shrink", file=sys.stderr)
        return 2
    print(f"seed {chosen.seed} fails after {report.events} events: {report.failure}", file=sys.stderr, flush=True)
    invariant = report.failure.partition(":")[0]
    budget = Budget(lambda: time.process_time() - begun > chosen.seconds, sys.maxsize)
    script = shrunk_cores(recorder, invariant, simulation.profile.settings, budget)
    if script is None:
        print("the cores alone do not show it", file=sys.stderr)
        return 1
    path = chosen.out or FOLDER / f"seed-{chosen.seed}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# Seed {chosen.seed}, at the end: {report.failure}\n"
    text = script.text(head)
    path.write_text(text, encoding="utf-8")
    print(text)
    print(
        f"{report.events} events -> {script.events}, {budget.attempts} attempts, "
        f"{time.process_time() - begun:.1f} s of a core\nreplay it: python -m quorate.testing replay {path}"
    )
    return 0


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``replay`` takes."""
    parser.add_argument("script", type=Path, help="a script that shrink wrote, or any scenario text")


def replay(chosen: argparse.Namespace) -> int:
    """Run a script; give the exit status: 0 when nothing is violated, 1 when something is."""
    violated = violation(chosen.script.read_text(encoding="utf-8"), str(chosen.script))
    print(violated or "nothing is violated")
    return 1 if violated else 0
