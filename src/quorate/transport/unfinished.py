"""Frames that have begun and not ended: how much of them is held, and for how long. Knows no sockets."""

from __future__ import annotations

import asyncio

from quorate.transport.connection import Connection
from quorate.transport.frames import FrameError

STALL_SECONDS = 10.0
"""So long, and up to twice as long, a frame may make no progress before its connection is closed."""

FRAMES_MAX = 16
"""The parts held of all frames together may be as long as this many of the longest."""


class Unfinished:
    """What is held of frames that have not ended, for all connections of a transport.

    A connection whose frame goes on in time is closed only when all parts together are too long: then it is the one
    whose frame began first.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        """Hold nothing yet.

        Args:
            frame_bytes_max: the longest frame.
        """
        self._bytes_max = FRAMES_MAX * frame_bytes_max
        self._bytes = 0
        self._sizes: dict[Connection, int] = {}  # In the order in which the frames began.
        self._stalled: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, connection: Connection, size: int, *, is_new: bool) -> None:
        """Learn how much is held of the frame of a connection, after more has come or none will for now.

        Args:
            connection: whose it is.
            size: how many bytes are held; 0 for none.
            is_new: whether a frame has ended since, so that this is another.
        """
        self._bytes += size - self._sizes.get(connection, 0)
        self._stalled.discard(connection)
        if is_new or not size:
            self._sizes.pop(connection, None)
        if size:
            self._sizes[connection] = size
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS, self._sweep)
        if self._bytes > self._bytes_max:
            self._give_up(next(iter(self._sizes)), "too much is held of frames that have not ended, and it began first")

    def stop(self) -> None:
        """Look after them no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        """Close the connections whose frames have made no progress since the last sweep, while we did read."""
        for connection in list(self._stalled):
            self._give_up(connection, f"it has begun, and has not gone on for {STALL_SECONDS:g} s")
        self._stalled = {connection for connection in self._sizes if not connection.is_paused}
        self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS, self._sweep) if self._sizes else None

    def _give_up(self, connection: Connection, why: str) -> None:
        """Close a connection, and forget what is held of it."""
        self.note(connection, 0, is_new=True)
        connection.fail(FrameError(why))
