"""A follower that is slow is not sent one snapshot after the other: the leader's log waits for it, a while."""

import math

import pytest

from quorate.settings import Settings
from quorate.testing.network import Rates
from quorate.testing.process import Process
from quorate.testing.profile import CALM_DISK, DiskRates, Profile
from quorate.testing.simulation import Simulation

SNAPSHOT_ENTRIES = 400
WORLD = Profile(
    size=3,
    settings=Settings(
        append_bytes_max=1024,
        command_bytes_max=512,
        in_flight_max=2,
        snapshot_entries=SNAPSHOT_ENTRIES,
        trailing_entries=40,
    ),
    network=Rates(),
    disk=CALM_DISK,
    drift=0.0,
    span=12.0,
    clients=4,
    pause=0.05,
    burst=12,
    value_bytes=0,
    fault_pause=math.inf,
)
SLOW_DISK = DiskRates(latency=0.3, stall=0.0, stall_max=0.0)
"""With it a follower takes in about half of what this leader writes."""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_follower_at_half_the_rate_of_its_leader_is_sent_two_snapshots_at_most(seed: int) -> None:
    simulation = Simulation(seed, profile=WORLD)
    slow: list[Process] = []

    def slow_down() -> None:
        slow.append(next(process for process in reversed(simulation.processes) if process.role == "follower"))
        slow[0].disk_rates = SLOW_DISK

    measured: list[tuple[int, int, int]] = []

    def measure() -> None:
        assert slow[0].life is not None
        assert slow[0].life.peer is not None
        committed = len(simulation.history.committed)
        behind = committed - slow[0].life.peer.status().last_applied
        measured.append((committed, behind, simulation.steps["snapshot sent"]))

    simulation.loop.call_at(1.0, slow_down)
    for tenth in range(15, 115):
        simulation.loop.call_at(tenth / 10, measure)
    report = simulation.run()
    assert report.failure is None
    until = next(place for place, (committed, _, _) in enumerate(measured) if committed > 8 * SNAPSHOT_ENTRIES)
    assert max(behind for _, behind, _ in measured[: until + 1]) > 2 * SNAPSHOT_ENTRIES, "it is too slow to follow"
    assert 1 <= measured[until][2] <= 2
