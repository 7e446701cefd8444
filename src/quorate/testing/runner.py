"""Many seeds, over several processes, and what is printed of one and of all.

Knows how long real time may pass; the runs themselves know nothing of it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from quorate.testing.history import write_history
from quorate.testing.progress import Progress
from quorate.testing.simulation import Report, Simulation
from quorate.testing.totals import Totals

CHUNK = 8
"""How many seeds a process is given at once."""


def run_seed(seed: int) -> Report:
    """Run one seed of the ready-made simulation: the machine ``KV``."""
    return Simulation(seed).run()


def run_chunk(first: int, count: int) -> list[Report]:
    """Run some seeds, one after the other."""
    gc.freeze()  # What stays for all seeds need not be looked at again.
    reports = [run_seed(seed) for seed in range(first, first + count)]
    gc.collect()
    return reports


def run_seeds(first: int, count: int | None, jobs: int, budget: float | None) -> Iterator[Report]:
    """Run seeds in several processes; reports come in the order of the seeds.

    Args:
        first: the first seed.
        count: how many; None for as many as the budget allows.
        jobs: how many processes.
        budget: real seconds after which no more are begun; None for no bound.
    """
    end = None if count is None else first + count
    starts = itertools.count(first, CHUNK) if end is None else iter(range(first, end, CHUNK))
    stop_at = float("inf") if budget is None else time.monotonic() + budget
    ahead = jobs + 1  # As few as keep all busy: when the budget is spent, what was handed out is still run.
    handed: deque[Future[list[Report]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            # While one chunk takes long, others are run; only their reports wait for it.
            busy = [chunk for chunk in handed if not chunk.done()]
            while len(busy) < ahead and time.monotonic() < stop_at and (start := next(starts, None)) is not None:
                busy.append(pool.submit(run_chunk, start, CHUNK if end is None else min(CHUNK, end - start)))
                handed.append(busy[-1])
            if not handed:
                return
            if handed[0].done():
                yield from handed.popleft().result()
            else:
                wait(busy, return_when=FIRST_COMPLETED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``sim`` takes."""
    parser.add_argument("--seed", type=int, help="run this one, and print its trace")
    parser.add_argument("--history", type=Path, help="with --seed: write what clients saw, as JSON lines")
    parser.add_argument("--seeds", type=int, help="run this many (1000, or what the budget allows)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--budget", type=float, help="begin no more seeds after so many seconds")
    parser.add_argument("--coverage-floor", type=int, default=0, help="fail if a cell was visited less often (0)")
    parser.add_argument("--report", type=Path, help="write what is printed at the end to this file, as JSON")


def run(chosen: argparse.Namespace) -> int:
    """Run the simulator as the command line says; give the exit status: 0 when no seed failed."""
    if chosen.seed is not None:
        return 0 if print_seed(chosen.seed, chosen.history) else 1
    count = chosen.seeds if chosen.seeds is not None or chosen.budget is not None else 1000
    is_well = print_seeds(
        chosen.first,
        count,
        max(chosen.jobs, 1),
        chosen.budget,
        floor=chosen.coverage_floor,
        report_to=chosen.report,
    )
    return 0 if is_well else 1


def print_seed(seed: int, history: Path | None = None) -> bool:
    """Run one seed and print its trace; tell whether all was well.

    Args:
        seed: the seed.
        history: where to write what its clients saw; None for nowhere.
    """
    simulation = Simulation(seed, keep_trace=True)
    report = simulation.run()
    print("\n".join(report.trace))
    print(f"trace {report.digest}")
    if history is not None:
        write_history(history, simulation.clients.recorder.operations())
    if report.failure is not None:
        print(f"make sim SEED={seed}  {report.failure}")
        print(f"make shrink SEED={seed}  makes a short script of it")
    return report.failure is None


def print_seeds(
    first: int,
    count: int | None,
    jobs: int,
    budget: float | None,
    *,
    floor: int = 0,
    report_to: Path | None = None,
) -> bool:
    """Run many seeds and print what they came to.

    Args:
        first: the first seed.
        count: how many; None for as many as the budget allows.
        jobs: how many processes.
        budget: real seconds after which no more are begun; None for no bound.
        floor: how often each cell of the coverage that could be is to be visited.
        report_to: where to write the same as JSON; None for nowhere.

    Returns:
        Whether all was well.
    """
    begun = time.monotonic()
    totals = Totals(first, jobs, floor)
    progress = Progress()
    for report in run_seeds(first, count, jobs, budget):
        totals.add(report, time.monotonic() - begun)
        if report.failure is not None:
            progress.clear()
            print("\n".join(report.trace))
            print(f"make sim SEED={report.seed}  {report.failure}")
            print(f"make shrink SEED={report.seed}  makes a short script of it\n", flush=True)
        progress.show(totals)
    progress.clear()
    print(totals.text())
    if report_to is not None:
        totals.write(report_to)
    return totals.is_well
