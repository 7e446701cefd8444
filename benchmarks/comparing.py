"""The comparison: every system in turn, round after round, each time on a fresh cluster.

So whatever else the machine does in some minute falls on all of them alike, and ratios are taken within a round.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.limits import Ceiling, Floor
from benchmarks.peers import Etcd, PySyncObj
from benchmarks.quorate_cluster import Quorate
from benchmarks.results import Comparison, Plan, Round
from benchmarks.systems import Case, Measurement, System

PATHS = ("in-process", "remote", "coalesced")

BESIDE = ("quorate", "quorate-lmdb-uvloop", "pysyncobj")
"""The names of systems that are measured with fewer counts of callers, for the sake of time."""


def all_systems() -> list[System]:
    """Give every system, the ones to be compared next to each other."""
    return [
        Floor(),
        Ceiling("asyncio"),
        Quorate("rocksdb", "asyncio"),
        Etcd(),
        Quorate("rocksdb", "uvloop"),
        Ceiling("uvloop"),
        Quorate("lmdb", "uvloop"),
        PySyncObj(),
    ]


def cases_of(system: System, plan: Plan) -> list[Case]:
    """Give the cases of a plan that a system has; of the variants that are shown beside the rest every third count."""
    counts = plan.callers[::3] if system.name in BESIDE else plan.callers
    return [
        Case(operation, path, callers)
        for callers in counts
        for operation in plan.operations
        for path in PATHS
        if (operation, path) in system.offers
    ]


async def prepare(plan: Plan) -> tuple[list[System], dict[str, str]]:
    """Give the systems that can run here, and why the others cannot."""
    systems: list[System] = []
    skipped: dict[str, str] = {}
    for system in all_systems():
        if plan.systems is not None and system.name not in plan.systems:
            continue
        missing = await system.prepare()
        if missing is None:
            systems.append(system)
        else:
            skipped[system.title] = missing
            report(f"{system.title} is left out: {missing}")
    return systems, skipped


async def compare(plan: Plan) -> Comparison:
    """Measure everything."""
    systems, skipped = await prepare(plan)
    cases = sum(len(cases_of(system, plan)) for system in systems)
    minutes = plan.rounds * (cases * (plan.seconds + plan.warm_up + 0.1) + 3 * len(systems)) / 60
    report(f"{plan.rounds} rounds of {cases} cases on {len(systems)} systems: about {minutes:.0f} minutes")
    rounds: list[Round] = []
    failures: list[str] = []
    for number in range(plan.rounds):
        # Each round begins with another one, so that none always follows the same one.
        turn = number % max(len(systems), 1)
        rounds.append({})
        for system in (*systems[turn:], *systems[:turn]):
            start = time.monotonic()
            found = rounds[-1][system.name] = {}
            try:
                await run(system, cases_of(system, plan), plan, found)
            except (RuntimeError, TimeoutError) as error:
                # One that fails must not cost an hour of the others; the page says so.
                failures.append(f"round {number + 1}: {system.title}: {error}")
                report(failures[-1])
            report(f"round {number + 1}/{plan.rounds}  {system.title}: {time.monotonic() - start:.0f} s")
    return Comparison({system.name: system.title for system in systems}, skipped, failures, rounds, plan)


async def run(system: System, cases: Sequence[Case], plan: Plan, found: dict[str, Measurement]) -> None:
    """Measure the cases of one system on a fresh cluster, and put each into what was found."""
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with system.cluster(Path(directory)) as measure:
            for case in cases:
                found[str(case)] = await measure(case, plan.seconds, plan.warm_up)


def report(line: str) -> None:
    """Tell whoever waits how far it is."""
    print(line, file=sys.stderr, flush=True)
