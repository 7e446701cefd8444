"""Overload: what is beyond the bounds is refused at once, and without a quorum memory stays within the settings.

Ten minutes on virtual time, with everything that could grow looked at every second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quorate import NotLeader, OutcomeUnknown, Overloaded, Peer, QuorateError, Settings
from quorate.machines import KV
from quorate.settings import KIB
from tests.api.virtual import World, address_of, run_world

SETTINGS = Settings(
    command_bytes_max=16 * KIB,
    append_bytes_max=32 * KIB,
    uncommitted_bytes_max=128 * KIB,
    cache_bytes_max=64 * KIB,
    in_flight_max=4,
    snapshot_entries=500,
    trailing_entries=50,
)
MINUTES = 10
PAUSE = 0.5
BURST = 4
VALUE = "v" * KIB


class Books:
    """What became of calls, and how long each took."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcomes: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call, and wait for nobody."""
        task = asyncio.create_task(self._call(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, call: Callable[[], Awaitable[object]]) -> None:
        began = self.world.loop.time()
        try:
            await call()
            outcome = "ok"
        except QuorateError as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1
        self.longest[outcome] = max(self.longest.get(outcome, 0.0), self.world.loop.time() - began)

    async def settle(self) -> None:
        """Wait for all calls."""
        await asyncio.gather(*self._tasks)


def held(peer: Peer[Any]) -> Counter[str]:
    """Weigh and count all of a peer that could grow."""
    seat = peer._seat
    state, apply, reads = seat.raft.state, seat.apply, seat._reads
    return Counter(
        uncommitted=state.uncommitted_bytes,
        cache=seat._sender.cache.bytes,
        waiters=sum(len(batch.waiters) for batch in apply._proposed),
        applied_reads=sum(len(queries) for _, queries in apply._reads),
        reads=sum(len(queries) for queries in reads._rounds.values()),
        asked=len(state.asked),
        outbox=len(state.outbox.messages) + len(state.outbox.entries) + len(state.outbox.messages_after_persist),
        after=len(seat._after),
        unpersisted=len(state.unpersisted),
        inbox=len(seat._messages) + len(seat._commands) + len(seat._errands) + len(seat._waiting),
        pointers=len(seat.snapshots._pointers),
    )


async def press(
    world: World, peers: list[Peer[Any]], books: Books, *, read_only: bool = False, minutes: int = MINUTES
) -> Counter[str]:
    """Write to and read from every peer steadily; give the most that any of them ever held of anything."""
    most: Counter[str] = Counter()
    for _ in range(round(minutes * 60 / PAUSE)):
        for n, peer in enumerate(peers):
            for k in range(BURST):
                if not read_only:
                    books.begin(lambda peer=peer, k=k, n=n: peer.write(KV.set, f"{n}.{k}", VALUE))  # type: ignore[misc]
                books.begin(lambda peer=peer: peer.read(KV.get, "first"))  # type: ignore[misc]
        await asyncio.sleep(PAUSE)
        for peer in peers:
            most |= held(peer)
    return most


async def goes_on(world: World, peers: list[Peer[Any]]) -> None:
    """Wait until all is well again: one leader, a write, and all peers alike, with nothing left over."""
    await world.until(lambda: any(peer.status().role == "leader" for peer in peers))

    async def wrote() -> bool:
        for peer in peers:
            try:
                await peer.write(KV.set, "last", "word")
            except (NotLeader, OutcomeUnknown):
                continue
            return True
        return False

    async with asyncio.timeout(30):
        while not await wrote():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    machines: list[Any] = [peer._seat.apply.machine for peer in peers]
    await world.until(lambda: all(machine.entries.get("last") == "word" for machine in machines))
    assert machines[0].entries == machines[1].entries == machines[2].entries
    await asyncio.sleep(2 * SETTINGS.call_timeout)
    for peer in peers:
        left = held(peer)
        del left["cache"]
        assert not +left, f"{peer.address.name} still holds {left}"


# At most what is durable is dropped from memory beyond the bound; what comes before the disk is done is on top.
CACHE_MAX = SETTINGS.cache_bytes_max + SETTINGS.uncommitted_bytes_max
CALLS_MAX = round((SETTINGS.call_timeout / PAUSE + 2) * BURST)
"""Calls of one kind to one peer that can wait at once."""


def test_proposals_beyond_the_bounds_are_refused_at_once() -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        leader, books = peers[0], Books(world)
        world.network.isolate(address_of(leader))
        for n in range(1000):
            books.begin(lambda n=n: leader.write(KV.set, f"{n}", VALUE))  # type: ignore[misc]
        await asyncio.sleep(0.05)
        taken = 1000 - books.outcomes["Overloaded"]
        assert books.outcomes == {"Overloaded": 1000 - taken}
        assert books.longest["Overloaded"] < 0.001
        assert leader.status().role == "leader"
        assert SETTINGS.uncommitted_bytes_max - 2 * KIB < held(leader)["uncommitted"] <= SETTINGS.uncommitted_bytes_max
        with pytest.raises(Overloaded, match="wait for a quorum already"):
            await leader.write(KV.set, "one", VALUE * 2)
        await books.settle()
        assert books.outcomes == {"Overloaded": 1000 - taken, "OutcomeUnknown": taken}
        assert books.longest["OutcomeUnknown"] <= SETTINGS.call_timeout + 0.1
        assert held(leader)["waiters"] == 0, "whoever was told is forgotten"
        world.network.cut.clear()
        await goes_on(world, peers)

    run_world(3, SETTINGS, tell)


@pytest.mark.parametrize("cut", ["the leader from both", "everybody from everybody"])
def test_memory_stays_within_the_settings_without_a_quorum_for_ten_minutes(cut: str) -> None:
    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        books = Books(world)
        await peers[0].write(KV.set, "first", "write")
        everybody = cut == "everybody from everybody"
        world.network.isolate(*(address_of(peer) for peer in (peers if everybody else peers[:1])))
        most = await press(world, peers if everybody else peers[:1], books)
        assert most["uncommitted"] <= SETTINGS.uncommitted_bytes_max
        assert most["cache"] <= CACHE_MAX
        # Who led took calls until it stepped down; who follows or campaigns takes none.
        for name in ("waiters", "applied_reads", "reads", "asked"):
            assert most[name] <= CALLS_MAX, name
        for name in ("outbox", "after", "unpersisted", "inbox", "pointers"):
            assert most[name] <= 2 * BURST, name
        await books.settle()
        assert set(books.outcomes) <= {"NotLeader", "OutcomeUnknown", "Unavailable"}
        assert books.longest["NotLeader"] <= 2 * SETTINGS.election_timeout_max, "reads whose leader steps down"
        assert books.outcomes["NotLeader"] > 20 * sum(books.outcomes.values()) / 21
        world.network.cut.clear()
        await goes_on(world, peers)

    run_world(3, SETTINGS, tell)


def test_reads_do_not_pile_up_at_a_follower_whose_leader_does_not_hear_it() -> None:
    """A link that carries one way only: the follower knows its leader for ever, and is never answered."""

    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        leader, deaf = peers[0], peers[1]
        books = Books(world)
        await leader.write(KV.set, "first", "write")
        world.network.cut.add((address_of(deaf), address_of(leader)))
        most = await press(world, [deaf], books, read_only=True)
        assert deaf.status().leader == leader.address
        assert CALLS_MAX / 2 < most["reads"] <= CALLS_MAX
        assert most["asked"] <= CALLS_MAX
        await books.settle()
        assert set(books.outcomes) == {"Unavailable"}
        assert books.longest["Unavailable"] <= SETTINGS.call_timeout + 0.1
        assert held(deaf)["asked"] == held(deaf)["reads"] == 0
        world.network.cut.clear()
        assert await deaf.read(KV.get, "first") == "write"
        await goes_on(world, peers)

    run_world(3, SETTINGS, tell)


def test_those_who_wait_for_a_leader_beyond_the_bound_are_refused_at_once(monkeypatch) -> None:
    """Each of them is looked at in every turn: without a bound a stranger could make a peer too slow to be elected."""
    monkeypatch.setattr("quorate.errands.ERRANDS_MAX", 3)

    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        follower, books = peers[1], Books(world)
        other = [world.nodes[world.place(peer)] for peer in (peers[0], peers[2])]
        for node in other:
            await node.stop()
        await asyncio.sleep(2 * SETTINGS.election_timeout_max)
        for _ in range(5):
            books.begin(lambda: follower.leader())
        await asyncio.sleep(0.05)
        assert books.outcomes == {"Overloaded": 2}
        await books.settle()
        assert books.outcomes == {"Overloaded": 2, "Unavailable": 3}
        books.begin(lambda: follower.leader())
        await asyncio.sleep(0.05)
        assert sum(books.outcomes.values()) == 5, "whoever was told makes room"
        await books.settle()

    run_world(3, SETTINGS, tell)


def test_a_machine_that_is_being_restored_costs_no_memory() -> None:
    """The leader goes on; what it sends meanwhile waits on the disk of the follower."""

    async def tell(world: World) -> None:
        peers = await world.form(KV, "a", "b", "c")
        leader, late = peers[0], peers[1]
        place = [node.address for node in world.nodes].index(address_of(late))
        world.network.isolate(address_of(late))
        await asyncio.sleep(2 * SETTINGS.election_timeout_max)  # Who was heard just now holds back what is dropped.
        for n in range(40):
            await asyncio.gather(*(leader.write(KV.set, f"{n}.{k}", VALUE) for k in range(30)))
        await world.until(lambda: leader.status().first_index > late.status().last_index + 1)
        received = late._seat.snapshots.restore

        def restore_slowly(*arguments: Any) -> None:
            world.asides[place].seconds = 60.0
            received(*arguments)

        late._seat.snapshots.restore = restore_slowly  # type: ignore[method-assign, assignment]
        world.network.cut.clear()
        await world.until(lambda: late._seat._restoring is not None)
        most: Counter[str] = Counter()
        for n in range(100):
            await asyncio.gather(*(leader.write(KV.set, f"{n}.{k}", VALUE) for k in range(20)))
            most |= held(late)
        assert late._seat._restoring is not None
        assert late.status().last_index > late.status().last_applied + 1500
        assert most["cache"] <= CACHE_MAX
        world.asides[place].seconds = 0.001
        await world.until(lambda: late._seat._restoring is None, 200.0)
        await goes_on(world, peers)

    run_world(3, SETTINGS, tell)
