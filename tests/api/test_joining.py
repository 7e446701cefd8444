"""Joining: one address of any member is enough; restarts, elections and refusals on the way."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from quorate import InvalidConfiguration, Node, Settings, StateMachine, Stopped, Unavailable, write
from quorate.machines import KV, Stack

from .cluster import SETTINGS, cluster, free_ports
from .virtual import DELAY, World, run_world

QUICK = msgspec.structs.replace(SETTINGS, catch_up_timeout=0.8, change_timeout=10.0)
HASTY = msgspec.structs.replace(QUICK, change_timeout=1.0)


class Early:
    class Ledger(StateMachine):
        total: int = 0

        @write
        def add(self, amount: int) -> int:
            self.total += amount
            return self.total


class Later:
    class Ledger(StateMachine):
        total: int = 0
        takings: int = 0

        @write
        def add(self, amount: int, times: int = 1) -> int:
            self.total += amount * times
            return self.total

        @write
        def take(self, amount: int) -> int:
            self.total -= amount
            self.takings += 1
            return self.total


class Slow(Early.Ledger):
    """Is restored when it may be."""

    may_go_on: ClassVar[threading.Event] = threading.Event()

    def snapshot(self) -> Iterable[bytes]:
        return [str(self.total).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.may_go_on.wait(30)
        (chunk,) = chunks
        self.total = int(chunk)


async def test_from_one_to_three_by_one_address_each() -> None:
    async with cluster(KV, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await one.leader()
        await one.write(KV.set, "foo", "bar")
        two = await nodes.start("peer2", join=str(one.address))
        assert [m.kind for m in two.status().members] == ["voter", "voter"]
        three = await nodes.start("peer3", join=[two.address, nodes.address("peer3")])
        assert len(three.status().configuration) == 3
        await nodes.converge()
        assert nodes.machine_of("peer3").entries == {"foo": "bar"}


async def test_as_a_learner_it_stays_one() -> None:
    async with cluster(KV, 2, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        two = await nodes.start("peer2", join=one.address, kind="learner")
        assert [(m.kind, m.becomes) for m in two.status().members] == [("voter", "voter"), ("learner", "learner")]


async def test_all_can_be_started_before_the_group_is_formed() -> None:
    async with cluster(KV, 2, settings=QUICK) as nodes:
        joining = asyncio.create_task(nodes.start("peer2", join=nodes.address("peer1")))
        await asyncio.sleep(0.05)
        one = await nodes.start("peer1")
        await asyncio.sleep(0.05)
        assert not joining.done()
        await one.set_configuration(one.address)
        assert (await joining).status().group == one.status().group


async def test_five_that_join_at_once_all_become_members() -> None:
    async with cluster(KV, 5, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await asyncio.gather(*(nodes.start(f"peer{n}", join=one.address) for n in (2, 3, 4, 5)))
        assert len((await nodes.leader()).status().configuration) == 5


async def test_it_works_while_the_leader_goes() -> None:
    async with cluster(KV, 4, settings=QUICK) as nodes:
        for name in ("peer1", "peer2", "peer3"):
            await nodes.start(name)
        await nodes.peers["peer1"].set_configuration(*nodes.addresses[:3])
        leader = await nodes.leader()
        seeds = [address for address in nodes.addresses[:3] if address != leader.address]
        joining = asyncio.create_task(nodes.start("peer4", join=seeds))
        while not (leader.status().members[-1].address.name == "peer4" or joining.done()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await nodes.stop(leader.name)
        four = await joining
        assert nodes.address("peer4") in four.status().configuration
        await (await nodes.leader()).write(KV.set, "foo", "bar")


async def test_a_restart_asks_nobody_once_it_is_a_member(tmp_path: Path) -> None:
    async with cluster(KV, 2, tmp_path, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        two = await nodes.start("peer2", join=one.address)
        index = two.status().last_index
        await nodes.stop("peer2")
        (nowhere,) = free_ports(1)
        again = await nodes.start("peer2", join=f"peer1@127.0.0.1:{nowhere}")
        assert again.status().last_index >= index
        await (await nodes.leader()).write(KV.set, "foo", "bar")


async def test_a_restart_in_the_middle_goes_on(tmp_path: Path) -> None:
    async with cluster(KV, 2, tmp_path, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await one.leader()
        joining = asyncio.create_task(nodes.start("peer2", join=one.address))
        while len(one.status().members) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        assert nodes.nodes["peer2"].peers == (), "one that could not join is stopped again"
        two = await nodes.nodes["peer2"].start_peer(KV, name="peer2", join=one.address)
        nodes.peers["peer2"] = two
        assert [m.kind for m in two.status().members] == ["voter", "voter"]
        await nodes.converge()


async def test_a_peer_that_was_removed_may_join_again(tmp_path: Path) -> None:
    async with cluster(KV, 2, tmp_path, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        two = await nodes.start("peer2", join=one.address)
        await one.remove_peer("peer2")
        async with asyncio.timeout(5):
            while "removed" not in (two.status().why or ""):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await nodes.stop("peer2")
        two = await nodes.start("peer2", join=one.address)
        assert [m.kind for m in two.status().members] == ["voter", "voter"]


@pytest.mark.covers("pitfall 76")
async def test_a_name_in_use_is_refused_also_to_a_disk_that_was_wiped(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await nodes.start("peer2", join=one.address)
        await nodes.start("peer3", join=one.address)  # Of two, one alone would soon lead no longer.
        await nodes.stop("peer2")
        shutil.rmtree(tmp_path / "peer2")
        with pytest.raises(InvalidConfiguration, match=r"the name peer2 is in use .* remove_peer\('peer2'\)"):
            await nodes.start("peer2", join=one.address)
        assert nodes.nodes["peer2"].peers == ()


async def test_the_wrong_group_is_refused(tmp_path: Path) -> None:
    async with cluster(KV, 2, tmp_path / "a", settings=QUICK) as nodes, cluster(KV, 1, settings=QUICK) as other:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        stranger = await other.start("peer1")
        await stranger.set_configuration(stranger.address)
        two = await nodes.start("peer2", join=one.address)
        await one.remove_peer("peer2")
        group = two.status().group
        await nodes.stop("peer2")
        with pytest.raises(InvalidConfiguration, match=rf"peer2 belongs to group {group}, and peer1@.* leads group"):
            await nodes.start("peer2", join=stranger.address)


async def test_another_machine_is_refused() -> None:
    async with cluster(KV, 1, settings=QUICK) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        async with Node("127.0.0.1:0", store="memory", settings=QUICK) as node:
            with pytest.raises(InvalidConfiguration, match=r"peer2 runs Stack, and the group of peer1@.* runs KV"):
                await node.start_peer(Stack, name="peer2", join=one.address)


async def test_without_anybody_there_it_says_who_was_asked() -> None:
    (port,) = free_ports(1)
    async with Node("127.0.0.1:0", store="memory", settings=HASTY) as node:
        with pytest.raises(Unavailable, match=rf"peer1@127.0.0.1:{port}: .*refuses the connection"):
            await node.start_peer(KV, name="peer2", join=f"peer1@127.0.0.1:{port}")
        assert node.peers == ()


async def test_what_cannot_be_joined_is_refused_before_anything_is_started() -> None:
    async with Node("127.0.0.1:0", store="memory", settings=QUICK) as node:
        nobodies: tuple[list[str] | str, ...] = ([], "peer1@127.0.0.1:7001")
        for nobody in nobodies:
            with pytest.raises(ValueError, match="join needs the address of a member"):
                await node.start_peer(KV, name="peer1", join=nobody)
        with pytest.raises(ValueError, match="name@host:port"):
            await node.start_peer(KV, name="peer1", join="127.0.0.1:7001")
        assert node.peers == ()


async def test_a_kind_that_there_is_not_is_refused_before_anything_is_started() -> None:
    async with Node("127.0.0.1:0", store="memory") as node:
        with pytest.raises(ValueError, match="'boss' is no kind of member; there are voter, learner, witness"):
            await node.start_peer(KV, name="peer1", kind="boss")  # type: ignore[arg-type]
        assert node.peers == ()


async def test_stopping_the_node_ends_a_join() -> None:
    (port,) = free_ports(1)
    node = Node("127.0.0.1:0", store="memory", settings=QUICK)
    await node.start()
    joining = asyncio.create_task(node.start_peer(KV, name="peer2", join=f"peer1@127.0.0.1:{port}"))
    await asyncio.sleep(0.1)
    await node.stop()
    with pytest.raises(Stopped, match=r"stopped|stopping"):
        await joining


@pytest.mark.parametrize("found", ["a command", "an argument", "an attribute"])
@pytest.mark.parametrize("is_added", [False, True])
async def test_one_with_an_older_program_gets_no_vote_and_the_group_goes_on(found: str, is_added: bool) -> None:
    """Of one voter two would be made: were the second to stop at what it cannot read, nobody could ever lead again."""
    settings = msgspec.structs.replace(QUICK, trailing_entries=0)
    program: type[Any] = Later.Ledger
    async with cluster(program, 2, settings=settings) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await one.leader()
        total = await (one.write(Later.Ledger.add, 1, 2) if found == "an argument" else one.write(Later.Ledger.take, 1))
        if found == "an attribute":
            await one.take_snapshot()
        nodes.machine = Early.Ledger
        why = "takings" if found == "an attribute" else "Start the peer with the program that it had"
        if is_added:
            two = await nodes.start("peer2")
            given_up = r"peer2 at .* has (not answered|taken nothing) for 0.8 s; .*the members are as they"
            with pytest.raises(Unavailable, match=given_up):
                await one.add_peer(two.address)
            assert why in str(two.status().why)
        else:
            with pytest.raises(Stopped, match=why):
                await nodes.start("peer2", join=one.address)
        while len(one.status().members) > 1:  # noqa: ASYNC110 - who is silent for long is given up
            await asyncio.sleep(0.05)
        assert await one.write(Later.Ledger.add, 1) == total + 1


async def test_one_that_applies_for_long_is_waited_for_and_gets_its_vote_when_it_is_done() -> None:
    """Its machine is made from a snapshot for longer than one that takes nothing is waited for."""
    async with cluster(Slow, 2, settings=msgspec.structs.replace(QUICK, trailing_entries=0)) as nodes:
        one = await nodes.start("peer1")
        await one.set_configuration(one.address)
        await one.leader()
        await one.write(Slow.add, 1)
        await one.take_snapshot()
        joining = asyncio.create_task(nodes.start("peer2", join=one.address))
        while len(one.status().members) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(2 * QUICK.catch_up_timeout)
        assert [member.kind for member in one.status().members] == ["voter", "learner"]
        assert await one.write(Slow.add, 1) == 2
        Slow.may_go_on.set()
        await joining
        assert [member.kind for member in one.status().members] == ["voter", "voter"]


def test_a_newcomer_is_taken_in_though_others_write_all_the_time():
    """Whenever it acknowledges something, what came with that has yet to be applied."""

    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c", nodes=3)
        newcomer = await world.nodes[3].start_peer(KV, name="d")
        adding = asyncio.create_task(leader.with_options(timeout=5.0).add_peer(newcomer.address))

        async def write_on(key: str, pause: float) -> None:
            await asyncio.sleep(pause)
            while not adding.done():
                await leader.write(KV.set, key, "v")

        await asyncio.gather(*(write_on(f"k{number}", number * 1.3 * DELAY) for number in range(3)))
        await adding
        assert "d" in [address.name for address in leader.status().configuration]

    run_world(4, Settings(), tell)
