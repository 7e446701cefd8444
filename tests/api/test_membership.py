"""Changing the members of a group on real nodes: every form of it, under load, refused, cut short.

Where it is cut short by the loss of its leader, also on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorate import (
    Address,
    ChangeInProgress,
    InvalidConfiguration,
    Node,
    OutcomeUnknown,
    Peer,
    Settings,
    Stopped,
    Unavailable,
    connect,
)
from quorate.core import Member
from quorate.errands import ChangeMembers
from quorate.machines import KV, Stack
from quorate.transport.calls import ChangeCall, Failure, Request
from quorate.types import Kind, PeerId, Run

from .cluster import SETTINGS, Cluster, cluster, free_ports
from .test_apply import Noted
from .virtual import DELAY, World, address_of, run_world

QUICK = msgspec.structs.replace(SETTINGS, catch_up_timeout=0.8, change_timeout=10.0)


@contextlib.asynccontextmanager
async def grown(size: int, members: int, directory: Path | None = None) -> AsyncIterator[Cluster[KV]]:
    """Give a cluster whose first nodes are a group, and whose others run empty peers."""
    async with cluster(KV, size, directory, settings=QUICK) as nodes:
        for address in nodes.addresses:
            await nodes.start(address.name)
        await nodes.peers["peer1"].set_configuration(*nodes.addresses[:members])
        await nodes.leader()
        yield nodes


async def other_than(nodes: Cluster[KV], *names: str) -> Peer[KV]:
    return next(peer for name, peer in nodes.peers.items() if name not in names)


def kinds(peer: Peer[Any]) -> dict[str, str]:
    return {member.address.name: member.kind for member in peer.status().members}


async def becomes(peer: Peer[Any], expected: dict[str, str]) -> None:
    """Wait until a peer's own log has these members."""
    async with asyncio.timeout(5):
        while kinds(peer) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("asked", ["the leader", "a follower"])
async def test_a_group_of_one_takes_a_second_and_gives_it_up_again(asked: str) -> None:
    async with grown(2, 1) as nodes:
        one, two = nodes.peers["peer1"], nodes.peers["peer2"]
        await one.write(KV.set, "foo", "bar")
        await one.add_peer(nodes.address("peer2"))
        await nodes.converge()
        assert nodes.machine_of("peer2").entries == {"foo": "bar"}
        leader = await nodes.leader()
        follower = two if leader is one else one
        await (leader if asked == "the leader" else follower).remove_peer(follower.name)
        assert kinds(leader) == {leader.name: "voter"}
        assert await leader.write(KV.set, "foo", "baz") == "baz"


async def test_a_learner_receives_everything_and_may_be_promoted() -> None:
    async with grown(3, 2) as nodes:
        leader = await nodes.leader()
        await leader.add_peer(nodes.address("peer3"), kind="learner")
        assert kinds(leader) == {"peer1": "voter", "peer2": "voter", "peer3": "learner"}
        assert nodes.address("peer3") not in leader.status().configuration, "it has no vote"
        await leader.write(KV.set, "foo", "bar")
        await nodes.converge()
        assert nodes.machine_of("peer3").entries == {"foo": "bar"}
        assert await nodes.peers["peer3"].read(KV.get, "foo") == "bar"
        await leader.add_peer(nodes.address("peer3"))
        assert kinds(leader)["peer3"] == "voter"


async def test_a_witness_votes_and_keeps_nothing() -> None:
    async with grown(3, 2) as nodes:
        leader = await nodes.leader()
        await leader.add_peer(nodes.address("peer3"), kind="witness")
        await leader.write(KV.set, "foo", "bar")
        other = await other_than(nodes, leader.name, "peer3")
        await becomes(other, {"peer1": "voter", "peer2": "voter", "peer3": "witness"})
        await nodes.converge()
        assert nodes.machine_of("peer3").entries == {}
        await nodes.stop(leader.name)
        assert (await nodes.leader(other_than=leader.address)) is other, "it leads by the vote of the witness"
        assert await other.read(KV.get, "foo") == "bar"


@pytest.mark.covers("pitfall 47", "hashicorp/raft RemoveLeader")
async def test_one_to_five_and_back_under_load_loses_nothing() -> None:
    """1 → 2 → 3 → 5 → 3 → 1, each asked of any member, and the first leader removed, while clients write all along."""
    async with grown(5, 1) as nodes:
        done = asyncio.Event()
        written: list[str] = []

        async def write(kv: Any) -> None:
            while not done.is_set():
                key = f"k{len(written)}"
                await kv.write(KV.set, key, key)
                written.append(key)

        async with connect(KV, *nodes.addresses, settings=QUICK) as kv:
            writer = asyncio.create_task(write(kv))
            for members, asked in (("12", 1), ("123", 2), ("12345", 3), ("345", 1), ("5", 3)):
                count = len(written)
                wanted = [nodes.address(f"peer{number}") for number in members]
                await nodes.peers[f"peer{asked}"].set_configuration(*wanted)
                async with asyncio.timeout(10):
                    while len(written) < count + 50 and not writer.done():  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert not writer.done(), writer.exception()
            done.set()
            await writer
        assert kinds(nodes.peers["peer5"]) == {"peer5": "voter"}
        entries = nodes.machine_of("peer5").entries
        assert len(written) > 200
        assert [key for key in written if key not in entries] == []


async def test_the_leader_removes_itself_and_hands_over() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        await leader.remove_peer(leader.name)
        follower = await other_than(nodes, leader.name)
        after = await nodes.leader(other_than=leader.address)
        assert leader.name not in kinds(after)
        assert await after.write(KV.set, "foo", "bar") == "bar"
        assert follower.name in kinds(after)


@pytest.mark.covers("pitfall 48")
async def test_a_removed_peer_is_told_says_so_and_does_not_disturb() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        gone = await other_than(nodes, leader.name)
        term = leader.status().term
        await leader.remove_peer(gone.name)
        async with asyncio.timeout(5):
            while "it was removed from the group of" not in (gone.status().why or ""):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match=rf"{gone.name} cannot answer: it was removed from the group"):
            await gone.write(KV.set, "foo", "bar")
        with pytest.raises(Unavailable, match="join="):
            await gone.read(KV.get, "foo")
        await asyncio.sleep(3 * QUICK.election_timeout_max)
        assert (leader.status().role, leader.status().term) == ("leader", term)


async def test_a_replaced_machine_keeps_kind_and_priority() -> None:
    async with grown(4, 3) as nodes:
        leader = await nodes.leader()
        await leader.set_priority("peer3", -3)
        await leader.replace_peer("peer3", nodes.address("peer4"))
        leader = await nodes.leader()
        members = leader._seat.raft.state.configuration.members  # type: ignore[union-attr]
        assert [(m.address.name, m.priority) for m in members] == [("peer1", 0), ("peer2", 0), ("peer4", -3)]


async def test_a_member_takes_the_place_of_another_only_where_it_had_no_vote() -> None:
    async with grown(4, 3) as nodes:
        leader = await nodes.leader()
        with pytest.raises(InvalidConfiguration, match=r"peer2 is a voter .* already, .* or call remove_peer\('peer3'"):
            await leader.replace_peer("peer3", nodes.address("peer2"))
        assert len(leader.status().configuration) == 3
        await leader.add_peer(nodes.address("peer4"), kind="learner")
        with pytest.raises(InvalidConfiguration, match="peer2 is a voter of this group already"):
            await leader.replace_peer("peer4", nodes.address("peer2"))
        other = await other_than(nodes, leader.name)
        await leader.replace_peer(other.name, nodes.address("peer4"))
        assert len(leader.status().configuration) == 3


@pytest.mark.covers("pitfall 76")
async def test_a_lost_disk_is_replaced_under_the_same_name() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        await leader.write(KV.set, "foo", "bar")
        lost = (await other_than(nodes, leader.name)).name
        await nodes.stop(lost)
        await nodes.start(lost)
        await leader.replace_peer(lost, nodes.address(lost))
        await nodes.converge()
        assert nodes.machine_of(lost).entries == {"foo": "bar"}
        assert len(leader.status().configuration) == 3


async def test_the_preferred_peer_comes_to_lead() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        other = await other_than(nodes, leader.name)
        await leader.set_priority(other.name, 5)
        assert (await nodes.leader(other_than=leader.address)) is other
        with pytest.raises(ValueError, match="a priority must be from"):
            await other.set_priority(other.name, 10**9)
        with pytest.raises(TypeError, match="a priority must be a whole number, not '5'"):
            await other.set_priority(other.name, "5")  # type: ignore[arg-type]


async def test_what_is_so_already_is_done_at_once() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        await leader.set_configuration(*nodes.addresses[:2])
        leader = await nodes.leader()
        index = leader.status().last_index
        await leader.set_configuration(*reversed(nodes.addresses[:2]))
        await leader.add_peer(nodes.addresses[0])
        await leader.change_address("peer2", nodes.addresses[1].node)
        assert leader.status().last_index == index


async def test_a_newcomer_that_does_not_run_is_named_at_once() -> None:
    async with grown(1, 1) as nodes:
        (port,) = free_ports(1)
        with pytest.raises(Unavailable, match=rf"peer9@127.0.0.1:{port} must run before .* refuses the connection"):
            await nodes.peers["peer1"].add_peer(f"peer9@127.0.0.1:{port}")
        assert kinds(nodes.peers["peer1"]) == {"peer1": "voter"}


@pytest.mark.covers("pitfall 50")
def test_a_newcomer_that_does_not_answer_is_asked_no_longer_than_the_call_may_take() -> None:
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", nodes=1)
        silent = world.nodes[1].address
        world.network.isolate(silent)
        hasty = leader.with_options(timeout=0.3)
        changes = hasty.add_peer, partial(hasty.set_configuration, leader.address), partial(hasty.replace_peer, "a")
        for change in changes:
            before = world.loop.time()
            with pytest.raises(Unavailable, match=f"b@{silent} must run .* no answer within"):
                await change(f"b@{silent}")
            assert world.loop.time() - before <= 0.3 + DELAY

    run_world(2, Settings(), tell)


async def test_a_newcomer_that_stops_while_it_catches_up_is_given_up() -> None:
    async with grown(2, 1) as nodes:
        peer, id_ = nodes.peers["peer1"], nodes.peers["peer2"].status().id
        await nodes.stop("peer2")
        current = peer._seat.raft.state.configuration
        assert current is not None
        wanted = (*current.members, Member(id_, nodes.address("peer2")))
        call = ChangeCall(current.members, wanted, 10.0)
        with pytest.raises(Unavailable, match=r"peer2 at .* has not answered for 0.8 s.*the members are as they were"):
            await peer._membership.ask(peer.address, call, asyncio.get_running_loop().time() + 10)
        assert kinds(peer) == {"peer1": "voter"}
        assert await peer.write(KV.set, "foo", "bar") == "bar"


@pytest.mark.covers("pitfall 56")
async def test_a_second_change_is_refused_while_one_is_under_way_and_the_same_one_is_waited_for() -> None:
    async with grown(3, 1) as nodes:
        peer, id_ = nodes.peers["peer1"], nodes.peers["peer2"].status().id
        await nodes.stop("peer2")
        current = peer._seat.raft.state.configuration
        assert current is not None
        wanted = (*current.members, Member(id_, nodes.address("peer2")))
        until = asyncio.get_running_loop().time() + 10
        waits = [
            asyncio.create_task(peer._membership.ask(peer.address, ChangeCall(current.members, wanted, 10.0), until))
            for _ in range(2)
        ]
        await asyncio.sleep(0.1)
        assert [(m.address.name, m.kind, m.becomes) for m in peer.status().members] == [
            ("peer1", "voter", "voter"),
            ("peer2", "learner", "voter"),
        ]
        with pytest.raises(ChangeInProgress):
            await peer.add_peer(nodes.address("peer3"))
        for wait in waits:
            with pytest.raises(Unavailable, match="peer2"):
                await wait
        await peer.add_peer(nodes.address("peer3"))
        assert kinds(peer) == {"peer1": "voter", "peer3": "voter"}


async def test_of_two_who_change_at_once_none_undoes_the_other() -> None:
    async with grown(5, 3) as nodes:

        async def add(asked: str, name: str) -> None:
            while True:
                try:
                    return await nodes.peers[asked].add_peer(nodes.address(name))
                except ChangeInProgress:
                    await asyncio.sleep(0.02)

        await asyncio.gather(add("peer1", "peer4"), add("peer2", "peer5"))
        leader = await nodes.leader()
        assert len(leader.status().configuration) == 5


async def test_a_leader_that_is_lost_on_the_way_leaves_the_outcome_open() -> None:
    async with grown(4, 3) as nodes:
        leader = await nodes.leader()
        asked = await other_than(nodes, leader.name, "peer4")
        id_ = nodes.peers["peer4"].status().id
        await nodes.stop("peer4")
        current = leader._seat.raft.state.configuration
        assert current is not None
        wanted = (*current.members, Member(id_, nodes.address("peer4")))
        until = asyncio.get_running_loop().time() + 10
        change = asyncio.create_task(
            asked._membership.ask(leader.address, ChangeCall(current.members, wanted, 10.0), until)
        )
        await asyncio.sleep(0.1)
        await nodes.stop(leader.name)
        with pytest.raises(OutcomeUnknown, match=r"the change goes on|may go on"):
            await change


def test_a_leader_that_is_deposed_on_the_way_does_not_say_that_nothing_was_changed() -> None:
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")  # Now it knows what is committed.
        state, waiter = leader._seat.raft.state, Noted()
        assert state.configuration is not None
        current = state.configuration.members
        newcomer = Member(PeerId("newcomer"), Address("d", "10.0.0.9", 7000))
        leader._seat.run(ChangeMembers(waiter, current, (*current, newcomer)))
        await world.until(lambda: len(leader.status().members) == 4)
        world.network.isolate(address_of(leader))
        await world.until(lambda: leader.status().role != "leader")
        assert [type(told) for told in waiter.told] == [OutcomeUnknown]
        assert "the change goes on under the next leader" in str(waiter.told[0])

    run_world(3, Settings(), tell)


async def test_a_deadline_that_passes_leaves_the_outcome_open() -> None:
    async with grown(2, 1) as nodes:
        peer, id_ = nodes.peers["peer1"], nodes.peers["peer2"].status().id
        await nodes.stop("peer2")
        current = peer._seat.raft.state.configuration
        assert current is not None
        wanted = (*current.members, Member(id_, nodes.address("peer2")))
        call = ChangeCall(current.members, wanted, 0.1)
        with pytest.raises(OutcomeUnknown, match="catching up: peer2"):
            await peer._membership.ask(peer.address, call, asyncio.get_running_loop().time() + 5)


async def test_without_a_leader_nothing_is_changed_and_who_was_asked_is_named() -> None:
    async with grown(3, 3) as nodes:
        leader = await nodes.leader()
        left = await other_than(nodes, leader.name)
        for name in [name for name in nodes.peers if name != left.name]:
            await nodes.stop(name)
        async with asyncio.timeout(5):
            while left.status().leader is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="no leader of the group was found in time"):
            await left.with_options(timeout=1.0).remove_peer(leader.name)


async def test_what_cannot_be_is_refused_with_a_reason() -> None:
    async with grown(3, 2) as nodes, cluster(KV, 1) as other:
        leader = await nodes.leader()
        await other.start("peer1")
        with pytest.raises(InvalidConfiguration, match="peer9 is no member of the group"):
            await leader.remove_peer("peer9")
        with pytest.raises(InvalidConfiguration, match="the name peer1 is in use by another peer"):
            await leader.add_peer(Address("peer1", "127.0.0.1", other.addresses[0].port))
        with pytest.raises(InvalidConfiguration, match="needs a voter"):
            await leader.set_configuration()
        await leader.add_peer(nodes.address("peer3"), kind="learner")
        with pytest.raises(InvalidConfiguration, match="cannot change to or from a witness"):
            await leader.add_peer(nodes.address("peer3"), kind="witness")
        with pytest.raises(InvalidConfiguration, match="peer2 is named more than once"):
            await leader.set_configuration("peer2@127.0.0.1:1", "peer2@127.0.0.1:2")
        with pytest.raises(ValueError, match="'boss' is no kind of member"):
            await leader.add_peer(nodes.address("peer3"), kind="boss")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="host:port"):
            await leader.change_address("peer1", "nowhere")


async def test_a_member_of_another_group_or_with_another_machine_is_refused() -> None:
    async with grown(1, 1) as nodes, cluster(KV, 2) as other:
        await other.start("peer1")
        await other.start("peer2")
        await other.peers["peer2"].set_configuration(other.address("peer2"))
        leader = nodes.peers["peer1"]
        with pytest.raises(InvalidConfiguration, match=r"peer2@.* already belongs to another .*; if its data is not"):
            await leader.add_peer(other.address("peer2"))
        (port,) = free_ports(1)
        async with Node(f"127.0.0.1:{port}", store="memory", settings=QUICK) as node:
            await node.start_peer(Stack, name="stack")
            with pytest.raises(InvalidConfiguration, match=r"stack runs Stack, and the group of peer1@.* runs KV"):
                await leader.add_peer(f"stack@127.0.0.1:{port}")


async def test_an_empty_peer_and_one_that_has_stopped_change_nothing() -> None:
    async with cluster(KV, 1) as nodes:
        peer = await nodes.start("peer1")
        with pytest.raises(InvalidConfiguration, match="belongs to no group yet"):
            await peer.remove_peer("peer1")
        await peer.stop()
        with pytest.raises(Stopped):
            await peer.remove_peer("peer1")


@pytest.mark.parametrize(
    "members",
    [
        (Member(PeerId("x"), Address("peer2", "", 7)),),
        (Member(PeerId("x"), Address("peer2", "a b", 7)),),
        (Member(PeerId("x" * 65), Address("peer2", "h", 7)),),
        (Member(PeerId(""), Address("peer2", "h", 7)),),
        (Member(PeerId("x"), Address("peer2", "h" * 400, 7)),),
        (Member(PeerId("x"), Address("peer2", "h", 7), "voter", 2**40),),
        tuple(Member(PeerId(f"x{n}"), Address(f"peer{n}", "h", 7)) for n in range(101)),
    ],
    ids=["no host", "spaces", "long id", "no id", "long host", "priority", "too many"],
)
async def test_garbage_from_the_network_is_refused_with_one_error(members: tuple[Member, ...]) -> None:
    async with grown(1, 1) as nodes:
        peer = nodes.peers["peer1"]
        channel = await nodes.nodes["peer1"]._running().transport.connect(peer.address.node)
        current = peer._seat.raft.state.configuration
        assert current is not None
        reply = await channel.call(Request(0, "peer1", ChangeCall(current.members, members, 1.0)))
        await channel.close()
        assert isinstance(reply.answer, Failure)
        assert (reply.answer.error, "cannot be the members of a group" in reply.answer.message) == (
            "InvalidConfiguration",
            True,
        )
        assert kinds(peer) == {"peer1": "voter"}


def test_a_witness_that_is_removed_while_it_lags_is_told_so_and_sent_no_commands():
    """Who tells it goes by the configuration in force, and that does not name it any more."""

    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c", nodes=3)
        witness = await world.nodes[3].start_peer(KV, name="w")
        await peers[0].add_peer(witness.address, kind="witness")
        world.network.isolate(address_of(witness))
        for n in range(5):
            await peers[0].write(KV.set, f"key{n}", "value")
        await peers[0].remove_peer("w")
        world.network.cut.clear()
        await world.until(lambda: len(witness.status().members) == 3)
        state = witness._seat.raft.state
        held = await world.nodes[3]._disk.load("w", runs.append)
        assert held.last == state.log.last
        assert [run.kind for run in runs if run.kind is Kind.COMMAND] == []
        assert witness._seat.apply.machine.entries == {}

    runs: list[Run] = []
    run_world(4, Settings(), tell)
