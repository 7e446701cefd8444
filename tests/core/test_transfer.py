"""What the scenarios of leadership transfer do not say (thesis 3.10)."""

from __future__ import annotations

import pytest

from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestPreVoteReply, RequestVote, TimeoutNow
from quorate.errors import ChangeInProgress, InvalidConfiguration, NotLeader
from quorate.testing.drive import lead, obey, receive, start
from quorate.types import Index, PeerId, Term
from tests.core import changing


def leader_with_caught_up_followers():
    raft = start()
    lead(raft)
    for follower in ("2", "3"):
        receive(raft, follower, AppendEntriesReply(raft.state.term, success=True, match_index=raft.state.log.last))
    return raft


@pytest.mark.covers("pitfall 82")
def test_no_proposal_is_taken_while_leadership_is_handed_over():
    raft = leader_with_caught_up_followers()
    raft.transfer(PeerId("2"), raft.state.now)
    with pytest.raises(NotLeader):
        raft.propose([b"x"], raft.state.now)
    assert not raft.is_leading_undisturbed()


def test_the_target_is_told_once_and_only_when_it_has_the_whole_log():
    raft = leader_with_caught_up_followers()
    raft.propose([b"x"], raft.state.now)
    obey(raft)
    raft.transfer(PeerId("2"), raft.state.now)
    assert [envelope.message for envelope in obey(raft)] == []
    sent = receive(raft, "2", AppendEntriesReply(raft.state.term, success=True, match_index=raft.state.log.last))
    assert [message for message in sent if isinstance(message, TimeoutNow)] == [TimeoutNow(Term(2), PeerId("1"))]
    assert not [envelope for envelope in obey(raft) if isinstance(envelope.message, TimeoutNow)]


@pytest.mark.covers("pitfall 82")
def test_a_transfer_that_is_late_is_given_up_at_its_own_deadline():
    raft = leader_with_caught_up_followers()
    begin = raft.state.now
    raft.transfer(PeerId("2"), begin)
    while not raft.is_leading_undisturbed():
        assert raft.deadline() <= begin + raft.state.settings.election_timeout_max
        raft.tick(raft.deadline())
        for follower in ("2", "3"):
            raft.receive(PeerId(follower), AppendEntriesReply(Term(2), True, Index(0)), raft.state.now)
    assert raft.state.now >= begin + raft.state.settings.election_timeout_max


def test_one_transfer_at_a_time_and_the_same_one_twice():
    raft = leader_with_caught_up_followers()
    begin = raft.state.now
    raft.transfer(PeerId("2"), begin)
    deadline = raft.state.role.transfer.deadline
    raft.transfer(PeerId("2"), begin + 0.01)
    assert raft.state.role.transfer.deadline == deadline  # asked for again and again it would never be given up
    with pytest.raises(ChangeInProgress, match="handed over to 2 already"):
        raft.transfer(PeerId("3"), raft.state.now)
    raft.transfer(PeerId("1"), raft.state.now)  # to itself: nothing to do


def test_strangers_are_no_target():
    with pytest.raises(InvalidConfiguration, match="9 is no voter that could lead the group of 1, 2, 3"):
        leader_with_caught_up_followers().transfer(PeerId("9"), 1.0)


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("3", TimeoutNow(Term(2), PeerId("3"))),
        ("3", TimeoutNow(Term(2), PeerId("2"))),
        ("2", TimeoutNow(Term(1), PeerId("2"))),
    ],
)
def test_only_the_leader_of_the_term_may_ask_for_a_campaign(sender, message):
    raft = start()
    receive(raft, "2", follow())
    receive(raft, sender, message)
    assert raft.status().role == "follower"


def test_who_follows_nobody_is_asked_to_campaign_by_nobody():
    """What another machine sends never raises: a leader and candidates have no leader to ask them."""
    lone = start()
    lone.tick(lone.deadline())
    candidate = start(term=2)
    candidate.tick(candidate.deadline())
    receive(candidate, "3", RequestPreVoteReply(Term(2), Term(3), True))
    for raft, role in (
        (lone, "pre-candidate"),
        (candidate, "candidate"),
        (leader_with_caught_up_followers(), "leader"),
    ):
        term = raft.state.term
        receive(raft, "2", TimeoutNow(term, PeerId("2")))
        assert (raft.status().role, raft.state.term) == (role, term)


def test_only_a_leader_leads_undisturbed():
    raft = start()
    assert not raft.is_leading_undisturbed()
    receive(raft, "2", follow())
    assert not raft.is_leading_undisturbed()
    assert leader_with_caught_up_followers().is_leading_undisturbed()


def follow():
    """Give a heartbeat of peer 2, which leads term 2."""
    return AppendEntries(Term(2), PeerId("2"), Index(1), Term(1), Index(0))


def test_a_vote_that_the_leader_asked_for_is_given_though_the_leader_was_just_heard():
    raft = start()
    receive(raft, "2", follow())
    assert receive(raft, "3", RequestVote(Term(3), PeerId("3"), Index(9), Term(2))) == []
    (reply,) = receive(raft, "3", RequestVote(Term(3), PeerId("3"), Index(9), Term(2), True))
    assert reply.vote_granted


@pytest.mark.covers("pitfall 1")
def test_a_vote_that_the_leader_asked_for_is_not_given_to_a_log_that_is_behind_ours():
    raft = start(log=(1, 1, 2), term=2)
    receive(raft, "2", follow())
    for index, term in ((2, 2), (9, 1)):
        (reply,) = receive(raft, "3", RequestVote(Term(3), PeerId("3"), Index(index), Term(term), True))
        assert not reply.vote_granted


def test_who_is_removed_while_leadership_is_handed_over_to_it_takes_over_no_longer():
    """The change began before, and goes on meanwhile; when the time for the transfer is over the leader leads on."""
    raft = changing.leader()
    changing.change(raft, "1", "2", "4")
    raft.transfer(PeerId("3"), raft.state.now)
    deadline = raft.state.role.transfer.deadline
    for _ in range(3):  # caught up; the joint configuration; the final one
        changing.acknowledge(raft, "2", "4")
    assert (changing.seen(raft), set(raft.state.role.leaving)) == (("124", "", ""), {"3"})
    raft.tick(raft.deadline())  # tells 3 that this is committed
    obey(raft)
    changing.acknowledge(raft, "3")
    assert raft.state.role.transfer.to not in raft.state.role.progress
    changing.acknowledge(raft, "2", "4", later=0.1)
    raft.tick(deadline)
    assert raft.is_leading_undisturbed()
