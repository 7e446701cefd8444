"""What tests/paper/test_thesis_6_4.py and test_thesis_6_4_1.py do not say of reads."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply, ReadIndex, ReadIndexReply
from quorate.core.ready import ReadReady
from quorate.errors import NotLeader
from quorate.testing.drive import lead, make_append, make_member, obey, receive, start
from quorate.types import Index, Kind, PeerId, ReadId, Run, Term


def test_reads_are_numbered_and_never_reused_over_terms():
    raft = start()
    lead(raft)
    first = raft.read(raft.state.now)
    receive(raft, "2", AppendEntriesReply(Term(9), False, Index(0)))
    lead(raft)
    assert raft.read(raft.state.now) == first + 1


def test_rounds_of_a_new_term_begin_anew_and_old_replies_do_not_count():
    raft = start()
    for _ in range(2):
        lead(raft)
        term = raft.state.term
        receive(raft, "2", AppendEntriesReply(term, True, raft.state.log.last))
        raft.read(raft.state.now)
        assert {envelope.message.round for envelope in raft.ready().messages} == {1}
        if term == 2:
            receive(raft, "2", AppendEntriesReply(Term(3), False, Index(0)))
            obey(raft)
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(2), 1), raft.state.now)
    assert raft.ready().reads == ()


def test_no_round_of_reads_begins_without_reads_and_heartbeats_have_numbers_of_their_own():
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    assert raft.ready().messages == ()
    for number in (1, 2):
        raft.tick(raft.deadline())
        assert {envelope.message.round for envelope in raft.ready().messages} == {number}
        assert not raft.state.role.rounds


# Elsewhere: a follower asks the leader.


def follower(**knobs):
    """Start peer 1, which follows 2 in term 2."""
    raft = start(**knobs)
    receive(raft, "2", make_append("2", 2, (1, 1)))
    return raft


def asked(raft):
    """Give whom this peer asks for a read index, and for which batches."""
    messages = [(envelope.to, envelope.message) for envelope in raft.ready().messages]
    return [(to, message.id) for to, message in messages if isinstance(message, ReadIndex)]


def answer(raft, read, index=7, life=None, term=2, sender="2"):
    reply = ReadIndexReply(Term(term), raft.state.life if life is None else life, read, Index(index))
    raft.receive(PeerId(sender), reply, raft.state.now)
    return raft.ready().reads


def test_a_follower_asks_the_leader_and_answers_at_its_index():
    """Thesis 6.4: "the follower could issue a request to the leader that just asked for a current readIndex"."""
    raft = follower()
    read = raft.read(0.0)
    assert asked(raft) == [("2", read)]
    assert answer(raft, read) == (ReadReady(read, Index(7)),)
    assert answer(raft, read) == ()  # repeated on its way


@pytest.mark.covers("pitfall 37")
def test_a_question_that_is_lost_is_asked_again():
    """Row 37: no read waits for ever."""
    raft = follower()
    read = raft.read(0.0)
    raft.ready()
    patience = raft.state.settings.election_timeout_min
    for now, again in ((patience - 0.01, []), (patience, [("2", read)]), (patience + 0.1, [])):
        raft.receive(PeerId("2"), make_append("2", 2, (1, 1)), now)
        assert asked(raft) == again
    assert answer(raft, read) == (ReadReady(read, Index(7)),)


def test_a_question_that_died_with_a_leader_is_asked_of_the_next_one():
    raft = follower()
    read = raft.read(0.0)
    raft.ready()
    raft.receive(PeerId("3"), make_append("3", 3, (1, 1)), 0.5)
    assert asked(raft) == [("3", read)]
    assert answer(raft, read, term=3, sender="3") == (ReadReady(read, Index(7)),)


def test_an_answer_of_a_leader_of_before_is_right_all_the_same():
    """Its index was right at some moment after the read had arrived."""
    raft = follower()
    read = raft.read(0.0)
    raft.receive(PeerId("3"), make_append("3", 3, (1, 1)), 0.1)
    raft.ready()
    assert answer(raft, read) == (ReadReady(read, Index(7)),)


@pytest.mark.covers("pitfall 38")
def test_an_answer_to_an_earlier_life_answers_nothing():
    """Its batches had the same names. Row 38."""
    raft = follower(chance=0.3)
    read = raft.read(0.0)
    raft.ready()
    assert start(chance=0.4).state.life != raft.state.life
    assert answer(raft, read, life=raft.state.life + 1) == ()
    assert answer(raft, read, sender="9") == ()
    assert answer(raft, read) != ()


def test_who_becomes_leader_confirms_by_itself_what_it_was_asked_before():
    raft = follower()
    read = raft.read(0.0)
    obey(raft)
    lead(raft)
    assert not raft.state.asked
    raft.receive(PeerId("3"), AppendEntriesReply(Term(3), True, Index(2)), raft.state.now)
    obey(raft)
    raft.receive(PeerId("3"), AppendEntriesReply(Term(3), True, Index(2), 1), raft.state.now)
    assert raft.ready().reads == (ReadReady(read, Index(2)),)


def test_nobody_is_asked_again_for_reads_that_are_forgotten_and_an_answer_to_them_releases_nothing():
    raft = follower()
    forgotten, read = raft.read(0.0), raft.read(0.0)
    assert asked(raft) == [("2", forgotten), ("2", read)]
    raft.forget(forgotten)
    raft.forget(forgotten)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1)), raft.state.settings.election_timeout_min)
    assert asked(raft) == [("2", read)]
    assert answer(raft, forgotten) == ()
    assert answer(raft, read) == (ReadReady(read, Index(7)),)


def test_while_nobody_leads_reads_wait_and_nobody_is_asked():
    raft = follower()
    raft.read(0.0)
    raft.ready()
    raft.tick(raft.deadline())
    assert asked(raft) == []
    receive(raft, "3", AppendEntriesReply(Term(9), False, Index(0)), 5.0)
    assert asked(raft) == []


def test_a_witness_has_nothing_to_read():
    raft = start("3")
    members = (make_member("1"), make_member("2"), make_member("3", "witness"))
    payload = encode_configuration(Configuration("group", members))
    run = Run(Term(2), Index(2), Kind.CONFIGURATION, 0.0, (payload,))
    receive(raft, "2", AppendEntries(Term(2), PeerId("2"), Index(1), Term(1), Index(0), 0, (run,)))
    with pytest.raises(NotLeader, match="3 does not lead; try 2@"):
        raft.read(0.0)


def leader_with_a_commit():
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    return raft


def test_the_leader_confirms_a_question_by_a_round_of_its_own_after_it():
    raft = leader_with_a_commit()
    raft.receive(PeerId("3"), ReadIndex(Term(2), 77, ReadId(5)), raft.state.now)
    assert {envelope.message.round for envelope in raft.ready().messages} == {1}
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(2), 1), raft.state.now)
    [envelope] = [found for found in raft.ready().messages if isinstance(found.message, ReadIndexReply)]
    assert (envelope.to, envelope.message) == ("3", ReadIndexReply(Term(2), 77, ReadId(5), Index(2)))


def test_questions_of_strangers_and_of_those_who_ask_the_wrong_one_are_not_answered():
    raft = leader_with_a_commit()
    receive(raft, "9", ReadIndex(Term(9), 77, ReadId(5)))
    assert (raft.state.role.reads, raft.state.term) == ([], 2)
    other = follower()
    assert receive(other, "3", ReadIndex(Term(2), 77, ReadId(5))) == []


def test_a_leader_that_steps_down_drops_its_own_reads_and_forgets_those_of_others():
    """They ask again where they wait."""
    raft = leader_with_a_commit()
    own = raft.read(raft.state.now)
    receive(raft, "3", ReadIndex(Term(2), 77, ReadId(5)))
    raft.receive(PeerId("2"), AppendEntriesReply(Term(3), False, Index(0)), raft.state.now)
    assert raft.ready().dropped == (own,)


def test_a_round_that_was_never_sent_confirms_nothing():
    raft = leader_with_a_commit()
    raft.receive(PeerId("3"), AppendEntriesReply(Term(2), True, Index(2), 99), raft.state.now)
    raft.read(raft.state.now)
    assert raft.ready().reads == ()
    assert raft.state.role.progress[PeerId("3")].round == 0
