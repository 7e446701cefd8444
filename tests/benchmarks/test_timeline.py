"""The timeline of a write finds its way among what three processes noted."""

from __future__ import annotations

import math

import pytest

from benchmarks.timeline import AGAIN, BESIDE, CALL, PATH, Mark, Noted, medians


def marks_of_a_write(begin: float, place: str, late: float = 0.0) -> list[Mark]:
    """Give what one process notes of a write: its steps are a thousandth of a second apart, and ``late`` more."""
    path = [(CALL, "leader"), *((mark, whose) for _, whose, mark in PATH)]
    found = [(begin + number / 1000 + late, mark) for number, (mark, whose) in enumerate(path) if whose == place]
    if place == "leader":
        found += [(begin + 0.002, "Disk.write begins")]
        found += [(begin + 0.0025 + number / 1000, mark) for number, (_, _, mark) in enumerate(BESIDE)]
    return found


def test_the_way_is_that_of_the_follower_that_is_done_first():
    leader = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "leader")]
    slow = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "follower", 0.05)]
    quick = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "follower")]
    found = medians(Noted.of(leader), [Noted.of(slow), Noted.of(quick)])
    expected = [1000.0 * number for number in range(1, len(PATH) + 1)]
    assert [found[text] for text, _, _ in PATH] == pytest.approx(expected)
    assert found[AGAIN] == pytest.approx(100_000.0)
    assert [found[text] for text, _, _ in BESIDE] == pytest.approx([2500.0, 3500.0])


def test_what_the_slower_follower_did_for_the_write_before_is_not_taken_for_this_one():
    leader = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "leader")]
    behind = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "follower", 0.0955)]
    quick = [mark for write in range(4) for mark in marks_of_a_write(write / 10, "follower")]
    found = medians(Noted.of(leader), [Noted.of(behind), Noted.of(quick)])
    assert found[PATH[1][0]] == pytest.approx(2000.0)
    assert found[PATH[6][0]] == pytest.approx(7000.0)


def test_a_write_that_was_not_seen_whole_is_no_measurement():
    leader = Noted.of(marks_of_a_write(0.0, "leader") + marks_of_a_write(0.1, "leader"))
    assert leader.first("Apply.apply ends", 1.0) == math.inf
    with pytest.raises(RuntimeError, match="no write"):
        medians(leader, [Noted.of([])])
