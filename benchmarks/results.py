"""Results: medians, spreads and ratios of what was measured. Pure: knows files' contents, and no clusters."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.systems import Measurement

Round = dict[str, dict[str, Measurement]]
"""What one round gave: by system, by case."""


class Plan(msgspec.Struct, frozen=True):
    """What is compared.

    Attributes:
        rounds: how often.
        seconds: how long each case is measured in each round.
        warm_up: how long it runs before.
        callers: how many call at once.
        operations: which are measured.
        systems: the names of those that take part; None for all.
    """

    rounds: int
    seconds: float
    warm_up: float
    callers: tuple[int, ...]
    operations: tuple[str, ...] = ("writes", "reads", "lease reads")
    systems: tuple[str, ...] | None = None


class Spread(msgspec.Struct, frozen=True):
    """Some rounds' figures.

    Attributes:
        median: of all.
        low: the lowest.
        high: the highest.
        count: how many there are.
    """

    median: float
    low: float
    high: float
    count: int


class Comparison(msgspec.Struct, frozen=True):
    """What ``compare`` gave.

    Attributes:
        titles: what each system is, by its name, in the order of the first round.
        skipped: systems that could not run, and why.
        failures: systems that failed in some round, and how; the cases before that count.
        rounds: what was measured.
        plan: what was to be.
    """

    titles: dict[str, str]
    skipped: dict[str, str]
    failures: list[str]
    rounds: list[Round]
    plan: Plan


class Results(msgspec.Struct):
    """One file of results: what each subcommand found last, and where.

    Attributes:
        machine: the machine and the versions.
        comparison: of ``compare``.
        chapters: of the others, by name: lists of figures by what they are of.
        commands: how each was called; ``"comparison"`` for the comparison.
        trials: the chapters whose sizes were made smaller.
    """

    machine: dict[str, str] = {}
    comparison: Comparison | None = None
    chapters: dict[str, dict[str, list[float]]] = {}
    commands: dict[str, str] = {}
    trials: set[str] = set()


Figure = Callable[[Measurement], float]
"""What of a measurement is looked at."""


def per_second(measured: Measurement) -> float:
    """Calls per second."""
    return measured.outcome.per_second


def p50(measured: Measurement) -> float:
    """The median time of a call, seconds."""
    return measured.outcome.p50


def p99(measured: Measurement) -> float:
    """How long 99 of 100 calls take at most, seconds."""
    return measured.outcome.p99


def p999(measured: Measurement) -> float:
    """How long 999 of 1000 calls take at most, seconds."""
    return measured.outcome.p999


def cpu_per_call(measured: Measurement) -> float:
    """CPU seconds of all processes for each call."""
    return measured.cpu_seconds / measured.outcome.total


def caller_cpu_per_call(measured: Measurement) -> float:
    """CPU seconds of the callers' process for each call."""
    return measured.caller_cpu_seconds / measured.outcome.total


def resident(measured: Measurement) -> float:
    """Resident bytes of the leader."""
    return measured.resident_bytes


def spread(figures: Sequence[float]) -> Spread | None:
    """Sum up figures; None if there are none."""
    return Spread(statistics.median(figures), min(figures), max(figures), len(figures)) if figures else None


def over_rounds(rounds: Sequence[Round], system: str, case: str, figure: Figure = per_second) -> Spread | None:
    """Sum up one figure of one case over the rounds that have it."""
    return spread([figure(found[system][case]) for found in rounds if case in found.get(system, {})])


def ratio(
    rounds: Sequence[Round], one: tuple[str, str], other: tuple[str, str], figure: Figure = per_second
) -> Spread | None:
    """Sum up the ratios, each taken within one round, of the figure of one (system, case) to another's."""
    return spread(
        [
            figure(found[one[0]][one[1]]) / figure(found[other[0]][other[1]])
            for found in rounds
            if one[1] in found.get(one[0], {}) and other[1] in found.get(other[0], {})
        ]
    )
