"""Whether a seed does the same each time: each is run in several processes, under several hash seeds of Python's.

What is compared is the SHA-256 of the whole trace. The order of a set, an address or a clock that got into a decision
shows as another trace in one of them. Knows nothing of what a run does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from quorate.testing.runner import run_seed

HASH_SEEDS = ("0", "1", "4242")
PROCESSES = 2
"""How many processes run each seed under each hash seed."""
COMMAND = (sys.executable, "-m", "quorate.testing")


def differing(first: int, count: int, jobs: int, command: Sequence[str] = COMMAND) -> list[int]:
    """Run each seed in ``PROCESSES`` processes under each of ``HASH_SEEDS``, and compare.

    Args:
        first: the first seed.
        count: how many.
        jobs: how many processes at a time.
        command: what runs ``python -m quorate.testing``.

    Returns:
        The seeds that did not do the same everywhere.

    Raises:
        CalledProcessError: a process failed.
    """
    seen: dict[int, set[str]] = {seed: set() for seed in range(first, first + count)}
    arguments = [*command, "digests", "--first", str(first), "--seeds", str(count)]
    with ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(run_under, seed, arguments) for seed in HASH_SEEDS for _ in range(PROCESSES)]
        for run in runs:
            for line in run.result().splitlines():
                seed, _, rest = line.partition(" ")
                seen[int(seed)].add(rest)
    return [seed for seed, found in seen.items() if len(found) != 1]


def run_under(hash_seed: str, command: Sequence[str]) -> str:
    """Run a command under a hash seed; give what it printed.

    Raises:
        CalledProcessError: it failed.
    """
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser which seeds there are to choose from."""
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds (1000)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``determinism`` takes."""
    add_seed_arguments(parser)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")


def run(chosen: argparse.Namespace) -> int:
    """Compare seeds, and print what came of it; give the exit status: 1 when one was not the same each time."""
    found = differing(chosen.first, chosen.seeds, max(chosen.jobs, 1))
    runs = f"{len(HASH_SEEDS)} hash seeds x {PROCESSES} processes"
    print(f"{chosen.seeds} seeds from {chosen.first} on, each under {runs}: {len(found)} differ")
    for seed in found:
        print(f"make sim SEED={seed}  is not the same each time")
    return 1 if found else 0


def run_digests(chosen: argparse.Namespace) -> int:
    """Run some seeds and print, for each in a line, its number, the digest of its trace, and how many events it had."""
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        report = run_seed(seed)
        print(seed, report.digest, report.events, flush=True)
    return 0
