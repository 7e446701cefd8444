"""Stale reads are judged too: what was read after an index is what all read there, and one peer never goes back."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import pytest

from quorate.testing import Simulation
from quorate.testing.profile import Profile
from quorate.types import Index, StaleRead


def first_failure(seeds: range) -> str:
    """Give the name of the invariant that the first failing seed violates, in worlds with many stale reads."""

    def failure(seed: int) -> str | None:
        drawn = Profile.draw_usual(Random(f"{seed} profile"))
        world = msgspec.structs.replace(drawn, span=1.5, clients=4, pause=0.05, stale_share=0.4)
        return Simulation(seed, profile=world).run().failure

    return next(filter(None, map(failure, seeds)), "nothing").partition(":")[0]


@pytest.mark.parametrize(
    ("lie", "invariant"),
    [(lambda index: index // 16 * 16, "Linearizable"), (lambda index: 10_000 - index, "StaleMonotonic")],
    ids=["an index that is too low", "indexes that fall"],
)
def test_a_stale_read_that_names_a_wrong_index_is_caught(
    lie: Callable[[int], int], invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(value: object, index: int, age: float) -> StaleRead[object]:
        return StaleRead(value, Index(lie(index)), age)

    monkeypatch.setattr("quorate.apply.StaleRead", tell)
    assert first_failure(range(40)) == invariant
