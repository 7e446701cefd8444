"""Callers: what the answers to all of them may be together, whoever takes none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import cast

import pytest

from quorate.transport import callers, connection
from quorate.transport.callers import ANSWERS_MAX, Allowance, Caller
from quorate.transport.calls import ReadCall, Reply, Value, WriteCall
from quorate.transport.tcp import TCPTransport
from tests.transport.bench import Bench, until
from tests.transport.test_callers import LARGE, Holder, Talker, settle, talk
from tests.transport.test_tcp import SMALL, open_raw

BOUND = ANSWERS_MAX * SMALL.frame_bytes_max
READ = ReadCall(b"x", 1.0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make what is unsent by one connection as small as the frames here."""
    monkeypatch.setattr(connection, "ANSWERS_UNSENT_MAX", SMALL.frame_bytes_max)


@contextlib.asynccontextmanager
async def answering(holder: Holder, value: bytes) -> AsyncIterator[None]:
    """Have a node answer all that it is asked, for a while."""

    async def answer() -> None:
        while True:
            holder.answer_all(value)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def more_talkers(bench: Bench, count: int) -> tuple[TCPTransport, list[Talker]]:
    transport = bench.transports[0]
    assert isinstance(transport, TCPTransport)
    port = transport._door._sockets[0].getsockname()[1]
    streams = [await open_raw(f"127.0.0.1:{port}") for _ in range(count)]
    return transport, [Talker(*stream, SMALL.frame_bytes_max) for stream in streams]


def held(transport: TCPTransport) -> int:
    """Tell how many bytes of answers a node holds, in fact."""
    made = sum(caller._made for caller in transport._callers.values())
    return made + sum(each.unsent for each in transport._callers)


async def rest(holder: Holder) -> None:
    """Wait until a node is asked nothing more."""
    before = -1
    while before < len(holder.requests):
        before = len(holder.requests)
        await asyncio.sleep(0.05)


async def test_answers_that_nobody_takes_have_one_bound_for_all_callers(bench: Bench):
    holder, first = await talk(bench, settings=SMALL)
    transport, others = await more_talkers(bench, 9)
    talkers = [first, *others]
    async with answering(holder, bytes(LARGE)):
        for place, talker in enumerate(talkers):
            talker.say(*[READ] * 200, first=1_000 * place)
        await rest(holder)
        assert BOUND / 2 < held(transport) < BOUND + len(talkers) * 2 * LARGE
        await asyncio.gather(*(talker.hear(lambda talker=talker: len(talker.answers) == 200) for talker in talkers))
    assert {len(answer.value) for talker in talkers for answer in talker.answers.values()} == {LARGE}  # type: ignore[attr-defined]
    assert held(transport) == transport._allowance._held == transport._allowance._claimed == 0
    for talker in talkers:
        talker.writer.close()


@pytest.mark.parametrize("count", [4, 15])
async def test_whoever_takes_its_answers_goes_on_while_others_take_none(
    bench: Bench, count: int, monkeypatch: pytest.MonkeyPatch
):
    """Beside a few at once, one by one; beside many once those are hung up on who take none."""
    monkeypatch.setattr(callers, "UNTAKEN_SECONDS", 1.0 if count > 10 else 1000.0)
    holder, idle = await talk(bench, settings=SMALL)
    transport, [*others, polite] = await more_talkers(bench, count)
    async with answering(holder, bytes(LARGE)):
        for place, talker in enumerate([idle, *others]):
            talker.say(*[READ] * 200, first=1_000 * place)
        await rest(holder)
        assert transport._allowance.left < LARGE
        polite.say(*[READ] * 100, *[WriteCall(b"x", 1.0)] * 5, first=100_000)
        await polite.hear(lambda: len(polite.answers) == 105)
        assert (transport.connections_open < count) is (count > 10)
    for talker in (idle, *others, polite):
        talker.writer.close()


async def test_reads_whose_answers_are_longer_than_was_supposed_are_made_again_and_no_writes(bench: Bench):
    """Those before were short, so that very many were taken at once."""
    holder, talker = await talk(bench, settings=SMALL)
    transport, [other] = await more_talkers(bench, 1)
    async with answering(holder, b""):
        talker.say(*[READ] * 1_000)
        await talker.hear(lambda: len(talker.answers) == 1_000)
    talker.answers.clear()
    before = len(holder.requests)
    talker.say(*[WriteCall(b"x", 1.0)] * 15, *[READ] * 985, first=10_000)
    await until(lambda: len(holder.unanswered) == 1_000)
    holder.answer_all(bytes(LARGE))
    assert held(transport) <= 15 * LARGE
    async with answering(holder, bytes(LARGE)):
        await talker.hear(lambda: len(talker.answers) == 1_000)
        other.say(*[READ] * 10, first=100_000)
        await other.hear(lambda: len(other.answers) == 10)
    assert set(talker.answers.values()) == {Value(bytes(LARGE))}
    assert before + 1_000 < len(holder.requests) < before + 3_000
    assert sum(isinstance(request.call, WriteCall) for request in holder.requests) == 15
    for each in (talker, other):
        each.writer.close()


async def test_short_answers_that_leave_with_a_long_one_were_not_counted_and_are_not_given_back(bench: Bench):
    holder, talker = await talk(bench, settings=SMALL)
    transport, _ = await more_talkers(bench, 0)
    talker.say(*[READ] * 10)
    await until(lambda: len(holder.unanswered) == 10)
    unanswered, holder.unanswered = holder.unanswered, {}
    for number, answer in unanswered.items():
        answer(Reply(number, Value(bytes(LARGE) if number == 1 else b"short")))
    await talker.hear(lambda: len(talker.answers) == 10)
    assert held(transport) == transport._allowance._held == 0
    talker.writer.close()


async def test_the_answers_to_writes_are_kept_and_whoever_takes_none_for_longest_makes_room(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    holder, idle = await talk(bench, settings=SMALL)
    transport, [talker] = await more_talkers(bench, 1)
    async with answering(holder, bytes(LARGE)):
        idle.say(*[READ] * 200)
        await rest(holder)
    assert held(transport) > LARGE
    async with answering(holder, b""):
        talker.say(*[WriteCall(b"x", 1.0)] * 100, first=500)
        await talker.hear(lambda: len(talker.answers) == 100)
    holder.requests.clear()
    for turn in range(1, 26):  # Each alone, for there is no more room.
        talker.say(WriteCall(b"x", 1.0), first=1_000 * turn)
        await until(lambda turn=turn: len(holder.requests) == turn)
    assert transport.connections_open == 2
    holder.answer_all(bytes(LARGE))
    await settle()
    assert transport.connections_open == 1
    await talker.hear(lambda: len(talker.answers) == 125)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING and "takes no" in record.msg]
    assert "closed" in record.msg
    idle.writer.close()
    talker.writer.close()


class Taker:
    """A caller as far as the allowance looks at it, which takes some of its answers at each look."""

    def __init__(self, allowance: Allowance, step: int) -> None:
        self.allowance, self.step, self.held = allowance, step, 10**9
        self.remote = "a client"
        self.is_gone = False

    def account(self) -> None:
        self.held -= self.step
        self.allowance.note(cast(Caller, self), self.held, 0)

    def go_on(self) -> bool:
        return False

    def hang_up(self) -> None:
        self.is_gone = True
        self.allowance.leave(cast(Caller, self))


async def test_whoever_takes_a_long_answer_slowly_is_not_hung_up_on(monkeypatch: pytest.MonkeyPatch):
    """It is told only when most is taken."""
    monkeypatch.setattr(callers, "UNTAKEN_SECONDS", 0.01)
    allowance = Allowance(10**9, lambda *_: None)
    slow, stuck, waiting = Taker(allowance, 1), Taker(allowance, 0), Taker(allowance, 0)
    slow.account()
    stuck.account()
    allowance.wait(cast(Caller, waiting))
    await until(lambda: stuck.is_gone)
    await asyncio.sleep(0.05)
    assert not slow.is_gone
    allowance.stop()
