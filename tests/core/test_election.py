"""What tests/paper does not say of elections: that events and sentences are stable, and a few corners."""

from __future__ import annotations

from quorate.core.election import has_won, pending_text
from quorate.core.messages import RequestPreVoteReply, RequestVote, RequestVoteReply
from quorate.core.state import Candidate, Leader, PreCandidate
from quorate.testing.drive import lead, make_append, obey, receive, start
from quorate.types import Index, PeerId, Term

LONG = 10.0  # seconds: longer than any election timeout


def test_the_trace_of_an_election():
    raft = start()
    raft.tick(LONG)
    raft.receive(PeerId("2"), RequestPreVoteReply(Term(1), Term(2), True), LONG)
    raft.receive(PeerId("2"), RequestVoteReply(Term(2), True), LONG)
    assert [event.text for event in raft.ready().events] == [
        "election timeout -> pre-candidate for term 2",
        "quorum of pre-votes -> candidate in term 2",
        "quorum of votes -> leader of term 2",
    ]


def test_votes_of_strangers_and_refusals_win_nothing():
    state = start(peers=5).state
    votes = {PeerId(name): True for name in ("1", "2", "stranger", "another")} | {PeerId("3"): False}
    assert not has_won(state, votes)
    assert has_won(state, votes | {PeerId("4"): True})


def test_a_vote_that_is_asked_again_is_given_again_and_noted_once():
    raft = start()
    request = RequestVote(Term(2), PeerId("2"), Index(1), Term(1))
    raft.receive(PeerId("2"), request, LONG)
    raft.receive(PeerId("2"), request, LONG)
    ready = raft.ready()
    assert len(ready.messages_after_persist) == 2
    assert [event.text for event in ready.events] == [
        "remote term is higher (2 > 1) -> follower",
        "2 asks for a vote, its log is up to date -> grant",
    ]


def test_a_vote_that_comes_to_a_leader_or_a_pre_candidate_changes_nothing():
    raft = start()
    lead(raft)
    receive(raft, "3", RequestVoteReply(Term(2), False))
    assert type(raft.state.role) is Leader
    raft = start()
    raft.tick(LONG)
    receive(raft, "3", RequestVoteReply(Term(1), True))
    assert type(raft.state.role) is PreCandidate


def test_why_there_is_no_leader_in_a_sentence():
    raft = start(peers=3)
    assert pending_text(raft.state) == "no leader heard in term 1; an election starts in 0.3 s"
    raft.tick(LONG)
    asking = "asking for pre-votes: 1 of 3, 2 needed"
    assert pending_text(raft.state) == f"{asking}; no answer from 2, 3"
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), False))
    assert pending_text(raft.state) == f"{asking}; no answer from 3; refused by 2"
    receive(raft, "3", RequestPreVoteReply(Term(1), Term(2), True))
    assert pending_text(raft.state) == "asking for votes: 1 of 3, 2 needed; no answer from 2, 3"
    for sender in "23":
        receive(raft, sender, RequestVoteReply(Term(2), False))
    assert pending_text(raft.state) == "asking for votes: 1 of 3, 2 needed; refused by 2, 3"
    assert type(raft.state.role) is Candidate


def test_an_overdue_election_starts_in_no_time():
    raft = start(term=2)
    receive(raft, "2", make_append("2", 1), LONG)
    assert pending_text(raft.state).endswith("an election starts in 0.0 s")


def test_a_lone_voter_elects_itself_in_one_step():
    raft = start(peers=1)
    raft.tick(raft.deadline())
    assert type(raft.state.role) is Leader
    assert obey(raft) == []
    assert raft.state.commit_index == 2
