"""A client of a quorate group in a process of its own: ``python -m benchmarks.programs.remote LOOP``.

``["open", PATH, [ADDRESS, …]]`` makes the client; an operation with ``VALUE, CALLERS, SECONDS, WARM_UP`` runs closed
loops of it. The path ``"coalesced"`` is the client as everybody gets it: calls that are made in one turn of the event
loop leave as one frame. With ``"remote"`` the same client puts every request into a frame of its own, as simple clients
do that are written in other languages. The frames of a turn still leave by one write, as those of etcd's client do.
"""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import Any

from benchmarks.loops import closed_loops
from benchmarks.profiling import Profiler
from benchmarks.programs.lines import obey_lines, run
from quorate import Settings, connect
from quorate.client import Client
from quorate.machines import KV
from quorate.transport.channel import FrameChannel
from quorate.transport.frames import REQUESTS, encode_frame
from quorate.transport.tcp import TCPTransport


class SingleChannel(FrameChannel):
    """A channel whose requests leave at the end of the turn as ever, each in a frame of its own."""

    commands_max = 1

    def _flush(self) -> None:
        requests, self._requests = self._requests, []
        self._write(b"".join(encode_frame(REQUESTS, [request]) for request in requests))


class SingleTransport(TCPTransport):
    """A client's transport with such channels."""

    async def connect(self, node: str) -> FrameChannel:
        channel = await super().connect(node)
        channel.__class__ = SingleChannel
        assert isinstance(channel, FrameChannel)
        return channel


def make_client(path: str, addresses: list[str]) -> Client[KV]:
    """Make the client of a path."""
    if path == "coalesced":
        return connect(KV, *addresses)
    settings = Settings()
    return connect(
        KV, *addresses, transport=lambda: SingleTransport(None, settings=settings, random=random.Random().random)
    )


async def obey(clients: list[Client[KV]], profiler: Profiler, words: list[Any]) -> object:
    """Carry out one line."""
    match words:
        case ["profile"]:
            profiler.start()
            return "watching"
        case ["profiled"]:
            return profiler.stop()
        case ["open", path, addresses]:
            clients.append(make_client(path, addresses))
            return str(await clients[-1].leader())
        case ["writes", value, callers, seconds, warm_up]:
            client = clients[-1]
            return await closed_loops(
                lambda number: partial(client.write, KV.set, f"key{number}", value), callers, seconds, warm_up
            )
        case ["reads" | "lease reads" as operation, value, callers, seconds, warm_up]:
            client = clients[-1]
            await client.write(KV.set, "key0", value)
            reader = client.with_options(consistency="lease") if operation == "lease reads" else client
            return await closed_loops(lambda _: partial(reader.read, KV.get, "key0"), callers, seconds, warm_up)
        case ["close"]:
            await clients.pop().close()
            return "closed"
        case other:
            raise ValueError(f"not a command: {other}")


async def main() -> None:
    """Obey until standard input ends."""
    clients: list[Client[KV]] = []
    try:
        await obey_lines(partial(obey, clients, Profiler()))
    finally:
        for client in clients:
            await client.close()


if __name__ == "__main__":
    run(main(), sys.argv[1])
