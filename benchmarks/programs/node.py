"""One quorate node with its peers: ``python -m benchmarks.programs.node ADDRESS DIRECTORY STORE LOOP GROUPS SNAPSHOT``.

``["form", [ADDRESS, …]]`` forms the group; ``["leads"]`` tells how many it leads; ``["write", VALUE]`` writes once;
``["fill", ENTRIES]`` writes that many, a thousand at a time. An operation with ``VALUE, CALLERS, SECONDS,
WARM_UP`` runs closed loops inside this process. The node has a peer of each of GROUPS groups; callers take turns among
those that it leads. A snapshot is taken after SNAPSHOT entries. ``["profile"]`` begins to watch the event loop's
thread, ``["profiled"]`` ends it and tells what was seen.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from functools import partial
from typing import Any

from benchmarks.loops import Outcome, closed_loops
from benchmarks.profiling import Profiler
from benchmarks.programs.lines import obey_lines, run
from quorate import Address, Node, Peer, Settings
from quorate.machines import KV


def addresses_of(group: int, members: list[str]) -> list[str]:
    """Give the addresses of a group's members: those of the first one, with the number of the group in their names."""
    split = [member.split("@") for member in members]
    return [f"{name}-{group}@{node}" if group else f"{name}@{node}" for name, node in split]


async def form(peers: list[Peer[KV]], members: list[str]) -> str:
    """Form the group of each peer, fifty at a time, and give the leader of the first one."""
    for begin in range(0, len(peers), 50):
        some = list(enumerate(peers))[begin : begin + 50]
        await asyncio.gather(*(peer.set_configuration(*addresses_of(group, members)) for group, peer in some))
    for begin in range(0, len(peers), 50):
        await asyncio.gather(*(peer.leader() for peer in peers[begin : begin + 50]))
    return str(await peers[0].leader())


async def fill(peer: Peer[KV], entries: int, value: str) -> int:
    """Write so many entries of a thousand keys."""
    for begin in range(0, entries, 1000):
        count = min(1000, entries - begin)
        await asyncio.gather(*(peer.write(KV.set, f"key{number}", value) for number in range(count)))
    return peer.status().last_applied


async def obey(peers: list[Peer[KV]], profiler: Profiler, words: list[Any]) -> object:
    """Carry out one line."""
    first = peers[0]
    match words:
        case ["profile"]:
            profiler.start()
            return "watching"
        case ["profiled"]:
            return profiler.stop()
        case ["form", members]:
            return await form(peers, members)
        case ["leader"]:
            return str(await first.leader())
        case ["leads"]:
            return sum(peer.status().role == "leader" for peer in peers)
        case ["write", value]:
            return await first.with_options(timeout=60).write(KV.set, "key0", value)
        case ["fill", value, entries]:
            return await fill(first, entries, value)
        case [operation, value, callers, seconds, warm_up]:
            return await run_loops(peers, operation, value, callers, seconds, warm_up)
        case other:
            raise ValueError(f"not a command: {other}")


async def run_loops(
    peers: list[Peer[KV]], operation: str, value: str, callers: int, seconds: float, warm_up: float
) -> Outcome:
    """Run closed loops of one operation in this process."""
    first = peers[0]
    if operation == "writes":
        led = [peer for peer in peers if peer.status().role == "leader"]

        def write(number: int) -> Awaitable[str]:
            return led[number % len(led)].write(KV.set, f"key{number}", value)

        return await closed_loops(write, callers, seconds, warm_up)
    await first.write(KV.set, "key0", value)
    reader = first.with_options(consistency="lease") if operation == "lease reads" else first
    return await closed_loops(lambda _: reader.read(KV.get, "key0"), callers, seconds, warm_up)


async def main(own: str, directory: str, store: Any, groups: int, settings: Settings) -> None:  # noqa: ANN401
    """Run the node until its standard input ends."""
    address = Address.parse(own)
    async with Node(address.node, data_dir=directory, store=store, settings=settings) as node:
        names = [Address.parse(addresses_of(group, [own])[0]).name for group in range(groups)]
        peers = [await node.start_peer(KV, name=name) for name in names]
        await obey_lines(partial(obey, peers, Profiler()))


if __name__ == "__main__":
    entries = int(sys.argv[6])
    settings = Settings(snapshot_entries=entries, snapshot_bytes=max(entries * 1024, Settings().snapshot_bytes))
    run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[5]), settings), sys.argv[4])
