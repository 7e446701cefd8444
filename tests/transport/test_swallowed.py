"""Connections between nodes that something on their way has forgotten, and swallows from then on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from quorate.settings import Settings
from quorate.transport import Packet, neighbours
from quorate.transport.connection import Connection, Events
from quorate.transport.frames import FrameKind, Hello, encode_frame
from quorate.transport.tcp import TCPTransport
from tests.transport.bench import Bench, Recorder, entries, until, vote
from tests.transport.swallowing import WAYS, SwallowingProxy
from tests.transport.test_tcp import open_raw

SILENT = 0.3
INTERVAL = 0.01
SETTINGS = Settings(heartbeat_interval=0.01, election_timeout_min=0.05, election_timeout_max=SILENT / 3)
ALL_WAYS = [("there",), ("back",), WAYS]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(neighbours, "SILENT_SECONDS", SILENT)
    monkeypatch.setattr(neighbours, "NOD_SECONDS", 0.05)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench("tcp", settings=SETTINGS)
    yield made
    await made.stop()


@pytest.fixture
async def proxy() -> AsyncIterator[SwallowingProxy]:
    async with SwallowingProxy() as made:
        yield made


class Answering(Recorder):
    """A node that answers each packet with one to where it says that the other is."""

    def __init__(self, at: str = "") -> None:
        super().__init__()
        self.transport: TCPTransport | None = None
        self.at = at

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        super().receive_packets(source, packets)
        if self.transport is not None and packets:
            self.transport.send(self.at or source, [vote(2)])


async def speak(transport: TCPTransport, node: str, seconds: float) -> None:
    """Send packets to a node for a while, as a leader does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        transport.send(node, [vote(1)])
        await asyncio.sleep(INTERVAL)


async def answering(bench: Bench, at: str = "", **options: object) -> tuple[TCPTransport, Answering]:
    transport, recorder = bench.transport(**options), Answering(at)
    recorder.transport = transport
    await transport.listen(recorder)
    return transport, recorder


async def behind(bench: Bench, proxy: SwallowingProxy, way_in: str = "") -> tuple[TCPTransport, Answering]:
    """Make a node that answers, and that the others reach through a proxy."""
    node, recorder = await answering(bench, advertise=way_in or proxy.address)
    proxy.target = f"127.0.0.1:{node._door._sockets[0].getsockname()[1]}"
    return node, recorder


@pytest.mark.parametrize("ways", ALL_WAYS, ids="-".join)
@pytest.mark.parametrize("larger", [False, True])
async def test_a_connection_that_is_swallowed_is_replaced(
    bench: Bench, proxy: SwallowingProxy, ways: tuple[str, ...], larger: bool
):
    way_in = proxy.address if larger else proxy.address.replace("127.0.0.1", "localhost")
    left, at_left = await bench.node(advertise="localhost:0" if larger else "127.0.0.1:0")
    right, at_right = await behind(bench, proxy, way_in)
    assert (left.address > right.address) is larger
    await speak(left, way_in, 0.1)
    await until(lambda: at_left.packets and at_right.packets)
    proxy.swallow(*ways)
    await asyncio.sleep(0.05)
    before = len(at_left.packets)
    async with asyncio.timeout(5):
        while len(at_left.packets) < before + 10:
            await speak(left, way_in, 0.1)
    assert proxy.dialled == 2
    await speak(left, way_in, 3 * SILENT)
    assert proxy.dialled == 2  # what works is kept
    await until(lambda: left.connections_open == right.connections_open == 1)


@pytest.mark.parametrize("ways", ALL_WAYS, ids="-".join)
async def test_each_of_two_nodes_that_are_told_where_the_other_is_replaces_its_own(
    bench: Bench, proxy: SwallowingProxy, ways: tuple[str, ...]
):
    """What they say goes by the connection that each has dialled: nothing but nods comes back by it."""
    left, at_left = await bench.node()
    _, at_right = await behind(bench, proxy, "127.0.0.1:0")
    async with SwallowingProxy() as other:
        other.target, at_right.at = left.address, other.address
        await speak(left, proxy.address, 3 * SILENT)
        await until(lambda: at_left.packets and at_right.packets)
        assert (proxy.dialled, other.dialled) == (1, 1)
        proxy.swallow(*ways)
        await asyncio.sleep(0.05)
        before = len(at_left.packets)
        async with asyncio.timeout(5):
            while len(at_left.packets) < before + 10:
                await speak(left, proxy.address, 0.1)
        await speak(left, proxy.address, 3 * SILENT)
        assert (proxy.dialled, other.dialled) == (2, 1)


async def test_a_node_that_has_nothing_to_say_is_not_dialled_again(bench: Bench, proxy: SwallowingProxy):
    """No peer that is spoken to may run there."""
    left, at_left = await bench.node()
    _, at_right = await behind(bench, proxy)
    at_right.transport = None
    await speak(left, proxy.address, 3 * SILENT)
    assert len(at_right.packets) > 10
    assert at_left.packets == []
    assert proxy.dialled == 1


async def test_a_node_that_is_paused_loses_nothing_that_was_sent_to_it_meanwhile(bench: Bench, proxy: SwallowingProxy):
    left, at_left = await bench.node()
    right, at_right = await behind(bench, proxy)
    await speak(left, proxy.address, 0.1)
    await until(lambda: at_left.packets)
    first = next(iter(left._connections))
    proxy.open.clear()
    for number in range(1000, 1100):
        left.send(proxy.address, [vote(number)])
        await asyncio.sleep(INTERVAL)
    assert first.open
    assert proxy.dialled == 2  # which has not come up
    proxy.open.set()
    await until(lambda: {vote(number) for number in range(1000, 1100)} <= set(at_right.packets))
    await speak(left, proxy.address, 3 * SILENT)
    assert proxy.dialled == 2
    await until(lambda: left.connections_open == right.connections_open == 1)


class Scales:
    """What is known of a connection whose clock is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.unsent = 0
        events = Events(bool, print, print, print, print, print)  # type: ignore[arg-type]
        self.connection = Connection(events, Hello("127.0.0.1:1", "peers"), "127.0.0.1:2", 1000)
        self.connection._loop = cast(asyncio.AbstractEventLoop, self)
        self.connection._transport = cast(asyncio.Transport, self)

    def time(self) -> float:
        return self.now

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_at(self, now: float) -> bool:
        """Write, and tell whether the connection is silent then."""
        self.now = now
        self.connection.note_writing(1.0)
        return self.connection.is_silent(2.0)


async def test_silent_is_who_says_nothing_while_something_is_written_and_taken():
    scales = Scales()
    assert [scales.write_at(100 + n / 2) for n in range(5)] == [False, False, False, False, True]
    scales.unsent = 1  # whoever takes nothing is slow, and TCP knows how to deal with it
    assert not scales.connection.is_silent(2.0)
    scales.unsent = 0
    scales.connection.heard_at = 102.1
    assert [scales.write_at(102.5 + n / 2) for n in range(5)] == [False, False, False, False, True]


async def test_the_last_word_of_a_talk_waits_for_no_answer():
    scales = Scales()
    scales.connection.heard_at = 99.9
    assert not scales.write_at(100)  # an answer
    assert not scales.write_at(3700)  # and another talk, an hour later
    assert not scales.write_at(3700.1)


async def test_a_long_frame_on_a_slow_way_is_nodded_at_while_it_comes(bench: Bench):
    node, recorder = await bench.node()
    reader, writer = await open_raw(node.address)
    writer.write(encode_frame(FrameKind.HELLO, [Hello("127.0.0.1:1", "peers")]))
    frame = encode_frame(FrameKind.PACKETS, [entries(100_000)])
    for begin in range(0, len(frame), 10_000):
        writer.write(frame[begin : begin + 10_000])
        await asyncio.sleep(0.06)
    await until(lambda: recorder.packets)
    heard = await reader.read(1 << 16)
    assert heard.count(neighbours.NOD) >= 5
    writer.close()
