"""The checks after a run: each holds for what is right, and finds what is planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate import Address, Node, Status
from quorate.machines import KV
from quorate.testing.chaos.checks import (
    are_equally_far,
    check_ledgers,
    check_linearizable,
    check_logs,
    check_members,
)
from quorate.testing.chaos.failover import Failovers, quantile
from quorate.testing.chaos.report import Availability, Incident, Report, availability, count_calls, table
from quorate.testing.chaos.run import check_served
from quorate.testing.history.operations import Fate, Operation
from quorate.types import Index, PeerId, Term


def append(word: str, fate: Fate, at: int = 0) -> Operation:
    returned = None if fate == "unknown" else at + 1
    output = word if fate == "ok" else None
    return Operation(
        client=1, method=KV.append, args=("ledger0", word), called=at, returned=returned, fate=fate, output=output
    )


APPENDS = [append("a ", "ok"), append("b ", "unknown", 2), append("c ", "failed", 4), append("d ", "ok", 6)]


@pytest.mark.parametrize("held", ["a d ", "a b d ", "a d b "])
def test_a_ledger_holds_what_was_acknowledged_and_perhaps_what_is_unknown(held: str) -> None:
    assert check_ledgers(APPENDS, {"ledger0": held}, ["ledger0"]) == []


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ("a ", "1 acknowledged, and lost: d of ledger0"),
        (None, "2 acknowledged, and lost: a of ledger0, d of ledger0"),
        ("a a d ", "1 there twice: a of ledger0"),
        ("a b d b ", "1 there twice: b of ledger0"),
        ("a c d ", "1 there, though nobody wrote it, or was told that it was not written: c of ledger0"),
        ("a d e ", "1 there, though nobody wrote it, or was told that it was not written: e of ledger0"),
    ],
)
def test_a_ledger_that_is_wrong_is_found(held: str | None, sentence: str) -> None:
    assert check_ledgers(APPENDS, {"ledger0": held}, ["ledger0"]) == [sentence]


def test_a_stale_read_is_found() -> None:
    def call(method: object, args: tuple[str, ...], at: int, output: str) -> Operation:
        return Operation(client=1, method=method, args=args, called=at, returned=at + 1, fate="ok", output=output)

    writes = [call(KV.set, ("key", "1"), 0, "1"), call(KV.set, ("key", "2"), 2, "2")]
    assert check_linearizable([*writes, call(KV.get, ("key",), 4, "2")]) == []
    (sentence,) = check_linearizable([*writes, call(KV.get, ("key",), 4, "1")])
    assert "not linearizable" in sentence


def test_a_crash_in_a_log_is_found(tmp_path: Path) -> None:
    path = tmp_path / "n1.log"
    path.write_text("INFO quorate: all is well\nWARNING quorate: n2 does not answer\n")
    assert check_logs([path]) == []
    path.write_text("INFO quorate: all is well\nTraceback (most recent call last):\n")
    assert check_logs([path]) == ["1 crashes in the logs: n1.log:2: Traceback (most recent call last):"]


async def test_members_that_hold_different_things_are_found() -> None:
    async with Node("127.0.0.1:0", store="memory") as one, Node("127.0.0.1:0", store="memory") as other:
        addresses: list[Address] = []
        for node, value in ((one, "1"), (other, "2")):
            peer = await node.start_peer(KV, name=f"n{value}")
            addresses.append(peer.address)
        await one.peers[0].set_configuration(*addresses)
        await one.peers[0].leader()
        assert await check_members(addresses, ["key"]) == []
        # Behind the log's back, as a handler that is not deterministic would.
        one.peers[0]._seat.apply.machine.entries["key"] = "1"
        assert await check_members(addresses, ["key"]) == ["1 keys of n1 and n2 differ: key"]


def status(name: str, members: int, applied: int, committed: int) -> Status:
    empty = Address("n", "h", 1)
    return Status(
        name=name,
        id=PeerId(name),
        group="g",
        role="follower",
        term=Term(1),
        leader=None,
        configuration=(empty,) * members,
        commit_index=Index(committed),
        last_applied=Index(applied),
        last_index=Index(committed),
        why=None,
        members=(),
    )


def test_members_that_are_not_equally_far_are_seen() -> None:
    assert not are_equally_far([status("n1", 2, 4, 4)], 2)
    assert not are_equally_far([status("n1", 2, 4, 4), status("n2", 2, 3, 4)], 2)


def test_availability_is_counted_by_whole_seconds() -> None:
    incidents = [Incident("kill", "SIGKILL n1", 2.5, 4.1)]
    found = availability([0.1, 0.9, 2.2, 5.5], incidents, 6.7)
    assert found == Availability(seconds=6, served=3, quiet=3, quiet_served=2, longest_pause=pytest.approx(3.3))
    assert check_served(found, 0.6) == []
    assert check_served(found, 0.9) == ["writes succeeded in 2 of 3 seconds without a fault"]


def test_a_report_says_what_was_violated() -> None:
    calls, names = count_calls(APPENDS)
    assert (calls, names) == ({"ok": 2, "unknown": 1, "failed": 1}, {"append": 2})

    def report(violations: dict[str, list[str]]) -> Report:
        return Report(
            seed=7,
            setting="3 nodes",
            seconds=6.0,
            incidents=[Incident("kill", "SIGKILL n1", 2.5, 4.1)],
            left_out=["slow disks: strace not found"],
            calls=calls,
            calls_by_name=names,
            repeats=12,
            availability=availability([0.1], [], 6.0),
            processes=4,
            lateness=0.01,
            violations=violations,
        )

    good, bad = report({"nothing lost": []}), report({"nothing lost": ["1 acknowledged, and lost: d of ledger0"]})
    assert good.is_good
    assert "holds      nothing lost" in table(good)
    assert "left out   slow disks: strace not found" in table(good)
    assert "repeated   12 more tries of writes" in table(good)
    assert not bad.is_good
    assert "VIOLATED   nothing lost" in table(bad)
    assert "nothing lost: 1 acknowledged, and lost: d of ledger0" in table(bad)


def test_the_bar_of_failover_is_in_election_timeouts() -> None:
    def measured(*pauses: float) -> Failovers:
        return Failovers(
            store="memory", election_timeout_min=0.3, election_timeout_max=0.6, pauses=pauses, writes=len(pauses)
        )

    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert measured(0.4, 0.5, 1.3).is_good
    assert not measured(0.4, 0.6, 1.3).is_good  # the median is above 1.2 times 0.45 s
    assert not measured(0.4, 0.5, 1.4).is_good  # and p99 above 3 times that
