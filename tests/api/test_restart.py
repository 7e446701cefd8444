"""Stopping and starting again: nothing acknowledged is lost, and no directory is taken for another."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quorate import (
    Address,
    Corrupted,
    DiskFull,
    MachineError,
    Node,
    OutcomeUnknown,
    QuorateError,
    Settings,
    StateMachine,
    Stopped,
    StoreError,
    StoreLocked,
    connect,
    read,
    write,
)
from quorate.cli.status import survey
from quorate.machines import KV
from quorate.reopening import Reopened, reopen
from quorate.sessions import MARK
from quorate.store import Batch
from quorate.store.rocksdb import RocksDBStore
from quorate.transport.calls import Failure, Reply, Request, StatusCall, error_from_failure
from quorate.types import Consistency, Index, Kind, Run

from .cluster import SETTINGS, cluster, free_ports


async def test_all_stopped_and_started_again_lose_nothing(tmp_path: Path) -> None:
    """The original loses acknowledged writes by this: its up-to-date check swaps index and term."""
    async with cluster(KV, 3, tmp_path) as nodes:
        leader = await nodes.form()
        for turn in range(3):
            await leader.write(KV.set, f"k{turn}", str(turn))
            for name in list(nodes.peers):
                await nodes.stop(name)
            for address in nodes.addresses:
                await nodes.start(address.name)
            leader = await nodes.leader()
            assert [await leader.read(KV.get, f"k{n}") for n in range(turn + 1)] == [str(n) for n in range(turn + 1)]


async def test_a_peer_that_was_away_catches_up_from_the_leaders_disk(tmp_path: Path) -> None:
    settings = Settings(
        election_timeout_min=0.6,  # A collection of garbage late in a long run of tests may take 0.3 s.
        election_timeout_max=1.2,
        cache_bytes_max=1000,
        append_bytes_max=4000,
        command_bytes_max=4000,
    )
    async with cluster(KV, 3, tmp_path, settings=settings) as nodes:
        leader = await nodes.form()
        away = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(away)
        await asyncio.gather(*(leader.write(KV.set, f"k{n}", "v" * 200) for n in range(200)))
        await nodes.start(away)
        await nodes.converge()
        assert nodes.machine_of(away).entries == nodes.machine_of(leader.name).entries


async def test_stop_is_idempotent_and_answers_what_is_under_way() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        pending = asyncio.gather(*(leader.write(KV.set, f"k{n}", "v") for n in range(20)))
        await asyncio.sleep(0)
        await leader.stop()
        assert await pending == ["v"] * 20
        await leader.stop()
        with pytest.raises(Stopped):
            await leader.read(KV.get, "k0")
        assert repr(leader).startswith(f"<Peer {leader.name} stopped")


@pytest.mark.covers("pitfall 34")
async def test_a_write_under_way_when_no_quorum_is_left_is_unknown_after_stop() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await nodes.leave_alone(leader)
        pending = asyncio.create_task(leader.write(KV.set, "foo", "bar"))
        await asyncio.sleep(0)
        await leader.stop()
        with pytest.raises(OutcomeUnknown, match="was stopped"):
            await pending


async def test_a_data_directory_stays_where_it_was_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As programs do that become daemons."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with Node("127.0.0.1:0", data_dir="data/a") as node:
        peer = await node.start_peer(KV, name="peer1")
        await peer.set_configuration(peer.address)
        await peer.leader()
        monkeypatch.chdir(tmp_path / "there")
        await peer.write(KV.set, "foo", "bar")
        index = await peer.take_snapshot()
        await node.start_peer(KV, name="peer2")
    assert list((tmp_path / "there").iterdir()) == []
    snapshots = tmp_path / "here/data/a/peers/peer1/snapshots"
    assert [file.name.split("-")[0] for file in snapshots.iterdir()] == [str(index)]


def test_an_empty_path_is_no_data_directory() -> None:
    """It would be the current one: an empty variable of a shell is the usual reason."""
    with pytest.raises(ValueError, match="a durable store needs a data_dir of its own"):
        Node("127.0.0.1:0", data_dir="")


async def test_a_data_directory_in_use_is_refused(tmp_path: Path) -> None:
    first, second = free_ports(2)
    async with Node(f"127.0.0.1:{first}", data_dir=tmp_path / "a"):
        with pytest.raises(StoreLocked, match="in use"):
            await Node(f"127.0.0.1:{second}", data_dir=tmp_path / "a").start()


async def test_a_data_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    first, second = free_ports(2)
    async with Node(f"127.0.0.1:{first}", data_dir=tmp_path / "a") as node:
        await node.start_peer(KV, name="peer1")
    async with Node(f"127.0.0.1:{second}", data_dir=tmp_path / "a") as node:
        with pytest.raises(StoreLocked, match=f"belongs to the node at 127.0.0.1:{first} with peer1"):
            await node.start_peer(KV, name="peer2")
        await node.start_peer(KV, name="peer1")  # its node has moved


async def test_a_data_directory_of_another_group_is_refused(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path / "one") as one, cluster(KV, 1, tmp_path / "two") as two:
        await one.form()
        await two.form()
    mixed = tmp_path / "one" / "peer1" / "peers" / "peer1" / "identity"
    shutil.copy(tmp_path / "two" / "peer1" / "peers" / "peer1" / "identity", mixed)
    (port,) = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "one" / "peer1") as node:
        with pytest.raises(Corrupted, match="put together from two"):
            await node.start_peer(KV, name="peer1")


async def test_a_log_without_its_identity_is_refused_and_given_no_new_one(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path) as nodes:
        await nodes.form()
    identity = tmp_path / "peer1" / "peers" / "peer1" / "identity"
    kept = identity.read_bytes()
    identity.unlink()
    (port,) = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "peer1") as node:
        for _ in range(2):
            with pytest.raises(Corrupted, match="identity is damaged: it is missing, and the log of peer1 is not"):
                await node.start_peer(KV, name="peer1")
        assert not identity.exists()
        identity.write_bytes(kept)
        await node.start_peer(KV, name="peer1")


@pytest.mark.parametrize("earlier", [False, True])
async def test_identities_that_changed_places_are_refused(tmp_path: Path, earlier: bool) -> None:
    async with cluster(KV, 3, tmp_path) as nodes:
        await nodes.form()
    one, two = (tmp_path / name / "peers" / name / "identity" for name in ("peer1", "peer2"))
    kept = json.loads(one.read_text())
    # Files of an earlier version name no peer; but the log does.
    two.write_text(json.dumps({"id": kept["id"], "group": kept["group"]} if earlier else kept))
    (port,) = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path / "peer2") as node:
        with pytest.raises(Corrupted, match=r"peer1.*put together from two"):
            await node.start_peer(KV, name="peer2")


class Old(StateMachine):
    """A machine with a command that its successor lacks."""

    @write
    def forgotten(self, number: int) -> int:
        return number


async def written(directory: Path, machine: type[StateMachine], call: Any, number: int, *, in_session: bool) -> Address:
    """Write once in a group of one peer, which has stopped when this returns; give where it was."""
    async with cluster(machine, 1, directory) as nodes:
        leader = await nodes.form()
        address = nodes.address("peer1")
        if in_session:
            async with connect(machine, address) as client:
                await client.write(call, number)
        else:
            await leader.write(call, number)
    return address


@pytest.mark.parametrize("in_session", [False, True])
async def test_a_log_with_commands_that_the_machine_lacks_is_refused(tmp_path: Path, in_session: bool) -> None:
    address = await written(tmp_path, Old, Old.forgotten, 1, in_session=in_session)
    async with Node(address.node, data_dir=tmp_path / "peer1") as node:
        with pytest.raises(MachineError, match="commands that KV does not have: forgotten"):
            await node.start_peer(KV, name="peer1")


async def test_a_log_that_a_later_version_wrote_stops_no_other_peer_of_the_node(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path, settings=SETTINGS) as node:
        for name in ("peer1", "peer2"):
            peer = await node.start_peer(KV, name=name)
            await peer.set_configuration(peer.address)
    with closing(RocksDBStore.open(tmp_path / "store", create=False)) as store:
        stored = store.load("peer1")
        run = Run(stored.hard_state.term, Index(stored.last + 1), Kind.COMMAND, stored.time, (MARK + b"later",))
        store.append([Batch("peer1", None, (run,))])
        store.sync()
    async with Node(f"127.0.0.1:{port}", data_dir=tmp_path, settings=SETTINGS) as node:
        other = await node.start_peer(KV, name="peer2")
        await other.leader()
        with pytest.raises(MachineError, match="the log of peer1 holds what this version of quorate does not know"):
            await node.start_peer(KV, name="peer1")
        assert await other.write(KV.set, "foo", "bar") == "bar"


class Sum(StateMachine):
    """A machine that will be changed."""

    total: int

    def __init__(self) -> None:
        self.total = 0

    @write
    def add(self, number: int) -> int:
        self.total += number
        return self.total

    @read
    def get(self) -> int:
        return self.total


class Unfit(StateMachine):
    """The same with a new parameter that has no default: what the log holds cannot be called."""

    total: int

    def __init__(self) -> None:
        self.total = 0

    @write
    def add(self, number: int, unit: str) -> int:
        self.total += number
        return self.total

    @read
    def get(self) -> int:
        return self.total


@pytest.mark.parametrize("in_session", [False, True])
async def test_a_log_whose_commands_the_machine_cannot_read_stops_the_peer(tmp_path: Path, in_session: bool) -> None:
    """To go on without them would lose what was acknowledged, and part the peer from those of the old program."""
    address = await written(tmp_path, Sum, Sum.add, 7, in_session=in_session)
    async with Node(address.node, data_dir=tmp_path / "peer1") as node:
        unfit = await node.start_peer(Unfit, name="peer1")
        with pytest.raises(Stopped, match=r"this Unfit cannot read: Unfit\.add: .* new ones need a default"):
            _ = [status async for status in unfit.watch_status()]
    async with Node(address.node, data_dir=tmp_path / "peer1") as node:
        again = await node.start_peer(Sum, name="peer1")
        await again.leader()
        assert await again.read(Sum.get) == 7


class Halt(BaseException):
    """No ``Exception``, as what ends a program is none."""


class Fragile(StateMachine):
    """A machine with a bug, and one with a mood."""

    count: int

    def __init__(self) -> None:
        self.count = 0

    @write
    def divide(self, number: int) -> float:
        self.count += 1
        return 1 / number

    @write
    def fill_memory(self) -> None:
        raise MemoryError

    @read
    def counted(self) -> int:
        return self.count

    @read
    def read_a_file(self) -> int:
        raise OSError("no such file")

    @read
    def read_for_ever(self) -> int:
        return self.read_for_ever()

    @read
    def halt(self) -> int:
        raise Halt


async def test_a_command_that_raises_is_answered_and_poisons_nothing(tmp_path: Path) -> None:
    """The original's log is poisoned for ever by one."""
    async with cluster(Fragile, 3, tmp_path) as nodes:
        leader = await nodes.form()
        with pytest.raises(MachineError, match="ZeroDivisionError"):
            await leader.write(Fragile.divide, 0)
        assert await leader.write(Fragile.divide, 2) == 0.5
        assert await leader.read(Fragile.counted) == 2
        for name in list(nodes.peers):
            await nodes.stop(name)
        for address in nodes.addresses:
            await nodes.start(address.name)
        assert await (await nodes.leader()).read(Fragile.counted) == 2


async def test_what_is_not_deterministic_stops_the_peer_and_is_no_reply() -> None:
    async with cluster(Fragile, 1) as nodes:
        leader = await nodes.form()
        with pytest.raises(OutcomeUnknown, match="MemoryError"):
            await leader.write(Fragile.fill_memory)
        with pytest.raises(Stopped, match="MemoryError"):
            await leader.write(Fragile.divide, 1)
        index = leader.status().last_applied + 1
        assert leader.status().why == (
            f"it has stopped: peer1 stopped because of MemoryError: ; Fragile.fill_memory (index {index}) raised it: "
            "mend the program and start it again"
        )
        assert (leader.status().role, leader.status().leader) == ("follower", None), "it leads nobody any longer"
        (group,), _ = await survey([leader.address])
        assert group.leader is None


@pytest.mark.parametrize("consistency", ["linearizable", "lease", "stale"])
async def test_what_ends_one_peer_costs_the_others_of_its_node_nothing(consistency: Consistency) -> None:
    """What they were to write and to answer in that turn was lost."""
    loop = asyncio.get_running_loop()
    ends: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: ends.append(context["exception"]))
    async with Node("127.0.0.1:0", store="memory", settings=SETTINGS) as node:
        peers = [await node.start_peer(Fragile, name=name) for name in "abc"]
        for peer in peers:
            await peer.set_configuration(peer.address)
            await peer.leader()
        first, halting, last = peers
        writes = [asyncio.create_task(first.write(Fragile.divide, 2))]
        reading = asyncio.create_task(halting.with_options(consistency=consistency).read(Fragile.halt))
        writes += [asyncio.create_task(last.write(Fragile.divide, 4))]
        assert await asyncio.gather(*writes) == [0.5, 0.25]
        with pytest.raises(QuorateError, match="b stopped because of Halt"):
            await reading
        assert [type(error) for error in ends] == [Halt], "whoever runs the loop is told of it too"
        assert [await first.write(Fragile.divide, 2), await last.write(Fragile.divide, 2)] == [0.5, 0.5]
    loop.set_exception_handler(None)


@pytest.mark.parametrize("consistency", ["linearizable", "lease", "stale"])
async def test_a_read_that_fails_stops_no_peer(consistency: Consistency) -> None:
    """Its caller would ask the next peer, and the next one: one bad read would stop the group."""
    async with cluster(Fragile, 3) as nodes:
        await nodes.form()
        async with connect(Fragile, *nodes.addresses) as client:
            asking = client.with_options(consistency=consistency)
            for bad, why in ((Fragile.read_a_file, "OSError: no such file"), (Fragile.read_for_ever, "RecursionError")):
                with pytest.raises(MachineError, match=why):
                    await asking.read(bad)
            assert [status.why for status in await client.status()] == [None] * 3
            assert await client.write(Fragile.divide, 2) == 0.5


async def test_cancelling_a_call_shifts_no_later_reply() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        async with connect(KV, leader.address) as kv:
            for number in range(30):
                cancelled = asyncio.create_task(kv.write(KV.set, "cancelled", str(number)))
                await asyncio.sleep(0 if number % 2 else 0.001)
                cancelled.cancel()
                assert await kv.write(KV.set, "kept", str(number)) == str(number)
                assert await kv.read(KV.get, "kept") == str(number)


async def test_arguments_are_checked_before_anything_is_sent() -> None:
    async with cluster(KV, 1) as nodes:
        leader = await nodes.form()
        before = leader.status().last_index
        with pytest.raises(TypeError):
            await leader.write(KV.set, "foo", 7)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await leader.write(KV.get, "foo")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="command_bytes_max"):
            await leader.write(KV.set, "foo", "x" * (SETTINGS.command_bytes_max + 1))
        with pytest.raises(ValueError, match="timeout"):
            leader.with_options(timeout=0)
        assert leader.status().last_index == before


async def test_a_disk_that_fails_stops_the_peers_and_the_others_go_on(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path) as nodes:
        leader = await nodes.form()
        store = nodes.nodes[leader.name]._disk._store  # type: ignore[union-attr]

        def fail() -> None:
            raise StoreError("fdatasync: input/output error")

        store.sync = fail  # type: ignore[method-assign]

        async def write_on() -> None:
            while True:  # The two others may have a write, and so commit it, before this disk says no.
                await leader.write(KV.set, "foo", "bar")

        with pytest.raises((OutcomeUnknown, Stopped), match="input/output error"):
            await asyncio.wait_for(write_on(), 10)
        with pytest.raises(QuorateError):
            await leader.write(KV.set, "foo", "bar")
        others = {name: peer for name, peer in nodes.peers.items() if name != leader.name}
        first = next(iter(others.values()))
        successor = others[(await first.leader(other_than=leader.address)).name]
        async with connect(KV, successor.address) as kv:
            assert await kv.write(KV.set, "foo", "baz") == "baz"


@pytest.mark.covers("pitfall 73")
@pytest.mark.parametrize("step", ["append", "sync"])
@pytest.mark.parametrize("good", [0, 1, 2])
async def test_a_full_disk_ends_a_leadership_and_nothing_else(tmp_path: Path, step: str, good: int) -> None:
    """Neither is it passed over, nor is the peer stuck for good: it stops, another leads, with room it catches up."""
    async with cluster(KV, 3, tmp_path) as nodes:
        leader = await nodes.form()
        silent = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(silent)  # So that this disk counts: two others might commit a write before it says no.
        store = nodes.nodes[leader.name]._disk._store  # type: ignore[union-attr]
        usual, left = getattr(store, step), good

        def fill_up(*arguments: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise DiskFull("the disk is full; free some room and start again")
            usual(*arguments)

        setattr(store, step, fill_up)
        acknowledged: list[str] = []

        async def go_on() -> None:
            for n in range(100):
                await leader.write(KV.set, f"k{n}", "x")
                acknowledged.append(f"k{n}")

        with pytest.raises(QuorateError, match="free some room and start again"):
            await go_on()
        assert len(acknowledged) <= good
        with pytest.raises(Stopped, match="free some room and start again"):
            await leader.write(KV.set, "foo", "bar")
        await nodes.stop(leader.name)
        await nodes.start(silent)
        successor = await nodes.leader()
        await successor.write(KV.set, "foo", "baz")
        again = await nodes.start(leader.name)  # There is room: what opens the store finds what was acknowledged.
        await nodes.converge()
        assert [await again.read(KV.get, key) for key in (*acknowledged, "foo")] == ["x"] * len(acknowledged) + ["baz"]


async def test_what_is_asked_of_a_node_while_it_stops_is_told_so() -> None:
    """Its connections close a moment later than it does: what they bring in between was an error in the log."""
    node = Node("127.0.0.1:0", store="memory", settings=SETTINGS)
    await node.start()
    await node.start_peer(KV, name="peer1")
    await node.stop()
    replies: list[Reply] = []
    node.receive_requests([Request(7, "peer1", StatusCall()), Request(8, "", StatusCall())], replies.append)
    assert [reply.id for reply in replies] == [7, 8]
    for reply in replies:
        assert isinstance(reply.answer, Failure)
        with pytest.raises(Stopped, match="the node was stopped"):
            raise error_from_failure(reply.answer)


async def test_a_peer_that_starts_while_its_node_stops_is_told_so_and_is_not_left_behind(monkeypatch) -> None:
    node = Node("127.0.0.1:0", store="memory", settings=SETTINGS)
    await node.start()

    async def reopen_as_the_node_stops(*args: Any) -> Reopened:
        opened = await reopen(*args)
        await node.stop()
        return opened

    with monkeypatch.context() as patch:
        patch.setattr("quorate.node.reopen", reopen_as_the_node_stops)
        with pytest.raises(Stopped, match="stopped meanwhile"):
            await node.start_peer(KV, name="peer1")
    assert node.peers == ()
    async with node:
        await node.start_peer(KV, name="peer1")
