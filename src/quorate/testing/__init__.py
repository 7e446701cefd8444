"""Tools for testing, shipped: the simulator, for your own machine too.

::

    from quorate.testing import simulate

    def draw(random):                       # one call of a client
        if random.random() < 0.3:
            return (Counter.total,)
        return (Counter.add, random.randrange(10))

    def test_counter_in_a_bad_world():
        simulate(Counter, draw, seeds=range(20))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from quorate.machine import StateMachine
from quorate.testing.simulation import Report, Simulation
from quorate.testing.workload import Call, DrawnCalls, KVWorkload, Workload

__all__ = ["Call", "DrawnCalls", "KVWorkload", "Report", "Simulation", "SimulationFailure", "Workload", "simulate"]


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
    machine: type[StateMachine], draw: Callable[[Random], tuple[Any, ...]], *, seeds: Iterable[int] = range(10)
) -> list[Report]:
    """Run groups of a machine through crashes, partitions and a bad network, on virtual time.

    Every seed is a run of its own, and the same each time: some hundred calls of some clients, about ten virtual
    seconds, a third of a real one. All that Raft promises is checked after each step; that all peers' machines are
    equal wherever they have applied as much; and that no handler raises anything but ``Rejected``.

    Args:
        machine: the class of the machine.
        draw: draws one call of a client: a method of the machine (or a ``Command`` or ``Query``) and its arguments.
            Only the ``Random`` that it is given may decide, or the run cannot be repeated.
        seeds: which runs.

    Returns:
        The report of each.

    Raises:
        SimulationFailure: something was violated.
    """
    reports: list[Report] = []
    for seed in seeds:
        report = Simulation(seed, DrawnCalls(machine, draw)).run()
        if report.failure is not None:
            raise SimulationFailure(report)
        reports.append(report)
    return reports
