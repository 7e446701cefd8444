"""What many seeds came to: added up, as text for people and as JSON for documents.

Knows reports alone: neither how the seeds were run nor where the text goes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quorate.testing.coverage import GROUP, IMPOSSIBLE, PHASES, ROLES, Cell, lacking, table
from quorate.testing.simulation import Report

SHOWN_MAX = 40
"""How many cells that were hardly visited are printed; the JSON has all."""


@dataclass(slots=True)
class Totals:
    """The sum of some reports.

    Attributes:
        first: the first seed.
        jobs: how many processes ran them.
        floor: how often each cell of the coverage that could be is to be visited.
        took: how long all that took, real seconds.
        seeds: how many there were.
        events: inputs to peers.
        span: virtual seconds.
        faults: how often each kind struck.
        cells: how often each cell of the coverage was visited.
        outcomes: how many calls of clients ended how.
        asked: how often what else was asked of the groups ended how.
        steps: how often the groups did what they do seldom.
        failing: the seeds in which something was violated, and what.
    """

    first: int
    jobs: int
    floor: int = 0
    took: float = 0.0
    seeds: int = 0
    events: int = 0
    span: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    cells: Counter[Cell] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    failing: dict[int, str] = field(default_factory=dict)

    def add(self, report: Report, took: float) -> None:
        """Add one seed; all of them have taken that many seconds by now."""
        self.took = took
        self.seeds += 1
        self.events += report.events
        self.span += report.span
        self.faults.update(report.faults)
        self.cells.update(report.coverage)
        self.outcomes.update(report.outcomes)
        self.asked.update(report.asked)
        self.steps.update(report.steps)
        if report.failure is not None:
            self.failing[report.seed] = report.failure

    @property
    def lacking(self) -> list[Cell]:
        """The cells of the coverage that were visited less often than ``floor`` times."""
        return lacking(self.cells, self.floor)

    @property
    def is_well(self) -> bool:
        """Whether nothing was violated, and no cell is lacking."""
        return not self.failing and not self.lacking

    @property
    def progress(self) -> str:
        """Where it stands, in a line."""
        rate = self.events / max(self.took, 0.001)
        work = f"{self.took:.0f} s: {self.seeds} seeds, {self.events} events ({rate:.0f} a second)"
        return (
            f"{work}, {self.span / 3600:.1f} virtual hours, {self.faults.total()} faults, {len(self.failing)} failing"
        )

    def text(self) -> str:
        """Give all of it for people."""
        rate = self.events / max(self.took, 0.001)
        lines = [
            f"{self.seeds} seeds from {self.first} on: {self.events} events in {self.took:.0f} s, {rate:.0f} a second, "
            f"{self.jobs} jobs;",
            f"{self.span / 3600:.2f} virtual hours, {self.faults.total()} faults, "
            f"{self.outcomes.total()} calls of clients",
            "",
            "faults by the role of whom they struck (joint: once more, with a joint configuration in force)",
            *table(self.cells, 1, ROLES),
            "",
            "and by what the group was at",
            *table(self.cells, 2, PHASES),
            "",
            *self._lacking_lines(),
            "",
            *self._words("crashes at", self._moments()),
            *self._words("asked", self.asked),
            *self._words("steps", self.steps),
            *self._words("calls", self.outcomes),
            f"failing:  {', '.join(map(str, sorted(self.failing))) or 'none'}",
        ]
        return "\n".join(lines)

    def json(self) -> bytes:
        """Give all of it as JSON: what a document quotes."""
        summary = {
            "seeds": self.seeds,
            "first": self.first,
            "jobs": self.jobs,
            "seconds": round(self.took, 1),
            "events": self.events,
            "events_per_second": round(self.events / max(self.took, 0.001)),
            "virtual_hours": round(self.span / 3600, 2),
            "faults_total": self.faults.total(),
            "faults": self.faults,
            "coverage": [
                {"kind": kind, "role": role, "phase": phase, "count": number}
                for (kind, role, phase), number in sorted(self.cells.items())
            ],
            "coverage_floor": self.floor,
            "below_floor": self.lacking,
            "never_visited": lacking(self.cells, 1),
            "impossible": [{"kinds": kinds, "roles": roles, "why": why} for kinds, roles, why in IMPOSSIBLE],
            "calls": self.outcomes,
            "asked": self.asked,
            "steps": self.steps,
            "failing": {str(seed): failure for seed, failure in sorted(self.failing.items())},
        }
        return msgspec.json.format(msgspec.json.encode(summary, order="sorted"), indent=1) + b"\n"

    def write(self, path: Path) -> None:
        """Write the JSON to a file."""
        path.write_bytes(self.json())

    def _moments(self) -> dict[str, int]:
        """Give how often a process was killed at which moment."""
        return {
            kind.removeprefix("crash at "): number
            for kind, number in self.faults.items()
            if kind.startswith("crash at ")
        }

    def _lacking_lines(self) -> list[str]:
        """Say which cells of the coverage were never visited, or not often enough."""
        floor = max(self.floor, 1)
        cells = lacking(self.cells, floor)
        if not cells:
            return [f"every cell that could be was visited at least {floor} times"]
        names = [f"{kind} / {phase if role == GROUP else f'{role} / {phase}'}" for kind, role, phase in cells]
        more = f", and {len(cells) - SHOWN_MAX} more" if len(cells) > SHOWN_MAX else ""
        seldom = "never visited" if floor == 1 else f"visited less than {floor} times"
        return [f"{seldom} ({len(cells)} cells): {', '.join(names[:SHOWN_MAX])}{more}"]

    def _words(self, title: str, counted: dict[str, int]) -> list[str]:
        """Give a line of counts."""
        words = ", ".join(f"{word} {number}" for word, number in sorted(counted.items()))
        return [f"{title + ':':9} {words or 'none'}"]
