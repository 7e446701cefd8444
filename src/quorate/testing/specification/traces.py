"""Traces of the real core, each explained step by step by the abstract Raft: the command, and the walk that makes them.

A group of bare ``Raft`` objects (``group.py``) is walked at random: messages are lost, repeated and reordered, disks
wait, peers crash, members change, snapshots are taken, leadership is handed over. Everything is decided by a seed.
Whether a step is right is not decided here, but in ``refinement.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random

from quorate.core import Envelope, Raft
from quorate.core.invariants import facts
from quorate.core.messages import InstallSnapshot
from quorate.core.state import Leader
from quorate.errors import ConfigurationError, NotLeader
from quorate.settings import Settings
from quorate.testing.contents import Contents
from quorate.testing.drive import make_member
from quorate.testing.group import Group, Packet
from quorate.testing.record import Peer
from quorate.testing.specification.abstract import Unexplained
from quorate.testing.specification.refinement import Refinement, SpecifiedRaft
from quorate.types import HardState, MemberKind, PeerId

NAMES = [PeerId(name) for name in "123456"]
"""All who may ever be members."""
CHUNK = 8
"""How many traces a process is given at once."""
LINES_SHOWN = 60
"""How many of the last steps of a trace that failed are printed."""


@dataclass(slots=True)
class Outcome:
    """What became of some traces.

    Attributes:
        traces: how many.
        steps: inputs explained.
        stutters: those that changed nothing which the specification knows of.
        actions: how often each action was taken.
        failure: the first step that no action explains, with the trace that led there; None when all are explained.
    """

    traces: int = 0
    steps: int = 0
    stutters: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    failure: str | None = None

    def add(self, other: Outcome) -> None:
        """Count other traces too."""
        self.traces += other.traces
        self.steps += other.steps
        self.stutters += other.stutters
        self.actions.update(other.actions)
        self.failure = self.failure or other.failure


class Walk(Group):
    """One trace: a group whose every step is explained, in a world that one seed decides.

    Attributes:
        refinement: what explains the steps.
    """

    def __init__(self, seed: int) -> None:
        """Start the founders from one first configuration, and the others from nothing."""
        self.refinement: Refinement = Refinement()
        self._dice = dice = Random(seed)
        self._number = 0
        self._pace = dice.choice([0.005, 0.01])
        self._loss = dice.choice([0.0, 0.05, 0.2])
        self._disorder = dice.choice([0.0, 0.3, 1.0])
        self._haste = dice.choice([0.3, 0.9])
        self._trouble = dice.choice([0.2, 1.0, 3.0])
        timeout = self._pace * dice.choice([20, 40, 100])
        settings = Settings(
            heartbeat_interval=timeout / 4,
            election_timeout_min=timeout,
            election_timeout_max=2 * timeout,
            in_flight_max=dice.choice([1, 2, 8]),
            trailing_entries=dice.choice([0, 4, 100]),
            snapshot_entries=dice.choice([1, 4]),
            append_bytes_max=dice.choice([64, 1 << 20]),
            command_bytes_max=16,
            catch_up_timeout=4 * timeout,
        )
        founders = dice.choice([1, 3, 3, 4, 5])
        super().__init__(founders, settings, lambda _name, _what: None)
        for name in NAMES[founders:]:
            self.place(name, HardState(), Contents())

    def walk(self, steps: int) -> Outcome:
        """Walk until that many inputs are explained, or one is not."""
        failure = None
        try:
            while self.refinement.steps < steps:
                self._step()
        except Unexplained as error:
            lines = self.refinement.lines()
            failure = "\n".join([*lines[-LINES_SHOWN:], f"step {self.refinement.steps}: {error}"])
        seen = self.refinement
        return Outcome(1, seen.steps, seen.stutters, seen.actions, failure)

    # What differs from a group moved by hand.

    def place(self, name: PeerId, hard_state: HardState, log: Contents) -> None:
        """See ``Group.place``."""
        raft = Raft(name, self.settings, log.stored(hard_state), self._dice.random, self.now)
        specified = SpecifiedRaft(raft, log.entries, self.refinement)
        waits = self._dice.random() < 0.5
        self.peers[name] = Peer(specified, log.copy(), hard_state, log.copy(), facts(raft.state), disk_waits=waits)

    def obey(self, name: PeerId) -> None:
        """See ``Group.obey``; in most worlds often later, so that several inputs come before it."""
        if self._dice.random() < self._haste:
            super().obey(name)

    def _send(self, name: PeerId, peer: Peer, envelope: Envelope) -> None:
        """Send, unless what was offered was compacted while the message waited for the disk."""
        if not envelope.first or envelope.first > peer.log.start:
            super()._send(name, peer, envelope)

    def _check(self, name: PeerId, peer: Peer) -> None:
        """Check nothing more: each step is explained."""

    # The walk.

    def _step(self) -> None:
        """Let a little time pass: some messages arrive, all peers go on, and something happens to one."""
        dice = self._dice
        self.wait(dice.expovariate(1 / self._pace))
        for _ in range(4):
            if self.flight and dice.random() < 0.8:
                place = dice.randrange(len(self.flight)) if dice.random() < self._disorder else 0
                self._arrive(self.flight[place])
        for name, peer in self.peers.items():
            if peer.alive:
                self._go_on(name, peer)
        name = dice.choice(NAMES)
        if self.peers[name].alive:
            self._act(name, dice.random())
        elif dice.random() < 0.1:
            self.restart(name)

    def _go_on(self, name: PeerId, peer: Peer) -> None:
        """Let the shell of one peer go on: its clock, its core's wishes, its disk."""
        if peer.raft.deadline() <= self.now and self._dice.random() < 0.7:
            self.tick(name)
        if self._dice.random() < 0.3:
            super().obey(name)
        if peer.writes and self._dice.random() < 0.3:
            self.persist(name)

    def _arrive(self, packet: Packet) -> None:
        """Deliver a message, or lose it, or deliver it now and once more later."""
        is_lost = self._dice.random() < self._loss
        if not is_lost and self._dice.random() < self._loss / 2:
            self.flight.append(Packet(packet.sender, packet.to, packet.body, packet.is_lost))
        if is_lost:
            self.flight.remove(packet)
        else:
            self.deliver([packet])
        if isinstance(packet.message, InstallSnapshot) and self.peers[packet.sender].alive:
            self._try(lambda: self.shipped(packet.sender, packet.to, is_complete=not is_lost))

    def _act(self, name: PeerId, chance: float) -> None:
        """Do what comes next on a scale from 0 to 1; beyond what is listed nothing is done."""
        rare = 0.005 * self._trouble
        deeds: list[tuple[float, Callable[[PeerId], None]]] = [
            (0.35, self._propose),
            (0.05, lambda name: self._try(lambda: self.read(name))),
            (0.02, self._take_snapshot),
            (0.05, self._change),
            (0.005, lambda name: self._try(lambda: self.transfer(name, self._dice.choice([None, *NAMES])))),
            (0.01, lambda _name: self.cut.clear()),
            (0.015, self._part),
            (rare, self.crash),
            (rare, self._stall),
        ]
        for share, deed in deeds:
            chance -= share
            if chance < 0:
                deed(name)
                return

    def _try(self, act: Callable[[], object]) -> None:
        """Ask for something that may be refused."""
        with contextlib.suppress(NotLeader, ConfigurationError, ValueError):
            act()

    def _propose(self, name: PeerId) -> None:
        if not isinstance(self.peers[name].raft.state.role, Leader):
            return
        self._number += 1
        commands = [b"%d" % self._number] * self._dice.choice([1, 1, 3])
        self._try(lambda: self.propose(name, commands))

    def _take_snapshot(self, name: PeerId) -> None:
        super().obey(name)  # Only what was handed over can have been applied.
        self._try(lambda: self.snapshot(name, None))

    def _change(self, name: PeerId) -> None:
        kinds: list[MemberKind] = ["voter", "voter", "voter", "learner", "witness"]
        chosen = self._dice.sample(NAMES, self._dice.randint(1, 5))
        members = [make_member(one, self._dice.choice(kinds), self._dice.choice([0, 0, 1])) for one in chosen]
        self._try(lambda: self.change(name, members))

    def _part(self, name: PeerId) -> None:
        """Cut some or all links of one peer, in one direction or both."""
        share = self._dice.choice([0.7, 1.0])
        self.cut.clear()
        self.cut.update((name, other) for other in NAMES if self._dice.random() < share)
        self.cut.update([(b, a) for a, b in sorted(self.cut) if self._dice.random() < share])

    def _stall(self, _name: PeerId) -> None:
        """Let time pass in which nobody moves."""
        self.wait(self._dice.uniform(0, 0.5))


# The command.


def walk_some(first: int, count: int, steps: int) -> Outcome:
    """Walk some seeds, one after the other, until one fails."""
    outcome = Outcome()
    for seed in range(first, first + count):
        found = Walk(seed).walk(steps)
        outcome.add(found)
        if found.failure is not None:
            outcome.failure = f"trace {seed}\n{found.failure}"
            break
    return outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--traces", type=int, default=1000, help="how many traces (1000)")
    parser.add_argument("--steps", type=int, default=500, help="inputs in each of them, at least (500)")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first one (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")


def run(chosen: argparse.Namespace) -> int:
    """Walk, and print what was explained; give the exit status: 1 when a step was not."""
    begun, whole = time.monotonic(), Outcome()
    starts = range(chosen.first, chosen.first + chosen.traces, CHUNK)
    end = chosen.first + chosen.traces
    with ProcessPoolExecutor(chosen.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(walk_some, start, min(CHUNK, end - start), chosen.steps) for start in starts]
        for part in parts:
            whole.add(part.result())
            if whole.failure is not None:
                pool.shutdown(cancel_futures=True)
                break
    took = time.monotonic() - begun
    print(f"{whole.traces} traces, {whole.steps} steps in {took:.0f} s; {whole.stutters} of them stutter")
    for action, count in whole.actions.most_common():
        print(f"{count:10} {action}")
    print(whole.failure or "every step is explained")
    return 0 if whole.failure is None else 1
