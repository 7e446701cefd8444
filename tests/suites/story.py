"""A simulation whose course a test tells: who is cut off, crashed and started when, and what is demanded meanwhile.

The whole library on the simulated network, as in ``quorate.testing.simulation``: with every invariant checked at each
step, and at the end all healed, a write and a read answered, and all machines equal. Time is virtual.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from quorate.errors import QuorateError, Rejected
from quorate.machines import KV
from quorate.settings import Settings
from quorate.testing.network import CALM, Rates, between
from quorate.testing.process import Process
from quorate.testing.profile import DiskRates, Profile
from quorate.testing.simulation import Report, Simulation
from quorate.testing.workload import Call, Workload
from quorate.transport import Packet
from quorate.transport.frames import decode_frame
from quorate.types import Index, Term

SETTINGS = Settings()
TIMEOUT = SETTINGS.election_timeout_max
"""The longest election timeout, seconds."""
PATIENCE = 10 * TIMEOUT
"""How long a story waits for what must come, virtual seconds."""
LOSSY = Rates(delay_max=0.027, loss=0.1, fifo=False)
"""A network that loses a tenth, and delays up to half a heartbeat."""
DISK = DiskRates(latency=0.003, stall=0.0, stall_max=0.0)


class Story(Simulation):
    """One run of a test.

    Attributes:
        chance: for what the test draws.
        away: the peers that are cut off from all others.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        tell: Callable[[Story], Awaitable[None]],
        *,
        network: Rates = CALM,
        load: float = 0.0,
        workload: Workload | None = None,
        spares: int = 0,
        settings: Settings = SETTINGS,
    ) -> None:
        """Prepare a group.

        Args:
            seed: decides everything that is drawn.
            size: how many peers.
            tell: what happens once there is a leader.
            network: how bad the network is meanwhile.
            load: for how many seconds three clients write and read beside it.
            workload: what they do; that of ``KV`` when None.
            spares: how many processes more may be made members.
            settings: the knobs of all of them.
        """
        profile = Profile(
            size=size,
            spares=spares,
            settings=settings,
            network=network,
            disk=DISK,
            drift=0.0,
            span=load,
            clients=3,
            pause=0.3,
            burst=2,
            value_bytes=16,
            fault_pause=math.inf,
        )
        super().__init__(seed, workload, profile=profile)
        self.chance: Random = self._random("story")
        self.away: dict[str, None] = {}
        self._tell = tell
        self._tokens = itertools.count(1)

    async def _break_and_heal(self, until: float) -> None:
        """Tell the story in place of drawn faults; then heal all, and demand progress."""
        await self._tell(self)
        self.network.rates = CALM
        await self.faults.heal()
        await self._demand_progress("the healed group", self.processes)

    # What a story does.

    def cut_off(self, *processes: Process) -> None:
        """Cut peers off from all others."""
        self.away |= dict.fromkeys(process.name for process in processes)
        self._link()

    def connect(self, *processes: Process) -> None:
        """Let peers that were cut off reach all others that are not."""
        for process in processes:
            self.away.pop(process.name, None)
        self._link()

    def _link(self) -> None:
        """Cut exactly those off that are away."""
        nodes = {process.name: process.address.node for process in self.processes}
        self.network.heal()
        for name in self.away:
            self.network.cut(between([nodes[name]], nodes.values()))

    async def restart(self, *processes: Process) -> None:
        """Crash peers that run, and start them all."""
        for process in processes:
            process.crash()
        for process in processes:
            await process.start()

    async def write(self, process: Process, size: int = 0, patience: float = TIMEOUT) -> str | None:
        """Write something of at least that size by way of one peer; give what, or None when it is not certain."""
        token = f"{next(self._tokens)}." + "v" * size
        return token if await self.wrote(process, token, patience) else None

    async def wrote(self, process: Process, token: str, patience: float = TIMEOUT) -> bool:
        """Set a key by way of one peer, and tell whether that was acknowledged."""
        if process.life is None or process.life.peer is None:
            return False
        call = Call(KV.set, (f"x{token}", token), True)
        outcome = await self.clients.call("client1", call, patience, process.life)
        return isinstance(outcome, Rejected) or not isinstance(outcome, (QuorateError, asyncio.CancelledError))

    async def add(self, process: Process) -> None:
        """Start a process with an empty disk, and make its peer a voter, by way of the leader."""
        process.kind = "voter"
        await process.start()
        await self._peer(await self.leader()).add_peer(process.address)

    async def agree(self, expected: int, size: int = 0) -> str:
        """Write something by way of whoever leads among those not cut off, until that many peers have applied it."""
        deadline = self.loop.time() + PATIENCE
        while self.loop.time() < deadline:
            for process in self.leaders():
                token = await self.write(process, size)
                if token is not None:
                    await self.reach_applied(token, expected)
                    return token
            await asyncio.sleep(0.05)
        raise AssertionError(f"no agreement among {expected}: {self._statuses()}")

    async def reach_applied(self, token: str, expected: int) -> None:
        """Wait until that many peers have applied what was written."""
        await self.reach(lambda: self.applied(token) >= expected, f"{token} on {expected} peers")

    async def leader(self) -> Process:
        """Wait for exactly one leader of the latest term among those not cut off, whom a majority follows."""
        found: list[Process] = []

        def is_led() -> bool:
            found[:] = self.leaders()
            return len(found) == 1 and self.followers(found[0]) > len(self.members()) // 2

        await self.reach(is_led, "one leader")
        return found[0]

    async def reach(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something is true.

        Raises:
            AssertionError: it does not become true in time.
        """
        deadline = self.loop.time() + PATIENCE
        while not holds():
            assert self.loop.time() < deadline, f"not within {PATIENCE} s: {what}: {self._statuses()}"
            await asyncio.sleep(0.01)

    # What a story sees.

    def leaders(self) -> list[Process]:
        """Give who leads among those not cut off: of each term there is one, by ``ElectionSafety``."""
        return [process for process in self.processes if process.name not in self.away and process.role == "leader"]

    def followers(self, leader: Process) -> int:
        """Count who runs, is not cut off, and follows this leader, itself among them."""
        reached = [process for process in self.processes if process.name not in self.away and process.role is not None]
        return sum(self.term(process) == self.term(leader) for process in reached if self.names(process) == leader.name)

    def names(self, process: Process) -> str | None:
        """Give the name of the leader that a peer knows."""
        leader = self._peer(process).status().leader
        return None if leader is None else leader.name

    def term(self, process: Process) -> Term:
        """Give the term of a peer that runs."""
        return self._peer(process).status().term

    def commit_index(self, process: Process) -> Index:
        """Give the commit index of a peer that runs."""
        return self._peer(process).status().commit_index

    def applied(self, token: str) -> int:
        """Count the machines that hold something written."""
        running = [process for process in self.processes if process.role is not None]
        return sum(f"x{token}" in self.machine_of(process).entries for process in running)

    def machine_of(self, process: Process) -> Any:
        """Look into the machine of a peer that runs."""
        return self._peer(process)._seat.apply.machine

    def members(self) -> list[Process]:
        """Give the members that the latest committed configuration names; before there is one, the founders."""
        return self._members() or self.processes[: self.profile.size]

    def others(self, *processes: Process) -> list[Process]:
        """Give all other members."""
        return [process for process in self.members() if process not in processes]

    def spare(self) -> list[Process]:
        """Give the processes that have never run."""
        return [process for process in self.processes if process.is_new]

    def slow_down(self, kinds: set[str], seconds: float) -> None:
        """Deliver frames that hold messages of these kinds, by their tags, so much later."""
        deliver = self.network.deliver

        def deliver_late(source: str, target: str, frame: bytes, arrive: Callable[[], None]) -> None:
            _, values = decode_frame(frame, SETTINGS.frame_bytes_max)
            tags = {str(value.message.__struct_config__.tag) for value in values if isinstance(value, Packet)}
            if kinds & tags:
                self.loop.call_later(seconds, deliver, source, target, frame, arrive)
            else:
                deliver(source, target, frame, arrive)

        setattr(self.network, "deliver", deliver_late)  # noqa: B010 - the network's own method, of this one object


def run(
    seed: int,
    size: int,
    tell: Callable[[Story], Awaitable[None]],
    *,
    network: Rates = CALM,
    load: float = 0.0,
    workload: Workload | None = None,
    spares: int = 0,
    settings: Settings = SETTINGS,
) -> Report:
    """Run a story, and fail with the end of its trace if an invariant was violated."""
    story = Story(seed, size, tell, network=network, load=load, workload=workload, spares=spares, settings=settings)
    report = story.run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])
    return report
