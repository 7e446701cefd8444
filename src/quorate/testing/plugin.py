"""The pytest plugin: the fixture ``quorate_cluster``, which runs a machine of yours in the simulator.

pytest loads it in every run where quorate is installed, so it imports nothing but pytest until a test asks for the
fixture. The fixture is a plain one, and starts no event loop before it is called.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quorate.machine import StateMachine
    from quorate.testing.simulation import Report

    Draw = Callable[[Random], tuple[Any, ...]]

__tracebackhide__ = True  # what matters is the line of the test

SEEDS = 10
"""How many seeds a test runs unless it says otherwise."""
SHRINK_SECONDS = 30.0
"""How many seconds of a core a failing run is shrunk for unless somebody says otherwise."""
SECTIONS: pytest.StashKey[list[str]] = pytest.StashKey()
"""What is shown with a test's report."""


class SimulatedCluster:
    """What ``quorate_cluster`` is: call it with the class of a machine."""

    def __init__(self, item: pytest.Item) -> None:
        """Belong to a test, and do as the options of its run say."""
        option = item.config.option
        self._item = item
        self._seed: int | None = option.quorate_seed
        self._count: int | None = option.quorate_seeds
        self._script: str | None = option.quorate_script
        self._shrink_seconds: float = option.quorate_shrink

    def __call__(
        self,
        machine: type[StateMachine],
        draw: Draw | None = None,
        *,
        seeds: int = SEEDS,
    ) -> list[Report]:
        """Check that a machine is deterministic, then run groups of it on a bad network, with crashes and full disks.

        Args:
            machine: the class of the machine.
            draw: draws one call of a client, as for ``quorate.testing.simulate``; what ``random_calls(machine)`` gives
                when None.
            seeds: how many runs, unless ``--quorate-seeds`` or ``--quorate-seed`` says otherwise; none with
                ``--quorate-script``, which is run instead.

        Returns:
            The report of each run.

        Raises:
            BrokenContract: the machine is not deterministic, or breaks another rule of state machines.
            AssertionError: a run failed. Seed, trace, a short script, and how to repeat it stand in the test's report.
            RuntimeError: an event loop runs: the test is a coroutine.
        """
        if is_loop_running():
            raise RuntimeError("the simulation has an event loop of its own: call quorate_cluster in a plain def test")
        # Imported here: most runs of pytest never come to this.
        from quorate.testing.machine.drawing import random_calls  # noqa: PLC0415
        from quorate.testing.machine.guard import CALLS, check_determinism  # noqa: PLC0415

        draw = draw or random_calls(machine)
        if self._script is not None:
            self._replay(machine, draw, Path(self._script))
            return []
        if self._seed is not None:
            return [self._run(machine, draw, self._seed)]
        random = Random(0)
        checked = check_determinism(machine, [draw(random) for _ in range(CALLS)])
        if checked.note:
            self._show([checked.note])
        count = seeds if self._count is None else self._count
        return [self._run(machine, draw, seed) for seed in range(count)]

    def _run(self, machine: type[StateMachine], draw: Draw, seed: int) -> Report:
        """Run one seed.

        Raises:
            AssertionError: it failed.
        """
        from quorate.testing.simulation import Simulation  # noqa: PLC0415 - see above
        from quorate.testing.workload import DrawnCalls  # noqa: PLC0415

        is_repeated = self._seed is not None
        report = Simulation(seed, DrawnCalls(machine, draw), keep_trace=is_repeated).run()
        if report.failure is not None:
            repeat = f"pytest {shlex.quote(self._item.nodeid)} --quorate-seed {seed}"
            self._show([*report.trace, "", report.failure, f"repeat it, with its whole trace: {repeat}"])
            if self._shrink_seconds > 0:
                self._shrink(machine, draw, seed)
            raise AssertionError(f"{machine.__name__} fails with seed {seed}: {report.failure}")
        if is_repeated:
            self._show(report.trace)
        return report

    def _shrink(self, machine: type[StateMachine], draw: Draw, seed: int) -> None:
        """Make a short script of a run that failed, and show it."""
        from quorate.testing.shrinking.command import core_seconds, summary  # noqa: PLC0415 - see above
        from quorate.testing.shrinking.seeds import drawn_workload, shrunk_seed  # noqa: PLC0415

        seconds = self._shrink_seconds
        self._tell(f"quorate: {machine.__name__} fails with seed {seed}; shrinking it, {seconds:g} s of a core at most")
        begun, budget = time.process_time(), core_seconds(seconds)
        shrunk = shrunk_seed(seed, budget, drawn_workload(machine, draw), machine)
        if shrunk is None:
            self._show([f"seed {seed} passes when it is run again: the draw is no matter of its Random alone"])
            return
        said = summary(shrunk, time.process_time() - begun)
        self._tell(f"quorate: {said}")
        path = self._kept(f"{machine.__name__}-{seed}.txt", shrunk.text)
        again = [] if path is None else [f"replay it: pytest {shlex.quote(self._item.nodeid)} --quorate-script {path}"]
        self._show([f"shrunk: {said}", *again, "", shrunk.text])

    def _replay(self, machine: type[StateMachine], draw: Draw, script: Path) -> None:
        """Run a script.

        Raises:
            AssertionError: it violates something.
        """
        from quorate.testing.shrinking.seeds import drawn_workload, replayed  # noqa: PLC0415 - see above

        text = script.read_text(encoding="utf-8")
        violated = replayed(text, script.name, drawn_workload(machine, draw), machine)
        if violated:
            self._show([text])
            raise AssertionError(f"{machine.__name__} fails with {script}: {violated}")

    def _kept(self, name: str, text: str) -> Path | None:
        """Keep a script in pytest's cache; give where, or None if there is no cache."""
        cache: pytest.Cache | None = getattr(self._item.config, "cache", None)
        if cache is None:
            return None
        path = cache.mkdir("quorate") / name
        path.write_text(text, encoding="utf-8")
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    def _tell(self, line: str) -> None:
        """Say on the terminal what takes its time, past what pytest captures."""
        plugins = self._item.config.pluginmanager
        terminal, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
        if terminal is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                terminal.write_line(f"\n{line}")

    def _show(self, lines: Sequence[str]) -> None:
        """Add to what is shown with the test's report."""
        self._item.stash.setdefault(SECTIONS, []).append("\n".join(lines))


def is_loop_running() -> bool:
    """Tell whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the simulator."""
    group = parser.getgroup("quorate", "quorate: simulated clusters")
    group.addoption("--quorate-seed", type=int, metavar="N", help="run quorate_cluster with this seed alone")
    group.addoption("--quorate-seeds", type=int, metavar="N", help=f"run quorate_cluster with N seeds ({SEEDS})")
    group.addoption(
        "--quorate-shrink",
        type=float,
        metavar="SECONDS",
        default=SHRINK_SECONDS,
        help=f"make a short script of a run that fails, for so many seconds at most; 0 for none ({SHRINK_SECONDS:.0f})",
    )
    group.addoption("--quorate-script", metavar="FILE", help="run this script, which a run that failed left, alone")


@pytest.fixture
def quorate_cluster(request: pytest.FixtureRequest) -> SimulatedCluster:
    """Give what runs a state machine in a simulated cluster, ``SimulatedCluster``: call it with the machine's class."""
    return SimulatedCluster(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the simulator has to say with the report of the test."""
    report = yield
    if report.when == "call":
        report.sections += [("quorate", text) for text in item.stash.get(SECTIONS, [])]
    return report
