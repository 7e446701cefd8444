"""Faults planted in the product, each of which the simulator must catch, and what it calls them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from quorate.apply import Apply
from quorate.core import replication
from quorate.core.progress import Progress
from quorate.core.quorum import reached_by_quorum
from quorate.core.state import Leader, State, commit, send
from quorate.errors import NotCommitted
from quorate.seat import Seat
from quorate.store import Batch
from quorate.testing import Simulation
from quorate.types import HardState, Index, Run

from .searching import first_failure, invariant_of

Plant = Callable[[pytest.MonkeyPatch], None]


def vote_without_the_log_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.core.election.is_up_to_date", lambda state, term, index: True)


def vote_by_length_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.core.election.is_up_to_date", lambda state, term, index: index >= state.log.last)


def vote_not_persisted(monkeypatch: pytest.MonkeyPatch) -> None:
    obey = Seat.obey

    def forget_the_vote(seat: Seat) -> Batch | None:
        batch = obey(seat)
        if batch is None or batch.hard_state is None:
            return batch
        return msgspec.structs.replace(batch, hard_state=HardState(batch.hard_state.term, None))

    monkeypatch.setattr(Seat, "obey", forget_the_vote)


def vote_cleared_within_a_term(monkeypatch: pytest.MonkeyPatch) -> None:
    become_follower = replication.become_follower

    def clear(state, term, leader, reason) -> None:
        become_follower(state, term, leader, reason)
        state.voted_for = None

    monkeypatch.setattr(replication, "become_follower", clear)


def half_is_a_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(groups, agrees) -> bool:
        return all(sum(map(agrees, group)) >= max(len(group) // 2, 1) for group in groups)

    monkeypatch.setattr("quorate.core.election.is_quorum", half)


def acknowledgement_before_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "send_after_persist", send)


def own_entry_counted_before_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(state: State) -> None:
        assert isinstance(state.role, Leader)
        progress = state.role.progress
        last = state.log.last
        held = reached_by_quorum(state.groups, lambda peer: progress[peer].match_index if peer in progress else last)
        agreed = Index(int(held))
        if agreed > state.commit_index and state.log.term(agreed) == state.term:
            commit(state, agreed)

    monkeypatch.setattr(replication, "advance_commit_index", advance)


def stale_tail_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_beyond_our_log(state: State, run: Run) -> Index:
        return Index(max(run.first, state.log.last + 1))

    monkeypatch.setattr(replication, "first_new_index", first_beyond_our_log)


def tail_truncated_by_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "first_new_index", lambda state, run: run.first)


def commit_beyond_what_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = replication.receive_append_entries

    def receive_and_commit(state, sender, request) -> None:
        receive(state, sender, request)
        if request.term == state.term and state.leader == sender:
            commit(state, min(request.leader_commit, state.log.last))

    monkeypatch.setattr(replication, "receive_append_entries", receive_and_commit)


def read_without_a_quorum_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.core.reads.confirmed_round", lambda state, leader: float("inf"))


def future_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apply, "expire", lambda apply, now: None)


def not_committed_told_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.apply.OutcomeUnknown", NotCommitted)


def leader_never_steps_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.core.raft.quorum_heard", lambda state: state.now)


def lost_entries_never_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Progress.probe

    def probe_again(progress: Progress, next_index: Index) -> None:
        if progress.probing or progress.installing:
            probe(progress, next_index)

    monkeypatch.setattr(Progress, "probe", probe_again)


# What may catch it first, and seeds among which the first that catches it comes early.
PLANTS: dict[Plant, tuple[str, range]] = {
    vote_without_the_log_check: ("LeaderCompleteness", range(15, 115)),
    vote_by_length_alone: ("LeaderCompleteness", range(180, 260)),
    vote_not_persisted: ("PersistBeforeSend", range(20)),
    vote_cleared_within_a_term: ("CoreInvariants", range(20)),
    half_is_a_quorum: ("ElectionSafety LeaderCompleteness", range(50)),
    acknowledgement_before_fsync: ("PersistBeforeSend", range(20)),
    own_entry_counted_before_fsync: ("CommittedOnQuorum", range(20)),
    stale_tail_kept: ("PersistBeforeSend LogMatching AckedDurable StateMachineSafety", range(24, 74)),
    tail_truncated_by_every_message: ("PersistBeforeSend LogMatching AckedDurable CommittedOnQuorum", range(50)),
    commit_beyond_what_was_compared: ("StateMachineSafety", range(28, 128)),
    read_without_a_quorum_round: ("ReadFloor", range(160, 170)),
    future_never_resolved: ("EveryCallResolves", range(12, 112)),
    not_committed_told_too_early: ("RefusedIsFinal", range(100)),
}


# Those that the phase catches in which the rest stays broken for ever.
LIVENESS: dict[Plant, range] = {leader_never_steps_down: range(60, 70), lost_entries_never_sent_again: range(50)}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    invariants, seeds = PLANTS[plant]
    plant(monkeypatch)
    assert invariant_of(first_failure(seeds)) in invariants.split()


@pytest.mark.parametrize(("plant", "seeds"), LIVENESS.items(), ids=lambda value: getattr(value, "__name__", "seeds"))
def test_a_healed_quorum_alone_does_not_go_on(plant: Plant, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    failures = (Simulation(seed).run().failure for seed in seeds)
    assert any(failure and failure.startswith("LivenessFailure: a healed quorum did not") for failure in failures)


def test_the_disk_is_read_as_far_as_it_is_durable() -> None:
    # Found by the simulator: a peer restarted, truncated its tail, and applied the old one, which its disk still held.
    # It takes more seeds than a test has time for.
    asked: list[tuple[Index, Index]] = []
    outside = SimpleNamespace(read=lambda _seat, first, last, _done: asked.append((first, last)))
    seat: Any = SimpleNamespace(_outside=outside, raft=SimpleNamespace(state=SimpleNamespace(persisted_index=Index(5))))
    for last in (4, 9):
        Seat.read_durable(seat, Index(3), Index(last), lambda _: None)
    assert asked == [(3, 4), (3, 5)]
