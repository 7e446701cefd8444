"""Running the timers of a machine that are due. Knows machines and their timers; does not know who moves the time."""

from __future__ import annotations

from collections.abc import Iterator

from quorate.calling import MachineType
from quorate.context import Context
from quorate.errors import MachineError, Rejected
from quorate.machine import StateMachine


def fire_due(machine_type: MachineType, machine: StateMachine, now: float, index: int) -> Iterator[MachineError]:
    """Run the writes of all timers that are due, the first one first.

    One that they set is due later than now, so this comes to an end. A timer is gone before its write is run: a bug in
    it is no crash loop.

    Args:
        machine_type: what the machine's class declares.
        machine: the machine.
        now: the time of the entry that comes next, which is what they see as now.
        index: the index of that entry.

    Yields:
        What a write raised that is no refusal: a bug in the machine.
    """
    effects = machine.effects
    effects.settle()
    while (due := effects.timers.pop(now)) is not None:
        timer, call = due
        machine.context = Context(now, index, timer)
        try:
            machine_type.run_write(machine, call)
        except Rejected:
            pass
        except MachineError as error:
            yield error
        effects.settle()
