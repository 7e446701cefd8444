"""Faults planted in client sessions, each of which the simulator must catch, and what it calls them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from quorate import sessions
from quorate.sessions import Session, Sessions, is_over
from quorate.tables import Tables, frozen
from quorate.testing.simulation import Simulation
from quorate.tickets import Tickets

Plant = Callable[[pytest.MonkeyPatch], None]


def sessions_left_out_of_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate.apply.frozen", lambda _, chunks: frozen(Tables(), chunks))


def numbers_of_all_clients_in_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is taken for a repetition because another client's had the same number."""
    use = Sessions.use

    def confused(self, number, now):
        session = use(self, number, now)
        for other in self.by_id.values():
            while other.first <= session.next < other.next:
                session.keep(other.answers[session.next - other.first])
        return session

    monkeypatch.setattr(Sessions, "use", confused)


def expiry_by_a_local_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each peer asks its own clock, here one that runs differently in each machine's hands."""
    ticks = itertools.count()
    monkeypatch.setattr(sessions, "is_over", lambda session, now: is_over(session, now + next(ticks) % 7 * 0.2))


def a_write_applied_at_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Session.earlier

    def forgetful(self, sequence, settled):
        earlier(self, sequence, settled)

    monkeypatch.setattr(Session, "earlier", forgetful)


def a_gap_is_jumped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later write is applied before an earlier one, whose next try is then taken for a repetition."""
    earlier = Session.earlier

    def hasty(self, sequence, settled):
        if sequence > self.next:
            self.next = sequence
        return earlier(self, sequence, settled)

    monkeypatch.setattr(Session, "earlier", hasty)


def an_expired_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the peers that have not swept it yet."""
    monkeypatch.setattr(sessions, "is_over", lambda _session, _now: False)


def the_session_s_id_of_another_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of a new session is not what the log says, but what this process thinks of."""
    opened, ids = Sessions.open, itertools.count(10_000)
    monkeypatch.setattr(Sessions, "open", lambda self, command, _, now: opened(self, command, next(ids), now))


def seated_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that a session left behind when it ended go into the next one as they learn of it."""
    is_next = Tickets._is_next
    monkeypatch.setattr(Tickets, "_is_next", lambda self, ticket: self._session != 0 or is_next(self, ticket))


# What may catch it first, and seeds among which the first that catches it comes early.
PLANTED: list[tuple[Plant, set[str], range]] = [
    (sessions_left_out_of_the_snapshot, {"MachinesEqual"}, range(50)),
    (numbers_of_all_clients_in_one_table, {"MachinesEqual", "AckedDurable", "Linearizable"}, range(50)),
    (expiry_by_a_local_clock, {"MachinesEqual", "AckedDurable", "RefusedIsFinal"}, range(50)),
    (a_write_applied_at_each_try, {"MachinesEqual", "AckedDurable", "Linearizable", "Linearizability"}, range(50)),
    (a_gap_is_jumped, {"MachinesEqual", "AckedDurable", "Linearizable"}, range(45, 95)),
    (an_expired_session_goes_on, {"MachinesEqual", "AckedDurable"}, range(50)),
    (the_session_s_id_of_another_peer, {"MachinesEqual", "AckedDurable", "LivenessFailure"}, range(50)),
    (seated_in_any_order, {"OrderOfCalls"}, range(465, 469)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "expected", "seeds"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED])
def test_planted_fault_is_caught(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, expected: set[str], seeds: range
) -> None:
    plant(monkeypatch)
    reports = (Simulation(seed).run() for seed in seeds)
    failure = next((report.failure for report in reports if report.failure), "nothing was violated")
    assert failure.split(":")[0] in expected, failure
