"""``python -m tests.score``: changes the core in every small way, and counts what its tests notice.

A run that was ended goes on where it was, and what was seen of a function holds for as long as its text stands. Mutants
come in a random order, so that any part of them is a sample of all. At the end docs/reference/mutation-score.md is
written, and when nothing is left to run, tests/score/results.jsonl too. The exit status is 0 when nine of ten are
killed and every survivor has its reason in tests/score/survivors.toml.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence

from . import judge, page
from .mutations import mutants
from .results import (
    CORE,
    RESULTS,
    UNSETTLED,
    Outcome,
    add_outcome,
    encode_outcomes,
    read_first_outcomes,
    read_outcomes,
    remaining_tests,
    settled,
)
from .sources import Mutant, functions
from .survivors import check, read_reasons


class Run:
    """One run: which mutants are left, and how far it has come."""

    def __init__(
        self, everything: Sequence[Mutant], known: dict[str, Outcome], seconds: float, *, again: bool = False
    ) -> None:
        """Take mutants in a random order, always the same, and begin none after so many seconds.

        Args:
            everything: the mutants.
            known: what is known of them; what this run finds is added.
            seconds: how long to begin another one.
            again: whether survivors are run against tests that they have survived already.
        """
        self.known = known
        self.again = again
        self.survivors = {key for key, outcome in known.items() if not outcome.by}
        self.mutants = sorted(everything, key=lambda mutant: random.Random(mutant.key).random())
        self.seconds = seconds
        self.left = self.done = self.survived = 0
        self.tests: dict[str, judge.Test] = {}

    def plan(self, tests: dict[str, judge.Test]) -> Iterator[tuple[Mutant, Sequence[str]]]:
        """Give the mutants that are not settled, each with the tests that reach it, the cheapest first."""
        self.tests = tests
        cheap = sorted(tests, key=lambda name: tests[name].seconds)
        reached: dict[tuple[str, int], set[str]] = {}
        for name, test in tests.items():
            for file, lines in test.lines.items():
                for line in lines:
                    reached.setdefault((file, line), set()).add(name)
        left = []
        for mutant in self.mutants:
            file, first = mutant.function.file, mutant.function.first
            spans = (mutant.lines, range(first, first + len(mutant.function.text.splitlines())))
            found = (set().union(*(reached.get((file, line), ()) for line in span)) for span in spans)
            names = next(filter(None, found), set())
            known = None if self.again and mutant.key in self.survivors else self.known.get(mutant.key)
            if (todo := remaining_tests(known, [name for name in cheap if name in names], tests)) or known is None:
                left.append((mutant, todo))
        left.sort(key=lambda entry: entry[0].key not in self.survivors)  # For those there may be new tests.
        print(f"{len(self.mutants)} mutants, {len(left)} to run", flush=True)
        self.left = len(left)
        end = time.monotonic() + self.seconds
        for mutant, todo in left:
            if time.monotonic() >= end:
                print("the time is over; the same command goes on from here", flush=True)
                return
            yield mutant, todo

    def tell(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep an outcome, and say how far the run has come."""
        before = self.known.get(mutant.key)
        if before is not None and not before.by and not outcome.by and not self.again:
            outcome = Outcome(mutant.key, (*before.tests, *outcome.tests))
        self.known[mutant.key] = outcome
        add_outcome(outcome)
        self.done += 1
        if not outcome.by:
            self.survived += 1
            was, now = mutant.edit
            where = f"{mutant.function.file}:{mutant.lines.start} {mutant.function.name}"
            print(f"survived  {where}\n    - {was}\n    + {now}".replace("\n", "\n      ")[:600], flush=True)
        if self.done % 100 == 0:
            print(f"{self.done} of {self.left} run, {self.survived} of them survived", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left, and write the page; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.score", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="FILE", help="mutants of these files of the core alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin none after so many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (1)")
    parser.add_argument(
        "--again", action="store_true", help="run those that survived anew: what tests call has changed"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    chosen = parser.parse_args(arguments)
    UNSETTLED.parent.mkdir(exist_ok=True)
    if chosen.fresh:
        UNSETTLED.unlink(missing_ok=True)
        RESULTS.unlink(missing_ok=True)
    everything = [mutant for function in functions(CORE) for mutant in mutants(function)]
    wanted = [mutant for mutant in everything if not chosen.only or mutant.function.file in chosen.only]
    run = Run(wanted, read_outcomes(), chosen.minutes * 60, again=chosen.again)
    status = judge.run(judge.Judge(run.plan, run.tell, chosen.jobs))
    if status != 0:
        raise SystemExit(f"the tests cannot be run: pytest ends with {status}")
    reasons, first = read_reasons(), read_first_outcomes()
    if not chosen.only and run.done == run.left:
        kept = settled([mutant.key for mutant in everything], run.known, first, run.tests)
        RESULTS.write_bytes(encode_outcomes(kept))
        UNSETTLED.unlink(missing_ok=True)
    page.PAGE.write_text(page.render(everything, run.known, first, reasons), "utf-8")
    wrong = check(everything, run.known, reasons)
    print(page.summary(everything, run.known, first), *wrong, sep="\n")
    return 1 if wrong or page.share(everything, run.known) < page.WANTED else 0


if __name__ == "__main__":
    sys.exit(main())
