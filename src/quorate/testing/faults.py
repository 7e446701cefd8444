"""The faults of one run: crashes, stops, pauses, partitions, slow disks, at drawn times or at drawn moments.

A moment is a step of the protocol, such as the sending of a vote: a crash right there tells whether what was promised
was durable, and a crash at random times almost never hits it. Each fault is counted: see ``coverage.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from quorate.core import Configuration
from quorate.testing.books import majorities
from quorate.testing.clock import VirtualLoop
from quorate.testing.coverage import Coverage, role_of, state_of
from quorate.testing.invariants import History
from quorate.testing.network import SHAPES, Rates, SimulatedNetwork
from quorate.testing.process import Process
from quorate.testing.profile import CALM_DISK, Profile
from quorate.testing.trace import FAULT_SYMBOL, Trace
from quorate.types import PeerId

MOMENTS = ["vote", "voted", "append", "appended", "writes", "leader", "candidate", "truncate", "timeout_now"]
MOMENTS += ["configuration", "snapshot", "piece", "received", "install", "compacts", "prevote"]
"""What a crash may wait for: a message sent (by its tag), a write to the disk, a decision of the core."""
SELDOM = ["hand", "send", "configuration"]
"""What any other fault may wait for, in the words of decisions of the core: leadership is handed over, a snapshot is
sent, the members change. These last so briefly that what comes at random times hardly ever comes then."""

HEALED_DELAY_MAX = 0.005
"""The longest delay of the healed network, seconds."""
DOWN_MAX = 1.2
"""The longest time for which a process is down or paused, seconds at the usual pace."""


class Faults:
    """Injects faults into the processes and the network of one run.

    Attributes:
        coverage: what struck whom, and when: what befell messages too.
    """

    def __init__(
        self,
        profile: Profile,
        processes: Sequence[Process],
        loop: VirtualLoop,
        network: SimulatedNetwork,
        history: History,
        trace: Trace,
        random: Random,
    ) -> None:
        """Do nothing yet."""
        self.coverage: Coverage = Coverage(processes)
        network.befell = self.coverage.befell
        self._profile = profile
        self._processes = processes
        self._loop = loop
        self._network = network
        self._history = history
        self._trace = trace
        self._random = random
        self._trap: tuple[str, str] | None = None
        self._ambush: tuple[str, Callable[[], None]] | None = None
        self._is_over = False
        for process in processes:
            process.seen = self._seen

    async def strike(self, until: float) -> None:
        """Inject faults until that instant."""
        acts = {
            self._crash_one: 4,
            self._set_trap: 5,
            self._lie_in_wait: 4,
            self._crash_majority: 1,
            self._crash_all: 1,
            self._stop: 2,
            self._pause: 3,
            self._partition: 6,
            self._mend: 2,
            self._release: 3,
            self._slow_disk: 2,
            self._full_disk: 1,
            self._reset: 2,
        }
        while True:
            pause = self._random.expovariate(1.0) * self._profile.fault_pause
            await asyncio.sleep(max(min(pause, until - self._loop.time()), 0.0))
            if self._loop.time() >= until:
                return
            act = self._random.choices(list(acts), list(acts.values()))[0]
            act()
            if act == self._partition:
                # Long enough that both sides act on it: one elects, the other has not noticed yet.
                await asyncio.sleep(2 * self._profile.settings.election_timeout_max * self._random.random())

    async def heal_core(self) -> list[Process]:
        """End the faults of a drawn quorum, and give it; whatever ails the rest, and more, stays so for ever.

        The quorum's own members all run and hear one another. The others are down, paused or slow; their links are cut,
        some one way, and what these carry is lost, late, doubled and out of order as before. Clients reach whoever
        runs: nobody is told of what a leader decides that they cannot reach.
        """
        self._end()
        # Nobody may change the members from here on: a quorum of those of now is to suffice.
        self._network.reset_all()
        for process in self._processes:
            if process.join:
                process.join = ()
                self._crash(process, "crash")
            process.resume()  # It may hold such a change, and begin it only now.
        await asyncio.sleep(HEALED_DELAY_MAX)
        core = self._draw_core()
        rest = [process for process in self._processes if process not in core]
        for process in core:
            self._cure(process)
        for process in rest:
            self._ail(process)
        ways = [way for one in rest for other in self._processes for way in both_ways(one, other)]
        self._network.rates_of = dict.fromkeys(ways, self._network.rates)
        self._network.rates = self._healed_rates()
        self._network.heal(but=self._network.rates_of)
        ways = [way for way in ways if self._random.random() < 0.5]
        self._network.cut(ways)
        names = ", ".join(sorted(process.name for process in core))
        kept = ", ".join(f"{self._label(a)}>{self._label(b)}" for a, b in ways) or "nothing"
        self._trace.add(FAULT_SYMBOL, "all", f"core healed: {names}; cut for ever, beside what was: {kept}")
        await self._run(core)
        return core

    def _ail(self, process: Process) -> None:
        """Let a process be down, paused or slow for ever, or run as it did."""
        match self._random.choice(("run", "run", "pause", "crash", "slow disk")):
            case "pause":
                self._pause(process)
            case "crash":
                self._crash(process, "crash")
            case "slow disk":
                self._slow_disk(process)
            case _:
                pass
        # One of these may lead on, with some of the core: Raft has no rule that deposes a leader for its slow disk.
        longest = self._profile.settings.election_timeout_max / 10
        rates = process.disk_rates
        process.disk_rates = msgspec.structs.replace(rates, latency=min(rates.latency, longest), stall=0.0)

    def _draw_core(self) -> list[Process]:
        """Draw processes that must be able to go on by themselves: a quorum of each configuration there may be.

        A witness may hold entries that nobody else does, and then votes for nobody: where there are some, all voters
        that hold data are needed.
        """
        possible = list(self._history.possible_configurations())
        states = [
            process.life.peer._seat.raft.state for process in self._processes if process.life and process.life.peer
        ]
        possible += [state.configuration for state in states if state.configuration]
        deciding = [group for configuration in possible for group in deciding_groups(configuration)]
        members = [member for configuration in possible for member in (*configuration.everyone, *configuration.target)]
        needed = {member.id for member in members if member.kind == "voter"}
        if all(member.kind != "witness" for member in members):
            needed.clear()
        core: list[Process] = []
        for process in self._random.sample(self._processes, len(self._processes)):
            lacking = [group for group in deciding if not majorities([group], {chosen.id for chosen in core})]
            if process.id in needed or any(process.id in group for group in lacking):
                core.append(process)
        return core

    async def heal(self) -> None:
        """End all faults: everything runs, everything is connected, and what was late arrives."""
        self._end()
        for process in self._processes:
            self._cure(process)
        self._network.rates_of.clear()
        self._network.rates = self._healed_rates()
        self._network.heal()
        self._network.release()
        self._trace.add(FAULT_SYMBOL, "all", "healed")
        await self._run([process for process in self._processes if not process.is_new])

    def _end(self) -> None:
        """Inject nothing more, and let nothing end by itself: what lasts now lasts until it is healed."""
        self._is_over = True
        self._trap = self._ambush = None
        for process in self._processes:
            process.seen = lambda _name, _kind: None

    def _cure(self, process: Process) -> None:
        """Give a process a good disk with room on it."""
        process.disk_rates = process.aside_rates = CALM_DISK
        process.snapshots.is_full = lambda: False

    def _healed_rates(self) -> Rates:
        """Give a network on which progress may rely: "broadcastTime ≪ electionTimeout" (Raft §5.6)."""
        usual = self._profile.network
        return Rates(delay_max=min(usual.delay_max, HEALED_DELAY_MAX), fifo=usual.fifo)

    async def _run(self, processes: Sequence[Process]) -> None:
        """See to it that these processes run."""
        for process in processes:
            process.resume()
        for process in processes:
            if process.changing is not None:
                await process.changing
            if process.life is None:
                await process.start()

    def _note(self, kind: str, process: Process) -> None:
        """Count and trace a fault."""
        self._trace.add(FAULT_SYMBOL, process.name, f"{kind} ({self.coverage.struck(kind, process)})")

    def _victim(self) -> Process | None:
        """Draw a process that runs: more often than chance would the leader's, or one of those that are few."""
        running = [process for process in self._processes if process.role is not None]
        if not running:
            return None
        alike: dict[str, list[Process]] = {}
        for process in running:
            alike.setdefault(role_of(state_of(process)), []).append(process)
        drawn = self._random.random()
        if drawn < 0.35 and "leader" in alike:
            return self._random.choice(alike["leader"])
        return self._random.choice(self._random.choice(list(alike.values())) if drawn < 0.75 else running)

    def _down_time(self) -> float:
        """Draw how long something lasts: often shorter than an election, sometimes longer."""
        return DOWN_MAX * self._profile.pace * self._random.random() ** 3

    def _crash(self, process: Process | None, kind: str) -> None:
        """Kill a process, and start it again later."""
        if process is None or process.life is None:
            return
        self._note(kind, process)
        process.crash()
        self._loop.call_later(self._down_time(), self._restart, process)

    def _crash_one(self) -> None:
        """Kill one process."""
        self._crash(self._victim(), "crash")

    def _crash_majority(self) -> None:
        """Kill a majority at one instant."""
        for process in self._random.sample(self._processes, len(self._processes) // 2 + 1):
            self._crash(process, "crash a majority")

    def _crash_all(self) -> None:
        """Kill all processes at one instant."""
        for process in self._processes:
            self._crash(process, "crash all")

    def _set_trap(self) -> None:
        """Kill one process at the next moment of some kind."""
        victim = self._victim()
        if victim is not None:
            self._trap = (victim.name, self._random.choice(MOMENTS))

    def _lie_in_wait(self) -> None:
        """Let something strike somebody when the group next does what it does seldom."""
        acts = [self._crash_one, self._crash_majority, self._crash_all, self._stop, self._pause]
        acts += [self._slow_disk, self._full_disk, self._reset]
        self._ambush = (self._random.choice(SELDOM), self._random.choice(acts))

    def _restart(self, process: Process) -> None:
        """Start a process that is down."""
        if process.life is None and not self._is_over:
            self._trace.add(FAULT_SYMBOL, process.name, "starts")
            _ = process.start()

    def _stop(self) -> None:
        """Stop a process as a program does, and start it again later."""
        process = self._victim()
        if process is None or process.role is None or process.changing is not None:
            return
        self._note("stop", process)
        wait = self._down_time()
        process.stop().add_done_callback(lambda _: self._loop.call_later(wait, self._restart, process))

    def _pause(self, chosen: Process | None = None) -> None:
        """Pause a process for a while."""
        process = chosen or self._victim()
        if process is None or process.role is None or process.is_paused:
            return
        self._note("pause", process)
        process.pause()
        self._loop.call_later(self._down_time(), self._resume, process)

    def _resume(self, process: Process) -> None:
        """Let a paused process go on."""
        if process.is_paused and not self._is_over:
            self._trace.add(FAULT_SYMBOL, process.name, "resumes")
            process.resume()

    def _partition(self) -> None:
        """Divide the group, in place of the partition there is, and put each client on some side."""
        if len(self._processes) < 2:
            return
        name = self._random.choice(list(SHAPES))
        leading = [process.name for process in self._processes if process.role == "leader"]
        nodes = self._random.sample([process.address.node for process in self._processes], len(self._processes))
        if leading and self._random.random() < 0.5:
            nodes.sort(key=lambda node: self._label(node) not in leading)
        ways = SHAPES[name](nodes, self._random)
        for number in range(1, self._profile.clients + 1):
            for process in self._processes:
                if self._random.random() < 0.2:
                    ways.append((f"client{number}:1", process.address.node))
        self._network.heal()
        self._network.cut(ways)
        self.coverage.struck(f"partition, {name}", None)
        cut = ", ".join(f"{self._label(a)}>{self._label(b)}" for a, b in ways)
        self._trace.add(FAULT_SYMBOL, "all", f"partition, {name}: cut {cut}; leading: {', '.join(leading) or 'nobody'}")

    def _label(self, node: str) -> str:
        """Give the name of who is at an address."""
        names = {process.address.node: process.name for process in self._processes}
        return names.get(node, node.partition(":")[0])

    def _mend(self) -> None:
        """End the partition there is."""
        self._network.heal()
        self._trace.add(FAULT_SYMBOL, "all", "heal")

    def _release(self) -> None:
        """Let some of the messages that were set aside arrive."""
        self._network.release(self._random.random())
        self._trace.add(FAULT_SYMBOL, "all", "release")

    def _slow_disk(self, chosen: Process | None = None) -> None:
        """Let each write of one disk take up to beyond an election timeout, for a while."""
        process = chosen or self._victim()
        if process is None or process.role is None:
            return
        self._note("slow disk", process)
        usual = self._profile.disk
        process.disk_rates = msgspec.structs.replace(
            usual, latency=self._profile.pace * self._random.choice((0.1, 0.9))
        )

        def recover() -> None:
            if not self._is_over:
                process.disk_rates = usual

        self._loop.call_later(2 * self._down_time(), recover)

    def _full_disk(self) -> None:
        """Let one disk have no room for snapshots, for a while."""
        process = self._victim()
        if process is None or process.role is None:
            return
        self._note("full disk", process)
        disk = process.snapshots
        disk.is_full = lambda: True

        def make_room() -> None:
            if not self._is_over:
                disk.is_full = lambda: False

        self._loop.call_later(2 * self._down_time(), make_room)

    def _reset(self) -> None:
        """Break all connections of one process: a snapshot on its way among them."""
        process = self._victim()
        if process is not None and process.role is not None:
            self._note("reset", process)
            self._network.reset(process.address.node)

    def _seen(self, name: str, kind: str) -> None:
        """Spring the trap, or end the ambush, when its moment has come: after what is under way, before all else."""
        if self._ambush is not None and self._ambush[0] == kind:
            (_, act), self._ambush = self._ambush, None
            self._loop.call_soon(act)
        if self._trap == (name, kind):
            self._trap = None
            process = next(process for process in self._processes if process.name == name)
            self._loop.call_soon(self._crash, process, f"crash at {kind}")


def both_ways(one: Process, other: Process) -> list[tuple[str, str]]:
    """Give the ways between two processes."""
    a, b = one.address.node, other.address.node
    return [(a, b), (b, a)] if one is not other else []


def deciding_groups(configuration: Configuration) -> list[tuple[PeerId, ...]]:
    """Give the ids of those whose majorities decide in a configuration, and once a change under way goes on."""
    target = tuple(member.id for member in configuration.target if member.votes)
    return [*configuration.groups, target] if target else list(configuration.groups)
