"""Where the time goes: the event loop's thread of a node or a client under load, by function, in CPU time alone.

The profiler slows what it watches, small functions most of all: the shares are hints, the numbers of calls are exact.
"""

from __future__ import annotations

import cProfile
import tempfile
import time
from pathlib import Path
from types import CodeType

import msgspec

from benchmarks.loops import Outcome
from benchmarks.processes import Programs
from benchmarks.quorate_cluster import start_nodes
from benchmarks.systems import VALUE, Case


class Row(msgspec.Struct, frozen=True):
    """One function.

    Attributes:
        name: the function and where it is.
        calls: how often it was called.
        own: CPU seconds in it alone.
        whole: CPU seconds in it and what it called.
    """

    name: str
    calls: int
    own: float
    whole: float


class Profiler:
    """Watches the thread that starts it."""

    def __init__(self) -> None:
        self.profile = cProfile.Profile(time.thread_time)

    def start(self) -> str:
        """Begin; say so."""
        self.profile.enable()
        return "watching"

    def stop(self) -> list[Row]:
        """End, and give every function that was called, the most expensive one first."""
        self.profile.disable()
        rows = [Row(name(e.code), e.callcount, e.inlinetime, e.totaltime) for e in self.profile.getstats()]
        return sorted(rows, key=lambda row: -row.own)


def name(code: CodeType | str) -> str:
    """Name a function for readers."""
    if isinstance(code, str):
        return code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_qualname}"


async def profile(case: Case, who: str, loop: str, seconds: float) -> str:
    """Profile a case.

    Args:
        case: what is done meanwhile.
        who: ``"leader"``, ``"follower"`` or ``"client"``.
        loop: the event loop.
        seconds: how long.

    Returns:
        A table: for each function its calls for each call of the case, its own time and the whole.
    """
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses, nodes = await start_nodes(programs, Path(directory), "rocksdb", loop)
            caller = leader = nodes[addresses.index(await nodes[0].ask("form", addresses))]
            if case.path != "in-process":
                caller = await programs.start_python("the client", "remote", loop)
                await caller.ask("open", case.path, addresses)
            follower = next(node for node in nodes if node is not leader)
            watched = {"leader": leader, "follower": follower, "client": caller}[who]
            await caller.ask(case.operation, VALUE, case.callers, seconds / 4, 0.0, seconds=seconds)
            await watched.ask("profile")
            found = await caller.ask(case.operation, VALUE, case.callers, seconds, 0.0, seconds=seconds)
            rows = msgspec.convert(await watched.ask("profiled"), list[Row])
            return table(rows, msgspec.convert(found, Outcome).total)


def table(rows: list[Row], calls: int) -> str:
    """Write the 40 most expensive functions."""
    whole = sum(row.own for row in rows)
    lines = [f"{calls} calls, {1e6 * whole / calls:.1f} µs of CPU each in this thread, while it is watched", ""]
    lines.append(f"{'own %':>6} {'own µs':>7} {'whole µs':>8} {'calls':>7}   for each call")
    for row in rows[:40]:
        own, cumulated = 1e6 * row.own / calls, 1e6 * row.whole / calls
        lines.append(f"{100 * row.own / whole:6.1f} {own:7.2f} {cumulated:8.2f} {row.calls / calls:7.3f}   {row.name}")
    return "\n".join(lines)
