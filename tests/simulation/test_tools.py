"""The simulator's own tools: the clock, the disk, the network."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from quorate.core.messages import RequestVoteReply
from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.store import Batch
from quorate.testing.clock import ProcessClock, Stalled, VirtualLoop
from quorate.testing.disk import SimulatedDisk, SimulatedExecutor
from quorate.testing.network import SHAPES, Rates, SimulatedNetwork
from quorate.transport import Packet
from quorate.transport.memory import MemoryTransport
from quorate.types import HardState, Index, Kind, PeerId, Run, Term


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


class Log:
    """What a disk did, and what a node received."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def written(self, batch: Batch) -> None:
        self.said.append(f"written {batch.runs[0].first}")

    def persisted(self, count: int) -> None:
        self.said.append(f"persisted {count}")

    def forgot(self) -> None:
        self.said.append("forgot")

    def receive_packets(self, source: str, packets: list[Packet]) -> None:
        self.said += [str(packet.message.term) for packet in packets]

    def lose_node(self, node: str) -> None:
        pass

    def receive_requests(self, requests: object, answer: object) -> None:
        raise AssertionError("nobody calls")


# The clock.


def test_time_jumps_to_the_next_call() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def note(name: str, wait: float) -> None:
            await asyncio.sleep(wait)
            seen.append((name, loop.time()))

        await asyncio.gather(note("slow", 3600.0), note("quick", 0.25), note("also quick", 0.25))
        return seen

    assert run(main) == [("quick", 0.25), ("also quick", 0.25), ("slow", 3600.0)]


def test_timeouts_work_on_virtual_time() -> None:
    async def main(loop: VirtualLoop) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await loop.create_future()
        return loop.time()

    assert run(main) == 5.0


def test_a_cancelled_timer_does_not_move_time() -> None:
    async def main(loop: VirtualLoop) -> float:
        loop.call_later(1.0, pytest.fail).cancel()
        await asyncio.sleep(2.0)
        return loop.time()

    assert run(main) == 2.0


def test_waiting_for_nothing_is_an_error_not_a_hang() -> None:
    async def main(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Stalled):
        run(main)


def test_calls_without_end_at_one_instant_are_an_error_not_a_hang() -> None:
    async def main(loop: VirtualLoop) -> None:
        await asyncio.sleep(1.0)

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.sleep(1.0)

    with pytest.raises(Stalled, match=r"at 1\.000 s there are calls without end"):
        run(main)


def test_a_paused_process_makes_its_calls_later_and_in_order() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[str, float]]:
        clock = ProcessClock(loop)
        seen: list[tuple[str, float]] = []
        clock.call_at(1.0, lambda: seen.append(("first", clock.time())))
        clock.call_at(2.0, lambda: seen.append(("second", clock.time())))
        clock.call_at(2.0, lambda: pytest.fail("it was cancelled")).cancel()
        clock.call_at(4.0, lambda: seen.append(("third", clock.time())))
        clock.pause()
        await asyncio.sleep(3.0)
        clock.resume()
        await asyncio.sleep(3.0)
        return seen

    assert run(main) == [("first", 3.0), ("second", 3.0), ("third", 4.0)]


def test_a_dead_process_does_nothing() -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = ProcessClock(loop)
        clock.call_soon(lambda: pytest.fail("dead"))
        clock.call_at(1.0, lambda: pytest.fail("dead"))
        clock.kill()
        await asyncio.sleep(2.0)

    run(main)


def test_a_clock_that_runs_fast_reaches_its_deadlines() -> None:
    async def main(loop: VirtualLoop) -> tuple[float, float]:
        clock = ProcessClock(loop, 1.01)
        reached = loop.create_future()
        clock.call_at(3.03, lambda: reached.set_result(clock.time()))
        return await reached, loop.time()

    at, virtual = run(main)
    assert at >= 3.03
    assert virtual == pytest.approx(3.0)


# The disk.


def entry(index: int) -> Batch:
    return Batch("log", HardState(Term(index)), (Run(Term(1), Index(index), Kind.COMMAND, 0.0, (b"x",)),))


def test_a_crash_forgets_what_was_not_synced_but_for_whole_batches_from_the_front() -> None:
    survived = set()
    for seed in range(40):
        disk = SimulatedDisk(Log())
        disk.append([entry(1), entry(2)])
        disk.sync()
        disk.finish()
        disk.append([entry(3), entry(4), entry(5)])
        disk.sync()  # The crash comes before it has ended.
        disk.crash(Random(seed))
        stored = disk.load("log")
        assert stored.hard_state.term == stored.last
        survived.add(stored.last)
    assert survived == {2, 3, 4, 5}


def test_a_write_is_durable_and_told_when_its_time_has_passed() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        log = Log()
        clock, disk = ProcessClock(loop), SimulatedDisk(log)
        executor = SimulatedExecutor(loop, clock, disk, lambda: 1.0)

        def write(number: int) -> Callable[[], None]:
            def job() -> None:
                disk.append([entry(number)])
                disk.sync()

            return job

        executor.submit(write(1), lambda *_: log.said.append("told 1"))
        executor.submit(write(2), lambda *_: log.said.append("told 2"))
        await asyncio.sleep(0.5)
        log.said.append("half a second")
        clock.pause()
        await asyncio.sleep(1.0)
        log.said.append("paused")
        clock.resume()
        await asyncio.sleep(2.0)
        return log.said

    expected = ["written 1", "half a second", "persisted 1", "paused", "written 2", "told 1", "persisted 1", "told 2"]
    assert run(main) == expected


def test_what_a_job_raises_is_handed_over() -> None:
    async def main(loop: VirtualLoop) -> BaseException | None:
        executor = SimulatedExecutor(loop, ProcessClock(loop), SimulatedDisk(Log()), lambda: 1.0)
        told = loop.create_future()
        executor.submit(lambda: 1 // 0, lambda _, error: told.set_result(error))
        return await told

    assert isinstance(run(main), ZeroDivisionError)


# The network.


def send(rates: Rates, count: int, *, cut: bool = False, release: bool = False) -> tuple[list[int], SimulatedNetwork]:
    """Send packets of ascending terms from a to b, one each millisecond; give the terms that arrived, in order."""
    log = Log()
    networks: list[SimulatedNetwork] = []

    async def main(loop: VirtualLoop) -> None:
        network = SimulatedNetwork(loop, Random(1))
        networks.append(network)
        network.rates = rates
        ends = [MemoryTransport(network, address, Settings()) for address in ("a:1", "b:1")]
        for end in ends:
            await end.listen(log)
        if cut:
            network.cut([("a:1", "b:1")])
        for term in range(count):
            ends[0].send("b:1", [Packet("g", PeerId("a"), PeerId("b"), RequestVoteReply(Term(term), True))])
            await asyncio.sleep(0.001)
        await asyncio.sleep(10.0)
        if release:
            network.release()
            await asyncio.sleep(10.0)

    run(main)
    return [int(term) for term in log.said], networks[0]


def test_a_calm_network_delivers_each_packet_once_and_in_order() -> None:
    assert send(Rates(), 100)[0] == list(range(100))


def test_a_network_loses_and_counts_it() -> None:
    arrived, network = send(Rates(loss=0.3), 200)
    assert len(arrived) == 200 - network.counts["loss"] < 200


def test_a_network_repeats() -> None:
    arrived, network = send(Rates(repeat=0.5), 200)
    assert set(arrived) == set(range(200))
    assert len(arrived) == 200 + network.counts["repeat"] > 200


def test_a_network_reorders_unless_it_is_fifo() -> None:
    assert send(Rates(delay_max=0.05, fifo=True), 100)[0] == list(range(100))
    arrived, _ = send(Rates(delay_max=0.05, fifo=False), 100)
    assert sorted(arrived) == list(range(100)) != arrived


def test_what_is_parked_arrives_when_it_is_released() -> None:
    kept, _ = send(Rates(park=0.5), 100)
    released, network = send(Rates(park=0.5), 100, release=True)
    assert set(kept) < set(released) == set(range(100))
    assert len(released) == len(kept) + network.counts["park"]


def test_a_cut_link_carries_nothing() -> None:
    assert send(Rates(), 10, cut=True)[0] == []


def test_a_connection_across_a_cut_link_fails_or_waits_until_it_is_healed() -> None:
    async def main(loop: VirtualLoop) -> set[str]:
        network = SimulatedNetwork(loop, Random(1))
        network.cut([("b:1", "a:1")])
        loop.call_later(5.0, network.heal)
        outcomes = set()
        for _ in range(20):
            network.cut([("b:1", "a:1")]) if loop.time() < 5.0 else None
            try:
                await network.reach("a:1", "b:1")
            except Unavailable:
                outcomes.add("refused")
            else:
                outcomes.add("waited" if loop.time() >= 5.0 else "through")
        return outcomes

    assert run(main) == {"refused", "waited"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_partition_cuts_something_and_not_all(shape: str, count: int) -> None:
    nodes = [f"{number}:1" for number in range(count)]
    ways = SHAPES[shape](nodes, Random(1))
    everything = {(a, b) for a in nodes for b in nodes if a != b}
    assert set(ways) <= everything
    if count == 5:
        assert 0 < len(set(ways)) < len(everything)
