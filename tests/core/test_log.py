from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from quorate.core.log import Log
from quorate.types import Index, Term


def make(terms):
    log = Log()
    for term in terms:
        log.append(Term(term), 1)
    return log


def terms(log):
    return [log.term(Index(index)) for index in range(1, log.last + 1)]


def test_an_empty_log():
    log = Log()
    assert (log.last, log.last_term, log.term(Index(0))) == (0, 0, 0)
    assert log.matches(Index(0), Term(0))
    assert not log.matches(Index(1), Term(0))
    assert log.last_of_term(Term(1)) == 0


def test_stretches_of_one_term_are_one_pair_of_numbers():
    log = make([1, 1, 3, 3, 3, 4])
    assert (log.starts, log.terms, log.last) == ([1, 3, 6], [1, 3, 4], 6)


def test_matches_wants_index_and_term():
    log = make([1, 1, 3])
    assert [log.matches(Index(3), Term(term)) for term in (1, 2, 3)] == [False, False, True]
    assert not log.matches(Index(4), Term(3))


@pytest.mark.covers("toniqsystems/raft log")
@hypothesis.given(strategies.lists(strategies.integers(1, 5), max_size=12).map(sorted), strategies.data())
def test_a_log_says_of_every_index_what_a_list_says(plain, drawn):
    log = make(plain)
    assert terms(log) == plain
    for index in range(1, len(plain) + 1):
        assert log.first_of_term_at(Index(index)) == plain.index(plain[index - 1]) + 1
    for term in range(7):
        assert log.last_of_term(Term(term)) == max((i for i, of in enumerate(plain, 1) if of == term), default=0)
    first = drawn.draw(strategies.integers(1, len(plain) + 1))
    log.truncate(Index(first))
    assert terms(log) == plain[: first - 1]
    log.append(Term(6), 2)
    assert terms(log) == [*plain[: first - 1], 6, 6]


def held(log):
    return [log.term(Index(index)) for index in range(log.start + 1, log.last + 1)]


@hypothesis.given(
    strategies.lists(strategies.integers(1, 5), min_size=1, max_size=12).map(sorted),
    strategies.data(),
)
def test_a_compacted_log_says_of_what_it_holds_what_a_list_says(plain, drawn):
    """Through any number of compactions, truncations and appends; what was dropped is what a snapshot stands for."""
    log, start = make(plain), 0
    for _ in range(drawn.draw(strategies.integers(1, 4))):
        start = drawn.draw(strategies.integers(start, len(plain)))
        log.compact(Index(start))
        if start < len(plain):
            first = drawn.draw(strategies.integers(start + 1, len(plain) + 1))
            log.truncate(Index(first))
            del plain[first - 1 :]
        added = drawn.draw(strategies.integers(0, 2))
        if added:
            term = max(plain, default=1) + drawn.draw(strategies.integers(0, 1))
            log.append(Term(term), added)
            plain += [term] * added
        at_start = plain[start - 1] if start else 0
        assert (log.start, log.start_term, log.last) == (start, at_start, len(plain))
        assert log.last_term == (plain[-1] if plain else 0)
        assert held(log) == plain[start:]
        for index in range(start + 1, len(plain) + 1):
            first = next(i for i in range(start + 1, index + 1) if plain[i - 1] == plain[index - 1])
            assert log.first_of_term_at(Index(index)) == first
            assert log.matches(Index(index), Term(plain[index - 1]))
            assert not log.matches(Index(index), Term(plain[index - 1] + 1))
        assert log.first_of_term_at(Index(start)) == start
        for term in range(1, 9):
            ends = [i for i, of in enumerate(plain, 1) if of == term and i >= start]
            assert log.last_of_term(Term(term)) == max(ends, default=0)


def test_what_was_compacted_matches_for_it_was_committed():
    log = make([1, 1, 2, 3])
    log.compact(Index(3))
    assert [log.matches(Index(index), Term(9)) for index in range(5)] == [True, True, True, False, False]
    assert log.matches(Index(3), Term(2))


def test_a_log_that_begins_anew_holds_nothing_but_where_it_begins():
    log = make([1, 1, 2, 3])
    log.reset(Index(9), Term(4))
    assert (log.start, log.start_term, log.last, log.last_term, held(log)) == (9, 4, 9, 4, [])
    assert (log.matches(Index(9), Term(4)), log.matches(Index(9), Term(3))) == (True, False)
    log.append(Term(4), 2)
    assert (held(log), log.first_of_term_at(Index(11)), log.last_of_term(Term(4))) == ([4, 4], 10, 11)
    log.truncate(Index(10))
    assert (log.last, log.last_of_term(Term(4)), log.last_of_term(Term(3))) == (9, 9, 0)
