"""``python -m tests.mutants``: plants each fault of the catalogue in a copy of the source, and sees what catches it.

Searches first, in turns, until one catches it; where none does, the tests. Results are kept as they come, so that a run
that was ended goes on where it was; ``python -m tests.mutants.page`` writes them as a page. The exit status is 0 when
every fault was caught by a search, but for those of which the catalogue says why none can, or what it lacks.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .catalogue import CHAPTERS, ROOT, faults, planted, read_catalogue
from .engines import SECONDS, Outcome, check_import, check_searches
from .hunt import RESULTS, Hunt, read_results, run_all
from .page import caught_by_search, verdict
from .trees import PACKAGE, copy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the catalogue; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone")
    parser.add_argument("--chapter", choices=CHAPTERS, help="the faults of this chapter alone")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (1)")
    parser.add_argument("--tests", action="store_true", help="ask the tests, too, what a search has caught")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--seconds", type=float, default=max(SECONDS.values()), help="no search takes longer")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    chosen = parser.parse_args(arguments)
    catalogue = read_catalogue()
    wanted = [
        entry
        for entry in planted(catalogue)
        if (not chosen.only or entry[1] in chosen.only) and chosen.chapter in (None, entry[0])
    ]
    known = {} if chosen.fresh else read_results(chosen.results)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    missed: list[str] = []
    everything: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="quorate-original-") as directory:
        original = Path(directory).resolve()
        copy(ROOT, original)
        for _, name, mutant in wanted:
            wrong = faults(mutant, original / PACKAGE)
            if wrong:
                raise SystemExit(f"{name}: {'; '.join(wrong)}")
        hunt = Hunt(original, chosen.results, known, chosen.seconds, always_test=chosen.tests)
        check_import(original)
        check_searches(original)
        for chapter, name, mutant, found in run_all(hunt.outcomes, wanted, max(chosen.jobs, 1)):
            everything[name] = found
            print(f"{chapter:10} {name:55} {verdict(mutant, found)}", flush=True)
            is_excused = bool(mutant.unseen or mutant.gap) and any(outcome.found for outcome in found)
            if not caught_by_search(found) and not is_excused:
                missed.append(name)
    caught = sum(map(caught_by_search, everything.values()))
    named = sum(any(outcome.found for outcome in found) for found in everything.values()) - caught
    print(f"{len(wanted)} faults: {caught} caught by a search, {named} by a named test alone")
    print(f"missed:   {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
