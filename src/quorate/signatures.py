"""What a declaration of the user's says: the parameters and reply of a method, the name and reply of a struct.

Knows annotations, and the form that every call and event has: the MessagePack array ``[name, *arguments]``. Knows no
machines.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, dataclass_transform

import msgspec

from quorate.errors import described

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


class CallType(msgspec.Struct, frozen=True):
    """One write or read, as its class declares it.

    Attributes:
        kind: which of the two.
        name: its name in the log.
        label: what people call it, such as ``KV.set``.
        struct: the tagged struct whose fields are the parameters.
        function: takes the machine, then the parameters; of the form ``handle_write(command)`` the struct itself.
        reply: the type of the reply.
        arguments: gives what ``function`` takes after the machine, of the struct.
    """

    kind: Literal["write", "read"]
    name: str
    label: str
    struct: type[msgspec.Struct]
    function: Callable[..., object]
    reply: Any
    arguments: Callable[[msgspec.Struct], tuple[object, ...]]


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


def required_arguments(method: object) -> list[str]:
    """Give the arguments after self that a method needs. Nothing here asks what their annotations stand for."""
    if not isinstance(method, types.FunctionType):
        return []
    by_place = method.__code__.co_argcount
    names = method.__code__.co_varnames[: by_place + method.__code__.co_kwonlyargcount]
    first_default = by_place - len(method.__defaults__ or ())
    return [*names[1:first_default], *(name for name in names[by_place:] if name not in (method.__kwdefaults__ or {}))]


def struct_from_parameters(name: str, parameters: list[inspect.Parameter], label: str) -> type[msgspec.Struct]:
    """Make the struct that ``class Set(Command[str], tag="set")`` would be, so that both forms are the same bytes.

    Raises:
        TypeError: msgspec cannot build it.
    """
    fields = [(p.name, p.annotation) if p.default is p.empty else (p.name, p.annotation, p.default) for p in parameters]
    try:
        # It lives from when it is decoded until the handler is called, and only its fields go on: no garbage collector
        # need look at it, which it would do all the oftener for many that are decoded at once.
        return msgspec.defstruct(
            name,
            fields,
            frozen=True,
            gc=False,
            array_like=True,
            tag=name,
            tag_field=TAG_FIELD,
            forbid_unknown_fields=True,
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


def is_union(annotation: object) -> bool:
    """Tell whether the annotation is of the form ``A | B``."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def explained(call: CallType, error: Exception) -> str:
    """Say what is wrong with the arguments by their names, where msgspec says positions, such as ``$[1]``."""
    text = str(error) if isinstance(error, msgspec.MsgspecError) else described(error)
    for position, name in enumerate(call.struct.__struct_fields__, 1):
        text = text.replace(f"`$[{position}]", f"`{name}")
    return text


def shown(call: object) -> str:
    """Show what was given for a call, and say what to give where that is plain."""
    if isinstance(call, types.MethodType):
        name = call.__func__.__qualname__
        return f"{name} of one machine (pass `{name}`, of the class, and its arguments)"
    return repr(call)


def check_own_names(machine: type, names: tuple[str, ...]) -> None:
    """Refuse a class that has something of its own under a name that is quorate's.

    Raises:
        TypeError: it has.
    """
    try:
        annotated = inspect.get_annotations(machine)
    except NameError:  # Python 3.14 resolves them here; what cannot be resolved is told when the state is read.
        annotated = {}
    for name in names:
        if name in vars(machine) or name in annotated:
            raise TypeError(
                f"{machine.__name__}.{name}: this name is taken by StateMachine.{name}; choose another, and "
                f'@write(name="{name}") if the log knows it by this one'
            )


def check_outermost(machine: type, decorators: Mapping[type, str]) -> None:
    """Refuse a method that is declared beneath another decorator: nobody would find the declaration there.

    Args:
        machine: the class.
        decorators: the names of the decorators that declare, by what they make of a method.

    Raises:
        TypeError: one is not the outermost.
    """
    for owner in machine.__mro__:
        for attribute, value in vars(owner).items():
            if isinstance(value, (classmethod, staticmethod, property, functools.cached_property, types.FunctionType)):
                inner = getattr(value, "__wrapped__", None) or getattr(value, "fget", getattr(value, "func", None))
                if name := decorators.get(type(inner)):
                    label = f"{owner.__name__}.{attribute}"
                    raise TypeError(f"{label}: @{name} must be the outermost decorator, of a def that takes self")
