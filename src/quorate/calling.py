"""A machine as bytes: its writes and reads are bound, encoded, checked, decoded and run here, its state kept.

A write or read is the MessagePack array ``[name, *arguments]``. **A command that its own signature cannot decode
never enters the log**: ``Calls.encode`` checks what it encodes, ``Calls.check`` what came over the network. Knows what
the machine declares; knows nothing of logs, peers or sockets.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import math
import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec.structs import astuple

from quorate import keeping
from quorate.errors import MachineError, Rejected, described
from quorate.events import EventTypes
from quorate.machine import (
    Command,
    Method,
    Query,
    ReadMethod,
    StateMachine,
    WriteMethod,
    call_types,
    events_of,
)
from quorate.nesting import NESTING_MAX, nests_too_deep
from quorate.replies import ENCODER, IMMUTABLE, ReplyType, detached, members, shared_types
from quorate.signatures import CallType, explained, required_arguments, shown

COMBINATIONS_MAX = 256
"""How many combinations of types are told apart for the arguments of one call."""

Bound = tuple[CallType, tuple[object, ...]]
"""A call and its arguments, which nobody else can change."""

NOT_ALIKE = (MemoryError, RecursionError, OSError)
"""What a write may raise on one peer and not on another: it stops the peer, and never becomes a reply."""


class Named(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of every command and query: the arguments after it are skipped."""

    name: str


NAMED = msgspec.msgpack.Decoder(Named)


class Calls(msgspec.Struct, frozen=True):
    """The writes of a machine, or its reads.

    Attributes:
        kind: ``"write"`` or ``"read"``.
        machine: the machine's class.
        method: ``WriteMethod`` or ``ReadMethod``.
        struct: ``Command`` or ``Query``.
        by_name: the calls by their names in the log.
        by_struct: the same by the structs that carry their arguments.
        by_method: the same by the references that callers give, those that a subclass overrides among them.
        replies: the replies by the names in the log.
        plain: for each of those structs the types of its fields, in all combinations that need no check: whatever has
            exactly these types and was encoded can be decoded. None for a struct that may hold anything else.
        decoder: of the union of those structs; None when there are none.
        array_decoder: of an array of them; None likewise.
    """

    kind: str
    machine: type[StateMachine]
    method: type[Method[Any, ..., Any]]
    struct: type[msgspec.Struct]
    by_name: Mapping[str, CallType]
    by_struct: Mapping[type, CallType]
    by_method: Mapping[object, CallType]
    replies: Mapping[str, ReplyType]
    plain: Mapping[type, frozenset[tuple[type, ...]]]
    decoder: msgspec.msgpack.Decoder[msgspec.Struct] | None
    array_decoder: msgspec.msgpack.Decoder[list[msgspec.Struct]] | None

    def encode(
        self, call: object, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> tuple[bytes, ReplyType, Bound]:
        """Bind, encode and check a call: a method's reference with its arguments, or a struct alone.

        Returns:
            The call in bytes, what its reply is like, and what may be run here instead of what decoding would give.

        Raises:
            TypeError: it is none of these calls, or the arguments do not fit its signature.
        """
        known = self.by_method.get(call) if type(call) is self.method else None
        if known is not None and not kwargs and tuple(map(type, args)) in self.plain[known.struct]:
            try:
                # Most calls are spared all the rest.
                return ENCODER.encode((known.name, *args)), self.replies[known.name], (known, args)
            except (ValueError, OverflowError) as error:  # Texts and numbers may still be such as it cannot carry.
                raise TypeError(f"{known.label}: {error}") from error
        struct, label = self.bind(call, args, kwargs)
        encoded = encode_call(struct, label)
        is_plain = tuple(map(type, astuple(struct))) in self.plain[type(struct)]
        bound = self.bound(copy.copy(struct) if is_plain else self.check(encoded))
        return encoded, self.replies[bound[0].name], bound

    def bind(self, call: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[msgspec.Struct, str]:
        """Put the arguments into their struct; give it, and what people call it.

        Raises:
            TypeError: it is none of these calls, or there are too many or too few arguments.
        """
        if isinstance(call, self.method):
            known = self.by_method.get(call)
            if known is not None:
                try:
                    return known.struct(*args, **kwargs), known.label
                except TypeError as error:
                    raise TypeError(f"{known.label}: {error}") from error
        elif isinstance(call, self.struct):
            if args or kwargs:
                raise TypeError(f"{call!r} carries its arguments itself; nothing may follow it")
            if type(call) in self.by_struct:
                return call, type(call).__name__
        kind, machine, struct = self.kind, self.machine.__name__, self.struct.__name__
        raise TypeError(
            f"{shown(call)} is no {kind} of {machine}: neither one of its @{kind} methods nor a {struct} it takes"
        )

    def check(self, encoded: bytes) -> msgspec.Struct:
        """Check an encoded call, which may come from another process, before it enters the log; give its struct.

        Raises:
            TypeError: it cannot be decoded, or might not be on every peer; the message says why.
        """
        try:
            struct = self.decode(encoded)
        except MachineError as error:
            raise TypeError(str(error)) from None
        if not self.plain[type(struct)] and nests_too_deep(encoded):
            raise TypeError(f"the arguments nest deeper than {NESTING_MAX} levels, or have maps as keys")
        return struct

    def run(self, machine: StateMachine, bound: Bound) -> object:
        """Run a call on the machine; its ``context`` is set.

        Returns:
            The reply as the machine gave it: see ``MachineType.detach_reply``.

        Raises:
            Rejected: the machine refused; the details hold nothing that belongs to it.
            MachineError: the machine raised, and ``__cause__`` is what.
            MemoryError: as a write raised it. This and the next two, and what is no ``Exception``, need not be alike on
                every peer: they must stop the peer.
            RecursionError: likewise.
            OSError: likewise.
        """
        call, args = bound
        try:
            return call.function(machine, *args)
        except Exception as error:
            failure = self.failure(machine, call, error)
            raise failure from failure.__cause__

    def failure(self, machine: StateMachine, call: CallType, error: Exception) -> Rejected | MachineError:
        """Give what is told of the error that a call raised, and take back what that led to; raises as ``run`` does."""
        if isinstance(error, Rejected):
            undo(machine)
            return refusal(call, error)
        # A read has changed nothing, so it parts nobody: were it to stop a peer, its caller would ask the next one, and
        # one bad read would stop them all.
        if self.kind == "write" and isinstance(error, NOT_ALIKE):
            error.add_note(
                f"{call.label} (index {machine.context.index}) raised it: mend the program and start it again"
            )
            raise error
        undo(machine)
        failure = MachineError(f"{call.label} raised {described(error)}")
        failure.__cause__ = error
        return failure

    def decode_committed(self, commands: Sequence[bytes]) -> Iterable[msgspec.Struct]:
        """Decode commands of the log, each into its struct: all at once, which costs less.

        Raises:
            TypeError: one of them cannot be decoded, raised when it is its turn; this must stop the peer.
        """
        if self.array_decoder is not None:
            # Each is one MessagePack value, as ``check`` has seen: so this is an array of them.
            array = b"".join((b"\xdd", len(commands).to_bytes(4, "big"), *commands))
            with contextlib.suppress(Exception):  # Which of them it is that cannot be decoded is found one by one.
                return self.array_decoder.decode(array)
        return map(self._decode_committed, commands)

    def _decode_committed(self, command: bytes) -> msgspec.Struct:
        """Decode one command of the log.

        Raises:
            TypeError: it cannot be decoded.
        """
        try:
            return self.decode(command)
        except MachineError as error:
            # It was checked before it entered the log: another program could read it, and peers that run that one
            # apply it. To go on without it would part this peer from them, and lose what was acknowledged.
            raise TypeError(
                f"the log holds a command that this {self.machine.__name__} cannot read: {error}. Start the peer with"
                " the program that it had, or with one that takes the old arguments: new ones need a default"
            ) from error

    def bound(self, struct: msgspec.Struct) -> Bound:
        """Give the call that a struct carries the arguments of, and those; a struct that nobody else holds."""
        call = self.by_struct[type(struct)]
        return call, call.arguments(struct)

    def decode(self, encoded: bytes) -> msgspec.Struct:
        """Decode a call into its struct.

        Raises:
            MachineError: it cannot be decoded, which is alike on every peer that runs the same program.
            MemoryError: this peer has not enough of it.
            OSError: a struct's own ``__post_init__`` raised it.
        """
        try:
            if self.decoder is not None:
                return self.decoder.decode(encoded)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # also what a struct's own __post_init__ raises
            if (known := self.by_name.get(command_name(encoded))) is not None:
                raise MachineError(f"{known.label}: {explained(known, error)}") from error
        raise MachineError(f"{self.machine.__name__} has no {self.kind} named {command_name(encoded)!r}")


class MachineType(msgspec.Struct, frozen=True):
    """What the shell knows of a machine's class; made by ``describe``.

    Attributes:
        machine: the class.
        name: its name.
        writes: its writes.
        reads: its reads.
        events: what its writes emit.
    """

    machine: type[StateMachine]
    name: str
    writes: Calls
    reads: Calls
    events: EventTypes

    @property
    def replies(self) -> Mapping[str, ReplyType]:
        """The replies of both by the names in the log."""
        return {**self.writes.replies, **self.reads.replies}

    @property
    def write_names(self) -> frozenset[str]:
        """The names of its writes in the log."""
        return frozenset(self.writes.by_name)

    @property
    def has_own_snapshot(self) -> bool:
        """Whether the class says itself what its snapshots are."""
        return self.machine.snapshot is not StateMachine.snapshot

    def encode_write(
        self, call: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> bytes:
        """Encode a ``WriteMethod`` with its arguments, or a ``Command``; see ``Calls.encode``."""
        return self.writes.encode(call, args, kwargs or {})[0]

    def encode_read(
        self, call: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> bytes:
        """Encode a ``ReadMethod`` with its arguments, or a ``Query``; see ``Calls.encode``."""
        return self.reads.encode(call, args, kwargs or {})[0]

    def run_write(self, machine: StateMachine, encoded: bytes) -> object:
        """Run an encoded write on the machine; see ``Calls.run`` for the reply and what it raises."""
        (struct,) = self.writes.decode_committed([encoded])
        return self.writes.run(machine, self.writes.bound(struct))

    def run_read(self, machine: StateMachine, encoded: bytes) -> object:
        """Run an encoded read on the machine; see ``Calls.run`` for the reply and what it raises."""
        return self.reads.run(machine, self.reads.bound(self.reads.decode(encoded)))

    def detach_reply(self, name: str, value: object) -> object:
        """Give a reply that a caller in this process may keep: no part of it belongs to the machine.

        Raises:
            MachineError: the reply is not what the annotation says, or cannot be encoded.
        """
        return self.replies[name].detach(value)

    def encode_reply(self, call: bytes, value: object) -> bytes:
        """Encode the reply of an encoded write or read.

        Raises:
            MachineError: the reply cannot be encoded.
        """
        try:
            return ENCODER.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self.replies[command_name(call)].encode(value)  # Only now it matters whose reply it is.

    def check_state(self, fresh: StateMachine) -> None:
        """Check, before its first command, that snapshots can keep the state of a machine as ``__init__`` left it.

        Raises:
            TypeError: they cannot; the message says what to write. Never of a class with a ``snapshot`` of its own.
        """
        if not self.has_own_snapshot:
            keeping.check_fresh(fresh)

    def snapshot(self, machine: StateMachine) -> Iterator[bytes]:
        """Freeze the state of a machine; what is returned may be iterated in another thread while the machine goes on.

        Raises:
            MachineError: the machine cannot give its state; also raised while iterating, ``__cause__`` is why.
            MemoryError: there is not enough of it; also raised while iterating.
        """
        with keeping.faults(f"{self.name}.snapshot", is_own=self.has_own_snapshot):
            chunks = iter(machine.snapshot())
        return self._chunks(chunks)

    def restored(self, chunks: Iterable[bytes]) -> StateMachine:
        """Make a machine from the chunks of a snapshot: blocking, for a thread of its own.

        Raises:
            MachineError: the class does not take them; ``__cause__`` is why.
            StoreError: as iterating the chunks raised it.
            MemoryError: there is not enough of it.
        """
        with keeping.faults(f"{self.name}.restore"):
            machine = self.machine()
            machine.restore(chunks)
        return machine

    def _chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with keeping.faults(f"{self.name}.snapshot", is_own=self.has_own_snapshot):
                chunk = next(chunks, None)
                if chunk is None:
                    return
                if not isinstance(chunk, bytes):
                    raise TypeError(f"a chunk must be bytes, and is {type(chunk).__name__}")
            yield chunk


def describe(machine: type[StateMachine]) -> MachineType:
    """Give what the shell knows of a machine's class."""
    return _describe(cast(Hashable, machine))


@functools.lru_cache(maxsize=64)
def _describe(machine: type[StateMachine]) -> MachineType:
    """Make what ``describe`` gives: it takes milliseconds, and each peer and each client asks.

    Raises:
        TypeError: it is no such class, or one that takes arguments.
    """
    if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
        raise TypeError(f"{machine!r} is no state machine: give the class itself, a subclass of quorate.StateMachine")
    if missing := required_arguments(machine.__init__):
        advice = f"each peer makes its machine by {machine.__name__}(): give it a default, or set it by a write"
        raise TypeError(f"{machine.__name__}.__init__ needs the argument {missing[0]}; {advice}")
    calls = call_types(machine)
    writes = {name: call for name, call in calls.items() if call.kind == "write"}
    reads = {name: call for name, call in calls.items() if call.kind == "read"}
    return MachineType(
        machine,
        machine.__name__,
        describe_calls("write", machine, WriteMethod, Command, writes),
        describe_calls("read", machine, ReadMethod, Query, reads),
        events_of(machine),
    )


def describe_calls(
    kind: str,
    machine: type[StateMachine],
    method: type[Method[Any, ..., Any]],
    struct: type[msgspec.Struct],
    calls: Mapping[str, CallType],
) -> Calls:
    """Make what the shell knows of a machine's writes, or of its reads."""
    by_reference = by_method(machine, method, calls)
    replies = {
        name: ReplyType(call.label, shared_types(call.reply), msgspec.msgpack.Decoder(call.reply))
        for name, call in calls.items()
    }
    decoders = union_decoders(calls)
    return Calls(kind, machine, method, struct, calls, by_struct(calls), by_reference, replies, plain(calls), *decoders)


def refusal(call: CallType, error: Rejected) -> Rejected | MachineError:
    """Give what callers are told of a refusal, wherever they are: of a subclass the reason and details alone."""
    reason, details = getattr(error, "reason", None), getattr(error, "details", None)
    if not isinstance(reason, str) or not isinstance(details, tuple):
        kind = type(error).__name__
        failure = MachineError(
            f"{call.label} raised {kind}, without what a Rejected tells: its __init__ must call "
            "super().__init__(reason, *details)"
        )
        failure.__cause__ = error
        return failure
    if type(error) is Rejected and all(type(detail) in IMMUTABLE for detail in details):
        return error
    return Rejected(reason, *map(detached, details))


def undo(machine: StateMachine) -> None:
    """Take back what the call led to beside the machine's state: it raised."""
    machine.effects.undo(machine.context)


def command_name(encoded: bytes) -> str:
    """Give the name of an encoded write or read, without decoding its arguments.

    Raises:
        MachineError: it has none.
    """
    try:
        return NAMED.decode(encoded).name
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MachineError(f"not a command or query: {error}") from error


def call_heads(names: Iterable[str]) -> tuple[bytes, ...]:
    """Give how calls of these names begin, behind the one byte that says how long a short array is."""
    return tuple([ENCODER.encode(name) for name in names])


def encode_call(value: object, label: str) -> bytes:
    """Encode the struct of a call, or the tuple of its name and arguments, which is the same in bytes.

    Raises:
        TypeError: MessagePack cannot carry it.
    """
    try:
        return ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"{label}: {error}") from error


def by_struct(calls: Mapping[str, CallType]) -> dict[type, CallType]:
    """Key the calls by their structs."""
    return {call.struct: call for call in calls.values()}


def by_method(
    machine: type[StateMachine], method: type[Method[Any, ..., Any]], calls: Mapping[str, CallType]
) -> dict[object, CallType]:
    """Key the calls by the methods that a machine declares and inherits.

    What is named is the write or read, not the function, which a subclass may have replaced.
    """
    declared = (value for owner in machine.__mro__ for value in vars(owner).values() if isinstance(value, method))
    return {value: calls[value.name] for value in declared if value.name in calls}


def plain(calls: Mapping[str, CallType]) -> dict[type, frozenset[tuple[type, ...]]]:
    """Give, for each struct, the types of its fields that need no check; none for one that may hold what is mutable.

    Only annotations that are immutable types, or unions of them, count: any other, such as ``Annotated``, may refuse
    some of their values. A struct that runs code of its own may refuse anything. One with a great many combinations is
    left out: it is checked each time.
    """
    found: dict[type, frozenset[tuple[type, ...]]] = {}
    for call in calls.values():
        struct = call.struct
        fields = [members(field.type) for field in msgspec.structs.fields(struct)]
        is_strict = struct.__struct_config__.forbid_unknown_fields and not hasattr(struct, "__post_init__")
        is_plain = is_strict and all(member in IMMUTABLE for allowed in fields for member in allowed)
        is_small = math.prod(map(len, fields)) <= COMBINATIONS_MAX
        found[struct] = frozenset(itertools.product(*fields)) if is_plain and is_small else frozenset()
    return found


def union_decoders(calls: Mapping[str, CallType]) -> tuple[Any, Any]:
    """Make one decoder for all the calls, and one for arrays of them; None for both when there are none."""
    structs = tuple(call.struct for call in calls.values())
    if not structs:
        return None, None
    union: Any = functools.reduce(operator.or_, structs)
    return msgspec.msgpack.Decoder(union), msgspec.msgpack.Decoder(list[union])
