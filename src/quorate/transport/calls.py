"""Calls: what a client or a joining peer asks of a node, the replies, and errors as values of the wire.

Each request names a peer of the node and carries an id; its one reply carries the same id, so a cancelled call never
shifts a later reply. Knows nothing of sockets.
"""

from __future__ import annotations

import msgspec

from quorate.core.configuration import Configuration
from quorate.errors import (
    ChangeInProgress,
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
    Stopped,
    StoreError,
    StoreLocked,
    Unavailable,
)
from quorate.types import Address, PeerId, Status


class WriteCall(msgspec.Struct, frozen=True, array_like=True, tag="write"):
    """Write a command. Answered by ``Value`` with the encoded reply of the handler.

    Attributes:
        command: the encoded command.
        timeout: seconds from arrival until the peer answers ``OutcomeUnknown``; above 0.
    """

    command: bytes
    timeout: float


class ReadCall(msgspec.Struct, frozen=True, array_like=True, tag="read"):
    """Read, linearizably. Answered by ``Value`` with the encoded reply of the handler.

    Attributes:
        query: the encoded query.
        timeout: seconds from arrival until the peer answers ``Unavailable``; above 0.
    """

    query: bytes
    timeout: float


class LeaderCall(msgspec.Struct, frozen=True, array_like=True, tag="leader"):
    """Ask who leads, waiting for one up to ``timeout`` seconds. Answered by ``LeaderIs``."""

    timeout: float


class StatusCall(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """Ask for the status: of one peer, or of every peer of the node if none is named. Answered by ``StatusIs``."""


class IdentifyCall(msgspec.Struct, frozen=True, array_like=True, tag="identify"):
    """Ask a peer who it is, before a group is formed. Answered by ``Identity``."""


class BootstrapCall(msgspec.Struct, frozen=True, array_like=True, tag="bootstrap"):
    """Write the first configuration of a group (house: bootstrap). Answered by ``Identity`` once it is durable.

    Attributes:
        configuration: the same for every member.
    """

    configuration: Configuration


Call = WriteCall | ReadCall | LeaderCall | StatusCall | IdentifyCall | BootstrapCall
"""Everything that can be asked."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A call to one peer.

    Attributes:
        id: unique among the calls under way on the connection.
        peer: the name of the peer asked.
        call: what is asked.
    """

    id: int
    peer: str
    call: Call


class Value(msgspec.Struct, frozen=True, array_like=True, tag="value"):
    """The reply to a write or read: the encoded reply of the machine's handler."""

    value: bytes


class LeaderIs(msgspec.Struct, frozen=True, array_like=True, tag="leader"):
    """The reply to ``LeaderCall``."""

    leader: Address


class StatusIs(msgspec.Struct, frozen=True, array_like=True, tag="status"):
    """The reply to ``StatusCall``."""

    peers: tuple[Status, ...]


class Identity(msgspec.Struct, frozen=True, array_like=True, tag="identity"):
    """The reply to ``IdentifyCall`` and ``BootstrapCall``.

    Attributes:
        id: the peer's random id.
        machine: the name of its machine's class, for a friendly refusal.
        configuration: its configuration, or None while it is empty.
    """

    id: PeerId
    machine: str
    configuration: Configuration | None


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="error"):
    """The reply to any call that failed: an error of ``quorate.errors`` as a value.

    Attributes:
        error: the name of its class.
        message: its message, or the reason for ``Rejected``.
        redirect: for ``NotLeader``, who leads.
        details: for ``Rejected``, an encoded array of its details; else empty.
    """

    error: str
    message: str
    redirect: Address | None = None
    details: bytes = b""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The reply to the request with the same id."""

    id: int
    answer: Value | LeaderIs | StatusIs | Identity | Failure


PLAIN_ERRORS: dict[str, type[QuorateError]] = {
    error.__name__: error
    for error in (
        Overloaded,
        Stopped,
        NotCommitted,
        Unavailable,
        OutcomeUnknown,
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
            return Failure("NotLeader", _text(error.peer), error.redirect)
        case Rejected():
            return Failure("Rejected", _text(error.reason), None, encode_details(error.details))
        case QuorateError() if type(error).__name__ in PLAIN_ERRORS:
            return Failure(type(error).__name__, _text(error))
        case _:
            return Failure("OutcomeUnknown", _text(f"the peer failed: {type(error).__name__}: {error}"))


def error_from_failure(failure: Failure) -> QuorateError:
    """Turn an error's form on the wire into the error; an unknown one, of a newer peer, becomes ``OutcomeUnknown``."""
    match failure.error:
        case "NotLeader":
            return NotLeader(failure.redirect, failure.message)
        case "Rejected":
            return Rejected(failure.message, *decode_details(failure.details))
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
        return msgspec.msgpack.encode([_text(repr(detail)) for detail in details])


def decode_details(details: bytes) -> list[object]:
    """Decode the details of a ``Rejected``; bytes that are no array are shown as they are."""
    try:
        return msgspec.msgpack.decode(details, type=list[object]) if details else []
    except (ValueError, RecursionError):  # ValueError: msgspec's own errors are such, and text that is not UTF-8.
        return [details]


def _text(words: object) -> str:
    """Make text that can be encoded: handlers and operating systems may name things that are not UTF-8."""
    return str(words).encode("utf-8", "backslashreplace").decode()
