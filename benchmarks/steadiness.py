"""What must not disturb a group: large writes beside small ones, full load, and a slow disk.

Each gives lists of figures by what they are of. ``scale`` shrinks or lengthens times.
"""

from __future__ import annotations

import asyncio
import contextlib
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
SLICE_SECONDS = 1.0
"""The callers stop for a moment after each: what they measured is sorted, which holds up the leader, in whose process
they are, for the longer the more there is."""

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
    slices = max(1, round(ELECTION_SECONDS * scale / SLICE_SECONDS))
    found: dict[str, list[float]] = {"seconds of each": [slices * SLICE_SECONDS]}
    for case, store in (("full load", "rocksdb"), ("full load on syncs of 50 ms", SLOW_DISK)):
        with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
            async with Programs() as programs:
                addresses, members = await start_nodes(programs, Path(directory), store, "asyncio")
                leader = members[addresses.index(await members[0].ask("form", addresses))]
                others = [member for member in members if member is not leader]
                before = await highest_term(others)
                written, done = 0, 0
                # Its process ends with the first write that is refused: the terms of the others then tell why.
                with contextlib.suppress(RuntimeError):
                    while done < slices:
                        words = ("writes", VALUE, FULL_LOAD_CALLERS, SLICE_SECONDS, 0.0)
                        written += msgspec.convert(await leader.ask(*words, seconds=SLICE_SECONDS), Outcome).count
                        done += 1
                found[f"elections, {case}"] = [await highest_term(others) - before]
                found[f"writes/s, {case}"] = [written / max(1, done) / SLICE_SECONDS]
    return found


async def highest_term(members: list[Program]) -> float:
    """Give the highest term of some: each election, lost or won, raises it."""
    return float(max(await asyncio.gather(*(member.ask("term") for member in members))))
