"""One simulation: a group of real peers on virtual time, its clients, its faults, and the demand for progress.

One seed decides everything. The run begins with a group that is formed on a good network; then clients and faults go on
for a while; then everything is healed, and within ``PATIENCE`` election timeouts there must be a leader, a committed
write, an answered read, and equal machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from quorate.core import Event, EventKind, Raft
from quorate.core.state import ROLE_NAMES
from quorate.errors import QuorateError, Rejected
from quorate.machine import StateMachine
from quorate.peer import Peer
from quorate.testing.clients import NEWCOMER, Clients
from quorate.testing.clock import Stalled, VirtualLoop
from quorate.testing.coverage import Cell
from quorate.testing.disk import PlannedFull
from quorate.testing.faults import Faults
from quorate.testing.invariants import History, Violation, machine_state
from quorate.testing.network import SimulatedNetwork
from quorate.testing.operating import Operator
from quorate.testing.process import Process
from quorate.testing.profile import Profile
from quorate.testing.trace import FAULT_SYMBOL, ROLE_SYMBOLS, Trace
from quorate.testing.watchers import Watchers
from quorate.testing.workload import Call, Workload, usual_workload
from quorate.types import Address

PATIENCE = 10
"""How many of the longest election timeouts a healed quorum, and then the healed group, has to make progress."""
FOREIGN_PATIENCE = 3 * PATIENCE
"""How many it has at most while somebody leads it who was not healed: whose every answer is late, but not too late, is
deposed by nobody, as in any Raft."""
STEPS = {
    "-> log begins": "snapshot taken",
    "-> send snapshot": "snapshot sent",
    "-> install it": "snapshot installed",
    "-> hand over": "transfer",
    "-> lead on": "transfer given up",
    "-> the change is given up": "change given up",
    "configuration entry truncated": "configuration rolled back",
    "; joint with": "joint configuration",
    "; catching up": "configuration that waits",
}
"""What is counted of the events of the core, by what stands in their text."""
KEPT_LINES = 40
"""How many of its last trace lines a failed run shows."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How one seed went.

    Attributes:
        seed: the seed.
        failure: the invariant that was violated and how, or None.
        events: inputs to peers, each followed by all checks.
        span: virtual seconds.
        faults: how often each kind of fault struck.
        coverage: how often each kind struck a peer of which role while its group was at what.
        outcomes: how many calls of clients ended how.
        asked: how often what else was asked of the group, such as other members, ended how.
        steps: how often the group did what it does seldom: snapshots, transfers, changes.
        digest: SHA-256 of the trace.
        trace: its lines: all of them, or the last ``KEPT_LINES``.
    """

    seed: int
    failure: str | None
    events: int
    span: float
    faults: dict[str, int]
    coverage: dict[Cell, int]
    outcomes: dict[str, int]
    asked: dict[str, int]
    steps: dict[str, int]
    digest: str
    trace: tuple[str, ...]


class LogWatch(logging.Handler):
    """Turns what the product logs as an error into a violation: in a simulation nothing may go wrong unseen."""

    def __init__(self, history: History) -> None:
        """Watch for errors."""
        super().__init__(logging.ERROR)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        """Note an error, unless it is that a violation already noted stopped a peer, or a disk that is to be full."""
        cause = record.exc_info[1] if record.exc_info else None
        said = record.args if isinstance(record.args, tuple) else ()
        if not isinstance(cause, Violation) and not any(isinstance(word, PlannedFull) for word in (cause, *said)):
            why = f" ({type(cause).__name__}: {cause})" if cause else ""
            self._history.fail("NothingFails", f"{record.getMessage()}{why}")


class Simulation:
    """One run, decided by its seed.

    ::

        report = Simulation(7).run()
        assert report.failure is None, report.failure

    Attributes:
        machine: what the machines of all members had become at the end; None until they are found equal.
    """

    def __init__(
        self,
        seed: int,
        workload: Workload | None = None,
        *,
        profile: Profile | None = None,
        keep_trace: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            seed: any whole number.
            workload: what the clients do; that of ``quorate.machines.KV``, or of ``TellingKV``, when None.
            profile: the world; drawn from the seed when None.
            keep_trace: whether the report holds the whole trace.
        """
        self.seed = seed
        self.loop: VirtualLoop = VirtualLoop()
        self.profile: Profile = profile or Profile.draw(self._random("profile"))
        self._chance = self._random("calls")
        self.workload: Workload = workload or usual_workload(self.profile)
        self.trace: Trace = Trace(self.loop.time, None if keep_trace else KEPT_LINES)
        count = self.profile.size + self.profile.spares
        addresses = [Address(f"peer{n}", "127.0.0.1", 7000 + n) for n in range(1, count + 1)]
        self.history: History = History([address.name for address in addresses], self._alarm)
        self.network: SimulatedNetwork = SimulatedNetwork(self.loop, self._random("network"))
        self.processes: list[Process] = [
            Process(
                address,
                self.workload.machine,
                self.profile.settings,
                self.loop,
                self.network,
                self.history,
                self._random(address.name),
                self._note,
            )
            for address in addresses
        ]
        self._violated: asyncio.Future[None] = self.loop.create_future()
        self.machine: StateMachine | None = None
        self.steps: Counter[str] = Counter()
        self.faults: Faults = Faults(
            self.profile, self.processes, self.loop, self.network, self.history, self.trace, self._random("faults")
        )
        self.operator: Operator = Operator(
            self.profile, self.processes, self.loop, self.history, self.trace, self._random("operator")
        )
        self.clients: Clients = Clients(
            self.workload,
            self.profile,
            self.processes,
            self.loop,
            self.network,
            self.history,
            self.trace,
            self._random("clients"),
        )

        self.watchers: Watchers = Watchers(
            self.workload.machine,
            self.profile.settings,
            addresses,
            self.loop,
            self.network,
            self.history,
            self._random("watchers"),
        )

    def run(self) -> Report:
        """Run to the end, or to the first violation."""
        watch = LogWatch(self.history)
        collects = gc.isenabled()
        gc.disable()  # It would take its time, and its moment depends on what else this interpreter has done.
        logger = logging.getLogger("quorate")
        logger.addHandler(watch)
        propagates, logger.propagate = logger.propagate, False
        self.loop.set_exception_handler(self._unseen)
        try:
            try:
                self.loop.run_until_complete(self._run())
            except Stalled as error:
                self.history.fail("NothingStalls", str(error))
            gc.collect(0)  # A task that nobody refers to any more says only now what went wrong in it.
            report = self._report()
            self._sweep()
        finally:
            logger.removeHandler(watch)
            logger.propagate = propagates
            self.loop.close()
            if collects:
                gc.enable()
        return report

    # The story.

    async def _run(self) -> None:
        """Tell the story, up to the first violation.

        Raises:
            CancelledError: somebody else ended it.
            Exception: the simulator itself is at fault.
        """
        story = self.loop.create_task(self._story())
        self._violated.add_done_callback(lambda _: story.cancel())
        try:
            await story
        except (asyncio.CancelledError, Exception):
            if self.history.violation is None:
                raise

    async def _story(self) -> None:
        """Form the group, let clients and faults go on, heal, demand progress, stop."""
        await self._form()
        self.network.rates = self.profile.network
        for process in self.processes:
            process.disk_rates = self.profile.disk
            process.aside_rates = self.profile.aside
            process.drift = self.profile.drift
        self.watchers.begin()
        until = self.loop.time() + self.profile.span
        await asyncio.gather(self.clients.work(until), self.operator.work(until), self._break_and_heal(until))
        await self._demand_equality()
        self.operator.judge()
        await self.watchers.demand_all()
        await self.clients.close()
        for process in self.processes:
            if process.life is not None:
                await process.stop()
        await asyncio.sleep(0)  # What was cancelled comes to its end.
        left = [task for task in asyncio.all_tasks() if "_story" not in repr(task) and "_run" not in repr(task)]
        if left:
            self.history.fail("NothingLeaks", f"{len(left)} tasks are left when all has stopped")
        verdict = self.workload.judge(self.clients.recorder.operations())
        if verdict.is_linearizable is False:
            self.history.fail("Linearizability", verdict.text)

    async def _form(self) -> None:
        """Start all peers and form the group, and add what it is to have at once."""
        self.trace.add(FAULT_SYMBOL, "all", describe_profile(self.profile))
        founders = self.processes[: self.profile.size]
        for process in founders:
            process.kind = "voter"
            await process.start()
        patience = PATIENCE * self.profile.settings.election_timeout_max
        peer = self._peer(founders[0]).with_options(timeout=patience)
        await peer.set_configuration(*(process.address for process in founders))
        await peer.leader()
        kind = self.profile.first_added
        if kind is not None:
            first = self.processes[self.profile.size]
            first.kind = kind
            await first.start()
            await self.operator.add_first(peer, first, kind)

    async def _break_and_heal(self, until: float) -> None:
        """Inject faults until that instant; then heal a quorum, and then all, and demand progress of each."""
        await self.faults.strike(until)
        await self._demand_progress("a healed quorum", await self.faults.heal_core())
        await self.faults.heal()
        await self._demand_progress("the healed group", self.processes)

    async def _demand_progress(self, who: str, healed: Sequence[Process]) -> None:
        """Demand a committed write and an answered read, and so a leader, within ``PATIENCE`` election timeouts.

        They count from when nobody else than these leads, up to ``FOREIGN_PATIENCE`` in all.

        Raises:
            Violation: it does not come to that in time.
        """
        timeout, now = self.profile.settings.election_timeout_max, self.loop.time()
        patience, latest = PATIENCE * timeout, now + FOREIGN_PATIENCE * timeout
        deadline = now + patience
        # Nobody asks before: a client asks twenty times a second, and in slow worlds an election takes minutes.
        while not any(process.role == "leader" for process in self.processes):
            if self.loop.time() >= deadline:
                break
            await asyncio.sleep(0.01 * self.profile.pace)
        for is_write in (True, False):
            call = self._draw(is_write=is_write)
            while call is not None and not await self._is_answered(call):
                if any(process.role == "leader" and process not in healed for process in self.processes):
                    deadline = min(self.loop.time() + patience, latest)
                if self.loop.time() >= deadline:
                    text = f"{who} did not answer {call} within {patience:g} s: {self._statuses()}"
                    raise self.history.fail("LivenessFailure", text)
                await asyncio.sleep(0.05 * self.profile.pace)
                call = self._draw(is_write=is_write)

    async def _demand_equality(self) -> None:
        """Demand that no change is under way, and that all members apply the same, in machines that are equal then.

        They are also what a machine comes to that applies all that was ever applied, one entry after the other.

        Raises:
            Violation: it does not come to that in time, or they are not.
        """
        patience = PATIENCE * self.profile.settings.election_timeout_max
        deadline = self.loop.time() + patience + self.profile.settings.catch_up_timeout
        while not self._is_settled():
            if self.loop.time() >= deadline:
                text = f"the peers have not come to one state within {patience:g} s: {self._statuses()}"
                raise self.history.fail("LivenessFailure", text)
            await asyncio.sleep(0.02 * self.profile.pace)
        applies = [self._peer(process)._seat.apply for process in self._members()]
        states = {machine_state(apply.machine) for apply in applies if not apply.is_witness}
        if states != {self.history.replayed(self.workload.machine)}:
            raise self.history.fail("MachinesEqual", "the machines differ at the end, or from one that replays all")
        self.machine = next((apply.machine for apply in applies if not apply.is_witness), None)

    def _is_settled(self) -> bool:
        """Tell whether all members have the same settled configuration in force, and have applied all that anybody has.

        Who left with the last entry may have applied it before any of them.
        """
        configuration, last = self.history.configuration, self.history.runs[-1].last
        rafts = [self._peer(process)._seat.raft for process in self._members()]
        applied = {self._peer(process)._seat.apply.last_applied for process in self._members()}
        is_settled = configuration is not None and configuration.is_settled
        return is_settled and applied == {last} and all(raft.state.configuration == configuration for raft in rafts)

    def _members(self) -> list[Process]:
        """Give the processes of the members; a learner whose disk was lost on its way into the group has none."""
        configuration = self.history.configuration
        return [process for process in self.processes if configuration and configuration.member(process.id)]

    async def _is_answered(self, call: Call) -> bool:
        """Make one call by way of a client that has made none before, and tell whether it was answered."""
        patience = self.profile.settings.election_timeout_max
        outcome = await self.clients.call(NEWCOMER, call, patience)
        return isinstance(outcome, Rejected) or not isinstance(outcome, (QuorateError, asyncio.CancelledError))

    def _draw(self, *, is_write: bool) -> Call | None:
        """Draw a write or a read; None if the workload seems to have none."""
        calls = (self.workload.draw(self._chance) for _ in range(1000))
        return next((call for call in calls if call.is_write == is_write), None)

    # What is noted.

    def _note(self, name: str, raft: Raft, event: Event) -> None:
        """Trace an event of the core."""
        for ending, step in STEPS.items():
            if ending in event.text:
                self.steps[step] += 1
        if event.kind is not EventKind.IGNORED:
            symbol = ROLE_SYMBOLS[ROLE_NAMES[type(raft.state.role)]]
            self.trace.add(symbol, name, f"[{event.term}] {event.text}")

    def _alarm(self) -> None:
        """Let the run end: an invariant was violated."""
        self.trace.add(FAULT_SYMBOL, "all", f"VIOLATED {self.history.violation}")
        if not self._violated.done():
            self._violated.set_result(None)

    def _unseen(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Find fault with an exception that nobody caught."""
        error = context.get("exception")
        if not isinstance(error, Violation):
            self.history.fail("NothingFails", f"{context['message']}: {type(error).__name__}: {error}")

    def _random(self, name: str) -> Random:
        """Give a generator of its own to each part, so that they do not disturb one another."""
        return Random(f"{self.seed} {name}")

    def _peer(self, process: Process) -> Peer[Any]:
        """Give the peer of a process that runs."""
        peer = process.life.peer if process.life else None
        assert peer is not None, f"{process.name} does not run"
        return peer

    def _statuses(self) -> str:
        """Give all peers in a line."""
        lives = [process.life for process in self.processes]
        return ", ".join(repr(life.peer) if life else "down" for life in lives)

    def _report(self) -> Report:
        """Say how it went."""
        violation = self.history.violation
        events, span = self.history.events, self.loop.time()
        self.trace.add(
            FAULT_SYMBOL, "all", f"{events} events in {span:.3f} s, {len(self.history.committed)} entries committed"
        )
        return Report(
            seed=self.seed,
            failure=None if violation is None else str(violation),
            events=events,
            span=span,
            faults=dict(sorted(self.faults.coverage.kinds.items())),
            coverage=dict(sorted(self.faults.coverage.cells.items())),
            outcomes=dict(sorted(self.clients.outcomes.items())),
            asked=dict(sorted(self.operator.outcomes.items())),
            steps=dict(sorted(self.steps.items())),
            digest=self.trace.digest,
            trace=self.trace.lines,
        )

    def _sweep(self) -> None:
        """Cancel what a run that ended early left behind."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Stalled):
            for task in tasks:
                self.loop.run_until_complete(ended(task))


async def ended(task: asyncio.Task[Any]) -> None:
    """Wait until a task has ended, however."""
    with contextlib.suppress(BaseException):
        await task


def describe_profile(profile: Profile) -> str:
    """Give a profile in a line: what differs from seed to seed."""
    knobs = [
        "append_bytes_max",
        "in_flight_max",
        "cache_bytes_max",
        "apply_entries_max",
        "uncommitted_bytes_max",
        "snapshot_entries",
        "trailing_entries",
        "snapshot_chunk_bytes",
    ]
    settings = " ".join(f"{knob}={getattr(profile.settings, knob)}" for knob in knobs)
    crowd = f"{profile.size} peers and {profile.spares}, {profile.clients} clients, {profile.span:.1f} s"
    return f"{crowd}; {settings}; {profile.network}; {profile.disk}; {profile.aside}"
