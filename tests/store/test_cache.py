"""The recent entries in memory: what is dropped is let go at once."""

from __future__ import annotations

import sys

from quorate.store.cache import Cache
from quorate.types import Index, Kind, Run, Term


def run_at(first: int, count: int) -> Run:
    payloads = tuple(b"%d" % (first + place) * 100 for place in range(count))
    return Run(Term(1), Index(first), Kind.COMMAND, 1.0, payloads)


def test_what_is_dropped_is_let_go_at_once_and_the_rest_is_still_there() -> None:
    runs = [run_at(first, 10) for first in range(1, 101, 10)]
    cache = Cache(bytes_max=2 * runs[-1].size)
    for run in runs:
        cache.append(run)
    before = [sys.getrefcount(run) for run in runs]
    cache.trim(Index(100))
    after = [sys.getrefcount(run) for run in runs]
    assert [was - now for was, now in zip(before, after, strict=True)] == [1] * 8 + [0] * 2
    assert cache.bytes == runs[-1].size + runs[-2].size
    assert cache.take(Index(80), Index(100), 10_000) is None
    assert cache.take(Index(81), Index(100), 100_000) == tuple(runs[-2:])
    cache.append(run_at(95, 3))
    assert [run.first for run in cache.take(Index(81), Index(100), 100_000) or ()] == [81, 91, 95]
