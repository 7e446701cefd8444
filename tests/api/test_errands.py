"""Whoever asks for a change of members is told how it ended, though the next change begins in the same turn."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from quorate import Address, Peer, Settings, Unavailable
from quorate.core import Member
from quorate.core.configuration import Members
from quorate.core.messages import AppendEntriesReply
from quorate.errands import ChangeMembers
from quorate.machines import KV
from quorate.transport import Packet
from quorate.types import MemberKind, PeerId

from .test_apply import Noted
from .virtual import World, run_world


def newcomer(name: str, kind: MemberKind) -> Member:
    """Make one that nobody reaches."""
    return Member(PeerId(name), Address(name, "10.0.0.9", 7000), kind)


def members_of(leader: Peer[KV]) -> Members:
    configuration = leader._seat.raft.state.configuration
    assert configuration is not None
    return configuration.members


def when_committed(
    monkeypatch: pytest.MonkeyPatch, leader: Peer[KV], index: int, act: Callable[[], None]
) -> list[Callable[[], None]]:
    """Do something right behind the acknowledgement that commits an entry, in the same turn; give what is yet to do."""
    seat, receive, left = leader._seat, leader._seat.receive, [act]

    def behind(source: str, packet: Packet) -> None:
        receive(source, packet)
        message = packet.message
        if left and isinstance(message, AppendEntriesReply) and message.success and message.match_index >= index:
            assert seat.raft.state.commit_index < index
            left.pop()()

    monkeypatch.setattr(seat, "receive", behind)
    return left


def test_a_change_that_is_done_is_told_though_the_next_one_begins_in_the_turn_that_commits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")  # Now it knows what is committed.
        first, second, seat = Noted(), Noted(), leader._seat
        before = members_of(leader)
        then = (*before, newcomer("d", "learner"))
        index = leader.status().last_index + 1
        next_one = ChangeMembers(second, then, (*then, newcomer("e", "learner")))
        left = when_committed(monkeypatch, leader, index, lambda: seat.run(next_one))
        seat.run(ChangeMembers(first, before, then))
        await world.until(lambda: second.told)
        assert (first.told, second.told, left) == ([None], [None], [])
        assert len(members_of(leader)) == 5

    run_world(3, Settings(), tell)


def test_a_change_that_was_given_up_is_told_with_its_reason_though_the_next_one_begins_in_that_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")
        first, second, seat = Noted(), Noted(), leader._seat
        before = members_of(leader)
        index = leader.status().last_index + 2  # behind the one that begins the change
        next_one = ChangeMembers(second, before, (*before, newcomer("e", "learner")))
        left = when_committed(monkeypatch, leader, index, lambda: seat.run(next_one))
        seat.run(ChangeMembers(first, before, (*before, newcomer("d", "voter"))))
        await world.until(lambda: second.told)
        assert (second.told, left) == ([None], [])
        [told] = first.told
        assert isinstance(told, Unavailable)
        assert "d at 10.0.0.9:7000 has not answered for 1 s" in str(told)

    run_world(3, msgspec.structs.replace(Settings(), catch_up_timeout=1.0), tell)


def test_members_that_are_as_they_should_be_are_told_so_though_the_next_change_begins_at_once() -> None:
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")
        first, second, seat = Noted(), Noted(), leader._seat
        before = members_of(leader)
        seat.run(ChangeMembers(first, before, before))
        seat.run(ChangeMembers(second, before, (*before, newcomer("d", "learner"))))
        await world.until(lambda: second.told)
        assert (first.told, second.told) == ([None], [None])

    run_world(3, Settings(), tell)
