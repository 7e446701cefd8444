"""TCP: connections made, shared, lost, refused and bounded, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

import pytest

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport import connection, dialling, neighbours
from quorate.transport.calls import Request, Value, WriteCall
from quorate.transport.frames import VERSION, FrameKind, Hello, encode_frame
from tests.transport.bench import Bench, Recorder, ask, entries, until, vote

SMALL = Settings(command_bytes_max=1, append_bytes_max=1, frame_bytes_max=65_538)
GREETING = encode_frame(FrameKind.HELLO, [Hello("", "calls")])
ACCEPTED = encode_frame(FrameKind.HELLO, [Hello("127.0.0.1:1", "accepted")])


class Stranger:
    """Listens, says what it is told, and then closes, waits for the end or reads nothing."""

    def __init__(self, says: bytes, then: str = "wait") -> None:
        self.says = says
        self.then = then
        self.dialled = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self.listener.sockets[0].getsockname()[1]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        self.writers.append(writer)
        if self.then == "read nothing":
            reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(self.says)
        if self.then == "close":
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Give our own warnings: in debug mode asyncio has some about slow turns."""
    return [
        record for record in caplog.records if record.levelno == logging.WARNING and record.name.startswith("quorate.")
    ]


async def open_raw(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def hear_the_end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        try:
            while await reader.read(1 << 16):
                pass
        except ConnectionError:
            pass


# Connections between neighbours


async def test_two_nodes_speak_both_ways_over_one_connection(bench: Bench):
    left, at_left = await bench.node()
    right, at_right = await bench.node()
    left.send(right.address, [vote(1)])
    await until(lambda: at_right.packets)
    for number in range(2, 20):
        right.send(left.address, [vote(number)])
        left.send(right.address, [vote(number)])
    await until(lambda: len(at_left.packets) == 18 and len(at_right.packets) == 19)
    assert (left.connections_accepted, right.connections_accepted) == (0, 1)
    assert (left.connections_open, right.connections_open) == (1, 1)


async def test_two_nodes_that_dial_each_other_at_once_end_with_one_connection(bench: Bench):
    left, at_left = await bench.node()
    right, at_right = await bench.node()
    smaller, larger = sorted((left, right), key=lambda transport: transport.address)
    left.send(right.address, [vote(1)])
    right.send(left.address, [vote(2)])
    await until(lambda: vote(1) in at_right.packets and vote(2) in at_left.packets)
    await until(lambda: left.connections_open == right.connections_open == 1)
    assert larger.connections_accepted == 1  # the one that the smaller has dialled stays
    for number in range(10, 20):
        left.send(right.address, [vote(number)])
        right.send(left.address, [vote(number)])
    await until(lambda: vote(19) in at_right.packets and vote(19) in at_left.packets)
    assert larger.connections_accepted == 1
    assert smaller.connections_accepted <= 1


async def test_a_node_is_known_by_its_advertised_address(bench: Bench):
    left, at_left = await bench.node(advertise="localhost:0")
    right, at_right = await bench.node()
    assert left.address.startswith("localhost:")
    assert not left.address.endswith(":0")
    left.send(right.address, [vote(1)])
    await until(lambda: at_right.packets)
    assert at_right.sources == [left.address]
    right.send(left.address, [vote(2)])
    await until(lambda: at_left.packets)
    assert left.connections_accepted == 0  # the connection that left dialled is used


async def test_a_node_that_is_reached_at_two_addresses_is_dialled_once_at_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Two groups may name it by an IP address and by a host name."""
    monkeypatch.setattr(neighbours, "SETTLE_SECONDS", 0.05)
    (node, at_node), (other, _) = await bench.node(), await bench.node()
    addresses = [node.address, node.address.replace("127.0.0.1", "localhost")]
    for number in range(100):
        for address in addresses:
            other.send(address, [vote(number)])
        await asyncio.sleep(0.002)
    await until(lambda: len(at_node.packets) == 200)
    assert node.connections_accepted == 2


async def test_the_newest_frames_wait_for_a_node_that_is_not_there_yet(bench: Bench):
    left, _ = await bench.node()
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{placeholder.getsockname()[1]}"
    for number in range(100):
        left.send(address, [vote(number)])
    _, at_right = await bench.node(address)
    await until(lambda: at_right.packets)
    assert at_right.packets[-1] == vote(99)
    assert len(at_right.packets) <= 8


async def test_an_unreachable_node_is_dialled_while_it_is_wanted_and_no_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    settings = Settings(reconnect_delay_min=0.001, reconnect_delay_max=0.002)
    left, _ = await bench.node(settings=settings)
    stranger = Stranger(b"", "close")
    async with stranger as address:
        left.send(address, [vote(1)])
        await until(lambda: stranger.dialled > 5)
        with monkeypatch.context() as patch:
            patch.setattr(neighbours, "WANTED_SECONDS", 0.0)
            await until(lambda: not dials())
        dialled = stranger.dialled
        left.send(address, [vote(2)])
        await until(lambda: stranger.dialled > dialled + 2)
    [first, second] = [record.getMessage() for record in warnings_in(caplog)]
    assert first == second  # one warning for each time it was wanted, not one for each attempt
    assert "closed the connection at once" in first


def dials() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("dial ")]


async def test_who_loses_its_connection_to_a_node_that_is_gone_learns_of_it_at_once(bench: Bench):
    a, at_a = await bench.node()
    b, at_b = await bench.node()
    a.send(b.address, [vote(1)])
    await until(lambda: at_b.packets)
    b.send(a.address, [vote(2)])
    await until(lambda: at_a.packets)
    assert (at_a.lost, at_b.lost) == ([], [])
    await b.stop()
    await until(lambda: at_a.lost)
    assert at_a.lost[0] == b.address
    assert at_b.lost == []


async def test_a_neighbour_that_reads_nothing_costs_a_bounded_buffer(bench: Bench):
    left, _ = await bench.node(settings=SMALL)
    async with Stranger(ACCEPTED, "read nothing") as address:
        left.send(address, [vote(1)])
        await until(lambda: left.connections_open)
        for _ in range(50_000):
            left.send(address, [entries(60_000)])
            if left.dropped_packets > 100:
                break
            await asyncio.sleep(0)
        assert left.dropped_packets > 100
        left.send(left.address, [vote(1)])


async def test_a_packet_longer_than_a_frame_is_dropped_and_its_neighbours_in_the_turn_are_not(bench: Bench):
    left, _ = await bench.node(settings=SMALL)
    right, at_right = await bench.node(settings=SMALL)
    left.send(right.address, [vote(1), entries(65_538), vote(2)])
    await until(lambda: len(at_right.packets) == 2)
    assert at_right.packets == [vote(1), vote(2)]
    assert left.dropped_packets == 1


async def test_a_caller_that_took_no_replies_for_a_while_is_read_from_again(bench: Bench):
    node, recorder = await bench.node(settings=SMALL)
    recorder.reply = Value(bytes(60_000))
    reader, writer = await open_raw(node.address)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GREETING)
    for number in range(1, 401):
        writer.write(encode_frame(FrameKind.REQUESTS, [Request(number, "peer", WriteCall(b"x", 1.0))]))
        await asyncio.sleep(0.001)
    assert len(recorder.requests) < 400
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    hearing = asyncio.create_task(hear_the_end(reader))
    await until(lambda: len(recorder.requests) == 400)
    writer.close()
    await hearing


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
@pytest.mark.parametrize("who", ["node", "client"])
async def test_a_side_of_a_channel_that_reads_nothing_for_a_while_is_not_taken_for_one_that_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, who: str
):
    monkeypatch.setattr(connection, "UNACKNOWLEDGED_SECONDS", 0.1)
    node, recorder = await bench.node()
    client = bench.transport(None)
    channel = await client.connect(node.address)
    [held] = (node if who == "node" else client)._connections
    if who == "client":  # Its node has more for it than the network holds.
        recorder.reply = Value(bytes(1 << 20))
    count, command = (200, bytes(1 << 17)) if who == "node" else (50, b"x")
    # The hello has come by now: what follows is not read.
    assert held._transport is not None
    await until(lambda: node.connections_open == 1 and held.heard is not None)
    held._transport.pause_reading()
    posted = [channel.post("peer", WriteCall(command, 60.0)) for _ in range(count)]
    await asyncio.sleep(1.5)  # A probe goes out each 0.2 s or so, and later ones more seldom.
    assert not channel.closed
    held._transport.resume_reading()
    async with asyncio.timeout(10):
        assert len(await asyncio.gather(*posted)) == count


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
async def test_a_neighbour_that_acknowledges_nothing_is_lost_sooner_than_one_that_calls(bench: Bench):
    left, _ = await bench.node()
    right, at_right = await bench.node()
    left.send(right.address, [vote(1)])
    await until(lambda: at_right.packets)
    await bench.transport(None).connect(right.address)
    found = sorted(
        each._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)  # type: ignore[union-attr]
        for each in (*left._connections, *right._connections, *bench.transports[-1]._connections)  # type: ignore[attr-defined]
    )
    assert found == [5_000, 5_000, 30_000, 30_000]


async def test_ipv6(bench: Bench):
    try:
        left, at_left = await bench.node("[::1]:0")
    except OSError:
        pytest.skip("no IPv6 here")
    right, at_right = await bench.node("[::1]:0")
    assert left.address.startswith("[::1]:")
    left.send(right.address, [vote(1)])
    await until(lambda: at_right.packets)
    right.send(left.address, [vote(2)])
    await until(lambda: at_left.packets)
    assert right.connections_accepted == 1
    channel = await left.connect(right.address)
    assert (await channel.call(ask(b"six"))).answer == Value(b"six")


# What arrives


@pytest.mark.parametrize(
    ("bytes_sent", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not of quorate"),
        (GREETING[:2] + bytes([VERSION + 1]) + GREETING[3:], f"version {VERSION + 1} of the protocol"),
        (GREETING[:-1] + b"?", "checksum"),
        (encode_frame(FrameKind.REQUESTS, [ask(b"x")]), "before the HELLO frame"),
        (GREETING + encode_frame(FrameKind.PACKETS, [vote(1)]), "a PACKETS frame does not belong"),
        (GREETING + encode_frame(FrameKind.REPLIES, []), "a REPLIES frame does not belong"),
        (encode_frame(FrameKind.HELLO, [Hello("h:1", "peers")]) + encode_frame(FrameKind.REQUESTS, []), "not belong"),
        (ACCEPTED, "this side's word"),
    ],
)
async def test_what_cannot_be_read_closes_its_connection_is_counted_and_others_go_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, bytes_sent: bytes, words: str
):
    node, recorder = await bench.node()
    channel = await bench.transport(None).connect(node.address)
    for count in (1, 2, 3):
        reader, writer = await open_raw(node.address)
        writer.write(bytes_sent)
        await hear_the_end(reader)
        writer.close()
        await until(lambda count=count: node.bad_frames == count)
    assert (await channel.call(ask(b"fine"))).answer == Value(b"fine")
    assert recorder.packets == []
    [warning] = [record.getMessage() for record in warnings_in(caplog)]
    assert words in warning  # one, though three were closed
    assert "connection closed" in warning


async def test_a_client_that_says_nothing_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HELLO_SECONDS", 0.02)
    node, _ = await bench.node()
    reader, writer = await open_raw(node.address)
    await hear_the_end(reader)
    writer.close()
    await until(lambda: node.connections_open == 0)
    assert node.bad_frames == 0


async def test_a_fault_of_the_receiver_is_logged_with_its_traceback_and_closes_one_connection(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    node, recorder = await bench.node()
    client = bench.transport(None)
    first, second = await client.connect(node.address), await client.connect(node.address)
    recorder.fault = ZeroDivisionError("a bug")
    with pytest.raises(ConnectionError):
        await first.call(ask(b"x"))
    recorder.fault = None
    assert (await second.call(ask(b"y"))).answer == Value(b"y")
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# Channels


@pytest.mark.parametrize(
    ("says", "then", "words"),
    [
        (b"", "close", "closed the connection at once: check that a node listens there"),
        (
            ACCEPTED[:2] + b"\x07" + ACCEPTED[3:],
            "wait",
            f"speaks version 7 of the protocol, this side version {VERSION}",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "wait", "not of quorate"),
        (GREETING, "wait", "this side's word"),
        (b"", "wait", "does not answer: timed out"),
    ],
)
async def test_who_is_no_node_makes_a_channel_unavailable_with_the_reason(
    bench: Bench, says: bytes, then: str, words: str
):
    client = bench.transport(None, settings=Settings(call_timeout=0.2 if "timed out" in words else 5.0))
    async with Stranger(says, then) as address:
        with pytest.raises(Unavailable) as caught:
            await client.connect(address)
    assert caught.value.reason.startswith(address)
    assert words in caught.value.reason
    assert client.connections_open == 0


async def test_a_name_that_does_not_resolve_makes_a_channel_unavailable(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match=r"nowhere\.invalid:7001 cannot be reached: its name does not resolve"):
        await bench.transport(None).connect("nowhere.invalid:7001")


async def test_an_address_of_another_form_makes_a_channel_unavailable_and_packets_vanish(bench: Bench):
    node, _ = await bench.node()
    node.send("no address", [vote(1)])
    with pytest.raises(Unavailable, match="host:port"):
        await node.connect("no address")


async def test_several_addresses_of_one_name_that_refuse_are_one_refusal(bench: Bench):
    node, _ = await bench.node()
    port = node.address.rpartition(":")[2]
    await node.stop()
    with pytest.raises(Unavailable, match="refuses the connection"):
        await bench.transport(None).connect(f"localhost:{port}")


async def test_an_address_of_a_name_that_hangs_leaves_time_for_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """As where a name has an IPv6 address too, and on the way there something swallows what is sent."""
    monkeypatch.setattr(dialling, "HANG_SECONDS", 0.1)
    node, _ = await bench.node()
    port = int(node.address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # Who comes then is not answered.
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())

        def two(*_: object, **__: object) -> list[tuple[object, ...]]:
            addresses = [full.getsockname(), ("127.0.0.1", port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        await bench.transport(None).connect(f"two.example:{port}")
    assert node.connections_accepted == 1


async def test_replies_given_before_stop_are_sent(bench: Bench):
    node, recorder = await bench.node()
    recorder.hold = True
    channel = await bench.transport(None).connect(node.address)
    call = asyncio.create_task(channel.call(ask(b"last")))
    await until(lambda: recorder.held)
    recorder.held[0]()
    await node.stop()
    assert (await call).answer == Value(b"last")


# Beginning and end


async def test_a_bind_beyond_loopback_without_tls_warns_in_plain_words(bench: Bench, caplog: pytest.LogCaptureFixture):
    await bench.node("127.0.0.1:0")
    assert not warnings_in(caplog)
    node, _ = await bench.node("0.0.0.0:0", advertise="127.0.0.1:0")
    [record] = warnings_in(caplog)
    assert "can read and change all that its peers keep" in record.getMessage()
    assert "tls=TLS(...)" in record.getMessage()
    assert (await (await node.connect(node.address)).call(ask(b"x"))).answer == Value(b"x")


@pytest.mark.parametrize("bind", ["0.0.0.0:7001", "[::]:7001"])
def test_an_address_that_nobody_can_dial_is_not_advertised(bind: str):
    with pytest.raises(ValueError, match="advertise="):
        Bench("tcp").transport(bind)


def test_frames_of_one_kind_that_arrive_together_are_taken_as_one():
    requests, packets = [ask(b"%d" % number) for number in range(4)], [vote(1)]
    frames = [
        (FrameKind.REQUESTS, requests[:1]),
        (FrameKind.REQUESTS, requests[1:3]),
        (FrameKind.PACKETS, packets),
        (FrameKind.REQUESTS, requests[3:]),
    ]
    assert connection.joined(frames) == [
        (FrameKind.REQUESTS, requests[:3]),
        (FrameKind.PACKETS, packets),
        (FrameKind.REQUESTS, requests[3:]),
    ]


async def test_a_client_has_no_address_and_does_not_listen(bench: Bench):
    client = bench.transport(None)
    assert client.address == ""
    with pytest.raises(RuntimeError, match="listen"):
        await client.listen(Recorder())


async def test_stop_ends_dials_channels_and_connections(bench: Bench):
    node, _ = await bench.node()
    other, at_other = await bench.node()
    absent, _ = await bench.node()
    await absent.stop()
    node.send(other.address, [vote(1)])
    node.send(absent.address, [vote(1)])
    channel = await node.connect(other.address)
    await until(lambda: at_other.packets)
    at_other.hold = True
    call = asyncio.create_task(channel.call(ask(b"x")))
    async with Stranger(b"") as silent:
        node.send(silent, [vote(1)])
        pending = asyncio.create_task(node.connect(silent))
        await until(lambda: at_other.held and len(dials()) == 2 and node.connections_open >= 4)
        await asyncio.gather(node.stop(), node.stop())
        assert node.connections_open == 0
        assert not dials()
        with pytest.raises(ConnectionError):
            await call
        with pytest.raises(Unavailable, match="stopped"):
            await pending
    await until(lambda: other.connections_open == 0)


# The same on the other loop


async def walk() -> None:
    bench = Bench("tcp")
    left, at_left = await bench.node()
    right, at_right = await bench.node()
    left.send(right.address, [vote(1)])
    right.send(left.address, [vote(2)])
    await until(lambda: at_left.packets and at_right.packets)
    await until(lambda: left.connections_open == right.connections_open == 1)
    channel = await bench.transport(None).connect(right.address)
    replies = await asyncio.gather(*(channel.call(ask(b"%d" % number)) for number in range(100)))
    assert [reply.answer for reply in replies] == [Value(b"%d" % number) for number in range(100)]
    at_right.hold = True
    lost = asyncio.create_task(channel.call(ask(b"lost")))
    await until(lambda: at_right.held)
    await right.stop()
    with pytest.raises(ConnectionError):
        await lost
    with pytest.raises(Unavailable, match="refuses the connection"):
        await left.connect(right.address)
    again, at_again = await bench.node(right.address)

    def arrived() -> bool:
        left.send(again.address, [vote(3)])
        return bool(at_again.packets)

    await until(arrived)
    reader, writer = await open_raw(left.address)
    writer.write(b"garbage" * 10)
    await hear_the_end(reader)
    writer.close()
    await until(lambda: left.bad_frames == 1)
    await bench.stop()


def test_all_of_it_works_on_uvloop():
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(walk())
