"""The smallest world, with the fewest calls and faults in it, that violates what a simulation violated.

For what goes wrong in the shell or in a user's machine, and so does not show on bare cores. The world is made plainer
first, with calls and faults drawn anew in each: no operator, a good network, good disks, fewer peers and clients, less
time. Then calls and faults are a list (``acts.py``), of which whatever is not needed is left out. What a world still
does by itself beside, its text says: a network that loses, or an operator, are drawn from its seed as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from quorate.machine import StateMachine
from quorate.settings import Settings
from quorate.testing.network import CALM
from quorate.testing.profile import CALM_DISK, Profile
from quorate.testing.shrinking.acts import DIGITS, Act, Acts, count_demands, line, parsed, script
from quorate.testing.shrinking.minimizing import Budget, minimized
from quorate.testing.simulation import Report, Simulation
from quorate.testing.workload import Workload

PLAIN = Profile(
    size=3,
    settings=Settings(),
    network=CALM,
    disk=CALM_DISK,
    drift=0.0,
    span=1.0,
    clients=1,
    pause=0.05,
    burst=1,
    value_bytes=0,
    fault_pause=float("inf"),
    direct_share=0.0,
    cancel_share=0.0,
)
"""The plainest world. A text names what differs from it."""
SEEDS = 3
"""How many seeds each plainer world is tried with."""
TELLINGS = 12
"""How many seeds a world is tried with when its acts are no longer drawn."""
SEED_STEP = 1_000_003
"""How far these are apart, so that none of them is the next one that anybody would run."""
DRAWN = "calls and faults are drawn"
"""What a text says in place of acts."""
STEP = 0.1
"""How far apart acts are in a script, if it does not matter."""


@dataclass(frozen=True, slots=True)
class World:
    """What is run.

    Attributes:
        seed: decides whatever is not said here.
        profile: the world.
        acts: the calls and faults; None to draw them.
    """

    seed: int
    profile: Profile
    acts: tuple[Act, ...] | None = None


WorkloadOf = Callable[[World], Workload]
"""Makes the workload of one run."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a world.

    Attributes:
        world: the world, its acts those that made sense.
        is_drawn: whether the run drew its acts; then the world is run again without them.
        demands: how many calls were made at the end, to see whether the healed group goes on.
        report: how it went.
    """

    world: World
    is_drawn: bool
    demands: int
    report: Report

    @property
    def events(self) -> int:
        """How much was done: the group is formed, calls and faults, and at the end it is healed, and must answer."""
        return 1 + len(self.world.acts or ()) + self.demands + (self.demands > 0)

    @property
    def invariant(self) -> str:
        """The name of what was violated; empty if nothing was."""
        return (self.report.failure or "").partition(":")[0]


Attempt = Callable[[World], Ran | None]
"""Runs a world; gives None unless it fails the same way."""


def run_world(world: World, workload_of: WorkloadOf) -> Ran:
    """Run a world once."""
    simulation = Simulation(world.seed, workload_of(world), profile=world.profile)
    demands = count_demands(simulation)
    if world.acts is None:
        acts = Acts.of(simulation)
        report = simulation.run()
        return Ran(replace(world, acts=tuple(acts.acts)), True, len(demands), report)
    done = script(simulation, world.acts)
    report = simulation.run()
    return Ran(replace(world, acts=tuple(sorted(done, key=lambda act: act.at))), False, len(demands), report)


def shrunk_world(failed: World, invariant: str, workload_of: WorkloadOf, budget: Budget) -> Ran:
    """Give a world that violates an invariant, as small as the budget allows.

    Args:
        failed: one that does, without acts.
        invariant: its name.
        workload_of: makes the workload of each run.
        budget: how much may be tried.
    """
    attempt = attempts(invariant, workload_of)
    drawn = plainest(failed, attempt, budget) or run_world(failed, workload_of)
    quiet = {name: getattr(PLAIN, name) for name in ("fault_pause", "pause", "patience")}
    world = replace(drawn.world, profile=msgspec.structs.replace(drawn.world.profile, **quiet))
    told = first_of(attempt, (replace(world, seed=seed) for seed in seeds(world.seed, TELLINGS)), budget)
    if told is None:
        return drawn  # Its calls and faults are drawn as it goes.
    while not budget.is_spent:
        before = told
        told = fewest(told, attempt, budget)
        plain = plainest(told.world, attempt, budget)
        if plain is not None and plain.events <= told.events:
            told = plain
        if told.world == before.world:
            break
    return evened(told, attempt)


def attempts(invariant: str, workload_of: WorkloadOf) -> Attempt:
    """Give what runs a world, and gives None unless it violates that invariant."""

    def attempt(world: World) -> Ran | None:
        ran = run_world(world, workload_of)
        return ran if ran.invariant == invariant else None

    return attempt


def plainest(world: World, attempt: Attempt, budget: Budget) -> Ran | None:
    """Make a world plainer as long as it fails the same way; None if it is the plainest already."""
    best: Ran | None = None
    progress = True
    while progress and not budget.is_spent:
        progress = False
        for profile in plainer(world.profile, is_drawn=world.acts is None):
            tried = [world.seed] if world.acts else seeds(world.seed)
            ran = first_of(attempt, (replace(world, seed=seed, profile=profile) for seed in tried), budget)
            if ran is not None:
                best, progress = ran, True
                world = replace(ran.world, acts=world.acts and ran.world.acts)
                break
    return best


def fewest(ran: Ran, attempt: Attempt, budget: Budget) -> Ran:
    """Leave out acts, and the time after the last one."""
    best = ran

    def without(acts: Sequence[Act]) -> Sequence[Act] | None:
        nonlocal best
        span = acts[-1].at + STEP if acts else STEP
        profile = msgspec.structs.replace(best.world.profile, span=min(best.world.profile.span, span))
        shorter = attempt(World(best.world.seed, profile, tuple(acts)))
        if shorter is None or shorter.events >= best.events:
            return None
        best = shorter
        return shorter.world.acts

    minimized(best.world.acts or (), without, budget)
    return best


def evened(ran: Ran, attempt: Attempt) -> Ran:
    """Put acts at even instants, if that does not matter."""
    acts = [replace(act, at=round(STEP * number, DIGITS)) for number, act in enumerate(ran.world.acts or (), 1)]
    profile = msgspec.structs.replace(ran.world.profile, span=STEP * (len(acts) + 1))
    even = attempt(World(ran.world.seed, profile, tuple(acts)))
    return even if even is not None and even.events <= ran.events else ran


def first_of(attempt: Attempt, worlds: Iterator[World], budget: Budget) -> Ran | None:
    """Give the first of some worlds that fails the same way."""
    for world in worlds:
        if budget.is_spent:
            return None
        budget.spend()
        ran = attempt(world)
        if ran is not None:
            return ran
    return None


def seeds(seed: int, count: int = SEEDS) -> list[int]:
    """Give the seeds that a world is tried with."""
    return [seed + number * SEED_STEP for number in range(count)]


def plainer(profile: Profile, *, is_drawn: bool) -> Iterator[Profile]:
    """Give worlds that are plainer than one in one point, the most telling first."""
    for name in ("change_pause", "network", "disk", "aside", "added", "spares", "drift", "lease_share", "stale_share"):
        if getattr(profile, name) != getattr(PLAIN, name):
            yield msgspec.structs.replace(profile, **{name: getattr(PLAIN, name)})
    for name in ("clients", "burst", "direct_share", "cancel_share", "value_bytes", "settings"):
        if getattr(profile, name) != getattr(PLAIN, name):
            pace = {"pace": 1.0} if name == "settings" else {}
            yield msgspec.structs.replace(profile, **{name: getattr(PLAIN, name)}, **pace)
    for size in (1, 3):
        if size < profile.size:
            yield msgspec.structs.replace(profile, size=size)
    if is_drawn and profile.span > STEP:
        yield msgspec.structs.replace(profile, span=profile.span / 2)


# As text.


def world_text(ran: Ran, machine: type[StateMachine], head: str) -> str:
    """Write a world so that ``parse_world`` reads it again, with its trace as comments.

    Args:
        ran: what came of it.
        machine: the class of its machine.
        head: comments.
    """
    differences = changed(msgspec.to_builtins(PLAIN), msgspec.to_builtins(ran.world.profile))
    lines = [f"world {json.dumps(differences)}", f"seed {ran.world.seed}"]
    if ran.is_drawn:
        lines.append(f"{DRAWN}  # {ran.events} of them")
    else:
        lines += [line(act, machine) for act in ran.world.acts or ()]
    trace = ["", "# What happens; at the end all is healed, and a write and a read are demanded:"]
    return "\n".join([head.rstrip(), *lines, *trace, *(f"# {said}" for said in ran.report.trace), ""])


def parse_world(text: str, machine: type[StateMachine]) -> World:
    """Read such a text.

    Raises:
        ValueError: it is none.
    """
    lines = [said for said in text.splitlines() if said and not said.startswith("#")]
    if len(lines) < 2 or not lines[0].startswith("world ") or not lines[1].startswith("seed "):
        raise ValueError("a script of a world begins with its world and its seed")
    plain = msgspec.to_builtins(PLAIN)
    profile = msgspec.convert(merged(plain, json.loads(lines[0][6:])), Profile)
    is_drawn = lines[2:] and lines[2].startswith(DRAWN)
    acts = None if is_drawn else tuple(parsed(said, machine) for said in lines[2:])
    return World(int(lines[1][5:]), profile, acts)


def changed(plain: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Give what differs in a mapping of mappings."""
    return {
        name: changed(plain[name], value) if isinstance(value, dict) else value
        for name, value in found.items()
        if value != plain[name]
    }


def merged(plain: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """Give a mapping of mappings with these differences."""
    return {
        name: merged(value, differences.get(name, {})) if isinstance(value, dict) else differences.get(name, value)
        for name, value in plain.items()
    }
