"""Faults planted in changes of members, snapshots and leases, and the scenario that catches each: a check that has not
caught a fault is no check. What is caught by an invariant names it; what only the trace shows says so.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.core import election, membership, reads, replication, snapshot, state
from quorate.core.configuration import encode_configuration
from quorate.core.quorum import reached_by_quorum
from quorate.core.state import Follower
from quorate.testing.scenario import ScenarioError, check_file
from quorate.types import Index, Run, Snapshot

FAULTS = {}


def fault(scenario, found):
    """Register a fault: a function that plants it, the scenario that must catch it, and by what."""

    def register(plant):
        FAULTS[f"{plant.__name__}: {scenario}"] = (plant, scenario, found)
        return plant

    return register


@fault("etcd_confchange_v2_add_single_explicit", "committed but not durable on a majority")
def joint_quorum_is_a_majority_of_the_union(monkeypatch):
    """Row 57."""

    def union(groups, reached):
        return reached_by_quorum([sorted({voter for group in groups for voter in group})], reached)

    monkeypatch.setattr(replication, "reached_by_quorum", union)


@fault("etcd_confchange_v2_add_double_implicit", "another trace")
def joint_configuration_is_left_before_it_is_committed(monkeypatch):
    """Row 46."""
    enter = membership.enter

    def enter_and_leave(state, current, target):
        enter(state, current, target)
        membership.append_configuration(state, type(current)(current.group, target))

    monkeypatch.setattr(membership, "enter", enter_and_leave)


@fault("configuration_rolled_back", "all members receive entries")
def truncated_configuration_stays(monkeypatch):
    """Row 51."""
    truncate = replication.truncate

    def keep(state, first):
        configurations = list(state.configurations)
        truncate(state, first)
        state.configurations = configurations

    monkeypatch.setattr(replication, "truncate", keep)


@fault("learner_given_up", "another trace")
def newcomer_votes_before_it_has_caught_up(monkeypatch):
    """Row 50."""
    monkeypatch.setattr(
        membership, "finish_catching_up", lambda state, _, now: membership.enter(state, now, now.target)
    )


@fault("removed_peer_is_told", "another trace")
def removed_peer_is_not_told(monkeypatch):
    """Row 48."""
    use = state.use_configuration

    def forget(found):
        use(found)
        if isinstance(found.role, state.Leader):
            for peer in found.role.leaving:
                del found.role.progress[peer]
            found.role.leaving.clear()

    monkeypatch.setattr(state, "use_configuration", forget)


@fault("snapshot_of_what_is_committed", "the snapshot of 1 holds another configuration")
def snapshot_holds_the_latest_configuration(monkeypatch):
    """Row 52."""

    def latest(state, index, time):
        at, configuration = state.configurations[-1]
        return Snapshot(index, state.log.term(index), time, at, encode_configuration(configuration))

    monkeypatch.setattr(snapshot, "snapshot_at", latest)


@fault("stale_snapshot_ignored", "the commit index never falls")
def stale_snapshot_is_installed(monkeypatch):
    """Row 59."""

    def install(state, sender, request):
        if request.snapshot.index < state.commit_index:
            snapshot.install(state, request.snapshot)
        else:
            receive(state, sender, request)

    receive = snapshot.receive_install_snapshot
    monkeypatch.setattr(snapshot, "receive_install_snapshot", install)


@fault("etcd_snapshot_succeed_via_app_resp_behind", "another trace")
def compaction_waits_for_nobody(monkeypatch):
    """Row 61."""
    monkeypatch.setattr(snapshot, "compaction_start", lambda state, taken: Index(taken.index))


@fault("lost_leader_keeps_its_lease", "1 reads at index 2 when 3 was committed before")
def promise_is_broken_when_the_leader_is_lost(monkeypatch):
    """Row 41: a broken connection is no proof that who leads by a lease has gone."""
    lose_leader = election.lose_leader

    def lose(state, peer):
        if isinstance(state.role, Follower):
            state.role.promised = float("-inf")
        lose_leader(state, peer)

    monkeypatch.setattr(election, "lose_leader", lose)


@fault("lost_leader_keeps_its_lease", "another trace")
def promises_are_kept_for_ever_asked_for(monkeypatch):
    monkeypatch.setattr(reads, "LEASE_TIMEOUTS", float("inf"))


@fault("flapping_connection", "another trace")
def pre_votes_are_granted_whoever_is_heard(monkeypatch):
    """Row 7: a flapping connection deposes a healthy leader."""
    monkeypatch.setattr(election, "hears_leader", lambda state: False)


@fault("lease_refused_after_transfer", "1 reads at index 2 when 4 was committed before")
def lease_is_kept_after_a_transfer(monkeypatch):
    """Row 41."""
    has_lease = reads.has_lease

    def keep(state, leader):
        leader.has_released = False
        return has_lease(state, leader)

    monkeypatch.setattr(reads, "has_lease", keep)


@fault("witness_votes_and_holds_no_payload", "another trace")
def witness_is_sent_what_commands_say(monkeypatch):
    """A witness holds no data: what the shell must see to."""
    monkeypatch.setattr(Run, "without_commands", lambda run: run)


def who_was_a_witness_counts_as_one_that_holds_data(monkeypatch):
    """Its log matches by index and term alone, and what commands say is nowhere in it."""
    monkeypatch.setattr(replication, "lacks_commands", lambda state, new, conflict: False)
    use = state.use_configuration

    def forget(found):
        use(found)
        found.bare = Index(0)

    monkeypatch.setattr(state, "use_configuration", forget)


for scenario in ("removed_witness_returns_as_voter", "witness_made_voter"):
    fault(scenario, "leader completeness: 4 leads term [34] without all that is committed")(
        who_was_a_witness_counts_as_one_that_holds_data
    )


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(name, monkeypatch):
    plant, scenario, found = FAULTS[name]
    path = Path(__file__).parent / f"{scenario}.txt"
    monkeypatch.delenv("QUORATE_REWRITE", raising=False)
    check_file(path)
    plant(monkeypatch)
    with pytest.raises((ScenarioError, AssertionError), match=found):
        check_file(path)
