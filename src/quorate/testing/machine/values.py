"""A value that fits a type, drawn by a ``random.Random``: from few values, so that calls collide.

Knows the types that a machine's parameters may have, as msgspec describes them. Knows no machines and no Hypothesis.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, TypeAlias, TypeVar

from msgspec import inspect as forms

Draw: TypeAlias = Callable[[Random], Any]
"""Gives one of the values of a parameter or type. Only the ``Random`` may decide which, so that it can be repeated."""

N = TypeVar("N", int, float)

ITEMS_MAX = 3
"""How many items a list, set or dict has at most, unless its annotation asks for more."""
DEPTH_MAX = 4
"""How deep values nest, where their annotations allow an end: structs may hold themselves."""

MIDNIGHT = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)

LEAVES: Mapping[type[forms.Type], tuple[type, Draw]] = {
    forms.NoneType: (type(None), lambda _: None),
    forms.BoolType: (bool, lambda random: random.random() < 0.5),
    forms.UUIDType: (uuid.UUID, lambda random: uuid.UUID(int=random.randrange(3))),
    forms.DecimalType: (decimal.Decimal, lambda random: decimal.Decimal(random.randrange(-1, 4)) / 2),
    forms.DateType: (datetime.date, lambda random: MIDNIGHT.date() + datetime.timedelta(days=random.randrange(3))),
    forms.TimeDeltaType: (datetime.timedelta, lambda random: datetime.timedelta(seconds=random.randrange(3))),
    forms.AnyType: (object, lambda random: random.choice((None, 0, 1, "a", "b"))),
}
"""The class and the values of each form that has nothing within it, and no bounds."""

CONTAINERS: Mapping[type[forms.Type], type] = {
    forms.ListType: list,
    forms.CollectionType: list,
    forms.VarTupleType: tuple,
    forms.SetType: set,
    forms.FrozenSetType: frozenset,
}
"""The class of each form that holds any number of items of one form."""

CLASSES: Mapping[type[forms.Type], type] = {
    **{form: kind for form, (kind, _) in LEAVES.items()},
    **CONTAINERS,
    forms.IntType: int,
    forms.FloatType: float,
    forms.StrType: str,
    forms.BytesType: bytes,
    forms.ByteArrayType: bytearray,
    forms.DateTimeType: datetime.datetime,
    forms.TimeType: datetime.time,
    forms.TupleType: tuple,
    forms.DictType: dict,
}
"""The class of each form that names none itself."""

RECORDS = (forms.StructType, forms.DataclassType, forms.NamedTupleType, forms.TypedDictType)
"""The forms of what has named fields."""


class NoValues(TypeError):
    """No value can be drawn for a type; the message says for which."""


def draw_value(form: forms.Type, random: Random, given: Mapping[type, Draw], depth: int = 0) -> Any:  # noqa: ANN401
    """Draw a value of a form.

    Args:
        form: the form, as ``msgspec.inspect`` gives it.
        random: decides.
        given: the values of some types, in place of those known here.
        depth: how deep this one stands in another.

    Raises:
        NoValues: none is known that fits.
    """
    if (own := given.get(class_of(form))) is not None:
        return own(random)
    if type(form) in LEAVES:
        return LEAVES[type(form)][1](random)
    if type(form) in CONTAINERS:
        return draw_items(form, random, given, depth + 1)
    return draw_compound(form, random, given, depth)


def draw_compound(form: forms.Type, random: Random, given: Mapping[type, Draw], depth: int) -> Any:  # noqa: ANN401
    """Draw a value of a form that has others within it, or that lists its values.

    Raises:
        NoValues: none is known that fits.
    """
    match form:
        case forms.UnionType():
            return draw_value(random.choice(choices(form, depth)), random, given, depth + 1)
        case forms.EnumType():
            return random.choice(list(form.cls))
        case forms.LiteralType():
            return random.choice(form.values)
        case forms.Metadata():
            return draw_value(form.type, random, given, depth)
        case forms.TupleType():
            return tuple(draw_value(inner, random, given, depth + 1) for inner in form.item_types)
        case forms.DictType():
            keys = draw_distinct(form.key_type, size_of(form, random, depth), random, given, depth + 1)
            return {key: draw_value(form.value_type, random, given, depth + 1) for key in keys}
        case forms.StructType() | forms.DataclassType() | forms.NamedTupleType() | forms.TypedDictType():
            return draw_record(form, random, given, depth)
        case _:
            return draw_leaf(form, random)


def draw_leaf(form: forms.Type, random: Random) -> Any:  # noqa: ANN401
    """Draw a value of a form that has bounds, or an instant.

    Raises:
        NoValues: none is known that fits.
    """
    match form:
        case forms.IntType():
            whole = form.multiple_of or 1
            lowest = nearest_to_zero(form) // whole - 1
            return choose(form, [number * whole for number in range(lowest, lowest + 6)], random)
        case forms.FloatType():
            step = form.multiple_of or 0.5
            first = nearest_to_zero(form) // step
            return choose(form, [(first + number) * step for number in range(-1, 5)], random)
        case forms.StrType(pattern=None):
            return draw_text(form, random)
        case forms.BytesType() | forms.ByteArrayType():
            text = draw_text(form, random).encode()
            return bytearray(text) if isinstance(form, forms.ByteArrayType) else text
        case forms.DateTimeType():
            instant = MIDNIGHT + datetime.timedelta(hours=random.randrange(3))
            return instant.replace(tzinfo=None) if form.tz is False else instant
        case forms.TimeType():
            return datetime.time(random.randrange(3), tzinfo=None if form.tz is False else datetime.UTC)
        case forms.CustomType(cls=kind) if kind is object:
            return LEAVES[forms.AnyType][1](random)
        case _:
            raise NoValues(f"no values are known for {described(form)}")


def draw_items(form: Any, random: Random, given: Mapping[type, Draw], depth: int) -> object:  # noqa: ANN401
    """Draw what holds any number of items of one form."""
    kind: Any = class_of(form)
    size = size_of(form, random, depth)
    if issubclass(kind, (set, frozenset)):
        return kind(draw_distinct(form.item_type, size, random, given, depth))
    return kind([draw_value(form.item_type, random, given, depth) for _ in range(size)])


def draw_distinct(
    form: forms.Type, size: int, random: Random, given: Mapping[type, Draw], depth: int
) -> Sequence[object]:
    """Draw values that differ; fewer where there are hardly as many."""
    drawn: dict[object, None] = {}
    for _ in range(4 * size):
        if len(drawn) < size:
            drawn[draw_value(form, random, given, depth)] = None
    return list(drawn)


def draw_record(form: Any, random: Random, given: Mapping[type, Draw], depth: int) -> object:  # noqa: ANN401
    """Draw what has named fields; half of those that have a default keep it."""
    chosen = [field for field in form.fields if field.required or (random.random() < 0.5 and depth < DEPTH_MAX)]
    return form.cls(**{field.name: draw_value(field.type, random, given, depth + 1) for field in chosen})


def draw_text(form: forms.StrType | forms.BytesType | forms.ByteArrayType, random: Random) -> str:
    """Draw one letter, or seldom none; several where a length is asked for."""
    longest = 1 if form.max_length is None else form.max_length
    length = max(form.min_length or 0, min(longest, 0 if random.randrange(20) == 19 else 1))
    return random.choice("abcdef") * length


def choose(form: forms.IntType | forms.FloatType, numbers: Sequence[N], random: Random) -> N:
    """Choose one of the numbers that lie within the bounds of a form.

    Raises:
        NoValues: none of them does.
    """
    fitting = [
        number
        for number in numbers
        if (form.ge is None or number >= form.ge)
        and (form.gt is None or number > form.gt)
        and (form.le is None or number <= form.le)
        and (form.lt is None or number < form.lt)
    ]
    if not fitting:
        raise NoValues(f"no values are known for {described(form)}")
    return random.choice(fitting)


def nearest_to_zero(form: forms.IntType | forms.FloatType) -> Any:  # noqa: ANN401
    """Give about the number nearest to zero that the bounds of a form allow."""
    lowest = form.ge if form.ge is not None else form.gt
    highest = form.le if form.le is not None else form.lt
    if lowest is not None and lowest > 0:
        return lowest
    return highest if highest is not None and highest < 0 else 0


def size_of(form: Any, random: Random, depth: int) -> int:  # noqa: ANN401
    """Draw how many items to hold: none deep within others, where that is allowed."""
    least = form.min_length or 0
    most = max(least, ITEMS_MAX if form.max_length is None else min(ITEMS_MAX, form.max_length))
    return least if depth > DEPTH_MAX else random.randint(least, most)


def choices(form: forms.UnionType, depth: int) -> Sequence[forms.Type]:
    """Give what may be chosen of a union: deep within others only what has nothing within it, where there is such."""
    flat = [inner for inner in form.types if not isinstance(inner, RECORDS) and type(inner) not in CONTAINERS]
    return flat if flat and depth >= DEPTH_MAX else form.types


def class_of(form: forms.Type) -> type:
    """Give the class of a form's values; ``object`` for one that has none."""
    kind: type = getattr(form, "cls", None) or CLASSES.get(type(form), object)
    return kind


def described(form: forms.Type) -> str:
    """Name a form as a person would, with its bounds."""
    bounds = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
    found = [f"{bound}={value!r}" for bound in bounds if (value := getattr(form, bound, None)) is not None]
    kind = class_of(form)
    name = type(form).__name__.removesuffix("Type") if kind is object else kind.__name__
    return f"{name} with {', '.join(found)}" if found else name


def unfit(form: forms.Type, given: Mapping[type, Draw], seen: set[int] | None = None) -> Iterator[str]:
    """Yield what no value can be drawn for, in a form and in all that is within it."""
    seen = set() if seen is None else seen
    if id(form) in seen or class_of(form) in given:
        return
    seen.add(id(form))
    inner = [getattr(form, name) for name in ("type", "item_type", "key_type", "value_type") if hasattr(form, name)]
    inner += [*getattr(form, "types", ()), *getattr(form, "item_types", ())]
    inner += [field.type for field in getattr(form, "fields", ())]
    for part in inner:
        yield from unfit(part, given, seen)
    if not inner and not isinstance(form, (*LEAVES, *RECORDS, forms.EnumType, forms.LiteralType, forms.TupleType)):
        try:
            draw_leaf(form, Random(0))
        except NoValues as error:
            yield str(error)
