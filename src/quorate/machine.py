"""The contract that the user implements: a state machine whose writes and reads are typed methods, or typed structs.

Each write and read is one MessagePack array, ``[name, *arguments]``, in the log and on the wire, whichever form
declares it. Names are stable strings; arguments go by position. A log outlives the program that wrote it, so:

- A method or struct may be renamed if its name in the log stays: ``@write(name="set")``, ``tag="set"``.
- New parameters go to the end, each with a default that stays; commands that lack them are then still read. Update
  every peer before the first caller has the new class, which fills in defaults: a peer of the old program refuses what
  it does not know, or stops where the log holds it.
- Parameters are never removed, reordered, or given a type that refuses what the old one took.

Nothing here knows of logs, peers or bytes; ``calling`` turns these declarations into bytes and back, ``keeping`` the
state of a machine.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, ClassVar, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, cast, overload

import msgspec

from quorate import keeping
from quorate.context import Context
from quorate.effects import Effects
from quorate.events import Event, EventTypes, event_types
from quorate.nesting import nests_too_deep
from quorate.signatures import (
    CallStruct,
    CallType,
    check_outermost,
    check_own_names,
    is_union,
    name_of,
    reply_of,
    shown,
    signature,
    struct_from_parameters,
)

M_contra = TypeVar("M_contra", bound="StateMachine", contravariant=True)
M = TypeVar("M", bound="StateMachine")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Command(CallStruct, Generic[R_co]):
    """A write as a struct: ``class Set(Command[str])`` is one whose reply is a ``str``.

    Its fields are the arguments; its name in the log is that of the class, or ``class Set(Command[str], tag="set")``.
    The machine takes it in ``def handle_write(self, command: Set | Append)``.
    """


class Query(CallStruct, Generic[R_co]):
    """A read as a struct: what ``Command`` is for writes.

    The machine takes it in ``def handle_read(self, query: Get)``.
    """


class Method(Generic[M_contra, P, R_co]):
    """What ``WriteMethod`` and ``ReadMethod`` share; neither takes the place of the other.

    On a plain machine it is a method: ``KV().set("a", "b")`` just runs it. On the class it is a typed reference, which
    ``peer.write(KV.set, "a", "b")`` takes.

    Attributes:
        function: the function that was decorated.
        name: its name in the log.
        owner: the class that declares it.
    """

    owner: type

    def __init__(self, function: Callable[Concatenate[M_contra, P], R_co], name: str | None) -> None:
        if not inspect.isfunction(function):
            raise TypeError(f"{function!r} is not a plain method; decorate a def that takes self")
        self.__doc__ = function.__doc__
        self.function = function
        self.name: str = name or function.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: M_contra, owner: type | None = None) -> Callable[P, R_co]: ...
    def __get__(self, instance: M_contra | None, owner: type | None = None) -> Self | Callable[P, R_co]:
        """Give the bound method on a machine, and the reference on the class."""
        return self if instance is None else types.MethodType(self._callable_on(instance), instance)

    def _callable_on(self, machine: M_contra) -> Callable[Concatenate[M_contra, P], R_co]:
        """Give what a call on the machine runs."""
        return self.function

    if not typing.TYPE_CHECKING:  # To type checkers a reference is nothing that can be called.

        def __call__(self, *args: object, **kwargs: object) -> None:
            """Say what a reference is for.

            Raises:
                TypeError: always.
            """
            name = self.function.__qualname__
            raise TypeError(f"{name} is no function: pass `{name}` and its arguments, such as write({name}, ...)")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.function.__qualname__}>"


class WriteMethod(Method[M_contra, P, R_co]):
    """A write declared with ``@write``: machine, parameters and reply are part of its type."""

    def _callable_on(self, machine: M_contra) -> Callable[Concatenate[M_contra, P], R_co]:
        """Give what a call on the machine runs: in a read of it what refuses, for one peer alone would be changed."""
        return self.function if cast(StateMachine, machine).context.is_of_write else self._refuse

    def _refuse(self, machine: M_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Refuse to run.

        Raises:
            TypeError: always.
        """
        label = f"{self.owner.__name__}.{self.function.__name__}"
        raise TypeError(f"a read only looks: {label} is a write, and would change this peer's machine alone")


class ReadMethod(Method[M_contra, P, R_co]):
    """A read declared with ``@read``: machine, parameters and reply are part of its type."""


@overload
def write(function: Callable[Concatenate[M, P], R], /) -> WriteMethod[M, P, R]: ...
@overload
def write(*, name: str) -> Callable[[Callable[Concatenate[M, P], R]], WriteMethod[M, P, R]]: ...
def write(
    function: Callable[Concatenate[M, P], R] | None = None, /, *, name: str | None = None
) -> WriteMethod[M, P, R] | Callable[[Callable[Concatenate[M, P], R]], WriteMethod[M, P, R]]:
    """Declare a method that changes the machine: it runs once on every peer, in the order of the log.

    It must be deterministic: time, index and randomness come from ``self.context``; the order in which a ``set`` is
    walked is none. Parameters and reply need annotations that MessagePack can carry.

    Args:
        function: the method.
        name: its name in the log, if that is not the method's own. Keep it when the method is renamed.
    """
    if function is None:
        return lambda function: WriteMethod(function, name)
    return WriteMethod(function, name)


@overload
def read(function: Callable[Concatenate[M, P], R], /) -> ReadMethod[M, P, R]: ...
@overload
def read(*, name: str) -> Callable[[Callable[Concatenate[M, P], R]], ReadMethod[M, P, R]]: ...
def read(
    function: Callable[Concatenate[M, P], R] | None = None, /, *, name: str | None = None
) -> ReadMethod[M, P, R] | Callable[[Callable[Concatenate[M, P], R]], ReadMethod[M, P, R]]:
    """Declare a method that only looks at the machine: it runs on one peer, and must change nothing.

    Args:
        function: the method.
        name: its name on the wire, if that is not the method's own.
    """
    if function is None:
        return lambda function: ReadMethod(function, name)
    return ReadMethod(function, name)


class StateMachine:
    """What a group replicates: your class, with typed writes and reads. A subclass is checked when it is defined.

    ::

        class KV(StateMachine):
            entries: dict[str, str]          # typed attributes at class level are its state

            def __init__(self) -> None:
                self.entries = {}

            @write
            def set(self, key: str, value: str) -> str:
                self.entries[key] = value
                return value

    A method that refuses raises ``Rejected`` before it changes anything. Any other exception is a bug in the machine,
    alike on every peer, and reaches the caller as ``MachineError``; but MemoryError, RecursionError and OSError of a
    write, which need not be alike on every peer, stop the peer.

    ``Command`` and ``Query`` structs, taken by ``handle_write`` and ``handle_read``, are the other form; one machine
    may use both. The classes that annotations name must be defined above the machine, at module level.

    Its state is every attribute that is annotated at class level, and is kept in snapshots so that the log need not
    grow for ever. Where that does not fit, override ``snapshot`` and ``restore``, both of them.

    Attributes:
        emits: the events that its writes emit, such as ``(Changed,)``.
    """

    emits: ClassVar[tuple[type[Event], ...]] = ()

    def __init_subclass__(cls, **options: object) -> None:
        """Check what the class declares.

        Raises:
            TypeError: a write or read cannot work as it is declared; the message says what to write.
        """
        super().__init_subclass__(**options)
        check_own_names(cls, OWN_NAMES)
        check_outermost(cls, {WriteMethod: "write", ReadMethod: "read"})
        check_snapshots(cls)
        call_types(cls)
        events_of(cls)

    @functools.cached_property
    def context(self) -> Context:
        """Time, index and randomness of the command being run; outside a group 0.0, 0 and a fixed seed."""
        return Context()

    @functools.cached_property
    def effects(self) -> Effects:
        """What writes led to beside state and replies: look at it on a plain machine, ``KV().effects.events``."""
        return Effects(events_of(type(self)))

    def __getstate__(self) -> object:
        """Give what a copy is made of: it leads to nothing in the group, so a read may try a write on one."""
        return keeping.outside(super().__getstate__())

    def emit(self, event: Event) -> None:
        """Tell whoever watches that something happened. To be called in a write.

        It is delivered once the write is committed, in the order of the log; a write that raises emits nothing.

        Args:
            event: of a class that ``emits`` names; at most 32 KiB, encoded.

        Raises:
            TypeError: its class is none of those, it does not hold what that declares, or this is a read.
            ValueError: it is too large.
        """
        self.effects.emit(event, self.context)

    @overload
    def call_at(self, when: float, method: WriteMethod[Self, P, Any], /, *args: P.args, **kwargs: P.kwargs) -> int: ...
    @overload
    def call_at(self, when: float, command: Command[Any], /) -> int: ...
    def call_at(self, when: float, call: Any, /, *args: Any, **kwargs: Any) -> int:
        """Set a timer: a write of this machine that runs by itself at an instant. To be called in a write.

        It runs on every peer at the same place of the log: before the first entry whose time is ``when`` or later,
        which the leader writes if nothing else comes. Its reply goes nowhere; if it raises, that is as with any write:
        a refusal is nothing, a bug is counted and logged. It runs once in any case.

        Args:
            when: seconds since 1970, by the time of the log, ``self.context.now``. What is not later than that is due
                as soon as time has passed.
            call: a ``@write`` method of the machine, followed by its arguments; or a ``Command``. Who may write may
                call it too: let it look whether it is its time.
            args: the arguments; at most 16 KiB, encoded.
            kwargs: more of them, by name.

        Returns:
            An id for ``cancel_call``, which no other timer of the group ever has.

        Raises:
            TypeError: the arguments do not fit, or this is a read.
            ValueError: ``when`` is no instant, or the arguments are too large.
            Rejected: 100,000 timers are set; set one before you change anything.
        """
        return self.effects.set_timer(when, encode_later(type(self), call, args, kwargs), self.context)

    @overload
    def call_later(
        self, delay: float, method: WriteMethod[Self, P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> int: ...
    @overload
    def call_later(self, delay: float, command: Command[Any], /) -> int: ...
    def call_later(self, delay: float, call: Any, /, *args: Any, **kwargs: Any) -> int:
        """Set a timer: a write of this machine that runs by itself after some seconds. See ``call_at``.

        Args:
            delay: seconds from ``self.context.now`` on.
            call: a ``@write`` method of the machine, followed by its arguments; or a ``Command``.
            args: the arguments.
            kwargs: more of them, by name.

        Returns:
            An id for ``cancel_call``.

        Raises:
            TypeError: as ``call_at`` has it, as the next two.
            ValueError: so.
            Rejected: so.
        """
        encoded = encode_later(type(self), call, args, kwargs)
        return self.effects.set_timer(self.context.now + delay, encoded, self.context)

    def cancel_call(self, timer: int) -> None:
        """Take a timer back; nothing happens if it has run, or was taken back before. To be called in a write.

        Args:
            timer: what ``call_at`` or ``call_later`` returned.

        Raises:
            TypeError: this is a read.
        """
        self.effects.cancel_timer(timer, self.context)

    def snapshot(self) -> Iterable[bytes]:
        """Give the state as it is now, in chunks of bytes that ``restore`` understands.

        Called between two commands, where everybody waits for it: it returns quickly, and what it returns is then
        iterated in another thread while the machine goes on. So take a frozen view first, such as a copy of a dict
        whose values cannot change, and return what encodes it piece by piece; never yield from the machine itself.

        Unless overridden it keeps every attribute that is annotated at class level, ``ClassVar`` aside. Containers of
        what cannot change (``dict[str, int]``, ``set[tuple[str, float]]``, ``list`` of frozen structs) are copied here
        and encoded there; all else, such as ``dict[str, list[int]]``, is encoded here, at once. Override it where such
        state is larger than some megabytes.

        Returns:
            The chunks. They come to ``restore`` one by one, as they were given; each is held in memory whole.

        Raises:
            TypeError: an attribute would be lost, or come back as something else. Raised while iterating, too.
            ValueError: a value cannot be kept, such as an int of more than 64 bits. Likewise.
        """
        return keeping.freeze(self, has_own=type(self).snapshot is not StateMachine.snapshot)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Take the state that ``snapshot`` gave, on this peer or another, today or years ago.

        Called once, in another thread, on a fresh machine that runs nothing yet and takes the place of the old one
        when this returns.

        Unless overridden it sets the attributes that ``snapshot`` kept. One that is newer than the snapshot keeps what
        ``__init__`` or the class gave it.

        Args:
            chunks: as they were given, in order.

        Raises:
            ValueError: the chunks are not a state of this class; the message says which attribute is wrong.
        """
        keeping.restore(self, chunks)


OWN_NAMES = ("context", "effects", "emit", "call_at", "call_later", "cancel_call")
"""What the class itself is for: a machine that has something else there would lose one of the two."""


def events_of(machine: type[StateMachine]) -> EventTypes:
    """Give the events that a class emits.

    Raises:
        TypeError: they cannot be emitted as they are declared; the message says why.
    """
    return event_types(f"{machine.__name__}.emits", machine.emits)


def check_snapshots(machine: type[StateMachine]) -> None:
    """Refuse a ``snapshot`` and ``restore`` that do not belong together, or cannot work.

    Raises:
        TypeError: one of them is overridden alone, yields from the machine itself, or is a write or read.
    """
    for overriding, default in ((machine.snapshot, StateMachine.snapshot), (machine.restore, StateMachine.restore)):
        label = f"{machine.__name__}.{default.__name__}"
        if overriding is not default and not inspect.isfunction(overriding):
            raise TypeError(
                f"{label} must be a plain method: it is what snapshots are made with. For a write or read choose "
                f'another name, and @write(name="{default.__name__}") if the log knows it by this one'
            )
        if inspect.isgeneratorfunction(overriding):
            raise TypeError(
                f"{label} must not yield: its body would run while the machine is written. Copy what changes first, "
                "then return a generator over the copy"
            )
    if (machine.snapshot is StateMachine.snapshot) != (machine.restore is StateMachine.restore):
        raise TypeError(f"{machine.__name__} overrides one of snapshot and restore; override both: they are one form")


def encode_later(machine: type[StateMachine], call: object, args: tuple[object, ...], kwargs: dict[str, Any]) -> bytes:
    """Encode a write that the machine sets for later, as a command in the log is.

    Raises:
        TypeError: it is no write of the machine, or the arguments do not fit.
    """
    known = write_types(cast(Hashable, machine))
    make: Callable[[], object]
    if isinstance(call, WriteMethod) and call.name in known and issubclass(machine, call.owner):
        label, make = known[call.name].label, functools.partial(known[call.name].struct, *args, **kwargs)
    elif isinstance(call, Command) and not (args or kwargs) and type(call) in [each.struct for each in known.values()]:
        label, make = type(call).__name__, lambda: call
    else:
        raise TypeError(f"{shown(call)} is no write of {machine.__name__} that a timer could run")
    try:
        struct = make()
        encoded = msgspec.msgpack.encode(struct)
        msgspec.msgpack.decode(encoded, type=type(struct))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # ValidationError is a ValueError.
        raise TypeError(f"{label}: {error}") from error
    if nests_too_deep(encoded):
        raise TypeError(f"{label}: the arguments nest too deep, or have maps as keys")
    return encoded


@functools.lru_cache(maxsize=64)
def write_types(machine: type[StateMachine]) -> dict[str, CallType]:
    """Give the writes of a class by their names in the log, found once: timers ask while a command is run."""
    return {name: call for name, call in call_types(machine).items() if call.kind == "write"}


def call_types(machine: type[StateMachine]) -> dict[str, CallType]:
    """Give the writes and reads that a class declares and inherits, by their names in the log.

    Raises:
        TypeError: one of them cannot work as it is declared, or two have the same name.
    """
    found: dict[str, CallType] = {}
    for call in (*method_calls(machine), *struct_calls(machine)):
        if call.name in found:
            raise TypeError(
                f"{call.label} and {found[call.name].label} are both named {call.name!r} in the log; "
                f'give one of them another name, with @{call.kind}(name="…") or tag="…"'
            )
        check_decodable(call)
        found[call.name] = call
    return found


def method_calls(machine: type[StateMachine]) -> Iterator[CallType]:
    """Yield the writes and reads that are declared as methods.

    Raises:
        TypeError: a method cannot be called from a log, or is hidden by something that is no write or read.
    """
    methods: dict[str, Method[Any, ..., object]] = {}
    for owner in reversed(machine.__mro__):
        for attribute, value in vars(owner).items():
            if (hidden := methods.get(attribute)) is not None and type(value) is not type(hidden):
                raise TypeError(f"{owner.__name__}.{attribute} hides {hidden!r}; decorate it alike")
            if isinstance(value, Method):
                methods[attribute] = value
    for attribute, method in methods.items():
        label = f"{machine.__name__}.{attribute}"
        kind: Literal["write", "read"] = "write" if isinstance(method, WriteMethod) else "read"
        parameters, reply = signature(method.function, label)
        struct = struct_from_parameters(method.name, parameters, label)
        yield CallType(kind, method.name, label, struct, method.function, reply, msgspec.structs.astuple)


def struct_calls(machine: type[StateMachine]) -> Iterator[CallType]:
    """Yield the writes and reads that ``handle_write`` and ``handle_read`` take.

    Raises:
        TypeError: they do not say which, or those cannot be called from a log.
    """
    forms: tuple[tuple[Literal["write", "read"], type[msgspec.Struct]], ...] = (("write", Command), ("read", Query))
    for kind, form in forms:
        function = getattr(machine, f"handle_{kind}", None)
        if function is None:
            continue
        label = f"{machine.__name__}.handle_{kind}"
        parameters, _ = signature(function, label)
        annotation = parameters[0].annotation if len(parameters) == 1 else None
        members = typing.get_args(annotation) if is_union(annotation) else (annotation,)
        for struct in members:
            if not (isinstance(struct, type) and issubclass(struct, form) and struct is not form):
                raise TypeError(
                    f"{label} must take one {form.__name__}, annotated with its classes, such as: Set | Append"
                )
            name = name_of(struct, form)
            yield CallType(
                kind, name, struct.__name__, struct, function, reply_of(struct, form), lambda alone: (alone,)
            )


def check_decodable(call: CallType) -> None:
    """Refuse types that cannot be decoded where they are declared, not at the first call.

    Raises:
        TypeError: msgspec cannot decode the arguments or the reply; the message says why.
    """
    try:
        msgspec.msgpack.Decoder(call.struct)
        msgspec.msgpack.Decoder(call.reply)
        unknown = keeping.unknown_class(call.struct) or keeping.unknown_class(call.reply)
    except (TypeError, NameError) as error:
        raise TypeError(f"{call.label}: {error}") from error
    if unknown is not None:
        raise TypeError(f"{call.label}: MessagePack has no form for {unknown.__name__}; build it of what it has")
