"""Who may campaign, who may vote, and to whom leadership is handed for its priority."""

from __future__ import annotations

import itertools

import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestPreVote, RequestVote, TimeoutNow
from quorate.core.ready import EventKind
from quorate.core.state import Follower
from quorate.core.transfer import PAUSES_MAX
from quorate.errors import InvalidConfiguration, NotLeader
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_member, obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term
from tests.core.changing import CATCHING_UP, FINAL, JOINT, OLD, acknowledge, change, leader, log_with, members

# Who may campaign, and vote.


@pytest.mark.parametrize("kind", ["learner", "witness"])
def test_learners_and_witnesses_never_campaign_nor_are_they_asked_to(kind):
    raft = start("3")
    configuration = Configuration("group", members("1", "2", m3=kind))
    receive(raft, "2", log_with(configuration))
    receive(raft, "2", make_append("2", 1, (2, 1), commit=2))
    receive(raft, "2", TimeoutNow(Term(1), PeerId("2")))
    raft.tick(raft.deadline())
    assert (obey(raft), raft.deadline()) == ([], float("inf"))
    raft.tick(1000.0)
    receive(raft, "2", make_append("2", 1, (2, 1)), 1000.0)
    receive(raft, "2", TimeoutNow(Term(1), PeerId("2")))
    assert (type(raft.state.role), raft.state.term) == (Follower, 1)
    raft.tick(2000.0)
    assert obey(raft) == []
    assert f"it is a {kind}, which never leads" in raft.status().why


def test_who_never_campaigns_believes_no_longer_in_a_leader_that_is_silent_and_believes_it_again_when_it_speaks():
    """It would send reads to it, and callers, for ever."""
    raft = start("3")
    receive(raft, "2", log_with(Configuration("group", members("1", "2", m3="learner"))))
    receive(raft, "2", make_append("2", 1, (2, 1), commit=2))
    silent = raft.deadline()
    assert silent == raft.state.election_deadline
    raft.tick(silent - 0.01)
    assert raft.state.leader == "2"
    raft.tick(silent)
    texts = [event.text for event in raft.ready().events if event.kind == EventKind.LEADER]
    assert (raft.state.leader, texts, raft.deadline()) == (None, ["2 is silent -> follow nobody"], float("inf"))
    with pytest.raises(NotLeader):
        raft.read(raft.state.now)
    raft.tick(silent + 1)
    assert raft.ready().events == ()
    receive(raft, "2", make_append("2", 1, (2, 1)))
    assert (raft.state.leader, raft.deadline()) == ("2", raft.state.election_deadline)


def test_who_may_campaign_asks_for_pre_votes_instead_when_its_leader_is_silent():
    raft = start("3")
    receive(raft, "2", make_append("2", 1, (1, 1)))
    raft.tick(raft.deadline())
    assert {type(envelope.message) for envelope in obey(raft)} == {RequestPreVote}


@pytest.mark.parametrize("kind", ["learner", "witness"])
def test_learners_and_witnesses_are_no_targets_of_a_transfer(kind):
    raft = leader()
    change(raft, "1", "2", "3", m4=kind)
    for _ in range(3):
        acknowledge(raft, "2", "3", "4")
    with pytest.raises(InvalidConfiguration, match="4 is no voter that could lead the group of 1, 2, 3, 4"):
        raft.transfer(PeerId("4"), raft.state.now)


def test_there_may_be_nobody_to_hand_over_to():
    raft = start(peers=1)
    lead(raft)
    with pytest.raises(InvalidConfiguration, match="there is no other voter that could lead"):
        raft.transfer(None, raft.state.now)


@pytest.mark.covers("pitfall 49", "etcd-io/raft campaign_learner_must_vote")
def test_a_learner_votes_for_it_may_be_a_voter_by_now():
    """Row 49: its log may lag behind the configuration that made it one."""
    raft = start("3")
    receive(raft, "2", log_with(Configuration("group", members("1", "2", m3="learner"))))
    [reply] = receive(raft, "1", RequestVote(Term(2), PeerId("1"), Index(3), Term(1)), 10.0)
    assert reply.vote_granted


def test_a_vote_is_given_to_strangers_whose_log_is_up_to_date():
    """Thesis 4.2.3, 4.1: "servers process incoming RPC requests without consulting their current configurations"."""
    raft = start()
    [asked] = receive(raft, "9", RequestPreVote(Term(2), PeerId("9"), Index(2), Term(1)), 10.0)
    [voted] = receive(raft, "9", RequestVote(Term(2), PeerId("9"), Index(2), Term(1)), 10.0)
    assert (asked.vote_granted, voted.vote_granted) == (True, True)


@pytest.mark.covers("pitfall 48")
def test_a_removed_peer_is_told_and_never_campaigns():
    """Row 48: the configuration in its own log says that it is none of the voters."""
    raft = leader()
    raft.change(members("1", "2"), raft.state.now)
    sent = obey(raft)
    acknowledge(raft, "2", "3")
    told = start("3", log=(1, 2))
    for configuration in (Configuration("group", members("1", "2"), OLD), Configuration("group", members("1", "2"))):
        index = told.state.log.last
        run = Run(Term(2), Index(index + 1), Kind.CONFIGURATION, 0.0, (encode_configuration(configuration),))
        receive(told, "1", AppendEntries(Term(2), PeerId("1"), index, Term(2), Index(0), 0, (run,)))
    assert {envelope.to for envelope in sent} == {"2", "3"}
    assert "3" in raft.state.role.progress
    assert told.status().why == (
        "it was removed from the group of 1, 2; stop it, or let it join anew (join=…),"
        " best with an empty data directory"
    )
    receive(told, "1", make_append("1", 2, (4, 2), commit=4))
    assert told.status().leader.name == "1"
    told.tick(told.deadline())
    assert (obey(told), told.deadline(), type(told.state.role)) == ([], float("inf"), Follower)
    told.tick(1000.0)
    assert (obey(told), type(told.state.role)) == ([], Follower)


def test_in_a_joint_configuration_those_who_leave_may_lead_still():
    raft = start("3")
    receive(raft, "2", log_with(CATCHING_UP, JOINT))
    raft.tick(raft.deadline())
    assert [envelope.to for envelope in obey(raft)] == ["1", "2", "4"]


def test_who_was_removed_two_configurations_ago_never_campaigns():
    raft = start("3")
    receive(raft, "2", log_with(CATCHING_UP, JOINT, FINAL, Configuration("group", members("1", "2"))))
    raft.tick(raft.deadline())
    assert obey(raft) == []


# Priority.


def priority_leader(interval=0.05, **priorities):
    raft = leader(peers=4, settings=Settings(heartbeat_interval=interval))
    wanted = tuple(make_member(name, priority=priorities.get(f"m{name}", 0)) for name in "1234")
    raft.change(wanted, raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "3", "4")
    return raft


def told_to_campaign(raft, *answering, beats=2000):
    """Let time pass while these answer, and give whom the leader asks to take over within so many heartbeats."""
    for _ in range(beats):
        raft.tick(raft.deadline())
        sent = obey(raft)
        for name in answering:
            last = raft.state.log.last
            raft.receive(PeerId(name), AppendEntriesReply(raft.state.term, True, last), raft.state.now)
            sent += obey(raft)
        if found := [envelope.to for envelope in sent if isinstance(envelope.message, TimeoutNow)]:
            return found
    return []


def test_leadership_goes_to_the_voter_of_highest_priority():
    assert told_to_campaign(priority_leader(m2=1, m3=7, m4=3), "2", "3", "4") == ["3"]


def test_who_is_about_to_leave_hands_over_to_any_priority():
    raft = priority_leader(m2=1)
    raft.change(tuple(make_member(name, priority=int(name == "2")) for name in "234"), raft.state.now)
    obey(raft)
    held = Index(raft.state.log.last - 1)
    while raft.state.role.transfer is None:
        raft.tick(raft.deadline())
        for name in "234":
            receive(raft, name, AppendEntriesReply(raft.state.term, True, held))
    assert raft.state.role.transfer.to == "2"


def test_leadership_goes_only_to_who_answers():
    assert told_to_campaign(priority_leader(m2=1, m3=7), "2", "4") == ["2"]


@pytest.mark.parametrize(("beats", "best"), [(1.5, "3"), (2, "2"), (2.5, "2")])
def test_who_has_not_answered_for_two_heartbeats_is_not_well(beats, best):
    raft = priority_leader(m2=1, m3=7)
    raft.state.role.prefer_at = raft.state.now = 20.0
    for peer, progress in raft.state.role.progress.items():
        progress.heard = 20.0 if peer != "3" else 20.0 - beats * raft.state.settings.heartbeat_interval
    raft.tick(20.0)
    assert raft.state.role.transfer.to == best


def test_leadership_goes_only_to_who_has_all_that_is_committed():
    """What is proposed meanwhile is refused: it must not wait for one that lags behind."""
    raft = priority_leader(m2=1, m3=7)
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "4")
    assert raft.state.role.progress[PeerId("3")].match_index == raft.state.commit_index - 1
    raft.state.role.prefer_at = raft.state.now
    raft.tick(raft.state.now)
    assert raft.state.role.transfer.to == "2"


def test_a_priority_does_not_take_back_a_transfer_that_was_asked_for():
    raft = priority_leader(m2=1)
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "4")
    raft.transfer(PeerId("3"), raft.state.now)
    raft.state.role.prefer_at = raft.state.now
    raft.tick(raft.state.now)
    assert raft.state.role.transfer.to == "3"


def test_the_pause_before_leadership_is_offered_again_doubles_but_not_for_ever():
    """Whoever is asked in vain again and again would otherwise keep the group from writing every other second."""
    raft = priority_leader(interval=0.15, m2=1)
    longest = raft.state.settings.election_timeout_max
    asked, gap = [], 0.0
    while gap < 2 * longest * 2**PAUSES_MAX or len(asked) < PAUSES_MAX + 4:
        assert told_to_campaign(raft, "2", "3", "4") == ["2"]
        gap = raft.state.now - asked[-1] if asked else 0.0
        asked.append(raft.state.now)
    beat = raft.state.settings.heartbeat_interval
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    doublings = [*range(PAUSES_MAX), *[PAUSES_MAX] * 3]
    assert gaps == [pytest.approx(2 * longest * 2**doubled, abs=2 * beat) for doubled in doublings]


def test_leadership_stays_with_who_has_the_highest_priority_itself():
    assert told_to_campaign(priority_leader(m1=7, m2=7, m3=3), "2", "3", "4", beats=400) == []


def test_leadership_stays_where_nobody_has_a_priority():
    assert told_to_campaign(leader(), "2", "3", beats=400) == []
