"""The fuzzy tests of hashicorp/raft, retold: five peers under load, and what is done to them meanwhile.

What they all demand is demanded at each step by the invariants of the simulator: the same entries in every log, every
acknowledged write among them, the same sequence applied everywhere.
"""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import QuorateError
from quorate.testing.network import between
from quorate.testing.process import Process

from .story import TIMEOUT, Story, run

SEEDS = pytest.mark.parametrize("seed", range(2))
SPAN = 5 * TIMEOUT
"""How long clients write and read, virtual seconds."""


@SEEDS
@pytest.mark.covers("hashicorp/raft NoIssueSanity")
def test_no_issue_sanity(seed: int) -> None:
    async def tell(story: Story) -> None:
        leader = await story.leader()
        term = story.term(leader)
        await asyncio.sleep(SPAN)
        assert await story.leader() is leader
        assert {story.term(process) for process in story.processes} == {term}

    report = run(seed, 5, tell, load=SPAN)
    assert set(report.outcomes) <= {"ok", "Rejected", "cancelled", "NotLeader"}  # the last of those who ask a follower
    assert report.outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft LeadershipTransfer", "pitfall 82")
def test_leadership_transfer(seed: int) -> None:
    """And after each, whether it succeeded or not, somebody leads within two election timeouts."""

    async def tell(story: Story) -> None:
        handed_over = 0
        for _ in range(10):
            leader = await story.leader()
            target = story.chance.choice(story.others(leader))
            is_hung = story.chance.random() < 0.3
            if is_hung:
                target.pause()
            try:
                await story._peer(leader).transfer_leadership(target.name)
                handed_over += 1
            except QuorateError:
                assert is_hung
            begun = story.loop.time()
            await story.reach(lambda: bool(story.leaders()), "a leader after a transfer")
            assert story.loop.time() - begun < 2 * TIMEOUT
            target.resume()
            await asyncio.sleep(0.2)
        assert handed_over > 3

    assert run(seed, 5, tell, load=SPAN).outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft LeaderPartitions")
def test_leader_partitions(seed: int) -> None:
    """The leader is cut off, with one other at times."""

    async def tell(story: Story) -> None:
        for _ in range(4):
            leader = await story.leader()
            mates = story.chance.sample(story.others(leader), story.chance.randrange(2))
            sides = [leader, *mates], story.others(leader, *mates)
            story.network.cut(between(*([process.address.node for process in side] for side in sides)))
            await asyncio.sleep(story.chance.uniform(0.5, 3.0) * TIMEOUT)
            story.network.heal()

    assert run(seed, 5, tell, load=SPAN).outcomes["ok"] > 5


async def crash_leaders(story: Story) -> None:
    """Crash one leader after another, each until the next one leads."""
    for _ in range(3):
        leader = await story.leader()
        leader.crash()
        await story.leader()
        await leader.start()


@SEEDS
@pytest.mark.covers("hashicorp/raft SlowSendVote")
def test_slow_send_vote(seed: int) -> None:
    async def tell(story: Story) -> None:
        story.slow_down({"prevote", "vote"}, 0.05)
        await crash_leaders(story)

    assert run(seed, 5, tell, load=SPAN).outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft SlowRecvVote")
def test_slow_recv_vote(seed: int) -> None:
    async def tell(story: Story) -> None:
        story.slow_down({"prevoted", "voted"}, 0.05)
        await crash_leaders(story)

    assert run(seed, 5, tell, load=SPAN).outcomes["ok"] > 20


# Members come and go.


@SEEDS
@pytest.mark.covers("hashicorp/raft AddMembership")
def test_add_membership(seed: int) -> None:
    async def tell(story: Story) -> None:
        for process in story.spare():
            await story.add(process)
            await asyncio.sleep(story.chance.uniform(0.0, TIMEOUT))
        await story.agree(5)
        leader = await story.leader()
        assert len(story._peer(leader).status().configuration) == 5

    report = run(seed, 3, tell, load=SPAN, spares=2)
    assert report.outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft AddRemoveNodesNotLeader")
def test_add_remove_nodes_not_leader(seed: int) -> None:
    """Each that goes comes back with an empty disk, and the leader stays."""

    async def tell(story: Story) -> None:
        leader = await story.leader()
        term = story.term(leader)
        for process in story.spare():
            gone = story.chance.sample(story.others(leader), 2)
            for one in gone:
                await story._peer(leader).remove_peer(one.name)
            await story.agree(3)
            await story.add(process)
            for one in gone:
                one.wipe()
                await story.add(one)
            await story._peer(leader).remove_peer(process.name)
        await story.agree(5)
        assert (await story.leader(), story.term(leader)) == (leader, term)
        assert len(story.others(leader)) == 4

    report = run(seed, 5, tell, load=SPAN, spares=1)
    assert report.outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft RemoveLeader", "pitfall 47")
def test_remove_leader(seed: int) -> None:
    """From five down to two; those removed hear of it, and disturb nobody."""

    async def tell(story: Story) -> None:
        removed: list[Process] = []
        for _ in range(3):
            leader = await story.leader()
            await story._peer(leader).remove_peer(leader.name)
            removed.append(leader)
            assert await story.leader() not in removed
        leader = await story.leader()
        assert len(story.others(leader)) == 1
        term = story.term(leader)
        await asyncio.sleep(5 * TIMEOUT)
        assert (await story.leader(), story.term(leader)) == (leader, term)

    report = run(seed, 5, tell, load=SPAN)
    assert report.outcomes["ok"] > 20


@SEEDS
@pytest.mark.covers("hashicorp/raft RemovePartitionedNode", "pitfall 48")
def test_remove_partitioned_node(seed: int) -> None:
    """It never heard of its removal, and disturbs nobody when it is back; as a new peer it becomes a member again."""

    async def tell(story: Story) -> None:
        for _ in range(2):
            leader = await story.leader()
            gone = story.chance.choice(story.others(leader))
            story.cut_off(gone)
            await story._peer(leader).remove_peer(gone.name)
            await asyncio.sleep(2 * TIMEOUT)
            term = story.term(leader)
            story.connect(gone)
            await asyncio.sleep(2 * TIMEOUT)
            assert (await story.leader(), story.term(leader)) == (leader, term)
            assert gone not in story.members()
            gone.wipe()
            await story.add(gone)
            await story.agree(5)

    report = run(seed, 5, tell, load=SPAN)
    assert report.outcomes["ok"] > 20
