"""Watching: each event once, in the order of the log, over lost connections, crashes and changes of the leader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from quorate import (
    Change,
    Client,
    Compacted,
    Event,
    Peer,
    Settings,
    StateMachine,
    Stopped,
    Unavailable,
    Watch,
    connect,
    write,
)
from quorate.machines import KV
from quorate.serving import WATCH_SECONDS_MAX, carry_out
from quorate.transport.calls import Failure, Reply, Request, WatchCall
from quorate.transport.memory import MemoryTransport
from tests.api.cluster import cluster
from tests.api.virtual import World, address_of, run_world


class Added(Event):
    number: int


class Reset(Event):
    pass


class Counter(StateMachine):
    emits = (Added, Reset)
    total: int

    def __init__(self) -> None:
        self.total = 0

    @write
    def add(self, number: int) -> int:
        self.total += number
        self.emit(Added(number))
        return self.total

    @write
    def reset(self) -> None:
        self.total = 0
        self.emit(Reset())


SETTINGS = Settings(call_timeout=5.0)


def client_of(world: World, peers: list[Peer[Any]], machine: type[Any] = Counter, **options: Any) -> Client[Any]:
    """Connect to a group of the world."""
    transport = partial(MemoryTransport, world.network, "client:1", world.settings)
    addresses = [peer.address for peer in peers]
    return connect(
        machine, *addresses, settings=world.settings, transport=transport, random=Random(3).random, **options
    )


async def numbers_of(watch: Watch[Added], count: int) -> list[int]:
    """Take so many events, and give their numbers."""
    found: list[int] = []
    async with asyncio.timeout(600):
        while len(found) < count:
            found.append((await anext(watch)).event.number)
    return found


# What is seen.


def test_what_is_written_after_the_watch_began_is_seen_in_the_order_of_the_log():
    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        await kv.write(Counter.add, 1)
        async with kv.watch() as watch:
            await asyncio.gather(*(kv.write(Counter.add, number) for number in range(2, 30)))
            await kv.write(Counter.reset)
            changes = [await anext(watch) for _ in range(29)]
        assert [change.event for change in changes] == [*(Added(number) for number in range(2, 30)), Reset()]
        indexes = [change.index for change in changes]
        assert indexes == sorted(set(indexes))
        assert {change.place for change in changes} == {0}
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_what_was_acknowledged_before_is_not_seen_though_the_peer_asked_has_not_applied_it():
    async def tell(world: World) -> None:
        leader, one, two = await world.form(Counter, "peer1", "peer2", "peer3")
        world.network.isolate(address_of(one))
        for number in range(5):
            await leader.write(Counter.add, number)
        world.network.cut.clear()
        kv = client_of(world, [one, two, leader])
        async with kv.watch(Added) as watch:
            await leader.write(Counter.add, 99)
            assert await numbers_of(watch, 1) == [99]
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_a_watch_begins_behind_an_index_or_a_change():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        for number in range(5):
            await kv.write(Counter.add, number)
        for watched in (kv, peer):
            changes = [change async for change in limited(watched.watch(Added, after=0), 5)]
            assert [change.event.number for change in changes] == [0, 1, 2, 3, 4]
            assert await numbers_of(watched.watch(Added, after=changes[2]), 2) == [3, 4]
            assert await numbers_of(watched.watch(Added, after=changes[2].index - 1), 3) == [2, 3, 4]
            with pytest.raises(ValueError, match="after must be an index, 0 or more, not -1"):
                watched.watch(after=-1)
        await kv.close()

    run_world(1, SETTINGS, tell)


async def limited(watch: Watch[Any], count: int) -> AsyncIterator[Change[Any]]:
    async for change in watch:
        yield change
        count -= 1
        if not count:
            return


def test_only_what_is_asked_for_is_seen_and_the_rest_is_not_asked_for_again():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        async with kv.watch(Reset) as resets:
            for number in range(10):
                await kv.write(Counter.add, number)
            await kv.write(Counter.reset)
            change = await anext(resets)
            assert (change.event, resets.after) == (Reset(), change.index)
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_a_watch_tells_how_far_it_has_come():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        watch = kv.watch(Added)
        assert watch.after is None
        async with watch:
            begin = watch.after
            assert begin == peer.status().last_applied
            await asyncio.gather(*(kv.write(Counter.add, number) for number in range(3)))
            await anext(watch)
            assert watch.after is not None
            assert await numbers_of(kv.watch(Added, after=watch.after), 2) == [1, 2]
        await kv.close()

    run_world(1, SETTINGS, tell)


@pytest.mark.parametrize("verb", ["client", "peer"])
def test_what_cannot_be_watched_is_refused_at_once(verb):
    class Other(Event):
        pass

    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        watched: Any = {"client": kv, "peer": peer}[verb]
        with pytest.raises(TypeError, match="Other'> cannot be watched: the machine emits Added, Reset"):
            watched.watch(Other)
        with pytest.raises(TypeError, match="cannot be watched"):
            watched.watch("Added")
        await kv.close()

    run_world(1, SETTINGS, tell)
    with pytest.raises(TypeError, match=r"the machine emits no events; name them: emits = \(Changed,\)"):
        connect(KV, "peer1@127.0.0.1:7001").watch()


# What may come between.


def test_a_watch_goes_on_at_another_peer_without_loss_or_repetition():
    """The peer asked falls silent, breaks the connection, or stops; leaders change; writes go on all the time."""

    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        writer = client_of(world, peers)
        watches = [kv.watch(Added, after=0) for _ in range(3)]
        seen = asyncio.gather(*(numbers_of(watch, 300) for watch in watches))
        for number in range(300):
            await writer.write(Counter.add, number)
            if number % 60 == 20:
                victim = peers[number // 60 % 3]
                world.network.isolate(address_of(victim))
                world.loop.call_later(3.0, world.network.cut.clear)
            if number % 60 == 40:
                leader = next(peer for peer in peers if peer.status().role == "leader")
                with contextlib.suppress(Unavailable):
                    await leader.transfer_leadership()
            await asyncio.sleep(0.05)
        assert await seen == [list(range(300))] * 3
        await kv.close()
        await writer.close()

    run_world(3, SETTINGS, tell)


def test_a_peer_that_is_cut_off_from_its_group_is_left_behind_the_timeout():
    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        follower = peers[1]
        kv = client_of(world, [follower, peers[0], peers[2]])
        watch = kv.watch(Added, after=0)
        seen = asyncio.create_task(numbers_of(watch, 1))
        await asyncio.sleep(0.1)
        others = [address_of(peer) for peer in peers if peer is not follower]
        for other in others:
            world.network.cut |= {(address_of(follower), other), (other, address_of(follower))}
        begun = world.loop.time()
        await peers[0].write(Counter.add, 7)
        assert await seen == [7]
        assert 1.0 < world.loop.time() - begun <= SETTINGS.call_timeout + 1.0
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_a_peer_that_was_removed_is_left_behind_the_timeout():
    """It is told that it was removed, and takes the leader for its own for an election timeout yet: a long one here."""

    async def tell(world: World) -> None:
        leader, other, removed = await world.form(Counter, "peer1", "peer2", "peer3")
        kv = client_of(world, [removed, leader, other])
        told = asyncio.create_task(numbers_of(kv.watch(Added, after=0), 2))
        await leader.write(Counter.add, 7)
        await leader.remove_peer(removed.name)
        begun = world.loop.time()
        await leader.remove_peer(other.name)
        await leader.write(Counter.add, 8)
        assert await told == [7, 8]
        assert world.loop.time() - begun < 3 * SETTINGS.call_timeout
        await kv.close()

    timeouts = {"election_timeout_min": 100.0, "election_timeout_max": 200.0, "catch_up_timeout": 300.0}
    run_world(3, msgspec.structs.replace(SETTINGS, **timeouts), tell)


def test_an_outage_ends_a_for_and_not_the_watch():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        async with kv.watch(Added) as watch:
            world.network.cut |= {("client:1", address_of(peer)), (address_of(peer), "client:1")}
            with pytest.raises(
                Unavailable,
                match=r"nobody answered within 6 s: 0 of 1 reachable; peer1 \(10.0.0.1:7000\) does not answer",
            ):
                await anext(watch)
            await peer.write(Counter.add, 7)
            world.network.cut.clear()
            assert await numbers_of(watch, 1) == [7]
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_who_asks_one_peer_alone_is_told_what_that_says():
    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2")
        kv = client_of(world, [peers[1], peers[0]], follow=False)
        watch = kv.watch(Added, after=0)
        await peers[0].write(Counter.add, 7)
        assert await numbers_of(watch, 1) == [7]
        await peers[1].stop()
        with pytest.raises(Unavailable):
            await anext(watch)
        await kv.close()

    run_world(2, SETTINGS, tell)


def test_a_garbled_answer_is_told_and_counts_for_nothing():
    class Other(StateMachine):
        emits = (type("Added", (Event,), {"__annotations__": {"text": "str"}}), Reset)

    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer], Other)
        watch = kv.watch(after=0)
        await peer.write(Counter.add, 7)
        for _ in range(2):
            with pytest.raises(Unavailable, match="the peer sent what is none of the events watched: Expected `str`"):
                await anext(watch)
        await kv.close()

    run_world(1, SETTINGS, tell)


# What is missed.


def test_whoever_was_away_too_long_is_told_where_events_begin_and_can_go_on_from_there():
    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        for number in range(100):
            await kv.write(Counter.add, number)
        await world.until(lambda: len({peer.status().last_applied for peer in peers}) == 1)
        for watched in (kv, peers[0]):
            with pytest.raises(Compacted) as raised:
                await anext(watched.watch(Added, after=0))
            first = raised.value.first
            numbers = await numbers_of(watched.watch(Added, after=first - 1), 3)
            assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
            assert numbers[0] > 50
        await kv.close()

    run_world(3, Settings(events_bytes_max=3000), tell)


@pytest.mark.parametrize("pause", [3.0, 40.0])
def test_a_watch_goes_on_when_all_machines_are_replaced_one_after_the_other(pause: float):
    """It learns who the members are now, as calls do."""

    async def tell(world: World) -> None:
        peers = await world.form(Counter, "a", "b", "c", nodes=3)
        kv = client_of(world, peers)
        watching = asyncio.create_task(numbers_of(kv.watch(Added), 10))
        await asyncio.sleep(1.0)
        current = await world.replace_all(peers, Counter, pause)
        for number in range(10):
            await next(peer for peer in current if peer.status().role == "leader").write(Counter.add, number)
        await world.until(watching.done)
        assert watching.result() == list(range(10))
        await kv.close()

    run_world(6, Settings(), tell)


def test_a_peer_that_lacks_the_past_sends_the_client_to_one_that_has_it():
    """A peer that was given a snapshot, or restarted from one, has no events before it; the others may."""

    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        late = peers[2]
        world.network.isolate(address_of(late))
        await asyncio.sleep(2.0)  # Its leader no longer keeps its log for it.
        for number in range(40):
            await peers[0].write(Counter.add, number)
        await peers[0].take_snapshot()
        await peers[1].take_snapshot()
        world.network.cut.clear()
        await world.until(lambda: late.status().last_applied == peers[0].status().last_applied)
        assert late._seat.apply.recent.first > (10, 0)
        kv = client_of(world, [late, peers[0], peers[1]])
        assert await numbers_of(kv.watch(Added, after=0), 40) == list(range(40))
        await kv.close()

    run_world(3, Settings(trailing_entries=0), tell)


def test_who_waits_when_a_snapshot_comes_in_misses_nothing_at_the_others():
    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        late = peers[2]
        kv = client_of(world, [late, peers[0], peers[1]])
        seen = asyncio.create_task(numbers_of(kv.watch(Added, after=0), 40))
        local = asyncio.create_task(numbers_of(late.watch(Added), 40))
        await asyncio.sleep(0.1)
        others = [address_of(peer) for peer in peers[:2]]
        for other in others:
            world.network.cut |= {(address_of(late), other), (other, address_of(late))}
        await asyncio.sleep(2.0)
        for number in range(40):
            await peers[0].write(Counter.add, number)
        await peers[0].take_snapshot()
        await peers[1].take_snapshot()
        world.network.cut.clear()
        assert await seen == list(range(40))
        with pytest.raises(Compacted):
            await local
        await kv.close()

    run_world(3, Settings(trailing_entries=0, call_timeout=60.0), tell)


@pytest.mark.parametrize("compacted", [False, True], ids=["log", "snapshot"])
def test_who_waits_at_a_peer_that_becomes_a_witness_misses_nothing_at_the_others(compacted: bool):
    """It was told that there was nothing, by one that learns of no events (seed 30825 of the simulator)."""

    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", nodes=2)
        newcomer = await world.nodes[2].start_peer(Counter, name="peer3")
        if compacted:
            await peers[0].write(Counter.reset)
            await peers[0].take_snapshot()
        kv = client_of(world, [newcomer, *peers])
        seen = asyncio.create_task(numbers_of(kv.watch(Added, after=20), 40))
        await asyncio.sleep(0.1)
        await peers[0].add_peer(newcomer.address, kind="witness")
        for number in range(60):
            await peers[0].write(Counter.add, number)
        assert await seen == await numbers_of(peers[0].watch(Added, after=20), 40)
        assert newcomer._seat.apply.is_witness
        await kv.close()

    run_world(3, Settings(trailing_entries=0, call_timeout=5.0), tell)


# Beginning, cancelling, ending.


def test_closing_and_cancelling_leave_nothing_behind():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        recent = peer._seat.apply.recent
        local, remote = peer.watch(Added), kv.watch(Added)
        for watch in (local, remote):
            waiting = asyncio.create_task(anext(watch))
            await asyncio.sleep(0.1)
            assert len(recent._watchers) == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0.1)
            assert not recent._watchers
            waiting = asyncio.create_task(anext(watch))
            await asyncio.sleep(0.1)
            with pytest.raises(RuntimeError, match="another task waits for this watch already"):
                await anext(watch)
            await watch.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            await watch.aclose()
        assert [change async for change in remote] == []
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_a_cancelled_wait_loses_nothing():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        async with kv.watch(Added) as watch:
            found: list[int] = []
            for number in range(30):
                write = asyncio.create_task(kv.write(Counter.add, number))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.0002 * (number % 30)):
                        found.append((await anext(watch)).event.number)
                await write
            found += await numbers_of(watch, 30 - len(found))
            assert found == list(range(30))
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_closing_the_client_ends_its_watches():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        kv = client_of(world, [peer])
        seen = [asyncio.create_task(collect(one.watch(Added))) for one in (kv, kv.with_options(timeout=1.0))]
        await asyncio.sleep(0.1)
        await kv.write(Counter.add, 1)
        await asyncio.sleep(0.1)
        await kv.close()
        assert await asyncio.gather(*seen) == [[1], [1]]
        kv.watch(Added)
        gc.collect()
        assert len(kv._watches) == 0

    run_world(1, SETTINGS, tell)


async def collect(watch: Watch[Added]) -> list[int]:
    return [change.event.number async for change in watch]


def test_a_peer_that_stops_tells_its_own_watchers():
    async def tell(world: World) -> None:
        [peer] = await world.form(Counter, "peer1")
        waiting = asyncio.create_task(anext(peer.watch(Added)))
        await asyncio.sleep(0.1)
        await peer.stop()
        with pytest.raises(Stopped):
            await waiting
        with pytest.raises(Stopped):
            await anext(peer.watch(Added))

    run_world(1, SETTINGS, tell)


def test_an_idle_watch_costs_a_call_in_each_timeout_and_one_of_a_peer_nothing(monkeypatch):
    calls: list[object] = []

    def counted(place: Any, request: Request, answer: Any, now: float) -> None:
        calls.append(request.call)
        carry_out(place, request, answer, now)

    monkeypatch.setattr("quorate.serving.carry_out", counted)

    async def tell(world: World) -> None:
        peers = await world.form(Counter, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        watches = [asyncio.create_task(collect(kv.watch(Added))) for _ in range(10)]
        watches += [asyncio.create_task(collect(peers[0].watch(Added))) for _ in range(10)]
        await asyncio.sleep(1.0)
        calls.clear()
        await asyncio.sleep(50.0)
        assert 90 <= len([call for call in calls if isinstance(call, WatchCall)]) <= 100
        others = [call for call in calls if not isinstance(call, WatchCall)]
        assert len(others) <= 2, "of which group a peer is, and who the members are"
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


# From the network.


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (WatchCall(5.0, ("Added", "Nothing"), (1, 0)), "peer1 cannot take this call: Counter emits Added, Reset"),
        (WatchCall(5.0, (), (1, 0)), "peer1 cannot take this call"),
        (WatchCall(5.0, (), None), "peer1 cannot take this call"),
    ],
)
def test_what_comes_over_the_network_is_checked(call, says):
    async def tell(world: World) -> None:
        await world.form(Counter, "peer1")
        replies: list[Reply] = []
        world.nodes[0].receive_requests([Request(1, "peer1", call)], replies.append)
        [reply] = replies
        assert isinstance(reply.answer, Failure)
        assert reply.answer.error == "Unavailable"
        assert says in reply.answer.message

    run_world(1, SETTINGS, tell)


def test_whoever_asks_for_an_hour_or_for_no_time_is_answered_within_a_minute():
    async def tell(world: World) -> None:
        await world.form(Counter, "peer1")
        replies: list[Reply] = []
        for timeout in (3600.0, -5.0, float("nan"), float("inf")):
            call = WatchCall(timeout, ("Added",), (10**30, -5))
            world.nodes[0].receive_requests([Request(1, "peer1", call)], replies.append)
        await asyncio.sleep(WATCH_SECONDS_MAX + 1.0)
        assert len(replies) == 4

    run_world(1, SETTINGS, tell)


# Real sockets, real disks.


async def test_a_real_group_is_watched_over_the_loss_of_its_leader_and_a_restart(tmp_path: Path):
    async with cluster(Counter, 3, tmp_path) as nodes:
        leader = await nodes.form()
        async with connect(Counter, *nodes.addresses, settings=Settings(call_timeout=2.0)) as kv:
            async with kv.watch(Added) as watch:
                for number in range(20):
                    await kv.write(Counter.add, number)
                await nodes.stop(leader.name)
                for number in range(20, 40):
                    await kv.write(Counter.add, number)
                await nodes.start(leader.name)
                for number in range(40, 60):
                    await kv.write(Counter.add, number)
                assert await numbers_of(watch, 60) == list(range(60))
            back = nodes.peers[leader.name]
            assert await numbers_of(back.watch(Added, after=0), 60) == list(range(60))
