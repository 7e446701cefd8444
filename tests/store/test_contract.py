"""What every store must do: the contract of ``LogStore``, run against each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorate.store import Batch, LogStore
from quorate.store.memory import MemoryStore
from quorate.store.rocksdb import RocksDBStore
from quorate.types import HardState, Index, Kind, PeerId, Run, Stored, Term

ALL = 1 << 30


def run(term: int, first: int, *payloads: bytes, kind: Kind = Kind.COMMAND, time: float = 1.0) -> Run:
    return Run(Term(term), Index(first), kind, time, payloads)


def numbered(term: int, first: int, last: int) -> Run:
    return run(term, first, *(b"%d" % index for index in range(first, last + 1)))


def append(store: LogStore, log: str, *runs: Run, hard_state: HardState | None = None) -> None:
    store.append([Batch(log, hard_state, runs)])


def entries(
    store: LogStore, log: str, first: int = 1, last: int = ALL, bytes_max: int = ALL
) -> list[tuple[int, int, bytes]]:
    """Give (index, term, payload) of each entry read."""
    runs = store.read(log, Index(first), Index(last), bytes_max)
    return [(run.first + at, run.term, payload) for run in runs for at, payload in enumerate(run.payloads)]


def expected(*runs: Run) -> list[tuple[int, int, bytes]]:
    return [(run.first + at, run.term, payload) for run in runs for at, payload in enumerate(run.payloads)]


@dataclasses.dataclass
class Restartable:
    """A store, and how it is stopped and started again."""

    store: LogStore
    open: Callable[[], LogStore]

    def restart(self) -> LogStore:
        self.store.close()
        self.store = self.open()
        return self.store


@pytest.fixture(params=["memory", "rocksdb"])
def restartable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restartable]:
    if request.param == "memory":
        memory = MemoryStore()
        kept = Restartable(memory, lambda: memory)
    else:
        kept = Restartable(RocksDBStore.open(tmp_path / "store"), lambda: RocksDBStore.open(tmp_path / "store"))
    yield kept
    kept.store.close()


@pytest.fixture
def store(restartable: Restartable) -> LogStore:
    return restartable.store


def test_an_unknown_log_is_empty(store):
    assert store.load("peer1") == Stored()
    assert store.read("peer1", Index(1), Index(10), ALL) == ()


def test_what_was_appended_is_read_at_once(store):
    first, second = numbered(1, 1, 3), numbered(1, 4, 4)
    append(store, "peer1", first)
    append(store, "peer1", second)
    assert store.read("peer1", Index(1), Index(4), ALL) == (first, second)


def test_a_restart_gives_back_all_that_the_core_needs(restartable):
    noop = run(1, 1, b"", kind=Kind.NOOP, time=1.5)
    configuration = run(1, 2, b"first configuration", kind=Kind.CONFIGURATION, time=2.5)
    commands = run(1, 3, b"a", b"b", time=3.5)
    later = run(4, 5, b"c", time=4.5)
    vote = HardState(Term(4), PeerId("id-2"))
    append(restartable.store, "peer1", noop, configuration, hard_state=HardState(Term(1), None))
    append(restartable.store, "peer1", commands, later, hard_state=vote)
    restartable.store.sync()
    visited: list[Run] = []
    stored = restartable.restart().load("peer1", visited.append)
    assert stored == Stored(
        vote, ((Index(1), Term(1)), (Index(5), Term(4))), Index(5), ((Index(2), b"first configuration"),), 4.5
    )
    assert visited == [noop, configuration, commands, later]


def test_a_vote_without_entries_is_kept(restartable):
    append(restartable.store, "peer1", hard_state=HardState(Term(7), PeerId("id-1")))
    restartable.store.sync()
    assert restartable.restart().load("peer1") == Stored(HardState(Term(7), PeerId("id-1")))


def test_the_last_hard_state_counts(store):
    append(store, "peer1", hard_state=HardState(Term(1), PeerId("id-1")))
    append(store, "peer1", hard_state=HardState(Term(2), None))
    assert store.load("peer1").hard_state == HardState(Term(2), None)


@pytest.mark.parametrize("cut", range(1, 11))
def test_truncation_at_any_entry_keeps_what_is_before_and_nothing_after(restartable, cut):
    before = [numbered(1, 1, 3), numbered(1, 4, 4), numbered(2, 5, 9)]
    append(restartable.store, "peer1", *before)
    append(restartable.store, "peer1", numbered(3, cut, cut + 1))
    kept = [entry for entry in expected(*before) if entry[0] < cut]
    assert entries(restartable.store, "peer1") == kept + expected(numbered(3, cut, cut + 1))
    restartable.store.sync()
    stored = restartable.restart().load("peer1")
    assert (stored.last, stored.terms[-1]) == (cut + 1, (cut, 3))
    assert entries(restartable.store, "peer1") == kept + expected(numbered(3, cut, cut + 1))


def test_an_overwritten_tail_does_not_come_back_when_the_log_grows_over_it(restartable):
    append(restartable.store, "peer1", numbered(1, 1, 2), numbered(1, 3, 6), numbered(1, 7, 9))
    append(restartable.store, "peer1", numbered(2, 2, 2))
    append(restartable.store, "peer1", numbered(2, 3, 3), numbered(2, 4, 8))
    restartable.store.sync()
    assert restartable.restart().load("peer1").last == 8
    assert entries(restartable.store, "peer1") == expected(numbered(1, 1, 1), numbered(2, 2, 8))


def test_batches_of_one_append_take_effect_in_order_even_when_they_truncate_one_another(restartable):
    restartable.store.append(
        [
            Batch("a", HardState(Term(1)), (numbered(1, 1, 5),)),
            Batch("b", None, (numbered(1, 1, 2),)),
            Batch("a", HardState(Term(2)), (numbered(2, 3, 4),)),
            Batch("a", None, (numbered(2, 5, 5),)),
            Batch("b", HardState(Term(3)), (numbered(3, 1, 1),)),
            Batch("a", HardState(Term(3)), (numbered(3, 5, 6),)),
        ]
    )
    restartable.store.sync()
    store = restartable.restart()
    assert (store.load("a").hard_state.term, store.load("b").hard_state.term) == (3, 3)
    assert entries(store, "a") == expected(numbered(1, 1, 2), numbered(2, 3, 4), numbered(3, 5, 6))
    assert entries(store, "b") == expected(numbered(3, 1, 1))


def test_logs_whose_names_begin_alike_do_not_mix(restartable):
    names = ["a", "a.b", "a-b", "a_b", "ab", "A", "peer1", "peer10", "peer1.", "peer1-0", "0", "x" * 128]
    for number, name in enumerate(names, 1):
        append(restartable.store, name, numbered(number, 1, number), hard_state=HardState(Term(number)))
    append(restartable.store, "peer1", numbered(50, 2, 2), hard_state=HardState(Term(50)))
    restartable.store.sync()
    store = restartable.restart()
    for number, name in enumerate(names, 1):
        if name != "peer1":
            assert store.load(name).hard_state.term == number
            assert entries(store, name) == expected(numbered(number, 1, number))
    assert entries(store, "peer1") == expected(numbered(7, 1, 1), numbered(50, 2, 2))


@pytest.mark.parametrize("name", ["", "a\0b", ".a", "a/b", "é", "x" * 129])
def test_a_name_that_no_peer_may_have_is_refused(store, name):
    with pytest.raises(ValueError):
        append(store, name, numbered(1, 1, 1))
    with pytest.raises(ValueError):
        store.load(name)


def test_any_range_can_be_read(store):
    runs = [numbered(1, 1, 3), numbered(1, 4, 4), numbered(2, 5, 9)]
    append(store, "peer1", *runs)
    for first in range(1, 12):
        for last in range(1, 12):
            assert entries(store, "peer1", first, last) == [
                entry for entry in expected(*runs) if first <= entry[0] <= last
            ]


@pytest.mark.parametrize(
    ("bytes_max", "count"),
    [(0, 1), (1, 1), (116, 1), (231, 1), (232, 2), (347, 2), (348, 3), (464, 4), (579, 4), (580, 5), (ALL, 6)],
)
def test_a_read_stops_at_about_the_bytes_asked_for_but_gives_one_entry_at_least(store, bytes_max, count):
    runs = [run(1, 1, *[b"x" * 100] * 3), run(1, 4, b"x" * 100), run(1, 5, *[b"x" * 100] * 2)]
    append(store, "peer1", *runs)
    assert entries(store, "peer1", bytes_max=bytes_max) == expected(*runs)[:count]
    assert entries(store, "peer1", first=2, bytes_max=bytes_max) == expected(*runs)[1 : count + 1]


def test_a_large_entry_is_read_alone_and_ends_a_read_before_it(store):
    append(store, "peer1", run(1, 1, b"small", b"L" * 5000, b"small"))
    assert [len(payload) for _, _, payload in entries(store, "peer1", 1, bytes_max=1000)] == [5]
    assert [len(payload) for _, _, payload in entries(store, "peer1", 2, bytes_max=1000)] == [5000]


@pytest.mark.parametrize(
    "runs",
    [
        (numbered(1, 5, 6),),
        (numbered(1, 0, 1),),
        (numbered(1, 4, 4), numbered(1, 6, 6)),
        (numbered(1, 4, 5), numbered(1, 5, 5)),
        (run(1, 4),),
    ],
    ids=["gap", "before the first", "gap between", "overlap", "no entry"],
)
def test_a_batch_that_does_not_fit_is_refused_whole(store, runs):
    append(store, "peer1", numbered(1, 1, 3), hard_state=HardState(Term(1)))
    with pytest.raises(ValueError):
        append(store, "peer1", *runs, hard_state=HardState(Term(2)))
    assert entries(store, "peer1") == expected(numbered(1, 1, 3))
    assert store.load("peer1").hard_state == HardState(Term(1))
    append(store, "peer1", numbered(1, 4, 4))
    assert store.load("peer1").last == 4


def test_closing_twice_is_closing_once(store):
    store.close()
    store.close()
