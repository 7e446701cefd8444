"""A log as the contract of ``LogStore`` describes it, as plainly as can be: what a store is compared with.

Holds entries one by one, and knows nothing of records.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from quorate.store import Batch, LogStore
from quorate.testing.logs import ALL, make_run
from quorate.types import Compaction, HardState, Index, Kind, Run, Snapshot, Stored, Term

SIZE_MAX = 5
"""Entries that a drawn run has at most."""


class LogModel:
    """One log, entry by entry.

    Attributes:
        entries: each entry that the log holds, as a run of its own, by index.
        last: the index of the last one, or the start of a log without any.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.entries: dict[int, Run] = {}
        self.last: int = 0
        self._hard_state = HardState()
        self._compaction: Compaction | None = None

    @property
    def start(self) -> int:
        """The log begins right behind this index."""
        return self._compaction.start if self._compaction is not None else 0

    @property
    def snapshot_index(self) -> int:
        """The log never ends below this index."""
        return self._compaction.snapshot.index if self._compaction is not None else 0

    def append(self, batch: Batch) -> None:
        """Obey a batch."""
        self._hard_state = batch.hard_state or self._hard_state
        if batch.compaction is not None:
            self._compaction = batch.compaction
            if batch.compaction.replaces_log:
                self.entries, self.last = {}, batch.compaction.start
        for run in batch.runs:
            self.entries = {index: entry for index, entry in self.entries.items() if index < run.first}
            for index in range(run.first, run.last + 1):
                self.entries[index] = run.part(Index(index), Index(index))
            self.last = run.last
        self.entries = {index: entry for index, entry in self.entries.items() if index > self.start}

    def stored(self) -> Stored:
        """Give what a store must load."""
        terms: list[tuple[Index, Term]] = []
        for index, entry in self.entries.items():
            if not terms or terms[-1][1] != entry.term:
                terms.append((Index(index), entry.term))
        configurations = tuple(
            (entry.first, entry.payloads[0]) for entry in self.entries.values() if entry.kind is Kind.CONFIGURATION
        )
        time = self._compaction.snapshot.time if self._compaction is not None else 0.0
        if self.entries:
            time = self.entries[self.last].time
        bare = next((entry.first for entry in self.entries.values() if entry.kind is Kind.BARE), Index(0))
        return Stored(self._hard_state, tuple(terms), Index(self.last), configurations, time, self._compaction, bare)

    def differs(self, store: LogStore, log: str) -> str | None:
        """Say how a store's log differs from this one; None when it does not."""
        visited: list[Run] = []
        stored = store.load(log, visited.append)
        if stored != self.stored():
            return f"{stored} was loaded instead of {self.stored()}"
        if _split(visited) != list(self.entries.values()):
            return f"{visited} were visited instead of {list(self.entries.values())}"
        for first in range(1, self.last + 2):
            expected = [entry for index, entry in self.entries.items() if self.start < first <= index]
            seen = _split(store.read(log, Index(first), Index(ALL), ALL))
            if seen != expected:
                return f"{seen} were read from {first} on instead of {expected}"
        return None


def _split(runs: list[Run] | tuple[Run, ...]) -> list[Run]:
    """Give each entry of the runs as a run of its own."""
    return [run.part(Index(index), Index(index)) for run in runs for index in range(run.first, run.last + 1)]


def random_batches(random: Random, log: str, count: int) -> Iterator[Batch]:
    """Draw batches that fit one another: runs that append or truncate, and compactions of each kind."""
    model = LogModel()
    for term in range(1, count + 1):
        compaction = _random_compaction(random, model, term) if random.random() < 0.3 else None
        last, lowest = model.last, max(model.start, model.snapshot_index)
        if compaction is not None:
            lowest = compaction.snapshot.index
            last = compaction.start if compaction.replaces_log else last
        runs = _random_runs(random, term, random.randint(lowest, last) + 1) if random.random() < 0.8 else ()
        hard_state = HardState(Term(term)) if random.random() < 0.5 else None
        batch = Batch(log, hard_state, runs, compaction)
        model.append(batch)
        yield batch


def _random_compaction(random: Random, model: LogModel, term: int) -> Compaction:
    """Draw a compaction that fits a log: one in two replaces it, and may lie anywhere from its start on."""
    replaces_log = random.random() < 0.5
    if replaces_log:
        index = start = random.randint(model.start, model.last + SIZE_MAX)
        term_there = term
    else:
        start = random.randint(model.start, model.last)
        index = random.randint(max(start, model.snapshot_index), model.last)
        known = model.stored().compaction
        term_there = model.entries[start].term if start in model.entries else known.term if known is not None else 0
    snapshot = Snapshot(Index(index), Term(term), float(term), Index(1), b"members")
    return Compaction(snapshot, Index(start), Term(term_there), replaces_log)


def _random_runs(random: Random, term: int, first: int) -> tuple[Run, ...]:
    """Draw one to three runs from ``first`` on."""
    runs: list[Run] = []
    for _ in range(random.randint(1, 3)):
        payloads = [b"%d/%d" % (term, first + at) for at in range(random.randint(1, SIZE_MAX))]
        kind = random.choice((Kind.COMMAND, Kind.CONFIGURATION, Kind.BARE))
        runs.append(make_run(term, first, *payloads, kind=kind, time=float(term)))
        first += len(payloads)
    return tuple(runs)
