"""Whoever starts or stops a node or a peer may be cancelled meanwhile: nothing is left half open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from quorate import Node, OutcomeUnknown, Stopped
from quorate.machines import KV
from quorate.store.directory import DataDirectory, open_store
from quorate.transport.tcp import TCPTransport

from .cluster import SETTINGS, cluster


class Held:
    """Holds up what is called in its place, in whichever thread, until it is let go."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        assert self.let_go.wait(30)
        return self.call(*args, **kwargs)


@pytest.mark.parametrize("opens", ["the directory", "the store"])
@pytest.mark.parametrize("engine", ["rocksdb", "lmdb"])
async def test_a_start_that_is_cancelled_lets_go_of_what_it_opens(tmp_path: Path, monkeypatch, opens, engine) -> None:
    pytest.importorskip("lmdb" if engine == "lmdb" else "rocksdict")
    held = Held(DataDirectory.open if opens == "the directory" else open_store)
    with monkeypatch.context() as patch:
        if opens == "the directory":
            patch.setattr("quorate.node.DataDirectory.open", held)
        else:
            patch.setattr("quorate.node.open_store", held)
        node = Node("127.0.0.1:0", data_dir=tmp_path, store=engine, settings=SETTINGS)
        starting = asyncio.create_task(node.start())
        await asyncio.to_thread(held.entered.wait, 30)
        starting.cancel()
        threading.Timer(0.05, held.let_go.set).start()  # The node waits for its thread, and the loop with it.
        with pytest.raises(asyncio.CancelledError):
            await starting
    async with Node("127.0.0.1:0", data_dir=tmp_path, store=engine, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


async def test_a_stop_that_is_cancelled_is_taken_up_by_the_next_one(tmp_path: Path, monkeypatch) -> None:
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    await node.start()
    await node.start_peer(KV, name="peer1")
    stop, entered, let_go = TCPTransport.stop, asyncio.Event(), asyncio.Event()

    async def held(transport: TCPTransport) -> None:
        entered.set()
        await let_go.wait()
        await stop(transport)

    monkeypatch.setattr(TCPTransport, "stop", held)
    stopping = asyncio.create_task(node.stop())
    await entered.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    asyncio.get_running_loop().call_later(0.05, let_go.set)
    await node.stop()
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


async def test_a_peer_whose_stop_is_cancelled_has_stopped_and_may_be_started_again() -> None:
    """It would lead its group on otherwise, and refuse every call."""
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await nodes.leave_alone(leader)
        pending = asyncio.create_task(leader.write(KV.set, "foo", "bar"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(leader.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        with pytest.raises(OutcomeUnknown, match="was stopped"):
            await asyncio.wait_for(pending, 1.0)
        with pytest.raises(Stopped):
            await leader.read(KV.get, "foo")
        await nodes.nodes[leader.name].start_peer(KV, name=leader.name)


async def test_who_stops_a_peer_late_or_once_more_does_not_stop_its_next_life() -> None:
    async with cluster(KV, 1) as nodes:
        peer = await nodes.form()
        node = nodes.nodes["peer1"]
        await asyncio.gather(peer.stop(), peer.stop())
        again = await node.start_peer(KV, name="peer1")
        await peer.stop()
        assert node.peers == (again,)
        await again.leader()
        await again.write(KV.set, "foo", "bar")
