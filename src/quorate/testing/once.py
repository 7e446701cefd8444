"""Exactly once: many commands over networks that lose a fifth of the replies, and what became of each of them.

Each seed is one simulation: real nodes, real clients with sessions, and a machine that only writes down what reaches
it. Leaders are killed, cut off and asked to hand over, members come and go, snapshots are taken and restored, sessions
end. What stands in the machine at the end is held against what every single caller was told.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from random import Random

import msgspec

from quorate import Settings, StateMachine, read, write
from quorate.settings import KIB
from quorate.testing.effects import Effects
from quorate.testing.history.linearizability import Verdict
from quorate.testing.history.operations import Operation
from quorate.testing.network import Rates
from quorate.testing.profile import DiskRates, Profile
from quorate.testing.progress import Progress
from quorate.testing.simulation import Report, Simulation
from quorate.testing.workload import Call

REPLY_LOSS = 0.2
"""The share of replies that are lost."""
READ_SHARE = 0.02
"""The share of calls that read: what a healed group is asked for."""


class Ledger(StateMachine):
    """Numbers in the order in which they were written: a number that is written twice stands there twice.

    Attributes:
        entries: the numbers, each followed by a full stop.
        count: how many there are.
    """

    entries: str
    count: int

    def __init__(self) -> None:
        self.entries = ""
        self.count = 0

    @write
    def add(self, number: int) -> int:
        """Write a number down; give its place, which no other one has."""
        self.entries += f"{number}."
        self.count += 1
        return self.count

    @read
    def total(self) -> int:
        """Give how many numbers there are."""
        return self.count


class Numbers:
    """The workload: each write has a number of its own."""

    machine: type[StateMachine] = Ledger

    def __init__(self) -> None:
        """Begin with number 1."""
        self._numbers = itertools.count(1)

    def draw(self, random: Random) -> Call:
        """Draw the next call."""
        if random.random() < READ_SHARE:
            return Call(Ledger.total, (), False)
        return Call(Ledger.add, (next(self._numbers),), True)

    def began(self, call: Call) -> object:
        """Note nothing."""
        return None

    def answered(self, call: Call, floor: object, reply: object) -> str | None:
        """Leave it to the end, when what the machine holds is known."""
        return None

    def judge(self, operations: Sequence[Operation]) -> Verdict:
        """Leave it to ``broken``."""
        return Verdict(is_linearizable=None, text="held against the machine", operations=0, steps=0)


def broken(entries: Sequence[int], operations: Sequence[Operation]) -> str | None:
    """Say which write had another effect than exactly once, or another reply than its own first one; None if none had.

    Args:
        entries: the numbers that the machine holds at the end, in their order.
        operations: all calls of all clients, in the order in which they were made.
    """
    places: dict[int, int] = {}
    for place, entry in enumerate(entries, 1):
        if places.setdefault(entry, place) != place:
            return f"write {entry} took effect twice: at place {places[entry]} and at place {place}"
    latest: dict[int, int] = {}
    for operation in operations:
        if operation.method is not Ledger.add:
            continue
        number: int = operation.args[0]
        if number not in places:
            if operation.fate == "ok":
                return f"write {number} was answered, and never took effect"
            continue
        place = places.pop(number)
        if operation.fate == "ok" and operation.output != place:
            return f"write {number} took effect at place {place}, and the reply says {operation.output}"
        if operation.fate == "failed":
            return f"write {number} took effect at place {place}, and its caller was told that it did not happen"
        if place < latest.get(operation.client, 0):
            return f"write {number} took effect before an earlier one of client {operation.client}"
        latest[operation.client] = place
    return f"write {next(iter(places))} took effect, and nobody made it" if places else None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one seed came to.

    Attributes:
        seed: the seed.
        failure: what was violated; None when nothing was.
        counts: what was done, by words.
        span: virtual seconds.
        trace: its last lines.
    """

    seed: int
    failure: str | None
    counts: dict[str, int]
    span: float
    trace: tuple[str, ...]


def draw_profile(random: Random) -> Profile:
    """Draw a world in which replies are lost, leaders change, and sessions end by the time of the log."""
    size = random.choice((3, 3, 5))
    return Profile(
        size=size,
        spares=random.choice((0, 1, 2)),
        settings=Settings(
            heartbeat_interval=0.1,
            call_timeout=30.0,
            session_timeout=random.choice((60.0, 600.0)),
            snapshot_entries=random.choice((200, 1000)),
            trailing_entries=random.choice((0, 20)),
            snapshot_chunk_bytes=4 * KIB,
            catch_up_timeout=2.0,
            change_timeout=5.0,
        ),
        network=Rates(
            delay_max=random.choice((0.002, 0.02)),
            loss=random.choice((0.0, 0.05)),
            repeat=random.choice((0.0, 0.05)),
            fifo=random.random() < 0.5,
            hang_up=random.choice((0.0, 0.01)),
            reply_loss=REPLY_LOSS,
        ),
        disk=DiskRates(latency=random.choice((0.0005, 0.01)), stall=0.0, stall_max=0.0),
        drift=random.choice((0.0, 0.01)),
        span=200.0,
        clients=4,
        pause=random.choice((1.0, 10.0, 200.0)),
        burst=250,
        value_bytes=0,
        fault_pause=random.choice((2.0, 10.0)),
        change_pause=random.choice((2.0, 10.0)),
        direct_share=0.0,
        cancel_share=random.choice((0.0, 0.01)),
        patience=(),
    )


def run_seed(seed: int, span: float | None = None) -> Outcome:
    """Run one seed.

    Args:
        seed: what decides everything.
        span: how long clients and faults go on, virtual seconds; None for as long as usual.
    """
    profile = draw_profile(Random(f"{seed} once"))
    if span is not None:
        profile = msgspec.structs.replace(profile, span=span)
    simulation = Simulation(seed, Numbers(), profile=profile)
    report = simulation.run()
    operations, machine = simulation.clients.recorder.operations(), simulation.machine
    failure = report.failure
    entries: list[int] = []
    if isinstance(machine, Ledger):
        entries = [int(number) for number in machine.entries.split(".")[:-1]]
        found = broken(entries, operations)
        failure = failure or (found and f"ExactlyOnce: {found}")
    elif failure is None:
        failure = "NothingFails: the run ended without a machine to look at"
    counts = counted(simulation, report, operations) | {"took effect": len(entries)}
    return Outcome(seed=seed, failure=failure, counts=counts, span=report.span, trace=report.trace)


def counted(simulation: Simulation, report: Report, operations: Sequence[Operation]) -> dict[str, int]:
    """Count what was done in a run."""
    log = Effects()
    for run in simulation.history.runs:
        for _ in log.of(run):
            pass
    fates = Counter(operation.fate for operation in operations if operation.method is Ledger.add)
    replies = simulation.network.counts
    return {
        "writes": fates.total(),
        "answered": fates["ok"],
        "told that they did not happen": fates["failed"],
        "in doubt": fates["unknown"],
        "replies sent": replies["reply carried"] + replies["reply lost"],
        "replies lost": replies["reply lost"],
        "writes that came to the log again": log.repeated,
        "sessions opened": log.opened,
        "sessions expired": log.expired,
        "leader changes": len(simulation.history.leaders) - 1,
        "snapshots taken": report.steps.get("snapshot taken", 0),
        "snapshots installed": report.steps.get("snapshot installed", 0),
        "faults": sum(report.faults.values()),
    }


def run_seeds(first: int, commands: int, jobs: int) -> Iterator[Outcome]:
    """Run seeds in several processes until that many writes took effect; what was begun by then is finished."""
    seeds, done = itertools.count(first), 0
    waiting: deque[Future[Outcome]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while done < commands and len(waiting) <= jobs:
                waiting.append(pool.submit(run_seed, next(seeds)))
            if not waiting:
                return
            outcome = waiting.popleft().result()
            done += outcome.counts["took effect"]
            yield outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell a parser what ``once`` takes."""
    parser.add_argument("--commands", type=int, default=1_000_000, help="how many writes are to take effect (1000000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="run this one alone, and print its last lines")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")


class Sum:
    """What some seeds came to, added up.

    Attributes:
        counts: what was done, by words.
        failing: the seeds in which something was violated.
    """

    def __init__(self, commands: int) -> None:
        """Begin with nothing; so many writes are to take effect."""
        self.counts: Counter[str] = Counter()
        self.failing: list[int] = []
        self._commands = commands
        self._begun = time.monotonic()
        self._seeds = 0
        self._span = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add one seed."""
        self.counts.update(outcome.counts)
        self._seeds += 1
        self._span += outcome.span
        if outcome.failure is not None:
            self.failing.append(outcome.seed)

    @property
    def progress(self) -> str:
        """Where it stands, in a line."""
        took, done = time.monotonic() - self._begun, self.counts["took effect"]
        return f"{took:.0f} s: {done:,} of {self._commands:,} writes took effect, {len(self.failing)} failing"

    @property
    def text(self) -> str:
        """All of it, a line for each count."""
        lost = self.counts["replies lost"] / max(self.counts["replies sent"], 1)
        took = time.monotonic() - self._begun
        title = f"{self._seeds} groups, {self._span / 3600:.1f} virtual hours, {took:.0f} s"
        lines = [f"{title}; {lost:.1%} of the replies lost"]
        lines += [f"{number:>12,} {word}" for word, number in self.counts.items()]
        return "\n".join([*lines, f"failing: {', '.join(map(str, self.failing)) or 'none'}"])


def run(chosen: argparse.Namespace) -> int:
    """Run as the command line says; give the exit status: 0 when every write took effect exactly once."""
    if chosen.seed is not None:
        outcomes: Iterator[Outcome] = iter([run_seed(chosen.seed)])
    else:
        outcomes = run_seeds(chosen.first, chosen.commands, max(chosen.jobs, 1))
    total, progress = Sum(chosen.commands), Progress()
    for outcome in outcomes:
        total.add(outcome)
        progress.clear()
        if outcome.failure is not None or chosen.seed is not None:
            print("\n".join(outcome.trace))
        if outcome.failure is not None:
            print(f"make once SEED={outcome.seed}  {outcome.failure}\n", flush=True)
        progress.show(total)
    progress.clear()
    print(total.text)
    return 1 if total.failing else 0
