"""What the simulator found in the client: named, and without the rest of the world."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from quorate import Address, NotLeader, OutcomeUnknown, Settings, connect
from quorate.calling import describe
from quorate.machines import KV
from quorate.testing.clock import VirtualLoop
from quorate.transport import Answer, Packet
from quorate.transport.calls import Failure, Reply, Request, StatusCall, Value, failure_from_error
from quorate.transport.memory import MemoryNetwork, MemoryTransport


class Hangs:
    """A node that reads every request and answers none once it has said that it is of no group: it was stopped then."""

    def receive_packets(self, source: str, packets: list[Packet]) -> None:
        raise AssertionError("clients send no packets")

    def lose_node(self, node: str) -> None:
        pass

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        for request in requests:
            if isinstance(request.call, StatusCall):
                answer(Reply(request.id, Failure("Unavailable", "there is no such peer")))


class Answers(Hangs):
    """A node whose peer leads."""

    def lose_node(self, node: str) -> None:
        pass

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        for request in requests:
            answer(Reply(request.id, Value(describe(KV).replies["set"].encode("b"))))


@pytest.mark.parametrize("calls", [1, 2, 12])
def test_a_client_leaves_a_peer_that_hangs_after_the_first_deadline(calls: int) -> None:
    async def main() -> tuple[list[Any], str]:
        network = MemoryNetwork()
        await MemoryTransport(network, "a:1").listen(Hangs())
        await MemoryTransport(network, "b:1").listen(Answers())
        make = lambda: MemoryTransport(network, "client:1", Settings())  # noqa: E731
        async with connect(KV, "peer1@a:1", "peer2@b:1", transport=make, random=lambda: 0.5, exactly_once=False) as kv:
            writes = [kv.write(KV.set, "a", "b") for _ in range(calls)]
            return await asyncio.gather(*writes, return_exceptions=True), await kv.write(KV.set, "a", "b")

    loop = VirtualLoop()
    try:
        outcomes, reply = loop.run_until_complete(main())
    finally:
        loop.close()
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * calls
    assert reply == "b"


class Redirects(Hangs):
    """A node whose peer follows one that hangs, and has not noticed yet."""

    def lose_node(self, node: str) -> None:
        pass

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        for request in requests:
            answer(Reply(request.id, failure_from_error(NotLeader(Address("peer1", "a", 1), "peer2"))))


def test_a_client_leaves_a_peer_that_redirects_it_to_one_that_hangs() -> None:
    async def main() -> tuple[object, str]:
        network = MemoryNetwork()
        await MemoryTransport(network, "a:1").listen(Hangs())
        await MemoryTransport(network, "b:1").listen(Redirects())
        await MemoryTransport(network, "c:1").listen(Answers())
        make = lambda: MemoryTransport(network, "client:1", Settings())  # noqa: E731
        async with connect(KV, "peer2@b:1", "peer3@c:1", transport=make, random=lambda: 0.5, exactly_once=False) as kv:
            (first,) = await asyncio.gather(kv.write(KV.set, "a", "b"), return_exceptions=True)
            return first, await kv.write(KV.set, "a", "b")

    loop = VirtualLoop()
    try:
        first, reply = loop.run_until_complete(main())
    finally:
        loop.close()
    assert isinstance(first, OutcomeUnknown)
    assert reply == "b"
