"""``quorate form``: a group of nodes that run, from outside."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from quorate.cli.form import form as form_here
from quorate.cli.output import Output
from quorate.machines import KV

from .cluster import cluster
from .test_cli_processes import ENVIRONMENT, SECONDS, Running, node_of, status


def form(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quorate", "form", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False, env=ENVIRONMENT)


def test_a_group_is_formed_as_soon_as_its_nodes_are_there_and_once(tmp_path: Path) -> None:
    nodes = [node_of(name, tmp_path / name) for name in ("peer1", "peer2", "peer3")]
    addresses = [address for address, _ in nodes]
    with contextlib.ExitStack() as stack:
        for _, arguments in nodes[:2]:
            stack.enter_context(Running("start", *arguments)).wait_for("is ready")
        forming = stack.enter_context(Running("form", *addresses))
        waiting = forming.wait_for("no node listens there")
        assert f"waiting: every member must answer to form the group; {addresses[2]}: " in waiting
        stack.enter_context(Running("start", *nodes[2][1])).wait_for("is ready")
        forming.wait_for("leads the group of peer1, peer2, peer3")
        assert forming.end()[0] == 0
        again = form(*reversed(addresses))
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.endswith("leads the group of peer3, peer2, peer1\n")
        assert "3 of its 3 members answered" in status(addresses[0]).stdout
        other = form(*addresses[:2])
        assert other.returncode == 1
        assert other.stderr.startswith("quorate form: peer1 already belongs to a group of peer1@127.0.0.1:")


def test_form_says_why_there_is_no_group(tmp_path: Path) -> None:
    address, arguments = node_of("peer1", tmp_path / "data")
    gone = node_of("peer2", tmp_path / "none")[0]
    with Running("start", *arguments) as node:
        node.wait_for("is ready")
        absent = form(address, gone, "--timeout", "1")
        assert absent.returncode == 1
        assert f"quorate form: every member must answer to form the group; {gone}: " in absent.stderr
        twice = form(address, address)
        assert twice.stderr == "quorate form: peer1 is named more than once; each member needs a name of its own\n"
        misspelt = form("peer1")
        assert misspelt.returncode == 2
        assert "'peer1' is not a peer's address; write it as name@host:port" in misspelt.stderr


async def test_any_member_tells_who_leads_when_the_first_does_not_run() -> None:
    async with cluster(KV) as nodes:
        await nodes.form()
        await nodes.stop("peer1")
        assert await form_here(nodes.addresses, SECONDS, None, Output(io.StringIO())) in nodes.addresses[1:]


async def test_a_member_that_hangs_is_named_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped takes connections, and says nothing: of a group that is formed it is not missed."""
    monkeypatch.setattr("quorate.cli.form.TRY_SECONDS", 1.0)
    monkeypatch.setattr("quorate.cli.form.PATIENCE", 0.5)
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        hangs = next(address for address in nodes.addresses if address != leader.address)
        await nodes.stop(hangs.name)
        printed = io.StringIO()
        with socket.create_server((hangs.host, hangs.port)):
            assert await form_here(nodes.addresses, SECONDS, None, Output(printed)) == leader.address
        said = printed.getvalue()
        assert said.startswith("waiting: ")
        assert str(hangs) in said
        assert said.endswith(" not answered yet\n")


async def test_those_who_form_one_group_at_once_all_succeed() -> None:
    async with cluster(KV) as nodes:
        for address in nodes.addresses:
            await nodes.start(address.name)
        forming = [form_here(nodes.addresses, SECONDS, None, Output(io.StringIO())) for _ in range(5)]
        assert set(await asyncio.gather(*forming)) <= set(nodes.addresses)
        assert len({peer.status().configuration for peer in nodes.peers.values()}) == 1
