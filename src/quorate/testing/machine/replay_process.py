"""The process that the determinism guard starts: reads an ``Order``, runs its calls, writes an ``Account``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import msgspec

from quorate.calling import describe
from quorate.testing.machine.contract import BrokenContract, Step, check_copies, run_alone
from quorate.testing.machine.guard import Account, Order


def main() -> None:
    """Do what standard input says. What the machine prints goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    with answer:
        answer.write(msgspec.msgpack.encode(account(order)))


def account(order: Order) -> Account:
    """Run the calls of an order."""
    try:
        machine: Any = functools.reduce(getattr, order.name.split("."), imported(order))
    except Exception as error:
        return Account(missing=f"another process could not import {order.name}: {type(error).__name__}: {error}")
    steps: list[Step] = []
    try:
        machine_type = describe(machine)
        if not order.is_first:
            run_alone(machine_type, order.calls[::-1], [])
        run_alone(machine_type, order.calls, steps)
        check_copies(machine_type, order.calls, steps)
    except (BrokenContract, TypeError) as error:
        return Account(steps, broken=str(error))
    return Account(steps)


def imported(order: Order) -> ModuleType:
    """Import a module by its name, or from its file where that leads to none or to another one.

    Raises:
        ModuleNotFoundError: it has no file, and cannot be found by its name.
        ImportError: its file is no module.
    """
    try:
        module = importlib.import_module(order.module)
    except ModuleNotFoundError:
        if order.file is None:
            raise
    else:
        if order.file is None or module.__file__ == order.file:
            return module
    spec = importlib.util.spec_from_file_location(order.module, order.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{order.file} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[order.module] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
