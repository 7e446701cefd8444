"""Stale reads are judged too: what was read after an index is what all read there, and one peer never goes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.testing import Simulation
from quorate.types import Index, StaleRead


def first_failure(seeds: range) -> str:
    """Give the name of the invariant that the first failing seed violates."""
    reports = (Simulation(seed).run() for seed in seeds)
    failure = next((report.failure for report in reports if report.failure is not None), "nothing")
    return failure.partition(":")[0]


@pytest.mark.parametrize(
    ("lie", "invariant", "seeds"),
    [
        (lambda index: index // 16 * 16, "Linearizable", range(30, 100)),
        (lambda index: 10_000 - index, "StaleMonotonic", range(30, 80)),
    ],
    ids=["an index that is too low", "indexes that fall"],
)
def test_a_stale_read_that_names_a_wrong_index_is_caught(
    lie: Callable[[int], int], invariant: str, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(value: object, index: int, age: float) -> StaleRead[object]:
        return StaleRead(value, Index(lie(index)), age)

    monkeypatch.setattr("quorate.apply.StaleRead", tell)
    assert first_failure(seeds) == invariant
