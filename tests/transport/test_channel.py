"""Calls over frames, whatever carries the frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quorate.errors import Unavailable
from quorate.transport import channel
from quorate.transport.calls import (
    COMMANDS_MAX,
    CancelCall,
    Failure,
    FirstWrite,
    Reply,
    SessionIs,
    Value,
    WatchStatusCall,
    WriteCall,
    WritesCall,
    singly,
)
from quorate.transport.channel import FOREVER, FrameChannel, Replies
from quorate.transport.frames import FrameKind, decode_frame, encode_frame, encode_one_frame, encode_value
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


def first_write(sequence: int, command: bytes = b"c", session: int = 7, timeout: float = 1.0) -> FirstWrite:
    return FirstWrite(command, timeout, session, sequence, lambda: 1)


async def test_writes_of_a_session_that_follow_each_other_in_a_turn_leave_as_one_request_and_each_has_its_reply():
    wire = Wire()
    posted = [wire.channel.post("peer1", first_write(number, b"%d" % number)) for number in range(3, 6)]
    posted[1].cancel()
    posted.append(wire.channel.post("peer1", first_write(6, b"6")))
    await asyncio.sleep(0)
    later = wire.channel.post("peer1", first_write(7, b"7"))
    await asyncio.sleep(0)
    first, second = (decode_frame(frame, BYTES_MAX)[1] for frame in wire.frames)
    assert [request.call for request in first] == [WritesCall([b"3", b"4", b"5", b"6"], 1.0, 7, 3, 1)]  # type: ignore[union-attr]
    assert [request.call for request in second] == [WritesCall([b"7"], 1.0, 7, 7, 1)]  # type: ignore[union-attr]
    requests = [each for request in (*first, *second) for each in singly(request)]  # type: ignore[arg-type]
    assert [request.call for request in requests] == [
        WriteCall(b"%d" % number, 1.0, 7, number, 1) for number in range(3, 8)
    ]
    wire.channel.receive([Reply(request.id, Value(request.call.command)) for request in reversed(requests)])  # type: ignore[union-attr]
    replies = await asyncio.gather(posted[0], *posted[2:], later)
    assert [reply.answer for reply in replies] == [Value(b"3"), Value(b"5"), Value(b"6"), Value(b"7")]


@pytest.mark.parametrize(
    "other",
    [
        ("peer1", WriteCall(b"x", 1.0)),
        ("peer1", WriteCall(b"x", 1.0, 7, 2, 1)),
        ("peer2", first_write(2)),
        ("peer1", first_write(3)),
        ("peer1", first_write(2, session=8)),
        ("peer1", first_write(2, timeout=2.0)),
    ],
)
async def test_what_does_not_follow_leaves_as_a_request_of_its_own_and_ends_the_one_before(other):
    wire = Wire()
    futures = [wire.channel.post("peer1", first_write(1)), wire.channel.post(*other)]
    futures.append(wire.channel.post("peer1", first_write(2)))
    await asyncio.sleep(0)
    requests = [each for request in decode_frame(wire.frames[0], BYTES_MAX)[1] for each in singly(request)]  # type: ignore[arg-type]
    assert len(decode_frame(wire.frames[0], BYTES_MAX)[1]) == 3
    assert [request.id for request in requests] == [1, 2, 3]
    wire.channel.receive([Reply(request.id, Value(b"%d" % request.id)) for request in requests])
    assert [reply.answer for reply in await asyncio.gather(*futures)] == [Value(b"1"), Value(b"2"), Value(b"3")]


async def test_more_writes_than_one_request_may_have_leave_as_several():
    wire = Wire()
    for number in range(1, 2 * COMMANDS_MAX + 2):
        wire.channel.post("peer1", first_write(number))
    await asyncio.sleep(0)
    calls = [request.call for request in decode_frame(wire.frames[0], BYTES_MAX)[1]]  # type: ignore[union-attr]
    assert [(len(call.commands), call.sequence) for call in calls] == [
        (COMMANDS_MAX, 1),
        (COMMANDS_MAX, COMMANDS_MAX + 1),
        (1, 2 * COMMANDS_MAX + 1),
    ]


async def test_where_writes_are_not_joined_each_leaves_as_the_call_that_it_is():
    wire = Wire()
    wire.channel.commands_max = 1
    for number in (1, 2):
        wire.channel.post("peer1", first_write(number))
    await asyncio.sleep(0)
    calls = [request.call for request in decode_frame(wire.frames[0], BYTES_MAX)[1]]  # type: ignore[union-attr]
    assert calls == [WriteCall(b"c", 1.0, 7, number, 1) for number in (1, 2)]


async def test_writes_that_do_not_fit_into_a_frame_together_leave_one_by_one_and_one_too_long_for_any_is_told_so():
    wire = Wire()
    sizes = [BYTES_MAX // 2, BYTES_MAX, BYTES_MAX // 2, 10]
    posted = [wire.channel.post("peer1", first_write(number, bytes(size))) for number, size in enumerate(sizes, 1)]
    await asyncio.sleep(0)
    requests = [request for frame in wire.frames for request in decode_frame(frame, BYTES_MAX)[1]]
    assert [(request.id, request.call.sequence) for request in requests] == [(1, 1), (3, 3), (4, 4)]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="too many for one frame"):
        await posted[1]
    assert not any(future.done() for future in (posted[0], *posted[2:]))


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
    assert (second.id, second.answer.error) == (2, "MachineError")  # whoever waits for it gets it
    await asyncio.sleep(0)
    assert len(frames) == 1  # what was flushed is not sent again


@pytest.mark.parametrize("size", [0, BYTES_MAX // 2])
@pytest.mark.parametrize("wrong", [Failure("Unavailable", "\udcff"), SessionIs(2**64)])
async def test_an_answer_that_cannot_be_encoded_goes_as_the_failure_that_says_so_and_the_others_as_they_are(
    size: int, wrong: Failure | SessionIs
):
    frames: list[bytes] = []
    told: list[int] = []
    replies = Replies(frames.append, BYTES_MAX, sent=lambda some: told.extend(reply.id for reply in some))
    sound = [Reply(1, Value(bytes(size))), Reply(3, Value(bytes(size)))]
    for reply in (sound[0], Reply(2, wrong), sound[1]):
        replies.answer(reply)
    replies.flush()
    first, second, third = (reply for frame in frames for reply in decode_frame(frame, BYTES_MAX)[1])
    assert [first, third] == sound
    assert isinstance(second, Reply)
    assert isinstance(second.answer, Failure)
    assert (second.id, second.answer.error) == (2, "MachineError")
    assert "cannot be encoded" in second.answer.message
    assert told == [1, 2, 3]  # nobody counts as unanswered


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


async def test_many_bytes_of_answers_are_encoded_as_they_are_taken_and_each_once(monkeypatch: pytest.MonkeyPatch):
    frames: list[bytes] = []
    encoded: list[int] = []
    told: list[int] = []

    def encode(reply: Reply) -> bytes:
        encoded.append(reply.id)
        return encode_value(reply)

    def encode_few(kind: FrameKind, some: Sequence[Reply], bytes_max: int) -> bytes | None:
        assert len(some) <= 4  # all at once would be a second copy of all
        return encode_one_frame(kind, some, bytes_max)

    monkeypatch.setattr(channel, "encode_value", encode)
    monkeypatch.setattr(channel, "encode_one_frame", encode_few)
    replies = Replies(
        frames.append, BYTES_MAX, lambda: len(frames) % 3 == 2, lambda some: told.extend(reply.id for reply in some)
    )
    for number in range(200):
        replies.answer(Reply(number, Value(bytes(BYTES_MAX // 4))))
    await asyncio.sleep(0)
    assert [len(decode_frame(frame, BYTES_MAX)[1]) for frame in frames] == [3, 3]
    assert max(encoded) < 7
    replies.answer(Reply(200, Value(b"")))
    await asyncio.sleep(0)
    assert len(frames) == 2  # nobody takes them
    while len(told) < 201:
        frames.append(encode_frame(FrameKind.REPLIES, []))  # there is room again
        replies.flush()
    sent = [reply.id for frame in frames for reply in decode_frame(frame, BYTES_MAX)[1]]  # type: ignore[union-attr]
    assert sent == told == list(range(201))


async def test_how_long_answers_may_be_is_learnt_from_those_of_late():
    frames: list[bytes] = []
    replies = Replies(frames.append, BYTES_MAX)
    before = replies.answer_bytes
    for number in range(20):
        replies.answer(Reply(number, Value(b"short")))
        replies.flush()
    assert replies.answer_bytes < 40 < before
    replies.answer(Reply(20, Value(bytes(BYTES_MAX // 2))))
    replies.flush()
    assert replies.answer_bytes > BYTES_MAX // 2


async def test_a_connection_by_which_nothing_comes_takes_no_further_calls_and_is_closed_behind_the_last(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(channel, "SILENT_SECONDS", 0.01)
    wire = Wire()
    now = asyncio.get_running_loop().time()
    patient = wire.channel.post("peer1", ask(b"1").call, now + 60.0)
    hasty = wire.channel.post("peer1", ask(b"2").call, now + 0.02)
    with pytest.raises(TimeoutError):
        await hasty
    assert wire.channel.closed
    with pytest.raises(Unavailable, match="node:1 has said nothing for too long"):
        wire.channel.post("peer1", ask(b"3").call, FOREVER)
    assert wire.frames[1:] == []
    wire.channel.receive([Reply(1, Value(b"late"))])
    assert (await patient).answer == Value(b"late")
    await asyncio.sleep(0)
    assert wire.frames[1:] == [b"the end"]


async def test_a_connection_by_which_something_came_goes_on_though_a_call_has_run_out_of_time(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(channel, "SILENT_SECONDS", 0.01)
    wire = Wire()
    now = asyncio.get_running_loop().time()
    slow = wire.channel.post("peer1", ask(b"1").call, now + 0.02)
    answered = wire.channel.post("peer1", ask(b"2").call, FOREVER)
    await asyncio.sleep(0)
    wire.channel.receive([Reply(2, Value(b""))])
    await answered
    with pytest.raises(TimeoutError):
        await slow
    assert not wire.channel.closed
    hasty = wire.channel.post("peer1", ask(b"3").call, now + 0.021)  # too short to learn anything from
    with pytest.raises(TimeoutError):
        await hasty
    assert not wire.channel.closed
