"""Runs mutants: the tests are imported once, and each mutant has a fork of that process with one function changed.

So a mutant costs the tests that reach its lines, the cheapest first, up to the first that fails. A test that takes ten
times the processor time that it takes without the mutant has failed too. Knows processes and pytest; does not know what
the mutants are, nor what is made of the outcomes.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import msgspec
import pytest
from _pytest.runner import runtestprotocol

from .results import CORE, ROOT, Outcome
from .sources import Mutant

TESTS = ("tests/core", "tests/paper", "tests/scenarios")
"""The tests that judge."""
APART = (
    "tests/core/test_planted_faults.py",
    "tests/scenarios/test_planted_faults.py",
    "test_a_planted_fault_is_caught",
)
"""Tests that do not judge: they plant faults themselves, and tell whether others notice."""
REACH = ROOT / "build" / "score-reach.json"
"""Where it is kept which test reaches which lines."""
SECONDS_MIN, TIMES_MAX = 2.0, 10.0
"""A test may take so much processor time, and so many times what it takes without a mutant."""
MEMORY_MAX = 1 << 31
"""Bytes that a fork may hold: one that fills a list for ever ends soon."""
PATIENCE = 900
"""Seconds by the clock after which a fork that waits for something is ended."""


class Test(msgspec.Struct):
    """What is known of a test.

    Attributes:
        seconds: the processor time that it takes.
        lines: those that it reaches, by file.
    """

    seconds: float
    lines: dict[str, list[int]]


@dataclass
class Judge:
    """A pytest plugin in whose place of a run of all tests mutants are run.

    Attributes:
        plan: gives the mutants and, for each, the digests of the tests to run, in their order; it is told of all tests.
        tell: is given each outcome.
        jobs: how many mutants at once.
    """

    plan: Callable[[dict[str, Test]], Iterator[tuple[Mutant, Sequence[str]]]]
    tell: Callable[[Mutant, Outcome], None]
    jobs: int
    items: dict[str, pytest.Item] = field(default_factory=dict)
    tests: dict[str, Test] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def pytest_sessionstart(self) -> None:
        """Have Hypothesis look for one failure, and not for the smallest."""
        import hypothesis  # noqa: PLC0415 - pytest wants to be the first

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("score", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("score")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants."""
        for item in session.items:
            if not any(part in item.nodeid for part in APART):
                self.items[digest(item)] = item
        found = {function.__code__: function for function in gc.get_objects() if is_of_core(function)}
        codes = {(code.co_filename, code.co_qualname, code.co_firstlineno): found[code] for code in found}
        gc.freeze()  # so that no fork copies all for the collector's sake
        self.sources = {path.name: path.read_text("utf-8") for path in CORE.glob("*.py")}
        self.tests = self.measured()
        self.run_all(codes)
        return True

    def measured(self) -> dict[str, Test]:
        """Give what each test reaches and takes, measured anew where core or tests have changed."""
        texts = [text for _, text in sorted(self.sources.items())]
        key = hashlib.sha256("\0".join([*texts, *sorted(self.items)]).encode()).hexdigest()
        kept = msgspec.json.decode(REACH.read_bytes(), type=dict[str, dict[str, Test]]) if REACH.exists() else {}
        if key not in kept:
            print(f"measuring what {len(self.items)} tests reach", flush=True)
            if wait_for(fork(self.measure, key)) != 0 or wait_for(fork(self.measure_again, key)) != 0:
                REACH.unlink(missing_ok=True)
                raise SystemExit("the tests fail without any mutant")
            kept = msgspec.json.decode(REACH.read_bytes(), type=dict[str, dict[str, Test]])
        return kept[key]

    def measure(self, key: str) -> int:
        """Run every test; write down what it reaches. Gives 1 when one fails."""
        cover = coverage.Coverage(data_file=None, include=[f"{CORE}/*"], config_file=False)
        times = {}
        for name, item in self.items.items():
            begun = resource.getrusage(resource.RUSAGE_SELF)
            cover.start()
            cover.switch_context(name)
            is_passed = passes(item)
            cover.stop()
            ended = resource.getrusage(resource.RUSAGE_SELF)
            times[name] = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
            if not is_passed:
                print(f"{item.nodeid} fails", flush=True)
                return 1
        tests = {name: Test(times[name], {}) for name in self.items}
        for path in cover.get_data().measured_files():
            for line, names in cover.get_data().contexts_by_lineno(path).items():
                for name in filter(None, names):
                    tests[name].lines.setdefault(Path(path).name, []).append(line)
        REACH.write_bytes(msgspec.json.encode({key: tests}))
        return 0

    def measure_again(self, key: str) -> int:
        """Run every test in the order in which mutants meet them. Gives 1 when one fails."""
        self.tests = msgspec.json.decode(REACH.read_bytes(), type=dict[str, dict[str, Test]])[key]
        for name in self.cheapest_first():
            if not passes(self.items[name]):
                print(f"{self.items[name].nodeid} fails in another order", flush=True)
                return 1
        return 0

    def cheapest_first(self) -> list[str]:
        """Give all tests in the order in which mutants meet them."""
        return sorted(self.tests, key=lambda name: self.tests[name].seconds)

    def run_all(self, codes: dict[tuple[str, str, int], types.FunctionType]) -> None:
        """Run mutants, several at once, and tell their outcomes."""
        running: dict[int, tuple[Mutant, Sequence[str], int]] = {}
        for mutant, names in self.plan(self.tests):
            if len(running) >= self.jobs:
                self.end_one(running)
            if not names:
                self.tell(mutant, Outcome(mutant.key, ()))
                continue
            source, sink = os.pipe()
            pid = fork(self.run_one, mutant, names, sink, codes)
            os.close(sink)
            running[pid] = (mutant, names, source)
        while running:
            self.end_one(running)

    def end_one(self, running: dict[int, tuple[Mutant, Sequence[str], int]]) -> None:
        """Wait for one fork to end, and tell its outcome."""
        pid, status = os.wait()
        mutant, names, source = running.pop(pid)
        with os.fdopen(source, "rb") as file:
            begun = len(file.read())
        if status == 0:
            self.tell(mutant, Outcome(mutant.key, tuple(names)))
            return
        if begun == 0:
            raise SystemExit(f"{mutant.function.file}: {mutant.function.name} cannot be changed to\n{mutant.text}")
        name = names[begun - 1]
        by = self.items[name].nodeid
        self.tell(mutant, Outcome(mutant.key, (name,), by, is_late=os.WIFSIGNALED(status)))

    def run_one(
        self, mutant: Mutant, names: Sequence[str], sink: int, codes: dict[tuple[str, str, int], types.FunctionType]
    ) -> int:
        """Plant a mutant, and run its tests up to the first that fails: gives 1 if one does. A byte for each begun."""
        silence()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        signal.alarm(PATIENCE)
        plant(mutant, self.sources[mutant.function.file], codes)
        for name in names:
            os.write(sink, b".")
            signal.setitimer(signal.ITIMER_PROF, SECONDS_MIN + TIMES_MAX * self.tests[name].seconds)
            if not passes(self.items[name]):
                return 1
        return 0


def digest(item: pytest.Item) -> str:
    """Give what names a test by its text: what it calls is not asked."""
    text = inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
    path = item.callspec.params.get("path") if hasattr(item, "callspec") else None
    story = path.read_text("utf-8") if isinstance(path, Path) else ""
    return hashlib.sha256("\0".join([item.nodeid, text, story]).encode()).hexdigest()[:12]


def is_of_core(found: object) -> bool:
    """Tell whether an object is a function of the core."""
    return isinstance(found, types.FunctionType) and found.__code__.co_filename.startswith(str(CORE))


def plant(mutant: Mutant, source: str, functions: dict[tuple[str, str, int], types.FunctionType]) -> None:
    """Change a function to what the mutant says, wherever it has been imported to.

    Raises:
        LookupError: it is not there.
    """
    path = CORE / mutant.function.file
    where = [compile(mutant.source(source), str(path), "exec", dont_inherit=True)]
    while where:
        code = where.pop()
        key = (code.co_filename, code.co_qualname, code.co_firstlineno)
        if code.co_qualname == mutant.function.name and key in functions:
            functions[key].__code__ = code
            return
        where += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    raise LookupError(mutant.function.name)


def passes(item: pytest.Item) -> bool:
    """Run a test; tell whether it passes."""
    return all(report.passed for report in runtestprotocol(item, log=False, nextitem=None))


def fork(run: Callable[..., int], *arguments: object) -> int:
    """Run a function in a fork of this process, whose exit status it gives; give its id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = run(*arguments)
        finally:
            os._exit(status)
    return pid


def wait_for(pid: int) -> int:
    """Wait for a fork to end; give its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def silence() -> None:
    """Write nothing any more: what a mutant prints is of no interest."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def run(judge: Judge) -> int:
    """Import the tests, and run the mutants; give pytest's exit status."""
    quiet = ("-q", "--tb=native", "--no-header", "--no-summary", "-o", "timeout=0", "-s")
    return pytest.main([*quiet, *TESTS], plugins=[judge])
