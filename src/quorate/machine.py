"""The contract that the user implements: a state machine whose writes and reads are typed methods, or typed structs.

Each write and read is one MessagePack array, ``[name, *arguments]``, in the log and on the wire, whichever form
declares it. Names are stable strings; arguments go by position. A log outlives the program that wrote it, so:

- A method or struct may be renamed if its name in the log stays: ``@write(name="set")``, ``tag="set"``.
- New parameters go to the end, each with a default; commands that lack them are then still read. Update every peer
  before a caller sends the new parameter: a peer of the old program refuses what it does not know.
- Parameters are never removed, reordered, or given a type that refuses what the old one took.

Nothing here knows of logs, peers or bytes; ``calling`` turns these declarations into bytes and back, ``keeping`` the
state of a machine.
"""

from __future__ import annotations

import functools
import inspect
import random
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, dataclass_transform, overload

import msgspec

from quorate import keeping

M_contra = TypeVar("M_contra", bound="StateMachine", contravariant=True)
M = TypeVar("M", bound="StateMachine")
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

# msgspec reserves one field name for the tag, though arrays carry no names. This one can be no parameter's.
TAG_FIELD = " name"


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class CallStructMeta(msgspec.StructMeta):
    """Tells type checkers what msgspec's own does not: whoever inherits from a frozen struct is frozen."""


class CallStruct(
    msgspec.Struct,
    metaclass=CallStructMeta,
    frozen=True,
    array_like=True,
    tag=True,
    tag_field=TAG_FIELD,
    forbid_unknown_fields=True,
):
    """The form of every call: the array ``[name, *arguments]``."""


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
        return self if instance is None else types.MethodType(self.function, instance)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.function.__qualname__}>"


class WriteMethod(Method[M_contra, P, R_co]):
    """A write declared with ``@write``: machine, parameters and reply are part of its type."""


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


class Context(msgspec.Struct, eq=False):
    """What a handler may know of the world beyond its arguments: the same on every peer.

    Attributes:
        now: the leader's wall clock when it took the command, seconds since 1970; never falls along the log. For a
            read, that of the last command applied.
        index: the index of the command in the log; for a read, the last one applied.
    """

    now: float = 0.0
    index: int = 0
    _random: random.Random | None = None

    @property
    def random(self) -> random.Random:
        """A generator seeded from the log. Foreseeable, so of no use for secrets.

        Python promises only ``random()`` itself to be alike in all its versions: where peers may run different ones,
        build on that alone.
        """
        if self._random is None:
            self._random = random.Random(f"{self.index} {self.now!r}")
        return self._random


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
    alike on every peer, and reaches the caller as ``MachineError``; but MemoryError, RecursionError and OSError, which
    need not be alike on every peer, stop the peer.

    ``Command`` and ``Query`` structs, taken by ``handle_write`` and ``handle_read``, are the other form; one machine
    may use both. The classes that annotations name must be defined above the machine, at module level.

    Its state is every attribute that is annotated at class level, and is kept in snapshots so that the log need not
    grow for ever. Where that does not fit, override ``snapshot`` and ``restore``, both of them.
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Check what the class declares.

        Raises:
            TypeError: a write or read cannot work as it is declared; the message says what to write.
        """
        super().__init_subclass__(**options)
        check_snapshots(cls)
        call_types(cls)

    @functools.cached_property
    def context(self) -> Context:
        """Time, index and randomness of the command being run; outside a group 0.0, 0 and a fixed seed."""
        return Context()

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
            TypeError: an attribute would be lost, or come back as something else.
            ValueError: a value cannot be kept, such as an int of more than 64 bits. Raised while iterating, too.
        """
        return keeping.freeze(self)

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


def check_snapshots(machine: type[StateMachine]) -> None:
    """Refuse a ``snapshot`` and ``restore`` that do not belong together, or cannot work.

    Raises:
        TypeError: one of them is overridden alone, yields from the machine itself, or is a write or read.
    """
    own = (machine.snapshot, StateMachine.snapshot), (machine.restore, StateMachine.restore)
    for overriding, default in own:
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


class CallType(msgspec.Struct, frozen=True):
    """One write or read, as its class declares it.

    Attributes:
        kind: which of the two.
        name: its name in the log.
        label: what people call it, such as ``KV.set``.
        struct: the tagged struct whose fields are the parameters.
        function: takes the machine, then the parameters, or the struct itself if ``takes_struct``.
        takes_struct: whether it is of the form ``handle_write(command)``.
        reply: the type of the reply.
    """

    kind: Literal["write", "read"]
    name: str
    label: str
    struct: type[msgspec.Struct]
    function: Callable[..., object]
    takes_struct: bool
    reply: Any


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
            hidden = methods.get(attribute)
            if hidden is not None and type(value) is not type(hidden):
                raise TypeError(f"{owner.__name__}.{attribute} hides {hidden!r}; decorate it alike")
            if isinstance(value, Method):
                methods[attribute] = value
    for attribute, method in methods.items():
        label = f"{machine.__name__}.{attribute}"
        kind: Literal["write", "read"] = "write" if isinstance(method, WriteMethod) else "read"
        parameters, reply = signature(method.function, label)
        struct = struct_from_parameters(method.name, parameters, label)
        yield CallType(kind, method.name, label, struct, method.function, False, reply)


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
            yield CallType(kind, name, struct.__name__, struct, function, True, reply_of(struct, form))


def signature(function: Callable[..., object], label: str) -> tuple[list[inspect.Parameter], object]:
    """Give the parameters after self, with annotations resolved, and the type of the reply.

    Raises:
        TypeError: the function cannot be called from a log; the message says what to write.
    """
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(f"{label} must be a plain def that returns its reply: no async, no yield")
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise TypeError(
            f"the annotations of {label} cannot be resolved: {error}; "
            "define the classes they name above the machine, at module level"
        ) from error
    if not parameters:
        raise TypeError(f"{label} must take self")
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"{label}: {parameter} has no fixed position in the log; write each parameter out, without *"
            )
        if parameter.name not in hints:
            raise TypeError(f"{label}: {parameter.name} needs an annotation, such as {parameter.name}: str")
    if "return" not in hints:
        raise TypeError(f"{label} needs the type of its reply, such as -> str or -> None")
    return [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters[1:]], hints["return"]


def struct_from_parameters(name: str, parameters: list[inspect.Parameter], label: str) -> type[msgspec.Struct]:
    """Make the struct that ``class Set(Command[str], tag="set")`` would be, so that both forms are the same bytes.

    Raises:
        TypeError: msgspec cannot build it.
    """
    fields = [(p.name, p.annotation) if p.default is p.empty else (p.name, p.annotation, p.default) for p in parameters]
    try:
        return msgspec.defstruct(
            name, fields, frozen=True, array_like=True, tag=name, tag_field=TAG_FIELD, forbid_unknown_fields=True
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{label}: {error}") from error


def name_of(struct: type[msgspec.Struct], form: type[msgspec.Struct]) -> str:
    """Give the name in the log of a command or query.

    Raises:
        TypeError: it does not have the form of the wire.
    """
    settings = struct.__struct_config__
    if isinstance(settings.tag, str) and settings.array_like and settings.tag_field == TAG_FIELD:
        return settings.tag
    raise TypeError(f"{struct.__name__}: the only option of a {form.__name__} is its name, such as tag='set'")


def reply_of(struct: type[msgspec.Struct], form: type[msgspec.Struct]) -> object:
    """Give the reply's type ``R`` of a ``Command[R]`` or ``Query[R]``.

    Raises:
        TypeError: it names none.
    """
    for ancestor in struct.__mro__:
        for declared in vars(ancestor).get("__orig_bases__", ()):
            if typing.get_origin(declared) is form and not isinstance(
                reply := typing.get_args(declared)[0], typing.ForwardRef
            ):
                return reply
    raise TypeError(
        f"{struct.__name__} needs the type of its reply, without quotes: class {struct.__name__}({form.__name__}[str])"
    )


def check_decodable(call: CallType) -> None:
    """Refuse types that cannot be decoded where they are declared, not at the first call.

    Raises:
        TypeError: msgspec cannot decode the arguments or the reply; the message says why.
    """
    try:
        msgspec.msgpack.Decoder(call.struct)
        msgspec.msgpack.Decoder(call.reply)
    except (TypeError, NameError) as error:
        raise TypeError(f"{call.label}: {error}") from error


def is_union(annotation: object) -> bool:
    """Tell whether the annotation is of the form ``A | B``."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
