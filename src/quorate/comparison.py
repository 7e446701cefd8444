"""Whether what a snapshot brings back is what was kept: equal, and of the same classes, all the way down.

A peer that was restored goes on beside peers that were not, so nothing may tell the two apart. Values are spread into
columns, one for each place of their form, and these compared: that costs less than one value after the other. What can
change is spread before it does, and may be compared in another thread. Knows values; knows nothing of attributes and
snapshots.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import inspect
import operator
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from enum import Enum
from itertools import accumulate, chain, islice
from typing import Any

import msgspec

Extract = Callable[[Sequence[Any]], list[Any]]

PYTHONS = "__orig_class__"
"""Where Python keeps, in an object made by ``Box[int](3)``, what it was made by: nothing that a class declares."""

PLAIN = frozenset({bool, int, float, str, bytes, type(None)})
"""The classes of which two values are alike if they are equal, or both are NaN."""

CHANGING = (list, dict, set, deque, bytearray)
"""The classes without attributes whose objects can change."""

MISSING: Any = object()
"""Stands where an object lacks an attribute, or a set an item."""


class Column:
    """Values that stand at the same place of their form."""

    def __init__(
        self,
        kept: Sequence[Any],
        parent: Column | None,
        extract: Extract,
        name: Callable[[int], tuple[int, str]],
        first: int = 0,
    ) -> None:
        """Hold values.

        Args:
            kept: the values.
            parent: the column of what they stand in; None for what stands in nothing.
            extract: gives what they come back as, of what those of the parent do.
            name: gives, for the place of a value, that of what it stands in, and its name with ``{}`` for that.
            first: how many items of a value come before those that it holds here.
        """
        self.kept = kept
        self.compared = kept  # Or what is set aside of values that may have changed by then.
        self.parent = parent
        self.extract = extract
        self.name = name
        self.first = first
        self.kinds: set[type] = set(map(type, kept))
        self.sizes: list[int] | None = None
        self.can_change: bool = False

    def label(self, place: int) -> str:
        """Say where a value stands, such as ``KV.entries['a']``."""
        names: list[str] = []
        column: Column | None = self
        while column is not None:
            place, name = column.name(place)
            names.append(name)
            column = column.parent
        label = names.pop()
        while names:
            before, _, behind = names.pop().partition("{}")
            label = f"{before}{label}{behind}"
        return label

    def owner(self, place: int) -> tuple[int, int]:
        """Give the place of the container whose item stands at a place of all items, and its place in that."""
        ends = list(accumulate(self.sizes or ()))
        index = next(index for index, end in enumerate(ends) if place < end)
        return index, place - (ends[index - 1] if index else 0)


class Held:
    """The objects met so far that can change: each must stand in one place, for it would come back as two."""

    def __init__(self) -> None:
        """Begin with none."""
        self._columns: list[Column] = []
        self._ids: set[int] = set()

    def hold(self, label: str, value: object) -> None:
        """Add one object that can change; ``label`` is what people call it.

        Raises:
            TypeError: it stands in two places.
        """
        self.add(root(label, value))

    def add(self, column: Column) -> None:
        """Add those of a column, which live as long as this does.

        Raises:
            TypeError: one of them stands in two places.
        """
        before = len(self._ids)
        self._columns.append(column)
        self._ids.update(map(id, column.kept))
        if len(self._ids) == before + len(column.kept):
            return
        places: dict[int, tuple[Column, int]] = {}
        for one in self._columns:
            for place, value in enumerate(one.kept):
                found, at = places.setdefault(id(value), (one, place))
                if (found, at) != (one, place):
                    raise TypeError(
                        f"{one.label(place)} is the same {type(value).__name__} as {found.label(at)}, and would come "
                        "back as another: keep it in one place, and in the other what it is found by"
                    )


class Spread:
    """A value, spread into columns as it is now; ``compare`` may follow when it has changed."""

    def __init__(self, label: str, value: object, first: int = 0, held: Held | None = None) -> None:
        """Spread a value.

        Args:
            label: what people call it.
            value: the value, or some items of a container.
            first: how many of its items come before those.
            held: is given what can change when it is compared; None where nothing can.

        Raises:
            TypeError: something would be lost.
        """
        self.first = first
        self._held = held
        self._columns: list[Column] = []
        waiting = [root(label, value, first)]
        while waiting:
            column = waiting.pop()
            self._columns.append(column)
            waiting += spread(column)

    def compare(self, restored: object) -> None:
        """Compare the value with what it comes back as.

        Raises:
            TypeError: it would come back as something else, or what can change stands in two places; the message says
            what in it, and what to do.
        """
        values: dict[Column | None, Sequence[Any]] = {None: [restored]}
        for column in self._columns:
            if column.can_change and self._held is not None:
                self._held.add(column)
            values[column] = column.extract(values[column.parent])
            check(column, values[column])


def root(label: str, value: object, first: int = 0) -> Column:
    """Give one value as a column."""
    return Column([value], None, list, lambda _: (0, label), first)


def spread(column: Column) -> Iterator[Column]:
    """Yield the columns of what is in the values of a column.

    Raises:
        TypeError: something would be lost.
    """
    if column.kinds <= PLAIN:
        return
    if len(column.kinds) > 1:
        for kind in sorted(column.kinds - PLAIN, key=lambda kind: kind.__qualname__):
            yield chosen(column, [place for place, value in enumerate(column.kept) if type(value) is kind])
        return
    (kind,) = column.kinds
    names = fields_of(kind)
    column.can_change = can_change(kind, names)
    if names is not None:
        check_declared(column, kind, names)
        yield from (attribute(column, name) for name in names)
    elif issubclass(kind, (dict, list, tuple, set, frozenset)):
        column.sizes = list(map(len, column.kept))
        yield from items(column, kind)
    elif issubclass(kind, bytearray):
        column.compared = list(map(bytes, column.kept))


def chosen(column: Column, at: Sequence[int]) -> Column:
    """Give those at some places of a column, as a column."""

    def extract(values: Sequence[Any]) -> list[Any]:
        return [values[place] for place in at]

    return Column(extract(column.kept), column, extract, lambda place: (at[place], "{}"), column.first)


def attribute(column: Column, name: str) -> Column:
    """Give the values of an attribute of objects, as a column."""

    def extract(values: Sequence[Any]) -> list[Any]:
        try:
            return list(map(operator.attrgetter(name), values))
        except AttributeError:
            return [getattr(value, name, MISSING) for value in values]

    return Column(extract(column.kept), column, extract, lambda place: (place, f"{{}}.{name}"))


def items(column: Column, kind: type) -> Iterator[Column]:
    """Yield the items of containers of one class, as a column; of dicts the keys and the values."""
    within = flat(column.kept)

    def key(place: int) -> tuple[int, str]:
        return column.owner(place)[0], f"the key {shown(within[place])} of {{}}"

    def value(place: int) -> tuple[int, str]:
        return column.owner(place)[0], f"{{}}[{shown(within[place])}]"

    def member(place: int) -> tuple[int, str]:
        return column.owner(place)[0], f"{shown(within[place])} in {{}}"

    def item(place: int) -> tuple[int, str]:
        owner, index = column.owner(place)
        return owner, f"{{}}[{column.first + index}]"

    def same(values: Sequence[Any]) -> list[Any]:
        """Give what came back in sets, in the order of what was kept."""
        items = iter(within)
        found = ((dict(zip(one, one, strict=True)), size) for one, size in zip(values, column.sizes or (), strict=True))
        return [known.get(item, MISSING) for known, size in found for item in islice(items, size)]

    if issubclass(kind, dict):
        yield Column(within, column, flat, key)
        yield Column(values_of(column.kept), column, values_of, value)
    elif issubclass(kind, (set, frozenset)):
        yield Column(within, column, same, member)
    else:
        yield Column(within, column, flat, item)


def flat(values: Iterable[Any]) -> list[Any]:
    """Give all items of containers."""
    return list(chain.from_iterable(values))


def values_of(values: Iterable[dict[Any, Any]]) -> list[Any]:
    """Give all values of dicts."""
    return list(chain.from_iterable([value.values() for value in values]))


def check_declared(column: Column, kind: type, names: Sequence[str]) -> None:
    """Check that objects of one class have no other attributes than it declares.

    Raises:
        TypeError: one of them has.
    """
    if not hasattr(column.kept[0], "__dict__"):
        return
    for name in sorted(set[str]().union(*map(vars, column.kept)).difference(names, {PYTHONS})):
        if not isinstance(inspect.getattr_static(kind, name, None), functools.cached_property):
            place = next(place for place, kept in enumerate(column.kept) if name in vars(kept))
            raise TypeError(f"{column.label(place)}.{name} would be lost: it is no field of {kind.__name__}")


def fields_of(kind: type) -> Sequence[str] | None:
    """Give the names of the attributes that objects of a class are made of; None for what is no such class."""
    if issubclass(kind, Enum):
        return None
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if (attrs := getattr(kind, "__attrs_attrs__", None)) is not None:
        return [declared.name for declared in attrs]
    return None


def can_change(kind: type, names: Sequence[str] | None) -> bool:
    """Tell whether objects of a class can change; ``names`` are those of their attributes, if they have some."""
    if names is None:
        return issubclass(kind, CHANGING)
    if issubclass(kind, msgspec.Struct):
        return bool(names) and not kind.__struct_config__.frozen
    if (parameters := getattr(kind, "__dataclass_params__", None)) is not None:
        return bool(names) and not parameters.frozen
    return bool(names) and kind.__setattr__.__name__ != "_frozen_setattrs"  # As attrs calls it.


def check(column: Column, restored: Sequence[Any]) -> None:
    """Compare the values of a column with what they come back as, but for what is in them.

    Raises:
        TypeError: two of them are not alike.
    """
    kept, kinds = column.kept, column.kinds
    if len(kinds) > 1 or set(map(type, restored)) != kinds:
        for place, (one, other) in enumerate(zip(kept, restored, strict=True)):
            if type(one) is not type(other):
                raise TypeError(told(column, place, other))
    if column.sizes is not None:
        check_sizes(column, restored)
    elif kinds <= PLAIN:
        check_equal(column, kept, restored, restored)
    elif len(kinds) > 1:  # what is not plain has columns of its own.
        plain = [place for place, value in enumerate(kept) if type(value) in PLAIN]
        check(chosen(column, plain), [restored[place] for place in plain])
    elif fields_of(kind := next(iter(kinds))) is None:
        exact = EXACT.get(kind)
        if exact is None:
            check_equal(column, column.compared, restored, restored)
        else:
            check_equal(column, list(map(exact, kept)), list(map(exact, restored)), restored)


def check_sizes(column: Column, restored: Sequence[Any]) -> None:
    """Check that containers come back with as many items.

    Raises:
        TypeError: one of them does not.
    """
    sizes = list(map(len, restored))
    for place, (size, other) in enumerate(zip(column.sizes or (), sizes, strict=True) if sizes != column.sizes else ()):
        if size != other:
            raise TypeError(
                f"{column.label(place)} holds {size} items, and would come back with {other}: "
                "several of them are the same in MessagePack"
            )


def check_equal(column: Column, kept: Sequence[Any], restored: Sequence[Any], shown: Sequence[Any]) -> None:
    """Check that values of a column, or what tells them apart, are equal or both NaN.

    Raises:
        TypeError: two of them are not.
    """
    if kept != restored:
        for place, (one, other) in enumerate(zip(kept, restored, strict=True)):
            is_alike: bool = one == other or (one != one and other != other)  # NaN is not equal to itself.
            if not is_alike:
                raise TypeError(told(column, place, shown[place]))


def moment(value: Any) -> tuple[object, ...]:  # noqa: ANN401
    """Give all that tells moments apart: equal ones may show other clocks."""
    return value, value.fold, type(value.tzinfo), value.utcoffset(), value.tzname()


EXACT: dict[type, Callable[[Any], object]] = {datetime.datetime: moment, datetime.time: moment, Decimal: str}
"""What is to be equal of values of a class, where it is not they themselves."""


def told(column: Column, place: int, restored: object) -> str:
    """Say what a value would come back as, and what to do."""
    label, kept = column.label(place), column.kept[place]
    if restored is MISSING:
        return f"{label} would not be found there again: keep what equals itself in a set"
    if kept is MISSING:
        return f"{label} is not set, and would come back as {shown(restored)}: set it"
    if type(kept) is not type(restored):
        return (
            f"{label} is {named(kept)}, and would come back as {named(restored)}; "
            "make it one, annotate it otherwise, or override snapshot and restore"
        )
    text = f"{label} is {shown(kept)}, and would come back as {shown(restored)}"
    return f"{text}: keep it in datetime.UTC" if getattr(kept, "tzinfo", None) else text


def named(value: object) -> str:
    """Give the class of a value, with its article."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def shown(value: object) -> str:
    """Give the beginning of how Python shows a value."""
    return SHORT.repr(value)


SHORT = reprlib.Repr()
SHORT.maxother, SHORT.maxstring = 120, 40
