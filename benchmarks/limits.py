"""The two limits: what the hardware allows without Raft (the floor of latency), and Python without it (the ceiling)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks.loops import Outcome
from benchmarks.peers import built, program_of
from benchmarks.processes import ROOT, Programs
from benchmarks.systems import VALUE, Case, Measure, Measurement, measure_with, missing_modules, offers

FRAMING_BYTES = 32
"""What a command of the floor has beside its value: about what an entry has in quorate's frames and records."""


class Floor:
    """A lock-step replicated write and fdatasync, in C."""

    name = "floor"
    title = "floor: replicated write + fdatasync in C, no Raft"
    offers = offers(["writes"], ["in-process"])

    def __init__(self) -> None:
        self.source = ROOT / "benchmarks" / "floor.c"
        self.program = program_of(self.source, [self.source])

    async def prepare(self) -> str | None:
        return await built(self.program, ROOT, "gcc", "-O2", "-Wall", str(self.source))

    @contextlib.asynccontextmanager
    async def cluster(self, directory: Path) -> AsyncIterator[Measure]:
        async def measure(case: Case, seconds: float, warm_up: float) -> Measurement:
            words = map(str, (directory, len(VALUE) + FRAMING_BYTES, case.callers, seconds, warm_up))
            async with Programs() as programs:
                floor = await programs.start("the floor", self.program, *words)
                found = await floor.ask(seconds=seconds + warm_up)
            return Measurement(msgspec.convert(found, Outcome), found["cpu_seconds"], 0.0, 0)

        yield measure


class Ceiling:
    """quorate's batches, codec, store and disk thread in a bare Python loop."""

    offers = offers(["writes"], ["in-process"])

    def __init__(self, loop: str) -> None:
        self.name = "ceiling" if loop == "asyncio" else f"ceiling-{loop}"
        self.title = f"ceiling, {loop}: bare Python loop, no Raft, rocksdb"
        self.loop = loop

    async def prepare(self) -> str | None:
        return missing_modules("rocksdict", self.loop)

    @contextlib.asynccontextmanager
    async def cluster(self, directory: Path) -> AsyncIterator[Measure]:
        async with Programs() as programs:
            followers = [
                await programs.start_python(f"follower {number}", "ceiling", self.loop, directory / f"f{number}")
                for number in (1, 2)
            ]
            ports = [str(await follower.ask("port")) for follower in followers]
            leader = await programs.start_python("the leader", "ceiling", self.loop, directory / "leader", *ports)

            async def measure(case: Case, seconds: float, warm_up: float) -> Measurement:
                return await measure_with(leader, [leader, *followers], leader, case, seconds, warm_up)

            yield measure
