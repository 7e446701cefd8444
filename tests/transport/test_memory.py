"""The network in memory: its hooks decide, and a process that dies takes its channels with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quorate.errors import Unavailable
from quorate.transport.calls import Value
from quorate.transport.memory import MemoryNetwork, MemoryTransport
from tests.transport.bench import Recorder, ask, until, vote


class Controlled(MemoryNetwork):
    """Keeps every frame until it is told what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[tuple[str, str, bytes]] = []
        self.arrivals: list[Callable[[], None]] = []
        self.cut = asyncio.Event()
        self.refused = False

    def deliver(self, source: str, target: str, frame: bytes, arrive: Callable[[], None]) -> None:
        self.carried.append((source, target, frame))
        self.arrivals.append(arrive)

    async def reach(self, source: str, target: str) -> None:
        if self.refused:
            raise Unavailable(f"no way from {source} to {target}")
        await self.cut.wait()


async def node(network: MemoryNetwork, address: str) -> tuple[MemoryTransport, Recorder]:
    transport, recorder = MemoryTransport(network, address), Recorder()
    await transport.listen(recorder)
    return transport, recorder


async def test_packets_arrive_when_and_as_often_as_the_network_decides_and_are_copies():
    network = Controlled()
    left, _ = await node(network, "left:1")
    _, at_right = await node(network, "right:1")
    first, second = vote(1), vote(2)
    left.send("right:1", [first])
    left.send("right:1", [second])
    assert [carried[:2] for carried in network.carried] == [("left:1", "right:1")] * 2
    assert at_right.packets == []
    for position in (1, 0, 1):
        network.arrivals[position]()
    assert at_right.packets == [second, first, second]
    assert all(packet is not first and packet is not second for packet in at_right.packets)


async def test_packets_under_way_survive_their_source_and_vanish_with_their_target():
    network = Controlled()
    left, _ = await node(network, "left:1")
    _, at_right = await node(network, "right:1")
    left.send("right:1", [vote(1)])
    left.send("right:1", [vote(2)])
    network.disconnect("left:1")
    left.send("right:1", [vote(3)])
    network.arrivals[0]()
    network.disconnect("right:1")
    network.arrivals[1]()
    assert at_right.packets == [vote(1)]
    assert len(network.carried) == 2


async def test_a_frame_of_a_channel_arrives_once_and_both_ways_ask_the_network():
    network = Controlled()
    network.cut.set()
    _, recorder = await node(network, "node:1")
    channel = await MemoryTransport(network, "client:1").connect("node:1")
    call = asyncio.create_task(channel.call(ask(b"x")))
    await until(lambda: network.arrivals)
    for _ in range(3):
        network.arrivals[0]()
    assert len(recorder.requests) == 1
    await until(lambda: len(network.arrivals) == 2)
    assert [carried[:2] for carried in network.carried] == [("client:1", "node:1"), ("node:1", "client:1")]
    assert not call.done()
    network.arrivals[1]()
    assert (await call).answer == Value(b"x")


async def test_connecting_across_a_partition_waits_and_can_be_refused():
    network = Controlled()
    await node(network, "node:1")
    client = MemoryTransport(network, "client:1")
    connecting = asyncio.create_task(client.connect("node:1"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connecting.done()
    network.cut.set()
    assert not (await connecting).closed
    network.refused = True
    with pytest.raises(Unavailable, match="no way from client:1 to node:1"):
        await client.connect("node:1")


@pytest.mark.parametrize("victim", ["node:1", "client:1"])
async def test_a_process_that_dies_breaks_its_channels_and_no_others(victim: str):
    network = MemoryNetwork()
    transport, recorder = await node(network, "node:1")
    await node(network, "other:1")
    recorder.hold = True
    client = MemoryTransport(network, "client:1")
    channel = await client.connect("node:1")
    kept = await MemoryTransport(network, "second:1").connect("other:1")
    call = asyncio.create_task(channel.call(ask(b"x")))
    await until(lambda: recorder.held)
    network.disconnect(victim)
    with pytest.raises(ConnectionError, match=f"{victim} is gone"):
        await call
    recorder.held[0]()
    with pytest.raises(Unavailable, match="is gone"):
        await channel.call(ask(b"y"))
    assert (await kept.call(ask(b"z"))).answer == Value(b"z")
    assert transport.stopped == (victim == "node:1")


async def test_a_node_is_born_again_at_the_address_of_one_that_died():
    network = MemoryNetwork()
    dead, at_dead = await node(network, "node:1")
    network.disconnect("node:1")
    client = MemoryTransport(network, "client:1")
    with pytest.raises(Unavailable, match="node:1 refuses the connection"):
        await client.connect("node:1")
    _, recorder = await node(network, "node:1")
    channel = await client.connect("node:1")
    await dead.stop()
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    assert len(recorder.requests) == 1
    assert at_dead.requests == []
    with pytest.raises(Unavailable, match="stopped"):
        await dead.connect("node:1")
