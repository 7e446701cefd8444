"""What stands in the trace of a scenario: messages, writes, entries and what peers know, on one line each.

Also the words with which a scenario names members. Moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorate.core import Member, Message, decode_configuration
from quorate.core.configuration import configuration_text
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.ready import Ready
from quorate.core.state import ROLE_NAMES, Leader
from quorate.testing.contents import Contents
from quorate.testing.drive import make_member
from quorate.testing.group import Packet
from quorate.testing.record import Peer
from quorate.types import Compaction, Kind, MemberKind, MemberStatus, PeerId, Run


def member(word: str) -> Member:
    """Read ``NAME``, ``NAME@HOST:PORT``, either with ``/learner``, ``/witness`` or, for its priority, ``/NUMBER``.

    Raises:
        ValueError: it is none of these.
    """
    place, *what = word.split("/")
    name, _, node = place.partition("@")
    kind: MemberKind = "voter"
    priority = 0
    for text in what:
        match text:
            case "learner" | "witness":
                kind = text
            case _:
                priority = int(text)
    return make_member(name, kind, priority, node or None)


def member_line(known: MemberStatus) -> str:
    """Write what a peer knows of one member."""
    line = f"{known.address} {known.kind}"
    if known.becomes != known.kind:
        line += f" -> {known.becomes or 'leaves'}"
    if known.match_index is not None:
        line += f" match={known.match_index}"
    return line + (" installing" if known.is_installing else "")


def status_lines(name: PeerId, peer: Peer) -> Iterator[str]:
    """Write what a peer knows, and one line for each whose progress it follows."""
    state = peer.raft.state
    role = ROLE_NAMES[type(state.role)] if peer.alive else "down"
    line = (
        f"{name} {role:13} term={state.term} leader={state.leader or 'none'} commit={state.commit_index} "
        f"last={state.log.last} persisted={state.persisted_index}"
    )
    yield line + (f" snapshot={state.snapshot_index} first={state.log.start + 1}" if state.snapshot else "")
    if isinstance(state.role, Leader) and peer.alive:
        for other, known in state.role.progress.items():
            mode = "probing" if known.probing else "pipelining"
            line = (
                f"  of {other}: {mode} match={known.match_index} next={known.next_index} "
                f"in_flight={','.join(map(str, known.in_flight)) or 'none'}"
            )
            yield line + (f" installing={known.installing}" if known.installing else "")


def log_line(name: str, log: Contents) -> str:
    """Write the log of a peer: the snapshot in its beginning, if it has one, and the entries."""
    snapshot = [f"[snapshot {log.compaction.snapshot.index}/{log.compaction.snapshot.term}]"] if log.compaction else []
    return " ".join([f"{name}:", *snapshot, *map(entry_text, log.entries)])


def packet_text(packet: Packet) -> str:
    """Write a message and its link on one line."""
    lost = " (lost)" if packet.is_lost else ""
    return f"{packet.sender}>{packet.to} {message_text(packet.message)}{lost}"


def message_text(message: Message) -> str:
    """Write a message on one line, in the order of its fields; rounds only where there are any."""
    match message:
        case AppendEntries(term=term):
            previous = f"prev={message.prev_log_index}/{message.prev_log_term} commit={message.leader_commit}"
            return f"append term={term} {previous}{round_text(message.round)}{entries_text(message.entries)}"
        case AppendEntriesReply(term=term, success=True):
            return f"appended term={term} match={message.match_index}{round_text(message.round)}"
        case AppendEntriesReply(term=term):
            go_on = f"go_on={message.conflict_index}/{message.conflict_term}"
            return f"appended term={term} refused prev={message.prev_log_index} {go_on}{round_text(message.round)}"
        case InstallSnapshot(term=term, snapshot=snapshot):
            bare = " bare" if snapshot.is_bare else ""
            return f"install term={term} snapshot={snapshot.index}/{snapshot.term}{bare}"
        case ReadIndex(term=term):
            return f"read term={term} id={message.id}"
        case ReadIndexReply(term=term):
            return f"read_at term={term} id={message.id} index={message.index}"
        case _:
            return election_text(message)


def election_text(message: RequestVote | RequestVoteReply | RequestPreVote | RequestPreVoteReply | TimeoutNow) -> str:
    """Write a message that belongs to an election on one line, in the order of its fields."""
    match message:
        case RequestVote(term=term):
            transfer = " transfer" if message.is_transfer else ""
            return f"vote term={term} last={message.last_log_index}/{message.last_log_term}{transfer}"
        case RequestVoteReply(term=term):
            return f"voted term={term} {'yes' if message.vote_granted else 'no'}"
        case RequestPreVote(next_term=term):
            return f"prevote next_term={term} last={message.last_log_index}/{message.last_log_term}"
        case RequestPreVoteReply(term=term):
            return f"prevoted term={term} next_term={message.next_term} {'yes' if message.vote_granted else 'no'}"
        case TimeoutNow(term=term):
            return f"timeout_now term={term}"


def round_text(number: int) -> str:
    """Write the number of a round of reads; nothing before the first one."""
    return f" round={number}" if number else ""


def write_text(ready: Ready) -> str:
    """Write what a ``Ready`` has for the disk on one line."""
    hard_state = ready.hard_state
    words = f" term={hard_state.term} vote={hard_state.voted_for or 'none'}" if hard_state else ""
    return words + compaction_text(ready.compaction) + entries_text(ready.entries)


def compaction_text(compaction: Compaction | None) -> str:
    """Write what the beginning of a log is replaced by; nothing when nothing is."""
    if compaction is None:
        return ""
    rest = "drop the log" if compaction.replaces_log else f"drop up to {compaction.start}"
    return f" snapshot={compaction.snapshot.index}/{compaction.snapshot.term} ({rest})"


def entries_text(runs: Sequence[Run]) -> str:
    """Write runs as ranges of indexes with their terms; nothing for none."""
    texts = [
        f"{run.first}/{run.term}" if run.first == run.last else f"{run.first}..{run.last}/{run.term}" for run in runs
    ]
    return f" entries={','.join(texts)}" if texts else ""


def entry_text(entry: Run) -> str:
    """Write an entry as its term, and its command if one was proposed, or the members if it changes them."""
    text = entry.payloads[0].decode() if entry.kind == Kind.COMMAND else ""
    if entry.kind == Kind.CONFIGURATION and entry.first > 1:
        text = f"{{{configuration_text(decode_configuration(entry.payloads[0]))}}}"
    return f"{entry.term}:{text}" if text else str(entry.term)
