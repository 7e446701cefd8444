"""The door of a node: how many may stand in it, and who must go."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket

import pytest

from quorate.errors import Unavailable
from quorate.transport import accepting
from quorate.transport.calls import Value
from tests.transport.bench import Bench, ask, until
from tests.transport.test_tcp import hear_the_end, open_raw, warnings_in


async def test_one_connection_too_many_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accepting, "CONNECTIONS_MAX", 2)
    node, _ = await bench.node()
    channels = [await bench.transport(None).connect(node.address) for _ in range(2)]
    with pytest.raises(Unavailable, match="closed the connection"):
        await bench.transport(None).connect(node.address)
    await channels[0].close()
    await until(lambda: node.connections_open == 1)
    await bench.transport(None).connect(node.address)


async def test_who_says_nothing_makes_room_for_who_comes_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(accepting, "CONNECTIONS_MAX", 2)
    node, _ = await bench.node()
    strangers = [await open_raw(node.address) for _ in range(5)]
    for reader, _ in strangers[:3]:
        await hear_the_end(reader)
    channel = await bench.transport(None).connect(node.address)
    await hear_the_end(strangers[3][0])
    assert node.connections_open == 2
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    [warning] = [record.getMessage() for record in warnings_in(caplog)]
    assert "2 connections are open" in warning
    for _, writer in strangers:
        writer.close()


async def test_a_node_that_may_open_no_file_goes_on_and_takes_connections_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.01)
    node, _ = await bench.node()
    accept, refused = socket.socket.accept, []

    def accept_at_last(listening: socket.socket) -> object:
        if len(refused) < 3:
            refused.append(listening)
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_at_last)
    channel = await bench.transport(None).connect(node.address)
    assert len(refused) == 3
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    [warning] = [record.getMessage() for record in warnings_in(caplog)]
    assert "Too many open files" in warning


async def test_a_door_that_is_shut_while_somebody_comes_in_lets_go_of_them(bench: Bench):
    node, _ = await bench.node()
    host, _, port = node.address.rpartition(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.setblocking(False)
        await asyncio.sleep(0)
        await node.stop()
        assert node.connections_open == 0
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(read_all(stranger), 10)


async def read_all(stranger: socket.socket) -> None:
    """Read until the other side hangs up."""
    while await asyncio.get_running_loop().sock_recv(stranger, 1 << 16):
        pass
    raise ConnectionResetError


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "room"),
    [
        (1024, 1024, None, 768),
        (1024, 4096, 4096, 3840),
        (256, resource.RLIM_INFINITY, accepting.FILES_MAX, accepting.CONNECTIONS_MAX),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, accepting.CONNECTIONS_MAX),
        (1 << 20, 1 << 20, None, accepting.CONNECTIONS_MAX),
        (100, 100, None, 50),
    ],
)
async def test_a_node_asks_for_files_and_takes_no_more_connections_than_leave_some(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, asked: int | None, room: int
):
    limit = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limit))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limit.__setitem__(slice(None), wanted))
    node, _ = await bench.node()
    assert node._door._connections_max == room
    assert limit == [asked or soft, hard]


@pytest.mark.parametrize(
    ("refused", "number"),
    [
        ([socket.AF_INET6], None),
        ([socket.AF_INET], None),
        ([socket.AF_INET, socket.AF_INET6], errno.EAFNOSUPPORT),
        ([socket.AF_INET6], errno.EMFILE),
    ],
)
async def test_of_a_host_with_addresses_of_both_kinds_those_are_bound_that_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, refused: list[int], number: int | None
):
    made: list[socket.socket] = []

    class Picky(socket.socket):
        def __init__(self, family: int = -1, *rest: int) -> None:
            if family in refused:
                raise OSError(number or errno.EAFNOSUPPORT, "not here")
            super().__init__(socket.AF_INET, *rest)
            made.append(self)

        def setsockopt(self, level: int, *rest: int) -> None:  # type: ignore[override]
            if level != socket.IPPROTO_IPV6:
                super().setsockopt(level, *rest)

    async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        kinds = (socket.AF_INET, socket.AF_INET6)
        return [(family, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)) for family in kinds]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    monkeypatch.setattr(socket, "socket", Picky)
    if number is None:
        assert await accepting.bind("both", 0) == made
        assert len(made) == 1
        made[0].close()
    else:
        with pytest.raises(OSError, match="not here") as caught:
            await accepting.bind("both", 0)
        assert caught.value.errno == number
        assert all(each.fileno() == -1 for each in made)


async def test_a_system_that_gives_no_more_files_is_taken_as_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert accepting.raise_files_limit() == 1024


async def test_of_those_who_say_nothing_there_are_never_as_many_as_there_may_be_connections(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """With TLS each of them costs a third of a megabyte."""
    monkeypatch.setattr(accepting, "STRANGERS_MAX", 2)
    node, _ = await bench.node()
    channel = await bench.transport(None).connect(node.address)
    strangers = [await open_raw(node.address) for _ in range(5)]
    async with asyncio.timeout(5):  # Each ends by itself after 10 s.
        for reader, _ in strangers[:3]:
            await hear_the_end(reader)
    assert node.connections_open == 3
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    [warning] = [record.getMessage() for record in warnings_in(caplog)]
    assert "2 connections have said nothing yet" in warning
    for _, writer in strangers:
        writer.close()
