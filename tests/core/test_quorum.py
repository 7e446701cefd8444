from __future__ import annotations

from itertools import combinations

import pytest

from quorate.core.quorum import is_quorum, majority, reached_by_quorum


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
def test_reached_by_the_majority_of_one_group(bars, reached):
    assert reached_by_quorum([range(len(bars))], lambda voter: len(bars[voter])) == reached


def test_a_majority_of_one_group_agrees():
    agreed = [is_quorum([range(5)], lambda voter, votes=votes: voter < votes) for votes in range(6)]
    assert agreed == [False, False, False, True, True, True]


@pytest.mark.covers("pitfall 57")
def test_agreement_requires_separate_majorities_from_both_the_old_and_new_configurations():
    """Thesis 4.3: "Agreement (for elections and entry commitment) requires separate majorities from both the old and
    new configurations." Row 57: three of five of the union may be no majority of the old one.
    """
    groups = ["abc", "cde"]
    decided = {
        "".join(chosen)
        for size in range(6)
        for chosen in combinations("abcde", size)
        if is_quorum(groups, chosen.__contains__)
    }
    assert "cde" not in decided
    assert "abc" not in decided
    assert decided == {"acd", "ace", "bcd", "bce", "abcd", "abce", "abde", "acde", "bcde", "abcde"}
    bars = {"a": 9, "b": 9, "c": 5, "d": 2, "e": 1}
    assert reached_by_quorum(groups, bars.__getitem__) == 2
    assert reached_by_quorum(["abc"], bars.__getitem__) == 9
