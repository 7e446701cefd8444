"""Whoever starts or stops a node or a peer may be cancelled meanwhile, or not be alone: nothing is left half open."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from quorate import Node, OutcomeUnknown, Settings, StateMachine, Stopped, connect, write
from quorate.machines import KV
from quorate.replies import ReplyType
from quorate.seat import Seat
from quorate.store.directory import DataDirectory
from quorate.store.disk import Disk
from quorate.store.engines import open_store
from quorate.store.files import replacing
from quorate.store.rocksdb import RocksDBStore
from quorate.transport.tcp import TCPTransport
from quorate.waiters import FutureWaiter

from .cluster import SETTINGS, cluster, free_ports
from .virtual import World, run_world


class Held:
    """Holds up what is called in its place, in whichever thread, until it is let go."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.gave_up = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        self.gave_up = not self.let_go.wait(10)
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
        asyncio.get_running_loop().call_later(0.05, held.let_go.set)  # The node waits for its thread; the loop goes on.
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert not held.gave_up, "the loop stood still"
    async with Node("127.0.0.1:0", data_dir=tmp_path, store=engine, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


@pytest.mark.parametrize("steps", range(8))
async def test_a_start_that_is_cancelled_as_it_begins_to_listen_leaves_its_port_free(steps: int) -> None:
    (port,) = free_ports(1)
    node = Node(f"127.0.0.1:{port}", store="memory")
    starting = asyncio.create_task(node.start())
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await node.stop()  # It had started, if it took fewer steps than that.
    async with Node(f"127.0.0.1:{port}", store="memory"):
        pass


@pytest.mark.parametrize("opens", ["the directory", "the store"])
async def test_a_start_during_which_the_node_is_stopped_says_so_and_leaves_nothing_open(tmp_path, monkeypatch, opens):
    held = Held(DataDirectory.open if opens == "the directory" else open_store)
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    with monkeypatch.context() as patch:
        name = "DataDirectory.open" if opens == "the directory" else "open_store"
        patch.setattr(f"quorate.node.{name}", held)
        starting = asyncio.create_task(node.start())
        await asyncio.to_thread(held.entered.wait, 30)
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        threading.Timer(0.05, held.let_go.set).start()  # The loop may wait for its thread.
        await stopping
        with pytest.raises(Stopped, match="was stopped while it started"):
            await starting
    assert "stopped" in repr(node)
    with pytest.raises(Stopped):
        await node.start_peer(KV, name="peer1")
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


async def test_who_starts_a_node_that_starts_already_waits_for_that(tmp_path: Path, monkeypatch) -> None:
    held = Held(DataDirectory.open)
    monkeypatch.setattr("quorate.node.DataDirectory.open", held)
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    first = asyncio.create_task(node.start())
    await asyncio.to_thread(held.entered.wait, 30)
    second = asyncio.create_task(node.start())
    await asyncio.sleep(0)
    with pytest.raises(Stopped, match="is not running"):
        await node.start_peer(KV, name="peer1")
    assert not second.done()
    held.let_go.set()
    await second
    await node.start_peer(KV, name="peer1")
    await first
    await node.stop()


async def test_who_starts_a_node_whose_start_is_cancelled_starts_it(tmp_path: Path, monkeypatch) -> None:
    held = Held(DataDirectory.open)
    monkeypatch.setattr("quorate.node.DataDirectory.open", held)
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    first = asyncio.create_task(node.start())
    await asyncio.to_thread(held.entered.wait, 30)
    second = asyncio.create_task(node.start())
    await asyncio.sleep(0)
    first.cancel()
    threading.Timer(0.05, held.let_go.set).start()  # The node waits for its thread, and the loop with it.
    await second
    await node.start_peer(KV, name="peer1")
    await node.stop()


async def test_a_stop_ends_every_start_that_was_called_before_it(tmp_path: Path, monkeypatch) -> None:
    """The second start must not open what the first one has let go of."""
    held = Held(DataDirectory.open)
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("quorate.node.DataDirectory.open", held)
        starts = [asyncio.create_task(node.start())]
        await asyncio.to_thread(held.entered.wait, 30)
        starts.append(asyncio.create_task(node.start()))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(0)
        threading.Timer(0.05, held.let_go.set).start()  # The loop may wait for its thread.
        await stopping
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS):
        pass
    ends = await asyncio.gather(*starts, return_exceptions=True)
    assert [str(end) for end in ends] == ["the node was stopped while it started"] * 2


async def test_a_node_whose_stop_is_cancelled_has_no_peer_that_goes_on(monkeypatch) -> None:
    async with cluster(KV, 1) as nodes:
        peer = await nodes.form()
        node = nodes.nodes["peer1"]
        other = await node.start_peer(KV, name="other")
        await other.set_configuration(other.address)
        await other.leader()
        entered = asyncio.Event()

        async def close(seat: Seat, patience: float) -> None:
            entered.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(Seat, "close", close)
            stopping = asyncio.create_task(node.stop())
            await entered.wait()
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
        for each in (peer, other):
            with pytest.raises(Stopped):
                await each.write(KV.set, "foo", "bar")
        assert "stopped" in repr(node)
        async with Node(peer.address.node, store="memory", settings=SETTINGS):
            pass  # Its port is free.


@pytest.mark.parametrize(("keeper", "step"), [(RocksDBStore, "load"), (DataDirectory, "identity")])
async def test_a_peer_that_is_started_while_its_node_stops_says_that_the_node_was_stopped(
    tmp_path: Path, monkeypatch, keeper: type, step: str
) -> None:
    """From the first step on the others come too late for the threads of the node, from the second on in time."""
    held, stop, stops = Held(getattr(keeper, step)), Disk.stop, asyncio.Event()

    async def noted(disk: Disk) -> None:
        stops.set()
        await stop(disk)

    monkeypatch.setattr(Disk, "stop", noted)
    monkeypatch.setattr(keeper, step, lambda *arguments, **options: held(*arguments, **options))
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    await node.start()
    starting = asyncio.create_task(node.start_peer(KV, name="peer1"))
    await asyncio.to_thread(held.entered.wait, 30)
    stopping = asyncio.create_task(node.stop())
    await stops.wait()
    held.let_go.set()
    with pytest.raises(Stopped, match="peer1 was not started: the node was stopped meanwhile"):
        await starting
    await stopping


def test_a_node_stops_its_peers_together():
    """Each of them may have to wait for a quorum that is not there."""

    async def tell(world: World) -> None:
        groups = [await world.form(KV, f"a{number}", f"b{number}") for number in range(5)]
        node = world.nodes[world.place(groups[0][0])]
        leaders = [leader for leader, *_ in groups if leader in node.peers]
        assert len(leaders) > 1
        world.network.isolate(node.address)
        writes = [asyncio.create_task(leader.write(KV.set, "foo", "bar")) for leader in leaders]
        await asyncio.sleep(0)
        before = world.loop.time()
        await node.stop()
        assert world.loop.time() - before < 2 * world.settings.election_timeout_max
        assert {type(error) for error in await asyncio.gather(*writes, return_exceptions=True)} == {OutcomeUnknown}

    run_world(2, Settings(), tell)


def hold_stops(monkeypatch: pytest.MonkeyPatch, *, first_alone: bool = False) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold nodes, or the first of them alone, as they stop; give what tells that, and what lets them go on."""
    stop, entered, let_go = TCPTransport.stop, asyncio.Event(), asyncio.Event()

    async def held(transport: TCPTransport) -> None:
        if not (first_alone and entered.is_set()):
            entered.set()
            await let_go.wait()
        await stop(transport)

    monkeypatch.setattr(TCPTransport, "stop", held)
    return entered, let_go


async def test_a_disk_that_is_slow_with_a_snapshot_holds_up_the_stop_of_its_node_and_not_the_loop(
    tmp_path: Path, monkeypatch
) -> None:
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as node:
        peer = await node.start_peer(KV, name="peer1")
        await peer.set_configuration(peer.address)
        await peer.write(KV.set, "foo", "bar")
        held = Held(replacing)
        monkeypatch.setattr("quorate.store.snapshots.replacing", held)
        taking = asyncio.create_task(peer.take_snapshot())
        await asyncio.to_thread(held.entered.wait, 30)
        asyncio.get_running_loop().call_later(1.0, held.let_go.set)
        await node.stop()
        with pytest.raises(Stopped):
            await taking
    assert held.let_go.is_set(), "it was stopped while its disk was still at it"
    assert not held.gave_up, "the loop stood still"
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


async def test_a_stop_that_is_cancelled_is_taken_up_by_the_next_one(tmp_path: Path, monkeypatch) -> None:
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    await node.start()
    await node.start_peer(KV, name="peer1")
    entered, let_go = hold_stops(monkeypatch)
    stopping = asyncio.create_task(node.stop())
    await entered.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    asyncio.get_running_loop().call_later(0.05, let_go.set)
    await node.stop()
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


async def all_closed(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task is left that was not there before."""
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks() - before) > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("verb", ["start", "stop"])
async def test_a_node_comes_to_its_end_though_nobody_waits_for_it_or_stops_it_again(tmp_path, monkeypatch, verb):
    """As where ``async with`` is left by whoever is cancelled once more: nobody is left who could call it."""
    before = asyncio.all_tasks()
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    entered, let_go = hold_stops(monkeypatch)
    held = Held(open_store)
    with monkeypatch.context() as patch:
        if verb == "start":
            patch.setattr("quorate.node.open_store", held)
            ending = asyncio.create_task(node.start())
            await asyncio.to_thread(held.entered.wait, 30)
            ending.cancel()
        else:
            await node.start()
            await node.start_peer(KV, name="peer1")
            ending = asyncio.create_task(node.stop())
        await entered.wait()
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        held.let_go.set()
    let_go.set()
    await all_closed(before)
    async with Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS) as again:
        await again.start_peer(KV, name="peer1")


@pytest.mark.parametrize("times", [1, 3])
async def test_a_client_that_is_cancelled_as_it_closes_closes_all_its_connections(times: int) -> None:
    """Once, or again and again as long as it waits for anything."""
    async with cluster(KV) as nodes:
        await nodes.form()
        kv = connect(KV, *nodes.addresses)
        await kv.status()
        before = asyncio.all_tasks()
        transport = kv._following._links._transport
        assert isinstance(transport, TCPTransport)
        assert transport.connections_open == len(nodes.addresses)
        closing = asyncio.create_task(kv.close())
        for _ in range(times):
            await asyncio.sleep(0)
            closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await all_closed(before)
        assert transport.connections_open == 0


async def test_a_stop_that_is_overtaken_by_a_start_leaves_the_new_disk_alone(tmp_path: Path, monkeypatch) -> None:
    """The start ends what the stop is at, and goes on; what the stop does then must be of before."""
    node = Node("127.0.0.1:0", data_dir=tmp_path, settings=SETTINGS)
    await node.start()
    entered, let_go = hold_stops(monkeypatch, first_alone=True)
    stopping = asyncio.create_task(node.stop())
    await entered.wait()
    await node.start()
    let_go.set()
    await stopping
    peer = await node.start_peer(KV, name="peer1")
    await peer.set_configuration(peer.address)
    await peer.write(KV.set, "foo", "bar")
    await node.stop()


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


class Counted(StateMachine):
    counts: list[int]

    def __init__(self) -> None:
        self.counts = []

    @write
    def count(self) -> list[int]:
        self.counts.append(len(self.counts))
        return self.counts


async def test_a_write_that_ctrl_c_cancels_as_it_is_answered_stops_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """``asyncio.run`` cancels its main task in the signal's handler: between any two steps of whatever runs then."""
    detach = ReplyType.detach
    async with cluster(Counted, 1) as nodes:
        peer = await nodes.form()
        writing = asyncio.create_task(peer.write(Counted.count))

        def interrupted(kind: ReplyType, reply: object) -> object:
            writing.cancel()
            return detach(kind, reply)

        with monkeypatch.context() as patch:
            patch.setattr(ReplyType, "detach", interrupted)
            with pytest.raises(asyncio.CancelledError):
                await writing
        assert await peer.write(Counted.count) == [0, 1]


class Interrupted(asyncio.Future[Any]):
    """Is cancelled as soon as somebody has looked whether it is done."""

    def done(self) -> bool:
        is_done = super().done()
        self.cancel()
        return is_done


async def test_who_is_cancelled_while_an_answer_is_given_troubles_nobody() -> None:
    answered, refused = Interrupted(), Interrupted()
    FutureWaiter(answered, 9.0).succeed("bar")
    FutureWaiter(refused, 9.0).fail(Stopped("peer1 was stopped"))
    assert answered.cancelled()
    assert refused.cancelled() or isinstance(refused.exception(), Stopped)
