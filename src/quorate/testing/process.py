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
from quorate.core.state import ROLE_NAMES
from quorate.errors import InvalidConfiguration, OutcomeUnknown, Stopped, StoreError, Unavailable
from quorate.loop import Clock
from quorate.machine import StateMachine
from quorate.node import Node
from quorate.peer import Peer
from quorate.seat import Seat
from quorate.settings import Settings
from quorate.store import Batch
from quorate.surroundings import Surroundings
from quorate.testing.clock import ProcessClock, VirtualLoop
from quorate.testing.disk import SimulatedDirectory, SimulatedDisk, SimulatedExecutor, SimulatedSnapshots
from quorate.testing.invariants import History
from quorate.testing.network import SimulatedNetwork, WatchedTransport
from quorate.testing.profile import CALM_DISK, DiskRates
from quorate.testing.watch import WatchedApply, WatchedRaft
from quorate.transport import Packet
from quorate.types import Address, Index, MemberKind, PeerId, Role, Run

WALL_START = 1_700_000_000.0
"""What wall clocks show when a simulation begins, give or take the skew of each."""
REFUSALS = (InvalidConfiguration, Unavailable, OutcomeUnknown, Stopped)
"""How joining a group may fail."""
Watch = Callable[[Raft, str, History, Callable[[Raft, Event], None]], WatchedRaft]
"""How a ``WatchedRaft`` is made: of a core, its peer's name, what may not be contradicted, and who is told events."""


@dataclass(slots=True)
class Life:
    """One life of a process, from start to stop or crash.

    Attributes:
        clock: its monotonic clock.
        node: the node.
        peer: its one peer; None until it has started.
        tasks: what programs in this process are at, their calls among it: it dies with the process.
        resumed_at: when it went on after its last pause, virtual seconds.
        stale_index: the highest index after which a stale read here was answered.
    """

    clock: ProcessClock
    node: Node
    peer: Peer[Any] | None = None
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)
    resumed_at: float = 0.0
    stale_index: Index = Index(0)


class Process:
    """A node of a simulation, over all its lives.

    Attributes:
        address: of its one peer.
        disk: what survives of its log.
        snapshots: what survives of its snapshots.
        disk_rates: how slow its disk is now.
        aside_rates: how slow that is with snapshots.
        life: the present one; None while it is down.
        changing: its start or stop, while one is under way.
        drift: its clock runs at most this much too fast or too slow, a share.
        join: the members of a group that it joins at its next start; empty to wait until somebody names it.
        kind: what its peer is or was in its group, or is to be; None with an empty disk.
        seen: told of every message, write and decision, by a word: for faults that wait for one.
        joined: told how joining a group ended: "ok", or the name of an error.
        watch: takes the place of a core that starts, as ``WatchedRaft`` does: whoever wants to see its inputs gives
            another.
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
        self.disk_rates: DiskRates = CALM_DISK
        self.aside_rates: DiskRates = CALM_DISK
        self.life: Life | None = None
        self.changing: asyncio.Task[None] | None = None
        self.drift: float = 0.0
        self.join: tuple[Address, ...] = ()
        self.kind: MemberKind | None = None
        self.seen: Callable[[str, str], None] = lambda _name, _kind: None
        self.joined: Callable[[str, str], None] = lambda _name, _word: None
        self.watch: Watch = WatchedRaft
        self._machine = machine
        self._settings = settings
        self._loop = loop
        self._network = network
        self._history = history
        self._random = random
        self._note = note
        self._skew = random.uniform(-3.0, 3.0)
        self._empty()

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.address.name

    @property
    def role(self) -> Role | None:
        """What its peer is now; None while it is down or starting."""
        peer = self.life.peer if self.life else None
        return ROLE_NAMES[type(peer._seat.raft.state.role)] if peer else None

    @property
    def id(self) -> PeerId:
        """The id of its peer; a wiped disk makes a new one."""
        return PeerId(self._directory.identity(self.name).id)

    @property
    def is_new(self) -> bool:
        """Whether its disk is as empty as it was in the beginning, and it is down."""
        return self.life is None and not self._is_used

    @property
    def is_witness(self) -> bool:
        """Whether its own log names its peer as a witness, or as one to be."""
        peer = self.life.peer if self.life else None
        state = peer._seat.raft.state if peer else None
        return state is not None and state.configuration is not None and state.configuration.is_witness(state.peer)

    @property
    def is_paused(self) -> bool:
        """Whether its process is paused."""
        return self.life is not None and self.life.clock.is_paused

    def start(self) -> asyncio.Task[None]:
        """Begin a new life, from what the disk holds; the task ends when the peer has started."""
        clock = ProcessClock(self._loop, 1.0 + self._random.uniform(-self.drift, self.drift))
        node = Node(self.address.node, settings=self._settings, surroundings=lambda: self._surroundings(clock))
        life = self.life = Life(clock, node)
        self._is_used = True
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
        self._lose()
        if life.peer is not None:
            life.peer._seat.snapshots.stop("it was killed")
        self._bury(life)

    def wipe(self) -> None:
        """Empty the disk of a process, which dies if it runs: whoever starts from it is another peer."""
        self.crash()
        self._history.wiped(self.name)
        self.kind = None
        self._empty()

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
        if batch.compaction is not None and not self.snapshots.holds(batch.compaction.snapshot):
            index = batch.compaction.snapshot.index
            self._history.fail("SnapshotBeforePointer", f"{self.name} points at snapshot {index}, which is not durable")
        self._history.written(self.name, batch, is_witness=self.is_witness)
        self.seen(self.name, "writes" if batch.compaction is None else "compacts")

    def persisted(self, count: int) -> None:
        """Show how many batches became durable."""
        self._history.persisted(self.name, count)

    def forgot(self) -> None:
        """Show that the rest is lost."""
        self._history.forgot(self.name)

    # Lives.

    async def _start(self, life: Life) -> None:
        """Start the node and its peer; a peer that joins a group goes on with that by itself."""
        await life.node.start()
        seated = self._loop.create_future()
        loop, clock = life.node._loop, life.clock
        assert loop is not None, "a running node has its loop"
        add = loop.add

        def watch(seat: Seat) -> None:
            raft = self.watch(seat.raft, self.name, self._history, self._noted)
            apply = WatchedApply(seat.apply, self.name, self._history)
            apply.check_age = lambda age: raft.check_age(clock.time() - age, apply.last_applied)
            raft.is_waited_for = lambda read: read in seat._reads._rounds
            seat.raft, seat.apply = raft, apply
            life.peer = life.node.peers[0]
            add(seat)
            seated.set_result(None)

        loop.add = watch  # type: ignore[method-assign]
        starting = life.node.start_peer(
            self._machine, name=self.name, join=self.join or None, kind=self.kind or "voter"
        )
        if not self.join:
            await starting
            return
        task = self._loop.create_task(starting)
        life.tasks[task] = None
        task.add_done_callback(lambda done: self._has_joined(life, done))
        await seated

    def _has_joined(self, life: Life, task: asyncio.Task[Peer[Any]]) -> None:
        """Note how joining ended; one that was refused leaves a node without a peer."""
        life.tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or self.life is not life or self.changing is not None:
            return
        self.joined(self.name, type(error).__name__ if error else "ok")
        self.join = ()
        if error is None:
            return
        if not isinstance(error, REFUSALS):
            self._history.fail("StartsAndStops", f"{self.name}: {type(error).__name__}: {error}")
        life.peer = None
        _ = self._run(life, self._stop(life))

    async def _stop(self, life: Life) -> None:
        """Stop the node."""
        await life.node.stop()
        self._lose()
        self.life = None

    def _bury(self, life: Life) -> None:
        """Cancel what goes on in a process that was killed, and what begins when that is cancelled, until all is over.

        A program that is killed clears up nothing.
        """
        for task in list(life.tasks):
            task.cancel()
        if (left := life.node._ending.task) is not None:
            left.cancel()
        if life.tasks:
            self._loop.call_soon(self._bury, life)

    def _lose(self) -> None:
        """Lose what is not durable when a life ends, and look at what is left."""
        self.disk.crash(self._random)
        self.snapshots.crash(self._random)
        runs: list[Run] = []
        try:
            _ = self.disk.load(self.name, runs.append)
        except StoreError as error:
            self._history.fail("DiskTruth", str(error))
        else:
            self._history.check_disk(self.name, runs)

    def _empty(self) -> None:
        """Begin with an empty disk."""
        random = self._random
        self.disk: SimulatedDisk = SimulatedDisk(self)
        self.snapshots: SimulatedSnapshots = SimulatedSnapshots(self._stepped_aside)
        self._directory = SimulatedDirectory(self.snapshots, lambda: f"{random.getrandbits(64):016x}")
        self._is_used = False

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
            aside=SimulatedExecutor(self._loop, clock, self.snapshots, lambda: self.aside_rates.draw(self._random)),
            clock=as_clock,
            wall=lambda: WALL_START + self._skew + self._loop.time(),
            random=self._random,
            directory=lambda _address: self._directory,
            store=lambda _directory: self.disk,
        )

    def _stepped_aside(self, step: str) -> None:
        """Show what was done with snapshots."""
        if step == "drops":
            self._history.check_kept(self.name, self.snapshots.holds)
        self.seen(self.name, step)

    def _noted(self, raft: Raft, event: Event) -> None:
        """Pass an event of the core on."""
        self._note(self.name, raft, event)
        self.seen(self.name, event.text.rpartition("-> ")[2].partition(" ")[0])

    def _sent(self, packets: Sequence[Packet]) -> None:
        """Show packets before they leave."""
        self._history.sent(self.name, packets)
        for packet in packets:
            self.seen(self.name, str(packet.message.__struct_config__.tag))
