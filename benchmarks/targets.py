"""What quorate must reach and reaches for, and how each figure comes from what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import msgspec

from benchmarks.results import Figure, Results, Spread, over_rounds, p50, per_second, ratio, resident, spread

BEST = "quorate-rocksdb-uvloop"
CEILING = "ceiling-uvloop"
MEGABYTE = 1e6

Measured = Callable[[Results], Spread | None]


class Target(msgspec.Struct, frozen=True):
    """One figure to reach.

    Attributes:
        text: what it is of.
        must: the bound that has to be kept; None where there is none.
        reach: the one that is reached for.
        measured: finds it in the results; None where it was not measured.
        unit: what stands behind the numbers.
        at_most: whether less is better.
    """

    text: str
    must: float | None
    reach: float
    measured: Measured
    unit: str = "×"
    at_most: bool = False

    def verdict(self, found: Spread | None) -> str:
        """Say what the median has reached."""
        if found is None:
            return "not measured"
        sign = -1 if self.at_most else 1
        if sign * found.median >= sign * self.reach:
            return "reached"
        if self.must is None:
            return "not reached"
        return "met" if sign * found.median >= sign * self.must else "**not met**"


def against(one: tuple[str, str], other: tuple[str, str], figure: Figure = per_second) -> Measured:
    """Compare two (system, case) pairs, round by round."""

    def measured(results: Results) -> Spread | None:
        return ratio(results.comparison.rounds, one, other, figure) if results.comparison else None

    return measured


def alone(case: str, figure: Figure = per_second) -> Measured:
    """Look at one case of quorate."""

    def measured(results: Results) -> Spread | None:
        return over_rounds(results.comparison.rounds, BEST, case, figure) if results.comparison else None

    return measured


def whole_chapter(results: Results, name: str) -> dict[str, list[float]]:
    """Give the figures of a chapter; none of one that was only tried out, with fewer entries, groups or kills."""
    return {} if name in results.trials else results.chapters.get(name, {})


def chapter(name: str, what: str, scale: float = 1.0) -> Measured:
    """Look at one list of a chapter's figures."""

    def measured(results: Results) -> Spread | None:
        return spread([figure * scale for figure in whole_chapter(results, name).get(what, [])])

    return measured


def of_medians(name: str, one: str, other: str) -> Measured:
    """Compare the medians of two lists of a chapter."""

    def measured(results: Results) -> Spread | None:
        found = whole_chapter(results, name)
        above, below = spread(found.get(one, [])), spread(found.get(other, []))
        if above is None or below is None:
            return None
        return spread([figure / below.median for figure in found[one]])

    return measured


def growth(results: Results) -> Spread | None:
    """Give how much a leader's memory grows over the second half of its entries, bytes for each of them.

    It is the slope of a line through all that was seen: what is held rises and falls by megabytes with each snapshot.
    """
    found = whole_chapter(results, "memory")
    sizes, entries = found.get("growth", []), found.get("growth entries", [0.0])[0]
    second_half = sizes[len(sizes) // 2 :]
    if len(second_half) < 2 or not entries:
        return None
    line = statistics.linear_regression(range(len(second_half)), second_half)
    return spread([line.slope / (entries / len(sizes))])


def longest_failover(results: Results) -> Spread | None:
    """Give the longest time without an acknowledged write, ms."""
    found = whole_chapter(results, "failover").get("quorate", [])
    return spread([1000 * max(found)]) if found else None


def scaled(found: Spread | None, factor: float) -> Spread | None:
    """Give figures in another unit."""
    if found is None:
        return None
    return Spread(found.median * factor, found.low * factor, found.high * factor, found.count)


def in_units(measured: Measured, factor: float) -> Measured:
    """Give figures in another unit."""
    return lambda results: scaled(measured(results), factor)


def writes(path: str, callers: int) -> str:
    """Name a case of writes."""
    return f"writes {path} {callers}"


def groups_together(text: str, more: str) -> Target:
    """Compare what a thousand groups write with what one does, with so many more callers."""
    shares = of_medians("groups", f"writes/s, all groups{more}", f"writes/s, one group{more}")
    return Target(text, 60, 80, in_units(shares, 100), "%")


TARGETS = (
    *(
        Target(
            f"writes in-process, {callers} callers, against etcd",
            8,
            15,
            against((BEST, writes("in-process", callers)), ("etcd", writes("remote", callers))),
        )
        for callers in (256, 1024)
    ),
    *(
        Target(
            f"writes in-process, {callers} callers, against the bare loop",
            None,
            60,
            in_units(against((BEST, writes("in-process", callers)), (CEILING, writes("in-process", callers))), 100),
            "%",
        )
        for callers in (256, 1024)
    ),
    Target(
        "writes remote, one frame for each request, 256 callers, against etcd",
        3,
        6,
        against((BEST, writes("remote", 256)), ("etcd", writes("remote", 256))),
    ),
    Target(
        "writes remote, coalescing, 256 callers, against etcd",
        8,
        12,
        against((BEST, writes("coalesced", 256)), ("etcd", writes("remote", 256))),
    ),
    Target(
        "one writer in-process, p50, against etcd's",
        0.75,
        0.5,
        against((BEST, writes("in-process", 1)), ("etcd", writes("remote", 1)), p50),
        at_most=True,
    ),
    Target(
        "one writer in-process, p50, against the floor",
        2.2,
        1.6,
        against((BEST, writes("in-process", 1)), ("floor", writes("in-process", 1)), p50),
        at_most=True,
    ),
    Target(
        "linearizable reads in-process, 256 callers, against etcd",
        15,
        40,
        against((BEST, "reads in-process 256"), ("etcd", "reads remote 256")),
    ),
    Target(
        "linearizable reads remote, one frame for each request, 256 callers, against etcd",
        5,
        10,
        against((BEST, "reads remote 256"), ("etcd", "reads remote 256")),
    ),
    Target("lease reads in-process, 256 callers", 200_000, 400_000, alone("lease reads in-process 256"), "/s"),
    Target(
        "failover, median, against etcd's",
        0.25,
        0.25,
        of_medians("failover", "quorate", "etcd"),
        at_most=True,
    ),
    Target("failover, median", None, 50, chapter("failover", "quorate", 1000), "ms", at_most=True),
    Target("failover, the longest", None, 150, longest_failover, "ms", at_most=True),
    Target("memory of an idle node", 45, 39, chapter("memory", "idle node, asyncio", 1 / MEGABYTE), "MB", at_most=True),
    Target(
        "memory of the leader under 256 writers",
        None,
        90,
        in_units(alone(writes("in-process", 256), resident), 1 / MEGABYTE),
        "MB",
        at_most=True,
    ),
    Target(
        "memory of the leader under 256 writers, against etcd's",
        1,
        1,
        against((BEST, writes("in-process", 256)), ("etcd", writes("remote", 256)), resident),
        at_most=True,
    ),
    Target("growth of the leader's memory for each entry", 1, 0.1, growth, "B", at_most=True),
    groups_together("writes of 1,000 groups together, against one group", ""),
    groups_together("the same with 4 times the callers", ", 4 times the callers"),
    groups_together("the same with 16 times the callers", ", 16 times the callers"),
    Target("an idle group", 16, 8, chapter("groups", "bytes of an idle group", 1e-3), "kB", at_most=True),
    Target("elections nobody needed, full load", 0, 0, chapter("elections", "elections, full load"), "", at_most=True),
    Target(
        "elections nobody needed, full load on syncs of 50 ms",
        0,
        0,
        chapter("elections", "elections, full load on syncs of 50 ms"),
        "",
        at_most=True,
    ),
    Target("import quorate", 150, 100, chapter("start", "import quorate", 1000), "ms", at_most=True),
    Target(
        "three nodes from nothing to their first write",
        1.5,
        0.7,
        chapter("start", "cluster, asyncio"),
        "s",
        at_most=True,
    ),
    Target("restart with a log of a million entries", 5, 2, chapter("restart", "to the next write"), "s", at_most=True),
)
