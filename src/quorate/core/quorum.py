"""Majorities: pure functions over what each voter has said (Raft §5.2, §5.4.2).

Knows nothing of terms, logs or messages: a voter is one value in a list.
"""

from __future__ import annotations

from collections.abc import Sequence


def majority(voters: int) -> int:
    """Give the size of the smallest sets of that many voters of which any two share one. ``voters`` is 1 or more."""
    return voters // 2 + 1


def reached_by_majority(values: Sequence[float]) -> float:
    """Give the highest value that a majority of the voters has reached: one value for each voter, one at least."""
    return sorted(values, reverse=True)[majority(len(values)) - 1]


def has_majority(votes: int, voters: int) -> bool:
    """Tell whether that many votes of that many voters decide."""
    return votes >= majority(voters)
