"""Leaves out what is not needed: delta debugging (Zeller 2002), for anything that can be tried again without a part.

Knows neither runs nor peers, and bounds itself by the number of attempts and by a deadline that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
PAIRS_MAX = 60
"""Up to so many items are also left out by twos: some are needed only for one another."""


class Budget:
    """How much may still be tried.

    Attributes:
        attempts: how much was tried.
    """

    def __init__(self, is_over: Callable[[], bool], attempts_max: int, whole: Budget | None = None) -> None:
        """Allow so many attempts, until ``is_over`` says that time is up; they count for the ``whole`` as well."""
        self.attempts: int = 0
        self._is_over = is_over
        self._attempts_max = attempts_max
        self._whole = whole

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be tried."""
        return self.attempts >= self._attempts_max or self._is_over()

    def spend(self) -> None:
        """Count an attempt."""
        self.attempts += 1
        if self._whole is not None:
            self._whole.spend()

    def part(self, attempts_max: int) -> Budget:
        """Give a part of it, of so many attempts; what is spent of it is spent here."""
        return Budget(lambda: self.is_spent, attempts_max, self)


def minimized(items: Sequence[T], attempt: Callable[[Sequence[T]], Sequence[T] | None], budget: Budget) -> list[T]:
    """Leave out as many items as can be: all but the last few, halves, ever smaller parts, one by one, and by twos.

    Args:
        items: all of them.
        attempt: tries some of the items; gives those that mattered if it still fails the same way, None if not.
        budget: how much may be tried.

    Returns:
        Items none of which can be left out, as far as the budget went.
    """
    kept = last_alone(list(items), attempt, budget)
    size = max(len(kept) // 2, 1)
    while True:
        before = len(kept)
        kept = without_parts(kept, size, attempt, budget)
        if budget.is_spent:
            return kept
        if size > 1:
            size = min(size // 2, max(len(kept) // 2, 1))
        elif len(kept) == before:
            smaller = without_a_pair(kept, attempt, budget)
            if smaller is None:
                return kept
            kept = smaller


def last_alone(kept: list[T], attempt: Callable[[Sequence[T]], Sequence[T] | None], budget: Budget) -> list[T]:
    """Leave out all but the last items, if some of those suffice: few are tried soon."""
    count = 16
    while count < len(kept) and not budget.is_spent:
        budget.spend()
        smaller = attempt(kept[-count:])
        if smaller is not None:
            return list(smaller)
        count *= 2
    return kept


def without_parts(
    kept: list[T], size: int, attempt: Callable[[Sequence[T]], Sequence[T] | None], budget: Budget
) -> list[T]:
    """Leave out each part of a size that is not needed, from the end on: what came late is seldom needed as a whole."""
    end = len(kept)
    while end > 0 and not budget.is_spent:
        start = max(end - size, 0)
        budget.spend()
        smaller = attempt(kept[:start] + kept[end:])
        if smaller is not None:
            kept = list(smaller)
        end = min(start, len(kept))
    return kept


def without_a_pair(
    kept: list[T], attempt: Callable[[Sequence[T]], Sequence[T] | None], budget: Budget
) -> list[T] | None:
    """Leave out two items that are needed for one another alone; None if there are none."""
    if len(kept) > PAIRS_MAX:
        return None
    for second in range(len(kept) - 1, 0, -1):
        for first in range(second - 1, -1, -1):
            if budget.is_spent:
                return None
            budget.spend()
            smaller = attempt([item for place, item in enumerate(kept) if place not in (first, second)])
            if smaller is not None:
                return list(smaller)
    return None
