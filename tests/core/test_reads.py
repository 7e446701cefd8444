"""What tests/paper/test_thesis_6_4.py does not say of reads."""

from __future__ import annotations

from quorate.core.messages import AppendEntriesReply
from quorate.testing.drive import lead, obey, receive, start
from quorate.types import Index, PeerId, Term


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


def test_no_round_begins_without_reads():
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    assert raft.ready().messages == ()
    raft.tick(raft.deadline())
    assert {envelope.message.round for envelope in raft.ready().messages} == {0}
