"""The command line of the harness: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import chapters, costs, failover, machine, page, steadiness, timeline
from benchmarks.comparing import PATHS, compare
from benchmarks.processes import ROOT
from benchmarks.profiling import profile
from benchmarks.results import Plan, Results
from benchmarks.systems import Case
from quorate.store.files import replace_file

DOCS = ROOT / "docs"
FULL = Plan(5, 1.0, 0.2, (1, 16, 64, 256, 1024))
"""With the chapters half an hour; ``make bench ROUNDS=9 SECONDS=2`` looks closer."""

QUICK = Plan(3, 0.5, 0.2, (1, 256), ("writes", "reads"), ("floor", "ceiling-uvloop", "etcd", "quorate-rocksdb-uvloop"))

CHAPTERS: dict[str, tuple[str, Callable[[int, float], Coroutine[Any, Any, dict[str, list[float]]]]]] = {
    "start": ("import quorate, and a cluster from nothing to its first write", chapters.start),
    "memory": ("resident memory of an idle peer", chapters.memory),
    "groups": ("many groups on one node", chapters.groups),
    "restart": ("a log of a million entries", chapters.restart),
    "costs": ("what a call, an entry and a snapshot cost, in µs of CPU and bytes", costs.costs),
    "stalls": ("small writes beside large ones", steadiness.stalls),
    "elections": ("elections that nobody needed, under full load and with a slow disk", steadiness.elections),
    "timeline": ("the way of one write through three processes, step by step", timeline.timeline),
    "failover": ("SIGKILL of the leader to the next acknowledged write", failover.failover),
}


def arguments() -> argparse.ArgumentParser:
    """Describe what the command takes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures quorate on this machine, beside etcd, PySyncObj and what the machine can do at best.",
    )
    parser.add_argument(
        "--out", type=Path, default=DOCS, help="where performance.md and performance/ go (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", help="quorate, etcd, PySyncObj and the limits, in turn")
    comparison.add_argument("--rounds", type=int, default=FULL.rounds)
    comparison.add_argument("--seconds", type=float, default=FULL.seconds, help="of each case in each round")
    comparison.add_argument("--warm-up", type=float, default=FULL.warm_up, help="before each case")
    comparison.add_argument("--callers", type=int, nargs="+", default=FULL.callers)
    comparison.add_argument("--operations", nargs="+", default=FULL.operations)
    comparison.add_argument("--systems", nargs="+", help="their names; all by default")
    commands.add_parser("quick", help="the comparison of the most important cases, in under three minutes")
    rest = {"all": "all of them, and the page"} | {name: text for name, (text, _) in CHAPTERS.items()}
    for name, text in rest.items():
        chapter = commands.add_parser(name, help=text)
        chapter.add_argument("--rounds", type=int, default=FULL.rounds)
        if name == "all":
            seconds = "of each case of the comparison in each round"
            chapter.add_argument("--seconds", type=float, default=FULL.seconds, help=seconds)
        chapter.add_argument("--scale", type=float, default=1.0, help="of groups, entries and kills, to try it out")
    profiled = commands.add_parser("profile", help="where the CPU of a node or a client goes, by function")
    profiled.add_argument("who", choices=["leader", "follower", "client"])
    profiled.add_argument("--operation", choices=FULL.operations, default="writes")
    profiled.add_argument("--path", choices=PATHS, default="in-process")
    profiled.add_argument("--callers", type=int, default=256)
    profiled.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    profiled.add_argument("--seconds", type=float, default=5.0)
    commands.add_parser("page", help="write the page and its plots anew from what was measured last")
    return parser


async def measure(options: argparse.Namespace, results: Results, kept: Path) -> None:
    """Carry out one subcommand, put what it found into the results, and keep each part of them at once."""
    called = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    plan = plan_of(options)
    if plan is not None:
        results.comparison = await compare(plan)
        results.commands["comparison"] = called
        keep(results, kept)
    for name, (text, chapter) in CHAPTERS.items():
        if options.command in ("all", name):
            print(f"{text} …", file=sys.stderr, flush=True)
            results.chapters[name] = await chapter(options.rounds, options.scale)
            results.commands[name] = called
            (results.trials.discard if options.scale >= 1 else results.trials.add)(name)
            keep(results, kept)


def keep(results: Results, path: Path) -> None:
    """Write results to a file, whole or not at all: what one part has found is not lost with the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def plan_of(options: argparse.Namespace) -> Plan | None:
    """Give what a subcommand compares; None for nothing."""
    match options.command:
        case "all":
            return msgspec.structs.replace(FULL, rounds=options.rounds, seconds=options.seconds)
        case "quick":
            return QUICK
        case "compare":
            systems = tuple(options.systems) if options.systems else None
            callers, operations = tuple(options.callers), tuple(options.operations)
            return Plan(options.rounds, options.seconds, options.warm_up, callers, operations, systems)
        case _:
            return None


async def until_told_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run work that is cancelled by SIGTERM as by Ctrl-C, so that everything it started is ended."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def carry_out(work: Coroutine[Any, Any, None]) -> None:
    """Run work to its end, or say that it was interrupted."""
    try:
        asyncio.run(until_told_to_end(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interrupted; everything that was started has ended; what was measured before is kept")


async def show_profile(options: argparse.Namespace) -> None:
    """Print a profile."""
    case = Case(options.operation, options.path, options.callers)
    print(await profile(case, options.who, options.loop, options.seconds))


def main() -> None:
    """Measure, keep what was found, and write the page."""
    options = arguments().parse_args()
    if options.command == "profile":
        carry_out(show_profile(options))
        return
    out: Path = options.out
    kept = out / "performance" / "results.json"
    results = msgspec.json.decode(kept.read_bytes(), type=Results) if kept.exists() else Results()
    if options.command != "page":
        results.machine = machine.describe()
        carry_out(measure(options, results, kept))
    text = page.write(results, out)
    if options.command != "all":
        print(text)


if __name__ == "__main__":
    main()
