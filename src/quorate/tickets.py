"""A client's own side of its session: the numbers of its writes, and which of them still need an answer (thesis 6.3).

Knows no connections and no group: how a session is opened is told to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quorate.errors import Overloaded, Unavailable
from quorate.sessions import ANSWERS_MAX


class Ticket:
    """One write's place in a session.

    Attributes:
        session: the id of the session.
        sequence: the place, from 1 on.
    """

    __slots__ = ("_under_way", "sequence", "session")

    def __init__(self, session: int, sequence: int, under_way: dict[int, None]) -> None:
        """Take a place; ``under_way`` holds those of all writes that need an answer, and now this one's."""
        self.session: int = session
        self.sequence: int = sequence
        self._under_way = under_way
        under_way[sequence] = None

    @property
    def settled(self) -> int:
        """The first place whose write still needs an answer, as things are now: all before it do not."""
        return next(iter(self._under_way))

    def give_back(self) -> None:
        """Need no answer any longer."""
        del self._under_way[self.sequence]


class Tickets:
    """The session of one client, shared by all that ``with_options`` made of it; opened with the first write."""

    def __init__(self) -> None:
        """Have no session yet."""
        self._session = 0
        self._sequence = 0
        self._under_way: dict[int, None] = {}
        self._opening = asyncio.Lock()
        self._queued = 0

    @property
    def is_open(self) -> bool:
        """Whether ``draw`` may be called: a session is open, and nobody waits for it."""
        return self._session != 0 and not self._queued

    async def open(self, open_session: Callable[[], Awaitable[int]], deadline: float) -> None:
        """Open a session; those that come meanwhile wait behind, in their order, and draw as they return.

        Args:
            open_session: opens a session, and gives its id.
            deadline: when to give up.

        Raises:
            Unavailable: no session was opened until then.
            QuorateError: as ``open_session`` raises it.
        """
        self._queued += 1
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                if not self._session:
                    self._session, self._sequence, self._under_way = await open_session(), 0, {}
        except TimeoutError:
            raise Unavailable("no session could be opened in time; nothing was written") from None
        finally:
            self._queued -= 1

    def draw(self) -> Ticket:
        """Give a write its place, in the order of the calls; it gives that back when it needs no answer any longer.

        Raises:
            Overloaded: as many writes are under way as answers are kept of a session.
        """
        if len(self._under_way) >= ANSWERS_MAX:
            raise Overloaded(f"{ANSWERS_MAX} writes of this client wait for their answers; wait for some of them")
        self._sequence += 1
        return Ticket(self._session, self._sequence, self._under_way)

    def expired(self, session: int) -> None:
        """Note that a session has ended: the next write opens another."""
        if session == self._session:
            self._session = 0
