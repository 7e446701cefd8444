from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, Member, configuration_text, encode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestPreVoteReply, RequestVote, RequestVoteReply
from quorate.core.ready import EventKind
from quorate.core.state import (
    Candidate,
    Follower,
    Outbox,
    PreCandidate,
    append,
    become_follower,
    commit,
    draw_election_deadline,
    hears_leader,
    is_answering,
    name,
    quorum_heard,
    send,
    truncate,
)
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, obey, receive, start
from quorate.types import Address, Index, Kind, PeerId, Run, Term


def run(first, term, *payloads, kind=Kind.COMMAND):
    return Run(Term(term), Index(first), kind, 0.0, payloads or (b"",))


@pytest.mark.covers("pitfall 15")
def test_the_election_timeout_is_drawn_between_its_bounds():
    """Anew each time, so that split votes are rare (§5.2). Row 15."""
    settings = Settings(election_timeout_min=0.3, election_timeout_max=0.6)
    for chance, deadline in ((0.0, 0.3), (0.5, 0.45), (0.999999, 0.6)):
        assert start(settings=settings, chance=chance).deadline() == pytest.approx(deadline, abs=1e-5)
    raft = start()
    draws = iter([0.25, 0.75])
    raft.state.random = lambda: next(draws)
    deadlines = []
    for _ in range(2):
        draw_election_deadline(raft.state)
        deadlines.append(raft.deadline())
    assert deadlines == pytest.approx([0.375, 0.525])


@pytest.mark.covers("pitfall 17")
def test_a_peer_waits_a_whole_election_timeout_after_its_start():
    """Row 17."""
    raft = start()
    raft.tick(0.299)
    assert type(raft.state.role) is Follower


def test_append_entries_leave_at_once_only_when_the_term_is_durable():
    raft = start()
    message = AppendEntries(Term(2), PeerId("1"), Index(1), Term(1), Index(0))
    raft.state.term = Term(2)
    send(raft.state, PeerId("2"), message)
    send(raft.state, PeerId("2"), RequestVoteReply(Term(2), vote_granted=False))
    ready = raft.ready()
    assert [envelope.message for envelope in ready.messages_after_persist] == [message]
    assert [envelope.message for envelope in ready.messages] == [RequestVoteReply(Term(2), vote_granted=False)]
    raft.persisted(ready.number)
    send(raft.state, PeerId("2"), message)
    assert [envelope.message for envelope in raft.ready().messages] == [message]


@pytest.mark.covers("pitfall 4")
def test_stepping_down_within_a_term_keeps_the_vote():
    """Row 4: cleared there, the peer could vote twice in the term."""
    raft = start(term=2, voted_for="3")
    raft.state.role = PreCandidate(votes={PeerId("1"): True})
    become_follower(raft.state, Term(2), PeerId("2"), "2 leads term 2")
    assert (raft.state.voted_for, raft.state.leader) == ("3", "2")
    become_follower(raft.state, Term(3), None, "remote term is higher (3 > 2)")
    assert (raft.state.voted_for, raft.state.leader) == (None, None)


@pytest.mark.covers("pitfall 27")
def test_truncation_lowers_what_every_write_under_way_promises():
    """Row 27: the same indexes will hold other entries."""
    raft = start(term=2)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2, 2, 2]), 0.0)
    first = raft.ready()
    raft.receive(PeerId("3"), make_append("3", 3, (2, 2), [3]), 0.0)
    second = raft.ready()
    raft.receive(PeerId("2"), make_append("2", 4, (2, 2), [4, 4]), 0.0)
    third = raft.ready()
    assert [ready.entries[0].first for ready in (first, second, third)] == [2, 3, 3]
    persisted = []
    for ready in (first, second, third):
        raft.persisted(ready.number)
        persisted.append(raft.state.persisted_index)
    assert persisted == [2, 2, 4]


def test_truncation_lowers_what_was_durable():
    raft = start(log=(1, 2, 2))
    truncate(raft.state, Index(2))
    assert (raft.state.persisted_index, raft.state.log.last) == (1, 1)
    [event] = raft.ready().events
    assert (event.kind, event.text) == (EventKind.LOG, "entries 2 to 3 conflict with the leader's -> truncate")


def test_truncation_takes_back_what_was_not_yet_handed_out():
    raft = start(term=2)
    append(raft.state, run(2, 2, b"a", b"b"), None)
    append(raft.state, run(4, 2, b"c"), None)
    truncate(raft.state, Index(3))
    append(raft.state, run(3, 3, b"d"), None)
    assert [(entry.first, entry.payloads) for entry in raft.ready().entries] == [(2, (b"a",)), (3, (b"d",))]


def test_what_is_truncated_before_it_was_handed_out_is_never_acknowledged():
    """It is not written at all: what the disk holds once all is durable is another entry."""
    raft = start()
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 0.0)
    raft.receive(PeerId("3"), make_append("3", 3, (2, 2), [3, 3]), 0.0)
    raft.receive(PeerId("3"), make_append("3", 3, (2, 2), [3]), 0.0)
    raft.receive(PeerId("3"), make_append("3", 4, (2, 2), [4]), 0.0)
    waiting = raft.ready().messages_after_persist
    said = [(envelope.to, envelope.message.term, envelope.message.match_index) for envelope in waiting]
    assert said == [("2", 2, 2), ("3", 4, 3)]


def test_a_vote_stands_though_what_came_after_it_is_truncated_before_either_was_handed_out():
    raft = start()
    raft.receive(PeerId("2"), RequestVote(Term(2), PeerId("2"), Index(1), Term(1)), 1.0)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), 1.0)
    raft.receive(PeerId("3"), make_append("3", 3, (1, 1), [3]), 1.0)
    said = [(envelope.to, type(envelope.message)) for envelope in raft.ready().messages_after_persist]
    assert said == [("2", RequestVoteReply), ("3", AppendEntriesReply)]


@pytest.mark.covers("pitfall 51")
def test_truncation_falls_back_to_the_previous_configuration():
    """Thesis 4.1; row 51."""
    raft = start(term=2)
    larger = make_configuration(5)
    payload = encode_configuration(larger)
    append(raft.state, run(2, 2, payload, kind=Kind.CONFIGURATION), larger)
    assert raft.state.groups == (tuple("12345"),)
    assert raft.ready().entries
    truncate(raft.state, Index(2))
    assert raft.state.groups == (tuple("123"),)
    ready = raft.ready()
    assert "configuration entry truncated -> 1, 2, 3" in [event.text for event in ready.events]
    truncate(raft.state, Index(1))
    assert (raft.state.configuration, raft.state.groups, raft.state.others) == (None, (), ())


@pytest.mark.covers("pitfall 81")
def test_bytes_wait_until_they_are_committed_and_durable_or_truncated():
    """Rows 75, 81: never reset, so that the limit holds whatever terms come and however slow the disk is."""
    raft = start(term=2)
    for first, command in enumerate((b"four", b"", b"four", b"", b"eight by"), 2):
        append(raft.state, run(first, 2, command), None)
    assert raft.state.uncommitted_bytes == 96
    commit(raft.state, Index(3))
    assert raft.state.uncommitted_bytes == 96
    raft.persisted(raft.ready().number)
    assert raft.state.uncommitted_bytes == 60  # two runs at once, and each of them once
    truncate(raft.state, Index(6))
    assert raft.state.uncommitted_bytes == 36
    commit(raft.state, Index(1))
    assert (raft.state.commit_index, raft.state.uncommitted_bytes) == (3, 36)
    commit(raft.state, Index(4))
    assert raft.state.uncommitted_bytes == 16
    commit(raft.state, Index(5))
    assert (raft.state.uncommitted_bytes, raft.state.uncommitted) == (0, [])


def test_who_hears_a_leader():
    """Thesis 4.2.3: within the minimum election timeout."""
    raft = start()
    receive(raft, "2", make_append("2", 1, (1, 1)), 1.0)
    assert hears_leader(raft.state)
    raft.tick(1.3)
    assert not hears_leader(raft.state)
    assert type(raft.state.role) is PreCandidate
    raft.receive(PeerId("2"), RequestPreVoteReply(Term(1), Term(2), vote_granted=True), 1.3)
    assert type(raft.state.role) is Candidate
    assert not hears_leader(raft.state)
    raft.receive(PeerId("2"), RequestVoteReply(Term(2), vote_granted=True), 1.3)
    assert hears_leader(raft.state)


def test_who_answers_its_leader():
    """Within the minimum election timeout, as with who hears one."""
    raft = start()
    lead(raft)
    progress = raft.state.role.progress[PeerId("2")]
    progress.heard = 1.0
    for now, answers in ((1.0, True), (1.299, True), (1.3, False)):
        raft.state.now = now
        assert is_answering(raft.state, progress) == answers


def test_the_quorum_was_heard_when_the_median_was():
    raft = start(peers=5)
    lead(raft)
    began = raft.state.now
    for sender, later in (("2", 0.1), ("3", 0.2)):
        raft.state.role.progress[PeerId(sender)].heard = began + later
    raft.state.now = began + 0.3
    assert quorum_heard(raft.state) == began + 0.1


@pytest.mark.parametrize("interval", [0.05, 0.03, 0.25])
def test_heartbeats_of_all_groups_of_a_node_fall_on_the_same_instants(interval):
    """They leave in one turn, and in one frame for each neighbour."""
    settings = Settings(heartbeat_interval=interval, election_timeout_min=1.0, election_timeout_max=2.0)
    one, other = (start(settings=settings, chance=chance) for chance in (0.0, 0.4321))
    lead(one)
    lead(other)
    one.tick(other.state.now)
    assert one.deadline() == other.deadline()
    for _ in range(1000):
        before = one.deadline()
        for raft in (one, other):
            raft.tick(before)
            assert raft.deadline() == pytest.approx(before + interval)  # neither twice nor late
            for voter in ("2", "3"):
                raft.receive(PeerId(voter), AppendEntriesReply(Term(2), True, Index(2)), before)
        assert one.deadline() == other.deadline()


def test_a_lone_voter_hears_itself_for_ever_and_has_nobody_to_speak_to():
    raft = start(peers=1)
    lead(raft)
    assert (quorum_heard(raft.state), raft.deadline()) == (float("inf"), float("inf"))
    raft.tick(1000.0)
    assert raft.status().role == "leader"


def test_leader_as_far_as_each_role_knows():
    raft = start()
    assert raft.state.leader is None
    receive(raft, "2", make_append("2", 1, (1, 1)), 0.0)
    assert raft.state.leader == "2"
    raft.tick(1.0)
    assert raft.state.leader is None
    obey(raft)
    lead(raft)
    assert raft.state.leader == "1"


def test_names_for_people():
    assert name(start().state, PeerId("2")) == "2"
    assert name(start(log=()).state, PeerId("f3a1")) == "f3a1"
    named = start(log=())
    named.form(Configuration("group", (Member(PeerId("1"), Address("one", "127.0.0.1", 7001)),)), 0.0)
    assert (name(named.state, PeerId("1")), name(named.state, None)) == ("one", "None")
    assert configuration_text(make_configuration(2)) == "1, 2"
    assert configuration_text(None) == "none"


def test_an_outbox_is_empty_only_when_every_field_of_it_is():
    assert Outbox().is_empty
    for field in Outbox.__struct_fields__:
        filled = Outbox()
        setattr(filled, field, ["something"])
        assert not filled.is_empty, field


def test_an_outbox_is_empty_once_all_is_handed_over_until_something_follows_from_an_input():
    raft = start()
    lead(raft)
    assert raft.state.outbox.is_empty
    raft.propose([b"x"], raft.state.now)
    assert not raft.state.outbox.is_empty
