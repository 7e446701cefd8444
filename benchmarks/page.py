"""docs/performance.md and its plots, written from results. Pure but for the files it writes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.plots import Series, lines
from benchmarks.results import (
    Comparison,
    Figure,
    Results,
    Spread,
    caller_cpu_per_call,
    cpu_per_call,
    over_rounds,
    p50,
    p99,
    p999,
    per_second,
    resident,
)
from benchmarks.systems import Case
from benchmarks.targets import BEST, TARGETS, Target, scaled

PLOTS: tuple[tuple[str, str, str, str, Figure, float], ...] = (
    ("writes", "Durable writes", "writes", "writes per second", per_second, 1.0),
    ("writes-p50", "Durable writes: the median call", "writes", "p50, ms", p50, 1e3),
    ("writes-p99", "Durable writes: 99 of 100 calls", "writes", "p99, ms", p99, 1e3),
    ("writes-cpu", "Durable writes: CPU of all processes", "writes", "CPU for each write, µs", cpu_per_call, 1e6),
    ("reads", "Linearizable reads", "reads", "reads per second", per_second, 1.0),
    ("lease-reads", "Reads by lease", "lease reads", "reads per second", per_second, 1.0),
)
"""Each plot's file, title, operation, label, figure and unit."""

ROUNDS_MIN = 5
SECONDS_MIN = 1.0

INTRODUCTION = """\
# Performance

How fast quorate is beside etcd, PySyncObj and two limits, measured in one run on one machine. **Figures of different
runs must not be compared**: disks, clocks and neighbours differ. What can be carried elsewhere are the ratios. This
page is written by the commands on it; `make bench` makes all of it anew, `make bench-quick` a short comparison. Of
what is not reached, [another page](bottlenecks.md) says what stands in the way.

Every system runs as three processes on loopback, fresh in each round, and the systems take turns round after round.
Callers make one call after the other, of values of 64 bytes. A ratio is taken within each round; shown is the median
[lowest–highest] of the rounds.

- **quorate**: every write is synced by a majority before it is acknowledged, with default settings. *In-process*
  callers share the leader's process. *Remote* ones share one client in a process of its own, which sends each request
  in a frame of its own; *coalesced* is the client as everybody gets it, which sends those of one turn together. Nodes
  call `gc.freeze()` once their peers run, as [the page about costs](guide/costs.md#many-groups) advises.
- **etcd**: default settings, which are durable. Its client is in Go ([source](../benchmarks/etcd_load/main.go)), asks
  the leader alone and shares four connections among all callers; what it needs itself stands in the tables. Each call
  does more than quorate's: gRPC, versions of each key, leases.
- **PySyncObj**: ticks of 1 ms and each command sent at once, which was its fastest setting up to 256 callers. **It is
  not durable**: nothing is on a disk when a write is acknowledged. It has no linearizable read.
- **The floor**: replicating a batch and syncing it with `fdatasync`, in lock-step, in C, without Raft
  ([source](../benchmarks/floor.c)). It shows what disk and network allow; its batch holds one command of each caller.
- **The ceiling**: quorate's batches, codec, store and disk thread in a bare Python loop, without Raft
  ([source](../benchmarks/programs/ceiling.py)). It shows what Python allows.

What this cannot show: real networks, loss of power, many machines; callers and all nodes share the same processors, and
closed loops make large batches. What is written in Python is as fast as [its build](guide/costs.md#which-python): all
of it ran on the one named below; `make bench PYTHON=/usr/bin/python3` would choose another.
"""


def write(results: Results, out: Path) -> str:
    """Write the page and its plots into a directory; give the page."""
    parts = [INTRODUCTION, *caution(results), *machine(results), *targets(results)]
    if results.comparison is not None:
        parts += plots(results.comparison, out, results.commands["comparison"])
        parts += tables(results.comparison)
    parts += chapters(results)
    page = "\n".join(parts)
    out.mkdir(parents=True, exist_ok=True)
    (out / "performance.md").write_text(page)
    return page


def caution(results: Results) -> list[str]:
    """Say so if what was measured was a trial of the harness, and no measurement."""
    plan = results.comparison.plan if results.comparison else None
    if plan is not None and plan.rounds >= ROUNDS_MIN and plan.seconds >= SECONDS_MIN and not results.trials:
        return []
    named = f"Tried out with smaller sizes: {', '.join(sorted(results.trials))}.\n" if results.trials else ""
    return ["**These figures are of a trial run, shorter or smaller than `make bench`: they prove nothing.**\n", named]


def machine(results: Results) -> list[str]:
    """Say where and with what."""
    rows = [f"| {name} | {value} |" for name, value in results.machine.items()]
    return ["## The machine\n", "| | |", "| --- | --- |", *rows, ""]


def targets(results: Results) -> list[str]:
    """Show what is to be reached beside what was."""
    rows = ["| | must | reach for | measured | |", "| --- | --- | --- | --- | --- |"]
    for target in TARGETS:
        found = target.measured(results)
        rows.append(
            f"| {target.text} | {bound(target, target.must)} | {bound(target, target.reach)} |"
            f" {measured(found, target.unit)} | {target.verdict(found)} |"
        )
    return ["## Figures to reach\n", "quorate here is on RocksDB and uvloop, where nothing else is said.\n", *rows, ""]


def bound(target: Target, value: float | None) -> str:
    """Write one bound."""
    if value is None:
        return "–"
    return f"{'≤' if target.at_most else '≥'} {number(value)} {target.unit}"


def measured(found: Spread | None, unit: str) -> str:
    """Write a median with its spread."""
    if found is None:
        return "–"
    if found.count == 1:
        return f"{number(found.median)} {unit}"
    return f"{number(found.median)} {unit} [{number(found.low)}–{number(found.high)}]"


def number(value: float) -> str:
    """Write a number with three digits that count, and all before the point."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shown(command: str) -> str:
    """Give a command as a page shows it: in lines of its own if it is long."""
    lines = textwrap.wrap(command, 100, break_long_words=False, break_on_hyphens=False)
    return f"`{command}`" if len(lines) == 1 else "```text\n" + " \\\n    ".join(lines) + "\n```"


def plots(comparison: Comparison, out: Path, made_by: str) -> list[str]:
    """Draw every plot that has points, each with the command that makes it."""
    parts = ["## Plots\n"]
    directory = out / "performance"
    directory.mkdir(parents=True, exist_ok=True)
    for name, title, operation, label, figure, unit in PLOTS:
        series = series_of(comparison, operation, figure, unit)
        if series:
            (directory / f"{name}.svg").write_text(lines(title, label, series))
            parts += [f"![{title}](performance/{name}.svg)\n", f"{shown(made_by)}\n"]
    return parts


def series_of(comparison: Comparison, operation: str, figure: Figure, unit: float) -> Series:
    """Give a line for each system and path that has an operation; of quorate only the best on every path."""
    series: dict[str, list[tuple[int, Spread]]] = {}
    for system, case in measured_cases(comparison):
        if case.operation != operation or (
            case.path != "in-process" and system.startswith("quorate") and system != BEST
        ):
            continue
        found = scaled(over_rounds(comparison.rounds, system, str(case), figure), unit)
        if found is not None:
            name = comparison.titles[system].partition(":")[0]
            series.setdefault(f"{name}, {case.path}" if name.startswith("quorate") else name, []).append(
                (case.callers, found)
            )
    return series


def measured_cases(comparison: Comparison) -> list[tuple[str, Case]]:
    """Give every system and case that was measured, in order."""
    keys = dict.fromkeys(
        (system, key) for found in comparison.rounds for system in comparison.titles for key in found.get(system, {})
    )
    split = [(system, key.rsplit(" ", 2)) for system, key in keys]
    return [(system, Case(operation, path, int(callers))) for system, (operation, path, callers) in split]


COLUMNS: tuple[tuple[str, Figure, float], ...] = (
    ("p50 ms", p50, 1e3),
    ("p99 ms", p99, 1e3),
    ("p99.9 ms", p999, 1e3),
    ("CPU µs/call", cpu_per_call, 1e6),
    ("of it the callers' process", caller_cpu_per_call, 1e6),
    ("leader MB", resident, 1e-6),
)


def tables(comparison: Comparison) -> list[str]:
    """Write every figure."""
    parts = ["## All figures\n"]
    parts += [f"Left out: {title}: {why}.\n" for title, why in comparison.skipped.items()]
    parts += [f"Failed: {failure}.\n" for failure in comparison.failures]
    heads = ["system", "path", "callers", "per second", "[lowest–highest]", *(name for name, _, _ in COLUMNS)]
    for operation in dict.fromkeys(case.operation for _, case in measured_cases(comparison)):
        parts += [f"### {operation.capitalize()}\n", row(heads), row("---" for _ in heads)]
        for system, case in measured_cases(comparison):
            if case.operation == operation:
                parts.append(row(cells(comparison, system, case)))
        parts.append("")
    return parts


def cells(comparison: Comparison, system: str, case: Case) -> list[str]:
    """Give the row of one case."""

    def find(figure: Figure) -> Spread | None:
        return over_rounds(comparison.rounds, system, str(case), figure)

    rate = find(per_second)
    assert rate is not None, "it was measured"
    found = [scaled(find(figure), unit) for _, figure, unit in COLUMNS]
    medians = [number(each.median) if each and each.median else "–" for each in found]
    spread = f"[{number(rate.low)}–{number(rate.high)}]"
    title = comparison.titles[system].partition(":")[0]
    return [title, case.path, str(case.callers), number(rate.median), spread, *medians]


def chapters(results: Results) -> list[str]:
    """Write what was measured beside the comparison."""
    parts = []
    for name, found in results.chapters.items():
        parts += [f"## {name.capitalize()}\n", f"{shown(results.commands[name])}\n"]
        parts += ["| | median | lowest | highest | count |", "| --- | --- | --- | --- | --- |"]
        parts += [row(summary(what, figures)) for what, figures in found.items() if figures]
        parts.append("")
    return parts


def summary(what: str, figures: Sequence[float]) -> list[str]:
    """Give the row of one list of figures."""
    ordered = sorted(figures)
    shown = (ordered[len(ordered) // 2], ordered[0], ordered[-1])
    return [what, *map(number, shown), str(len(figures))]


def row(cells: Iterable[str]) -> str:
    """Write one row of a table."""
    return f"| {' | '.join(cells)} |"
