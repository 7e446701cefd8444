"""Thesis 6.4 (and §8 of the paper): linearizable reads without a log entry, by read index; step by step."""

from __future__ import annotations

import pytest

from quorate.core.messages import AppendEntriesReply
from quorate.core.ready import ReadReady
from quorate.errors import NotLeader
from quorate.testing.drive import lead, obey, receive, start
from quorate.types import Index, PeerId, ReadId, Term


def lead_and_commit(peers=3):
    """Start a leader of term 2 whose no-op at index 2 is committed."""
    raft = start(peers=peers)
    lead(raft)
    for voter in raft.state.others:
        receive(raft, voter, AppendEntriesReply(Term(2), True, Index(2)))
    assert raft.state.commit_index == 2
    obey(raft)
    return raft


def acknowledge(raft, sender, number, *, success=True):
    """Let the leader hear a reply to its heartbeat of that round, and give the reads that it releases."""
    reply = AppendEntriesReply(raft.state.term, success, Index(2), number)
    raft.receive(PeerId(sender), reply, raft.state.now)
    return raft.ready().reads


def rounds_sent(ready):
    return [(envelope.to, envelope.message.round) for envelope in ready.messages]


@pytest.mark.covers("pitfall 35")
def test_step_1_if_the_leader_has_not_yet_marked_an_entry_from_its_current_term_committed_it_waits():
    """Thesis 6.4: "If the leader has not yet marked an entry from its current term committed, it waits until it has
    done so." Row 35.
    """
    raft = start(log=(1, 1))
    lead(raft)
    raft.read(raft.state.now)
    assert raft.ready().messages == ()
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(3)), raft.state.now)
    ready = raft.ready()
    assert {number for _, number in rounds_sent(ready)} == {1}
    assert ready.reads == ()
    assert acknowledge(raft, "2", 1) == (ReadReady(ReadId(1), Index(3)),)


def test_step_2_the_leader_saves_its_current_commit_index_as_the_read_index():
    """Thesis 6.4: "The leader saves its current commit index in a local variable readIndex": when the round begins."""
    raft = lead_and_commit()
    raft.read(raft.state.now)
    raft.ready()
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(3), 0), raft.state.now)
    assert raft.state.commit_index == 3
    assert acknowledge(raft, "2", 1) == (ReadReady(ReadId(1), Index(2)),)


@pytest.mark.covers("pitfall 36")
def test_step_3_a_round_of_heartbeats_goes_to_all_and_a_majority_must_acknowledge_it():
    """Thesis 6.4: "It issues a new round of heartbeats and waits for their acknowledgments from a majority of the
    cluster." Row 36: a single reply is none, and one peer's reply counts once.
    """
    raft = lead_and_commit(peers=5)
    raft.read(raft.state.now)
    assert rounds_sent(raft.ready()) == [("2", 1), ("3", 1), ("4", 1), ("5", 1)]
    assert acknowledge(raft, "2", 1) == ()
    assert acknowledge(raft, "2", 1) == ()
    assert acknowledge(raft, "3", 1) == (ReadReady(ReadId(1), Index(2)),)


@pytest.mark.covers("pitfall 38")
def test_step_3_a_read_rides_only_on_a_round_sent_after_it():
    """A late acknowledgement of an earlier round says nothing of what was committed since. Row 38."""
    raft = lead_and_commit()
    first = raft.read(raft.state.now)
    raft.ready()
    second = raft.read(raft.state.now)
    raft.ready()
    assert acknowledge(raft, "2", 1) == (ReadReady(first, Index(2)),)
    assert acknowledge(raft, "3", 1) == ()
    assert acknowledge(raft, "3", 2) == (ReadReady(second, Index(2)),)


@pytest.mark.covers("pitfall 38")
def test_step_3_a_late_acknowledgement_of_a_heartbeat_without_reads_confirms_nothing():
    """Heartbeats sent before the first read carry round 0."""
    raft = lead_and_commit()
    raft.read(raft.state.now)
    raft.ready()
    assert acknowledge(raft, "2", 0) == ()
    assert acknowledge(raft, "3", 0) == ()


def test_step_3_a_refused_append_entries_of_the_term_acknowledges_its_round_too():
    """A follower whose log differs follows all the same: that is all the round asks."""
    raft = lead_and_commit()
    raft.read(raft.state.now)
    raft.ready()
    assert acknowledge(raft, "2", 1, success=False) == (ReadReady(ReadId(1), Index(2)),)


@pytest.mark.covers("pitfall 23")
def test_step_3_an_acknowledgement_of_an_earlier_term_confirms_nothing():
    """Rounds are counted anew in each term, and replies of other terms are never counted. Row 23."""
    raft = lead_and_commit()
    raft.read(raft.state.now)
    raft.ready()
    raft.receive(PeerId("2"), AppendEntriesReply(Term(1), True, Index(2), 1), raft.state.now)
    assert raft.ready().reads == ()


def test_reads_that_arrive_together_share_one_round():
    """Thesis 6.4: "a single round of heartbeats for any number of read-only queries that it has accumulated"."""
    raft = lead_and_commit()
    reads = [raft.read(raft.state.now) for _ in range(3)]
    assert rounds_sent(raft.ready()) == [("2", 1), ("3", 1)]
    assert [read.id for read in acknowledge(raft, "2", 1)] == reads


def test_the_only_voter_needs_no_round():
    """It is the majority."""
    raft = start(peers=1)
    lead(raft)
    read = raft.read(raft.state.now)
    assert raft.ready().reads == (ReadReady(read, Index(2)),)


@pytest.mark.covers("pitfall 37")
@pytest.mark.parametrize("under_way", [False, True], ids=["waiting for a round", "in a round"])
def test_reads_are_dropped_when_leadership_is_lost(under_way):
    """Nobody may answer them now, and no caller waits for ever. Row 37."""
    raft = lead_and_commit()
    read = raft.read(raft.state.now)
    if under_way:
        raft.ready()
    raft.receive(PeerId("2"), AppendEntriesReply(Term(3), False, Index(0)), raft.state.now)
    ready = raft.ready()
    assert (ready.dropped, ready.reads) == ((read,), ())


def test_who_knows_of_no_leader_takes_no_reads():
    """It could neither confirm them nor ask who can."""
    with pytest.raises(NotLeader) as unknown:
        start().read(0.0)
    assert unknown.value.redirect is None
