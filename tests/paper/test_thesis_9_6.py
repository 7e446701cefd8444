"""Thesis 9.6, preventing disruptions when a server rejoins; 4.2.3, disruptive servers; 6.2, routing clients."""

from __future__ import annotations

import pytest

from quorate.core.messages import (
    AppendEntriesReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from quorate.core.state import Candidate, Follower, Leader, PreCandidate
from quorate.testing.drive import lead, make_append, obey, receive, start
from quorate.types import HardState, Index, PeerId, Term

LONG = 10.0  # seconds: longer than any election timeout


def pre_vote(candidate, next_term, last=(1, 1)):
    return RequestPreVote(Term(next_term), PeerId(candidate), Index(last[0]), Term(last[1]))


def test_a_candidate_only_increments_its_term_if_it_first_learns_from_a_majority_that_they_would_grant_their_votes():
    """Thesis 9.6: "a candidate only increments its term if it first learns from a majority of the cluster that they
    would be willing to grant the candidate their votes".
    """
    raft = start(peers=5)
    raft.tick(LONG)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    receive(raft, "3", RequestPreVoteReply(Term(1), Term(2), False))
    assert (type(raft.state.role), raft.state.term) == (PreCandidate, 1)
    receive(raft, "4", RequestPreVoteReply(Term(1), Term(2), True))
    assert (type(raft.state.role), raft.state.term) == (Candidate, 2)


def test_pre_votes_change_nothing_on_either_side():
    """Neither term nor vote, nor the timer of the peer that is asked."""
    asked = start()
    deadline = asked.deadline()
    receive(asked, "2", pre_vote("2", 7), 0.1)
    assert (asked.state.hard_state, asked.deadline()) == (HardState(Term(1), None), deadline)
    asking = start()
    asking.tick(LONG)
    assert asking.ready().hard_state is None


def test_a_pre_vote_may_be_granted_to_several():
    """It is no promise."""
    raft = start()
    for sender in "23":
        assert receive(raft, sender, pre_vote(sender, 2), LONG) == [RequestPreVoteReply(Term(1), Term(2), True)]


@pytest.mark.covers("pitfall 8")
def test_no_pre_vote_for_a_term_that_is_not_above_ours():
    """And the answer tells the term, so that a pre-candidate that is behind learns it. Row 8."""
    raft = start(term=5)
    assert receive(raft, "2", pre_vote("2", 5), LONG) == [RequestPreVoteReply(Term(5), Term(5), False)]
    behind = start()
    behind.tick(LONG)
    receive(behind, "3", RequestPreVoteReply(Term(5), Term(2), False))
    assert (type(behind.state.role), behind.state.term) == (Follower, 5)


@pytest.mark.covers("pitfall 9")
def test_no_pre_vote_within_the_minimum_election_timeout_of_hearing_a_leader():
    """Thesis 9.6: "the voters have not received heartbeats from a valid leader for at least a baseline election
    timeout". Row 9.
    """
    raft = start()
    receive(raft, "2", make_append("2", 1, (1, 1)), 1.0)
    timeout = raft.state.settings.election_timeout_min
    for now, granted in ((1.0, False), (0.999 + timeout, False), (1.0 + timeout, True)):
        assert receive(raft, "3", pre_vote("3", 2), now) == [RequestPreVoteReply(Term(1), Term(2), granted)]


@pytest.mark.covers("pitfall 7")
def test_a_vote_request_within_the_minimum_election_timeout_of_hearing_a_leader_moves_nobody():
    """Thesis 4.2.3: "it does not update its term or grant its vote". Row 7."""
    raft = start()
    receive(raft, "2", make_append("2", 1, (1, 1)), 1.0)
    assert receive(raft, "3", RequestVote(Term(9), PeerId("3"), Index(9), Term(1)), 1.1) == []
    assert raft.state.hard_state == HardState(Term(1), None)


def test_a_leader_that_a_quorum_answers_is_not_deposed_by_votes():
    """The leader hears itself as long as a quorum answers it; after that it listens."""
    raft = start()
    lead(raft)
    requests = pre_vote("3", 9, (9, 2)), RequestVote(Term(9), PeerId("3"), Index(9), Term(2))
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)), raft.state.now)
    heard = raft.state.now
    assert receive(raft, "3", requests[0]) == [RequestPreVoteReply(Term(2), Term(9), False)]
    assert receive(raft, "3", requests[1]) == []
    assert type(raft.state.role) is Leader
    late = heard + raft.state.settings.election_timeout_min
    assert receive(raft, "3", requests[0], late) == [RequestPreVoteReply(Term(2), Term(9), True)]
    assert receive(raft, "3", requests[1], late) == [RequestVoteReply(Term(9), True)]


@pytest.mark.covers("pitfall 6")
def test_only_answers_to_the_present_question_count():
    """Pre-votes of an earlier term, of strangers, and repeated ones count for nothing. Rows 5, 6."""
    raft = start(peers=5)
    raft.tick(LONG)
    for sender, next_term in (("2", 2), ("2", 2), ("3", 1), ("4", 3), ("stranger", 2)):
        receive(raft, sender, RequestPreVoteReply(Term(1), Term(next_term), True))
    assert type(raft.state.role) is PreCandidate


def test_pre_votes_that_come_to_anyone_but_a_pre_candidate_are_nothing():
    raft = start()
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is Follower


@pytest.mark.covers("pitfall 11")
def test_a_candidate_that_does_not_win_asks_for_pre_votes_again_and_keeps_its_term():
    """It does not raise its term for ever when it is cut off. Row 11."""
    raft = start()
    raft.tick(LONG)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    for _ in range(100):
        raft.tick(raft.deadline())
        obey(raft)
    assert (type(raft.state.role), raft.state.term) == (PreCandidate, 2)


@pytest.mark.covers("pitfall 76")
@pytest.mark.parametrize(
    "request_of", [pre_vote, lambda name, term: RequestVote(Term(term), PeerId(name), Index(9), Term(1))]
)
def test_a_peer_without_a_configuration_never_votes(request_of):
    """Its disk may have been lost after it voted under this name. Row 76."""
    raft = start(log=(), term=0)
    assert receive(raft, "2", request_of("2", 9), LONG) == []
    assert raft.state.hard_state == HardState()
    assert raft.deadline() == float("inf")


@pytest.mark.covers("pitfall 12", "etcd-io/raft checkquorum")
def test_a_leader_steps_down_if_an_election_timeout_elapses_without_a_round_of_heartbeats_to_a_majority():
    """Thesis 6.2: "a leader … steps down if an election timeout elapses without a successful round of heartbeats to a
    majority of its cluster". Row 12.
    """
    raft = start(peers=5)
    lead(raft)
    began = raft.state.now
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)), began + 0.5)
    raft.tick(began + raft.state.settings.election_timeout_max - 0.001)
    assert type(raft.state.role) is Leader
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    raft.tick(began + raft.state.settings.election_timeout_max)
    assert (type(raft.state.role), raft.state.leader) == (Follower, None)
    assert raft.state.hard_state == HardState(Term(2), PeerId("1"))
    assert raft.deadline() > raft.state.now
