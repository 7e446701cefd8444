"""What the tests of both transports share: nodes that keep what they receive, and what they say to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from quorate.core.messages import AppendEntries, RequestVote
from quorate.settings import Settings
from quorate.transport import Answer, Packet, Transport
from quorate.transport.calls import Reply, Request, Value, WriteCall
from quorate.transport.memory import MemoryNetwork, MemoryTransport
from quorate.transport.tcp import TCPTransport
from quorate.types import Index, Kind, PeerId, Run, Term

PATIENCE = 10.0  # seconds until a wait that hangs is given up; never waited for when all is well


class Recorder:
    """A node: keeps packets, and answers each request with its own command.

    With ``hold`` answers are kept back, ``reply`` stands for all of them, and ``fault`` is raised instead.
    """

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.sources: list[str] = []
        self.requests: list[Request] = []
        self.held: list[Callable[[], None]] = []
        self.hold = False
        self.lost: list[str] = []
        self.reply: Value | None = None
        self.fault: Exception | None = None

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        if self.fault is not None:
            raise self.fault
        self.sources.append(source)
        self.packets += packets

    def lose_node(self, node: str) -> None:
        self.lost.append(node)

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        if self.fault is not None:
            raise self.fault
        self.requests += requests
        for request in requests:
            assert isinstance(request.call, WriteCall)
            reply = Reply(request.id, self.reply or Value(request.call.command))
            if self.hold:
                self.held.append(partial(answer, reply))
            else:
                answer(reply)


class Bench:
    """Makes nodes and clients of one kind of transport, and stops them all at the end."""

    def __init__(self, kind: str, **options: object) -> None:
        self.kind = kind
        self.options = options
        self.network = MemoryNetwork()
        self.transports: list[Transport] = []

    def transport(self, bind: str | None = "127.0.0.1:0", **options: object) -> TCPTransport:
        """Make a transport over TCP that does not listen."""
        merged = {"settings": Settings(), "random": lambda: 0.5} | self.options | options
        transport = TCPTransport(bind, **merged)  # type: ignore[arg-type]
        self.transports.append(transport)
        return transport

    async def node(self, bind: str = "127.0.0.1:0", **options: object) -> tuple[TCPTransport, Recorder]:
        """Make a transport over TCP that listens, and the node behind it."""
        transport, recorder = self.transport(bind, **options), Recorder()
        await transport.listen(recorder)
        return transport, recorder

    async def any_node(self, settings: Settings | None = None) -> tuple[Transport, Recorder]:
        """Make a node of the bench's kind."""
        if self.kind == "tcp":
            return await self.node(settings=settings or Settings())
        transport, recorder = MemoryTransport(self.network, f"node{len(self.transports)}:1", settings), Recorder()
        self.transports.append(transport)
        await transport.listen(recorder)
        return transport, recorder

    def any_client(self, settings: Settings | None = None) -> Transport:
        """Make a client of the bench's kind."""
        if self.kind == "tcp":
            return self.transport(None, settings=settings or Settings())
        transport = MemoryTransport(self.network, f"client{len(self.transports)}:1", settings)
        self.transports.append(transport)
        return transport

    def twin(self, transport: Transport) -> Transport:
        """Make another transport at the address of one."""
        if self.kind == "tcp":
            return self.transport(transport.address)
        twin = MemoryTransport(self.network, transport.address)
        self.transports.append(twin)
        return twin

    async def stop(self) -> None:
        for transport in self.transports:
            await transport.stop()


def vote(number: int) -> Packet:
    """Make a packet that is told apart by its number."""
    return Packet("group", PeerId("a"), PeerId("b"), RequestVote(Term(number), PeerId("a"), Index(0), Term(0)))


def entries(size: int) -> Packet:
    """Make a packet of a size."""
    run = Run(Term(1), Index(1), Kind.COMMAND, 0.0, (bytes(size),))
    message = AppendEntries(Term(1), PeerId("a"), Index(0), Term(0), Index(0), 0, (run,))
    return Packet("group", PeerId("a"), PeerId("b"), message)


def ask(command: bytes) -> Request:
    """Make a request that is told apart by its command."""
    return Request(0, "peer", WriteCall(command, 1.0))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for is of any kind
            await asyncio.sleep(0.001)
