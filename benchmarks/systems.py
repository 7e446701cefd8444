"""What is compared: each system starts a fresh cluster of processes, and runs cases on it.

A case is an operation, the path that calls take, and how many callers there are.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.loops import Outcome
from benchmarks.processes import Program, cpu_seconds, resident_bytes

VALUE = "v" * 64
"""What is written: 64 bytes."""


class Case(msgspec.Struct, frozen=True, order=True):
    """One thing that is measured.

    Attributes:
        operation: ``"writes"``, ``"reads"`` (linearizable) or ``"lease reads"``.
        path: ``"in-process"``: the callers run in the leader's process; ``"remote"``: in another process, each
            request a message of its own; ``"coalesced"``: in another process, those of one turn as one message.
        callers: how many call at once, each one call after the other.
    """

    operation: str
    path: str
    callers: int

    def __str__(self) -> str:
        return f"{self.operation} {self.path} {self.callers}"


class Measurement(msgspec.Struct, frozen=True):
    """What one case gave in one round.

    Attributes:
        outcome: what the callers saw.
        cpu_seconds: what all processes of the system used, callers and warm-up included.
        caller_cpu_seconds: what of it the process of the callers used: a client of its own, or the leader.
        resident_bytes: of the leader, at the end of the case; 0 where there is none to look at.
    """

    outcome: Outcome
    cpu_seconds: float
    caller_cpu_seconds: float
    resident_bytes: int


Measure = Callable[[Case, float, float], Awaitable[Measurement]]
"""Runs a case on a running cluster: for how many seconds, after how many of warm-up."""


class System(Protocol):
    """Something that can be compared.

    Attributes:
        name: its name in results.
        title: what it is, for readers.
        offers: the operations and paths that it has.
    """

    name: str
    title: str
    offers: frozenset[tuple[str, str]]

    async def prepare(self) -> str | None:
        """Build what has to be built; say what is missing, if this cannot run here."""
        ...

    def cluster(self, directory: Path) -> contextlib.AbstractAsyncContextManager[Measure]:
        """Run a fresh cluster, with its files in an empty directory."""
        ...


def offers(operations: list[str], paths: list[str]) -> frozenset[tuple[str, str]]:
    """Give every operation on every path."""
    return frozenset((operation, path) for operation in operations for path in paths)


async def measure_with(
    caller: Program, servers: list[Program], leader: Program, case: Case, seconds: float, warm_up: float
) -> Measurement:
    """Have one program make the calls of a case, and watch what all of them use meanwhile."""
    pids = list({program.pid: None for program in (*servers, caller)})
    before, caller_before = cpu_seconds(pids), cpu_seconds([caller.pid])
    found = await caller.ask(case.operation, VALUE, case.callers, seconds, warm_up, seconds=seconds + warm_up)
    used, caller_used = cpu_seconds(pids) - before, cpu_seconds([caller.pid]) - caller_before
    return Measurement(msgspec.convert(found, Outcome), used, caller_used, resident_bytes(leader.pid))


def missing_modules(*names: str) -> str | None:
    """Say which of these cannot be imported."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed" if absent else None
