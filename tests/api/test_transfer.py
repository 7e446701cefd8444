"""Handing over leadership on real nodes: asked for, and by a clean stop."""

from __future__ import annotations

import asyncio

import pytest

from quorate import InvalidConfiguration, NotLeader, Unavailable, connect
from quorate.machines import KV

from .cluster import SETTINGS, cluster


async def test_leadership_goes_where_it_is_sent_and_comes_back() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        other = next(peer for peer in nodes.peers.values() if peer is not leader)
        assert await leader.transfer_leadership(other.address) == other.address
        assert other.status().role == "leader"
        assert await other.read(KV.get, "foo") == "bar"
        assert await other.transfer_leadership(leader.name) == leader.address
        assert await leader.transfer_leadership(leader.name) == leader.address, "it leads already"
        assert await leader.read(KV.get, "foo") == "bar"


async def test_without_a_target_any_other_peer_takes_over() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        assert await leader.transfer_leadership() != leader.address


@pytest.mark.covers("pitfall 34", "pitfall 82")
async def test_writes_under_way_are_answered_and_those_after_follow_the_new_leader() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            writes = [asyncio.create_task(kv.write(KV.append, f"k{n}", "x")) for n in range(50)]
            await asyncio.sleep(0)
            await leader.transfer_leadership()
            writes += [asyncio.create_task(kv.write(KV.append, f"l{n}", "x")) for n in range(50)]
            assert await asyncio.gather(*writes) == ["x"] * 100


async def test_who_cannot_hand_over_or_be_handed_to_is_told() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        follower = next(peer for peer in nodes.peers.values() if peer is not leader)
        await follower.leader()
        with pytest.raises(NotLeader) as refused:
            await follower.transfer_leadership()
        assert refused.value.redirect == leader.address
        with pytest.raises(InvalidConfiguration, match="stranger is no member"):
            await leader.transfer_leadership("stranger")


@pytest.mark.covers("pitfall 82")
async def test_a_target_that_is_down_leaves_the_leader_leading() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        down = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(down)
        await leader.write(KV.set, "foo", "bar")
        with pytest.raises(Unavailable, match="leads on"):
            await leader.transfer_leadership(down)
        assert await leader.write(KV.set, "foo", "baz") == "baz"


async def test_a_leader_that_stops_hands_over_first() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        term = leader.status().term
        await leader.stop()
        others = [peer for peer in nodes.peers.values() if peer is not leader]
        assert [peer.status().role for peer in others].count("leader") == 1, "elected before the stop returned"
        assert max(peer.status().term for peer in others) == term + 1
