"""Reads by lease rest on clocks: within the bound the simulator finds nothing wrong, and beyond it stale reads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from quorate.core import election
from quorate.core.state import Follower, Leader, State, quorum_heard
from quorate.machines import KV
from quorate.testing import Simulation
from quorate.testing.clock import ProcessClock
from quorate.testing.network import Rates
from quorate.testing.process import Process
from quorate.testing.profile import CALM_DISK, Profile
from quorate.testing.workload import Call
from quorate.types import PeerId

CUTS = 3
"""How often the first peer is made the leader and then cut off."""


class CutOff(Simulation):
    """A run whose one fault is that the first peer leads, and then hears nobody; those in its process go on reading.

    With ``tell`` the others are told at once that it cannot be reached.
    """

    tell = False

    def __init__(self, seed: int, rates: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = Profile.draw_usual(Random(f"{seed} profile"))
        settings = msgspec.structs.replace(drawn.settings, election_timeout_max=0.35)
        super().__init__(
            seed,
            profile=msgspec.structs.replace(
                drawn,
                size=3,
                settings=settings,
                network=Rates(delay_max=0.002),
                disk=CALM_DISK,
                drift=0.0,
                spares=0,
                change_pause=float("inf"),
                span=CUTS * 2.5,
                clients=4,
                pause=0.05,
                burst=1,
                direct_share=0.0,
            ),
        )
        order = itertools.cycle(rates)  # Peers start in the order of their names, and never again.
        monkeypatch.setattr("quorate.testing.process.ProcessClock", lambda loop, _: ProcessClock(loop, next(order)))
        monkeypatch.setattr("quorate.testing.clients.SLACK", 60.0)  # Deadlines drift as well.
        monkeypatch.setattr(self.faults, "strike", self._strike)

    async def _strike(self, until: float) -> None:
        first, *others = self.processes
        ways = [(a.address.node, b.address.node) for other in others for a, b in ((first, other), (other, first))]
        for _ in range(CUTS):
            await self._lead(first)
            self.network.cut(ways)
            for other in others:
                if self.tell and other.life is not None:
                    other.life.node.lose_node(first.address.node)
            await self._read(first, self.loop.time() + 1.2)
            self.network.heal()
            await asyncio.sleep(0.8)
        await asyncio.sleep(max(0.0, until - self.loop.time()))

    async def _read(self, process: Process, until: float) -> None:
        """Read by lease from within a process."""
        while self.loop.time() < until:
            await self.clients.call("client1", Call(KV.get, ("a0",), False, "lease"), 0.1, process.life)
            await asyncio.sleep(0.01)

    async def _lead(self, process: Process) -> None:
        """Have a peer lead, and answer some reads: so its followers make the promises that leases rest on."""
        while process.role != "leader":
            leading = next((other for other in self.processes if other.role == "leader"), None)
            if leading is not None and leading.life is not None and leading.life.peer is not None:
                await asyncio.gather(leading.life.peer.transfer_leadership(process.name), return_exceptions=True)
            await asyncio.sleep(0.05)
        await self._read(process, self.loop.time() + 0.2)


def without_end(state: State, leader: Leader) -> bool:
    return leader.transfer is None and state.commit_index >= leader.first_index


def from_the_longest_timeout(state: State, leader: Leader) -> bool:
    return without_end(state, leader) and state.now < quorum_heard(state) + 2 * state.settings.election_timeout_max


class Lost(CutOff):
    tell = True


WITHIN = (0.91, 1.09, 1.09)
BEYOND = (0.3, 1.7, 1.7)


def test_clocks_within_the_bound_keep_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = CutOff(1, WITHIN, monkeypatch)
    assert simulation.profile.settings.clock_drift_max == 0.1
    report = simulation.run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])


def test_clocks_beyond_the_bound_break_it_and_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = CutOff(1, BEYOND, monkeypatch).run().failure
    assert str(failure).startswith("ReadFloor: peer1 reads at index"), failure


@pytest.mark.parametrize("lease", [without_end, from_the_longest_timeout], ids=lambda lease: lease.__name__)
def test_a_planted_lease_that_is_too_long_is_caught(
    lease: Callable[[State, Leader], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.core.reads.has_lease", lease)
    failure = CutOff(1, WITHIN, monkeypatch).run().failure
    assert str(failure).startswith("ReadFloor: peer1 reads at index"), failure


def test_who_loses_a_leader_that_lives_keeps_what_it_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Lost(3, WITHIN, monkeypatch).run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])


def test_a_planted_vote_in_spite_of_a_promise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_leader = election.lose_leader

    def lose(state: State, peer: PeerId) -> None:
        if isinstance(state.role, Follower):
            state.role.promised = float("-inf")
        lose_leader(state, peer)

    monkeypatch.setattr(election, "lose_leader", lose)
    failure = Lost(3, WITHIN, monkeypatch).run().failure
    assert str(failure).startswith("ReadFloor: peer1 reads at index"), failure
