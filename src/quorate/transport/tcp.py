"""The network over TCP, and a node's local socket: listens, dials, and passes what arrives to a node.

Which of two connections to a neighbour stays is decided in ``neighbours.py``; what a connection says first and how it
ends, in ``connection.py``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import weakref
from collections.abc import Callable, Sequence

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport import Channel, Packet, Receiver
from quorate.transport.accepting import Door, bind
from quorate.transport.callers import Allowance, Caller
from quorate.transport.channel import FrameChannel
from quorate.transport.connection import LINGER_SECONDS, Connection, Events, close_all, explain
from quorate.transport.dialling import open_socket
from quorate.transport.frames import Frame, FrameError, FrameKind, Hello, encode_frames, encode_value, fits
from quorate.transport.local import LocalSocket, local_path
from quorate.transport.neighbours import Neighbours
from quorate.transport.security import TLS, Certificates
from quorate.transport.unfinished import Unfinished
from quorate.types import format_node, parse_node

DIAL_SECONDS = 2.0
"""How long connecting to a neighbour may take before it is tried anew."""

WARNING_SECONDS = 10.0
"""Warnings of one kind are at least this far apart."""

_logger = logging.getLogger(__name__)


class TCPTransport:
    """A ``Transport`` over TCP, with TLS if it is given; or, for clients alone, over a local socket.

    Attributes:
        connections_accepted: how many connections others have opened to this node.
        bad_frames: how many connections were closed because a frame could not be read.
        dropped_packets: how many packets were dropped because they were too long, or too much waited to be sent.
    """

    def __init__(
        self,
        bind: str | None,
        *,
        advertise: str | None = None,
        settings: Settings,
        tls: TLS | None = None,
        random: Callable[[], float],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            bind: where to listen, ``host:port``; port 0 takes a free one. None for a client, which never listens.
                ``unix:PATH`` for a local socket, at which clients alone are served; it needs ``advertise``.
            advertise: where others reach this node, ``host:port``, if that is not ``bind``; port 0 stands for the
                port that is bound.
            settings: for the largest frame, the time of a call, and the delays between attempts to connect.
            tls: the certificates; None sends everything in the clear.
            random: gives numbers from 0 to 1, for the jitter of the delays.

        Raises:
            ValueError: an address is not of that form, or others cannot reach it and ``advertise`` does not help.
            OSError: a certificate cannot be loaded.
        """
        self._path = local_path(bind) if bind is not None else None
        self._bind = parse_node(bind) if bind is not None and self._path is None else None
        self._advertise = parse_node(advertise) if advertise is not None else self._bind
        if self._advertise is not None and _is_wildcard(self._advertise[0]):
            raise ValueError(f"others cannot reach {format_node(*self._advertise)}: say where they can with advertise=")
        self._bytes_max = settings.frame_bytes_max
        self._connect_seconds = settings.call_timeout
        self._certificates = Certificates(tls) if tls is not None else None
        self._door = Door(self._accepted, self._certificates, self._warn)
        self._linger = LINGER_SECONDS if tls is not None else None  # asyncio refuses TLS's knobs on a plain connection.
        self._unfinished = Unfinished(self._bytes_max)
        self._allowance = Allowance(self._bytes_max, self._warn)
        self._events = Events(
            self._opened, self._greeted, self._received, self._drained, self._note_unfinished, self._lost
        )
        self._neighbours = Neighbours(lambda: self.address, self._dial_neighbour, settings, random, self._lose)
        self._receiver: Receiver | None = None
        self._local: LocalSocket | None = None
        self._stopped = False
        self._connections: dict[Connection, None] = {}
        self._channels: dict[Connection, FrameChannel] = {}
        self._callers: dict[Connection, Caller] = {}
        self._silent_until: dict[str, float] = {}
        _transports.add(self)
        self.connections_accepted: int = 0
        self.bad_frames: int = 0
        self.dropped_packets: int = 0

    @property
    def address(self) -> str:
        """Where others reach this node, ``host:port``; known once ``listen`` has returned. Empty for a client."""
        return format_node(*self._advertise) if self._advertise is not None else ""

    @property
    def connections_open(self) -> int:
        """How many connections are open, whoever dialled them."""
        return len(self._connections)

    async def listen(self, receiver: Receiver) -> None:
        """Begin to deliver to ``receiver``.

        Raises:
            OSError: the address cannot be bound; the message says why.
            RuntimeError: the transport has no address to bind, or it listens already, or has stopped.
        """
        has_place = self._path is not None or self._bind is not None
        if not has_place or self._advertise is None or self._receiver is not None or self._stopped:
            raise RuntimeError("listen() works once, before stop(), and only with an address to bind")
        self._receiver = receiver
        try:
            if self._path is not None:
                await self._listen_at(self._path)
            elif self._bind is not None:
                await self._listen_on(*self._bind)
        except OSError:
            self._receiver = None
            raise

    async def _listen_at(self, path: str) -> None:
        """Listen at a path; no TLS there, since the machine itself says who may open it."""

        def bound() -> LocalSocket:
            # Kept at once: were the start cancelled just then, nobody else could take it away.
            self._local = LocalSocket(path)
            if self._stopped:
                self._local.close()
            return self._local

        # In a thread, since it may ask who is there already: perhaps another node of this very loop.
        self._door.open([(await asyncio.to_thread(bound)).socket])

    async def _listen_on(self, host: str, port: int) -> None:
        """Listen on a port, and learn which one that is.

        Raises:
            OSError: the address cannot be bound; the message says why.
        """
        try:
            sockets = await bind(host, port)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(error.errno, f"cannot listen on {format_node(host, port)}: {why}") from error
        self._door.open(sockets)
        bound = [listening.getsockname() for listening in sockets]
        assert self._advertise is not None, "whoever binds an address has one"
        self._advertise = (self._advertise[0], self._advertise[1] or bound[0][1])
        if self._certificates is None and not all(ipaddress.ip_address(name[0]).is_loopback for name in bound):
            _logger.warning(
                "%s is open to other machines without TLS: whoever reaches it can read and change all that its peers"
                " keep -> give it certificates (tls=TLS(...)), or bind a loopback address",
                format_node(host, bound[0][1]),
            )

    def _accepted(self) -> Connection:
        """Make a connection that another side has dialled."""
        return Connection(self._events, Hello(self.address, "accepted"), "", self._bytes_max)

    def send(self, node: str, packets: Sequence[Packet]) -> None:
        """Send packets to a node, ``host:port``, as one frame where they fit; drop them where they cannot go now.

        Never blocks and never raises for what the network does. Connects when there is no connection yet.
        """
        receiver = self._receiver
        if not packets or receiver is None or self._stopped:
            return
        if node == self.address:
            asyncio.get_running_loop().call_soon(receiver.receive_packets, node, packets)
            return
        if self._neighbours.unsent(node) > 4 * self._bytes_max:
            self.dropped_packets += len(packets)
            self._warn("slow", "%s takes packets too slowly -> they are dropped", node)
            return
        encoded = [value for value in map(encode_value, packets) if fits(value, self._bytes_max)]
        if len(encoded) < len(packets):
            self.dropped_packets += len(packets) - len(encoded)
            self._warn("long", "a packet for %s is longer than a frame may be (frame_bytes_max) -> dropped", node)
        self._neighbours.send(node, encode_frames(FrameKind.PACKETS, encoded, self._bytes_max))

    async def connect(self, node: str) -> Channel:
        """Open a channel for calls to the node at ``host:port``, or at ``unix:PATH``.

        Raises:
            Unavailable: it cannot be reached within ``Settings.call_timeout``; the reason says why.
        """
        connection = await self._dial(node, Hello("", "calls"), self._connect_seconds)
        channel = FrameChannel(node, connection.write, lambda: close_all([connection]), self._bytes_max)
        self._channels[connection] = channel
        return channel

    @property
    def descriptors(self) -> list[int]:
        """The files of this process that it listens at, and those of its connections."""
        opened = [connection for connection in self._connections if connection.open]
        return [*self._door.descriptors, *(connection.descriptor for connection in opened)]

    async def stop(self) -> None:
        """Close everything; idempotent. Replies that were given before are still sent."""
        self._stopped = True
        if self._local is not None:
            self._local.remove()
        self._unfinished.stop()
        self._allowance.stop()
        await self._door.close()
        if self._local is not None:
            self._local.close()
        await self._neighbours.stop()
        for caller in self._callers.values():
            caller.flush()
        await close_all(list(self._connections))

    async def _dial_neighbour(self, node: str) -> Connection:
        """Open a connection for packets."""
        return await self._dial(node, Hello(self.address, "peers"), DIAL_SECONDS)

    async def _dial(self, node: str, hello: Hello, seconds: float) -> Connection:
        """Connect to a node, whose name is resolved each time, and exchange hellos with it.

        Raises:
            Unavailable: that was not possible within the time; the reason says why.
        """
        if self._stopped:
            raise Unavailable("this transport has stopped")
        connection = Connection(self._events, hello, node, self._bytes_max)
        reached = False
        try:
            async with asyncio.timeout(seconds):
                await self._connect(connection, node, seconds)
                await connection.settled.wait()
            reached = connection.open
        except (OSError, ValueError) as error:
            raise Unavailable(f"{node} {explain(error)}") from error
        finally:
            if not reached:
                connection.abort()
        if not reached:
            raise Unavailable(f"{node} {self._why_closed(connection)}") from connection.error
        return connection

    async def _connect(self, connection: Connection, node: str, seconds: float) -> None:
        """Connect to a node, at its path or its address."""
        loop, path = asyncio.get_running_loop(), local_path(node)
        if path is not None:
            await loop.create_unix_connection(lambda: connection, path)
            return
        host, port = parse_node(node)
        tls = self._certificates.dialling() if self._certificates is not None else None
        dialled = await open_socket(host, port, seconds)
        await loop.create_connection(
            lambda: connection,
            sock=dialled,
            ssl=tls,
            server_hostname=host if tls is not None else None,
            ssl_shutdown_timeout=self._linger,
        )

    def _why_closed(self, connection: Connection) -> str:
        """Put into words why a connection ended before the other side had said hello."""
        if self._stopped:
            return "was not reached: this transport has stopped"
        if isinstance(connection.error, FrameError):
            return explain(connection.error)
        if local_path(connection.dialled) is not None:
            return "closed the connection at once: check that a node of quorate listens there"
        if self._certificates is not None:
            return "closed the connection at once: check the client certificate"
        return "closed the connection at once: check that a node listens there, and whether it wants TLS"

    def _opened(self, connection: Connection) -> bool:
        """Count a connection that came up (``Events``)."""
        if self._stopped:
            return False
        self.connections_accepted += not connection.dialled
        self._connections[connection] = None
        return True

    def _greeted(self, connection: Connection, hello: Hello) -> None:
        """Give a connection its place (``Events``).

        Raises:
            FrameError: the other side takes this side's part.
        """
        if (hello.purpose == "accepted") is not bool(connection.dialled):
            raise FrameError(f"the other side said {hello.purpose!r}, which is this side's word")
        if hello.purpose == "peers" and self._path is not None:
            raise FrameError("the local socket is for clients: peers speak over the network")
        if hello.purpose == "peers":
            self._neighbours.join(hello.node, connection)
        elif hello.purpose == "calls" and self._receiver is not None:
            is_local = self._path is not None
            caller = Caller(connection, self._receiver, self._allowance, self._bytes_max, is_local=is_local)
            self._callers[connection] = caller

    def _received(self, connection: Connection, frame: Frame) -> None:
        """Pass on what a frame holds (``Events``).

        Raises:
            FrameError: its kind does not belong on the connection.
        """
        receiver = self._receiver
        if frame[0] is FrameKind.REQUESTS and connection in self._callers:
            self._callers[connection].receive(frame[1])
        elif frame[0] is FrameKind.REPLIES and connection in self._channels:
            self._channels[connection].receive(frame[1])
        elif frame[0] is FrameKind.PACKETS and receiver is not None and connection.purpose == "peers":
            if frame[1]:  # Else it is a nod, which is answered by none.
                self._neighbours.nod(connection)
                receiver.receive_packets(connection.node, frame[1])
        else:
            raise FrameError(f"a {frame[0].name} frame does not belong on a connection for {connection.purpose}")

    def _drained(self, connection: Connection) -> None:
        """Go on with whoever calls (``Events``)."""
        caller = self._callers.get(connection)
        if caller is not None:
            caller.drained()

    def _note_unfinished(self, connection: Connection, size: int, is_new: bool) -> None:
        """Look after a frame that has not ended (``Events``)."""
        if size and connection.purpose == "peers":  # One that is long, on a way that is slow.
            self._neighbours.nod(connection)
        self._unfinished.note(connection, size, is_new=is_new)

    def _lost(self, connection: Connection) -> None:
        """Tell those who used a connection (``Events``)."""
        self._unfinished.note(connection, 0, is_new=True)
        self._door.forget(connection)
        self._connections.pop(connection, None)
        caller = self._callers.pop(connection, None)
        if caller is not None:
            caller.leave()
        error = connection.error
        if isinstance(error, FrameError):
            self.bad_frames += 1
            self._warn("frames", "a frame from %s cannot be read: %s -> connection closed", connection.remote, error)
        self._neighbours.leave(connection)
        channel = self._channels.pop(connection, None)
        if channel is not None:
            why = f": {error}" if error is not None else ""
            channel.break_off(f"the connection to {connection.node} was lost{why}")

    def _lose(self, node: str) -> None:
        """Pass on that a node cannot be reached now."""
        if self._receiver is not None and not self._stopped:
            self._receiver.lose_node(node)

    def _warn(self, kind: str, text: str, *arguments: object) -> None:
        """Log a warning, unless one of its kind was logged a moment ago."""
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until.get(kind, now):
            self._silent_until[kind] = now + WARNING_SECONDS
            _logger.warning(text, *arguments)


def _is_wildcard(host: str) -> bool:
    """Tell whether a host stands for all addresses of a machine, so that nobody can dial it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


_transports: weakref.WeakSet[TCPTransport] = weakref.WeakSet()
"""Those of this process."""


def _close_copies() -> None:
    """Close what a forked process has of sockets: its copies would keep the port, and hide from others who is dead.

    Nothing takes the place of their numbers but a file that swallows all, so whoever closes them later harms nobody.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for transport in list(_transports):
        for descriptor in transport.descriptors:
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


os.register_at_fork(after_in_child=_close_copies)
