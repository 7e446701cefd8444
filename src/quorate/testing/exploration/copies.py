"""A peer is copied before it is given an input, and two peers that can never behave differently have the same key.

Both go over all fields of all dataclasses of the core's state, so that a field that is added there is copied and told
apart here without a word. What a key leaves out is named below, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Hashable

import msgspec

from quorate.core import Message, Raft, Ready
from quorate.core.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, RequestVote, RequestVoteReply
from quorate.core.progress import Progress
from quorate.core.state import Candidate, CatchUp, Follower, Leader, Outbox, State, Unpersisted
from quorate.testing.contents import Contents
from quorate.testing.record import Peer

IGNORED: dict[type, frozenset[str]] = {
    # Knobs and dice are the same in all. The time of the last input and the deadlines: any input may come at any time.
    # What limits memory only is never reached. The outbox is empty between two inputs.
    State: frozenset(
        {"settings", "random", "now", "election_deadline", "life", "uncommitted", "uncommitted_bytes", "outbox"}
    ),
    # By the time a vote is asked for no leader counts as heard, and nothing else looks at this.
    Follower: frozenset({"heard"}),
    # Rounds confirm reads, and nobody reads here; messages carry none (``without_round``). No voter is preferred.
    Leader: frozenset({"heartbeat_deadline", "round", "beats", "prefer_at", "preferred"}),
    Progress: frozenset({"round"}),
    # No newcomer is given up: neither for being silent nor for needing too many rounds.
    CatchUp: frozenset({"round", "match_index", "moved"}),
    # Only the order of writes matters, and a disk that hangs is seen no sooner than a quorum that is silent.
    Unpersisted: frozenset({"number", "since"}),
    Contents: frozenset({"writes"}),
    # What the checks noted of the last input.
    Peer: frozenset({"facts", "compared"}),
}
"""The fields that a key leaves out."""

AGES: dict[type, frozenset[str]] = {Progress: frozenset({"heard"}), CatchUp: frozenset({"since"})}
"""Instants of which a key tells only whether the minimum election timeout has passed since then."""


ALL_NAMES: dict[type, tuple[str, ...]] = {}
KEY_NAMES: dict[type, tuple[str, ...]] = {}
"""The names of the fields of each type met so far: all of them, and those that a key holds."""


def field_names(kind: type) -> tuple[str, ...]:
    """Give the names of the fields of a dataclass, or of an outbox; none for any other type."""
    if kind not in ALL_NAMES:
        fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        ALL_NAMES[kind] = Outbox.__struct_fields__ if kind is Outbox else tuple(field.name for field in fields)
    return ALL_NAMES[kind]


def key_names(kind: type) -> tuple[str, ...]:
    """Give the names of the fields that a key holds."""
    if kind not in KEY_NAMES:
        ignored = IGNORED.get(kind, frozenset())
        KEY_NAMES[kind] = tuple(name for name in field_names(kind) if name not in ignored)
    return KEY_NAMES[kind]


def copy_peer(peer: Peer) -> Peer:
    """Copy a peer with its disk."""
    copied = copy(peer)
    assert isinstance(copied, Peer), "a copy is of the same type"
    return copied


def copy(value: object) -> object:
    """Copy whatever can change in a value; what cannot is shared."""
    if isinstance(value, list):
        return [copy(item) for item in value]
    if isinstance(value, deque):
        return deque(map(copy, value))
    if isinstance(value, dict):
        return {name: copy(item) for name, item in value.items()}
    if isinstance(value, Raft):
        raft = object.__new__(Raft)
        vars(raft).update({name: copy(item) for name, item in vars(value).items()})
        return raft
    kind = type(value)
    names = field_names(kind)
    if not names:
        return value
    copied = Outbox() if kind is Outbox else object.__new__(kind)
    for name in names:
        setattr(copied, name, copy(getattr(value, name)))
    return copied


def peer_key(peer: Peer, *, with_ages: bool) -> Hashable:
    """Give what tells a peer, with its disk, from every other that could ever behave differently.

    Args:
        peer: the peer.
        with_ages: whether it matters how long ago something was: only where there are snapshots or changes of members.
    """
    state = peer.raft.state
    return key(peer, state.now - state.settings.election_timeout_min if with_ages else float("-inf"))


def key(value: object, old: float) -> Hashable:
    """Give the key of a value.

    Args:
        value: anything that a peer consists of.
        old: the instant since which the minimum election timeout has passed.
    """
    if isinstance(value, list | deque):
        return tuple([key(item, old) for item in value])
    if isinstance(value, dict):
        # A vote refused is as good as none.
        return tuple([(name, key(item, old)) for name, item in sorted(value.items()) if item is not False])
    if isinstance(value, Raft):
        return key(value.state, old)
    if isinstance(value, Ready):
        return ready_key(value)
    kind = type(value)
    names = key_names(kind)
    if not names:
        return value
    ages = AGES.get(kind, ())
    parts = [getattr(value, name) < old if name in ages else key(getattr(value, name), old) for name in names]
    return (kind, *parts)


def ready_key(ready: Ready) -> Hashable:
    """Give what a write that waits for the disk will do."""
    waiting = tuple((envelope.to, without_round(envelope.message)) for envelope in ready.messages_after_persist)
    return (ready.hard_state, ready.compaction, ready.entries, waiting)


def is_spent(message: Message | None, sender: Peer, to: Peer, terms_max: int) -> bool:
    """Tell whether the arrival of a message, now or at any later time, would change no more than its loss.

    Args:
        message: the message.
        sender: who sent it, as it is now.
        to: whom it is for, as it is now.
        terms_max: nobody goes beyond this term.
    """
    state, role, disk = to.raft.state, to.raft.state.role, to.hard_state
    match message:
        case AppendEntriesReply(term=term):
            # Who led a term and does not now will not lead it again.
            return term <= disk.term and not (isinstance(role, Leader) and state.term == term)
        case RequestVoteReply(term=term, vote_granted=granted):
            # Nor is it a candidate again in the same term. A refusal tells a higher term or nothing.
            return term <= disk.term and not (granted and isinstance(role, Candidate) and state.term == term)
        case RequestVote(term=term):
            # It would be refused, and the refusal tell the sender of no term that is new to it.
            has_voted = term == disk.term and disk.voted_for not in {None, sender.raft.state.peer}
            return (term < disk.term or has_voted) and sender.hard_state.term == terms_max
        case AppendEntries(term=term) | InstallSnapshot(term=term):
            return term < disk.term and sender.hard_state.term == terms_max
        case _:
            return False


def without_round(message: Message) -> Message:
    """Give a message without the number of the round of reads that it belongs to."""
    if isinstance(message, AppendEntries | AppendEntriesReply) and message.round:
        return msgspec.structs.replace(message, round=0)
    return message
