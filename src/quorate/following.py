"""Following: a call of a client goes to the leader, wherever that is, and is tried again where that is safe.

Knows some members, learns of the others while it is used, and knows who led last. Does not know what is asked, nor
sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec

from quorate.attempts import SHARE_MAX, SHARE_MIN, Attempt, Expired, Said, answer_of, in_vain, note, reason, said_of
from quorate.belonging import Belonging
from quorate.ending import Ending
from quorate.errors import NotLeader, OutcomeUnknown, QuorateError, SessionExpired, Unavailable
from quorate.links import CLOSED, Links
from quorate.transport import Channel, Transport
from quorate.transport.calls import (
    Call,
    FirstWrite,
    LeaderCall,
    LeaderIs,
    Reply,
    StatusCall,
    StatusIs,
    Value,
    WatchCall,
    WatchStatusCall,
)
from quorate.transport.local import LocalAddress, Target
from quorate.types import MEMBERS_MAX, Address, Status, is_reachable

PAUSE_MIN = 0.01
"""The first pause before a call is tried again, seconds; doubles each time, less a random part. Another peer is asked
once without a pause."""

PAUSE_MAX = 0.05
"""The longest such pause."""

ELECTION_PATIENCE = 0.1
"""How long a peer that knows of no leader is given to learn of one, seconds, before another peer is asked: it tells as
soon as it does, but it may be cut off from the others."""

WHY_SECONDS = 0.1
"""How much later its answer may come that says why it knows of none."""

REDIRECTS_MAX = 3
"""Redirects followed without a pause: more than that are peers that send the caller in circles."""

LEARN_SECONDS = 30.0
"""How long after it asked who the members are a client that is used asks again; one that is not asks nobody."""

ALONE_SECONDS = 1.0
"""The same while it knows one of them alone: were that gone, nobody would be left to ask, though others had joined."""


class FirstTry(msgspec.Struct, frozen=True):
    """A call that went to the leader at once, and was not answered by a value.

    Attributes:
        target: who was asked.
        reply: the reply, or why there is none.
        begun: when, by the loop's clock.
    """

    target: Target
    reply: asyncio.Future[Reply]
    begun: float


class Following:
    """The way of one client's calls to its group.

    Attributes:
        addresses: who may be asked: those told, and what was learned of the members.
        follow: whether to go from one to another.
        repeats: how many tries of writes were made after their first one.
        learn_at: when a peer that answers is next asked who the members are, by the loop's clock. At once where one
            did not answer: they may have moved.
    """

    def __init__(
        self,
        addresses: tuple[Target, ...],
        *,
        follow: bool,
        reached: Mapping[str, str],
        transport: Callable[[], Transport],
        random: Callable[[], float],
        group: str = "",
    ) -> None:
        """Know some members.

        Args:
            addresses: theirs; one at least.
            follow: whether to go from one to another; else the first alone is asked, once.
            reached: for some names, where they are reached, ``host:port``, whatever the group says.
            transport: makes the network.
            random: gives floats from 0.0 to 1.0.
            group: the id of their group; else that of the first one that is asked.
        """
        self.addresses: tuple[Target, ...] = addresses
        self._told = addresses
        self._reached = reached
        self.learn_at: float = 0.0
        self._learning: asyncio.Task[None] | None = None
        self.follow: bool = follow
        self.repeats: int = 0
        self._make_transport = transport
        self._random = random
        self._links = Links()
        self._belonging = Belonging(group)
        self._ending = Ending()
        self._way: tuple[Target, Channel] | None = None  # To whoever answered as the leader last.

    async def close(self) -> None:
        """Close every connection, for good; calls under way fail. Idempotent."""
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        """Close every connection; may be begun anew."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        await self._links.close()

    def check_loop(self) -> None:
        """Refuse what is not called in the event loop of this client, as ``Links.own_loop`` does."""
        self._links.own_loop()

    def start_over(self) -> None:
        """Forget the connections, and close none: they are those of the process which this one was forked from."""
        self._links.start_over()
        self._belonging.start_over()
        self._learning, self._way = None, None

    @property
    def leader(self) -> Target | None:
        """Who answered as the leader last; None while that is not known."""
        return self._links.leader

    @property
    def closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._links.closed

    def expect(self, leader: Address) -> None:
        """Take somebody's word for who leads, unless a peer has answered as the leader."""
        if self._links.leader is None:
            self._links.leader = leader

    async def ask_leader(self, call: Call | FirstWrite, share: float) -> Value | FirstTry | None:
        """Ask the leader, if it is known and connected. Nearly all calls are answered so, at little cost.

        Args:
            call: the call; a try of it that fails is one for ``ask`` to go on from.
            share: when to give up this try, seconds from now.

        Returns:
            The value; or the try, if it came to anything else; or None, if it was not made.

        Raises:
            CancelledError: whoever waits for this was cancelled.
            RuntimeError: this is not the event loop of the client; nothing was sent.
        """
        if self._way is None or self._way[0] is not self._links.leader:
            return None
        leader, channel = self._way
        begun = self._links.own_loop().time()
        try:
            reply = channel.post(leader.name, call, begun + share)
        except Unavailable:
            return None
        try:
            answer = (await reply).answer
        except asyncio.CancelledError:
            if isinstance(leader, LocalAddress):
                channel.take_back(leader.name, reply)
            raise
        except (TimeoutError, ConnectionError):
            answer = None
        if not isinstance(answer, Value):
            return FirstTry(leader, reply, begun)
        self._links.leader = leader
        if begun >= self.learn_at:
            self.learn_soon(leader, begun)
        return answer

    async def ask(
        self,
        make: Callable[[float], Call],
        deadline: float,
        *,
        is_write: bool,
        is_once: bool = False,
        repeats: bool = True,
        turn: Callable[[], Awaitable[bool]] | None = None,
        first: FirstTry | None = None,
    ) -> object:
        """Ask until there is an answer: the leader if it is known, else one peer after the other.

        Args:
            make: makes the call, of the seconds that are left.
            deadline: when to give up.
            is_write: whether a try that was sent may have an effect.
            is_once: whether it has that once, however often it is tried.
            repeats: whether a try that failed is made again; redirects are followed all the same.
            turn: waits, after a try that failed, for those that must be tried before; tells whether it had to.
            first: a try that was made already, and is over.

        Raises:
            Unavailable: there was none until the deadline.
            QuorateError: without ``repeats`` or ``follow``: why the try failed.
            OutcomeUnknown: a write was sent, and what became of it is not known.
            SessionExpired: the same, and its session has ended.
            Expired: its session has ended, and no try had any effect.
        """
        loop = asyncio.get_running_loop()
        begun = now = loop.time() if first is None else first.begun
        unknown: OutcomeUnknown | None = None
        place, redirects, pause, longest = self._links.place, 0, 0.0, SHARE_MAX
        target = first.target if first else self._links.leader or self.addresses[place % len(self.addresses)]
        tried: dict[Target, Said] = {}
        while (left := deadline - now) > 0:
            # A leader that hangs must leave time for another, where a second try does no harm.
            share = share_of(left, 2, longest) if self.follow and (is_once or not is_write) else left
            self.repeats += is_write and bool(tried)
            reply, first = None if first is None else first.reply, None
            try:
                answer = await self.ask_one(target, make(share), now + share, is_write, is_once, reply)
            except Attempt as failed:
                note(tried, target, failed, share)
                longest = next_share(longest, now + share)
                unknown = failed.error if isinstance(failed.error, OutcomeUnknown) else unknown
                redirect = await self._leader_after(failed, target, deadline, tried)
                if redirect is not None and redirects < REDIRECTS_MAX:
                    target, self._links.leader, redirects, now = redirect, redirect, redirects + 1, loop.time()
                    continue
                if not repeats or not self.follow or self._links.closed:
                    self._leave(place, target)
                    raise (unknown or failed.error) from failed
            except OutcomeUnknown as error:
                self._leave(place, target)
                if isinstance(error, SessionExpired) and unknown is None:
                    raise Expired from error
                raise
            else:
                self._leads(target, now)
                return answer
            if turn is not None and await turn() and (leader := self.leader) is not None:
                target = leader
            else:
                target, place = self._next_address(target), self._links.place
                pause = await self._pause(pause, deadline)
            now, redirects = loop.time(), 0
        failure = in_vain(unknown, reason("no leader", deadline - begun, tried, self.addresses))
        raise failure

    async def ask_any(self, make: Callable[[float], Call], deadline: float) -> object:
        """Ask one peer after the other until one answers, beginning with the one that did last.

        Raises:
            Unavailable: there was none until the deadline.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tried: dict[Target, Said] = {}
        pause, longest = PAUSE_MIN, SHARE_MAX
        while (left := deadline - (now := loop.time())) > 0:
            addresses = self.addresses if self.follow else self._told[:1]
            target = addresses[self._links.nearest % len(addresses)]
            # One that hangs must leave time for the others.
            share = share_of(left, len(addresses), longest)
            try:
                answer = await self.ask_one(target, make(share), now + share)
            except Attempt as failed:
                if not self.follow or self._links.closed:
                    raise failed.error from failed
                note(tried, target, failed, share)
                longest, self.learn_at = next_share(longest, now + share), 0.0
                if target == addresses[self._links.nearest % len(addresses)]:  # else another call has moved on already
                    self._links.nearest += 1
                if len(tried) >= len(addresses):
                    pause = await self._pause(pause, deadline)
            else:
                self.learn_soon(target, loop.time())
                return answer
        raise Unavailable(reason("nobody answered", deadline - begun, tried, self.addresses))

    async def ask_one(
        self,
        target: Target,
        call: Call,
        deadline: float,
        is_write: bool = False,
        is_once: bool = False,
        reply: asyncio.Future[Reply] | None = None,
    ) -> object:
        """Ask one peer.

        Args:
            target: the peer.
            call: what is asked.
            deadline: when to give up.
            is_write: whether it may have an effect.
            is_once: whether it has that once, however often it is tried.
            reply: where the reply comes, if the call was sent already.

        Returns:
            The answer.

        Raises:
            Attempt: the call may be tried again: it certainly had no effect, or it has one only once.
            OutcomeUnknown: the command was sent, and what became of it is not known.
            QuorateError: the answer is that error.
            RuntimeError: this is not the event loop of the client; nothing was sent.
        """
        self._links.own_loop()
        try:
            if reply is None:
                channel = await self._channel(target, deadline, of_any_group=isinstance(call, StatusCall))
                reply = channel.post(target.name, call, deadline)
                if is_kept(target, call):
                    reply.add_done_callback(partial(take_back, channel, target.name))
            return answer_of(await reply, is_once, in_session=getattr(call, "session", 0) != 0)
        except Unavailable as error:
            raise Attempt(error) from error
        except TimeoutError:
            if reply is not None and is_write:
                unknown = OutcomeUnknown(f"{target} did not say in time what became of the write")
                raise (Attempt(unknown) if is_once else unknown) from None
            raise Attempt(Unavailable(f"{target} does not answer")) from None
        except ConnectionError as error:
            if is_write:
                unknown = OutcomeUnknown(f"{target} was lost after the write was sent: {error}")
                raise (Attempt(unknown) if is_once else unknown) from error
            raise Attempt(Unavailable(f"{target} was lost: {error}")) from error

    async def _channel(self, target: Target, deadline: float, *, of_any_group: bool) -> Channel:
        """Give the connection to a peer of our group, opened if need be.

        Raises:
            Unavailable: it cannot be reached, or is of another group.
            TimeoutError: it could not be opened in time, or the peer did not say in time of which group it is.
        """
        open_one = self._links.open_channel(self._node_of(target))
        if open_one is not None and (of_any_group or self._belonging.has(target, open_one)):
            return open_one
        # Until the call is sent another peer may be asked: one that cannot be connected to must leave time for it.
        now = asyncio.get_running_loop().time()
        deadline = now + share_of(deadline - now, 2)
        async with asyncio.timeout_at(deadline):
            channel = await self._connect(target)
            if not of_any_group:
                await self._belonging.check(target, channel, self._told, self._connect, deadline)
        return channel

    async def _connect(self, target: Target) -> Channel:
        """Give the connection to a peer, as ``Links.channel`` does."""
        return await self._links.channel(self._node_of(target), self._make_transport)

    def _node_of(self, target: Target) -> str:
        """Give where a peer is reached from here, ``host:port``."""
        return self._reached.get(target.name, target.node)

    async def _leader_after(
        self, failed: Attempt, target: Target, deadline: float, tried: dict[Target, Said]
    ) -> Address | None:
        """Give whom to ask instead: a peer that knows of no leader is given a while to learn of one, or to say why."""
        self._links.leader, self.learn_at = None, 0.0
        if not self.follow or self._links.closed:
            return None
        now = asyncio.get_running_loop().time()
        patience = min(ELECTION_PATIENCE, deadline - now)
        if failed.redirect is not None or not isinstance(failed.error, NotLeader) or patience <= 0:
            return failed.redirect
        try:
            found = await self.ask_one(target, LeaderCall(patience), min(now + patience + WHY_SECONDS, deadline))
        except Attempt as told:
            if told.answered:
                tried[target] = said_of(target, told)
            return None
        except QuorateError:
            return None
        return found.leader if isinstance(found, LeaderIs) else None

    async def ask_all(self, call: Call, deadline: float) -> tuple[list[object], dict[Target, Said]]:
        """Ask every peer that is known, all at once.

        Returns:
            The answers of those that gave one; and what is to be said of the others.

        Raises:
            Unavailable: the client was closed.
        """
        tried: dict[Target, Said] = {}

        async def ask(address: Target) -> object:
            try:
                return await self.ask_one(address, call, deadline)
            except Attempt as failed:
                tried[address] = said_of(address, failed)
                return None

        answers = await asyncio.gather(*map(ask, self.addresses if self.follow else self._told[:1]))
        if self.closed:
            raise Unavailable(CLOSED)
        return [answer for answer in answers if answer is not None], tried

    def learn_soon(self, target: Target, now: float) -> None:
        """Ask a peer that answers who the members are, if that is due: those that we know may all leave one day."""
        if now < self.learn_at or not self.follow or isinstance(target, LocalAddress):
            return  # A node that is asked at its local socket asks the others itself: we may have no way to them.
        is_alone = len({address.name for address in self.addresses}) == 1
        self.learn_at = now + (ALONE_SECONDS if is_alone else LEARN_SECONDS)
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn(target, now + LEARN_SECONDS), name="learn the members")

    async def _learn(self, target: Target, deadline: float) -> None:
        """Ask a peer who the members of its group are."""
        try:
            answer = await self.ask_one(target, StatusCall(), deadline)
        except (Attempt, QuorateError):
            self.learn_at = 0.0
            return  # Whoever calls next learns what is the matter.
        if isinstance(answer, StatusIs) and answer.peers:
            self.learn(target, answer.peers[0])

    def learn(self, target: Target, status: Status) -> None:
        """Ask the members that a peer tells of from now on, and behind them those that we were told.

        Not what a peer behind a local socket tells: whoever was told such an address is to stay there.
        """
        if not self.follow or isinstance(target, LocalAddress):
            return
        found = [member.address for member in status.members[:MEMBERS_MAX]]
        if found and all(map(is_reachable, found)):
            self.addresses = tuple(dict.fromkeys((*found, *self._told)))

    def _leads(self, target: Target, now: float) -> None:
        """Note that a peer answered as the leader."""
        self._links.leader = target
        channel = self._links.open_channel(self._node_of(target))
        self._way = None if channel is None else (target, channel)
        self.learn_soon(target, now)

    def _leave(self, place: int, asked: Target) -> None:
        """Begin with another peer next time: who was asked may hang for good, and who sent us there may not notice."""
        self._links.leader = None
        if self.follow and place == self._links.place:  # else another call has moved on already
            self._next_address(asked)

    async def _pause(self, longest: float, deadline: float) -> float:
        """Wait before the next try, not beyond the deadline; give how long to wait before the one after it."""
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(min(longest * (1 - self._random() / 2), max(left, 0)))
        return min(max(2 * longest, PAUSE_MIN), PAUSE_MAX)

    def _next_address(self, asked: Target) -> Target:
        """Give the next of the addresses that is not the one asked just now, unless there is no other."""
        self._links.place += 1
        if self.addresses[self._links.place % len(self.addresses)] == asked:
            self._links.place += 1
        return self.addresses[self._links.place % len(self.addresses)]


def is_kept(target: Target, call: Call) -> bool:
    """Tell whether whoever is asked keeps a call for long, and is to be told when nobody waits for it any longer."""
    return isinstance(target, LocalAddress) or isinstance(call, WatchCall | WatchStatusCall)


def take_back(channel: Channel, peer: str, reply: asyncio.Future[Reply]) -> None:
    """Tell a peer, which would keep the call for long, that whoever waited for its reply was cancelled."""
    if reply.cancelled():
        channel.take_back(peer, reply)


def share_of(left: float, tries: int, longest: float = SHARE_MAX) -> float:
    """Give the time of one try of several, where so many seconds are left for all."""
    return min(max(left / tries, SHARE_MIN), longest, left)


def next_share(longest: float, ended: float) -> float:
    """Give the most time of the next try: twice as much after one that took all of its own, until it ``ended``.

    A group may be slow, rather than hang: however slow it is, one try is long enough in the end.
    """
    return 2 * longest if asyncio.get_running_loop().time() >= ended else longest
