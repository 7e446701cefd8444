"""Why a history is not linearizable, for people: how far an order was found, and a drawing of the calls around there.

Knows calls and instants; how an order is searched for is in ``linearizability.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quorate.testing.history.operations import Operation, answer

BEFORE_MAX = 8
"""How many of the last calls of the order are shown."""
UNDER_WAY_MAX = 12
"""How many of the calls under way are drawn."""
ANSWERS_MAX = 3
"""How many other answers are shown."""
COLUMNS_MAX = 60
"""How wide a drawing is."""

OrderedCalls = tuple[Any, int] | None
"""Calls in the order in which they take effect, by place in their history: those before the last one, and the last."""


@dataclass(slots=True)
class Obstacle:
    """What no order gets past.

    Attributes:
        order: the order that leads there.
        operation: the call, by place in its history, that returns there and cannot have taken effect.
        under_way: the other calls of known fate that are under way there, itself perhaps among them.
        answers: what the machine answers it there on the ways that were tried, by number.
    """

    order: OrderedCalls = None
    operation: int = 0
    under_way: tuple[int, ...] = ()
    answers: dict[int, object] = field(default_factory=dict)


def show(obstacle: Obstacle, operations: Sequence[Operation]) -> str:
    """Describe an obstacle: a drawing of the calls around it, the order up to it, and what the machine says there."""
    order = unrolled(obstacle.order)
    blocked = operations[obstacle.operation]
    kept = order[-BEFORE_MAX:]
    others = [number for number in obstacle.under_way if number != obstacle.operation and number not in order]
    drawn = sorted({*kept, *others[:UNDER_WAY_MAX], obstacle.operation}, key=lambda number: operations[number].called)
    lines = draw([operations[number] for number in drawn], blocked)
    lines.append(
        f"an order for {len(order)} of {len(operations)} calls, which ends with:" if order else "no order begins:"
    )
    lines += [f"  client {operations[number].client}  {operations[number]}" for number in kept]
    told = [answer(value) for value in obstacle.answers.values()]
    more = ", …" if len(told) > ANSWERS_MAX else ""
    lines.append(
        f"then client {blocked.client}  {blocked} does not fit: {' or '.join(told[:ANSWERS_MAX])}{more} is right"
    )
    return "\n".join(lines)


def unrolled(order: OrderedCalls) -> list[int]:
    """Give the calls of an order, the first one first."""
    numbers: list[int] = []
    while order is not None:
        order, number = order
        numbers.append(number)
    return numbers[::-1]


def draw(operations: Sequence[Operation], blocked: Operation) -> list[str]:
    """Draw a line for each call: from its beginning to its return, instants in order but not to scale.

    Args:
        operations: the calls, by the instant at which they began.
        blocked: the one to point at.
    """
    instants = {instant for operation in operations for instant in (operation.called, operation.returned)}
    ordered = sorted(instant for instant in instants if instant is not None)
    step = max(1, min(4, COLUMNS_MAX // len(ordered)))
    columns = {instant: place * step for place, instant in enumerate(ordered)}
    end = len(ordered) * step
    labels = [f"client {operation.client}  {operation}" for operation in operations]
    width = max(map(len, labels))
    lines: list[str] = []
    for label, operation in zip(labels, operations, strict=True):
        begin = columns[operation.called]
        last = end if operation.returned is None else columns[operation.returned]
        bar = "|" + "-" * (last - begin - 1) + ("?" if operation.returned is None else "|" if last > begin else "")
        mark = "  <- does not fit" if operation is blocked else ""
        lines.append(f"  {label:{width}}  {' ' * begin}{bar}{mark}")
    return lines
