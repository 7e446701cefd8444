"""A value as a text that is the same in every process if the value is: what states and replies are compared by."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Set
from enum import Enum

import msgspec

PLAIN = (str, int, float, bool, bytes, type(None))


def canonical(value: object) -> str:
    """Write a value as such a text.

    The order of a ``set`` counts for nothing: equal ones may be in different orders, as after a snapshot. That of a
    ``dict`` counts, and so does the bound of a ``deque``. Of objects whose class is not known here the attributes
    count, if they have some, and else the class alone.
    """
    kind = type(value)
    if kind in PLAIN:
        return repr(value)
    name = kind.__name__
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{canonical(key)}: {canonical(item)}' for key, item in value.items())}}}"
    if isinstance(value, deque) and value.maxlen is not None:
        name = f"{name} of at most {value.maxlen} "
    if isinstance(value, (list, tuple, deque)):
        return f"{'' if kind is list else name}[{', '.join(map(canonical, value))}]"
    if isinstance(value, Set):
        return f"{name}({', '.join(sorted(map(canonical, value)))})"
    if isinstance(value, msgspec.Struct):
        return f"{name}{canonical(msgspec.structs.asdict(value))}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{name}{canonical({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})}"
    if isinstance(value, Enum) or kind.__repr__ is not object.__repr__:
        return repr(value)
    return f"{name}{canonical(vars(value)) if hasattr(value, '__dict__') else ''}"
