"""What every transport promises: packets between nodes, and calls with one reply each."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport.calls import Failure, Value
from tests.transport.bench import Bench, Recorder, ask, until, vote

SMALL = Settings(command_bytes_max=1000, append_bytes_max=1000, frame_bytes_max=67_536)


async def test_packets_arrive_in_order_with_the_address_of_their_source(any_bench: Bench):
    left, at_left = await any_bench.any_node()
    right, at_right = await any_bench.any_node()
    left.send(right.address, [vote(1), vote(2)])
    left.send(right.address, [vote(3)])
    await until(lambda: len(at_right.packets) == 3)
    right.send(left.address, [vote(4)])
    await until(lambda: at_left.packets)
    assert at_right.packets == [vote(1), vote(2), vote(3)]
    assert set(at_right.sources) == {left.address}
    assert at_left.packets == [vote(4)]
    assert at_left.sources == [right.address]


async def test_a_node_sends_to_itself_and_nothing_arrives_while_it_sends(any_bench: Bench):
    """What arrived at once would come into the middle of the turn that sends it."""
    node, recorder = await any_bench.any_node()
    node.send(node.address, [vote(1)])
    assert recorder.packets == []
    await until(lambda: recorder.packets == [vote(1)])
    assert recorder.sources == [node.address]


async def test_packets_to_nobody_vanish(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    absent, _ = await any_bench.any_node()
    await absent.stop()
    node.send(absent.address, [vote(1)])
    node.send(node.address, [vote(2)])
    await until(lambda: recorder.packets)
    assert recorder.packets == [vote(2)]


async def test_one_turn_longer_than_a_frame_arrives_whole(any_bench: Bench):
    left, _ = await any_bench.any_node(SMALL)
    right, at_right = await any_bench.any_node(SMALL)
    packets = [vote(number) for number in range(8000)]
    left.send(right.address, packets[:1])
    await until(lambda: at_right.packets)
    left.send(right.address, packets[1:])
    await until(lambda: len(at_right.packets) == 8000)
    assert at_right.packets == packets
    assert len(at_right.sources) > 2


async def test_calls_of_one_turn_each_get_their_own_reply(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    recorder.hold = True
    channel = await any_bench.any_client().connect(node.address)
    calls = [asyncio.create_task(channel.call(ask(b"%d" % number))) for number in range(100)]
    await until(lambda: len(recorder.held) == 100)
    for answer in reversed(recorder.held):
        answer()
    replies = await asyncio.gather(*calls)
    assert [reply.answer for reply in replies] == [Value(b"%d" % number) for number in range(100)]
    assert len({request.id for request in recorder.requests}) == 100
    await channel.close()


async def test_a_cancelled_call_does_not_shift_later_replies(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    recorder.hold = True
    channel = await any_bench.any_client().connect(node.address)
    call = asyncio.create_task(channel.call(ask(b"first")))
    await until(lambda: recorder.held)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    second = asyncio.create_task(channel.call(ask(b"second")))
    await until(lambda: len(recorder.held) == 2)
    for answer in recorder.held:
        answer()
    assert (await second).answer == Value(b"second")
    assert not channel.closed


async def test_a_call_to_a_node_that_hangs_ends_at_its_deadline_and_does_not_shift_later_replies(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    recorder.hold = True
    channel = await any_bench.any_client().connect(node.address)
    with pytest.raises(TimeoutError):
        await channel.call(ask(b"first"), asyncio.get_running_loop().time() + 0.02)
    second = asyncio.create_task(channel.call(ask(b"second"), asyncio.get_running_loop().time() + 60))
    await until(lambda: len(recorder.held) == 2)
    for answer in recorder.held:
        answer()
    assert (await second).answer == Value(b"second")
    assert not channel.closed


async def test_a_node_that_stops_fails_calls_under_way_and_refuses_later_ones(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    recorder.hold = True
    channel = await any_bench.any_client().connect(node.address)
    call = asyncio.create_task(channel.call(ask(b"lost")))
    await until(lambda: recorder.held)
    await node.stop()
    with pytest.raises(ConnectionError, match=node.address):
        await call
    recorder.held[0]()  # an answer to a caller that is gone goes nowhere, in silence
    assert channel.closed
    with pytest.raises(Unavailable, match=node.address):
        await channel.call(ask(b"late"))


async def test_closing_a_channel_fails_its_calls_and_no_others(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    recorder.hold = True
    client = any_bench.any_client()
    first, second = await client.connect(node.address), await client.connect(node.address)
    closed, kept = asyncio.create_task(first.call(ask(b"1"))), asyncio.create_task(second.call(ask(b"2")))
    await until(lambda: len(recorder.held) == 2)
    await first.close()
    await first.close()
    with pytest.raises(ConnectionError, match="closed on this side"):
        await closed
    for answer in recorder.held:
        answer()
    assert (await kept).answer == Value(b"2")
    assert first.closed
    assert not second.closed


async def test_a_request_longer_than_a_frame_is_refused_and_the_channel_goes_on(any_bench: Bench):
    node, recorder = await any_bench.any_node(SMALL)
    channel = await any_bench.any_client(SMALL).connect(node.address)
    with pytest.raises(ValueError, match="frame_bytes_max"):
        await channel.call(ask(bytes(SMALL.frame_bytes_max)))
    assert (await channel.call(ask(b"short"))).answer == Value(b"short")
    assert len(recorder.requests) == 1


async def test_a_reply_longer_than_a_frame_becomes_a_failure_that_says_so(any_bench: Bench):
    node, recorder = await any_bench.any_node(SMALL)
    channel = await any_bench.any_client().connect(node.address)
    recorder.reply = Value(bytes(SMALL.frame_bytes_max))
    reply = await channel.call(ask(b""))
    assert isinstance(reply.answer, Failure)
    assert reply.answer.error == "MachineError"
    assert "frame_bytes_max" in reply.answer.message
    recorder.reply = None
    assert (await channel.call(ask(b"short"))).answer == Value(b"short")


async def test_nobody_there_refuses_a_channel(any_bench: Bench):
    absent, _ = await any_bench.any_node()
    await absent.stop()
    with pytest.raises(Unavailable, match=f"{absent.address} refuses the connection"):
        await any_bench.any_client().connect(absent.address)


async def test_a_stopped_transport_opens_no_channel_and_sends_nothing(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    other, _ = await any_bench.any_node()
    await other.stop()
    await other.stop()
    other.send(node.address, [vote(1)])
    with pytest.raises(Unavailable, match="this transport has stopped"):
        await other.connect(node.address)
    with pytest.raises(RuntimeError):
        await other.listen(recorder)
    assert recorder.packets == []


async def test_an_address_in_use_is_refused(any_bench: Bench):
    node, recorder = await any_bench.any_node()
    twin = any_bench.twin(node)
    with pytest.raises(OSError, match=rf"cannot listen on {node.address}: .*[Aa]ddress already in use"):
        await twin.listen(recorder)


async def test_a_node_comes_back_at_its_address(any_bench: Bench):
    left, _ = await any_bench.any_node()
    right, _ = await any_bench.any_node()
    left.send(right.address, [vote(1)])
    await right.stop()
    again, recorder = any_bench.twin(right), Recorder()
    await again.listen(recorder)
    await right.stop()  # once more: the new one is not touched
    number = 1

    def arrived() -> bool:
        nonlocal number
        number += 1
        left.send(again.address, [vote(number)])
        return bool(recorder.packets)

    await until(arrived)
    channel = await left.connect(again.address)
    assert (await channel.call(ask(b"back"))).answer == Value(b"back")
