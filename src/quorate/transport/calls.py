"""Calls: what a client or a joining peer asks of a node, the replies, and errors as values of the wire.

Each request names a peer of the node and carries an id; its one reply carries the same id, so a cancelled call never
shifts a later reply. Knows nothing of sockets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import msgspec

from quorate.core.configuration import Configuration, Members
from quorate.core.messages import InstallSnapshot
from quorate.errors import (
    ChangeInProgress,
    Compacted,
    ConfigurationError,
    Corrupted,
    DiskFull,
    InvalidConfiguration,
    MachineError,
    NotCommitted,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    QuorateError,
    Rejected,
    SessionExpired,
    Stopped,
    StoreError,
    StoreLocked,
    Unavailable,
)
from quorate.events import Emitted
from quorate.types import Address, Consistency, Index, PeerId, Status

Timeout = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
"""Seconds that a call may take, as they come from the network: a number, and no infinity."""

Mark = Annotated[bytes, msgspec.Meta(max_length=64)]
"""What stands for how a peer stands: ours have 16 bytes."""

COMMANDS_MAX = 1_024
"""The most commands of one ``WritesCall``: so many writes of a session may be under way."""

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number that others are counted on from, as it comes from the network.

Far below the largest of MessagePack: what follows it goes into snapshots."""


class WriteCall(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="write"):
    """Write a command. Answered by ``Value`` with the encoded reply of the handler.

    Attributes:
        command: the encoded command.
        timeout: seconds from arrival until the peer answers ``OutcomeUnknown``; above 0.
        session: the session in which it is sent; 0 for none.
        sequence: its place among the writes of the session, from 1 on.
        settled: all writes of the session before this one need no answer any longer.
    """

    command: bytes
    timeout: Timeout
    session: Id = 0
    sequence: Id = 0
    settled: Id = 0


class WritesCall(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="writes"):
    """Write several commands of one session, in their order. Answered as a ``WriteCall`` for each of them would be.

    The answer of the first has the id of the request; that of each other, the id behind the one before. So this is one
    call in its form alone: what becomes of each command is its own.

    Attributes:
        commands: the encoded commands.
        timeout: as in ``WriteCall``, of each of them.
        session: the session.
        sequence: the place of the first one among the writes of the session; the others follow.
        settled: as in ``WriteCall``; not above ``sequence``.
    """

    commands: Annotated[list[Annotated[bytes, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=COMMANDS_MAX)]
    timeout: Timeout
    session: Id
    sequence: Id
    settled: Id

    def call(self, place: int) -> WriteCall:
        """Give the call for the command at a place among them, alone."""
        return WriteCall(self.commands[place], self.timeout, self.session, self.sequence + place, self.settled)


class FirstWrite(msgspec.Struct, frozen=True, gc=False):
    """The first try of a write in a session: it leaves in one ``WritesCall`` with those that follow it in its turn.

    Attributes:
        command: the encoded command.
        timeout: as in ``WriteCall``.
        session: the id of the session.
        sequence: its place among the writes of the session.
        settled: gives the first place whose write needs an answer: asked for the first one of those in a turn.
    """

    command: bytes
    timeout: float
    session: int
    sequence: int
    settled: Callable[[], int]

    def call(self) -> WriteCall:
        """Give the call for it alone."""
        return WriteCall(self.command, self.timeout, self.session, self.sequence, self.settled())


class OpenSessionCall(msgspec.Struct, frozen=True, array_like=True, tag="open_session"):
    """Open a session for writes (thesis 6.3). Answered by ``SessionIs`` once that is applied.

    Attributes:
        session_timeout: after so many seconds of the log's time without a write the session may end; above 0.
        timeout: seconds from arrival until the peer answers ``OutcomeUnknown``; above 0.
    """

    session_timeout: float
    timeout: Timeout


class ReadCall(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="read"):
    """Read. Answered by ``Value`` with the encoded reply of the handler, or by ``StaleValue`` if it may be stale.

    Attributes:
        query: the encoded query.
        timeout: seconds from arrival until the peer answers ``Unavailable``; above 0.
        consistency: what the reply must have seen.
        leader_only: whether a peer that does not lead is to answer ``NotLeader`` in place of asking the leader: so the
            caller learns who leads.
    """

    query: bytes
    timeout: Timeout
    consistency: Consistency = "linearizable"
    leader_only: bool = False


class WatchCall(msgspec.Struct, frozen=True, array_like=True, tag="watch"):
    """Ask for events. Answered by ``Events`` as soon as there are some, or when the time is over.

    Attributes:
        timeout: seconds from arrival until the peer answers that there were none; above 0, and counted as 60 at most.
        names: those of the events that are wanted; one at least.
        place: index and place of the first event that is wanted; see ``Emitted``. With None the answer comes once the
            peer has applied all that was committed when it was asked: it holds no events, and says where to go on.
    """

    timeout: float
    names: tuple[str, ...]
    place: tuple[int, int] | None


class WatchStatusCall(msgspec.Struct, frozen=True, array_like=True, tag="watch_status"):
    """Ask how a peer stands. Answered by ``StandingIs`` once that differs from what is known, or the time is over.

    Attributes:
        timeout: seconds from arrival until the peer answers that nothing has changed; above 0, and counted as 60 at
            most.
        mark: that of the answer before, from this peer or another; empty when there was none.
    """

    timeout: Timeout
    mark: Mark


class CancelCall(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Say that nobody waits any longer for the answer to a ``WatchCall`` or ``WatchStatusCall``.

    At a local socket, for the answer to any call: what was to be asked of the leader is asked no longer.

    Neither call is answered then; one that is not known, because it was answered just now, is nothing.

    Attributes:
        request: the id of that request, of the same connection and to the same peer.
    """

    request: int


class LeaderCall(msgspec.Struct, frozen=True, array_like=True, tag="leader"):
    """Ask who leads, waiting for one up to ``timeout`` seconds. Answered by ``LeaderIs``."""

    timeout: Timeout


class StatusCall(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """Ask for the status: of one peer, or of every peer of the node if none is named. Answered by ``StatusIs``."""


class IdentifyCall(msgspec.Struct, frozen=True, array_like=True, tag="identify"):
    """Ask a peer who it is, before a group is formed or changed. Answered by ``Identity``."""


class BootstrapCall(msgspec.Struct, frozen=True, array_like=True, tag="bootstrap"):
    """Write the first configuration of a group (house: bootstrap). Answered by ``Identity`` once it is durable.

    Attributes:
        configuration: the same for every member.
    """

    configuration: Configuration


class ChangeCall(msgspec.Struct, frozen=True, array_like=True, tag="change"):
    """Change the members of the group (thesis 4). Answered by ``Identity`` when that is done.

    Attributes:
        current: the members that the caller knows of, at the end of any change under way: if there are others by now,
            nothing is changed.
        members: those wanted.
        timeout: seconds from arrival until the peer answers ``OutcomeUnknown``; above 0.
    """

    current: Members
    members: Members
    timeout: Timeout


class SnapshotCall(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """Take a piece of a snapshot's file. Answered by ``SnapshotAt``, by which a broken transfer goes on where it was.

    When the piece is the last one, the answer waits until the whole file is verified and durable.

    Attributes:
        group: the id of the group.
        message: what the snapshot stands for, and who leads.
        size: the bytes of the whole file.
        offset: where the piece belongs.
        piece: bytes of the file; empty to ask where to go on.
    """

    group: str
    message: InstallSnapshot
    size: int
    offset: int
    piece: bytes


Call = (
    WriteCall
    | WritesCall
    | OpenSessionCall
    | ReadCall
    | WatchCall
    | WatchStatusCall
    | CancelCall
    | LeaderCall
    | StatusCall
    | IdentifyCall
    | BootstrapCall
    | ChangeCall
    | SnapshotCall
)
"""Everything that can be asked."""


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A call to one peer.

    Attributes:
        id: unique among the calls under way on the connection. A ``WritesCall`` takes as many as it has commands.
        peer: the name of the peer asked.
        call: what is asked.
    """

    id: Id
    peer: str
    call: Call


def singly(request: Request) -> list[Request]:
    """Give a request for several writes as one for each; any other as it is."""
    call = request.call
    if not isinstance(call, WritesCall):
        return [request]
    return [Request(request.id + place, request.peer, call.call(place)) for place in range(len(call.commands))]


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="value"):
    """The reply to a write or read: the encoded reply of the machine's handler."""

    value: bytes


class StaleValue(msgspec.Struct, frozen=True, array_like=True, tag="stale"):
    """The reply to a read that may be stale: see ``StaleRead``.

    Attributes:
        value: the encoded reply of the machine's handler.
        index: the last entry that the machine had applied.
        age: seconds since the peer knew that this was all; infinity when it never did.
    """

    value: bytes
    index: Index
    age: float


class SessionIs(msgspec.Struct, frozen=True, array_like=True, tag="session"):
    """The reply to ``OpenSessionCall``: the id of the session."""

    session: int


class Events(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """The reply to ``WatchCall``: all events that are wanted between the place asked for and ``place``.

    Attributes:
        place: index and place of the event from which on to go on asking.
        events: the events, in the order of their places; none if the time was over, or none of many is wanted.
    """

    place: tuple[int, int]
    events: tuple[Emitted, ...]


class LeaderIs(msgspec.Struct, frozen=True, array_like=True, tag="leader"):
    """The reply to ``LeaderCall``."""

    leader: Address


class StatusIs(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """The reply to ``StatusCall``."""

    peers: tuple[Status, ...]


class StandingIs(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    """The reply to ``WatchStatusCall``.

    Attributes:
        mark: stands for the peer's role, term, leader and members, and for the peer itself; equal to that of the call
            if the time was over.
        status: how it stands.
    """

    mark: Mark
    status: Status


class Identity(msgspec.Struct, frozen=True, array_like=True, tag="identity"):
    """The reply to ``IdentifyCall``, ``BootstrapCall`` and ``ChangeCall``.

    Attributes:
        id: the peer's random id.
        machine: the name of its machine's class, for a friendly refusal.
        configuration: its configuration, or None while it is empty.
        leader: who leads as far as it knows, and where that is reached; None when it knows of none.
    """

    id: PeerId
    machine: str
    configuration: Configuration | None
    leader: Address | None = None


class SnapshotAt(msgspec.Struct, frozen=True, array_like=True, tag="snapshot_at"):
    """The reply to ``SnapshotCall``: how many bytes of the file are there."""

    offset: int


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="error"):
    """The reply to any call that failed: an error of ``quorate.errors`` as a value.

    Attributes:
        error: the name of its class.
        message: its message, or the reason for ``Rejected``.
        redirect: for ``NotLeader``, who leads.
        details: for ``Rejected``, an encoded array of its details; for ``Compacted``, one that holds the first index;
            else empty.
    """

    error: str
    message: str
    redirect: Address | None = None
    details: bytes = b""


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The reply to the request with the same id."""

    id: int
    answer: Value | StaleValue | SessionIs | Events | LeaderIs | StatusIs | StandingIs | Identity | SnapshotAt | Failure


PLAIN_ERRORS: dict[str, type[QuorateError]] = {
    error.__name__: error
    for error in (
        Overloaded,
        Stopped,
        NotCommitted,
        Unavailable,
        OutcomeUnknown,
        SessionExpired,
        MachineError,
        ConfigurationError,
        InvalidConfiguration,
        ChangeInProgress,
        StoreError,
        Corrupted,
        DiskFull,
        StoreLocked,
    )
}
"""The errors that are a message and nothing more, by the names the wire knows them by."""


def failure_from_error(error: BaseException) -> Failure:
    """Turn an error into its form on the wire; what is not of ``quorate.errors`` becomes ``OutcomeUnknown``."""
    match error:
        case NotLeader():
            return Failure("NotLeader", encodable(error.peer), error.redirect)
        case Rejected():
            return Failure("Rejected", encodable(error.reason), None, encode_details(error.details))
        case Compacted():
            return Failure("Compacted", encodable(error), None, encode_details((error.first,)))
        case QuorateError() if type(error).__name__ in PLAIN_ERRORS:
            return Failure(type(error).__name__, encodable(error))
        case _:
            return Failure("OutcomeUnknown", encodable(f"the peer failed: {type(error).__name__}: {error}"))


def error_from_failure(failure: Failure) -> QuorateError:
    """Turn an error's form on the wire into the error; an unknown one, of a newer peer, becomes ``OutcomeUnknown``."""
    match failure.error:
        case "NotLeader":
            return NotLeader(failure.redirect, failure.message)
        case "Rejected":
            return Rejected(failure.message, *decode_details(failure.details))
        case "Compacted":
            first = decode_details(failure.details)[:1]
            return Compacted(first[0]) if first and isinstance(first[0], int) else Unavailable(failure.message)
        case name if name in PLAIN_ERRORS:
            return PLAIN_ERRORS[name](failure.message)
        case name:
            return OutcomeUnknown(f"{name}: {failure.message}")


def encode_details(details: tuple[object, ...]) -> bytes:
    """Encode the details of a ``Rejected``; one that MessagePack cannot carry goes as its ``repr``.

    Where that is not enough (numbers beyond 64 bits, lone surrogates, what holds itself) all of them do.
    """
    try:
        return msgspec.msgpack.encode(details, enc_hook=repr)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return msgspec.msgpack.encode([encodable(repr(detail)) for detail in details])


def decode_details(details: bytes) -> list[object]:
    """Decode the details of a ``Rejected``; bytes that are no array are shown as they are."""
    try:
        return msgspec.msgpack.decode(details, type=list[object]) if details else []
    except (ValueError, RecursionError):  # ValueError: msgspec's own errors are such, and text that is not UTF-8.
        return [details]


def encodable(words: object) -> str:
    """Make text that can be encoded: handlers and operating systems may name things that are not UTF-8."""
    return str(words).encode("utf-8", "backslashreplace").decode()
