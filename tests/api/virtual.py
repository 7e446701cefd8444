"""Real nodes on virtual time, for tests of this folder and of the suites: what is counted is the same every run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Any, TypeVar

from quorate import Address, Node, Peer, Settings, StateMachine
from quorate.core.messages import AppendEntriesReply
from quorate.store.directory import MemoryDirectory
from quorate.store.memory import MemoryStore
from quorate.surroundings import Surroundings
from quorate.testing.clock import VirtualLoop
from quorate.transport import Packet
from quorate.transport.frames import FrameKind, decode_frame
from quorate.transport.memory import MemoryNetwork, MemoryTransport

T = TypeVar("T")

DELAY = 0.001
"""Seconds that a frame takes, and a job of a disk."""


class Later:
    """An executor whose jobs take their time, one after the other."""

    def __init__(self, loop: VirtualLoop, seconds: float = DELAY) -> None:
        self.seconds = seconds
        self._loop = loop
        self._free = 0.0

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        self._free = max(self._free, self._loop.time()) + self.seconds
        self._loop.call_at(self._free, self._run, job, done)

    async def drain(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def _run(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        try:
            result = job()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)


class CountingNetwork(MemoryNetwork):
    """A network whose links can be cut one way, and that counts what peers say to each other."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop
        self.cut: set[tuple[str, str]] = set()
        self.frames: Counter[tuple[str, str]] = Counter()
        self.packets: Counter[str] = Counter()
        self.refused = 0  # Entries that did not fit the log of a follower.

    def deliver(self, source: str, target: str, frame: bytes, arrive: Callable[[], None]) -> None:
        kind, values = decode_frame(frame, 2**30)
        if kind is FrameKind.PACKETS:
            self.frames[source, target] += 1
            messages = [packet.message for packet in values if isinstance(packet, Packet)]
            self.packets.update(str(message.__struct_config__.tag) for message in messages)
            self.refused += sum(isinstance(message, AppendEntriesReply) and not message.success for message in messages)
        if (source, target) not in self.cut:
            self.loop.call_later(DELAY, arrive)

    async def reach(self, source: str, target: str) -> None:
        while (source, target) in self.cut:  # noqa: ASYNC110
            await asyncio.sleep(1.0)

    def isolate(self, *addresses: str) -> None:
        """Cut each of these off from all others."""
        everyone = list(self.nodes)
        self.cut |= {(a, b) for a in everyone for b in everyone if a != b and {a, b} & set(addresses)}

    def forget(self) -> None:
        """Count anew."""
        self.frames.clear()
        self.packets.clear()
        self.refused = 0


class World:
    """Nodes at 10.0.0.1:7000 and so on, their network and their disks."""

    def __init__(self, loop: VirtualLoop, size: int, settings: Settings) -> None:
        self.loop = loop
        self.network = CountingNetwork(loop)
        self.settings = settings
        self.random = Random(1)
        self.ids = count(1)  # They ascend: so of a new group the member that was started last leads first.
        self.disks: list[Later] = []
        self.asides: list[Later] = []
        self.nodes = [self._node(f"10.0.0.{n}:7000") for n in range(1, size + 1)]

    def _node(self, address: str) -> Node:
        disk, aside = Later(self.loop), Later(self.loop)
        self.disks.append(disk)
        self.asides.append(aside)

        def surroundings() -> Surroundings:
            return Surroundings(
                transport=MemoryTransport(self.network, address, self.settings),
                executor=disk,
                aside=aside,
                clock=self.loop,
                wall=lambda: 1.7e9,
                random=self.random,
                directory=lambda _: MemoryDirectory(lambda: f"{next(self.ids):016x}"),
                store=lambda _: MemoryStore(),
            )

        return Node(address, settings=self.settings, surroundings=surroundings)

    async def form(self, machine: type[StateMachine], *names: str, nodes: int | None = None) -> list[Peer[Any]]:
        """Form a group with one peer on each node, or on the first ones; give its peers, the leader first."""
        places = self.nodes[:nodes]
        peers = [await node.start_peer(machine, name=name) for node, name in zip(places, names, strict=True)]
        await peers[0].set_configuration(*(peer.address for peer in peers))
        await peers[0].leader()
        return sorted(peers, key=lambda peer: peer.status().role != "leader")

    async def replace_all(self, first: list[Peer[Any]], machine: type[StateMachine], pause: float) -> list[Peer[Any]]:
        """Replace one member after the other by a peer on a node behind theirs; give those."""
        current = list(first)
        for number, (old, node) in enumerate(zip(first, self.nodes[len(first) :], strict=True), 1):
            new = await node.start_peer(machine, name=f"new{number}")
            leader = await current[-1].leader()
            await next(peer for peer in current if peer.address == leader).replace_peer(old.name, new.address)
            current = [*(peer for peer in current if peer is not old), new]
            await next(node for node in self.nodes if old in node.peers).stop()
            await asyncio.sleep(pause)
        return current

    def place(self, peer: Peer[Any]) -> int:
        """Tell on which of the nodes a peer is."""
        return [node.address for node in self.nodes].index(address_of(peer))

    async def until(self, holds: Callable[[], object], seconds: float = 30.0, pause: float = 0.01) -> None:
        """Wait until something is so."""
        deadline = self.loop.time() + seconds
        while not holds():
            assert self.loop.time() < deadline, "it does not come about"
            await asyncio.sleep(pause)


def address_of(peer: Peer[Any]) -> str:
    """Give where the node of a peer is reached."""
    found: Address = peer.address
    return found.node


def run_world(size: int, settings: Settings, tell: Callable[[World], Awaitable[None]]) -> None:
    """Start the nodes, do what the test says, and stop them."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)

    async def main() -> None:
        world = World(loop, size, settings)
        for node in world.nodes:
            await node.start()
        await tell(world)
        world.network.cut.clear()
        for node in world.nodes:
            await node.stop()
        await asyncio.sleep(10 * settings.call_timeout)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    try:
        loop.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
