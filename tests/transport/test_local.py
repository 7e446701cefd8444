"""The local socket: who may open it, what is done with what lies at its path, and what is refused on it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport import local
from quorate.transport.calls import Value
from quorate.transport.frames import FrameKind, Hello, encode_frame
from quorate.transport.local import PATH_BYTES_MAX, PREFIX, LocalAddress, LocalSocket, parse_target
from quorate.transport.tcp import TCPTransport
from quorate.types import Address
from tests.transport.bench import Bench, Recorder, ask, until, vote

ADVERTISED = "127.0.0.1:7001"


@pytest.fixture
def path() -> Iterator[str]:
    """Give a path that is short enough; those of pytest's directories are not always."""
    with tempfile.TemporaryDirectory(prefix="quorate-") as directory:
        yield f"{directory}/local.sock"


async def listening(bench: Bench, path: str) -> tuple[TCPTransport, Recorder]:
    return await bench.node(PREFIX + path, advertise=ADVERTISED)


def leave_behind(path: str) -> None:
    """Leave what a process leaves that is killed: a socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)


def mode_of(path: str) -> int | None:
    """Give the permissions of what lies at a path; None if nothing does."""
    return stat.S_IMODE(os.lstat(path).st_mode) if os.path.lexists(path) else None


def keep(path: str, text: str) -> None:
    Path(path).write_text(text, "utf-8")


def kept(path: str) -> str:
    return Path(path).read_text("utf-8")


async def test_a_client_calls_over_it_and_only_its_owner_may(bench: Bench, path: str) -> None:
    await listening(bench, path)
    assert mode_of(path) == 0o600
    channel = await bench.transport(None).connect(PREFIX + path)
    replies = await asyncio.gather(*(channel.call(ask(bytes(20_000))) for _ in range(20)))
    assert {reply.answer for reply in replies} == {Value(bytes(20_000))}


def test_its_mode_is_set_before_anybody_can_connect(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    chmod = os.chmod

    def watched(file: str, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(file)
        seen.append(mode)
        chmod(file, mode)

    monkeypatch.setattr(os, "chmod", watched)
    bound = LocalSocket(path)
    bound.socket.close()
    assert seen == [0o600]


async def test_it_is_gone_after_a_clean_stop(bench: Bench, path: str) -> None:
    node, _ = await listening(bench, path)
    await node.stop()
    assert mode_of(path) is None


async def test_one_that_another_has_taken_over_is_left_alone(bench: Bench, path: str) -> None:
    node, _ = await listening(bench, path)
    os.unlink(path)
    await listening(bench, path)
    await node.stop()
    channel = await bench.transport(None).connect(PREFIX + path)
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")


async def test_what_a_killed_process_has_left_is_replaced(bench: Bench, path: str) -> None:
    leave_behind(path)
    await listening(bench, path)
    channel = await bench.transport(None).connect(PREFIX + path)
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")


async def test_a_node_that_listens_there_is_named_and_goes_on(bench: Bench, path: str) -> None:
    await listening(bench, path)
    with pytest.raises(FileExistsError, match=f"cannot listen at {path}: the node {ADVERTISED} listens there; stop it"):
        await listening(bench, path)
    channel = await bench.transport(None).connect(PREFIX + path)
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")


@pytest.mark.parametrize("says", [b"220 mail.example ESMTP\r\n", b""])
async def test_another_program_that_listens_there_is_left_alone(bench: Bench, path: str, says: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    async with await asyncio.start_unix_server(talk, path):
        with pytest.raises(FileExistsError, match="another program listens there; stop it, or choose another path"):
            await listening(bench, path)


async def test_a_file_at_its_path_is_left_alone(bench: Bench, path: str) -> None:
    keep(path, "precious")
    with pytest.raises(FileExistsError, match="something that is no socket is there, and is left alone"):
        await listening(bench, path)
    assert kept(path) == "precious"


async def test_a_directory_that_is_not_there_is_said(bench: Bench, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"cannot listen at {path}/x: No such file or directory"):
        await listening(bench, f"{path}/x")


def test_of_those_that_start_at_once_behind_a_dead_one_a_single_one_gets_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without taking turns, one takes away what another has just made, and that one is never reached again."""
    leave_behind(path)
    clear = local.clear

    def slowly(path: str) -> None:
        clear(path)
        time.sleep(0.05)  # long enough for the others to come as far

    monkeypatch.setattr(local, "clear", slowly)
    monkeypatch.setattr(local, "PROBE_SECONDS", 0.05)

    def bind(_: int) -> LocalSocket | None:
        try:
            return LocalSocket(path)
        except FileExistsError:
            return None

    with ThreadPoolExecutor(4) as threads:
        bound = [made for made in threads.map(bind, range(4)) if made is not None]
    for made in bound:
        made.socket.close()
    assert len(bound) == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"garbage" * 10,
        encode_frame(FrameKind.HELLO, [Hello("", "calls")]) + b"garbage" * 10,
        encode_frame(FrameKind.HELLO, [Hello("", "accepted")]),
        encode_frame(FrameKind.HELLO, [Hello("127.0.0.1:7002", "peers")]) + encode_frame(FrameKind.PACKETS, [vote(1)]),
        encode_frame(FrameKind.HELLO, [Hello("", "calls")]) + encode_frame(FrameKind.PACKETS, [vote(1)]),
    ],
    ids=["garbage", "garbage after a hello", "the node's own word", "a peer", "packets of a client"],
)
async def test_what_does_not_belong_there_ends_its_connection_with_one_warning(
    bench: Bench, path: str, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node, recorder = await listening(bench, path)
    channel = await bench.transport(None).connect(PREFIX + path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(bad)
    async with asyncio.timeout(10):
        while await reader.read(1000):
            pass
    writer.close()
    await until(lambda: node.bad_frames == 1)
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")
    assert recorder.packets == []
    # What asyncio says of a slow turn is not the node's word.
    ours = [record for record in caplog.records if record.name.startswith("quorate.")]
    warnings = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be read: " in warnings[0]
    assert "connection closed" in warnings[0]


async def test_a_client_is_told_why_it_cannot_be_reached(bench: Bench, path: str) -> None:
    client = bench.transport(None)
    with pytest.raises(Unavailable, match=f"unix:{path} is not there: no node has its local socket at this path"):
        await client.connect(PREFIX + path)
    leave_behind(path)
    with pytest.raises(Unavailable, match=f"unix:{path} refuses the connection: no node listens there"):
        await client.connect(PREFIX + path)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    os.unlink(path)
    async with await asyncio.start_unix_server(hang_up, path):
        with pytest.raises(Unavailable, match="closed the connection at once: check that a node of quorate listens"):
            await client.connect(PREFIX + path)


def test_addresses_are_read_and_written() -> None:
    assert parse_target("unix:/run/kv.sock") == LocalAddress("", "/run/kv.sock")
    assert parse_target("peer1@unix:/run/a@b.sock") == LocalAddress("peer1", "/run/a@b.sock")
    assert parse_target("peer1@unix:7001") == Address("peer1", "unix", 7001)
    assert parse_target("peer1@unix.example:7001") == Address("peer1", "unix.example", 7001)
    assert parse_target(Address("peer1", "127.0.0.1", 7001)) == Address("peer1", "127.0.0.1", 7001)
    for text in ("unix:/run/kv.sock", "peer1@unix:/run/kv.sock"):
        assert str(parse_target(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unix:", r"'' \(0 bytes\) cannot be the path of a local socket: it begins with a slash"),
        ("unix:kv.sock", "it begins with a slash"),
        ("unix:/run/" + "é" * 60, rf"\(125 bytes\) cannot be .* {PATH_BYTES_MAX} bytes at most"),
        ("unix:/run/\0", "none of them zero"),
        ("two words@unix:/run/kv.sock", "write it as unix:/run/kv.sock or peer1@unix:/run/kv.sock"),
        ("@unix:/run/kv.sock", "write it as unix:/run/kv.sock or peer1@unix:/run/kv.sock"),
        ("/run/kv.sock", "write it as name@host:port"),
    ],
)
def test_what_cannot_be_one_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_target(text)


def test_the_longest_path_can_be_bound_and_one_more_byte_cannot(path: str) -> None:
    directory = os.path.dirname(path)
    longest = f"{directory}/".ljust(PATH_BYTES_MAX, "x")
    bound = LocalSocket(parse_target(PREFIX + longest).node.removeprefix(PREFIX))
    bound.socket.close()
    with pytest.raises(ValueError, match="bytes at most"):
        parse_target(f"{PREFIX}{longest}x")


def test_a_directory_that_another_program_holds_is_given_up_and_said_so(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOCK_SECONDS", 0.02)
    with (
        local.alone_in(os.path.dirname(path)),
        pytest.raises(OSError, match="another program holds the directory") as caught,
    ):
        LocalSocket(path)
    assert path in str(caught.value)
    made = LocalSocket(path)
    made.remove()
    made.socket.close()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(path: str) -> None:
    """It is bound in a thread, which goes on; here it waits there for another program."""
    settings = Settings()
    transport = TCPTransport(PREFIX + path, advertise=ADVERTISED, settings=settings, random=lambda: 0.0)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    listening = asyncio.create_task(transport.listen(Recorder()))
    await asyncio.sleep(0.05)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await transport.stop()
    os.close(descriptor)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert mode_of(path) is None
