"""The invariants hold of every healthy state, and each is shown a state that breaks it."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, Member
from quorate.core.invariants import check, check_configuration, check_step, facts
from quorate.core.messages import AppendEntriesReply, RequestPreVoteReply
from quorate.core.state import Candidate, PreCandidate, Unpersisted
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, obey, receive, start
from quorate.types import Address, HardState, Index, PeerId, Term


def leader():
    raft = start(log=(1, 1, 2))
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(3), True, Index(4)))
    raft.read(raft.state.now)
    raft.ready()
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    return raft.state


def follower():
    raft = start(log=(1, 1, 2), term=3)
    receive(raft, "2", make_append("2", 3, (3, 2), [3, 3], commit=4))
    raft.receive(PeerId("2"), make_append("2", 3, (5, 3), [3]), 0.0)
    raft.ready()
    return raft.state


def pre_candidate():
    raft = start()
    raft.tick(10.0)
    return raft.state


def candidate():
    raft = start()
    raft.tick(10.0)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    return raft.state


@pytest.mark.parametrize("make", [leader, follower, pre_candidate, candidate, lambda: start(log=()).state])
def test_healthy_states_pass(make):
    state = make()
    check(state)
    check_step(facts(state), facts(state))


def broken(make, change, message):
    return pytest.param(make, change, message, id=message)


def set_progress(**fields):
    def change(state):
        progress = state.role.progress[PeerId("2")]
        for name, value in fields.items():
            (progress.in_flight.extend if name == "in_flight" else lambda v, n=name: setattr(progress, n, v))(value)

    return change


def set_state(**fields):
    def change(state):
        for name, value in fields.items():
            setattr(state, name, value)

    return change


def set_log(**fields):
    def change(state):
        for name, value in fields.items():
            setattr(state.log, name, value)

    return change


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        broken(follower, set_log(starts=[1, 1, 4]), "stretches of the log start at ascending indexes"),
        broken(follower, set_log(terms=[1, 3, 2]), "terms ascend along the log"),
        broken(follower, set_log(terms=[1, 2]), "each stretch has one term"),
        broken(follower, set_state(term=Term(2)), "no entry is of a term that the peer has not seen"),
        broken(follower, set_log(starts=[2, 3, 4]), "the log has no hole"),
        broken(follower, set_log(last=Index(2)), "the log has no hole"),
        broken(follower, set_state(commit_index=Index(7)), "what is committed is in the log"),
        broken(follower, set_state(persisted_index=Index(7)), "what is durable is in the log"),
        broken(follower, set_state(durable=HardState(Term(4))), "no term is durable that was not seen"),
        broken(follower, lambda s: s.unpersisted.append(s.unpersisted[-1]), "what waits for the disk is in order"),
        broken(
            follower,
            lambda s: s.unpersisted.append(Unpersisted(99, Index(7), s.hard_state, 0.0)),
            "truncated entries promise nothing",
        ),
        broken(pre_candidate, lambda s: s.role.votes.clear(), "a pre-candidate is for itself"),
        broken(candidate, lambda s: s.role.votes.clear(), "a candidate votes for itself"),
        broken(candidate, set_state(voted_for=None), "a candidate votes for itself"),
        broken(leader, set_state(voted_for=None), "a leader voted for itself"),
        broken(leader, set_state(bare=Index(3)), "a leader holds all commands"),
        broken(follower, set_state(bare=Index(7)), "what is held without its commands is in the log"),
        broken(
            leader, lambda s: setattr(s.role, "first_index", Index(6)), "a leader's log holds the no-op of its term"
        ),
        broken(leader, lambda s: setattr(s.role, "first_index", Index(3)), "the no-op is of the leader's term"),
        broken(leader, lambda s: s.role.progress.popitem(), "a leader follows the progress of every other member"),
        broken(leader, lambda s: s.role.rounds.extend(s.role.rounds), "rounds of reads are in order"),
        broken(leader, set_progress(is_witness=True), "members but witnesses are sent what commands say"),
        broken(leader, set_progress(match_index=Index(6)), "match index < next index <= last \\+ 1"),
        broken(leader, set_progress(next_index=Index(7)), "match index < next index <= last \\+ 1"),
        broken(leader, set_progress(probing=True, in_flight=[6]), "the window is bounded"),
        broken(leader, set_progress(in_flight=[5, 5]), "what is in flight is in order"),
        broken(
            leader,
            lambda s: s.role.progress[PeerId("2")].in_flight.insert(0, Index(4)),
            "what is acknowledged is not in flight",
        ),
        broken(leader, set_progress(next_index=Index(5)), "what is offered next is not in flight"),
        broken(
            follower, lambda s: s.configurations.extend(s.configurations), "configurations are in the order of the log"
        ),
        broken(
            follower,
            lambda s: s.configurations.append((Index(7), make_configuration(3))),
            "a truncated configuration is not in force",
        ),
    ],
)
def test_each_broken_state_is_found(make, change, message):
    state = make()
    change(state)
    with pytest.raises(AssertionError, match=message):
        check(state)


def member(name, number):
    return Member(PeerId(name), Address(f"peer{number}", "127.0.0.1", 7000))


@pytest.mark.parametrize(
    ("voters", "message"),
    [
        ((member("a", 2), member("b", 1)), "members are in the order of their names, each named once"),
        ((member("a", 1), member("b", 1)), "members are in the order of their names, each named once"),
        ((member("a", 1), member("a", 2)), "ids are distinct"),
    ],
)
def test_members_are_distinct_and_in_order(voters, message):
    with pytest.raises(AssertionError, match=message):
        check_configuration(Configuration("group", voters))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_state(term=Term(2)), "the term never falls"),
        (set_state(voted_for=PeerId("3")), "a vote is given at most once in a term"),
        (set_state(voted_for=None), "a vote is given at most once in a term"),
        (set_log(last=Index(4)), "a leader never overwrites or deletes its entries"),
        (set_state(commit_index=Index(3)), "the commit index never falls"),
        (
            lambda s: s.configurations.append((Index(5), Configuration("group", (member("a", 1), member("a", 2))))),
            "ids are distinct",
        ),
    ],
)
def test_each_broken_step_is_found(change, message):
    state = leader()
    before = facts(state)
    change(state)
    with pytest.raises(AssertionError, match=message):
        check_step(before, facts(state))


def test_a_leader_that_commits_by_an_entry_of_an_earlier_term_is_found():
    raft = start(log=(1, 1, 2))
    lead(raft)
    before = facts(raft.state)
    raft.state.commit_index = Index(3)
    with pytest.raises(AssertionError, match="a leader commits by an entry of its own term"):
        check_step(before, facts(raft.state))
    raft.state.commit_index = Index(4)
    check_step(before, facts(raft.state))


def test_a_new_term_may_change_the_vote_and_one_who_leads_no_longer_may_lose_entries():
    state = leader()
    before = facts(state)
    state.term, state.voted_for, state.role = Term(4), PeerId("3"), PreCandidate({})
    check_step(before, facts(state))
    state.term, state.voted_for, state.role = Term(3), PeerId("1"), Candidate({})
    state.log.last = Index(4)
    check_step(before, facts(state))


ONE, TWO = (member("a", 1),), (member("b", 2),)


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (Configuration("group", ()), "somebody can lead"),
        (Configuration("group", ONE, TWO, TWO, ONE), "a change is in one phase"),
        (Configuration("group", ONE, (), TWO), "a change that waits can be taken back"),
    ],
)
def test_a_change_is_in_one_phase(configuration, message):
    with pytest.raises(AssertionError, match=message):
        check_configuration(configuration)


def compacted():
    raft = start(log=(1, 1, 2), settings=Settings(trailing_entries=1), term=3)
    receive(raft, "2", make_append("2", 3, (3, 2), [3], commit=3))
    raft.compacted(raft.snapshot_at(Index(3), 0.0))
    return raft.state


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        broken(compacted, set_log(start=Index(4), starts=[], terms=[]), "only what is in a snapshot was dropped"),
        broken(compacted, set_state(commit_index=Index(2)), "only what is in a snapshot was dropped"),
        broken(compacted, set_log(starts=[4], terms=[3]), "the log has no hole"),
        broken(follower, set_state(groups=()), "the latest configuration is in force"),
        broken(follower, set_state(others=()), "all members receive entries"),
        broken(leader, lambda s: s.role.beats.extend([(7, 0.0), (6, 0.0)]), "rounds of heartbeats are in order"),
    ],
)
def test_each_broken_state_of_snapshots_members_and_leases_is_found(make, change, message):
    state = make()
    check(state)
    change(state)
    with pytest.raises(AssertionError, match=message):
        check(state)
