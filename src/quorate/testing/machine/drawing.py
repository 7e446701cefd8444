"""Calls of a machine, drawn from the annotations of its writes and reads.

``random_calls`` gives the ``draw`` of ``simulate``. Knows machines and ``values``; knows no simulation and no
Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as forms

from quorate.calling import describe
from quorate.machine import Method, StateMachine, call_types
from quorate.testing.machine.values import Draw, NoValues, draw_value, unfit

Values: TypeAlias = Sequence[Any] | Draw
"""The values of a parameter or type: those to choose from, or a function that draws one."""


class DrawnCall(msgspec.Struct, frozen=True):
    """One write or read of a machine, and what its parameters are.

    Attributes:
        label: what people call it, such as ``KV.set``.
        method: the method's reference, which takes the arguments; or the class of the struct that carries them.
        is_struct: which of the two.
        fields: the parameters, in order.
    """

    label: str
    method: Any
    is_struct: bool
    fields: tuple[forms.Field, ...]


class Given(msgspec.Struct, frozen=True):
    """What was given in place of what the annotations say.

    Attributes:
        types: draws of values by their class.
        parameters: the same by the parameter's name.
    """

    types: Mapping[type, Draw]
    parameters: Mapping[str, Draw]


def random_calls(
    machine: type[StateMachine], types: Mapping[type, Values] | None = None, /, **parameters: Values
) -> Callable[[Random], tuple[Any, ...]]:
    """Give a function that draws calls of a machine, each a method (or a ``Command`` or ``Query``) and its arguments.

    ::

        simulate(Seats, random_calls(Seats, seat=range(4)))

    Every write and read is as likely as any other. Arguments fit their annotations, and are drawn from few values, so
    that calls meet: ``int`` from -1 to 4, ``str`` of one letter of six or none, at most three items in a ``list``.

    Args:
        machine: the class of the machine.
        types: the values of all parameters, fields and items of some types.
        parameters: the values of some parameters by name: a sequence to choose from, or a function that is given a
            ``random.Random`` and draws one.

    Raises:
        TypeError: the machine has no such parameter, or no values are known for one; the message says what to give.
    """
    known = drawn_calls(describe(machine).machine)
    given = Given(
        {kind: as_draw(values) for kind, values in (types or {}).items()},
        {name: as_draw(values) for name, values in parameters.items()},
    )
    check_given(machine, known, given)
    return lambda random: draw_call(known, given, random)


def draw_call(known: Sequence[DrawnCall], given: Given, random: Random) -> tuple[Any, ...]:
    """Draw one call: a method and its arguments, or a struct alone."""
    call = random.choice(known)
    chosen: list[Any] = []
    for field in call.fields:
        own = given.parameters.get(field.name)
        chosen.append(draw_value(field.type, random, given.types) if own is None else own(random))
    return (call.method(*chosen),) if call.is_struct else (call.method, *chosen)


def drawn_calls(machine: type[StateMachine]) -> tuple[DrawnCall, ...]:
    """Give the writes and reads of a machine, in the order in which they are declared.

    Raises:
        TypeError: it has none.
    """
    methods = [getattr(machine, name) for name in dir(machine)]
    by_name = {method.name: method for method in methods if isinstance(method, Method)}
    known: list[DrawnCall] = []
    for call in call_types(machine).values():
        form = forms.type_info(call.struct)
        assert isinstance(form, forms.StructType), "arguments are carried by structs"
        method = by_name.get(call.name, call.struct)
        known.append(DrawnCall(call.label, method, method is call.struct, form.fields))
    if not known:
        raise TypeError(f"{machine.__name__} has no write and no read to call")
    return tuple(known)


def check_given(machine: type[StateMachine], known: Sequence[DrawnCall], given: Given) -> None:
    """Check that there are values for all parameters, and a parameter for all values.

    Raises:
        TypeError: the machine has no such parameter; the message says which it has.
        NoValues: no values are known for one; the message says what to give.
    """
    names = {field.name: None for call in known for field in call.fields}
    for name in given.parameters:
        if name not in names:
            raise TypeError(f"no write or read of {machine.__name__} takes {name}; they take {', '.join(names)}")
    for call in known:
        for field in call.fields:
            if field.name not in given.parameters:
                for why in unfit(field.type, given.types):
                    raise NoValues(f"{call.label}: {field.name}: {why}; give some, such as {field.name}=[…]")


def as_draw(values: Values) -> Draw:
    """Give the function that draws from some values."""
    return values if callable(values) else lambda random: random.choice(values)
