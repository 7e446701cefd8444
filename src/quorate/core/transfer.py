"""Handing over leadership: both sides of TimeoutNow (thesis 3.10).

Knows how far the target has caught up. Does not elect: what the target does then is ``raft.py``'s to say.
"""

from __future__ import annotations

from quorate.core.messages import TimeoutNow
from quorate.core.ready import EventKind
from quorate.core.state import Follower, Leader, State, Transfer, name, note, send
from quorate.types import PeerId


def start_transfer(state: State, leader: Leader, to: PeerId) -> None:
    """Begin to hand over to ``to``: no proposals are taken until it leads or the time for it has passed."""
    note(state, EventKind.ROLE, f"leadership is wanted elsewhere -> hand over to {name(state, to)}")
    leader.transfer = Transfer(to, state.now + state.settings.election_timeout_max)


def best_target(leader: Leader) -> PeerId | None:
    """Give the peer that would have to catch up least: of those alike, the one heard last; None when there is none."""
    progress = leader.progress
    return max(progress, key=lambda peer: (progress[peer].match_index, progress[peer].heard), default=None)


def send_timeout_now(state: State) -> None:
    """Tell the target to campaign at once, as soon as its log is ours ("its log entries match the leader's")."""
    assert isinstance(state.role, Leader), "only a leader hands over"
    transfer = state.role.transfer
    if transfer is None or transfer.is_sent or state.role.progress[transfer.to].match_index < state.log.last:
        return
    transfer.is_sent = True
    send(state, transfer.to, TimeoutNow(state.term, state.peer))


def abort_late_transfer(state: State, leader: Leader) -> None:
    """Take up leading again when the target does not lead in time (thesis 3.10: "about an election timeout")."""
    if leader.transfer is not None and state.now >= leader.transfer.deadline:
        note(state, EventKind.ROLE, f"{name(state, leader.transfer.to)} does not take over in time -> lead on")
        leader.transfer = None


def is_asked_to_campaign(state: State, sender: PeerId) -> bool:
    """Tell whether a TimeoutNow of this term is from the leader we follow, and we may campaign."""
    is_ours = isinstance(state.role, Follower) and state.role.leader == sender
    return is_ours and state.peer in state.voters
