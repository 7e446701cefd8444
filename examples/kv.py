"""A key-value store on three nodes, in one process: form a group, write, read, lose the leader, go on, come back.

On three machines the same calls run, one node on each. Run it with: python examples/kv.py
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from quorate import Node, NotLeader, Peer, Rejected, StateMachine, connect, read, write


class KV(StateMachine):
    """Texts by key."""

    entries: dict[str, str]

    def __init__(self) -> None:
        self.entries = {}

    @write
    def set(self, key: str, value: str) -> str:
        """Store a value, and give it back."""
        self.entries[key] = value
        return value

    @read
    def get(self, key: str) -> str:
        """Give the key's value, or refuse."""
        if key not in self.entries:
            raise Rejected("key_not_found", key)
        return self.entries[key]


async def start(name: str, directory: Path, bind: str = "127.0.0.1:0") -> tuple[Node, Peer[KV]]:
    """Start a node with one peer; port 0 takes a free one."""
    node = Node(bind, data_dir=directory / name)
    await node.start()
    return node, await node.start_peer(KV, name=name)


async def run(directory: Path, stack: AsyncExitStack) -> None:
    """Walk through the life of a group; its data goes into ``directory``."""
    nodes: dict[str, Node] = {}
    peers: dict[str, Peer[KV]] = {}
    for name in ("peer1", "peer2", "peer3"):
        nodes[name], peers[name] = await start(name, directory)
        stack.push_async_callback(nodes[name].stop)
    members = [peer.address for peer in peers.values()]

    await peers["peer1"].set_configuration(*members)
    leader = await peers["peer1"].leader()
    print(f"{leader.name} leads {', '.join(peers)}")

    print(f"write foo: {await peers[leader.name].write(KV.set, 'foo', 'bar')}")
    print(f"read foo: {await peers[leader.name].read(KV.get, 'foo')}")
    try:
        await peers[leader.name].read(KV.get, "baz")
    except Rejected as refused:
        print(f"read baz: {refused}")

    follower = next(peer for peer in peers.values() if peer.name != leader.name)
    await follower.leader()  # it may not have heard of the leader yet
    try:
        await follower.write(KV.set, "foo", "baz")
    except NotLeader as error:
        print(f"write foo: {error.peer} does not lead; it names {error.redirect.name if error.redirect else 'nobody'}")
    print(f"read foo: {await follower.read(KV.get, 'foo')}")  # every peer answers reads, as new as any

    await nodes[leader.name].stop()
    print(f"{leader.name} is stopped")
    async with connect(KV, *members) as kv:  # finds the new leader, and follows it
        print(f"read foo: {await kv.read(KV.get, 'foo')}")
        print(f"write foo: {await kv.write(KV.set, 'foo', 'again')}")
        print(f"{(await kv.leader()).name} leads now")

        # The same name, directory and address: it is the same peer, and catches up.
        nodes[leader.name], peers[leader.name] = await start(leader.name, directory, leader.node)
        stack.push_async_callback(nodes[leader.name].stop)
        await peers[leader.name].leader()
        print(f"{leader.name} is back, as {peers[leader.name].status().role}")
        print(f"read foo: {await kv.read(KV.get, 'foo')}")


async def main() -> None:
    """Run the walk in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            await run(Path(directory), stack)


if __name__ == "__main__":
    # Nodes warn when a neighbour does not answer. Here that is the plot.
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
