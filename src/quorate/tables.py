"""What a group keeps beside its machine, and the two as one state: what a snapshot holds.

The first chunk of a snapshot holds the tables, as a MessagePack map; the machine's chunks follow. So what quorate
itself knows of clients at an index, and what the machine knows, are frozen, sent and restored together or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec

from quorate.calling import MachineType
from quorate.errors import MachineError
from quorate.machine import StateMachine
from quorate.sessions import Sessions
from quorate.timers import TimerTable


class Tables(msgspec.Struct, forbid_unknown_fields=True):
    """What was learned from the log beside the machine's own state.

    Every table is a field with a default, an empty one: so a snapshot from before there was that table can be read.
    One that holds a table which this version does not know is refused: to leave it out would be to forget it.

    Attributes:
        sessions: the sessions of clients.
        timers: the writes that the machine has set for later.
    """

    sessions: Sessions = msgspec.field(default_factory=Sessions)
    timers: TimerTable = msgspec.field(default_factory=TimerTable)


class Replicated(msgspec.Struct, frozen=True):
    """All that applying the log up to an index has led to.

    Attributes:
        machine: the user's state machine.
        tables: what is kept beside it.
    """

    machine: StateMachine
    tables: Tables


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Tables)


def encode_tables(tables: Tables) -> bytes:
    """Give the tables as they are now: the same bytes on every peer that has applied as much."""
    return _encoder.encode(tables)


def frozen(tables: Tables, chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Give the chunks of a snapshot: the tables as they are now, then those of the machine."""
    return itertools.chain((encode_tables(tables),), chunks)


def restored(machine_type: MachineType, chunks: Iterable[bytes]) -> Replicated:
    """Make tables and machine from the chunks of a snapshot: blocking, for a thread of its own.

    Raises:
        MachineError: it does not begin with tables that this version knows, or the machine's class does not take its
            chunks; ``__cause__`` is why.
        StoreError: as iterating the chunks raised it.
        MemoryError: there is not enough of it.
    """
    rest = iter(chunks)
    first = next(rest, b"")
    try:
        tables = _decoder.decode(first)
    except msgspec.DecodeError as error:  # ValidationError is one.
        text = "the snapshot does not begin with tables that this version of quorate knows"
        raise MachineError(f"{text}: {error}. If a later version took it, start that one") from error
    return Replicated(machine_type.restored(rest), tables)
