"""The harness's arithmetic: quantiles, ratios within rounds, verdicts, and the page made of them."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import msgspec
import pytest

from benchmarks import page, plots
from benchmarks.chapters import MANY_CALLERS
from benchmarks.comparing import all_systems, cases_of
from benchmarks.loops import Outcome, closed_loops, outcome, quantile
from benchmarks.results import Comparison, Plan, Results, Spread, over_rounds, p50, ratio, spread
from benchmarks.systems import Measurement
from benchmarks.targets import BEST, TARGETS, Target, growth


def measured(rate: float, p50: float = 0.001) -> Measurement:
    return Measurement(Outcome(int(rate), int(rate) + 10, 1.0, p50, 2 * p50, 3 * p50), 0.5, 0.1, 10_000_000)


def comparison(rounds: int = 2) -> Comparison:
    """Give rounds in which the machine gets slower, and quorate stays nine times as fast as etcd."""
    found = [
        {
            BEST: {"writes in-process 256": measured(9000 / (n + 1)), "writes in-process 1": measured(90, 0.01)},
            "etcd": {"writes remote 256": measured(1000 / (n + 1)), "writes remote 1": measured(10, 0.04)},
        }
        for n in range(rounds)
    ]
    return Comparison(
        {BEST: "quorate", "etcd": "etcd: it"}, {"X": "not here"}, ["Y broke"], found, Plan(rounds, 2.0, 0.5, (1, 256))
    )


def test_quantiles_are_values_that_were_seen() -> None:
    ordered = [float(n) for n in range(1, 1001)]
    assert [quantile(ordered, share) for share in (0.5, 0.99, 0.999)] == [501.0, 991.0, 1000.0]
    assert quantile([7.0], 0.999) == 7.0


def test_an_outcome_sorts_what_it_sums_up() -> None:
    found = outcome([3.0, 1.0, 2.0], 5, 2.0)
    assert (found.count, found.total, found.p50, found.p999, found.per_second) == (3, 5, 2.0, 3.0, 1.5)
    with pytest.raises(RuntimeError, match="no call"):
        outcome([], 5, 2.0)


async def test_calls_count_when_they_end_in_the_time_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls: list[int] = []

    async def call(number: int) -> None:
        nonlocal now
        await asyncio.sleep(0)
        now += 0.25
        calls.append(number)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    # Of calls of 0.25 s, one began in the warm-up and counts; the last one ends too late.
    found = await closed_loops(lambda number: partial(call, number), 1, 0.5, 0.125)
    assert (found.count, found.total, found.p50) == (2, 3, 0.25)
    calls.clear()
    now = 0.0
    found = await closed_loops(lambda number: partial(call, number), 3, 1.0, 0.0)
    assert found.total == len(calls)
    assert set(calls) == {0, 1, 2}


def test_ratios_are_taken_within_each_round() -> None:
    rounds = comparison().rounds
    one, other = (BEST, "writes in-process 256"), ("etcd", "writes remote 256")
    assert ratio(rounds, one, other) == Spread(9.0, 9.0, 9.0, 2)
    assert over_rounds(rounds, *one) == Spread(6750.0, 4500.0, 9000.0, 2)
    assert ratio(rounds, one, ("etcd", "unknown")) is None
    assert spread([]) is None


@pytest.mark.parametrize(
    ("at_most", "median", "verdict"),
    [
        (False, 7.9, "**not met**"),
        (False, 8.0, "met"),
        (False, 15.0, "reached"),
        (True, 15.1, "**not met**"),
        (True, 15.0, "met"),
        (True, 8.0, "reached"),
    ],
)
def test_a_verdict_says_what_the_median_has_reached(at_most: bool, median: float, verdict: str) -> None:
    must, reach = (15.0, 8.0) if at_most else (8.0, 15.0)
    target = Target("", must, reach, lambda _: None, at_most=at_most)
    assert target.verdict(Spread(median, 0.0, 100.0, 5)) == verdict
    assert target.verdict(None) == "not measured"


def test_targets_name_cases_that_are_measured() -> None:
    """A misspelt name would read "not measured" for ever: with all results there is a figure for each target."""
    plan = Plan(1, 1.0, 0.0, (1, 16, 64, 256, 1024))
    every = {system.name: {str(case): measured(10) for case in cases_of(system, plan)} for system in all_systems()}
    figures = {
        "failover": ["quorate", "etcd"],
        "memory": ["idle node, asyncio", "growth entries", "growth"],
        "groups": [
            *(f"writes/s, {which}{more}" for which in ("one group", "all groups") for more in MANY_CALLERS),
            "bytes of an idle group",
        ],
        "elections": ["elections, full load", "elections, full load on syncs of 50 ms"],
        "start": ["import quorate", "cluster, asyncio"],
        "restart": ["to the next write"],
    }
    chapters = {name: {what: [1.0, 2.0, 3.0, 4.0] for what in found} for name, found in figures.items()}
    results = Results({}, Comparison(dict.fromkeys(every, ""), {}, [], [every], plan), chapters)
    assert [target.text for target in TARGETS if target.measured(results) is None] == []
    results.trials = set(chapters)
    tried = [target for target in TARGETS if target.measured(results) is None]
    assert len(tried) == 14, "what was measured with smaller sizes reaches nothing"


@pytest.mark.parametrize(("sizes", "grows"), [([5.0, 9.0, 10.0, 12.0], 0.2), ([0.0, 9.0, 30.0, 7.0, 9.0, 7.0], 0.0)])
def test_memory_grows_as_it_does_once_it_has_warmed_up(sizes: list[float], grows: float) -> None:
    chapters = {"memory": {"growth entries": [10.0 * len(sizes)], "growth": sizes}}
    found = growth(Results({}, None, chapters))
    assert found is not None
    assert found.median == pytest.approx(grows)


def test_the_page_shows_every_figure_and_how_each_plot_was_made(tmp_path: Path) -> None:
    results = Results(
        {"disk": "a disk"}, comparison(), {"start": {"x": [0.5]}}, {"comparison": "THIS", "start": "THAT"}
    )
    text = page.write(results, tmp_path)
    assert "| 9 × [9–9] | met |" in text
    assert "X: not here" in text
    assert "Failed: Y broke" in text
    assert text.count("`THIS`") == text.count(".svg)") == len(list((tmp_path / "performance").glob("*.svg")))
    assert "`THAT`" in text
    for plot in (tmp_path / "performance").glob("*.svg"):
        assert ET.parse(plot).getroot().tag.endswith("svg")


def test_a_trial_run_says_so(tmp_path: Path) -> None:
    whole = Results(comparison=comparison(5), commands={"comparison": "c"})
    assert "trial run" not in page.write(whole, tmp_path)
    for trial in (
        Results(comparison=comparison(4), commands={"comparison": "c"}),
        Results(comparison=comparison(5), commands={"comparison": "c"}, trials={"restart"}),
    ):
        assert "trial run" in page.write(trial, tmp_path)


def test_results_come_back_as_they_were_written() -> None:
    results = Results({"a": "b"}, comparison(), {"start": {"x": [0.5]}}, {"start": "THAT"}, {"start"})
    assert msgspec.json.decode(msgspec.json.encode(results), type=Results) == results


def test_a_plot_keeps_its_points_within_its_frame() -> None:
    points = [(1, Spread(2.0, 1.0, 30.0, 3)), (1024, Spread(5000.0, 4000.0, 90000.0, 3))]
    root = ET.fromstring(plots.lines("a & b", "y", {"<one>": points}))
    circles = [node for node in root if node.tag.endswith("circle")]
    assert len(circles) == 2
    assert all(plots.LEFT < float(node.attrib["cx"]) < plots.WIDTH - plots.RIGHT for node in circles)
    assert all(plots.TOP <= float(node.attrib["cy"]) <= plots.HEIGHT - plots.BOTTOM for node in circles)
    assert float(circles[0].attrib["cy"]) > float(circles[1].attrib["cy"])
    assert p50(measured(1, 0.25)) == 0.25
