"""quorate as a system to be compared, and its nodes for the chapters that look at quorate alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.processes import Program, Programs, free_ports
from benchmarks.systems import Case, Measure, Measurement, measure_with, missing_modules, offers


class Quorate:
    """Three quorate nodes, one peer each."""

    def __init__(self, store: str, loop: str) -> None:
        self.name = "quorate" if (store, loop) == ("rocksdb", "asyncio") else f"quorate-{store}-{loop}"
        self.title = f"quorate, {store}, {loop}"
        self.offers = offers(["writes", "reads", "lease reads"], ["in-process", "remote", "coalesced"])
        self.store = store
        self.loop = loop

    async def prepare(self) -> str | None:
        return missing_modules({"rocksdb": "rocksdict", "lmdb": "lmdb"}[self.store], self.loop)

    @contextlib.asynccontextmanager
    async def cluster(self, directory: Path) -> AsyncIterator[Measure]:
        async with Programs() as programs:
            addresses, nodes = await start_nodes(programs, directory, self.store, self.loop)
            leader = nodes[addresses.index(await nodes[0].ask("form", addresses))]
            remote = await programs.start_python("the client", "remote", self.loop)

            async def measure(case: Case, seconds: float, warm_up: float) -> Measurement:
                if case.path == "in-process":
                    return await measure_with(leader, nodes, leader, case, seconds, warm_up)
                await remote.ask("open", case.path, addresses)
                measured = await measure_with(remote, nodes, leader, case, seconds, warm_up)
                await remote.ask("close")
                return measured

            yield measure


async def start_nodes(
    programs: Programs,
    directory: Path,
    store: str,
    loop: str,
    groups: int = 1,
    snapshot_entries: int = 100_000,
    *more: str,
) -> tuple[list[str], list[Program]]:
    """Start three quorate nodes whose peers are empty; give their addresses and processes."""
    addresses = [f"peer{n}@127.0.0.1:{port}" for n, port in enumerate(free_ports(3), 1)]
    rest = (store, loop, str(groups), str(snapshot_entries), *more)
    return addresses, await asyncio.gather(*(start_node(programs, directory, address, *rest) for address in addresses))


async def start_node(programs: Programs, directory: Path, address: str, *rest: str) -> Program:
    """Start one node, new or with the data it has."""
    return await programs.start_python(address, "node", address, directory / address.partition("@")[0], *rest)
