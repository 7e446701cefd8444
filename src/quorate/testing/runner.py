"""Many seeds, over several processes, and what is printed of one and of all.

Knows how long real time may pass; the runs themselves know nothing of it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from quorate.testing.simulation import Report, Simulation

CHUNK = 8
"""How many seeds a process is given at once."""


def run_seed(seed: int, *, keep_trace: bool = False) -> Report:
    """Run one seed of the ready-made simulation: the machine ``KV``."""
    return Simulation(seed, keep_trace=keep_trace).run()


def run_chunk(first: int, count: int) -> list[Report]:
    """Run some seeds, one after the other."""
    return [run_seed(seed) for seed in range(first, first + count)]


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
    waiting: deque[Future[list[Report]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(waiting) < 2 * jobs and time.monotonic() < stop_at and (start := next(starts, None)) is not None:
                waiting.append(pool.submit(run_chunk, start, CHUNK if end is None else min(CHUNK, end - start)))
            if not waiting:
                return
            yield from waiting.popleft().result()


def print_seed(seed: int) -> bool:
    """Run one seed and print its trace; tell whether all was well."""
    report = run_seed(seed, keep_trace=True)
    print("\n".join(report.trace))
    print(f"trace {report.digest}")
    if report.failure is not None:
        print(f"make sim SEED={seed}  {report.failure}")
    return report.failure is None


def print_seeds(first: int, count: int | None, jobs: int, budget: float | None) -> bool:
    """Run many seeds and print what they came to; tell whether all was well."""
    begun = time.monotonic()
    seeds, events, span = 0, 0, 0.0
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    failing: list[int] = []
    for report in run_seeds(first, count, jobs, budget):
        seeds += 1
        events += report.events
        span += report.span
        faults.update(report.faults)
        outcomes.update(report.outcomes)
        asked.update(report.asked)
        steps.update(report.steps)
        if report.failure is not None:
            failing.append(report.seed)
            show_progress("")
            print("\n".join(report.trace))
            print(f"make sim SEED={report.seed}  {report.failure}\n")
        show_progress(f"{seeds} seeds, {events} events, {len(failing)} failing")
    show_progress("")
    took = time.monotonic() - begun
    print(f"{seeds} seeds from {first} on: {events} events in {took:.0f} s, {events / took:.0f} a second, {jobs} jobs;")
    print(f"{span / 3600:.2f} virtual hours, {sum(faults.values())} faults, {sum(outcomes.values())} calls of clients")
    print("faults:   " + ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items())))
    print("asked:    " + ", ".join(f"{word} {number}" for word, number in sorted(asked.items())))
    print("steps:    " + ", ".join(f"{step} {number}" for step, number in sorted(steps.items())))
    print("calls:    " + ", ".join(f"{word} {number}" for word, number in sorted(outcomes.items())))
    print(f"failing:  {', '.join(map(str, failing)) or 'none'}")
    return not failing


def show_progress(text: str) -> None:
    """Show a line in place of the last one, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
