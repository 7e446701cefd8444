"""Chaos on real processes: a short run holds, a planted fault is found, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from quorate import Client, QuorateError, connect
from quorate.machines import KV
from quorate.testing.chaos.checks import check_linearizable
from quorate.testing.chaos.cluster import ENTRY, Cluster, Recipe
from quorate.testing.chaos.failover import measure
from quorate.testing.chaos.links import Link, Links, between
from quorate.testing.chaos.proxies import Proxies
from quorate.testing.chaos.run import running
from quorate.testing.history.files import read_history
from quorate.testing.history.operations import Recorder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of Unix")]

STALE_READS = str(Path(__file__).with_name("stale_reads.py"))


@contextlib.asynccontextmanager
async def chaos(*arguments: str, temporary: Path) -> AsyncIterator[Process]:
    """Run the command; whatever happens it ends with the context, and its nodes with it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quorate.testing", "chaos", *arguments),
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def commands_naming(directory: Path) -> list[str]:
    """Give the command lines of all processes of this machine that name a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode()
            found += [text] if str(directory) in text else []
    return found


async def test_a_short_run_holds(tmp_path: Path) -> None:
    history, report = tmp_path / "history.jsonl", tmp_path / "report.json"
    # How quick this machine is just now says nothing of the code.
    options = ("--minutes", "0.08", "--seed", "5", "--served", "0", "--history", str(history), "--report", str(report))
    async with chaos("run", *options, temporary=tmp_path) as process:
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
    found = json.loads(report.read_bytes())
    assert found["incidents"], "some fault was done"
    assert not any(found["violations"].values())
    assert check_linearizable(read_history(history)) == []
    assert sum(found["calls"].values()) == len(history.read_text().splitlines())
    assert sorted(os.listdir(tmp_path)) == ["history.jsonl", "report.json"]


@pytest.mark.parametrize(
    ("number", "isolation"), [(signal.SIGTERM, ("--proxies",)), (signal.SIGKILL, ())], ids=["SIGTERM", "SIGKILL"]
)
async def test_nothing_outlives_a_run_that_is_ended(
    tmp_path: Path, number: signal.Signals, isolation: Sequence[str]
) -> None:
    if number == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process that its parent was killed")
    async with chaos("run", "--fault", "pause majority", *isolation, temporary=tmp_path) as process:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            while b"done" not in await process.stdout.readline():  # three of five are stopped then
                assert process.returncode is None
            process.send_signal(number)
            await process.communicate()
        async with asyncio.timeout(10):
            while commands_naming(tmp_path):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert os.listdir(tmp_path) == []


async def follow_the_cut(cluster: Cluster, links: Links) -> list[str]:
    """Cut the leader off, write at its successor, read at the old one; give what is wrong with what was seen."""
    recorder = Recorder()

    async def write(kv: Client[KV], value: str) -> None:
        number = recorder.invoke(0, KV.set, "key", value)
        recorder.ok(number, await kv.with_options(timeout=20).write(KV.set, "key", value))

    async with connect(KV, *cluster.addresses) as all_of_them:
        await write(all_of_them, "old")
        leader = (await all_of_them.leader()).name
    others = [name for name in cluster.nodes if name != leader]
    with links.troubled(between([leader], others), Link(cut=True)):
        async with asyncio.timeout(20), connect(KV, *cluster.others(leader)) as majority:
            while (await majority.leader()).name == leader:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
            await write(majority, "new")
        async with connect(KV, cluster.nodes[leader].address, follow=False) as single:
            number = recorder.invoke(1, KV.get, "key")
            try:
                recorder.ok(number, await single.with_options(timeout=1).read(KV.get, "key"))
            except QuorateError as error:
                recorder.raised(number, error)
    return check_linearizable(recorder.operations())


@pytest.mark.parametrize(("entry", "is_found"), [(ENTRY, False), ((STALE_READS,), True)], ids=["honest", "planted"])
async def test_reads_without_a_quorum_are_found(tmp_path: Path, entry: Sequence[str], is_found: bool) -> None:
    links = Links()
    proxies = Proxies(["n1", "n2", "n3"], links, random.Random(1))
    async with running(Recipe(tmp_path, "memory", {}, entry), proxies) as cluster:
        violations = await follow_the_cut(cluster, links)
    assert bool(violations) is is_found, violations
    assert not is_found or "not linearizable" in violations[0]
    assert cluster.accidents == []


async def test_failover_is_measured() -> None:
    measured = await measure(1, "rocksdb")
    assert len(measured.pauses) == 1
    assert all(pause > 0 for pause in measured.pauses)
    assert measured.writes > 1
