"""``python -m tests.mutants.search walk|sim``: seeds one after the other, until one finds something wrong.

Prints a line of JSON that says what, or nothing, and counts seconds of this process's core: a busy machine makes it no
worse.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping

from quorate.testing import Simulation
from tests.core.search import Walk

STEPS = 700
"""How long each walk is."""


def walk(seed: int) -> str:
    """Walk with bare cores; say what was violated, or nothing."""
    Walk(seed).run(STEPS)
    return ""


def simulate(seed: int) -> str:
    """Simulate a group; say what was violated, or nothing."""
    return Simulation(seed).run().failure or ""


SEARCHES: Mapping[str, Callable[[int], str]] = {"walk": walk, "sim": simulate}


def find(search: Callable[[int], str], seconds: float, seeds: Iterable[int]) -> tuple[str, int]:
    """Search through seeds, until one fails or they or the seconds are over.

    Returns:
        The first that fails and how, or nothing; and the seed to go on with.
    """
    begun, seed = time.process_time(), -1
    for seed in seeds:
        if time.process_time() - begun >= seconds:
            return "", seed
        try:
            failure = search(seed)
        except Exception as error:
            failure = str(error) if type(error) is AssertionError and str(error) else f"{type(error).__name__}: {error}"
        if failure:
            return f"seed {seed}: {failure}", seed + 1
    return "", seed + 1


def main() -> None:
    """Search, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.search", description="Search through seeds.")
    parser.add_argument("engine", choices=SEARCHES)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    chosen = parser.parse_args()
    seeds = itertools.count(chosen.first) if chosen.seed is None else [chosen.seed]
    found, following = find(SEARCHES[chosen.engine], chosen.seconds, seeds)
    print(json.dumps({"found": found, "seconds": time.process_time(), "next": following}))


if __name__ == "__main__":
    main()
