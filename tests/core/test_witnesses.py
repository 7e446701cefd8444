"""Witnesses: who holds entries without their commands is none that holds data, whatever a configuration says."""

from __future__ import annotations

import msgspec
import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
)
from quorate.core.raft import Raft
from quorate.core.ready import EventKind
from quorate.errors import NotLeader
from quorate.settings import Settings
from quorate.testing.contents import Contents
from quorate.testing.drive import lead, make_configuration, obey, receive, start
from quorate.types import HardState, Index, Kind, PeerId, Run, Snapshot, Term
from tests.core.changing import acknowledge, change, leader, members

GROUP = make_configuration(3).group
WITNESS = Configuration(GROUP, members("1", "2", m3="witness"))
VOTER = Configuration(GROUP, members("1", "2", "3"))
LEARNER = Configuration(GROUP, members("1", "2", m3="learner"))
NEWCOMER = Configuration(GROUP, members("1", "2", m3="learner"), (), members("1", "2", "3"), members("1", "2"))
LEAVING = Configuration(GROUP, members("1", "2"), members("1", "2", "3"))
NOBODY = Configuration(GROUP, members("1", "2"))


def bare(first, count, term=2):
    return Run(Term(term), Index(first), Kind.BARE, 0.0, (b"",) * count)


def commands(first, count, term=2):
    return Run(Term(term), Index(first), Kind.COMMAND, 0.0, (b"a",) * count)


def entry(index, configuration, term=2):
    return Run(Term(term), Index(index), Kind.CONFIGURATION, 0.0, (encode_configuration(configuration),))


def append(prev, *runs, term=2, sender="1", commit=0):
    """Give an AppendEntries of a leader of ``term`` with these runs behind ``prev``, an index and its term."""
    index, of = prev
    return AppendEntries(Term(term), PeerId(sender), Index(index), Term(of), Index(commit), 0, runs)


def witness(*runs, commit=4):
    """Start 3, a witness that holds entries 3 and 4 without their commands."""
    raft = start("3", log=(1,))
    [reply] = receive(raft, "1", append((1, 1), entry(2, WITNESS), bare(3, 2), *runs, commit=commit))
    assert (reply.success, raft.state.bare, raft.state.commit_index) == (True, 3, commit)
    return raft


def restarted(raft, *runs, compaction=None):
    """Start a peer again whose disk holds these runs."""
    contents = Contents()
    contents.write(None, runs)
    if compaction:
        contents.write(compaction, ())
    again = Raft(raft.state.peer, Settings(), contents.stored(HardState(raft.state.term)), lambda: 0.0, 0.0)
    obey(again)
    return again


# What it holds.


def test_a_witness_knows_the_first_entry_that_it_holds_without_its_command_and_forgets_it_when_that_is_truncated():
    raft = witness(commit=2)
    receive(raft, "1", append((4, 2), bare(5, 2)))
    assert raft.state.bare == 3
    receive(raft, "2", append((4, 2), bare(5, 1, term=3), term=3, sender="2"))
    assert raft.state.bare == 3
    receive(raft, "2", append((2, 2), commands(3, 1, term=4), term=4, sender="2"))
    assert (raft.state.bare, raft.state.log.last) == (0, 3)


def test_a_witness_that_starts_again_is_one_whatever_its_configuration_says():
    first = entry(1, make_configuration(3), term=1)
    raft = restarted(witness(), first, entry(2, WITNESS), bare(3, 2), entry(5, VOTER))
    assert (raft.state.bare, raft.state.configuration) == (3, VOTER)
    raft.tick(raft.deadline())
    assert (obey(raft), raft.deadline()) == ([], float("inf"))


# Never leads, and answers no reads.


def test_who_holds_entries_without_their_commands_never_campaigns_though_it_is_a_voter_by_its_configuration():
    """It was a voter, was cut off, and was removed and taken in as a witness, which it has yet to learn."""
    raft = start("3", log=(1,))
    receive(raft, "1", append((1, 1), bare(2, 2), commit=3))
    assert (raft.state.configuration, raft.state.me.kind) == (make_configuration(3), "voter")
    receive(raft, "1", TimeoutNow(Term(2), PeerId("1")))
    raft.tick(raft.deadline())
    raft.tick(1000.0)
    assert (obey(raft), raft.status().role, raft.deadline()) == ([], "follower", float("inf"))
    text = "it was a witness, which holds no commands, and never leads: let it join anew with an empty data directory"
    assert raft.status().why == text


def test_a_witness_that_holds_no_commands_yet_never_campaigns_though_it_is_about_to_be_removed():
    """It could not say what later entries of the others hold."""
    raft = start("3", log=(1,))
    receive(raft, "1", append((1, 1), entry(2, WITNESS), entry(3, NOBODY), commit=2))
    raft.tick(1000.0)
    assert (obey(raft), raft.status().role, raft.state.bare) == ([], "follower", 0)


def test_a_newcomer_that_is_to_be_a_witness_is_nothing_else_yet():
    raft = start("3", log=(1,))
    wanted = Configuration(GROUP, LEARNER.members, (), WITNESS.members, NOBODY.members)
    receive(raft, "1", append((1, 1), entry(2, wanted), bare(3, 1), commit=3))
    raft.tick(raft.deadline())
    assert "it is a learner, which never leads, and has heard no leader" in raft.status().why


def test_who_holds_entries_without_their_commands_answers_no_reads():
    raft = start("3", log=(1,))
    receive(raft, "1", append((1, 1), bare(2, 2), commit=3))
    with pytest.raises(NotLeader, match="try 1@"):
        raft.read(0.0)


def test_a_witness_votes():
    raft = witness()
    [asked] = receive(raft, "2", RequestPreVote(Term(3), PeerId("2"), Index(4), Term(2)), 10.0)
    [voted] = receive(raft, "2", RequestVote(Term(3), PeerId("2"), Index(4), Term(2)), 10.0)
    assert (asked.vote_granted, voted.vote_granted) == (True, True)


# Takes no entry that makes it one that holds data.


@pytest.mark.parametrize("configuration", [VOTER, LEARNER, NEWCOMER, LEAVING], ids=range(4))
def test_who_was_a_witness_takes_no_entry_that_makes_it_one_that_holds_data(configuration):
    raft = witness(entry(5, NOBODY))
    before = (raft.state.log.last, raft.state.configuration, raft.state.commit_index)
    for runs in ((entry(6, configuration),), (commands(6, 2), entry(8, configuration), commands(9, 1))):
        raft.receive(PeerId("1"), append((5, 2), *runs, commit=9), raft.state.now)
        ready = raft.ready()
        assert (ready.messages, ready.messages_after_persist, ready.entries) == ((), (), ())
        text = "3 was a witness and is to hold data -> ignore; empty its data directory"
        assert [event.text for event in ready.events if event.kind is EventKind.CONFIGURATION] == [text]
        assert (raft.state.log.last, raft.state.configuration, raft.state.commit_index) == before
    [reply] = receive(raft, "1", append((5, 2), commands(6, 1)))
    assert (reply.success, reply.match_index) == (True, 6)


@pytest.mark.parametrize("configuration", [WITNESS, NOBODY], ids=["witness", "none"])
def test_who_was_a_witness_may_be_removed_and_be_a_witness_again(configuration):
    raft = witness(entry(5, NOBODY))
    [reply] = receive(raft, "1", append((5, 2), entry(6, configuration), bare(7, 1)))
    assert (reply.success, reply.match_index, raft.state.configuration) == (True, 7, configuration)


def test_what_came_without_commands_in_the_same_message_counts_too():
    raft = start("3", log=(1,))
    runs = (entry(2, WITNESS), bare(3, 1), entry(4, VOTER))
    assert receive(raft, "1", append((1, 1), *runs)) == []
    assert raft.state.log.last == 1
    [reply] = receive(raft, "1", append((1, 1), *runs, entry(5, WITNESS)))
    assert (reply.success, raft.state.log.last) == (True, 5)


def test_what_the_same_message_truncates_counts_no_more():
    """An old leader made a witness of it, and was deposed before that was committed: nothing of it is left."""
    raft = witness(commit=1)
    assert receive(raft, "2", append((3, 2), entry(4, VOTER, term=3), term=3, sender="2")) == []
    [reply] = receive(raft, "2", append((1, 1), commands(2, 1, term=3), entry(3, VOTER, term=3), term=3, sender="2"))
    assert (reply.success, raft.state.bare, raft.state.configuration) == (True, 0, VOTER)
    raft.tick(raft.deadline())
    assert {type(envelope.message) for envelope in obey(raft)} == {RequestPreVote}


def test_nothing_is_left_of_what_is_truncated_from_the_first_entry_without_its_command_on():
    raft = witness(commit=1)
    [reply] = receive(raft, "2", append((2, 2), commands(3, 1, term=3), entry(4, VOTER, term=3), term=3, sender="2"))
    assert (reply.success, raft.state.bare, raft.state.configuration) == (True, 0, VOTER)


# Snapshots.


def test_a_snapshot_of_a_witness_says_that_it_holds_no_state():
    raft = witness()
    assert [raft.snapshot_at(Index(index), 0.0).is_bare for index in (2, 3, 4)] == [False, True, True]


@pytest.mark.parametrize("index", [3, 4])
def test_a_witness_that_dropped_its_entries_for_a_snapshot_is_one_after_a_start_too(index):
    raft = witness()
    raft.compacted(raft.snapshot_at(Index(index), 0.0))
    first = entry(1, make_configuration(3), term=1)
    compaction = msgspec.structs.replace(raft.ready().compaction, start=Index(index), term=Term(2))
    again = restarted(raft, first, entry(2, WITNESS), bare(3, 2), compaction=compaction)
    assert (again.state.log.start, again.state.bare) == (index, index)


def test_what_is_held_in_full_in_a_snapshot_and_without_commands_behind_it_is_known_after_a_start():
    raft = witness()
    raft.compacted(raft.snapshot_at(Index(2), 0.0))
    first = entry(1, make_configuration(3), term=1)
    compaction = msgspec.structs.replace(raft.ready().compaction, start=Index(2), term=Term(2))
    again = restarted(raft, first, entry(2, WITNESS), bare(3, 2), compaction=compaction)
    assert (again.state.log.start, again.state.bare) == (2, 3)


def installed(raft, *, is_bare, configuration, index=9):
    """Let a peer take a leader's snapshot, and give its answer."""
    payload = encode_configuration(configuration)
    snapshot = Snapshot(Index(index), Term(2), 0.0, Index(2), payload, is_bare)
    [reply] = receive(raft, "1", InstallSnapshot(Term(2), PeerId("1"), snapshot))
    assert (reply.success, reply.match_index, raft.state.snapshot_index) == (True, index, index)


def test_who_is_sent_a_snapshot_without_state_is_a_witness_from_then_on():
    raft = start("3", log=())
    installed(raft, is_bare=True, configuration=WITNESS)
    assert raft.state.bare == 9
    assert receive(raft, "1", append((9, 2), entry(10, VOTER))) == []
    with pytest.raises(NotLeader):
        raft.read(0.0)
    receive(raft, "1", append((9, 2), bare(10, 1)))
    receive(raft, "2", append((9, 2), bare(10, 1, term=3), term=3, sender="2"))
    assert raft.state.bare == 9


def test_who_was_a_witness_and_is_sent_a_snapshot_with_all_state_holds_data():
    raft = witness()
    installed(raft, is_bare=False, configuration=LEARNER)
    assert raft.state.bare == 0
    [reply] = receive(raft, "1", append((9, 2), entry(10, VOTER), commit=10))
    assert (reply.success, raft.state.may_campaign) == (True, True)


@pytest.mark.parametrize("kind", ["witness", "voter", "learner"])
def test_a_leader_sends_a_witness_its_snapshot_without_state_and_others_all_of_it(kind):
    raft = leader(settings=Settings(trailing_entries=0))
    raft.compacted(raft.snapshot_at(Index(2), 0.0))
    change(raft, "1", "2", "3", m4=kind)
    [sent] = receive(raft, "4", AppendEntriesReply(Term(2), False, Index(0), 0, Index(3), Index(1)))[:1]
    assert isinstance(sent, InstallSnapshot)
    assert (sent.snapshot.is_bare, raft.state.snapshot.is_bare) == (kind == "witness", False)


def test_a_leader_knows_a_witness_for_as_long_as_it_tells_it_that_it_was_removed():
    raft = leader()
    change(raft, "1", "2", "3", m4="witness")
    acknowledge(raft, "4", "2", "3")
    acknowledge(raft, "4", "2", "3")
    change(raft, "1", "2", "3")
    acknowledge(raft, "2", "3")
    acknowledge(raft, "2", "3")
    assert set(raft.state.role.leaving) == {"4"}
    raft.compacted(raft.snapshot_at(raft.state.commit_index, 1.0))
    obey(raft)
    assert [named for _, named in raft.state.configurations if named.member(PeerId("4"))] == []
    assert {peer for peer, progress in raft.state.role.progress.items() if progress.is_witness} == {"4"}


AGAIN = Configuration(GROUP, members("1", "2", "3"), members("1", "2"))
GONE = Configuration(GROUP, members("1", "2"), members("1", "2", m3="witness"))


def elected(*configurations):
    """Start 1, whose log holds these configurations, and let it lead; none of them is known to be committed."""
    contents = Contents()
    contents.write(None, [entry(index, configuration, term=1) for index, configuration in enumerate(configurations, 1)])
    raft = Raft(PeerId("1"), Settings(), contents.stored(HardState(Term(1))), lambda: 0.0, 0.0)
    obey(raft)
    lead(raft)
    return raft


def bare_to(raft):
    """Give whom a leader sends no commands."""
    return {peer for peer, progress in raft.state.role.progress.items() if progress.is_witness}


@pytest.mark.parametrize("configuration", [LEARNER, NEWCOMER, AGAIN, VOTER], ids=range(4))
def test_a_new_leader_sends_commands_to_who_was_a_witness_and_is_back_to_hold_data(configuration):
    """Its log still holds the configuration that named it as a witness: it would be counted as a copy, and be none."""
    raft = elected(WITNESS, GONE, NOBODY, configuration)
    assert (bare_to(raft), raft.state.role.leaving) == (set(), {})


@pytest.mark.parametrize("configuration", [WITNESS, GONE], ids=range(2))
def test_a_new_leader_sends_none_to_who_was_to_hold_data_and_is_back_as_a_witness(configuration):
    raft = elected(VOTER, LEAVING, NOBODY, configuration)
    assert bare_to(raft) == {"3"}


@pytest.mark.parametrize(("before", "bare"), [((WITNESS, GONE), {"3"}), ((WITNESS, GONE, NOBODY, LEARNER), set())])
def test_a_new_leader_tells_who_leaves_as_what_it_was_last(before, bare):
    raft = elected(*before, NOBODY)
    assert (bare_to(raft), set(raft.state.role.leaving)) == (bare, {"3"})
