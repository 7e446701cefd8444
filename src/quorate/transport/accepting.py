"""The door of a node: takes connections as they come, and bounds how many are open before anybody has said a word.

Each connection takes one of the files that the process may have open. Were they counted only once they are encrypted,
strangers without a certificate could leave none to the store and to the neighbours that are dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Sequence

from quorate.transport.connection import HELLO_SECONDS, LINGER_SECONDS, Connection
from quorate.transport.dialling import addresses_of
from quorate.transport.local import BACKLOG
from quorate.transport.security import Certificates

CONNECTIONS_MAX = 10_000
"""How many connections that others have opened may be open at once, if the process may have so many files open."""

STRANGERS_MAX = 500
"""How many of them may not have said hello yet: with TLS each holds 0.3 MB, from its first byte on."""

FILES_RESERVED = 256
"""How many of the files that the process may have open are left to the store and to connections that it dials."""

FILES_MAX = 65_536
"""No more files are asked for: some programs go through all numbers that an open file could have."""

ACCEPTS_MAX = 16
"""How many connections are taken in one turn of the loop."""

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Why an address cannot be bound though others of the same host can: of IPv4 and IPv6 a machine may have one alone."""

PAUSE_SECONDS = 1.0
"""How long none is taken after the operating system has refused one."""


class Door:
    """Where a node listens, and who came in there.

    At either bound a further connection takes the place of the one that has kept silent for longest, if there is one:
    so strangers who say nothing keep nobody out.
    """

    def __init__(
        self, make: Callable[[], Connection], tls: Certificates | None, warn: Callable[[str, str, object], None]
    ) -> None:
        """Prepare; it is shut.

        Args:
            make: makes the object for a connection that comes in.
            tls: the certificates; None where nothing is encrypted.
            warn: logs a warning: its kind, its text, and what stands in the text.
        """
        self._make = make
        self._tls = tls
        self._warn = warn
        self._sockets: list[socket.socket] = []
        self._connections_max = 0
        self._connections: dict[Connection, None] = {}
        self._strangers: dict[Connection, asyncio.Task[None]] = {}  # Who has not said hello yet, the oldest first.
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """Take connections at these sockets, which listen already."""
        files = raise_files_limit()
        self._connections_max = min(CONNECTIONS_MAX, max(files - FILES_RESERVED, files // 2))
        self._sockets = list(sockets)
        for listening in self._sockets:
            self._watch(listening)

    @property
    def descriptors(self) -> list[int]:
        """The files of the sockets at which connections are taken."""
        return [listening.fileno() for listening in self._sockets]

    def forget(self, connection: Connection) -> None:
        """Learn that a connection is gone: there is room for another."""
        self._connections.pop(connection, None)
        self._strangers.pop(connection, None)

    async def close(self) -> None:
        """Take no further connections, and hang up on those that are not up yet. Idempotent."""
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        for task in self._strangers.values():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self, listening: socket.socket) -> None:
        """Take connections at a socket from now on, unless the door was shut meanwhile."""
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Take connections that wait; the loop calls again while there are more."""
        for _ in range(ACCEPTS_MAX):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._warn("accept", "no connection can be taken: %s -> none is for a moment", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(PAUSE_SECONDS, self._watch, listening)
                return
            accepted.setblocking(False)
            self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        """Bring a connection up, if there is room for it."""
        is_full, is_besieged = len(self._connections) >= self._connections_max, len(self._strangers) >= STRANGERS_MAX
        if is_full:
            self._warn("full", "%d connections are open -> one is refused for each that comes", self._connections_max)
        elif is_besieged:
            text = "%d connections have said nothing yet -> the oldest is closed for each that comes"
            self._warn("strangers", text, STRANGERS_MAX)
        if is_full or is_besieged:
            stranger = next(iter(self._strangers), None)
            if stranger is None:
                accepted.close()
                return
            self._strangers.pop(stranger).cancel()
            stranger.abort()
        connection = self._make()
        self._connections[connection] = None
        task = asyncio.get_running_loop().create_task(self._greet(connection, accepted), name="greet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, connection: Connection, accepted: socket.socket) -> None:
        """Bring a connection up, and wait until the other side has said hello."""
        task = asyncio.current_task()
        assert task is not None, "this runs in a task of its own"
        self._strangers[connection] = task
        is_encrypted = self._tls is not None  # asyncio refuses TLS's knobs on a plain connection.
        try:
            if self._sockets:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=self._tls.accepting() if self._tls is not None else None,
                    ssl_handshake_timeout=HELLO_SECONDS if is_encrypted else None,
                    ssl_shutdown_timeout=LINGER_SECONDS if is_encrypted else None,
                )
                await connection.settled.wait()
            else:  # The door was shut just now.
                accepted.close()
        except OSError:  # It has no certificate or speaks no TLS, or is gone.
            pass
        finally:
            self._strangers.pop(connection, None)
            if not connection.settled.is_set():
                connection.abort()


def raise_files_limit() -> int:
    """Let the process have as many files open as the system allows, within reason, and tell how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return FILES_MAX
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if wanted <= soft:
        return soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listen at all addresses that a host stands for.

    Raises:
        OSError: one of them cannot be bound, but for those that this machine does not have; or there is none.
    """
    bound: list[socket.socket] = []
    refusal: OSError | None = None
    for family, kind, protocol, address in await addresses_of(host, port, socket.AI_PASSIVE):
        try:
            bound.append(listen_at(family, kind, protocol, address))
        except OSError as error:
            refusal = error
            if error.errno not in NOT_HERE:
                break
    if refusal is not None and (not bound or refusal.errno not in NOT_HERE):
        for listening in bound:
            listening.close()
        raise refusal
    return bound


def listen_at(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    """Listen at one address.

    Raises:
        OSError: it cannot be bound.
    """
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
