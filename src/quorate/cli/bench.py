"""``quorate bench``: what three nodes on this machine and disk can do, or a group that runs, and what the limit is.

The nodes are processes of their own, as in the demo. What is measured is a client's writes: closed loops, each of which
makes one call after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from quorate import Address, Client, QuorateError, connect
from quorate.cli.demo import LOOPBACK, free_ports
from quorate.cli.interruption import Interrupted, interruptible
from quorate.cli.output import CommandError, Output
from quorate.cli.probe import Syncs, probe, quantile
from quorate.cli.session import Session, SessionError
from quorate.machines import KV

WRITERS = (1, 16, 256)
VALUE = "v" * 64
KEY = "quorate-bench"
REFRESH = 0.2
"""Seconds between two looks at how far it is, for whoever watches."""

BUSY = 0.85
"""The share of a core from which on a process counts as busy: it also waits for its turn."""


class Case(msgspec.Struct, frozen=True):
    """What so many writers got.

    Attributes:
        writers: how many wrote at once.
        per_second: writes per second of all together.
        p50: the median time of a write, seconds.
        p99: the time that 99 of 100 writes do not exceed, seconds.
        failures: calls that raised.
        client: the share of a core that this command used.
        nodes: the share of a core that each node used; empty where that cannot be known.
    """

    writers: int
    per_second: float
    p50: float
    p99: float
    failures: int
    client: float
    nodes: tuple[float, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """All that was measured.

    Attributes:
        store: the nodes' store; None for a group that ran already.
        directory: where their data was; None for one that ran already.
        cores: how many processors this machine has.
        syncs: of the disk below ``directory``; None where none is asked.
        cases: by the number of writers.
        limits: what the figures say, in sentences.
    """

    store: str | None
    directory: str | None
    cores: int
    syncs: Syncs | None
    cases: list[Case]
    limits: list[str]


def run_bench(options: argparse.Namespace) -> int:
    """Measure, and print what was found; give the exit status.

    Raises:
        CommandError: there is no such directory, the nodes did not start, or the group does not answer.
    """
    output = Output(plain=options.plain or options.json)
    if options.directory is not None and not os.access(os.path.join(options.directory, ""), os.W_OK):
        raise CommandError(
            f"nothing can be made in {options.directory}; name a directory that is there and may be written, on the"
            " disk to be measured"
        )
    try:
        report = asyncio.run(measure(output, options))
    except Interrupted as error:
        output.line(f"\nInterrupted by {error.number.name}: what was started is stopped, and its files removed.")
        return 128 + error.number
    except (OSError, QuorateError, SessionError) as error:
        raise CommandError(str(error)) from error
    if options.json:
        output.line(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        show(output, report)
    return 0


async def measure(output: Output, options: argparse.Namespace) -> Report:
    """Measure the disk and the group that the options name."""
    return await interruptible(measure_group(output, options))


async def measure_group(output: Output, options: argparse.Namespace) -> Report:
    """Measure a group that runs, or the disk and three nodes of our own."""
    if options.group:
        async with connect(KV, *options.group) as client:
            cases = await measure_cases(output, client, options.seconds, [])
        return report_of(None, None, None, cases)
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", dir=options.directory) as directory:
        syncs = None
        if options.store != "memory":
            with output.working("asking the disk"):
                syncs = await asyncio.to_thread(probe, Path(directory), min(1.0, options.seconds))
        async with contextlib.AsyncExitStack() as stack:
            sessions = await stack.enter_async_context(three_nodes(options.store, Path(directory)))
            client = await stack.enter_async_context(connect(KV, *(session.address for session in sessions)))
            cases = await measure_cases(output, client, options.seconds, [session.pid for session in sessions])
        return report_of(options.store, str(Path(directory).parent), syncs, cases)


@contextlib.asynccontextmanager
async def three_nodes(store: str, directory: Path) -> AsyncIterator[Sequence[Session]]:
    """Run three nodes that form a group, for as long as the context lasts.

    Raises:
        SessionError: one did not start, or they did not form a group.
    """
    addresses = [Address(f"peer{number}", LOOPBACK, port) for number, port in enumerate(free_ports(3), 1)]
    sessions = [Session(address, store, directory) for address in addresses]
    try:
        await asyncio.gather(*(session.start() for session in sessions))
        members = ", ".join(f'"{address}"' for address in addresses)
        printed = await sessions[0].type(f"await peer.set_configuration({members})")
        if printed:
            raise SessionError(f"the nodes formed no group: {printed}")
        yield sessions
    except SessionError as error:  # Their logs are removed, and one of them says why.
        logged = [f"{session.name} logged last: {line}" for session in sessions for line in session.log_tail(1)]
        raise SessionError("\n".join([str(error), *logged])) from error
    finally:
        for session in sessions:
            await session.kill()


async def measure_cases(output: Output, client: Client[KV], seconds: float, pids: Sequence[int]) -> list[Case]:
    """Measure with few writers and with many, one after the other."""
    with output.working("waiting for a leader") as update:
        await client.write(KV.set, KEY, VALUE)
        return [await measure_case(client, writers, seconds, pids, update) for writers in WRITERS]


async def measure_case(
    client: Client[KV], writers: int, seconds: float, pids: Sequence[int], update: Callable[[str], None]
) -> Case:
    """Let so many writers write for a moment unmeasured, and then for so many seconds.

    Raises:
        CommandError: no write ended in that time.
    """
    clock = time.perf_counter
    begin = clock() + seconds / 5
    end = begin + seconds
    took: list[float] = []
    failures = 0

    async def write() -> None:
        nonlocal failures
        start = clock()
        while start < end:
            try:
                await client.write(KV.set, KEY, VALUE)
            except QuorateError:
                failures += 1
                await asyncio.sleep(0.01)
            now = clock()
            if begin <= now <= end:
                took.append(now - start)
            start = now

    async def tell() -> None:
        while True:
            update(f"{writers} writers: {max(0.0, end - clock()):.0f} s to go")
            await asyncio.sleep(REFRESH)

    telling = asyncio.create_task(tell())
    own, others, started = time.process_time(), list(map(cpu_seconds, pids)), clock()
    try:
        await asyncio.gather(*(write() for _ in range(writers)))
    finally:
        telling.cancel()
    passed = clock() - started
    shares = [after - before for after, before in zip(map(cpu_seconds, pids), others, strict=True)]
    if not took:
        raise CommandError(f"no write ended within {seconds:g} s; {failures} failed")
    used = tuple(share / passed for share in shares) if any(shares) else ()
    client_used = (time.process_time() - own) / passed
    return Case(writers, len(took) / seconds, quantile(took, 0.5), quantile(took, 0.99), failures, client_used, used)


def cpu_seconds(pid: int) -> float:
    """Give the CPU seconds that a process has used; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def report_of(store: str | None, directory: str | None, syncs: Syncs | None, cases: list[Case]) -> Report:
    """Put together what was found, and what it says."""
    cores = os.cpu_count() or 1
    limits = [*disk_limits(syncs, cases), processor_limit(cases[-1], cores)]
    return Report(store, directory, cores, syncs, cases, limits)


def disk_limits(syncs: Syncs | None, cases: Sequence[Case]) -> list[str]:
    """Say what the disk has to do with it."""
    if syncs is None:
        return []
    one, most = cases[0], cases[-1]
    share = syncs.p50 / one.p50
    waits = "the disk" if share >= 0.5 else "processes and the network more than for the disk"
    return [
        f"At best this disk makes {number(syncs.per_second)} syncs a second, one after the other. One writer has to "
        f"wait for one of them at least: {milliseconds(syncs.p50)} of the {milliseconds(one.p50)} that a write takes. "
        f"It waits for {waits}.",
        f"{most.writers} writers get {most.per_second / syncs.per_second:.1f} writes for each sync that the disk could "
        "make: what comes while it works shares the next sync.",
    ]


def processor_limit(case: Case, cores: int) -> str:
    """Say what stands in the way of more writes than that."""
    begin = f"With {case.writers} writers the limit is"
    if case.client >= BUSY:
        return f"{begin} this command itself: one process of Python makes no more calls. Several clients get more."
    if case.nodes and case.client + sum(case.nodes) >= BUSY * cores:
        return (
            f"{begin} the processor: three nodes and their client share its {cores} cores. On machines of their own "
            "they get more."
        )
    if case.nodes and max(case.nodes) >= BUSY:
        return f"{begin} the leader's process, which has one core. Several groups, led by different nodes, get more."
    return f"{begin} waiting, for the disk and on the way: more writers at once get more."


def show(output: Output, report: Report) -> None:
    """Print what was found, for people."""
    where = f"Three nodes on {report.store} in {report.directory}" if report.store else "A group that runs"
    output.line(f"{where}; a client writes values of {len(VALUE)} bytes.", "bold")
    if report.syncs is not None:
        p50, p99 = milliseconds(report.syncs.p50), milliseconds(report.syncs.p99)
        output.line(f"The disk alone: {number(report.syncs.per_second)} syncs/s, p50 {p50}, p99 {p99}.")
    output.line()
    columns = ("writers", "writes/s", "p50", "p99", "failed")
    rows = [
        (str(c.writers), number(c.per_second), milliseconds(c.p50), milliseconds(c.p99), str(c.failures))
        for c in report.cases
    ]
    output.table(columns, rows, right=columns)
    for sentence in report.limits:
        output.line()
        output.line(sentence)


def number(value: float) -> str:
    """Write a number of events."""
    return f"{value:,.0f}"


def milliseconds(seconds: float) -> str:
    """Write a short time."""
    return f"{1000 * seconds:.2f} ms"
