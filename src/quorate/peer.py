"""Peer: one member of one group, in this process. Write, read, ask who leads, form the group, stop.

Turns typed calls into bytes and waits for their replies. The protocol is the core's, the order of things the loop's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from quorate.bootstrap import Ask, form_group, parse_members
from quorate.calling import MachineType
from quorate.errands import FindLeader, HandOver
from quorate.errors import Stopped
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod
from quorate.seat import Seat
from quorate.settings import Settings
from quorate.types import Address, Status
from quorate.waiters import FutureWaiter

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")


class Peer(Generic[M]):
    """One member of one group, running in this process; made by ``Node.start_peer``.

    Writes and linearizable reads are answered by the leader alone: on any other peer they raise ``NotLeader`` with the
    leader's address. ``connect`` follows it for you.

    Attributes:
        address: the peer's name, and where its node is reached.
    """

    def __init__(
        self,
        address: Address,
        machine: MachineType,
        seat: Seat,
        settings: Settings,
        *,
        ask: Callable[[float], Ask],
        new_group: Callable[[], str],
        close: Callable[[], Awaitable[None]],
        timeout: float | None = None,
    ) -> None:
        """Speak for a seat; use ``Node.start_peer`` to get one."""
        self.address = address
        self._machine = machine
        self._seat = seat
        self._settings = settings
        self._ask = ask
        self._new_group = new_group
        self._close = close
        self._timeout = settings.call_timeout if timeout is None else timeout

    @property
    def name(self) -> str:
        """The peer's name, unique in its group."""
        return self.address.name

    def with_options(self, *, timeout: float) -> Peer[M]:
        """Give the same peer with another deadline for its calls.

        Args:
            timeout: seconds from the call to its deadline; above 0.

        Raises:
            ValueError: the timeout is not above 0.
        """
        check_timeout(timeout)
        return type(self)(
            self.address,
            self._machine,
            self._seat,
            self._settings,
            ask=self._ask,
            new_group=self._new_group,
            close=self._close,
            timeout=timeout,
        )

    @overload
    async def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def write(self, command: Command[R], /) -> R: ...
    async def write(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Write, and wait until the command is durable on a majority and applied here.

        Args:
            call: a ``@write`` method of the machine, followed by its arguments; or a ``Command``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method; nothing was sent.
            ValueError: the command is larger than ``Settings.command_bytes_max``; nothing was sent.
            NotLeader: another peer leads; nothing was written.
            Overloaded: too much waits for a quorum; nothing was written.
            Stopped: the peer had stopped; nothing was written.
            NotCommitted: a new leader replaced the entry; nothing was written.
            OutcomeUnknown: the deadline passed, or the peer stopped, before the fate of the entry was learned.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        encoded = self._machine.encode_write(call, args, kwargs)
        check_size(encoded, self._settings)
        waiter = self._waiter(call)
        self._seat.write(encoded, waiter)
        return await waiter.future

    @overload
    async def read(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def read(self, query: Query[R], /) -> R: ...
    async def read(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Read, linearizably: what is read is at least as new as every write acknowledged before the call (thesis 6.4).

        Args:
            call: a ``@read`` method of the machine, followed by its arguments; or a ``Query``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method.
            ValueError: the query is larger than ``Settings.command_bytes_max``.
            NotLeader: another peer leads.
            Unavailable: the deadline passed before a quorum confirmed that this peer still leads.
            Stopped: the peer has stopped.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        encoded = self._machine.encode_read(call, args, kwargs)
        check_size(encoded, self._settings)
        waiter = self._waiter(call)
        self._seat.read(encoded, waiter)
        return await waiter.future

    async def leader(self, *, other_than: str | Address | None = None) -> Address:
        """Tell who leads, as far as this peer knows; wait for a leader while there is none.

        Args:
            other_than: a leader that does not count, such as one that was just stopped.

        Returns:
            The leader's address.

        Raises:
            Unavailable: there was none until the deadline; the message says why.
            Stopped: the peer has stopped.
        """
        waiter = self._plain_waiter()
        excluded = None if other_than is None else Address.parse(other_than)
        self._seat.run(FindLeader(waiter, excluded))
        return cast(Address, await waiter.future)

    async def transfer_leadership(self, to: str | Address | None = None) -> Address:
        """Hand over leadership, and wait until another peer leads (thesis 3.10). To be called on the leader.

        Meanwhile writes fail with ``NotLeader``; ``connect`` repeats them. If the other peer does not take over within
        an election timeout, this one leads on.

        Args:
            to: the name or address of the peer that is to lead; None for the one that is most caught up.

        Returns:
            The new leader's address.

        Raises:
            NotLeader: this peer does not lead.
            InvalidConfiguration: the target is no other voter of the group, or there is none.
            ChangeInProgress: leadership is being handed over to another peer already.
            Unavailable: the target did not take over in time; this peer leads on, or another was not found in time.
            Stopped: the peer has stopped.
        """
        waiter = self._plain_waiter()
        name = to.partition("@")[0] if isinstance(to, str) else to.name if to else None
        self._seat.run(HandOver(waiter, name))
        return cast(Address, await waiter.future)

    def status(self) -> Status:
        """Tell what this peer knows of itself and its group; after a stop, what it knew last."""
        return self._seat.status()

    async def set_configuration(self, *members: str | Address) -> None:
        """Form the group: write its first configuration on every member. To be called on one of them, once.

        Repeating it with the same members does nothing, or finishes what an earlier call could not. Afterwards the
        members elect a leader: see ``leader``.

        Args:
            members: the addresses of all members, ``name@host:port``, this peer's among them; each must be started.

        Raises:
            InvalidConfiguration: the members cannot form this group; the message says which and why. Changing the
                members of a group that is configured is not supported yet.
            Unavailable: a member did not answer; the message says which.
            Stopped: the peer has stopped.
        """
        if self._seat.failure is not None:
            raise Stopped(str(self._seat.failure))
        addresses = parse_members(self.address, members)
        current = self._seat.raft.state.configuration
        await form_group(self.address, current, addresses, self._ask(self._timeout), self._new_group)

    async def stop(self) -> None:
        """Stop this peer: what is under way is answered first, if that takes no longer than an election. Idempotent.

        Its data stays; ``Node.start_peer`` with the same name starts it again.
        """
        await self._close()

    async def __aenter__(self) -> Self:
        """Give the peer, which is running."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the peer."""
        await self.stop()

    def __repr__(self) -> str:
        """Tell name, role, term and commit index: ``<Peer peer1 leader term=3 commit=41>``."""
        status = self.status()
        role = "stopped" if self._seat.failure else status.role
        return f"<Peer {self.name} {role} term={status.term} commit={status.commit_index}>"

    def _waiter(
        self, call: WriteMethod[Any, ..., Any] | ReadMethod[Any, ..., Any] | Command[Any] | Query[Any]
    ) -> FutureWaiter:
        """Make who waits for the reply of a write or read."""
        loop = asyncio.get_running_loop()
        name = call.name if isinstance(call, (WriteMethod, ReadMethod)) else str(call.__struct_config__.tag)
        return FutureWaiter(loop.create_future(), loop.time() + self._timeout, name, self._machine.detach_reply)

    def _plain_waiter(self) -> FutureWaiter:
        """Make who waits for something that is not of the machine."""
        loop = asyncio.get_running_loop()
        return FutureWaiter(loop.create_future(), loop.time() + self._timeout)


def check_size(encoded: bytes, settings: Settings) -> None:
    """Check that an encoded command or query is not too large.

    Raises:
        ValueError: it is; the message gives both sizes.
    """
    if len(encoded) > settings.command_bytes_max:
        limit = settings.command_bytes_max
        raise ValueError(
            f"the call is {len(encoded)} bytes long; at most {limit} are allowed (Settings.command_bytes_max)"
        )


def check_timeout(timeout: float) -> None:
    """Check that a deadline can be kept.

    Raises:
        ValueError: it is not above 0 s, or not finite.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be above 0 s and finite, not {timeout}")
