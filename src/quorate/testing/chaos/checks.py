"""What is checked when all faults are over: the history, the ledgers, the members' machines, and the processes.

Each check gives the sentences that say what was violated: none when all is well.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from quorate import Address, QuorateError, Rejected, Status, connect
from quorate.machines import KV
from quorate.testing.history.kv import check_kv
from quorate.testing.history.operations import Operation

SECONDS_MAX = 600.0
"""How long the history may be judged before that is given up."""

PATIENCE = 60.0
"""Seconds that the members may take to come to the same state once all faults are over."""

LOOK = 0.2
"""Seconds between two looks at how far they are."""

OFFENDERS_MAX = 5
"""How many are named when many are wrong."""

CRASHES = ("Traceback (most recent call last)", " CRITICAL ")
"""What no log of a node may hold."""


def check_linearizable(operations: Sequence[Operation]) -> list[str]:
    """Check that there is one order of all calls that explains what all clients saw."""
    verdict = check_kv(operations, seconds_max=SECONDS_MAX)
    return [] if verdict.is_linearizable else [verdict.text]


def check_ledgers(
    operations: Iterable[Operation], found: Mapping[str, str | None], ledgers: Iterable[str]
) -> list[str]:
    """Check what was only ever appended to: nothing acknowledged is missing, and nothing is there twice or unasked.

    Args:
        operations: the history.
        found: what each key held at the end.
        ledgers: the keys that were appended to alone.
    """
    words: dict[str, dict[str, str]] = {key: {} for key in ledgers}
    for operation in operations:
        if operation.method is KV.append and operation.args[0] in words:
            words[operation.args[0]][operation.args[1].strip()] = operation.fate
    lost, doubled, unasked = [], [], []
    for key, fates in words.items():
        counts = Counter((found[key] or "").split())
        lost += [f"{word} of {key}" for word, fate in fates.items() if fate == "ok" and not counts[word]]
        doubled += [f"{word} of {key}" for word in counts if counts[word] > 1]
        unasked += [f"{word} of {key}" for word in counts if fates.get(word, "failed") == "failed"]
    return [
        *offenders(lost, "acknowledged, and lost"),
        *offenders(doubled, "there twice"),
        *offenders(unasked, "there, though nobody wrote it, or was told that it was not written"),
    ]


def offenders(found: Sequence[str], what: str) -> list[str]:
    """Say how many are wrong, and name some."""
    return [f"{len(found)} {what}: {', '.join(found[:OFFENDERS_MAX])}"] if found else []


async def check_members(addresses: Sequence[Address], keys: Sequence[str]) -> list[str]:
    """Check that all are members, that all come equally far, and that their machines then hold the same."""
    try:
        await equally_far(addresses)
        held = dict(zip(addresses, await asyncio.gather(*(held_by(a, keys) for a in addresses)), strict=True))
    except (TimeoutError, QuorateError) as error:
        return [str(error)]
    first, *others = addresses
    different = {
        other: [key for key, own, its in zip(keys, held[first], held[other], strict=True) if own != its]
        for other in others
    }
    return list(
        itertools.chain.from_iterable(
            offenders(names, f"keys of {first.name} and {other.name} differ") for other, names in different.items()
        )
    )


async def equally_far(addresses: Sequence[Address]) -> None:
    """Wait until all are members, know the same, and have applied as much.

    Raises:
        TimeoutError: they do not come to that; the message says how far each is.
    """
    seen = "nobody answers"
    try:
        async with asyncio.timeout(PATIENCE), connect(KV, *addresses) as kv:
            while True:
                try:
                    found = await kv.status()
                except QuorateError as error:
                    seen = str(error)
                else:
                    if are_equally_far(found, len(addresses)):
                        return
                    seen = "; ".join(
                        f"{s.name}: {s.role}, {len(s.members)} members, applied {s.last_applied}" for s in found
                    )
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise TimeoutError(f"the members do not come to the same state within {PATIENCE:g} s: {seen}") from None


def are_equally_far(found: Sequence[Status], size: int) -> bool:
    """Tell whether that many are there, each knows as many, and all have applied as much as any has committed."""
    indexes = {index for status in found for index in (status.last_applied, status.commit_index)}
    return len(found) == size and all(len(status.members) == size for status in found) and len(indexes) == 1


async def held_by(address: Address, keys: Sequence[str]) -> list[str | None]:
    """Give what one member's own machine holds.

    Raises:
        Unavailable: it does not answer.
    """
    values: list[str | None] = []
    async with connect(KV, address, follow=False) as kv:
        own = kv.with_options(consistency="stale")
        for key in keys:
            try:
                values.append(await own.read(KV.get, key))
            except Rejected:
                values.append(None)
    return values


def check_logs(paths: Iterable[Path]) -> list[str]:
    """Check that no node logged a crash of any part of it."""
    found: list[str] = []
    for path in paths:
        lines = path.read_text("utf-8", "replace").splitlines()
        found += [f"{path.name}:{number}: {line}" for number, line in enumerate(lines, 1) if is_crash(line)]
    return offenders(found, "crashes in the logs")


def is_crash(line: str) -> bool:
    """Tell whether a line of a log says that something crashed."""
    return any(sign in line for sign in CRASHES)
