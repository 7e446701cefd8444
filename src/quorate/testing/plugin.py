"""The pytest plugin: the fixture ``quorate_cluster``, which runs a machine of yours in the simulator.

pytest loads it in every run where quorate is installed, so it imports nothing but pytest until a test asks for the
fixture. The fixture is a plain one, and starts no event loop before it is called.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quorate.machine import StateMachine
    from quorate.testing.simulation import Report

__tracebackhide__ = True  # what matters is the line of the test

SEEDS = 10
"""How many seeds a test runs unless it says otherwise."""
SECTIONS: pytest.StashKey[list[str]] = pytest.StashKey()
"""What is shown with a test's report."""


class SimulatedCluster:
    """What ``quorate_cluster`` is: call it with the class of a machine."""

    def __init__(self, item: pytest.Item, seed: int | None, count: int | None) -> None:
        """Belong to a test.

        Args:
            item: the test.
            seed: the seed that is to be repeated, or None.
            count: how many seeds every test is to run, or None.
        """
        self._item = item
        self._seed = seed
        self._count = count

    def __call__(
        self,
        machine: type[StateMachine],
        draw: Callable[[Random], tuple[Any, ...]] | None = None,
        *,
        seeds: int = SEEDS,
    ) -> list[Report]:
        """Check that a machine is deterministic, then run groups of it on a bad network, with crashes and full disks.

        Args:
            machine: the class of the machine.
            draw: draws one call of a client, as for ``quorate.testing.simulate``; what ``random_calls(machine)`` gives
                when None.
            seeds: how many runs, unless ``--quorate-seeds`` or ``--quorate-seed`` says otherwise.

        Returns:
            The report of each run.

        Raises:
            BrokenContract: the machine is not deterministic, or breaks another rule of state machines.
            AssertionError: a run failed. Seed, trace, and how to repeat it stand in the test's report.
            RuntimeError: an event loop runs: the test is a coroutine.
        """
        if is_loop_running():
            raise RuntimeError("the simulation has an event loop of its own: call quorate_cluster in a plain def test")
        # Imported here: most runs of pytest never come to this.
        from quorate.testing.machine.drawing import random_calls  # noqa: PLC0415
        from quorate.testing.machine.guard import CALLS, check_determinism  # noqa: PLC0415

        draw = draw or random_calls(machine)
        if self._seed is not None:
            return [self._run(machine, draw, self._seed)]
        random = Random(0)
        checked = check_determinism(machine, [draw(random) for _ in range(CALLS)])
        if checked.note:
            self._show([checked.note])
        count = seeds if self._count is None else self._count
        return [self._run(machine, draw, seed) for seed in range(count)]

    def _run(self, machine: type[StateMachine], draw: Callable[[Random], tuple[Any, ...]], seed: int) -> Report:
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
            raise AssertionError(f"{machine.__name__} fails with seed {seed}: {report.failure}")
        if is_repeated:
            self._show(report.trace)
        return report

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


@pytest.fixture
def quorate_cluster(request: pytest.FixtureRequest) -> SimulatedCluster:
    """Give what runs a state machine in a simulated cluster, ``SimulatedCluster``: call it with the machine's class."""
    option = request.config.option
    return SimulatedCluster(request.node, option.quorate_seed, option.quorate_seeds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the simulator has to say with the report of the test."""
    report = yield
    if report.when == "call":
        report.sections += [("quorate", text) for text in item.stash.get(SECTIONS, [])]
    return report
