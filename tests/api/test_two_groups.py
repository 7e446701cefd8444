"""Two groups that want one and the same empty peer: whoever comes first has it, and nothing of the other gets in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quorate import Address, Settings
from quorate.calling import describe
from quorate.core.configuration import Configuration, Member, encode_configuration
from quorate.core.messages import AppendEntries, InstallSnapshot
from quorate.machines import KV
from quorate.seat import Seat
from quorate.store.snapshots import stateless
from quorate.transport import Packet
from quorate.transport.calls import Reply, Request, SnapshotCall
from quorate.types import Index, Kind, PeerId, Run, Snapshot, Term
from tests.api.virtual import World, run_world

LEADERS = {"one": PeerId("leader of one"), "two": PeerId("leader of two")}


def configuration(group: str, newcomer: PeerId) -> Configuration:
    members = (Member(LEADERS[group], Address("a", f"{group}.invalid", 1)), Member(newcomer, Address("b", "b", 1)))
    return Configuration(group, members)


def entries(group: str, newcomer: PeerId, *keys: str) -> Packet:
    """Give what a leader of term 2 sends to an empty peer: its configuration, its no-op, and writes of these keys."""
    term, writes = Term(2), tuple(describe(KV).encode_write(KV.set, (key, group)) for key in keys)
    first = Run(Term(1), Index(1), Kind.CONFIGURATION, 0.0, (encode_configuration(configuration(group, newcomer)),))
    runs = (first, Run(term, Index(2), Kind.NOOP, 0.0, (b"",)), Run(term, Index(3), Kind.COMMAND, 0.0, writes))
    message = AppendEntries(term, LEADERS[group], Index(0), Term(0), Index(0), 0, runs)
    return Packet(group, LEADERS[group], newcomer, message)


def piece(group: str, newcomer: PeerId) -> SnapshotCall:
    """Give the only piece of a snapshot of what is far beyond that."""
    payload = encode_configuration(configuration(group, newcomer))
    snapshot = Snapshot(Index(100), Term(2), 1.0, Index(1), payload, is_bare=True)
    content = stateless(snapshot)
    return SnapshotCall(group, InstallSnapshot(Term(2), LEADERS[group], snapshot), len(content), 0, content)


def with_newcomer(tell: Callable[[World, Seat, PeerId], Awaitable[None]]) -> None:
    """Start an empty peer, and do what the test says."""

    async def begin(world: World) -> None:
        peer = await world.nodes[0].start_peer(KV, name="b")
        await tell(world, peer._seat, peer.status().id)

    run_world(1, Settings(), begin)


def test_entries_of_two_groups_that_come_in_one_turn_are_not_mixed():
    """Each log begins with a configuration at index 1 in term 1: what follows seemed to follow either of them."""

    async def tell(world: World, seat: Seat, newcomer: PeerId) -> None:
        world.nodes[0].receive_packets("one.invalid:1", [entries("one", newcomer, "x")])
        world.nodes[0].receive_packets("two.invalid:1", [entries("two", newcomer, "y", "z")])
        await asyncio.sleep(0.1)
        assert seat.raft.status().group == "one"
        assert seat.raft.state.log.last == 3, "what the first group has written, and no more"

    with_newcomer(tell)


@pytest.mark.parametrize(("seconds", "taken", "last"), [(0.001, "two", 100), (0.05, "one", 3)])
def test_a_snapshot_that_is_verified_while_another_group_takes_the_peer_is_not_installed(seconds, taken, last):
    """It dropped all that the peer had acknowledged to its group."""

    async def tell(world: World, seat: Seat, newcomer: PeerId) -> None:
        replies: list[Reply] = []
        world.asides[0].seconds = seconds
        world.nodes[0].receive_requests([Request(1, "b", piece("two", newcomer))], replies.append)
        await asyncio.sleep(0.02)
        world.nodes[0].receive_packets("one.invalid:1", [entries("one", newcomer, "x")])
        await asyncio.sleep(0.2)
        assert len(replies) == 1
        assert (seat.raft.status().group, seat.raft.state.log.last) == (taken, last)

    with_newcomer(tell)
