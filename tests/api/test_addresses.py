"""Addresses are of today: peers that moved, one or all, are found again under the ids that they have."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorate import Address, Node, Peer, Settings, Unavailable
from quorate.addresses import HEARD_MAX, Addresses
from quorate.core import Configuration, Member
from quorate.core.state import Follower, Leader, State
from quorate.machines import KV
from quorate.types import Index, PeerId, is_node

from .cluster import SETTINGS, Cluster, cluster, free_ports

QUICK = msgspec.structs.replace(SETTINGS, catch_up_timeout=0.8, change_timeout=10.0)

A, B, C = (Member(PeerId(f"id-{name}"), Address(name, f"host-{name}", 7)) for name in "abc")
THREE = Configuration("group", (A, B, C))


def moved(nodes: Cluster[KV], *names: str) -> None:
    """Give peers that are stopped other addresses to be started at."""
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    nodes.addresses = [
        Address(address.name, address.host, ports.get(address.name, address.port)) for address in nodes.addresses
    ]


async def settle_at(peer: Peer[Any], addresses: list[Address]) -> None:
    """Wait until a peer's log has its group at these addresses."""
    async with asyncio.timeout(10):
        while [member.address for member in peer.status().members] != addresses:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_one_that_moved_is_found_and_its_group_learns_where_it_is(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path, settings=QUICK) as nodes:
        leader = await nodes.form()
        name = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(name)
        moved(nodes, name)
        await nodes.start(name)
        await settle_at(leader, nodes.addresses)
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()


async def test_all_that_moved_at_once_find_one_another_by_what_most_are_told(tmp_path: Path) -> None:
    """Containers that were all rescheduled: each knows its own address, and a majority those of the others."""
    async with cluster(KV, 3, tmp_path, settings=QUICK) as nodes:
        leader = await nodes.form()
        await leader.write(KV.set, "foo", "bar")
        for name in list(nodes.peers):
            await nodes.stop(name)
        moved(nodes, "peer1", "peer2", "peer3")
        told = {address.name: address.node for address in nodes.addresses}
        for name in told:
            nodes.options["addresses"] = told if name != "peer3" else {}
            await nodes.start(name)
        leader = await nodes.leader()
        assert await leader.read(KV.get, "foo") == "bar"
        assert await nodes.peers["peer2"].leader() == leader.address, "redirects name where it is reached"
        for peer in nodes.peers.values():
            await settle_at(peer, nodes.addresses)


async def test_a_group_can_be_told_where_one_is_that_does_not_run() -> None:
    async with cluster(KV, 3, settings=QUICK) as nodes:
        leader = await nodes.form()
        name = next(name for name in nodes.peers if name != leader.name)
        await nodes.stop(name)
        (port,) = free_ports(1)
        await leader.change_address(name, f"127.0.0.1:{port}")
        found = {member.address.name: member.address.port for member in leader.status().members}
        assert found[name] == port


async def test_host_names_are_resolved_again_at_each_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(KV, 2, settings=QUICK) as nodes:
        one, two = await nodes.start("peer1"), await nodes.start("peer2")
        target, asked = nodes.address("peer1"), 0
        real = socket.getaddrinfo

        def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            if host != "kv.example":
                return real(host, port, *args, **kwargs)
            asked += 1
            address = "127.0.0.1" if asked > 1 else "127.1.2.3"  # Nobody listens at the first one.
            return real(address, port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await one.set_configuration(one.address)
        transport = nodes.nodes["peer2"]._running().transport
        with pytest.raises(Unavailable, match=r"kv\.example"):
            await transport.connect(f"kv.example:{target.port}")
        await (await transport.connect(f"kv.example:{target.port}")).close()
        assert asked == 2
        assert two.status().group == ""


def test_what_was_told_goes_before_what_was_heard_and_that_before_the_configuration() -> None:
    addresses = Addresses(A.address, {"c": "told:1"})
    assert addresses.find(B.id, THREE) == "host-b:7"
    addresses.hear(B.id, "heard:1", THREE)
    addresses.hear(C.id, "heard:2", THREE)
    assert addresses.find(B.id, THREE) == "heard:1"
    assert addresses.find(C.id, THREE) == "told:1"


def test_a_change_of_address_is_newer_than_what_was_heard_before_it() -> None:
    addresses = Addresses(A.address, {})
    addresses.hear(B.id, "heard:1", THREE)
    others = Configuration("group", (A, B), (), (A, B))
    assert addresses.find(B.id, others) == "heard:1", "any other change leaves it"
    there = Configuration("group", (A, Member(B.id, Address("b", "there", 9)), C))
    assert addresses.find(B.id, there) == "there:9"
    addresses.hear(B.id, "heard:1", there)
    assert addresses.find(B.id, there) == "heard:1", "but it speaks from there still"


def test_one_that_was_removed_or_is_not_named_yet_is_answered_where_it_spoke() -> None:
    addresses = Addresses(A.address, {})
    assert addresses.find(PeerId("x"), THREE) is None
    addresses.hear(PeerId("x"), "heard:1", None)
    assert addresses.find(PeerId("x"), None) == addresses.find(PeerId("x"), THREE) == "heard:1"


def test_a_leader_sends_nobody_to_itself() -> None:
    """It would be asked again at once, by whom it could not answer just now."""
    addresses = Addresses(A.address, {})
    state = State(A.id, Settings(), lambda: 0.0, 0.0, configurations=[(Index(1), THREE)])
    assert addresses.redirect(state) is None
    state.role = Follower(leader=B.id)
    assert addresses.redirect(state) == addresses.leader(state) == B.address
    state.role = Leader({}, first_index=Index(1), heartbeat_deadline=0.0)
    assert addresses.leader(state) == A.address
    assert addresses.redirect(state) is None


def test_garbage_and_crowds_are_not_remembered() -> None:
    addresses = Addresses(A.address, {})
    for node in ("", "nowhere", "h:0", "h:99999", "a b:7", "h" * 400 + ":7"):
        assert not is_node(node)
        addresses.hear(B.id, node, THREE)
    assert addresses.find(B.id, THREE) == "host-b:7"
    for number in range(2 * HEARD_MAX):
        addresses.hear(PeerId(f"x{number}"), "h:7", THREE)
    assert addresses.find(PeerId("x0"), THREE) is None
    assert addresses.find(PeerId(f"x{2 * HEARD_MAX - 1}"), THREE) == "h:7"


@pytest.mark.parametrize("told", [{"a b": "h:7"}, {"peer1": "h"}, {"peer1": "h:0"}])
def test_what_a_node_is_told_is_checked(told: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        Node("127.0.0.1:0", store="memory", addresses=told)


@pytest.mark.parametrize("address", [None, 7001])
def test_what_is_no_text_is_no_address_of_a_node(address: Any) -> None:
    """As what the environment does not hold."""
    with pytest.raises(TypeError, match=f"{address} is no node's address, which is a text such as"):
        Node(address, store="memory")
    with pytest.raises(TypeError, match="7001 is no node's address"):
        Node("127.0.0.1:7001", store="memory", advertise=7001)  # type: ignore[arg-type]
