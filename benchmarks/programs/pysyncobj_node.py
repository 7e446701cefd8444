"""One PySyncObj node: ``python -m benchmarks.programs.pysyncobj_node OWN OTHER OTHER``, each ``host:port``.

Set as it was fastest here up to 256 callers: ticks of 1 ms, and each command sent at once (``appendEntriesUseBatch``
off), against 50 ms and batches by default. Without a journal: its journal is a mapped file that is never synced, and it
is slower with one. So nothing is durable. It offers no linearizable read.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from benchmarks.loops import closed_loops
from benchmarks.programs.lines import obey_lines, run


class KV(SyncObj):
    """Texts by key."""

    def __init__(self, own: str, others: list[str]) -> None:
        super().__init__(own, others, conf=SyncObjConf(autoTickPeriod=0.001, appendEntriesUseBatch=False))
        self.entries: dict[str, str] = {}

    @replicated
    def set(self, key: str, value: str) -> str:
        self.entries[key] = value
        return value


async def write(kv: KV, key: str, value: str) -> None:
    """Write, and wait until it is applied; PySyncObj calls back from a thread of its own."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def done(_: object, error: int) -> None:
        loop.call_soon_threadsafe(future.set_result, error)

    kv.set(key, value, callback=done)
    if await future:
        raise RuntimeError(f"PySyncObj refused a write: {future.result()}")


async def obey(kv: KV, words: list[Any]) -> object:
    """Carry out one line."""
    match words:
        case ["leader"]:
            while kv.getStatus()["leader"] is None or not kv.isReady():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
            return str(kv.getStatus()["leader"])
        case ["writes", value, callers, seconds, warm_up]:
            return await closed_loops(
                lambda number: partial(write, kv, f"key{number}", value), callers, seconds, warm_up
            )
        case other:
            raise ValueError(f"not a command: {other}")


async def main(own: str, others: list[str]) -> None:
    """Run the node until standard input ends."""
    kv = KV(own, others)
    try:
        await obey_lines(lambda words: obey(kv, words))
    finally:
        kv.destroy()


if __name__ == "__main__":
    run(main(sys.argv[1], sys.argv[2:]), "asyncio")
