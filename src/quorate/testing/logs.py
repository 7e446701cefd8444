"""Logs for the cases that hold stores to their contract: what is written, and what is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quorate.store import Batch, LogStore
from quorate.types import Compaction, HardState, Index, Kind, Run, Snapshot, Term

OpenStore = Callable[[Path], LogStore]
"""Opens the store that lives in a directory, which is made at the first call; its parent exists."""

ALL = 1 << 30
"""More entries, and more bytes, than any log here has."""

Entries = list[tuple[int, int, bytes]]
"""Index, term and payload of each entry."""


def make_run(term: int, first: int, *payloads: bytes, kind: Kind = Kind.COMMAND, time: float = 1.0) -> Run:
    """Make a run of these payloads."""
    return Run(Term(term), Index(first), kind, time, payloads)


def numbered(term: int, first: int, last: int) -> Run:
    """Make a run from ``first`` to ``last`` whose payloads are their own indexes."""
    return make_run(term, first, *(b"%d" % index for index in range(first, last + 1)))


def make_compaction(
    term: int, index: int, start: int | None = None, *, replaces_log: bool = False, configuration: bytes = b"members"
) -> Compaction:
    """Make a compaction up to ``start``, by default all of a snapshot that ends with entry ``index``; all of one term.

    The snapshot's time is its index.
    """
    snapshot = Snapshot(Index(index), Term(term), float(index), Index(1), configuration)
    return Compaction(snapshot, Index(index if start is None else start), Term(term), replaces_log)


def append(
    store: LogStore, log: str, *runs: Run, hard_state: HardState | None = None, compaction: Compaction | None = None
) -> None:
    """Append one batch."""
    store.append([Batch(log, hard_state, runs, compaction)])


def entries_of(*runs: Run) -> Entries:
    """Give the entries of runs."""
    return [(run.first + at, run.term, payload) for run in runs for at, payload in enumerate(run.payloads)]


def read_entries(store: LogStore, log: str, first: int = 1, last: int = ALL, bytes_max: int = ALL) -> Entries:
    """Give the entries that one read gives."""
    return entries_of(*store.read(log, Index(first), Index(last), bytes_max))


def expect_refusal(kind: type[Exception], action: Callable[..., object], *arguments: object) -> None:
    """See that a call raises an error of a kind.

    Raises:
        AssertionError: it returned.
    """
    try:
        action(*arguments)
    except kind:
        return
    raise AssertionError(f"this should have been refused with {kind.__name__}")
