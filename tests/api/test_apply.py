"""Applying, where snapshots come in: going on from one, freezing, and a peer that is a witness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import pytest

from quorate.apply import Apply, split
from quorate.calling import describe
from quorate.errors import MachineError, NotCommitted, OutcomeUnknown, QuorateError, Rejected, Unavailable
from quorate.machine import StateMachine, read, write
from quorate.machines import KV
from quorate.sessions import TICK
from quorate.slowness import Slowness
from quorate.tables import Replicated, Tables, encode_tables, restored
from quorate.types import Index, Kind, Run, Snapshot, Term

KV_TYPE = describe(KV)


class Noted:
    """A waiter that notes what it is told."""

    def __init__(self) -> None:
        self.deadline = 100.0
        self.told: list[object] = []

    def succeed(self, reply: object) -> None:
        self.told.append(reply)

    def fail(self, error: QuorateError) -> None:
        self.told.append(error)


def asking(machine: type[StateMachine], method, args, waiter):
    """A read of the machine, and who waits for it."""
    return describe(machine).reads.encode(method, args, {})[2], waiter


class Clock(StateMachine):
    @write
    def tick(self) -> float:
        return self.context.now

    @read
    def when(self) -> tuple[float, int]:
        return self.context.now, self.context.index


def sets(first: int, values: Sequence[str], term: int = 1, time: float = 0.0) -> Run:
    """Make a run that sets the key ``k`` to each value."""
    payloads = tuple(KV_TYPE.encode_write(KV.set, ("k", value)) for value in values)
    return Run(Term(term), Index(first), Kind.COMMAND, time, payloads)


def kv_with(value: str) -> KV:
    kv = KV()
    kv.entries["k"] = value
    return kv


def at(index: int, term: int = 1, time: float = 0.0) -> Snapshot:
    return Snapshot(Index(index), Term(term), time, Index(1), b"")


def beside(machine: StateMachine) -> Replicated:
    return Replicated(machine, Tables())


def new_apply() -> Apply:
    return Apply(KV(), KV_TYPE)


def waiting(apply: Apply, first: int, count: int, term: int = 1) -> list[Noted]:
    waiters = [Noted() for _ in range(count)]
    apply.expect(Index(first), Term(term), waiters)
    return waiters


# Going on from a snapshot.


def test_a_snapshot_takes_the_place_of_machine_index_and_time():
    apply = new_apply()
    apply.apply([sets(1, ["a", "b"], time=5.0)])
    taken_over = kv_with("from the snapshot")
    apply.restore_to(beside(taken_over), at(10, time=9.0))
    assert (apply.machine, apply.last_applied, apply.time, apply.bytes_since) == (taken_over, 10, 9.0, 0)
    apply.apply([sets(11, ["c"], time=8.0)])
    assert taken_over.entries == {"k": "c"}
    assert (apply.last_applied, apply.time) == (11, 9.0)  # time never falls along the log


def test_handlers_see_the_time_of_the_snapshot():
    described = describe(Clock)
    apply = Apply(Clock(), described)
    apply.restore_to(beside(Clock()), at(3, time=7.5))
    asked = Noted()
    apply.read(Index(3), [asking(Clock, Clock.when, (), asked)])
    assert asked.told == [(7.5, 3)]
    tick = Noted()
    apply.expect(Index(4), Term(1), [tick])
    apply.apply([Run(Term(1), Index(4), Kind.COMMAND, 0.0, (described.encode_write(Clock.tick),))])
    assert tick.told == [7.5]


@pytest.mark.parametrize(
    ("first", "count", "unknown"), [(1, 3, 3), (3, 3, 3), (4, 3, 2), (5, 3, 1), (6, 3, 0), (20, 2, 0)]
)
def test_whoever_waits_for_an_index_that_a_snapshot_covers_learns_that_it_is_not_known(first, count, unknown):
    apply = new_apply()
    waiters = waiting(apply, first, count)
    apply.restore_to(beside(KV()), at(5))
    told = [waiter.told for waiter in waiters]
    assert [[type(error) for error in errors] for errors in told[:unknown]] == [[OutcomeUnknown]] * unknown
    assert all("a snapshot covers its index" in str(errors[0]) for errors in told[:unknown])
    assert told[unknown:] == [[]] * (count - unknown)
    assert apply.is_idle is (unknown == count)
    apply.apply([sets(6, [f"value {n}" for n in range(6, 30)])])
    assert [waiter.told for waiter in waiters[unknown:]] == [
        [f"value {n}"] for n in range(first + unknown, first + count)
    ]
    assert apply.is_idle
    assert all(len(waiter.told) == 1 for waiter in waiters)


def test_whoever_waits_beyond_the_snapshot_for_another_term_is_told_when_that_is_certain():
    apply = new_apply()
    covered, beyond = waiting(apply, 5, 2, term=1)
    apply.restore_to(beside(KV()), at(5, term=2))
    apply.apply([sets(6, ["other"], term=2)])
    assert [type(waiter.told[0]) for waiter in (covered, beyond)] == [OutcomeUnknown, NotCommitted]


def test_reads_are_answered_by_the_restored_machine_once_their_index_is_reached():
    apply = new_apply()
    early, late = Noted(), Noted()
    apply.read(Index(5), [asking(KV, KV.get, ("k",), early)])
    apply.read(Index(6), [asking(KV, KV.get, ("k",), late)])
    apply.restore_to(beside(kv_with("restored")), at(5))
    assert (early.told, late.told) == (["restored"], [])
    apply.apply([sets(6, ["applied"])])
    assert late.told == ["applied"]


def test_what_was_applied_is_never_undone():
    apply = new_apply()
    apply.apply([sets(1, ["a", "b", "c"])])
    with pytest.raises(AssertionError, match="never undone"):
        apply.restore_to(beside(KV()), at(2))
    assert apply.machine is not None
    assert apply.last_applied == 3


# Taking one.


@pytest.mark.covers("pitfall 63")
def test_a_frozen_state_is_that_of_last_applied_whatever_is_applied_next():
    apply = new_apply()
    apply.apply([sets(1, ["a", "b"])])
    chunks = apply.freeze()
    apply.apply([sets(3, ["c"])])
    again = restored(KV_TYPE, chunks).machine
    assert isinstance(again, KV)
    assert again.entries == {"k": "b"}


def test_bytes_are_counted_until_a_snapshot_is_taken():
    apply = new_apply()
    runs = [sets(1, ["a", "b"]), Run(Term(2), Index(3), Kind.NOOP, 0.0, (b"",))]
    apply.apply(runs)
    assert apply.bytes_since == sum(run.size for run in runs)
    apply.bytes_since = 0
    apply.apply([sets(4, ["c"])])
    assert apply.bytes_since == sets(4, ["c"]).size


def test_a_machine_whose_state_would_be_lost_is_refused():
    class Undeclared(StateMachine):
        def __init__(self) -> None:
            self.count = 0

    with pytest.raises(TypeError, match=r"Undeclared\.count would be lost"):
        Apply(Undeclared(), describe(Undeclared))


def test_a_machine_that_cannot_be_frozen_any_more_is_a_machine_error():
    apply = new_apply()
    vars(apply.machine)["later"] = 1
    with pytest.raises(MachineError, match=r"KV\.snapshot raised TypeError: KV\.later would be lost"):
        apply.freeze()


# A witness.


def bare(first: int, count: int, term: int = 1) -> Run:
    return sets(first, ["a"] * count, term=term).without_commands()


def test_a_witness_counts_entries_and_runs_nothing():
    apply = new_apply()
    apply.apply([bare(1, 2), Run(Term(2), Index(3), Kind.BARE, 4.0, (b"",) * 3)])
    assert isinstance(apply.machine, KV)
    assert (apply.machine.entries, apply.last_applied, apply.time) == ({}, 5, 4.0)
    assert (apply.is_witness, list(apply.freeze()), apply.machine_errors) == (True, [], 0)
    apply.restore_to(None, at(9))
    assert apply.last_applied == 9
    waiter = Noted()
    apply.read_stale([asking(KV, KV.get, ("k",), waiter)], 0.0)
    assert isinstance(waiter.told[0], Unavailable)


def test_a_snapshot_without_state_is_a_witness_s():
    apply = new_apply()
    apply.restore_to(None, at(5))
    assert apply.is_witness
    apply.restore_to(beside(KV_TYPE.restored(KV_TYPE.snapshot(kv_with("text")))), at(6))
    assert (apply.is_witness, apply.machine.entries) == (False, {"k": "text"})


def test_whoever_waits_for_a_write_when_its_peer_becomes_a_witness_is_told():
    apply = new_apply()
    mine, other = waiting(apply, 1, 1, term=1), waiting(apply, 2, 1, term=1)
    apply.apply([bare(1, 1), bare(2, 1, term=2)])
    assert [type(waiter.told[0]) for waiter in (*mine, *other)] == [OutcomeUnknown, NotCommitted]
    assert apply.is_idle


def test_a_read_that_stops_the_peer_leaves_nobody_waiting():
    class Halt(BaseException):
        """No ``Exception``, as what ends a program is none."""

    class Halting(StateMachine):
        @read
        def halt(self, really: bool) -> str:
            if really:
                raise Halt
            return "not yet"

    apply, waiters = Apply(Halting(), describe(Halting)), [Noted(), Noted(), Noted()]
    halting = zip((False, True, False), waiters, strict=True)
    queries = [asking(Halting, Halting.halt, (really,), waiter) for really, waiter in halting]
    with pytest.raises(Halt):
        apply.read(Index(0), queries)
    apply.stop("it was halted")
    first, halted, last = (waiter.told[0] for waiter in waiters)
    assert (first, str(halted), str(last)) == ("not yet", "it was halted", "it was halted")


class Slow(StateMachine):
    """Takes as long as it is told to, by a clock that stands still otherwise."""

    now: ClassVar[float] = 0.0

    @write
    def take(self, seconds: float) -> None:
        Slow.now += seconds

    @write
    def wait(self, seconds: float) -> None:
        self.call_later(1.0, Slow.take, seconds)

    @read
    def look(self, seconds: float) -> None:
        Slow.now += seconds


def slow(first: int, *seconds: float, time: float = 0.0, method=Slow.take) -> Run:
    payloads = tuple(describe(Slow).encode_write(method, (each,)) for each in seconds)
    return Run(Term(1), Index(first), Kind.COMMAND, time, payloads)


def test_what_holds_up_the_node_is_named_and_not_each_time(caplog):
    apply = Apply(Slow(), describe(Slow), 0, lambda: Slow.now, Slowness(0.5))
    for index in range(1, 5):  # The 1st, the 2nd and the 4th are told.
        apply.apply([slow(index, 1.0)])
    apply.apply([slow(5, 0.125, 0.125), slow(7, 0.125)])  # This is quick enough.
    assert caplog.messages == [
        "Slow.take took 1.0 s (index 1, slow batch 1 of this machine): everything on this node waited",
        "Slow.take took 1.0 s (index 2, slow batch 2 of this machine): everything on this node waited",
        "Slow.take took 1.0 s (index 4, slow batch 4 of this machine): everything on this node waited",
    ]
    assert {(record.name, record.levelname) for record in caplog.records} == {("quorate.machine", "WARNING")}


def test_of_a_slow_batch_all_that_ran_in_it_is_named(caplog):
    apply = Apply(Slow(), describe(Slow), 0, lambda: Slow.now, Slowness(0.5))
    apply.apply([slow(1, 0.5, method=Slow.wait), slow(2, 0.25, 0.25)])
    apply.apply([slow(4, 0.25, time=5.0), Run(Term(1), Index(5), Kind.COMMAND, 5.0, (TICK,))])
    assert [message.partition(", slow batch")[0] for message in caplog.messages] == [
        "Slow.wait and Slow.take took 0.5 s (indexes 1 to 3",
        "timers and Slow.take took 0.8 s (indexes 4 to 5",
    ]


def test_reads_that_hold_up_the_node_are_named(caplog):
    apply = Apply(Slow(), describe(Slow), 0, lambda: Slow.now, Slowness(0.5))
    apply.read(Index(0), [asking(Slow, Slow.look, (each,), Noted()) for each in (0.25, 0.5)])
    assert caplog.messages == [
        "Slow.look took 0.8 s (read at index 0, slow batch 1 of this machine): everything on this node waited"
    ]


def test_a_machine_that_nobody_times_is_never_slow(caplog):
    apply = Apply(Slow(), describe(Slow))
    apply.apply([slow(1, 100.0)])
    assert not caplog.messages


class Counter(StateMachine):
    count: int = 0

    @write
    def add(self, number: int) -> int:
        self.count += number
        return self.count

    @write
    def add_twice(self, number: int) -> int:
        return self.add(self.add(number) and number)

    @read
    def cheat(self) -> int:
        return self.add(1)

    def snapshot(self) -> Iterable[bytes]:
        return [b"%d" % self.add(0)]

    def restore(self, chunks: Iterable[bytes]) -> None:
        (chunk,) = chunks
        self.add(int(chunk))


def test_a_read_that_calls_a_write_is_a_bug_that_changes_nothing():
    """It would change one peer's machine alone."""
    apply, waiter, described = Apply(Counter(), describe(Counter)), Noted(), describe(Counter)
    apply.apply([Run(Term(1), Index(1), Kind.COMMAND, 0.0, (described.encode_write(Counter.add_twice, (2,)),))])
    apply.read(Index(1), [asking(Counter, Counter.cheat, (), waiter)])
    (error,) = waiter.told
    assert isinstance(error, MachineError)
    assert "TypeError: a read only looks: Counter.add is a write, and would change this peer's machine" in str(error)
    with pytest.raises(MachineError, match="a read only looks"):
        apply.read_now(asking(Counter, Counter.cheat, (), waiter)[0])
    assert vars(apply.machine)["count"] == 4
    # A write calls others, and so do snapshot and restore, whatever was read before.
    apply.apply([Run(Term(1), Index(2), Kind.COMMAND, 0.0, (described.encode_write(Counter.add_twice, (1,)),))])
    apply.read(Index(2), [asking(Counter, Counter.cheat, (), Noted())])
    state = restored(described, apply.freeze())
    assert vars(state.machine)["count"] == 6
    assert Counter().add_twice(3) == 6


class Picky(StateMachine):
    """Refuses one thing, and has a bug."""

    @write
    def take(self, thing: str) -> str:
        if thing == "bad":
            raise Rejected("it is bad", thing)
        return thing[0]


def test_whoever_waits_is_told_what_the_handler_says_refuses_or_raises():
    apply = Apply(Picky(), describe(Picky))
    waiters = waiting(apply, 1, 3)
    payloads = tuple(describe(Picky).encode_write(Picky.take, (thing,)) for thing in ("good", "bad", ""))
    apply.apply([Run(Term(1), Index(1), Kind.COMMAND, 0.0, payloads)])
    said, refused, raised = (waiter.told[0] for waiter in waiters)
    assert said == "g"
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.details) == ("it is bad", ("bad",))
    assert isinstance(raised, MachineError)


class Full(Rejected):
    def __init__(self, most: int) -> None:
        super().__init__("full", most)
        self.most = most


class Mute(Rejected):
    def __init__(self, most: int) -> None:
        self.most = most


class Renamed(Rejected):
    def __init__(self) -> None:
        super().__init__("renamed")
        self.details = {"most": 3}


class Bucket(StateMachine):
    """Refuses with errors of its own, of which some never were told the reason."""

    @write
    def fill(self, how: str) -> None:
        raise {"full": Full(3), "mute": Mute(3), "renamed": Renamed()}[how]

    @read
    def look(self) -> None:
        raise Mute(3)


def test_a_refusal_of_an_own_class_is_told_as_over_a_network_and_one_without_a_reason_is_a_bug():
    described = describe(Bucket)
    apply = Apply(Bucket(), described)
    waiters = waiting(apply, 1, 3)
    payloads = tuple(described.encode_write(Bucket.fill, (how,)) for how in ("full", "mute", "renamed"))
    apply.apply([Run(Term(1), Index(1), Kind.COMMAND, 0.0, payloads)])
    full, *bugs = (waiter.told[0] for waiter in waiters)
    assert (type(full), full.reason, full.details) == (Rejected, "full", (3,))
    looked = Noted()
    apply.read(Index(3), [asking(Bucket, Bucket.look, (), looked)])
    for bug in (*bugs, *looked.told):
        assert isinstance(bug, MachineError)
        assert "its __init__ must call super().__init__(reason, *details)" in str(bug)
    assert apply.machine_errors == 3


def test_what_comes_before_a_command_that_cannot_be_read_is_applied():
    apply = new_apply()
    good, bad = waiting(apply, 1, 2)
    payloads = (KV_TYPE.encode_write(KV.set, ("k", "a")), b"\x91\xa5never", KV_TYPE.encode_write(KV.set, ("k", "b")))
    with pytest.raises(TypeError, match="cannot read: KV has no write named 'never'"):
        apply.apply([Run(Term(1), Index(1), Kind.COMMAND, 0.0, payloads)])
    assert (good.told, bad.told, apply.machine.entries) == (["a"], [], {"k": "a"})


def test_the_writes_of_a_leader_that_lost_its_log_and_leads_again_are_answered_in_the_order_of_the_log():
    apply = new_apply()
    (lost,) = waiting(apply, 3, 1)
    apply.apply([sets(1, ["a"])])
    (mine,) = waiting(apply, 2, 1, term=3)
    apply.apply([sets(2, ["b"], term=3)])
    assert (mine.told, lost.told) == (["b"], [])
    apply.apply([sets(3, ["c"], term=3)])
    assert [type(told) for told in lost.told] == [NotCommitted]
    assert apply.is_idle


# Without a quorum.


def test_whoever_was_told_that_it_waited_too_long_is_remembered_no_longer():
    apply = new_apply()
    first, second = Noted(), Noted()
    first.deadline, second.deadline = 5.0, 6.0
    apply.expect(Index(1), Term(1), [first, second])
    apply.read(Index(9), [asking(KV, KV.get, ("k",), first)])
    apply.expire(5.5)
    assert ([type(told) for told in first.told], second.told) == ([OutcomeUnknown, Unavailable], [])
    assert (apply.is_idle, apply.deadline(5.5), len(apply._reads)) == (False, 6.0, 0)
    apply.expire(6.0)
    assert (apply.is_idle, apply.deadline(6.0)) == (True, float("inf"))
    assert isinstance(second.told[0], OutcomeUnknown)
    apply.apply([sets(1, ["a", "b"])])
    assert (apply.machine.entries, len(second.told)) == ({"k": "b"}, 1)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"\x81\xa6quotas\x90", "quotas"),  # {"quotas": []}
        (b"\x90", "array"),
        (b"", "truncated"),
    ],
    ids=["a table of a later version", "no tables", "nothing"],
)
def test_a_snapshot_whose_tables_are_not_known_is_refused_and_none_is_left_out(first: bytes, why: str) -> None:
    with pytest.raises(MachineError, match=f"tables that this version of quorate knows.*{why}"):
        restored(KV_TYPE, [first, *KV_TYPE.snapshot(kv_with("text"))])


def test_a_snapshot_begins_with_its_tables_and_they_are_restored_with_the_machine() -> None:
    apply = new_apply()
    apply.apply([sets(1, ["a"])])
    tables, *chunks = apply.freeze()
    assert (tables, chunks) == (encode_tables(Tables()), list(KV_TYPE.snapshot(apply.machine)))
    again = new_apply()
    state = restored(KV_TYPE, [tables, *chunks])
    again.restore_to(state, at(1))
    assert (again.tables, again.machine) == (state.tables, state.machine)


def test_runs_are_divided_behind_any_entry() -> None:
    runs = (sets(3, "ab"), sets(5, "cde", term=2))
    for last in range(2, 8):
        before, behind = split(runs, Index(last))
        assert [index for run in before for index in range(run.first, run.last + 1)] == list(range(3, last + 1))
        assert [index for run in behind for index in range(run.first, run.last + 1)] == list(range(last + 1, 8))
        assert [p for run in (*before, *behind) for p in run.payloads] == [p for run in runs for p in run.payloads]
