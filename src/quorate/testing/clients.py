"""The clients of a simulation: bursts of calls and idle times, through ``connect`` or from within a peer's process.

Each call must be answered by its deadline, and what it is told is held against the history.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec

from quorate.calling import describe
from quorate.client import Client, connect
from quorate.errors import MachineError, OutcomeUnknown, QuorateError, Rejected
from quorate.testing.clock import VirtualLoop
from quorate.testing.history.operations import CERTAINLY_NOT, Recorder
from quorate.testing.invariants import History
from quorate.testing.network import SimulatedNetwork
from quorate.testing.process import Life, Process
from quorate.testing.profile import Profile
from quorate.testing.trace import CLIENT_SYMBOL, Trace
from quorate.testing.workload import Call, Workload
from quorate.transport.memory import MemoryTransport
from quorate.types import StaleRead

SLACK = 0.5
"""How much later than its deadline a call may be answered, virtual seconds: replies travel.

What the clocks of processes have drifted apart comes on top: a call's deadline is an instant of the caller's clock.
"""
LEADER_SHARE = 0.7
"""The share of those that are made on a peer that believes it leads: there a wrong answer can come from."""
NEWCOMER = "client0"
"""The client that makes no calls of its own: it has nothing under way that a call of it would have to wait for."""
BURSTS_MAX = 4
"""How many bursts of one client may be under way: it goes on asking while a leader that is cut off cannot answer."""


class Clients:
    """All clients of one run.

    Attributes:
        outcomes: how many calls ended how.
        recorder: what the clients saw, on virtual time; without stale reads.
    """

    def __init__(
        self,
        workload: Workload,
        profile: Profile,
        processes: Sequence[Process],
        loop: VirtualLoop,
        network: SimulatedNetwork,
        history: History,
        trace: Trace,
        random: Random,
    ) -> None:
        """Prepare the clients that the profile names; they connect with their first calls."""
        self.outcomes: Counter[str] = Counter()
        self.recorder: Recorder = Recorder(self._instant)
        self._latest_instant: int = 0
        self._count = itertools.count()
        self._written: dict[str, list[tuple[int, int]]] = {}
        self._workload = workload
        self._machine = describe(workload.machine)
        self._profile = profile
        self._processes = processes
        self._loop = loop
        self._history = history
        self._trace = trace
        self._random = random
        addresses = [process.address for process in processes]
        self.clients: dict[str, Client[Any]] = {}
        for number in range(profile.clients + 1):
            name = f"client{number}"
            self.clients[name] = connect(
                workload.machine,
                *(random.sample(addresses, len(addresses)) if number else addresses),
                settings=profile.settings,
                transport=partial(MemoryTransport, network, f"{name}:1", profile.settings),
                random=random.random,
            )

    async def work(self, until: float) -> None:
        """Let all clients but ``client0`` make calls until that instant, and wait until the last one is answered."""
        await asyncio.gather(*(self._work(name, until) for name in self.clients if name != NEWCOMER))

    async def close(self) -> None:
        """Close all connections."""
        for client in self.clients.values():
            await client.close()

    async def call(self, name: str, call: Call, patience: float, life: Life | None = None) -> object:
        """Make one call, and hold what it is told against the history.

        Args:
            name: the client.
            call: what to call.
            patience: seconds until its deadline.
            life: the process from within which to call its peer; None to go by ``connect``.

        Returns:
            The reply, which may be None, or the error; a ``CancelledError`` when nobody waits any longer.
        """
        encoded = self._encode(call)
        place = next(self._count)
        number = self._invoke(name, call)
        floor = self._workload.began(call)
        if call.is_write:
            self._history.called(encoded)
        task = self._loop.create_task(self._ask(name, call, patience, life))
        if life is not None:
            life.tasks[task] = None
        overdue = self._loop.call_at(self._loop.time() + patience + self._slack, self._overdue, name, call, task, life)
        if self._random.random() < self._profile.cancel_share:
            self._loop.call_later(patience * self._random.random() ** 3, task.cancel)
        try:
            outcome: object = await task
        except asyncio.CancelledError as error:
            outcome = error
        except QuorateError as error:
            outcome = error
        finally:
            overdue.cancel()
            if life is not None:
                life.tasks.pop(task, None)
        self._record(number, outcome)
        self._judge(name, call, encoded, floor, outcome)
        if call.is_write and life is None and not isinstance(outcome, BaseException):
            self._check_order(name, place, encoded)
        if isinstance(outcome, StaleRead) and life is not None:
            if outcome.index < life.stale_index:
                text = f"{name}: {call} was answered after index {outcome.index}, and {life.stale_index} before"
                self._history.fail("StaleMonotonic", text)
            life.stale_index = outcome.index
        return outcome

    @property
    def _slack(self) -> float:
        """How much later than its deadline a call may be answered by now, virtual seconds."""
        return SLACK + self._profile.drift * self._loop.time()

    async def _work(self, name: str, until: float) -> None:
        """Be one client: think, then make some calls at once; few bursts may be under way before it waits for one."""
        random, profile = self._random, self._profile
        bursts: deque[asyncio.Future[list[object]]] = deque()
        while True:
            await asyncio.sleep(profile.pause * random.random() ** 2)
            if self._loop.time() >= until:
                break
            calls = [self._draw_call() for _ in range(random.randint(1, profile.burst))]
            patience = random.choice((*profile.patience, profile.settings.call_timeout))
            life = self._draw_life() if random.random() < profile.direct_share else None
            bursts.append(asyncio.gather(*(self.call(name, call, patience, life) for call in calls)))
            if len(bursts) > BURSTS_MAX:
                await bursts.popleft()
        await asyncio.gather(*bursts)

    def _draw_call(self) -> Call:
        """Draw a call, and what it must see if it reads."""
        call, drawn = self._workload.draw(self._random), self._random.random()
        if call.is_write or drawn >= self._profile.lease_share + self._profile.stale_share:
            return call
        return msgspec.structs.replace(call, consistency="lease" if drawn < self._profile.lease_share else "stale")

    def _draw_life(self) -> Life | None:
        """Draw a process that runs, most often one whose peer believes that it leads; None when there is none."""
        running = [process for process in self._processes if process.role is not None and not process.is_paused]
        leading = [process for process in running if process.role == "leader"]
        chosen = leading if leading and self._random.random() < LEADER_SHARE else running
        return self._random.choice(chosen).life if chosen else None

    async def _ask(self, name: str, call: Call, patience: float, life: Life | None) -> object:
        """Make the call itself."""
        target: Any = life.peer if life is not None else self.clients[name]
        bound = target.with_options(timeout=patience, consistency=call.consistency)
        if call.is_write:
            return await bound.write(call.method, *call.args)
        verb = bound.read_stale if call.consistency == "stale" else bound.read
        return await verb(call.method, *call.args)

    def _instant(self) -> int:
        """Give virtual nanoseconds that always rise: what was answered before a call began came before it."""
        self._latest_instant = max(self._latest_instant + 1, round(self._loop.time() * 1e9))
        return self._latest_instant

    def _invoke(self, name: str, call: Call) -> int | None:
        """Record that a call begins; None for a stale read, which need not be linearizable."""
        if call.consistency == "stale":
            return None
        return self.recorder.invoke(int(name.removeprefix("client")), call.method, *call.args)

    def _record(self, number: int | None, outcome: object) -> None:
        """Record how a call ended."""
        if number is not None and isinstance(outcome, BaseException):
            self.recorder.raised(number, outcome)
        elif number is not None:
            self.recorder.ok(number, outcome)

    def _encode(self, call: Call) -> bytes:
        """Give the bytes that the log will hold."""
        encode = self._machine.encode_write if call.is_write else self._machine.encode_read
        return encode(call.method, call.args)

    def _overdue(self, name: str, call: Call, task: asyncio.Task[object], life: Life | None) -> None:
        """Find fault with a call that was not answered in time, unless its process was paused."""
        now = self._loop.time()
        if task.done():
            return
        if life is not None and (life.clock.is_paused or now < life.resumed_at + self._slack):
            self._loop.call_at(now + self._slack, self._overdue, name, call, task, life)
            return
        self._history.fail("EveryCallResolves", f"{name}: {call} was not answered by its deadline")

    def _judge(self, name: str, call: Call, encoded: bytes, floor: object, outcome: object) -> None:
        """Hold what a call was told against the history."""
        word = "ok" if not isinstance(outcome, QuorateError) else type(outcome).__name__
        if isinstance(outcome, asyncio.CancelledError):
            self._finish(name, call, "cancelled")
            return
        self._finish(name, call, word, outcome)
        if isinstance(outcome, MachineError):
            self._history.fail("NoMachineError", f"{call}: {outcome}")
        elif isinstance(outcome, QuorateError) and not isinstance(outcome, Rejected):
            if call.is_write and isinstance(outcome, CERTAINLY_NOT):
                self._history.refused(encoded, word)
            elif not isinstance(outcome, (OutcomeUnknown, *CERTAINLY_NOT)):
                self._history.fail("ErrorsAreKnown", f"{call} raised {word}: {outcome}")
        else:
            if call.is_write:
                self._history.acknowledged(encoded)
            wrong = self._workload.answered(call, floor, outcome)
            if wrong is not None:
                self._history.fail("Linearizable", f"{name}: {wrong}")

    def _check_order(self, name: str, place: int, encoded: bytes) -> None:
        """Check that the writes of a client took effect in the order of its calls, as far as they were answered.

        Args:
            name: the client.
            place: of the call among all calls.
            encoded: what it wrote.
        """
        index = self._history.place(encoded)
        if index is None:
            return
        written = self._written.setdefault(name, [])
        at = bisect(written, (place, index))
        around = [*(one for _, one in written[:at][-1:]), index, *(one for _, one in written[at : at + 1])]
        if around != sorted(around):
            text = f"{name} made calls one after the other that took effect at {', '.join(map(str, around))}"
            self._history.fail("OrderOfCalls", text)
        written.insert(at, (place, index))

    def _finish(self, name: str, call: Call, word: str, outcome: object = None) -> None:
        """Count and trace the end of a call."""
        self.outcomes[word] += 1
        said = f" {outcome!r}"[:60] if word == "ok" else ""
        self._trace.add(CLIENT_SYMBOL, name, f"{call} -> {word}{said}")
