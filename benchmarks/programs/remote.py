"""A client of a quorate group in a process of its own: ``python -m benchmarks.programs.remote LOOP``.

``["open", PATH, [ADDRESS, …]]`` makes the client; an operation with ``VALUE, CALLERS, SECONDS, WARM_UP`` runs closed
loops of it. The path ``"coalesced"`` is the client as everybody gets it: calls that are made in one turn of the event
loop leave as one frame. With ``"remote"`` the same client sends every request at once, in a frame of its own, as one
would that makes one call at a time, or speaks another language.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from benchmarks.loops import closed_loops
from benchmarks.profiling import Profiler
from benchmarks.programs.lines import obey_lines, run
from quorate import Settings, connect
from quorate.client import Client
from quorate.machines import KV
from quorate.transport.calls import Request
from quorate.transport.channel import FrameChannel
from quorate.transport.frames import FrameKind, encode_frame
from quorate.transport.tcp import TCPTransport


class PromptRequests:
    """Stands for the requests of a channel that wait for the end of the turn: sends each at once."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def append(self, request: Request) -> None:
        self._write(encode_frame(FrameKind.REQUESTS, [request]))


class PromptTransport(TCPTransport):
    """A client's transport whose requests do not wait for the end of the turn."""

    async def connect(self, node: str) -> FrameChannel:
        channel = await super().connect(node)
        assert isinstance(channel, FrameChannel)
        channel._requests = cast("list[Request]", PromptRequests(channel._write))
        return channel


def make_client(path: str, addresses: list[str]) -> Client[KV]:
    """Make the client of a path."""
    if path == "coalesced":
        return connect(KV, *addresses)
    settings = Settings()
    return connect(
        KV, *addresses, transport=lambda: PromptTransport(None, settings=settings, random=random.Random().random)
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
                lambda number: client.write(KV.set, f"key{number}", value), callers, seconds, warm_up
            )
        case ["reads" | "lease reads" as operation, value, callers, seconds, warm_up]:
            client = clients[-1]
            await client.write(KV.set, "key0", value)
            reader = client.with_options(consistency="lease") if operation == "lease reads" else client
            return await closed_loops(lambda _: reader.read(KV.get, "key0"), callers, seconds, warm_up)
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
