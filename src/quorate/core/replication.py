"""Replicating the log: AppendEntries, both sides, and the commit index (Raft §5.3, §5.4.2; thesis 10.2).

Knows terms and indexes; the payloads are attached by the shell. Does not elect, and does not answer clients.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quorate.core.configuration import Configuration, decode_configuration
from quorate.core.messages import AppendEntries, AppendEntriesReply, InstallSnapshot
from quorate.core.progress import Progress
from quorate.core.quorum import reached_by_quorum
from quorate.core.ready import EventKind
from quorate.core.state import (
    Follower,
    Leader,
    State,
    append,
    become_follower,
    commit,
    draw_election_deadline,
    is_answering,
    name,
    next_beat,
    note,
    send,
    send_after_persist,
    truncate,
)
from quorate.types import Index, Kind, PeerId, Run, Term

OVERHEAD = 16
"""Bytes counted for each entry beside its payload, as ``Run.size`` does."""


# The leader's side.


def append_no_op(state: State) -> None:
    """Begin the term with an entry of its own: only that can commit what earlier terms left (§5.4.2, §8)."""
    append(state, Run(state.term, Index(state.log.last + 1), Kind.NOOP, 0.0, (b"",)), None)


def append_commands(state: State, commands: Sequence[bytes]) -> range:
    """Append as many of the commands, from the front, as ``uncommitted_bytes_max`` allows.

    Returns:
        The indexes they were given.
    """
    # Leaders 2. If command received from client: append entry to local log, respond after entry applied to state
    # machine (§5.3)
    first = state.log.last + 1
    room = state.settings.uncommitted_bytes_max - state.uncommitted_bytes
    run_max = state.settings.append_bytes_max
    if sum(map(len, commands)) + OVERHEAD * len(commands) <= min(room, run_max):
        if commands:
            append(state, Run(state.term, Index(first), Kind.COMMAND, 0.0, tuple(commands)), None)
        return range(first, state.log.last + 1)
    start = size = 0
    for place, command in enumerate(commands):
        cost = len(command) + OVERHEAD
        if cost > room:
            commands = commands[:place]
            break
        room -= cost
        if size + cost > run_max and place > start:
            run = Run(state.term, Index(first + start), Kind.COMMAND, 0.0, tuple(commands[start:place]))
            append(state, run, None)
            start, size = place, 0
        size += cost
    if commands[start:]:
        append(state, Run(state.term, Index(first + start), Kind.COMMAND, 0.0, tuple(commands[start:])), None)
    return range(first, state.log.last + 1)


def append_entries(state: State, leader: Leader, peer: PeerId, last: Index) -> AppendEntries:
    """Build the message whose new entries end at ``last``; with ``last`` just before next index it is a heartbeat."""
    progress = leader.progress[peer]
    previous = Index(progress.next_index - 1)
    progress.commit_sent = state.commit_index
    if last > previous:
        progress.send(last)
    if previous < state.log.start:
        # What precedes is in a snapshot now: a heartbeat that compares nothing, and so commits nothing there.
        previous = Index(0)
    term = state.log.term(previous) if previous else Term(0)
    lease = bool(leader.beats)
    return AppendEntries(state.term, state.peer, previous, term, state.commit_index, leader.round, lease=lease)


def send_entries(state: State, *, tells_idle: bool) -> None:
    """Offer each peer whose window is open what it lacks, and tell the idle ones what has been committed.

    Args:
        state: the leader's.
        tells_idle: whether to do the latter; see ``Raft.ready``.
    """
    assert isinstance(state.role, Leader), "only a leader replicates"
    leader = state.role
    for peer, progress in leader.progress.items():
        needs_snapshot = progress.next_index <= state.log.start and peer not in leader.leaving
        if needs_snapshot and not progress.installing and is_answering(state, progress):
            # Whatever is in flight: its window may be full of what was lost, and what follows it is compacted.
            send_snapshot(state, progress, peer)
            continue
        # Leaders 3. If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at
        # nextIndex
        # What is compacted is offered to nobody, also while it is not known whether the peer is there.
        is_held = state.log.start < progress.next_index <= state.log.last
        if is_held and progress.has_room(state.settings.in_flight_max):
            first, last = progress.next_index, state.log.last
            send(state, peer, append_entries(state, leader, peer, last), first, last)
        elif tells_idle and progress.commit_sent < state.commit_index and not progress.in_flight:
            send_heartbeat(state, leader, peer)


def send_snapshot(state: State, progress: Progress, peer: PeerId) -> None:
    """Send what the log no longer holds as a snapshot (Raft §7): the shell tells how that ended."""
    # "This happens when the leader has already discarded the next log entry that it needs to send to a follower." (§7)
    assert state.snapshot is not None, "only what is in a snapshot was discarded"
    progress.in_flight.clear()
    progress.installing = state.snapshot.index
    text = f"{name(state, peer)} needs entry {progress.next_index}, which is compacted -> send snapshot"
    note(state, EventKind.SNAPSHOT, f"{text} {state.snapshot.index}")
    snapshot = state.snapshot
    if progress.is_witness:
        snapshot = msgspec.structs.replace(snapshot, is_bare=True)
    send(state, peer, InstallSnapshot(state.term, state.peer, snapshot))


def send_heartbeat(state: State, leader: Leader, peer: PeerId) -> None:
    """Send one empty AppendEntries; its consistency check finds out what was lost on the way."""
    previous = Index(leader.progress[peer].next_index - 1)
    send(state, peer, append_entries(state, leader, peer, previous))


def send_heartbeats(state: State) -> None:
    """Speak to every peer: what was lost on the way, either way, is found out by its consistency check."""
    assert isinstance(state.role, Leader), "only a leader sends heartbeats"
    # Leaders 1. Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle
    # periods to prevent election timeouts (§5.2)
    # Deviation: upon election the first AppendEntries carries the no-op of the term instead of being empty.
    leader = state.role
    leader.heartbeat_deadline = next_beat(state)
    begin_beat(state, leader)
    for peer in leader.progress:
        send_heartbeat(state, leader, peer)


def begin_beat(state: State, leader: Leader) -> None:
    """Number the round of heartbeats that is about to be sent, and note when: leases run from there (thesis 6.4.1).

    A round that asks for no promises ends them all: whoever echoes it, or a later one, may have missed those before.
    """
    leader.round += 1
    if state.now >= leader.lease_until:
        leader.beats.clear()
        return
    leader.beats.append((leader.round, state.now))
    while leader.beats[0][1] <= state.now - state.settings.election_timeout_min:
        leader.beats.pop(0)


def receive_append_entries_reply(state: State, sender: PeerId, reply: AppendEntriesReply) -> None:
    """Learn how far the follower's log matches ours and is durable."""
    assert isinstance(state.role, Leader), "replies of this term are only given to its leader"
    progress = state.role.progress.get(sender)
    if progress is None or reply.match_index > state.log.last or reply.round > state.role.round:
        return  # Within its term both only grow: nobody has acknowledged more than was sent.
    progress.heard = state.now
    progress.round = max(progress.round, reply.round)
    if progress.installing:
        if not reply.success or reply.match_index < progress.installing:
            return
        # The snapshot has arrived; entries go on behind it.
        progress.probe(Index(reply.match_index + 1))
    if reply.success:
        # Leaders 3a. If successful: update nextIndex and matchIndex for follower (§5.3)
        progress.acknowledge(reply.match_index)
        applied_index = min(reply.applied_index, reply.match_index) if reply.is_applying else reply.match_index
        progress.applied_index = max(progress.applied_index, applied_index)
        return
    # Leaders 3b. If AppendEntries fails because of log inconsistency: decrement nextIndex and retry (§5.3)
    refused = reply.prev_log_index
    is_stale = not progress.match_index < refused < progress.next_index
    if is_stale or (progress.probing and refused != progress.next_index - 1):
        return
    # "If desired, the protocol can be optimized to reduce the number of rejected AppendEntries RPCs": back up over a
    # whole term at a time (§5.3).
    ours = state.log.last_of_term(reply.conflict_term)
    go_on = Index(ours + 1) if ours else reply.conflict_index
    progress.probe(Index(max(progress.match_index + 1, min(go_on, refused))))


def advance_commit_index(state: State) -> None:
    """Commit what a majority holds durably, the leader counting what is durable on its own disk."""
    assert isinstance(state.role, Leader), "only a leader decides what is committed"
    if state.commit_index == state.log.last:
        return  # All is committed; most acknowledgements come when a majority has sent theirs.
    progress, ours, persisted = state.role.progress, state.peer, state.persisted_index
    agreed = Index(
        int(reached_by_quorum(state.groups, lambda voter: persisted if voter == ours else progress[voter].match_index))
    )
    # Leaders 4. If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term ==
    # currentTerm: set commitIndex = N (§5.3, §5.4)
    if agreed > state.commit_index and state.log.term(agreed) == state.term:
        commit(state, agreed)


# The follower's side.


def receive_append_entries(state: State, sender: PeerId, request: AppendEntries) -> None:
    """Figure 2, "AppendEntries RPC, Receiver implementation", steps 1 to 5."""
    # AppendEntries RPC 1. Reply false if term < currentTerm (§5.1)
    if request.term < state.term:
        refused = AppendEntriesReply(state.term, False, Index(0), request.round, request.prev_log_index)
        send(state, sender, refused)
        return
    # Candidates 3. If AppendEntries RPC received from new leader: convert to follower
    if state.leader != sender:
        become_follower(state, state.term, sender, f"{name(state, sender)} leads term {state.term}")
    assert isinstance(state.role, Follower), "who hears a leader of its term follows"
    state.role.heard = state.now
    if request.lease:
        state.role.promised = state.now
    draw_election_deadline(state)

    # AppendEntries RPC 2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm
    # (§5.3)
    if not state.log.matches(request.prev_log_index, request.prev_log_term):
        send(state, sender, conflict_reply(state, request))
        return
    if not store_new_entries(state, request):
        return
    covered = request.entries[-1].last if request.entries else request.prev_log_index
    # AppendEntries RPC 5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)
    # Of *this message*: what our log holds beyond it may be another leader's and never have been compared.
    commit(state, min(request.leader_commit, covered))
    acknowledge(state, sender, request, covered)


def is_sound(request: AppendEntries) -> bool:
    """Tell whether the entries are contiguous and of ascending terms up to the leader's: others would break our log."""
    last, term = request.prev_log_index, request.prev_log_term
    if (last, term) != (0, 0) and (last < 1 or term < 1):
        return False
    for run in request.entries:
        if run.first != last + 1 or run.term < max(term, 1) or not run.payloads:
            return False
        last, term = run.last, run.term
    return term <= request.term


def store_new_entries(state: State, request: AppendEntries) -> bool:
    """Take over what the log does not hold yet.

    Returns:
        False when the message cannot be of a leader of this group: nothing was changed, nothing is answered.
    """
    new: list[tuple[Run, Configuration | None]] = []
    conflict: Index | None = None
    for run in request.entries:
        first = run.first if new else first_new_index(state, run)  # Behind a new entry all are new.
        if first > run.last:
            continue
        if conflict is None and first <= state.log.last:
            conflict = first
        try:
            new += with_configurations(run.part(first, run.last))
        except ValueError as error:
            note(state, EventKind.IGNORED, f"entry {run.last} is {error} -> ignore the message")
            return False
    # AppendEntries RPC 3. If an existing entry conflicts with a new one (same index but different terms), delete the
    # existing entry and all that follow it (§5.3)
    if conflict is not None and conflict <= state.commit_index:
        note(state, EventKind.IGNORED, f"entry {conflict} is committed and conflicts with the leader's -> ignore it")
        return False
    if lacks_commands(state, new, conflict):
        text = f"{name(state, state.peer)} was a witness and is to hold data -> ignore; empty its data directory"
        note(state, EventKind.CONFIGURATION, text)
        return False
    if conflict is not None:
        truncate(state, conflict)
    # AppendEntries RPC 4. Append any new entries not already in the log
    for run, configuration in new:
        append(state, run, configuration)
    return True


def lacks_commands(state: State, new: Sequence[tuple[Run, Configuration | None]], conflict: Index | None) -> bool:
    """Tell whether new entries make a voter or learner of this peer, though it holds entries without their commands.

    They match by term like any others, and so would be counted as copies, and let it lead. The leader cannot know: it
    may never have seen the configuration in which this peer was a witness.
    """
    named = [configuration for _, configuration in new if configuration and configuration.member(state.peer)]
    if not named or named[-1].is_witness(state.peer):
        return False
    return 0 < state.bare < (conflict or state.log.last + 1) or any(run.kind is Kind.BARE for run, _ in new)


def with_configurations(run: Run) -> list[tuple[Run, Configuration | None]]:
    """Give the run with no configuration; or each configuration in it with the run of its own entry.

    Each can be fallen back to alone, when what follows it is truncated.

    Raises:
        ValueError: a configuration cannot be read.
    """
    if run.kind != Kind.CONFIGURATION:
        return [(run, None)]
    places = enumerate(run.payloads, run.first)
    return [(run.part(Index(i), Index(i)), decode_configuration(payload)) for i, payload in places]


def first_new_index(state: State, run: Run) -> Index:
    """Give the first index of the run that our log lacks or holds with another term; one beyond the run if none."""
    log = state.log
    if run.first <= log.start:
        # What is in a snapshot is committed, and the same everywhere.
        if run.last <= log.start:
            return Index(run.last + 1)
        run = run.part(Index(log.start + 1), run.last)
    if run.first > log.last or log.term(run.first) != run.term:
        return run.first
    # Terms never fall along a log, so the entries of one term are one stretch: ours and the run agree until it ends.
    return Index(min(log.last_of_term(run.term), run.last) + 1)


def conflict_reply(state: State, request: AppendEntries) -> AppendEntriesReply:
    """Refuse, and say where to go on: past a whole term of conflicting entries, or at the end of a short log (§5.3)."""
    previous = request.prev_log_index
    if previous > state.log.last:
        index, term = Index(state.log.last + 1), Term(0)
    else:
        index, term = state.log.first_of_term_at(previous), state.log.term(previous)
    return AppendEntriesReply(state.term, False, Index(0), request.round, previous, index, term)


def acknowledge(state: State, sender: PeerId, request: AppendEntries, covered: Index) -> None:
    """Answer with the last index that this message covered, once that is durable.

    A heartbeat is answered at once, with as much of what it covered as is durable: it says "I follow you", and must not
    wait behind a slow disk.
    """
    durable = min(covered, state.persisted_index)
    is_durable = state.durable.term == state.term and (covered <= state.persisted_index or not request.entries)
    match_index = durable if is_durable else covered
    reply = AppendEntriesReply(state.term, True, match_index, request.round, request.prev_log_index)
    if is_durable:
        send(state, sender, reply)
        return
    waiting = state.outbox.messages_after_persist
    if waiting and waiting[-1].to == sender and is_covered_by(waiting[-1].message, reply):
        waiting.pop()
    send_after_persist(state, sender, reply)


def is_covered_by(earlier: object, reply: AppendEntriesReply) -> bool:
    """Tell whether an acknowledgement that still waits says nothing that the later one does not say."""
    return isinstance(earlier, AppendEntriesReply) and earlier.success and earlier.match_index <= reply.match_index
