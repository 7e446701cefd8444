"""Snapshots on real nodes: logs stay short, newcomers are brought up to date, nothing waits for a large one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest

from quorate import Corrupted, MachineError, Peer, StateMachine, Status, StoreError, connect, read, write
from quorate.core.messages import InstallSnapshot
from quorate.machines import KV
from quorate.transport import Packet
from quorate.types import Index, PeerId, Snapshot, Term
from tests.api.cluster import SETTINGS, cluster

SMALL = msgspec.structs.replace(SETTINGS, snapshot_entries=100, trailing_entries=10, snapshot_chunk_bytes=512)
STEADY = msgspec.structs.replace(SMALL, election_timeout_min=0.5, election_timeout_max=1.0)
"""For who writes to one leader all along: on a busy machine elections come sooner than is meant."""


async def fill(peer: Peer[KV], count: int, prefix: str = "k") -> None:
    """Write that many keys."""
    await asyncio.gather(*(peer.write(KV.set, f"{prefix}{n}", f"value {n}") for n in range(count)))


async def until(holds: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_compacted(status: Status) -> bool:
    return status.snapshot_index > 0 and status.first_index > 1


async def test_a_log_is_shortened_and_a_restart_begins_with_the_snapshot(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path, settings=SMALL) as group:
        peer = await group.form()
        for batch in range(5):
            await fill(peer, 100, f"{batch}-")
        await until(lambda: peer.status().snapshot_index >= 400)
        index = await peer.take_snapshot()
        files = tmp_path / "peer1/peers/peer1/snapshots"
        await until(lambda: peer.status().snapshot_index == index and len(list(files.iterdir())) == 1)
        before = peer.status()
        assert before.first_index == before.snapshot_index - 10 + 1
        await group.stop("peer1")
        assert [file.name.split("-")[0] for file in files.iterdir()] == [str(index)]
        again = await group.start("peer1")
        assert again.status().snapshot_index == before.snapshot_index
        await group.leader()
        assert await again.read(KV.get, "0-7") == "value 7"
        assert await again.read(KV.get, "4-99") == "value 99"


async def test_what_is_left_without_a_majority_is_read_and_its_snapshot_again_after_a_restart(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path, settings=SMALL) as group:
        leader = await group.form()
        left = next(peer for peer in group.peers.values() if peer is not leader)
        await leader.write(KV.set, "foo", "bar")
        await left.read(KV.get, "foo")
        for name in {"peer1", "peer2", "peer3"} - {left.name}:
            await group.stop(name)
        assert (await left.read_stale(KV.get, "foo")).value == "bar"
        index = await left.take_snapshot()
        await group.stop(left.name)
        again = await group.start(left.name)
        found = await again.read_stale(KV.get, "foo")
        assert (found.value, found.index) == ("bar", index)


async def test_a_peer_that_missed_more_than_the_log_holds_is_sent_a_snapshot(tmp_path: Path) -> None:
    async with cluster(KV, 3, tmp_path, settings=STEADY) as group:
        leader = await group.form()
        late = next(name for name in group.peers if name != leader.name)
        await group.stop(late)
        await asyncio.sleep(STEADY.election_timeout_max)  # Who was heard just now holds back what is dropped.
        for batch in range(8):
            await fill(leader, 100, f"{batch}-")
        await until(lambda: leader.status().first_index > 500)
        follower = await group.start(late)
        await group.converge()
        assert follower.status().snapshot_index > 500
        assert group.machine_of(late).entries == group.machine_of(leader.name).entries
        await until(lambda: leader._seat.snapshots.sent == 1)  # The follower has it a moment before its answer is here.
        await leader.write(KV.set, "after", "it")
        await group.converge()
        assert group.machine_of(late).entries["after"] == "it"


class Gated(StateMachine):
    """A machine whose snapshot is written for as long as the test wants."""

    values: list[int]
    gate = threading.Event()
    begun = threading.Event()

    def __init__(self) -> None:
        self.values = []

    def snapshot(self) -> Iterable[bytes]:
        frozen = list(self.values)

        def chunks() -> Iterator[bytes]:
            self.begun.set()
            while not self.gate.wait(0.05):
                yield b""
            yield msgspec.msgpack.encode(frozen)

        return chunks()

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.values = msgspec.msgpack.decode(b"".join(chunks), type=list[int])

    @write
    def add(self, value: int) -> int:
        self.values.append(value)
        return len(self.values)

    @read
    def all(self) -> list[int]:
        return self.values


@pytest.mark.covers("pitfall 63")
async def test_writes_and_reads_go_on_while_a_snapshot_is_written_and_are_not_in_it(tmp_path: Path) -> None:
    Gated.gate.clear()
    Gated.begun.clear()
    async with cluster(Gated, 1, tmp_path) as group:
        peer = await group.form()
        await peer.write(Gated.add, 1)
        taking = asyncio.create_task(peer.take_snapshot())
        await until(Gated.begun.is_set)
        for value in range(2, 30):
            await peer.write(Gated.add, value)
        assert len(await peer.read(Gated.all)) == 29
        assert not taking.done()
        assert peer.status().snapshot_index == 0
        Gated.gate.set()
        index = await taking
        await until(lambda: peer.status().snapshot_index == index)
        store = peer._seat.snapshots._store
        snapshot = peer._seat.raft.state.snapshot
        assert snapshot is not None
        _, *chunks = store.chunks(snapshot)  # The first one holds the tables beside the machine.
        assert msgspec.msgpack.decode(b"".join(chunks)) == [1]
        await group.stop("peer1")
        again = await group.start("peer1")
        await group.leader()
        assert await again.read(Gated.all) == list(range(1, 30))


async def test_a_node_stops_though_a_snapshot_is_being_written(tmp_path: Path) -> None:
    Gated.gate.clear()
    Gated.begun.clear()
    async with cluster(Gated, 1, tmp_path) as group:
        peer = await group.form()
        await peer.write(Gated.add, 1)
        taking = asyncio.create_task(peer.take_snapshot())
        await until(Gated.begun.is_set)
        await group.stop("peer1")
        with pytest.raises(Exception, match="stopped"):
            await taking
        Gated.gate.set()
        again = await group.start("peer1")
        await group.leader()
        assert await again.read(Gated.all) == [1]


async def test_a_peer_that_has_applied_nothing_new_takes_no_snapshot(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path) as group:
        peer = await group.start("peer1")
        assert await peer.take_snapshot() == 0
        await peer.set_configuration(peer.address)
        await peer.leader()
        await peer.write(KV.set, "key", "value")
        index = await peer.take_snapshot()
        files = list((tmp_path / "peer1/peers/peer1/snapshots").iterdir())
        assert await peer.take_snapshot() == index
        assert list((tmp_path / "peer1/peers/peer1/snapshots").iterdir()) == files


class Stubborn(KV):
    """A machine that cannot give its state."""

    def snapshot(self) -> Iterable[bytes]:
        raise RuntimeError("no")

    def restore(self, chunks: Iterable[bytes]) -> None:
        raise AssertionError("there is nothing to restore")


async def test_a_snapshot_that_fails_takes_nothing_away() -> None:
    async with cluster(Stubborn, 1, None, settings=SMALL) as group:
        peer = await group.form()
        await peer.write(KV.set, "key", "value")
        with pytest.raises(MachineError, match=r"Stubborn\.snapshot raised RuntimeError"):
            await peer.take_snapshot()
        for batch in range(3):
            await fill(peer, 100, f"{batch}-")
        assert (peer.status().snapshot_index, peer.status().first_index) == (0, 1)
        assert await peer.read(KV.get, "2-99") == "value 99"


class Lossy(StateMachine):
    shares: dict[str, float]

    def __init__(self) -> None:
        self.shares = {}

    @write
    def set(self, key: str, whole: bool) -> None:
        self.shares[key] = 1 if whole else 1.0


async def test_while_snapshots_fail_the_status_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(Lossy, 1, None, settings=SMALL) as group:
        peer = await group.form()
        assert peer.status().why is None
        await peer.write(Lossy.set, "a", True)
        sentence = "Lossy.shares['a'] is an int, and would come back as a float"
        with pytest.raises(MachineError, match=re.escape(sentence)):
            await peer.take_snapshot()
        assert f"its snapshots fail, so that its log grows: Lossy.snapshot raised TypeError: {sentence}" in str(
            peer.status()
        )
        (record,) = [record for record in caplog.records if record.name == "quorate.snapshots"]
        assert sentence in record.message
        assert record.exc_info is None  # the message says it all
        await peer.write(Lossy.set, "a", False)
        await peer.take_snapshot()
        assert peer.status().why is None


class Wordy(Stubborn):
    def snapshot(self) -> Iterable[bytes]:
        raise RuntimeError("no such file: \udcff")


async def test_words_that_are_no_utf_8_stand_in_the_status_as_they_can_be_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "quorate")  # Tests that run side by side could not send each other such a log.
    async with cluster(Wordy, 1, None, settings=SMALL) as group:
        peer = await group.form()
        await peer.write(KV.set, "key", "value")
        with pytest.raises(MachineError):
            await peer.take_snapshot()
        async with connect(Wordy, str(peer.address)) as kv:
            assert (await kv.status())[0].why == (
                "its snapshots fail, so that its log grows: Wordy.snapshot raised RuntimeError: no such file: \\udcff"
            )
            peer._seat.failure = MachineError("it cannot open \udcff")
            assert (await kv.status())[0].why == "it has stopped: it cannot open \\udcff"
            peer._seat.failure = None


async def test_of_a_snapshot_method_that_raises_the_log_says_where(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(Stubborn, 1, None, settings=SMALL) as group:
        peer = await group.form()
        await peer.write(KV.set, "key", "value")
        with pytest.raises(MachineError, match=r"Stubborn\.snapshot raised RuntimeError"):
            await peer.take_snapshot()
        (record,) = [record for record in caplog.records if record.name == "quorate.snapshots"]
        assert record.exc_info


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some room, and it is tried anew"),
        (errno.EIO, "[Errno 5] Input/output error; check the disk"),
    ],
)
async def test_of_a_snapshot_that_the_disk_refuses_the_log_says_it_all_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """And nothing that is not so: the peer goes on, and needs no start."""

    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    async with cluster(KV, 1, tmp_path, settings=SMALL) as group:
        peer = await group.form()
        await peer.write(KV.set, "key", "value")
        with monkeypatch.context() as patch:
            patch.setattr("quorate.store.snapshots.replacing", refuse)
            with pytest.raises(StoreError) as raised:
                await peer.take_snapshot()
        (record,) = [record for record in caplog.records if record.name == "quorate.snapshots"]
        assert str(raised.value).endswith(f".snapshot failed: {said}")
        assert record.message.endswith(str(raised.value))
        assert record.exc_info is None
        assert await peer.take_snapshot() > 0


async def test_a_damaged_snapshot_is_not_believed(tmp_path: Path) -> None:
    async with cluster(KV, 1, tmp_path, settings=SMALL) as group:
        peer = await group.form()
        await fill(peer, 300)
        await peer.take_snapshot()
        await until(lambda: is_compacted(peer.status()))
        await group.stop("peer1")
        (file,) = (tmp_path / "peer1/peers/peer1/snapshots").iterdir()
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(Corrupted, match="give this peer an empty data directory"):
            await group.start("peer1")
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        await group.nodes.pop("peer1").stop()
        again = await group.start("peer1")
        await group.leader()
        assert await again.read(KV.get, "k299") == "value 299"


async def test_a_snapshot_message_without_its_file_changes_nothing() -> None:
    async with cluster(KV, 1, None) as group:
        peer = await group.form()
        await peer.write(KV.set, "a", "1")
        seat = peer._seat
        state = seat.raft.state
        group = peer.status().group
        snapshot = Snapshot(Index(100), Term(1), 0.0, Index(1), b"")
        seat.receive(
            "1.2.3.4:5", Packet(group, PeerId("x"), state.peer, InstallSnapshot(Term(9), PeerId("x"), snapshot))
        )
        assert await peer.read(KV.get, "a") == "1"
        assert state.term < 9
