"""Changing the members of a group: catching up, joint consensus, leaving (thesis 4).

One path for every change, led by whoever leads: the configuration in the log says how far it has come, so a new leader
goes on where the old one stopped. Knows configurations and how far newcomers have caught up. Does not send entries.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate.core.configuration import (
    Configuration,
    Member,
    Members,
    check_members,
    configuration_text,
    encode_configuration,
)
from quorate.core.ready import EventKind
from quorate.core.state import CatchUp, Leader, State, append, is_answering, name, note
from quorate.errors import ChangeInProgress, InvalidConfiguration
from quorate.types import Index, Kind, Run, Term

FIRST_TERM = Term(1)
"""The term of the first configuration, which is written before there is any leader."""

ROUNDS_MAX = 10
"""A newcomer that needs more rounds than this falls behind faster than it catches up (thesis 4.2.1)."""


def write_first(state: State, configuration: Configuration) -> None:
    """Write the first configuration of a group into an empty log.

    Raises:
        InvalidConfiguration: this peer is not among the members, or belongs to a group with another configuration.
    """
    if state.log.last > 0:
        members = configuration_text(state.configuration)
        raise InvalidConfiguration(f"this peer already belongs to the group of {members}")
    check_members(configuration.members)
    if not configuration.is_settled:
        raise InvalidConfiguration("a first configuration cannot be in the middle of a change")
    if configuration.member(state.peer) is None:
        raise InvalidConfiguration(f"this peer is not among the members {configuration_text(configuration)}")
    state.term = max(state.term, FIRST_TERM)
    payload = encode_configuration(configuration)
    append(state, Run(FIRST_TERM, Index(1), Kind.CONFIGURATION, 0.0, (payload,)), configuration)


def start_change(state: State, leader: Leader, members: Sequence[Member]) -> None:
    """Begin to change the members to those wanted; done at once when that is what they are.

    Args:
        state: the peer.
        leader: its role.
        members: all members wanted, in any order.

    Raises:
        InvalidConfiguration: they cannot be the members of this group.
        ChangeInProgress: another change is under way, or the leader is too new to know whether one is.
    """
    index, current = state.configurations[-1]
    target = tuple(sorted(members, key=lambda member: member.address.name))
    check_members(target)
    check_identities(current, target)
    if leader.transfer is not None:
        raise ChangeInProgress(f"leadership is being handed over to {name(state, leader.transfer.to)}; try again then")
    if state.commit_index < leader.first_index:
        # Two leaders in a row could otherwise commit two changes whose majorities do not meet: the fault found in the
        # thesis's single-server changes in 2015, and closed the same way for every change.
        raise ChangeInProgress("the leader is new and has not committed an entry of its term yet; try again at once")
    if not current.is_settled or index > state.commit_index:
        raise ChangeInProgress("another change of the members is under way; try again when it is done")
    if is_removed(state):
        raise ChangeInProgress(f"{name(state, state.peer)} has been removed and is about to hand over; try again then")
    leader.change_failure = None
    leader.catch_ups.clear()
    wanted = Configuration(current.group, current.members, (), target)
    if target == current.members:
        return
    if not wanted.newcomers:
        enter(state, current, target)
        return
    # "a new server joins the cluster as a non-voting member" until it has caught up (thesis 4.2.1).
    known = {member.id for member in current.members}
    learners = [Member(m.id, m.address, "learner", m.priority) for m in target if m.id not in known]
    everyone = tuple(sorted([*current.members, *learners], key=lambda member: member.address.name))
    check_members(everyone)
    append_configuration(state, Configuration(current.group, everyone, (), target, current.members))


def check_identities(current: Configuration, target: Members) -> None:
    """Check that nobody changes its name, takes another's, or turns from a witness into one that holds data.

    Raises:
        InvalidConfiguration: somebody does.
    """
    for member in target:
        before, named = current.member(member.id), current.named(member.address.name)
        if before and before.address.name != member.address.name:
            raise InvalidConfiguration(f"{before.address.name} cannot be renamed to {member.address.name}")
        if named and named.id != member.id:
            raise InvalidConfiguration(
                f"{member.address.name} is the name of another member (id {named.id}): remove that one first, or give"
                " the newcomer a name of its own"
            )
        if before and (before.kind == "witness") != (member.kind == "witness"):
            raise InvalidConfiguration(
                f"{member.address.name} cannot change to or from a witness, which holds no data: remove it, and let it"
                " join anew with an empty data directory"
            )


def enter(state: State, current: Configuration, target: Members) -> None:
    """Append the configuration that gives the members wanted their votes."""
    final = Configuration(current.group, target)
    if final.groups == current.groups:
        append_configuration(state, final)
    else:
        # "it stores the configuration for joint consensus (C_old,new in the figure) as a log entry" (thesis 4.3)
        append_configuration(state, Configuration(current.group, target, current.voters))


def append_configuration(state: State, configuration: Configuration) -> None:
    """Append a configuration to the log; it is in force from now on."""
    payload = encode_configuration(configuration)
    run = Run(state.term, Index(state.log.last + 1), Kind.CONFIGURATION, 0.0, (payload,))
    append(state, run, configuration)


def advance_change(state: State, leader: Leader) -> bool:
    """Take the change that is under way one step further, if it is time.

    Returns:
        True when this peer has been removed and the group goes on without it: it must lead no longer.
    """
    stop_telling(state, leader)
    index, current = state.configurations[-1]
    if current.target:
        catch_up(state, leader, current)
    if index > state.commit_index or state.commit_index < leader.first_index:
        return False
    if current.target:
        finish_catching_up(state, leader, current)
    elif current.outgoing:
        # "Once C_old,new has been committed ... it is now safe for the leader to create a log entry describing C_new"
        # (thesis 4.3)
        append_configuration(state, Configuration(current.group, current.members))
    elif is_removed(state):
        # "a leader that is removed from the configuration steps down once the C_new entry is committed" (thesis 4.2.2)
        return not tells_on(state, leader)
    return False


def is_removed(state: State) -> bool:
    """Tell whether this peer is counted in no quorum any more."""
    return all(state.peer not in group for group in state.groups)


def tells_on(state: State, leader: Leader) -> bool:
    """Tell whether a leader that is removed still waits for one that leaves with it, who may yet learn that it does.

    For an election timeout at most: meanwhile nothing is written.
    """
    enough = state.now + state.settings.election_timeout_max
    leader.leaving = {peer: min(until, enough) for peer, until in leader.leaving.items()}
    # What is compacted is sent to nobody who leaves: who needs it learns nothing more.
    reached = [leader.progress[peer] for peer in leader.leaving if leader.progress[peer].next_index > state.log.start]
    return any(is_answering(state, progress) for progress in reached)


def catch_up(state: State, leader: Leader, current: Configuration) -> None:
    """Note how far each newcomer has come, and give up who cannot follow."""
    for newcomer in current.newcomers:
        progress = leader.progress[newcomer.id]
        way = leader.catch_ups.setdefault(newcomer.id, CatchUp(state.log.last, state.now))
        if way.is_done:
            continue
        is_applying = way.end <= progress.match_index > progress.applied_index
        if progress.match_index > way.match_index or progress.installing or is_applying:
            way.match_index, way.moved = progress.match_index, state.now
        # Deviation: a newcomer that catches up must have applied what it holds, too.
        if progress.applied_index >= way.end:
            # "The algorithm waits a fixed number of rounds (such as 10). If the last round lasts less than an election
            # timeout, then the leader adds the new server to the cluster" (thesis 4.2.1). A round of nothing is short.
            if state.now - way.since <= state.settings.election_timeout_min:
                way.is_done = True
                note(state, EventKind.CONFIGURATION, f"{newcomer.address.name} has caught up -> it may vote")
                continue
            way.round, way.end, way.since = way.round + 1, state.log.last, state.now
        if way.round > ROUNDS_MAX:
            leader.change_failure = f"{newcomer.address.name} falls behind faster than it catches up"
        elif state.now >= min(progress.heard, max(way.moved, way.since)) + state.settings.catch_up_timeout:
            is_silent = state.now >= progress.heard + state.settings.catch_up_timeout
            leader.change_failure = (
                f"{newcomer.address.name} at {newcomer.address.node} has"
                f" {'not answered' if is_silent else 'taken nothing'} for {state.settings.catch_up_timeout:g} s;"
                f" it holds the log up to {progress.match_index} of {state.log.last}"
            )


def finish_catching_up(state: State, leader: Leader, current: Configuration) -> None:
    """Go on with the change when all newcomers have caught up, or take it back when one was given up."""
    if leader.change_failure is not None:
        note(state, EventKind.CONFIGURATION, f"{leader.change_failure} -> the change is given up")
        append_configuration(state, Configuration(current.group, current.fallback))
    elif all(leader.catch_ups[newcomer.id].is_done for newcomer in current.newcomers):
        enter(state, current, current.target)


def stop_telling(state: State, leader: Leader) -> None:
    """Forget those removed once they know that they are, or long enough after."""
    index, _ = state.configurations[-1]
    # "a server that is not in C_new will no longer receive heartbeats, so it will time out and start new elections"
    # (thesis 4.2.3)
    for peer, until in list(leader.leaving.items()):
        progress = leader.progress[peer]
        knows = progress.match_index >= index and progress.commit_sent >= index
        if knows or state.now >= until:
            del leader.leaving[peer], leader.progress[peer]
