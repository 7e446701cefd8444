"""Seeds, one after the other, until one fails: for tests that plant a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec

from quorate.testing import Simulation
from quorate.testing.profile import Profile
from quorate.testing.workload import Workload


def first_failure(
    seeds: Iterable[int],
    make_workload: Callable[[], Workload | None] = lambda: None,
    world_of: Callable[[int], Profile | None] = lambda _seed: None,
) -> str:
    """Give what the first failing seed violates, and how; ``nothing`` if none fails.

    Args:
        seeds: are run in this order.
        make_workload: makes the calls of each run; as drawn if it gives None.
        world_of: makes the world of a seed; as drawn if it gives None.
    """
    failures = (Simulation(seed, make_workload(), profile=world_of(seed)).run().failure for seed in seeds)
    return next(filter(None, failures), "nothing")


def invariant_of(failure: str) -> str:
    """Give the name of the invariant that a failure is of."""
    return failure.partition(":")[0]


def usual_world(*, settings: dict[str, Any] | None = None, **differs: Any) -> Callable[[int], Profile]:
    """Give what draws a usual world of a seed, and has some of it, and of its settings, differ."""

    def world_of(seed: int) -> Profile:
        drawn = Profile.draw_usual(Random(f"{seed} profile"))
        changed = msgspec.structs.replace(drawn.settings, **(settings or {}))
        return msgspec.structs.replace(drawn, settings=changed, **differs)

    return world_of
