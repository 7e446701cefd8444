"""``quorate demo --full``: that each step is seen, that a lost write is too, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import signal
from pathlib import Path

import pytest

from quorate.cli import demo, growth
from quorate.cli.output import Output
from quorate.cli.session import Session
from quorate.cli.walk import StepFailed, Walk
from quorate.cli.writer import Writer
from quorate.machines import KV
from quorate.types import Address

from .cluster import Cluster, cluster
from .test_cli_processes import Running, processes_with

STEPS = (
    "it is a majority of one.",
    "writes are acknowledged so far, and it goes on.",
    "1 is gone for good.",
    "peer2 is a voter, with a snapshot up to ",
    "5 are members, and ",
    "leads now; ",
    *(f"peer{number + 5} is there in the place of peer{number}; " for number in range(1, 6)),
    "nothing: each of the 5 members holds all ",
    "each had applied ",
)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_full_demo_shows_each_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Running("demo", "--full", temporary=tmp_path) as running:
        out, errors = running.process.communicate(timeout=170)
    printed = out.decode()
    seen = [line for line in printed.splitlines() if line.startswith("    ok: ")]
    assert [step in line for step, line in zip(STEPS, seen, strict=True)] == [True] * len(STEPS), printed
    assert printed.count(growth.INSTALLS) >= 9, "each newcomer begins with a snapshot"
    assert printed.count(" has caught up -> it may vote") >= 1
    assert (running.process.returncode, errors) == (0, b"")
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_a_full_demo_that_is_interrupted_while_one_joins_leaves_nothing_behind(tmp_path: Path) -> None:
    with Running("demo", "--full", "--store", "memory", temporary=tmp_path) as running:
        running.wait_for(" --join peer1@")
        running.signal(signal.SIGINT)
        assert running.end()[0] == 130
    assert "Interrupted by SIGINT" in running.printed
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


class InProcess(Walk):
    """A walk over the nodes of a test's cluster: nothing is typed."""

    def __init__(self, nodes: Cluster[KV], directory: Path, stream: io.StringIO) -> None:
        sessions = [Session(address, "memory", directory) for address in nodes.addresses]
        super().__init__(Output(stream), sessions, "memory", growth.LANES)
        self.nodes = nodes

    async def equally_far(self) -> None:
        await self.nodes.converge()


async def after_writes(nodes: Cluster[KV], directory: Path, stream: io.StringIO) -> InProcess:
    """Give a walk whose client has written something."""
    await nodes.form()
    walk = InProcess(nodes, directory, stream)
    walk.writer.start()
    await walk.writes_seen(20)
    await walk.writer.stop()
    await walk.equally_far()
    return walk


async def test_each_acknowledged_write_is_looked_for_on_each_member(tmp_path: Path) -> None:
    async with cluster(KV) as nodes:
        stream = io.StringIO()
        walk = await after_writes(nodes, tmp_path, stream)
        try:
            count = len(walk.writer.acknowledged)
            assert (await growth.read_back(walk)).startswith(
                f"nothing: each of the 3 members holds all {count} acknowledged writes"
            )
            assert f"# peer3 holds all {count}" in stream.getvalue()
            nodes.machine_of("peer3").entries["key1"] = "another"
            del nodes.machine_of("peer3").entries["key2"]
            with pytest.raises(StepFailed, match=r"each acknowledged write on peer3; seen: 2 were lost: key1, key2"):
                await growth.read_back(walk)
        finally:
            await walk.aclose()


async def test_a_write_of_which_two_members_say_different_things_is_seen(tmp_path: Path) -> None:
    async with cluster(KV) as nodes:
        walk = await after_writes(nodes, tmp_path, io.StringIO())
        try:
            walk.writer.begun.append("unknown")
            unknown = len(walk.writer.begun) - len(walk.writer.acknowledged)
            assert f"; of {unknown} more, whose outcome was not learned, all say the same" in await growth.read_back(
                walk
            )
            nodes.machine_of("peer2").entries["unknown"] = "value"
            with pytest.raises(StepFailed, match="the same keys everywhere; seen: others than on peer1: peer2"):
                await growth.read_back(walk)
        finally:
            await walk.aclose()


async def test_a_lost_write_ends_the_demo_in_red(tmp_path: Path) -> None:
    async with cluster(KV) as nodes:
        stream = io.StringIO()
        walk = await after_writes(nodes, tmp_path, stream)
        del nodes.machine_of("peer2").entries["key3"]
        plan = demo.plan_for("memory", is_full=True)
        last = plan._replace(steps=tuple(step for step in plan.steps if step[1] is growth.read_back))
        assert len(last.steps) == 1
        assert await demo.show(Output(stream), walk, last) is False
        assert "Step 1 failed: expected each acknowledged write on peer2; seen: 1 were lost: key3" in stream.getvalue()


def test_a_newcomer_without_a_snapshot_is_seen(tmp_path: Path) -> None:
    session = Session(Address("peer2", "127.0.0.1", 1), "memory", tmp_path)
    (tmp_path / "peer2.log").write_text(
        "… INFO quorate.raft: peer2 [term 2] remote term is higher (2 > 0) -> follower\n"
    )
    with pytest.raises(StepFailed, match="a snapshot installed by peer2"):
        growth.check_installed(session)
    with (tmp_path / "peer2.log").open("a") as log:
        log.write("… INFO quorate.raft: peer2 [term 2] snapshot 20 is beyond our log (0) -> install it\n")
    growth.check_installed(session)


async def test_the_longest_pause_is_that_between_two_acknowledgements() -> None:
    async with cluster(KV, 1) as nodes:
        await nodes.form()
        writer = Writer(nodes.addresses)
        writer.start()
        try:
            while len(writer.acknowledged) < 3:  # noqa: ASYNC110 - the writer tells nobody
                await asyncio.sleep(0.01)
        finally:
            await writer.close()
        assert writer.longest_pause() == max(writer.pauses) > 0
        assert writer.longest_pause(since=len(writer.pauses)) == 0
        assert writer.summary.startswith(f"{len(writer.acknowledged)} writes acknowledged, the longest pause ")
