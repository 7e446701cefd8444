"""Real processes, real sockets, real RocksDB, killed with SIGKILL under load: no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quorate import Address, Client, OutcomeUnknown, QuorateError, connect
from quorate.machines import KV

from .cluster import free_ports

pytestmark = pytest.mark.slow

CHILD = str(Path(__file__).with_name("node_process.py"))


class Processes:
    """Three node processes, killed and started at will."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses = [Address(f"peer{n}", "127.0.0.1", port) for n, port in enumerate(free_ports(3), 1)]
        self.running: dict[str, Process] = {}

    async def start(self, address: Address, *members: Address) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, CHILD, str(address), str(self.directory / address.name), *map(str, members), stdout=PIPE
        )
        self.running[address.name] = process
        await self.hear(address, b"ready\n")
        if members:
            await self.hear(address, b"formed\n")

    async def hear(self, address: Address, word: bytes) -> None:
        """Wait until the process says that word."""
        output = self.running[address.name].stdout
        assert output is not None
        assert await asyncio.wait_for(output.readline(), 20) == word

    async def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        await process.communicate()  # and its pipe is closed, not only its exit awaited


@contextlib.asynccontextmanager
async def processes(directory: Path) -> AsyncIterator[Processes]:
    nodes = Processes(directory)
    try:
        await asyncio.gather(*(nodes.start(address) for address in nodes.addresses[1:]))
        await nodes.start(nodes.addresses[0], *nodes.addresses)
        yield nodes
    finally:
        for name in list(nodes.running):
            await nodes.kill(name)


class Writer:
    """Appends the numbers from 0 on to a key of its own, one after the other, and notes which were acknowledged."""

    def __init__(self, kv: Client[KV], key: str) -> None:
        self.kv = kv
        self.key = key
        self.acknowledged: list[str] = []
        self.tried: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            word = f"{number} "
            self.tried.append(word)
            number += 1
            try:
                await self.kv.write(KV.append, self.key, word)
            except OutcomeUnknown:
                continue  # it may be there, or not
            except QuorateError:
                self.tried.pop()  # it is certainly not there
                continue
            self.acknowledged.append(word)

    async def check(self) -> None:
        """Every acknowledged word is there once, in its order, and nothing that was never tried."""
        found = [f"{word} " for word in (await self.kv.read(KV.get, self.key)).split()]
        assert [word for word in found if word in set(self.acknowledged)] == self.acknowledged
        assert len(found) == len(set(found)), "nothing was applied twice"
        assert set(found) <= set(self.tried), "what certainly failed is not there"
        assert self.acknowledged, "the run was not empty"


@pytest.mark.covers("pitfall 69")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("victims", ["leader", "follower", "all"])
async def test_no_acknowledged_write_is_lost_by_sigkill(tmp_path: Path, victims: str) -> None:
    chance = random.Random(victims)
    async with processes(tmp_path) as nodes, connect(KV, *nodes.addresses) as kv:
        writers = [Writer(kv, f"key{n}") for n in range(8)]
        stop = asyncio.Event()
        tasks = [asyncio.create_task(writer.run(stop)) for writer in writers]
        for _ in range(3):
            await asyncio.sleep(0.3 + 0.3 * chance.random())
            leader = await kv.with_options(timeout=20).leader()
            names = {
                "leader": [leader.name],
                "follower": [next(a.name for a in nodes.addresses if a != leader)],
                "all": [address.name for address in nodes.addresses],
            }[victims]
            await asyncio.gather(*(nodes.kill(name) for name in names))
            await asyncio.gather(*(nodes.start(a) for a in nodes.addresses if a.name in names))
        while not all(writer.acknowledged for writer in writers):  # noqa: ASYNC110 - a busy machine may take longer
            await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*tasks)
        for writer in writers:
            writer.kv = kv.with_options(timeout=20)
            await writer.check()
