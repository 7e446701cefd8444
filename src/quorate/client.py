"""connect: a client of a group, from outside. Its writes are applied once, however often they had to be sent.

Turns typed calls into bytes. Where they go, and when they are tried again, is in ``following.py``.
"""

from __future__ import annotations

import asyncio
import copy
import random
import secrets
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from quorate.addresses import check_told
from quorate.attempts import Expired, reason
from quorate.calling import MachineType, describe
from quorate.errors import OutcomeUnknown, SessionExpired, Unavailable
from quorate.events import Change, Event
from quorate.following import FirstTry, Following, share_of
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod
from quorate.notebook import table
from quorate.peer import check_size, checked_options
from quorate.replies import ReplyType
from quorate.settings import Settings
from quorate.tickets import Ticket, Tickets
from quorate.transport import Transport
from quorate.transport.calls import (
    Call,
    FirstWrite,
    LeaderCall,
    LeaderIs,
    OpenSessionCall,
    ReadCall,
    SessionIs,
    StaleValue,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
)
from quorate.transport.local import Target, parse_target
from quorate.transport.security import TLS
from quorate.transport.tcp import TCPTransport
from quorate.types import Address, Consistency, StaleRead, Status, Statuses
from quorate.watching import Asking, AskingStatus, StatusWatch, Watch, beginning, view_of_group

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)


class Client(Generic[M]):
    """A connection to a group from outside; made by ``connect``.

    Nothing is opened before the first call. One client serves any number of calls at once; those that are made in one
    turn of the event loop travel together. It belongs to the event loop of its first call: in another one a call is a
    ``RuntimeError``.
    """

    def __init__(
        self,
        machine: type[M],
        addresses: tuple[Target, ...],
        *,
        follow: bool,
        exactly_once: bool,
        settings: Settings,
        reached: Mapping[str, str],
        transport: Callable[[], Transport],
        random: Callable[[], float],
    ) -> None:
        """Describe a client; use ``connect`` to get one."""
        self._machine: MachineType = describe(machine)
        self._exactly_once = exactly_once
        self._settings = settings
        self._timeout = settings.call_timeout
        self._share = share_of(self._timeout, 2)
        self._consistency: Consistency = "linearizable"
        self._following = Following(addresses, follow=follow, reached=reached, transport=transport, random=random)
        self._tickets = Tickets()
        self._watches: weakref.WeakKeyDictionary[Watch[Any] | StatusWatch, None] = weakref.WeakKeyDictionary()

    def with_options(self, *, timeout: float | None = None, consistency: Consistency | None = None) -> Client[M]:
        """Give the same client, on the same connections, with other options; those that are not named stay as they are.

        Args:
            timeout: seconds from the call to its deadline; above 0.
            consistency: what ``read`` sees: see ``Peer.with_options``. ``"linearizable"`` and ``"lease"`` ask the
                leader; with ``follow=False``, whoever is asked. ``"stale"`` asks whichever peer answers.

        Raises:
            ValueError: the timeout is not above 0 and finite, or there is no such consistency.
            TypeError: the timeout is no number.
        """
        other = copy.copy(self)
        other._timeout, other._consistency = checked_options(
            self._timeout if timeout is None else timeout, consistency or self._consistency
        )
        other._share = share_of(other._timeout, 2)
        return other

    @overload
    async def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def write(self, command: Command[R], /) -> R: ...
    async def write(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Write, and wait until the command is durable on a majority and applied.

        A try that fails is repeated until the deadline, also one whose outcome is not known: the group applies the
        write once, and every try of it is given the same answer (thesis 6.3). Writes are applied in the order in which
        this method was called. With ``exactly_once=False`` a try is repeated only if it certainly had no effect.

        Args:
            call: a ``@write`` method of the machine, followed by its arguments; or a ``Command``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method; nothing was sent.
            ValueError: the command is larger than ``Settings.command_bytes_max``; nothing was sent.
            Overloaded: 1,024 writes of this client wait for their answers, or, with ``follow=False``, too much waits at
                the peer asked; nothing was written.
            NotLeader: with ``follow=False``: the peer asked does not lead; nothing was written.
            Stopped: with ``follow=False``: the peer asked has stopped; nothing was written.
            NotCommitted: with ``exactly_once=False``: a new leader replaced the entry; nothing was written.
            Unavailable: until the deadline no leader was reached; nothing was written.
            OutcomeUnknown: the deadline passed after the command was sent, and no try was answered; with
                ``exactly_once=False`` also: the connection broke after it was sent.
            SessionExpired: the same, and the session ended meanwhile.
            Rejected: the handler refused.
            MachineError: the handler raised anything else, or gave a reply too long for ``Settings.frame_bytes_max``.
        """
        encoded, reply, _ = self._machine.writes.encode(call, args, kwargs)
        check_size(encoded, self._settings)
        if self._exactly_once:
            answer = await self._write_once(encoded)
        else:
            answer = await self._ask_leader(lambda left: WriteCall(encoded, left), self._timeout, is_write=True)
        return decoded(answer, reply)

    @overload
    async def read(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def read(self, query: Query[R], /) -> R: ...
    async def read(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Read: by default what is read is at least as new as every write acknowledged before the call (thesis 6.4).

        ``with_options`` changes what is asked for.

        Args:
            call: a ``@read`` method of the machine, followed by its arguments; or a ``Query``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method.
            ValueError: the query is larger than ``Settings.command_bytes_max``.
            NotLeader: with ``follow=False``: the peer asked knows of no leader, or is a witness.
            Stopped: with ``follow=False``: the peer asked has stopped.
            Unavailable: until the deadline nobody answered; the message says who was tried and what each said.
            Rejected: the handler refused.
            MachineError: the handler raised anything else, or gave a reply too long for ``Settings.frame_bytes_max``.
        """
        if self._consistency == "stale":
            return (await self._read_stale(call, args, kwargs)).value
        encoded, reply, _ = self._machine.reads.encode(call, args, kwargs)
        check_size(encoded, self._settings)
        consistency, leader_only = self._consistency, self._following.follow
        answer = await self._ask_leader(
            lambda left: ReadCall(encoded, left, consistency, leader_only), self._share, is_write=False
        )
        return decoded(answer, reply)

    @overload
    async def read_stale(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    async def read_stale(self, query: Query[R], /) -> StaleRead[R]: ...
    async def read_stale(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Read what some peer holds just now: the one that answered the last such read, else the next that answers.

        See ``Peer.read_stale``. When another peer answers, it may show less than the one before.

        Args:
            call: a ``@read`` method of the machine, followed by its arguments; or a ``Query``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned, after which index, and for how long more may have been written.

        Raises:
            TypeError: the arguments do not fit the method.
            ValueError: the query is larger than ``Settings.command_bytes_max``.
            NotLeader: with ``follow=False``: the peer asked is a witness.
            Stopped: with ``follow=False``: the peer asked has stopped.
            Unavailable: until the deadline nobody answered; the message says who was tried and what each said.
            Rejected: the handler refused.
            MachineError: the handler raised anything else, or gave a reply too long for ``Settings.frame_bytes_max``.
        """
        return await self._read_stale(call, args, kwargs)

    @overload
    def watch(self, *, after: int | Change[Any] | None = None) -> Watch[Event]: ...
    @overload
    def watch(self, event: type[E], /, *more: type[E2], after: int | Change[Any] | None = None) -> Watch[E | E2]: ...
    def watch(self, *events: type[Event], after: int | Change[Any] | None = None) -> Watch[Any]:
        """Watch what happens to the machine: the events that its writes emit, each once, in the order of the log.

        ::

            async for change in kv.watch(Changed):
                print(change.index, change.event)

        Any peer may be asked, and another is when one fails: nothing is lost or repeated by that. A call waits for
        events as long as the timeout of this client; then it is made again. So an idle watch costs one call in that
        time, and a peer that falls silent is noticed behind it.

        Args:
            events: those to watch, of the machine's ``emits``; all of them when none is named.
            after: begin behind this index, or behind a ``Change`` seen before. None for what is committed from now on:
                from when the first event is asked for, or ``async with`` is entered.

        Returns:
            The events, as they come.

        Raises:
            TypeError: the machine does not emit one of them, or emits none.
            ValueError: ``after`` is below 0.
        """
        types = self._machine.events.part(events)
        watch = Watch[Any](types, Asking(self._following, tuple(types.prefixes), self._timeout), beginning(after))
        self._watches[watch] = None
        return watch

    def watch_status(self) -> StatusWatch:
        """Watch how the group stands: its term, its leader and its members.

        ::

            async for status in kv.watch_status():
                print(status.leader, [member.address.name for member in status.members])

        The first status tells how things are now, and another comes whenever one of these is another. Each is that of
        one peer, whichever answers, and its ``name``, ``role`` and numbers are of that peer at that instant; another is
        asked when it fails, and none goes back behind a term that was told. Whoever takes long with one is given the
        newest next, and those between are skipped.

        A call waits for a change as long as the timeout of this client; then it is made again. So an idle watch costs
        one call in that time, and a peer that falls silent or is cut off is noticed behind it.
        """
        watch = StatusWatch(AskingStatus(self._following, self._timeout), view_of_group)
        self._watches[watch] = None
        return watch

    async def leader(self) -> Address:
        """Ask who leads; wait for a leader while there is none.

        Returns:
            The leader's address.

        Raises:
            Unavailable: there was none until the deadline; the message says why.
        """
        # The peer waits a little less than we do, so that we learn from it why there is no leader.
        answer = await self._following.ask(lambda left: LeaderCall(0.8 * left), self._deadline(), is_write=False)
        if not isinstance(answer, LeaderIs):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which names no leader")
        return answer.leader

    async def status(self) -> tuple[Status, ...]:
        """Ask every peer that is known for its status, all at once; those that cannot be reached are left out.

        Raises:
            Unavailable: none of them was reached.
        """
        answers, tried = await self._following.ask_all(StatusCall(), self._deadline())
        found = [status for answer in answers if isinstance(answer, StatusIs) for status in answer.peers]
        if not found:
            raise Unavailable(reason("nobody answered", self._timeout, tried, self._following.addresses))
        return Statuses(found)

    async def close(self) -> None:
        """Close every connection, for good: calls under way fail, watches end, and later calls fail too. Idempotent.

        Raises:
            RuntimeError: not from this event loop; the message says why.
        """
        self._following.check_loop()
        for watch in list(self._watches):
            await watch.aclose()
        await self._following.close()

    async def __aenter__(self) -> Self:
        """Give the client; it connects with its first call."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    def __repr__(self) -> str:
        """Tell whom it knows, and whether it follows the leader."""
        mode = "following the leader" if self._following.follow else "asking only the first"
        return f"<Client of {', '.join(map(str, self._following.addresses))}, {mode}>"

    def _repr_html_(self) -> str:
        """Give a table of those it knows, for notebooks; it asks nobody for that."""
        rows = [
            (address.name or None, address.node, "led last" if address == self._following.leader else None)
            for address in self._following.addresses
        ]
        mode = "follows the leader" if self._following.follow else "asks only the first"
        return table(f"Client of {self._machine.name}", ("member", "address", ""), rows, mode)

    def _start_over(self) -> None:
        """Begin anew in a process that was forked: neither connections nor the session may be shared (``blocking``)."""
        self._following.start_over()
        self._tickets.start_over()

    def _deadline(self, first: FirstTry | None = None) -> float:
        """Give the deadline of a call that is made now, or of which there was a first try."""
        return (asyncio.get_running_loop().time() if first is None else first.begun) + self._timeout

    async def _ask_leader(self, make: Callable[[float], Call], share: float, *, is_write: bool) -> object:
        """Ask the leader, at once if it is known and connected; until the deadline.

        Args:
            make: makes the call, of the seconds that a peer has for it.
            share: how many of them the first try has.
            is_write: whether it may have an effect.
        """
        following = self._following
        first: FirstTry | None = None
        if following.follow:
            found = await following.ask_leader(make(share), share)
            if isinstance(found, Value):
                return found
            first = found
        return await following.ask(make, self._deadline(first), is_write=is_write, first=first)

    async def _write_once(self, encoded: bytes) -> object:
        """Write in this client's session."""
        tickets, following, share = self._tickets, self._following, self._share
        following.check_loop()  # Before it waits for the session: nobody would wake it in another one.
        ticket = tickets.draw()
        try:
            first: FirstTry | None = None
            if ticket.session:
                write = FirstWrite(encoded, share, ticket.session, ticket.sequence, tickets.first)
                found = await following.ask_leader(write, share)
                if isinstance(found, Value):
                    return found
                first = found
            return await self._write_until(encoded, ticket, self._deadline(first), first)
        finally:
            tickets.give_back(ticket, finds_leader=following.leader is not None)

    async def _write_until(self, encoded: bytes, ticket: Ticket, deadline: float, first: FirstTry | None) -> object:
        """Try a write until the deadline; in another session if its own had ended before it could have any effect.

        Raises:
            SessionExpired: it ended while it was not known what became of the write.
        """
        tickets, make = self._tickets, partial(self._write_call, encoded, ticket)
        turn = partial(tickets.turn, ticket, deadline)
        while True:
            if first is None and not tickets.is_seated(ticket):
                await tickets.seat(ticket, partial(self._open_session, deadline), deadline)
            try:
                return await self._following.ask(make, deadline, is_write=True, is_once=True, turn=turn, first=first)
            except SessionExpired:
                tickets.expired(ticket.session)
                raise
            except Expired:
                tickets.expired(ticket.session)
            first = None

    def _write_call(self, encoded: bytes, ticket: Ticket, left: float) -> WriteCall:
        """Make the call for one try of a write in a session."""
        return WriteCall(encoded, left, ticket.session, ticket.sequence, self._tickets.settled(ticket))

    async def _open_session(self, deadline: float) -> int:
        """Open a session; one that was opened twice, because an answer was lost, ends by itself.

        Raises:
            Unavailable: none was opened until the deadline, or the answer opens none.
        """
        make = partial(OpenSessionCall, self._settings.session_timeout)
        try:
            answer = await self._following.ask(make, deadline, is_write=True, is_once=True)
        except OutcomeUnknown as error:
            raise Unavailable(f"no session could be opened in time: {error}; nothing was written") from error
        if not isinstance(answer, SessionIs):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which opens no session")
        return answer.session

    async def _read_stale(
        self, call: ReadMethod[Any, ..., Any] | Query[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StaleRead[Any]:
        """Read what some peer holds just now.

        Raises:
            Unavailable: nobody answered until the deadline, or not with a stale read.
        """
        encoded, reply, _ = self._machine.reads.encode(call, args, kwargs)
        check_size(encoded, self._settings)
        answer = await self._following.ask_any(lambda left: ReadCall(encoded, left, "stale"), self._deadline())
        if not isinstance(answer, StaleValue):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which is no stale read")
        return StaleRead(reply.decode(answer.value), answer.index, answer.age)


def decoded(answer: object, reply: ReplyType) -> object:
    """Decode the reply of a write or read.

    Raises:
        OutcomeUnknown: it is no reply to a write or read.
    """
    if not isinstance(answer, Value):
        raise OutcomeUnknown(f"the peer answered with {type(answer).__name__}, which is no reply")
    return reply.decode(answer.value)


def connect(
    machine: type[M],
    *addresses: str | Address,
    follow: bool = True,
    exactly_once: bool = True,
    settings: Settings | None = None,
    tls: TLS | None = None,
    reached: Mapping[str, str] | None = None,
    transport: Callable[[], Transport] | None = None,
    random: Callable[[], float] | None = None,
) -> Client[M]:
    """Make a client of a group; it connects with its first call, and is closed by ``async with`` or ``close``.

    ::

        async with connect(KV, "peer1@127.0.0.1:7001", "peer2@127.0.0.1:7002") as kv:
            await kv.write(KV.set, "foo", "bar")

    Args:
        machine: the class of the group's state machine.
        addresses: some members of the group, ``name@host:port``: those that may be down when the program starts are
            worth naming; the others are learned. ``unix:PATH`` is the local socket of a node on this machine, which
            passes on to the leader what it cannot answer; ``name@unix:PATH`` where the node has several peers.
        follow: find the leader and follow it. With False the first address alone is asked, nothing is tried again, and
            ``NotLeader`` is raised as it comes.
        exactly_once: open a session with the first write, in which a write may be tried again until it is answered.
            With False, or without ``follow``, one whose outcome is not known raises ``OutcomeUnknown`` at once.
        settings: the knobs; those of the group.
        tls: certificate, key and authority, if the group has them.
        reached: where peers with these names are reached from here, ``{"peer1": "127.0.0.1:7101"}``, whatever their
            group has for them: for tunnels and mapped ports.
        transport: makes the network, for simulations.
        random: gives floats from 0.0 to 1.0, for simulations.

    Raises:
        TypeError: the machine is no class of one, or an address no text.
        ValueError: there is no address, or one cannot be read.
    """
    describe(machine)  # First: whoever forgets it has named an address in its place.
    parsed = tuple(map(parse_target, addresses))
    if not parsed:
        raise ValueError("connect needs the address of a peer, such as peer1@127.0.0.1:7001")
    settings = settings or Settings()
    chance = random or secrets_random()

    def real() -> Transport:
        return TCPTransport(None, settings=settings, tls=tls, random=chance)

    return Client(
        machine,
        parsed,
        follow=follow,
        exactly_once=exactly_once and follow,
        settings=settings,
        reached=check_told(reached or {}),
        transport=transport or real,
        random=chance,
    )


def secrets_random() -> Callable[[], float]:
    """Give a generator of its own, seeded by the operating system."""
    return random.Random(secrets.randbits(128)).random
