"""The ceiling: quorate's batches, codec, store and disk thread in a bare loop, without Raft.

``python -m benchmarks.programs.ceiling LOOP DIRECTORY [FOLLOWER_PORT …]``. Without ports it is a follower: it listens,
says ``["port"]``, appends what comes and acknowledges it once it is durable. With them it leads, and obeys ``["writes",
VALUE, CALLERS, SECONDS, WARM_UP]``. What is missing, and so what quorate is allowed to cost: terms, elections, checks
of any kind but the checksums, deadlines, typed calls, flow control, many peers, snapshots, errors.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec

from benchmarks.loops import closed_loops
from benchmarks.programs.lines import obey_lines, run
from quorate.core.messages import AppendEntries, AppendEntriesReply
from quorate.errors import StoreError
from quorate.store import Batch
from quorate.store.disk import Disk, ThreadExecutor
from quorate.store.rocksdb import RocksDBStore
from quorate.transport import Packet
from quorate.transport.frames import FrameDecoder, FrameKind, Hello, encode_frame
from quorate.types import Index, Kind, PeerId, Run, Term

BYTES_MAX = 8 * 2**20
LEADER, FOLLOWER = PeerId("leader"), PeerId("follower")
TERM = Term(1)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(tuple[str, str, str]).decode


def disk_failed(error: StoreError) -> None:
    """End at once."""
    sys.exit(str(error))


class Log:
    """A log that others read from memory, on the real store and disk thread, and the machine it is applied to."""

    def __init__(self, directory: str) -> None:
        store = RocksDBStore.open(Path(directory))
        store.load("log")
        self.disk = Disk(store, ThreadExecutor(asyncio.get_running_loop()), disk_failed)
        self.last = 0
        self.applied = 0
        self.committed = 0
        self.entries: dict[str, str] = {}
        self.waiting: deque[tuple[Run, list[asyncio.Future[str]]]] = deque()

    def append(self, run: Run, waiters: list[asyncio.Future[str]], durable: Callable[[], None]) -> None:
        """Write a run, whose writers wait for its application."""
        self.last = run.last
        self.waiting.append((run, waiters))
        self.disk.write([Batch("log", None, (run,))], durable)

    def apply(self, index: int) -> None:
        """Apply what is committed."""
        while self.waiting and self.waiting[0][0].last <= index:
            run, waiters = self.waiting.popleft()
            for place, payload in enumerate(run.payloads):
                _, key, value = decode(payload)
                self.entries[key] = value
                if waiters:
                    waiters[place].set_result(value)


class Link(asyncio.Protocol):
    """One connection that carries packets."""

    def __init__(self, received: Callable[[Link, Packet], None]) -> None:
        self.received = received
        self.decoder = FrameDecoder(BYTES_MAX)
        self.transport: asyncio.Transport | None = None
        self.match_index = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(encode_frame(FrameKind.HELLO, [Hello("", "calls")]))

    def data_received(self, data: bytes) -> None:
        for frame in self.decoder.feed(data):
            if frame[0] is FrameKind.PACKETS:
                for packet in frame[1]:
                    self.received(self, packet)

    def send(self, frame: bytes) -> None:
        assert self.transport is not None, "it is connected"
        self.transport.write(frame)


class Leader:
    """Gathers the writes of a turn into one run, sends and stores it, and applies what a majority has."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.links: list[Link] = []
        self.durable = 0
        self.inbox: list[tuple[bytes, asyncio.Future[str]]] = []

    def write(self, key: str, value: str) -> asyncio.Future[str]:
        """Propose a command."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if not self.inbox:
            asyncio.get_running_loop().call_soon(self.turn)
        self.inbox.append((encode(("set", key, value)), future))
        return future

    def turn(self) -> None:
        """Make one batch of what waits."""
        inbox, self.inbox = self.inbox, []
        before = Index(self.log.last)
        run = Run(TERM, Index(before + 1), Kind.COMMAND, time.time(), tuple(payload for payload, _ in inbox))
        message = AppendEntries(TERM, LEADER, before, TERM, Index(self.log.committed), 0, (run,))
        frame = encode_frame(FrameKind.PACKETS, [Packet("group", LEADER, FOLLOWER, message)])
        for link in self.links:
            link.send(frame)
        self.log.append(run, [future for _, future in inbox], lambda: self.persisted(run.last))

    def persisted(self, index: int) -> None:
        """Count the own copy."""
        self.durable = index
        self.advance()

    def acknowledged(self, link: Link, packet: Packet) -> None:
        """Count a follower's copy."""
        assert isinstance(packet.message, AppendEntriesReply)
        link.match_index = packet.message.match_index
        self.advance()

    def advance(self) -> None:
        """Apply what two of three have."""
        committed = sorted((self.durable, *(link.match_index for link in self.links)))[1]
        if committed > self.log.committed:
            self.log.committed = committed
            self.log.apply(committed)


def follow(log: Log, link: Link, packet: Packet) -> None:
    """Store what the leader sends, acknowledge it when it is durable, and apply what is committed."""
    message = packet.message
    assert isinstance(message, AppendEntries)
    (run,) = message.entries

    def durable() -> None:
        reply = AppendEntriesReply(TERM, success=True, match_index=run.last)
        link.send(encode_frame(FrameKind.PACKETS, [Packet("group", FOLLOWER, LEADER, reply)]))

    log.append(run, [], durable)
    log.apply(message.leader_commit)


async def main(directory: str, ports: list[int]) -> None:
    """Lead or follow until standard input ends."""
    log = Log(directory)
    loop = asyncio.get_running_loop()
    leader = Leader(log)
    server = None
    if ports:
        for port in ports:
            _, link = await loop.create_connection(lambda: Link(leader.acknowledged), "127.0.0.1", port)
            leader.links.append(link)
    else:
        server = await loop.create_server(lambda: Link(lambda link, packet: follow(log, link, packet)), "127.0.0.1", 0)

    async def obey(words: list[Any]) -> object:
        match words:
            case ["port"] if server is not None:
                return server.sockets[0].getsockname()[1]
            case ["writes", value, callers, seconds, warm_up]:
                return await closed_loops(
                    lambda number: partial(leader.write, f"key{number}", value), callers, seconds, warm_up
                )
            case other:
                raise ValueError(f"not a command: {other}")

    await obey_lines(obey)
    await log.disk.stop()


if __name__ == "__main__":
    run(main(sys.argv[2], [int(port) for port in sys.argv[3:]]), sys.argv[1])
