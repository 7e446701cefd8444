"""MIT 6.824, the tests of the Raft lab, 2A to 2D, retold: the whole library over the simulated network."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from quorate.core.messages import AppendEntries
from quorate.testing.network import CALM, Rates
from quorate.testing.simulation import Report
from quorate.transport import Packet

from .story import LOSSY, SETTINGS, TIMEOUT, Story, run

SEEDS = pytest.mark.parametrize("seed", range(4))
FEW_SEEDS = pytest.mark.parametrize("seed", range(2))


class Sent:
    """Counts what a story's peers send."""

    def __init__(self, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[Packet] = []
        sent = story.history.sent

        def note(name: str, packets: list[Packet]) -> None:
            self.messages += packets
            sent(name, packets)

        monkeypatch.setattr(story.history, "sent", note)

    def payloads(self) -> list[bytes]:
        """Give the payloads of all entries that were sent, once for each time."""
        appends = [packet.message for packet in self.messages if isinstance(packet.message, AppendEntries)]
        return [payload for append in appends for run in append.entries for payload in run.payloads]


# 2A: elections.


@SEEDS
@pytest.mark.covers("MIT 6.824 2A InitialElection")
def test_2a_initial_election(seed: int) -> None:
    async def tell(story: Story) -> None:
        leader = await story.leader()
        term = story.term(leader)
        await asyncio.sleep(4 * TIMEOUT)
        assert {story.term(process) for process in story.processes} == {term}
        assert await story.leader() is leader

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2A ReElection")
def test_2a_re_election(seed: int) -> None:
    async def tell(story: Story) -> None:
        first = await story.leader()
        story.cut_off(first)
        second = await story.leader()
        assert second is not first
        story.connect(first)
        await story.reach(lambda: story.names(first) == second.name, "the old leader follows the new one")
        assert await story.leader() is second
        third = story.others(second)[0]
        story.cut_off(second, third)
        await asyncio.sleep(3 * TIMEOUT)
        assert [process.role for process in story.processes].count("leader") == 0
        story.connect(third)
        await story.leader()
        story.connect(second)
        await story.leader()

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2A ManyElections")
def test_2a_many_elections(seed: int) -> None:
    async def tell(story: Story) -> None:
        for _ in range(10):
            some = story.chance.sample(story.processes, 3)
            story.cut_off(*some)
            await story.leader()
            story.connect(*some)
        await story.leader()

    run(seed, 7, tell)


# 2B: the log.


@SEEDS
@pytest.mark.covers("MIT 6.824 2B BasicAgree")
def test_2b_basic_agree(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        before = len(story.history.committed)
        for number in range(1, 4):
            assert len(story.history.committed) == before + number - 1
            await story.agree(3)
            assert len(story.history.committed) == before + number

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B RPCBytes")
def test_2b_rpc_bytes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        sent = Sent(story, monkeypatch)
        tokens = [await story.agree(3, size=5000) for _ in range(10)]
        payloads = sent.payloads()
        assert [sum(f"x{token}".encode() in payload for payload in payloads) for token in tokens] == [2] * 10
        whole = sum(len(msgspec.msgpack.encode(packet)) for packet in sent.messages)
        assert whole < 2 * sum(map(len, payloads)) + 50_000

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B FailAgree")
def test_2b_fail_agree(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        away = story.others(await story.leader())[0]
        story.cut_off(away)
        missed = [await story.agree(2) for _ in range(2)]
        await asyncio.sleep(2 * TIMEOUT)
        missed += [await story.agree(2) for _ in range(2)]
        assert [story.applied(token) for token in missed] == [2] * 4
        story.connect(away)
        await story.agree(3)
        await asyncio.sleep(2 * TIMEOUT)
        await story.agree(3)
        assert [story.applied(token) for token in missed] == [3] * 4

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B FailNoAgree")
def test_2b_fail_no_agree(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(5)
        leader = await story.leader()
        before = story.commit_index(leader)
        away = story.others(leader)[:3]
        story.cut_off(*away)
        assert await story.write(leader, patience=3 * TIMEOUT) is None
        assert {story.commit_index(process) for process in story.processes} == {before}
        story.connect(*away)
        await story.leader()
        await story.agree(5)

    run(seed, 5, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B ConcurrentStarts")
def test_2b_concurrent_starts(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        leader = await story.leader()
        term, before = story.term(leader), len(story.history.committed)
        tokens = await asyncio.gather(*(story.write(leader) for _ in range(5)))
        written = [token for token in tokens if token is not None]
        assert len(written) >= 4  # A client may have given up on one.
        await story.reach(lambda: all(story.applied(token) == 3 for token in written), "all of them everywhere")
        assert story.term(leader) == term
        assert len(story.history.committed) == before + 5

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B Rejoin")
def test_2b_rejoin(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        first = await story.leader()
        story.cut_off(first)
        lost = [f"lost{number}" for number in range(3)]
        writes = [asyncio.ensure_future(story.wrote(first, token, 4 * TIMEOUT)) for token in lost]
        await story.agree(2)
        second = await story.leader()
        story.cut_off(second)
        story.connect(first)
        await story.agree(2)
        story.connect(second)
        await story.agree(3)
        assert await asyncio.gather(*writes) == [False] * 3
        assert [story.applied(token) for token in lost] == [0] * 3

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B Backup", "pitfall 26")
def test_2b_backup(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(5)
        first = await story.leader()
        mate, *three = story.others(first)
        story.cut_off(*three)
        writes = [asyncio.ensure_future(story.write(first)) for _ in range(50)]
        await asyncio.sleep(TIMEOUT / 2)
        story.cut_off(first, mate)
        story.connect(*three)
        await story.agree(3)
        second = await story.leader()
        await asyncio.gather(*(story.write(second) for _ in range(50)))
        lagging = next(process for process in three if process is not second)
        story.cut_off(lagging)
        writes += [asyncio.ensure_future(story.write(second)) for _ in range(50)]
        await asyncio.sleep(TIMEOUT / 2)
        story.cut_off(*story.processes)
        story.connect(first, mate, lagging)
        await story.agree(3)
        third = await story.leader()
        await asyncio.gather(*(story.write(third) for _ in range(50)))
        story.connect(*story.processes)
        await story.agree(5)
        await asyncio.gather(*writes)

    run(seed, 5, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2B Count")
def test_2b_count(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(story: Story) -> None:
        first = await story.leader()
        sent = Sent(story, monkeypatch)
        first.crash()
        await story.leader()
        assert 4 <= len(sent.messages) <= 40, "an election"
        await first.start()
        leader = await story.leader()
        await asyncio.sleep(TIMEOUT)
        sent.messages.clear()
        await asyncio.gather(*(story.write(leader) for _ in range(10)))
        assert len(sent.messages) <= 3 * (10 + 1 + 3), "agreement"
        sent.messages.clear()
        await asyncio.sleep(1.0)
        assert len(sent.messages) <= 2 * 2 * 21, "a second of heartbeats to two peers, and their answers"

    run(seed, 3, tell)


# 2C: persistence.


@SEEDS
@pytest.mark.covers("MIT 6.824 2C Persist1")
def test_2c_persist_1(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        await story.restart(*story.processes)
        await story.agree(3)
        leader = await story.leader()
        story.cut_off(leader)
        await story.restart(leader)
        story.connect(leader)
        await story.agree(3)
        for is_leader in (True, False):
            leader = await story.leader()
            away = leader if is_leader else story.others(leader)[0]
            story.cut_off(away)
            await story.agree(2)
            await story.restart(away)
            story.connect(away)
            await story.agree(3)

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2C Persist2")
def test_2c_persist_2(seed: int) -> None:
    async def tell(story: Story) -> None:
        for _ in range(4):
            await story.agree(5)
            leader = await story.leader()
            one, two, three, four = story.others(leader)
            story.cut_off(one, two)
            await story.agree(3)
            story.cut_off(leader, three, four)
            await story.restart(one, two)
            story.connect(one, two)
            await asyncio.sleep(TIMEOUT)
            await story.restart(three)
            story.connect(three)
            await story.agree(3)
            await story.restart(four, leader)
            story.connect(four, leader)
        await story.agree(5)

    run(seed, 5, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2C Persist3")
def test_2c_persist_3(seed: int) -> None:
    async def tell(story: Story) -> None:
        await story.agree(3)
        leader = await story.leader()
        other, away = story.others(leader)
        story.cut_off(away)
        await story.agree(2)
        leader.crash()
        other.crash()
        story.connect(away)
        await leader.start()
        await story.agree(2)
        await other.start()
        await story.agree(3)

    run(seed, 3, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2C Figure8")
def test_2c_figure_8(seed: int) -> None:
    async def tell(story: Story) -> None:
        writes: list[asyncio.Future[str | None]] = []
        crashes = 0
        for _ in range(150):
            leaders = story.leaders()
            crashes += len(leaders)
            writes += [asyncio.ensure_future(story.write(process)) for process in leaders]
            await asyncio.sleep(story.chance.random() * (TIMEOUT / 2 if story.chance.random() < 0.1 else 0.013))
            for process in leaders:
                process.crash()
            down = [process for process in story.processes if process.life is None]
            if len(down) > 2:
                await story.chance.choice(down).start()
            if not leaders:
                await asyncio.sleep(TIMEOUT / 4)
        await asyncio.gather(*(process.start() for process in story.processes if process.life is None))
        await story.agree(5)
        await asyncio.gather(*writes)
        assert crashes > 10

    run(seed, 5, tell)


@SEEDS
@pytest.mark.covers("MIT 6.824 2C UnreliableAgree")
def test_2c_unreliable_agree(seed: int) -> None:
    async def tell(story: Story) -> None:
        for _ in range(20):
            leader = await story.leader()
            await asyncio.gather(*(story.write(leader) for _ in range(4)), story.agree(1))
        story.network.rates = Rates()
        await story.agree(5)

    run(seed, 5, tell, network=LOSSY)


@SEEDS
@pytest.mark.covers("MIT 6.824 2C Figure8Unreliable", "pitfall 18")
def test_2c_figure_8_unreliable(seed: int) -> None:
    async def tell(story: Story) -> None:
        writes: list[asyncio.Future[str | None]] = []
        cut = 0
        for number in range(150):
            if number == 50:
                story.network.rates = msgspec.structs.replace(LOSSY, straggle=0.3, delay_max=0.1)
            leading = [process for process in story.processes if process.role == "leader"]
            writes += [asyncio.ensure_future(story.write(process)) for process in leading]
            await asyncio.sleep(story.chance.random() * (TIMEOUT / 2 if story.chance.random() < 0.1 else 0.05))
            if leading and story.chance.random() < 0.5:
                story.cut_off(*leading)
                cut += 1
            while len(story.away) > 2:
                story.connect(*[p for p in story.processes if p.name in story.away and story.chance.random() < 0.5])
        story.connect(*story.processes)
        story.network.rates = LOSSY
        await story.agree(5)
        await asyncio.gather(*writes)
        assert cut > 5

    run(seed, 5, tell, network=LOSSY)


async def churn(story: Story) -> None:
    """Cut off, crash and restart peers at random while clients write and read."""
    for _ in range(14):
        one, two, three = (story.chance.choice(story.processes) for _ in range(3))
        if story.chance.random() < 0.2:
            story.cut_off(one)
        if story.chance.random() < 0.5:
            if two.life is None:
                await two.start()
            story.connect(two)
        if story.chance.random() < 0.2:
            three.crash()
        await asyncio.sleep(0.7 * TIMEOUT)
    story.connect(*story.processes)
    await asyncio.gather(*(process.start() for process in story.processes if process.life is None))
    await story.agree(5)


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2C ReliableChurn", "pitfall 34")
def test_2c_reliable_churn(seed: int) -> None:
    report = run(seed, 5, churn, load=14 * 0.7 * TIMEOUT)
    assert report.outcomes["ok"] > 20


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2C UnreliableChurn", "pitfall 34")
def test_2c_unreliable_churn(seed: int) -> None:
    report = run(seed, 5, churn, load=14 * 0.7 * TIMEOUT, network=LOSSY)
    assert report.outcomes["ok"] > 20


# 2D: snapshots.

SHORT = msgspec.structs.replace(SETTINGS, snapshot_entries=10, trailing_entries=0, snapshot_chunk_bytes=200)
"""A snapshot with every ten entries, and nothing kept behind it."""


def write_through_snapshots(seed: int, away: str, network: Rates = CALM) -> Report:
    """Write ten and one entries a round, while one peer is cut off, or down, or neither; a leader at times."""

    async def tell(story: Story) -> None:
        await story.agree(3)
        for number in range(4):
            leader = await story.leader()
            victim = leader if number % 2 else story.others(leader)[0]
            if away == "cut off":
                story.cut_off(victim)
            elif away == "down":
                victim.crash()
            if away:
                await asyncio.sleep(2 * TIMEOUT)  # Who was heard just now holds back what is dropped.
            for _ in range(SHORT.snapshot_entries + 1):
                await story.agree(2)
            await story.reach(lambda: held(story) <= 2 * SHORT.snapshot_entries, "short logs")
            story.connect(victim)
            if victim.life is None:
                await victim.start()
            await story.agree(3)

    return run(seed, 3, tell, network=network, settings=SHORT)


def held(story: Story) -> int:
    """Count the entries of the longest log among those not cut off."""
    running = [process for process in story.processes if process.role is not None and process.name not in story.away]
    statuses = [story._peer(process).status() for process in running]
    return max(status.last_index - status.first_index + 1 for status in statuses)


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2D SnapshotBasic")
def test_2d_snapshot_basic(seed: int) -> None:
    assert write_through_snapshots(seed, "").steps["snapshot taken"] >= 3 * 4


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2D SnapshotInstall")
def test_2d_snapshot_install(seed: int) -> None:
    assert write_through_snapshots(seed, "cut off").steps["snapshot installed"] >= 3


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2D SnapshotInstallUnreliable")
def test_2d_snapshot_install_unreliable(seed: int) -> None:
    assert write_through_snapshots(seed, "cut off", LOSSY).steps["snapshot installed"] >= 2


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2D SnapshotInstallCrash")
def test_2d_snapshot_install_crash(seed: int) -> None:
    assert write_through_snapshots(seed, "down").steps["snapshot installed"] >= 3


@FEW_SEEDS
@pytest.mark.covers("MIT 6.824 2D SnapshotInstallUnCrash")
def test_2d_snapshot_install_un_crash(seed: int) -> None:
    assert write_through_snapshots(seed, "down", LOSSY).steps["snapshot installed"] >= 2
