"""Frames that have begun and not ended: how much of them is held, and for how long."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from quorate.transport import unfinished
from quorate.transport.calls import ReadCall, Request, Value
from quorate.transport.connection import Connection
from quorate.transport.frames import HEADER_BYTES, FrameKind, encode_frame
from quorate.transport.unfinished import FRAMES_MAX, Unfinished
from tests.transport.bench import Bench, ask, until
from tests.transport.test_tcp import GREETING, SMALL, hear_the_end, open_raw, warnings_in

LONG = encode_frame(FrameKind.REQUESTS, [Request(1, "peer", ReadCall(bytes(60_000), 1.0))])


class Link:
    """What a connection is to those who look after its frames."""

    def __init__(self) -> None:
        self.is_paused = False
        self.why: list[str] = []

    def fail(self, error: Exception) -> None:
        self.why.append(str(error))


async def sweep(looked_after: Unfinished) -> None:
    """Let the time go by after which they are looked at."""
    assert looked_after._timer is not None
    looked_after._timer.cancel()
    looked_after._sweep()


def links(count: int) -> list[Connection]:
    return cast(list[Connection], [Link() for _ in range(count)])


def ended(connection: Connection) -> list[str]:
    return cast(Link, connection).why


async def test_a_frame_that_does_not_go_on_ends_its_connection_and_one_that_does_not():
    looked_after = Unfinished(1000)
    still, slow, whole = links(3)
    for connection in (still, slow, whole):
        looked_after.note(connection, 10, is_new=False)
    await sweep(looked_after)
    looked_after.note(slow, 11, is_new=False)
    looked_after.note(whole, 0, is_new=True)
    await sweep(looked_after)
    assert [bool(ended(connection)) for connection in (still, slow, whole)] == [True, False, False]
    assert "has not gone on for 10 s" in ended(still)[0]
    looked_after.note(slow, 0, is_new=True)
    await sweep(looked_after)
    assert looked_after._timer is None


async def test_a_frame_that_is_not_read_for_now_is_not_called_still():
    looked_after = Unfinished(1000)
    (connection,) = links(1)
    looked_after.note(connection, 10, is_new=False)
    for is_paused in (False, True, False):
        connection.is_paused = is_paused
        if is_paused:
            looked_after.note(connection, 10, is_new=False)  # As ``Connection.pause_reading`` does.
        await sweep(looked_after)
        assert ended(connection) == []
    await sweep(looked_after)
    assert len(ended(connection)) == 1
    looked_after.stop()


async def test_of_too_many_parts_of_frames_the_one_that_began_first_is_given_up():
    looked_after = Unfinished(1000)
    connections = links(FRAMES_MAX + 1)
    for connection in connections[:-1]:
        looked_after.note(connection, 1000, is_new=False)
    looked_after.note(connections[0], 1000, is_new=True)  # It has ended, and another has begun.
    assert not any(map(ended, connections))
    looked_after.note(connections[-1], 1, is_new=False)
    assert [place for place, connection in enumerate(connections) if ended(connection)] == [1]
    looked_after.note(connections[-1], 1000, is_new=False)
    assert sum(map(len, map(ended, connections))) == 1
    looked_after.stop()


async def test_strangers_who_do_not_end_their_frames_are_hung_up_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(unfinished, "STALL_SECONDS", 0.02)
    node, _ = await bench.node(settings=SMALL)
    channel = await bench.transport(None, settings=SMALL).connect(node.address)
    for part in (LONG[:-1], LONG[: HEADER_BYTES - 1]):
        reader, writer = await open_raw(node.address)
        writer.write(GREETING + part)
        await hear_the_end(reader)
        writer.close()
    await until(lambda: node.bad_frames == 2)
    [warning] = [record.getMessage() for record in warnings_in(caplog)]
    assert "it has begun, and has not gone on" in warning
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")


async def test_what_is_held_of_frames_is_bounded(bench: Bench):
    node, _ = await bench.node(settings=SMALL)
    strangers = []
    for _ in range(FRAMES_MAX + 5):
        reader, writer = await open_raw(node.address)
        writer.write(GREETING + LONG[:-1])
        strangers.append((reader, writer))
    for reader, _ in strangers[:2]:
        await hear_the_end(reader)
    channel = await bench.transport(None, settings=SMALL).connect(node.address)
    assert (await channel.call(ask(bytes(60_000)))).answer == Value(bytes(60_000))
    assert node._unfinished._bytes <= FRAMES_MAX * SMALL.frame_bytes_max
    for _, writer in strangers:
        writer.close()
    await until(lambda: node._unfinished._bytes == 0)
    assert node._unfinished._sizes == {}


async def test_a_frame_that_arrives_byte_by_byte_is_taken(bench: Bench):
    node, recorder = await bench.node()
    _, writer = await open_raw(node.address)
    for byte in GREETING + encode_frame(FrameKind.REQUESTS, [ask(b"slow")]):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.0002)
    await until(lambda: recorder.requests)
    assert node._unfinished._bytes == 0
    writer.close()
