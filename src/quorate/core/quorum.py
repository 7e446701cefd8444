"""Majorities: pure functions over what each voter has said (Raft §5.2, §5.4.2; thesis 4.3).

Knows nothing of terms, logs or messages. Quorums are given as groups of voters, each of which must agree by a majority
of its own: one group as a rule, two while a joint configuration is in force.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorate.types import PeerId

Voters = Sequence[Sequence[PeerId]]
"""The groups of voters whose majorities must all agree. Invariant: one group at least, and none empty."""


def majority(voters: int) -> int:
    """Give the size of the smallest sets of that many voters of which any two share one. ``voters`` is 1 or more."""
    return voters // 2 + 1


def reached_by_quorum(groups: Voters, reached: Callable[[PeerId], float]) -> float:
    """Give the highest value that a majority of each group has reached."""
    # "Agreement (for elections and entry commitment) requires separate majorities from both the old and new
    # configurations" (thesis 4.3)
    return min(sorted(map(reached, group), reverse=True)[len(group) // 2] for group in groups)


def is_quorum(groups: Voters, agrees: Callable[[PeerId], bool]) -> bool:
    """Tell whether the voters that agree decide: a majority of each group."""
    return all(sum(map(agrees, group)) >= majority(len(group)) for group in groups)
