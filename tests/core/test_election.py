"""What tests/paper does not say of elections: that events and sentences are stable, and a few corners."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.election import has_won, pending_text
from quorate.core.messages import AppendEntries, RequestPreVote, RequestPreVoteReply, RequestVote, RequestVoteReply
from quorate.core.state import Candidate, Leader, PreCandidate
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_member, obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term

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
    assert pending_text(raft.state) == "it has heard no leader in term 1; an election starts in 0.3 s"
    raft.tick(LONG)
    asking = "it is asking for pre-votes: 1 of 3, 2 needed"
    assert pending_text(raft.state) == f"{asking}; no answer from 2, 3"
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), False))
    assert pending_text(raft.state) == f"{asking}; no answer from 3; refused by 2"
    receive(raft, "3", RequestPreVoteReply(Term(1), Term(2), True))
    assert pending_text(raft.state) == "it is asking for votes: 1 of 3, 2 needed; no answer from 2, 3"
    for sender in "23":
        receive(raft, sender, RequestVoteReply(Term(2), False))
    assert pending_text(raft.state) == "it is asking for votes: 1 of 3, 2 needed; refused by 2, 3"
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


# Losing the leader.


def lose(raft, lost="1"):
    """Follow a leader, and learn a little later that nothing listens where it was."""
    receive(raft, lost, make_append(lost, 2, (1, 1)), 1.0)
    raft.unreachable(PeerId(lost), 1.125)
    return raft


def test_who_lose_their_leader_at_once_ask_for_pre_votes_one_after_the_other():
    """In the order of their ids; had they none, votes would be split."""
    turns = [lose(start(name, peers=4, chance=0.9)).deadline() for name in "234"]
    beat = Settings().heartbeat_interval
    assert turns == [1.125, 1.125 + beat, 1.125 + 2 * beat]


def test_who_cannot_lead_has_no_turn_when_the_leader_is_lost():
    raft = start("3", chance=0.9)
    members = (make_member("1"), make_member("2", "witness"), make_member("3"), make_member("4"))
    run = Run(Term(1), Index(2), Kind.CONFIGURATION, 0.0, (encode_configuration(Configuration("group", members)),))
    receive(raft, "1", AppendEntries(Term(1), PeerId("1"), Index(1), Term(1), Index(0), 0, (run,)))
    assert lose(raft).deadline() == 1.125


def test_a_newcomer_without_a_configuration_may_lose_the_leader_that_has_just_found_it():
    raft = start(log=(), term=0)
    receive(raft, "2", make_append("2", 2, (4, 2)), 1.0)
    raft.unreachable(PeerId("2"), 1.125)
    assert (raft.state.leader, raft.deadline()) == (None, float("inf"))


@pytest.mark.parametrize(
    ("last", "now", "answers"),
    [
        (1, 1.1, [False, True]),  # refused because the leader was heard
        (0, 1.1, [False]),  # refused for its log
        (1, 1.35, [True]),  # granted, for the leader was silent
    ],
)
def test_a_pre_vote_is_given_later_to_who_was_refused_it_because_of_the_leader_alone(last, now, answers):
    raft = start(chance=0.9)
    receive(raft, "2", make_append("2", 1, (1, 1)), 1.0)
    request = RequestPreVote(Term(2), PeerId("3"), Index(last), Term(last))
    told = receive(raft, "3", request, now)
    raft.unreachable(PeerId("2"), now)
    told += [envelope.message for envelope in obey(raft)]
    assert [(type(reply), reply.vote_granted) for reply in told] == [(RequestPreVoteReply, said) for said in answers]
