"""A client's own side of its session: the numbers of its writes, and which of them still need an answer (thesis 6.3).

Writes are applied in the order of their numbers. So whatever becomes of a write, those behind it keep theirs: when
tries fail they are repeated in that order, and so are all that a session left behind when it ended. Knows no
connections and no group: how a session is opened is told to it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec

from quorate.errors import Overloaded, Unavailable
from quorate.sessions import ANSWERS_MAX


class Ticket(msgspec.Struct, eq=False):
    """One write's place among those of its client.

    Attributes:
        order: the place among all of them, over all sessions.
        session: the id of the session; 0 until it has one.
        sequence: its place in that session, from 1 on.
    """

    order: int
    session: int = 0
    sequence: int = 0
    _woken: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait for ``wake``."""
        self._woken = asyncio.get_running_loop().create_future()
        await self._woken

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for ``wake``."""
        return self._woken is not None and not self._woken.done()

    def wake(self) -> None:
        """End its waiting, if it waits."""
        if self.is_waiting and self._woken is not None:
            self._woken.set_result(None)


class Tickets:
    """The session of one client, shared by all that ``with_options`` made of it; opened with the first write."""

    def __init__(self) -> None:
        """Have no session yet."""
        self.start_over()

    def start_over(self) -> None:
        """Have no session, and no writes: what there was is that of the process which this one was forked from."""
        self._session = 0
        self._sequence = 0
        self._free = 0  # Up to this place there is room, whatever else happens: see ``_taken``.
        self._orders = itertools.count()
        # Both ascend by order. Those without a seat have no session yet, or one that has ended.
        self._seated: dict[int, Ticket] = {}
        self._unseated: dict[int, Ticket] = {}
        self._waiting: dict[int, Ticket] = {}
        self._refusal = ""

    def draw(self) -> Ticket:
        """Give a write its place, in the order of the calls; ``give_back`` it when it needs no answer any longer.

        Raises:
            Overloaded: with one more the group would drop the answer of the first one that still needs it.
        """
        if self._sequence >= self._free or self._unseated or not self._session:
            room = ANSWERS_MAX - self._taken()
            if room <= 0:
                text = f"{ANSWERS_MAX} writes of this client wait for their answers, or were made behind one that does"
                raise Overloaded(f"{text}; wait for some of them")
            self._free = self._sequence + room
        order = next(self._orders)
        if self._session and not self._unseated:
            self._sequence += 1
            ticket = self._seated[order] = Ticket(order, self._session, self._sequence)
        else:
            ticket = self._unseated[order] = Ticket(order)
        return ticket

    def is_seated(self, ticket: Ticket) -> bool:
        """Tell whether a write has its place in the session that is open."""
        return ticket.order in self._seated

    async def seat(self, ticket: Ticket, open_session: Callable[[], Awaitable[int]], deadline: float) -> None:
        """Give a write its place in a session, once those drawn before it have theirs or need none.

        Args:
            ticket: the write's; without a seat.
            open_session: opens a session until the deadline, and gives its id.
            deadline: when to give up.

        Raises:
            Unavailable: no session was opened until then; the message says why.
            QuorateError: as ``open_session`` raises it.
        """
        try:
            async with asyncio.timeout_at(deadline):
                while not self._is_next(ticket):
                    await ticket.wait()
        except TimeoutError:
            pass
        if ticket.order in self._seated:
            return
        if asyncio.get_running_loop().time() >= deadline:
            raise Unavailable(self._refusal or "no session could be opened in time; nothing was written")
        if not self._session:
            try:
                self._session, self._sequence, self._free = await open_session(), 0, 0
            except Unavailable as error:
                self._refusal = str(error)
                raise
            self._refusal = ""
        self._seat(ticket)
        self._wake_unseated()

    def first(self) -> int:
        """Give the first place in the open session whose write still needs an answer; 1 when none does."""
        return next(iter(self._seated.values())).sequence if self._seated else 1

    def settled(self, ticket: Ticket) -> int:
        """Give the first place in a write's session whose write still needs an answer, as things are now."""
        # Of a session that has ended no answers are kept: there it does not matter.
        return self.first() if ticket.order in self._seated else 1

    async def turn(self, ticket: Ticket, deadline: float) -> bool:
        """Wait until a write whose try has failed may be tried again; tell whether it had to wait.

        The first of a session looks for the leader. The others would come before it, and be refused: they wait until it
        is answered, and then go together, in their order.
        """
        if ticket.order not in self._seated or ticket is next(iter(self._seated.values())):
            return False
        self._waiting[ticket.order] = ticket
        try:
            async with asyncio.timeout_at(deadline):
                await ticket.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(ticket.order, None)
        return True

    def give_back(self, ticket: Ticket, *, finds_leader: bool) -> None:
        """Need no answer to a write any longer.

        Args:
            ticket: the write's.
            finds_leader: whether it is known who leads: then all that wait for their turn have it now.
        """
        if self._seated.pop(ticket.order, None) is not None:
            if self._waiting:
                first = next(iter(self._seated))
                for order in sorted(self._waiting):
                    if order == first or (finds_leader and ticket.order < first):
                        self._waiting.pop(order).wake()
        elif self._unseated.pop(ticket.order, None) is not None:
            self._wake_unseated()

    def expired(self, session: int) -> None:
        """Note that a session has ended: the next write opens another."""
        if session != self._session:
            return
        self._session = 0
        # Whoever was seated was drawn before whoever was not.
        self._unseated, self._seated = self._seated | self._unseated, {}
        for order in sorted(self._waiting):
            self._waiting.pop(order).wake()

    def _taken(self) -> int:
        """Give how many answers the group may have to keep: from the first one needed on, also those that were given.

        It keeps the last ``ANSWERS_MAX`` of a session, and not those that are needed.
        """
        return len(self._unseated) + (self._sequence - self.first() + 1 if self._seated else 0)

    def _seat(self, ticket: Ticket) -> None:
        """Give a write the next place of the open session."""
        self._unseated.pop(ticket.order, None)
        self._sequence += 1
        ticket.session, ticket.sequence = self._session, self._sequence
        self._seated[ticket.order] = ticket

    def _is_next(self, ticket: Ticket) -> bool:
        """Tell whether a write need not wait for a seat: it has one, or is the first of those without."""
        return ticket.order in self._seated or ticket is next(iter(self._unseated.values()))

    def _wake_unseated(self) -> None:
        """Let those without a seat have theirs, all in one turn of the loop; while no session is open, let one open it.

        Behind one whose try in a session that has ended is under way nobody is seated: it may have to go first.
        """
        while (first := next(iter(self._unseated.values()), None)) is not None and first.is_waiting:
            if not self._session:
                first.wake()
                return
            self._seat(first)
            first.wake()
