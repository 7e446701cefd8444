"""Durable writes and linearizable reads of three node processes on loopback: ``python benchmarks/run.py [--help]``.

Every write is synced by a majority before it is acknowledged. Loops run inside the leader's process, or in this one
through ``connect``. Rounds of all cases alternate; the table gives the median of the rounds and their spread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import socket
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from node import VALUE, closed_loops

from quorate import connect
from quorate.machines import KV

CHILD = str(Path(__file__).with_name("node.py"))


def free_ports(count: int) -> list[int]:
    """Give ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for port in taken:
            port.bind(("127.0.0.1", 0))
        return [port.getsockname()[1] for port in taken]


async def ask(process: Process, *words: object) -> Any:  # noqa: ANN401 - what JSON holds
    """Send one line to a node, and give its answer."""
    assert process.stdin is not None, "it was started with a pipe"
    assert process.stdout is not None, "it was started with a pipe"
    if words:
        process.stdin.write(json.dumps(words).encode() + b"\n")
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the node ended; its error output is above")
    return json.loads(line)


@contextlib.asynccontextmanager
async def cluster(store: str, loop: str) -> AsyncIterator[tuple[list[str], Process]]:
    """Run three nodes; give their addresses and the process of the leader."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-") as directory:
        addresses = [f"peer{n}@127.0.0.1:{port}" for n, port in enumerate(free_ports(3), 1)]
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, CHILD, address, f"{directory}/{number}", store, loop), stdin=PIPE, stdout=PIPE
            )
            for number, address in enumerate(addresses)
        ]
        try:
            for process in processes:
                await ask(process)
            await ask(processes[0], "form", addresses)
            leader = await ask(processes[0], "leader")
            yield addresses, processes[addresses.index(leader)]
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
                await process.wait()


async def one_round(store: str, loop: str, concurrency: list[int], seconds: float) -> dict[str, dict[str, Any]]:
    """Measure every case once, on a fresh cluster."""
    results = {}
    async with cluster(store, loop) as (addresses, leader):
        for count in concurrency:
            results[f"writes in-process {count}"] = await ask(leader, "writes", count, seconds)
            results[f"reads in-process {count}"] = await ask(leader, "reads", count, seconds)
            async with connect(KV, *addresses) as kv:
                results[f"writes remote {count}"] = await closed_loops(
                    lambda number, kv=kv: kv.write(KV.set, f"key{number}", VALUE), count, seconds
                )
        results["memory of the leader"] = {"bytes": await ask(leader, "memory")}
    return results


def table(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """Write the medians and the spread of the rounds."""
    lines = [f"{'case':<24}{'per second':>12}{'min':>10}{'max':>10}{'p50 ms':>9}{'p99 ms':>9}"]
    for case in rounds[0]:
        found = [each[case] for each in rounds]
        if "bytes" in found[0]:
            lines.append(f"{case:<24}{statistics.median(f['bytes'] for f in found) / 2**20:>9.0f} MiB")
            continue
        rates = [f["per_second"] for f in found]
        p50, p99 = (statistics.median(f[name] for f in found) * 1000 for name in ("p50", "p99"))
        spread = f"{min(rates):>10,.0f}{max(rates):>10,.0f}"
        lines.append(f"{case:<24}{statistics.median(rates):>12,.0f}{spread}{p50:>9.2f}{p99:>9.2f}")
    return "\n".join(lines)


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all cases (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 64, 256], help="callers at once")
    parser.add_argument("--store", choices=["rocksdb", "memory"], default="rocksdb")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        rounds.append(await one_round(options.store, options.loop, options.concurrency, options.seconds))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    python = f"Python {platform.python_version()}, {options.loop}"
    print(f"{platform.machine()} {platform.system()} {platform.release()}, {python}")
    print(f"three nodes on loopback, store {options.store}, values of {len(VALUE)} bytes, {options.rounds} rounds")
    print(table(rounds))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
