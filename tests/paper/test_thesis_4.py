"""Thesis 4, cluster membership changes: each test quotes the rule that it proves."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import EventKind
from quorate.core.state import Candidate, Follower, Leader, PreCandidate
from quorate.errors import NotLeader
from quorate.testing.drive import lead, make_append, make_configuration, make_member, obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term

OLD = tuple(map(make_member, "123"))
JOINT = Configuration("group", tuple(map(make_member, "345")), OLD)
FINAL = Configuration("group", JOINT.members)


def append(*configurations, commit=0):
    """Give an AppendEntries of leader 2 in term 1 with these configurations from index 2 on."""
    run = Run(Term(1), Index(2), Kind.CONFIGURATION, 0.0, tuple(map(encode_configuration, configurations)))
    return AppendEntries(Term(1), PeerId("2"), Index(1), Term(1), Index(commit), 0, (run,))


def leader(peers=3):
    raft = start(peers=peers)
    lead(raft)
    acknowledge(raft, *raft.state.others)
    assert raft.state.commit_index == 2
    return raft


def acknowledge(raft, *names, match_index=None):
    for name in names:
        last = raft.state.log.last if match_index is None else Index(match_index)
        raft.receive(PeerId(name), AppendEntriesReply(raft.state.term, True, last), raft.state.now)
        obey(raft)


def change(raft, names):
    raft.change(tuple(map(make_member, names)), raft.state.now)
    return obey(raft)


# 4.1 Safety.


@pytest.mark.covers("pitfall 55")
def test_a_server_always_uses_the_latest_configuration_in_its_log_committed_or_not():
    """Thesis 4.1: "The new configuration takes effect on each server as soon as it is added to that server's log ...
    servers do not wait for configuration entries to be committed, and each server always uses the latest configuration
    found in its log". Row 55.
    """
    raft = start()
    receive(raft, "2", append(JOINT))
    assert (raft.state.commit_index, raft.state.configuration) == (0, JOINT)
    raft = leader()
    sent = change(raft, "12")
    assert raft.state.groups == (("1", "2"), ("1", "2", "3"))
    assert [(envelope.to, envelope.first) for envelope in sent] == [("2", 3), ("3", 3)]


@pytest.mark.covers("pitfall 51")
def test_a_server_must_be_prepared_to_fall_back_to_the_previous_configuration_in_its_log():
    """Thesis 4.1. Row 51."""
    raft = start()
    receive(raft, "2", append(JOINT, FINAL))
    receive(raft, "3", make_append("3", 2, (2, 1), [2]))
    assert raft.state.configuration == JOINT
    receive(raft, "3", make_append("3", 3, (1, 1), [3]))
    assert raft.state.configuration == make_configuration(3)


def test_votes_are_granted_and_entries_taken_without_consulting_the_configuration():
    """Thesis 4.1: "A server accepts AppendEntries requests from a leader that is not part of the server's latest
    configuration"; "a server also grants its vote to a candidate that is not part of the server's latest
    configuration".
    """
    raft = start()
    [reply] = receive(raft, "9", make_append("9", 2, (1, 1), [2]))
    assert (reply.success, raft.state.leader) == (True, "9")
    [reply] = receive(raft, "8", RequestVote(Term(3), PeerId("8"), Index(2), Term(2)), 10.0)
    assert reply.vote_granted


# 4.2.1 Catching up new servers.


@pytest.mark.covers("pitfall 50")
def test_a_new_server_joins_as_a_non_voting_member_until_it_has_caught_up():
    """Thesis 4.2.1: "a new server joins the cluster as a non-voting member. The leader replicates log entries to it,
    but it is not yet counted towards majorities". Row 50.
    """
    raft = leader()
    sent = change(raft, "1234")
    assert raft.state.groups == (("1", "2", "3"),)
    assert "4" in {envelope.to for envelope in sent}
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    acknowledge(raft, "4", match_index=3)
    raft.propose([b"b"], raft.state.now)
    obey(raft)
    acknowledge(raft, "4")
    assert raft.state.commit_index == 2  # 1 and 4 are no majority of 1, 2 and 3


def test_the_replication_is_split_into_rounds_and_the_last_one_must_be_short():
    """Thesis 4.2.1: "Each round replicates all the log entries present in the leader's log at the start of the round";
    "If the last round lasts less than an election timeout, then the leader adds the new server to the cluster".
    """
    raft = leader()
    change(raft, "1234")
    acknowledge(raft, "2", "3")
    way = raft.state.role.catch_ups[PeerId("4")]
    assert (way.round, way.end) == (1, 3)
    raft.propose([b"a", b"b"], raft.state.now)
    raft.state.now += raft.state.settings.election_timeout_min + 0.01
    acknowledge(raft, "4", match_index=2)  # the entries of the round are not there yet
    acknowledge(raft, "2", "3")
    assert (way.round, way.is_done) == (1, False)
    acknowledge(raft, "4", match_index=3)  # they are, but it took long
    assert (way.round, way.end, way.is_done) == (2, 5, False)
    acknowledge(raft, "2", "3")
    assert raft.state.configuration.target
    acknowledge(raft, "4", match_index=5)
    assert way.is_done
    assert raft.state.configuration.outgoing == OLD


# 4.2.2 Removing the current leader.


def remove_leader():
    """Remove the leader, 1, from 1, 2 and 3, up to where the new configuration is in its log."""
    raft = leader()
    change(raft, "23")
    assert raft.state.groups == (("2", "3"), ("1", "2", "3"))
    acknowledge(raft, "2", "3", match_index=3)
    assert raft.state.groups == (("2", "3"),)
    return raft


@pytest.mark.covers("pitfall 47")
def test_a_removed_leader_replicates_log_entries_but_does_not_count_itself_in_majorities():
    """Thesis 4.2.2: "a leader can manage a cluster that does not include itself; it replicates log entries but does not
    count itself in majorities". Row 47.
    """
    raft = remove_leader()
    acknowledge(raft, "2")
    assert isinstance(raft.state.role, Leader)
    assert raft.state.commit_index == 3  # 1 and 2 hold entry 4, and 1 does not count
    assert not raft.takes_proposals()
    with pytest.raises(NotLeader):  # it would not learn what became of a proposal
        raft.propose([b"a"], raft.state.now)


@pytest.mark.covers("pitfall 47")
def test_a_removed_leader_steps_down_once_the_new_configuration_is_committed_and_has_another_one_campaign():
    """Thesis 4.2.2: it "steps down once the C_new entry is committed"; and nobody need wait for a timeout, for it asks
    another one to campaign (3.10).
    """
    raft = remove_leader()
    acknowledge(raft, "2")
    raft.receive(PeerId("3"), AppendEntriesReply(raft.state.term, True, raft.state.log.last), raft.state.now)
    ready = raft.ready()
    assert TimeoutNow(Term(2), PeerId("1")) in [envelope.message for envelope in ready.messages]
    assert (type(raft.state.role), ready.commit_index, raft.deadline()) == (Follower, 4, float("inf"))
    texts = [event.text for event in ready.events if event.kind == EventKind.ROLE]
    assert texts == ["removed from the group -> follower"]


@pytest.mark.covers("pitfall 47")
def test_the_leader_of_two_may_be_removed():
    """Row 47: the one that stays is a majority of itself."""
    raft = leader(peers=2)
    change(raft, "2")
    acknowledge(raft, "2")
    acknowledge(raft, "2")
    assert type(raft.state.role) is Follower
    other = start("2", peers=2, log=(1, 2))
    configurations = (Configuration("group", OLD[1:2], OLD[:2]), Configuration("group", OLD[1:2]))
    run = Run(Term(2), Index(3), Kind.CONFIGURATION, 0.0, tuple(map(encode_configuration, configurations)))
    receive(other, "1", AppendEntries(Term(2), PeerId("1"), Index(2), Term(2), Index(0), 0, (run,)))
    other.receive(PeerId("1"), TimeoutNow(Term(2), PeerId("1")), 0.0)
    obey(other)
    assert (type(other.state.role), other.state.term) == (Leader, 3)


def test_a_server_that_is_not_part_of_its_own_latest_configuration_still_starts_elections_until_that_is_committed():
    """Thesis 4.2.2: "a server that is not part of its own latest configuration should still start new elections, as it
    might still be needed until the C_new entry is committed (as in Figure 4.6). It does not count its own vote in
    elections unless it is part of its latest configuration."
    """
    raft = start()
    receive(raft, "2", append(JOINT, FINAL))
    raft.tick(raft.deadline())
    assert type(raft.state.role) is PreCandidate
    assert [envelope.to for envelope in obey(raft)] == ["3", "4", "5"]
    receive(raft, "3", RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is PreCandidate
    receive(raft, "4", RequestPreVoteReply(Term(1), Term(2), True))
    receive(raft, "4", RequestVoteReply(Term(2), True))
    assert type(raft.state.role) is Candidate
    receive(raft, "5", RequestVoteReply(Term(2), True))
    assert type(raft.state.role) is Leader
    acknowledge(raft, "4", "5")
    assert raft.state.commit_index == 4  # its no-op committed what was needed, and it is no member
    assert set(raft.state.role.leaving) == {"2"}  # which may not know yet that it is none either
    acknowledge(raft, "2")
    raft.tick(raft.deadline())
    assert type(raft.state.role) is Follower


def test_a_server_that_knows_that_it_was_removed_starts_no_elections():
    """Once C_new is committed nobody needs it any more (4.2.2, 4.2.3)."""
    raft = start()
    receive(raft, "2", append(JOINT, FINAL, commit=3))
    raft.tick(raft.deadline())
    assert (obey(raft), raft.deadline(), type(raft.state.role)) == ([], float("inf"), Follower)
    raft.tick(1000.0)
    assert (obey(raft), type(raft.state.role)) == ([], Follower)


# 4.2.3 Disruptive servers: see test_thesis_9_6.py.


# 4.3 Arbitrary configuration changes using joint consensus.


def joint_leader():
    """Lead while C_old is 1, 2, 3 and C_new is 3, 4, 5, by votes of both; the no-op is at index 3."""
    raft = start()
    receive(raft, "2", append(JOINT))
    raft.tick(raft.deadline())
    obey(raft)
    return raft


@pytest.mark.covers("pitfall 57")
def test_agreement_for_elections_requires_separate_majorities_from_both():
    """Thesis 4.3: "Agreement (for elections and entry commitment) requires separate majorities from both the old and
    new configurations." Row 57: four of five are not enough.
    """
    raft = joint_leader()
    for voter in "45":
        receive(raft, voter, RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is PreCandidate
    why = "it is asking for pre-votes: 2 of 3, 2 needed and 1 of 3, 2 needed; no answer from 3, 2"
    assert raft.status().why == why
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is Candidate
    for voter in "23":
        receive(raft, voter, RequestVoteReply(Term(2), True))
    assert type(raft.state.role) is Candidate
    receive(raft, "5", RequestVoteReply(Term(2), True))
    assert type(raft.state.role) is Leader


@pytest.mark.covers("pitfall 57")
def test_agreement_for_commitment_requires_separate_majorities_from_both_and_so_do_reads():
    """Thesis 4.3. Row 57."""
    raft = leader()
    change(raft, "145")
    acknowledge(raft, "2", "4", "5")
    assert raft.state.configuration.outgoing == OLD
    joint, before = raft.state.log.last, raft.state.commit_index
    assert joint == before + 1
    acknowledge(raft, "4", "5")
    assert raft.state.commit_index == before
    acknowledge(raft, "2")
    assert raft.state.commit_index == joint


def test_log_entries_are_replicated_to_all_servers_in_both_configurations():
    """Thesis 4.3: "Log entries are replicated to all servers in both configurations"."""
    raft = leader()
    change(raft, "145")
    acknowledge(raft, "2", "4", "5")
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    assert raft.state.others == ("4", "5", "2", "3")
    assert set(raft.state.role.progress) == {"2", "3", "4", "5"}


@pytest.mark.covers("pitfall 45", "pitfall 46")
def test_c_new_is_created_only_once_c_old_new_has_been_committed():
    """Thesis 4.3: "Once C_old,new has been committed, neither C_old nor C_new can make decisions without approval of
    the other ... It is now safe for the leader to create a log entry describing C_new". Rows 45, 46: and once only.
    """
    raft = leader()
    change(raft, "12")
    for _ in range(3):
        raft.tick(raft.deadline())
        obey(raft)
        assert raft.state.configuration.outgoing == OLD
    acknowledge(raft, "2")
    assert raft.state.configuration == Configuration("group", OLD[:2])
    last = raft.state.log.last
    acknowledge(raft, "2", "3")
    raft.tick(raft.deadline())
    obey(raft)
    assert raft.state.log.last == last
