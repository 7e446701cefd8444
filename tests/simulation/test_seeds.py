"""The simulator finds nothing wrong, in KV and in a machine of the user's own."""

from random import Random
from typing import Any

import pytest

from quorate import Rejected, StateMachine, read, write
from quorate.testing import Simulation, SimulationFailure, simulate
from quorate.testing.profile import Profile


class Tally(StateMachine):
    total: int

    def __init__(self) -> None:
        self.total = 0

    @write
    def add(self, number: int) -> int:
        if number > 8:
            raise Rejected("too_much", number)
        self.total += number
        return self.total

    @read
    def get(self) -> int:
        return self.total


class Forgetful(StateMachine):
    """Not deterministic: each peer's machine counts for itself."""

    made = 0
    value: int

    def __init__(self) -> None:
        Forgetful.made += 1
        self.value = Forgetful.made

    @write
    def add(self, number: int) -> int:
        self.value += number
        return self.value


def draw_tally(random: Random) -> tuple[Any, ...]:
    return (Tally.get,) if random.random() < 0.3 else (Tally.add, random.randrange(10))


@pytest.mark.parametrize("seed", range(30))
def test_a_seed_runs_clean(seed: int) -> None:
    report = Simulation(seed).run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])
    assert report.outcomes["ok"] > 0
    assert report.events > 0


def test_a_leader_on_bad_links_is_waited_for_if_it_was_not_healed() -> None:
    # Its messages were up to two seconds late: it led on for five of the six that the healed quorum had, and hardly
    # committed anything. Nobody deposes whoever is heard and answered in time, however slow all else is.
    report = Simulation(211375).run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])


def test_a_witness_that_was_removed_while_it_was_cut_off_is_sent_no_commands_when_it_comes_back() -> None:
    # Its leader had taken a snapshot meanwhile, so that no configuration that it still held named the witness; the log
    # reached further back, and was sent with all that commands say.
    report = Simulation(501727).run()
    assert report.failure is None, "\n".join([*report.trace, str(report.failure)])


def test_the_worlds_differ() -> None:
    profiles = [Profile.draw(Random(seed)) for seed in range(100)]
    assert {profile.pace for profile in profiles} == {1.0, 10.0, 30.0, 100.0, 300.0}
    assert min(profile.span for profile in profiles) < 1.0
    assert max(profile.span for profile in profiles) > 300.0
    assert {profile.size for profile in profiles} == {1, 2, 3, 4, 5}
    assert max(profile.size + profile.spares for profile in profiles) == 7
    assert len({profile.settings.snapshot_entries for profile in profiles}) > 3
    assert {profile.settings.trailing_entries for profile in profiles} >= {0, 20}
    assert {profile.network.fifo for profile in profiles} == {True, False}
    assert len({profile.settings.append_bytes_max for profile in profiles}) > 3
    assert {profile.settings.in_flight_max for profile in profiles} >= {1, 32}
    assert 0 in {profile.settings.cache_bytes_max for profile in profiles}
    assert {profile.added for profile in profiles} == {None, "learner", "witness"}


def test_faults_strike_leaders_and_followers() -> None:
    missing = {
        ("crash", "leader"),
        ("crash", "follower"),
        ("crash", "learner"),
        ("crash", "witness"),
        ("slow disk", "candidate"),
        ("pause", "leader"),
        ("stop", "follower"),
        ("loss", "leader"),
        ("reorder", "learner"),
        ("repeat", "follower"),
        ("cut", "joint"),
        ("partition, halves", "group"),
    }
    for seed in range(100):
        missing -= {(kind, role) for kind, role, _ in Simulation(seed).run().coverage}
        if not missing:
            break
    assert not missing


def test_faults_strike_while_the_group_does_what_it_does_seldom() -> None:
    missing = {("crash", "transfer"), ("crash", "snapshot"), ("pause", "changing"), ("reset", "transfer")}
    for seed in (303, 367, *range(200)):
        missing -= {(kind, phase) for kind, _, phase in Simulation(seed).run().coverage}
        if not missing:
            break
    assert not missing


LIFE = {
    "configuration that waits",
    "joint configuration",
    "snapshot installed",
    "snapshot sent",
    "snapshot taken",
    "transfer",
    "add ok",
    "join ok",
    "remove ok",
    "turn ok",
    "prefer ok",
    "transfer ok",
    "snapshot ok",
    "empty disk",
}
"""What a group does and is asked for, in the words of a report."""


def test_the_group_lives() -> None:
    missing = set(LIFE)
    for seed in range(100):
        report = Simulation(seed).run()
        assert report.failure is None
        missing -= {*report.steps, *report.asked}
        if not missing:
            break
    assert not missing


def test_a_machine_of_the_users_own() -> None:
    reports = simulate(Tally, draw_tally, seeds=range(3))
    assert [report.seed for report in reports] == [0, 1, 2]
    assert all(report.outcomes["ok"] for report in reports)


def test_a_machine_that_is_not_deterministic_is_found_out() -> None:
    with pytest.raises(SimulationFailure, match="MachinesEqual") as failure:
        simulate(Forgetful, lambda random: (Forgetful.add, random.randrange(10)), seeds=range(10))
    assert "VIOLATED" in str(failure.value)
