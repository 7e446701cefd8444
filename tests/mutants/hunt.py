"""One hunt through the catalogue: which engines look for which fault, what was found before, and what is kept.

Knows engines by their names and what they cost; does not know what they run, nor how results are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from .catalogue import ROOT, Mutant, digest
from .engines import SECONDS, TESTS_SECONDS, Outcome, end_all, look, searches
from .trees import PACKAGE, tree_with

RESULTS = ROOT / "tests" / "mutants" / "results.jsonl"
"""Where results are kept, unless another file is named: committed with the page, so that a clone goes on from there."""

Known = dict[tuple[str, str, str], Outcome]
"""The latest outcome by mutant, engine and digest."""


def read_results(path: Path) -> Known:
    """Read what earlier runs found; a line that was cut short is left out."""
    known: Known = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            outcome = msgspec.json.decode(line, type=Outcome)
        except msgspec.MsgspecError:
            continue
        known[outcome.mutant, outcome.engine, outcome.digest] = outcome
    return known


def still_holds(outcome: Outcome, seconds_max: float) -> bool:
    """Tell whether an earlier outcome answers the question: it caught the fault, or was a search that had as much time.

    Tests that did not catch it are run again: there may be more of them by now.
    """
    return bool(outcome.found) or (outcome.engine != "tests" and outcome.seconds_max >= seconds_max)


def seconds_for(mutant: Mutant) -> float:
    """Give how long each search looks for a fault.

    What a search is known to lack it is asked for all the same, so that it shows when it lacks it no longer.
    """
    return SECONDS[1 if mutant.gap else mutant.tier]


def rounds(seconds_max: float) -> list[float]:
    """Give how long each search has looked by the end of each round: little at first, so that all come to it soon."""
    return [*(seconds for seconds in SECONDS.values() if seconds < seconds_max), seconds_max]


def is_settled(mutant: Mutant, outcomes: Sequence[Outcome]) -> bool:
    """Tell whether it is known what becomes of a fault: it was caught, or all had their time and did not catch it."""
    tried = {outcome.engine for outcome in outcomes if still_holds(outcome, seconds_for(mutant))}
    asked = {outcome.engine for outcome in outcomes}
    return any(outcome.found for outcome in outcomes) or ("tests" in asked and tried >= set(searches(mutant)))


def known_outcomes(name: str, mutant: Mutant, known: Known, source: Path) -> list[Outcome]:
    """Give what is known of a fault in the functions as they are, in the order in which engines are asked."""
    key = digest(mutant, source)
    found = [known.get((name, engine, key)) for engine in (*searches(mutant), "tests")]
    return [outcome for outcome in found if outcome is not None]


class Hunt:
    """One run: what is looked for, in which copy, and what was found."""

    def __init__(
        self, original: Path, results: Path, known: Known, seconds_max: float, *, always_test: bool = False
    ) -> None:
        """Prepare a run.

        Args:
            original: what copies are made of.
            results: where outcomes are kept.
            known: what earlier runs found.
            seconds_max: no search takes longer.
            always_test: whether tests look for what a search has caught, too.
        """
        self._original = original
        self._results = results
        self._known = known
        self._seconds_max = seconds_max
        self._always_test = always_test

    def outcomes(self, name: str, mutant: Mutant) -> list[Outcome]:
        """Let searches look for a fault, and tests if none caught it; give what came of it, in their order."""
        key = digest(mutant, self._original / PACKAGE)
        found = self._searched(name, mutant, key)
        if self._always_test or not any(outcome.found for outcome in found):
            found.append(self._outcome(name, mutant, "tests", key, TESTS_SECONDS))
        return found

    def _searched(self, name: str, mutant: Mutant, key: str) -> list[Outcome]:
        """Let searches look, in turns, until one catches the fault or all had their time."""
        found: dict[str, Outcome] = {}
        for seconds in rounds(min(seconds_for(mutant), self._seconds_max)):
            for engine in searches(mutant):
                found[engine] = self._outcome(name, mutant, engine, key, seconds)
                if found[engine].found:
                    return list(found.values())
        return list(found.values())

    def _outcome(self, name: str, mutant: Mutant, engine: str, key: str, seconds_max: float) -> Outcome:
        """Give an earlier outcome, or let the engine go on from there, and keep what comes of it."""
        before = self._known.get((name, engine, key), Outcome(name, engine, key, 0.0, 0.0, ""))
        if still_holds(before, seconds_max):
            return before
        with tree_with(mutant, self._original) as tree:
            # Only searches through seeds go on: the others begin anew.
            spent = before.seconds_max if before.following else 0.0
            found = look(engine, mutant, tree, self._original, seconds_max - spent, before.following)
        took = round(before.seconds + found.seconds, 1)
        outcome = Outcome(name, engine, key, seconds_max, took, found.text, found.following)
        self._known[name, engine, key] = outcome
        self._results.parent.mkdir(parents=True, exist_ok=True)
        with self._results.open("a", encoding="utf-8") as file:
            file.write(msgspec.json.encode(outcome).decode() + "\n")
        return outcome


def run_all(
    hunt: Callable[[str, Mutant], list[Outcome]], chosen: Sequence[tuple[str, str, Mutant]], jobs: int
) -> Iterator[tuple[str, str, Mutant, list[Outcome]]]:
    """Look for all faults, some at a time; give what came of each, in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [(chapter, name, mutant, pool.submit(hunt, name, mutant)) for chapter, name, mutant in chosen]
        try:
            for chapter, name, mutant, future in waiting:
                yield chapter, name, mutant, future.result()
        finally:
            if not all(future.done() for *_, future in waiting):
                for *_, future in waiting:
                    future.cancel()
                end_all()
