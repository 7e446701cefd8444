"""connect: a client of a group, from outside. Finds the leader, follows it, and retries what is safe to retry.

Knows calls and addresses. Keeps no state of the group but who led last.
"""

from __future__ import annotations

import asyncio
import copy
import random
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from quorate.calling import MachineType, command_name, describe
from quorate.errors import (
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    Stopped,
    Unavailable,
)
from quorate.links import Links
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod
from quorate.peer import check_size, checked_options
from quorate.settings import Settings
from quorate.transport import Transport
from quorate.transport.calls import (
    Call,
    Failure,
    LeaderCall,
    LeaderIs,
    ReadCall,
    Reply,
    Request,
    StaleValue,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
    error_from_failure,
)
from quorate.transport.security import TLS
from quorate.transport.tcp import TCPTransport
from quorate.types import Address, Consistency, StaleRead, Status

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")

PAUSE_MIN = 0.01
"""The first pause before a call is tried again, seconds; doubles each time, less a random part."""
PAUSE_MAX = 0.25
"""The longest such pause: about the time an election takes."""
REDIRECTS_MAX = 3
"""Redirects followed without a pause: more than that are peers that send the caller in circles."""


class Attempt(Exception):
    """One try failed, and certainly had no effect: the call may be tried again.

    Attributes:
        error: what went wrong.
        redirect: whom to ask instead.
    """

    def __init__(self, error: QuorateError, redirect: Address | None = None) -> None:
        """Keep both."""
        super().__init__(str(error))
        self.error = error
        self.redirect = redirect


class Client(Generic[M]):
    """A connection to a group from outside; made by ``connect``.

    Nothing is opened before the first call. One client serves any number of calls at once; those that are made in one
    turn of the event loop travel together.
    """

    def __init__(
        self,
        machine: type[M],
        addresses: tuple[Address, ...],
        *,
        follow: bool,
        settings: Settings,
        transport: Callable[[], Transport],
        random: Callable[[], float],
    ) -> None:
        """Describe a client; use ``connect`` to get one."""
        self._machine: MachineType = describe(machine)
        self._addresses = addresses
        self._follow = follow
        self._settings = settings
        self._timeout = settings.call_timeout
        self._consistency: Consistency = "linearizable"
        self._make_transport = transport
        self._random = random
        self._links = Links()

    def with_options(self, *, timeout: float | None = None, consistency: Consistency | None = None) -> Client[M]:
        """Give the same client, on the same connections, with other options; those that are not named stay as they are.

        Args:
            timeout: seconds from the call to its deadline; above 0.
            consistency: what ``read`` sees: see ``Peer.with_options``. ``"linearizable"`` and ``"lease"`` ask the
                leader; with ``follow=False``, whoever is asked. ``"stale"`` asks whichever peer answers.

        Raises:
            ValueError: the timeout is not above 0 and finite, or there is no such consistency.
        """
        other = copy.copy(self)
        other._timeout, other._consistency = checked_options(
            self._timeout if timeout is None else timeout, consistency or self._consistency
        )
        return other

    @overload
    async def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def write(self, command: Command[R], /) -> R: ...
    async def write(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Write, and wait until the command is durable on a majority and applied.

        A try that certainly had no effect is repeated until the deadline: another peer leads, none was reached, too
        much was under way. One whose outcome is not known is not.

        Args:
            call: a ``@write`` method of the machine, followed by its arguments; or a ``Command``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method; nothing was sent.
            ValueError: the command is larger than ``Settings.command_bytes_max``; nothing was sent.
            NotLeader: with ``follow=False``: the peer asked does not lead; nothing was written.
            NotCommitted: a new leader replaced the entry; nothing was written.
            Unavailable: until the deadline no leader was reached; nothing was written.
            OutcomeUnknown: the connection broke, or the deadline passed, after the command was sent.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        encoded = self._machine.encode_write(call, args, kwargs)
        check_size(encoded, self._settings)
        answer = await self._call(lambda left: WriteCall(encoded, left), is_write=True)
        return self._decode(answer, encoded)

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
            Unavailable: until the deadline nobody answered; the message says who was tried and what each said.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        if self._consistency == "stale":
            return (await self._read_stale(call, args, kwargs)).value
        encoded = self._machine.encode_read(call, args, kwargs)
        check_size(encoded, self._settings)
        answer = await self._call(lambda left: ReadCall(encoded, left, self._consistency, self._follow), is_write=False)
        return self._decode(answer, encoded)

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
            Unavailable: until the deadline nobody answered; the message says who was tried and what each said.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        return await self._read_stale(call, args, kwargs)

    async def leader(self) -> Address:
        """Ask who leads; wait for a leader while there is none.

        Returns:
            The leader's address.

        Raises:
            Unavailable: there was none until the deadline; the message says why.
        """
        answer = await self._call(LeaderCall, is_write=False)
        if not isinstance(answer, LeaderIs):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which names no leader")
        return answer.leader

    async def status(self) -> tuple[Status, ...]:
        """Ask every peer that ``connect`` was given for its status; those that cannot be reached are left out.

        Raises:
            Unavailable: none of them was reached.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        tried: dict[Address, str] = {}
        found: list[Status] = []
        for address in self._addresses:
            try:
                answer = await self._try(address, StatusCall(), deadline, is_write=False)
            except Attempt as failed:
                tried[address] = str(failed)
            else:
                found.extend(answer.peers if isinstance(answer, StatusIs) else ())
        if not found:
            raise Unavailable(tried_text(tried, self._timeout, "no leader"))
        return tuple(found)

    async def close(self) -> None:
        """Close every connection; calls under way fail. Idempotent."""
        await self._links.close()

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
        mode = "following the leader" if self._follow else "asking only the first"
        return f"<Client of {', '.join(map(str, self._addresses))}, {mode}>"

    async def _call(self, make: Callable[[float], Call], *, is_write: bool) -> object:
        """Ask until there is an answer: the leader if it is known, else one peer after the other.

        Raises:
            Unavailable: there was none until the deadline.
            OutcomeUnknown: a write was sent, and what became of it is not known.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        place = self._links.place
        target = self._links.leader or self._addresses[place % len(self._addresses)]
        tried: dict[Address, str] = {}
        pause = PAUSE_MIN
        redirects = 0
        while (left := deadline - loop.time()) > 0:
            try:
                answer = await self._try(target, make(left), deadline, is_write=is_write)
            except Attempt as failed:
                tried[target] = str(failed.error)
                self._links.leader = None
                if not self._follow:
                    raise failed.error from failed
                if failed.redirect is not None and redirects < REDIRECTS_MAX:
                    target = self._links.leader = failed.redirect
                    redirects += 1
                    continue
                redirects = 0
                target, place = self._next_address(), self._links.place
                await asyncio.sleep(min(pause * (1 - self._random() / 2), max(deadline - loop.time(), 0)))
                pause = min(2 * pause, PAUSE_MAX)
            except OutcomeUnknown:
                # Whoever was asked may hang for good, and who sent us there may not notice: begin with another then.
                self._links.leader = None
                if place == self._links.place:  # else another call has moved on already
                    self._next_address()
                raise
            else:
                self._links.leader = target
                return answer
        raise Unavailable(tried_text(tried, self._timeout, "no leader"))

    async def _read_stale(
        self, call: ReadMethod[Any, ..., Any] | Query[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> StaleRead[Any]:
        """Read what some peer holds just now.

        Raises:
            Unavailable: nobody answered until the deadline, or not with a stale read.
        """
        encoded = self._machine.encode_read(call, args, kwargs)
        check_size(encoded, self._settings)
        answer = await self._call_any(lambda left: ReadCall(encoded, left, "stale"))
        if not isinstance(answer, StaleValue):
            raise Unavailable(f"the peer answered with {type(answer).__name__}, which is no stale read")
        value = self._machine.decode_reply(command_name(encoded), answer.value)
        return StaleRead(value, answer.index, answer.age)

    async def _call_any(self, make: Callable[[float], Call]) -> object:
        """Ask one peer after the other until one answers, beginning with the one that did last.

        Raises:
            Unavailable: there was none until the deadline.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        addresses = self._addresses if self._follow else self._addresses[:1]
        tried: dict[Address, str] = {}
        pause = PAUSE_MIN
        while (left := deadline - loop.time()) > 0:
            target = addresses[self._links.nearest % len(addresses)]
            # One that hangs must leave time for the others.
            share = min(max(left / len(addresses), PAUSE_MAX), left)
            try:
                return await self._try(target, make(share), loop.time() + share, is_write=False)
            except Attempt as failed:
                if not self._follow:
                    raise failed.error from failed
                tried[target] = str(failed.error)
                if target == addresses[self._links.nearest % len(addresses)]:  # else another call has moved on already
                    self._links.nearest += 1
                if len(tried) == len(addresses):
                    await asyncio.sleep(min(pause * (1 - self._random() / 2), max(deadline - loop.time(), 0)))
                    pause = min(2 * pause, PAUSE_MAX)
        raise Unavailable(tried_text(tried, self._timeout, "nobody"))

    async def _try(self, target: Address, call: Call, deadline: float, *, is_write: bool) -> object:
        """Ask one peer.

        Returns:
            The answer.

        Raises:
            Attempt: it certainly had no effect, and may be tried again.
            OutcomeUnknown: the command was sent, and what became of it is not known.
            QuorateError: the answer is that error.
        """
        is_sent = False
        try:
            async with asyncio.timeout_at(deadline):
                channel = await self._links.channel(target.node, self._make_transport)
                is_sent = True
                reply = await channel.call(Request(0, target.name, call))
        except Unavailable as error:
            raise Attempt(error) from error
        except TimeoutError:
            if is_sent and is_write:
                raise OutcomeUnknown(
                    f"{target} did not say within {self._timeout:g} s what became of the write"
                ) from None
            raise Attempt(Unavailable("no answer in time")) from None
        except ConnectionError as error:
            if is_write:
                raise OutcomeUnknown(f"the connection to {target} broke after the write was sent: {error}") from error
            raise Attempt(Unavailable(f"the connection broke: {error}")) from error
        return self._answer(reply)

    def _answer(self, reply: Reply) -> object:
        """Give the answer of a reply, or raise what it says.

        Raises:
            Attempt: it certainly had no effect, and may be tried again.
        """
        if not isinstance(reply.answer, Failure):
            return reply.answer
        error = error_from_failure(reply.answer)
        match error:
            case NotLeader(redirect=redirect):
                raise Attempt(error, redirect)
            case Overloaded() | Stopped() | Unavailable():
                raise Attempt(error)
            case _:
                raise error

    def _decode(self, answer: object, encoded: bytes) -> object:
        """Decode the reply of a write or read.

        Raises:
            OutcomeUnknown: it is no reply to a write or read.
        """
        if not isinstance(answer, Value):
            raise OutcomeUnknown(f"the peer answered with {type(answer).__name__}, which is no reply")
        return self._machine.decode_reply(command_name(encoded), answer.value)

    def _next_address(self) -> Address:
        """Give the next of the addresses that ``connect`` was given."""
        self._links.place += 1
        return self._addresses[self._links.place % len(self._addresses)]


def connect(
    machine: type[M],
    *addresses: str | Address,
    follow: bool = True,
    settings: Settings | None = None,
    tls: TLS | None = None,
    transport: Callable[[], Transport] | None = None,
    random: Callable[[], float] | None = None,
) -> Client[M]:
    """Make a client of a group; it connects with its first call, and is closed by ``async with`` or ``close``.

    ::

        async with connect(KV, "peer1@127.0.0.1:7001", "peer2@127.0.0.1:7002") as kv:
            await kv.write(KV.set, "foo", "bar")

    Args:
        machine: the class of the group's state machine.
        addresses: some members of the group, ``name@host:port``; all of them if it is to survive the loss of any.
        follow: find the leader and follow it. With False the first address alone is asked, and ``NotLeader`` is raised
            as it comes.
        settings: the knobs; those of the group.
        tls: certificate, key and authority, if the group has them.
        transport: makes the network, for simulations.
        random: gives floats from 0.0 to 1.0, for simulations.

    Raises:
        ValueError: there is no address, or one cannot be read.
    """
    parsed = tuple(Address.parse(address) for address in addresses)
    if not parsed:
        raise ValueError("connect needs the address of a peer, such as peer1@127.0.0.1:7001")
    settings = settings or Settings()
    chance = random or secrets_random()

    def real() -> Transport:
        return TCPTransport(None, settings=settings, tls=tls, random=chance)

    return Client(machine, parsed, follow=follow, settings=settings, transport=transport or real, random=chance)


def secrets_random() -> Callable[[], float]:
    """Give a generator of its own, seeded by the operating system."""
    return random.Random(secrets.randbits(128)).random


def tried_text(tried: dict[Address, str], timeout: float, who: str) -> str:
    """Say who was tried, and what each said last; ``who`` did not answer."""
    said = "; ".join(f"{address}: {text}" for address, text in tried.items()) or "nobody was asked"
    return f"{who} answered within {timeout:g} s ({said})"
