"""The faults by name: each does its harm when its context is entered, and undoes it when that is left.

Several may run at once. One that stops or empties a node claims it first, so that no two do that to the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from quorate.testing.chaos import partitions
from quorate.testing.chaos.cluster import NodeGone, NodeProcess, Refused
from quorate.testing.chaos.links import Link
from quorate.testing.chaos.partitions import cutting
from quorate.testing.chaos.slow_disk import CannotTrace, slow_syncs
from quorate.testing.chaos.world import NotNow, World

REMOVAL_SECONDS = 10.0
"""How long a removal is tried before the fault is given up."""

PAUSE = 0.2
"""Seconds between two tries."""

Fault = Callable[[World], AbstractAsyncContextManager[str]]
"""Does its harm when entered, says what it has done, and undoes it when left."""


def majority(world: World) -> int:
    """Give how many nodes the group cannot do without one of."""
    return len(world.cluster.nodes) // 2 + 1


def killing(*, leader: bool = False, many: bool = False) -> Fault:
    """Make a fault that kills one node, the leader or a majority at once, and starts them again on their disks."""

    @contextlib.asynccontextmanager
    async def fault(world: World) -> AsyncIterator[str]:
        names = await world.victims(majority(world) if many else 1, leader=leader)
        with world.claim(names) as nodes:
            await asyncio.gather(*(node.kill() for node in nodes))
            try:
                yield f"SIGKILL {' '.join(names)}"
            finally:
                await world.revive(nodes)

    return fault


def pausing(*, leader: bool = False, many: bool = False) -> Fault:
    """Make a fault that stops processes with SIGSTOP, and lets them go on."""

    @contextlib.asynccontextmanager
    async def fault(world: World) -> AsyncIterator[str]:
        names = await world.victims(majority(world) if many else 1, leader=leader)
        with world.claim(names) as nodes:
            for node in nodes:
                node.pause()
            try:
                yield f"SIGSTOP {' '.join(names)}"
            finally:
                for node in nodes:
                    node.resume()

    return fault


@contextlib.asynccontextmanager
async def restart_all(world: World) -> AsyncIterator[str]:
    """End all processes at once, asked or killed, and start them again."""
    with world.claim(world.free(len(world.cluster.nodes))) as nodes:
        kill = world.chance.random() < 0.5
        try:
            await asyncio.gather(*(node.kill() if kill else node.stop() for node in nodes))
            yield f"all are {'killed' if kill else 'stopped'}"
        finally:
            await world.revive(nodes)


@contextlib.asynccontextmanager
async def slow_network(world: World) -> AsyncIterator[str]:
    """Make all links, or those of one node, late and lossy."""
    names = world.names
    chosen = names if world.chance.random() < 0.5 else names[:1]
    pairs = {(a, b) for a in names for b in names if a != b and (a in chosen or b in chosen)}
    delay, loss = world.chance.uniform(0.005, 0.08), world.chance.uniform(0.01, 0.15)
    with world.links.troubled(pairs, Link(delay=delay, loss=loss)):
        yield f"links of {' '.join(sorted(chosen))}: {delay * 1000:.0f} ms late, {loss:.0%} lost"


def slowing_disks(*, leader: bool = False, many: bool = False) -> Fault:
    """Make a fault that lets syncs take long."""

    @contextlib.asynccontextmanager
    async def fault(world: World) -> AsyncIterator[str]:
        names = await world.victims(majority(world) if many else 1, leader=leader)
        delay = world.chance.uniform(0.02, 0.3)
        with world.claim(names) as nodes:
            async with contextlib.AsyncExitStack() as stack:
                for node in nodes:
                    try:
                        await stack.enter_async_context(slow_syncs(node.pid, delay))
                    except CannotTrace as error:
                        raise NotNow from error
                yield f"each fsync of {' '.join(names)} takes {delay * 1000:.0f} ms more"

    return fault


@contextlib.asynccontextmanager
async def replacement(world: World) -> AsyncIterator[str]:
    """Have the group remove a node, which may be the leader; wipe its disk, and let it join as a newcomer."""
    unfinished = sorted(world.unfinished - world.claimed)
    with world.claim(unfinished[:1] or world.free(1)) as (node,):
        world.unfinished.add(node.name)
        await remove(world, node)
        await node.kill()
        try:
            yield f"{node.name} is removed, its disk wiped"
        finally:
            await rejoin(world, node)


@contextlib.asynccontextmanager
async def transfer(world: World) -> AsyncIterator[str]:
    """Hand leadership over.

    Raises:
        NotNow: nobody leads, or the leader is some other fault's.
    """
    leader = await world.leader()
    if leader in world.claimed:
        raise NotNow
    try:
        text = f"{await world.cluster.nodes[leader].ask('transfer', within=2.0)} leads instead of {leader}"
    except (Refused, NodeGone) as error:
        text = f"{leader} is asked to hand over: {error}"
    yield text


async def remove(world: World, node: NodeProcess) -> None:
    """Have a node removed; it is asked of any other, until the group says that it knows the node no more.

    Raises:
        NotNow: the group did not get to it in time; it may yet.
    """
    try:
        async with asyncio.timeout(REMOVAL_SECONDS):
            while not await is_removed(world, node.name):  # noqa: ASYNC110 - nobody tells when it is time
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise NotNow from None


async def is_removed(world: World, name: str) -> bool:
    """Ask some node to remove another; tell whether the group says that it has."""
    asked = next(other for other in world.names if other != name)
    try:
        await world.cluster.nodes[asked].ask("remove", name, within=REMOVAL_SECONDS)
    except NodeGone:
        return False
    except Refused as refused:
        # It is none any longer if an earlier try ended without an answer, and went through all the same.
        return refused.kind == "InvalidConfiguration" and f"{name} is no member" in str(refused)
    return True


async def rejoin(world: World, node: NodeProcess) -> None:
    """Let a node that was removed join with an empty disk; left to ``mend`` when the group does not take it now."""
    await node.kill()
    node.empty()
    try:
        await node.start(world.cluster.others(node.name))
    except Refused:
        return
    world.unfinished.discard(node.name)


async def mend(world: World) -> None:
    """Once every fault is over: take in again whoever is missing, as a newcomer.

    Raises:
        NotNow: the group does not do it.
    """
    for name in sorted(world.unfinished):
        node = world.cluster.nodes[name]
        await remove(world, node)  # Its last try may have made it a member, under an id that its disk has lost.
        await rejoin(world, node)
    if world.unfinished:
        raise NotNow


FAULTS: Mapping[str, Fault] = {
    "halves": cutting(partitions.halves),
    "one alone": cutting(partitions.one_alone),
    "leader in minority": cutting(partitions.leader_in_minority),
    "bridge": cutting(partitions.bridge),
    "ring": cutting(partitions.ring),
    "one way": cutting(partitions.one_way),
    "kill": killing(),
    "kill leader": killing(leader=True),
    "kill majority": killing(many=True),
    "pause": pausing(),
    "pause leader": pausing(leader=True),
    "pause majority": pausing(many=True),
    "restart all": restart_all,
    "slow network": slow_network,
    "slow disk": slowing_disks(),
    "slow disk of leader": slowing_disks(leader=True),
    "slow disks of majority": slowing_disks(many=True),
    "replacement": replacement,
    "transfer": transfer,
}
"""Every fault that can be drawn."""

NEED_A_DISK = ("kill", "kill leader", "kill majority", "restart all")
"""Those after which a node goes on with what is on its disk."""

SLOW_DISKS = ("slow disk", "slow disk of leader", "slow disks of majority")
"""Those that need strace."""
