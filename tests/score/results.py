"""What became of each mutant, kept line by line, so that a run that was ended goes on where it was.

An outcome belongs to the text of a function and to the texts of tests: it holds for as long as these stand. Knows no
mutation, and runs nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
CORE = ROOT / "src" / "quorate" / "core"
RESULTS = ROOT / "build" / "score.jsonl"
"""Where outcomes are kept."""


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


def read_outcomes(path: Path = RESULTS) -> dict[str, Outcome]:
    """Read the latest outcome of each mutant."""
    return {outcome.mutant: outcome for outcome in all_outcomes(path)}


def read_first_outcomes(path: Path = RESULTS) -> dict[str, Outcome]:
    """Read the first outcome of each mutant: what came of it before anybody wrote a test for it."""
    return {outcome.mutant: outcome for outcome in reversed(all_outcomes(path))}


def all_outcomes(path: Path) -> list[Outcome]:
    """Read all outcomes in their order; a line that was cut short is left out."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(msgspec.MsgspecError):
            found.append(msgspec.json.decode(line, type=Outcome))
    return found


def add_outcome(outcome: Outcome, path: Path = RESULTS) -> None:
    """Keep an outcome."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(outcome) + b"\n")


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
