"""A peer from what its node's disk holds: identity, log, snapshot, machine.

Knows files and the core. Does not know the network, and serves nobody: the node does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from quorate.apply import Apply
from quorate.calling import MachineType, call_heads, command_name
from quorate.core import Raft
from quorate.errors import Corrupted, MachineError
from quorate.sessions import machine_command, without_heads
from quorate.settings import Settings
from quorate.slowness import slowness
from quorate.snapshots import Snapshots
from quorate.store.directory import Directory, PeerIdentity, mixed_up
from quorate.store.disk import Disk, Executor, blocking
from quorate.store.snapshots import SnapshotStore
from quorate.surroundings import Surroundings
from quorate.tables import restored
from quorate.transport import Channel
from quorate.types import Kind, PeerId, Run, Stored


class Reopened(msgspec.Struct, frozen=True):
    """A peer as it was when it stopped, ready for its seat.

    Attributes:
        id: its random id.
        raft: its core.
        apply: its machine, restored from the latest snapshot if there is one.
        snapshots: its snapshots.
        time: the wall time of the last run in its log.
    """

    id: PeerId
    raft: Raft
    apply: Apply
    snapshots: Snapshots
    time: float


async def reopen(
    name: str, machine: MachineType, directory: Directory, disk: Disk, settings: Settings, surroundings: Surroundings
) -> Reopened:
    """Make a peer of what the disk holds under its name: a new and empty one if that is nothing.

    Args:
        name: the peer's name.
        machine: what its machine's class declares.
        directory: where identities and snapshots are.
        disk: where the logs are.
        settings: the knobs.
        surroundings: what the node lives in.

    Raises:
        TypeError: snapshots could not keep the state of the machine.
        StoreLocked: the data directory belongs to another node or group.
        Corrupted: what is on the disk is not what was written.
        StoreError: the disk failed.
        MachineError: the log or the snapshot holds what the machine does not have.
    """
    clock, slow = surroundings.clock.time, slowness(settings)
    apply = Apply(machine.machine(), machine, settings.events_bytes_max, clock, slow)
    executor = surroundings.executor
    names: set[str] = set()
    heads = call_heads(machine.write_names)
    unknown: list[MachineError] = []

    def visit(run: Run) -> None:
        try:
            names.update(() if unknown else other_names(run, heads))
        except MachineError as error:  # Not raised here: it would fail the disk, and stop every peer of the node.
            unknown.append(error)

    stored = await disk.load(name, visit)
    if unknown:
        text = f"the log of {name} holds what this version of quorate does not know: {unknown[0]}"
        raise MachineError(f"{text}. If a later version wrote it, start that one") from unknown[0]
    # An identity is durable before anything else of a peer is: none beside a log was lost.
    identity = await blocking(executor, lambda: directory.identity(name, create=stored == Stored()))
    check_names(f"the log of {name}", names, machine)
    raft = Raft(PeerId(identity.id), settings, stored, surroundings.random.random, surroundings.clock.time())
    check_group(name, identity, raft)
    group = raft.status().group
    if group and not identity.group:
        await blocking(executor, lambda: directory.set_group(name, group))
    store = await blocking(executor, lambda: directory.snapshots(name))
    await restore(apply, store, stored, surroundings.aside)
    calls = {command_name(timer.call) for timer in apply.tables.timers.by_id.values()}
    check_names(f"the snapshot of {name}", calls, machine)
    connect: Callable[[str], Awaitable[Channel]] = surroundings.transport.connect
    snapshots = Snapshots(name, store, surroundings.aside, connect, settings)
    return Reopened(PeerId(identity.id), raft, apply, snapshots, max(stored.time, apply.time))


async def restore(apply: Apply, store: SnapshotStore, stored: Stored, aside: Executor) -> None:
    """Bring the machine to where the log begins, and remove what a crash left of other snapshots."""
    snapshot = stored.compaction.snapshot if stored.compaction else None
    if snapshot is not None and snapshot.is_bare:
        apply.restore_to(None, snapshot)
    elif snapshot is not None:
        found = snapshot
        apply.restore_to(await blocking(aside, lambda: restored(apply.type, store.chunks(found))), snapshot)
    await blocking(aside, lambda: store.keep(snapshot))


def check_names(where: str, names: set[str], machine: MachineType) -> None:
    """Check that the machine has every command in the log, and every one that a timer is to run.

    Raises:
        MachineError: it has not.
    """
    unknown = sorted(names - machine.write_names)
    if unknown:
        raise MachineError(
            f"{where} holds commands that {machine.name} does not have: {', '.join(unknown)}. Start"
            ' it with the machine it had, or keep old names with @write(name="…")'
        )


def check_group(name: str, identity: PeerIdentity, raft: Raft) -> None:
    """Check that identity and log are of one group, and of one peer as far as the log tells.

    It does not always: the log of a newcomer that takes the name of a lost peer begins with the lost one as a member,
    under another id.

    Raises:
        Corrupted: they are not.
    """
    status = raft.status()
    if identity.group and status.group != identity.group:
        raise Corrupted(
            mixed_up(f"{name} belongs to group {identity.group}, and its log to group {status.group or 'none'}")
        )
    for member in status.members:
        if member.id == identity.id and member.address.name != name:
            raise Corrupted(
                mixed_up(f"{name} has the id {identity.id}, which in its log is that of {member.address.name}")
            )


def other_names(run: Run, heads: tuple[bytes, ...]) -> set[str]:
    """Give the names of those commands in a run that no head is of.

    Looking at how a command begins costs a third of what decoding its name does, and a log may hold millions.
    """
    if run.kind is not Kind.COMMAND:
        return set()
    commands = (machine_command(payload) for payload in without_heads(run.payloads, heads))
    return {command_name(command) for command in commands if command is not None}
