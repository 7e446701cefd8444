"""Callers: how many requests of one connection are taken in a turn, and how many may be unanswered."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quorate.settings import Settings
from quorate.transport import Answer, callers
from quorate.transport.calls import (
    CancelCall,
    Failure,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    Value,
    WatchStatusCall,
    WriteCall,
    WritesCall,
)
from quorate.transport.frames import FrameDecoder, FrameKind, Hello, encode_frame
from tests.transport.bench import Bench, Recorder, ask, until
from tests.transport.test_tcp import SMALL, open_raw

LARGE = 60_000
WATCH = WatchStatusCall(60.0, b"")


class Holder(Recorder):
    """A node that answers when it is told to, and notes how many requests came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.unanswered: dict[int, Answer] = {}

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        self.sizes.append(len(requests))
        self.requests += requests
        for request in requests:
            if isinstance(request.call, CancelCall):
                self.unanswered.pop(request.call.request, None)
            elif isinstance(request.call, WritesCall):
                self.unanswered |= dict.fromkeys(range(request.id, request.id + len(request.call.commands)), answer)
            else:
                self.unanswered[request.id] = answer

    def answer_all(self, value: bytes = b"") -> None:
        unanswered, self.unanswered = self.unanswered, {}
        for number, answer in unanswered.items():
            answer(Reply(number, Value(value)))


class Talker:
    """A caller that says exactly what it is told to say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_max: int) -> None:
        self.reader, self.writer, self.decoder = reader, writer, FrameDecoder(bytes_max)
        self.answers: dict[int, object] = {}
        self.sizes: list[int] = []
        writer.write(encode_frame(FrameKind.HELLO, [Hello("", "calls")]))

    def say(self, *calls: object, first: int = 1) -> None:
        requests = [Request(first + place, "peer", call) for place, call in enumerate(calls)]  # type: ignore[arg-type]
        self.writer.write(encode_frame(FrameKind.REQUESTS, requests))

    async def hear(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                chunk = await self.reader.read(1 << 20)
                assert chunk, "the node hung up"
                for kind, values in self.decoder.feed(chunk):
                    self.sizes.append(len(values))
                    if kind is FrameKind.REPLIES:
                        self.answers |= {reply.id: reply.answer for reply in values}  # type: ignore[union-attr]


async def talk(bench: Bench, bind: str = "127.0.0.1:0", settings: Settings | None = None) -> tuple[Holder, Talker]:
    """Make a node and somebody who calls it."""
    settings = settings or Settings()
    transport, holder = bench.transport(bind, settings=settings, advertise="127.0.0.1:7001"), Holder()
    await transport.listen(holder)
    if bind.startswith("unix:"):
        streams = await asyncio.open_unix_connection(bind.removeprefix("unix:"))
    else:
        port = transport._door._sockets[0].getsockname()[1]
        streams = await open_raw(f"127.0.0.1:{port}")
    return holder, Talker(*streams, settings.frame_bytes_max)


async def settle() -> None:
    """Let whatever is under way come to rest: nothing here waits for time."""
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "calls",
    [
        [WriteCall(b"x", 1.0)] * 5_000,
        [ReadCall(b"x", 1.0)] * 5_000,
        [WritesCall([b"x"] * 1_000, 1.0, 7, 1, 1)] * 5,
        [WriteCall(b"x", 1.0), WATCH, WritesCall([b"x"] * 100, 1.0, 7, 1, 1)] * 50,
    ],
)
async def test_a_frame_of_many_requests_is_taken_in_pieces_and_each_is_answered(bench: Bench, calls: list[object]):
    holder, talker = await talk(bench)
    ids: list[int] = []
    for call in calls:
        first = ids[-1] + 1 if ids else 1
        ids += range(first, first + (len(call.commands) if isinstance(call, WritesCall) else 1))
        if isinstance(call, WritesCall) or len(calls) < 1_000:
            talker.say(call, first=first)
    if len(calls) >= 1_000:
        talker.say(*calls)

    async def serve() -> None:
        while len(talker.answers) < len(ids):
            most = max(len(holder.unanswered), most_of[0])
            most_of[0] = most
            holder.answer_all()
            await asyncio.sleep(0)

    most_of = [0]
    serving = asyncio.create_task(serve())
    await talker.hear(lambda: len(talker.answers) == len(ids))
    await serving
    assert max(holder.sizes) <= callers.TURN_MAX
    assert most_of[0] < callers.UNANSWERED_MAX + callers.TURN_MAX
    assert set(talker.answers) == set(ids)
    talker.writer.close()


async def test_no_more_is_taken_while_much_is_unanswered_and_little_if_answers_are_long(bench: Bench):
    holder, talker = await talk(bench, settings=SMALL)
    talker.say(*[ReadCall(b"x", 1.0)] * 1_500)
    await until(lambda: holder.unanswered)
    await settle()
    assert len(holder.unanswered) <= 128  # nothing is known of the answers yet
    largest = 0
    for _ in range(30):
        holder.answer_all()
        await settle()
        largest = max(largest, len(holder.unanswered))
    assert largest > 500  # short ones are taken by the hundred
    first = 10_000
    for _ in range(10):
        talker.say(*[ReadCall(b"x", 1.0)] * 50, first=first)
        first += 50
        await until(lambda: holder.unanswered)
        holder.answer_all(bytes(LARGE))
        hearing = asyncio.create_task(talker.hear(lambda first=first: first - 1 in talker.answers))
        while not hearing.done():
            holder.answer_all(bytes(LARGE))
            await asyncio.sleep(0)
        await hearing
    talker.say(*[ReadCall(b"x", 1.0)] * 50, first=first)
    await until(lambda: holder.unanswered)
    await settle()
    assert len(holder.unanswered) <= 3
    talker.writer.close()


async def test_a_caller_that_takes_no_answers_is_asked_for_no_more_and_then_goes_on(bench: Bench):
    holder, talker = await talk(bench, settings=SMALL)
    talker.reader._transport.pause_reading()  # type: ignore[attr-defined]
    for first in range(1, 100_001, 1_000):
        talker.say(*[ReadCall(b"x", 1.0)] * 1_000, first=first)
    await until(lambda: holder.unanswered)
    for _ in range(300):
        holder.answer_all(bytes(LARGE))
        await settle()
        if not holder.unanswered:
            break
    assert not holder.unanswered
    assert len(holder.requests) < 1_000
    talker.reader._transport.resume_reading()  # type: ignore[attr-defined]
    before = len(holder.requests)
    hearing = asyncio.create_task(talker.hear(lambda: len(talker.answers) > before + 100))
    while not hearing.done():
        holder.answer_all(b"")
        await asyncio.sleep(0)
    await hearing
    talker.writer.close()


async def test_calls_that_wait_for_long_hold_up_no_others_and_are_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(callers, "WATCHES_MAX", 300)
    holder, talker = await talk(bench)
    talker.say(*[WATCH] * 300, OpenSessionCall(600.0, 1.0), WATCH, CancelCall(1), WATCH)
    await until(lambda: len(holder.unanswered) == 301)
    assert 304 in holder.unanswered  # it has the place of the first, which was taken back
    holder.unanswered.pop(301)(Reply(301, Value(b"here")))
    await talker.hear(lambda: {301, 302} <= set(talker.answers))
    assert talker.answers[301] == Value(b"here")
    refused = talker.answers[302]
    assert isinstance(refused, Failure)
    assert refused.error == "Overloaded"
    holder.unanswered.pop(2)(Reply(2, Value(b"news")))
    await talker.hear(lambda: 2 in talker.answers)
    talker.say(WATCH, first=400)
    await until(lambda: 400 in holder.unanswered)
    talker.writer.close()


async def test_calls_that_were_taken_back_at_a_local_socket_hold_up_no_others(bench: Bench, tmp_path: Path):
    holder, talker = await talk(bench, f"unix:{tmp_path}/s")
    for first in range(1, 10_000, 200):
        talker.say(*[ReadCall(b"x", 1.0)] * 100, first=first)
        talker.say(*(CancelCall(number) for number in range(first, first + 100)), first=first + 100)
    talker.say(ReadCall(b"last", 1.0), first=20_000)
    await until(lambda: 20_000 in holder.unanswered)
    talker.writer.close()


async def test_calls_that_are_refused_or_unknown_make_no_room_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(callers, "UNANSWERED_MAX", 3)
    monkeypatch.setattr(callers, "WATCHES_MAX", 1)
    read = ReadCall(b"x", 1.0)
    for bind in ("127.0.0.1:0", f"unix:{tmp_path}/s"):
        holder, talker = await talk(bench, bind)
        talker.say(WATCH, read, read, WATCH, CancelCall(77), WATCH, CancelCall(4), WATCH, read, read)
        await talker.hear(lambda: {4, 6, 8} <= set(talker.answers))  # noqa: B023 - it is awaited here
        await until(lambda: 9 in holder.unanswered)  # noqa: B023
        await settle()
        assert set(holder.unanswered) == {1, 2, 3, 9}
        holder.answer_all()
        await until(lambda: 10 in holder.unanswered)  # noqa: B023
        talker.writer.close()


async def test_no_more_is_refused_in_one_turn_than_would_be_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(callers, "TURN_MAX", 10)
    monkeypatch.setattr(callers, "WATCHES_MAX", 0)
    _, talker = await talk(bench)
    talker.say(*[WATCH] * 100)
    await talker.hear(lambda: len(talker.answers) == 100)
    assert max(talker.sizes) == 10
    talker.writer.close()


async def test_a_call_that_is_answered_though_it_was_taken_back_counts_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(callers, "UNANSWERED_MAX", 3)
    holder, talker = await talk(bench, f"unix:{tmp_path}/s")
    talker.say(*[ReadCall(b"x", 1.0)] * 2)
    await until(lambda: 2 in holder.unanswered)
    answer = holder.unanswered[1]
    talker.say(CancelCall(1), first=3)
    await until(lambda: 1 not in holder.unanswered)
    answer(Reply(1, Value(b"")))
    await talker.hear(lambda: 1 in talker.answers)
    talker.say(*[ReadCall(b"x", 1.0)] * 3, first=4)
    await until(lambda: 5 in holder.unanswered)
    await settle()
    assert set(holder.unanswered) == {2, 4, 5}
    talker.writer.close()


@pytest.mark.parametrize(
    "calls", [[ReadCall(b"x", 1.0)], [WATCH, WritesCall([b"x"], 1.0, 0, 1, 0), ReadCall(b"x", 1.0)]]
)
async def test_two_calls_with_one_id_close_the_connection(bench: Bench, calls: list[object]):
    """Counted by their ids, all that is unanswered would look like one call, and no bound would hold."""
    holder, talker = await talk(bench)
    talker.say(*calls)
    await until(lambda: len(holder.requests) == len(calls))
    talker.say(*calls)
    async with asyncio.timeout(10):
        while await talker.reader.read(1 << 16):
            pass
    assert len(holder.requests) == len(calls)
    talker.writer.close()


async def test_a_fault_of_the_receiver_in_a_later_piece_closes_the_connection(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    holder, talker = await talk(bench)
    talker.say(*[ReadCall(b"x", 1.0)] * 500)
    await until(lambda: holder.unanswered)
    holder.unanswered[1000] = holder.unanswered[1]
    holder.receive_requests = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    holder.answer_all()
    async with asyncio.timeout(10):
        while await talker.reader.read(1 << 16):
            pass
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    talker.writer.close()


async def test_a_stopping_node_sends_what_was_answered_however_much_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(callers, "ANSWERS_MAX", 100)
    holder, talker = await talk(bench, settings=SMALL)
    talker.say(*[ReadCall(b"x", 1.0)] * 50)
    await until(lambda: len(holder.unanswered) == 50)
    holder.answer_all(bytes(LARGE))
    stopping = asyncio.gather(*(transport.stop() for transport in bench.transports))
    await talker.hear(lambda: len(talker.answers) == 50)
    await stopping
    talker.writer.close()


async def test_the_call_of_another_connection_is_carried_out_between_the_pieces(bench: Bench):
    holder, talker = await talk(bench)
    other = Talker(*await open_raw(f"127.0.0.1:{bench.transports[0]._door._sockets[0].getsockname()[1]}"), 1 << 23)  # type: ignore[attr-defined]
    talker.say(*[ReadCall(b"x", 1.0)] * 5_000)
    await until(lambda: holder.unanswered)
    other.say(ask(b"other").call, first=77_777)
    hearing = asyncio.create_task(other.hear(lambda: 77_777 in other.answers))
    while not hearing.done():
        holder.answer_all()
        await asyncio.sleep(0)
    await hearing
    assert len(holder.requests) < 5_001
    talker.writer.close()
    other.writer.close()


async def test_answers_that_a_caller_who_is_gone_has_not_taken_are_held_no_longer(bench: Bench):
    """Until the garbage collector comes, which sees none of the answers, it may be long: they were gigabytes."""
    holder, talker = await talk(bench, settings=SMALL)
    large = bytes(LARGE)
    held = sys.getrefcount(large)
    gc.disable()
    try:
        talker.say(*[ReadCall(b"x", 1.0)] * 300)
        while len(holder.requests) < 300 and sys.getrefcount(large) == held:
            await until(lambda: holder.unanswered)
            answer = next(iter(holder.unanswered.values()))
            holder.answer_all(large)
            await settle()
        [transport] = bench.transports
        talker.writer.transport.abort()
        await until(lambda: transport.connections_open == 0)  # type: ignore[attr-defined]
        await settle()
        assert sys.getrefcount(large) == held
        answer(Reply(300, Value(large)))
        await settle()
        assert sys.getrefcount(large) == held
    finally:
        gc.enable()
