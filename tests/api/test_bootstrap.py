"""``set_configuration``: one identical first configuration, once; every way in which it can be refused or cut short."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from quorate import Address, InvalidConfiguration, Node, Settings, Unavailable
from quorate.core import Configuration, Member
from quorate.core.messages import AppendEntries
from quorate.machines import KV, Stack
from quorate.transport import Packet
from quorate.transport.calls import BootstrapCall, Failure, Request
from quorate.types import Index, PeerId, Term

from .cluster import SETTINGS, cluster, free_ports
from .virtual import DELAY, World, address_of, run_world


async def started(nodes: object, *names: str) -> None:
    for name in names:
        await nodes.start(name)  # type: ignore[attr-defined]


async def test_it_is_idempotent_and_may_be_asked_of_any_member() -> None:
    async with cluster(KV) as nodes:
        await nodes.form()
        configuration = nodes.peers["peer1"].status().configuration
        for peer in nodes.peers.values():
            await peer.set_configuration(*reversed(nodes.addresses))
        assert {peer.status().configuration for peer in nodes.peers.values()} == {configuration}


async def test_a_peer_that_is_not_named_refuses() -> None:
    async with cluster(KV) as nodes:
        await started(nodes, "peer1", "peer2", "peer3")
        with pytest.raises(InvalidConfiguration, match=r"peer1@.* is not among the members"):
            await nodes.peers["peer1"].set_configuration(*nodes.addresses[1:])
        with pytest.raises(InvalidConfiguration, match="nobody"):
            await nodes.peers["peer1"].set_configuration()


async def test_names_are_unique_and_addresses_can_be_read() -> None:
    async with cluster(KV) as nodes:
        peer = await nodes.start("peer1")
        with pytest.raises(InvalidConfiguration, match="peer1 is named more than once"):
            await peer.set_configuration(nodes.addresses[0], "peer1@127.0.0.1:1")
        with pytest.raises(InvalidConfiguration, match="name@host:port"):
            await peer.set_configuration("127.0.0.1:7001")
        with pytest.raises(InvalidConfiguration, match="port 0"):
            await peer.set_configuration(nodes.addresses[0], "peer2@127.0.0.1:0")


async def test_a_member_that_does_not_answer_is_named_and_nothing_is_written() -> None:
    async with cluster(KV) as nodes:
        await started(nodes, "peer1", "peer2")
        with pytest.raises(Unavailable, match=r"peer3@.*refuses the connection"):
            await nodes.peers["peer1"].set_configuration(*nodes.addresses)
        assert all(peer.status().configuration == () for peer in nodes.peers.values())
        await nodes.start("peer3")
        await nodes.peers["peer2"].set_configuration(*nodes.addresses)
        await nodes.leader()


async def test_a_node_without_that_peer_is_named() -> None:
    async with cluster(KV) as nodes:
        await started(nodes, "peer1", "peer2", "peer3")
        wrong = Address("peer9", "127.0.0.1", nodes.addresses[2].port)
        with pytest.raises(Unavailable, match="there is no peer named peer9 on this node; it has: peer3"):
            await nodes.peers["peer1"].set_configuration(*nodes.addresses[:2], wrong)


async def test_a_member_of_another_group_is_named() -> None:
    async with cluster(KV, 3) as one, cluster(KV, 1) as other:
        await other.form()
        await started(one, "peer2")
        with pytest.raises(InvalidConfiguration, match="peer1 already belongs to a group"):
            await one.peers["peer2"].set_configuration(one.address("peer2"), other.address("peer1"))


async def test_a_member_with_another_machine_is_named() -> None:
    async with cluster(KV, 1) as one:
        await one.start("peer1")
        (port,) = free_ports(1)
        async with Node(f"127.0.0.1:{port}", store="memory", settings=SETTINGS) as node:
            await node.start_peer(Stack, name="peer2")
            with pytest.raises(InvalidConfiguration, match="peer2 runs Stack, and peer1 runs KV"):
                await one.peers["peer1"].set_configuration(one.address("peer1"), f"peer2@127.0.0.1:{port}")


async def test_two_who_try_at_once_form_one_group() -> None:
    async with cluster(KV) as nodes:
        await started(nodes, "peer1", "peer2", "peer3")
        tries = [peer.set_configuration(*nodes.addresses) for peer in nodes.peers.values()]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert None in results, results
        assert all(result is None or isinstance(result, InvalidConfiguration) for result in results), results
        await nodes.leader()
        assert len({peer.status().group for peer in nodes.peers.values()}) == 1


async def test_a_member_that_missed_its_first_configuration_gets_it_from_the_leader(tmp_path: Path) -> None:
    """A crash between the second and the third member leaves a majority that can lead, and heal the rest."""
    async with cluster(KV, 3, tmp_path) as nodes:
        await started(nodes, "peer1", "peer2", "peer3")
        voters = tuple(Member(nodes.peers[a.name].status().id, a) for a in nodes.addresses)
        for name in ("peer1", "peer2"):
            seat = nodes.peers[name]._seat
            seat.raft.form(Configuration("group", voters), asyncio.get_running_loop().time())
            seat._outside.wake(seat)
        leader = await nodes.leader()
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        assert nodes.peers["peer3"].status().configuration == tuple(nodes.addresses)
        assert nodes.machine_of("peer3").entries == {"foo": "bar"}
        # It kept what it learned.
        await nodes.stop("peer3")
        await nodes.start("peer3")
        assert nodes.peers["peer3"].status().group == "group"


@pytest.mark.covers("pitfall 76", "pitfall 78")
async def test_a_peer_whose_disk_was_wiped_is_not_taken_for_the_one_it_was(tmp_path: Path) -> None:
    """Row 76: it may have voted, and acknowledged, under the id that it lost."""
    async with cluster(KV, 3, tmp_path) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        victim = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(victim)
        shutil.rmtree(tmp_path / victim)
        await nodes.start(victim)
        await leader.write(KV.set, "foo", "baz")
        status = nodes.peers[victim].status()
        assert (status.last_index, status.configuration) == (0, ()), "nothing is sent to the id it has now"
        with pytest.raises(InvalidConfiguration, match=f"{victim}@.* is not the peer that belongs to this group"):
            await leader.set_configuration(*nodes.addresses)


@pytest.mark.covers("pitfall 78")
def test_a_leader_of_another_group_is_not_heard_though_it_has_the_id_of_a_member() -> None:
    async def tell(world: World) -> None:
        leader, follower, _ = await world.form(KV, "a", "b", "c")
        term = follower.status().term
        sender = leader.status().id

        async def hear(group: str, term: int) -> int:
            message = AppendEntries(Term(term), sender, Index(0), Term(0), Index(0))
            packet = Packet(group, sender, follower.status().id, message)
            follower._seat.receive(address_of(leader), packet)
            await asyncio.sleep(DELAY / 2)
            return follower.status().term

        assert await hear("another", term + 5) == term
        assert await hear(follower.status().group, term + 2) == term + 2

    run_world(3, Settings(), tell)


@pytest.mark.parametrize("host", ["", "a b", "[::1]", "x/y"])
async def test_a_configuration_from_the_network_with_addresses_that_nobody_could_type_is_refused(host: str) -> None:
    async with cluster(KV, 1) as nodes:
        peer = await nodes.start("peer1")
        me = Member(peer.status().id, peer.address)
        stranger = Member(PeerId("stranger"), Address("peer2", host, 7))
        transport = nodes.nodes["peer1"]._running().transport
        channel = await transport.connect(peer.address.node)
        reply = await channel.call(Request(0, "peer1", BootstrapCall(Configuration("group", (me, stranger)))))
        await channel.close()
        assert isinstance(reply.answer, Failure)
        assert reply.answer.error == "InvalidConfiguration"
        assert peer.status().configuration == ()


async def test_many_peers_of_several_groups_share_two_nodes_and_their_disks(tmp_path: Path) -> None:
    ports = free_ports(2)
    homes = [f"127.0.0.1:{port}" for port in ports]
    async with (
        Node(homes[0], data_dir=tmp_path / "a", settings=SETTINGS) as a,
        Node(homes[1], data_dir=tmp_path / "b", settings=SETTINGS) as b,
    ):
        for group in range(5):
            first = await a.start_peer(KV, name=f"left{group}")
            await b.start_peer(KV, name=f"right{group}")
            await first.set_configuration(f"left{group}@{homes[0]}", f"right{group}@{homes[1]}")
        for group in range(5):
            peers = {str(peer.address): peer for node in (a, b) for peer in node.peers}
            leader = peers[str(await peers[f"left{group}@{homes[0]}"].leader())]
            assert await leader.write(KV.set, "group", str(group)) == str(group)
            assert await leader.read(KV.get, "group") == str(group)
        with pytest.raises(ValueError, match="a peer named left0 runs on this node already"):
            await a.start_peer(KV, name="left0")


def test_whoever_forms_a_group_is_answered_once_every_member_has_it_on_its_disk() -> None:
    """Else a crash could leave a member that belongs to no group, and whoever formed it with the word that it does."""

    async def tell(world: World) -> None:
        names = ("peer1", "peer2", "peer3")
        peers = [await node.start_peer(KV, name=name) for node, name in zip(world.nodes, names, strict=True)]
        world.disks[0].seconds = world.disks[2].seconds = 1.0
        begun = world.loop.time()
        await peers[0].set_configuration(*(peer.address for peer in peers))
        assert world.loop.time() - begun >= 1.0

    run_world(3, Settings(), tell)
