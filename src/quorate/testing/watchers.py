"""Those who watch a simulated group, where its machine emits events: each sees every event once, in the log's order.

What they see is held against what a machine emits that runs all that was ever to take effect, one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec

from quorate.client import Client, connect
from quorate.errors import Compacted, Unavailable
from quorate.events import Emitted, Place
from quorate.machine import StateMachine, events_of
from quorate.settings import Settings
from quorate.testing.clock import VirtualLoop
from quorate.testing.invariants import History
from quorate.testing.network import SimulatedNetwork
from quorate.transport.memory import MemoryTransport
from quorate.types import Address, Index
from quorate.watching import GRACE

COUNT = 2
"""How many watch."""
AGAIN_SHARE = 0.05
"""How often one who has seen an event gives its watch up, and begins another one behind that event: until all is to be
seen, for each new watch may begin with peers that know of nothing."""
AWAY_MAX = 2.0
"""How long it may be away in between, seconds: most often hardly at all."""


class Seen(msgspec.Struct):
    """What one of them saw without a gap.

    Attributes:
        begin: where that began.
        events: the events, in the order in which they came.
    """

    begin: Place
    events: list[Emitted] = []


class Watchers:
    """Those who watch in one run; nobody if the machine emits nothing."""

    def __init__(
        self,
        machine: type[StateMachine],
        settings: Settings,
        addresses: Sequence[Address],
        loop: VirtualLoop,
        network: SimulatedNetwork,
        history: History,
        random: Random,
    ) -> None:
        """Prepare them."""
        self._machine = machine
        self._loop = loop
        self._history = history
        self._random = random
        # A peer that was removed, and does not know it, thinks for an election timeout yet that somebody leads.
        # Twice: whoever learns that what it asks for is gone begins anew with the first of the peers.
        self._patience = 2 * (len(addresses) + 3) * (settings.call_timeout + GRACE) + settings.election_timeout_max
        self._is_demanded = False
        self._is_over = False
        self._clients: list[Client[Any]] = []
        self._seen: list[list[Seen]] = []
        self._tasks: list[asyncio.Task[None]] = []
        for number in range(1, COUNT + 1 if events_of(machine).names else 1):
            transport = partial(MemoryTransport, network, f"watcher{number}:1", settings)
            order = random.sample(list(addresses), len(addresses))
            self._clients.append(connect(machine, *order, settings=settings, transport=transport, random=random.random))

    def begin(self) -> None:
        """Let them watch, from the first event on."""
        for client in self._clients:
            seen = [Seen((1, 0))]
            self._seen.append(seen)
            self._tasks.append(self._loop.create_task(self._watch(client, seen)))

    async def demand_all(self) -> None:
        """Demand that each has seen all there was, but for what nobody held any longer; and let them go.

        Raises:
            Violation: one has not, or has seen something else.
        """
        expected = self._history.emitted(self._machine)
        last = (expected[-1].index, expected[-1].place) if expected else (0, 0)
        deadline = self._loop.time() + self._patience
        self._is_demanded = True
        while not all(has_reached(seen[-1], last) for seen in self._seen):
            if self._loop.time() >= deadline:
                raise self._history.fail("EventsArrive", f"a watcher has not seen the event at {last} in time")
            await asyncio.sleep(0.05)
        self._is_over = True
        for client in self._clients:
            await client.close()
        await asyncio.gather(*self._tasks)
        expected = self._history.emitted(self._machine)  # Timers went on running meanwhile.
        places = [(event.index, event.place) for event in expected]
        for stretch in (stretch for seen in self._seen for stretch in seen):
            first = bisect_left(places, stretch.begin)
            if stretch.events != expected[first : first + len(stretch.events)]:
                pairs = itertools.zip_longest(stretch.events, expected[first:])
                told, emitted = next(pair for pair in pairs if pair[0] != pair[1])
                raise self._history.fail("EventsOnce", f"a watcher saw {told} where {emitted} was emitted")

    async def _watch(self, client: Client[Any], seen: list[Seen]) -> None:
        """Be one of them, until the client is closed."""
        watch = client.watch(after=0)
        while True:
            try:
                async for change in watch:
                    encoded = msgspec.msgpack.encode(change.event)
                    seen[-1].events.append(Emitted(change.index, change.place, encoded))
                    if not self._is_demanded and self._random.random() < AGAIN_SHARE:
                        await watch.aclose()
                        await asyncio.sleep(AWAY_MAX * self._random.random() ** 3)
                        watch = client.watch(after=change)
                        break
                else:
                    return
            except Unavailable:
                if self._is_over:
                    return
                await asyncio.sleep(0.05)
            except Compacted as gone:
                await watch.aclose()
                watch = client.watch(after=gone.first - 1)
                seen.append(Seen((Index(gone.first), 0)))


def has_reached(seen: Seen, last: Place) -> bool:
    """Tell whether somebody has seen the event at that place, or began behind it."""
    if seen.begin > last:
        return True
    return bool(seen.events) and (seen.events[-1].index, seen.events[-1].place) >= last
