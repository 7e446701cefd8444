"""Which connection of two survives, and how often a neighbour is dialled: on stand-ins for connections."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from quorate.errors import Unavailable
from quorate.settings import Settings
from quorate.transport import neighbours as module
from quorate.transport.connection import Connection
from quorate.transport.neighbours import WAITING_FRAMES_MAX, Neighbours
from tests.transport.bench import until

SETTINGS = Settings(reconnect_delay_min=0.001, reconnect_delay_max=0.004)


class Line:
    """A connection as far as neighbours look at it."""

    def __init__(self, node: str, dialled: bool) -> None:
        self.node = node
        self.dialled = node if dialled else ""
        self.open = True
        self.unsent = 7
        self.opened_at = asyncio.get_running_loop().time()
        self.heard_at = 0.0
        self.silent = False
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def note_writing(self, gap_max: float) -> None:
        pass

    def is_silent(self, seconds: float) -> bool:
        return self.silent

    def close(self) -> None:
        self.open = False


class Place:
    """The neighbours of node ``m``, whose dials succeed when ``line`` is set and fail until then."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.line: Line | None = None
        self.dialled = 0
        self.lost: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.neighbours = Neighbours(lambda: "m", self.dial, settings, lambda: 1.0, self.lost.append)

    async def dial(self, node: str) -> Connection:
        self.dialled += 1
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.line is None:
            raise Unavailable(f"{node} refuses the connection")
        return cast(Connection, self.line)

    def join(self, line: Line) -> Line:
        self.neighbours.join(line.node, cast(Connection, line))
        return line

    def leave(self, line: Line) -> None:
        line.open = False
        self.neighbours.leave(cast(Connection, line))


@pytest.fixture
def settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.001)


async def test_a_connection_that_was_accepted_carries_packets_back():
    place = Place()
    line = place.join(Line("a", dialled=False))
    place.neighbours.send("a", [b"1", b"2"])
    assert line.frames == [b"1", b"2"]
    assert place.dialled == 0
    assert place.neighbours.unsent("a") == 7
    assert place.neighbours.unsent("b") == 0


async def test_the_larger_closes_what_it_dialled_once_it_holds_what_the_smaller_has_dialled():
    place = Place()
    ours = place.join(Line("a", dialled=True))
    theirs = place.join(Line("a", dialled=False))
    assert (ours.open, theirs.open) == (False, True)
    place.neighbours.send("a", [b"1"])
    assert (ours.frames, theirs.frames) == ([], [b"1"])


async def test_the_larger_does_not_keep_a_dial_that_comes_late():
    place = Place()
    theirs = place.join(Line("a", dialled=False))
    ours = place.join(Line("a", dialled=True))
    assert (ours.open, theirs.open) == (False, True)


async def test_the_smaller_closes_nothing_while_its_neighbour_may_still_do_so():
    place = Place()
    theirs = place.join(Line("z", dialled=False))
    ours = place.join(Line("z", dialled=True))
    place.neighbours.send("z", [b"1"])
    assert ours.frames == [b"1"]
    place.leave(theirs)
    place.neighbours.send("z", [b"2"])
    assert ours.frames == [b"1", b"2"]
    assert ours.open


@pytest.mark.usefixtures("settles_soon")
async def test_the_smaller_gives_up_what_it_dialled_when_its_neighbour_keeps_the_other():
    place = Place()
    ours = place.join(Line("z", dialled=True))
    theirs = place.join(Line("z", dialled=False))
    assert ours.open
    await until(lambda: not ours.open)
    place.leave(ours)
    place.neighbours.send("z", [b"1"])
    assert theirs.frames == [b"1"]


@pytest.mark.usefixtures("settles_soon")
async def test_the_smaller_keeps_what_it_dialled_when_its_neighbour_closes_the_other():
    place = Place()
    ours = place.join(Line("z", dialled=True))
    place.leave(place.join(Line("z", dialled=False)))
    await asyncio.sleep(0.01)
    assert ours.open


@pytest.mark.parametrize("node", ["a", "z"])
@pytest.mark.usefixtures("settles_soon")
async def test_a_neighbour_that_dials_again_has_lost_what_it_had_dialled_before(node: str):
    place = Place()
    before, after = place.join(Line(node, dialled=False)), place.join(Line(node, dialled=False))
    place.neighbours.send(node, [b"1"])
    assert (before.frames, after.frames) == ([], [b"1"])
    await until(lambda: not before.open)
    assert after.open


@pytest.mark.parametrize("node", ["a", "z"])
@pytest.mark.usefixtures("settles_soon")
async def test_a_neighbour_that_dials_at_a_second_address_keeps_both_connections(node: str):
    place = Place()
    before, after = place.join(Line(node, dialled=False)), place.join(Line(node, dialled=False))
    before.heard_at += 1
    await asyncio.sleep(0.01)
    assert (before.open, after.open) == (True, True)


@pytest.mark.usefixtures("settles_soon")
async def test_a_neighbour_that_loses_its_second_connection_keeps_the_first():
    place = Place()
    before = place.join(Line("z", dialled=False))
    place.leave(place.join(Line("z", dialled=False)))
    await asyncio.sleep(0.01)
    assert before.open
    place.neighbours.send("z", [b"1"])
    assert before.frames == [b"1"]


@pytest.mark.parametrize("node", ["a", "z"])
@pytest.mark.parametrize("dialled", [False, True])
@pytest.mark.usefixtures("settles_soon")
async def test_a_connection_by_which_nothing_comes_is_kept_until_there_is_another(node: str, dialled: bool):
    place = Place()
    before = place.join(Line(node, dialled=dialled))
    place.neighbours.send(node, [b"1"])
    assert place.dialled == 0
    before.silent = True
    place.neighbours.send(node, [b"2"])
    await until(lambda: place.dialled > 2)
    assert (before.open, before.frames) == (True, [b"1", b"2"])
    assert place.lost == []
    place.line = Line(node, dialled=True)
    await until(lambda: not before.open)
    assert place.line.open
    place.neighbours.send(node, [b"3"])
    assert place.line.frames == [b"2", b"3"]
    place.leave(before)
    assert place.neighbours.unsent(node) == 7
    await place.neighbours.stop()


async def test_a_connection_by_which_something_comes_again_is_kept():
    place = Place()
    line = place.join(Line("z", dialled=True))
    line.silent = True
    place.neighbours.send("z", [b"1"])
    await until(lambda: place.dialled > 2)
    line.silent = False
    await until(lambda: not place.neighbours._neighbours["z"].dialling)
    assert line.open


@pytest.mark.parametrize("turns", [0, 1])
async def test_the_larger_stops_its_dial_when_the_smaller_has_dialled(turns: int):
    place = Place()
    place.neighbours.send("a", [b"1"])
    for _ in range(turns):  # before the first step of the dial, and in the midst of it
        await asyncio.sleep(0)
    theirs = place.join(Line("a", dialled=False))
    assert theirs.frames == [b"1"]
    await asyncio.sleep(0.01)
    assert place.dialled <= turns
    place.leave(theirs)
    place.neighbours.send("a", [b"2"])
    await until(lambda: place.dialled > turns)
    await place.neighbours.stop()


async def test_the_smaller_says_again_on_its_own_connection_what_it_said_on_one_that_may_be_closed():
    place = Place()
    place.gate.clear()
    place.neighbours.send("z", [b"1"])
    await until(lambda: place.dialled)
    theirs = place.join(Line("z", dialled=False))
    place.neighbours.send("z", [b"2"])
    place.line = Line("z", dialled=True)
    place.gate.set()
    await until(lambda: place.line is not None and place.line.frames)
    place.neighbours.send("z", [b"3"])
    assert place.line.frames == [b"1", b"2", b"3"]
    assert theirs.frames == [b"1", b"2"]


async def test_the_newest_frames_wait_within_bounds_and_the_first_connection_gets_them_once():
    place = Place()
    for number in range(20):
        place.neighbours.send("z", [b"%d" % number])
    place.line = Line("z", dialled=True)
    await until(lambda: place.line is not None and place.line.frames)
    assert place.line.frames == [b"%d" % number for number in range(20 - WAITING_FRAMES_MAX, 20)]
    await asyncio.sleep(0.01)
    place.neighbours.send("z", [b"later"])
    assert place.line.frames[WAITING_FRAMES_MAX:] == [b"later"]


async def test_long_frames_that_wait_have_a_bound_in_bytes():
    place = Place()
    long = bytes(SETTINGS.frame_bytes_max // 2 + 1)
    place.neighbours.send("z", [b"old", long, long])
    place.line = Line("z", dialled=True)
    await until(lambda: place.line is not None and place.line.frames)
    assert place.line.frames == [long]


async def test_delays_between_dials_grow_to_a_bound_and_begin_anew_after_a_connection_that_lasted(
    monkeypatch: pytest.MonkeyPatch,
):
    place = Place()
    delays: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if asyncio.current_task() is not test:
            delays.append(seconds)
        await sleep(0)

    test = asyncio.current_task()
    monkeypatch.setattr(asyncio, "sleep", note)
    place.neighbours.send("z", [b"1"])
    await until(lambda: place.dialled == 5)
    place.line = Line("z", dialled=True)
    await until(lambda: place.line is not None and place.line.frames)
    assert [delay for delay in delays if delay][:5] == [0.001, 0.002, 0.004, 0.004, 0.004]
    await until(lambda: not place.neighbours._neighbours["z"].dialling)
    place.line.opened_at -= SETTINGS.reconnect_delay_max
    place.leave(place.line)
    delays.clear()
    place.neighbours.send("z", [b"2"])
    await until(lambda: delays)
    assert delays[0] == 0
    await place.neighbours.stop()


async def test_a_dial_that_has_just_ended_does_not_drop_the_one_that_was_begun_since():
    place = Place()
    place.line = Line("z", dialled=True)
    place.neighbours.send("z", [b"1"])
    before = place.neighbours._neighbours["z"]
    await until(lambda: place.line is not None and place.line.frames)
    assert before.dial is not None
    await before.dial
    place.line.opened_at -= SETTINGS.reconnect_delay_max
    place.leave(place.line)
    place.neighbours.send("z", [b"2"])
    place.neighbours._end_dial("z", before)  # the loop may come to this callback only now
    assert place.neighbours._neighbours["z"] is before
    assert list(before.waiting) == [b"2"]
    await place.neighbours.stop()


async def test_a_dial_that_ended_drops_nothing_of_what_is_known_since_its_neighbour_was_dropped():
    place = Place()
    place.line = Line("z", dialled=True)
    place.neighbours.send("z", [b"1"])
    before = place.neighbours._neighbours["z"]
    assert before.dial is not None
    await before.dial
    await place.neighbours.stop()
    place.line.opened_at -= SETTINGS.reconnect_delay_max
    place.leave(place.line)
    assert place.neighbours.unsent("z") == 0
    place.join(Line("z", dialled=False))
    place.neighbours._end_dial("z", before)  # the loop may come to this callback only now
    assert place.neighbours.unsent("z") == 7


async def test_a_neighbour_that_closes_at_once_is_not_dialled_at_once():
    place = Place(Settings(reconnect_delay_min=60.0, reconnect_delay_max=60.0))
    place.line = Line("z", dialled=True)
    place.neighbours.send("z", [b"1"])
    await until(lambda: place.line is not None and place.line.frames)
    place.leave(place.line)
    for _ in range(5):
        await asyncio.sleep(0)
        place.neighbours.send("z", [b"2"])
    assert place.dialled == 1
    await place.neighbours.stop()


async def test_a_neighbour_whose_last_connection_is_gone_is_dialled_at_once_and_lost_if_nobody_listens():
    place = Place()
    line = place.join(Line("a", dialled=False))
    place.neighbours.send("a", [b"1"])
    place.leave(line)
    await until(lambda: place.lost)
    assert place.lost[0] == "a"
    await place.neighbours.stop()


async def test_a_neighbour_that_can_be_dialled_again_is_not_lost():
    place = Place()
    line = place.join(Line("a", dialled=False))
    place.neighbours.send("a", [b"1"])
    place.line = Line("a", dialled=True)
    place.leave(line)
    await until(lambda: place.dialled)
    await asyncio.sleep(0.01)
    assert (place.dialled, place.lost) == (1, [])
    await place.neighbours.stop()


async def test_who_dials_us_while_we_dial_in_vain_is_not_lost():
    place = Place()
    place.gate.clear()
    line = place.join(Line("z", dialled=False))
    place.neighbours.send("z", [b"1"])
    place.leave(line)
    await until(lambda: place.dialled)
    place.join(Line("z", dialled=False))
    place.gate.set()
    await asyncio.sleep(0.01)
    assert place.lost == []
    await place.neighbours.stop()


async def test_a_stranger_that_hangs_up_is_not_dialled():
    """What it said that it is may be anybody's address."""
    place = Place()
    place.leave(place.join(Line("a", dialled=False)))
    await asyncio.sleep(0.01)
    assert place.dialled == 0
    assert "a" not in place.neighbours._neighbours


async def test_nobody_is_dialled_once_all_is_stopped():
    place = Place()
    line = place.join(Line("a", dialled=False))
    place.neighbours.send("a", [b"1"])
    await place.neighbours.stop()
    place.leave(line)
    await asyncio.sleep(0.01)
    assert place.dialled == 0
