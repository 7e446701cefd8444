"""The network in memory: nodes of one process, for tests and the simulator. Every frame is encoded and decoded.

``MemoryNetwork`` decides what becomes of a frame and of an attempt to connect: subclass it and override ``deliver`` and
``reach`` for loss, delay, repetition, reordering and partitions. Knows no sockets, clocks or dice.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport import Channel, Packet, Receiver
from quorate.transport.channel import FrameChannel, Replies
from quorate.transport.frames import FrameKind, decode_frame, encode_frames, encode_value, fits


class MemoryNetwork:
    """What lies between the nodes. As it is, it loses nothing and keeps the order.

    Attributes:
        nodes: the transports that listen, by address.
        links: the channels that are open, oldest first.
    """

    def __init__(self) -> None:
        """Begin with no node."""
        self.nodes: dict[str, MemoryTransport] = {}
        self.links: list[Link] = []

    def deliver(self, source: str, target: str, frame: bytes, arrive: Callable[[], None]) -> None:
        """Carry a frame; here, by the next turn of the loop.

        Args:
            source: the address of the node or client that sends it.
            target: that of the node or client it is for.
            frame: its bytes, for whoever wants to look.
            arrive: makes it arrive, if the target is still there. May be called now, later, or never; for packets also
                several times. A frame of a channel arrives once at most, as TCP does not repeat either.
        """
        asyncio.get_running_loop().call_soon(arrive)

    async def reach(self, source: str, target: str) -> None:
        """Let an attempt to connect through; here, at once.

        May wait as long as it takes: across a partition for ever, until the caller's deadline cancels it.

        Raises:
            Unavailable: there is no way from source to target.
        """

    def disconnect(self, address: str) -> None:
        """Cut off the node or client at an address, as when its process dies: channels from and to it break."""
        transport = self.nodes.pop(address, None)
        if transport is not None:
            transport.stopped = True
        for link in list(self.links):
            if address in (link.source.address, link.target.address):
                link.cut(f"{address} is gone")


class MemoryTransport:
    """A ``Transport`` in memory.

    Attributes:
        network: what it is part of.
        receiver: whom it delivers to; None for a client, and before ``listen``.
        bytes_max: the longest body of a frame.
        stopped: whether it is cut off for good, by ``stop`` or ``MemoryNetwork.disconnect``.
    """

    def __init__(self, network: MemoryNetwork, address: str, settings: Settings | None = None) -> None:
        """Prepare a node or client at an address, ``host:port``, that no other has."""
        self.network = network
        self.receiver: Receiver | None = None
        self.bytes_max: int = (settings or Settings()).frame_bytes_max
        self.stopped: bool = False
        self._address = address

    @property
    def address(self) -> str:
        """Where others reach this node, ``host:port``."""
        return self._address

    async def listen(self, receiver: Receiver) -> None:
        """Begin to deliver to ``receiver``.

        Raises:
            OSError: another transport listens at the address.
            RuntimeError: it has stopped.
        """
        if self.stopped:
            raise RuntimeError("listen() works before stop()")
        if self._address in self.network.nodes:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {self._address}: address already in use")
        self.receiver = receiver
        self.network.nodes[self._address] = self

    def send(self, node: str, packets: Sequence[Packet]) -> None:
        """Send packets to a node; they vanish if none listens there when they arrive."""
        if self.stopped or self.receiver is None:
            return
        encoded = [value for value in map(encode_value, packets) if fits(value, self.bytes_max)]
        for frame in encode_frames(FrameKind.PACKETS, encoded, self.bytes_max):
            self.network.deliver(self._address, node, frame, _packets_arrive(self.network, self._address, node, frame))

    async def connect(self, node: str) -> Channel:
        """Open a channel for calls to the node at ``host:port``.

        Raises:
            Unavailable: nothing listens there, or there is no way.
        """
        await self.network.reach(self._address, node)
        if self.stopped:
            raise Unavailable("this transport has stopped")
        target = self.network.nodes.get(node)
        if target is None:
            raise Unavailable(f"{node} refuses the connection: no node listens there")
        link = Link(self, target)
        self.network.links.append(link)
        return link.channel

    async def stop(self) -> None:
        """Cut this transport off; idempotent. Another one that has its address by now is left alone."""
        self.stopped = True
        if self.network.nodes.get(self._address) is self:
            del self.network.nodes[self._address]
        for link in list(self.network.links):
            if self in (link.source, link.target):
                link.cut(f"{self._address} has stopped")


class Link:
    """One open channel: the two ends of what would be a TCP connection.

    Attributes:
        source: the end that connected, which calls.
        target: the end that answers.
        channel: what the caller holds.
    """

    def __init__(self, source: MemoryTransport, target: MemoryTransport) -> None:
        """Open a channel from one transport to another, which listens."""
        self.source = source
        self.target = target
        self.channel: FrameChannel = FrameChannel(target.address, self._send_requests, self._hang_up, source.bytes_max)
        self._replies = Replies(self._send_replies, target.bytes_max)
        self._is_cut = False

    def cut(self, reason: str) -> None:
        """Break the channel, for both ends at once; frames under way are lost."""
        self._is_cut = True
        if self in self.source.network.links:
            self.source.network.links.remove(self)
        self.channel.break_off(reason)

    async def _hang_up(self) -> None:
        """End the channel on the caller's wish."""
        self.cut("closed")

    def _send_requests(self, frame: bytes) -> None:
        """Put a frame of requests on its way."""
        if not self._is_cut:
            arrive = _once(lambda: self._receive_requests(frame))
            self.source.network.deliver(self.source.address, self.target.address, frame, arrive)

    def _send_replies(self, frame: bytes) -> None:
        """Put a frame of replies on its way."""
        if not self._is_cut:
            arrive = _once(lambda: self._receive_replies(frame))
            self.source.network.deliver(self.target.address, self.source.address, frame, arrive)

    def _receive_requests(self, frame: bytes) -> None:
        """Hand requests to the node."""
        match decode_frame(frame, self.target.bytes_max):
            case (FrameKind.REQUESTS, requests) if self.target.receiver is not None and not self._is_cut:
                self.target.receiver.receive_requests(requests, self._replies.answer)
            case _:
                pass

    def _receive_replies(self, frame: bytes) -> None:
        """Hand replies to their callers."""
        match decode_frame(frame, self.source.bytes_max):
            case (FrameKind.REPLIES, replies):
                self.channel.receive(replies)
            case _:
                pass


def _packets_arrive(network: MemoryNetwork, source: str, node: str, frame: bytes) -> Callable[[], None]:
    """Make what delivers a frame of packets to whoever listens at ``node`` by then."""

    def arrive() -> None:
        target = network.nodes.get(node)
        if target is None or target.receiver is None:
            return
        match decode_frame(frame, target.bytes_max):
            case (FrameKind.PACKETS, packets):
                target.receiver.receive_packets(source, packets)
            case _:
                pass

    return arrive


def _once(arrive: Callable[[], None]) -> Callable[[], None]:
    """Make a callable that does ``arrive`` when called first, and nothing later."""
    left = [arrive]
    return lambda: left.pop()() if left else None
