"""Linearizable reads by read index (Raft §8; thesis 6.4).

Knows rounds of heartbeats and who acknowledged them. Does not know what is read.
"""

from __future__ import annotations

from quorate.core.quorum import reached_by_majority
from quorate.core.ready import ReadReady
from quorate.core.state import Leader, State
from quorate.types import ReadId


def add_read(leader: Leader, read: ReadId) -> None:
    """Let a batch of reads wait for the next round."""
    leader.reads.append(read)


def begin_round(state: State) -> bool:
    """Fix the read index of all reads that wait, and begin the round of heartbeats that will confirm it.

    A read rides only on a round *sent after* it arrived: a reply to an earlier one says nothing of what a newer leader
    may have committed since. Until an entry of this term is committed the leader does not know what is, and reads wait
    ("a leader must have the latest information on which entries are committed", §8).

    Returns:
        True when a round began: a heartbeat with its number must go to every peer.
    """
    assert isinstance(state.role, Leader), "only a leader begins rounds"
    leader = state.role
    if not leader.reads or state.commit_index < leader.first_index:
        return False
    leader.round += 1
    leader.rounds.append((leader.round, state.commit_index, tuple(leader.reads)))
    leader.reads.clear()
    return True


def release_reads(state: State) -> None:
    """Release the reads of every round that a quorum has acknowledged, the leader itself included."""
    assert isinstance(state.role, Leader), "only a leader releases reads"
    leader = state.role
    if not leader.rounds:
        return
    progress = leader.progress
    confirmed = reached_by_majority(
        [progress[voter].round if voter in progress else leader.round for voter in state.voters]
    )
    while leader.rounds and leader.rounds[0][0] <= confirmed:
        _, index, reads = leader.rounds.popleft()
        state.outbox.reads.extend(ReadReady(read, index) for read in reads)
