"""What a run came to, for people and for programs.

Times are seconds since the run began, on its own clock.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from quorate.machine import ReadMethod
from quorate.testing.history.operations import Operation


class Incident(msgspec.Struct, frozen=True):
    """One fault.

    Attributes:
        kind: its name.
        text: what it did; empty when it could not be done.
        begun: when, seconds.
        ended: when all it had done was undone, seconds.
    """

    kind: str
    text: str
    begun: float
    ended: float


class Availability(msgspec.Struct, frozen=True):
    """When writes succeeded.

    Attributes:
        seconds: how many whole seconds the run had.
        served: in how many of them a write was acknowledged.
        quiet: how many of them had no fault.
        quiet_served: in how many of those a write was acknowledged.
        longest_pause: the longest time without an acknowledged write, seconds.
    """

    seconds: int
    served: int
    quiet: int
    quiet_served: int
    longest_pause: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    Attributes:
        seed: what decided it.
        setting: what stood between the nodes, and where their data were.
        seconds: how long faults and clients went on.
        incidents: the faults, in the order in which they ended.
        left_out: faults that could not be done here, and why.
        calls: how many calls ended how, by fate.
        calls_by_name: and by what was called.
        repeats: how many tries of writes the clients made after the first one, in their sessions.
        availability: when writes succeeded.
        processes: how many processes the nodes had together.
        lateness: how late the runner's own loop was at most, seconds: clients and switch run on it.
        violations: what was violated, by the name of the check; no sentences for one that holds.
    """

    seed: int
    setting: str
    seconds: float
    incidents: Sequence[Incident]
    left_out: Sequence[str]
    calls: dict[str, int]
    calls_by_name: dict[str, int]
    repeats: int
    availability: Availability
    processes: int
    lateness: float
    violations: dict[str, list[str]]

    @property
    def is_good(self) -> bool:
        """Whether nothing was violated."""
        return not any(self.violations.values())


def availability(acknowledged: Sequence[float], incidents: Iterable[Incident], seconds: float) -> Availability:
    """Work out when writes succeeded.

    Args:
        acknowledged: when each write was, ascending.
        incidents: the faults.
        seconds: how long the run was.
    """
    whole = math.floor(seconds)
    served = {math.floor(time) for time in acknowledged if time < whole}
    disturbed = {
        second
        for one in incidents
        for second in range(math.floor(one.begun), min(math.floor(one.ended), whole - 1) + 1)
    }
    quiet = set(range(whole)) - disturbed
    times = [0.0, *(time for time in acknowledged if time <= seconds), seconds]
    pause = max(after - before for before, after in itertools.pairwise(times))
    return Availability(whole, len(served), len(quiet), len(quiet & served), pause)


def count_calls(operations: Iterable[Operation]) -> tuple[dict[str, int], dict[str, int]]:
    """Count calls by fate, and the writes and reads that are known to have happened by name."""
    fates: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for operation in operations:
        is_read = isinstance(operation.method, ReadMethod)
        fates["unanswered reads" if is_read and operation.fate != "ok" else operation.fate] += 1
        if operation.fate == "ok":
            names[operation.method.name] += 1
    return dict(fates), dict(names)


def table(report: Report) -> str:
    """Give a report as a person reads it."""
    kinds = Counter(incident.kind for incident in report.incidents if incident.text)
    impossible = sum(not incident.text for incident in report.incidents)
    quiet = report.availability
    lines = [
        f"seed {report.seed}: {report.seconds:.0f} s, {report.setting}",
        f"calls      {listing(report.calls)}",
        f"known ok   {listing(report.calls_by_name)}",
        f"repeated   {report.repeats} more tries of writes, each in its session",
        f"faults     {listing(kinds)}; {impossible} more were not possible when drawn",
        f"nodes      {report.processes} processes in all",
        *(f"left out   {what}" for what in report.left_out),
        f"writes     in {quiet.served} of {quiet.seconds} seconds ({share(quiet.served, quiet.seconds)});"
        f" in {quiet.quiet_served} of {quiet.quiet} without a fault ({share(quiet.quiet_served, quiet.quiet)});"
        f" longest pause {quiet.longest_pause:.1f} s",
        f"runner     its own loop was late by {report.lateness * 1000:.0f} ms at most",
        *(f"{'holds     ' if not found else 'VIOLATED  '} {name}" for name, found in report.violations.items()),
        *(f"\n{name}: {sentence}" for name, found in report.violations.items() for sentence in found),
    ]
    return "\n".join(lines)


def listing(counts: dict[str, int]) -> str:
    """List counts by name, the highest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1])) or "none"


def share(part: int, whole: int) -> str:
    """Give a share in per cent."""
    return f"{part / whole:.1%}" if whole else "none"
