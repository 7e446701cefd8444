"""From a seed that fails to a script that does: of inputs to bare cores where these show it, else of a whole world.

And back: a script is run again, and says what it violates. Knows files no more than real time does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from quorate.machine import StateMachine
from quorate.machines import KV
from quorate.testing.profile import Profile
from quorate.testing.shrinking.cores import Script, shrunk_cores, violation
from quorate.testing.shrinking.minimizing import Budget
from quorate.testing.shrinking.recording import Recorder
from quorate.testing.shrinking.worlds import (
    WorkloadOf,
    World,
    attempts,
    parse_world,
    plainest,
    run_world,
    shrunk_world,
    world_text,
)
from quorate.testing.simulation import Report, Simulation
from quorate.testing.workload import DrawnCalls, KVWorkload, usual_workload

STEPS_MAX = 1200
"""A run with more inputs than this is looked for in a plainer world first."""
OTHERS = 1_000_000
"""The number from which on values are drawn beside those of a script."""
PLAINER_ATTEMPTS = 60
"""How many such worlds are tried."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A script, and what it was made from.

    Attributes:
        failure: what the seed violated.
        before: how many inputs to peers that took.
        text: the script; empty if none was found.
        events: how many events it has; 0 without one.
        attempts: how many scripts were tried.
    """

    failure: str
    before: int
    text: str = ""
    events: int = 0
    attempts: int = 0


def kv_workload(world: World) -> KVWorkload:
    """Give the calls of a run of ``KV``; where others are told, those that are drawn beside write no value twice."""
    return usual_workload(world.profile, 1 if world.acts is None else OTHERS)


def drawn_workload(machine: type[StateMachine], draw: Callable[[Random], tuple[Any, ...]]) -> WorkloadOf:
    """Give what makes the calls of a run of a machine."""
    return lambda _world: DrawnCalls(machine, draw)


def shrunk_seed(
    seed: int, budget: Budget, workload_of: WorkloadOf = kv_workload, machine: type[StateMachine] = KV
) -> Shrunk | None:
    """Run a seed, and make a script of it as short as the budget allows; None if it passes.

    Args:
        seed: the seed.
        budget: how much may be tried.
        workload_of: makes the workload of each run.
        machine: the class of its machine.
    """
    world = World(seed, Profile.draw(Random(f"{seed} profile")))
    recorder, report = recorded(world, workload_of)
    if report.failure is None:
        return None
    head = f"# Seed {seed}, at the end: {report.failure}\n"
    invariant = report.failure.partition(":")[0]
    script = shortest(world, recorder, invariant, workload_of, budget)
    if script is not None:
        return Shrunk(report.failure, report.events, script.text(head), script.events, budget.attempts)
    ran = shrunk_world(world, invariant, workload_of, budget)
    return Shrunk(report.failure, report.events, world_text(ran, machine, head), ran.events, budget.attempts)


def shortest(
    world: World, recorder: Recorder, invariant: str, workload_of: WorkloadOf, budget: Budget
) -> Script | None:
    """Give the shortest script of inputs to the cores; None if these alone do not show what is violated."""
    if len(recorder.steps) > STEPS_MAX:
        ran = plainest(world, attempts(invariant, workload_of), budget.part(PLAINER_ATTEMPTS))
        if ran is not None:
            plain = World(ran.world.seed, ran.world.profile)
            script = shrunk_cores(recorded(plain, workload_of)[0], invariant, plain.profile.settings, budget)
            if script is not None:
                return script
    return shrunk_cores(recorder, invariant, world.profile.settings, budget)


def recorded(world: World, workload_of: WorkloadOf) -> tuple[Recorder, Report]:
    """Run a world whose acts are drawn, and record what its cores are given."""
    simulation = Simulation(world.seed, workload_of(world), profile=world.profile)
    recorder = Recorder.of(simulation)
    return recorder, simulation.run()


def replayed(text: str, source: str, workload_of: WorkloadOf = kv_workload, machine: type[StateMachine] = KV) -> str:
    """Run a script; give what it violates, or nothing.

    Args:
        text: the script, or any scenario text.
        source: what messages call it.
        workload_of: makes the workload of the run.
        machine: the class of its machine.

    Raises:
        ValueError: it is no script.
    """
    if any(line.startswith("world ") for line in text.splitlines()):
        return run_world(parse_world(text, machine), workload_of).report.failure or ""
    return violation(text, source)
