"""Replies: what a machine's handlers return and refuse with, in a form that callers may keep, or as bytes.

A value that cannot change is shared with callers as it is. Any other is copied, by way of its bytes, so that nobody
holds a part of a machine. Knows annotations; knows no machine, and not who waits.
"""

from __future__ import annotations

import typing
from typing import Any, ClassVar

import msgspec

from quorate.errors import MachineError
from quorate.signatures import is_union
from quorate.types import StaleRead

IMMUTABLE: tuple[type, ...] = (bool, int, float, str, bytes, type(None))
"""The types whose values are shared with callers as they are."""

ENCODER = msgspec.msgpack.Encoder()
ANYTHING = msgspec.msgpack.Decoder()


class ReplyType(msgspec.Struct, frozen=True):
    """The reply of one write or read.

    Attributes:
        label: what people call the write or read.
        shared: the immutable types that its annotation allows.
        decoder: of its annotation.
    """

    label: str
    shared: tuple[type, ...]
    decoder: msgspec.msgpack.Decoder[Any]

    def detach(self, value: object) -> object:
        """Give a reply that a caller in this process may keep: no part of it belongs to the machine.

        Raises:
            MachineError: the reply is not what the annotation says, or cannot be encoded.
        """
        return value if type(value) in self.shared else self.decode(self.encode(value))

    def encode(self, value: object) -> bytes:
        """Encode a reply.

        Raises:
            MachineError: MessagePack cannot carry it.
        """
        try:
            return ENCODER.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MachineError(f"the reply of {self.label} cannot be encoded: {error}") from error

    def decode(self, encoded: bytes) -> object:
        """Decode a reply.

        Raises:
            MachineError: it is not what the annotation says.
        """
        try:
            return self.decoder.decode(encoded)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MachineError(f"the reply of {self.label} is not what its annotation says: {error}") from error


class StaleReplyType(msgspec.Struct, frozen=True):
    """The reply of one stale read: a ``StaleRead`` with that of the read.

    Attributes:
        value: that of the read.
        shared: see ``ReplyType``.
    """

    value: ReplyType
    shared: ClassVar[tuple[type, ...]] = ()

    def detach(self, stale: object) -> object:
        """Give a ``StaleRead`` that a caller in this process may keep.

        Raises:
            MachineError: as ``ReplyType.detach`` has it.
        """
        assert isinstance(stale, StaleRead), "a stale read is answered with its index and age"
        return StaleRead(self.value.detach(stale.value), stale.index, stale.age)


def shared_types(annotation: object) -> tuple[type, ...]:
    """Give the immutable types that the annotation of a reply allows."""
    allowed = members(annotation)
    if object in allowed or Any in allowed:
        return IMMUTABLE
    return tuple(immutable for immutable in IMMUTABLE if immutable in allowed)


def members(annotation: object) -> tuple[Any, ...]:
    """Give the members of a union; an annotation that is none is its own only member."""
    return typing.get_args(annotation) if is_union(annotation) else (annotation,)


def detached(detail: object) -> object:
    """Copy one detail of a refusal; of one that MessagePack cannot carry, the name of its type is left."""
    if type(detail) in IMMUTABLE:
        return detail
    try:
        return ANYTHING.decode(ENCODER.encode(detail))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return type(detail).__name__
