"""What leaves a peer: messages, with the entries or the snapshot that belong to them.

Attaches entries from memory or from the disk. Knows who is reached where; knows no sockets, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from quorate.addresses import Addresses
from quorate.apply import Apply
from quorate.core import Envelope, Message, Raft
from quorate.core.configuration import NOBODY
from quorate.core.messages import AppendEntries, AppendEntriesReply, InstallSnapshot
from quorate.core.state import Leader
from quorate.settings import Settings
from quorate.snapshots import Shipment, Snapshots
from quorate.store.cache import Cache
from quorate.transport import Packet
from quorate.types import Index, PeerId, Run


class Way(Protocol):
    """What sending asks of the peer's seat.

    Attributes:
        apply: its machine.
    """

    apply: Apply

    def wake(self) -> None:
        """See to it that the seat has a turn soon."""
        ...

    def post(self, node: str, packet: Packet) -> None:
        """Send a packet to a node with the next frame."""
        ...

    def read_durable(self, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk, as far as they are durable."""
        ...


class Sender:
    """Sends what one peer's core hands over.

    Attributes:
        cache: the recent entries of its log.
        founder: for a peer without a configuration: who spoke to it last, and of which group that one is.
    """

    def __init__(self, cache: Cache, snapshots: Snapshots, addresses: Addresses, settings: Settings, way: Way) -> None:
        """Send nothing yet.

        Args:
            cache: recent entries.
            snapshots: the peer's snapshots.
            addresses: where the others are reached.
            settings: the knobs.
            way: the peer's seat.
        """
        self.founder: tuple[PeerId, str] | None = None
        self.cache = cache
        self._snapshots = snapshots
        self._addresses = addresses
        self._settings = settings
        self._way = way
        self._reading = NOBODY  # Seldom anybody: a set of its own would cost each idle peer 216 bytes.

    def takes_founder(self, sender: PeerId, group: str, *, is_first: bool) -> bool:
        """Note who speaks to a peer without a configuration: whoever knows its id speaks for the group it will join.

        Args:
            sender: who speaks.
            group: of which group that one is.
            is_first: whether nothing else waits to be looked at. Else another group is refused: by what waits the peer
                may join that of before, and logs of two groups would be one.

        Returns:
            Whether it may be listened to.
        """
        if not is_first and self.founder is not None and self.founder[1] != group:
            return False
        self.founder = (sender, group)
        return True

    def send(self, raft: Raft, envelope: Envelope) -> None:
        """Send a message, with the entries it offers or the snapshot it names."""
        message = envelope.message
        if isinstance(message, InstallSnapshot):
            self._ship(raft, envelope.to, message)
        elif envelope.first and isinstance(message, AppendEntries):
            self._send_entries(raft, envelope, message)
        else:
            self._post(raft, envelope.to, message)

    def _send_entries(self, raft: Raft, envelope: Envelope, message: AppendEntries) -> None:
        """Send entries: from memory, or from the disk."""
        if envelope.to in self._reading:
            return  # What is being read goes first; `sent` then tells the core where to go on.
        runs = self.cache.take(envelope.first, envelope.last, self._settings.append_bytes_max)
        if runs is not None:
            self._post_entries(raft, envelope, message, runs)
            return
        self._reading |= {envelope.to}

        def attach(found: tuple[Run, ...]) -> None:
            self._reading -= {envelope.to}
            self._post_entries(raft, envelope, message, found)
            self._way.wake()

        self._way.read_durable(envelope.first, envelope.last, attach)

    def _post_entries(self, raft: Raft, envelope: Envelope, message: AppendEntries, runs: tuple[Run, ...]) -> None:
        """Attach entries and send them, if they are still owed; were they not all, the core hears of it."""
        # The disk or the message may have taken long. Within its term a leader's log only grows: an unchanged term is
        # proof enough that these are its entries.
        role = raft.state.role
        progress = role.progress.get(envelope.to) if isinstance(role, Leader) else None
        if progress is None or raft.state.term != message.term:
            return
        last = runs[-1].last if runs else Index(envelope.first - 1)  # None: the log was compacted meanwhile.
        if runs:
            if progress.is_witness:
                runs = tuple(run.without_commands() for run in runs)
            self._post(raft, envelope.to, msgspec.structs.replace(message, entries=runs))
        if last < raft.state.log.last:
            raft.sent(envelope.to, last)
            self._way.wake()

    def _post(self, raft: Raft, to: PeerId, message: Message) -> None:
        """Send a message to where the peer is reached."""
        configuration = raft.state.configuration
        if configuration and configuration.target and isinstance(message, AppendEntriesReply):
            # A peer that cannot apply what it has taken stops soon: whoever leads must not give it a vote before.
            applied, is_applying = self._way.apply.last_applied, self._way.apply.last_applied < raft.state.commit_index
            message = msgspec.structs.replace(message, is_applying=is_applying, applied_index=applied)
        node = self._addresses.find(to, configuration)
        me = raft.state.peer
        if node and configuration:
            self._way.post(node, Packet(configuration.group, me, to, message))
        elif node and self.founder and self.founder[0] == to:
            self._way.post(node, Packet(self.founder[1], me, to, message))

    def _ship(self, raft: Raft, to: PeerId, message: InstallSnapshot) -> None:
        """Send a snapshot on a connection of its own, and tell the core how that ended."""
        configuration = raft.state.configuration
        member = configuration.member(to) if configuration else None
        node = self._addresses.find(to, configuration)
        if configuration is None or member is None or node is None:
            return  # It was removed: it needs no more than to be told.

        def is_wanted() -> bool:
            return is_leading(raft, message)

        def done(is_complete: bool) -> None:
            if is_wanted():
                raft.shipped(to, message.snapshot.index, is_complete=is_complete)
                self._way.wake()

        shipment = Shipment(to, member.address.name, node, configuration.group, message, is_wanted, self._way.wake)
        self._snapshots.ship(shipment, done)


def is_leading(raft: Raft, message: InstallSnapshot) -> bool:
    """Tell whether this peer still leads the term in which it made a message."""
    return raft.state.term == message.term and raft.state.leader == raft.state.peer
