"""What faults are done to: the nodes, the links between them, and who of them some fault has taken already."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from quorate import Client, Unavailable
from quorate.machines import KV
from quorate.testing.chaos.cluster import Cluster, NodeProcess
from quorate.testing.chaos.links import Links


class NotNow(Exception):
    """The fault cannot be done now: too few nodes are free for it, or the group did not do its part."""


@dataclass(slots=True)
class World:
    """What faults are done to.

    Attributes:
        cluster: the nodes.
        links: what is between them.
        kv: a client, to ask who leads.
        chance: draws what a fault leaves open.
        claimed: names of nodes that some fault has stopped, paused or removed.
        unfinished: names of nodes that were to be removed and to join again, and of which that is not known to be done.
    """

    cluster: Cluster
    links: Links
    kv: Client[KV]
    chance: random.Random
    claimed: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        """All names, in an order drawn anew."""
        names = list(self.cluster.nodes)
        self.chance.shuffle(names)
        return names

    @contextlib.contextmanager
    def claim(self, names: Sequence[str]) -> Iterator[list[NodeProcess]]:
        """Have some nodes for one fault alone.

        Raises:
            NotNow: another fault has one of them.
        """
        if not self.claimed.isdisjoint(names):
            raise NotNow
        self.claimed.update(names)
        try:
            yield [self.cluster.nodes[name] for name in names]
        finally:
            self.claimed.difference_update(names)

    def free(self, count: int) -> list[str]:
        """Draw nodes that no fault has claimed.

        Raises:
            NotNow: there are not as many.
        """
        names = [name for name in self.names if name not in self.claimed]
        if len(names) < count:
            raise NotNow
        return names[:count]

    async def leader(self) -> str:
        """Give who leads, as the group says.

        Raises:
            NotNow: it says nothing.
        """
        try:
            return (await self.kv.with_options(timeout=1.0).leader()).name
        except Unavailable:
            raise NotNow from None

    async def victims(self, count: int, *, leader: bool) -> list[str]:
        """Draw nodes for a fault, the leader first if it is meant.

        Raises:
            NotNow: there are not as many free.
        """
        if not leader:
            return self.free(count)
        first = await self.leader()
        free = self.free(count)
        return [first, *(name for name in free if name != first)][:count]

    async def revive(self, nodes: Sequence[NodeProcess]) -> None:
        """Start nodes again, on what is on their disks.

        Raises:
            NodeGone: one is not ready in time.
        """
        await asyncio.gather(*(node.start() for node in nodes))
