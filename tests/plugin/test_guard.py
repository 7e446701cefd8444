"""The determinism guard: each planted fault is found, with its line, and correct machines pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples import job_queue
from quorate import StateMachine, machines, write
from quorate.testing import BrokenContract, check_contract, check_determinism, random_calls
from quorate.testing.machine import guard
from tests.plugin import machines as planted

LINES = Path(planted.__file__).read_text("utf-8").splitlines()

READING = {
    planted.WallClock: "reads the clock",
    planted.Monotonic: "reads the clock",
    planted.Today: "reads the clock",
    planted.Dice: "draws randomness",
    planted.OwnDice: "draws randomness",
    planted.Ticket: "draws randomness",
    planted.File: "reaches outside",
    planted.Network: "reaches outside",
    planted.Host: "reaches outside",
    planted.Aside: "starts a thread",
    planted.Later: "asks for the event loop",
    planted.Environment: "reads the environment",
}

DIFFERING = {
    planted.Queue: "Queue.first walks a set",
    planted.Bill: "Bill.pay walks a set",
    planted.Shelf: "Shelf.take takes a hash",
    planted.Address: "look at Address.take",
    planted.Stopwatch: "Stopwatch.take measures time",
    planted.Remembering: "look at Remembering.take",
}

BREAKING = {
    planted.Shared: "on another machine: two machines of one process share something",
    planted.Refusing: "after it had changed Refusing.taken",
    planted.Counting: "is a read, and changed Counting.reads: 0\n  to 1",
    planted.LiveRows: "has another LiveRows.rows",
    planted.HalfRows: "has another HalfRows.rows",
    planted.Table: "on a machine restored from a snapshot",
    planted.Stopping: "Stopping.take() raised OSError, which stops the peer",
}


def drawn(machine: type[StateMachine]) -> Sequence[tuple[Any, ...]]:
    draw, random = random_calls(machine), Random(0)
    return [draw(random) for _ in range(100)]


def fault_of(machine: type[StateMachine]) -> str:
    """Give the place of the line that is marked as the fault of a class."""
    begin = LINES.index(next(line for line in LINES if line.startswith(f"class {machine.__name__}(")))
    return f"machines.py:{1 + next(n for n in range(begin, len(LINES)) if LINES[n].endswith('# fault'))}"


@pytest.mark.parametrize("machine", READING, ids=lambda machine: machine.__name__)
def test_what_a_write_reads_outside_of_the_log_is_named(machine: type[StateMachine]) -> None:
    with pytest.raises(BrokenContract) as caught:
        check_contract(machine, drawn(machine))
    assert f"{machine.__name__}.take {READING[machine]} at {fault_of(machine)}: " in str(caught.value)


@pytest.mark.parametrize("machine", DIFFERING, ids=lambda machine: machine.__name__)
def test_what_differs_between_processes_is_found(machine: type[StateMachine]) -> None:
    with pytest.raises(BrokenContract, match="in another process") as caught:
        check_determinism(machine)
    assert re.match(rf"command \d+, {machine.__name__}\.\w+\(.*\), (gave|left another) ", str(caught.value))
    assert DIFFERING[machine] in str(caught.value)
    if not DIFFERING[machine].startswith("look at"):
        assert f"at {fault_of(machine)}: " in str(caught.value)


@pytest.mark.parametrize("machine", BREAKING, ids=lambda machine: machine.__name__)
def test_what_breaks_the_contract_in_one_process_is_found(machine: type[StateMachine]) -> None:
    with pytest.raises(BrokenContract) as caught:
        check_contract(machine, drawn(machine))
    assert BREAKING[machine] in str(caught.value)


def test_the_guard_finds_in_other_processes_what_shows_in_one() -> None:
    with pytest.raises(BrokenContract, match=r"Refusing\.take.* after it had changed Refusing\.taken"):
        check_determinism(planted.Refusing)


@pytest.mark.parametrize(
    "machine", [machines.KV, job_queue.JobQueue, planted.Kinds, planted.Waiting], ids=lambda machine: machine.__name__
)
def test_correct_machines_pass(machine: type[StateMachine]) -> None:
    checked = check_determinism(machine)
    assert (checked.calls, checked.processes, checked.note) == (100, 3, "")


@pytest.mark.parametrize("machine", [machines.Stack, machines.Echo], ids=lambda machine: machine.__name__)
def test_replies_and_arguments_may_be_part_of_the_state(machine: type[StateMachine]) -> None:
    """``Stack.all`` gives its own list: quorate copies replies, and decodes arguments for each peer."""
    check_contract(machine, drawn(machine))


def test_a_local_class_is_checked_in_this_process_and_the_result_says_so() -> None:
    class Local(planted.Seats):
        @write
        def take(self, seat: int) -> None:
            self.taken[seat] = "x"

    class LocalClock(planted.WallClock):
        pass

    checked = check_determinism(Local)
    assert checked.processes == 1
    assert "Local is defined where other processes cannot import it" in checked.note
    with pytest.raises(BrokenContract, match="reads the clock"):
        check_determinism(LocalClock)


def test_calls_may_be_given() -> None:
    assert check_determinism(machines.KV, [(machines.KV.set, "a", "b"), (machines.KV.get, "a")]).calls == 2
    with pytest.raises(TypeError, match=r"KV\.set"):
        check_determinism(machines.KV, [(machines.KV.set, "a", 7)])


def test_a_machine_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS_MAX", 0.0)
    with pytest.raises(BrokenContract, match="not done after 0 seconds"):
        check_determinism(machines.Echo)


def test_a_profile_function_comes_back() -> None:
    def profile(*_: object) -> None:
        pass

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        check_contract(machines.Echo, [(machines.Echo.say, "a")])
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(before)


PROGRAM = """
from quorate import StateMachine, write
from quorate.machines import Echo
from quorate.testing import check_determinism


class Free(StateMachine):
    seats: set[str]

    def __init__(self) -> None:
        self.seats = set()

    @write
    def swap(self, seat: str) -> str | None:
        out = self.seats.pop() if len(self.seats) > 3 else None
        self.seats.add(seat)
        return out


class Own(Echo):
    pass


"""


def run(program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "program.py"
    path.write_text(program, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(guard.__file__).parents[3])}
    return subprocess.run(
        [sys.executable, path], cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=50
    )


def test_the_program_that_runs_is_imported(tmp_path: Path) -> None:
    done = run(PROGRAM + 'if __name__ == "__main__":\n    check_determinism(Free)\n', tmp_path)
    assert "Free.swap walks a set at program.py:15" in done.stderr


def test_a_program_that_checks_when_it_is_imported_starts_no_others(tmp_path: Path) -> None:
    done = run(PROGRAM + "print(check_determinism(Own).note)\n", tmp_path)
    assert done.stdout.startswith("another process could not import Own: RuntimeError: the module runs"), done.stderr
