"""Why a mutant that survived does no harm: the reasons, and whether they are up to date.

Knows the file of reasons; needs no mutation tool, so that `make test` can check it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from .results import Outcome
from .sources import Mutant

REASONS = Path(__file__).parent / "survivors.toml"

Kind = Literal["equivalent", "slower", "text", "unreachable", "open"]
"""It changes nothing that can be seen; only what it costs; only what people read; where nothing comes; or a hole."""


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why mutants survive that change the same lines of a function in one of some ways.

    Attributes:
        function: its qualified name.
        was: the lines that are changed, without their common indentation.
        now: what takes their place, in each way that survives.
        kind: what kind of a reason.
        why: the reason.
    """

    function: str
    was: str
    now: list[str]
    kind: Kind
    why: str


Place = tuple[str, str, str, str]
"""File, function, and the lines that are changed: as they are, and as the mutant has them."""


def read_reasons(path: Path = REASONS) -> dict[str, list[Reason]]:
    """Read the reasons, by the file of the core that they are about."""
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, list[Reason]])


def by_place(reasons: Mapping[str, Iterable[Reason]]) -> dict[Place, Reason]:
    """Give each mutant's reason."""
    return {
        (file, reason.function, reason.was, now): reason
        for file, found in reasons.items()
        for reason in found
        for now in reason.now
    }


def check(
    mutants: Iterable[Mutant], known: Mapping[str, Outcome], reasons: Mapping[str, Iterable[Reason]]
) -> list[str]:
    """Say which survivors have no reason, and which reasons are for none that survives."""
    known_reasons = by_place(reasons)
    everything, survivors, untried = set(), set(), set()
    for mutant in mutants:
        place, outcome = mutant.place, known.get(mutant.key)
        everything.add(place)
        if outcome is None:
            untried.add(place)
        elif not outcome.by:
            survivors.add(place)

    def said(place: Place, what: str) -> str:
        file, function, was, now = place
        return f"{file} {function}: {what}\n  - {was}\n  + {now}"

    wrong = [said(place, "it survives, and has no reason") for place in sorted(survivors - set(known_reasons))]
    stale = sorted(set(known_reasons) - survivors - untried)
    wrong += [said(place, "it is killed" if place in everything else "there is no such mutant") for place in stale]
    return wrong
