"""``Ready``: the order of its fields, what joins the next one, and what an input leaves to be done."""

from __future__ import annotations

import pytest

from quorate.core import Ready
from quorate.core.messages import AppendEntriesReply, RequestVote, RequestVoteReply
from quorate.testing.drive import lead, make_append, start
from quorate.types import HardState, Index, PeerId, Term


def test_the_order_of_the_fields_is_the_order_in_which_the_shell_obeys():
    assert Ready.__struct_fields__ == (
        "number",
        "messages",
        "hard_state",
        "compaction",
        "entries",
        "messages_after_persist",
        "commit_index",
        "reads",
        "dropped",
        "events",
    )


def test_numbers_ascend_by_one_and_nothing_is_handed_out_twice():
    raft = start()
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 0.0)
    first, second = raft.ready(), raft.ready()
    assert second.number == first.number + 1
    assert first.writes
    assert not second.writes
    assert (second.messages, second.messages_after_persist, second.events) == ((), (), ())


@pytest.mark.parametrize("entries", [[], [2]])
def test_writes_says_whether_there_is_anything_for_the_disk(entries):
    raft = start(term=2)
    assert not raft.ready().writes
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), entries), 0.0)
    assert raft.ready().writes == bool(entries)


def test_what_is_wanted_while_a_write_is_under_way_joins_the_next_one():
    raft = start(term=2)
    for index in (1, 2, 3):
        raft.receive(PeerId("2"), make_append("2", 2, (index, min(index, 2)), [2]), 0.0)
        if index == 1:
            raft.ready()
    assert [run.first for run in raft.ready().entries] == [3, 4]


def test_acknowledgements_that_wait_together_are_one():
    raft = start(term=2)
    for index in (1, 2, 3, 3):
        raft.receive(PeerId("2"), make_append("2", 2, (index, min(index, 2)), [2]), 0.0)
    [envelope] = raft.ready().messages_after_persist
    assert envelope.message == AppendEntriesReply(Term(2), True, Index(4), 0, Index(3))


def test_an_acknowledgement_of_less_does_not_replace_one_of_more():
    raft = start(term=2)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2, 2, 2]), 0.0)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 0.0)
    assert [envelope.message.match_index for envelope in raft.ready().messages_after_persist] == [4, 2]


def test_an_acknowledgement_does_not_replace_a_vote():
    raft = start()
    raft.receive(PeerId("2"), RequestVote(Term(2), PeerId("2"), Index(1), Term(1)), 10.0)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 10.0)
    waiting = [type(envelope.message) for envelope in raft.ready().messages_after_persist]
    assert waiting == [RequestVoteReply, AppendEntriesReply]


@pytest.mark.covers("pitfall 82")
def test_heartbeats_never_wait_for_the_disk():
    """Sent at once while a write is under way, and answered at once where one is (house rule; row 75)."""
    raft = start()
    lead(raft)
    raft.propose([b"a"], raft.state.now)
    assert raft.ready().writes
    raft.tick(raft.deadline())
    assert [envelope.to for envelope in raft.ready().messages] == ["2", "3"]
    follower = start(term=2)
    follower.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 0.0)
    follower.ready()
    follower.receive(PeerId("2"), make_append("2", 2, (2, 2)), 0.1)
    [envelope] = follower.ready().messages
    assert envelope.message.match_index == 1  # what is durable of what it covered


def test_of_a_term_that_is_not_durable_nothing_is_acknowledged():
    raft = start()
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1)), 0.0)
    ready = raft.ready()
    assert (ready.messages, ready.hard_state) == ((), HardState(Term(2)))
    raft.persisted(ready.number)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1)), 0.0)
    assert len(raft.ready().messages) == 1
