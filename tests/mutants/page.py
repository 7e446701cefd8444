"""What a run came to, in words and as docs/reference/mutants.md: ``python -m tests.mutants.page`` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .catalogue import ROOT, Mutant, planted, read_catalogue
from .engines import SECONDS, Outcome
from .hunt import RESULTS, is_settled, known_outcomes, read_results
from .trees import PACKAGE

PAGE = ROOT / "docs" / "reference" / "mutants.md"

ORIGINS = {
    "field": "others made it",
    "history": "ours, mended since",
    "review": "might pass a review",
}

HEAD = """\
# Planted faults

A check that has never failed proves nothing. Each fault below was planted in a copy of the source, one at a time, by
`make mutants`, and this page was written from what caught it.

*Searches* know nothing of a fault. `walk` moves bare cores through seeds; `sim` runs whole simulated groups; `explore`
tries all orders of events in small worlds of bare cores. They take turns, and the first that catches a fault is named.
*Tests* are those of `make test` for the files that the fault changes, without searches. They are asked where no search
caught the fault, and by `make mutants ARGS=--tests` always: the first that failed is named. Some faults lie where no
search comes, such as sockets and real disks: then the page says so. A search has 10, 60 or 600 seconds of one core for
a fault of tier 1, 2 or 3; what it took, with the start of the interpreter, is given.

An outcome belongs to what the functions say that the fault changes, comments aside: when one of them is another, the
fault counts as not yet run.
"""


def caught_by_search(outcomes: Sequence[Outcome]) -> bool:
    """Tell whether a search caught the fault, in time."""
    return any(outcome.found and outcome.engine != "tests" for outcome in outcomes)


def verdict(mutant: Mutant, outcomes: Sequence[Outcome]) -> str:
    """Say in a line what caught a fault."""
    parts = [search_text(mutant, outcomes), tests_text(outcomes)]
    if not any(outcome.found for outcome in outcomes):
        parts.insert(0, "SURVIVES")
    return "; ".join(parts)


def search_text(mutant: Mutant, outcomes: Sequence[Outcome]) -> str:
    """Say what the searches came to."""
    for outcome in outcomes:
        if outcome.found and outcome.engine != "tests":
            return f"{outcome.engine} {outcome.found.splitlines()[0][:160]} ({outcome.seconds:g} s)"
    tried = [f"{outcome.engine} {outcome.seconds:g} s" for outcome in outcomes if outcome.engine != "tests"]
    if not tried:
        return f"none can: {mutant.unseen}"
    return f"not found ({', '.join(tried)})" + (f": {mutant.gap}" if mutant.gap else "")


def tests_text(outcomes: Sequence[Outcome]) -> str:
    """Say what the tests came to."""
    asked = [outcome.found for outcome in outcomes if outcome.engine == "tests"]
    if not asked:
        return "not asked"
    return f"`{asked[0]}`" if asked[0] else "no test"


def render(catalogue: Mapping[str, Mapping[str, Mutant]], results: Mapping[str, Sequence[Outcome]]) -> str:
    """Write the page."""
    rows = [
        "| chapter | faults | caught by a search | by a named test alone | not yet run | caught by neither |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    everything = list(planted(catalogue))
    for chapter in [*catalogue, "all"]:
        names = [name for place, name, _ in everything if chapter in (place, "all")]
        outcomes = [results[name] for name in names if name in results]
        caught = sum(map(caught_by_search, outcomes))
        named = sum(any(outcome.found for outcome in found) for found in outcomes) - caught
        missing = len(names) - len(outcomes)
        neither = len(outcomes) - caught - named
        rows.append(f"| {chapter} | {len(names)} | {caught} | {named} | {missing} | {neither} |")
    parts = [HEAD, *rows]
    for chapter, mutants in catalogue.items():
        parts.append(f"\n## {chapter.capitalize()}\n\n| fault | says | from | tier | search | first test |")
        parts.append("| --- | --- | --- | --- | --- | --- |")
        parts += [row(name, mutant, results.get(name)) for name, mutant in mutants.items()]
    return "\n".join(parts) + "\n"


def row(name: str, mutant: Mutant, outcomes: Sequence[Outcome] | None) -> str:
    """Write the row of one fault."""
    pitfall = f" (pitfall {mutant.pitfall})" if mutant.pitfall else ""
    head = f"| `{name}` | {mutant.says} | {ORIGINS[mutant.origin]}{pitfall} | {mutant.tier}"
    if mutant.needs:
        return f"{head} | not yet: needs {mutant.needs} | |"
    if outcomes is None:
        return f"{head} | not yet run | |"
    found = search_text(mutant, outcomes).replace("|", "\\|")
    late = next((outcome for outcome in outcomes if outcome.engine != "tests" and outcome.found), None)
    note = " **late**" if late is not None and late.seconds > SECONDS[mutant.tier] + 2 else ""
    return f"{head} | {found}{note} | {tests_text(outcomes)} |"


def main() -> None:
    """Write the page from the results that are kept."""
    catalogue, known = read_catalogue(), read_results(RESULTS)
    results: dict[str, list[Outcome]] = {}
    for _, name, mutant in planted(catalogue):
        found = known_outcomes(name, mutant, known, ROOT / PACKAGE)
        if is_settled(mutant, found):
            results[name] = found
    PAGE.write_text(render(catalogue, results), encoding="utf-8")


if __name__ == "__main__":
    main()
