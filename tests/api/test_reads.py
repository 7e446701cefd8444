"""Every kind of read on real nodes: on the leader and elsewhere, by read index, by lease, and stale."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from quorate import NotLeader, Peer, Rejected, StaleRead, Stopped, Unavailable, connect
from quorate.core import Raft
from quorate.machines import KV

from .cluster import CALM, SETTINGS, Cluster, cluster


def followers(nodes: Cluster[KV], leader: Peer[KV]) -> list[Peer[KV]]:
    return [peer for peer in nodes.peers.values() if peer is not leader]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Give what cores are asked for: the role of the peer, and whether by lease."""
    calls: list[tuple[str, bool]] = []
    read = Raft.read

    def note(raft: Raft, now: float, *, by_lease: bool = False) -> Any:
        calls.append((raft.status().role, by_lease))
        return read(raft, now, by_lease=by_lease)

    monkeypatch.setattr(Raft, "read", note)
    return calls


async def wait_for(condition: Any) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells a test
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("consistency", ["linearizable", "lease"])
async def test_every_peer_sees_every_acknowledged_write(consistency: Any) -> None:
    async with cluster(KV, settings=CALM) as nodes:
        leader = await nodes.form()
        for peer in nodes.peers.values():
            await peer.leader()
        for number in range(30):
            written = await leader.write(KV.append, "foo", f"{number}.")
            readers = [peer.with_options(consistency=consistency) for peer in nodes.peers.values()]
            assert await asyncio.gather(*(peer.read(KV.get, "foo") for peer in readers)) == [written] * 3


async def test_a_write_that_a_follower_has_not_heard_of_is_waited_for() -> None:
    """The follower learns the index from the leader, and answers only when its own machine has come that far."""
    async with cluster(KV, settings=CALM) as nodes:
        leader = await nodes.form()
        follower = followers(nodes, leader)[0]
        await follower.leader()
        seat = nodes.peers[follower.name]._seat
        advance, seat.advance = seat.advance, lambda: None  # type: ignore[method-assign]
        await leader.write(KV.set, "foo", "bar")
        read = asyncio.create_task(follower.read(KV.get, "foo"))
        await asyncio.sleep(0.2)
        assert not read.done()
        seat.advance = advance  # type: ignore[method-assign]
        seat._outside.wake(seat)
        assert await read == "bar"


@pytest.mark.parametrize("is_leader", [True, False])
async def test_reads_of_one_turn_share_a_round(is_leader: bool, asked: list[tuple[str, bool]]) -> None:
    async with cluster(KV, settings=CALM) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        peer = leader if is_leader else followers(nodes, leader)[0]
        await peer.leader()
        rounds = leader._seat.raft.state.role
        asked.clear()
        reads = [peer.read(KV.get, "foo") for _ in range(20)]
        leases = [peer.with_options(consistency="lease").read(KV.get, "foo") for _ in range(20)]
        assert await asyncio.gather(*reads, *leases) == ["bar"] * 40
        role = "leader" if is_leader else "follower"
        assert asked[0] == (role, False)
        # One for each kind; a leader that has a lease answers those that come in the first moment without one.
        assert asked[1:] == [(role, True)] or (is_leader and asked[1:] == [])
        assert leader._seat.raft.state.role is rounds


async def test_reads_of_a_client_that_travel_together_share_rounds(asked: list[tuple[str, bool]]) -> None:
    async with cluster(KV, settings=CALM) as nodes:
        await nodes.form()
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            await kv.write(KV.set, "foo", "bar")
            asked.clear()
            assert await asyncio.gather(*(kv.read(KV.get, "foo") for _ in range(500))) == ["bar"] * 500
            assert {role for role, _ in asked} == {"leader"}, "a client follows the leader"
            assert len(asked) < 50


async def test_a_lease_asks_nobody_and_a_round_does() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        by_lease = leader.with_options(consistency="lease", timeout=0.1)
        assert await by_lease.read(KV.get, "foo") == "bar"
        for follower in followers(nodes, leader):
            follower._seat.take_inputs = lambda now: None  # type: ignore[method-assign] - deaf from now on
        assert await by_lease.read(KV.get, "foo") == "bar", "the lease runs on for a while"
        with pytest.raises(Unavailable, match="no quorum confirmed"):
            await leader.with_options(timeout=0.05).read(KV.get, "foo")
        await wait_for(lambda: leader.status().role != "leader")
        with pytest.raises(NotLeader):
            await by_lease.read(KV.get, "foo")


async def test_reads_by_lease_are_right_while_leadership_changes() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            seen = written = ""
            for number in range(4):
                leading = await nodes.leader()
                handing = asyncio.create_task(leading.transfer_leadership())
                for step in range(20):
                    written = await kv.write(KV.append, "foo", f"{number}.{step} ")
                    for peer in nodes.peers.values():
                        try:
                            seen = await peer.with_options(consistency="lease").read(KV.get, "foo")
                        except NotLeader:
                            continue
                        assert seen == written
                await handing
            assert seen == written
            assert await kv.with_options(consistency="lease").read(KV.get, "foo") == written
        assert leader.name in nodes.peers


async def test_stale_reads_need_no_quorum_and_say_how_old_they_are() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        peer, *others = followers(nodes, leader)
        fresh = await peer.read_stale(KV.get, "foo")
        assert fresh == StaleRead("bar", peer.status().last_applied, fresh.age)
        assert 0 <= fresh.age < SETTINGS.election_timeout_max, "it hears its leader"
        for name in [leader.name, *(other.name for other in others)]:
            await nodes.stop(name)
        await wait_for(lambda: peer.status().leader is None)
        with pytest.raises(NotLeader) as refused:
            await peer.read(KV.get, "foo")
        assert refused.value.redirect is None
        old = await peer.read_stale(KV.get, "foo")
        assert old.value == "bar"
        assert old.index >= fresh.index
        assert old.age >= SETTINGS.election_timeout_min, "it has heard nobody since"
        assert (await peer.read_stale(KV.get, "foo")).age > old.age
        assert await peer.with_options(consistency="stale").read(KV.get, "foo") == "bar"
        with pytest.raises(Rejected, match="key_not_found"):
            await peer.read_stale(KV.get, "baz")


async def test_a_stale_read_shows_what_is_applied_and_no_more() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        follower = followers(nodes, leader)[0]
        follower._seat.advance = lambda: None  # type: ignore[method-assign] - applies nothing from now on
        before = await follower.read_stale(KV.get, "foo")
        await leader.write(KV.set, "foo", "baz")
        await wait_for(lambda: follower.status().commit_index > before.index)
        await asyncio.sleep(SETTINGS.election_timeout_max)
        after = await follower.read_stale(KV.get, "foo")
        assert (after.value, after.index) == ("bar", before.index)
        assert after.age >= SETTINGS.election_timeout_max, "hearing the leader is not enough"
        current = await leader.read_stale(KV.get, "foo")
        assert (current.value, current.index) == ("baz", leader.status().last_applied)


async def test_a_peer_that_never_heard_a_leader_does_not_know_how_old_it_is() -> None:
    async with cluster(KV) as nodes:
        peer = await nodes.start("peer1")
        with pytest.raises(Rejected):
            await peer.read_stale(KV.get, "foo")
        age = peer._seat._reads.age(peer._seat.raft.state, peer._seat.apply.last_applied, 1000.0)
        assert age == math.inf
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            with pytest.raises(Rejected):
                await kv.read_stale(KV.get, "foo")


async def test_a_lone_peer_is_never_behind() -> None:
    async with cluster(KV, 1) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        found = await leader.read_stale(KV.get, "foo")
        assert (found.value, found.index) == ("bar", leader.status().last_applied)
        assert 0 <= found.age < SETTINGS.election_timeout_min


async def test_a_client_reads_stale_from_any_peer_that_can_be_reached(asked: list[tuple[str, bool]]) -> None:
    async with cluster(KV, settings=CALM) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        asked.clear()
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            for name in list(nodes.peers)[:-1]:
                found = await kv.read_stale(KV.get, "foo")
                assert isinstance(found, StaleRead)
                assert found.value == "bar"
                await nodes.stop(name)
            last = await kv.read_stale(KV.get, "foo")
            assert (last.value, last.index) == ("bar", nodes.statuses()[0].last_applied)
            assert await kv.with_options(consistency="stale").read(KV.get, "foo") == "bar"
            assert asked == [], "no core was asked"
            await nodes.stop(next(iter(nodes.peers)))
            with pytest.raises(Unavailable, match=r"nobody answered within 0\.3 s: 0 of 3 reachable"):
                await kv.with_options(timeout=0.3).read_stale(KV.get, "foo")


async def test_a_client_that_does_not_follow_reads_from_the_peer_it_names() -> None:
    async with cluster(KV, settings=CALM) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        follower = followers(nodes, leader)[0]
        await follower.leader()
        async with connect(KV, follower.address, follow=False) as kv:
            assert await kv.read(KV.get, "foo") == "bar"
            assert await kv.with_options(consistency="lease").read(KV.get, "foo") == "bar"
            assert (await kv.read_stale(KV.get, "foo")).value == "bar"
            await nodes.stop(follower.name)
            with pytest.raises(Unavailable):
                await kv.read_stale(KV.get, "foo")


async def test_a_client_that_hangs_on_one_peer_asks_the_next() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        first = nodes.peers["peer1"]
        first._seat.take_inputs = lambda now: None  # type: ignore[method-assign] - it takes calls and answers none
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            assert (await kv.with_options(timeout=3.0).read_stale(KV.get, "foo")).value == "bar"


async def test_options_that_are_not_named_stay() -> None:
    async with cluster(KV, 1) as nodes:
        leader = await nodes.form()
        async with connect(KV, *nodes.addresses) as kv:
            for target in (leader, kv):
                stale = target.with_options(consistency="stale").with_options(timeout=7.0)
                assert (stale._consistency, stale._timeout) == ("stale", 7.0)
                again = target.with_options(timeout=7.0).with_options(consistency="lease")
                assert (again._consistency, again._timeout) == ("lease", 7.0)
                assert (target._consistency, target._timeout) == ("linearizable", 5.0)
                with pytest.raises(ValueError, match="linearizable, lease, stale, not fresh"):
                    target.with_options(consistency="fresh")  # type: ignore[arg-type]


async def test_stale_reads_end_with_the_peer() -> None:
    async with cluster(KV, 1) as nodes:
        leader = await nodes.form()
        await nodes.stop("peer1")
        with pytest.raises(Stopped):
            await leader.read_stale(KV.get, "foo")
