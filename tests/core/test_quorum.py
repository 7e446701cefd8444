from __future__ import annotations

from itertools import combinations

import pytest

from quorate.core.quorum import has_majority, majority, reached_by_majority


@pytest.mark.parametrize(("voters", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_majority_is_the_smallest_size_of_which_any_two_sets_share_a_voter(voters, size):
    assert majority(voters) == size
    sets = [set(chosen) for chosen in combinations(range(voters), size)]
    assert all(one & other for one in sets for other in sets)
    smaller = [set(chosen) for chosen in combinations(range(voters), size - 1)]
    assert any(not one & other for one in smaller for other in smaller)


# Each voter as a bar, and how far a majority has come.
@pytest.mark.parametrize(
    ("bars", "reached"),
    [
        (["==="], 3),
        (["=====", "="], 1),
        (["=====", "==", ""], 2),
        (["", "====", "===="], 4),
        (["=====", "====", "===", "=="], 3),
        (["=====", "====", "===", "==", "="], 3),
    ],
)
def test_reached_by_majority(bars, reached):
    assert reached_by_majority([len(bar) for bar in bars]) == reached


def test_has_majority():
    assert [has_majority(votes, 5) for votes in range(6)] == [False, False, False, True, True, True]
