"""One connection that carries frames: its hellos, its end, and why it ended. Knows no neighbours and no calls."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from quorate.transport.frames import HELLO, Frame, FrameDecoder, FrameError, Hello, encode_frame
from quorate.types import format_node

HELLO_SECONDS = 10.0
"""How long the side that dialled may take to say hello."""

LINGER_SECONDS = 1.0
"""How long a connection that is closed may take to send what was written to it."""

UNACKNOWLEDGED_SECONDS = 5.0
"""How long the other machine may leave bytes unacknowledged before the connection counts as lost. Far below the
minutes that TCP waits, so that a healed network is used soon."""

HELD_BACK_SECONDS = 30.0
"""The same where one side calls the other. Either may read nothing there for a while, because too much is unanswered or
not taken; and bytes that it makes TCP hold back count as unacknowledged, though it answers all probes. Far above the
seconds that a call takes: whoever calls a machine that is gone gives up by the deadline of the call."""

ANSWERS_UNSENT_MAX = 256 * 1024
"""When more bytes of answers were not taken by the network none are added, and they are counted: see ``Allowance``."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Events:
    """What a connection tells its owner; all is called from the loop's thread.

    Attributes:
        opened: it is up; returns False to refuse it.
        greeted: the other side has said hello. May raise ``FrameError``.
        received: a frame has arrived after the hello. May raise ``FrameError``.
        drained: what was written has been taken, after ``is_full``.
        unfinished: so many bytes are held of a frame that has not ended; and whether one has ended since the last time.
        lost: it is gone. Called once for each, also for one that never came up.
    """

    opened: Callable[[Connection], bool]
    greeted: Callable[[Connection, Hello], None]
    received: Callable[[Connection, Frame], None]
    drained: Callable[[Connection], None]
    unfinished: Callable[[Connection, int, bool], None]
    lost: Callable[[Connection], None]


class Connection(asyncio.Protocol):
    """Frames both ways over one connection.

    Attributes:
        dialled: the node that this side dialled, ``host:port`` or ``unix:PATH``; empty for one that was accepted.
        hello: what this side says first.
        heard: what the other side said first; None until then.
        error: why the connection ended, where it did not end in peace.
        opened_at: the loop's time when it came up.
        heard_at: the loop's time when something arrived last.
        asked_at: the loop's time when something was written first since then.
        wrote_at: the loop's time when something was written last. This and the one before are for connections between
            nodes alone, and noted by ``note_writing``.
        is_full: whether so much waits to be sent that nothing should be added.
        is_paused: whether nothing is read.
        settled: set once the other side has said hello, or the connection is gone.
        gone: set once nothing of the connection is left.
    """

    def __init__(self, events: Events, hello: Hello, dialled: str, bytes_max: int) -> None:
        """Prepare for ``asyncio`` to connect it; no frame's body may be longer than ``bytes_max``."""
        self.dialled = dialled
        self.hello = hello
        self.heard: Hello | None = None
        self.error: Exception | None = None
        self.opened_at: float = 0.0
        self.heard_at: float = 0.0
        self.asked_at: float = 0.0
        self.wrote_at: float = 0.0
        self.is_full: bool = False
        self.is_paused: bool = False
        self.settled: asyncio.Event = asyncio.Event()
        self.gone: asyncio.Event = asyncio.Event()
        self._events = events
        self._bytes_max = bytes_max
        self._decoder = FrameDecoder(bytes_max)
        self._is_unfinished = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Whether frames can be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def descriptor(self) -> int:
        """The number of its file; only while it is ``open``."""
        assert self._transport is not None, "an open connection has its transport"
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    @property
    def unsent(self) -> int:
        """How many written bytes the network has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def purpose(self) -> str:
        """What the connection is for, as the side that dialled has said: ``"accepted"`` until it has."""
        said = self.hello if self.dialled or self.heard is None else self.heard
        return said.purpose

    @property
    def node(self) -> str:
        """The other side's address, ``host:port``; empty for a client, and until it has said hello."""
        return self.dialled or (self.heard.node if self.heard is not None else "")

    @property
    def remote(self) -> str:
        """The other side, for people to read."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return self.node or (f"a client at {format_node(name[0], name[1])}" if name else "a client")

    def write(self, frame: bytes) -> None:
        """Send a frame, whole or not at all; nothing once the connection is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def note_writing(self, gap_max: float) -> None:
        """Note that something is written to which something should come back.

        Args:
            gap_max: whoever has written nothing for so long expected nothing any longer, and begins anew.
        """
        now = self._loop.time()
        if self.asked_at <= self.heard_at or now - self.wrote_at > gap_max:
            self.asked_at = now
        self.wrote_at = now

    def is_silent(self, seconds: float) -> bool:
        """Tell whether nothing has come for so long, though something was written, and taken by the network."""
        return self.asked_at > self.heard_at and self.wrote_at - self.asked_at >= seconds and not self.unsent

    def close(self, error: Exception | None = None) -> None:
        """Send what was written, for ``LINGER_SECONDS`` at most, then close. Of several errors the first is kept."""
        self.error = self.error or error
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._wait(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once, whatever was written; the owner is told before this returns.

        It does not wait for the loop to tell of the end: uvloop never does for a connection that comes up in the
        same moment in which the task that dials it is cancelled.
        """
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello first, unless the owner refuses the connection (``asyncio.Protocol``)."""
        self._transport = cast(asyncio.Transport, transport)
        if self.gone.is_set():  # Given up while it was being dialled.
            self._transport.abort()
            return
        self.opened_at = self.heard_at = self.wrote_at = self._loop.time()
        _tune(self._transport)
        _set_patience(self._transport, HELD_BACK_SECONDS if self.purpose == "calls" else UNACKNOWLEDGED_SECONDS)
        self._transport.set_write_buffer_limits(high=self._bytes_max)
        if not self._events.opened(self):
            self._transport.abort()
            return
        self._wait(HELLO_SECONDS, self.close, TimeoutError("no hello in time"))
        self.write(encode_frame(HELLO, [self.hello]))

    def data_received(self, data: bytes) -> None:
        """Read frames and pass them on. Whatever goes wrong ends this connection alone (``asyncio.Protocol``)."""
        if not self.open:
            return
        self.heard_at = self._loop.time()
        try:
            frames = self._decoder.feed(data)
            if self._decoder.buffered or self._is_unfinished:
                self._is_unfinished = self._decoder.buffered > 0
                self._events.unfinished(self, self._decoder.buffered, bool(frames))
            for frame in joined(frames):
                self._receive(frame)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Close because of what was received, or of a bug in whoever has received it."""
        if not isinstance(error, FrameError):  # It must neither pass unseen nor end other connections.
            _logger.error("a frame from %s could not be taken -> connection closed", self.remote, exc_info=error)
        self.close(error)

    def _receive(self, frame: Frame) -> None:
        """Take a hello, or pass on another frame."""
        if frame[0] is not HELLO:
            self._events.received(self, frame)
            return
        self._cancel_deadline()
        self.heard = frame[1][0]
        if self._transport is not None and self.heard.purpose == "calls":
            _set_patience(self._transport, HELD_BACK_SECONDS)
            self._transport.set_write_buffer_limits(high=ANSWERS_UNSENT_MAX)
        self._events.greeted(self, self.heard)
        self.settled.set()

    def pause_writing(self) -> None:
        """Read no more requests while the caller does not take its replies (``asyncio.Protocol``).

        Only where the other side calls: were both ends of two peers to stop reading, neither would go on.
        """
        self.is_full = True
        if self.heard is not None and self.heard.purpose == "calls":
            self.pause_reading()

    def resume_writing(self) -> None:
        """Tell the owner, who reads again (``asyncio.Protocol``)."""
        self.is_full = False
        self._events.drained(self)

    def pause_reading(self) -> None:
        """Read nothing until ``resume_reading``. Idempotent."""
        if self._transport is not None and self.open and not self.is_paused:
            self.is_paused = True
            self._transport.pause_reading()
            if self._is_unfinished:  # It is not for the other side to go on with it now.
                self._events.unfinished(self, self._decoder.buffered, False)

    def resume_reading(self) -> None:
        """Read again. Idempotent."""
        if self._transport is not None and self.open and self.is_paused:
            self.is_paused = False
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once (``asyncio.Protocol``)."""
        if self.gone.is_set():
            return
        self.gone.set()
        self.settled.set()
        self.error = self.error or exc
        self._cancel_deadline()
        self._events.lost(self)

    def _wait(self, seconds: float, then: Callable[..., None], *arguments: object) -> None:
        """Do ``then`` after a while, unless ``_cancel_deadline`` comes first."""
        self._cancel_deadline()
        self._deadline = self._loop.call_later(seconds, then, *arguments)

    def _cancel_deadline(self) -> None:
        """Stop waiting."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def joined(frames: list[Frame]) -> list[Frame]:
    """Make one frame of those that follow each other and are of one kind: what arrives together is taken together."""
    if len(frames) < 2:
        return frames
    found: list[Frame] = []
    for frame in frames:
        if found and found[-1][0] is frame[0] is not HELLO:
            found[-1][1].extend(frame[1])  # type: ignore[arg-type]
        else:
            found.append(frame)
    return found


async def close_all(connections: Sequence[Connection]) -> None:
    """Close connections and wait until nothing of them is left; what cannot be sent in ``LINGER_SECONDS`` is lost."""
    for connection in connections:
        connection.close()
    for connection in connections:
        await connection.gone.wait()


def explain(error: BaseException) -> str:
    """Put an error of the network into plain words, to follow the address of the node: "refuses the connection"."""
    match error:
        case TimeoutError():
            words = "does not answer: timed out"
        case socket.gaierror():
            words = f"cannot be reached: its name does not resolve ({error.strerror})"
        case ssl.SSLError():
            words = explain_tls(error)
        case OSError() if error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error):
            words = "refuses the connection: no node listens there"  # The second form: at each of several addresses.
        case FileNotFoundError():
            words = "is not there: no node has its local socket at this path"
        case ConnectionResetError() | BrokenPipeError():
            words = "closed the connection"
        case OSError():
            words = f"cannot be reached: {error.strerror or error}"
        case FrameError():
            words = f"cannot be understood: {error}"
        case _:
            words = f"cannot be reached: {error}"
    return words


def explain_tls(error: ssl.SSLError) -> str:
    """Put an error of TLS into plain words."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"cannot be trusted: TLS: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "speaks no TLS: call it without, or give its node the certificates"
        case _:
            return f"cannot be reached: TLS: {error.reason or error}"


def _tune(transport: asyncio.Transport) -> None:
    """Send small frames at once, and notice at some time that the other machine is gone though nothing is sent."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _set_patience(transport: asyncio.Transport, seconds: float) -> None:
    """Count the connection as lost once the other machine leaves bytes unacknowledged for so long."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
