"""Electing a leader: RequestVote and RequestPreVote, both sides of each (Raft §5.2, §5.4.1; thesis 4.2.3, 9.6).

Knows votes and how up to date logs are. Does not replicate: what a won election leads to is ``raft.py``'s to say.
"""

from __future__ import annotations

from quorate.core.messages import RequestPreVote, RequestPreVoteReply, RequestVote, RequestVoteReply
from quorate.core.progress import Progress
from quorate.core.quorum import is_quorum, majority
from quorate.core.ready import EventKind
from quorate.core.state import (
    Candidate,
    Follower,
    Leader,
    PreCandidate,
    State,
    draw_election_deadline,
    hears_leader,
    name,
    next_beat,
    note,
    send,
    send_after_persist,
)
from quorate.types import Index, PeerId, Term


def start_pre_vote(state: State) -> None:
    """Ask every other voter whether it would vote for us, before the term is raised (thesis 9.6).

    A peer that was cut off asks in vain and so cannot depose a healthy leader with a high term when it returns.
    """
    draw_election_deadline(state)
    state.role = PreCandidate(votes={state.peer: True})
    note(state, EventKind.ROLE, f"election timeout -> pre-candidate for term {state.term + 1}")
    request = RequestPreVote(Term(state.term + 1), state.peer, state.log.last, state.log.last_term)
    for voter in other_voters(state):
        send(state, voter, request)


def forget_leader(state: State) -> None:
    """Believe no longer in a leader that is silent; for those that never campaign themselves."""
    if isinstance(state.role, Follower) and state.role.leader is not None:
        note(state, EventKind.LEADER, f"{name(state, state.role.leader)} is silent -> follow nobody")
        state.role.leader = None


def lose_leader(state: State, peer: PeerId) -> None:
    """Follow nobody if that peer led: nothing listens where its node was reached.

    A hint, never a proof: its process may live, and the others may reach it. So nothing is decided here but that we
    ask for pre-votes sooner, and no longer refuse them, nor votes, because the leader was heard. What it was promised
    for its leases (thesis 6.4.1) is kept.
    """
    # Deviation: a leader that cannot be reached keeps nobody from voting, however lately it was heard, but for what it
    # was promised for its leases.
    role = state.role
    if not isinstance(role, Follower) or role.leader != peer:
        return
    note(state, EventKind.LEADER, f"{name(state, peer)} is unreachable -> follow nobody")
    role.leader, role.heard = None, role.promised
    since = max(state.now, role.promised + state.settings.election_timeout_min)
    turn = since + campaign_order(state, peer) * state.settings.heartbeat_interval
    state.election_deadline = min(state.election_deadline, turn)
    if role.put_off is not None:
        receive_request_pre_vote(state, *role.put_off)


def await_first_election(state: State) -> None:
    """Have the last member of a new group campaign at once.

    Nobody can have been promised anything. If that comes to nothing, any of them campaigns after its election timeout.
    """
    draw_election_deadline(state)
    if state.configuration and state.configuration.by_formation[-1].id == state.peer:
        state.election_deadline = state.now


def campaign_order(state: State, lost: PeerId) -> int:
    """Tell how many voters go before us when all lose the leader at once: had they no order, votes would be split.

    The ids are drawn at random: so the groups of a node that is lost are led by several others.
    """
    voters = state.configuration.voters if state.configuration else ()
    return sum(member.kind == "voter" and member.id < state.peer and member.id != lost for member in voters)


def start_election(state: State, *, is_transfer: bool = False) -> None:
    """Become a candidate and ask every other voter for its vote (Raft §5.2).

    Args:
        state: the peer.
        is_transfer: whether the leader asked for it (thesis 3.10).
    """
    # Candidates 1. On conversion to candidate, start election: increment currentTerm; vote for self; reset election
    # timer; send RequestVote RPCs to all other servers
    state.term = Term(state.term + 1)
    state.voted_for = state.peer
    draw_election_deadline(state)
    state.role = Candidate(votes={state.peer: True})
    why = "the leader hands over" if is_transfer else "quorum of pre-votes"
    note(state, EventKind.ROLE, f"{why} -> candidate in term {state.term}")
    request = RequestVote(state.term, state.peer, state.log.last, state.log.last_term, is_transfer)
    for voter in other_voters(state):
        # The request says "I voted for myself": were it sent before that is durable, a crash could let us vote again.
        send_after_persist(state, voter, request)


def become_leader(state: State) -> None:
    """Lead the current term: next index just after the last log entry, match index 0 (Raft, Figure 2)."""
    note(state, EventKind.ROLE, f"quorum of votes -> leader of term {state.term}")
    next_index, before = Index(state.log.last + 1), members_before(state)
    progress = {
        peer: Progress(next_index, state.now, is_witness=is_witness(state, peer)) for peer in (*state.others, *before)
    }
    state.role = Leader(
        progress=progress,
        first_index=next_index,
        heartbeat_deadline=next_beat(state),
        prefer_at=state.now + state.settings.election_timeout_max,
        leaving=dict.fromkeys(before, state.now + state.settings.catch_up_timeout),
    )


def members_before(state: State) -> list[PeerId]:
    """Give those whom a configuration that is not committed yet leaves out: its leader may not have told them."""
    if len(state.configurations) < 2 or state.configurations[-1][0] <= state.commit_index:
        return []
    before = state.configurations[-2][1].everyone
    return [member.id for member in before if member.id not in state.others and member.id != state.peer]


def is_witness(state: State, peer: PeerId) -> bool:
    """Tell whether a peer is a witness by the latest configuration that names it: by an earlier one it may be another.

    Who was a witness may be back as one that holds data. Sent no commands then, it would be counted as a copy of them.
    """
    found = (configuration for _, configuration in reversed(state.configurations) if configuration.member(peer))
    return next(found).is_witness(peer)


def other_voters(state: State) -> list[PeerId]:
    """Give whose votes are asked for: every voter in force but this peer, each once."""
    voters = {voter for group in state.groups for voter in group}
    return [peer for peer in state.others if peer in voters]


def has_won(state: State, votes: dict[PeerId, bool]) -> bool:
    """Tell whether the voters in force have said yes. Votes of others count for nothing."""
    return is_quorum(state.groups, lambda voter: votes.get(voter, False))


def is_up_to_date(state: State, last_log_term: Term, last_log_index: Index) -> bool:
    """Tell whether a log that ends so is at least as up-to-date as ours (Raft §5.4.1)."""
    # "If the logs have last entries with different terms, then the log with the later term is more up-to-date. If the
    # logs end with the same term, then whichever log is longer is more up-to-date."
    if last_log_term != state.log.last_term:
        return last_log_term > state.log.last_term
    return last_log_index >= state.log.last


def receive_request_pre_vote(state: State, sender: PeerId, request: RequestPreVote) -> None:
    """Say whether we would vote for the sender, and change nothing (thesis 9.6)."""
    # "... if the candidate's log is sufficiently up-to-date, and the voters have not received heartbeats from a valid
    # leader for at least a baseline election timeout" (thesis 9.6)
    would_vote = request.next_term > state.term and is_up_to_date(state, request.last_log_term, request.last_log_index)
    granted = would_vote and not hears_leader(state)
    if isinstance(state.role, Follower):
        # Who lost the leader a moment before us need not ask again.
        state.role.put_off = (sender, request) if would_vote and not granted else None
    send(state, sender, RequestPreVoteReply(state.term, request.next_term, granted))


def receive_request_pre_vote_reply(state: State, sender: PeerId, reply: RequestPreVoteReply) -> None:
    """Count the answer, if it is to the question we are asking now."""
    if isinstance(state.role, PreCandidate) and reply.next_term == state.term + 1:
        state.role.votes[sender] = reply.vote_granted


def receive_request_vote(state: State, sender: PeerId, request: RequestVote) -> None:
    """Figure 2, "RequestVote RPC, Receiver implementation"."""
    # RequestVote RPC 1. Reply false if term < currentTerm (§5.1)
    if request.term < state.term:
        send(state, sender, RequestVoteReply(state.term, vote_granted=False))
        return
    # RequestVote RPC 2. If votedFor is null or candidateId, and candidate's log is at least as up-to-date as
    # receiver's log, grant vote (§5.2, §5.4)
    may_vote = state.voted_for is None or state.voted_for == sender
    up_to_date = is_up_to_date(state, request.last_log_term, request.last_log_index)
    if not may_vote or not up_to_date:
        reason = f"voted for {name(state, state.voted_for)} already" if not may_vote else "its log is behind ours"
        note(state, EventKind.VOTE, f"{name(state, sender)} asks for a vote, {reason} -> refuse")
        send(state, sender, RequestVoteReply(state.term, vote_granted=False))
        return
    if state.voted_for is None:
        state.voted_for = sender
        note(state, EventKind.VOTE, f"{name(state, sender)} asks for a vote, its log is up to date -> grant")
    # "... or granting vote to candidate" resets the election timer (Raft, Figure 2, Followers 2).
    draw_election_deadline(state)
    # The vote must survive a crash before anyone counts it, and so must the log by which it was judged.
    send_after_persist(state, sender, RequestVoteReply(state.term, vote_granted=True))


def receive_request_vote_reply(state: State, sender: PeerId, reply: RequestVoteReply) -> None:
    """Count the vote: by voter, so that a repeated reply counts once."""
    if isinstance(state.role, Candidate):
        state.role.votes[sender] = reply.vote_granted


def pending_text(state: State) -> str:
    """Say in a sentence how far the search for a leader is: for ``status``."""
    match state.role:
        case PreCandidate(votes=votes) | Candidate(votes=votes):
            others = other_voters(state)
            silent = [name(state, voter) for voter in others if voter not in votes]
            refused = [name(state, voter) for voter in others if votes.get(voter) is False]
            asked = "pre-votes" if isinstance(state.role, PreCandidate) else "votes"
            counts = [
                f"{sum(votes.get(voter, False) for voter in group)} of {len(group)}, {majority(len(group))} needed"
                for group in state.groups
            ]
            parts = [f"it is asking for {asked}: {' and '.join(counts)}"]
            if silent:
                parts.append(f"no answer from {', '.join(silent)}")
            if refused:
                parts.append(f"refused by {', '.join(refused)}")
            return "; ".join(parts)
        case Follower() | Leader():
            wait = max(0.0, state.election_deadline - state.now)
            return f"it has heard no leader in term {state.term}; an election starts in {wait:.1f} s"
