"""The pytest plugin, as somebody meets it who has quorate installed: in runs of pytest of their own."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

SEATS = """
from quorate import Rejected, StateMachine, read, write


class Seats(StateMachine):
    taken: dict[int, str]

    def __init__(self) -> None:
        self.taken = {}

    @write
    def take(self, seat: int, guest: str) -> None:
        if seat in self.taken:
            raise Rejected("taken", seat)
        self.taken[seat] = guest

    @write
    def leave(self, seat: int) -> bool:
        return self.taken.pop(seat, None) is not None

    @read
    def guest(self, seat: int) -> str | None:
        return self.taken.get(seat)


def test_seats(quorate_cluster):
    reports = quorate_cluster(Seats, seeds=2)
    print(f"{len(reports)} seeds")
"""

# Deterministic; only a run of some length shows that it raises what it must not.
FAILING = """
from quorate import StateMachine, write


class Till(StateMachine):
    total: int = 0

    @write
    def add(self, amount: int) -> int:
        self.total += abs(amount)
        if self.total > 20:
            raise ValueError("full")
        return self.total


def test_till(quorate_cluster):
    quorate_cluster(Till, lambda random: (Till.add, random.randrange(1, 3)), seeds=3)
"""

SETS = """
from quorate import StateMachine, write


class Queue(StateMachine):
    waiting: set[str]

    def __init__(self) -> None:
        self.waiting = set()

    @write
    def swap(self, guest: str) -> str | None:
        chosen = self.waiting.pop() if len(self.waiting) > 2 else None
        self.waiting.add(guest)
        return chosen


def test_queue(quorate_cluster):
    quorate_cluster(Queue)
"""


@pytest.fixture(autouse=True)
def strict(pytester: pytest.Pytester) -> None:
    """Let warnings be errors in the runs."""
    pytester.makeini("""
        [pytest]
        filterwarnings = error
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
    """)


def trace_of(output: str) -> list[str]:
    """Give the lines of the trace that a report shows."""
    return re.findall(r"^ *\d+\.\d{4} .*$", output, re.MULTILINE)


def test_a_correct_machine_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SEATS)
    done = pytester.runpytest_inprocess("-rP")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["2 seeds"])


def test_the_number_of_seeds_is_an_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SEATS)
    done = pytester.runpytest_inprocess("-rP", "--quorate-seeds", "1")
    done.stdout.fnmatch_lines(["1 seeds"])


def test_a_seed_that_passes_shows_its_trace_when_it_is_repeated(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SEATS)
    done = pytester.runpytest_inprocess("-rP", "--quorate-seed", "3")
    done.assert_outcomes(passed=1)
    assert trace_of(done.stdout.str())[0].startswith("   0.0000 ")  # from the beginning
    assert len(trace_of(done.stdout.str())) > 40


def test_a_failure_shows_seed_and_trace_and_the_command_that_repeats_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    done = pytester.runpytest_inprocess("--quorate-shrink", "0")
    assert "shrunk" not in done.stdout.str()
    done.assert_outcomes(failed=1)
    output = done.stdout.str()
    failure = re.search(r"^E +AssertionError: Till fails with seed (\d+): (NothingFails: .*)$", output, re.MULTILINE)
    assert failure is not None, output
    seed, violation = failure.groups()
    assert violation in output.partition("- quorate -")[2]
    assert 10 < len(trace_of(output)) <= 40
    repeat = re.search(r"repeat it, with its whole trace: pytest (.*)$", output, re.MULTILINE)
    assert repeat is not None, output
    again = pytester.runpytest_inprocess(*shlex.split(repeat[1]), "--quorate-shrink", "0")
    again.assert_outcomes(failed=1)
    repeated = again.stdout.str()
    assert f"Till fails with seed {seed}: {violation}" in repeated
    assert trace_of(repeated)[-len(trace_of(output)) :] == trace_of(output)
    assert len(trace_of(repeated)) > len(trace_of(output))


def test_a_failure_is_shrunk_to_a_script_that_one_command_replays(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING.replace("> 20", "> 3"))
    done = pytester.runpytest_inprocess("--quorate-seed", "1", "--quorate-shrink", "20")
    output = done.stdout.str()
    shrunk = re.search(r"^shrunk: (\d+) events -> (\d+), ", output, re.MULTILINE)
    assert shrunk is not None, output
    assert int(shrunk[2]) <= 30
    assert "Till fails with seed 1; shrinking it, 20 s of a core at most" in output
    replay = re.search(r"^replay it: pytest (.*)$", output, re.MULTILINE)
    assert replay is not None, output
    again = pytester.runpytest_inprocess(*shlex.split(replay[1]))
    again.assert_outcomes(failed=1)
    again.stdout.re_match_lines([r"E +AssertionError: Till fails with .*Till-1.txt: NothingFails: .*"])
    pytester.makepyfile(FAILING.replace("> 20", "> 10**9"))
    pytester.runpytest_inprocess(*shlex.split(replay[1])).assert_outcomes(passed=1)


def test_a_machine_that_is_not_deterministic_is_told_the_line(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(SETS)
    done = pytester.runpytest_inprocess("--quorate-seeds", "0")
    done.assert_outcomes(failed=1)
    line = 1 + next(n for n, text in enumerate(path.read_text("utf-8").splitlines()) if ".pop()" in text)
    done.stdout.fnmatch_lines(
        ["E *BrokenContract: command *, Queue.swap(*", f"E *Queue.swap walks a set at {path.name}:{line}: *"]
    )
    assert "contract.py" not in done.stdout.str()  # what is shown is the test


def test_parameters_without_values_are_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import msgspec
        from quorate import StateMachine, write

        class Raw(StateMachine):
            @write
            def put(self, raw: msgspec.Raw) -> None:
                pass

        def test_raw(quorate_cluster):
            quorate_cluster(Raw)
    """)
    done = pytester.runpytest_inprocess()
    done.stdout.fnmatch_lines(["*Raw.put: raw: no values are known for Raw; give some, such as raw=*"])


def test_an_object_where_its_class_belongs_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from quorate.machines import KV

        def test_kv(quorate_cluster):
            quorate_cluster(KV())
    """)
    done = pytester.runpytest_inprocess()
    done.stdout.fnmatch_lines(["*TypeError: *is no state machine: give the class itself, *"])


def test_it_gets_along_with_asynchronous_tests(pytester: pytest.Pytester) -> None:
    has_anyio = importlib.util.find_spec("anyio") is not None
    pytester.makepyfile(
        SEATS
        + """
import asyncio
import pytest


async def test_with_asyncio():
    await asyncio.sleep(0)


@pytest.mark.skipif(not HAS_ANYIO, reason="anyio is not installed")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
def test_with_anyio(anyio_backend, quorate_cluster):
    quorate_cluster(Seats, seeds=1)


async def test_called_from_a_coroutine(quorate_cluster):
    with pytest.raises(RuntimeError, match="call quorate_cluster in a plain def test"):
        quorate_cluster(Seats)


async def test_with_asyncio_again():
    await asyncio.sleep(0)
""".replace("HAS_ANYIO", str(has_anyio))
    )
    arguments = [] if has_anyio else ["-W", "ignore::pytest.PytestUnknownMarkWarning"]
    done = pytester.runpytest_inprocess(*arguments)
    done.assert_outcomes(passed=4 + has_anyio, skipped=1 - has_anyio)


def test_runs_that_have_nothing_to_do_with_it_do_not_load_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_something_else(pytestconfig):
            assert pytestconfig.pluginmanager.get_plugin("quorate").__name__ == "quorate.testing.plugin"
            names = ["quorate.testing.simulation", "quorate.testing.machine.guard", "hypothesis"]
            assert [name for name in names if name in sys.modules] == []
    """)
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(passed=1)


def test_importing_the_plugin_imports_no_simulator() -> None:
    program = """
import sys
import pytest
import quorate
core = set(sys.modules)
import quorate.testing.plugin
print(sorted(set(sys.modules) - core))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["quorate.testing", "quorate.testing.plugin"])
