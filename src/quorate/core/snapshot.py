"""Snapshots: compacting the log, and taking over a leader's snapshot (Raft §7; thesis 5).

Knows which index a snapshot stands for. Does not know what is in it, nor how its file is written or travels.
"""

from __future__ import annotations

from quorate.core.configuration import decode_configuration, encode_configuration
from quorate.core.messages import AppendEntriesReply, InstallSnapshot
from quorate.core.ready import EventKind
from quorate.core.state import (
    Follower,
    Leader,
    State,
    become_follower,
    commit,
    draw_election_deadline,
    name,
    note,
    send,
    send_after_persist,
    use_configuration,
    withdraw,
)
from quorate.types import Compaction, Index, PeerId, Snapshot


def snapshot_at(state: State, index: Index, time: float) -> Snapshot:
    """Say what a snapshot of the machine stands for that has just applied ``index``.

    The configuration in it is the latest at or below that index: a later one may not be committed yet, and could still
    be rolled back.
    """
    at, configuration = next(found for found in reversed(state.configurations) if found[0] <= index)
    is_bare = 0 < state.bare <= index
    return Snapshot(index, state.log.term(index), time, at, encode_configuration(configuration), is_bare)


def compact(state: State, snapshot: Snapshot) -> None:
    """Drop from the log what a durable snapshot holds, but for the entries that peers may still want one by one."""
    # "Once a server completes writing a snapshot, it may delete all log entries up through the last included index, as
    # well as any prior snapshot." (§7)
    if snapshot.index <= state.snapshot_index:
        return
    state.snapshot = snapshot
    start = max(state.log.start, compaction_start(state, snapshot))
    state.log.compact(start)
    drop_old_configurations(state, snapshot.index)
    note(state, EventKind.SNAPSHOT, f"snapshot {snapshot.index} is durable -> log begins behind {start}")
    state.outbox.compaction = Compaction(snapshot, start, state.log.start_term)


def compaction_start(state: State, snapshot: Snapshot) -> Index:
    """Give the index up to which entries are dropped.

    A peer that is alive and still needs entries, or is about to need those behind the snapshot that is on its way,
    would otherwise be sent one snapshot after the other and never catch up. It holds the log back, but not for ever.
    """
    settings = state.settings
    start = snapshot.index - settings.trailing_entries
    if isinstance(state.role, Leader):
        for progress in state.role.progress.values():
            if state.now < progress.heard + settings.election_timeout_max:
                start = min(start, max(progress.match_index, progress.installing))
    longest = snapshot.index - settings.trailing_entries - 2 * settings.snapshot_entries
    return Index(max(start, longest, 0))


def drop_old_configurations(state: State, index: Index) -> None:
    """Keep of the configurations up to ``index`` only the latest: it can no longer be rolled back."""
    old = [found for found in state.configurations if found[0] <= index]
    del state.configurations[: max(0, len(old) - 1)]


def is_sound(message: InstallSnapshot) -> bool:
    """Tell whether the snapshot can be one of a leader of a group."""
    snapshot = message.snapshot
    try:
        decode_configuration(snapshot.configuration)
    except ValueError:
        return False
    return 1 <= snapshot.configuration_index <= snapshot.index and 1 <= snapshot.term <= message.term


def receive_install_snapshot(state: State, sender: PeerId, request: InstallSnapshot) -> None:
    """Figure 13, "InstallSnapshot RPC, Receiver implementation"; steps 2 to 5, about the file, are the shell's."""
    snapshot = request.snapshot
    # "1. Reply immediately if term < currentTerm" (Figure 13)
    if request.term < state.term:
        send(state, sender, AppendEntriesReply(state.term, False, Index(0)))
        return
    become_follower(state, state.term, sender, f"{name(state, sender)} leads term {state.term}")
    assert isinstance(state.role, Follower), "who hears a leader of its term follows"
    state.role.heard = state.now
    draw_election_deadline(state)
    covered = snapshot.index
    if covered <= state.commit_index:
        # Deviation: a snapshot of what we know to be committed already is not installed; a late one would take back
        # what was applied since.
        note(state, EventKind.SNAPSHOT, f"snapshot {covered} is not above commit index {state.commit_index} -> ignore")
    elif state.log.matches(covered, snapshot.term):
        # "6. If existing log entry has same index and term as snapshot's last included entry, retain log entries
        # following it and reply" (Figure 13)
        note(state, EventKind.SNAPSHOT, f"snapshot {covered} is in our log -> keep the log")
        commit(state, covered)
    else:
        install(state, snapshot)
    durable = state.durable.term == state.term and covered <= state.persisted_index
    reply = AppendEntriesReply(state.term, True, covered)
    if durable:
        send(state, sender, reply)
    else:
        send_after_persist(state, sender, reply)


def install(state: State, snapshot: Snapshot) -> None:
    """Begin anew with what a snapshot stands for."""
    # "7. Discard the entire log" and "8. Reset state machine using snapshot contents (and load snapshot's cluster
    # configuration)" (Figure 13)
    note(state, EventKind.SNAPSHOT, f"snapshot {snapshot.index} is beyond our log ({state.log.last}) -> install it")
    state.log.reset(snapshot.index, snapshot.term)
    state.snapshot = snapshot
    state.bare = snapshot.index if snapshot.is_bare else Index(0)
    state.commit_index = snapshot.index
    # Whatever was handed out for writing promises nothing of the log that begins now.
    state.persisted_index = Index(0)
    for waiting in state.unpersisted:
        waiting.last = Index(0)
    state.uncommitted.clear()
    state.uncommitted_bytes = 0
    state.outbox.entries.clear()
    withdraw(state, Index(1))
    state.outbox.compaction = Compaction(snapshot, snapshot.index, snapshot.term, replaces_log=True)
    state.configurations = [(snapshot.configuration_index, decode_configuration(snapshot.configuration))]
    use_configuration(state)
