"""The simulator records what its clients see, and the checker alone finds what a planted fault leaves behind there."""

from random import Random
from typing import Any

import pytest

from quorate import StateMachine, read, write
from quorate.machines import KV
from quorate.testing import DrawnCalls, KVWorkload, Simulation
from quorate.testing.history.files import read_history, write_history
from quorate.testing.history.kv import check_kv
from quorate.testing.invariants import History
from quorate.testing.workload import Call
from tests.simulation.searching import first_failure, usual_world
from tests.suites.story import TIMEOUT, Story


class Forgetful(KV):
    """Loses every seventh of the values that it says it has set, on every peer alike."""

    @write
    def set(self, key: str, value: str) -> str:
        if int(value.partition(".")[0]) % 7 == 0:
            return value
        self.entries[key] = value
        return value


class Doubling(KV):
    """Appends every seventh text twice, on every peer alike; the reply shows it once."""

    @write
    def append(self, key: str, value: str) -> str:
        reply = self.entries.get(key, "") + value
        self.entries[key] = reply + value if int(value.partition(".")[0]) % 7 == 0 else reply
        return reply


class Total(StateMachine):
    """Adds up, and shows it."""

    total: int

    def __init__(self) -> None:
        self.total = 0

    @write
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @read
    def show(self) -> int:
        return self.total


class Wrong(Total):
    """Shows what is not there, as no model of its own can find, and the model it should have can."""

    @read
    def show(self) -> int:
        return self.total - self.total % 2


MANY_CALLS = usual_world(span=1.5, clients=4, pause=0.05)


def faulty_kv(machine: type[KV], monkeypatch: pytest.MonkeyPatch) -> KVWorkload:
    """Give calls for a machine that is no ``KV``, to be judged as if it were one."""
    monkeypatch.setattr(KVWorkload, "answered", lambda *_: None)
    workload = KVWorkload(16)
    workload.machine = machine
    return workload


@pytest.mark.parametrize("machine", [Forgetful, Doubling])
def test_a_machine_that_loses_or_doubles_is_caught(machine: type[KV], monkeypatch: pytest.MonkeyPatch) -> None:
    failure = first_failure(range(14, 34), lambda: faulty_kv(machine, monkeypatch), MANY_CALLS)
    assert failure.startswith("Linearizability: not linearizable, '")
    assert "does not fit" in failure


async def ask_a_leader_that_is_cut_off(story: Story) -> None:
    old = await story.leader()
    await story.clients.call("client1", Call(KV.set, ("k", "1"), True), TIMEOUT, old.life)
    story.cut_off(old)
    new = await story.leader()
    await story.clients.call("client2", Call(KV.set, ("k", "2"), True), TIMEOUT, new.life)
    await story.clients.call("client3", Call(KV.get, ("k",), False, "lease"), TIMEOUT, old.life)


def test_reads_without_a_quorum_round_are_caught_by_what_clients_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Story(7, 3, ask_a_leader_that_is_cut_off).run().failure is None
    monkeypatch.setattr("quorate.core.raft.quorum_heard", lambda state: state.now)  # It leads on where it is alone,
    monkeypatch.setattr("quorate.core.reads.has_lease", lambda state, leader: True)  # answers from what it has applied,
    monkeypatch.setattr(History, "check_read", lambda *_: None)  # and those who know the log look away.
    failure = Story(7, 3, ask_a_leader_that_is_cut_off).run().failure
    assert failure is not None
    assert failure.splitlines()[0] == "Linearizability: not linearizable, 'k'"
    assert failure.splitlines()[-1] == "then client 3  get('k') -> '1' does not fit: '2' is right"


def test_any_machine_is_held_against_a_model() -> None:
    def draw(random: Random) -> tuple[Any, ...]:
        return (Total.show,) if random.random() < 0.4 else (Total.add, random.randrange(10))

    def wrong() -> DrawnCalls:
        workload = DrawnCalls(Wrong, draw)
        model = DrawnCalls(Total, draw)
        workload.judge = model.judge  # type: ignore[method-assign]
        return workload

    assert first_failure(range(3), lambda: DrawnCalls(Total, draw), MANY_CALLS) == "nothing"
    assert first_failure(range(10), wrong, MANY_CALLS).startswith("Linearizability: not linearizable\n")


def test_what_clients_saw_can_be_written_and_judged_by_others(tmp_path: Any) -> None:
    path = tmp_path / "history.jsonl"
    for seed in (1, 2):
        simulation = Simulation(seed)
        assert simulation.run().failure is None
        operations = simulation.clients.recorder.operations()
        write_history(path, operations)
        read = read_history(path)
        assert len(read) == len(operations) > 10
        assert check_kv(read).is_linearizable is True
