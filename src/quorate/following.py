"""Following: a call of a client goes to the leader, wherever that is, and is tried again where that is safe.

Knows the addresses of some members, what refusals and broken connections say, and who led last. Does not know what is
asked, nor sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quorate.errors import (
    NotCommitted,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    SessionExpired,
    Stopped,
    Unavailable,
)
from quorate.links import Links
from quorate.transport import Transport
from quorate.transport.calls import Call, Failure, LeaderCall, LeaderIs, Reply, error_from_failure
from quorate.types import Address

PAUSE_MIN = 0.01
"""The first pause before a call is tried again, seconds; doubles each time, less a random part. Another peer is asked
once without a pause."""

PAUSE_MAX = 0.05
"""The longest such pause."""

ELECTION_PATIENCE = 0.1
"""How long a peer that knows of no leader is given to learn of one, seconds, before another peer is asked: it tells as
soon as it does, but it may be cut off from the others."""

SHARE_MIN = 0.25
"""The shortest time that one of several peers has for its answer, seconds, if the deadline is not nearer."""

REDIRECTS_MAX = 3
"""Redirects followed without a pause: more than that are peers that send the caller in circles."""


class Attempt(Exception):
    """One try failed, and the call may be tried again: that try had no effect, or another cannot have one too.

    Attributes:
        error: what went wrong.
        redirect: whom to ask instead.
    """

    def __init__(self, error: QuorateError, redirect: Address | None = None) -> None:
        """Keep both."""
        super().__init__(str(error))
        self.error = error
        self.redirect = redirect


class Expired(Exception):
    """The session had ended before a write in it could have any effect: another session will do."""


class Following:
    """The way of one client's calls to its group."""

    def __init__(
        self,
        addresses: tuple[Address, ...],
        *,
        follow: bool,
        transport: Callable[[], Transport],
        random: Callable[[], float],
    ) -> None:
        """Know some members.

        Args:
            addresses: theirs; one at least.
            follow: whether to go from one to another; else the first alone is asked, once.
            transport: makes the network.
            random: gives floats from 0.0 to 1.0.
        """
        self.addresses: tuple[Address, ...] = addresses
        self.follow: bool = follow
        self._make_transport = transport
        self._random = random
        self._links = Links()

    async def close(self) -> None:
        """Close every connection, for good; calls under way fail. Idempotent."""
        await self._links.close()

    def start_over(self) -> None:
        """Forget the connections, and close none: they are those of the process which this one was forked from."""
        self._links.start_over()

    @property
    def leader(self) -> Address | None:
        """Who answered as the leader last; None while that is not known."""
        return self._links.leader

    async def ask(
        self,
        make: Callable[[float], Call],
        deadline: float,
        *,
        is_write: bool,
        is_once: bool = False,
        turn: Callable[[], Awaitable[bool]] | None = None,
    ) -> object:
        """Ask until there is an answer: the leader if it is known, else one peer after the other.

        Args:
            make: makes the call, of the seconds that are left.
            deadline: when to give up.
            is_write: whether a try that was sent may have an effect.
            is_once: whether it has that once, however often it is tried.
            turn: waits, after a try that failed, for those that must be tried before; tells whether it had to.

        Raises:
            Unavailable: there was none until the deadline.
            OutcomeUnknown: a write was sent, and what became of it is not known.
            SessionExpired: the same, and its session has ended.
            Expired: its session has ended, and no try had any effect.
        """
        loop = asyncio.get_running_loop()
        begun = now = loop.time()
        unknown: OutcomeUnknown | None = None
        place = self._links.place
        target = self._links.leader or self.addresses[place % len(self.addresses)]
        tried: dict[Address, str] = {}
        pause, redirects = 0.0, 0
        while (left := deadline - now) > 0:
            # A leader that hangs must leave time for another, where a second try does no harm.
            share = min(max(left / 2, SHARE_MIN), left) if is_once else left
            try:
                answer = await self.ask_one(target, make(share), now + share, is_write, is_once)
            except Attempt as failed:
                tried[target] = str(failed.error)
                self._links.leader = None
                if isinstance(failed.error, OutcomeUnknown):
                    unknown = failed.error
                if not self.follow or self._links.closed:
                    raise (unknown or failed.error) from failed
                redirect = await self._leader_after(failed, target, deadline)
                if redirect is not None and redirects < REDIRECTS_MAX:
                    target = self._links.leader = redirect
                    redirects, now = redirects + 1, loop.time()
                    continue
            except OutcomeUnknown as error:
                self._leave(place)
                if isinstance(error, SessionExpired) and unknown is None:
                    raise Expired from error
                raise
            else:
                self._links.leader = target
                return answer
            redirects = 0
            if turn is not None and await turn() and (leader := self.leader) is not None:
                target = leader
            else:
                target, place = self._next_address(), self._links.place
                pause = await self._pause(pause, deadline)
            now = loop.time()
        raise unknown or Unavailable(tried_text(tried, deadline - begun, "no leader"))

    async def ask_any(self, make: Callable[[float], Call], deadline: float) -> object:
        """Ask one peer after the other until one answers, beginning with the one that did last.

        Raises:
            Unavailable: there was none until the deadline.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        addresses = self.addresses if self.follow else self.addresses[:1]
        tried: dict[Address, str] = {}
        pause = PAUSE_MIN
        while (left := deadline - loop.time()) > 0:
            target = addresses[self._links.nearest % len(addresses)]
            # One that hangs must leave time for the others.
            share = min(max(left / len(addresses), SHARE_MIN), left)
            try:
                return await self.ask_one(target, make(share), loop.time() + share)
            except Attempt as failed:
                if not self.follow or self._links.closed:
                    raise failed.error from failed
                tried[target] = str(failed.error)
                if target == addresses[self._links.nearest % len(addresses)]:  # else another call has moved on already
                    self._links.nearest += 1
                if len(tried) == len(addresses):
                    pause = await self._pause(pause, deadline)
        raise Unavailable(tried_text(tried, deadline - begun, "nobody"))

    async def ask_one(
        self, target: Address, call: Call, deadline: float, is_write: bool = False, is_once: bool = False
    ) -> object:
        """Ask one peer.

        Returns:
            The answer.

        Raises:
            Attempt: the call may be tried again: it certainly had no effect, or it has one only once.
            OutcomeUnknown: the command was sent, and what became of it is not known.
            QuorateError: the answer is that error.
        """
        is_sent = False
        try:
            channel = self._links.open_channel(target.node)
            if channel is None:
                async with asyncio.timeout_at(deadline):
                    channel = await self._links.channel(target.node, self._make_transport)
            is_sent = True
            reply = await channel.post(target.name, call, deadline)
        except Unavailable as error:
            raise Attempt(error) from error
        except TimeoutError:
            if is_sent and is_write:
                unknown = OutcomeUnknown(f"{target} did not say in time what became of the write")
                raise (Attempt(unknown) if is_once else unknown) from None
            raise Attempt(Unavailable("no answer in time")) from None
        except ConnectionError as error:
            if is_write:
                unknown = OutcomeUnknown(f"the connection to {target} broke after the write was sent: {error}")
                raise (Attempt(unknown) if is_once else unknown) from error
            raise Attempt(Unavailable(f"the connection broke: {error}")) from error
        return answer_of(reply, is_once)

    async def _leader_after(self, failed: Attempt, target: Address, deadline: float) -> Address | None:
        """Give whom to ask instead: a peer that knows of no leader is given a while to learn of one."""
        now = asyncio.get_running_loop().time()
        patience = min(ELECTION_PATIENCE, deadline - now)
        if failed.redirect is not None or not isinstance(failed.error, NotLeader) or patience <= 0:
            return failed.redirect
        try:
            found = await self.ask_one(target, LeaderCall(patience), now + patience)
        except (Attempt, QuorateError):
            return None
        return found.leader if isinstance(found, LeaderIs) else None

    def _leave(self, place: int) -> None:
        """Begin with another peer next time: who was asked may hang for good, and who sent us there may not notice."""
        self._links.leader = None
        if place == self._links.place:  # else another call has moved on already
            self._next_address()

    async def _pause(self, longest: float, deadline: float) -> float:
        """Wait before the next try, not beyond the deadline; give how long to wait before the one after it."""
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(min(longest * (1 - self._random() / 2), max(left, 0)))
        return min(max(2 * longest, PAUSE_MIN), PAUSE_MAX)

    def _next_address(self) -> Address:
        """Give the next of the addresses that ``connect`` was given."""
        self._links.place += 1
        return self.addresses[self._links.place % len(self.addresses)]


def answer_of(reply: Reply, is_once: bool) -> object:
    """Give the answer of a reply, or raise what it says.

    Raises:
        Attempt: the call may be tried again: it certainly had no effect, or it has one only once.
    """
    if not isinstance(reply.answer, Failure):
        return reply.answer
    error = error_from_failure(reply.answer)
    match error:
        case NotLeader(redirect=redirect):
            raise Attempt(error, redirect)
        case Overloaded() | Stopped() | Unavailable() | NotCommitted():
            raise Attempt(error)
        case SessionExpired():
            raise error
        case OutcomeUnknown() if is_once:
            raise Attempt(error)
        case _:
            raise error


def tried_text(tried: dict[Address, str], timeout: float, who: str) -> str:
    """Say who was tried, and what each said last; ``who`` did not answer."""
    said = "; ".join(f"{address}: {text}" for address, text in tried.items()) or "nobody was asked"
    return f"{who} answered within {timeout:.3g} s ({said})"
