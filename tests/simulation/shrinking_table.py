"""``python -m tests.simulation.shrinking_table``: the table of docs/trust.md on how short a failing seed becomes.

Plants each fault of ``test_planted_faults``, takes the first seed from 0 on that fails, shrinks it as ``make shrink``
does, and runs the script again with the fault and without.
"""

from __future__ import annotations

import itertools
import time

import pytest

from quorate.testing import Simulation
from quorate.testing.shrinking.command import SECONDS, core_seconds
from quorate.testing.shrinking.seeds import replayed, shrunk_seed

from . import test_planted_faults as faults

SEARCH_SECONDS = 180.0
"""For how long a seed that fails is looked for, seconds of a core."""


def first_failing() -> int | None:
    """Give the first seed that fails with what is planted."""
    end = time.process_time() + SEARCH_SECONDS
    seeds = itertools.takewhile(lambda _: time.process_time() < end, itertools.count())
    return next((seed for seed in seeds if Simulation(seed).run().failure is not None), None)


def row(plant: faults.Plant) -> str:
    """Give the row of a fault."""
    with pytest.MonkeyPatch.context() as planted:
        plant(planted)
        seed = first_failing()
        if seed is None:
            return f"| `{plant.__name__}` | none found within {SEARCH_SECONDS:g} s | | | | | |"
        begun = time.process_time()
        shrunk = shrunk_seed(seed, core_seconds(SECONDS))
        took = time.process_time() - begun
        assert shrunk is not None, "it failed just now"
        invariant = shrunk.failure.partition(":")[0]
        assert replayed(shrunk.text, "script").startswith(f"{invariant}:"), "the script fails as the seed did"
    assert replayed(shrunk.text, "script") == "", "without the fault nothing is violated"
    kind = "a world" if "\nworld " in shrunk.text else "inputs to cores"
    figures = f"{shrunk.before:,} | {shrunk.events:,} | {took:.1f}"
    return f"| `{plant.__name__}` | {seed} | {invariant} | {figures} | {kind} |"


def main() -> None:
    """Print the table."""
    print("| fault | seed | violates | events | of the script | seconds of a core | script of |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for plant in (*faults.PLANTS, *faults.LIVENESS):
        print(row(plant), flush=True)


if __name__ == "__main__":
    main()
