"""Several writes in one request: each is checked, numbered, applied and answered by itself."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorate import Peer, Unavailable
from quorate.calling import describe
from quorate.forwarding import Forwarding
from quorate.links import Links
from quorate.machines import KV
from quorate.seat import Seat
from quorate.serving import CallWaiter
from quorate.settings import Settings
from quorate.transport.calls import (
    Failure,
    OpenSessionCall,
    Reply,
    Request,
    SessionIs,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
    WritesCall,
)
from quorate.types import Status
from tests.api.virtual import World, run_world

SETTINGS = Settings(call_timeout=20.0, command_bytes_max=100)


def appends(*texts: str) -> list[bytes]:
    return [describe(KV).encode_write(KV.append, ("k", text)) for text in texts]


def value(text: str) -> Value:
    return Value(msgspec.msgpack.encode(text))


async def asked(world: World, node: int, *requests: Request) -> dict[int, object]:
    """Give the answers to requests by their ids; there is one of each."""
    replies: list[Reply] = []
    world.nodes[node].receive_requests(requests, replies.append)
    await asyncio.sleep(0.5)
    answers = {reply.id: reply.answer for reply in replies}
    assert len(answers) == len(replies)
    return answers


async def opened(world: World, peers: list[Peer[KV]]) -> int:
    """Open a session; give its id."""
    call = Request(1, peers[0].name, OpenSessionCall(60.0, 5.0))
    [answer] = (await asked(world, world.place(peers[0]), call)).values()
    assert isinstance(answer, SessionIs)
    return answer.session


def test_each_write_of_a_request_is_applied_and_answered_by_itself():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        session, leader = await opened(world, peers), world.place(peers[0])
        first = Request(10, peers[0].name, WritesCall(appends("a", "b", "c"), 5.0, session, 1, 1))
        assert await asked(world, leader, first) == {10: value("a"), 11: value("ab"), 12: value("abc")}
        again = Request(20, peers[0].name, WritesCall(appends("b", "c", "d"), 5.0, session, 2, 2))
        alone = Request(30, peers[0].name, WriteCall(appends("e")[0], 5.0, session, 5, 2))
        assert await asked(world, leader, again, alone) == {
            20: value("ab"),
            21: value("abc"),
            22: value("abcd"),
            30: value("abcde"),
        }
        assert [peer._seat.apply.tables.sessions.by_id[session].first for peer in peers] == [2, 2, 2]
        early = Request(40, peers[0].name, WritesCall(appends("g", "h"), 5.0, session, 7, 2))
        answers = await asked(world, leader, early)
        assert [type(answer) for answer in answers.values()] == [Failure, Failure]
        assert await peers[0].read(KV.get, "k") == "abcde"

    run_world(3, SETTINGS, tell)


@pytest.mark.parametrize("wrong", [b"\x91", describe(KV).encode_write(KV.set, ("k", "v" * 200)), b"\x91\xa4none"])
def test_of_a_request_those_from_the_first_wrong_write_on_are_refused(wrong):
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1")
        session = await opened(world, peers)
        call = WritesCall([*appends("a", "b"), wrong, *appends("c", "d")], 5.0, session, 1, 1)
        answers = await asked(world, 0, Request(10, "peer1", call))
        assert [answers.pop(10), answers.pop(11)] == [value("a"), value("ab")]
        assert sorted(answers) == [12, 13, 14]
        for answer in answers.values():
            assert isinstance(answer, Failure)
            assert (answer.error, "peer1 cannot take this call" in answer.message) == ("Unavailable", True)
        last = peers[0].status().last_index
        right = Request(20, "peer1", WritesCall(appends("c"), 5.0, session, 3, 3))
        assert await asked(world, 0, right) == {20: value("abc")}
        assert peers[0].status().last_index == last + 1, "what was refused entered no log"

    run_world(1, SETTINGS, tell)


def test_each_is_told_where_nobody_takes_it():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        session, follower = await opened(world, peers), peers[1]
        call = WritesCall(appends("a", "b"), 5.0, session, 1, 1)

        async def told(node: int, name: str) -> list[tuple[int, str]]:
            answers = await asked(world, node, Request(10, name, call))
            return [(number, answer.error) for number, answer in answers.items() if isinstance(answer, Failure)]

        place = world.place(follower)
        assert await told(place, follower.name) == [(10, "NotLeader"), (11, "NotLeader")]
        assert await told(place, "somebody") == [(10, "Unavailable"), (11, "Unavailable")]
        await follower.stop()
        await world.nodes[place].stop()
        assert await told(place, follower.name) == [(10, "Stopped"), (11, "Stopped")]

    run_world(3, SETTINGS, tell)


def test_a_peer_that_is_stopping_takes_none_of_them():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1")
        session = await opened(world, peers)
        peers[0]._seat.is_closing = True
        answers = await asked(world, 0, Request(10, "peer1", WritesCall(appends("a", "b"), 5.0, session, 1, 1)))
        assert [(number, answer.error) for number, answer in answers.items()] == [(10, "Stopped"), (11, "Stopped")]  # type: ignore[attr-defined]

    run_world(1, SETTINGS, tell)


def test_at_a_local_socket_each_is_a_call_of_its_own():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1")
        session = await opened(world, peers)
        node = world.nodes[0]
        forwarding = Forwarding(node._places, node.receive_requests, lambda *_: pytest.fail("asked another"), 1 << 20)
        replies: list[Reply] = []
        call = WritesCall(appends("a", "b"), 5.0, session, 1, 1)
        forwarding.receive_requests([Request(10, "", call)], replies.append)
        await asyncio.sleep(0.5)
        assert replies == [Reply(10, value("a")), Reply(11, value("ab"))]
        await forwarding.stop()

    run_world(1, SETTINGS, tell)


def test_a_call_is_answered_once_whatever_becomes_known_later():
    replies: list[Reply] = []
    waiter = CallWaiter(3, replies.append, 1.0)
    waiter.succeed(value("a"))
    waiter.fail(Unavailable("late"))
    waiter.succeed(value("b"))
    assert replies == [Reply(3, value("a"))]


class SlowTransport:
    """A transport whose connections take a moment to open."""

    async def connect(self, node: str) -> object:
        await asyncio.sleep(0.05)
        return f"a connection to {node}"


async def test_a_caller_that_gives_up_takes_no_connection_away_that_others_wait_for():
    links = Links()
    first, second = (asyncio.create_task(links.channel("x:1", SlowTransport)) for _ in range(2))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == "a connection to x:1"
    with pytest.raises(asyncio.CancelledError):
        await first


def test_all_peers_of_a_node_are_looked_at_once_for_all_who_ask_in_one_turn(monkeypatch: pytest.MonkeyPatch):
    """Each look costs; and in one turn a thousand may ask for all of a thousand peers."""
    looks: list[str] = []
    status = Seat.status

    def count(seat: Seat) -> Status:
        looks.append(seat.name)
        return status(seat)

    async def tell(world: World) -> None:
        for name in ("one", "two", "three"):
            await world.nodes[0].start_peer(KV, name=name)
        monkeypatch.setattr(Seat, "status", count)
        questions = [Request(number, ("", "nobody")[number % 2], StatusCall()) for number in range(20)]
        answers = await asked(world, 0, *questions)
        assert looks == ["one", "two", "three"]
        for number in range(0, 20, 2):
            answer = answers[number]
            assert isinstance(answer, StatusIs)
            assert [each.name for each in answer.peers] == ["one", "two", "three"]

    run_world(1, SETTINGS, tell)
