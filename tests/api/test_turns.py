"""What a write costs in messages, and what goes before what in a turn. Virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine

import msgspec
import pytest

from quorate import Peer, Settings, Unavailable
from quorate.calling import describe
from quorate.core.messages import AppendEntries
from quorate.machines import KV
from quorate.news import HABIT, PATIENCE
from quorate.seat import Seat
from quorate.store import Batch
from quorate.store.disk import Disk
from quorate.store.snapshots import MemorySnapshots
from quorate.transport import Packet
from quorate.types import Index, Kind, Run, Term

from .virtual import DELAY, World, address_of, run_world

WRITES = 40
GROUPS = 5

WITHOUT_HEARTBEATS = Settings(heartbeat_interval=2.0, election_timeout_min=4.0, election_timeout_max=8.0)
"""So that it cannot be a heartbeat that tells what is committed."""


def test_a_write_after_the_other_costs_one_message_to_each_follower_and_its_answer():
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "0")
        before = world.loop.time()
        world.network.forget()
        for number in range(WRITES):
            await leader.write(KV.set, "k", str(number))
        heartbeats = 2 * (1 + (world.loop.time() - before) // world.settings.heartbeat_interval)
        assert 2 * WRITES <= world.network.packets["append"] <= 2 * WRITES + heartbeats
        assert world.network.packets["appended"] <= 2 * WRITES + heartbeats

    run_world(3, Settings(), tell)


def test_writes_to_many_groups_cost_no_more_messages_than_to_one():
    """Whoever is answered asks again in the turn after that, whichever group of the node answered first."""

    async def tell(world: World) -> None:
        groups = [await world.form(KV, *(f"{name}{group}" for name in "abc")) for group in range(GROUPS)]
        leaders = [leader for leader, *_ in groups]
        assert len({world.place(leader) for leader in leaders}) < GROUPS, "some groups have their leader on one node"

        async def write(leader: Peer[KV]) -> None:
            for number in range(WRITES):
                await leader.write(KV.set, "k", str(number))

        await asyncio.gather(*map(write, leaders))
        before = world.loop.time()
        world.network.forget()
        await asyncio.gather(*map(write, leaders))
        heartbeats = 2 * GROUPS * (1 + (world.loop.time() - before) // world.settings.heartbeat_interval)
        assert 2 * GROUPS * WRITES <= world.network.packets["append"] <= 2 * GROUPS * WRITES + heartbeats
        assert world.network.packets["appended"] <= 2 * GROUPS * WRITES + heartbeats

    run_world(3, Settings(), tell)


def test_all_peers_of_a_node_that_wrote_in_one_turn_are_answered_by_one_sync():
    async def tell(world: World) -> None:
        peers = [(await world.form(KV, name, nodes=1))[0] for name in "abc"]
        await asyncio.gather(*(peer.write(KV.set, "k", "0") for peer in peers))
        before = world.loop.time()
        await asyncio.gather(*(peer.write(KV.set, "k", "1") for peer in peers))
        assert world.loop.time() - before < 1.5 * DELAY, "each is told when the one batch is durable"

    run_world(1, Settings(), tell)


def test_a_caller_who_is_back_a_moment_later_costs_no_more_messages_and_who_stops_is_noticed():
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        for number in range(HABIT + 1):
            await leader.write(KV.set, "k", str(number))
            await asyncio.sleep(PATIENCE / 2)
        await leader.write(KV.set, "k", "0")
        world.network.forget()
        for number in range(WRITES):
            await asyncio.sleep(PATIENCE / 2)
            await leader.write(KV.set, "k", str(number))
        assert world.network.packets["append"] == 2 * WRITES
        index = leader.status().last_applied
        assert [peer.status().last_applied for peer in followers] == [index - 1, index - 1]
        await asyncio.sleep(PATIENCE + 1.5 * DELAY)
        assert [peer.status().last_applied for peer in followers] == [index, index]
        assert world.network.packets["append"] == 2 * WRITES + 2
        await asyncio.sleep(10 * PATIENCE)
        assert world.network.packets["append"] == 2 * WRITES + 2

    run_world(3, WITHOUT_HEARTBEATS, tell)


def test_what_is_committed_is_told_at_once_when_nobody_writes_again():
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await asyncio.sleep(1.0)
        await leader.write(KV.set, "k", "v")
        index = leader.status().last_applied
        await asyncio.sleep(2.5 * DELAY)  # One message, and the sync of the slower follower: no heartbeat is due.
        assert [peer.status().last_applied for peer in followers] == [index, index]

    run_world(3, WITHOUT_HEARTBEATS, tell)


def test_what_one_turn_does_not_apply_is_applied_in_the_next_ones_at_once():
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await asyncio.sleep(1.0)
        await asyncio.gather(*(leader.write(KV.set, f"k{number}", "v") for number in range(WRITES)))
        index = leader.status().last_applied
        await asyncio.sleep(2.5 * DELAY)  # As above: no heartbeat is due.
        assert [peer.status().last_applied for peer in followers] == [index, index]

    run_world(3, msgspec.structs.replace(WITHOUT_HEARTBEATS, apply_entries_max=3), tell)


def test_a_sync_that_decides_nothing_costs_no_turn(monkeypatch: pytest.MonkeyPatch):
    turns: Counter[str] = Counter()
    obey = Seat.obey

    def noted(seat: Seat) -> Batch | None:
        turns[seat.name] += 1
        return obey(seat)

    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "0")
        monkeypatch.setattr(Seat, "obey", noted)
        for number in range(WRITES):
            await leader.write(KV.set, "k", str(number))
        # The write itself goes with the news of the one before it, and each of two followers answers at its own time.
        assert turns[leader.name] <= 3 * WRITES + 5
        assert all(turns[peer.name] <= WRITES + 5 for peer in followers)
        await asyncio.sleep(1.0)
        assert {peer.status().last_applied for peer in followers} == {leader.status().last_applied}

    run_world(3, WITHOUT_HEARTBEATS, tell)


def test_a_follower_acknowledges_before_it_applies_what_nobody_waits_for():
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "0")
        await asyncio.sleep(1.0)
        first = leader.status().last_applied + 1

        async def write_twice() -> None:
            await leader.write(KV.set, "k", "1")
            await leader.write(KV.set, "k", "2")

        writing = asyncio.create_task(write_twice())
        await world.until(lambda: followers[0].status().commit_index == first, pause=DELAY / 10)
        # The second write has come with the news that the first is committed, and is on its way to the disk.
        assert followers[0].status().last_applied == first - 1
        await asyncio.sleep(DELAY)
        assert followers[0].status().last_applied == first
        await writing

    run_world(3, Settings(), tell)


def test_a_follower_applies_though_its_disk_always_has_another_write_to_do():
    """Only the write goes first that is under way already: what a follower holds would grow old where they follow."""

    async def tell(world: World) -> None:
        leader, follower, _ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "0")
        await asyncio.sleep(1.0)
        world.disks[world.place(follower)].seconds = 10 * DELAY
        lags: list[int] = []
        for number in range(WRITES):
            await leader.write(KV.set, "k", str(number))
            lags.append(leader.status().last_applied - follower.status().last_applied)
        assert max(lags) < WRITES / 2

    run_world(3, Settings(), tell)


def test_a_follower_that_is_read_applies_though_its_disk_is_slow():
    async def tell(world: World) -> None:
        leader, follower, _ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "1")
        await asyncio.sleep(1.0)
        world.disks[world.place(follower)].seconds = 60.0
        await leader.write(KV.set, "k", "2")
        assert await follower.read(KV.get, "k") == "2"

    run_world(3, Settings(), tell)


def test_one_read_of_a_slow_disk_serves_many_turns_that_apply(monkeypatch: pytest.MonkeyPatch):
    reads: list[range] = []
    read = Disk.read

    def noted(disk: Disk, log: str, first: Index, last: Index, bytes_max: int, done: Callable[..., None]) -> None:
        reads.append(range(first, last + 1))
        read(disk, log, first, last, bytes_max, done)

    async def tell(world: World) -> None:
        (leader,) = await world.form(KV, "a")
        await leader.write(KV.set, "k", "")
        world.disks[0].seconds = 0.1
        monkeypatch.setattr(Disk, "read", noted)
        first = leader.status().last_applied + 1
        await asyncio.gather(*(leader.write(KV.append, "k", str(number % 10)) for number in range(WRITES)))
        assert await leader.read(KV.get, "k") == "".join(str(number % 10) for number in range(WRITES))
        assert reads == [range(first, first + WRITES)]

    run_world(1, Settings(cache_bytes_max=0, apply_entries_max=1), tell)


def test_what_a_slow_disk_has_yet_to_truncate_is_not_applied():
    """A read goes before the writes that wait: the disk still holds what a leader of before has left there."""

    async def tell(world: World) -> None:
        leader, follower, other = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "")
        await asyncio.sleep(1.0)
        world.network.isolate(address_of(follower))
        status = follower.status()
        first, earlier, later = status.last_index + 1, status.term + 1, status.term + 2

        def hear(sender: Peer[KV], term: int, prev: tuple[int, int], values: str, commit: int) -> None:
            payloads = tuple(describe(KV).encode_write(KV.append, ("k", value)) for value in values)
            entries = (Run(Term(term), Index(prev[0] + 1), Kind.COMMAND, 0.0, payloads),) if values else ()
            author = sender.status().id
            place = Index(prev[0]), Term(prev[1])
            message = AppendEntries(Term(term), author, *place, Index(commit), entries=entries)
            follower._seat.receive(address_of(sender), Packet(status.group, author, status.id, message))

        hear(leader, earlier, (first - 1, status.term), "abc", first - 1)
        await asyncio.sleep(10 * DELAY)
        world.disks[world.place(follower)].seconds = 0.1
        hear(other, later, (first, earlier), "", first - 1)
        await asyncio.sleep(DELAY)  # The disk is busy with the term.
        hear(other, later, (first, earlier), "xy", first + 2)
        await asyncio.sleep(1.0)
        assert follower.status().last_applied == first + 2
        machine = follower._seat.apply.machine
        assert isinstance(machine, KV)
        assert machine.entries == {"k": "axy"}
        await follower.stop()

    run_world(3, Settings(cache_bytes_max=0, apply_entries_max=1), tell)


def test_what_was_read_to_be_sent_in_a_term_that_is_over_is_not_sent_in_a_later_one(monkeypatch: pytest.MonkeyPatch):
    held: list[Callable[[], None]] = []
    sent: list[Packet] = []

    async def tell(world: World) -> None:
        leader, late, other = await world.form(KV, "a", "b", "c")
        seat = leader._seat
        read, post = seat.read_durable, seat.post

        def hold(first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
            read(first, last, lambda runs: held.append(lambda: done(runs)))

        def note(node: str, packet: Packet) -> None:
            sent.append(packet)
            post(node, packet)

        world.network.isolate(address_of(late))
        await leader.write(KV.set, "k", "v")
        await asyncio.sleep(1.0)
        monkeypatch.setattr(seat, "read_durable", hold)
        world.network.cut.clear()
        await world.until(lambda: held)
        monkeypatch.undo()
        world.network.isolate(address_of(leader))
        await world.until(lambda: other.status().role == "leader" and leader.status().role != "leader")
        world.network.cut.clear()
        await other.write(KV.set, "k", "w")
        await other.transfer_leadership(leader.address)
        monkeypatch.setattr(seat, "post", note)
        held.pop()()
        await leader.write(KV.set, "k", "x")
        await world.until(lambda: late.status().last_applied == leader.status().last_applied)
        assert {packet.message.term for packet in sent} == {leader.status().term}

    run_world(3, Settings(cache_bytes_max=0), tell)


def is_answered_at_once(reading: Coroutine[object, None, object]) -> bool:
    """Take the first step of a call, and tell whether it was the last."""
    try:
        reading.send(None)
    except StopIteration:
        return True
    reading.close()
    return False


def test_reads_by_lease_are_answered_between_two_turns_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    async def tell(world: World) -> None:
        leader, follower, _ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")
        reader = leader.with_options(consistency="lease")
        assert not is_answered_at_once(reader.read(KV.get, "k"))
        await asyncio.sleep(3 * world.settings.heartbeat_interval)  # What it has asked for is promised.
        assert is_answered_at_once(reader.read(KV.get, "k"))
        assert is_answered_at_once(reader.read(KV.get, "k"))
        assert not is_answered_at_once(leader.read(KV.get, "k"))
        assert not is_answered_at_once(follower.with_options(consistency="lease").read(KV.get, "k"))
        await asyncio.sleep(DELAY)  # The turn that they have woken.
        monkeypatch.setattr("quorate.reading.MOMENT", 0.0)
        assert not is_answered_at_once(reader.read(KV.get, "k"))
        assert await reader.read(KV.get, "k") == "v"

    run_world(3, Settings(), tell)


def test_reads_by_lease_wait_when_it_has_run_out():
    async def tell(world: World) -> None:
        leader, *_ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")
        reader = leader.with_options(consistency="lease", timeout=0.1)
        await reader.read(KV.get, "k")
        await asyncio.sleep(3 * world.settings.heartbeat_interval)
        assert is_answered_at_once(reader.read(KV.get, "k"))
        world.network.isolate(world.nodes[world.place(leader)].address)
        await asyncio.sleep(world.settings.election_timeout_min)
        assert not is_answered_at_once(reader.read(KV.get, "k"))
        with pytest.raises(Unavailable):
            await reader.read(KV.get, "k")

    run_world(3, Settings(), tell)


def test_entries_that_one_message_cannot_hold_follow_in_the_next_ones_without_a_gap():
    """What was offered and not attached is offered again: nobody is sent entries behind ones that it lacks."""
    settings = Settings(append_bytes_max=1000, command_bytes_max=1000)

    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "0")
        world.network.forget()
        await asyncio.gather(*(leader.write(KV.set, f"k{number}", "v" * 400) for number in range(WRITES)))
        await world.until(lambda: all(peer.status().last_applied > WRITES for peer in followers))
        assert world.network.packets["append"] >= WRITES, "two entries fit into one message, for two followers"
        assert world.network.refused == 0

    run_world(3, settings, tell)


def test_a_snapshot_stays_until_the_log_durably_points_at_the_next_one():
    async def tell(world: World) -> None:
        (peer,) = await world.form(KV, "a", nodes=1)
        store = peer._seat.snapshots._store
        assert isinstance(store, MemorySnapshots)
        await peer.write(KV.set, "k", "u")
        first = await peer.take_snapshot()
        await peer.write(KV.set, "k", "v")
        last = peer.status().last_applied
        world.disks[0].seconds = 1.0
        taking = asyncio.create_task(peer.take_snapshot())
        await asyncio.sleep(0.5)
        assert sorted(snapshot.index for snapshot in store._files) == [first, last]
        assert await taking == last
        await world.until(lambda: len(store._files) == 1)

    run_world(1, Settings(), tell)


def test_what_the_disk_has_not_got_yet_is_sent_and_applied_from_memory(monkeypatch: pytest.MonkeyPatch):
    async def tell(world: World) -> None:
        leader, *followers = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "u")
        read: list[object] = []
        monkeypatch.setattr(leader._seat, "read_durable", lambda *asked: read.append(asked))
        world.disks[world.place(leader)].seconds = 1.0
        last = leader.status().last_index
        assert await leader.write(KV.set, "k", "v") == "v"
        assert leader._seat.raft.state.persisted_index == last
        assert all(peer.status().last_index > last for peer in followers)
        assert read == []

    run_world(3, Settings(cache_bytes_max=0), tell)


def test_a_peer_is_of_a_group_only_once_its_log_durably_says_so():
    async def tell(world: World) -> None:
        peer = await world.nodes[0].start_peer(KV, name="a")
        world.disks[0].seconds = 1.0
        forming = asyncio.create_task(peer.set_configuration(peer.address))
        await world.until(lambda: peer._seat.raft.state.configuration is not None)
        assert not peer._seat._group
        await forming
        assert peer._seat._group == peer.status().group

    run_world(1, Settings(), tell)
