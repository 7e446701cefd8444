"""A client's own side of its session: the numbers of its writes, and which of them still need an answer (thesis 6.3).

Knows no connections and no group: how a session is opened is told to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quorate.errors import Overloaded, Unavailable
from quorate.sessions import ANSWERS_MAX


class Series:
    """The writes of one session.

    Attributes:
        session: the id of the session.
        drawn: the last place that was taken; 0 before the first.
        settled: the first place whose write still needs an answer, as things are now: all before it do not.
    """

    __slots__ = ("_under_way", "drawn", "session", "settled")

    def __init__(self, session: int) -> None:
        """Begin, before the first write."""
        self.session: int = session
        self.drawn: int = 0
        self.settled: int = 1
        self._under_way: set[int] = set()

    def draw(self) -> int:
        """Take the next place, in the order of the calls.

        Raises:
            Overloaded: as many writes are under way as answers are kept of a session.
        """
        if len(self._under_way) >= ANSWERS_MAX:
            raise Overloaded(f"{ANSWERS_MAX} writes of this client wait for their answers; wait for some of them")
        self.drawn += 1
        self._under_way.add(self.drawn)
        return self.drawn

    def give_back(self, place: int) -> None:
        """Need no answer any longer for the write at that place."""
        self._under_way.remove(place)
        while self.settled <= self.drawn and self.settled not in self._under_way:
            self.settled += 1


class Tickets:
    """The session of one client, shared by all that ``with_options`` made of it; opened with the first write.

    Attributes:
        series: the writes of the session that is open; None while none is, or somebody waits for it still.
    """

    def __init__(self) -> None:
        """Have no session yet."""
        self.series: Series | None = None
        self._opened: Series | None = None
        self._is_opening = False
        self._ended = asyncio.Event()
        self._queued = 0

    async def open(self, open_session: Callable[[], Awaitable[int]], deadline: float) -> Series:
        """Open a session; those that come meanwhile wait behind, and are let go together, in their order.

        Args:
            open_session: opens a session, and gives its id.
            deadline: when to give up.

        Raises:
            Unavailable: no session was opened until then.
            QuorateError: as ``open_session`` raises it.
        """
        self._queued += 1
        try:
            async with asyncio.timeout_at(deadline):
                if self._opened is not None:
                    await asyncio.sleep(0)  # Those that waited before have been woken already: they go first.
                while self._opened is None:
                    if self._is_opening:
                        await self._ended.wait()
                    else:
                        self._opened = await self._open(open_session)
                return self._opened
        except TimeoutError:
            raise Unavailable("no session could be opened in time; nothing was written") from None
        finally:
            self._queued -= 1
            self.series = None if self._queued else self._opened

    async def _open(self, open_session: Callable[[], Awaitable[int]]) -> Series:
        """Open a session, and wake those that wait for that, however it ends."""
        self._is_opening = True
        self._ended.clear()
        try:
            return Series(await open_session())
        finally:
            self._is_opening = False
            self._ended.set()

    def start_over(self) -> None:
        """Forget the session: it is that of the process which this one was forked from."""
        self.series = self._opened = None
        self._is_opening, self._ended, self._queued = False, asyncio.Event(), 0

    def expired(self, series: Series) -> None:
        """Note that a session has ended: the next write opens another."""
        if series is self._opened:
            self.series = self._opened = None
