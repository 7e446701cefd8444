"""The blocking twin of ``quorate.client``: the same client, for threads that wait.

Its methods say what theirs say, word for word, and a test holds them to it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import quorate.client
import quorate.watching
from quorate.blocking.background import Background
from quorate.blocking.watch import StatusWatch, Watch
from quorate.errors import QuorateError, Unavailable
from quorate.events import Change, Event
from quorate.links import CLOSED
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod
from quorate.settings import Settings
from quorate.transport import Transport
from quorate.transport.security import TLS
from quorate.types import Address, Consistency, StaleRead, Status

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)


class Client(Generic[M]):
    """A connection to a group from outside; made by ``quorate.blocking.connect``. Any number of threads may share it.

    Nothing is opened, and no thread begun, before the first call. Calls that threads make at once travel together. In a
    process that was forked it connects anew, and opens another session.
    """

    def __init__(self, client: quorate.client.Client[M]) -> None:
        """Describe a client; use ``connect`` to get one."""
        self._client = client
        self._background = Background(client.close, closed, client._start_over)

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
        other._client = self._client.with_options(timeout=timeout, consistency=consistency)
        return other

    @overload
    def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def write(self, command: Command[R], /) -> R: ...
    def write(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
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
        return self._background.call(self._client.write, call, *args, **kwargs)

    @overload
    def read(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def read(self, query: Query[R], /) -> R: ...
    def read(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
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
        return self._background.call(self._client.read, call, *args, **kwargs)

    @overload
    def read_stale(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    def read_stale(self, query: Query[R], /) -> StaleRead[R]: ...
    def read_stale(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
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
        return self._background.call(self._client.read_stale, call, *args, **kwargs)

    @overload
    def watch(self, *, after: int | Change[Any] | None = None) -> Watch[Event]: ...
    @overload
    def watch(self, event: type[E], /, *more: type[E2], after: int | Change[Any] | None = None) -> Watch[E | E2]: ...
    def watch(self, *events: type[Event], after: int | Change[Any] | None = None) -> Watch[Any]:
        """Watch what happens to the machine: the events that its writes emit, each once, in the order of the log.

        ::

            for change in kv.watch(Changed):
                print(change.index, change.event)

        Any peer may be asked, and another is when one fails: nothing is lost or repeated by that. A call waits for
        events as long as the timeout of this client; then it is made again. So an idle watch costs one call in that
        time, and a peer that falls silent is noticed behind it.

        Args:
            events: those to watch, of the machine's ``emits``; all of them when none is named.
            after: begin behind this index, or behind a ``Change`` seen before. None for what is committed from now on:
                from when the first event is asked for, or ``with`` is entered.

        Returns:
            The events, as they come.

        Raises:
            TypeError: the machine does not emit one of them, or emits none.
            ValueError: ``after`` is below 0.
        """
        watch: Callable[..., quorate.watching.Watch[Any]] = self._client.watch
        return Watch(self._background.look(watch, *events, after=after), self._background)

    def watch_status(self) -> StatusWatch:
        """Watch how the group stands: its term, its leader and its members.

        ::

            for status in kv.watch_status():
                print(status.leader, [member.address.name for member in status.members])

        The first status tells how things are now, and another comes whenever one of these is another. Each is that of
        one peer, whichever answers, and its ``name``, ``role`` and numbers are of that peer at that instant; another is
        asked when it fails, and none goes back behind a term that was told. Whoever takes long with one is given the
        newest next, and those between are skipped.

        A call waits for a change as long as the timeout of this client; then it is made again. So an idle watch costs
        one call in that time, and a peer that falls silent or is cut off is noticed behind it.
        """
        return StatusWatch(self._background.look(self._client.watch_status), self._background)

    def leader(self) -> Address:
        """Ask who leads; wait for a leader while there is none.

        Returns:
            The leader's address.

        Raises:
            Unavailable: there was none until the deadline; the message says why.
        """
        return self._background.call(self._client.leader)

    def status(self) -> tuple[Status, ...]:
        """Ask every peer that is known for its status, all at once; those that cannot be reached are left out.

        Raises:
            Unavailable: none of them was reached.
        """
        return self._background.call(self._client.status)

    def close(self) -> None:
        """Close every connection, for good: calls under way fail, watches end, and later calls fail too. Idempotent.

        Raises:
            RuntimeError: not from this event loop; the message says why.
        """
        self._background.stop()

    def __enter__(self) -> Self:
        """Give the client; it connects with its first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        """Tell whom it knows, and whether it follows the leader."""
        return repr(self._client)

    def _repr_html_(self) -> str:
        """Give a table of those it knows, for notebooks; it asks nobody for that."""
        return self._client._repr_html_()


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
    """Make a client of a group; it connects with its first call, and is closed by ``with`` or ``close``.

    ::

        with connect(KV, "peer1@127.0.0.1:7001", "peer2@127.0.0.1:7002") as kv:
            kv.write(KV.set, "foo", "bar")

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
    client = quorate.client.connect(
        machine,
        *addresses,
        follow=follow,
        exactly_once=exactly_once,
        settings=settings,
        tls=tls,
        reached=reached,
        transport=transport,
        random=random,
    )
    return Client(client)


def closed() -> QuorateError:
    """Make the error of a call to a client that was closed."""
    return Unavailable(CLOSED)
