"""What toniqsystems/raft left empty, on the simulated network; the rest of its tests stands in tests/api."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from quorate.machines import Stack
from quorate.testing.network import between
from quorate.testing.workload import DrawnCalls

from .story import TIMEOUT, Story, run


def draw(random: Random) -> tuple[Any, ...]:
    """Put, pop, or look."""
    chance = random.random()
    return (Stack.put, random.randrange(1 << 40)) if chance < 0.6 else (Stack.pop,) if chance < 0.9 else (Stack.all,)


@pytest.mark.covers("toniqsystems/raft leader partitions")
@pytest.mark.parametrize("seed", range(2))
def test_leader_partitions(seed: int) -> None:
    """Five peers, bursts of put and pop, and the leader is cut off again and again; what was acknowledged is there."""

    async def tell(story: Story) -> None:
        for _ in range(4):
            leading = [process for process in story.processes if process.role == "leader"]
            for process in leading:
                story.network.cut(between([process.address.node], [other.address.node for other in story.processes]))
            await asyncio.sleep(3 * TIMEOUT)
            assert any(process.role == "leader" for process in story.processes if process not in leading)
            story.network.heal()
            await asyncio.sleep(TIMEOUT)

    report = run(seed, 5, tell, load=16 * TIMEOUT, workload=DrawnCalls(Stack, draw))
    assert report.outcomes["ok"] > 40
