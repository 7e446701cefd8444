"""What tests/paper does not say of replication: the window, fast back-up, and what a message may not do."""

from __future__ import annotations

import re

import pytest

from quorate.core.configuration import encode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply, RequestPreVoteReply, RequestVoteReply
from quorate.core.ready import EventKind
from quorate.core.replication import receive_append_entries_reply
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, obey, receive, start
from quorate.types import Index, Kind, PeerId, Run, Term


def reply(term, match_index):
    return AppendEntriesReply(Term(term), True, Index(match_index))


def refusal(term, prev, conflict_index, conflict_term=0):
    return AppendEntriesReply(Term(term), False, Index(0), 0, Index(prev), Index(conflict_index), Term(conflict_term))


def known(raft, name="2"):
    progress = raft.state.role.progress[PeerId(name)]
    return progress.match_index, progress.next_index, progress.probing, list(progress.in_flight)


# Proposing.


def lead_with(**settings):
    raft = start(peers=1, settings=Settings(**settings))
    lead(raft)
    return raft


def test_commands_of_one_call_are_one_run():
    raft = lead_with()
    assert raft.propose([b"a", b"", b"c"], 1.0) == range(3, 6)
    assert [run.payloads for run in raft.ready().entries] == [(b"a", b"", b"c")]


def test_no_commands_append_nothing():
    raft = lead_with()
    assert raft.propose([], 1.0) == range(3, 3)
    assert raft.ready().entries == ()


@pytest.mark.covers("pitfall 32")
def test_runs_keep_to_append_bytes_max_and_a_larger_command_goes_alone():
    """Each command counts 16 bytes more than itself. Row 32."""
    raft = lead_with(append_bytes_max=40, command_bytes_max=40)
    commands = [b"aaaa", b"bbbb", b"c" * 40, b"d", b"e"]
    assert raft.propose(commands, 1.0) == range(3, 8)
    runs = raft.ready().entries
    assert [run.payloads for run in runs] == [(b"aaaa", b"bbbb"), (b"c" * 40,), (b"d", b"e")]
    assert {run.time for run in runs} == {0.0}  # the shell stamps them
    raft.propose([b"c" * 40, b"d"], 1.0)
    assert [run.payloads for run in raft.ready().entries] == [(b"c" * 40,), (b"d",)]


def test_what_does_not_fit_any_more_adds_no_runs():
    raft = lead_with(uncommitted_bytes_max=40, append_bytes_max=40, command_bytes_max=40)
    assert raft.propose([b"four"] * 9, 1.0) == range(3, 5)
    assert [run.payloads for run in raft.ready().entries] == [(b"four", b"four")]


@pytest.mark.covers("pitfall 81")
@pytest.mark.parametrize(("limit", "taken"), [(100, 5), (99, 4), (20, 1), (19, 0)])
def test_commands_beyond_uncommitted_bytes_max_are_not_taken(limit, taken):
    """Row 81: what waits for a quorum is bounded."""
    raft = lead_with(uncommitted_bytes_max=limit, command_bytes_max=10, append_bytes_max=50)
    assert raft.propose([b"four"] * 5, 1.0) == range(3, 3 + taken)
    assert raft.state.log.last == 2 + taken
    counts = [len(run.payloads) for run in raft.ready().entries]
    assert (sum(counts), 0 in counts) == (taken, False)


def test_each_run_is_as_long_as_append_bytes_max_allows():
    raft = lead_with(append_bytes_max=60, command_bytes_max=10)
    raft.propose([b"four"] * 8, 1.0)
    assert [len(run.payloads) for run in raft.ready().entries] == [3, 3, 2]


def test_the_shell_stamps_all_that_a_leader_appends():
    raft = start()
    raft.tick(raft.deadline())
    for granted in (RequestPreVoteReply(Term(1), Term(2), True), RequestVoteReply(Term(2), True)):
        raft.receive(PeerId("2"), granted, raft.state.now)
    first = raft.ready()
    raft.persisted(first.number)
    receive(raft, "2", reply(2, 2))
    raft.propose([b"a"], raft.state.now)
    raft.change(make_configuration(2).members, raft.state.now)
    runs = [*first.entries, *raft.ready().entries]
    assert [run.kind for run in runs] == [Kind.NOOP, Kind.COMMAND, Kind.CONFIGURATION]
    assert {run.time for run in runs} == {0.0}


def test_room_comes_back_with_commits():
    raft = lead_with(uncommitted_bytes_max=20, command_bytes_max=10)
    assert raft.propose([b"four"], 1.0) == range(3, 4)
    assert raft.propose([b"four"], 1.0) == range(4, 4)
    assert raft.propose([], 1.0) == range(4, 4)
    obey(raft)
    assert raft.propose([b"four"], 1.0) == range(4, 5)


def test_a_follower_counts_what_it_holds_when_it_leads_later():
    raft = start(settings=Settings(uncommitted_bytes_max=40, command_bytes_max=10))
    receive(raft, "2", make_append("2", 1, (1, 1), [1, 1]))
    lead(raft)
    assert raft.propose([b""], raft.state.now) == range(5, 5)


# The leader's side.


@pytest.mark.covers("pitfall 31", "etcd-io/raft replicate_pause")
def test_the_window_bounds_what_is_in_flight():
    """Row 31."""
    raft = start(settings=Settings(in_flight_max=2))
    lead(raft)
    receive(raft, "2", reply(2, 2))
    sent = []
    for _ in range(4):
        raft.propose([b"a"], raft.state.now)
        sent += [envelope.first for envelope in obey(raft) if envelope.to == "2"]
    assert sent == [3, 4]
    assert known(raft) == (2, 5, False, [3, 4])
    [append] = receive(raft, "2", reply(2, 3))
    assert append.prev_log_index == 4
    assert known(raft) == (3, 7, False, [4, 6])


def test_less_attached_than_offered_is_offered_again():
    raft = start()
    lead(raft)
    receive(raft, "2", reply(2, 2))
    raft.propose([b"a", b"b", b"c"], raft.state.now)
    [envelope] = raft.ready().messages
    assert (envelope.first, envelope.last) == (3, 5)
    raft.sent(PeerId("2"), Index(4))
    [envelope] = raft.ready().messages
    assert (envelope.first, envelope.last) == (5, 5)
    raft.sent(PeerId("stranger"), Index(4))
    receive(raft, "2", reply(9, 0))
    raft.sent(PeerId("2"), Index(4))  # it leads no longer


def test_what_was_read_late_and_lost_is_offered_again():
    raft = start(settings=Settings(in_flight_max=1))
    lead(raft)
    raft.receive(PeerId("2"), reply(2, 1), raft.state.now)  # of a heartbeat: the probe's entries are read from the disk
    raft.sent(PeerId("2"), Index(2))
    raft.propose([b"a"], raft.state.now)
    assert [envelope.first for envelope in obey(raft) if envelope.to == "2"] == [2]


def test_commits_are_told_to_idle_peers_once():
    raft = start()
    lead(raft)
    [append] = receive(raft, "2", reply(2, 2))
    assert (append.leader_commit, append.entries) == (2, ())
    assert receive(raft, "2", reply(2, 2)) == []


def test_commits_are_told_with_the_ready_that_follows_at_once():
    raft = start()
    lead(raft)
    raft.receive(PeerId("2"), reply(2, 2), raft.state.now)
    assert (raft.ready(more_follows=True).messages, raft.state.commit_index) == ((), 2)
    raft.propose([b"answered, and written again"], raft.state.now)
    told = raft.ready().messages[0]
    assert (told.to, told.first, told.message.leader_commit) == ("2", 3, 2)
    assert raft.ready().messages == ()


@pytest.mark.covers("pitfall 26")
@pytest.mark.parametrize(
    ("refused", "goes_on"),
    [
        (refusal(7, 9, 4), 4),  # a short log: at its end
        (refusal(7, 9, 7, 5), 7),  # a term that we hold: behind our last entry of it
        (refusal(7, 9, 6, 4), 6),  # a term that we do not hold: at its first entry there
        (refusal(7, 9, 99), 9),  # never above what was refused
        (refusal(7, 9, 1, 6), 9),
        (refusal(7, 9, 0), 1),  # never at or below what matches
    ],
)
def test_back_up_goes_over_a_whole_term_at_once(refused, goes_on):
    """§5.3, end; row 26."""
    raft = start(log=(1, 2, 2, 5, 5, 5, 6, 6, 6))
    lead(raft)
    [append] = receive(raft, "2", refused)
    assert append.prev_log_index == goes_on - 1
    assert known(raft) == (0, goes_on, True, [10])


def test_back_up_never_goes_below_what_matches():
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    receive(raft, "2", reply(2, 3))
    receive(raft, "2", refusal(2, 5, 1))
    assert known(raft) == (3, 4, True, [5])


@pytest.mark.covers("pitfall 33")
def test_a_stale_refusal_changes_nothing():
    """What was refused matches by now, or was asked before the last probe, or was never asked. Row 33."""
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    receive(raft, "2", refusal(2, 4, 3))
    before = known(raft)
    for prev in (4, 1, 99):
        assert receive(raft, "2", refusal(2, prev, 1)) == []
        assert known(raft) == before
    receive(raft, "2", reply(2, 5))
    before = known(raft)
    for prev in (2, 5, 6, 99):
        receive(raft, "2", refusal(2, prev, 1))
        assert known(raft) == before


def test_an_answer_to_a_heartbeat_that_a_slow_disk_is_behind_keeps_the_pipeline():
    """It says what is durable of what the heartbeat covered, and refuses nothing."""
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    receive(raft, "2", reply(2, 3))
    obey(raft)
    before = known(raft)
    assert before == (3, 6, False, [5])
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(3), 0, Index(5)))
    assert known(raft) == before


def test_a_late_acknowledgement_lowers_nothing():
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    for match_index in (5, 3, 0):
        receive(raft, "2", reply(2, match_index))
        assert known(raft) == (5, 6, False, [])
        assert raft.state.role.progress[PeerId("2")].applied_index == 5


def test_what_a_peer_says_it_has_applied_counts_as_far_as_it_is_durable_there():
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    for applied_index, counted in ((2, 2), (9, 3), (1, 3)):
        said = AppendEntriesReply(Term(2), True, Index(3), is_applying=True, applied_index=Index(applied_index))
        receive(raft, "2", said)
        assert raft.state.role.progress[PeerId("2")].applied_index == counted


@pytest.mark.covers("pitfall 5")
def test_acknowledgements_of_strangers_count_for_nothing():
    """Row 5."""
    raft = start(peers=1)
    lead(raft)
    receive_append_entries_reply(raft.state, PeerId("stranger"), reply(2, 2))
    assert raft.state.role.progress == {}
    raft = start()
    lead(raft)
    receive(raft, "stranger", reply(2, 2))
    receive(raft, "1", reply(2, 2))
    assert raft.state.commit_index == 0


def test_acknowledgements_that_come_when_it_leads_no_longer_are_nothing():
    raft = start()
    lead(raft)
    raft.tick(raft.state.now + 1.0)
    assert receive(raft, "2", reply(2, 2)) == []
    assert raft.state.commit_index == 0


# The follower's side.


@pytest.mark.parametrize(
    ("log", "prev", "answer"),
    [
        ((1, 1), (5, 3), (3, 0)),  # too short: one beyond its last index
        ((1, 2, 2, 2), (4, 3), (2, 2)),  # another term: the first index of that
        ((), (5, 3), (1, 0)),
    ],
)
def test_a_refusal_says_where_to_go_on(log, prev, answer):
    raft = start(log=log, term=3)
    [refused] = receive(raft, "2", make_append("2", 3, prev))
    assert (refused.success, refused.match_index) == (False, 0)
    assert (refused.prev_log_index, refused.conflict_index, refused.conflict_term) == (prev[0], *answer)


def test_every_reply_echoes_the_round():
    raft = start(term=3)
    for term, prev in ((2, (1, 1)), (3, (9, 9)), (3, (1, 1))):
        request = AppendEntries(Term(term), PeerId("2"), Index(prev[0]), Term(min(prev[1], term)), Index(0), 7)
        assert [answer.round for answer in receive(raft, "2", request)] == [7]


def test_a_run_is_taken_from_where_it_is_new():
    """The leader's runs need not be ours: entries are compared by their terms alone."""
    raft = start(log=(1, 2, 2))
    raft.receive(PeerId("2"), make_append("2", 3, (1, 1), [2, 2, 2, 2]), 0.0)
    assert [(run.first, len(run.payloads)) for run in raft.ready().entries] == [(4, 2)]


def test_a_run_whose_term_we_hold_elsewhere_conflicts_where_the_terms_part():
    raft = start(log=(1, 2, 2, 3, 3))
    receive(raft, "2", make_append("2", 4, (1, 1), [2, 2, 2, 4]))
    assert [raft.state.log.term(Index(index)) for index in range(1, 6)] == [1, 2, 2, 2, 4]


def test_what_is_durable_already_is_acknowledged_at_once_when_it_comes_again():
    raft = start(log=(1, 2, 2))
    receive(raft, "2", make_append("2", 2, (1, 1), [2, 2]))
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2, 2]), 0.0)
    assert [envelope.message.match_index for envelope in raft.ready().messages] == [3]


def test_each_leader_is_answered_though_the_disk_has_not_yet_answered_for_the_one_before():
    raft = start()
    raft.receive(PeerId("2"), make_append("2", 1, (1, 1), [1]), 0.0)
    raft.receive(PeerId("3"), make_append("3", 2, (2, 1), [2]), 0.0)
    waiting = raft.ready().messages_after_persist
    assert [(envelope.to, envelope.message.match_index) for envelope in waiting] == [("2", 2), ("3", 3)]


def test_what_is_committed_is_never_truncated():
    """No leader asks for it; the last defence says so and answers nothing."""
    for committed in (2, 3):
        raft = start(log=(1, 2, 2))
        receive(raft, "2", make_append("2", 2, (3, 2), commit=committed))
        raft.receive(PeerId("3"), make_append("3", 3, (1, 1), [3]), 0.0)
        ready = raft.ready()
        assert (raft.state.log.last, ready.entries, ready.messages_after_persist) == (3, (), ())
        text = "entry 2 is committed and conflicts with the leader's -> ignore it"
        assert [event.text for event in ready.events if event.kind == EventKind.IGNORED] == [text]


def configuration_entry(payload):
    run = Run(Term(1), Index(1), Kind.CONFIGURATION, 0.0, (payload,))
    return AppendEntries(Term(1), PeerId("2"), Index(0), Term(0), Index(0), 0, (run,))


def test_a_configuration_takes_effect_when_it_is_appended():
    """Thesis 4.1: "servers do not wait for configuration entries to be committed"."""
    raft = start(log=())
    configuration = make_configuration(3)
    raft.receive(PeerId("2"), configuration_entry(encode_configuration(configuration)), 0.0)
    ready = raft.ready()
    assert raft.state.configuration == configuration
    assert "configuration at index 1 -> 1, 2, 3" in [event.text for event in ready.events]
    assert raft.state.groups == (("1", "2", "3"),)
    assert raft.state.commit_index == 0


def test_a_configuration_that_cannot_be_read_is_not_taken():
    raft = start(log=())
    raft.receive(PeerId("2"), configuration_entry(b"\xc1"), 0.0)
    ready = raft.ready()
    assert (raft.state.log.last, raft.state.configuration, ready.messages_after_persist) == (0, None, ())
    [text] = [event.text for event in ready.events if event.kind == EventKind.IGNORED]
    assert re.fullmatch("entry 1 is not a configuration: .* -> ignore the message", text)
