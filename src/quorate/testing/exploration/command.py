"""``explore``: explores profiles in several processes, and prints what each came to.

Knows how long real time may pass and how many states memory may hold; the search knows only the second.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from quorate.testing.exploration.profiles import PROFILES, Profile
from quorate.testing.exploration.search import Report, Search
from quorate.testing.exploration.story import story

STATES_MAX = 8_000_000
"""How many states of one profile are held at most: some 200 bytes each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes."""
    parser.add_argument("--profile", choices=[*PROFILES, "all"], default="all", help="which world to explore (all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument(
        "--states-max", type=int, default=STATES_MAX, help=f"stop a profile that has more states ({STATES_MAX})"
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit status: 0 when all profiles were explored to their end, 1 when an invariant was broken, 2 when a
        profile has more states than allowed.
    """
    profiles = list(PROFILES.values()) if chosen.profile == "all" else [PROFILES[chosen.profile]]
    reports: list[Report] = []
    for profile, report in explore_all(profiles, chosen.jobs, chosen.states_max):
        reports.append(report)
        print("\n".join(report_lines(profile, report)), flush=True)
    states, moves = sum(report.states for report in reports), sum(report.moves for report in reports)
    print(f"{len(reports)} profiles: {states} distinct states, {moves} transitions")
    if any(report.failure is not None for report in reports):
        return 1
    return 0 if all(report.is_complete for report in reports) else 2


def explore_all(profiles: Sequence[Profile], jobs: int, states_max: int) -> Iterator[tuple[Profile, Report]]:
    """Explore profiles, each in one of some processes, or here if there is to be one; give each as it ends."""
    if jobs <= 1:
        yield from ((profile, explore(profile, states_max)) for profile in profiles)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(explore, profile, states_max): profile for profile in profiles}
        yield from ((waiting[future], future.result()) for future in as_completed(waiting))


def explore(profile: Profile, states_max: int) -> Report:
    """Explore one profile."""
    gc.disable()  # Millions of tuples and no cycles: looking for some would take most of the time.
    try:
        return Search(profile).run(states_max)
    finally:
        gc.enable()


def report_lines(profile: Profile, report: Report) -> list[str]:
    """Say what an exploration came to."""
    lines = [
        f"{profile.name}: {profile.bounds()}",
        f"  {report.states} distinct states, {report.moves} transitions, depth {report.depth}, at most {report.widest}"
        f" states at one depth",
        f"  {report.peer_states} states of single peers, {report.inputs} inputs to the core, {report.seconds:.0f} s,"
        f" {report.states / max(report.seconds, 0.001):.0f} states/s",
    ]
    if report.failure is not None:
        text = story(profile, report.inputs_to_failure, report.failure)
        return [*lines, f"  broken: {report.failure}", "", text]
    end = "complete: the frontier is empty" if report.is_complete else "not complete: it has more states than allowed"
    return [*lines, f"  {end}"]
