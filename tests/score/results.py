"""What became of each mutant, kept so that a run goes on where others ended, here or in another clone.

An outcome belongs to the text of a function and to the texts of tests: it holds for as long as these stand. Knows no
mutation, and runs nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
CORE = ROOT / "src" / "quorate" / "core"
RESULTS = ROOT / "tests" / "score" / "results.jsonl"
"""What was known when last nothing was left to run."""
UNSETTLED = ROOT / "build" / "score.jsonl"
"""What was found since, each outcome as soon as it is known."""


class Outcome(msgspec.Struct, frozen=True):
    """What the tests said of one mutant.

    Attributes:
        mutant: its key.
        tests: the digest of the test that killed it; of all that did not, if it survived.
        by: the test that killed it; empty if it survived.
        is_late: whether that test did not come to its end.
    """

    mutant: str
    tests: tuple[str, ...]
    by: str = ""
    is_late: bool = False


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a file: mutants of which the tests said the same.

    Attributes:
        by, is_late, tests: as in ``Outcome``.
        mutants: their keys.
    """

    by: str = ""
    is_late: bool = False
    tests: tuple[str, ...]
    mutants: tuple[str, ...]


def read_outcomes(paths: Iterable[Path] = (RESULTS, UNSETTLED)) -> dict[str, Outcome]:
    """Read the latest outcome of each mutant."""
    return {outcome.mutant: outcome for outcome in all_outcomes(paths)}


def read_first_outcomes(paths: Iterable[Path] = (RESULTS, UNSETTLED)) -> dict[str, Outcome]:
    """Read the first outcome of each mutant: what came of it before anybody wrote a test for it."""
    return {outcome.mutant: outcome for outcome in reversed(all_outcomes(paths))}


def all_outcomes(paths: Iterable[Path]) -> list[Outcome]:
    """Read all outcomes in their order; a line that was cut short is left out."""
    found = []
    for path in filter(Path.exists, paths):
        for text in path.read_text("utf-8").splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                line = msgspec.json.decode(text, type=Line)
                found += [Outcome(mutant, line.tests, line.by, is_late=line.is_late) for mutant in line.mutants]
    return found


def encode_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """Write outcomes, in an order that depends on nothing else.

    That a mutant survived comes first, and so is read before what killed it since.
    """
    alike: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
    for outcome in outcomes:
        alike.setdefault((outcome.by, outcome.tests, outcome.is_late), []).append(outcome.mutant)
    found = [
        Line(by=by, is_late=is_late, tests=tests, mutants=tuple(sorted(mutants)))
        for (by, tests, is_late), mutants in sorted(alike.items())
    ]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in found)


def add_outcome(outcome: Outcome, path: Path = UNSETTLED) -> None:
    """Keep an outcome."""
    with path.open("ab") as file:
        file.write(encode_outcomes([outcome]))


def settled(
    mutants: Iterable[str], known: Mapping[str, Outcome], first: Mapping[str, Outcome], tests: Iterable[str]
) -> list[Outcome]:
    """Give what is to be kept once nothing is left to run.

    Who survives then survives all tests, whichever reach it. Of who is killed by now it is kept that it survived first.

    Args:
        mutants: the keys of all.
        known: the latest outcomes.
        first: the first outcomes.
        tests: the digests of all tests.
    """
    latest = [known[mutant] for mutant in mutants]
    everything = tuple(sorted(tests))
    once = [Outcome(outcome.mutant, ()) for outcome in latest if outcome.by and not first[outcome.mutant].by]
    return once + [outcome if outcome.by else Outcome(outcome.mutant, everything) for outcome in latest]


def remaining_tests(outcome: Outcome | None, reaching: Collection[str], today: Collection[str]) -> list[str]:
    """Give the digests of the tests that may still kill a mutant, in their order; none when its outcome holds.

    Args:
        outcome: what is known of it.
        reaching: the digests of the tests that reach it.
        today: the digests of all tests.
    """
    if outcome is not None and outcome.by and outcome.tests[0] in today:
        return []
    done = set() if outcome is None or outcome.by else set(outcome.tests)
    return [digest for digest in reaching if digest not in done]


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Give the bounds of the share that is killed, with 95 % confidence, from a random sample (Wilson)."""
    if not tried:
        return 0.0, 1.0
    z = 1.96
    middle = (killed + z * z / 2) / (tried + z * z)
    half = z * math.sqrt(killed * (tried - killed) / tried + z * z / 4) / (tried + z * z)
    return middle - half, middle + half
