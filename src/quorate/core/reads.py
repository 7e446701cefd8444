"""Linearizable reads: by read index, on the leader and elsewhere, and by lease (Raft §8; thesis 6.4).

Knows rounds of heartbeats, who acknowledged them and when they were sent. Does not know what is read.
"""

from __future__ import annotations

from quorate.core.messages import ReadIndex, ReadIndexReply
from quorate.core.quorum import reached_by_quorum
from quorate.core.ready import ReadReady
from quorate.core.state import AnyRead, Follower, Leader, RemoteRead, State, send
from quorate.types import Index, PeerId, ReadId

LEASE_TIMEOUTS = 10
"""For how many of the longest election timeouts after a read by lease the followers are asked for promises. While they
are given, a group whose leader is lost waits until they have run out."""

# On the leader.


def add_read(leader: Leader, read: AnyRead) -> None:
    """Let a batch of reads wait for the next round."""
    leader.reads.append(read)


def begin_round(state: State) -> bool:
    """Fix the read index of all reads that wait, for the round of heartbeats that is about to confirm it.

    A read rides only on a round *sent after* it arrived: a reply to an earlier one says nothing of what a newer leader
    may have committed since. Until an entry of this term is committed the leader does not know what is, and reads wait
    ("a leader must have the latest information on which entries are committed", §8).

    Returns:
        True when a round must be sent: heartbeats to every peer. Its number is ``leader.round + 1``.
    """
    assert isinstance(state.role, Leader), "only a leader begins rounds"
    leader = state.role
    if not leader.reads or state.commit_index < leader.first_index:
        return False
    leader.rounds.append((leader.round + 1, state.commit_index, tuple(leader.reads)))
    leader.reads.clear()
    return True


def release_reads(state: State) -> None:
    """Release the reads of every round that a quorum has acknowledged, the leader itself included."""
    assert isinstance(state.role, Leader), "only a leader releases reads"
    leader = state.role
    if not leader.rounds:
        return
    confirmed = confirmed_round(state, leader)
    while leader.rounds and leader.rounds[0][0] <= confirmed:
        _, index, reads = leader.rounds.pop(0)
        for read in reads:
            if isinstance(read, RemoteRead):
                send(state, read.peer, ReadIndexReply(state.term, read.life, read.id, index))
            else:
                state.outbox.reads.append(ReadReady(read, index))


def confirmed_round(state: State, leader: Leader) -> float:
    """Give the latest round that a quorum has acknowledged."""
    progress, ours, latest = leader.progress, state.peer, leader.round
    return reached_by_quorum(state.groups, lambda voter: latest if voter == ours else progress[voter].round)


def use_lease(state: State, leader: Leader) -> bool:
    """Tell whether reads may be answered by lease now; if not, a later round will ask for what that needs."""
    leader.lease_until = state.now + LEASE_TIMEOUTS * state.settings.election_timeout_max
    return has_lease(state, leader)


def has_lease(state: State, leader: Leader) -> bool:
    """Tell whether no other peer can have been elected yet (thesis 6.4.1)."""
    return state.now < lease_end(state, leader)


def lease_end(state: State, leader: Leader) -> float:
    """Give the instant before which no other peer can be elected; minus infinity when that is not known.

    Those that acknowledged a round that asked for it refuse their votes for the minimum election timeout since they
    *received* it, so the lease runs from when it was *sent*. Their clocks may be fast and ours slow, each by
    ``clock_drift_max``. Who hands over has no lease, nor who ever told a peer in this term to campaign: that election
    is refused by nobody, and may come long after the transfer was given up.
    """
    if leader.transfer is not None or leader.has_released or state.commit_index < leader.first_index:
        return float("-inf")
    confirmed = confirmed_round(state, leader)
    sent = max((sent for round_, sent in leader.beats if round_ <= confirmed), default=float("-inf"))
    drift = state.settings.clock_drift_max
    return sent + state.settings.election_timeout_min * (1 - drift) / (1 + drift)


def receive_read_index(state: State, sender: PeerId, request: ReadIndex) -> None:
    """Let reads that wait at another peer wait for the next round here."""
    if isinstance(state.role, Leader):
        add_read(state.role, RemoteRead(sender, request.life, request.id))


# Elsewhere.


def ask_leader(state: State, read: ReadId, leader: PeerId) -> None:
    """Ask the leader for the read index of reads that wait here: "Followers could also help" (thesis 6.4)."""
    state.asked[read] = state.now
    send(state, leader, ReadIndex(state.term, state.life, read))


def ask_again(state: State) -> None:
    """Ask the leader again for what was lost on the way, or died with another leader."""
    if isinstance(state.role, Follower) and state.role.leader is not None:
        for read, since in state.asked.items():
            if state.now >= since + state.settings.election_timeout_min:
                ask_leader(state, read, state.role.leader)


def receive_read_index_reply(state: State, reply: ReadIndexReply) -> None:
    """Release reads that wait here, if it is this life of this peer that asked.

    An answer of an earlier term counts as well: the index was right at some moment after the reads had arrived.
    """
    if reply.life == state.life and state.asked.pop(reply.id, None) is not None:
        state.outbox.reads.append(ReadReady(reply.id, Index(reply.index)))


def take_over_reads(state: State, leader: Leader) -> None:
    """Let reads that waited for another leader wait for this one, which we are now."""
    leader.reads.extend(state.asked)
    state.asked.clear()
