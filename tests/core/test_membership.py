"""What tests/paper/test_thesis_4.py does not say of changes: refusals with their sentences, and their ends."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration
from quorate.core.membership import ROUNDS_MAX
from quorate.core.messages import AppendEntriesReply
from quorate.core.ready import EventKind
from quorate.core.state import Follower, Leader
from quorate.errors import ChangeInProgress, InvalidConfiguration, NotLeader
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, make_member, obey, receive, start
from quorate.types import Index, PeerId, Term
from tests.core.changing import CATCHING_UP, FINAL, JOINT, acknowledge, change, leader, log_with, members, seen

# Refusals.


def test_only_a_leader_changes_members():
    with pytest.raises(NotLeader):
        start().change(members("1"), 0.0)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ((), "a group needs a voter at least"),
        (members(m1="learner"), "a group needs a voter at least"),
        (members("1", "2", m4="witness", m5="witness"), "witnesses must be fewer than half of those that vote"),
        ((make_member("1"), make_member("1")), "distinct ids and names"),
        (members("1", "2", m3="witness"), "3 cannot change to or from a witness, which holds no data: remove it"),
    ],
)
def test_members_that_cannot_be_a_group_are_refused(wanted, reason):
    raft = leader()
    with pytest.raises(InvalidConfiguration, match=reason):
        raft.change(wanted, raft.state.now)
    assert raft.state.log.last == 2


def test_a_witness_stays_one_and_nothing_else():
    raft = leader()
    for wanted in (members("1", "2", "3", m4="witness"), members("1", "2", "3", m4="witness", m5="learner")):
        raft.change(wanted, raft.state.now)
        for _ in range(4):
            obey(raft)
            acknowledge(raft, *raft.state.others)
        assert (raft.state.configuration.members, raft.state.configuration.is_settled) == (wanted, True)
    with pytest.raises(InvalidConfiguration, match="4 cannot change to or from a witness"):
        raft.change(members("1", "2", "3", "4"), raft.state.now)


def test_nobody_is_renamed_and_no_name_is_taken_over():
    raft = leader()
    two, four = make_member("2"), make_member("4")
    renamed = type(two)(two.id, four.address)
    with pytest.raises(InvalidConfiguration, match="2 cannot be renamed to 4"):
        raft.change((make_member("1"), renamed), raft.state.now)
    with pytest.raises(
        InvalidConfiguration,
        match=r"^2 is the name of another member \(id 2\): .* first, or give the newcomer a name of its own$",
    ):
        raft.change((make_member("1"), type(two)(four.id, two.address)), raft.state.now)


@pytest.mark.covers("pitfall 43")
def test_a_leader_that_has_committed_nothing_of_its_term_refuses_changes():
    """Two leaders in a row could otherwise commit two changes whose majorities do not meet. Row 43."""
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(1)))
    raft.state.commit_index = Index(1)
    with pytest.raises(ChangeInProgress, match="has not committed an entry of its term yet; try again at once"):
        raft.change(members("1", "2"), raft.state.now)
    acknowledge(raft, "2")
    change(raft, "1", "2")
    assert seen(raft) == ("12", "123", "")


def test_that_a_leader_is_new_is_said_before_that_a_change_is_under_way():
    """The one is over at once, and the other may be over then too: it may be the caller's own."""
    raft = start()
    receive(raft, "2", log_with(JOINT))
    lead(raft)
    with pytest.raises(ChangeInProgress, match="the leader is new"):
        raft.change(members("1", "2"), raft.state.now)
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(3)), raft.state.now)
    raft.receive(PeerId("4"), AppendEntriesReply(Term(2), True, Index(3)), raft.state.now)
    assert raft.state.commit_index == 3
    with pytest.raises(ChangeInProgress, match="another change of the members is under way"):
        raft.change(members("1", "2"), raft.state.now)


@pytest.mark.covers("pitfall 56")
def test_one_change_at_a_time_in_each_of_its_phases():
    """Row 56."""
    raft = leader()

    def refused():
        with pytest.raises(ChangeInProgress, match="another change of the members is under way"):
            raft.change(members("1", "2"), raft.state.now)

    change(raft, "1", "2", "4")
    refused()  # catching up
    acknowledge(raft, "2", "3", "4")
    assert seen(raft) == ("124", "123", "")
    refused()  # joint
    acknowledge(raft, "2")
    assert seen(raft) == ("124", "", "")
    refused()  # final, not committed
    acknowledge(raft, "2", "4")
    change(raft, "1", "2")


def test_no_change_while_leadership_is_handed_over():
    raft = leader()
    raft.transfer(PeerId("2"), raft.state.now)
    with pytest.raises(ChangeInProgress, match="leadership is being handed over to 2; try again then"):
        raft.change(members("1", "2"), raft.state.now)


def test_a_leader_that_was_removed_and_still_tells_others_begins_no_change():
    """It would be the newcomer of its own change."""
    raft = leader()
    change(raft, "2")
    acknowledge(raft, "2", "3")
    receive(raft, "2", AppendEntriesReply(Term(2), True, raft.state.log.last))
    assert isinstance(raft.state.role, Leader)  # 3 has not been told yet
    assert raft.status().why is None  # it leads yet
    with pytest.raises(ChangeInProgress, match="1 has been removed and is about to hand over"):
        raft.change(members("1", "2"), raft.state.now)


def removed_with_5(**settings):
    """Give a leader that is removed together with 5, who holds two entries and answers, when that is committed."""
    raft = leader(peers=5, **settings)
    change(raft, "2", "3", "4")
    for _ in range(2):  # the joint configuration, and the final one
        receive(raft, "5", AppendEntriesReply(Term(2), True, Index(2)))
        acknowledge(raft, "2", "3", "4")
    assert (raft.state.commit_index, raft.state.configuration.is_settled) == (4, True)
    assert (type(raft.state.role), list(raft.state.role.leaving)) == (Leader, ["5"])
    return raft


def test_a_leader_that_was_removed_waits_an_election_timeout_at_most_for_who_leaves_with_it():
    """It takes no proposals meanwhile; one whose disk hangs answers, and never learns that it was removed."""
    raft = removed_with_5()
    committed = raft.state.now
    while isinstance(raft.state.role, Leader):
        assert raft.state.now < committed + 2 * raft.state.settings.election_timeout_max
        raft.tick(raft.deadline())
        obey(raft)
        for peer in raft.state.role.progress if isinstance(raft.state.role, Leader) else ():
            receive(raft, peer, AppendEntriesReply(Term(2), True, Index(2 if peer == "5" else 4)))
    assert raft.state.now > committed


@pytest.mark.parametrize("compacted", [3, 4])
def test_a_leader_that_was_removed_does_not_wait_for_who_needs_what_is_compacted(compacted):
    """Who leaves is sent no snapshot: it learns nothing more."""
    raft = removed_with_5(settings=Settings(trailing_entries=0))
    raft.state.role.progress[PeerId("5")].heard -= raft.state.settings.election_timeout_max
    raft.compacted(raft.snapshot_at(Index(compacted), 0.0))
    assert (raft.state.log.start, type(raft.state.role)) == (compacted, Leader)
    receive(raft, "5", AppendEntriesReply(Term(2), False, Index(0), 0, Index(4), Index(3)))
    assert type(raft.state.role) is Follower


# Ways through.


def test_the_same_members_again_change_nothing():
    raft = leader()
    change(raft, "1", "2", "3")
    assert raft.state.log.last == 2


def test_a_change_of_addresses_and_priorities_alone_needs_no_joint_configuration():
    """Nor does one of learners: no quorum changes."""
    raft = leader()
    moved = (make_member("1"), make_member("2", node="other:1"), make_member("3", priority=5))
    raft.change(moved, raft.state.now)
    assert raft.state.configuration == Configuration("group", moved)
    obey(raft)
    acknowledge(raft, "2", "3")
    change(raft, "1", "2", "3", m4="learner")
    assert seen(raft) == ("123", "", "")
    assert raft.state.others == ("2", "3", "4")


def test_a_learner_that_is_promoted_catches_up_first():
    raft = leader()
    change(raft, "1", "2", "3", m4="learner")
    acknowledge(raft, "2", "3")
    change(raft, "1", "2", "3", "4")
    assert seen(raft) == ("123", "", "1234")
    acknowledge(raft, "2", "3", "4")
    assert seen(raft) == ("1234", "123", "")


def test_a_voter_that_becomes_a_learner_goes_by_a_joint_configuration():
    raft = leader()
    change(raft, "1", "2", m3="learner")
    assert seen(raft) == ("12", "123", "")
    assert raft.state.groups == (("1", "2"), ("1", "2", "3"))


def test_a_leader_that_becomes_a_learner_leads_no_longer():
    raft = leader()
    change(raft, "2", "3", m1="learner")
    acknowledge(raft, "2", "3")
    acknowledge(raft, "2", "3")
    assert type(raft.state.role) is Follower
    assert raft.deadline() == float("inf")


def test_removed_learners_are_told_too():
    raft = leader()
    change(raft, "1", "2", "3", m4="learner")
    acknowledge(raft, "2", "3", "4")
    change(raft, "1", "2", "3")
    assert set(raft.state.role.leaving) == {"4"}
    assert "4" in raft.state.role.progress
    acknowledge(raft, "2", "3", "4")
    raft.tick(raft.deadline())
    obey(raft)
    raft.tick(raft.deadline())
    assert raft.state.role.leaving == {}


def test_who_is_removed_and_silent_is_told_no_longer_after_a_while():
    raft = leader()
    change(raft, "1", "2")
    acknowledge(raft, "2", "3")
    began = raft.state.now
    while raft.state.role.leaving:
        assert raft.state.now <= began + raft.state.settings.catch_up_timeout
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2")
    assert raft.state.others == ("2",)
    assert seen(raft) == ("12", "", "")


def test_who_is_removed_is_told_until_its_own_time_is_over_whatever_else_changes_meanwhile():
    raft = leader(peers=4)
    change(raft, "1", "2", "3")
    acknowledge(raft, "2", "3")
    acknowledge(raft, "2", "3")
    until = raft.state.role.leaving[PeerId("4")]
    raft.tick(raft.state.now + 0.1)
    change(raft, "1", "2")
    assert set(raft.state.role.leaving) == {"4"}  # of 3 the majority of before is still made
    acknowledge(raft, "2", "3")
    assert (set(raft.state.role.leaving), raft.state.role.leaving[PeerId("4")]) == ({"3", "4"}, until)
    raft.state.role.progress[PeerId("2")].heard = until
    raft.tick(until)
    assert set(raft.state.role.leaving) == {"3"}


def test_who_comes_back_while_it_is_told_to_leave_is_a_member_again():
    raft = leader()
    change(raft, "1", "2")
    acknowledge(raft, "2", "3")
    receive(raft, "2", AppendEntriesReply(Term(2), True, raft.state.log.last))
    change(raft, "1", "2", m3="learner")
    assert raft.state.role.leaving == {}
    assert raft.state.others == ("2", "3")


# Catching up.


def newcomer(raft, match_index, later=0.0):
    raft.receive(PeerId("4"), AppendEntriesReply(Term(2), True, Index(match_index)), raft.state.now + later)
    obey(raft)


@pytest.mark.covers("pitfall 50")
def test_a_newcomer_that_falls_behind_faster_than_it_catches_up_is_given_up():
    """Thesis 4.2.1: "the leader should also abort the change if the new server is unavailable or is so slow that it
    will never catch up". Row 50.
    """
    raft = leader()
    change(raft, "1", "2", "3", "4")
    before = raft.state.log.last
    acknowledge(raft, "2", "3")
    for number in range(1, ROUNDS_MAX + 1):
        assert (raft.state.role.catch_ups[PeerId("4")].round, raft.state.role.change_failure) == (number, None)
        end = raft.state.log.last
        raft.propose([b"a"], raft.state.now)
        obey(raft)
        acknowledge(raft, "2", "3")
        for _ in range(4):
            newcomer(raft, end - 1, later=0.1)
            acknowledge(raft, "2", "3")
        newcomer(raft, end)
    assert raft.state.role.change_failure == "4 falls behind faster than it catches up"
    assert raft.state.configuration == make_configuration(3)
    assert raft.state.log.last > before
    texts = [event.text for event in raft.ready().events]
    assert texts == []  # all of it was handed out
    acknowledge(raft, "2", "3")
    change(raft, "1", "2")
    assert raft.state.role.change_failure is None


def test_a_newcomer_that_does_not_answer_is_given_up_and_the_sentence_says_where_it_was_looked_for():
    raft = leader()
    change(raft, "1", "2", "3", "4")
    acknowledge(raft, "2", "3")
    began = raft.state.now
    while raft.state.configuration.target:
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2", "3")
    assert raft.state.now >= began + raft.state.settings.catch_up_timeout
    text = "4 at 127.0.0.1:7004 has not answered for 10 s; it holds the log up to 0 of 3"
    assert raft.state.role.change_failure == text
    assert raft.state.configuration == make_configuration(3)


def advance(raft, span, *answers):
    """Let time pass in which 2 and 3 acknowledge everything and 4 what ``answers`` names, again and again."""
    until = raft.state.now + span
    while raft.state.now < until and raft.state.configuration.target:
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2", "3")
        for match_index in answers:
            newcomer(raft, match_index)


def test_a_newcomer_catches_up_to_where_the_log_ended_when_the_change_began():
    raft = leader()
    raft.change(members("1", "2", "3", "4"), raft.state.now)
    raft.propose([b"a"] * 5, raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "3")
    newcomer(raft, 3)
    assert seen(raft) == ("1234", "123", "")


def test_a_newcomer_keeps_its_priority_while_it_catches_up():
    raft = leader()
    raft.change((*members("1", "2", "3"), make_member("4", priority=5)), raft.state.now)
    assert raft.state.configuration.members[3] == make_member("4", "learner", priority=5)


def test_a_newcomer_that_answers_and_takes_nothing_is_given_up_too():
    """So does one that was a witness: it answers heartbeats, and takes no entry that would have it hold data."""
    raft = leader()
    change(raft, "1", "2", "3", "4")
    began = raft.state.now
    advance(raft, 60.0, 2)
    assert raft.state.now >= began + raft.state.settings.catch_up_timeout
    text = "4 at 127.0.0.1:7004 has taken nothing for 10 s; it holds the log up to 2 of 3"
    assert raft.state.role.change_failure == text
    assert raft.state.configuration == make_configuration(3)


def test_a_newcomer_that_takes_something_now_and_then_is_waited_for():
    raft = leader()
    raft.propose([b"a"] * 5, raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "3")
    change(raft, "1", "2", "3", "4")
    wait = raft.state.settings.catch_up_timeout - 1
    for match_index in (1, 3, 5, 7):
        advance(raft, wait, match_index)
        assert raft.state.configuration.target
    newcomer(raft, 8)  # all of the round, which took long: another one follows
    assert raft.state.role.catch_ups[PeerId("4")].round == 2
    newcomer(raft, raft.state.log.last)
    assert seen(raft) == ("1234", "123", "")


def test_a_newcomer_that_a_snapshot_is_under_way_to_is_waited_for():
    """However long it takes to send: its shell answers, and the shell here says when it breaks off."""
    raft = leader(settings=Settings(trailing_entries=0))
    raft.compacted(raft.snapshot_at(Index(2), 0.0))
    change(raft, "1", "2", "3", "4")
    newcomer(raft, 0)
    refusal = AppendEntriesReply(Term(2), False, Index(0), 0, Index(3), Index(1))
    receive(raft, "4", refusal)
    assert raft.state.role.progress[PeerId("4")].installing == 2
    advance(raft, 3 * raft.state.settings.catch_up_timeout, 0)
    assert (raft.state.role.change_failure, seen(raft)) == (None, ("123", "", "1234"))
    raft.shipped(PeerId("4"), Index(2), is_complete=True)
    newcomer(raft, 3)
    newcomer(raft, raft.state.log.last)
    assert seen(raft) == ("1234", "123", "")


def applying(raft, match_index, applied_index=0):
    reply = AppendEntriesReply(Term(2), True, Index(match_index), is_applying=True, applied_index=Index(applied_index))
    raft.receive(PeerId("4"), reply, raft.state.now)
    obey(raft)


def test_a_newcomer_that_has_yet_to_apply_what_it_holds_is_waited_for_and_has_no_vote():
    """However long it takes: it answers. Were it unable to, it would stop with a vote that is missed from then on."""
    raft = leader()
    change(raft, "1", "2", "3", "4")
    newcomer(raft, 2)
    applying(raft, raft.state.log.last)
    newcomer(raft, 2)  # sent before it knew what is committed; it was overtaken
    assert seen(raft) == ("123", "", "1234")
    until = raft.state.now + 3 * raft.state.settings.catch_up_timeout
    while raft.state.now < until:
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2", "3")
        applying(raft, raft.state.log.last)
    assert (raft.state.role.change_failure, seen(raft)) == (None, ("123", "", "1234"))
    newcomer(raft, raft.state.log.last)  # A long round is followed by another.
    newcomer(raft, raft.state.log.last)
    assert seen(raft) == ("1234", "123", "")


def test_a_newcomer_that_always_has_more_to_apply_votes_once_it_has_applied_what_there_was():
    """Where others write all the time, what it holds is never applied to the end."""
    raft = leader()
    change(raft, "1", "2", "3", "4")
    end = raft.state.log.last
    raft.propose([b"x", b"y"], raft.state.now)
    obey(raft)
    acknowledge(raft, "2", "3")
    applying(raft, end + 2, end - 1)
    assert seen(raft) == ("123", "", "1234")
    applying(raft, end + 1, end - 2)  # sent before; it was overtaken
    applying(raft, end + 2, end)
    assert seen(raft) == ("1234", "123", "")


def test_a_newcomer_that_stops_while_it_applies_is_given_up():
    raft = leader()
    change(raft, "1", "2", "3", "4")
    applying(raft, raft.state.log.last)
    advance(raft, 60.0)
    text = "4 at 127.0.0.1:7004 has not answered for 10 s; it holds the log up to 3 of 3"
    assert (raft.state.role.change_failure, raft.state.configuration) == (text, make_configuration(3))


def test_a_change_is_given_up_only_when_its_beginning_is_committed():
    raft = leader()
    change(raft, "1", "2", "3", "4")
    raft.state.role.change_failure = "4 is not wanted"
    raft.tick(raft.deadline())
    assert seen(raft) == ("123", "", "1234")
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(3)), raft.state.now)
    assert seen(raft) == ("123", "", "")
    texts = [event.text for event in raft.ready().events if event.kind == EventKind.CONFIGURATION]
    assert texts == ["4 is not wanted -> the change is given up", "configuration at index 4 -> 1, 2, 3"]


def test_who_has_caught_up_waits_for_the_others_and_need_not_do_so_again():
    raft = leader()
    change(raft, "1", "2", "3", "4", "5")
    acknowledge(raft, "2", "3", "4")
    assert raft.state.role.catch_ups[PeerId("4")].is_done
    for _ in range(3):
        raft.propose([b"a"], raft.state.now)
        obey(raft)
        acknowledge(raft, "2", "3")
    assert seen(raft) == ("123", "", "12345")
    acknowledge(raft, "5")
    assert seen(raft) == ("12345", "123", "")


# A new leader.


@pytest.mark.covers("pitfall 44", "pitfall 46")
@pytest.mark.parametrize("held", [(CATCHING_UP,), (CATCHING_UP, JOINT), (CATCHING_UP, JOINT, FINAL)], ids=range(3))
def test_a_new_leader_goes_on_with_a_change_in_each_of_its_phases(held):
    """Not before it has committed an entry of its own term. Rows 44, 46."""
    raft = start()
    receive(raft, "2", log_with(*held))
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(1 + len(held))))
    assert raft.state.configuration == held[-1]
    for _ in range(4):
        acknowledge(raft, "2", "3" if PeerId("3") in raft.state.others else "2", "4")
    assert raft.state.configuration == FINAL
    assert raft.state.commit_index == raft.state.log.last


def test_a_new_leader_that_knows_a_change_to_be_committed_goes_on_with_it_only_behind_its_own_first_entry():
    """As with everything that it finds in its log."""
    raft = start()
    receive(raft, "2", log_with(CATCHING_UP, JOINT))
    receive(raft, "2", make_append("2", 1, (3, 1), commit=3))
    lead(raft)
    assert (raft.state.configuration, raft.state.log.last) == (JOINT, 4)
    acknowledge(raft, "2", "4")
    assert (raft.state.configuration, raft.state.log.last) == (FINAL, 5)


@pytest.mark.covers("pitfall 51")
def test_configurations_that_came_as_one_run_are_rolled_back_one_by_one():
    """Thesis 4.1: "a server must be prepared to fall back to the previous configuration in its log". Row 51."""
    raft = start()
    receive(raft, "2", log_with(CATCHING_UP, JOINT, FINAL))
    assert raft.state.configuration == FINAL
    for index, configuration in ((4, JOINT), (3, CATCHING_UP), (2, make_configuration(3))):
        before = raft.state.log.term(Index(index - 1))
        term = raft.state.term + 1
        receive(raft, "3", make_append("3", term, (index - 1, before), [term]))
        assert raft.state.configuration == configuration


@pytest.mark.covers("pitfall 51")
def test_a_joint_configuration_that_is_overwritten_decides_no_longer():
    raft = leader()
    change(raft, "1", "4", "5")
    acknowledge(raft, "2", "4", "5")
    assert seen(raft) == ("145", "123", "")
    receive(raft, "2", make_append("2", 3, (3, 2), [3]))
    assert raft.state.groups == (("1", "2", "3"),)
    assert raft.state.others == ("2", "3", "4", "5")


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_new_leader_tells_those_whom_an_uncommitted_configuration_leaves_out(is_compacted):
    """The leader that removed them may have been gone before it told them: they would ask for votes for ever."""
    raft = start(settings=Settings(trailing_entries=0))
    receive(raft, "2", log_with(JOINT, FINAL))
    if is_compacted:  # Of the configurations only the last two are left.
        receive(raft, "2", make_append("2", 1, (2, 1), commit=2))
        raft.compacted(raft.snapshot_at(Index(2), 0.0))
        obey(raft)
        assert raft.state.configurations == [(2, JOINT), (3, FINAL)]
    sent = lead(raft)
    assert {envelope.to for envelope in sent} == {"2", "3", "4"}
    assert (raft.state.others, set(raft.state.role.leaving)) == (("2", "4"), {"3"})
    assert raft.state.role.leaving[PeerId("3")] == raft.state.now + raft.state.settings.catch_up_timeout
    acknowledge(raft, "2", "4")
    acknowledge(raft, "3")
    raft.tick(raft.deadline())
    obey(raft)
    raft.tick(raft.deadline())
    assert (raft.state.role.leaving, set(raft.state.role.progress)) == ({}, {"2", "4"})


def test_a_new_leader_whose_configuration_is_committed_tells_its_members_alone():
    raft = start()
    receive(raft, "2", log_with(JOINT, FINAL))
    receive(raft, "2", make_append("2", 1, (3, 1), commit=3))
    lead(raft)
    assert (set(raft.state.role.progress), raft.state.role.leaving) == ({"2", "4"}, {})
