"""The real core refines the abstract Raft; and faults planted in it do not: each is refused by the guard that forbids
it, and by no other.
"""

from __future__ import annotations

import argparse
import re

import msgspec
import pytest

from quorate.core import election, membership, raft, replication, snapshot
from quorate.core.configuration import encode_configuration
from quorate.core.log import Log
from quorate.core.quorum import reached_by_quorum
from quorate.core.state import Candidate, Leader, append, become_follower, commit, send
from quorate.testing.specification import traces
from quorate.testing.specification.refinement import Refinement, SpecifiedRaft
from quorate.types import Index
from tests.core import search

STEPS = 1000


@pytest.mark.parametrize("seed", range(0, 9, 3))
def test_every_step_of_the_core_is_one_of_the_abstract_raft(seed):
    outcome = traces.walk_some(seed, 3, STEPS)
    assert outcome.failure is None
    assert (outcome.traces, outcome.steps >= 3 * STEPS) == (3, True)
    for action in ("Timeout", "GrantVote", "CountVote", "BecomeLeader", "AppendNewEntries", "AdvanceCommitIndex"):
        assert outcome.actions[action] > 0, action
    for action in ("Restart", "UpdateTerm", "ConfigurationChange", "TakeSnapshot", "Persist", "LearnCommitIndex"):
        assert outcome.actions[action] > 0, action


@pytest.mark.parametrize("seed", [1, 2])
def test_so_is_every_step_of_a_walk_with_clocks_that_drift_and_groups_that_form(seed, monkeypatch):
    refinement = Refinement()

    def start(name, settings, stored, random, now):
        assert not stored.last or name in refinement.world.servers, "each walk begins with empty disks"
        return SpecifiedRaft(raft.Raft(name, settings, stored, random, now), [], refinement)

    monkeypatch.setattr(search, "Raft", start)
    search.Walk(seed).run(400)
    for action in ("Form", "BecomeLeader", "AdvanceCommitIndex", "LearnCommitIndex"):
        assert refinement.actions[action] > 0


def test_the_command_prints_what_was_explained_and_fails_with_the_trace(capsys, monkeypatch):
    parser = argparse.ArgumentParser()
    traces.add_arguments(parser)
    chosen = parser.parse_args(["--traces", "2", "--steps", "60", "--jobs", "1"])
    assert traces.run(chosen) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 traces, ")
    assert printed.endswith("every step is explained\n")
    commit_beyond_match(monkeypatch)
    monkeypatch.setattr(traces, "ProcessPoolExecutor", ThisProcess)
    assert traces.run(chosen) == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(r"\w .* -> .*AdvanceCommitIndex", last[0])
    assert "AdvanceCommitIndex: HeldByAQuorum does not hold" in last[1]


class ThisProcess:
    """Runs in this process, where the fault is, what others would run."""

    def __init__(self, _jobs, mp_context):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        self._found = function(*arguments)
        return self

    def result(self):
        return self._found

    def shutdown(self, cancel_futures):
        pass


# Faults: each with the guard that must refuse it, and the first seed of those that find it.

FAULTS = {}
SEEDS = 40
"""How many seeds may be tried: chance falls elsewhere whenever the core draws another number."""


def refused_by(guard, first=0):
    def register(plant):
        FAULTS[plant.__name__] = (plant, guard, first)
        return plant

    return register


@refused_by("GrantVote: LogIsUpToDate", 15)
def vote_without_the_log_check(monkeypatch):
    """Row 1."""
    monkeypatch.setattr(election, "is_up_to_date", lambda state, term, index: True)


@refused_by("AdvanceCommitIndex: EntryIsOfThisTerm", 1)
def older_term_committed_by_counting(monkeypatch):
    """Row 18."""

    def advance(state):
        progress, ours = state.role.progress, state.persisted_index
        agreed = reached_by_quorum(state.groups, lambda v: progress[v].match_index if v in progress else ours)
        commit(state, Index(agreed))

    monkeypatch.setattr(replication, "advance_commit_index", advance)


@refused_by("AdvanceCommitIndex: HeldByAQuorum")
def commit_beyond_match(monkeypatch):
    def advance(state):
        if state.log.last_term == state.term:
            commit(state, state.log.last)

    monkeypatch.setattr(replication, "advance_commit_index", advance)


@refused_by("AdvanceCommitIndex: HeldByAQuorum")
def leader_counts_itself_before_its_disk(monkeypatch):
    """Row 28."""
    advance = replication.advance_commit_index

    def advance_early(state):
        persisted, state.persisted_index = state.persisted_index, state.log.last
        advance(state)
        state.persisted_index = persisted

    monkeypatch.setattr(replication, "advance_commit_index", advance_early)


@refused_by("AdvanceCommitIndex: HeldByAQuorum")
def joint_quorum_is_a_majority_of_the_newcomers(monkeypatch):
    """Row 57."""
    reached = replication.reached_by_quorum
    monkeypatch.setattr(replication, "reached_by_quorum", lambda groups, value: reached(groups[:1], value))


@refused_by("RemoveConflict: EntryConflicts")
def every_append_truncates(monkeypatch):
    """Row 19."""
    store = replication.store_new_entries

    def store_and_truncate(state, request):
        done = store(state, request)
        covered = request.entries[-1].last if request.entries else request.prev_log_index
        if done and max(covered, state.commit_index) < state.log.last:
            replication.truncate(state, Index(max(covered, state.commit_index) + 1))
        return done

    monkeypatch.setattr(replication, "store_new_entries", store_and_truncate)


@refused_by("BecomeLeader: VotesAreAQuorum")
def leader_without_a_majority(monkeypatch):
    monkeypatch.setattr(election, "has_won", lambda state, votes: sum(votes.values()) >= min(2, len(votes)))


@refused_by("votesGranted")
def pre_votes_counted_as_votes(monkeypatch):
    """Row 6."""
    receive = election.receive_request_pre_vote_reply

    def receive_and_count(state, sender, reply):
        receive(state, sender, reply)
        if isinstance(state.role, Candidate):
            state.role.votes[sender] = True

    monkeypatch.setattr(election, "receive_request_pre_vote_reply", receive_and_count)


@refused_by("votesGranted", 3)
def refused_votes_counted(monkeypatch):
    def receive(state, sender, reply):
        if isinstance(state.role, Candidate):
            state.role.votes[sender] = True

    monkeypatch.setattr(election, "receive_request_vote_reply", receive)


@refused_by("GrantVote: HasNotVoted", 3)
def vote_twice_in_a_term(monkeypatch):
    receive = election.receive_request_vote

    def forget_and_receive(state, sender, request):
        if request.term == state.term and not isinstance(state.role, Leader):
            state.voted_for = None
        receive(state, sender, request)

    monkeypatch.setattr(election, "receive_request_vote", forget_and_receive)


@refused_by("IsDurable")
def vote_sent_before_it_is_durable(monkeypatch):
    """Row 2."""
    monkeypatch.setattr(election, "send_after_persist", send)


@refused_by("Send: IsDurable")
def acknowledged_before_it_is_durable(monkeypatch):
    """Row 69."""
    monkeypatch.setattr(replication, "send_after_persist", send)


@refused_by("HandOver: TermAndVote")
def vote_not_handed_to_the_disk(monkeypatch):
    ready = raft.Raft.ready
    monkeypatch.setattr(
        raft.Raft, "ready", lambda self, **how: msgspec.structs.replace(ready(self, **how), hard_state=None)
    )


@refused_by("votedFor")
def vote_cleared_at_a_step_down_within_the_term(monkeypatch):
    """Row 4."""

    def forget(state, term, leader, reason):
        become_follower(state, term, leader, reason)
        state.voted_for = None

    monkeypatch.setattr(replication, "become_follower", forget)


@refused_by("LearnCommitIndex: MessageCovers")
def commit_clipped_to_own_last_index(monkeypatch):
    """Row 21."""
    acknowledge = replication.acknowledge

    def commit_more(state, sender, request, covered):
        commit(state, min(request.leader_commit, state.log.last))
        acknowledge(state, sender, request, covered)

    monkeypatch.setattr(replication, "acknowledge", commit_more)


@refused_by("WasCompared", 6)
def acknowledges_its_last_index(monkeypatch):
    """Row 22."""
    acknowledge = replication.acknowledge
    monkeypatch.setattr(
        replication,
        "acknowledge",
        lambda state, sender, request, covered: acknowledge(state, sender, request, state.log.last),
    )


@refused_by(": PreviousEntryMatches", 13)
def previous_entry_compared_by_its_index_alone(monkeypatch):
    monkeypatch.setattr(Log, "matches", lambda self, index, term: index <= self.last)


@refused_by("AppendNewEntries: TermIsCurrent", 5)
def append_of_an_older_term_taken(monkeypatch):
    receive = replication.receive_append_entries

    def receive_as_current(state, sender, request):
        if not isinstance(state.role, Leader):
            request = msgspec.structs.replace(request, term=max(request.term, state.term))
        receive(state, sender, request)

    monkeypatch.setattr(replication, "receive_append_entries", receive_as_current)


@refused_by("ConfigurationChange: HasCommittedInItsTerm", 25)
def change_accepted_before_the_first_commit_of_the_term(monkeypatch):
    """Row 43."""
    start_change = membership.start_change

    def start_at_once(state, leader, members):
        first, leader.first_index = leader.first_index, Index(0)
        try:
            start_change(state, leader, members)
        finally:
            leader.first_index = first

    monkeypatch.setattr(membership, "start_change", start_at_once)


@refused_by("ConfigurationChange: QuorumsOverlap")
def joint_configuration_left_out(monkeypatch):
    """One step from any members to any others."""
    enter = membership.enter

    def enter_at_once(state, current, target):
        final = membership.Configuration(current.group, target)
        membership.append_configuration(state, final) if final.groups != current.groups else enter(
            state, current, target
        )

    monkeypatch.setattr(membership, "enter", enter_at_once)


@refused_by("ConfigFromLog")
def configuration_not_in_force_on_followers(monkeypatch):
    """Row 55."""
    monkeypatch.setattr(replication, "append", lambda state, run, _: append(state, run, None))


@refused_by("TakeSnapshot: ConfigurationAsOfThere", 10)
def snapshot_holds_a_configuration_that_is_not_committed(monkeypatch):
    """Row 52."""
    take = snapshot.snapshot_at

    def take_with_the_latest(state, index, time):
        taken = take(state, index, time)
        latest = encode_configuration(state.configurations[-1][1])
        return msgspec.structs.replace(taken, configuration=latest)

    monkeypatch.setattr(snapshot, "snapshot_at", take_with_the_latest)


@refused_by(": TermIsCurrent")
def higher_term_ignored(monkeypatch):
    def stay(state, term, leader, reason):
        become_follower(state, state.term, leader, reason)

    monkeypatch.setattr(raft, "become_follower", stay)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_refused_by_its_guard(name, monkeypatch):
    plant, guard, first = FAULTS[name]
    plant(monkeypatch)
    failure = traces.walk_some(first, SEEDS, STEPS).failure
    assert failure is not None, "no step was refused"
    assert re.search(f"({guard}) does not hold", failure.splitlines()[-1]), failure.splitlines()[-1]
