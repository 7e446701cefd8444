"""What must not disturb a group: large writes beside small ones, full load, and a slow disk.

Each gives lists of figures by what they are of. ``scale`` shrinks or lengthens times.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec

from benchmarks.loops import Outcome
from benchmarks.processes import Program, Programs
from benchmarks.quorate_cluster import start_nodes
from benchmarks.systems import VALUE

SMALL_CALLERS = 16
LARGE_BYTES = 1_000_000
STALL_SECONDS = 3.0
FULL_LOAD_CALLERS = 1024
ELECTION_SECONDS = 60.0
SLOW_DISK = "rocksdb-slow"
"""RocksDB whose syncs take 50 ms more: see ``benchmarks.programs.node``."""


async def stalls(rounds: int, scale: float) -> dict[str, list[float]]:
    """Measure small writes alone, and beside one caller who writes a megabyte after the other: in turn, on one cluster.

    Returns:
        Seconds, but for the megabytes written in each second.
    """
    found: dict[str, list[float]] = {
        f"{what}, {case}": [] for what in ("p50", "p99") for case in ("small writes alone", "beside 1 MB writes")
    }
    found["MB/s of large writes"] = []
    seconds = STALL_SECONDS * scale
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses, members = await start_nodes(programs, Path(directory), "rocksdb", "uvloop")
            leader = members[addresses.index(await members[0].ask("form", addresses))]
            for _ in range(rounds):
                for case, large in (("small writes alone", 0), ("beside 1 MB writes", LARGE_BYTES)):
                    words = ("beside", VALUE, SMALL_CALLERS, seconds, 0.5, large)
                    answer, count = await leader.ask(*words, seconds=seconds)
                    outcome = msgspec.convert(answer, Outcome)
                    found[f"p50, {case}"].append(outcome.p50)
                    found[f"p99, {case}"].append(outcome.p99)
                    if large:
                        found["MB/s of large writes"].append(count * large / 1e6 / (seconds + 0.5))
    return found


async def elections(rounds: int, scale: float) -> dict[str, list[float]]:
    """Count the elections that nobody needed: under full load, and with a disk whose syncs take 50 ms more."""
    del rounds
    seconds = ELECTION_SECONDS * scale
    found: dict[str, list[float]] = {"seconds of each": [seconds]}
    for case, store, callers in (
        ("full load", "rocksdb", FULL_LOAD_CALLERS),
        ("full load on syncs of 50 ms", SLOW_DISK, FULL_LOAD_CALLERS),
    ):
        with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
            async with Programs() as programs:
                addresses, members = await start_nodes(programs, Path(directory), store, "asyncio")
                leader = members[addresses.index(await members[0].ask("form", addresses))]
                before = await highest_term(members)
                outcome = await leader.ask("writes", VALUE, callers, seconds, 0.5, seconds=seconds)
                found[f"elections, {case}"] = [await highest_term(members) - before]
                found[f"writes/s, {case}"] = [msgspec.convert(outcome, Outcome).per_second]
    return found


async def highest_term(members: list[Program]) -> float:
    """Give the highest term of all: each election, lost or won, raises it."""
    return float(max(await asyncio.gather(*(member.ask("term") for member in members))))
