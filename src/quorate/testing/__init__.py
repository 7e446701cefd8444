"""Tools for testing, shipped: the simulator, for your own machine too, and checks of what every machine must keep to.

::

    from quorate.testing import check_determinism, simulate

    def test_seats_are_deterministic():
        check_determinism(Seats)

    def test_seats_in_a_bad_world():
        simulate(Seats, seeds=range(20))

With pytest there is a fixture for both, ``quorate_cluster``. For Hypothesis see ``quorate.testing.strategies``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any

from quorate.machine import StateMachine

if TYPE_CHECKING:
    from quorate.testing.machine.contract import BrokenContract, check_contract
    from quorate.testing.machine.drawing import random_calls
    from quorate.testing.machine.guard import Checked, check_determinism
    from quorate.testing.machine.passing import advance
    from quorate.testing.simulation import Report, Simulation
    from quorate.testing.workload import Call, DrawnCalls, KVWorkload, Workload

__all__ = [
    "BrokenContract",
    "Call",
    "Checked",
    "DrawnCalls",
    "KVWorkload",
    "Report",
    "Simulation",
    "SimulationFailure",
    "Workload",
    "advance",
    "check_contract",
    "check_determinism",
    "random_calls",
    "simulate",
]

_MODULES = {
    "machine.contract": ("BrokenContract", "check_contract"),
    "machine.guard": ("Checked", "check_determinism"),
    "machine.drawing": ("random_calls",),
    "machine.passing": ("advance",),
    "simulation": ("Report", "Simulation"),
    "workload": ("Call", "DrawnCalls", "KVWorkload", "Workload"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what is asked for: pytest loads the plugin of this package in every run, and it must cost nothing.

    Raises:
        AttributeError: there is no such name.
    """
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"quorate.testing.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SimulationFailure(AssertionError):
    """A seed failed; the message says what was violated, and ends with the last lines of the trace.

    Attributes:
        report: the report of that seed.
    """

    def __init__(self, report: Report) -> None:
        """Keep the report."""
        self.report = report
        trace = "\n".join(report.trace)
        super().__init__(f"seed {report.seed}: {report.failure}\n{trace}")


def simulate(
    machine: type[StateMachine],
    draw: Callable[[Random], tuple[Any, ...]] | None = None,
    *,
    seeds: Iterable[int] = range(10),
) -> list[Report]:
    """Run groups of a machine through crashes, partitions and a bad network, on virtual time.

    Every seed is a run of its own, and the same each time: some ten to some hundred calls of some clients, in a few
    virtual seconds or in an hour, which take a tenth of a real second or two. All that Raft promises is checked after
    each step; that all peers' machines are equal wherever they have applied as much; and that no handler raises
    anything but ``Rejected``.

    Args:
        machine: the class of the machine.
        draw: draws one call of a client: a method of the machine (or a ``Command`` or ``Query``) and its arguments.
            Only the ``Random`` that it is given may decide, or the run cannot be repeated. When None they are drawn
            from the annotations of the machine's methods, as ``random_calls`` does.
        seeds: which runs.

    Returns:
        The report of each.

    Raises:
        SimulationFailure: something was violated.
        TypeError: no values are known for a parameter; the message says what to give.
    """
    from quorate.testing.machine.drawing import random_calls  # noqa: PLC0415 - see __getattr__
    from quorate.testing.simulation import Simulation  # noqa: PLC0415
    from quorate.testing.workload import DrawnCalls  # noqa: PLC0415

    calls = DrawnCalls(machine, draw or random_calls(machine))
    reports: list[Report] = []
    for seed in seeds:
        report = Simulation(seed, calls).run()
        if report.failure is not None:
            raise SimulationFailure(report)
        reports.append(report)
    return reports
