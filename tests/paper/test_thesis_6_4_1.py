"""Thesis 6.4.1: using clocks to reduce messaging for read-only queries; what a lease is, and what ends it."""

from __future__ import annotations

import msgspec
import pytest

from quorate.core import reads
from quorate.core.messages import AppendEntriesReply, RequestVote, TimeoutNow
from quorate.core.reads import LEASE_TIMEOUTS
from quorate.core.ready import ReadReady
from quorate.core.state import Leader
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, obey, receive, start
from quorate.types import Index, PeerId, Term

SETTINGS = Settings(election_timeout_min=0.3, election_timeout_max=0.6, clock_drift_max=0.1)
LEASE = 0.3 * 0.9 / 1.1  # seconds that a lease runs: the followers' clocks may be fast, and ours slow


def leader(peers=3):
    """Start a leader of term 2 that is read by lease, whose no-op is committed, and that has just sent one round."""
    raft = start(peers=peers, settings=SETTINGS)
    lead(raft)
    raft.state.role.lease_until = float("inf")
    for voter in raft.state.others:
        receive(raft, voter, AppendEntriesReply(Term(2), True, Index(2)))
    raft.tick(raft.deadline())
    obey(raft)
    assert raft.state.role.round == 1
    return raft


def acknowledge(raft, name, number, now=None):
    reply = AppendEntriesReply(raft.state.term, True, Index(2), number)
    raft.receive(PeerId(name), reply, raft.state.now if now is None else now)
    obey(raft)


def is_answered_at_once(raft, now):
    """Ask by lease, and tell whether the answer needs nobody else."""
    read = raft.read(now, by_lease=True)
    return read in [found.id for found in raft.ready().reads]


def test_once_the_leaders_heartbeats_were_acknowledged_by_a_majority_it_replies_without_communication():
    """Thesis 6.4.1: "Once the leader's heartbeats were acknowledged by a majority of the cluster, the leader would
    assume that no other server will become leader for about an election timeout ... The leader would then reply to
    read-only queries during that period without any additional communication."
    """
    raft = leader(peers=5)
    sent = raft.state.now
    acknowledge(raft, "2", 1)
    assert not is_answered_at_once(raft, sent)
    acknowledge(raft, "3", 1)
    read = raft.read(sent, by_lease=True)
    ready = raft.ready()
    assert (ready.reads, ready.messages) == ((ReadReady(read, Index(2)),), ())


@pytest.mark.covers("pitfall 39")
@pytest.mark.parametrize("late", [0.0, 0.1, 0.24])
def test_a_lease_runs_from_when_the_round_was_sent_not_from_when_it_was_acknowledged(late):
    """The followers' promise began when they received it, at some time in between. Row 39."""
    raft = leader()
    sent = raft.state.now
    acknowledge(raft, "2", 1, sent + late)
    assert is_answered_at_once(raft, sent + LEASE - 0.001)
    assert not is_answered_at_once(raft, sent + LEASE)


@pytest.mark.covers("pitfall 40")
@pytest.mark.parametrize(("drift", "span"), [(0.0, 0.3), (0.1, 0.3 * 0.9 / 1.1), (0.5, 0.1)])
def test_the_lease_expires_earlier_by_a_bounded_clock_drift(drift, span):
    """Thesis 6.4.1: "start + election timeout / clock drift bound". Row 40: ours may be slow, and theirs fast."""
    raft = leader()
    raft.state.settings = Settings(clock_drift_max=drift)
    sent = raft.state.now
    acknowledge(raft, "2", 1)
    assert is_answered_at_once(raft, sent + span - 0.001)
    assert not is_answered_at_once(raft, sent + span + 0.001)


def test_a_read_by_lease_without_a_lease_waits_for_a_round():
    raft = leader()
    read = raft.read(raft.state.now, by_lease=True)
    assert {envelope.message.round for envelope in raft.ready().messages} == {2}
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(2), 2), raft.state.now)
    assert raft.ready().reads == (ReadReady(read, Index(2)),)


def test_a_leader_that_was_just_elected_has_no_lease_from_the_votes_nor_from_its_first_entries():
    """Of these nobody knows when they were sent; and it must have committed an entry of its term."""
    raft = start(settings=SETTINGS)
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(1), 0))
    assert not is_answered_at_once(raft, raft.state.now)
    assert raft.state.role.lease_until > raft.state.now  # so all that is sent from now on asks for promises
    acknowledge_first = AppendEntriesReply(Term(2), True, Index(1), raft.state.role.round)
    raft.tick(raft.deadline())
    obey(raft)
    receive(raft, "2", acknowledge_first)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(1), raft.state.role.round))
    assert raft.state.commit_index == 0
    assert not is_answered_at_once(raft, raft.state.now)


@pytest.mark.covers("pitfall 39")
def test_after_a_stall_there_is_no_lease():
    """Row 39: acknowledgements that waited meanwhile do not bring it back."""
    raft = leader()
    acknowledge(raft, "2", 1)
    stalled = raft.state.now + 0.4
    assert not is_answered_at_once(raft, stalled)
    acknowledge(raft, "3", 1, stalled)
    assert isinstance(raft.state.role, Leader)
    assert not is_answered_at_once(raft, stalled)


@pytest.mark.covers("pitfall 41")
def test_who_hands_over_has_no_lease():
    """Thesis 6.4.1 and row 41: the election that it asks for is refused by nobody."""
    raft = leader()
    acknowledge(raft, "2", 1)
    assert is_answered_at_once(raft, raft.state.now)
    raft.transfer(PeerId("2"), raft.state.now)
    assert not is_answered_at_once(raft, raft.state.now)


@pytest.mark.covers("pitfall 41")
def test_who_told_a_peer_to_campaign_has_no_lease_in_this_term_though_the_transfer_was_given_up():
    """What it told, and the requests for votes that follow, may be on their way for long: nobody would refuse them."""
    raft = leader()
    raft.transfer(PeerId("2"), raft.state.now)
    assert any(isinstance(envelope.message, TimeoutNow) for envelope in obey(raft))
    given_up = raft.state.now + SETTINGS.election_timeout_max
    while raft.state.now < given_up:
        raft.tick(raft.deadline())
        obey(raft)
        for voter in "23":
            acknowledge(raft, voter, raft.state.role.round)
    assert raft.state.role.transfer is None
    assert not is_answered_at_once(raft, raft.state.now)
    late = start("3", settings=SETTINGS, log=(1, 2))
    receive(late, "1", make_append("1", 2, (2, 2)), 5.0)
    [reply] = receive(late, "2", RequestVote(Term(3), PeerId("2"), Index(2), Term(2), is_transfer=True), 5.0)
    assert reply.vote_granted


# What a lease relies on: whoever heard the leader refuses its vote for the minimum election timeout.


def refuses(raft, now, term=9):
    return receive(raft, "3", RequestVote(Term(term), PeerId("3"), Index(9), Term(term - 1)), now) == []


def test_a_peer_that_was_started_anew_is_patient_for_it_may_have_heard_a_leader_before():
    raft = start(settings=SETTINGS)
    assert refuses(raft, 0.29)
    assert not refuses(raft, 0.3)


def test_a_peer_that_was_started_anew_keeps_what_it_may_have_promised_when_it_loses_the_leader():
    raft = start(settings=SETTINGS)
    receive(raft, "2", make_append("2", 2, (1, 1)), 0.1)
    raft.unreachable(PeerId("2"), 0.2)
    assert refuses(raft, 0.29)
    assert not refuses(raft, 0.3)


def test_a_peer_without_a_configuration_has_promised_nothing_and_waits_for_nobody():
    raft = start(log=(), settings=SETTINGS)
    assert raft.state.role.heard == float("-inf")


def test_patience_lasts_across_terms():
    """A lease is of a leader, and its followers may learn of a higher term meanwhile."""
    raft = start(settings=SETTINGS)
    receive(raft, "2", make_append("2", 2, (1, 1)), 1.0)
    receive(raft, "3", AppendEntriesReply(Term(5), False, Index(0)), 1.1)
    assert raft.state.term == 5
    assert refuses(raft, 1.29)
    assert not refuses(raft, 1.3)


def test_nothing_is_asked_of_the_followers_before_a_read_by_lease_and_all_that_is_sent_asks_for_a_while_after_it():
    raft = start(settings=SETTINGS)
    lead(raft)
    for voter in raft.state.others:
        receive(raft, voter, AppendEntriesReply(Term(2), True, Index(2)))

    def asks():
        raft.tick(raft.deadline())
        raft.propose([b"a"], raft.state.now)
        sent = [envelope.message.lease for envelope in obey(raft)]
        for voter in "23":
            acknowledge(raft, voter, raft.state.role.round)
        return set(sent)

    assert asks() == {False}
    assert not is_answered_at_once(raft, raft.state.now)
    until = raft.state.now + LEASE_TIMEOUTS * SETTINGS.election_timeout_max
    while raft.deadline() < until:
        assert asks() == {True}
    assert asks() == {False}
    assert not raft.state.role.beats


def test_a_round_that_asks_for_no_promise_ends_those_before_it():
    """Whoever echoes it may have missed them: of the two that answer here, one has promised nothing."""
    raft = leader(peers=5)
    acknowledge(raft, "2", 1)
    raft.state.role.lease_until = raft.deadline()
    raft.tick(raft.deadline())
    obey(raft)
    acknowledge(raft, "3", 2)
    assert not reads.has_lease(raft.state, raft.state.role)


def test_who_loses_a_leader_keeps_the_promise_that_it_gave_and_no_more():
    raft = start(settings=SETTINGS)
    heartbeat = make_append("2", 2, (1, 1))
    receive(raft, "2", msgspec.structs.replace(heartbeat, lease=True), 1.0)
    receive(raft, "2", heartbeat, 1.2)
    assert refuses(raft, 1.35)
    raft.unreachable(PeerId("2"), 1.25)
    assert refuses(raft, 1.29)
    assert not refuses(raft, 1.3)


def test_a_promise_outlasts_a_higher_term():
    raft = start(settings=SETTINGS)
    receive(raft, "2", msgspec.structs.replace(make_append("2", 2, (1, 1)), lease=True), 1.0)
    receive(raft, "3", AppendEntriesReply(Term(5), False, Index(0)), 1.1)
    receive(raft, "3", make_append("3", 5, (1, 1)), 1.1)
    raft.unreachable(PeerId("3"), 1.2)
    assert refuses(raft, 1.29)
    assert not refuses(raft, 1.3)


def test_the_only_voter_always_has_its_lease():
    raft = start(peers=1, settings=SETTINGS)
    lead(raft)
    assert is_answered_at_once(raft, raft.state.now)
    assert is_answered_at_once(raft, raft.state.now + 3600)


def test_rounds_that_no_lease_can_run_from_any_more_are_forgotten():
    raft = leader()
    for _ in range(40):
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2", raft.state.role.round)
    assert len(raft.state.role.beats) <= 8
