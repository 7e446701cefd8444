"""§5.4 of the paper, safety: who may win an election, and what counts as committed."""

from __future__ import annotations

import pytest

from quorate.core.election import is_up_to_date
from quorate.core.messages import RequestPreVote, RequestPreVoteReply, RequestVote, RequestVoteReply
from quorate.testing.drive import receive, start
from quorate.types import Index, PeerId, Term

LONG = 10.0  # seconds: longer than any election timeout

# The voter's log, the candidate's last entry as (term, index), and whether the candidate is at least as up-to-date.
LOGS = [
    ((1, 2, 2), (2, 3), True),  # the same end
    ((1, 2, 2), (2, 4), True),  # the same term, longer
    ((1, 2, 2), (2, 2), False),  # the same term, shorter
    ((1, 2, 2), (3, 1), True),  # a later term, shorter
    ((1, 2, 2), (1, 9), False),  # an earlier term, longer: the fault of the original, which took index for term
    ((1,), (1, 1), True),
    ((1,), (0, 0), False),
]


@pytest.mark.covers("pitfall 1")
@pytest.mark.parametrize(("log", "last", "up_to_date"), LOGS)
def test_the_voter_denies_its_vote_if_its_own_log_is_more_up_to_date_than_that_of_the_candidate(log, last, up_to_date):
    """§5.4.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate". Row 1."""
    raft = start(log=log, term=3)
    request = RequestVote(Term(4), PeerId("2"), Index(last[1]), Term(last[0]))
    assert receive(raft, "2", request, LONG) == [RequestVoteReply(Term(4), up_to_date)]


@pytest.mark.covers("etcd-io/raft prevote")
@pytest.mark.parametrize(("log", "last", "up_to_date"), LOGS)
def test_the_voter_denies_its_pre_vote_by_the_same_comparison(log, last, up_to_date):
    """Thesis 9.6: a pre-vote is granted only if the candidate's log is sufficiently up-to-date."""
    raft = start(log=log, term=3)
    request = RequestPreVote(Term(4), PeerId("2"), Index(last[1]), Term(last[0]))
    assert receive(raft, "2", request, LONG) == [RequestPreVoteReply(Term(3), Term(4), up_to_date)]


def test_if_the_logs_have_last_entries_with_different_terms_the_log_with_the_later_term_is_more_up_to_date():
    """§5.4.1: "If the logs have last entries with different terms, then the log with the later term is more
    up-to-date."
    """
    state = start(log=(1, 3, 3)).state
    assert is_up_to_date(state, Term(4), Index(1))
    assert not is_up_to_date(state, Term(2), Index(100))


def test_if_the_logs_end_with_the_same_term_whichever_log_is_longer_is_more_up_to_date():
    """§5.4.1: "If the logs end with the same term, then whichever log is longer is more up-to-date."."""
    state = start(log=(1, 3, 3)).state
    assert [is_up_to_date(state, Term(3), Index(last)) for last in (2, 3, 4)] == [False, True, True]


def test_an_empty_log_is_as_up_to_date_as_another_empty_one():
    """§5.4.1 at the very beginning."""
    assert is_up_to_date(start(log=()).state, Term(0), Index(0))
