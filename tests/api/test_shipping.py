"""Sending snapshots: resumed where they broke off, never mixed, checked before anything is kept, one piece at a time.

With pieces handed over directly, on virtual time, where every byte is counted; and on real nodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorate import Node, NotLeader, Peer, Settings, Unavailable
from quorate.core.messages import InstallSnapshot
from quorate.errors import Corrupted, DiskFull, InvalidConfiguration, QuorateError, StoreError
from quorate.machines import KV
from quorate.seat import FOREVER, Seat
from quorate.snapshots import Shipment, Snapshots
from quorate.store.snapshots import MemorySnapshots, stateless
from quorate.testing.clock import VirtualLoop
from quorate.transport.calls import Failure, Reply, Request, SnapshotAt, SnapshotCall, failure_from_error
from quorate.transport.tcp import TCPTransport
from quorate.types import Index, PeerId, Snapshot, Term
from quorate.waiters import FutureWaiter

from .cluster import SETTINGS, cluster
from .virtual import DELAY, Later, World, address_of, run_world

PIECE = 100
SMALL = Settings(snapshot_chunk_bytes=PIECE, call_timeout=2.0, reconnect_delay_max=1.0)
FIRST = Snapshot(Index(10), Term(2), 1.5, Index(1), b"configuration")
SECOND = Snapshot(Index(20), Term(3), 2.5, Index(12), b"another")
CHUNKS = [b"x" * 700, b"y" * 321]


class Noted:
    """A waiter that notes what it is told."""

    def __init__(self) -> None:
        self.deadline = 100.0
        self.told: list[Any] = []

    def succeed(self, reply: object) -> None:
        self.told.append(reply)

    def fail(self, error: QuorateError) -> None:
        self.told.append(error)


class Wire:
    """The way to the other peer: a ``Channel`` that hands over each piece, and counts."""

    def __init__(self, two: Two) -> None:
        self.two = two
        self.closed = False

    async def call(self, request: Request) -> Reply:
        call = request.call
        assert isinstance(call, SnapshotCall)
        two = self.two
        two.calls.append(call)
        two.under_way += 1
        two.most_under_way = max(two.most_under_way, two.under_way)
        try:
            if len(two.calls) in two.breaks:
                raise ConnectionResetError("it broke")
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            waiter = FutureWaiter(answered, FOREVER)
            two.receiver.receive(call, waiter, two.delivered.append)
            try:
                return Reply(request.id, SnapshotAt(await answered))
            except QuorateError as error:
                return Reply(request.id, failure_from_error(error))
        finally:
            two.under_way -= 1

    async def close(self) -> None:
        self.closed = True


class Two:
    """Two peers' snapshots, and what goes between them."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.source, self.target = MemorySnapshots(), MemorySnapshots()
        self.wires: list[Wire] = []
        self.calls: list[SnapshotCall] = []
        self.breaks: set[int] = set()
        self.under_way = self.most_under_way = 0
        self.delivered: list[InstallSnapshot] = []
        self.ended: list[bool] = []
        self.woken = 0
        self.is_wanted = True
        self.sender = Snapshots("one", self.source, Later(loop), self.connect, SMALL)
        self.slow = Later(loop)
        self.receiver = Snapshots("two", self.target, self.slow, self.connect, SMALL)

    async def connect(self, _node: str) -> Wire:
        self.wires.append(Wire(self))
        return self.wires[-1]

    def shipment(self, snapshot: Snapshot = FIRST, term: int = 3) -> Shipment:
        message = InstallSnapshot(Term(term), PeerId("1"), snapshot)
        return Shipment(PeerId("2"), "two", "n:1", "group", message, lambda: self.is_wanted, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def ship(self, snapshot: Snapshot = FIRST) -> None:
        self.sender.ship(self.shipment(snapshot), self.ended.append)

    async def until_ended(self, count: int) -> None:
        deadline = self.loop.time() + 60
        while len(self.ended) < count:
            assert self.loop.time() < deadline
            await asyncio.sleep(0.001)

    @property
    def bytes_sent(self) -> int:
        return sum(len(call.piece) for call in self.calls)


def between_two(tell: Callable[[Two], Awaitable[None]]) -> None:
    loop = VirtualLoop()

    async def main() -> None:
        two = Two(loop)
        two.source.write(FIRST, CHUNKS)
        two.source.write(SECOND, CHUNKS[::-1])
        await tell(two)
        two.sender.stop("the end")
        two.receiver.stop("the end")
        await asyncio.sleep(10.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
        assert all(wire.closed for wire in two.wires)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_it_goes_piece_by_piece_one_under_way() -> None:
    async def tell(two: Two) -> None:
        two.ship()
        await two.until_ended(1)
        assert (two.ended, [message.snapshot for message in two.delivered]) == ([True], [FIRST])
        assert list(two.target.chunks(FIRST)) == CHUNKS
        size = two.source.size(FIRST)
        assert two.bytes_sent == size
        assert [call.offset for call in two.calls] == [0, *range(0, size, PIECE)]
        assert two.most_under_way == 1
        assert max(len(call.piece) for call in two.calls) == PIECE
        assert two.sender.sent == 1

    between_two(tell)


@pytest.mark.parametrize("broken", [1, 2, 5, 12])
def test_after_a_broken_connection_it_goes_on_where_it_was(broken: int) -> None:
    async def tell(two: Two) -> None:
        two.breaks.add(broken)
        began = two.loop.time()
        two.ship()
        await two.until_ended(1)
        assert two.ended == [False]
        assert two.loop.time() - began >= SMALL.reconnect_delay_max, "or the core would want the next one at once"
        two.ship()
        await two.until_ended(2)
        assert two.ended == [False, True]
        assert list(two.target.chunks(FIRST)) == CHUNKS
        lost = len(two.calls[broken - 1].piece)
        assert two.bytes_sent == two.source.size(FIRST) + lost, "only what was under way goes twice"
        assert len(two.wires) == 2

    between_two(tell)


def test_an_answer_that_is_lost_costs_nothing_but_a_question() -> None:
    async def tell(two: Two) -> None:
        two.slow.seconds = 0.9 * SMALL.call_timeout
        size = two.source.size(FIRST)
        for offset in range(0, size - PIECE, PIECE):
            two.target.receive(FIRST, offset, two.source.read_bytes(FIRST, offset, PIECE))
        two.slow.seconds = 1.5 * SMALL.call_timeout
        two.ship()
        await two.until_ended(1)
        assert (two.ended, two.bytes_sent) == ([False], 0)
        two.slow.seconds = 0.01
        two.ship()
        await two.until_ended(2)
        assert two.ended == [False, True]
        assert two.bytes_sent == (size - 1) % PIECE + 1

    between_two(tell)


def test_pieces_of_two_snapshots_are_never_mixed() -> None:
    async def tell(two: Two) -> None:
        two.breaks.add(6)
        two.ship(FIRST)
        await two.until_ended(1)
        assert two.target.receive(FIRST, 0, b"") == 4 * PIECE
        two.ship(SECOND)
        await two.until_ended(2)
        assert list(two.target.chunks(SECOND)) == CHUNKS[::-1]
        assert two.target.receive(FIRST, 0, b"") == 0, "it begins anew"

    between_two(tell)


def test_two_leaders_at_once_end_with_one_whole_snapshot() -> None:
    """An old leader that does not know it yet, and the new one: each begins anew what the other has begun."""

    async def tell(two: Two) -> None:
        old = Snapshots("old", two.source, Later(two.loop), two.connect, SMALL)
        ended: list[bool] = []
        old.ship(two.shipment(FIRST, term=2), ended.append)
        two.ship(SECOND)
        await two.until_ended(1)
        assert two.ended == ended == [False] or True in (*two.ended, *ended)
        old.stop("it has heard of the other")
        while two.ended[-1] is not True:
            two.ship(SECOND)
            await two.until_ended(len(two.ended) + 1)
        assert list(two.target.chunks(SECOND)) == CHUNKS[::-1]

    between_two(tell)


def test_the_same_snapshot_of_two_peers_in_two_forms_is_not_put_together() -> None:
    """Where a set lies in memory another way, its chunks differ: what came from the first leader is thrown away."""

    async def tell(two: Two) -> None:
        two.breaks.add(6)
        two.ship()
        await two.until_ended(1)
        other = MemorySnapshots()
        other.write(FIRST, [b"z" * 1021, b""])
        two.source._files[FIRST] = other._file(FIRST)
        two.ship()
        await two.until_ended(2)
        assert (two.ended, two.delivered, two.woken) == ([False, False], [], 0)
        two.ship()
        await two.until_ended(3)
        assert list(two.target.chunks(FIRST)) == [b"z" * 1021, b""]

    between_two(tell)


@pytest.mark.parametrize(
    ("size", "offset", "piece"),
    [(0, 0, b""), (-1, 0, b""), (1000, -1, b"abc"), (1000, 1001, b""), (1000, 998, b"abc"), (2, 0, b"abc")],
    ids=["no size", "negative size", "negative offset", "offset beyond", "piece beyond", "piece larger than all"],
)
def test_a_lie_about_sizes_is_one_error_and_nothing_is_kept(size: int, offset: int, piece: bytes) -> None:
    async def tell(two: Two) -> None:
        two.target.receive(FIRST, 0, b"what is here already")
        waiter = Noted()
        call = SnapshotCall("group", InstallSnapshot(Term(3), PeerId("1"), FIRST), size, offset, piece)
        two.receiver.receive(call, waiter, two.delivered.append)
        await asyncio.sleep(1.0)
        [error] = waiter.told
        assert isinstance(error, Unavailable)
        assert "no piece of" in str(error)
        assert two.target.receive(FIRST, 0, b"") == len(b"what is here already")
        assert two.delivered == []

    between_two(tell)


def test_a_file_that_is_shorter_than_was_said_is_thrown_away() -> None:
    async def tell(two: Two) -> None:
        content = two.source.read_bytes(FIRST, 0, 10_000)[:-1]
        waiter = Noted()
        call = SnapshotCall("group", InstallSnapshot(Term(3), PeerId("1"), FIRST), len(content), 0, content)
        two.receiver.receive(call, waiter, two.delivered.append)
        await asyncio.sleep(1.0)
        assert [type(told) for told in waiter.told] == [Corrupted]
        assert two.delivered == []
        assert two.target.receive(FIRST, 0, b"") == 0

    between_two(tell)


def test_a_deposed_leader_sends_no_more() -> None:
    async def tell(two: Two) -> None:
        two.slow.seconds = 0.1
        two.ship()
        await asyncio.sleep(0.35)
        two.is_wanted = False
        await two.until_ended(1)
        assert two.ended == [False]
        assert 0 < two.bytes_sent < two.source.size(FIRST) / 2

    between_two(tell)


@pytest.mark.parametrize("shipped", [[FIRST], [SECOND, FIRST]], ids=["alone", "in the place of another"])
def test_a_file_that_is_being_sent_stays_and_others_go(shipped: list[Snapshot]) -> None:
    async def tell(two: Two) -> None:
        third, fourth = (msgspec.structs.replace(SECOND, index=Index(n)) for n in (30, 40))
        two.source.write(third, CHUNKS)
        two.source.write(fourth, CHUNKS)
        two.slow.seconds = 0.1
        for snapshot in shipped:
            two.ship(snapshot)
            await asyncio.sleep(0.01)  # The one before is given up.
        two.sender.keep(third)
        two.sender.keep(fourth)
        await asyncio.sleep(0.5)
        assert set(two.source._files) == {FIRST, fourth}, "however many are taken meanwhile"
        await two.until_ended(1)
        assert two.ended == [True]
        await asyncio.sleep(0.1)
        assert set(two.source._files) == {fourth}

    between_two(tell)


class Broken(MemorySnapshots):
    """A store whose disk does what the test wants."""

    failure: Exception | None = None

    def receive(self, snapshot: Snapshot, offset: int, piece: bytes) -> int:
        if self.failure and piece:
            raise self.failure
        return super().receive(snapshot, offset, piece)

    def read_bytes(self, snapshot: Snapshot, offset: int, length: int) -> bytes:
        if self.failure:
            raise self.failure
        return super().read_bytes(snapshot, offset, length)


@pytest.mark.parametrize("failure", [DiskFull("no room"), StoreError("the disk failed")])
def test_a_receiver_whose_disk_refuses_is_tried_again_later(failure: StoreError) -> None:
    async def tell(two: Two) -> None:
        store = Broken()
        two.receiver = Snapshots("two", store, Later(two.loop), two.connect, SMALL)
        store.failure = failure
        two.ship()
        await two.until_ended(1)
        assert (two.ended, two.woken) == ([False], 0)
        store.failure = None
        two.ship()
        await two.until_ended(2)
        assert list(store.chunks(FIRST)) == CHUNKS

    between_two(tell)


def test_whatever_breaks_the_sending_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Were it not told, that peer would be sent nothing but heartbeats for ever."""

    async def tell(two: Two) -> None:
        store = Broken()
        store.write(FIRST, CHUNKS)
        store.failure = RuntimeError("a fault of ours")
        two.sender = Snapshots("one", store, Later(two.loop), two.connect, SMALL)
        two.ship()
        await two.until_ended(1)
        assert two.ended == [False]
        assert any(record.exc_info and "a fault of ours" in record.message for record in caplog.records)

    between_two(tell)


def test_a_node_that_cannot_be_reached_holds_nothing_up() -> None:
    async def tell(two: Two) -> None:
        async def never(_node: str) -> Wire:
            await asyncio.Event().wait()
            raise AssertionError

        two.sender._connect = never
        two.ship()
        await two.until_ended(1)
        assert two.ended == [False]
        assert two.loop.time() <= SMALL.call_timeout + SMALL.reconnect_delay_max + 0.1

    between_two(tell)


@pytest.mark.parametrize("answer", [SnapshotAt(-5), Failure("Unavailable", "not now")])
def test_an_answer_without_sense_ends_the_transfer(answer: SnapshotAt | Failure) -> None:
    async def tell(two: Two) -> None:
        async def call(_wire: Wire, request: Request) -> Reply:
            return Reply(request.id, answer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "call", call)
            two.ship()
            await two.until_ended(1)
        assert (two.ended, two.woken) == ([False], 0)

    between_two(tell)


# What a peer lets in.


def test_a_snapshot_of_another_group_or_of_an_earlier_term_is_refused() -> None:
    async def tell(world: World) -> None:
        (peer,) = await world.form(KV, "a", nodes=1)
        await peer.write(KV.set, "a", "1")
        seat, state = peer._seat, peer._seat.raft.state
        snapshot = msgspec.structs.replace(FIRST, index=Index(100))

        async def told(group: str, term: int) -> object:
            waiter = Noted()
            message = InstallSnapshot(Term(term), PeerId("x"), snapshot)
            seat.receive_snapshot(SnapshotCall(group, message, 3, 0, b"abc"), waiter)
            await asyncio.sleep(1.0)
            [answer] = waiter.told
            return answer

        group = peer.status().group
        assert isinstance(await told("another", state.term), InvalidConfiguration)
        assert isinstance(await told(group, state.term - 1), NotLeader)
        store = seat.snapshots._store
        assert store.receive(snapshot, 0, b"") == 0, "nothing of it is kept"
        assert isinstance(await told(group, state.term), Corrupted), "what was let in was no snapshot"

    run_world(1, SMALL, tell)


COMPACTING = Settings(snapshot_entries=100, trailing_entries=10, snapshot_chunk_bytes=512)


async def fill(peer: Peer[KV], count: int, prefix: str = "k") -> None:
    for n in range(0, count, 50):
        await asyncio.gather(*(peer.write(KV.set, f"{prefix}{n + k}", "value") for k in range(50)))


async def form_with_one_behind(world: World) -> tuple[Peer[KV], Peer[KV]]:
    """Give the leader of three, and a follower that will need a snapshot as soon as it is heard."""
    leader, late, _ = await world.form(KV, "a", "b", "c")
    await leave_behind(world, leader, late)
    return leader, late


async def leave_behind(world: World, leader: Peer[KV], late: Peer[KV]) -> None:
    """Cut a follower off until it needs a snapshot."""
    world.network.isolate(address_of(late))
    await asyncio.sleep(2 * COMPACTING.election_timeout_max)
    await fill(leader, 400)
    await world.until(lambda: leader.status().first_index > late.status().last_index + 1)


@pytest.mark.parametrize("goes_on", [False, True], ids=["nothing was written since", "writes go on"])
def test_a_leader_notices_that_its_own_file_is_damaged_and_takes_another(
    caplog: pytest.LogCaptureFixture, goes_on: bool
) -> None:
    async def tell(world: World) -> None:
        leader, late = await form_with_one_behind(world)
        index = await leader.take_snapshot()
        await world.until(lambda: leader.status().snapshot_index == index)
        if goes_on:
            await fill(leader, 50, "more")
        snapshot = leader._seat.raft.state.snapshot
        assert snapshot is not None
        assert (leader.status().last_applied > snapshot.index) == goes_on
        store = leader._seat.snapshots._store
        assert isinstance(store, MemorySnapshots)
        content = bytearray(store._files[snapshot])
        content[len(content) // 2] ^= 1
        store._files[snapshot] = bytes(content)
        began = len(caplog.records)
        world.network.cut.clear()
        await world.until(lambda: late.status().last_applied == leader.status().last_applied)
        machines: list[Any] = [peer._seat.apply.machine for peer in (late, leader)]
        assert machines[0].entries == machines[1].entries
        latest = leader._seat.raft.state.snapshot
        assert latest is not None
        assert len(b"".join(store.chunks(latest))) > 400
        assert leader._seat.snapshots.sent == 1
        loud = [r.message for r in caplog.records[began:] if r.levelno == logging.CRITICAL]
        assert len(loud) == 1, "once, for one damage"
        assert "is damaged" in loud[0]

    run_world(3, COMPACTING, tell)


def test_a_restore_that_fails_stops_that_peer_alone_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(world: World) -> None:
        leader, late = await form_with_one_behind(world)

        def fail(_machine: KV, _chunks: Iterable[bytes]) -> None:
            raise ValueError("it was of a newer version")

        monkeypatch.setattr(KV, "restore", fail)
        world.network.cut.clear()
        await world.until(lambda: late._seat.failure is not None)
        assert "it was of a newer version" in (late.status().why or "")
        assert any("b stops" in r.message or f"{late.address.name} stops" in r.message for r in caplog.records)
        with pytest.raises(Exception, match="newer version"):
            await late.read(KV.get, "k1")
        await leader.write(KV.set, "still", "here")
        assert await leader.read(KV.get, "still") == "here"
        monkeypatch.undo()
        node = next(node for node in world.nodes if node.address == address_of(late))
        assert node.peers == (late,)

    run_world(3, COMPACTING, tell)


def test_a_disk_that_is_full_while_a_snapshot_is_written_keeps_the_peer_running() -> None:
    async def tell(world: World) -> None:
        (peer,) = await world.form(KV, "a", nodes=1)
        store = peer._seat.snapshots._store
        write = store.write

        def full(snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
            raise DiskFull("there is no room")

        store.write = full  # type: ignore[method-assign]
        await fill(peer, 250)
        with pytest.raises(DiskFull):
            await peer.take_snapshot()
        assert (peer.status().snapshot_index, peer.status().first_index) == (0, 1)
        store.write = write  # type: ignore[method-assign]
        assert await peer.take_snapshot() == peer.status().last_applied

    run_world(1, COMPACTING, tell)


def test_who_asks_while_a_snapshot_is_written_gets_one_that_holds_what_was_written_before_the_asking() -> None:
    async def tell(world: World) -> None:
        (peer,) = await world.form(KV, "a", nodes=1)
        await peer.write(KV.set, "one", "1")
        world.asides[0].seconds = 1.0
        first = asyncio.create_task(peer.take_snapshot())
        await asyncio.sleep(0.1)
        await peer.write(KV.set, "two", "2")
        index = peer.status().last_applied
        second = asyncio.create_task(peer.take_snapshot())
        assert await first < index
        assert await second == index

    run_world(1, SMALL, tell)


def test_stopping_does_not_wait_for_a_machine_that_is_being_restored() -> None:
    async def tell(two: Two) -> None:
        seen: list[bytes] = []
        outcomes: list[object] = []

        def restored(chunks: Iterable[bytes]) -> Any:
            for chunk in chunks:
                seen.append(chunk)
                two.sender.stop("enough")

        two.sender.restore(FIRST, restored, outcomes.append)
        await asyncio.sleep(1.0)
        assert (seen, outcomes) == (CHUNKS[:1], [])

    between_two(tell)


def test_how_a_snapshot_was_sent_in_a_term_that_is_over_concerns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(world: World) -> None:
        leader, _ = await form_with_one_behind(world)
        raft, told = leader._seat.raft, list[object]()
        ends: list[Callable[[bool], None]] = []
        monkeypatch.setattr(leader._seat.snapshots, "ship", lambda _, done: ends.append(done))
        monkeypatch.setattr(raft, "shipped", lambda *what, **how: told.append((what, how)))
        world.network.cut.clear()
        await world.until(lambda: ends)
        monkeypatch.setattr(raft.state, "term", Term(raft.state.term + 1))
        ends[0](True)
        assert not told
        monkeypatch.undo()

    run_world(3, COMPACTING, tell)


def hold_restoring(peer: Peer[KV], monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Let a peer's machine be restored only when what is put into the list is called."""
    held: list[Callable[[], None]] = []
    restore = peer._seat.snapshots.restore
    monkeypatch.setattr(peer._seat.snapshots, "restore", lambda *args: held.append(lambda: restore(*args)))
    return held


def test_until_a_machine_is_restored_nothing_is_applied_and_nothing_kept_of_the_log_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tell(world: World) -> None:
        leader, late = await form_with_one_behind(world)
        applied = late.status().last_applied
        assert late._seat._sender.cache.bytes > 0
        held = hold_restoring(late, monkeypatch)
        read: list[object] = []
        monkeypatch.setattr(late._seat, "read_durable", lambda *args: read.append(args))
        world.network.cut.clear()
        await world.until(lambda: held)
        assert late._seat._sender.cache.bytes == 0
        await fill(leader, 50, "more")
        await world.until(lambda: late.status().last_index == leader.status().last_index)
        assert (late.status().last_applied, read) == (applied, [])
        monkeypatch.undo()
        held.pop()()
        await world.until(lambda: late.status().last_applied == leader.status().last_applied)

    run_world(3, COMPACTING, tell)


def test_what_was_committed_while_a_machine_was_restored_is_applied_as_soon_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tell(world: World) -> None:
        leader, late = await form_with_one_behind(world)
        held = hold_restoring(late, monkeypatch)
        world.network.cut.clear()
        await world.until(lambda: held)
        await fill(leader, 50, "more")
        index = leader.status().last_index
        await world.until(lambda: late.status().commit_index == index)
        world.network.isolate(address_of(late))
        await asyncio.sleep(5 * DELAY)  # Nothing is under way any more: neither entries nor heartbeats.
        held.pop()()
        await asyncio.sleep(5 * DELAY)
        assert late.status().last_applied == index

    run_world(3, COMPACTING, tell)


def test_a_snapshot_that_comes_while_one_is_restored_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(world: World) -> None:
        leader, late = await form_with_one_behind(world)
        applied = late.status().last_applied
        held = hold_restoring(late, monkeypatch)
        world.network.cut.clear()
        await world.until(lambda: len(held) == 1)
        world.network.isolate(address_of(late))
        await asyncio.sleep(2 * COMPACTING.election_timeout_max)
        await fill(leader, 400, "more")
        await world.until(lambda: leader.status().first_index > late.status().last_index + 1)
        world.network.cut.clear()
        await world.until(lambda: len(held) == 2)
        held[0]()
        await asyncio.sleep(1.0)
        assert late.status().last_applied == applied
        held[1]()
        await world.until(lambda: late.status().last_applied == leader.status().last_applied)

    run_world(3, COMPACTING, tell)


@pytest.mark.parametrize("is_read", [True, False], ids=["they were read before", "they are gone from the disk"])
def test_entries_that_are_read_to_be_applied_while_a_snapshot_comes_in_are_let_go(
    is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(world: World) -> None:
        leader, late, _ = await world.form(KV, "a", "b", "c")
        await leader.write(KV.set, "k", "v")
        await asyncio.sleep(1.0)
        held: list[Callable[[], None]] = []
        read = late._seat.read_durable

        def hold(first: Index, last: Index, done: Callable[[Any], None]) -> None:
            if is_read:
                read(first, last, lambda runs: held.append(lambda: done(runs)))
            else:
                held.append(lambda: read(first, last, done))

        monkeypatch.setattr(late._seat, "read_durable", hold)
        applied = late.status().last_applied
        await leader.write(KV.set, "k", "w")
        await world.until(lambda: held)
        await leave_behind(world, leader, late)
        world.network.cut.clear()
        await world.until(lambda: late.status().last_applied > applied)
        await asyncio.sleep(1.0)  # Now its disk has the snapshot, too.
        monkeypatch.undo()
        held.pop()()
        await leader.write(KV.set, "still", "here")
        await world.until(lambda: late.status().last_applied == leader.status().last_applied)
        assert late._seat.failure is None
        assert await late.read(KV.get, "still") == "here"

    run_world(3, msgspec.structs.replace(COMPACTING, cache_bytes_max=0), tell)


# Witnesses and newcomers, on real nodes.

QUICK = msgspec.structs.replace(SETTINGS, snapshot_entries=100, trailing_entries=10, snapshot_chunk_bytes=512)


async def test_a_witness_that_comes_after_compaction_gets_a_snapshot_without_state_and_answers_no_reads(
    tmp_path: Path,
) -> None:
    async with cluster(KV, 3, tmp_path, settings=QUICK) as group:
        for name in ("peer1", "peer2"):
            await group.start(name)
        await group.peers["peer1"].set_configuration(*group.addresses[:2])
        leader = await group.leader()
        await fill(leader, 600)
        await leader.take_snapshot()
        assert leader.status().first_index > 1
        await group.start("peer3")
        await leader.add_peer(group.address("peer3"), kind="witness")
        await group.converge()
        witness = group.peers["peer3"]
        snapshot = witness._seat.raft.state.snapshot
        assert snapshot is not None
        assert snapshot.is_bare
        files = list((tmp_path / "peer3/peers/peer3/snapshots").iterdir())
        assert [file.stat().st_size for file in files] == [len(stateless(snapshot))]
        assert group.machine_of("peer3").entries == {}
        for read in (witness.read, witness.read_stale):
            with pytest.raises(NotLeader):
                await read(KV.get, "k1")
        await group.stop("peer3")
        again = await group.start("peer3")
        await group.converge()
        assert again._seat.apply.is_witness


async def test_a_newcomer_joins_by_snapshot_in_pieces_over_connections_that_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[SnapshotCall] = []
    receive_snapshot = Seat.receive_snapshot
    connect = TCPTransport.connect
    channels: list[Any] = []

    async def remember(transport: TCPTransport, node: str) -> Any:
        channel = await connect(transport, node)
        channels.append(channel)
        return channel

    def receive(seat: Seat, call: SnapshotCall, waiter: Any) -> None:
        sent.append(call)
        receive_snapshot(seat, call, waiter)
        if len(sent) in (6, 15):
            for channel in channels:
                asyncio.ensure_future(channel.close())  # noqa: RUF006

    monkeypatch.setattr(TCPTransport, "connect", remember)
    monkeypatch.setattr(Seat, "receive_snapshot", receive)
    settings = msgspec.structs.replace(QUICK, reconnect_delay_max=0.05)
    async with cluster(KV, 2, tmp_path, settings=settings) as group:
        one = await group.start("peer1")
        await one.set_configuration(one.address)
        await one.leader()
        await fill(one, 1000)
        index = await one.take_snapshot()
        async with asyncio.timeout(20):
            while one.status().snapshot_index < index:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        two = await group.start("peer2", join=one.address)
        assert two.status().snapshot_index == index
        await group.converge()
        assert group.machine_of("peer2").entries == group.machine_of("peer1").entries
        pieces = [call for call in sent if call.piece]
        assert max(len(call.piece) for call in pieces) == 512
        assert sum(len(call.piece) for call in pieces) <= pieces[0].size + 2 * 512, "it went on where it was"
        assert len([call for call in sent if not call.piece]) >= 3, "one question for each connection"


async def test_a_state_larger_than_any_frame_comes_over_with_the_default_pieces() -> None:
    """One chunk of the machine's is 12 MiB here, and the largest frame 8 MiB."""
    settings = msgspec.structs.replace(SETTINGS, trailing_entries=0)

    class Large(KV):
        def snapshot(self) -> Iterable[bytes]:
            return [msgspec.msgpack.encode(self.entries) + b"\0" * (12 * 1024 * 1024)]

        def restore(self, chunks: Iterable[bytes]) -> None:
            self.entries = msgspec.msgpack.decode(b"".join(chunks).rstrip(b"\0"), type=dict[str, str])

    async with Node("127.0.0.1:0", store="memory", settings=settings) as a:
        one = await a.start_peer(Large, name="one")
        await one.set_configuration(one.address)
        await one.leader()
        await one.write(Large.set, "key", "value")
        await one.take_snapshot()
        async with asyncio.timeout(20):
            while one.status().first_index == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with Node("127.0.0.1:0", store="memory", settings=settings) as b:
            two = await b.start_peer(Large, name="two", join=one.address)
            assert two.status().snapshot_index > 0
            assert await two.read(Large.get, "key") == "value"
            assert one._seat.snapshots.sent == 1
