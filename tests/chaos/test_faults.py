"""What faults do to links and nodes, without processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quorate import connect
from quorate.machines import KV
from quorate.testing.chaos import partitions, slow_disk
from quorate.testing.chaos.cluster import Cluster, Recipe
from quorate.testing.chaos.isolation import Loopback
from quorate.testing.chaos.links import CLEAR, Link, Links, between
from quorate.testing.chaos.proxies import Proxies
from quorate.testing.chaos.world import NotNow, World

NAMES = ["n1", "n2", "n3", "n4", "n5"]


class LedBy(World):
    """A world in which somebody leads."""

    async def leader(self) -> str:
        return "n3"


def world(seed: int = 0) -> World:
    cluster = Cluster(Recipe(Path("nowhere")), Loopback(NAMES))
    return LedBy(cluster, Links(), connect(KV, *cluster.addresses), random.Random(seed))


def reached(cut: set[tuple[str, str]], name: str) -> set[str]:
    """Give whom a node hears and is heard by."""
    return {other for other in NAMES if other != name and cut.isdisjoint({(name, other), (other, name)})}


async def test_troubles_of_links_overlap_and_end_each_for_itself() -> None:
    links = Links()
    with links.troubled({("a", "b")}, Link(delay=0.5, loss=0.25)):
        with links.troubled(between(["a"], ["b"]), Link(cut=True, delay=0.25, loss=0.125)):
            assert links.find("a", "b") == Link(cut=True, delay=0.75, loss=0.25)
            assert links.find("b", "a").cut
            assert links.find("a", "c") == CLEAR
            waiting = asyncio.create_task(links.until_open("a", "b"))
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        assert links.find("a", "b") == Link(delay=0.5, loss=0.25)
    assert links.find("a", "b") == CLEAR


@pytest.mark.parametrize("seed", range(10))
async def test_partitions_have_the_shapes_of_their_names(seed: int) -> None:
    where = world(seed)
    _, cut = await partitions.halves(where)
    assert sorted(len(reached(cut, name)) for name in NAMES) == [1, 1, 2, 2, 2]
    _, cut = await partitions.one_alone(where)
    assert sorted(len(reached(cut, name)) for name in NAMES) == [0, 3, 3, 3, 3]
    _, cut = await partitions.leader_in_minority(where)
    assert len(reached(cut, "n3")) in (0, 1)
    _, cut = await partitions.bridge(where)
    assert sorted(len(reached(cut, name)) for name in NAMES) == [2, 2, 2, 2, 4]
    _, cut = await partitions.ring(where)
    assert all(len(reached(cut, name)) == 2 for name in NAMES)
    _, cut = await partitions.one_way(where)
    assert len(cut) == 4
    assert all((b, a) not in cut for a, b in cut)


async def test_no_two_faults_have_the_same_node() -> None:
    where = world()
    with where.claim(["n1", "n2"]):
        assert set(where.free(3)) == {"n3", "n4", "n5"}
        with pytest.raises(NotNow):
            where.free(4)
        with pytest.raises(NotNow), where.claim(["n2"]):
            pass
    assert (await where.victims(3, leader=True))[0] == "n3"


@contextlib.asynccontextmanager
async def echoing(host: str, port: int) -> AsyncIterator[None]:
    """Listen, and give back what comes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while chunk := await reader.read(100):
                writer.write(chunk)

    async with await asyncio.start_server(echo, host, port):
        yield


async def test_a_proxy_holds_bytes_back_one_way_and_lets_them_go_on() -> None:
    links = Links()
    proxies = Proxies(["n1", "n2"], links, random.Random(1))
    await proxies.start()
    try:
        host, _, port = proxies.wrapping("n1").told["n2"].rpartition(":")
        async with echoing(proxies.addresses["n2"].host, proxies.addresses["n2"].port):
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.closing(writer):
                writer.write(b"1")
                assert await reader.readexactly(1) == b"1"
                for pair in (("n1", "n2"), ("n2", "n1")):
                    with links.troubled({pair}, Link(cut=True)):
                        writer.write(b"2")
                        with pytest.raises(TimeoutError):
                            await asyncio.wait_for(reader.readexactly(1), 0.05)
                    assert await reader.readexactly(1) == b"2"
                with links.troubled({("n1", "n2")}, Link(delay=0.01, loss=1.0)):
                    begun = asyncio.get_running_loop().time()
                    writer.write(b"3")
                    assert await reader.readexactly(1) == b"3"
                    assert asyncio.get_running_loop().time() - begun >= 0.2
    finally:
        await proxies.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
async def test_a_slow_disk_is_slow_while_it_is_meant_to_be(tmp_path: Path) -> None:
    why = await slow_disk.why_not()
    if why is not None:
        pytest.skip(why)
    syncing = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for line in sys.stdin:
    begun = time.monotonic(); os.fdatasync(file); print(time.monotonic() - begun, flush=True)
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", syncing, str(tmp_path / "file")), stdin=PIPE, stdout=PIPE
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        await process.stdout.readline()
        async with slow_disk.slow_syncs(process.pid, 0.5):
            process.stdin.write(b"\n")
            assert float(await process.stdout.readline()) >= 0.5
        process.stdin.write(b"\n")
        assert await process.stdout.readline()  # it lives on
    finally:
        process.kill()
        await process.communicate()
