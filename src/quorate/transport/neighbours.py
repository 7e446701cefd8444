"""The nodes that packets go to: for each pair of nodes one connection, whoever dialled it. Knows no frame's content.

**Which connection of two survives.** Two nodes that dial each other at once get two connections. The one dialled by the
node with the smaller address stays; only the side that dialled the other one closes it, and only once it holds the
better one, so there is always a way. A node with the smaller address that is dialled although it holds a connection
of its own waits for that: if the new one is still open after ``SETTLE_SECONDS``, the other side knows of no
other, and ours is dead without having said so (a machine that lost its power says nothing).

**A node that dials twice** has lost what it dialled before, or reaches us at two addresses: two groups may name us by
an IP address and by a host name. So the older one is closed only if nothing has come by it for ``SETTLE_SECONDS``.
Closed at once it would be dialled anew, at once, and so on for ever.

**A connection that is swallowed.** What lies between two nodes may forget a connection and acknowledge all the same
what is sent by it: no error ever comes. So each side sees to it that something comes back by every connection: where
packets arrive and nothing else has gone back of late, a *nod* goes, a frame without packets. A connection by which
packets went for ``SILENT_SECONDS`` and nothing came is dialled anew. It is kept until another one is up, and a little
longer: of a neighbour that is paused, or that the network cannot reach for a while, nothing is lost by asking.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport.connection import Connection
from quorate.transport.frames import FrameKind, encode_frame

WANTED_SECONDS = 5.0
"""How long after the last packet for a neighbour it is still dialled."""

SETTLE_SECONDS = 1.0
"""How long a node waits for its neighbour to close one of two connections; far above a round trip."""

SILENT_SECONDS = 2.0
"""So long packets may go by a connection and nothing come, before another is dialled; or three election timeouts, if
those are longer. Far above a round trip and ``NOD_SECONDS``."""

NOD_SECONDS = 0.5
"""Who has written nothing by a connection for so long nods when packets come by it."""

NOD = encode_frame(FrameKind.PACKETS, [])
"""Says that packets come by this connection, and nothing else."""

WAITING_FRAMES_MAX = 8
"""How many frames are kept for a neighbour that is being dialled: the newest."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Neighbour:
    """What is known of one node that packets go to or come from.

    Attributes:
        connections: those that are open; packets leave by the first.
        dial: the last task that was to connect, if there was one.
        delay: seconds to wait before the next attempt to connect; 0 when none was made of late.
        is_ours: whether anything was ever to be sent to it, were it an answer: who only says what it is is not dialled.
        wanted_at: the loop's time when a connection was last wanted and there was none.
        waiting: frames kept while it is dialled.
    """

    connections: list[Connection] = field(default_factory=list)
    dial: asyncio.Task[None] | None = None
    delay: float = 0.0
    is_ours: bool = False
    wanted_at: float = 0.0
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=WAITING_FRAMES_MAX))

    @property
    def dialling(self) -> bool:
        """Whether a dial is under way."""
        return self.dial is not None and not self.dial.done()

    def keep(self, frame: bytes, bytes_max: int) -> None:
        """Keep a frame while the neighbour is dialled, and drop the oldest beyond the bounds."""
        self.waiting.append(frame)
        while len(self.waiting) > 1 and sum(map(len, self.waiting)) > bytes_max:
            self.waiting.popleft()


class Neighbours:
    """All neighbours of one node, by the addresses that packets are sent to."""

    def __init__(
        self,
        address: Callable[[], str],
        dial: Callable[[str], Awaitable[Connection]],
        settings: Settings,
        random: Callable[[], float],
        lost: Callable[[str], None],
    ) -> None:
        """Begin with none.

        Args:
            address: tells where others reach this node.
            dial: opens a connection for packets to a node, or raises ``Unavailable``.
            settings: for the delays between attempts to connect, and the bound of what waits.
            random: gives numbers from 0 to 1, for the jitter of the delays.
            lost: told of each node that cannot be reached now.
        """
        self._address = address
        self._dial = dial
        self._settings = settings
        self._random = random
        self._lost = lost
        self._silent_seconds = max(SILENT_SECONDS, 3 * settings.election_timeout_max)
        self._is_stopped = False
        self._neighbours: dict[str, Neighbour] = {}

    def unsent(self, node: str) -> int:
        """How many bytes written to a node the network has not taken yet."""
        neighbour = self._neighbours.get(node)
        return neighbour.connections[0].unsent if neighbour is not None and neighbour.connections else 0

    def send(self, node: str, frames: Sequence[bytes]) -> None:
        """Write frames to a node; without a connection dial it, and keep the newest frames meanwhile."""
        neighbour = self._neighbours.get(node)
        if neighbour is None:
            neighbour = self._neighbours[node] = Neighbour()
        neighbour.is_ours = True
        if neighbour.connections:
            connection = neighbour.connections[0]
            # Rounds of pre-votes are up to an election timeout apart, and so below this half.
            connection.note_writing(self._silent_seconds / 2)
            for frame in frames:
                connection.write(frame)
            if not neighbour.dialling and not connection.is_silent(self._silent_seconds):
                return
        # While we dial, the neighbour may close the connection it has dialled: what went into it goes once more.
        for frame in frames:
            neighbour.keep(frame, self._settings.frame_bytes_max)
        self._begin_dial(node, neighbour)

    def nod(self, connection: Connection) -> None:
        """Let the other side know that packets come by a connection, if nothing else has gone there of late."""
        if connection.heard_at - connection.wrote_at >= NOD_SECONDS:
            connection.note_writing(self._silent_seconds / 2)
            connection.write(NOD)

    def join(self, node: str, connection: Connection) -> None:
        """Take a connection into use. The module's docstring has the rule for a second one."""
        neighbour = self._neighbours.setdefault(node, Neighbour())
        for silent in [other for other in neighbour.connections if other.is_silent(self._silent_seconds)]:
            _logger.warning("nothing comes from %s by a connection that takes all -> another takes its place", node)
            neighbour.connections.remove(silent)
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, silent.close)  # What is on its way may still come.
        others = list(neighbour.connections)
        ours = [other for other in others if other.dialled]
        larger = self._address() > node
        if connection.dialled and others and larger:
            connection.close()
            return
        if connection.dialled:
            neighbour.connections.insert(0, connection)
        elif ours and not larger:
            neighbour.connections.append(connection)
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, _settle, ours, connection)
        else:
            neighbour.connections.insert(0, connection)
            for other in ours:
                other.close()
            dialled_before = {other: other.heard_at for other in others if not other.dialled}
            if dialled_before:
                asyncio.get_running_loop().call_later(SETTLE_SECONDS, _close_dead, dialled_before, connection)
            if neighbour.dial is not None and larger:
                neighbour.dial.cancel()
        for frame in neighbour.waiting:
            neighbour.connections[0].write(frame)
        if connection.dialled:
            neighbour.waiting.clear()
        _logger.info("connected with %s", node)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is gone. Is there no other one, dial: perhaps the neighbour is gone as well."""
        neighbour = self._neighbours.get(connection.node)
        if neighbour is None or connection not in neighbour.connections:
            return
        neighbour.connections.remove(connection)
        if asyncio.get_running_loop().time() - connection.opened_at >= self._settings.reconnect_delay_max:
            neighbour.delay = 0.0  # It had worked: no reason to wait before the next attempt.
        if neighbour.is_ours and not neighbour.connections and not self._is_stopped:
            self._begin_dial(connection.node, neighbour)
        self._forget(connection.node, neighbour)

    async def stop(self) -> None:
        """Dial no more. Connections are left to their owner."""
        self._is_stopped = True
        dials = [neighbour.dial for neighbour in self._neighbours.values() if neighbour.dial is not None]
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    def _begin_dial(self, node: str, neighbour: Neighbour) -> None:
        """Dial a neighbour from now on, and for a while."""
        loop = asyncio.get_running_loop()
        neighbour.wanted_at = loop.time()
        if not neighbour.dialling:
            neighbour.dial = loop.create_task(self._connect(node, neighbour), name=f"dial {node}")
            neighbour.dial.add_done_callback(lambda _: self._end_dial(node, neighbour))

    async def _connect(self, node: str, neighbour: Neighbour) -> None:
        """Dial a neighbour, with growing delays, until there is a connection or nothing to send."""
        settings = self._settings
        while True:
            await asyncio.sleep(neighbour.delay * (0.5 + self._random() / 2))
            if neighbour.connections and not neighbour.connections[0].is_silent(self._silent_seconds):
                return
            if asyncio.get_running_loop().time() - neighbour.wanted_at > WANTED_SECONDS:
                neighbour.delay = 0.0
                return
            first = neighbour.delay == 0
            longer = max(2 * neighbour.delay, settings.reconnect_delay_min)
            neighbour.delay = min(longer, settings.reconnect_delay_max)
            try:
                self.join(node, await self._dial(node))
            except Unavailable as error:
                if first:
                    _logger.warning("%s -> what it is sent is dropped until it answers", error.reason)
                if not neighbour.connections:
                    self._lost(node)

    def _end_dial(self, node: str, neighbour: Neighbour) -> None:
        """Note that a dial has ended, also one that was cancelled before its first step."""
        if not neighbour.dialling:  # Else another has begun in the same turn of the loop.
            neighbour.waiting.clear()
            self._forget(node, neighbour)

    def _forget(self, node: str, neighbour: Neighbour) -> None:
        """Drop an entry that says nothing, so that strangers' names do not pile up."""
        is_kept = self._neighbours.get(node) is neighbour  # Else it was dropped before, and another has its place.
        if is_kept and not neighbour.connections and not neighbour.dialling and not neighbour.delay:
            del self._neighbours[node]


def _settle(ours: Sequence[Connection], theirs: Connection) -> None:
    """Close what we dialled, if the neighbour has not closed what it dialled."""
    if theirs.open:
        for connection in ours:
            connection.close()


def _close_dead(before: Mapping[Connection, float], later: Connection) -> None:
    """Close what a neighbour had dialled before it dialled once more, unless more has arrived there than until then."""
    if later.open:
        for connection, heard_at in before.items():
            if connection.heard_at == heard_at:
                connection.close()
