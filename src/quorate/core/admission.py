"""Which messages may change nothing here, not even the term: those that no honest member can have sent to us now.

Everything that comes from the network passes here first. Decides nothing else.
"""

from __future__ import annotations

from quorate.core import replication, snapshot
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import EventKind
from quorate.core.state import Leader, State, hears_leader, name, note
from quorate.types import PeerId

TERMS_AHEAD_MAX = 2**32
"""How far above ours the term of a message may be: with an election each second the others get that far ahead of us in
136 years. A term that nobody can go beyond would end all elections, and the disk keeps it."""


def is_refused(state: State, sender: PeerId, message: Message) -> bool:
    """Tell whether a message may change nothing, not even the term."""
    if is_of_no_term(state, sender, message):
        return True
    match message:
        case AppendEntries(leader_id=author) | InstallSnapshot(leader_id=author):
            return is_impostor(state, sender, author) or refuses_leader(state, sender, message)
        case RequestVote(candidate_id=author) | RequestPreVote(candidate_id=author):
            return is_impostor(state, sender, author) or refuses_candidate(state, message)
        case TimeoutNow(leader_id=leader):
            return leader != sender or message.term < state.term
        case AppendEntriesReply(term=term):
            # Acknowledgements and votes count only from members, and only in the term they were given in.
            is_told = isinstance(state.role, Leader) and sender in state.role.leaving
            return (sender not in state.others and not is_told) or term < state.term
        case RequestVoteReply(term=term):
            return sender not in state.others or term < state.term
        case RequestPreVoteReply() | ReadIndex() | ReadIndexReply():
            return sender not in state.others


def is_of_no_term(state: State, sender: PeerId, message: Message) -> bool:
    """Tell whether the term of a message is one that the group cannot have reached."""
    term = message.next_term if isinstance(message, RequestPreVote) else message.term
    if term <= state.term + TERMS_AHEAD_MAX:
        return False
    note(state, EventKind.IGNORED, f"{name(state, sender)} claims term {term}, far above ours ({state.term}) -> ignore")
    return True


def is_impostor(state: State, sender: PeerId, author: PeerId) -> bool:
    """Tell whether the sender speaks for another peer, or for this one."""
    if author == sender and sender != state.peer:
        return False
    note(state, EventKind.IGNORED, f"{name(state, sender)} speaks for {name(state, author)} -> ignore")
    return True


def refuses_leader(state: State, sender: PeerId, message: AppendEntries | InstallSnapshot) -> bool:
    """Tell whether a message is none that a leader of this group can send to this peer."""
    is_sound = replication.is_sound(message) if isinstance(message, AppendEntries) else snapshot.is_sound(message)
    if not is_sound:
        note(state, EventKind.IGNORED, f"{name(state, sender)} sends what no leader can -> ignore")
    # Two leaders of one term there are not: one who claims it is no honest one.
    return not is_sound or (isinstance(state.role, Leader) and message.term == state.term)


def refuses_candidate(state: State, message: RequestVote | RequestPreVote) -> bool:
    """Tell whether a request for a vote is not even looked at."""
    # A peer without a configuration never votes: under its name it may have voted before its disk was lost.
    if state.configuration is None:
        return True
    # "if a server receives a RequestVote request within the minimum election timeout of hearing from a current leader,
    # it does not update its term or grant its vote" (thesis 4.2.3)
    return isinstance(message, RequestVote) and not message.is_transfer and hears_leader(state)
