"""What every store must do: the contract of ``LogStore`` as plain functions, for whoever writes one.

A case is called with what opens a store, and with a directory for it that is not there yet, but its parent is. It
raises ``AssertionError`` where the contract does not hold. In one's own tests::

    import pytest
    from my_store import MyStore
    from quorate.testing import conformance

    @pytest.mark.parametrize("case", [*conformance.CASES, *conformance.DURABLE_CASES])
    def test_my_store(case, tmp_path):
        case(MyStore.open, tmp_path / "store")

or, without pytest, ``conformance.check(MyStore.open)``. ``DURABLE_CASES`` are for stores that outlive their process,
and open them in others too: what opens must be found in a module, under its name. A line in ``conftest.py``,
``pytest.register_assert_rewrite("quorate.testing.conformance")``, lets pytest show values that differ.

Knows stores by their contract alone.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from quorate.store import Batch, LogStore
from quorate.testing.durability import DURABLE_CASES, torn_tails_are_repaired_by_dropping_whole_batches
from quorate.testing.logs import (
    ALL,
    OpenStore,
    append,
    entries_of,
    expect_refusal,
    make_compaction,
    make_run,
    numbered,
    read_entries,
)
from quorate.testing.model import LogModel, random_batches
from quorate.types import Compaction, HardState, Index, Kind, PeerId, Run, Stored, Term

__all__ = ["CASES", "DURABLE_CASES", "check", "torn_tails_are_repaired_by_dropping_whole_batches"]


def check(open_store: OpenStore, *, durable: bool = True, tail: str | None = None) -> None:
    """Run all cases, each in a temporary directory of its own.

    Args:
        open_store: opens the store that lives in a directory: an empty one at first, and after a ``close`` again with
            all that it held.
        durable: whether the store outlives its process.
        tail: for ``torn_tails_are_repaired_by_dropping_whole_batches``; None when the store has no such file.

    Raises:
        AssertionError: a case shows that the contract does not hold.
    """
    with tempfile.TemporaryDirectory(prefix="quorate-conformance-") as directory:
        for case in (*CASES, *(DURABLE_CASES if durable else ())):
            case(open_store, Path(directory) / case.__name__)
        if tail is not None:
            torn_tails_are_repaired_by_dropping_whole_batches(open_store, Path(directory) / "tail", tail)


def an_unknown_log_is_empty(open_store: OpenStore, directory: Path) -> None:
    """Nothing was written, and nothing is read."""
    with closing(open_store(directory)) as store:
        assert store.load("peer1") == Stored()
        assert store.read("peer1", Index(1), Index(10), ALL) == ()


def what_was_appended_is_read_at_once(open_store: OpenStore, directory: Path) -> None:
    """Before any sync."""
    first, second = numbered(1, 1, 3), numbered(1, 4, 4)
    with closing(open_store(directory)) as store:
        append(store, "peer1", first)
        append(store, "peer1", second)
        assert read_entries(store, "peer1") == entries_of(first, second)


def a_restart_gives_back_all_that_the_core_needs(open_store: OpenStore, directory: Path) -> None:
    """Term and vote, terms, configurations, the last time; and ``visit`` sees each run in order."""
    noop = make_run(1, 1, b"", kind=Kind.NOOP, time=1.5)
    configuration = make_run(1, 2, b"first configuration", kind=Kind.CONFIGURATION, time=2.5)
    commands, later = make_run(1, 3, b"a", b"b", time=3.5), make_run(4, 5, b"c", time=4.5)
    vote = HardState(Term(4), PeerId("id-2"))
    with closing(open_store(directory)) as store:
        append(store, "peer1", noop, configuration, hard_state=HardState(Term(1), None))
        append(store, "peer1", commands, later, hard_state=vote)
        store.sync()
    visited: list[Run] = []
    with closing(open_store(directory)) as store:
        stored = store.load("peer1", visited.append)
    terms = ((Index(1), Term(1)), (Index(5), Term(4)))
    assert stored == Stored(vote, terms, Index(5), ((Index(2), b"first configuration"),), 4.5)
    assert [(run.kind, run.time) for run in visited for _ in run.payloads] == [
        (Kind.NOOP, 1.5),
        (Kind.CONFIGURATION, 2.5),
        (Kind.COMMAND, 3.5),
        (Kind.COMMAND, 3.5),
        (Kind.COMMAND, 4.5),
    ]
    assert entries_of(*visited) == entries_of(noop, configuration, commands, later)


def the_first_bare_entry_is_found_after_a_restart(open_store: OpenStore, directory: Path) -> None:
    """Whatever stands behind it, and what is held of it when a part was compacted or truncated: a witness stays one."""
    runs = [numbered(1, 1, 2), make_run(1, 3, b"", b"", kind=Kind.BARE), numbered(1, 5, 5)]
    runs += [make_run(2, 6, b"", b"", kind=Kind.BARE)]
    compactions = {2: 3, 3: 4, 4: 6, 5: 6, 6: 7, 7: 0}
    with closing(open_store(directory)) as store:
        for start in compactions:
            append(store, f"log{start}", *runs)
            append(store, f"log{start}", compaction=make_compaction(1 if start < 6 else 2, 7, start))
        append(store, "whole", *runs)
        append(store, "cut", *runs)
        append(store, "cut", numbered(3, 3, 4))
        assert [store.load(log).bare for log in ("whole", "cut")] == [3, 0]
        store.sync()
    with closing(open_store(directory)) as store:
        assert [store.load(log).bare for log in ("whole", "cut")] == [3, 0]
        for start, bare in compactions.items():
            assert store.load(f"log{start}").bare == bare, f"begun behind {start}"


def a_vote_without_entries_is_kept(open_store: OpenStore, directory: Path) -> None:
    """A peer votes before it has a log."""
    vote = HardState(Term(7), PeerId("id-1"))
    with closing(open_store(directory)) as store:
        append(store, "peer1", hard_state=vote)
        store.sync()
    with closing(open_store(directory)) as store:
        assert store.load("peer1") == Stored(vote)


def the_last_hard_state_counts(open_store: OpenStore, directory: Path) -> None:
    """A vote of an older term is gone with its term; a batch without a hard state leaves it as it was."""
    with closing(open_store(directory)) as store:
        append(store, "peer1", hard_state=HardState(Term(1), PeerId("id-1")))
        append(store, "peer1", hard_state=HardState(Term(2), None))
        append(store, "peer1", numbered(2, 1, 1))
        assert store.load("peer1").hard_state == HardState(Term(2), None)


def truncation_at_any_entry_keeps_what_is_before_and_nothing_after(open_store: OpenStore, directory: Path) -> None:
    """Between two runs and in the middle of one alike, at once and after a restart."""
    before = [numbered(1, 1, 3), numbered(1, 4, 4), numbered(2, 5, 9)]
    cuts = range(1, 11)

    def expected(cut: int) -> list[tuple[int, int, bytes]]:
        return [entry for entry in entries_of(*before) if entry[0] < cut] + entries_of(numbered(3, cut, cut + 1))

    with closing(open_store(directory)) as store:
        for cut in cuts:
            append(store, f"cut{cut}", *before)
            append(store, f"cut{cut}", numbered(3, cut, cut + 1))
            assert read_entries(store, f"cut{cut}") == expected(cut)
        store.sync()
    with closing(open_store(directory)) as store:
        for cut in cuts:
            stored = store.load(f"cut{cut}")
            assert (stored.last, stored.terms[-1]) == (cut + 1, (cut, 3))
            assert read_entries(store, f"cut{cut}") == expected(cut)


def an_overwritten_tail_does_not_come_back_when_the_log_grows_over_it(open_store: OpenStore, directory: Path) -> None:
    """Nor does any part of it."""
    with closing(open_store(directory)) as store:
        append(store, "peer1", numbered(1, 1, 2), numbered(1, 3, 6), numbered(1, 7, 9))
        append(store, "peer1", numbered(2, 2, 2))
        append(store, "peer1", numbered(2, 3, 3), numbered(2, 4, 8))
        store.sync()
    with closing(open_store(directory)) as store:
        assert store.load("peer1").last == 8
        assert read_entries(store, "peer1") == entries_of(numbered(1, 1, 1), numbered(2, 2, 8))


def batches_of_one_append_take_effect_in_order(open_store: OpenStore, directory: Path) -> None:
    """Even when they truncate one another."""
    with closing(open_store(directory)) as store:
        store.append(
            [
                Batch("a", HardState(Term(1)), (numbered(1, 1, 5),)),
                Batch("b", None, (numbered(1, 1, 2),)),
                Batch("a", HardState(Term(2)), (numbered(2, 3, 4),)),
                Batch("a", None, (numbered(2, 5, 5),)),
                Batch("b", HardState(Term(3)), (numbered(3, 1, 1),)),
                Batch("a", HardState(Term(3)), (numbered(3, 5, 6),)),
            ]
        )
        store.sync()
    with closing(open_store(directory)) as store:
        assert (store.load("a").hard_state.term, store.load("b").hard_state.term) == (3, 3)
        assert read_entries(store, "a") == entries_of(numbered(1, 1, 2), numbered(2, 3, 4), numbered(3, 5, 6))
        assert read_entries(store, "b") == entries_of(numbered(3, 1, 1))


def logs_whose_names_begin_alike_do_not_mix(open_store: OpenStore, directory: Path) -> None:
    """Many logs in one store: each has its own entries, term and truncations."""
    names = ["a", "a.b", "a-b", "a_b", "ab", "A", "peer1", "peer10", "peer1.", "peer1-0", "0", "x" * 128]
    with closing(open_store(directory)) as store:
        for number, name in enumerate(names, 1):
            append(store, name, numbered(number, 1, number), hard_state=HardState(Term(number)))
        append(store, "peer1", numbered(50, 2, 2), hard_state=HardState(Term(50)))
        store.sync()
    with closing(open_store(directory)) as store:
        for number, name in enumerate(names, 1):
            whole = (number, entries_of(numbered(number, 1, number)))
            cut = (50, entries_of(numbered(number, 1, 1), numbered(50, 2, 2)))
            term = store.load(name).hard_state.term
            assert (term, read_entries(store, name)) == (cut if name == "peer1" else whole)


def a_name_that_no_peer_may_have_is_refused(open_store: OpenStore, directory: Path) -> None:
    """It could run into the keys or files of another log."""
    with closing(open_store(directory)) as store:
        for name in ("", "a\0b", ".a", "a/b", "é", "x" * 129):
            expect_refusal(ValueError, append, store, name, numbered(1, 1, 1))
            expect_refusal(ValueError, store.load, name)


def any_range_can_be_read(open_store: OpenStore, directory: Path) -> None:
    """From and to the middle of a run, and beyond the end."""
    runs = [numbered(1, 1, 3), numbered(1, 4, 4), numbered(2, 5, 9)]
    with closing(open_store(directory)) as store:
        append(store, "peer1", *runs)
        for first in range(1, 12):
            for last in range(1, 12):
                expected = [entry for entry in entries_of(*runs) if first <= entry[0] <= last]
                assert read_entries(store, "peer1", first, last) == expected, f"entries {first} to {last}"


def a_read_gives_about_the_bytes_asked_for_but_one_entry_at_least(open_store: OpenStore, directory: Path) -> None:
    """Counted as ``Run.size`` does: 116 for each entry here."""
    runs = [make_run(1, 1, *[b"x" * 100] * 3), make_run(1, 4, b"x" * 100), make_run(1, 5, *[b"x" * 100] * 2)]
    counts = {0: 1, 1: 1, 116: 1, 231: 1, 232: 2, 347: 2, 348: 3, 464: 4, 579: 4, 580: 5, ALL: 6}
    with closing(open_store(directory)) as store:
        append(store, "peer1", *runs)
        for bytes_max, count in counts.items():
            for skipped in (0, 1):
                seen = read_entries(store, "peer1", first=1 + skipped, bytes_max=bytes_max)
                assert seen == entries_of(*runs)[skipped : count + skipped], f"{bytes_max} bytes from {1 + skipped} on"


def a_large_entry_is_read_alone_and_ends_a_read_before_it(open_store: OpenStore, directory: Path) -> None:
    """It is never left out, and never brings others with it."""
    with closing(open_store(directory)) as store:
        append(store, "peer1", make_run(1, 1, b"small", b"L" * 5000, b"small"))
        assert [len(payload) for _, _, payload in read_entries(store, "peer1", 1, bytes_max=1000)] == [5]
        assert [len(payload) for _, _, payload in read_entries(store, "peer1", 2, bytes_max=1000)] == [5000]


def a_batch_that_does_not_fit_is_refused_whole(open_store: OpenStore, directory: Path) -> None:
    """A gap, an overlap, an empty run: neither the entries nor the hard state beside them are written."""
    misfits = [
        (numbered(1, 5, 6),),
        (numbered(1, 0, 1),),
        (numbered(1, 4, 4), numbered(1, 6, 6)),
        (numbered(1, 4, 5), numbered(1, 5, 5)),
        (make_run(1, 4),),
    ]
    with closing(open_store(directory)) as store:
        append(store, "peer1", numbered(1, 1, 3), hard_state=HardState(Term(1)))
        for runs in misfits:
            expect_refusal(ValueError, store.append, [Batch("peer1", HardState(Term(2)), runs)])
            assert read_entries(store, "peer1") == entries_of(numbered(1, 1, 3)), f"after {runs}"
            assert store.load("peer1").hard_state == HardState(Term(1)), f"after {runs}"
        append(store, "peer1", numbered(1, 4, 4))
        assert store.load("peer1").last == 4


def a_compacted_log_begins_behind_its_start(open_store: OpenStore, directory: Path) -> None:
    """Between two runs and in the middle of one alike, at once and after a restart; the rest stays as it was."""
    runs = [numbered(1, 1, 3), numbered(1, 4, 4), numbered(2, 5, 8), numbered(2, 9, 9)]
    terms = [0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    starts = range(10)

    def check_reads(store: LogStore, start: int) -> None:
        held = [entry for entry in entries_of(*runs) if entry[0] > start]
        for first in range(1, 11):
            expected = [entry for entry in held if entry[0] >= first] if first > start else []
            assert read_entries(store, f"log{start}", first) == expected, f"begun behind {start}, read from {first}"

    with closing(open_store(directory)) as store:
        for start in starts:
            append(store, f"log{start}", *runs)
            append(store, f"log{start}", compaction=make_compaction(terms[start], 9, start))
            check_reads(store, start)
        store.sync()
    with closing(open_store(directory)) as store:
        for start in starts:
            visited: list[Run] = []
            stored = store.load(f"log{start}", visited.append)
            assert (stored.compaction, stored.last) == (make_compaction(terms[start], 9, start), 9)
            expected = {term: start + 1 + terms[start + 1 :].index(term) for term in terms[start + 1 :]}
            assert stored.terms == tuple((first, term) for term, first in expected.items()), f"begun behind {start}"
            assert entries_of(*visited) == [entry for entry in entries_of(*runs) if entry[0] > start]
            check_reads(store, start)


def a_restart_gives_back_a_compaction_and_only_what_is_behind_it(open_store: OpenStore, directory: Path) -> None:
    """Configurations and times of what was dropped are gone with it; a log without entries has its snapshot's time."""
    old = make_run(1, 1, b"old", b"older", b"oldest", kind=Kind.CONFIGURATION, time=1.5)
    commands = make_run(1, 4, b"a", b"b", time=2.5)
    partial, all_of_it = make_compaction(1, 4, 2), make_compaction(1, 5)
    with closing(open_store(directory)) as store:
        for log in ("partial", "empty"):
            append(store, log, old, commands, hard_state=HardState(Term(1)))
        append(store, "partial", compaction=partial)
        append(store, "empty", compaction=all_of_it)
        store.sync()
    with closing(open_store(directory)) as store:
        stored = Stored(
            HardState(Term(1)), ((Index(3), Term(1)),), Index(5), ((Index(3), b"oldest"),), 2.5, compaction=partial
        )
        assert store.load("partial") == stored
        assert store.load("empty") == Stored(HardState(Term(1)), last=Index(5), time=5.0, compaction=all_of_it)
        assert store.read("empty", Index(1), Index(9), ALL) == ()
        append(store, "empty", numbered(2, 6, 7))
        store.sync()
    with closing(open_store(directory)) as store:
        assert store.load("empty").terms == ((6, 2),)
        assert read_entries(store, "empty", 6) == entries_of(numbered(2, 6, 7))


def truncation_meets_the_start_of_a_compacted_log(open_store: OpenStore, directory: Path) -> None:
    """In the batch of the compaction or later, also within the run that spans the start: nothing dropped comes back."""
    cuts = range(6, 11)
    compaction = make_compaction(1, 5)
    with closing(open_store(directory)) as store:
        for cut in cuts:
            for log in (f"together{cut}", f"later{cut}"):
                append(store, log, numbered(1, 1, 2), numbered(1, 3, 7), numbered(1, 8, 9))
            append(store, f"together{cut}", numbered(2, cut, cut + 1), compaction=compaction)
            append(store, f"later{cut}", compaction=compaction)
            append(store, f"later{cut}", numbered(2, cut, cut + 1))
        store.sync()
    with closing(open_store(directory)) as store:
        for cut in cuts:
            expected = entries_of(*([numbered(1, 6, cut - 1)] if cut > 6 else []), numbered(2, cut, cut + 1))
            for log in (f"together{cut}", f"later{cut}"):
                stored = store.load(log)
                assert (stored.last, stored.compaction) == (cut + 1, compaction), log
                assert read_entries(store, log, 6) == expected, log
                assert read_entries(store, log, 5) == [], log


def a_replaced_log_holds_nothing_of_what_was_there(open_store: OpenStore, directory: Path) -> None:
    """Not before the start and not beyond it, wherever that is; nor when it grows again over what was there."""
    runs = [numbered(1, 1, 3), numbered(1, 4, 8)]
    starts = [2, 3, 5, 8, 20]
    with closing(open_store(directory)) as store:
        for start in starts:
            compaction = make_compaction(2, start, replaces_log=True)
            append(store, f"empty{start}", *runs)
            append(store, f"empty{start}", compaction=compaction)
            append(store, f"begun{start}", *runs)
            append(store, f"begun{start}", numbered(2, start + 1, start + 1), compaction=compaction)
            append(store, f"unknown{start}", compaction=compaction, hard_state=HardState(Term(2)))
            assert read_entries(store, f"empty{start}", start + 1) == []
        store.sync()
    with closing(open_store(directory)) as store:
        for start in starts:
            compaction = make_compaction(2, start, replaces_log=True)
            empty = Stored(last=Index(start), time=float(start), compaction=compaction)
            assert store.load(f"empty{start}") == empty
            assert store.load(f"unknown{start}").compaction == compaction
            assert read_entries(store, f"begun{start}", start + 1) == entries_of(numbered(2, start + 1, start + 1))
            append(store, f"empty{start}", numbered(2, start + 1, start + 1))
            append(store, f"empty{start}", numbered(2, start + 2, start + 3))
            assert store.load(f"empty{start}").last == start + 3
            assert read_entries(store, f"empty{start}", start + 1) == entries_of(numbered(2, start + 1, start + 3))


def compactions_of_one_append_take_effect_in_order(open_store: OpenStore, directory: Path) -> None:
    """Together with what is written before and after them."""
    with closing(open_store(directory)) as store:
        store.append(
            [
                Batch("a", HardState(Term(1)), (numbered(1, 1, 5),)),
                Batch("b", None, (numbered(1, 1, 5),)),
                Batch("a", None, (), make_compaction(1, 4)),
                Batch("a", HardState(Term(2)), (numbered(2, 5, 9),)),
                Batch("b", None, (numbered(3, 10, 10),), make_compaction(3, 9, replaces_log=True)),
                Batch("a", None, (numbered(3, 9, 9),), make_compaction(2, 8, 6)),
                Batch("b", None, (numbered(3, 11, 12),)),
            ]
        )
        store.sync()
    with closing(open_store(directory)) as store:
        assert store.load("a").compaction == make_compaction(2, 8, 6)
        assert store.load("b").compaction == make_compaction(3, 9, replaces_log=True)
        assert read_entries(store, "a", 7) == entries_of(numbered(2, 7, 8), numbered(3, 9, 9))
        assert read_entries(store, "b", 10) == entries_of(numbered(3, 10, 12))
        assert read_entries(store, "a", 6) == read_entries(store, "b", 9) == []


def compactions_leave_other_logs_alone(open_store: OpenStore, directory: Path) -> None:
    """Also those whose names begin alike."""
    names = ["a", "a.b", "a-b", "ab", "A", "peer1", "peer10", "peer1.", "peer1-0", "0"]
    whole = entries_of(numbered(1, 1, 6))
    with closing(open_store(directory)) as store:
        for name in names:
            append(store, name, numbered(1, 1, 4), numbered(1, 5, 6))
        append(store, "a", compaction=make_compaction(1, 6))
        append(store, "peer1", compaction=make_compaction(1, 9, replaces_log=True))
        store.sync()
    with closing(open_store(directory)) as store:
        for name in names:
            seen = (store.load(name).compaction is not None, read_entries(store, name))
            assert seen == ((True, []) if name in ("a", "peer1") else (False, whole)), name


def a_compaction_that_does_not_fit_is_refused_whole(open_store: OpenStore, directory: Path) -> None:
    """The start never falls or passes the end or the snapshot; the log never ends before the snapshot."""
    compaction = make_compaction(1, 5, 4)
    misfits: list[tuple[tuple[Run, ...], Compaction | None]] = [
        ((), make_compaction(1, 5, 3)),
        ((), make_compaction(1, 3, replaces_log=True)),
        ((), make_compaction(1, 7)),
        ((), make_compaction(1, 7, 5)),
        ((), make_compaction(1, 5, 6)),
        ((numbered(1, 7, 7),), make_compaction(1, 7)),
        ((numbered(2, 4, 9),), None),
        ((numbered(2, 5, 9),), make_compaction(1, 5)),
        ((numbered(1, 7, 8),), make_compaction(1, 5, replaces_log=True)),
        ((numbered(1, 5, 6),), make_compaction(1, 5, replaces_log=True)),
        ((), make_compaction(1, 7, 5, replaces_log=True)),
        ((numbered(2, 6, 7), numbered(2, 9, 9)), make_compaction(1, 5)),
    ]
    with closing(open_store(directory)) as store:
        append(store, "peer1", numbered(1, 1, 6), hard_state=HardState(Term(1)))
        append(store, "peer1", compaction=compaction)
        for runs, refused in misfits:
            expect_refusal(ValueError, store.append, [Batch("peer1", HardState(Term(2)), runs, refused)])
            stored = store.load("peer1")
            assert (stored.hard_state, stored.compaction) == (HardState(Term(1)), compaction), f"after {refused}"
            assert read_entries(store, "peer1", 5) == entries_of(numbered(1, 5, 6)), f"after {refused}"


def any_history_leaves_what_its_model_does(open_store: OpenStore, directory: Path) -> None:
    """Appends, truncations and compactions drawn by chance, with restarts between them."""
    for seed in range(10):
        model = LogModel()
        with closing(open_store(directory)) as store:
            for batch in random_batches(random.Random(seed), f"log{seed}", 30):
                store.append([batch])
                model.append(batch)
                assert model.differs(store, batch.log) is None, f"seed {seed}: {model.differs(store, batch.log)}"
            store.sync()
        with closing(open_store(directory)) as store:
            assert model.differs(store, f"log{seed}") is None, f"after a restart: {model.differs(store, f'log{seed}')}"


def closing_twice_is_closing_once(open_store: OpenStore, directory: Path) -> None:
    """And what was synced is there when it is opened again."""
    with closing(open_store(directory)) as store:
        append(store, "peer1", numbered(1, 1, 3))
        store.sync()
        store.close()
        store.close()
    with closing(open_store(directory)) as store:
        assert store.load("peer1").last == 3


CASES: tuple[Callable[[OpenStore, Path], None], ...] = (
    an_unknown_log_is_empty,
    what_was_appended_is_read_at_once,
    a_restart_gives_back_all_that_the_core_needs,
    the_first_bare_entry_is_found_after_a_restart,
    a_vote_without_entries_is_kept,
    the_last_hard_state_counts,
    truncation_at_any_entry_keeps_what_is_before_and_nothing_after,
    an_overwritten_tail_does_not_come_back_when_the_log_grows_over_it,
    batches_of_one_append_take_effect_in_order,
    logs_whose_names_begin_alike_do_not_mix,
    a_name_that_no_peer_may_have_is_refused,
    any_range_can_be_read,
    a_read_gives_about_the_bytes_asked_for_but_one_entry_at_least,
    a_large_entry_is_read_alone_and_ends_a_read_before_it,
    a_batch_that_does_not_fit_is_refused_whole,
    a_compacted_log_begins_behind_its_start,
    a_restart_gives_back_a_compaction_and_only_what_is_behind_it,
    truncation_meets_the_start_of_a_compacted_log,
    a_replaced_log_holds_nothing_of_what_was_there,
    compactions_of_one_append_take_effect_in_order,
    compactions_leave_other_logs_alone,
    a_compaction_that_does_not_fit_is_refused_whole,
    any_history_leaves_what_its_model_does,
    closing_twice_is_closing_once,
)
"""For every store."""
