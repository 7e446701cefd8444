"""One node of a simulation: its disk and identities, which survive, and its process, which may be killed and paused.

Everything in a process is the real shell and the real core; what they live in is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from quorate.core import Event, Raft
from quorate.loop import Clock
from quorate.machine import StateMachine
from quorate.node import Node, Surroundings
from quorate.peer import Peer
from quorate.settings import Settings
from quorate.store import Batch
from quorate.store.directory import MemoryDirectory
from quorate.testing.clock import ProcessClock, VirtualLoop
from quorate.testing.disk import SimulatedDisk, SimulatedExecutor
from quorate.testing.invariants import History
from quorate.testing.network import SimulatedNetwork, WatchedTransport
from quorate.testing.profile import CALM_DISK, DiskRates
from quorate.testing.watch import WatchedApply, WatchedRaft
from quorate.transport import Packet
from quorate.types import Address, Role

WALL_START = 1_700_000_000.0
"""What wall clocks show when a simulation begins, give or take the skew of each."""


@dataclass(slots=True)
class Life:
    """One life of a process, from start to stop or crash.

    Attributes:
        clock: its monotonic clock.
        node: the node.
        peer: its one peer; None until it has started.
        tasks: what programs in this process are at, their calls among it: it dies with the process.
        resumed_at: when it went on after its last pause, virtual seconds.
    """

    clock: ProcessClock
    node: Node
    peer: Peer[Any] | None = None
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    resumed_at: float = 0.0


class Process:
    """A node of a simulation, over all its lives.

    Attributes:
        address: of its one peer.
        disk: what survives of its log.
        disk_rates: how slow that is now.
        life: the present one; None while it is down.
        changing: its start or stop, while one is under way.
        drift: its clock runs at most this much too fast or too slow, a share.
        seen: told of every message, write and decision, by a word: for faults that wait for one.
    """

    def __init__(
        self,
        address: Address,
        machine: type[StateMachine],
        settings: Settings,
        loop: VirtualLoop,
        network: SimulatedNetwork,
        history: History,
        random: Random,
        note: Callable[[str, Raft, Event], None],
    ) -> None:
        """Prepare a process that is down, with an empty disk."""
        self.address = address
        self.disk: SimulatedDisk = SimulatedDisk(self)
        self.disk_rates: DiskRates = CALM_DISK
        self.life: Life | None = None
        self.changing: asyncio.Task[None] | None = None
        self.drift: float = 0.0
        self.seen: Callable[[str, str], None] = lambda _name, _kind: None
        self._machine = machine
        self._settings = settings
        self._loop = loop
        self._network = network
        self._history = history
        self._random = random
        self._note = note
        self._directory = MemoryDirectory(lambda: f"{random.getrandbits(64):016x}")
        self._skew = random.uniform(-3.0, 3.0)

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.address.name

    @property
    def role(self) -> Role | None:
        """What its peer is now; None while it is down or starting."""
        return self.life.peer.status().role if self.life and self.life.peer else None

    @property
    def is_paused(self) -> bool:
        """Whether its process is paused."""
        return self.life is not None and self.life.clock.is_paused

    def start(self) -> asyncio.Task[None]:
        """Begin a new life, from what the disk holds; the task ends when the peer has started."""
        clock = ProcessClock(self._loop, 1.0 + self._random.uniform(-self.drift, self.drift))
        node = Node(self.address.node, settings=self._settings, surroundings=lambda: self._surroundings(clock))
        life = self.life = Life(clock, node)
        return self._run(life, self._start(life))

    def stop(self) -> asyncio.Task[None]:
        """End this life as a program does, with ``Node.stop``; the task ends when it has."""
        assert self.life is not None, "only what runs can be stopped"
        return self._run(self.life, self._stop(self.life))

    def crash(self) -> None:
        """End this life as SIGKILL or a power cut does: at once."""
        life, self.life = self.life, None
        self.changing = None
        if life is None:
            return
        life.clock.kill()
        self._network.disconnect(self.address.node)
        self.disk.crash(self._random)
        for task in list(life.tasks):
            task.cancel()

    def pause(self) -> None:
        """Stop the process for a while: nothing runs, nothing is read, the disk finishes what it is at."""
        if self.life is not None:
            self.life.clock.pause()
            self._network.pause(self.address.node)

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.life is not None and self.life.clock.is_paused:
            self.life.resumed_at = self._loop.time()
            self.life.clock.resume()
            self._network.resume(self.address.node)

    # What its disk did: see ``quorate.testing.disk.Observer``.

    def written(self, batch: Batch) -> None:
        """Show a batch that was appended."""
        self._history.written(self.name, batch)
        self.seen(self.name, "writes")

    def persisted(self, count: int) -> None:
        """Show how many batches became durable."""
        self._history.persisted(self.name, count)

    def forgot(self) -> None:
        """Show that the rest is lost."""
        self._history.forgot(self.name)

    # Lives.

    async def _start(self, life: Life) -> None:
        """Start node and peer, and put the peer under watch before it has its first turn."""
        await life.node.start()
        peer = await life.node.start_peer(self._machine, name=self.name)
        seat = peer._seat
        seat.raft = WatchedRaft(seat.raft, self.name, self._history, self._noted)
        seat.apply = WatchedApply(seat.apply, self.name, self._history)
        life.peer = peer

    async def _stop(self, life: Life) -> None:
        """Stop the node."""
        await life.node.stop()
        self.disk.crash(self._random)
        self.life = None

    def _run(self, life: Life, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what the process does to itself: it dies with it."""
        task = self.changing = self._loop.create_task(work)
        life.tasks[task] = None
        task.add_done_callback(lambda done: self._ended(life, done))
        return task

    def _ended(self, life: Life, task: asyncio.Task[None]) -> None:
        """Note that a start or stop ended; one that failed is a fault of the product."""
        life.tasks.pop(task, None)
        if self.changing is task:
            self.changing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._history.fail("StartsAndStops", f"{self.name}: {type(error).__name__}: {error}")

    def _surroundings(self, clock: ProcessClock) -> Surroundings:
        """Give a node the virtual world."""
        transport = WatchedTransport(self._network, self.address.node, self._settings, self._sent)
        as_clock: Clock = clock
        return Surroundings(
            transport=transport,
            executor=SimulatedExecutor(self._loop, clock, self.disk, lambda: self.disk_rates.draw(self._random)),
            clock=as_clock,
            wall=lambda: WALL_START + self._skew + self._loop.time(),
            random=self._random,
            directory=lambda _address: self._directory,
            store=lambda _directory: self.disk,
        )

    def _noted(self, raft: Raft, event: Event) -> None:
        """Pass an event of the core on."""
        self._note(self.name, raft, event)
        self.seen(self.name, event.text.rpartition("-> ")[2].partition(" ")[0])

    def _sent(self, packets: Sequence[Packet]) -> None:
        """Show packets before they leave."""
        self._history.sent(self.name, packets)
        for packet in packets:
            self.seen(self.name, str(packet.message.__struct_config__.tag))
