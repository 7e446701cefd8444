"""Timers: writes set for later, which run once, at the same place of every peer's log, by the time of the log alone."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
import pytest

from quorate import Command, Event, Peer, Rejected, Settings, StateMachine, connect, read, write
from quorate.apply import Apply
from quorate.calling import describe
from quorate.errors import MachineError
from quorate.sessions import TICK, OpenSession, encode_opening, machine_command
from quorate.stamping import LogTime
from quorate.tables import Tables, encode_tables, restored
from quorate.testing import BrokenContract, advance, check_contract, check_determinism, simulate
from quorate.timers import CALL_BYTES_MAX, Timer, Timers, TimerTable
from quorate.types import Index, Kind, Run, Snapshot, Term
from tests.api.cluster import cluster
from tests.api.test_apply import Noted, asking
from tests.api.virtual import World, address_of, run_world


class Rang(Event):
    text: str


class Ring(Command[None]):
    text: str


class Alarms(StateMachine):
    emits = (Rang,)
    rung: list[tuple[str, float, int, int]]

    def __init__(self) -> None:
        self.rung = []

    @write
    def wake(self, text: str, delay: float) -> int:
        return self.call_later(delay, Alarms.ring, text, by="later")

    @write
    def wake_at(self, text: str, when: float) -> int:
        return self.call_at(when, Ring(text))

    @write
    def sleep(self, timer: int) -> None:
        self.cancel_call(timer)

    @write
    def ring(self, text: str, by: str = "") -> None:
        self.rung.append((text, self.context.now, self.context.index, self.context.timer))
        self.emit(Rang(text))
        if text.startswith("again"):
            self.call_later(10.0, Alarms.ring, text)
        if text == "no":
            raise Rejected("no")
        if text == "bug":
            self.call_later(1.0, Alarms.ring, "never")
            raise ValueError(text)

    def handle_write(self, command: Ring) -> None:
        self.ring(command.text)

    @write
    def fail(self, text: str, cancelled: int) -> None:
        self.cancel_call(cancelled)
        self.call_later(1.0, Alarms.ring, text)
        if text == "no":
            raise Rejected("no")
        raise ValueError(text)

    @write
    def draw(self) -> float:
        return self.context.random.random()

    @read
    def look(self) -> list[tuple[str, float, int, int]]:
        return self.rung

    @read
    def cheat(self) -> None:
        self.call_later(1.0, Alarms.ring, "cheat")


ALARMS = describe(Alarms)


def call(method: Any, *args: object) -> bytes:
    return ALARMS.encode_write(method, args)


def run_of(first: int, time: float, *payloads: bytes, kind: Kind = Kind.COMMAND) -> Run:
    return Run(Term(1), Index(first), kind, time, payloads)


def alarms() -> Apply:
    return Apply(Alarms(), ALARMS)


def rung(apply: Apply) -> list[tuple[str, float, int]]:
    machine = apply.machine
    assert isinstance(machine, Alarms)
    return [entry[:3] for entry in machine.rung]


# The table.


@pytest.mark.parametrize("seed", range(30))
def test_timers_are_those_of_a_plain_list(seed):
    dice, timers, model, now = Random(seed), Timers(TimerTable()), [], 0.0
    for _ in range(400):
        match dice.randrange(5):
            case 0 | 1:
                when = now + dice.choice([-1.0, 0.0, 0.5, 1.0, 5.0])
                made = timers.set(when, b"x", now)
                model.append((max(when, math.nextafter(now, math.inf)), made))
            case 2:
                number = dice.randrange(1, timers.table.made + 2)
                timers.cancel(number)
                model = [one for one in model if one[1] != number]
            case 3:
                now += dice.choice([0.0, 0.5, 3.0])
                due = sorted(one for one in model if one[0] <= now)
                found = []
                while (popped := timers.pop(now)) is not None:
                    found.append(popped[0])
                assert found == [number for _, number in due]
                model = [one for one in model if one not in due]
                timers.settle()
            case 4:
                timers.settle()
                kept, bytes_before = list(model), msgspec.msgpack.encode(timers.table.by_id)
                for _ in range(dice.randrange(4)):
                    timers.set(now + 1.0, b"y", now)
                    timers.cancel(dice.randrange(1, timers.table.made + 1))
                timers.undo()
                model = kept
                assert msgspec.msgpack.encode(timers.table.by_id) == bytes_before
        assert timers.first == min((due for due, _ in model), default=math.inf)
        assert {number: timer.due for number, timer in timers.table.by_id.items()} == {n: due for due, n in model}
        again = Timers(msgspec.msgpack.decode(msgspec.msgpack.encode(timers.table), type=TimerTable))
        assert again.first == timers.first


def test_what_was_taken_back_is_forgotten():
    timers = Timers(TimerTable())
    keep = timers.set(1e6, b"", 0.0)
    for _ in range(10_000):
        timers.cancel(timers.set(1e5, b"", 0.0))
        timers.settle()
    assert (list(timers.table.by_id), timers.first, len(timers._due) < 100) == ([keep], 1e6, True)


@pytest.mark.parametrize("when", [math.nan, math.inf, -math.inf])
def test_a_timer_needs_an_instant(when):
    with pytest.raises(ValueError, match="needs an instant"):
        Timers(TimerTable()).set(when, b"", 0.0)


def test_timers_are_bounded(monkeypatch):
    timers = Timers(TimerTable())
    with pytest.raises(ValueError, match="at most 16384"):
        timers.set(1.0, bytes(CALL_BYTES_MAX + 1), 0.0)
    monkeypatch.setattr("quorate.timers.TIMERS_MAX", 2)
    timers.set(1.0, b"", 0.0)
    timers.set(1.0, b"", 0.0)
    with pytest.raises(Rejected, match="too_many_timers: 2"):
        timers.set(1.0, b"", 0.0)


# A plain machine.


def test_a_plain_machine_rings_when_time_passes():
    alarms = Alarms()
    late, early = alarms.wake("late", 20.0), alarms.wake("early", 10.0)
    gone = alarms.wake("gone", 5.0)
    alarms.sleep(gone)
    alarms.sleep(gone)
    advance(alarms, 9.0)
    assert alarms.rung == []
    advance(alarms, 100.0)
    assert alarms.rung == [("early", 10.0, 0, early), ("late", 20.0, 0, late)]
    assert alarms.context.now == 109.0
    assert alarms.effects.events == [Rang("early"), Rang("late")]


def test_a_timer_that_sets_itself_again_rings_at_each_instant_of_an_idle_group():
    alarms = Alarms()
    alarms.wake_at("again", 5.0)
    advance(alarms, 30.0)
    assert [now for _, now, _, _ in alarms.rung] == [5.0, 15.0, 25.0]


def test_what_a_timer_of_a_plain_machine_raises_fails_the_test_unless_it_refuses():
    alarms = Alarms()
    alarms.wake("no", 1.0)
    advance(alarms, 1.0)
    alarms.wake("bug", 1.0)
    with pytest.raises(ValueError, match="bug"):
        advance(alarms, 1.0)
    with pytest.raises(ValueError, match="time does not go back"):
        advance(alarms, -1.0)


class Other(StateMachine):
    @write
    def poke(self, text: str) -> None: ...

    @read
    def peek(self) -> None: ...


@pytest.mark.parametrize(
    ("later", "says"),
    [
        ((Other.poke, "x"), "poke> is no write of Alarms"),
        ((Alarms.look,), "look> is no write of Alarms"),
        (
            (Alarms().ring, "x"),
            r"Alarms\.ring of one machine \(pass `Alarms\.ring`, of the class, and its arguments\) is",
        ),
        ((Alarms.ring,), "Alarms.ring: Missing required argument 'text'"),
        ((Alarms.ring, 7), r"Alarms.ring: Expected `str`, got `int`"),
        ((Alarms.ring, "x", "y", "z"), "Alarms.ring: Extra positional arguments"),
        ((Alarms.ring, object()), "Alarms.ring: Encoding objects of type object is unsupported"),
        (("ring", "x"), "'ring' is no write of Alarms"),
        ((Ring("x"), "y"), "no write of Alarms that a timer could run"),
    ],
)
def test_what_no_timer_could_run_is_refused_where_it_is_set(later, says):
    with pytest.raises(TypeError, match=says):
        Alarms().call_later(1.0, *later)


# Applying.


def test_timers_run_before_the_first_entry_of_their_time_in_the_order_in_which_they_are_due():
    apply, waits = alarms(), Noted()
    apply.apply(
        [run_of(1, 100.0, call(Alarms.wake, "b", 5.0), call(Alarms.wake, "a", 2.0), call(Alarms.wake, "c", 5.0))]
    )
    apply.apply([run_of(4, 101.0, call(Alarms.draw)), run_of(5, 105.0, call(Alarms.ring, "d"))])
    assert rung(apply) == [("a", 105.0, 5), ("b", 105.0, 5), ("c", 105.0, 5), ("d", 105.0, 5)]
    apply.read(Index(5), [asking(Alarms, Alarms.look, (), waits)])
    assert [entry[3] for entry in waits.told[0]] == [2, 1, 3, 0]


@pytest.mark.parametrize(
    "entry",
    [
        run_of(2, 105.0, TICK),
        run_of(2, 105.0, b"", kind=Kind.NOOP),
        run_of(2, 105.0, encode_opening(OpenSession(1.0))),
        run_of(2, 105.0, call(Alarms.draw)),
        run_of(2, 105.0, call(Alarms.fail, "a", 1)),
    ],
)
def test_any_entry_brings_the_time(entry):
    apply = alarms()
    apply.apply([run_of(1, 100.0, call(Alarms.wake, "a", 5.0))])
    apply.apply([entry])
    assert rung(apply) == [("a", 105.0, 2)]
    assert apply.last_applied == 2


def test_what_is_due_at_once_comes_behind_all_that_has_the_same_time():
    apply = alarms()
    apply.apply([run_of(1, 100.0, call(Alarms.wake, "now", 0.0), call(Alarms.wake_at, "past", 3.0), call(Alarms.draw))])
    apply.apply([run_of(4, 100.0, TICK)])
    assert rung(apply) == []
    apply.apply([run_of(5, 100.001, TICK)])
    assert rung(apply) == [("now", 100.001, 5), ("past", 100.001, 5)]


@pytest.mark.parametrize("cut", range(1, 6))
def test_it_is_the_same_however_the_log_is_cut_into_runs(cut):
    payloads = [
        call(Alarms.wake, "a", 0.0),
        call(Alarms.wake, "b", 1.0),
        call(Alarms.ring, "c"),
        TICK,
        call(Alarms.draw),
    ]
    whole, parts = alarms(), alarms()
    for apply in (whole, parts):
        apply.apply([run_of(1, 99.0, call(Alarms.wake, "z", 1.0))])
    run = run_of(2, 100.0, *payloads)
    whole.apply([run])
    parts.apply([run.part(Index(2), Index(cut + 1))])
    if cut < 5:
        parts.apply([run.part(Index(cut + 2), Index(6))])
    for apply in (whole, parts):
        apply.apply([run_of(7, 101.0, TICK)])
    assert rung(whole) == rung(parts) == [("z", 100.0, 2), ("c", 100.0, 4), ("a", 101.0, 7), ("b", 101.0, 7)]
    assert encode_tables(whole.tables) == encode_tables(parts.tables)


def test_a_timer_that_sets_itself_again_runs_once_for_each_entry_that_is_late():
    apply = alarms()
    apply.apply([run_of(1, 100.0, call(Alarms.wake, "again", 10.0))])
    apply.apply([run_of(2, 1000.0, TICK), run_of(3, 1005.0, TICK), run_of(4, 1010.0, TICK)])
    assert rung(apply) == [("again", 1000.0, 2), ("again", 1010.0, 4)]


def test_a_timer_may_take_another_one_back():
    class Racing(Alarms):
        @write
        def race(self, other: int) -> None:
            self.rung.append(("race", self.context.now, self.context.index, other))
            self.cancel_call(other)

        @write
        def both(self) -> None:
            first, second = self.context.index, self.context.index + 1
            self.call_later(1.0, Racing.race, second)
            self.call_later(1.0, Racing.race, first)

    racing = describe(Racing)
    apply = Apply(Racing(), racing)
    apply.apply([run_of(1, 100.0, racing.encode_write(Racing.both)), run_of(2, 101.0, TICK)])
    assert [entry[3] for entry in apply.machine.rung] == [2]
    assert apply.tables.timers == TimerTable(2, {})


def test_a_refusal_of_a_timer_is_nothing_and_a_bug_is_counted_and_gone(caplog):
    apply = alarms()
    apply.apply(
        [run_of(1, 100.0, call(Alarms.wake, "no", 1.0), call(Alarms.wake, "bug", 2.0), call(Alarms.wake, "a", 3.0))]
    )
    apply.apply([run_of(4, 101.0, TICK), run_of(5, 104.0, TICK), run_of(6, 109.0, TICK)])
    assert [entry[0] for entry in rung(apply)] == ["no", "bug", "a"]
    assert apply.machine_errors == 1
    assert "Alarms.ring raised ValueError: bug" in caplog.text
    assert apply.tables.timers.by_id == {}


def test_what_a_timer_emits_is_delivered_and_of_a_bug_nothing_is():
    apply = alarms()
    apply.apply(
        [run_of(1, 100.0, call(Alarms.wake, "bug", 1.0), call(Alarms.wake, "a", 1.0), call(Alarms.wake, "b", 1.0))]
    )
    apply.recent._bytes_max = 10_000
    apply.apply([run_of(4, 102.0, call(Alarms.ring, "bug"), call(Alarms.ring, "c"))])
    found = [(emitted.index, emitted.place, emitted.event[-1:]) for emitted in apply.recent._events]
    assert found == [(4, 0, b"a"), (4, 1, b"b"), (5, 0, b"c")]


@pytest.mark.parametrize("text", ["no", "bug"])
def test_of_a_write_that_raises_no_timer_is_left_and_none_is_taken_back(text):
    apply = alarms()
    apply.apply(
        [run_of(1, 100.0, call(Alarms.wake, "a", 5.0), call(Alarms.fail, text, 1), call(Alarms.wake, "b", 6.0))]
    )
    assert {number: timer.due for number, timer in apply.tables.timers.by_id.items()} == {1: 105.0, 3: 106.0}
    apply.apply([run_of(4, 110.0, TICK)])
    assert [entry[0] for entry in rung(apply)] == ["a", "b"]


@pytest.mark.parametrize("does", ["emits", "sets"])
async def test_a_machine_whose_init_leads_to_anything_does_not_start(does: str) -> None:
    """It runs anew on each peer and at each start: what it leads to was lost, though a plain machine rings."""

    class Early(Alarms):
        def __init__(self) -> None:
            super().__init__()
            if does == "emits":
                self.emit(Rang("early"))
            else:
                self.call_later(1.0, Alarms.ring, "early")

    async with cluster(Early, 1) as group:
        with pytest.raises(
            TypeError, match=r"^Early.__init__ emits an event or sets a timer, which would be lost: a wr"
        ):
            await group.start("peer1")


def test_a_read_sets_no_timers():
    apply, waits = alarms(), Noted()
    apply.read(Index(0), [asking(Alarms, Alarms.cheat, (), waits)])
    [error] = waits.told
    assert isinstance(error, MachineError)
    assert "a read only looks" in str(error)
    assert apply.tables.timers == TimerTable()


def test_timers_are_in_the_snapshot():
    apply = alarms()
    apply.apply([run_of(1, 100.0, call(Alarms.wake, "a", 5.0), call(Alarms.wake, "b", 9.0))])
    chunks = apply.freeze()
    apply.apply([run_of(3, 106.0, TICK)])
    again = alarms()
    again.restore_to(restored(ALARMS, chunks), Snapshot(Index(2), Term(1), 100.0, Index(1), b""))
    assert again.tables.timers.by_id == {
        1: Timer(105.0, call(Alarms.ring, "a", "later")),
        2: Timer(109.0, call(Alarms.ring, "b", "later")),
    }
    again.apply([run_of(3, 106.0, TICK), run_of(4, 110.0, call(Alarms.wake, "c", 1.0))])
    apply.apply([run_of(4, 110.0, call(Alarms.wake, "c", 1.0))])
    assert rung(again) == rung(apply)
    assert encode_tables(again.tables) == encode_tables(apply.tables)


def test_a_snapshot_from_before_there_were_timers_can_be_read():
    old = msgspec.msgpack.encode({"sessions": [{}]})
    assert restored(ALARMS, [old]).tables == Tables()


def test_each_timer_and_the_command_behind_them_draw_their_own():
    class Dice(StateMachine):
        drawn: list[float]

        def __init__(self) -> None:
            self.drawn = []

        @write
        def draw(self) -> None:
            self.drawn.append(self.context.random.random())

        @write
        def later(self) -> None:
            self.call_later(1.0, Dice.draw)

    dice = describe(Dice)
    results = []
    for _ in range(2):
        apply = Apply(Dice(), dice)
        later, draw = dice.encode_write(Dice.later), dice.encode_write(Dice.draw)
        apply.apply([run_of(1, 100.0, later, later), run_of(3, 101.0, draw)])
        results.append(apply.machine.drawn)
    assert results[0] == results[1]
    assert len(set(results[0])) == 3


def test_a_tick_holds_no_command():
    assert machine_command(TICK) is None


# What a machine is tried with.


def test_the_guard_runs_timers_and_finds_what_differs():
    calls = [(Alarms.wake, "a", 0.5), (Alarms.look,), (Alarms.wake, "again", 2.0), *[(Alarms.draw,)] * 30]
    check_contract(Alarms, calls)
    assert check_determinism(Alarms, calls).processes == 3

    class Shared(Alarms):
        count: ClassVar[list[float]] = [0.0]

        @write
        def wake(self, text: str, delay: float) -> int:
            self.count[0] += 1.0
            return self.call_later(self.count[0], Alarms.ring, text)

    with pytest.raises(BrokenContract, match=r"emitted or set for later|left another"):
        check_contract(Shared, calls)


def test_timers_and_events_in_bad_worlds():
    """The same timers at the same index on every peer, once, over crashes, snapshots and changes of the leader."""
    draws = [
        lambda dice: (Alarms.wake, str(dice.random()), dice.choice([0.0, 0.05, 0.5, 5.0])),
        lambda dice: (Alarms.ring, str(dice.random())),
        lambda dice: (Alarms.sleep, dice.randrange(50)),
        lambda dice: (Alarms.look,),
    ]
    reports = simulate(Alarms, lambda dice: dice.choice(draws)(dice), seeds=range(8))
    assert sum(report.outcomes["ok"] for report in reports) > 50


# The time of the log.


def test_the_time_of_the_log_is_the_wall_clock_and_never_falls():
    wall = [1000.0]
    time = LogTime(0.0, lambda: wall[0])
    assert time.read(5.0) == 1000.0
    time.note(1000.0, 5.0)
    wall[0] = 1003.0
    assert time.read(8.0) == 1003.0


def test_where_a_clock_is_behind_time_goes_on_at_half_its_speed_until_that_has_caught_up():
    """A clock that was set back, or that of another leader, stops no timer for ever."""
    wall, now = [1000.0], 5.0
    time = LogTime(0.0, lambda: wall[0] + now)
    time.note(time.read(now), now)
    wall[0] -= 100.0
    last, caught_up = time.latest, math.inf
    for _ in range(3000):
        now += 0.1
        read = time.read(now)
        assert last < read
        assert read <= max(last + 0.05 + 1e-9, wall[0] + now)
        if read == wall[0] + now:
            caught_up = min(caught_up, now)
        time.note(read, now)
        last = read
    assert 204.0 < caught_up < 206.0


# Groups.


SETTINGS = Settings()


def walled(world: World, peers: list[Peer[Any]]) -> dict[str, float]:
    """Give each peer a wall clock that goes with virtual time, and how far each is off."""
    skews = {peer.name: 0.0 for peer in peers}
    for peer in peers:
        outside, name = peer._seat._outside, peer.name
        outside.wall = lambda name=name: 1.7e9 + world.loop.time() + skews[name]  # type: ignore[method-assign]
    return skews


def machines(peers: list[Peer[Any]]) -> list[list[Any]]:
    return [peer._seat.apply.machine.rung for peer in peers]


def test_an_idle_group_rings_when_it_is_time_at_the_same_index_everywhere():
    async def tell(world: World) -> None:
        peers = await world.form(Alarms, "peer1", "peer2", "peer3")
        walled(world, peers)
        await peers[0].write(Alarms.draw)
        begun, wrote = world.loop.time(), peers[0].status().last_index
        for delay in (1.0, 1.0, 7.5):
            await peers[0].write(Alarms.wake, str(delay), delay)
        await asyncio.sleep(5.0)
        assert [entry[0] for entry in machines(peers)[0]] == ["1.0", "1.0"]
        await asyncio.sleep(5.0)
        assert machines(peers)[0] == machines(peers)[1] == machines(peers)[2]
        assert [round(now - 1.7e9 - begun, 1) for _, now, _, _ in machines(peers)[0]] == [1.0, 1.0, 7.5]
        # As many entries as instants: nothing else was written, and nothing is now.
        assert peers[0].status().last_index <= wrote + 3 + 3
        last = peers[0].status().last_index
        await asyncio.sleep(100.0)
        assert peers[0].status().last_index == last

    run_world(3, SETTINGS, tell)


def test_the_next_leader_rings_and_a_clock_that_is_behind_does_not_stop_it():
    async def tell(world: World) -> None:
        peers = await world.form(Alarms, "peer1", "peer2", "peer3")
        skews = walled(world, peers)
        skews[peers[1].name] = skews[peers[2].name] = -30.0
        await peers[0].write(Alarms.wake, "a", 4.0)
        world.network.isolate(address_of(peers[0]))
        begun = world.loop.time()
        await world.until(lambda: machines(peers)[1] and machines(peers)[2])
        assert 4.0 <= world.loop.time() - begun < 4.0 * 2 + 1.0
        assert machines(peers)[0] == []
        world.network.cut.clear()
        await world.until(lambda: machines(peers)[0])
        assert machines(peers)[0] == machines(peers)[1] == machines(peers)[2]

    run_world(3, SETTINGS, tell)


@pytest.mark.parametrize("jump", [-20.0, 20.0])
def test_a_clock_that_jumps_makes_a_timer_late_or_early_and_not_more(jump):
    async def tell(world: World) -> None:
        peers = await world.form(Alarms, "peer1")
        skews = walled(world, peers)
        await peers[0].write(Alarms.wake, "a", 10.0)
        await asyncio.sleep(2.0)
        skews["peer1"] += jump
        begun = world.loop.time()
        await world.until(lambda: machines(peers)[0])
        waited = world.loop.time() - begun
        assert waited <= 8.0 if jump > 0 else 17.9 < waited < 18.1

    run_world(1, SETTINGS, tell)


def test_a_transfer_of_leadership_does_not_disturb_a_timer():
    async def tell(world: World) -> None:
        peers = await world.form(Alarms, "peer1", "peer2", "peer3")
        walled(world, peers)
        await peers[0].write(Alarms.wake, "a", 0.5)
        await asyncio.sleep(0.495)
        await peers[0].transfer_leadership()
        await asyncio.sleep(1.0)
        assert [len(rung) for rung in machines(peers)] == [1, 1, 1]

    run_world(3, SETTINGS, tell)


def test_a_timer_that_is_due_while_the_own_disk_hangs_and_no_more_is_taken_waits_for_it():
    """The leader turned round and round at one instant, a whole core busy (seed 31004 of the simulator)."""

    async def tell(world: World) -> None:
        peers = await world.form(Alarms, "peer1", "peer2", "peer3")
        walled(world, peers)
        await peers[0].write(Alarms.wake, "a", 1.0)
        await asyncio.sleep(0.9)
        seat, turns = peers[0]._seat, 0
        take_inputs = seat.take_inputs

        def counted(now: float) -> None:
            nonlocal turns
            turns += 1
            assert turns < 1000, "it turns round and round"
            take_inputs(now)

        seat.take_inputs = counted  # type: ignore[method-assign]
        world.disks[world.place(peers[0])].seconds = 0.4
        await peers[0].write(Alarms.wake, "x" * 4050, 100.0)  # By the disks of the others: nothing more is taken now.
        assert peers[0].status().last_applied == peers[0].status().last_index
        await asyncio.sleep(1.0)
        assert [len(rung) for rung in machines(peers)] == [1, 1, 1]
        assert peers[0].status().role == "leader"

    run_world(3, Settings(command_bytes_max=4096, uncommitted_bytes_max=4096), tell)


def test_a_timer_that_is_always_due_writes_no_more_than_the_log_can_take():
    class Restless(Alarms):
        @write
        def restless(self) -> None:
            self.call_later(0.0, Restless.restless)

    async def tell(world: World) -> None:
        [peer] = await world.form(Restless, "peer1")
        walled(world, [peer])
        await peer.write(Restless.restless)
        first = peer.status().last_index
        await asyncio.sleep(1.0)
        assert 100 < peer.status().last_index - first < 2000

    run_world(1, SETTINGS, tell)


async def test_a_real_group_rings_after_a_restart_of_all_from_a_snapshot(tmp_path: Path):
    async with cluster(Alarms, 3, tmp_path) as nodes:
        leader = await nodes.form()
        async with connect(Alarms, *nodes.addresses) as kv:
            await kv.write(Alarms.wake, "a", 1.0)
            await kv.write(Alarms.wake, "far", 3600.0)
        await nodes.converge()
        for peer in nodes.peers.values():
            await peer.take_snapshot()
        for name in list(nodes.nodes):
            await nodes.stop(name)
        for address in nodes.addresses:
            await nodes.start(address.name)
        leader = await nodes.leader()
        async with asyncio.timeout(20):
            while not all(nodes.machine_of(name).rung for name in nodes.peers):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len({tuple(nodes.machine_of(name).rung) for name in nodes.peers}) == 1
        assert [entry[0] for entry in nodes.machine_of(leader.name).rung] == ["a"]
        assert next(timer.due for timer in leader._seat.apply.tables.timers.by_id.values()) > 3000.0


async def test_a_peer_whose_program_lacks_the_write_of_a_timer_does_not_start(tmp_path: Path):
    class Without(StateMachine):
        rung: list[tuple[str, float, int, int]]

        def __init__(self) -> None:
            self.rung = []

        @write
        def draw(self) -> float:
            return 0.0

    settings = Settings(trailing_entries=0)
    async with cluster(Alarms, 1, tmp_path, settings=settings) as nodes:
        leader = await nodes.form()
        await leader.write(Alarms.wake, "a", 3600.0)
        await leader.take_snapshot()
        for _ in range(3):
            await leader.write(Alarms.draw)
        await nodes.stop("peer1")
        nodes.machine = Without  # type: ignore[assignment]
        with pytest.raises(MachineError, match="the snapshot of peer1 holds commands that Without does not have: ring"):
            await nodes.start("peer1")
