"""A client speaks to one group, and never to another one that is met at an address of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from quorate import Address, Node, Peer, Settings, Unavailable, connect
from quorate.belonging import Belonging
from quorate.machines import KV
from quorate.transport import Channel
from quorate.transport.calls import Reply, StatusCall, StatusIs
from quorate.types import Status
from tests.api.cluster import SETTINGS
from tests.api.test_following import client_of
from tests.api.virtual import World, run_world


async def stranger(world: World, peer: Peer[KV]) -> Peer[KV]:
    """Start a peer anew without its disk, alone, as a program does that forms a group where it finds none."""
    node = world.nodes[world.place(peer)]
    await node.stop()
    await node.start()
    fresh = await node.start_peer(KV, name=peer.name)
    await fresh.set_configuration(fresh.address)
    await fresh.write(KV.set, "foo", "strange")
    return fresh


def test_a_client_that_runs_does_not_move_to_another_group() -> None:
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        async with client_of(world, *(peer.address for peer in (leader, *followers))) as kv:
            assert await kv.write(KV.set, "foo", "ours") == "ours"
            other = await stranger(world, leader)
            await world.until(lambda: any(peer.status().role == "leader" for peer in followers))
            assert await kv.write(KV.append, "foo", "!") == "ours!"
            for node in [world.nodes[world.place(peer)] for peer in followers]:
                await node.stop()
            refused = f"{leader.name} .*belongs to group .*, and this client speaks to"
            for call in (kv.write(KV.set, "foo", "lost"), kv.read(KV.get, "foo"), kv.read_stale(KV.get, "foo")):
                with pytest.raises(Unavailable, match=refused):
                    await call
            assert [status.group for status in await kv.status()] == [other.status().group], "this looks at all"
            assert await other.read(KV.get, "foo") == "strange"

    run_world(3, Settings(), tell)


def test_a_new_client_does_not_take_a_lone_stranger_for_the_group_of_all_it_was_told() -> None:
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "foo", "ours")
        other = await stranger(world, leader)
        await world.until(lambda: any(peer.status().role == "leader" for peer in followers))
        async with client_of(world, other.address, *(peer.address for peer in followers)) as kv:
            assert await kv.read(KV.get, "foo") == "ours"
        async with client_of(world, other.address, follow=False) as kv:
            assert await kv.read(KV.get, "foo") == "strange", "told of it alone"
        async with client_of(world, other.address, followers[0].address, follow=False) as kv:
            groups = rf"{other.address} belongs to group \w+, and {followers[0].address} to group \w+: call the members"
            with pytest.raises(Unavailable, match=groups):
                await kv.read(KV.get, "foo")

    run_world(3, Settings(), tell)


def test_addresses_of_no_member_that_do_not_answer_do_no_harm() -> None:
    async def tell(world: World) -> None:
        leader = (await world.form(KV, "a", nodes=1))[0]
        idle = await world.nodes[1].start_peer(KV, name="b")
        hung, gone = Address("c", "10.0.0.3", 7000), Address("d", "10.0.0.9", 7000)
        world.network.isolate(hung.node)
        async with client_of(world, leader.address, idle.address, hung, gone) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
            assert kv._following._belonging.group == leader.status().group

    run_world(3, Settings(), tell)


def test_one_peer_is_asked_once_for_all_calls_on_a_connection() -> None:
    async def tell(world: World) -> None:
        leader = (await world.form(KV, "a"))[0]
        asked: Counter[str] = Counter()
        node = world.nodes[0]
        real = node.receive_requests

        def count(requests, answer) -> None:
            asked.update(type(request.call).__name__ for request in requests)
            real(requests, answer)

        node.receive_requests = count
        async with client_of(world, leader.address) as kv:
            kv._following.learn_at = float("inf")  # It asks nobody who the members are.
            await asyncio.gather(*(kv.read(KV.get, "foo", "") for _ in range(100)), return_exceptions=True)
            await asyncio.gather(*(kv.write(KV.set, "foo", "bar") for _ in range(100)))
            assert asked[StatusCall.__name__] == 1

    run_world(1, Settings(), tell)


def test_a_peer_that_joins_a_group_later_is_asked_again() -> None:
    async def tell(world: World) -> None:
        peer = await world.nodes[0].start_peer(KV, name="a")
        async with client_of(world, peer.address) as kv:
            writing = asyncio.create_task(kv.write(KV.set, "foo", "bar"))
            await asyncio.sleep(1.0)
            assert kv._following._belonging.group == ""
            await peer.set_configuration(peer.address)
            assert await writing == "bar"
            assert kv._following._belonging.group == peer.status().group

    run_world(1, Settings(), tell)


class Lost:
    """A channel whose connection breaks while a peer is asked."""

    def post(self, *_: object) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.set_exception(ConnectionError("reset"))
        return future


async def test_a_connection_that_breaks_while_the_peer_is_asked_has_carried_no_call() -> None:
    a = Address("a", "10.0.0.1", 1)

    async def never(_: object) -> Channel:
        raise AssertionError("nobody else is asked")

    with pytest.raises(Unavailable, match=r"a@10\.0\.0\.1:1 was lost: reset"):
        await Belonging().check(a, cast(Channel, Lost()), [a], never, 0.0)


class Telling:
    """A channel to a peer that says at once how it stands."""

    def __init__(self, status: Status) -> None:
        self.reply = Reply(1, StatusIs((status,)))

    def post(self, *_: object) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.set_result(self.reply)
        return future


async def test_one_that_hangs_leaves_time_for_the_call_to_the_one_that_answers() -> None:
    async def hang(_: object) -> Channel:
        return await asyncio.get_running_loop().create_future()

    async with Node("127.0.0.1:0", store="memory") as node:
        peer = await node.start_peer(KV, name="peer1")
        await peer.set_configuration(peer.address)
        own, replaced = peer.address, Address("old", "10.0.0.1", 1)
        belonging, channel = Belonging(), cast(Channel, Telling(peer.status()))
        deadline = asyncio.get_running_loop().time() + 0.5
        async with asyncio.timeout_at(deadline):
            await belonging.check(own, channel, [own, replaced], hang, deadline)
        assert belonging.group == peer.status().group


async def test_a_local_socket_that_leads_to_another_group_is_noticed() -> None:
    with tempfile.TemporaryDirectory(prefix="quorate-") as made:
        local = str(Path(made) / "local.sock")
        async with connect(KV, f"unix:{local}", settings=SETTINGS) as kv:
            for value in ("ours", "strange"):
                async with Node("127.0.0.1:0", store="memory", settings=SETTINGS, local=local) as node:
                    peer = await node.start_peer(KV, name="peer1")
                    await peer.set_configuration(peer.address)
                    if value == "ours":
                        assert await kv.write(KV.set, "foo", value) == value
                        continue
                    with pytest.raises(Unavailable, match=r"unix:.*local.sock belongs to group \w+, and this client"):
                        await kv.with_options(timeout=1.0).write(KV.set, "foo", value)
