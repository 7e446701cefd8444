"""Calls over frames, whatever carries the frames."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import Unavailable
from quorate.transport.calls import CancelCall, Failure, Reply, Value, WatchStatusCall, WriteCall
from quorate.transport.channel import FOREVER, FrameChannel, Replies
from quorate.transport.frames import FrameKind, decode_frame
from tests.transport.bench import ask

BYTES_MAX = 1 << 16


class Wire:
    """Keeps the frames that are written."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.channel = FrameChannel("node:1", self.frames.append, self.hang_up, BYTES_MAX)

    async def hang_up(self) -> None:
        self.frames.append(b"the end")


async def test_all_calls_of_one_turn_leave_as_one_frame():
    wire = Wire()
    calls = [asyncio.create_task(wire.channel.call(ask(b"%d" % number))) for number in range(300)]
    await asyncio.sleep(0)
    assert wire.frames == []
    await asyncio.sleep(0)
    [frame] = wire.frames
    kind, requests = decode_frame(frame, BYTES_MAX)
    assert kind is FrameKind.REQUESTS
    assert len(requests) == 300
    wire.channel.receive([Reply(request.id, Value(b"")) for request in requests])  # type: ignore[union-attr]
    assert len(await asyncio.gather(*calls)) == 300


@pytest.mark.parametrize(
    ("command", "session", "why"), [(bytes(BYTES_MAX), 0, "too many for one frame"), (b"", 2**64, "serialize ints")]
)
async def test_a_call_that_cannot_be_sent_is_told_so_and_the_others_of_its_turn_go_on(
    command: bytes, session: int, why: str
):
    wire = Wire()
    before, wrong, after = (
        wire.channel.post("peer1", call, FOREVER)
        for call in (WriteCall(b"1", 1.0), WriteCall(command, 1.0, session), WriteCall(b"2", 1.0))
    )
    await asyncio.sleep(0)
    [frame] = wire.frames
    _, requests = decode_frame(frame, BYTES_MAX)
    assert [request.call.command for request in requests] == [b"1", b"2"]  # type: ignore[union-attr]
    with pytest.raises((ValueError, OverflowError), match=why):
        await wrong
    wire.channel.receive([Reply(request.id, Value(b"")) for request in requests])  # type: ignore[union-attr]
    await asyncio.gather(before, after)


async def test_all_answers_of_one_turn_leave_as_one_frame_and_those_of_the_next_as_another():
    frames: list[bytes] = []
    replies = Replies(frames.append, BYTES_MAX)
    for number in range(300):
        replies.answer(Reply(number, Value(b"")))
    await asyncio.sleep(0)
    replies.answer(Reply(300, Value(b"")))
    await asyncio.sleep(0)
    assert [len(decode_frame(frame, BYTES_MAX)[1]) for frame in frames] == [300, 1]


async def test_an_answer_that_is_too_long_does_not_hold_up_the_others():
    frames: list[bytes] = []
    replies = Replies(frames.append, BYTES_MAX)
    replies.answer(Reply(1, Value(b"short")))
    replies.answer(Reply(2, Value(bytes(BYTES_MAX))))
    replies.flush()
    [frame] = frames
    first, second = decode_frame(frame, BYTES_MAX)[1]
    assert first == Reply(1, Value(b"short"))
    assert isinstance(second, Reply)
    assert isinstance(second.answer, Failure)
    await asyncio.sleep(0)
    assert len(frames) == 1  # what was flushed is not sent again


async def test_replies_that_nobody_waits_for_are_dropped():
    wire = Wire()
    call = asyncio.create_task(wire.channel.call(ask(b"x")))
    await asyncio.sleep(0)
    wire.channel.receive([Reply(77, Value(b"whose?")), Reply(1, Value(b"mine")), Reply(1, Value(b"again"))])
    assert (await call).answer == Value(b"mine")


async def test_the_first_reason_of_a_break_is_kept():
    wire = Wire()
    call = asyncio.create_task(wire.channel.call(ask(b"x")))
    await asyncio.sleep(0)
    wire.channel.break_off("the cable was cut")
    wire.channel.break_off("something later")
    with pytest.raises(ConnectionError, match="the cable was cut"):
        await call
    with pytest.raises(Unavailable, match="the cable was cut"):
        await wire.channel.call(ask(b"x"))


async def test_a_call_is_given_up_at_its_deadline_and_the_others_go_on():
    wire = Wire()
    now = asyncio.get_running_loop().time()
    later = asyncio.create_task(wire.channel.call(ask(b"later"), now + 3600))
    soon = asyncio.create_task(wire.channel.call(ask(b"soon"), now + 0.02))
    past = asyncio.create_task(wire.channel.call(ask(b"past"), now - 1))
    between = asyncio.create_task(wire.channel.call(ask(b"between"), now + 0.03))
    for call in (past, soon, between):
        with pytest.raises(TimeoutError):
            await call
    assert asyncio.get_running_loop().time() >= now + 0.02
    assert not later.done()
    assert not wire.channel.closed
    wire.channel.receive([Reply(number, Value(b"%d" % number)) for number in (2, 1)])  # the first comes too late
    assert (await later).answer == Value(b"1")


async def test_a_call_after_all_others_were_answered_has_its_deadline_too():
    wire = Wire()
    now = asyncio.get_running_loop().time()
    for number in (1, 2):
        call = asyncio.create_task(wire.channel.call(ask(b"x"), now + 0.02))
        await asyncio.sleep(0)
        wire.channel.receive([Reply(number, Value(b""))])
        await call
    await asyncio.sleep(0.03)  # the sweep found nobody
    with pytest.raises(TimeoutError):
        await wire.channel.call(ask(b"x"), asyncio.get_running_loop().time() + 0.02)


async def test_a_cancelled_call_leaves_nothing_to_sweep_and_a_broken_channel_no_timer():
    wire = Wire()
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    calls = [asyncio.create_task(wire.channel.call(ask(b"x"), loop.time() + 0.02)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    calls[1].cancel()  # its turn comes after the break
    wire.channel.break_off("the cable was cut")
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    with pytest.raises(ConnectionError, match="the cable was cut"):
        await calls[2]
    await asyncio.sleep(0.03)
    assert errors == []


async def test_a_call_is_taken_back_once_and_only_while_somebody_might_answer_it():
    wire = Wire()
    kept = wire.channel.post("peer1", WatchStatusCall(5.0, b""), FOREVER)
    answered = wire.channel.post("peer1", WatchStatusCall(5.0, b""), FOREVER)
    await asyncio.sleep(0)
    _, sent = decode_frame(wire.frames.pop(), BYTES_MAX)
    wire.channel.receive([Reply(sent[1].id, Value(b""))])  # type: ignore[union-attr]
    for reply in (kept, answered, kept):
        reply.cancel()
        wire.channel.take_back("peer1", reply)
    await asyncio.sleep(0)
    _, requests = decode_frame(wire.frames.pop(), BYTES_MAX)
    assert [(request.peer, request.call) for request in requests] == [("peer1", CancelCall(sent[0].id))]  # type: ignore[union-attr]
    late = wire.channel.post("peer1", WatchStatusCall(5.0, b""), FOREVER)
    wire.channel.break_off("it broke")
    wire.channel.take_back("peer1", late)
    with pytest.raises(ConnectionError):
        await late
