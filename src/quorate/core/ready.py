"""What the shell must do, in the order in which it must do it. The fields of ``Ready`` are that order."""

from __future__ import annotations

import enum

import msgspec

from quorate.core.messages import Message
from quorate.types import Compaction, HardState, Index, PeerId, ReadId, Run, Term


class Envelope(msgspec.Struct, frozen=True):
    """A message and whom it is for.

    An AppendEntries leaves the core without payloads: ``first`` and ``last`` offer the entries that belong to it.
    The shell attaches them from ``first`` on, as many as ``Settings.append_bytes_max`` allows (one at least), and if
    that is not all of them says so with ``Raft.sent(to, last attached)`` before it takes the next ``ready()``. If they
    must be read from the disk first, it drops the envelope when the term has moved on meanwhile: within its term a
    leader's log only grows, so an unchanged term is proof enough.

    An InstallSnapshot names a snapshot: the shell sends its file on a connection of its own, and tells how that ended
    with ``Raft.shipped``. Entries for a witness are attached without their payloads.

    Attributes:
        to: the peer it is for.
        message: what to send.
        first: the first index to attach; 0 when there is nothing to attach.
        last: the last index to attach, inclusive.
    """

    to: PeerId
    message: Message
    first: Index = Index(0)
    last: Index = Index(0)


class ReadReady(msgspec.Struct, frozen=True):
    """A batch of reads that may be answered once the machine has applied ``index`` (thesis 6.4).

    Attributes:
        id: what ``Raft.read`` returned.
        index: the read index.
    """

    id: ReadId
    index: Index


class EventKind(enum.StrEnum):
    """What an event tells, for counting."""

    STARTED = "started"
    TERM = "term"
    ROLE = "role"
    LEADER = "leader"
    VOTE = "vote"
    LOG = "log"
    CONFIGURATION = "configuration"
    SNAPSHOT = "snapshot"
    IGNORED = "ignored"


QUIET = frozenset({EventKind.IGNORED, EventKind.VOTE})
"""Events that another machine can cause at will: counted always, logged only on request."""


class Event(msgspec.Struct, frozen=True):
    """One thing that changed, for logs, counters and the traces that tests assert. Never one for each write.

    Attributes:
        kind: what it tells.
        term: the term of the peer after it.
        text: lower case, fact first, decision after an arrow: ``remote term is higher (2 > 1) -> follower``.
    """

    kind: EventKind
    term: Term
    text: str


class Ready(msgspec.Struct, frozen=True):
    """What the core wants done. The shell obeys the fields from top to bottom.

    Attributes:
        number: of this ``Ready``, ascending by one; what ``Raft.persisted`` names.
        messages: send at once. A leader's disk works in parallel with its network (thesis 10.2.1). Waits for nothing.
        hard_state: write term and vote, in one atomic synced batch with ``compaction`` and ``entries``.
        compaction: write what the log's beginning was replaced by, and drop what it says. When it replaces the whole
            log, the machine is restored from the snapshot before anything more is applied.
        entries: write them, dropping first whatever the store holds from ``entries[0].first`` on.
        messages_after_persist: send once ``hard_state`` and ``entries`` of this *and every earlier* ``Ready`` are
            durable: each promises something about our disk.
        commit_index: apply up to here. Waits for the entries to be present.
        reads: answer these once ``last_applied >= index``.
        dropped: fail these reads: leadership was lost before they were confirmed.
        events: log and count them.
    """

    number: int
    messages: tuple[Envelope, ...]
    hard_state: HardState | None
    compaction: Compaction | None
    entries: tuple[Run, ...]
    messages_after_persist: tuple[Envelope, ...]
    commit_index: Index
    reads: tuple[ReadReady, ...]
    dropped: tuple[ReadId, ...]
    events: tuple[Event, ...]

    @property
    def writes(self) -> bool:
        """Whether there is anything for the disk."""
        return self.hard_state is not None or self.compaction is not None or bool(self.entries)
