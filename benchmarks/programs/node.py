"""One quorate node with its peers: ``python -m benchmarks.programs.node ADDRESS DIRECTORY STORE LOOP GROUPS SNAPSHOT``.

``["form", [ADDRESS, …]]`` forms the groups; ``["leads"]`` tells how many it leads; ``["term"]`` tells the term;
``["write", VALUE]`` writes once; ``["fill", VALUE, ENTRIES]`` writes that many, a thousand at a time. An operation with
``VALUE, CALLERS, SECONDS, WARM_UP`` runs closed loops inside this process; ``["beside", VALUE, CALLERS, SECONDS,
WARM_UP, BYTES]`` is writes beside one caller who writes values of so many bytes, unless that is 0. The node has a peer
of each of GROUPS groups; callers take turns among those that it leads. STORE may be ``rocksdb-slow``, whose syncs take
50 ms more. A snapshot is taken after SNAPSHOT entries. With a last word, ``rare-beats``, it beats rarely.
``["profile"]`` begins to watch the event loop's thread, ``["profiled"]`` ends it and tells what was seen. With the last
word ``timeline`` they do so for the instants of each step of a write.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.loops import Outcome, closed_loops
from benchmarks.profiling import Profiler
from benchmarks.programs.lines import obey_lines, run
from benchmarks.timeline import Marks
from quorate import Address, Node, Peer, Settings
from quorate.machines import KV
from quorate.store import LogStore

RARE_BEATS = Settings(
    heartbeat_interval=5.0,
    election_timeout_min=20.0,
    election_timeout_max=40.0,
    catch_up_timeout=80.0,
    call_timeout=60.0,
)
"""For many groups: each costs its heartbeats, and a leader whose process dies is noticed by its connections anyway."""


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


class SlowSyncs:
    """A store on a disk that takes 50 ms more for each sync."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self.load, self.append, self.read, self.close = store.load, store.append, store.read, store.close

    def sync(self) -> None:
        time.sleep(0.05)
        self._store.sync()


def slow_store(directory: Path) -> SlowSyncs:
    """Open such a store."""
    directory.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module("quorate.store.rocksdb")  # Where it is not used, memory is measured without it.
    return SlowSyncs(module.RocksDBStore.open(directory / "slow"))


async def write_large(peer: Peer[KV], value: str, written: list[int]) -> None:
    """Write one large value after the other, and note each."""
    while True:
        await peer.with_options(timeout=60).write(KV.set, "large", value)
        written.append(len(value))


async def fill(peer: Peer[KV], entries: int, value: str) -> int:
    """Write so many entries of a thousand keys."""
    patient = peer.with_options(timeout=60)
    for begin in range(0, entries, 1000):
        count = min(1000, entries - begin)
        await asyncio.gather(*(patient.write(KV.set, f"key{number}", value) for number in range(count)))
    return peer.status().last_applied


async def obey(peers: list[Peer[KV]], watcher: Profiler | Marks, words: list[Any]) -> object:
    """Carry out one line."""
    first = peers[0]
    match words:
        case ["profile" | "profiled"]:
            return watcher.start() if words == ["profile"] else watcher.stop()
        case ["form", members]:
            return await form(peers, members)
        case ["leader"]:
            return str(await first.leader())
        case ["leads" | "term"]:
            return first.status().term if words == ["term"] else sum(is_leader(peer) for peer in peers)
        case ["write", value]:
            return await first.with_options(timeout=60).write(KV.set, "key0", value)
        case ["fill", value, entries]:
            return await fill(first, entries, value)
        case ["beside", value, callers, seconds, warm_up, size]:
            return await run_beside(peers, value, callers, seconds, warm_up, size)
        case [operation, value, callers, seconds, warm_up]:
            return await run_loops(peers, operation, value, callers, seconds, warm_up)
        case other:
            raise ValueError(f"not a command: {other}")


def is_leader(peer: Peer[KV]) -> bool:
    """Tell whether a peer leads."""
    return peer.status().role == "leader"


async def run_beside(
    peers: list[Peer[KV]], value: str, callers: int, seconds: float, warm_up: float, size: int
) -> tuple[Outcome, int]:
    """Run closed loops of writes beside one caller with large values; give also how many of those were written."""
    written: list[int] = []
    large = asyncio.ensure_future(write_large(peers[0], "v" * size, written)) if size else None
    outcome = await run_loops(peers, "writes", value, callers, seconds, warm_up)
    if large is not None:
        large.cancel()
    return outcome, len(written)


async def run_loops(
    peers: list[Peer[KV]], operation: str, value: str, callers: int, seconds: float, warm_up: float
) -> Outcome:
    """Run closed loops of one operation in this process."""
    first = peers[0]
    if operation == "writes":
        led = [peer.with_options(timeout=60) for peer in peers if is_leader(peer)]

        def write(number: int) -> Callable[[], Awaitable[str]]:
            return partial(led[number % len(led)].write, KV.set, f"key{number}", value)

        return await closed_loops(write, callers, seconds, warm_up)
    await first.write(KV.set, "key0", value)
    reader = first.with_options(consistency="lease") if operation == "lease reads" else first
    return await closed_loops(lambda _: partial(reader.read, KV.get, "key0"), callers, seconds, warm_up)


async def main(own: str, directory: str, store: Any, groups: int, settings: Settings) -> None:  # noqa: ANN401
    """Run the node until its standard input ends."""
    watcher = Marks() if sys.argv[7:] == ["timeline"] else Profiler()  # Before others hold on to methods it changes.
    address = Address.parse(own)
    chosen = slow_store(Path(f"{directory}-logs")) if store == "rocksdb-slow" else store
    async with Node(address.node, data_dir=directory, store=chosen, settings=settings) as node:
        names = [Address.parse(addresses_of(group, [own])[0]).name for group in range(groups)]
        peers = [await node.start_peer(KV, name=name) for name in names]
        gc.freeze()  # As the page about costs advises.
        await obey_lines(partial(obey, peers, watcher))


if __name__ == "__main__":
    entries = int(sys.argv[6])
    settings = RARE_BEATS if sys.argv[7:] == ["rare-beats"] else Settings()
    size = max(entries * 1024, settings.snapshot_bytes)
    settings = msgspec.structs.replace(settings, snapshot_entries=entries, snapshot_bytes=size)
    run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[5]), settings), sys.argv[4])
