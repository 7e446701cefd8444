"""Handing over leadership: both sides of TimeoutNow, and to whom (thesis 3.10).

Knows how far the target has caught up. Does not elect: what the target does then is ``raft.py``'s to say.
"""

from __future__ import annotations

from quorate.core.messages import TimeoutNow
from quorate.core.ready import EventKind
from quorate.core.state import Follower, Leader, State, Transfer, name, note, send
from quorate.types import PeerId

PAUSES_MAX = 6
"""How often the pause before the next try to hand over to a preferred peer doubles."""


def start_transfer(state: State, leader: Leader, to: PeerId) -> None:
    """Begin to hand over to ``to``: no proposals are taken until it leads or the time for it has passed."""
    note(state, EventKind.ROLE, f"leadership is wanted elsewhere -> hand over to {name(state, to)}")
    leader.transfer = Transfer(to, state.now + state.settings.election_timeout_max)


def targets(state: State, leader: Leader) -> list[PeerId]:
    """Give who could lead in our place: the other voters that hold data, now and after a change under way."""
    configuration = state.configuration
    voters = configuration.voters if configuration else ()
    return [member.id for member in voters if member.kind == "voter" and member.id in leader.progress]


def best_target(state: State, leader: Leader) -> PeerId | None:
    """Give the peer that would have to catch up least: of those alike, the one heard last; None when there is none."""
    progress = leader.progress
    found = targets(state, leader)
    return max(found, key=lambda peer: (progress[peer].match_index, progress[peer].heard), default=None)


def prefer(state: State, leader: Leader) -> None:
    """Hand over to the voter of highest priority that is well and has all that is committed; look again after a while.

    Not for one whose priority is no higher than ours.
    """
    if state.now < leader.prefer_at or leader.transfer is not None or state.configuration is None:
        return
    leader.prefer_at = state.now + 2 * state.settings.election_timeout_max * 2 ** min(leader.preferred, PAUSES_MAX)
    priorities = {member.id: member.priority for member in state.configuration.members}
    lately = state.now - 2 * state.settings.heartbeat_interval
    well = [
        peer
        for peer in targets(state, leader)
        if leader.progress[peer].match_index >= state.commit_index and leader.progress[peer].heard > lately
    ]
    best = max(well, key=lambda peer: priorities[peer], default=None)
    if best is not None and priorities[best] > priorities.get(state.peer, 0):
        leader.preferred += 1
        start_transfer(state, leader, best)


def send_timeout_now(state: State) -> None:
    """Tell the target to campaign at once, as soon as its log is ours ("its log entries match the leader's")."""
    assert isinstance(state.role, Leader), "only a leader hands over"
    transfer = state.role.transfer
    if transfer is None or transfer.is_sent or transfer.to not in state.role.progress:
        return
    if state.role.progress[transfer.to].match_index >= state.log.last:
        transfer.is_sent = state.role.has_released = True
        send(state, transfer.to, TimeoutNow(state.term, state.peer))


def leave(state: State, leader: Leader) -> None:
    """Have the most caught up of the others campaign at once: this peer is removed, and leads no longer."""
    to = best_target(state, leader)
    assert to is not None, "a group has a voter at least, and it is not this peer"
    send(state, to, TimeoutNow(state.term, state.peer))


def abort_late_transfer(state: State, leader: Leader) -> None:
    """Take up leading again when the target does not lead in time (thesis 3.10: "about an election timeout")."""
    if leader.transfer is not None and state.now >= leader.transfer.deadline:
        note(state, EventKind.ROLE, f"{name(state, leader.transfer.to)} does not take over in time -> lead on")
        leader.transfer = None


def is_asked_to_campaign(state: State, sender: PeerId) -> bool:
    """Tell whether a TimeoutNow of this term is from the leader we follow, and we may campaign."""
    is_ours = isinstance(state.role, Follower) and state.role.leader == sender
    return is_ours and state.may_campaign
