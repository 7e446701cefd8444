"""What a call costs: CPU of all processes by members, value size and kind of call; bytes in a log; a snapshot.

CPU seconds, and bytes: they hold also on a machine that does other things meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.loops import Outcome
from benchmarks.processes import Program, Programs, cpu_seconds, free_ports
from benchmarks.quorate_cluster import start_node
from benchmarks.systems import VALUE
from quorate import Node, Settings, StateMachine
from quorate.calling import describe
from quorate.machines import KV
from quorate.store.records import encode_record, entry_key
from quorate.types import Index, Kind, Run, Term

SECONDS = 2.0
SNAPSHOT_KEYS = 100_000
Figures = dict[str, list[float]]


async def costs(rounds: int, scale: float) -> Figures:
    """Measure all of it."""
    found: Figures = {}
    for _ in range(rounds):
        for members in (1, 3, 5):
            await measure_group(found, members, SECONDS * scale)
        await measure_snapshot(found, int(SNAPSHOT_KEYS * scale))
        measure_copies(found, int(SNAPSHOT_KEYS * scale))
    measure_records(found)
    return found


async def measure_group(found: Figures, count: int, seconds: float) -> None:
    """Measure calls of a group of so many members; of three, values of other sizes and reads too."""
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Programs() as programs:
            addresses = [f"peer{n}@127.0.0.1:{port}" for n, port in enumerate(free_ports(count), 1)]
            rest = ("rocksdb", "uvloop", "1", "100000")
            starting = [start_node(programs, Path(directory), address, *rest) for address in addresses]
            nodes = await asyncio.gather(*starting)
            leader = nodes[addresses.index(await nodes[0].ask("form", addresses))]
            for callers in (1, 16, 256):
                name = f"CPU µs, write, {count} members, {callers} callers"
                found.setdefault(name, []).append(await cpu_of_call(nodes, leader, "writes", VALUE, callers, seconds))
            if count != 3:
                return
            for size in (1_000, 10_000, 100_000):
                name = f"CPU µs, write of {size:,} bytes, {count} members, 16 callers"
                value = "v" * size
                found.setdefault(name, []).append(await cpu_of_call(nodes, leader, "writes", value, 16, seconds))
            for operation in ("reads", "lease reads"):
                for callers in (1, 256):
                    name = f"CPU µs, {operation}, {count} members, {callers} callers"
                    cost = await cpu_of_call(nodes, leader, operation, VALUE, callers, seconds)
                    found.setdefault(name, []).append(cost)


async def cpu_of_call(
    nodes: list[Program], leader: Program, operation: str, value: str, callers: int, seconds: float
) -> float:
    """Give the CPU of all nodes for each call, the callers' own in the leader's process among it, µs."""
    pids = [node.pid for node in nodes]
    before = cpu_seconds(pids)
    answer = await leader.ask(operation, value, callers, seconds, 0.2, seconds=seconds)
    return 1e6 * (cpu_seconds(pids) - before) / msgspec.convert(answer, Outcome).total


async def measure_snapshot(found: Figures, keys: int) -> None:
    """Measure a snapshot of so many keys: CPU and bytes for each."""
    never = Settings(snapshot_entries=10 * keys, snapshot_bytes=2**40)
    with tempfile.TemporaryDirectory(prefix="quorate-benchmarks-") as directory:
        async with Node("127.0.0.1:0", data_dir=directory, settings=never) as node:
            peer = await node.start_peer(KV, name="peer1")
            await peer.set_configuration(peer.address)
            await peer.leader()
            for begin in range(0, keys, 1000):
                some = range(begin, min(begin + 1000, keys))
                await asyncio.gather(*(peer.write(KV.set, f"key{number:07}", VALUE) for number in some))
            before = time.process_time()
            await peer.take_snapshot()
            used = time.process_time() - before
            size = snapshot_bytes(Path(directory))
            found.setdefault("keys in the snapshot", []).append(keys)
            found.setdefault("CPU µs, snapshot, for each key", []).append(1e6 * used / keys)
            found.setdefault("bytes, snapshot, for each key", []).append(size / keys)


@dataclass
class Account:
    """What may change, and so must be copied as it is."""

    owner: str
    balance: int


class Bank(StateMachine):
    """Values of three kinds under as many keys."""

    texts: dict[str, str]
    numbers: dict[str, list[int]]
    accounts: dict[str, Account]

    def __init__(self) -> None:
        self.texts, self.numbers, self.accounts = {}, {}, {}


def measure_copies(found: Figures, keys: int) -> None:
    """Measure for how long a node's loop does nothing else when a snapshot begins: CPU for each key."""
    kinds: dict[str, Callable[[int], Any]] = {
        "texts": lambda number: f"{number:064}",
        "numbers": lambda number: [number, number + 1, number + 2],
        "accounts": lambda number: Account(f"owner{number}", number),
    }
    for kind, make in kinds.items():
        bank = Bank()
        getattr(bank, kind).update((f"key{number:07}", make(number)) for number in range(keys))
        before = time.process_time()
        chunks = describe(Bank).snapshot(bank)
        used = time.process_time() - before
        found.setdefault(f"CPU µs of the loop, snapshot begins, for each of the {kind}", []).append(1e6 * used / keys)
        del chunks


def snapshot_bytes(directory: Path) -> int:
    """Give the size of the one snapshot below a data directory."""
    (file,) = [file for file in directory.rglob("*") if file.parent.name == "snapshots"]
    return file.stat().st_size


def measure_records(found: Figures) -> None:
    """Count the bytes of a log for each write of 64 bytes, alone and with 255 others."""
    command = describe(KV).encode_write(KV.set, ("key1", VALUE))
    for count in (1, 256):
        run = Run(Term(1), Index(1), Kind.COMMAND, time.time(), (command,) * count)
        key = entry_key("peer1", Index(1))
        size = len(key) + len(encode_record(key, run))
        found[f"bytes in the log, write of 64 bytes, {count} together"] = [size / count]
