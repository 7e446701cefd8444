"""Stale reads are judged too: what was read after an index is what all read there, and one peer never goes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.types import Index, StaleRead

from .searching import first_failure, invariant_of, usual_world


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
    world_of = usual_world(span=1.5, clients=4, pause=0.05, stale_share=0.4)
    assert invariant_of(first_failure(range(40), world_of=world_of)) == invariant
