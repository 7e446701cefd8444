"""What a machine computes once and keeps: each ``cached_property``, which is no state and in no snapshot.

A restored machine computes it anew, so it must be what it would then be. Knows nothing of attributes, values and
snapshots.
"""

from __future__ import annotations

import functools
import inspect

QUORATES = ("context", "effects")
"""The ones of ``StateMachine`` itself, which come from the group and not from the state."""


def is_computed(machine: type, name: str) -> bool:
    """Tell whether an attribute is not state: a ``cached_property``, as ``context`` is."""
    return isinstance(inspect.getattr_static(machine, name, None), functools.cached_property)


def check_computed(machine: object) -> None:
    """Check that what a machine has computed is what it would compute now; it keeps what it has.

    Raises:
        TypeError: something is not; the message says what to write.
    """
    attributes = vars(machine)
    names = [name for name in attributes if name not in QUORATES and is_computed(type(machine), name)]
    if not names:
        return
    kept = dict(attributes)
    try:
        for name in names:
            del attributes[name]
        anew = {name: getattr(machine, name) for name in names}
    finally:
        attributes.clear()
        attributes.update(kept)
    for name in names:
        if not is_alike(kept[name], anew[name]):
            raise TypeError(
                f"{type(machine).__name__}.{name} is kept from earlier, and would be computed anew, as something else: "
                "make it a property, or annotate what it keeps at class level"
            )


def is_alike(one: object, other: object) -> bool:
    """Tell whether two values are equal; of such as only equal themselves the attributes count, if they have some."""
    if type(one) is not type(other) or type(one).__eq__ is not object.__eq__:
        return bool(one == other)
    return not hasattr(one, "__dict__") or vars(one) == vars(other)
