"""One node of the benchmark's cluster, in a process of its own: obeys JSON lines on its standard input.

``["form", [ADDRESS, …]]`` forms the group; ``["leader"]`` names the leader; ``["writes", WRITERS, SECONDS]`` and
``["reads", READERS, SECONDS]`` run closed loops inside this process and answer with what they measured; ``["memory"]``
gives the resident bytes at their highest. Each is answered with one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from quorate import Address, Node, Peer
from quorate.machines import KV

VALUE = "v" * 64


async def closed_loops(call: Callable[[int], Awaitable[object]], count: int, seconds: float) -> dict[str, Any]:
    """Let ``count`` loops call one after the other for that long, after a fifth of it to warm up."""
    latencies: list[float] = []
    begin = time.perf_counter() + seconds / 5
    end = begin + seconds

    async def loop(number: int) -> None:
        while (start := time.perf_counter()) < end:
            await call(number)
            if start >= begin:
                latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(loop(number) for number in range(count)))
    latencies.sort()
    return {
        "count": len(latencies),
        "per_second": len(latencies) / seconds,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
    }


async def obey(peer: Peer[KV], line: str) -> object:
    """Carry out one line."""
    match json.loads(line):
        case ["form", members]:
            return await peer.set_configuration(*members)
        case ["leader"]:
            return str(await peer.leader())
        case ["writes", writers, seconds]:
            return await closed_loops(lambda number: peer.write(KV.set, f"key{number}", VALUE), writers, seconds)
        case ["reads", readers, seconds]:
            return await closed_loops(lambda number: peer.read(KV.get, "key0"), readers, seconds)
        case ["memory"]:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        case other:
            raise ValueError(f"not a command: {other}")


async def main(own: str, data_dir: str, store: str) -> None:
    """Run the node until its standard input ends."""
    address = Address.parse(own)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Node(address.node, data_dir=data_dir, store=store) as node:  # type: ignore[arg-type]
        peer = await node.start_peer(KV, name=address.name)
        print(json.dumps("ready"), flush=True)
        while line := await reader.readline():
            print(json.dumps(await obey(peer, line.decode())), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 4 and sys.argv[4] == "uvloop":
        import uvloop

        uvloop.run(main(*sys.argv[1:4]))
    else:
        asyncio.run(main(*sys.argv[1:4]))
