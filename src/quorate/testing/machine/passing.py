"""Time that passes for a plain machine: its timers run, as they would in a group where nothing else happens."""

from __future__ import annotations

from quorate.calling import describe
from quorate.context import Context
from quorate.firing import fire_due
from quorate.machine import StateMachine


def advance(machine: StateMachine, seconds: float) -> None:
    """Let time pass for a machine outside of any group, and run the timers that are due meanwhile.

    ::

        def test_a_lease_ends():
            locks = Locks()
            locks.take("door", "ann", 10.0)
            advance(locks, 10.0)
            assert locks.holder("door") is None

    Each runs at the instant at which it is due, as in a group whose leader finds nothing else to write. A plain machine
    begins at the time 0.0.

    Args:
        machine: the machine.
        seconds: how much later it is afterwards; 0.0 or more.

    Raises:
        ValueError: the time would go back.
        Exception: what a timer's write raised, unless it is ``Rejected``.
    """
    if not seconds >= 0:
        raise ValueError(f"time does not go back: {seconds}")
    machine_type, end = describe(type(machine)), machine.context.now + seconds
    while (due := machine.effects.timers.first) <= end:
        for error in fire_due(machine_type, machine, due, machine.context.index):
            raise error.__cause__ or error
    machine.context = Context(end, machine.context.index)
