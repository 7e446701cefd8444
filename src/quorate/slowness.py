"""What of a machine took so long that its node was held up: told by name, so that the program can be mended.

Knows what calls look like in the log; knows no clock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from quorate.calling import MachineType, command_name
from quorate.errors import MachineError
from quorate.sessions import MARK, PLACE_BYTES, WRITE
from quorate.settings import Settings
from quorate.types import Kind, Run

logger: logging.Logger = logging.getLogger("quorate.machine")

NAMES_MAX = 4
"""How many calls of a batch are named."""


class Slowness:
    """Tells what took long, the 1st, 2nd, 4th, 8th … time.

    Attributes:
        limit: seconds from which on something is slow; infinity for never.
    """

    def __init__(self, limit: float = float("inf")) -> None:
        """Know how long is long."""
        self.limit: float = limit
        self._count = 0

    def tell(self, what: Iterable[str], where: str, seconds: float) -> None:
        """Log what took so many seconds.

        Args:
            what: the calls that were run meanwhile, such as ``KV.set``.
            where: at which index, such as ``index 5``.
            seconds: how long all of them took.
        """
        self._count += 1
        if self._count & (self._count - 1) == 0:
            names = list(dict.fromkeys(what))
            rest = [f"{len(names) - NAMES_MAX} others"] if len(names) > NAMES_MAX else []
            logger.warning(
                "%s took %.1f s (%s, slow batch %d of this machine): everything on this node waited",
                " and ".join([*names[:NAMES_MAX], *rest]),
                seconds,
                where,
                self._count,
            )


def slowness(settings: Settings) -> Slowness:
    """Take for slow what holds up heartbeats for half the time after which a leader is given up."""
    return Slowness(settings.election_timeout_min / 2)


def writes_in(runs: Sequence[Run], machine: MachineType) -> Iterator[str]:
    """Yield what people call the writes in runs of the log."""
    for run in runs:
        for payload in run.payloads if run.kind is Kind.COMMAND else ():
            is_session = payload[:2] == WRITE
            if is_session or payload[:1] != MARK:
                try:
                    name = command_name(payload[PLACE_BYTES:] if is_session else payload)
                except MachineError:
                    continue
                if (call := machine.writes.by_name.get(name)) is not None:
                    yield call.label


def places_of(runs: Sequence[Run]) -> str:
    """Say which indexes runs have."""
    first, last = runs[0].first, runs[-1].last
    return f"index {first}" if first == last else f"indexes {first} to {last}"
