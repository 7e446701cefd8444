"""Partitions: which links are cut, by the shapes that the field knows. Pure but for asking who leads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from quorate.testing.chaos.links import Link, Pair, between
from quorate.testing.chaos.world import World

Choice = Callable[[World], Awaitable[tuple[str, set[Pair]]]]
"""Draws which links to cut, and says so."""


def cutting(choose: Choice) -> Callable[[World], AbstractAsyncContextManager[str]]:
    """Make a fault of what chooses links."""

    @contextlib.asynccontextmanager
    async def fault(world: World) -> AsyncIterator[str]:
        text, pairs = await choose(world)
        with world.links.troubled(pairs, Link(cut=True)):
            yield text

    return fault


async def halves(world: World) -> tuple[str, set[Pair]]:
    """Cut the group in two, the smaller half as large as it can be."""
    names = world.names
    half = len(names) // 2
    return sides(names[:half], names[half:]), between(names[:half], names[half:])


async def one_alone(world: World) -> tuple[str, set[Pair]]:
    """Cut one node off from all others."""
    first, *others = world.names
    return sides([first], others), between([first], others)


async def leader_in_minority(world: World) -> tuple[str, set[Pair]]:
    """Cut the leader off, alone or with less than a majority."""
    leader = await world.leader()
    others = [name for name in world.names if name != leader]
    few = world.chance.randrange((len(others) + 1) // 2)
    return sides([leader, *others[:few]], others[few:]), between([leader, *others[:few]], others[few:])


async def bridge(world: World) -> tuple[str, set[Pair]]:
    """Cut the group in two, but for one node that reaches both sides."""
    middle, *others = world.names
    half = len(others) // 2
    return f"{sides(others[:half], others[half:])}, {middle} reaches both", between(others[:half], others[half:])


async def ring(world: World) -> tuple[str, set[Pair]]:
    """Leave each node its two neighbours in a ring."""
    names = world.names
    size = len(names)
    cut = {(a, b) for i, a in enumerate(names) for j, b in enumerate(names) if (i - j) % size not in (0, 1, size - 1)}
    return f"ring {' - '.join(names)}", cut


async def one_way(world: World) -> tuple[str, set[Pair]]:
    """Cut all that one node sends, or all that is sent to it; the other way stays open."""
    name = await world.leader() if world.chance.random() < 0.5 else world.names[0]
    others = [other for other in world.names if other != name]
    if world.chance.random() < 0.5:
        return f"nothing that {name} sends arrives", {(name, other) for other in others}
    return f"nothing arrives at {name}", {(other, name) for other in others}


def sides(some: list[str], others: list[str]) -> str:
    """Name two sides."""
    return f"{' '.join(sorted(some))} | {' '.join(sorted(others))}"
