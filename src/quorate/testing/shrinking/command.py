"""``shrink``: a failing seed becomes a script of a few events; ``replay``: a script is run, and fails as it did.

Knows real time and files; what a script is, the modules beside this one know.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from quorate.testing.shrinking.minimizing import Budget
from quorate.testing.shrinking.seeds import Shrunk, replayed, shrunk_seed

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
    """Shrink one seed; give the exit status: 0 when there is a script, 2 when the seed passes."""
    begun, budget = time.process_time(), core_seconds(chosen.seconds)
    print(f"shrinking seed {chosen.seed}, {chosen.seconds:g} s of a core at most", file=sys.stderr, flush=True)
    shrunk = shrunk_seed(chosen.seed, budget)
    if shrunk is None:
        print(f"seed {chosen.seed} passes: there is nothing to shrink", file=sys.stderr)
        return 2
    path = chosen.out or FOLDER / f"seed-{chosen.seed}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(shrunk.text, encoding="utf-8")
    print(shrunk.text)
    print(summary(shrunk, time.process_time() - begun))
    print(f"replay it: python -m quorate.testing replay {path}")
    return 0


def core_seconds(seconds: float) -> Budget:
    """Give a budget of so many seconds of a core, from now on."""
    begun = time.process_time()
    return Budget(lambda: time.process_time() - begun > seconds, sys.maxsize)


def summary(shrunk: Shrunk, seconds: float) -> str:
    """Say in a line what shrinking came to."""
    return f"{shrunk.before} events -> {shrunk.events}, {shrunk.attempts} attempts, {seconds:.1f} s of a core"


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``replay`` takes."""
    parser.add_argument("script", type=Path, help="a script that shrink wrote, or any scenario text")


def replay(chosen: argparse.Namespace) -> int:
    """Run a script; give the exit status: 0 when nothing is violated, 1 when something is."""
    violated = replayed(chosen.script.read_text(encoding="utf-8"), str(chosen.script))
    print(violated or "nothing is violated")
    return 1 if violated else 0
