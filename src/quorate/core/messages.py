"""The RPCs as values: Figure 2, with the paper's field names in its order. Encoded as tagged MessagePack arrays.

Every message but ``RequestPreVote`` carries its sender's ``term``, so the rule for all servers is applied once.
New fields go to the end, with a default.
"""

from __future__ import annotations

import msgspec

from quorate.types import Index, PeerId, ReadId, Run, Snapshot, Term


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Figure 2, "AppendEntries RPC": replicates entries; with none of them it is a heartbeat.

    Attributes:
        term: the leader's term.
        leader_id: so that the follower can redirect clients.
        prev_log_index: index of the entry immediately before the new ones.
        prev_log_term: term of that entry.
        leader_commit: the leader's commit index.
        round: the latest round of reads the leader had begun when it sent this (thesis 6.4); echoed by the reply.
        entries: runs to store, contiguous from ``prev_log_index + 1`` on. Left empty by the core; the shell attaches
            the range that the ``Envelope`` names.
        lease: whether the leader answers reads by lease: who takes this message promises to vote for nobody else until
            the minimum election timeout has passed (thesis 6.4.1).
    """

    term: Term
    leader_id: PeerId
    prev_log_index: Index
    prev_log_term: Term
    leader_commit: Index
    round: int = 0
    entries: tuple[Run, ...] = ()
    lease: bool = False


class AppendEntriesReply(msgspec.Struct, frozen=True, array_like=True, tag="appended"):
    """The reply to ``AppendEntries``.

    Attributes:
        term: the follower's current term, for the leader to update itself.
        success: true if the follower held an entry matching ``prev_log_index`` and ``prev_log_term``.
        match_index: when successful, the last index that this message covered *and that is durable*; else 0.
        round: the ``round`` of the request.
        prev_log_index: that of the request, so that a leader knows a stale refusal.
        conflict_index: when refused, where to go on: the first index the follower holds of ``conflict_term``, or
            one beyond its last index (Raft §5.3, end).
        conflict_term: when refused, the term the follower holds at ``prev_log_index``; 0 when it holds none there.
        is_applying: whether it has yet to apply some of what it knows to be committed. Left false by the core; the
            shell of a newcomer that catches up says so.
        applied_index: beside that, what it has applied: where others write all the time there is always some more.
    """

    term: Term
    success: bool
    match_index: Index
    round: int = 0
    prev_log_index: Index = Index(0)
    conflict_index: Index = Index(0)
    conflict_term: Term = Term(0)
    is_applying: bool = False
    applied_index: Index = Index(0)


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag="vote"):
    """Figure 2, "RequestVote RPC".

    Attributes:
        term: the candidate's term.
        candidate_id: the candidate requesting the vote.
        last_log_index: index of the candidate's last log entry.
        last_log_term: term of that entry.
        is_transfer: true when the leader asked for this election: then that it was heard is no reason to refuse.
    """

    term: Term
    candidate_id: PeerId
    last_log_index: Index
    last_log_term: Term
    is_transfer: bool = False


class RequestVoteReply(msgspec.Struct, frozen=True, array_like=True, tag="voted"):
    """The reply to ``RequestVote``.

    Attributes:
        term: the voter's current term, for the candidate to update itself.
        vote_granted: true means the candidate received the vote.
    """

    term: Term
    vote_granted: bool


class RequestPreVote(msgspec.Struct, frozen=True, array_like=True, tag="prevote"):
    """Asks whether a vote would be granted, changing nothing anywhere (thesis 9.6).

    Attributes:
        next_term: the term in which the sender would campaign: its own and one.
        candidate_id: the pre-candidate.
        last_log_index: index of its last log entry.
        last_log_term: term of that entry.
    """

    next_term: Term
    candidate_id: PeerId
    last_log_index: Index
    last_log_term: Term


class RequestPreVoteReply(msgspec.Struct, frozen=True, array_like=True, tag="prevoted"):
    """The reply to ``RequestPreVote``.

    Attributes:
        term: the current term of the peer that was asked; a pre-candidate that is behind learns it here.
        next_term: that of the request.
        vote_granted: true means it would vote for the sender.
    """

    term: Term
    next_term: Term
    vote_granted: bool


class InstallSnapshot(msgspec.Struct, frozen=True, array_like=True, tag="install"):
    """Figure 13, "InstallSnapshot RPC": replaces what a follower lacks and the leader no longer holds as entries.

    The file itself travels in chunks on a connection of its own (``data``, ``offset`` and ``done`` of the paper are the
    transport's). The leader's core hands this out to have it sent; the follower's core receives it once the whole file
    is there, verified and durable. It is answered by an ``AppendEntriesReply``.

    Attributes:
        term: the leader's term.
        leader_id: so that the follower can redirect clients.
        snapshot: lastIncludedIndex, lastIncludedTerm and the latest configuration as of there.
    """

    term: Term
    leader_id: PeerId
    snapshot: Snapshot


class ReadIndex(msgspec.Struct, frozen=True, array_like=True, tag="read"):
    """Asks the leader for the read index of a batch of reads that wait at another peer (thesis 6.4).

    Attributes:
        term: the sender's term.
        life: a number that the sender drew when it started: an answer to an earlier life of it answers nothing.
        id: the batch, as the sender names it.
    """

    term: Term
    life: int
    id: ReadId


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag="read_at"):
    """The reply to ``ReadIndex``, once a quorum has confirmed that the leader still led.

    Attributes:
        term: the leader's term.
        life: that of the request.
        id: that of the request.
        index: the read index: the reads may be answered by a machine that has applied it.
    """

    term: Term
    life: int
    id: ReadId
    index: Index


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag="timeout_now"):
    """Asks a follower to campaign at once: its leader hands over to it (thesis 3.10). Has no reply.

    Attributes:
        term: the leader's term.
        leader_id: the leader.
    """

    term: Term
    leader_id: PeerId


Message = (
    AppendEntries
    | AppendEntriesReply
    | RequestVote
    | RequestVoteReply
    | RequestPreVote
    | RequestPreVoteReply
    | TimeoutNow
    | InstallSnapshot
    | ReadIndex
    | ReadIndexReply
)
"""Everything that one peer may say to another."""


def acknowledges(message: Message, index: Index) -> bool:
    """Tell whether a message says that the entry at an index, 1 or more, is durable; a refusal names none."""
    return isinstance(message, AppendEntriesReply) and message.match_index >= index
