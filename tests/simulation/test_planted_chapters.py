"""Faults planted in membership and snapshots, each of which the simulator must catch, and what it calls them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quorate import errands
from quorate.apply import Apply
from quorate.core import membership, raft, replication, snapshot, state
from quorate.core.configuration import encode_configuration
from quorate.core.quorum import majority
from quorate.errors import ChangeInProgress, Unavailable
from quorate.seat import Seat
from quorate.settings import MIB
from quorate.snapshots import Snapshots
from quorate.store.snapshots import MemorySnapshots
from quorate.testing.profile import DiskRates
from quorate.testing.scenario import ScenarioError, check_file
from quorate.types import Compaction, Index, Snapshot

from .searching import first_failure, invariant_of, usual_world

SCENARIOS = Path(__file__).parent.parent / "scenarios"

Plant = Callable[[pytest.MonkeyPatch], None]


def change_before_the_first_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault found in the thesis in 2015."""

    def first_index_is_early(state, leader, members) -> None:
        first, leader.first_index = leader.first_index, Index(0)
        try:
            membership_start(state, leader, members)
        finally:
            leader.first_index = first

    membership_start = membership.start_change
    monkeypatch.setattr(membership, "start_change", first_index_is_early)
    monkeypatch.setattr("quorate.errands.start_change", start_at_once)


def start_at_once(errand, raft, now) -> None:
    """Do as ``errands.start_change`` does, on a leader that is new as well."""
    errand.term = raft.state.term
    raft.change(errand.members, now)


def second_change_while_one_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(state, leader, members) -> None:
        index, current = state.configurations[-1]
        target = tuple(sorted(members, key=lambda member: member.address.name))
        if target != current.members:
            if index <= state.commit_index and not current.is_settled:
                raise ChangeInProgress("joint")
            membership.enter(state, current, target)

    monkeypatch.setattr(membership, "start_change", start)
    monkeypatch.setattr("quorate.errands.start_change", start_at_once)


def joint_majority_of_the_union(monkeypatch: pytest.MonkeyPatch) -> None:
    def union(groups) -> set[str]:
        return {peer for group in groups for peer in group}

    def is_quorum(groups, agrees) -> bool:
        return sum(map(agrees, union(groups))) >= majority(len(union(groups)))

    def reached(groups, value) -> float:
        return sorted(map(value, union(groups)), reverse=True)[len(union(groups)) // 2]

    monkeypatch.setattr("quorate.core.election.is_quorum", is_quorum)
    monkeypatch.setattr(replication, "reached_by_quorum", reached)


def new_members_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use = state.use_configuration

    def use_the_last_group(state) -> None:
        use(state)
        state.groups = state.groups[:1]

    monkeypatch.setattr(state, "use_configuration", use_the_last_group)


def configuration_not_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    truncate = replication.truncate

    def truncate_and_keep(state, first) -> None:
        latest = state.configurations[-1]
        truncate(state, first)
        if state.configurations[-1] != latest:
            state.configurations.append((state.log.last, latest[1]))
            use_configuration(state)

    use_configuration = state.use_configuration
    monkeypatch.setattr(replication, "truncate", truncate_and_keep)


def uncommitted_configuration_in_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    def latest(state, index, time) -> Snapshot:
        at, configuration = state.configurations[-1]
        return Snapshot(index, state.log.term(index), time, min(at, index), encode_configuration(configuration))

    monkeypatch.setattr(snapshot, "snapshot_at", latest)


def conflicting_tail_kept_after_install(monkeypatch: pytest.MonkeyPatch) -> None:
    install = snapshot.install

    def keep_the_tail(state, taken) -> None:
        last, term = state.log.last, state.log.last_term
        install(state, taken)
        if last > taken.index:
            state.log.append(term, last - taken.index)

    monkeypatch.setattr(snapshot, "install", keep_the_tail)


def stale_snapshot_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(state, sender, request) -> None:
        if request.term >= state.term:
            snapshot.become_follower(state, state.term, sender, "a leader")
            snapshot.install(state, request.snapshot)

    def always(seat, call, waiter) -> None:
        seat.snapshots.receive(call, waiter, seat._take_in)

    monkeypatch.setattr(snapshot, "receive_install_snapshot", receive)
    monkeypatch.setattr(Seat, "receive_snapshot", always)


def pointer_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Snapshots.take

    def take_and_tell_at_once(self, taken, freeze, done) -> None:
        take(self, taken, freeze, lambda *_: None)
        done(taken)

    monkeypatch.setattr(Snapshots, "take", take_and_tell_at_once)


def file_dropped_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(self, index, but=()) -> None:
        self._files = {kept: file for kept, file in self._files.items() if kept.index > index}

    monkeypatch.setattr(MemorySnapshots, "drop_before", drop)


def compaction_without_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = snapshot.compact

    def compact_all(state, taken) -> None:
        compact(state, taken)
        if state.outbox.compaction is not None and state.log.last > taken.index:
            state.log.compact(state.log.last)
            start = state.log.last
            state.outbox.compaction = Compaction(taken, start, state.log.start_term)

    monkeypatch.setattr(raft.snapshot, "compact", compact_all)


def removed_peer_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    use = state.use_configuration

    def add_the_old(state) -> None:
        before = state.groups
        use(state)
        if before and state.configuration.is_settled:
            state.groups = (tuple(dict.fromkeys((*state.groups[0], *before[-1]))),)

    monkeypatch.setattr(state, "use_configuration", add_the_old)


def snapshot_of_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is read while it is written: the machine has gone on since."""

    def freeze_late(attribute, value, held):
        pieces = attribute._pieces(value, None) if attribute.container else [(attribute.encode(value), held)]
        yield from (chunk for chunk, _ in pieces)

    monkeypatch.setattr("quorate.keeping.Attribute.freeze", freeze_late)


def change_answered_when_it_is_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    is_changed = errands.is_changed

    def is_appended(errand, raft) -> bool:
        configuration = raft.state.configuration
        if configuration.is_settled and configuration.members == errand.members:
            errand.waiter.succeed(None)
            return True
        return is_changed(errand, raft)

    monkeypatch.setattr(errands, "is_changed", is_appended)


def change_that_goes_on_told_as_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "OutcomeUnknown", Unavailable)


# What may catch it first, and seeds among which the first that catches it comes early.
PLANTS: dict[Plant, tuple[str, range]] = {
    change_before_the_first_commit: ("ChangeAfterCommit", range(50, 100)),
    joint_majority_of_the_union: ("CommittedOnQuorum LeaderCompleteness", range(50)),
    new_members_decide_alone: ("CoreInvariants", range(20)),
    removed_peer_still_counted: ("CoreInvariants", range(50)),
    uncommitted_configuration_in_a_snapshot: ("SnapshotIsCommitted", range(50)),
    pointer_before_the_file: ("SnapshotBeforePointer", range(20)),
    file_dropped_too_early: ("SnapshotIsKept", range(20)),
    change_answered_when_it_is_appended: ("ChangeIsCommitted", range(20)),
    compaction_without_a_snapshot: ("CoreInvariants", range(20)),
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    invariants, seeds = PLANTS[plant]
    plant(monkeypatch)
    assert invariant_of(first_failure(seeds)) in invariants.split()


# Few seeds have what these need: snapshots on a slow disk while clients write, or one change after the other.
IN_A_WORLD: dict[Plant, tuple[str, dict[str, Any]]] = {
    snapshot_of_another_state: (
        "SnapshotOfOneState",
        {"clients": 4, "burst": 4, "aside": DiskRates(latency=0.3, stall=0.0, stall_max=0.0)},
    ),
    change_that_goes_on_told_as_not_made: ("RefusedIsFinal", {"size": 3, "spares": 2, "change_pause": 0.05}),
    second_change_while_one_is_under_way: ("OneChangeAtATime", {"size": 3, "spares": 2, "change_pause": 0.05}),
}


@pytest.mark.parametrize("plant", IN_A_WORLD, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_caught_in_a_world_that_has_what_it_needs(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    invariant, differs = IN_A_WORLD[plant]
    plant(monkeypatch)
    world_of = usual_world(settings={"snapshot_entries": 5}, span=1.5, pause=0.05, **differs)
    assert invariant_of(first_failure(range(1, 50), world_of=world_of)) == invariant


def test_a_peer_that_forgets_who_waits_for_what_a_snapshot_covers_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    restore_to = Apply.restore_to

    def restore(self, state, taken) -> None:
        proposed, self._proposed = self._proposed, []
        restore_to(self, state, taken)
        self._proposed = proposed
        self._forget_applied()

    monkeypatch.setattr(Apply, "restore_to", restore)
    # Whoever writes waits long, in the process of a leader that is cut off, and soon given a snapshot.
    settings = {"snapshot_entries": 5, "trailing_entries": 0, "snapshot_chunk_bytes": MIB, "call_timeout": 5.0}
    waits = {"direct_share": 1.0, "patience": (5.0, 5.0), "cancel_share": 0.0}
    world = {"size": 3, "spares": 0, "clients": 3, "burst": 4, "span": 3.0, "pause": 0.05, "fault_pause": 0.4}
    world_of = usual_world(settings=settings, change_pause=float("inf"), **world, **waits)
    assert invariant_of(first_failure(range(30, 50), world_of=world_of)) == "NobodyIsForgotten"


# Seeds hardly come to these: a log must conflict with a snapshot and go on beyond it; a snapshot must come very late;
# a leader must be cut off right when it begins a change.
BY_SCENARIO: dict[Plant, tuple[str, str]] = {
    conflicting_tail_kept_after_install: (
        "conflicting_log_replaced_by_a_snapshot",
        "what 3 hands out for writing is what its log says",
    ),
    stale_snapshot_installed: ("stale_snapshot_ignored", "leaves another trace"),
    configuration_not_rolled_back: ("configuration_rolled_back", "configurations are in the order of the log"),
}


@pytest.mark.parametrize("plant", BY_SCENARIO, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_caught_by_a_scenario(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, found = BY_SCENARIO[plant]
    plant(monkeypatch)
    with pytest.raises((ScenarioError, AssertionError), match=found):
        check_file(SCENARIOS / f"{scenario}.txt")
