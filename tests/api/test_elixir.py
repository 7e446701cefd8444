"""The tests of toniqsystems/raft, by behaviour, and the two that it left empty; research of its faults beside them.

Where the original retries a timed-out ``pop`` as if it had not happened, and swallows exits, these do neither.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from quorate import NotLeader, OutcomeUnknown, QuorateError, Rejected, connect
from quorate.core.election import is_up_to_date
from quorate.core.log import Log
from quorate.core.quorum import reached_by_quorum
from quorate.core.state import State, draw_election_deadline
from quorate.machines import Stack
from quorate.settings import Settings
from quorate.types import Index, PeerId, Term

from .cluster import SETTINGS, cluster


@pytest.mark.covers("toniqsystems/raft starting a cluster")
async def test_starting_a_cluster() -> None:
    """Peers start without a configuration, one is told of the others, and all agree on the leader."""
    async with cluster(Stack) as nodes:
        for address in nodes.addresses:
            peer = await nodes.start(address.name)
            assert (peer.status().role, peer.status().configuration) == ("follower", ())
        await nodes.peers["peer1"].set_configuration(*nodes.addresses)
        leaders = {await peer.leader() for peer in nodes.peers.values()}
        assert len(leaders) == 1
        assert {peer.status().configuration for peer in nodes.peers.values()} == {tuple(nodes.addresses)}


@pytest.mark.covers("toniqsystems/raft log replication with 3 servers")
async def test_log_replication_with_three_servers() -> None:
    """What is written to the leader stands in every log, and is applied by every machine."""
    async with cluster(Stack) as nodes:
        leader = await nodes.form()
        for value in range(1, 6):
            assert await leader.write(Stack.put, value) == value
        assert await leader.write(Stack.pop) == 5
        await nodes.converge()
        assert [nodes.machine_of(name).values for name in nodes.peers] == [[1, 2, 3, 4]] * 3


@pytest.mark.covers("toniqsystems/raft leader failure")
async def test_leader_failure() -> None:
    """The leader dies, another is elected, and the old one follows it when it returns."""
    async with cluster(Stack) as nodes:
        leader = await nodes.form()
        await leader.write(Stack.put, 1)
        await nodes.stop(leader.name)
        successor = await nodes.leader()
        assert successor.address != leader.address
        await successor.write(Stack.put, 2)
        assert [await successor.write(Stack.pop), await successor.write(Stack.pop)] == [2, 1]
        with pytest.raises(Rejected, match="empty"):
            await successor.write(Stack.pop)
        follower = next(peer for peer in nodes.peers.values() if peer is not successor)
        await follower.leader(other_than=leader.address)
        with pytest.raises(NotLeader) as refused:
            await follower.write(Stack.put, 3)
        assert refused.value.redirect == successor.address


@pytest.mark.covers("toniqsystems/raft up_to_date?/4")
def test_up_to_date() -> None:
    """Term first, then index: the original compares them the wrong way round."""
    state = State(PeerId("a"), Settings(), lambda: 0.5, 0.0)
    state.log = Log(starts=[Index(1), Index(4)], terms=[Term(1), Term(2)], last=Index(5))  # ends with index 5 of term 2
    judged = [is_up_to_date(state, Term(t), Index(i)) for t, i in ((1, 9), (2, 4), (2, 5), (2, 6), (3, 1))]
    assert judged == [False, False, True, True, True]


@pytest.mark.covers("toniqsystems/raft quorum_max/2")
@pytest.mark.parametrize(("held", "agreed"), [([1, 2, 3], 2), ([1, 2, 3, 4], 2), ([5, 0, 5, 1, 3], 3)])
def test_quorum_max(held: list[float], agreed: float) -> None:
    """The highest index that a majority holds."""
    assert reached_by_quorum([range(len(held))], held.__getitem__) == agreed


@pytest.mark.covers("toniqsystems/raft election_timeout/1")
def test_election_timeout_is_drawn_between_its_bounds() -> None:
    """And drawn anew, differently, each time."""
    state = State(PeerId("a"), Settings(), random.Random(7).random, 100.0)
    drawn = set()
    for _ in range(500):
        draw_election_deadline(state)
        drawn.add(state.election_deadline)
    assert 100.3 <= min(drawn) < max(drawn) < 100.6
    assert len(drawn) == 500


async def test_leader_partition_leaves_one_side_that_writes() -> None:
    """The original's test of this name is skipped and empty; partitions proper are the simulator's. Here: no quorum."""
    async with cluster(Stack) as nodes:
        leader = await nodes.form()
        await leader.write(Stack.put, 1)
        await nodes.leave_alone(leader)
        async with asyncio.timeout(10):
            while leader.status().role == "leader":  # noqa: ASYNC110 - nobody tells a test
                await asyncio.sleep(0.01)
        with pytest.raises(NotLeader):
            await leader.write(Stack.put, 2)
        why = leader.status().why or ""
        assert "no answer from" in why or "election" in why, why


@pytest.mark.covers("toniqsystems/raft node shutdowns")
async def test_node_shutdowns_under_random_put_and_pop_on_five_peers(tmp_path: Path) -> None:
    """The original's fuzzy test: bursts of commands while random nodes stop and return; at the end all machines agree
    with the acknowledged commands.
    """
    chance = random.Random(11)
    async with cluster(Stack, 5, tmp_path) as nodes:
        await nodes.form()
        stopping = asyncio.Event()
        history: list[tuple[str, int, bool]] = []

        async def apply_commands() -> None:
            number = 0
            async with connect(Stack, *nodes.addresses, settings=SETTINGS) as stack:
                while not stopping.is_set():
                    number += 1
                    is_put = chance.random() < 0.7
                    try:
                        if is_put:
                            await stack.write(Stack.put, number)
                            history.append(("put", number, True))
                        else:
                            history.append(("pop", await stack.write(Stack.pop), True))
                    except Rejected:
                        pass  # the stack was empty: that is an answer
                    except OutcomeUnknown:
                        history.append(("put" if is_put else "pop", number, False))
                    except QuorateError:
                        pass  # it certainly did not happen

        applier = asyncio.create_task(apply_commands())
        for _ in range(6):
            name = chance.choice(sorted(nodes.peers))
            await asyncio.sleep(0.1)
            await nodes.stop(name)
            await asyncio.sleep(0.3)
            await nodes.start(name)
        while len(history) <= 50:  # noqa: ASYNC110 - a busy machine may take longer to have something to check
            await asyncio.sleep(0.1)
        stopping.set()
        await applier
        leader = await nodes.leader()
        await leader.write(Stack.put, 0)
        await nodes.converge()
        stacks = [nodes.machine_of(name).values for name in nodes.peers]
        assert all(values == stacks[0] for values in stacks), "all machines are alike"
        check_stack(history, stacks[0][:-1])


def check_stack(history: list[tuple[str, int, bool]], values: list[int]) -> None:
    """Check the stack against the history of its only client."""
    put = [number for kind, number, _ in history if kind == "put"]
    popped = [number for kind, number, known in history if kind == "pop" and known]
    unknown = sum(not known for _, _, known in history)
    assert len(popped) == len(set(popped)), "nothing was popped twice"
    assert len(values) == len(set(values)), "nothing was put twice"
    assert not set(values) & set(popped), "what was popped is gone"
    assert set(values) | set(popped) <= set(put), "nothing is there that was not put"
    missing = {number for kind, number, known in history if kind == "put" and known} - set(values) - set(popped)
    assert len(missing) <= unknown, "what is missing was popped by a command whose outcome was not learned"
    assert len(history) > 50, "the run was not empty"
