"""What is measured of quorate beside the comparison: start-up, memory, many groups, restart.

Each gives lists of figures, seconds or bytes or shares, by what they are of. ``scale`` shrinks sizes, to try them out.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from benchmarks.loops import Outcome
from benchmarks.processes import Program, Programs, cpu_seconds, resident_bytes
from benchmarks.quorate_cluster import start_node, start_nodes
from benchmarks.systems import VALUE

Figures = dict[str, list[float]]

GROUPS = 1000
IDLE_SECONDS = 5.0
CALLERS = 1024
MANY_CALLERS = {"": 1, ", 4 times the callers": 4, ", 16 times the callers": 16}
"""How many times ``CALLERS`` write to the groups: that many to each of a thousand."""
SNAPSHOT_ENTRIES = 100_000
LOG_ENTRIES = 1_000_000
GROWTH_ENTRIES = 10_000_000
GROWTH_STEPS = 20
NO_SNAPSHOTS = 10 * LOG_ENTRIES


def imports(module: str) -> tuple[float, float]:
    """Give how long a fresh interpreter takes to import something, seconds, and how many bytes it then holds."""
    code = (
        f"import time; begin = time.perf_counter(); import {module}; end = time.perf_counter(); import os;"
        "print(end - begin, int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, size = found.stdout.split()
    return float(seconds), float(size)


@asynccontextmanager
async def nodes(
    groups: int = 1, loop: str = "asyncio", *more: str
) -> AsyncIterator[tuple[list[Program], Program, float]]:
    """Run three nodes with their groups formed; give them, the first group's leader, and how long forming took."""
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses, members = await start_nodes(
                programs, Path(directory), "rocksdb", loop, groups, SNAPSHOT_ENTRIES, *more
            )
            begin = time.perf_counter()
            leader = await members[0].ask("form", addresses, seconds=groups)
            seconds = time.perf_counter() - begin
            yield members, members[addresses.index(leader)], seconds


async def start(rounds: int, scale: float) -> Figures:
    """Measure importing quorate, and three nodes from nothing to their first write."""
    del scale
    found: Figures = {"import quorate": [], "cluster, asyncio": [], "cluster, uvloop": []}
    imports("quorate")  # So that the files are in memory, and compiled.
    for _ in range(rounds):
        found["import quorate"].append(imports("quorate")[0])
        for loop in ("asyncio", "uvloop"):
            begin = time.perf_counter()
            async with nodes(loop=loop) as (_members, leader, _):
                await leader.ask("write", VALUE)
                found[f"cluster, {loop}"].append(time.perf_counter() - begin)
    return found


async def memory(rounds: int, scale: float) -> Figures:
    """Measure the memory of idle nodes, and of a leader over many entries with snapshots."""
    found: Figures = {
        "idle node, asyncio": [],
        "idle node, uvloop": [],
        "imports alone": [],
        "growth entries": [],
        "growth": [],
    }
    for _ in range(rounds):
        found["imports alone"].append(imports("asyncio, msgspec, rocksdict")[1])
        for loop in ("asyncio", "uvloop"):
            async with nodes(loop=loop) as (members, leader, _):
                await leader.ask("write", VALUE)
                await asyncio.sleep(1.0)
                found[f"idle node, {loop}"] += [resident_bytes(member.pid) for member in members]
    step = int(GROWTH_ENTRIES * scale / GROWTH_STEPS)
    found["growth entries"].append(step * GROWTH_STEPS)
    async with nodes(loop="uvloop") as (_members, leader, _):
        for _ in range(GROWTH_STEPS):
            await leader.ask("fill", VALUE, step, seconds=600)
            found["growth"].append(resident_bytes(leader.pid))
    return found


async def groups(rounds: int, scale: float) -> Figures:
    """Measure what many groups on three nodes write together beside one, and what idle ones cost each node.

    All have rare heartbeats, as a node with many groups needs them.
    """
    count = max(2, int(GROUPS * scale))
    found: Figures = {
        "groups": [count],
        **{f"writes/s, {which}{more}": [] for more in MANY_CALLERS for which in ("one group", "all groups")},
        "bytes of an idle group": [],
        "share of a core, all idle": [],
        "forming all, seconds": [],
    }
    for _ in range(rounds):
        async with nodes(1, "asyncio", "rare-beats") as (members, _leader, _):
            for more, times in MANY_CALLERS.items():
                found[f"writes/s, one group{more}"].append(await writes_of_all(members, times * CALLERS))
        async with nodes(1, "asyncio", "rare-beats") as (members, _leader, _):
            await asyncio.sleep(1.0)
            alone = resident_bytes(members[0].pid)
        async with nodes(count, "asyncio", "rare-beats") as (members, _leader, seconds):
            found["forming all, seconds"].append(seconds)
            await asyncio.sleep(2.0)
            found["bytes of an idle group"].append((resident_bytes(members[0].pid) - alone) / (count - 1))
            pids = [member.pid for member in members]
            before = cpu_seconds(pids)
            await asyncio.sleep(IDLE_SECONDS)
            found["share of a core, all idle"].append((cpu_seconds(pids) - before) / IDLE_SECONDS / len(members))
            for more, times in MANY_CALLERS.items():
                found[f"writes/s, all groups{more}"].append(await writes_of_all(members, times * CALLERS))
    return found


async def writes_of_all(members: list[Program], callers: int) -> float:
    """Let callers write on every node to the groups that it leads, in proportion; give writes per second of all."""
    leads = [await member.ask("leads") for member in members]
    shares = [callers * led // sum(leads) for led in leads]
    outcomes = await asyncio.gather(
        *(
            member.ask("writes", VALUE, share, 3.0, 1.0, seconds=4.0)
            for member, share in zip(members, shares, strict=True)
            if share
        )
    )
    return sum(msgspec.convert(found, Outcome).per_second for found in outcomes)


async def restart(rounds: int, scale: float) -> Figures:
    """Measure three nodes that hold a log without a snapshot, from their start to the next write."""
    entries = int(LOG_ENTRIES * scale)
    rest = ("rocksdb", "asyncio", "1", str(NO_SNAPSHOTS))
    found: Figures = {"entries": [entries], "to the next write": []}
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses, members = await start_nodes(programs, Path(directory), "rocksdb", "asyncio", 1, NO_SNAPSHOTS)
            leader = members[addresses.index(await members[0].ask("form", addresses))]
            await leader.ask("fill", VALUE, entries, seconds=1200)
        for _ in range(rounds):
            async with Programs() as programs:
                begin = time.perf_counter()
                started = [start_node(programs, Path(directory), address, *rest) for address in addresses]
                members = await asyncio.gather(*started)
                leader = members[addresses.index(await members[0].ask("leader"))]
                await leader.ask("write", VALUE)
                found["to the next write"].append(time.perf_counter() - begin)
    return found
