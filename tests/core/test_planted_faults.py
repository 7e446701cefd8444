"""Faults planted in the core, one at a time, and the scenario that catches each: a checker that has not caught a fault
is no checker. What is caught by an invariant names it; what is only seen in the trace says so.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.core import admission, election, raft, reads, replication
from quorate.core.log import Log
from quorate.core.quorum import reached_by_quorum
from quorate.core.ready import ReadReady
from quorate.core.state import append, commit, send
from quorate.testing.scenario import ScenarioError, check_file
from quorate.types import Index, Kind, Run

SCENARIOS = Path(__file__).parent.parent / "scenarios"
FAULTS = {}


def fault(scenario, found):
    """Register a fault: a function that plants it, the scenario that must catch it, and by what."""

    def register(plant):
        FAULTS[plant.__name__] = (plant, scenario, found)
        return plant

    return register


@fault("elixir_stop_start_loses_acknowledged_writes", "leader completeness: 1 leads term 4 without all")
def vote_without_the_log_check(monkeypatch):
    """Row 1."""
    monkeypatch.setattr(election, "is_up_to_date", lambda state, term, index: True)


@fault("elixir_stop_start_loses_acknowledged_writes", "leader completeness: 1 leads term 4 without all")
def longest_log_wins(monkeypatch):
    """The fault of the original: index taken for term. Row 1."""
    monkeypatch.setattr(election, "is_up_to_date", lambda state, term, index: index >= state.log.last)


def held(state, own):
    """Give the highest index that a majority holds, our own as far as ``own``."""
    progress = state.role.progress
    return Index(reached_by_quorum(state.groups, lambda v: progress[v].match_index if v in progress else own))


@fault("figure_8", "leader completeness: 5 leads term 5 without all")
def old_term_entry_committed_by_counting(monkeypatch):
    """Row 18; what comes of it, and not the rule that it breaks, is to show it."""
    monkeypatch.setattr("quorate.testing.group.check_step", lambda before, after: None)
    monkeypatch.setattr(replication, "advance_commit_index", lambda state: commit(state, held(state, state.log.last)))


@fault("single_voter", "committed but not durable on a majority")
def leader_counts_itself_before_its_disk(monkeypatch):
    """Row 28."""

    def advance(state):
        agreed = held(state, state.log.last)
        if state.log.term(agreed) == state.term:
            commit(state, agreed)

    monkeypatch.setattr(replication, "advance_commit_index", advance)


@fault("stale_tail_dropped", "terms ascend along the log")
def stale_tail_kept(monkeypatch):
    """Conflicting entries replaced in place. Row 20."""
    store = replication.store_new_entries

    def store_in_place(state, request):
        before = [state.log.term(Index(index)) for index in range(1, state.log.last + 1)]
        done = store(state, request)
        for index in range(state.log.last + 1, len(before) + 1):
            append(state, Run(before[index - 1], Index(index), Kind.COMMAND, 0.0, (b"",)), None)
        return done

    monkeypatch.setattr(replication, "store_new_entries", store_in_place)


@fault("stale_append_does_not_truncate", "what is committed is in the log")
def every_append_truncates(monkeypatch):
    """Row 19."""
    store = replication.store_new_entries

    def store_and_truncate(state, request):
        done = store(state, request)
        if request.entries and request.entries[-1].last < state.log.last:
            replication.truncate(state, Index(request.entries[-1].last + 1))
        return done

    monkeypatch.setattr(replication, "store_new_entries", store_and_truncate)


@fault("commit_clipped_to_last_matched_entry", "state machine safety")
def commit_clipped_to_own_last_index(monkeypatch):
    """Row 21."""
    receive = replication.receive_append_entries

    def receive_and_commit(state, sender, request):
        receive(state, sender, request)
        if state.log.matches(request.prev_log_index, request.prev_log_term):
            commit(state, min(request.leader_commit, state.log.last))

    monkeypatch.setattr(replication, "receive_append_entries", receive_and_commit)


@fault("read_not_confirmed_by_earlier_round", "reads at index 2 when 4 was committed before")
def read_without_a_quorum_round(monkeypatch):
    """Row 36."""

    def release(state):
        while state.role.rounds:
            _, index, waiting = state.role.rounds.pop(0)
            state.outbox.reads.extend(ReadReady(read, index) for read in waiting)

    monkeypatch.setattr(reads, "release_reads", release)


@fault("read_not_confirmed_by_earlier_round", "reads at index 2 when 4 was committed before")
def read_confirmed_by_any_acknowledgement(monkeypatch):
    """Row 38."""
    receive = replication.receive_append_entries_reply

    def receive_as_latest(state, sender, reply):
        receive(state, sender, reply)
        state.role.progress[sender].round = state.role.round

    monkeypatch.setattr(replication, "receive_append_entries_reply", receive_as_latest)


@fault("read_before_first_commit", "reads at index 2 when 3 was committed before")
def read_before_the_first_commit_of_the_term(monkeypatch):
    """Row 35."""
    begin = reads.begin_round

    def begin_at_once(state):
        state.role.first_index = Index(0)
        return begin(state)

    monkeypatch.setattr(reads, "begin_round", begin_at_once)
    monkeypatch.setattr("quorate.core.invariants.check_leader", lambda state, leader: None)


@fault("partition_of_two_and_three", "election safety: 3 and 2 both lead term 3")
def half_of_the_votes_is_enough(monkeypatch):
    monkeypatch.setattr(
        election, "is_quorum", lambda groups, agrees: 2 * sum(map(agrees, groups[0])) >= len(groups[0]) - 1
    )


@fault("vote_waits_for_disk", "1 asks for votes in term 2 before its own vote is durable")
def vote_sent_before_it_is_durable(monkeypatch):
    """Row 2."""
    monkeypatch.setattr(election, "send_after_persist", send)


@fault("figure_7", "log matching: 6 and 1 differ up to 11")
def previous_entry_compared_by_its_index_alone(monkeypatch):
    monkeypatch.setattr(Log, "matches", lambda self, index, term: index <= self.last)


@fault("vote_kept_at_step_down_in_term", "a vote is given at most once in a term")
def vote_cleared_at_a_step_down_within_the_term(monkeypatch):
    """Row 4."""
    become = replication.become_follower

    def forget(state, term, leader, reason):
        become(state, term, leader, reason)
        state.voted_for = None

    monkeypatch.setattr(replication, "become_follower", forget)


@fault("acknowledgement_of_an_earlier_leadership", "another trace")
def acknowledgement_of_any_term_counted(monkeypatch):
    """Row 23."""
    refuse = admission.is_refused

    def refuse_fewer(state, sender, message):
        return refuse(state, sender, message) and not isinstance(message, replication.AppendEntriesReply)

    monkeypatch.setattr(admission, "is_refused", refuse_fewer)


@fault("asynchronous_writes_aba", "5 acknowledges entry 3 before it is durable")
def overtaken_write_still_promises(monkeypatch):
    """Row 27."""
    truncate = replication.truncate

    def forget_to_lower(state, first):
        promised = [waiting.last for waiting in state.unpersisted]
        truncate(state, first)
        for waiting, last in zip(state.unpersisted, promised, strict=True):
            waiting.last = last

    monkeypatch.setattr(replication, "truncate", forget_to_lower)
    monkeypatch.setattr("quorate.testing.group.check", lambda state: None)


@fault("bridge_topology", "another trace")
def no_step_down_without_a_quorum(monkeypatch):
    """Row 12."""
    monkeypatch.setattr(raft, "quorum_heard", lambda state: state.now)


@fault("chained_topology", "another trace")
def votes_while_a_leader_is_heard(monkeypatch):
    """Rows 7 and 13."""
    monkeypatch.setattr(election, "hears_leader", lambda state: False)
    monkeypatch.setattr(admission, "hears_leader", lambda state: False)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(name, monkeypatch):
    plant, scenario, found = FAULTS[name]
    path = SCENARIOS / f"{scenario}.txt"
    monkeypatch.delenv("QUORATE_REWRITE", raising=False)
    check_file(path)
    plant(monkeypatch)
    with pytest.raises((ScenarioError, AssertionError), match=found):
        check_file(path)
