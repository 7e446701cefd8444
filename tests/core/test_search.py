"""Random walks of a bare group, and faults planted in the core, each of which a walk or a test must catch."""

from __future__ import annotations

import pytest

from quorate.core import election, membership, reads, replication, snapshot, state
from quorate.core.configuration import encode_configuration
from quorate.core.log import Log
from quorate.core.messages import AppendEntries
from quorate.core.quorum import is_quorum, reached_by_quorum
from quorate.core.ready import Envelope
from quorate.types import Index, Snapshot, Term
from tests.core import test_membership, test_snapshot
from tests.core.search import Walk
from tests.paper import test_figure_13, test_thesis_4, test_thesis_6_4_1

STEPS = 700


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_contradicted_whatever_goes_wrong_and_all_is_well_afterwards(seed):
    assert Walk(seed).run(STEPS)["elections"] > 0


def test_whoever_spoke_as_a_leader_is_followed_though_it_led_no_longer_when_that_left_and_no_other_one():
    walk = Walk(1)
    sender, follower, other = walk.involved[:3]
    walk.loss = 0.0

    def speak(name):
        walk.send(name, Envelope(follower, AppendEntries(Term(5), name, Index(1), Term(1), Index(0))))

    speak(sender)
    walk.arrive(*walk.flight.pop())
    assert walk.peers[follower].raft.state.leader == sender
    with pytest.raises(AssertionError, match="both speak as leaders of term 5"):
        speak(other)


# Faults. Each says what catches it: seeds of walks and what they say, or a test.

CAUGHT_BY_WALKS = {}
CAUGHT_BY_TESTS = {}


def caught_by_walk(seed, found):
    def register(plant):
        CAUGHT_BY_WALKS[plant.__name__] = (plant, seed, found)
        return plant

    return register


def caught_by(test, *arguments):
    def register(plant):
        CAUGHT_BY_TESTS[f"{plant.__name__}: {test.__name__}"] = (plant, test, arguments)
        return plant

    return register


@caught_by(test_membership.test_a_leader_that_has_committed_nothing_of_its_term_refuses_changes)
def change_accepted_before_the_first_commit_of_the_term(monkeypatch):
    """Row 43."""
    start_change = membership.start_change

    def start_at_once(state, leader, members):
        leader.first_index = Index(0)
        start_change(state, leader, members)

    monkeypatch.setattr(membership, "start_change", start_at_once)


@caught_by(test_thesis_4.test_agreement_for_elections_requires_separate_majorities_from_both)
@caught_by(test_thesis_4.test_agreement_for_commitment_requires_separate_majorities_from_both_and_so_do_reads)
def joint_quorum_is_a_majority_of_the_union(monkeypatch):
    """Row 57."""

    def union(groups):
        return [sorted({voter for group in groups for voter in group})]

    def reached(groups, value):
        return reached_by_quorum(union(groups), value)

    monkeypatch.setattr(election, "is_quorum", lambda groups, agrees: is_quorum(union(groups), agrees))
    for module in (replication, reads, state):
        monkeypatch.setattr(module, "reached_by_quorum", reached)


@caught_by(test_thesis_4.test_a_server_must_be_prepared_to_fall_back_to_the_previous_configuration_in_its_log)
def configuration_not_rolled_back(monkeypatch):
    """Row 51."""
    truncate = replication.truncate

    def keep(state, first):
        configurations = list(state.configurations)
        truncate(state, first)
        state.configurations = configurations

    monkeypatch.setattr(replication, "truncate", keep)


@caught_by_walk(11, "configurations are those of the log")
def uncommitted_configuration_in_a_snapshot(monkeypatch):
    """Row 52."""

    def latest(state, index, time):
        at, configuration = state.configurations[-1]
        return Snapshot(index, state.log.term(index), time, min(at, index), encode_configuration(configuration))

    monkeypatch.setattr(snapshot, "snapshot_at", latest)


@caught_by(test_figure_13.test_install_snapshot_7_discard_the_entire_log, (1, 1, 1, 1, 1))
def conflicting_tail_kept_after_an_installation(monkeypatch):
    """Row 58."""

    def keep(log, start, term):
        last = log.last
        log.compact(min(start, last))
        if last < start:
            log.start, log.start_term, log.last = start, term, start

    monkeypatch.setattr(Log, "reset", keep)


@caught_by(test_figure_13.test_a_snapshot_of_what_is_committed_here_already_is_not_installed)
def stale_snapshot_installed_over_newer_state(monkeypatch):
    """Row 59."""
    receive = snapshot.receive_install_snapshot

    def receive_any(state, sender, request):
        committed = state.commit_index
        if request.term == state.term and request.snapshot.index < committed:
            snapshot.install(state, request.snapshot)
            return
        receive(state, sender, request)

    monkeypatch.setattr(snapshot, "receive_install_snapshot", receive_any)


@caught_by(test_thesis_6_4_1.test_a_lease_runs_from_when_the_round_was_sent_not_from_when_it_was_acknowledged, 0.24)
def lease_from_when_the_round_was_acknowledged(monkeypatch):
    """Row 39."""

    def from_then(peer, leader):
        return peer.now < state.quorum_heard(peer) + peer.settings.election_timeout_min

    monkeypatch.setattr(reads, "has_lease", from_then)


@caught_by(test_thesis_6_4_1.test_after_a_stall_there_is_no_lease)
def lease_that_outlasts_a_stall(monkeypatch):
    """Row 39."""
    monkeypatch.setattr(reads, "has_lease", lambda state, leader: reads.confirmed_round(state, leader) > 0)


@caught_by(test_thesis_6_4_1.test_who_loses_a_leader_keeps_the_promise_that_it_gave_and_no_more)
@caught_by(test_thesis_6_4_1.test_a_promise_outlasts_a_higher_term)
def promise_forgotten_with_the_leader(monkeypatch):
    """Row 41."""
    lose_leader = election.lose_leader

    def lose(peer, lost):
        if isinstance(peer.role, state.Follower):
            peer.role.promised = float("-inf")
        lose_leader(peer, lost)

    monkeypatch.setattr(election, "lose_leader", lose)


@caught_by(
    test_thesis_6_4_1.test_who_told_a_peer_to_campaign_has_no_lease_in_this_term_though_the_transfer_was_given_up
)
def lease_after_a_transfer_that_was_given_up(monkeypatch):
    """Row 41."""
    has_lease = reads.has_lease

    def forget(state, leader):
        leader.has_released = False
        return has_lease(state, leader)

    monkeypatch.setattr(reads, "has_lease", forget)


@caught_by_walk(1, "reads at 0 when 7 was committed before")
def read_index_before_the_first_commit_of_the_term(monkeypatch):
    """Row 35."""
    begin = reads.begin_round

    def begin_at_once(state):
        first, state.role.first_index = state.role.first_index, Index(0)
        begins = begin(state)
        state.role.first_index = first
        return begins

    monkeypatch.setattr(reads, "begin_round", begin_at_once)


@caught_by(test_snapshot.test_a_peer_whose_window_is_full_of_what_was_lost_is_sent_a_snapshot_when_it_comes_back)
def snapshot_only_for_who_has_room(monkeypatch):
    send = replication.send_snapshot
    monkeypatch.setattr(
        replication, "send_snapshot", lambda state, progress, peer: progress.in_flight or send(state, progress, peer)
    )


@caught_by(
    test_thesis_4.test_a_server_that_is_not_part_of_its_own_latest_configuration_still_starts_elections_until_that_is_committed
)
def who_is_removed_never_campaigns_at_all(monkeypatch):
    """Thesis 4.2.2, Figure 4.6."""

    def counted(state):
        return any(state.peer in group for group in state.groups) and not state.configuration.is_witness(state.peer)

    monkeypatch.setattr(state.State, "may_campaign", property(counted))


@pytest.mark.parametrize("name", CAUGHT_BY_WALKS)
def test_a_planted_fault_is_caught_by_a_walk(name, monkeypatch):
    plant, seed, found = CAUGHT_BY_WALKS[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=found):
        Walk(seed).run(STEPS)


@pytest.mark.parametrize("name", CAUGHT_BY_TESTS)
def test_a_planted_fault_is_caught_by_a_test(name, monkeypatch):
    plant, test, arguments = CAUGHT_BY_TESTS[name]
    test(*arguments)
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(*arguments)
