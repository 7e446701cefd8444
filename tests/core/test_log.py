from __future__ import annotations

import hypothesis
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
