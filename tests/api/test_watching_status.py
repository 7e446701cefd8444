"""Being told how a peer and a group stand: roles, terms, leaders and members, as they change."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import pytest

from quorate import Overloaded, QuorateError, Settings, Status, StatusWatch, Stopped, Unavailable, connect
from quorate.errors import DiskFull
from quorate.machines import KV
from quorate.serving import carry_out
from quorate.standing import StandingWatcher
from quorate.transport.calls import CancelCall, Failure, Reply, Request, StandingIs, WatchCall, WatchStatusCall
from quorate.transport.frames import FrameError, FrameKind, decode_frame, encode_frame
from tests.api.cluster import cluster
from tests.api.test_watching import Counter, client_of
from tests.api.virtual import World, address_of, run_world

SETTINGS = Settings(call_timeout=5.0)


async def until(watch: StatusWatch, holds: Any, seconds: float = 30.0) -> Status:
    """Give the first status of which something is so."""
    async with asyncio.timeout(seconds):
        async for status in watch:
            if holds(status):
                return status
    raise AssertionError("the watch has ended")


async def collect(watch: StatusWatch, found: list[Status]) -> list[Status]:
    async for status in watch:
        found.append(status)  # noqa: PERF401 - it is looked at while more come
    return found


def names_of(status: Status) -> list[str]:
    return [member.address.name for member in status.members]


# What is told.


def test_the_first_is_how_it_stands_now_and_more_comes_only_when_it_changes():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers, KV)
        here, there = list[Status](), list[Status]()
        tasks = [asyncio.create_task(collect(peers[0].watch_status(), here))]
        tasks += [asyncio.create_task(collect(kv.watch_status(), there))]
        await asyncio.sleep(1.0)
        for number in range(20):
            await peers[0].write(KV.set, "foo", str(number))
            await asyncio.sleep(1.0)
        leader = peers[0].address
        assert [(status.name, status.role, status.leader) for status in here] == [(leader.name, "leader", leader)]
        assert [(status.leader, names_of(status)) for status in there] == [(leader, ["peer1", "peer2", "peer3"])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_a_peer_tells_of_its_group_from_the_beginning():
    async def tell(world: World) -> None:
        peer = await world.nodes[0].start_peer(KV, name="peer1")
        watch = peer.watch_status()
        first = await anext(watch)
        assert (first.role, first.term, first.leader, first.members) == ("follower", 0, None, ())
        await peer.set_configuration(peer.address)
        last = await until(watch, lambda status: status.leader is not None)
        assert (last.role, last.leader, names_of(last)) == ("leader", peer.address, ["peer1"])

    run_world(1, SETTINGS, tell)


def test_all_are_told_of_another_leader_at_once():
    """The leader is cut off: the others tell of none, then of the next one, and it learns of it when it is back."""

    async def tell(world: World) -> None:
        leader, one, two = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, [one, leader, two], KV)
        watches = [leader.watch_status(), one.watch_status(), kv.watch_status()]
        before = [await anext(watch) for watch in watches]
        assert {status.leader for status in before} == {leader.address}
        world.network.isolate(address_of(leader))
        world.network.cut -= {("client:1", address_of(leader)), (address_of(leader), "client:1")}
        led = [until(watch, lambda status: status.leader not in (None, leader.address), 5) for watch in watches[1:]]
        for status in await asyncio.gather(*led):
            assert status.term > before[0].term
        assert (await until(watches[0], lambda status: status.role != "leader", 5)).leader is None
        world.network.cut.clear()
        back = await until(watches[0], lambda status: status.leader not in (None, leader.address), 5)
        assert back.role == "follower"
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_all_are_told_of_other_members_and_of_each_step_on_the_way():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", nodes=2)
        kv = client_of(world, peers, KV)
        seen = [list[Status]() for _ in range(3)]
        watches = [peers[0].watch_status(), peers[1].watch_status(), kv.watch_status()]
        tasks = [asyncio.create_task(collect(*pair)) for pair in zip(watches, seen, strict=True)]
        newcomer = await world.nodes[2].start_peer(KV, name="peer3")
        await peers[0].add_peer(newcomer.address)
        await asyncio.sleep(1.0)
        await peers[0].remove_peer("peer2")
        await asyncio.sleep(1.0)
        for found in (seen[0], seen[2]):
            steps = [[(m.address.name, m.kind, m.becomes) for m in status.members] for status in found]
            two = [("peer1", "voter", "voter"), ("peer2", "voter", "voter")]
            assert steps[0] == two
            assert [*two, ("peer3", "learner", "voter")] in steps
            assert [*two, ("peer3", "voter", "voter")] in steps
            assert steps[-1] == [("peer1", "voter", "voter"), ("peer3", "voter", "voter")]
        assert names_of(seen[1][-1]) == ["peer1", "peer3"]
        for watch in watches:
            await watch.aclose()
        await asyncio.gather(*tasks)
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_whoever_is_slow_is_given_the_newest_and_nothing_is_kept_for_him():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers, KV)
        slow = [peers[0].watch_status(), kv.watch_status()]
        for watch in slow:
            await anext(watch)
        for _ in range(6):
            leader = next(peer for peer in peers if peer.status().role == "leader")
            await leader.transfer_leadership()
            await asyncio.sleep(0.5)
        assert not peers[0]._seat.standing._watchers
        now = peers[0].status()
        for watch in slow:
            status = await anext(watch)
            assert (status.term, status.leader) == (now.term, now.leader)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 12.0)
        await kv.close()

    run_world(3, SETTINGS, tell)


# What may come between.


def test_a_client_goes_on_at_another_peer_and_never_back_to_an_older_term():
    async def tell(world: World) -> None:
        leader, one, two = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, [leader, one, two], KV)
        found: list[Status] = []
        task = asyncio.create_task(collect(kv.watch_status(), found))
        await asyncio.sleep(0.1)
        assert [status.name for status in found] == [leader.name]
        world.network.isolate(address_of(leader))  # also from the client, which leaves it behind its timeout
        await asyncio.sleep(20.0)
        assert found[-1].leader in (one.address, two.address)
        told = len(found)
        world.network.cut.clear()
        # The old leader alone can be reached for a while, and does not know of the next one yet.
        others = [address_of(one), address_of(two)]
        for other in others:
            world.network.cut |= {(other, address_of(leader)), (address_of(leader), other)}
            world.network.cut |= {(other, "client:1"), ("client:1", other)}
        await asyncio.sleep(3.0)
        world.network.cut.clear()
        await asyncio.sleep(10.0)
        terms = [status.term for status in found]
        assert terms == sorted(terms)
        assert len(found) >= told
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_a_peer_that_is_behind_in_terms_counts_for_nothing():
    async def tell(world: World) -> None:
        leader, one, two = await world.form(KV, "peer1", "peer2", "peer3")
        world.network.isolate(address_of(leader))
        world.network.cut -= {("client:1", address_of(leader)), (address_of(leader), "client:1")}
        await world.until(lambda: one.status().leader not in (None, leader.address))
        world.network.cut |= {("client:1", address_of(two)), (address_of(two), "client:1")}
        kv = client_of(world, [one, leader], KV)
        watch = kv.watch_status()
        newest = await anext(watch)
        assert newest.term > leader.status().term
        await one.stop()
        with pytest.raises(Unavailable, match=r"peer\d says: it is in term \d yet, and its group in term \d"):
            await anext(watch)
        await kv.close()

    run_world(3, Settings(call_timeout=2.0), tell)


def test_a_client_leaves_a_peer_that_is_cut_off_from_its_group():
    async def tell(world: World) -> None:
        leader, one, two = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, [one, leader, two], KV)
        found: list[Status] = []
        task = asyncio.create_task(collect(kv.watch_status(), found))
        await asyncio.sleep(0.1)
        for other in (leader, two):
            world.network.cut |= {(address_of(one), address_of(other)), (address_of(other), address_of(one))}
        await asyncio.sleep(12.0)
        assert [status.leader for status in found] == [leader.address, None, leader.address]
        assert found[-1].name != one.name
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_a_group_without_a_quorum_is_no_error():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers, KV)
        found: list[Status] = []
        task = asyncio.create_task(collect(kv.watch_status(), found))
        everyone = [address_of(peer) for peer in peers]
        await asyncio.sleep(0.1)
        world.network.cut |= {(a, b) for a in everyone for b in everyone if a != b}
        await asyncio.sleep(60.0)
        assert not task.done()
        assert found[-1].leader is None
        assert len(found) <= 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


def test_an_outage_ends_a_for_and_not_the_watch():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        kv = client_of(world, [peer], KV)
        async with kv.watch_status() as watch:
            await anext(watch)
            world.network.cut |= {("client:1", address_of(peer)), (address_of(peer), "client:1")}
            with pytest.raises(Unavailable, match=r"nobody answered within 6 s: 0 of 1 reachable; peer1 .*not answer"):
                await anext(watch)
            await peer.set_priority("peer1", 3)
            await world.nodes[0].start_peer(KV, name="peer2", join=peer.address, kind="learner")
            world.network.cut.clear()
            assert names_of(await anext(watch)) == ["peer1", "peer2"]
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_who_asks_one_peer_alone_is_told_what_that_says():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2")
        kv = client_of(world, [peers[1], peers[0]], KV, follow=False)
        watch = kv.watch_status()
        assert (await anext(watch)).name == peers[1].name
        await peers[1].stop()
        with pytest.raises(Unavailable):
            await collect(watch, [])
        await kv.close()

    run_world(2, SETTINGS, tell)


def test_a_client_that_only_watches_outlives_a_change_of_all_members():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1", nodes=1)
        kv = client_of(world, [peer], KV)
        watch = kv.watch_status()
        await anext(watch)
        newcomer = await world.nodes[1].start_peer(KV, name="peer2")
        change = asyncio.create_task(peer.set_configuration(newcomer.address))
        status = await until(watch, lambda status: names_of(status) == ["peer2"], 10)
        await change
        await peer.stop()
        third = await world.nodes[2].start_peer(KV, name="peer3", join=newcomer.address)
        status = await until(watch, lambda status: names_of(status) == ["peer2", "peer3"], 10)
        assert status.name in ("peer2", third.name)
        await kv.close()

    run_world(3, SETTINGS, tell)


# Beginning, cancelling, ending.


def test_a_stopped_peer_ends_its_watch_and_tells_the_hand_over_before():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2")
        found: list[Status] = []
        task = asyncio.create_task(collect(peers[0].watch_status(), found))
        await asyncio.sleep(0.1)
        await peers[0].stop()
        await task
        assert [status.role for status in found][:2] == ["leader", "follower"]
        assert [status async for status in peers[0].watch_status()] == []

    run_world(2, SETTINGS, tell)


def test_a_peer_that_fails_says_why():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        watch = peer.watch_status()
        await anext(watch)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.1)
        world.nodes[0]._disk_failed(DiskFull("no room is left"))
        for _ in range(2):
            with pytest.raises(Stopped, match="no room is left"):
                await waiting
            waiting = asyncio.ensure_future(anext(watch))
        with pytest.raises(Stopped):
            await waiting

    run_world(1, SETTINGS, tell)


def test_closing_and_cancelling_leave_nothing_behind():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        kv = client_of(world, [peer], KV)
        standing = peer._seat.standing
        for watch in (peer.watch_status(), kv.watch_status()):
            await anext(watch)
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            assert len(standing._watchers) == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0.1)
            assert not standing._watchers
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            with pytest.raises(RuntimeError, match="another task waits for this watch already"):
                await anext(watch)
            await watch.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
            assert [status async for status in watch] == []
            await watch.aclose()
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_closing_the_client_ends_its_watches():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        kv = client_of(world, [peer], KV)
        found = [list[Status](), list[Status]()]
        clients = (kv, kv.with_options(timeout=1.0))
        tasks = [asyncio.create_task(collect(one.watch_status(), f)) for one, f in zip(clients, found, strict=True)]
        await asyncio.sleep(5.0)
        await kv.close()
        await asyncio.gather(*tasks)
        assert [len(seen) for seen in found] == [1, 1]
        kv.watch_status()
        gc.collect()
        assert len(kv._watches) == 0

    run_world(1, SETTINGS, tell)


def test_an_idle_watch_costs_a_call_in_each_timeout_and_one_of_a_peer_nothing(monkeypatch):
    calls: list[object] = []

    def counted(place: Any, request: Request, answer: Any, now: float) -> None:
        calls.append(request.call)
        carry_out(place, request, answer, now)

    monkeypatch.setattr("quorate.serving.carry_out", counted)

    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers, KV)
        tasks = [asyncio.create_task(collect(kv.watch_status(), [])) for _ in range(10)]
        tasks += [asyncio.create_task(collect(peers[0].watch_status(), [])) for _ in range(10)]
        await asyncio.sleep(1.0)
        calls.clear()
        await asyncio.sleep(50.0)
        assert 90 <= len([call for call in calls if isinstance(call, WatchStatusCall)]) <= 100
        others = [call for call in calls if not isinstance(call, WatchStatusCall)]
        assert len(others) <= 2, "of which group a peer is, and who the members are"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kv.close()

    run_world(3, SETTINGS, tell)


# From the network.


def test_a_peer_lets_no_more_wait_than_it_has_room_for(monkeypatch):
    monkeypatch.setattr("quorate.standing.STANDING_WATCHERS_MAX", 3)

    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        watches = [peer.watch_status() for _ in range(4)]
        for watch in watches:
            await anext(watch)
        waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded, match="3 wait for changes of this peer already"):
            await waiting[3]
        for other in waiting[:3]:
            other.cancel()
        await asyncio.gather(*waiting[:3], return_exceptions=True)

    run_world(1, SETTINGS, tell)


def test_a_call_waits_no_longer_than_asked_for_and_60_s_at_most():
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        place = world.nodes[0]._places["peer1"]
        replies: list[tuple[float, Reply]] = []

        def ask(timeout: float, mark: bytes) -> None:
            call = WatchStatusCall(timeout, mark)
            carry_out(place, Request(1, "peer1", call), lambda reply: replies.append((now(), reply)), now())

        now = world.loop.time
        begun = now()
        ask(1e9, b"")
        ask(1e9, b"x" * 64)  # a mark that nobody gave
        marks = [reply.answer.mark for _, reply in replies if isinstance(reply.answer, StandingIs)]
        assert len(marks) == 2
        ask(2.0, marks[0])
        ask(1e9, marks[0])
        await asyncio.sleep(100.0)
        assert [round(when - begun) for when, _ in replies] == [0, 0, 2, 60]
        assert all(isinstance(reply.answer, StandingIs) and reply.answer.mark == marks[0] for _, reply in replies)
        await peer.stop()
        ask(2.0, b"")
        await asyncio.sleep(0.1)
        failure = replies[-1][1].answer
        assert isinstance(failure, Failure)
        assert failure.error == "Stopped"

    run_world(1, SETTINGS, tell)


def test_a_call_is_taken_back_by_its_own_connection_alone_and_not_answered():
    async def tell(world: World) -> None:
        await world.form(KV, "peer1")
        place, now = world.nodes[0]._places["peer1"], world.loop.time
        standing = place.seat.standing
        one, other = list[Reply](), list[Reply]()
        carry_out(place, Request(1, "peer1", WatchStatusCall(30.0, b"")), one.append, now())
        [answer] = [reply.answer for reply in one]
        assert isinstance(answer, StandingIs)
        carry_out(place, Request(2, "peer1", WatchStatusCall(30.0, answer.mark)), one.append, now())
        for number, caller in ((2, other), (1, one), (3, one)):
            carry_out(place, Request(4, "peer1", CancelCall(number)), caller.append, now())
            assert len(standing._watchers) == 1
        carry_out(place, Request(5, "peer1", CancelCall(2)), one.append, now())
        assert not standing._watchers
        await asyncio.sleep(60.0)
        assert (len(one), other) == (1, [])

    run_world(1, SETTINGS, tell)


def test_of_those_who_wait_none_is_looked_at_when_another_takes_its_call_back():
    async def tell(world: World) -> None:
        await world.form(Counter, "peer1")
        place, now = world.nodes[0]._places["peer1"], world.loop.time
        recent, standing = place.seat.apply.recent, place.seat.standing
        steps, replies = list[int](), list[Reply]()
        carry_out(place, Request(1, "peer1", WatchStatusCall(30.0, b"")), replies.append, now())
        [answer] = [reply.answer for reply in replies]
        assert isinstance(answer, StandingIs)
        for number in range(2, 1_000, 2):
            carry_out(place, Request(number, "peer1", WatchStatusCall(30.0, answer.mark)), replies.append, now())
            call = WatchCall(30.0, ("Added",), (100, 0))
            carry_out(place, Request(number + 1, "peer1", call), replies.append, now())
            if number in (10, 998):
                waiting = len(recent._watchers), len(standing._watchers)
                assert waiting == (number // 2, number // 2)
                steps.append(0)
                sys.setprofile(lambda *_: steps.append(steps.pop() + 1))
                for gone in (2, 3, number, number + 1):
                    carry_out(place, Request(5_000, "peer1", CancelCall(gone)), replies.append, now())
                sys.setprofile(None)
                assert (len(recent._watchers), len(standing._watchers)) == (waiting[0] - 2, waiting[1] - 2)
                for again in (2, number):
                    call = WatchStatusCall(30.0, answer.mark)
                    carry_out(place, Request(again, "peer1", call), replies.append, now())
                    call = WatchCall(30.0, ("Added",), (100, 0))
                    carry_out(place, Request(again + 1, "peer1", call), replies.append, now())
        few, many = steps
        assert few == many > 0
        assert len(replies) == 1

    run_world(1, SETTINGS, tell)


@pytest.mark.parametrize("call", [WatchStatusCall(5.0, b"x" * 65), WatchStatusCall(-1.0, b"")])
def test_what_is_out_of_bounds_is_refused_with_its_frame(call):
    frame = encode_frame(FrameKind.REQUESTS, [Request(1, "peer1", call)])
    with pytest.raises(FrameError):
        decode_frame(frame, 1 << 20)


def test_a_garbled_answer_is_told_and_counts_for_nothing(monkeypatch):
    async def tell(world: World) -> None:
        [peer] = await world.form(KV, "peer1")
        kv = client_of(world, [peer], KV)

        def lie(place: Any, request: Request, answer: Any, now: float) -> None:
            answer(Reply(request.id, Failure("Nonsense", "never heard of it")))

        watch = kv.watch_status()
        with monkeypatch.context() as patch:
            patch.setattr("quorate.serving.carry_out", lie)
            with pytest.raises(QuorateError, match="never heard of it"):
                await anext(watch)
        assert (await anext(watch)).name == "peer1"
        await kv.close()

    run_world(1, SETTINGS, tell)


def test_a_watcher_is_known_by_itself():
    assert StandingWatcher(None, b"") != StandingWatcher(None, b"")  # type: ignore[arg-type]


# With real processes' parts: sockets, disks.


async def test_over_tcp_a_killed_leader_and_a_newcomer_are_told(tmp_path: Path):
    async with cluster(KV, 3, tmp_path) as nodes:
        leader = await nodes.form()
        address = leader.address
        async with connect(KV, *(str(peer.address) for peer in nodes.peers.values())) as kv:
            watch = kv.watch_status()
            first = await anext(watch)
            assert (first.leader, len(first.members)) == (address, 3)
            await nodes.stop(address.name)
            second = await until(watch, lambda status: status.leader not in (None, address), 10)
            assert second.term > first.term
            other = nodes.peers[second.leader.name if second.leader else ""]
            await other.remove_peer(address.name)
            third = await until(watch, lambda status: len(status.members) == 2, 10)
            assert address.name not in names_of(third)
