"""What a run came to, as docs/reference/mutation-score.md."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from .results import ROOT, Outcome, interval
from .sources import Mutant
from .survivors import Reason, by_place

PAGE = ROOT / "docs" / "reference" / "mutation-score.md"
LINE_MAX = 118
WANTED = 0.9
"""The share of all mutants that is to be killed, at least."""

HEAD = """\
# Mutation score

Would the tests notice if a line of the core were another? `make score` changes the core in every small way that the
mutation tool [mutmut](https://mutmut.readthedocs.io) knows: one operator, number, argument, keyword, text or
assignment at a time. To these it adds what mutmut lacks: a statement dropped, a condition taken for granted or never
true, one side of `and` and `or` alone, `min` for `max`. Each such mutant is run against the tests in `tests/core`,
`tests/paper` and `tests/scenarios` that reach its lines. It is killed when one of them fails, or does not come to its
end.

Nobody chose these changes, unlike the [planted faults](mutants.md). Tests that plant faults themselves do not count
here: they may fail because a seed takes another course. Signatures and what runs when a module is imported are not
changed, nor what stands in the brackets of `len` and `isinstance`, nor what an assertion says when it fails.

An outcome belongs to the texts of the function and of the tests. The command goes on where it was ended, and runs again
only what changed since `tests/score/results.jsonl`, which it writes when nothing is left to run. `ARGS=--again` tries
the survivors anew, for when code has changed that tests call, and `ARGS=--fresh` all of them; `ARGS='--minutes 10'`
stops after that time.
"""

KINDS = {
    "equivalent": "nothing that can be seen changes",
    "slower": "only the cost changes",
    "text": "only what people read changes",
    "unreachable": "it matters only where nothing comes",
    "open": "a hole in the tests",
}


def counts(mutants: Sequence[Mutant], known: Mapping[str, Outcome]) -> tuple[int, int, int, int]:
    """Count mutants: all, killed, those of them that ran too long, and survivors."""
    outcomes = [known[mutant.key] for mutant in mutants if mutant.key in known]
    killed = [outcome for outcome in outcomes if outcome.by]
    return len(mutants), len(killed), sum(outcome.is_late for outcome in killed), len(outcomes) - len(killed)


def share(mutants: Sequence[Mutant], known: Mapping[str, Outcome]) -> float:
    """Give the share that is killed of those that were run."""
    _, killed, _, survived = counts(mutants, known)
    return killed / max(killed + survived, 1)


def summary(mutants: Sequence[Mutant], known: Mapping[str, Outcome], first: Mapping[str, Outcome]) -> str:
    """Say in a few sentences what all came to; as long as some were not run, from what was seen at first sight."""
    total, killed, late, survived = counts(mutants, known)
    tried = killed + survived
    text = f"{killed} of {tried} mutants killed: {share(mutants, known):.1%}; {late} of them ran too long."
    if tried < total:
        _, killed, _, survived = counts(mutants, first)
        low, high = interval(killed, killed + survived)
        text += f" {total - tried} are not run yet. Those that were are a random part; before tests were"
        text += f" written for those of them that survived, {killed} were killed. So of what is left it will be, with"
        text += f" 95 % confidence, between {low:.1%} and {high:.1%}."
    return text


def render(
    mutants: Sequence[Mutant],
    known: Mapping[str, Outcome],
    first: Mapping[str, Outcome],
    reasons: Mapping[str, Sequence[Reason]],
) -> str:
    """Write the page."""
    files = sorted({mutant.function.file for mutant in mutants})
    rows = [
        textwrap.fill(f"**{summary(mutants, known, first)}**", LINE_MAX),
        "",
        "| file | mutants | killed | of these too slow | survived | not yet run | score |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in [*files, "all"]:
        chosen = [mutant for mutant in mutants if name in (mutant.function.file, "all")]
        total, killed, late, survived = counts(chosen, known)
        left = total - killed - survived
        rows.append(f"| {name} | {total} | {killed} | {late} | {survived} | {left} | {share(chosen, known):.1%} |")
    return "\n".join([HEAD, *rows, *survivors_text(mutants, known, reasons)]) + "\n"


def survivors_text(
    mutants: Sequence[Mutant], known: Mapping[str, Outcome], reasons: Mapping[str, Sequence[Reason]]
) -> list[str]:
    """Write each survivor with its reason, one after the other."""
    known_reasons = by_place(reasons)
    survivors = [mutant for mutant in mutants if mutant.key in known and not known[mutant.key].by]
    kinds = [known_reasons[mutant.place].kind for mutant in survivors if mutant.place in known_reasons]
    lines = ["\n## Survivors\n", "| why it survives | mutants |", "| --- | --- |"]
    lines += [f"| {text} | {kinds.count(kind)} |" for kind, text in KINDS.items() if kind in kinds]
    if len(kinds) < len(survivors):
        lines.append(f"| not yet looked into | {len(survivors) - len(kinds)} |")
    file, last = "", None
    unsure = [mutant for mutant in mutants if mutant.key not in known and mutant.place in known_reasons]
    for mutant in sorted(
        survivors + unsure, key=lambda mutant: (mutant.function.file, mutant.lines.start, mutant.edit)
    ):
        if mutant.function.file != file:
            file = mutant.function.file
            lines.append(f"\n### {file}")
        reason = known_reasons.get(mutant.place)
        was, now = mutant.edit
        if reason is None or reason != last:
            why = f"{KINDS[reason.kind]}. {reason.why}" if reason else "Not yet looked into."
            why += "" if mutant.key in known else " Not run again since the function has changed."
            lines += ["", textwrap.fill(f"`{mutant.function.name}`: {why}", LINE_MAX, break_long_words=False)]
        last = reason
        lines += ["\n```diff", *diff_lines(was, now), "```"]
    return lines


def diff_lines(was: str, now: str) -> list[str]:
    """Give both sides of a change; of a line that is too long, what stands around the place where they part."""
    pairs = zip(was, now, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), 0)
    edits = [("-", line) for line in was.splitlines()] + [("+", line) for line in now.splitlines()]
    return [
        f"{sign} {line}"
        if len(line) <= LINE_MAX
        else f"{sign} … {line[max(same - LINE_MAX // 2, 0) :][: LINE_MAX - 4]}"
        for sign, line in edits
    ]
