"""Clients by the local socket of a node: they need no way to the others, and no certificate, and write exactly once."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from quorate import (
    TLS,
    Address,
    Client,
    Node,
    NotLeader,
    OutcomeUnknown,
    Rejected,
    SessionExpired,
    Settings,
    StateMachine,
    Unavailable,
    blocking,
    connect,
    read,
    write,
)
from quorate.forwarding import Forwarding
from quorate.machines import KV
from quorate.transport import Answer
from quorate.transport.calls import (
    CancelCall,
    Failure,
    IdentifyCall,
    ReadCall,
    Reply,
    Request,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
    failure_from_error,
)
from quorate.transport.local import PREFIX
from quorate.transport.tcp import TCPTransport

from .cluster import SETTINGS, Cluster, cluster


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose paths are short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="quorate-") as made:
        yield Path(made)


@asynccontextmanager
async def group(directory: Path, **options: object) -> AsyncIterator[Cluster[KV]]:
    """Run a group of three, each node with a local socket."""
    async with cluster(KV, **options) as nodes:
        for address in nodes.addresses:
            nodes.options["local"] = str(directory / f"{address.name}.sock")
            await nodes.start(address.name)
        await nodes.peers["peer1"].set_configuration(*nodes.addresses)
        await nodes.leader()
        yield nodes


def beside(directory: Path, name: str, **options: object) -> Client[KV]:
    """Make a client of the node that has a peer."""
    return connect(KV, f"unix:{directory / name}.sock", settings=SETTINGS, **options)  # type: ignore[arg-type]


async def test_every_node_serves_the_whole_group(directory: Path) -> None:
    async with group(directory) as nodes:
        leader = await nodes.leader()
        for number, name in enumerate(nodes.peers):
            async with beside(directory, name) as kv:
                assert await kv.write(KV.append, "log", name) == "".join(list(nodes.peers)[: number + 1])
                assert (await kv.read(KV.get, "log")).endswith(name)
                assert await kv.leader() == leader.address
                assert [status.name for status in await kv.status()] == [name]
                with pytest.raises(Rejected):
                    await kv.read(KV.get, "nothing")


async def test_the_status_is_watched_at_the_socket_and_nowhere_else(directory: Path) -> None:
    async with group(directory) as nodes:
        leader = await nodes.leader()
        name = next(name for name in nodes.peers if name != leader.name)
        async with beside(directory, name) as kv:
            watch = kv.watch_status()
            first = await anext(watch)
            assert (first.name, first.leader, len(first.members)) == (name, leader.address, 3)
            await nodes.stop(leader.name)
            async for status in watch:
                assert status.name == name
                if status.leader not in (None, leader.address):
                    break


async def test_a_watch_that_is_given_up_is_forgotten_at_once(directory: Path) -> None:
    async with group(directory) as nodes, beside(directory, "peer1") as kv:
        watch = kv.with_options(timeout=60.0).watch_status()
        await anext(watch)
        standing = nodes.peers["peer1"]._seat.standing
        waiting = asyncio.create_task(anext(watch))
        await until(lambda: len(standing._watchers) == 1)
        waiting.cancel()
        await until(lambda: not standing._watchers)


async def test_calls_that_are_given_up_are_held_no_longer(directory: Path) -> None:
    async with group(directory) as nodes, beside(directory, "peer1") as kv, beside(directory, "peer1") as new:
        await kv.write(KV.append, "log", "a")
        await asyncio.gather(*(nodes.stop(name) for name in ("peer2", "peer3")))
        _, forwarding = nodes.nodes["peer1"]._local  # type: ignore[misc]
        patient = kv.with_options(timeout=60.0)
        calls = [asyncio.ensure_future(patient.write(KV.append, "log", "b")) for _ in range(3)]
        calls.append(asyncio.ensure_future(patient.read(KV.get, "log")))
        # The first call of a client goes another way than those of one that was answered before.
        calls.append(asyncio.ensure_future(new.with_options(timeout=60.0).read(KV.get, "log")))
        # Where it does not lead, only the first of the writes is repeated.
        await until(lambda: len(forwarding._asked) >= 3 and forwarding._bytes > 0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not forwarding._asked and forwarding._bytes == 0, seconds=3.0)


async def test_giving_up_some_writes_keeps_those_behind_them_neither_waiting_nor_out_of_order(directory: Path) -> None:
    async with group(directory) as nodes:
        leader = await nodes.leader()
        worker = next(name for name in nodes.peers if name != leader.name)
        async with beside(directory, worker) as impatient, asyncio.timeout(30):
            kv = impatient.with_options(timeout=60)  # So long one would wait that waits for one given up.
            await kv.write(KV.append, "log", "")
            for turn in range(20):
                writes = [asyncio.create_task(kv.write(KV.append, "log", f"{turn}-{n}.")) for n in range(10)]
                for _ in range(turn):
                    await asyncio.sleep(0)
                for write in writes[::3]:
                    write.cancel()
                await asyncio.gather(*writes, return_exceptions=True)
                assert not any(isinstance(write.exception(), Exception) for write in writes if not write.cancelled())
            log = (await kv.read(KV.get, "log")).split(".")[:-1]
        places = [tuple(map(int, word.split("-"))) for word in log]
        assert places == sorted(set(places))
        assert {(turn, n) for turn in range(20) for n in range(10) if n % 3} <= set(places)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so; where it would be so after a while anyway, not as long as that."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_writes_keep_their_order_and_happen_once_while_leaders_change(directory: Path) -> None:
    async with group(directory) as nodes:
        first = await nodes.leader()
        worker = next(name for name in nodes.peers if name != first.name)
        async with beside(directory, worker) as kv:
            # Connects the two: a connection that comes in while a server closes is an error to asyncio in debug mode.
            await kv.write(KV.set, "log", "")
            writes = [asyncio.create_task(kv.write(KV.append, "log", f"{number}.")) for number in range(50)]
            await nodes.stop(first.name)
            writes += [asyncio.create_task(kv.write(KV.append, "log", f"{number}.")) for number in range(50, 100)]
            await asyncio.gather(*writes)
            assert await kv.read(KV.get, "log") == "".join(f"{number}." for number in range(100))


async def test_many_writes_that_lose_their_leader_do_not_fill_the_log_of_the_next_with_tries(
    directory: Path,
) -> None:
    """Each that is tried again by itself comes before an earlier one, and is refused, by the log, again and again."""
    count = 200
    asyncio.get_running_loop().set_debug(False)  # It would take as long as many a deadline.
    async with group(directory) as nodes:
        first = await nodes.leader()
        worker = next(name for name in nodes.peers if name != first.name)
        async with beside(directory, worker) as kv:
            await kv.write(KV.set, "log", "")
            patient = kv.with_options(timeout=60.0)
            before = first.status().last_index
            writes = [asyncio.create_task(patient.write(KV.append, "log", f"{number}.")) for number in range(count)]
            await asyncio.sleep(0)  # They are made, and none has come to the leader yet.
            await nodes.stop(first.name)
            await asyncio.gather(*writes)
            assert await kv.read(KV.get, "log") == "".join(f"{number}." for number in range(count))
        assert nodes.peers[worker].status().last_index - before < 3 * count


async def test_workers_of_a_group_with_certificates_need_none(directory: Path) -> None:
    # Two nodes that dial each other give up one of the two handshakes: in debug mode asyncio calls that an error.
    asyncio.get_running_loop().set_debug(False)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    for name, pem in (("cert", issued.cert_chain_pems[0]), ("key", issued.private_key_pem), ("ca", authority.cert_pem)):
        pem.write_to_path(directory / name)
    tls = TLS(certificate=directory / "cert", key=directory / "key", ca=directory / "ca")
    async with group(directory, tls=tls) as nodes:
        for name in nodes.peers:
            async with beside(directory, name) as kv:
                await kv.write(KV.set, "foo", name)
                assert await kv.read(KV.get, "foo") == name


async def test_a_witness_passes_on_what_it_cannot_answer(directory: Path) -> None:
    async with group(directory) as nodes:
        leader = await nodes.leader()
        nodes.options["local"] = str(directory / "witness.sock")
        nodes.addresses.append(type(leader.address)("peer4", "127.0.0.1", 0))
        await nodes.start("peer4", join=leader.address, kind="witness")
        async with beside(directory, "witness") as kv:
            await kv.write(KV.set, "foo", "bar")
            assert await kv.read(KV.get, "foo") == "bar"
            assert (await kv.read_stale(KV.get, "foo")).value == "bar"


async def test_without_a_majority_it_is_said_why(directory: Path) -> None:
    async with group(directory) as nodes:
        for name in ("peer2", "peer3"):
            await nodes.stop(name)
        async with beside(directory, "peer1") as kv:
            with pytest.raises(Unavailable) as failed:
                await kv.with_options(timeout=1.0).write(KV.set, "foo", "bar")
        assert "peer2 (127.0.0.1:" in failed.value.reason
        assert "refuses the connection" in failed.value.reason


class Tally(StateMachine):
    """Counts."""

    count: int

    def __init__(self) -> None:
        self.count = 0

    @write
    def add(self) -> int:
        self.count += 1
        return self.count

    @read
    def all(self) -> int:
        return self.count


async def test_of_several_peers_one_is_named(directory: Path) -> None:
    path = directory / "local.sock"
    async with Node("127.0.0.1:0", store="memory", settings=SETTINGS, local=str(path)) as node:
        async with connect(KV, f"unix:{path}") as kv:
            with pytest.raises(Unavailable, match=r"no peer runs on this node$"):
                await kv.with_options(timeout=0.3).write(KV.set, "foo", "bar")
        for name, machine in (("tally", Tally), ("kv", KV)):
            peer = await node.start_peer(machine, name=name)
            await peer.set_configuration(peer.address)
        async with connect(Tally, f"tally@unix:{path}") as tally, connect(KV, f"unix:{path}") as kv:
            assert await tally.write(Tally.add) == 1
            with pytest.raises(Unavailable, match="say which peer is meant, as in peer1@unix:PATH; it has: tally, kv"):
                await kv.with_options(timeout=0.3).read(KV.get, "foo")


async def test_what_nodes_ask_of_one_another_is_refused(directory: Path) -> None:
    path = str(directory / "local.sock")
    async with Node("127.0.0.1:0", store="memory", local=path) as node:
        await node.start_peer(KV, name="peer1")
        client = TCPTransport(None, settings=Settings(), random=lambda: 0.5)
        channel = await client.connect(PREFIX + path)
        reply = await channel.call(Request(0, "peer1", IdentifyCall()))
        assert isinstance(reply.answer, Failure)
        assert "the local socket is for clients" in reply.answer.message
        await client.stop()


async def test_members_named_beside_it_are_asked_while_it_is_gone(directory: Path) -> None:
    async with group(directory) as nodes:
        leader = await nodes.leader()
        worker = next(name for name in nodes.peers if name != leader.name)
        async with connect(KV, f"unix:{directory / worker}.sock", leader.address, settings=SETTINGS) as kv:
            await kv.write(KV.set, "foo", "bar")
            await nodes.stop(worker)
            assert await kv.read(KV.get, "foo") == "bar"


async def test_a_node_whose_path_is_taken_does_not_start_and_lets_go_of_all(directory: Path) -> None:
    (directory / "local.sock").write_text("", "utf-8")
    node = Node("127.0.0.1:0", data_dir=directory / "data", local=str(directory / "local.sock"))
    with pytest.raises(FileExistsError, match="no socket is there"):
        await node.start()
    (directory / "local.sock").unlink()
    async with node:
        assert (directory / "local.sock").is_socket()
    assert not (directory / "local.sock").exists()


def test_a_path_that_is_too_long_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ValueError, match="cannot be the path of a local socket"):
        Node("127.0.0.1:0", store="memory", local="/" * 200)


NODE = """
import asyncio, sys
from quorate import Node
from quorate.machines import KV

async def main():
    async with Node("127.0.0.1:0", data_dir=sys.argv[1], local=sys.argv[2]) as node:
        peer = await node.start_peer(KV, name="peer1")
        if not peer.status().group:
            await peer.set_configuration(peer.address)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_killed_node_comes_back_and_its_workers_go_on(directory: Path) -> None:
    path = str(directory / "local.sock")

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", NODE, str(directory / "data"), path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    running = start()
    try:
        with blocking.connect(KV, f"unix:{path}") as kv:
            assert kv.write(KV.append, "log", "a") == "a"
            running.kill()
            running.communicate()
            assert os.path.lexists(path)  # it could not take it away
            impatient = kv.with_options(timeout=0.3)
            refused = "refuses the connection: no node listens there"
            with pytest.raises(Unavailable, match=refused):
                impatient.read(KV.get, "log")  # now the client knows, and no write is sent into a dead connection
            with pytest.raises(Unavailable, match=refused):
                impatient.write(KV.append, "log", "lost")
            running = start()
            assert kv.write(KV.append, "log", "b") == "ab"
    finally:
        running.kill()
        running.communicate()


# What is forwarded, without a network.


class Way:
    """Stands for the way to the leader, which ends as a test has it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.leader: object = None
        self.repeats: list[bool] = []

    def expect(self, leader: object) -> None:
        self.leader = leader

    async def ask(self, *_: object, repeats: bool, **__: object) -> object:
        self.repeats.append(repeats)
        raise self.error

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutcomeUnknown("lost"), "OutcomeUnknown"),
        (SessionExpired("a try of it may have happened"), "OutcomeUnknown"),
        (Unavailable("nobody"), "Unavailable"),
        (NotLeader(Address("peer2", "10.0.0.2", 7000), "peer1"), "Unavailable"),  # There the client has no way to.
        (Rejected("held", "ann"), "Rejected"),
    ],
)
async def test_a_session_that_ends_in_doubt_is_told_as_doubt(error: Exception, said: str) -> None:
    """Told as a session that had ended before, it would have the client write a second time."""
    answers = await forwarded(Way(error), WriteCall(b"", 1.0, 1, 1, 1))
    assert [answer.error for answer in answers if isinstance(answer, Failure)] == [said]


async def test_all_who_ask_how_the_peers_of_the_node_stand_are_asked_for_together() -> None:
    """So the node looks at each of its peers once for all of them."""
    asked: list[list[int]] = []

    def receive(requests: Sequence[Request], answer: Answer) -> None:
        asked.append([request.id for request in requests])
        for request in requests:
            answer(Reply(request.id, StatusIs(())))

    replies: list[Reply] = []
    forwarding = Forwarding({}, receive, lambda *_: pytest.fail("nobody else is asked"), 1000)
    forwarding.receive_requests([Request(number, "", StatusCall()) for number in range(3)], replies.append)
    assert asked == [[0, 1, 2]]
    assert [reply.id for reply in replies] == [0, 1, 2]


async def test_a_call_that_cannot_be_forwarded_is_answered_too(caplog: pytest.LogCaptureFixture) -> None:
    """Else it would count as one that waits for as long as its connection lasts, and no more would be read of that."""
    way = Way(PermissionError(13, "Permission denied", "node.key"))  # such as certificates, read at the first call
    answers = await forwarded(way, WriteCall(b"", 1.0, 1, 1, 1), ReadCall(b"", 1.0))
    said = [(answer.error, answer.message) for answer in answers if isinstance(answer, Failure)]
    assert [error for error, _ in said] == ["OutcomeUnknown", "Unavailable"]
    assert all("Permission denied: 'node.key'" in message for _, message in said)
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["quorate.forwarding"] * 2


async def test_a_write_behind_others_of_its_session_is_repeated_by_its_client_who_knows_when() -> None:
    way = Way(Unavailable("nobody"))
    for call in (WriteCall(b"", 1.0, 7, 2, 2), WriteCall(b"", 1.0, 7, 3, 2), WriteCall(b"", 1.0)):
        await forwarded(way, call)
    assert way.repeats == [True, False, True]


class Standstill(Way):
    """Stands for a way on which nobody answers."""

    def __init__(self) -> None:
        self.waiting = 0

    async def ask(self, *_: object, **__: object) -> object:
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            self.waiting -= 1


async def test_a_write_in_a_session_is_held_as_long_as_one_behind_it_waits() -> None:
    """Without it those behind would be refused by the leader, which has not seen it, until their time is over."""
    async with Node("127.0.0.1:0", store="memory") as node:
        await node.start_peer(KV, name="peer1")

        def receive(requests: Sequence[Request], answer: Answer) -> None:
            for request in requests:
                answer(Reply(request.id, failure_from_error(NotLeader(None, "peer1"))))

        way, answers = Standstill(), list[Reply]()
        answer = answers.append
        forwarding = Forwarding(node._places, receive, lambda *_: way, 1 << 20)  # type: ignore[arg-type, return-value]
        calls = [WriteCall(b"", 60.0, 7, number, 1) for number in (1, 2, 3)]
        calls += [WriteCall(b"", 60.0, 8, 1, 1), WriteCall(b"", 60.0)]
        forwarding.receive_requests([Request(number, "", call) for number, call in enumerate(calls, 1)], answer)
        left = {1: 5, 5: 4, 3: 3, 2: 1, 4: 0}  # how many calls are left, once this one has been given up too
        for number, count in left.items():
            forwarding.receive_requests([Request(10 + number, "", CancelCall(number))], answer)
            for _ in range(3):
                await asyncio.sleep(0)
            assert (way.waiting, len(forwarding._asked)) == (count, count)
        assert (forwarding._bytes, answers) == (0, [])
        await forwarding.stop()


async def forwarded(way: Way, *calls: WriteCall, bytes_max: int = 1 << 20) -> list[object]:
    """Give the answers to calls which the peer here, that does not lead, cannot answer."""
    async with Node("127.0.0.1:0", store="memory") as node:
        await node.start_peer(KV, name="peer1")

        def receive(requests: Sequence[Request], answer: Answer) -> None:
            for request in requests:
                answer(Reply(request.id, failure_from_error(NotLeader(None, "peer1"))))

        follow: Callable[..., object] = lambda *_: way  # noqa: E731
        forwarding = Forwarding(node._places, receive, follow, bytes_max)  # type: ignore[arg-type]
        replies: list[Reply] = []
        numbers = itertools.count(1)
        forwarding.receive_requests([Request(next(numbers), "", call) for call in calls], replies.append)
        async with asyncio.timeout(5):
            while len(replies) < len(calls):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await forwarding.stop()
        assert forwarding._bytes == 0
        return [reply.answer for reply in replies]


async def test_what_waits_for_the_leader_is_bounded() -> None:
    answers = await forwarded(Way(Unavailable("nobody")), *[WriteCall(bytes(1000), 1.0)] * 3, bytes_max=5000)
    errors = sorted(answer.error for answer in answers if isinstance(answer, Failure))
    assert errors == ["Overloaded", "Unavailable", "Unavailable"]
    assert not any(isinstance(answer, Value) for answer in answers)
