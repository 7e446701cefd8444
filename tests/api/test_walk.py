"""The walk of the first page: start, configure, lead, write, read, stop the leader, be redirected, read the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from quorate import MachineError, NotLeader, OutcomeUnknown, Rejected, Stopped, Unavailable, connect
from quorate.machines import KV

from .cluster import SETTINGS, cluster


async def test_the_walk_with_rocksdb(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path) as nodes:
        for name in ("peer1", "peer2", "peer3"):
            peer = await nodes.start(name)
            status = peer.status()
            assert (status.role, status.leader) == ("follower", None), "followers of nobody"
            assert status.why is not None
            assert "set_configuration" in status.why
        peer1 = nodes.peers["peer1"]
        await peer1.set_configuration(*map(str, nodes.addresses))
        address = await peer1.leader()
        leader = nodes.peers[address.name]
        assert await leader.write(KV.set, "foo", "bar") == "bar"
        assert await leader.read(KV.get, "foo") == "bar"
        with pytest.raises(Rejected, match="key_not_found: 'baz'"):
            await leader.read(KV.get, "baz")
        follower = next(peer for peer in nodes.peers.values() if peer.address != address)
        await follower.leader()  # it may not have heard of the leader yet
        with pytest.raises(NotLeader) as refused:
            await follower.write(KV.set, "foo", "baz")
        assert refused.value.redirect == address
        assert await follower.read(KV.get, "foo") == "bar"
        await leader.stop()
        with pytest.raises(Stopped):
            await leader.write(KV.set, "foo", "too late")
        successor = nodes.peers[(await follower.leader(other_than=address)).name]
        assert await successor.read(KV.get, "foo") == "bar"


async def test_a_client_follows_the_leader() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        async with connect(KV, *nodes.addresses, settings=SETTINGS) as kv:
            assert await kv.write(KV.set, "foo", "bar") == "bar"
            assert await kv.leader() == leader.address
            await nodes.stop(leader.name)
            assert await kv.read(KV.get, "foo") == "bar"
            assert await kv.leader() != leader.address
            assert len(await kv.status()) == 2


async def test_a_client_that_does_not_follow_is_told_where_to_go() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        follower = next(peer for peer in nodes.peers.values() if peer is not leader)
        await follower.leader()
        async with connect(KV, follower.address, follow=False) as kv:
            with pytest.raises(NotLeader) as refused:
                await kv.write(KV.set, "foo", "bar")
            assert refused.value.redirect == leader.address
            assert str(refused.value) == f"{follower.name} does not lead; try {leader.address}"


async def test_a_reply_that_is_too_long_for_a_frame_is_told_at_once_and_its_write_took_effect_once() -> None:
    small = msgspec.structs.replace(
        SETTINGS, command_bytes_max=60_000, append_bytes_max=65_536, frame_bytes_max=196_608
    )
    async with cluster(KV, settings=small) as nodes:
        leader = await nodes.form()
        async with connect(KV, *nodes.addresses, settings=small) as kv:
            for _ in range(3):
                await kv.write(KV.append, "k", 50_000 * "v")
            before = leader.status().last_applied
            with pytest.raises(MachineError, match=r"the reply has 200\d\d\d bytes: too many for one frame"):
                await kv.write(KV.append, "k", 50_000 * "v")
            assert leader.status().last_applied == before + 1, "another try would have entered the log, too"
            with pytest.raises(MachineError, match="frame_bytes_max"):
                await kv.read(KV.get, "k")
            assert await leader.read(KV.get, "k") == 200_000 * "v"


async def test_while_an_election_is_in_progress_there_is_no_redirect() -> None:
    async with cluster(KV) as nodes:
        peer = await nodes.start("peer1")
        with pytest.raises(NotLeader) as refused:
            await peer.write(KV.set, "foo", "bar")
        assert refused.value.redirect is None
        with pytest.raises(Unavailable, match="no configuration yet"):
            await peer.with_options(timeout=0.05).leader()


@pytest.mark.covers("pitfall 36", "pitfall 37")
async def test_a_read_that_no_quorum_confirms_is_unavailable_and_a_write_unknown() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        await nodes.leave_alone(leader)
        brief = leader.with_options(timeout=0.1)
        results = await asyncio.gather(
            brief.write(KV.set, "foo", "baz"), brief.read(KV.get, "foo"), return_exceptions=True
        )
        assert isinstance(results[0], OutcomeUnknown), results
        assert isinstance(results[1], Unavailable), results


async def test_a_lone_peer_leads_commits_and_restarts(tmp_path: Path) -> None:
    """The original's lone peer can never lead."""
    async with cluster(KV, 1, tmp_path) as nodes:
        leader = await nodes.form()
        assert await leader.write(KV.set, "foo", "bar") == "bar"
        await nodes.stop("peer1")
        await nodes.start("peer1")
        assert await (await nodes.leader()).read(KV.get, "foo") == "bar"


async def test_many_writers_and_readers_at_once() -> None:
    async with cluster(KV) as nodes:
        leader = await nodes.form()

        async def use(number: int) -> None:
            for turn in range(10):
                await leader.write(KV.append, f"k{number}", str(turn))
                assert await leader.read(KV.get, f"k{number}") == "".join(map(str, range(turn + 1)))

        await asyncio.gather(*(use(number) for number in range(50)))
        await nodes.converge()
        assert len({repr(sorted(nodes.machine_of(name).entries.items())) for name in nodes.peers}) == 1
