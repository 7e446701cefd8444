"""Figure 2 of the paper, line by line: each test is named by the rule that it proves, and cites it."""

from __future__ import annotations

import pytest

from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from quorate.core.state import Candidate, Follower, Leader, PreCandidate
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, obey, receive, start
from quorate.types import HardState, Index, Kind, PeerId, Term

LONG = 10.0  # seconds: longer than any election timeout


def terms(raft):
    return [raft.state.log.term(Index(index)) for index in range(1, raft.state.log.last + 1)]


def vote(candidate, term, last):
    return RequestVote(Term(term), PeerId(candidate), Index(last[0]), Term(last[1]))


# State: persistent state on all servers.


def test_current_term_is_0_at_first_boot_and_increases_monotonically():
    """currentTerm: latest term server has seen (initialized to 0 on first boot, increases monotonically)."""
    raft = start(log=())
    assert raft.state.term == 0
    for term, seen in ((3, 3), (2, 3), (5, 5)):
        receive(raft, "2", make_append("2", term), LONG * term)
        assert raft.state.term == seen


def test_voted_for_is_none_or_the_candidate_that_received_the_vote_in_the_current_term():
    """votedFor: candidateId that received vote in current term (or null if none)."""
    raft = start()
    assert raft.state.voted_for is None
    receive(raft, "2", vote("2", 2, (1, 1)), LONG)
    assert raft.state.voted_for == "2"
    receive(raft, "3", make_append("3", 3), LONG)
    assert raft.state.voted_for is None


def test_log_holds_entries_with_their_terms_and_its_first_index_is_1():
    """log[]: log entries; each entry contains command and term when entry was received by leader (first index is 1)."""
    raft = start(log=())
    receive(raft, "2", make_append("2", 2, entries=[1, 2]))
    assert terms(raft) == [1, 2]


@pytest.mark.covers("pitfall 2")
def test_persistent_state_is_updated_on_stable_storage_before_responding_to_rpcs():
    """Persistent state on all servers: (Updated on stable storage before responding to RPCs)."""
    raft = start()
    raft.receive(PeerId("2"), vote("2", 2, (1, 1)), LONG)
    ready = raft.ready()
    assert (ready.hard_state, ready.messages) == (HardState(Term(2), PeerId("2")), ())
    assert [envelope.message for envelope in ready.messages_after_persist] == [RequestVoteReply(Term(2), True)]
    raft.receive(PeerId("2"), make_append("2", 2, (1, 1), [2]), LONG)
    ready = raft.ready()
    assert (len(ready.entries), ready.messages) == (1, ())
    assert [envelope.message.match_index for envelope in ready.messages_after_persist] == [2]


# State: volatile state on all servers.


def test_commit_index_is_0_at_start_and_increases_monotonically():
    """commitIndex: index of highest log entry known to be committed (initialized to 0, increases monotonically)."""
    raft = start(log=(1, 1, 1))
    assert raft.ready().commit_index == 0
    for leader_commit, known in ((2, 2), (1, 2), (3, 3)):
        receive(raft, "2", make_append("2", 2, (3, 1), commit=leader_commit))
        assert raft.ready().commit_index == known


def test_last_applied_is_0_at_start():
    """lastApplied: index of highest log entry applied to state machine (initialized to 0, increases monotonically)."""
    assert start(log=(1, 1)).status().last_applied == 0


# State: volatile state on leaders.


def test_next_index_is_initialized_to_leader_last_log_index_and_1_and_match_index_to_0():
    """nextIndex[]: initialized to leader last log index + 1. matchIndex[]: initialized to 0. Reinitialized after
    election.
    """
    raft = start(log=(1, 1, 1))
    for last in (3, 4):
        raft.tick(LONG * last)
        obey(raft)
        receive(raft, "2", RequestPreVoteReply(raft.state.term, Term(raft.state.term + 1), True))
        raft.receive(PeerId("2"), RequestVoteReply(raft.state.term, True), raft.state.now)
        assert [(known.next_index, known.match_index) for known in raft.state.role.progress.values()] == [
            (last + 1, 0),
            (last + 1, 0),
        ]
        obey(raft)
        receive(raft, "2", AppendEntriesReply(raft.state.term, True, raft.state.log.last))
        assert raft.state.role.progress["2"].match_index == last + 1
        receive(raft, "3", AppendEntriesReply(Term(raft.state.term + 1), False, Index(0)))


# AppendEntries RPC, receiver implementation.


def test_append_entries_1_reply_false_if_term_is_below_current_term():
    """1. Reply false if term < currentTerm (§5.1)."""
    raft = start(term=3)
    [reply] = receive(raft, "2", make_append("2", 2, (1, 1), [2], commit=1))
    assert (reply.term, reply.success, reply.match_index) == (3, False, 0)
    assert (terms(raft), raft.state.commit_index, raft.state.leader) == ([1], 0, None)


@pytest.mark.parametrize("prev", [(2, 2), (1, 2)], ids=["beyond the log", "another term"])
def test_append_entries_2_reply_false_if_log_does_not_contain_a_matching_entry_at_prev_log_index(prev):
    """2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm (§5.3)."""
    raft = start(term=2)
    [reply] = receive(raft, "2", make_append("2", 2, prev, [2], commit=1))
    assert not reply.success
    assert (terms(raft), raft.state.commit_index) == ([1], 0)


@pytest.mark.covers("pitfall 20")
def test_append_entries_3_delete_a_conflicting_entry_and_all_that_follow_it():
    """3. If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and
    all that follow it (§5.3). Row 20.
    """
    raft = start(log=(1, 2, 2, 2, 2))
    [reply] = receive(raft, "2", make_append("2", 3, (1, 1), [2, 3]))
    assert terms(raft) == [1, 2, 3]
    assert (reply.success, reply.match_index) == (True, 3)


@pytest.mark.covers("pitfall 19", "pitfall 22")
def test_append_entries_3_deletes_nothing_without_a_conflict():
    """3. *If* an existing entry conflicts: an old message takes nothing away. Row 19."""
    raft = start(log=(1, 2, 2, 2))
    [reply] = receive(raft, "2", make_append("2", 3, (1, 1), [2]))
    assert terms(raft) == [1, 2, 2, 2]
    assert reply.match_index == 2  # row 22: what the message covered, not the last index


def test_append_entries_4_append_any_new_entries_not_already_in_the_log():
    """4. Append any new entries not already in the log."""
    raft = start(log=(1, 2))
    raft.receive(PeerId("2"), make_append("2", 3, (1, 1), [2, 2, 3]), 0.0)
    assert [(run.first, run.term) for run in raft.ready().entries] == [(3, 2), (4, 3)]
    assert terms(raft) == [1, 2, 2, 3]


@pytest.mark.covers("pitfall 21")
@pytest.mark.parametrize(
    ("leader_commit", "entries", "committed"),
    [(3, [2, 2, 2], 3), (9, [2, 2], 3), (9, [], 1), (0, [2], 0)],
    ids=["leaderCommit is less", "last new entry is less", "heartbeat: nothing beyond prevLogIndex", "nothing yet"],
)
def test_append_entries_5_commit_index_is_the_minimum_of_leader_commit_and_the_index_of_the_last_new_entry(
    leader_commit, entries, committed
):
    """5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry). Row 21: what the
    log holds beyond the message was never compared.
    """
    raft = start(log=(1, 2, 2, 2, 2))
    receive(raft, "2", make_append("2", 3, (1, 1), entries, leader_commit))
    assert raft.state.commit_index == committed


# RequestVote RPC, receiver implementation.


def test_request_vote_1_reply_false_if_term_is_below_current_term():
    """1. Reply false if term < currentTerm (§5.1)."""
    raft = start(term=3)
    assert receive(raft, "2", vote("2", 2, (9, 2)), LONG) == [RequestVoteReply(Term(3), False)]


def test_request_vote_2_grant_vote_if_voted_for_is_null_or_candidate_id():
    """2. If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's log, grant
    vote (§5.2, §5.4).
    """
    raft = start(term=1)
    assert receive(raft, "2", vote("2", 2, (1, 1)), LONG) == [RequestVoteReply(Term(2), True)]
    assert receive(raft, "3", vote("3", 2, (9, 1)), LONG) == [RequestVoteReply(Term(2), False)]
    assert receive(raft, "2", vote("2", 2, (1, 1)), LONG) == [RequestVoteReply(Term(2), True)]


@pytest.mark.covers("pitfall 1")
def test_request_vote_2_only_if_the_candidates_log_is_at_least_as_up_to_date():
    """2. … and candidate's log is at least as up-to-date as receiver's log (see test_section_5_4.py). Row 1."""
    raft = start(log=(1, 2))
    assert receive(raft, "2", vote("2", 3, (9, 1)), LONG) == [RequestVoteReply(Term(3), False)]
    assert raft.state.voted_for is None


# Rules for servers: all servers.


def test_all_servers_1_committed_entries_are_handed_out_to_be_applied():
    """If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine (§5.3)."""
    raft = start(log=(1, 1))
    raft.receive(PeerId("2"), make_append("2", 2, (2, 1), commit=2), 0.0)
    assert raft.ready().commit_index == 2


@pytest.mark.parametrize(
    "message",
    [
        make_append("2", 9),
        AppendEntriesReply(Term(9), True, Index(0)),
        vote("2", 9, (0, 0)),
        RequestVoteReply(Term(9), True),
        RequestPreVoteReply(Term(9), Term(2), True),
    ],
    ids=lambda message: type(message).__name__,
)
@pytest.mark.parametrize("role", [Follower, PreCandidate, Candidate, Leader])
def test_all_servers_2_a_higher_term_in_any_rpc_converts_to_follower(role, message):
    """If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower (§5.1)."""
    raft = start()
    if role is Leader:
        lead(raft)
    elif role is not Follower:
        raft.tick(LONG)
        if role is Candidate:
            receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is role
    receive(raft, "2", message, raft.state.now + LONG)
    assert raft.state.term == 9
    assert type(raft.state.role) is Follower


def test_all_servers_2_but_not_the_term_that_a_pre_candidate_only_thinks_of():
    """The term of a RequestPreVote is nobody's current term: it changes nothing (thesis 9.6)."""
    raft = start()
    receive(raft, "2", RequestPreVote(Term(9), PeerId("2"), Index(1), Term(1)), LONG)
    assert raft.state.hard_state == HardState(Term(1), None)


# Followers (§5.2).


def test_followers_1_respond_to_rpcs_from_candidates_and_leaders():
    """Respond to RPCs from candidates and leaders."""
    assert receive(start(), "2", vote("2", 2, (1, 1)), LONG) == [RequestVoteReply(Term(2), True)]
    assert receive(start(), "2", make_append("2", 2, (1, 1))) == [
        AppendEntriesReply(Term(2), True, Index(1), 0, Index(1))
    ]


def test_followers_2_convert_to_candidate_if_the_election_timeout_elapses():
    """If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to
    candidate: convert to candidate. By way of the pre-vote.
    """
    raft = start()
    raft.tick(raft.deadline() - 0.001)
    assert type(raft.state.role) is Follower
    raft.tick(raft.deadline())
    assert type(raft.state.role) is PreCandidate
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    assert type(raft.state.role) is Candidate


@pytest.mark.parametrize(
    "message", [make_append("2", 1, (1, 1)), vote("2", 2, (1, 1))], ids=["AppendEntries", "vote granted"]
)
def test_followers_2_not_when_a_leader_was_heard_or_a_vote_granted(message):
    """… without receiving AppendEntries RPC from current leader or granting vote to candidate …"""
    raft = start(chance=0.9)
    first = raft.deadline()
    receive(raft, "2", message, first - 0.1)
    raft.tick(first)
    assert type(raft.state.role) is Follower
    assert raft.deadline() > first


@pytest.mark.parametrize(
    "message", [make_append("2", 1, (1, 1)), vote("2", 4, (0, 0))], ids=["of an old leader", "vote refused"]
)
def test_followers_2_an_old_leader_or_a_refused_vote_does_not_reset_the_timer(message):
    """… AppendEntries RPC from *current* leader or *granting* vote …"""
    raft = start(term=3)
    first = raft.deadline()
    receive(raft, "2", message, first - 0.1)
    assert raft.deadline() == first


# Candidates (§5.2).


def test_candidates_1_on_conversion_increment_current_term_vote_for_self_reset_timer_send_request_vote_to_all():
    """On conversion to candidate, start election: increment currentTerm; vote for self; reset election timer; send
    RequestVote RPCs to all other servers.
    """
    raft = start(peers=5)
    raft.tick(LONG)
    obey(raft)
    raft.receive(PeerId("2"), RequestPreVoteReply(Term(1), Term(2), True), LONG)
    raft.receive(PeerId("3"), RequestPreVoteReply(Term(1), Term(2), True), LONG + 1)
    assert raft.state.hard_state == HardState(Term(2), PeerId("1"))
    assert raft.deadline() == LONG + 1 + raft.state.settings.election_timeout_min
    requests = [(envelope.to, envelope.message) for envelope in raft.ready().messages_after_persist]
    assert requests == [(to, vote("1", 2, (1, 1))) for to in "2345"]


@pytest.mark.covers("pitfall 5")
def test_candidates_2_become_leader_if_votes_are_received_from_a_majority_of_servers():
    """If votes received from majority of servers: become leader. Row 5: each voter counts once, strangers never."""
    raft = start(peers=5)
    raft.tick(LONG)
    for sender in "23":
        receive(raft, sender, RequestPreVoteReply(Term(1), Term(2), True))
    for sender in ("2", "2", "1", "stranger"):
        receive(raft, sender, RequestVoteReply(Term(2), True))
    receive(raft, "4", RequestVoteReply(Term(2), False))
    assert type(raft.state.role) is Candidate
    receive(raft, "3", RequestVoteReply(Term(2), True))
    assert type(raft.state.role) is Leader


@pytest.mark.covers("pitfall 4")
def test_candidates_3_convert_to_follower_if_append_entries_is_received_from_a_new_leader():
    """If AppendEntries RPC received from new leader: convert to follower. Row 4: the vote stays."""
    raft = start()
    raft.tick(LONG)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    receive(raft, "3", make_append("3", 2, (1, 1), [2]))
    assert (type(raft.state.role), raft.state.leader) == (Follower, "3")
    assert raft.state.hard_state == HardState(Term(2), PeerId("1"))


def test_candidates_4_start_a_new_election_if_the_election_timeout_elapses():
    """If election timeout elapses: start new election. By way of the pre-vote."""
    raft = start()
    raft.tick(LONG)
    receive(raft, "2", RequestPreVoteReply(Term(1), Term(2), True))
    raft.tick(raft.deadline())
    receive(raft, "2", RequestPreVoteReply(Term(2), Term(3), True))
    assert (type(raft.state.role), raft.state.term) == (Candidate, 3)


# Leaders.


def test_leaders_1_send_append_entries_upon_election_and_heartbeats_during_idle_periods():
    """Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle periods to
    prevent election timeouts (§5.2). The first one carries the no-op of the term.
    """
    raft = start()
    first = lead(raft)
    assert [(envelope.to, envelope.first, envelope.last) for envelope in first] == [("2", 2, 2), ("3", 2, 2)]
    assert all(isinstance(envelope.message, AppendEntries) for envelope in first)
    for _ in range(3):
        deadline = raft.deadline()
        assert deadline == pytest.approx(raft.state.now + raft.state.settings.heartbeat_interval)
        raft.tick(deadline)
        assert [(envelope.to, envelope.first) for envelope in obey(raft)] == [("2", 0), ("3", 0)]


def test_leaders_2_append_a_command_from_a_client_to_the_local_log():
    """If command received from client: append entry to local log, respond after entry applied to state machine."""
    raft = start()
    lead(raft)
    assert raft.propose([b"a", b"b"], raft.state.now) == range(3, 5)
    [run] = raft.ready().entries
    assert (run.term, run.first, run.kind, run.payloads) == (2, 3, Kind.COMMAND, (b"a", b"b"))
    assert raft.state.commit_index == 0  # and so nobody is answered yet


def test_leaders_3_send_append_entries_from_next_index_on_if_last_log_index_is_not_below_it():
    """If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at nextIndex."""
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    raft.propose([b"a"], raft.state.now)
    [envelope] = obey(raft)  # 3 is probed: its first AppendEntries has no answer yet
    assert (envelope.to, envelope.first, envelope.last) == ("2", 3, 3)
    assert (envelope.message.prev_log_index, envelope.message.prev_log_term) == (2, 2)
    assert [sent.to for sent in obey(raft)] == []


def test_leaders_3a_update_next_index_and_match_index_if_successful():
    """If successful: update nextIndex and matchIndex for follower (§5.3)."""
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    assert (raft.state.role.progress["2"].match_index, raft.state.role.progress["2"].next_index) == (2, 3)


def test_leaders_3b_decrement_next_index_and_retry_if_append_entries_fails_because_of_log_inconsistency():
    """If AppendEntries fails because of log inconsistency: decrement nextIndex and retry (§5.3)."""
    raft = start(log=(1, 1, 1, 1))
    lead(raft)
    refusal = AppendEntriesReply(Term(2), False, Index(0), 0, Index(4), Index(3), Term(0))
    [retry] = receive(raft, "2", refusal)
    assert (retry.prev_log_index, retry.prev_log_term) == (2, 1)


@pytest.mark.covers("pitfall 18")
def test_leaders_4_commit_what_a_majority_holds_if_it_is_of_the_current_term():
    """If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term == currentTerm:
    set commitIndex = N (§5.3, §5.4). Row 18: counting alone commits no entry of an old term.
    """
    raft = start(peers=5, log=(1, 1, 1))
    lead(raft)
    for sender, match_index, committed in (("2", 3, 0), ("3", 3, 0), ("4", 4, 0), ("5", 4, 4)):
        receive(raft, sender, AppendEntriesReply(raft.state.term, True, Index(match_index)))
        assert raft.state.commit_index == committed


@pytest.mark.covers("pitfall 28")
def test_leaders_4_the_leader_counts_itself_only_when_its_own_disk_has_the_entry():
    """A majority of matchIndex, the leader's own disk among them. Row 28."""
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    raft.propose([b"a"], raft.state.now)
    ready = raft.ready()
    raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(3)), raft.state.now)
    assert raft.state.commit_index == 2
    raft.persisted(ready.number)
    assert raft.state.commit_index == 3


def test_heartbeats_prevent_election_timeouts():
    """The defaults keep §5.6: broadcastTime ≪ electionTimeout."""
    settings = Settings()
    assert 2 * settings.heartbeat_interval <= settings.election_timeout_min
