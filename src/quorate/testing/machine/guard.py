"""The determinism guard: a machine is given the same calls in several processes, and must come to the same in all.

The processes hash text differently, live in different time zones, and read their own clocks; in all but the first
another machine of the class has run before. What differs is named: the call, the attribute, and the line of the method
that is to blame, as far as it can be told. In each of them the machine is also held against ``contract``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec

from quorate.calling import MachineType, describe
from quorate.machine import StateMachine
from quorate.testing.machine.contract import BrokenContract, EncodedCall, Step, check_copies, compare, encode, run_alone
from quorate.testing.machine.drawing import random_calls

__tracebackhide__ = True  # pytest: what matters is the line of the test

CALLS = 100
"""How many calls are drawn if none are given."""
SECONDS_MAX = 60.0
"""How long a process may take."""

SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "UTC0"},
    {"PYTHONHASHSEED": "2", "TZ": "XYZ-9:30"},
    {"PYTHONHASHSEED": "3", "TZ": "XYZ+5"},
)
"""In what the processes differ."""
BESIDE = "in another process, where another machine had run before"
"""What is said of where something differed."""
PROGRAM = "__quorate_main__"
"""The name under which those processes import the program that runs, so that it sees that it is not to run."""
IN_REPLAY = "QUORATE_REPLAY"
"""The environment variable that is set in those processes."""


class Order(msgspec.Struct, frozen=True):
    """What a process is to do.

    Attributes:
        module: the name of the module that defines the machine.
        file: its file, if it has one.
        name: the qualified name of the class in it.
        calls: what to run.
        is_first: whether the class is to be fresh; else another machine is given the calls backwards before.
    """

    module: str
    file: str | None
    name: str
    calls: Sequence[EncodedCall]
    is_first: bool


class Account(msgspec.Struct, frozen=True):
    """What a process came to.

    Attributes:
        steps: what each call came to, up to the first that broke the contract.
        broken: how the contract was broken, or None.
        missing: why the class could not be imported, or None.
    """

    steps: Sequence[Step] = ()
    broken: str | None = None
    missing: str | None = None


class Checked(msgspec.Struct, frozen=True):
    """What was checked, and found to be well.

    Attributes:
        calls: how many calls were run.
        processes: in how many processes: 3, or 1 if those could not import the class.
        note: why it was one, and what that leaves open; else empty.
    """

    calls: int
    processes: int
    note: str


def check_determinism(machine: type[StateMachine], calls: Iterable[tuple[Any, ...]] | None = None) -> Checked:
    """Check that a machine comes to the same in every process, and keeps the rest of its contract.

    ::

        def test_seats_are_deterministic() -> None:
            check_determinism(Seats)

    It takes about half a second: three interpreters import the module of the class, be it the program that runs, but
    not what stands there under ``if __name__ == "__main__"``. A class that they cannot import, such as one defined in a
    function, is checked in this process alone, where the order of a set is always the same; the result says so.

    Args:
        machine: the class of the machine.
        calls: what to run, each a method (or a ``Command`` or ``Query``) and its arguments; ``CALLS`` drawn from the
            annotations when None.

    Raises:
        BrokenContract: something differs, or is done that no state machine may do; the message says which call shows
            it, and where to look.
        TypeError: a call does not fit the machine, or no values are known for a parameter.
        RuntimeError: this is one of the processes that such a check has started: they only import.
    """
    if IN_REPLAY in os.environ:
        raise RuntimeError("the module runs check_determinism when it is imported: put the call into a function")
    if calls is None:
        draw, random = random_calls(machine), Random(0)
        calls = [draw(random) for _ in range(CALLS)]
    machine_type = describe(machine)
    encoded = [encode(machine_type, *call) for call in calls]
    accounts = run_processes(machine, encoded)
    missing = next((account.missing for account in accounts if account.missing is not None), None)
    if missing is None:
        compare_accounts(machine_type, encoded, accounts)
        return Checked(len(encoded), len(accounts), "")
    check_copies(machine_type, encoded, run_alone(machine_type, encoded, []))
    note = f"{missing}, so {machine.__name__} was checked in one process: the order of a set was not tried"
    return Checked(len(encoded), 1, note)


def compare_accounts(machine_type: MachineType, calls: Sequence[EncodedCall], accounts: Sequence[Account]) -> None:
    """Check that all processes came to the same, and that none saw the contract broken.

    Raises:
        BrokenContract: they did not.
    """
    first, *others = accounts
    for other in others:
        for number, (call, step, twin) in enumerate(zip(calls, first.steps, other.steps, strict=False), 1):
            compare(machine_type, call, number, step, twin, BESIDE, "the machine is not deterministic")
    for account in accounts:
        if account.broken is not None:
            raise BrokenContract(account.broken)


def run_processes(machine: type[StateMachine], calls: Sequence[EncodedCall]) -> list[Account]:
    """Run the calls in processes of their own, at the same time.

    Raises:
        BrokenContract: one does not come to its end.
    """
    file = getattr(sys.modules.get(machine.__module__), "__file__", None)
    is_program = machine.__module__ == "__main__"
    if (is_program and file is None) or "<locals>" in machine.__qualname__:
        return [Account(missing=f"{machine.__qualname__} is defined where other processes cannot import it")]
    module = PROGRAM if is_program else machine.__module__
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, surroundings in enumerate(SURROUNDINGS):
            process = start_process(surroundings)
            started.append(process)
            order = Order(module, file, machine.__qualname__, calls, is_first=number == 0)
            assert process.stdin is not None
            process.stdin.write(msgspec.msgpack.encode(order))  # it answers only when it has read all
            process.stdin.close()
            process.stdin = None
        return [account_of(process) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def start_process(surroundings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that finds the same modules as this one."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-B", "-P", "-m", "quorate.testing.machine.replay_process"],
        env=os.environ | surroundings | {"PYTHONPATH": path, IN_REPLAY: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def account_of(process: subprocess.Popen[bytes]) -> Account:
    """Wait until a process has ended, and give what it came to.

    Raises:
        BrokenContract: it hangs, or was ended by something else.
    """
    try:
        said, complaint = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise BrokenContract(f"the calls were not done after {SECONDS_MAX:g} seconds") from None
    if process.returncode != 0:
        why = complaint.decode(errors="replace")
        raise BrokenContract(f"the process that ran the calls ended with status {process.returncode}:\n{why}")
    return msgspec.msgpack.decode(said, type=Account)
