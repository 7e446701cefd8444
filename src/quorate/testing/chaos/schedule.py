"""When which faults are done: some at once, then none for a while, drawn from the seed; what is done is told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from quorate.testing.chaos.cluster import NodeGone, Refused
from quorate.testing.chaos.faults import FAULTS
from quorate.testing.chaos.report import Incident
from quorate.testing.chaos.world import NotNow, World

QUIET_SECONDS = (1.5, 4.0)
FAULT_SECONDS = (2.0, 6.0)
"""From how long to how long there is no fault, and one lasts once it is done."""

AT_ONCE = (1, 2, 3)
AT_ONCE_WEIGHTS = (5, 3, 2)
"""How many faults are done at once, and how often."""


@dataclass(slots=True)
class Chronicle:
    """What happens in a run, printed as it happens, and kept.

    Attributes:
        begun: when it began, seconds on the monotonic clock.
        incidents: the faults that are over.
        accidents: what went wrong with what a fault does to the nodes.
    """

    begun: float = field(default_factory=time.monotonic)
    incidents: list[Incident] = field(default_factory=list)
    accidents: list[str] = field(default_factory=list)

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begun

    def say(self, text: str) -> None:
        """Print a line with its time."""
        print(f"{self.now:8.2f}  {text}", flush=True)


async def disturb(world: World, chronicle: Chronicle, kinds: Sequence[str], seconds: float) -> None:
    """Do faults until the time is over.

    Args:
        world: what they are done to.
        chronicle: where they are told.
        kinds: those that may be drawn; without any, time passes.
        seconds: when it is over, since the run began. The last faults end then.
    """
    chance = random.Random(world.chance.random())
    while (left := seconds - chronicle.now) > 0:
        quiet = chance.uniform(*QUIET_SECONDS)
        await asyncio.sleep(min(quiet, left))
        if quiet >= left:
            return
        (count,) = chance.choices(AT_ONCE, AT_ONCE_WEIGHTS)
        drawn = chance.sample(kinds, min(count, len(kinds)))
        spans = [chance.uniform(*FAULT_SECONDS) for _ in drawn]
        async with asyncio.TaskGroup() as group:
            for kind, span in zip(drawn, spans, strict=True):
                group.create_task(inflict(world, chronicle, kind, min(span, seconds - chronicle.now)), name=kind)


async def inflict(world: World, chronicle: Chronicle, kind: str, seconds: float) -> None:
    """Do one fault, let it last, and undo it; one that cannot be done now is only told."""
    begun = chronicle.now
    chronicle.say(f"begin  {kind}")
    text = ""
    try:
        async with FAULTS[kind](world) as text:
            chronicle.say(f"done   {kind}: {text}")
            await asyncio.sleep(seconds)
    except NotNow:
        pass  # Its time counts as disturbed all the same: what it has tried may yet come about.
    except (NodeGone, Refused) as error:
        chronicle.accidents.append(f"{kind} ({text}): {error}")
    chronicle.say(f"end    {kind}: {text or 'not possible now'}")
    chronicle.incidents.append(Incident(kind, text, begun, chronicle.now))
