"""The network: what quorate asks of a transport.

**Packets** between peers may be lost, delayed, repeated and reordered; they are never altered, and never arrive from
anyone but a node (with TLS: one that holds a certificate). **Calls** are requests with one reply each, for clients and
for joining; a call whose connection breaks has no reply, and whether it was carried out is then unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from quorate.core.messages import Message
from quorate.transport.calls import Call, FirstWrite, Reply, Request
from quorate.types import PeerId


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """One message between two peers of a group.

    Attributes:
        group: the group's id: a packet of another group is refused.
        sender: the id of the peer that says it.
        to: the id of the peer it is for.
        message: what is said.
    """

    group: str
    sender: PeerId
    to: PeerId
    message: Message


Answer = Callable[[Reply], None]
"""Sends the one reply to a request, now or later, from the loop's thread; does nothing if the caller is gone."""


class Receiver(Protocol):
    """What a transport delivers to: a node. All is called from the loop's thread and must not block."""

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        """Take packets from the node that is reached at ``source``, ``host:port``: a hint, never a proof."""
        ...

    def lose_node(self, node: str) -> None:
        """Learn that a node, ``host:port``, cannot be reached now: a hint, never a proof, and not always given.

        There is no connection to it, and an attempt to open one has failed just now.
        """
        ...

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        """Take the requests of one frame of a client; answer each once, now or later, if it is not taken back."""
        ...


class Channel(Protocol):
    """A connection of a client to one node."""

    async def call(self, request: Request, deadline: float = float("inf"), /) -> Reply:
        """Send a request and wait for its reply; giving up leaves the connection sound, by deadline or cancelled.

        ``request.id`` is replaced by one that is unique on the channel, and the reply carries it. The deadline is an
        instant on the loop's clock.

        Raises:
            ValueError: the request is longer than a frame may be; it was not sent.
            Unavailable: the connection was gone before the request was sent.
            ConnectionError: it broke afterwards; whether the request was carried out is unknown.
            TimeoutError: there was no reply until the deadline; the same is unknown.
        """
        ...

    def post(self, peer: str, call: Call | FirstWrite, deadline: float, /) -> asyncio.Future[Reply]:
        """Send a call to a peer, as ``call`` does, without waiting: the reply, or the error, comes into the future.

        Writes of a session that follow each other in one turn may travel as one request.

        Raises:
            Unavailable: the connection was gone before the call was sent.
        """
        ...

    def take_back(self, peer: str, reply: asyncio.Future[Reply], /) -> None:
        """Tell a peer that nobody waits any longer for the reply to a call that it may keep for long: see ``post``."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it takes no further calls: the connection is gone, or seems to be."""
        ...

    async def close(self) -> None:
        """Close the connection; calls under way fail with ``ConnectionError``. Idempotent."""
        ...


class Transport(Protocol):
    """The network of one node, or of one client (which never listens)."""

    @property
    def address(self) -> str:
        """Where others reach this node, ``host:port``; known once ``listen`` has returned."""
        ...

    async def listen(self, receiver: Receiver) -> None:
        """Begin to deliver to ``receiver``.

        Raises:
            OSError: the address cannot be bound; the message says why.
        """
        ...

    def send(self, node: str, packets: Sequence[Packet]) -> None:
        """Send packets to a node, ``host:port``, as one frame where they fit; drop them where they cannot go now.

        Never blocks and never raises for what the network does. Connects when there is no connection yet.
        """
        ...

    async def connect(self, node: str) -> Channel:
        """Open a channel for calls to the node at ``host:port``.

        Raises:
            Unavailable: it cannot be reached; the reason says why.
        """
        ...

    async def stop(self) -> None:
        """Close everything; idempotent."""
        ...
