"""What may catch a fault: searches, which know nothing of it, and tests, which may have been written for it.

A search walks through seeds, one after the other, until an invariant is violated or its seconds are over. Knows
commands and what they print; does not know the catalogue's faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from .catalogue import ROOT, Mutant

SECONDS = {1: 10.0, 2: 60.0, 3: 600.0}
"""How many seconds of one core a search has for a fault of each tier."""

HANGS = 60.0
"""Seconds of a core that a search may take beyond the double of its own: then it hangs."""

SLOWNESS = 30.0
"""How many real seconds one of a core may take at most, on a machine that has much else to do."""

TESTS_SECONDS = 1800.0
"""Real seconds that tests may take: then they hang."""

NAMED_TESTS = {
    "core": ("tests/core", "tests/paper", "tests/scenarios"),
    "store": ("tests/store", "tests/api"),
    "transport": ("tests/transport", "tests/api"),
    "": ("tests/api", "tests/store/test_disk.py"),
}
"""The tests of what lies in a folder of the package."""

SEARCH_TESTS = "tests/core/test_search.py"
"""Tests that walk through seeds: they are searches."""

SLOW_TESTS = ("cli", "demo", "elixir", "kill", "typing", "walk")
"""What the names of files say whose tests start many processes: they are asked last."""


_running: set[subprocess.Popen[str]] = set()
_is_over = threading.Event()


class Outcome(msgspec.Struct, frozen=True):
    """What came of letting one engine look for one fault.

    Attributes:
        mutant: the name of the fault.
        engine: ``walk``, ``sim``, ``explore`` or ``tests``.
        digest: of the fault and its functions: see ``catalogue.digest``.
        seconds_max: how long it was allowed to take.
        seconds: how long it took: of one core for a search, real ones for tests.
        found: by what it was caught: a seed and an invariant, or a test; empty if it was not.
        following: the seed with which a search would go on.
    """

    mutant: str
    engine: str
    digest: str
    seconds_max: float
    seconds: float
    found: str
    following: int = 0


class Found(NamedTuple):
    """What came of one look.

    Attributes:
        text: what found the fault; empty if nothing did.
        seconds: how long it took.
        following: the seed with which a search would go on.
    """

    text: str
    seconds: float
    following: int = 0


class Run(msgspec.Struct, frozen=True):
    """How a command ended.

    Attributes:
        status: its exit status; None if it was ended because it took too long.
        output: what it printed, errors too.
        seconds: how many real seconds it took.
    """

    status: int | None
    output: str
    seconds: float


def searches(mutant: Mutant) -> tuple[str, ...]:
    """Give the searches that can see a fault, the cheapest first."""
    if mutant.unseen:
        return ()
    is_core = all(edit.file.startswith("core/") for edit in mutant.edits)
    return ("walk", "sim", "explore") if is_core else ("sim",)


def named_tests(mutant: Mutant) -> tuple[str, ...]:
    """Give the tests that might name a fault."""
    if mutant.tests:
        return mutant.tests
    folders = dict.fromkeys(edit.file.rpartition("/")[0] for edit in mutant.edits)
    return tuple(dict.fromkeys(path for folder in folders for path in NAMED_TESTS[folder]))


def search_command(engine: str, seconds: float, *which: str) -> list[str]:
    """Give what searches for so many seconds, with ``--first`` or ``--seed`` and a number if not from the beginning."""
    limited = ["sh", "-c", f'ulimit -t {2 * seconds + HANGS:.0f} && exec "$@"', "sh"]
    module = ["tests.mutants.explore"] if engine == "explore" else ["tests.mutants.search", engine]
    return [*limited, sys.executable, "-m", *module, "--seconds", f"{seconds:g}", *which]


def pytest_command(paths: Sequence[str], without: Iterable[str]) -> list[str]:
    """Give what runs tests up to the first that fails, but for some.

    Without ``SEARCH_TESTS``, and those that plant faults themselves.
    """
    quick = ["-m", "not slow", "-k", "not planted"]
    deselected = [argument for test in without for argument in ("--deselect", test)]
    return [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", *quick, *deselected, *quick_first(paths)]


def quick_first(paths: Sequence[str]) -> list[str]:
    """Give the files of tests that are meant, those last whose tests are slow."""
    files: list[str] = []
    for path in paths:
        folder = (ROOT / path).is_dir()
        files += (
            [str(each.relative_to(ROOT)) for each in sorted((ROOT / path).rglob("test_*.py"))] if folder else [path]
        )
    asked = [file for file in files if file != SEARCH_TESTS]
    return sorted(asked, key=lambda file: any(word in Path(file).stem for word in SLOW_TESTS))


def look(engine: str, mutant: Mutant, tree: Path, sound: Path, seconds_max: float, first: int = 0) -> Found:
    """Let an engine look for a fault that is planted in a tree.

    What fails in the sound tree as well is no catch, nor a test that does not fail again, as one may that takes too
    long where much else is done: it is said, and the engine goes on behind it.

    Args:
        engine: ``walk``, ``sim``, ``explore`` or ``tests``.
        mutant: the fault.
        tree: where it is planted.
        sound: the same without it.
        seconds_max: for how long.
        first: the seed with which a search begins.

    Raises:
        RuntimeError: the engine did not run.
    """
    broken: list[str] = []
    spent = 0.0
    while True:
        if engine == "tests":
            run = run_command(pytest_command(named_tests(mutant), broken), tree, seconds_max)
            found = Found(read_tests(run), run.seconds)
            again = ""
            if "::" in found.text:
                alone = pytest_command([found.text], ())
                with_it, without = (read_tests(run_command(alone, place, seconds_max)) for place in (tree, sound))
                again = without or (f"{found.text} passes with it, alone" if not with_it else "")
            broken.append(found.text)
        else:
            from_there = ("--first", f"{first}") if first else ()
            command = search_command(engine, seconds_max - spent, *from_there)
            found = read_search(run_command(command, tree, SLOWNESS * (seconds_max + HANGS)))
            first = found.following
            seed = re.match(r"seed (\d+): ", found.text)
            command = search_command(engine, 1.0, "--seed", seed[1] if seed else "")
            again = read_search(run_command(command, sound, SLOWNESS * HANGS)).text if seed else ""
        spent += found.seconds
        if not again or spent >= seconds_max:
            return Found("" if again else found.text, spent, first)
        print(f"no catch: {engine} {again}, and not for the fault", file=sys.stderr, flush=True)


def read_search(run: Run) -> Found:
    """Give what a search found, in seconds of a core."""
    if run.status in (None, -signal.SIGXCPU):
        return Found("it does not come to an end", run.seconds)
    lines = run.output.splitlines()
    for line in lines:
        if line.startswith('{"found":'):
            said = json.loads(line)
            return Found(said["found"], said["seconds"], said.get("next", 0))
    # What makes the package fail as soon as it is imported is caught by anything.
    return Found(f"nothing runs any more: {lines[-1] if lines else 'no word'}", run.seconds)


def read_tests(run: Run) -> str:
    """Give the test that failed.

    Raises:
        RuntimeError: no test ran.
    """
    if run.status is None:
        return "the tests do not come to an end"
    if run.status <= 0:
        return ""  # Passed, or ended by a signal, which says nothing of the fault: tests without a find are run again.
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.output, re.MULTILINE)
    if failed:
        return failed[1]
    if run.status in (4, 5):
        raise RuntimeError(f"no test ran:\n{run.output}")
    return f"pytest ends with status {run.status}"


def surroundings(tree: Path) -> Mapping[str, str]:
    """Give the environment in which the package of a tree is imported, and no other."""
    paths = os.pathsep.join((str(tree / "src"), str(tree)))
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def run_command(command: list[str], tree: Path, seconds_max: float) -> Run:
    """Run a command in a tree, and end it, and all that it started, when it is over or takes too long.

    Raises:
        RuntimeError: ``end_all`` was called: what the command came to says nothing.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command, cwd=tree, env=surroundings(tree), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        _running.add(process)
        try:
            status: int | None = process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end(process)
            process.wait()
            _running.discard(process)
        if _is_over.is_set():
            raise RuntimeError("the run was ended")
        output.seek(0)
        text = output.read()
    return Run(status, text, time.monotonic() - begun)


def end(process: subprocess.Popen[str]) -> None:
    """End a process that was started here, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end_all() -> None:
    """End whatever still runs, for good."""
    _is_over.set()
    for process in list(_running):
        end(process)


def check_import(tree: Path) -> None:
    """Check that the package of the tree is the one imported there.

    Raises:
        RuntimeError: another one is.
    """
    code = "import quorate, tests.core.search as walk; print(quorate.__file__, walk.__file__)"
    run = run_command([sys.executable, "-c", code], tree, SLOWNESS * HANGS)
    found = run.output.split()
    if len(found) != 2 or not all(Path(path).is_relative_to(tree) for path in found):
        raise RuntimeError(f"in {tree} another package is imported: {run.output}")


def check_searches(tree: Path) -> None:
    """Check that every search runs in a tree without faults: one that does not would seem to catch everything.

    Raises:
        RuntimeError: one does not.
    """
    for engine in ("walk", "sim", "explore"):
        run = run_command(search_command(engine, 1.0), tree, SLOWNESS * HANGS)
        found = read_search(run).text
        if found and not found.startswith("seed "):
            raise RuntimeError(f"{engine} does not run without any fault: {run.output}")
