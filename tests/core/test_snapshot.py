"""Compacting, sending, taking over: what tests/paper/test_figure_13.py does not say of snapshots."""

from __future__ import annotations

import msgspec
import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    RequestPreVoteReply,
    RequestVote,
)
from quorate.core.raft import Raft
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, make_member, obey, receive, start
from quorate.types import Compaction, HardState, Index, Kind, PeerId, Run, Snapshot, Stored, Term

EAGER = Settings(trailing_entries=0, snapshot_entries=100)


def snapshot(index, term, configuration=None, at=1):
    payload = encode_configuration(configuration or make_configuration(3))
    return Snapshot(Index(index), Term(term), 0.0, Index(at), payload)


def install(index, term, of=3, configuration=None, at=1, leader="2"):
    return InstallSnapshot(Term(of), PeerId(leader), snapshot(index, term, configuration, at))


def terms(raft):
    log = raft.state.log
    return [log.term(Index(index)) for index in range(log.start + 1, log.last + 1)]


def leader(entries=8, settings=EAGER, compacted=None):
    """Start a leader of term 2 of three that holds so many entries, all committed, and compact what is asked for.

    3 has acknowledged nothing, and is silent when the log is compacted.
    """
    raft = start(log=(1,) * (entries - 1), settings=settings)
    lead(raft)
    acknowledge(raft, "2", entries)
    assert raft.state.commit_index == entries
    if compacted:
        raft.state.role.progress[PeerId("3")].heard -= settings.election_timeout_max
        raft.compacted(raft.snapshot_at(Index(compacted), 0.0))
        obey(raft)
    return raft


def acknowledge(raft, name, match_index, later=0.0):
    raft.receive(PeerId(name), AppendEntriesReply(raft.state.term, True, Index(match_index)), raft.state.now + later)
    return obey(raft)


def refuse(raft, name, prev, conflict_index):
    """Let a peer say that its log ends before ``conflict_index``, and give what the leader sends to it."""
    reply = AppendEntriesReply(raft.state.term, False, Index(0), 0, Index(prev), Index(conflict_index))
    raft.receive(PeerId(name), reply, raft.state.now)
    return [envelope.message for envelope in obey(raft) if envelope.to == name]


# What a snapshot stands for.


@pytest.mark.covers("pitfall 52", "pitfall 53")
def test_a_snapshot_holds_the_configuration_at_its_index_and_not_a_later_one():
    """A later one may not be committed, and could be rolled back. Rows 52, 53."""
    raft = leader()
    raft.change(tuple(map(make_member, "12")), raft.state.now)
    assert raft.state.configuration.outgoing
    taken = raft.snapshot_at(Index(8), 5.0)
    assert taken == Snapshot(Index(8), Term(2), 5.0, Index(1), encode_configuration(make_configuration(3)))
    obey(raft)
    acknowledge(raft, "2", 9)
    joint = encode_configuration(
        Configuration("group", (make_member("1"), make_member("2")), make_configuration(3).members)
    )
    assert raft.snapshot_at(Index(9), 6.0) == Snapshot(Index(9), Term(2), 6.0, Index(9), joint)


# Compacting.


@pytest.mark.parametrize(("trailing", "begin"), [(0, 8), (1, 7), (3, 5), (100, 0)])
def test_entries_behind_a_snapshot_are_dropped_but_for_the_trailing_ones(trailing, begin):
    raft = start(log=(1, 1, 1, 2, 2, 3, 3, 3), settings=Settings(trailing_entries=trailing))
    receive(raft, "2", make_append("2", 3, (8, 3), commit=8))
    taken = raft.snapshot_at(Index(8), 0.0)
    raft.compacted(taken)
    ready = raft.ready()
    assert ready.writes
    assert ready.compaction == Compaction(taken, Index(begin), Term((0, 1, 1, 1, 2, 2, 3, 3, 3)[begin]))
    assert terms(raft) == [1, 1, 1, 2, 2, 3, 3, 3][begin:]
    assert [event.text for event in ready.events] == [f"snapshot 8 is durable -> log begins behind {begin}"]


@pytest.mark.parametrize("index", [7, 8])
@pytest.mark.parametrize("trailing", [0, 5])
def test_no_newer_snapshot_compacts_nothing(index, trailing):
    raft = leader(compacted=8, settings=Settings(trailing_entries=trailing))
    raft.compacted(snapshot(index, 1))
    assert raft.state.snapshot_index == 8
    assert not raft.ready().writes


def test_configurations_that_can_no_longer_be_rolled_back_are_forgotten():
    raft = leader()
    for wanted in ("1234", "12345"):
        raft.change(tuple(make_member(n, "voter" if n < "4" else "learner") for n in wanted), raft.state.now)
        obey(raft)
        acknowledge(raft, "2", raft.state.log.last)
    assert [index for index, _ in raft.state.configurations] == [1, 9, 10]
    raft.compacted(raft.snapshot_at(Index(9), 0.0))
    assert [index for index, _ in raft.state.configurations] == [9, 10]


def keep(raft, name, match_index):
    """Compact at the end of the log while one peer holds entries up to there, and give where the log begins."""
    raft.state.role.progress[PeerId(name)].match_index = Index(match_index)
    raft.compacted(raft.snapshot_at(raft.state.commit_index, 0.0))
    return raft.state.log.start


@pytest.mark.covers("pitfall 61")
def test_a_peer_that_is_slow_and_alive_holds_the_log_back():
    """It would otherwise be sent one snapshot after the other. Row 61."""
    raft = leader()
    raft.state.role.progress[PeerId("3")].heard = raft.state.now
    assert keep(raft, "3", 5) == 5


def test_a_peer_that_is_silent_holds_nothing_back():
    raft = leader()
    raft.state.role.progress[PeerId("3")].heard = raft.state.now - EAGER.election_timeout_max
    assert keep(raft, "3", 5) == 8


def test_no_peer_holds_the_log_back_for_ever():
    raft = leader(settings=Settings(trailing_entries=1, snapshot_entries=2))
    raft.state.role.progress[PeerId("3")].heard = raft.state.now
    assert keep(raft, "3", 0) == 8 - 1 - 2 * 2


def test_the_entries_behind_a_snapshot_that_is_on_its_way_are_kept():
    raft = leader(compacted=6)
    refuse(raft, "3", 7, 2)
    assert raft.state.role.progress[PeerId("3")].installing == 6
    assert keep(raft, "3", 0) == 6


# Sending.


def test_the_leader_sends_a_snapshot_exactly_when_the_next_entry_is_compacted():
    """§7: "when the leader has already discarded the next log entry that it needs to send to a follower"."""
    [sent] = refuse(leader(compacted=5), "3", 7, 6)
    assert (type(sent), sent.prev_log_index, sent.prev_log_term) == (AppendEntries, 5, 1)
    raft = leader(compacted=5)
    [sent] = refuse(raft, "3", 7, 5)
    assert sent == InstallSnapshot(Term(2), PeerId("1"), raft.state.snapshot)


def test_a_removed_peer_is_sent_no_snapshot_and_one_when_it_returns():
    """It needs no more than to be told; a snapshot that nobody sends would keep it waiting when it is added again."""
    raft = leader()
    all_members = raft.state.configuration.members
    raft.change(all_members[:2], raft.state.now)
    for _ in range(2):  # the joint configuration, and the final one
        obey(raft)
        acknowledge(raft, "2", raft.state.log.last)
    raft.state.role.progress[PeerId("3")].heard -= EAGER.election_timeout_max
    raft.compacted(raft.snapshot_at(raft.state.commit_index, 0.0))
    obey(raft)
    assert "3" in raft.state.role.leaving
    assert not [sent for sent in refuse(raft, "3", 7, 2) if isinstance(sent, InstallSnapshot)]
    assert not raft.state.role.progress[PeerId("3")].installing
    raft.change(all_members, raft.state.now)
    assert [sent for sent in refuse(raft, "3", 7, 2) if isinstance(sent, InstallSnapshot)]


def installing(index=6):
    raft = leader(compacted=index)
    [sent] = refuse(raft, "3", 7, 2)
    assert isinstance(sent, InstallSnapshot)
    obey(raft)  # what is committed is told by a heartbeat
    return raft


@pytest.mark.parametrize("index", [1, 6])
def test_status_tells_to_whom_a_snapshot_is_on_its_way(index):
    raft = leader(compacted=index)
    refuse(raft, "3", 7, 1)
    assert raft.state.role.progress[PeerId("3")].installing == index
    told = [(member.id, member.is_installing) for member in raft.status().members]
    assert told == [("1", False), ("2", False), ("3", True)]


def test_the_others_are_sent_their_entries_in_the_same_turn_as_a_snapshot():
    raft = start(log=(1,) * 7, settings=EAGER)
    lead(raft)
    acknowledge(raft, "3", 8)
    raft.state.role.progress[PeerId("2")].heard -= EAGER.election_timeout_max
    raft.compacted(raft.snapshot_at(Index(8), 0.0))
    obey(raft)
    raft.propose([b"a"], raft.state.now)
    refused = AppendEntriesReply(Term(2), False, Index(0), 0, Index(7), Index(2))
    raft.receive(PeerId("2"), refused, raft.state.now)
    sent = [(envelope.to, type(envelope.message), envelope.last) for envelope in raft.ready().messages]
    assert sent == [("2", InstallSnapshot, 0), ("3", AppendEntries, 9)]


def test_what_is_compacted_is_offered_to_nobody_not_even_the_last_of_it():
    """One that does not answer is sent no snapshot either, but heartbeats alone."""
    raft = leader()
    acknowledge(raft, "3", 8)
    raft.propose([b"a"], raft.state.now)
    obey(raft)
    acknowledge(raft, "2", 9)
    raft.sent(PeerId("3"), Index(8))  # it was offered 9, and none of it was attached
    progress = raft.state.role.progress[PeerId("3")]
    progress.heard -= EAGER.election_timeout_max
    raft.compacted(raft.snapshot_at(Index(9), 0.0))
    assert progress.next_index == raft.state.log.start == 9
    assert [(envelope.to, envelope.first, envelope.last) for envelope in obey(raft)] == [("3", 0, 0)]


def test_while_a_snapshot_is_on_its_way_there_are_heartbeats_alone_which_compare_nothing():
    raft = installing()
    raft.propose([b"a"], raft.state.now)
    assert [envelope.to for envelope in obey(raft)] == ["2"]
    raft.tick(raft.deadline())
    [beat] = [envelope for envelope in obey(raft) if envelope.to == "3"]
    assert (beat.message.prev_log_index, beat.message.prev_log_term, beat.first) == (0, 0, 0)
    assert acknowledge(raft, "3", 0) == []
    assert raft.state.role.progress[PeerId("3")].installing == 6


def test_such_a_heartbeat_commits_nothing_at_the_follower():
    raft = start(log=(1, 1, 1))
    [reply] = receive(raft, "2", make_append("2", 1, (0, 0), commit=3))
    assert (reply.success, reply.match_index, raft.state.commit_index) == (True, 0, 0)


@pytest.mark.covers("pitfall 64")
def test_the_acknowledgement_of_the_follower_ends_the_sending_though_the_shell_says_nothing():
    """Row 64: a lost report does not leave it stuck."""
    raft = installing()
    [sent] = acknowledge(raft, "3", 6)
    assert (sent.to, sent.first, sent.last, sent.message.prev_log_index) == ("3", 7, 8, 6)
    raft.shipped(PeerId("3"), Index(6), is_complete=False)  # too late to say so
    assert raft.state.role.progress[PeerId("3")].match_index == 6


def test_a_snapshot_that_arrived_is_followed_by_the_entries_behind_it():
    raft = installing()
    raft.shipped(PeerId("3"), Index(6), is_complete=True)
    [sent] = [envelope for envelope in obey(raft) if envelope.to == "3"]
    assert (sent.first, sent.last, sent.message.prev_log_index) == (7, 8, 6)
    [again] = refuse(raft, "3", 6, 2)  # it crashed, and lost it
    assert isinstance(again, InstallSnapshot)


def test_a_snapshot_that_did_not_arrive_is_sent_anew_the_latest_one():
    raft = installing()
    raft.compacted(raft.snapshot_at(Index(8), 0.0))
    obey(raft)
    raft.shipped(PeerId("3"), Index(6), is_complete=False)
    [sent] = [envelope.message for envelope in obey(raft) if envelope.to == "3"]
    assert sent.snapshot.index == 8


def test_a_snapshot_that_did_not_arrive_tells_nothing_of_what_the_peer_holds():
    raft = leader()
    acknowledge(raft, "3", 5)
    raft.state.role.progress[PeerId("3")].heard -= EAGER.election_timeout_max
    raft.compacted(raft.snapshot_at(Index(6), 0.0))
    obey(raft)
    [sent] = refuse(raft, "3", 8, 6)
    assert isinstance(sent, InstallSnapshot)
    raft.shipped(PeerId("3"), Index(6), is_complete=False)
    assert raft.state.role.progress[PeerId("3")].next_index == 6
    [again] = [envelope.message for envelope in obey(raft) if envelope.to == "3"]
    assert again == sent


def test_reports_about_another_snapshot_or_another_leader_change_nothing():
    raft = installing()
    raft.shipped(PeerId("3"), Index(5), is_complete=True)
    raft.shipped(PeerId("9"), Index(6), is_complete=True)
    assert raft.state.role.progress[PeerId("3")].installing == 6
    receive(raft, "2", make_append("2", 3, (8, 2)))
    raft.shipped(PeerId("3"), Index(6), is_complete=True)
    assert raft.ready().messages == ()


def test_refusals_that_come_while_a_snapshot_is_on_its_way_are_stale():
    raft = installing()
    assert refuse(raft, "3", 1, 1) == []
    claims = AppendEntriesReply(raft.state.term, False, Index(8), 0, Index(1), Index(1))
    assert receive(raft, "3", claims) == []  # what is refused says nothing of what matches
    assert raft.state.role.progress[PeerId("3")].installing == 6


def test_a_peer_whose_window_is_full_of_what_was_lost_is_sent_a_snapshot_when_it_comes_back():
    """Its heartbeats would compare nothing, and so find nothing out: the window would stay full for ever."""
    raft = leader(settings=msgspec.structs.replace(EAGER, in_flight_max=2))
    acknowledge(raft, "3", 8)
    for _ in range(4):
        raft.propose([b"a"], raft.state.now)
        obey(raft)
        acknowledge(raft, "2", raft.state.log.last)
    progress = raft.state.role.progress[PeerId("3")]
    assert list(progress.in_flight) == [9, 10]
    silent = raft.state.now + EAGER.election_timeout_max
    while raft.state.now < silent:
        raft.tick(raft.deadline())
        obey(raft)
        acknowledge(raft, "2", raft.state.log.last)
    raft.compacted(raft.snapshot_at(raft.state.commit_index, 0.0))
    assert obey(raft) == []  # nobody is there to take it
    assert [type(sent.message) for sent in acknowledge(raft, "3", 0)] == [InstallSnapshot]
    assert list(progress.in_flight) == []


# Taking over.


def test_what_no_leader_can_send_is_not_looked_at():
    raft = start(log=(1, 1, 1))
    good = install(9, 2)
    for broken in (
        msgspec.structs.replace(good.snapshot, configuration=b"\xc1"),
        msgspec.structs.replace(good.snapshot, configuration_index=Index(0)),
        msgspec.structs.replace(good.snapshot, configuration_index=Index(10)),
        msgspec.structs.replace(good.snapshot, term=Term(0)),
        msgspec.structs.replace(good.snapshot, term=Term(4)),
    ):
        assert receive(raft, "2", msgspec.structs.replace(good, snapshot=broken)) == []
        assert (raft.state.term, raft.state.log.last) == (1, 3)
    assert receive(raft, "3", good) == []
    assert raft.state.term == 1


def test_a_snapshot_may_end_with_a_configuration():
    raft = start(log=(1, 1))
    [reply] = receive(raft, "2", install(7, 2, configuration=make_configuration(4), at=7))
    assert (reply.match_index, raft.state.configurations) == (7, [(7, make_configuration(4))])


def test_who_is_sent_a_snapshot_has_heard_its_leader():
    """Thesis 4.2.3: until the minimum election timeout has passed since nobody gets its vote."""
    raft = start(log=(1, 1, 1))
    request = RequestVote(Term(9), PeerId("3"), Index(9), Term(8))
    receive(raft, "2", install(7, 2), 5.0)
    assert receive(raft, "3", request, 5.29) == []
    [reply] = receive(raft, "3", request, 5.3)
    assert reply.vote_granted


@pytest.mark.parametrize("index", [2, 3])
def test_a_snapshot_of_what_is_durable_is_acknowledged_when_the_term_is_durable_too(index):
    """The term came with it: a crash before it is on the disk would let this peer vote in it as if it had not."""
    raft = start(log=(1, 1, 1))
    receive(raft, "2", make_append("2", 1, (3, 1), commit=2))
    raft.receive(PeerId("2"), install(index, 1), 0.0)
    ready = raft.ready()
    assert (ready.messages, raft.state.term) == ((), 3)
    [envelope] = ready.messages_after_persist
    assert envelope.message == AppendEntriesReply(Term(3), True, Index(index))
    raft.persisted(ready.number)
    raft.receive(PeerId("2"), install(index, 1), 0.0)
    assert [envelope.message for envelope in raft.ready().messages] == [envelope.message]


@pytest.mark.parametrize(("log", "append"), [((1, 1, 1), ((3, 1), [2, 2])), ((), ((0, 0), [1]))])
def test_entries_that_a_snapshot_replaces_before_they_were_handed_out_are_never_acknowledged(log, append):
    raft = start(log=log)
    raft.receive(PeerId("2"), make_append("2", 2, *append), 0.0)
    raft.receive(PeerId("2"), install(7, 2), 0.0)
    [envelope] = raft.ready().messages_after_persist
    assert envelope.message == AppendEntriesReply(Term(3), True, Index(7))


def test_who_sends_a_snapshot_is_followed_as_the_leader_that_it_is():
    raft = start(term=2)
    raft.tick(raft.deadline())
    receive(raft, "3", RequestPreVoteReply(Term(2), Term(3), True))
    raft.receive(PeerId("2"), install(7, 2), raft.state.now)
    texts = [event.text for event in raft.ready().events]
    assert texts[:2] == ["2 leads term 3 -> follower", "2 leads term 3 -> follow it"]


@pytest.mark.covers("pitfall 27")
def test_what_was_handed_out_for_writing_promises_nothing_of_the_log_that_begins_anew():
    """The A-B-A of asynchronous writes, by a snapshot. Row 27."""
    raft = start(term=2)
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2] * 9), 0.0)
    first = raft.ready()
    raft.receive(PeerId("2"), make_append("2", 2, (10, 2), [2]), 0.0)
    raft.receive(PeerId("3"), install(5, 3, leader="3"), 0.0)
    second = raft.ready()
    assert (second.entries, second.compaction) == ((), Compaction(snapshot(5, 3), Index(5), Term(3), True))
    raft.receive(PeerId("3"), make_append("3", 3, (5, 3), [3, 3]), 0.0)
    third = raft.ready()
    persisted = []
    for ready in (first, second, third):
        raft.persisted(ready.number)
        persisted.append(raft.state.persisted_index)
    assert persisted == [0, 5, 7]
    assert raft.state.uncommitted_bytes == 32
    raft.receive(PeerId("3"), make_append("3", 3, (7, 3), [3] * 9, commit=16), 0.0)
    raft.persisted(raft.ready().number)
    assert raft.state.uncommitted_bytes == 0


@pytest.mark.parametrize("at", [1, 6])
def test_the_configuration_of_a_snapshot_is_in_force_at_once_and_an_uncommitted_one_is_forgotten(at):
    raft = start(log=(1, 1))
    payload = encode_configuration(make_configuration(5))
    run = Run(Term(1), Index(3), Kind.CONFIGURATION, 0.0, (payload,))
    receive(raft, "2", AppendEntries(Term(1), PeerId("2"), Index(2), Term(1), Index(0), 0, (run,)))
    raft.receive(PeerId("2"), install(7, 3, configuration=make_configuration(4), at=at), 0.0)
    assert raft.state.configurations == [(at, make_configuration(4))]
    assert raft.state.configuration == make_configuration(4)


def test_a_newcomer_without_a_configuration_takes_a_snapshot():
    raft = start("3", log=(), term=0)
    [reply] = receive(raft, "2", install(7, 2))
    assert (reply.term, reply.success, reply.match_index) == (3, True, 7)
    assert raft.state.configuration == make_configuration(3)


def test_the_entries_behind_a_snapshot_go_on_from_it():
    raft = start(log=(1, 1))
    receive(raft, "2", install(7, 2))
    assert terms(raft) == []
    [reply] = receive(raft, "2", make_append("2", 3, (7, 2), [3, 3], commit=8))
    assert (reply.match_index, terms(raft), raft.state.commit_index) == (9, [3, 3], 8)
    [refused] = receive(raft, "2", make_append("2", 3, (11, 3)))
    assert refused.conflict_index == 10


@pytest.mark.covers("pitfall 25")
def test_messages_from_before_a_snapshot_conflict_with_nothing():
    """Row 25: what is in the snapshot is committed, and the same everywhere."""
    raft = start(log=(1, 1))
    receive(raft, "2", install(7, 2))
    for prev, entries, covered in (
        ((0, 0), [1] * 3, 3),
        ((3, 1), [2] * 4, 7),
        ((5, 2), [2, 2, 2], 8),
        ((7, 2), [2], 8),
        ((5, 2), [2, 2, 2, 2], 9),
    ):
        [reply] = receive(raft, "2", make_append("2", 3, prev, entries))
        assert (reply.success, reply.match_index) == (True, covered)
        assert raft.state.log.last >= covered
    assert terms(raft) == [2, 2]


# Starting from it.


def restarted(stored):
    raft = Raft(PeerId("1"), Settings(), stored, lambda: 0.0, 0.0)
    raft.ready()
    return raft


@pytest.mark.covers("pitfall 53", "pitfall 54")
def test_a_start_takes_up_the_snapshot_and_the_configurations_behind_it():
    """Also one that is not committed. Rows 53, 54."""
    payloads = [encode_configuration(make_configuration(count)) for count in (3, 4, 5)]
    held = Snapshot(Index(8), Term(2), 0.0, Index(5), payloads[1])
    stored = Stored(
        HardState(Term(3)),
        ((Index(4), Term(2)), (Index(9), Term(3))),
        Index(9),
        ((Index(5), payloads[1]), (Index(9), payloads[2])),
        0.0,
        Compaction(held, Index(3), Term(1)),
    )
    raft = restarted(stored)
    state = raft.state
    assert (state.log.start, state.log.last, state.commit_index, state.snapshot_index) == (3, 9, 8, 8)
    assert state.configurations == [(5, make_configuration(4)), (9, make_configuration(5))]
    assert (raft.status().first_index, raft.status().snapshot_index) == (4, 8)
    receive(raft, "2", make_append("2", 4, (8, 2), [4]))
    assert state.configuration == make_configuration(4)


def test_a_configuration_that_the_log_and_the_snapshot_both_hold_is_taken_up_once():
    payload = encode_configuration(make_configuration(4))
    held = Snapshot(Index(5), Term(2), 0.0, Index(5), payload)
    stored = Stored(
        HardState(Term(3)),
        ((Index(4), Term(2)),),
        Index(9),
        ((Index(5), payload),),
        0.0,
        Compaction(held, Index(3), Term(1)),
    )
    assert restarted(stored).state.configurations == [(5, make_configuration(4))]


def test_a_start_from_a_snapshot_alone():
    held = snapshot(8, 2)
    raft = restarted(Stored(HardState(Term(3)), (), Index(8), (), 0.0, Compaction(held, Index(8), Term(2), True)))
    assert (raft.state.log.last, raft.state.log.last_term) == (8, 2)
    assert raft.state.configuration == make_configuration(3)
