"""Events: what the writes of a machine tell whoever watches it, as values and as bytes.

An event is the MessagePack array ``[name, *fields]``, as a command is. It stands in no log: every peer emits it anew
when it applies the entry whose handler emits it, so all peers emit the same events at the same index, in the same
order. Knows no machines, no peers and no clients.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from quorate.signatures import CallStruct, name_of
from quorate.types import Index

E_co = TypeVar("E_co", covariant=True, bound="Event")

EVENT_BYTES_MAX = 32 * 1024
"""The largest encoded event: any frame has room for one. For ever the same on every peer: an event that is larger is a
bug of the machine, and those must be alike."""

OVERHEAD = 100
"""What holding an event costs beside its bytes, about."""

Place = tuple[int, int]
"""Where an event stands: the index of the entry that led to it, and its place among the events of that index, from 0
on. Also where to go on: ``(7, 0)`` is before the first event of index 7."""


class Event(CallStruct, forbid_unknown_fields=False):
    """Something that happened to a machine: ``class Changed(Event): key: str; value: str``.

    Its name on the wire is that of the class, or ``class Changed(Event, tag="changed")``. A machine names those that it
    emits, ``emits = (Changed,)``, and emits one in a write: ``self.emit(Changed(key, value))``. Whoever watches gets it
    once that write is committed.

    As with commands, new fields go to the end, each with a default; a program that does not know them skips them.
    """


class Change(msgspec.Struct, Generic[E_co], frozen=True):
    """An event and where it stands.

    Attributes:
        index: the index of the entry whose write emitted it.
        place: its place among the events of that index, from 0 on.
        event: the event.
    """

    index: Index
    place: int
    event: E_co


class Emitted(msgspec.Struct, frozen=True, array_like=True):
    """An event as peers hold it, and as it travels.

    Attributes:
        index: the index of the entry that led to it.
        place: its place among the events of that index, from 0 on.
        event: the encoded event.
    """

    index: Index
    place: int
    event: bytes

    @property
    def size(self) -> int:
        """What holding it costs, bytes."""
        return len(self.event) + OVERHEAD


class EventTypes(msgspec.Struct, frozen=True):
    """The events that a machine emits; made by ``event_types``.

    Attributes:
        prefixes: what the encoded form of each begins with, and that of no other.
        names: the names of all by their classes.
        decoder: of any of them; None when there are none.
    """

    prefixes: Mapping[str, bytes]
    names: Mapping[type[Event], str]
    decoder: msgspec.msgpack.Decoder[Event] | None

    def encode(self, event: Event) -> bytes:
        """Encode an event, once it is sure that it can be decoded.

        Raises:
            TypeError: it is none of these, or does not hold what its class declares.
            ValueError: it is larger than ``EVENT_BYTES_MAX``.
        """
        name = type(event).__name__
        if self.decoder is None or type(event) not in self.names:
            raise TypeError(f"{name} is no event that this machine names: emits = ({name},)")
        try:
            encoded = _encoder.encode(event)
            self.decoder.decode(encoded)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # ValidationError is a ValueError.
            raise TypeError(f"{name} does not hold what it declares: {error}") from error
        if len(encoded) > EVENT_BYTES_MAX:
            raise ValueError(f"this {name} has {len(encoded)} bytes; an event has at most {EVENT_BYTES_MAX}")
        return encoded

    def part(self, events: Sequence[type[Event]]) -> EventTypes:
        """Give some of them; none stands for all.

        Raises:
            TypeError: one is none of these, or there are none.
        """
        known = ", ".join(event.__name__ for event in self.names) or "no events"
        for event in events:
            if event not in self.names:
                raise TypeError(f"{event!r} cannot be watched: the machine emits {known}")
        if not self.names:
            raise TypeError("there is nothing to watch: the machine emits no events; name them: emits = (Changed,)")
        return event_types("watch", tuple(dict.fromkeys(events))) if events else self


def event_types(label: str, declared: object) -> EventTypes:
    """Read what a machine declares to emit.

    Args:
        label: what people call the declaration, such as ``KV.emits``.
        declared: its value.

    Raises:
        TypeError: it is no tuple of classes of events, two have the same name, or one cannot be decoded.
    """
    if not isinstance(declared, tuple):
        raise TypeError(f"{label} must be a tuple of classes of events, such as (Changed,)")
    for event in declared:
        if not (isinstance(event, type) and issubclass(event, Event) and event is not Event):
            raise TypeError(f"{label} has {event!r}, which is no class of events, such as class Changed(Event)")
    return read_event_types(label, declared)


@functools.cache
def read_event_types(label: str, declared: tuple[type[Event], ...]) -> EventTypes:
    """Read classes of events, once: every fresh machine asks.

    Raises:
        TypeError: two have the same name, or one cannot be decoded.
    """
    names: dict[type[Event], str] = {}
    for event in declared:
        name = name_of(event, Event)
        if name in names.values():
            raise TypeError(f'{label} has two events named {name!r}; give one of them another name, with tag="…"')
        names[event] = name
    try:
        decoder = msgspec.msgpack.Decoder(functools.reduce(operator.or_, names)) if names else None
    except (TypeError, NameError) as error:
        raise TypeError(f"{label}: {error}") from error
    return EventTypes({name: prefix_of(event, name) for event, name in names.items()}, names, decoder)


def prefix_of(event: type[Event], name: str) -> bytes:
    """Give what the encoded form of an event begins with: how many fields it has, and its name."""
    count = 1 + len(event.__struct_fields__)
    header = _encoder.encode([None] * count)[:-count]
    return header + _encoder.encode(name)


_encoder = msgspec.msgpack.Encoder()
