"""The blocking twin of ``quorate.peer``: the same peer, for threads that wait.

Its methods say what theirs say, word for word, and a test holds them to it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import quorate.peer
import quorate.watching
from quorate.blocking.background import Background
from quorate.blocking.watch import StatusWatch, Watch
from quorate.events import Change, Event
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod
from quorate.types import Address, Consistency, MemberKind, StaleRead, Status

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)


class Peer(Generic[M]):
    """One member of one group, running in this process; made by ``quorate.blocking.Node.start_peer``.

    Writes are taken by the leader alone: on any other peer they raise ``NotLeader`` with the leader's address;
    ``connect`` follows it for you. Reads are answered by every peer that has a machine, from its own. Any number of
    threads may share it.

    Attributes:
        address: the peer's name, and where its node is reached.
    """

    def __init__(self, peer: quorate.peer.Peer[M], background: Background) -> None:
        """Speak for a peer whose loop is in the background; use ``Node.start_peer`` to get one."""
        self.address: Address = peer.address
        self._peer = peer
        self._background = background

    @property
    def name(self) -> str:
        """The peer's name, unique in its group."""
        return self.address.name

    def with_options(self, *, timeout: float | None = None, consistency: Consistency | None = None) -> Peer[M]:
        """Give the same peer with other options for its calls; those that are not named stay as they are.

        Args:
            timeout: seconds from the call to its deadline; above 0.
            consistency: what ``read`` sees. ``"linearizable"``, the default: every write acknowledged before the call;
                it asks a quorum. ``"lease"``: the same, without asking anybody if this peer leads and heard a quorum
                just now, and only as long as the clocks of the group keep to ``Settings.clock_drift_max``.
                ``"stale"``: what this peer holds just now; see ``read_stale``.

        Raises:
            ValueError: the timeout is not above 0 and finite, or there is no such consistency.
            TypeError: the timeout is no number.
        """
        other = copy.copy(self)
        other._peer = self._peer.with_options(timeout=timeout, consistency=consistency)
        return other

    @overload
    def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def write(self, command: Command[R], /) -> R: ...
    def write(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
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
            Unavailable: the peer was removed from its group; nothing was written.
            Stopped: the peer had stopped; nothing was written.
            NotCommitted: a new leader replaced the entry; nothing was written.
            OutcomeUnknown: the deadline passed, or the peer stopped, before the fate of the entry was learned.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        return self._background.call(self._peer.write, call, *args, **kwargs)

    @overload
    def read(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def read(self, query: Query[R], /) -> R: ...
    def read(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Read: by default what is read is at least as new as every write acknowledged before the call (thesis 6.4).

        A leader asks a quorum whether it still leads; any other peer asks the leader, and answers from its own machine.
        Reads that are made in one turn of the event loop share one round. ``with_options`` changes what is asked for.

        Args:
            call: a ``@read`` method of the machine, followed by its arguments; or a ``Query``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned.

        Raises:
            TypeError: the arguments do not fit the method.
            ValueError: the query is larger than ``Settings.command_bytes_max``.
            NotLeader: this peer knows of no leader, or ceased to lead; or it is a witness, which has no machine.
            Unavailable: the deadline passed before it was known how much this peer must have applied, or before it had;
                or the peer was removed from its group.
            Stopped: the peer has stopped.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        return self._background.call(self._peer.read, call, *args, **kwargs)

    @overload
    def read_stale(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    def read_stale(self, query: Query[R], /) -> StaleRead[R]: ...
    def read_stale(self, call: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Read what this peer holds just now: at once, also while there is no leader and no quorum.

        It is what every peer held, or will hold, after the same index; while this peer runs, later reads of it never
        show less. Writes that were acknowledged may be missing.

        Args:
            call: a ``@read`` method of the machine, followed by its arguments; or a ``Query``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            What the handler returned, after which index, and for how long more may have been written.

        Raises:
            TypeError: the arguments do not fit the method.
            ValueError: the query is larger than ``Settings.command_bytes_max``.
            NotLeader: this peer is a witness, which has no machine.
            Stopped: the peer has stopped.
            Rejected: the handler refused.
            MachineError: the handler raised anything else.
        """
        return self._background.call(self._peer.read_stale, call, *args, **kwargs)

    @overload
    def watch(self, *, after: int | Change[Any] | None = None) -> Watch[Event]: ...
    @overload
    def watch(self, event: type[E], /, *more: type[E2], after: int | Change[Any] | None = None) -> Watch[E | E2]: ...
    def watch(self, *events: type[Event], after: int | Change[Any] | None = None) -> Watch[Any]:
        """Watch what happens to this peer's machine: the events of the writes it applies, in the order of the log.

        While this peer is cut off from its group nothing happens to it; ``Client.watch`` asks another one then.

        Args:
            events: those to watch, of the machine's ``emits``; all of them when none is named.
            after: begin behind this index, or behind a ``Change`` seen before. None for what this peer applies from now
                on: from this call.

        Returns:
            The events, as they come; ``Stopped`` once the peer has stopped.

        Raises:
            TypeError: the machine does not emit one of them, or emits none.
            ValueError: ``after`` is below 0.
        """
        watch: Callable[..., quorate.watching.Watch[Any]] = self._peer.watch
        return Watch(self._background.look(watch, *events, after=after), self._background)

    def watch_status(self) -> StatusWatch:
        """Watch how this peer stands: its role and term, the leader that it follows or is, and the members.

        ::

            for status in peer.watch_status():
                print(status.role, status.term, status.leader)

        The first status tells how it stands now, and another comes whenever one of these is another; the numbers in it
        are those of that instant. Whoever takes long with one is given the newest next, and those between are skipped.
        It costs nothing while nothing changes, and ends when the peer is stopped.
        """
        return StatusWatch(self._background.look(self._peer.watch_status), self._background)

    def leader(self, *, other_than: str | Address | None = None) -> Address:
        """Tell who leads, as far as this peer knows; wait for a leader while there is none.

        Args:
            other_than: a leader that does not count, such as one that was just stopped.

        Returns:
            The leader's address.

        Raises:
            ValueError: ``other_than`` is no address.
            Unavailable: there was none until the deadline; the message says why.
            Overloaded: too many wait for one here already.
            Stopped: the peer has stopped.
        """
        return self._background.call(self._peer.leader, other_than=other_than)

    def transfer_leadership(self, to: str | Address | None = None) -> Address:
        """Hand over leadership, and wait until another peer leads (thesis 3.10). To be called on the leader.

        Meanwhile writes fail with ``NotLeader``; ``connect`` repeats them. If the other peer does not take over within
        an election timeout, this one leads on.

        Args:
            to: the name or address of the peer that is to lead; None for the one that is most caught up. If it leads
                already, nothing is done.

        Returns:
            The new leader's address.

        Raises:
            NotLeader: this peer does not lead.
            InvalidConfiguration: the target is no other voter of the group, or there is none.
            ChangeInProgress: leadership is being handed over to another peer already.
            Unavailable: the target did not take over in time; this peer leads on, or another was not found in time.
            Stopped: the peer has stopped.
        """
        return self._background.call(self._peer.transfer_leadership, to)

    def take_snapshot(self) -> int:
        """Take a snapshot of this peer's machine now, and shorten its log (Raft §7).

        Each peer does so by itself when ``Settings.snapshot_entries`` or ``snapshot_bytes`` are reached; call this
        before a backup, or to make room.

        Returns:
            The last index that is in the snapshot.

        Raises:
            MachineError: the machine cannot give its state.
            DiskFull: there is no room for it; the log is as it was.
            StoreError: the disk refused.
            Stopped: the peer has stopped.
        """
        return self._background.call(self._peer.take_snapshot)

    def status(self) -> Status:
        """Tell what this peer knows of itself and its group; once stopped, what it knew last, but not that it leads."""
        self._background.check_process()
        return self._background.look(self._peer.status)

    def set_configuration(self, *members: str | Address) -> None:
        """Say who the members are: form the group with them, or change those that it has to these.

        **On an empty peer** it writes the first configuration on every member, this peer among them. Repeating it with
        the same members does nothing, or finishes what an earlier call could not. Afterwards they elect a leader: see
        ``leader``.

        **On any member of a group** it changes the members, all at once (thesis 4.3), and returns when that is done:
        the call is carried to the leader; newcomers receive the log first, and then their votes; those that are not
        named leave. Names that are members already keep their kinds and priorities, and move to the addresses given.
        ``status().members`` shows how far it has come.

        Args:
            members: the addresses of all members, ``name@host:port``; newcomers, which become voters, must run.

        Raises:
            TypeError: an address is no text.
            InvalidConfiguration: they cannot be the members of this group; the message says which and why.
            ChangeInProgress: another change is under way.
            Unavailable: a member or the leader did not answer, or a newcomer did not catch up; nothing was changed.
            OutcomeUnknown: the leader was lost, or the deadline passed (``Settings.change_timeout``, unless
                ``with_options`` says otherwise), while the change was under way: it goes on; ask ``status``.
            Stopped: the peer has stopped.
        """
        self._background.call(self._peer.set_configuration, *members)

    def add_peer(self, address: str | Address, *, kind: MemberKind = "voter", priority: int = 0) -> None:
        """Add a member, which must run and be empty; one that is a member already becomes what is said here.

        Args:
            address: ``name@host:port``.
            kind: ``"voter"``; ``"learner"``, which receives everything and has no vote; or ``"witness"``, which votes
                and keeps no data. Witnesses must be fewer than half of those that vote.
            priority: see ``set_priority``.

        Raises:
            ValueError: there is no such kind, or the priority is out of its bounds.
            TypeError: the priority is no whole number, or the address no text.
            QuorateError: as ``set_configuration`` has it.
        """
        self._background.call(self._peer.add_peer, address, kind=kind, priority=priority)

    def remove_peer(self, name: str) -> None:
        """Remove a member, running or not. A leader may be removed too: it hands over.

        Args:
            name: its name.

        Raises:
            QuorateError: as ``set_configuration`` has it.
        """
        self._background.call(self._peer.remove_peer, name)

    def replace_peer(self, name: str, address: str | Address) -> None:
        """Put a newcomer in the place of a member, with its kind and priority, in one change.

        A newcomer of the same name, such as one whose disk was lost, takes two: the old one leaves first, and if
        adding the new one fails, ``add_peer`` is left to be done.

        Args:
            name: who is to leave.
            address: who is to come, ``name@host:port``.

        Raises:
            QuorateError: as ``set_configuration`` has it.
        """
        self._background.call(self._peer.replace_peer, name, address)

    def change_address(self, name: str, node: str) -> None:
        """Tell the group where a member is reached now. One that runs there says so itself.

        Args:
            name: its name.
            node: ``host:port``.

        Raises:
            ValueError: the address cannot be read.
            QuorateError: as ``set_configuration`` has it.
        """
        self._background.call(self._peer.change_address, name, node)

    def set_priority(self, name: str, priority: int) -> None:
        """Prefer a voter as leader: of those that could lead, one with the highest priority comes to lead before long.

        Args:
            name: its name.
            priority: 0 unless it was set; from -1,000,000 to 1,000,000.

        Raises:
            ValueError: the priority is out of its bounds.
            TypeError: it is no whole number.
            QuorateError: as ``set_configuration`` has it.
        """
        self._background.call(self._peer.set_priority, name, priority)

    def stop(self) -> None:
        """Stop this peer: what is under way is answered first, if that takes no longer than an election. Idempotent.

        Its data stays; ``Node.start_peer`` with the same name starts it again.
        """
        if not self._background.has_ended:  # The node's end was the peer's.
            self._background.call(self._peer.stop)

    def __enter__(self) -> Self:
        """Give the peer, which is running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the peer."""
        self.stop()

    def __repr__(self) -> str:
        """Tell name, role, term and commit index: ``<Peer peer1 leader term=3 commit=41>``."""
        return self._background.look(self._peer.__repr__)

    def _repr_html_(self) -> str:
        """Give its status as a table, for notebooks."""
        return self._background.look(self._peer._repr_html_)
