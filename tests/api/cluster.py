"""Groups of real nodes on loopback, for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from quorate import Address, Node, Peer, Settings, StateMachine

M = TypeVar("M", bound=StateMachine)

SETTINGS = Settings(heartbeat_interval=0.03, election_timeout_min=0.2, election_timeout_max=0.4)
"""Elections a little faster than the defaults, so that tests that need some of them stay short."""

CALM = Settings(heartbeat_interval=0.03, election_timeout_min=2.0, election_timeout_max=4.0)
"""No election because the machine is busy: for tests in which a leader is to stay."""


def free_ports(count: int) -> list[int]:
    """Give ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for port in taken:
            port.bind(("127.0.0.1", 0))
        return [port.getsockname()[1] for port in taken]


class Cluster(Generic[M]):
    """Nodes with one peer each: peer1 on the first, and so on."""

    def __init__(self, machine: type[M], size: int, directory: Path | None, **options: Any) -> None:
        self.machine = machine
        self.directory = directory
        self.options = {"settings": SETTINGS, **options}
        self.addresses = [Address(f"peer{n}", "127.0.0.1", port) for n, port in enumerate(free_ports(size), 1)]
        self.nodes: dict[str, Node] = {}
        self.peers: dict[str, Peer[M]] = {}

    async def start(self, name: str, **options: Any) -> Peer[M]:
        """Start one node, and its peer with these options."""
        address = self.address(name)
        where = {"store": "memory"} if self.directory is None else {"data_dir": self.directory / name}
        node = Node(address.node, **{**where, **self.options})
        await node.start()
        self.nodes[name] = node
        self.peers[name] = await node.start_peer(self.machine, name=name, **options)
        return self.peers[name]

    async def stop(self, name: str) -> None:
        """Stop one node and its peer."""
        self.peers.pop(name, None)
        await self.nodes.pop(name).stop()

    async def leave_alone(self, peer: Peer[M]) -> None:
        """Stop all nodes but that of one peer."""
        for name in [name for name in self.peers if name != peer.name]:
            await self.stop(name)

    async def form(self) -> Peer[M]:
        """Start all, form the group, and give its leader."""
        for address in self.addresses:
            await self.start(address.name)
        await self.peers["peer1"].set_configuration(*self.addresses)
        return await self.leader()

    async def leader(self, *, other_than: Address | None = None) -> Peer[M]:
        """Give the peer that leads, as soon as one that runs says so of itself."""
        async with asyncio.timeout(10):
            while True:
                for peer in self.peers.values():
                    if peer.status().role == "leader" and peer.address != other_than:
                        return peer
                await asyncio.sleep(0.01)

    async def converge(self) -> None:
        """Wait until every peer that runs has applied all that any of them holds."""
        async with asyncio.timeout(10):
            while len({(s.last_index, s.last_applied) for s in self.statuses()}) > 1 or any(  # noqa: ASYNC110
                s.last_applied != s.last_index for s in self.statuses()
            ):
                await asyncio.sleep(0.01)

    def statuses(self) -> list[Any]:
        return [peer.status() for peer in self.peers.values()]

    def address(self, name: str) -> Address:
        return next(address for address in self.addresses if address.name == name)

    def machine_of(self, name: str) -> M:
        """Look into the machine of a peer: what only a test does."""
        return self.peers[name]._seat.apply.machine  # type: ignore[return-value]

    async def close(self) -> None:
        """Stop all that runs; the last leader, which has nobody left to hand over to, does not try for its time."""
        for name in list(self.nodes):
            if len(self.nodes) == 1 and name in self.peers:
                self.peers[name]._seat.raft.is_leading_undisturbed = lambda: False  # type: ignore[method-assign]
            await self.stop(name)


@contextlib.asynccontextmanager
async def cluster(
    machine: type[M], size: int = 3, directory: Path | None = None, **options: Any
) -> AsyncIterator[Cluster[M]]:
    """Give a cluster whose nodes are not started yet, and stop those that are in the end."""
    nodes = Cluster(machine, size, directory, **options)
    try:
        yield nodes
    finally:
        await nodes.close()
