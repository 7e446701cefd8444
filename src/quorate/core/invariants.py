"""What is true of every state, and of every two in a row (the paper's Figure 2 and 3, as far as one peer can see).

Checked after each input in tests and in the simulator. What is true of several peers together is checked there.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quorate.core.configuration import Configuration
from quorate.core.progress import Progress
from quorate.core.state import Candidate, Leader, PreCandidate, State
from quorate.types import HardState, Index, Term


class Facts(msgspec.Struct, frozen=True):
    """What is compared between two states in a row.

    Attributes:
        hard_state: term and vote.
        commit_index: the commit index.
        commit_term: the term of the entry there.
        last: the last index of the log.
        is_leader: whether it leads.
        configurations: those of the log, with their indexes.
    """

    hard_state: HardState
    commit_index: Index
    commit_term: Term
    last: Index
    is_leader: bool
    configurations: tuple[tuple[Index, Configuration], ...]


def facts(state: State) -> Facts:
    """Take down what ``check_step`` compares."""
    return Facts(
        state.hard_state,
        state.commit_index,
        state.log.term(state.commit_index),
        state.log.last,
        isinstance(state.role, Leader),
        tuple(state.configurations),
    )


def check(state: State) -> None:
    """Check what is true of every state.

    Raises:
        AssertionError: it is not; the message says what.
    """
    log = state.log
    assert ascends(log.starts), "stretches of the log start at ascending indexes"
    assert ascends(log.terms), "terms ascend along the log"
    assert len(log.starts) == len(log.terms), "each stretch has one term"
    assert log.last_term <= state.term, "no entry is of a term that the peer has not seen"
    assert not log.starts or (log.starts[0] == log.start + 1 and log.starts[-1] <= log.last), "the log has no hole"
    assert bool(log.starts) == (log.last > log.start), "every entry has a term"
    assert log.start <= state.snapshot_index <= state.commit_index, "only what is in a snapshot was dropped"
    assert state.commit_index <= log.last, "what is committed is in the log"
    assert 0 <= state.persisted_index <= log.last, "what is durable is in the log"
    assert 0 <= state.bare <= log.last, "what is held without its commands is in the log, or in its snapshot"
    assert state.durable.term <= state.term, "no term is durable that was not seen"
    assert ascends([waiting.number for waiting in state.unpersisted]), "what waits for the disk is in order"
    assert all(waiting.last <= log.last for waiting in state.unpersisted), "truncated entries promise nothing"
    check_configurations(state)
    match state.role:
        case Leader():
            check_leader(state, state.role)
        case PreCandidate(votes=votes):
            assert votes.get(state.peer), "a pre-candidate is for itself"
        case Candidate(votes=votes):
            assert votes.get(state.peer), "a candidate votes for itself"
            assert state.voted_for == state.peer, "a candidate votes for itself"
        case _:
            pass


def check_configurations(state: State) -> None:
    """Check that the configurations are those of the log, and that the latest is in force.

    Raises:
        AssertionError: they are not.
    """
    indexes = [index for index, _ in state.configurations]
    assert ascends(indexes), "configurations are in the order of the log"
    assert not indexes or indexes[-1] <= state.log.last, "a truncated configuration is not in force"
    current = state.configuration
    assert state.groups == (current.groups if current else ()), "the latest configuration is in force"
    others = [member.id for member in current.everyone if member.id != state.peer] if current else []
    assert list(state.others) == others, "all members receive entries"


def check_configuration(configuration: Configuration) -> None:
    """Check that members are distinct, and that some of them can lead.

    Raises:
        AssertionError: they are not, or nobody can.
    """
    names = [member.address.name for member in configuration.members]
    assert names == sorted(set(names)), "members are in the order of their names, each named once"
    assert len({member.id for member in configuration.everyone}) == len(configuration.everyone), "ids are distinct"
    assert any(member.kind == "voter" for member in configuration.members), "somebody can lead"
    assert not (configuration.outgoing and configuration.target), "a change is in one phase"
    assert bool(configuration.target) == bool(configuration.fallback), "a change that waits can be taken back"


def check_leader(state: State, leader: Leader) -> None:
    """Check what is true of a leader.

    Raises:
        AssertionError: it is not.
    """
    assert state.voted_for == state.peer, "a leader voted for itself"
    assert not state.bare, "a leader holds all commands"
    assert leader.first_index <= state.log.last, "a leader's log holds the no-op of its term"
    assert state.log.term(leader.first_index) == state.term, "the no-op is of the leader's term"
    followed = {*state.others, *leader.leaving}
    assert leader.progress.keys() == followed, "a leader follows the progress of every other member, and of who leaves"
    witnesses = {peer for peer in state.others if leader.progress[peer].is_witness}
    named = state.configuration.witnesses if state.configuration else frozenset()
    assert witnesses == named.intersection(state.others), "members but witnesses are sent what commands say"
    for progress in leader.progress.values():
        check_progress(state, progress)
    assert ascends([number for number, _ in leader.beats]), "rounds of heartbeats are in order"
    assert ascends([number for number, _, _ in leader.rounds]), "rounds of reads are in order"


def check_progress(state: State, progress: Progress) -> None:
    """Check what is true of a leader's knowledge of one peer.

    Raises:
        AssertionError: it is not.
    """
    assert 0 <= progress.match_index < progress.next_index <= state.log.last + 1, "match index < next index <= last + 1"
    assert len(progress.in_flight) <= (1 if progress.probing else state.settings.in_flight_max), "the window is bounded"
    flight = progress.in_flight
    assert ascends(flight), "what is in flight is in order"
    assert not flight or flight[0] > progress.match_index, "what is acknowledged is not in flight"
    assert progress.probing or not flight or flight[-1] < progress.next_index, "what is offered next is not in flight"


def ascends(numbers: Sequence[int]) -> bool:
    """Tell whether each of some numbers is above the one before it."""
    return len(numbers) < 2 or list(numbers) == sorted(set(numbers))


def check_step(before: Facts, after: Facts) -> None:
    """Check what is true of two states of one peer in a row, within one life of its process.

    Raises:
        AssertionError: it is not; the message says what.
    """
    assert after.hard_state.term >= before.hard_state.term, "the term never falls"
    if after.hard_state.term == before.hard_state.term:
        kept = before.hard_state.voted_for in {None, after.hard_state.voted_for}
        assert kept, "a vote is given at most once in a term"
        leads_on = before.is_leader and after.is_leader
        assert not leads_on or after.last >= before.last, "a leader never overwrites or deletes its entries (Figure 3)"
        counted = leads_on and after.commit_index > before.commit_index
        # "Only log entries from the leader's current term are committed by counting replicas" (§5.4.2).
        assert not counted or after.commit_term == after.hard_state.term, "a leader commits by an entry of its own term"
    assert after.commit_index >= before.commit_index, "the commit index never falls"
    if after.configurations != before.configurations:
        for _, configuration in after.configurations:
            check_configuration(configuration)
