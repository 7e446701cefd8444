"""The disk: what quorate asks of a store, and what a crash may and may not lose.

A store holds the logs of all peers of one node, keyed by peer name. It is blocking, and called by one thread at a
time, not always the same one (``store/disk.py``). It knows nothing of elections: it keeps what it is told and tells
when it cannot.

**What a crash may lose**: any suffix of what was appended since the last ``sync`` returned, and nothing else. Of one
``append`` either a whole ``Batch`` survives or none of it, and a batch only together with all that were appended
before it. **What it may not lose**: anything appended before a ``sync`` that returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from quorate.types import Compaction, HardState, Index, Run, Stored


class Batch(msgspec.Struct, frozen=True):
    """What one peer wants written: atomic, and durable together at the next ``sync``. Obeyed from top to bottom.

    Attributes:
        log: the peer's name.
        hard_state: the new term and vote, or None when they did not change.
        runs: contiguous entries, ascending; everything the log holds from ``runs[0].first`` on is dropped first.
            Invariant: ``runs[0].first`` is at most one beyond the log's last index, and above ``compaction.start``.
        compaction: what the log's beginning is replaced by from now on, or None. With ``replaces_log`` everything the
            log holds is dropped before ``runs`` are written; otherwise the entries up to ``start`` are, of which the
            store may keep some on the disk but must never show them again. Invariant: ``start`` never falls, and
            without ``replaces_log`` it is at most the log's last index.
    """

    log: str
    hard_state: HardState | None
    runs: tuple[Run, ...]
    compaction: Compaction | None = None


class LogStore(Protocol):
    """The logs of one node's peers on one disk. See the module's docstring for what a crash may lose."""

    def load(self, log: str, visit: Callable[[Run], None] | None = None) -> Stored:
        """Read and verify one log whole, and make durable what was read before returning.

        A torn tail, as a power cut leaves it, is repaired: entries after the last whole one are dropped.

        Args:
            log: the peer's name; an unknown one is an empty log.
            visit: called with each run in order, for what the caller wants to know of the payloads.

        Returns:
            All that the core needs to start.

        Raises:
            Corrupted: a record in the middle is damaged or missing.
            StoreError: the disk failed.
        """
        ...

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches in order; visible to ``read`` at once, durable when the next ``sync`` returns.

        Raises:
            DiskFull: there is no room; none of the batches counts as written.
            StoreError: the disk failed; the store must not be used further.
        """
        ...

    def sync(self) -> None:
        """Return when everything appended before is durable.

        Raises:
            StoreError: the flush failed. Nothing appended since the last good one may be believed, and a second try
                proves nothing: stop, and start again from what the disk then holds.
        """
        ...

    def read(self, log: str, first: Index, last: Index, bytes_max: int) -> tuple[Run, ...]:
        """Read entries from ``first`` on, up to ``last`` inclusive and about ``bytes_max``, but one at least.

        Returns:
            Contiguous runs whose first entry has index ``first``; empty only if the log ends before ``first`` or has
            been compacted beyond it.

        Raises:
            Corrupted: a record is damaged or missing.
            StoreError: the disk failed.
        """
        ...

    def close(self) -> None:
        """Let go of the disk; idempotent. What was appended but not synced may or may not survive."""
        ...


@runtime_checkable
class MarkedStore(Protocol):
    """What a ``LogStore`` may have besides, if it keeps a note of how much is durable apart from what it holds."""

    def mark(self) -> None:
        """Note how much is durable; called about a second after a write, idle or not.

        Raises:
            StoreError: the disk failed.
        """
        ...
