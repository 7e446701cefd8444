"""``chaos run``: faults on real processes, and what clients saw; ``chaos failover``: how long an election takes."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from quorate.testing.chaos import failover
from quorate.testing.chaos.cluster import ENTRY, NodeGone, Refused
from quorate.testing.chaos.faults import FAULTS
from quorate.testing.chaos.report import table
from quorate.testing.chaos.run import Plan, run_plan

INTERRUPTED = 130
"""The exit status after SIGINT or SIGTERM."""


def run(chosen: argparse.Namespace) -> int:
    """Run the command; give the exit status: 0 when nothing was violated, 1 when something was, 130 if interrupted."""
    task = failover_run(chosen) if chosen.what == "failover" else chaos_run(chosen)
    try:
        return asyncio.run(until_terminated(task))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("interrupted", flush=True)
        return INTERRUPTED
    except (NodeGone, Refused, TimeoutError) as error:
        print(f"given up: {error}", flush=True)
        return 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what the command takes."""
    commands = parser.add_subparsers(dest="what", required=True)
    chaos = commands.add_parser("run", help="faults on five real processes, and a history that is judged")
    chaos.add_argument("--minutes", type=float, default=3.0, help="how long faults and clients go on (3)")
    chaos.add_argument("--seed", type=int, help="what decides calls and faults (drawn, and printed)")
    chaos.add_argument("--store", choices=("rocksdb", "lmdb", "memory"), default="rocksdb", help="(rocksdb)")
    chaos.add_argument("--rate", type=float, default=Plan.rate, help=f"calls a second at most ({Plan.rate:g})")
    chaos.add_argument(
        "--fault",
        action="append",
        choices=tuple(FAULTS),
        help="a fault that may be drawn, may be given more than once (all of them)",
    )
    chaos.add_argument("--proxies", action="store_true", help="no namespaces, though there could be")
    chaos.add_argument(
        "--served",
        type=float,
        default=Plan.quiet_served_min,
        help=f"least share of seconds without a fault in which a write must succeed ({Plan.quiet_served_min:g})",
    )
    chaos.add_argument("--entry", help="the path of another program than the usual one, to be run as a node")
    chaos.add_argument("--history", type=Path, help="write there what clients saw, as JSON lines")
    chaos.add_argument("--report", type=Path, help="write there what is printed at the end, as JSON")
    kills = commands.add_parser("failover", help="kill the leader again and again, and measure until a write succeeds")
    kills.add_argument("--kills", type=int, default=200, help="how often (200)")
    kills.add_argument("--store", choices=("rocksdb", "lmdb"), default="rocksdb", help="(rocksdb)")
    kills.add_argument("--report", type=Path, help="write there all that was measured, as JSON")


async def until_terminated(task: Coroutine[Any, Any, int]) -> int:
    """Do a task; SIGTERM cancels it as SIGINT does, so that it leaves nothing behind."""
    own = asyncio.current_task()
    assert own is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)
    return await task


async def chaos_run(chosen: argparse.Namespace) -> int:
    """Do a run, and print what it came to."""
    plan = Plan(
        seconds=chosen.minutes * 60,
        seed=chosen.seed if chosen.seed is not None else random.randrange(1_000_000),
        rate=chosen.rate,
        store=chosen.store,
        kinds=tuple(chosen.fault or FAULTS),
        proxies=chosen.proxies,
        quiet_served_min=chosen.served,
        entry=(chosen.entry,) if chosen.entry else ENTRY,
        history=chosen.history,
    )
    report = await run_plan(plan)
    print(table(report), flush=True)
    write_report(chosen.report, report)
    return 0 if report.is_good else 1


async def failover_run(chosen: argparse.Namespace) -> int:
    """Measure, and print what was measured."""
    measured = await failover.measure(chosen.kills, chosen.store)
    print(failover.table(measured), flush=True)
    write_report(chosen.report, measured)
    return 0 if measured.is_good else 1


def write_report(path: Path | None, report: msgspec.Struct) -> None:
    """Write a report, if that is wanted."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
