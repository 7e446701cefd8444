"""``python -m quorate.testing sim``: one seed with its trace, or many with a report."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from quorate.testing.runner import print_seed, print_seeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give the exit status: 0 when no seed failed, 1 when one did."""
    parser = argparse.ArgumentParser(prog="python -m quorate.testing", description="Tools for testing quorate.")
    commands = parser.add_subparsers(dest="command", required=True)
    sim = commands.add_parser("sim", help="run the simulator")
    sim.add_argument("--seed", type=int, help="run this one, and print its trace")
    sim.add_argument("--seeds", type=int, help="run this many (1000, or what the budget allows)")
    sim.add_argument("--first", type=int, default=0, help="the first of them (0)")
    sim.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    sim.add_argument("--budget", type=float, help="begin no more seeds after so many seconds")
    chosen = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Traces have signs that not every terminal knows.
    if chosen.seed is not None:
        return 0 if print_seed(chosen.seed) else 1
    count = chosen.seeds if chosen.seeds is not None or chosen.budget is not None else 1000
    return 0 if print_seeds(chosen.first, count, max(chosen.jobs, 1), chosen.budget) else 1


if __name__ == "__main__":
    sys.exit(main())
