"""Events: what a write emits, what of it is kept, and what whoever waits is sent."""

from __future__ import annotations

import math

import msgspec
import pytest

from quorate import Compacted, Event, Rejected, StateMachine, Stopped, Unavailable, read, write
from quorate.apply import Apply
from quorate.calling import describe
from quorate.errors import MachineError, Overloaded
from quorate.events import EVENT_BYTES_MAX, OVERHEAD, Emitted
from quorate.recent import ANSWER_BYTES_MAX, Recent, Watcher
from quorate.sessions import OpenSession, encode_opening, encode_write
from quorate.tables import Replicated, Tables
from quorate.transport.calls import Events, Failure, error_from_failure, failure_from_error
from quorate.transport.frames import encode_value
from quorate.types import Index, Kind, Run, Snapshot, Term
from tests.api.test_apply import Noted, asking


class Added(Event):
    text: str


class Removed(Event, tag="gone"):
    text: str
    rest: int = 0


class Words(StateMachine):
    emits = (Added, Removed)
    words: list[str]

    def __init__(self) -> None:
        self.words = []

    @write
    def add(self, text: str, times: int = 1) -> int:
        for _ in range(times):
            self.words.append(text)
            self.emit(Added(text))
        if text == "bug":
            raise ValueError(text)
        return len(self.words)

    @write
    def remove(self, text: str) -> None:
        self.emit(Removed(text, len(self.words)))
        if text not in self.words:
            raise Rejected("no_such_word", text)
        self.words.remove(text)

    @read
    def look(self) -> int:
        self.emit(Added("seen"))
        return 0


WORDS = describe(Words)


def add(text: str, times: int = 1) -> bytes:
    return WORDS.encode_write(Words.add, (text, times))


def remove(text: str) -> bytes:
    return WORDS.encode_write(Words.remove, (text,))


def run_of(first: int, *payloads: bytes, time: float = 0.0) -> Run:
    return Run(Term(1), Index(first), Kind.COMMAND, time, payloads)


def words(events_bytes_max: int = 1_000_000) -> Apply:
    return Apply(Words(), WORDS, events_bytes_max)


def watcher(*names: str, place: tuple[int, int] = (1, 0), deadline: float = math.inf) -> Watcher:
    prefixes = tuple(WORDS.events.prefixes[name] for name in names or ("Added", "gone"))
    waiter = Noted()
    waiter.deadline = deadline
    return Watcher(waiter, prefixes, place)


def told(watcher: Watcher) -> object:
    [answer] = watcher.waiter.told
    return answer


def event(index: int, place: int, value: Event) -> Emitted:
    return Emitted(Index(index), place, msgspec.msgpack.encode(value))


# A plain machine.


def test_a_plain_machine_just_runs_and_shows_what_it_emitted():
    words = Words()
    words.add("a")
    words.add("b", times=2)
    words.remove("b")
    assert words.effects.events == [Added("a"), Added("b"), Added("b"), Removed("b", 3)]


def test_an_event_is_a_copy_of_what_was_emitted():
    class Listed(Event):
        words: list[str]

    class Lists(Words):
        emits = (*Words.emits, Listed)

        @write
        def list(self) -> None:
            self.emit(Listed(self.words))

    lists = Lists()
    lists.list()
    lists.add("a")
    assert lists.effects.events == [Listed([]), Added("a")]


class Stranger(Event):
    text: str


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (Stranger("a"), TypeError, r"Stranger is no event that this machine names: emits = \(Stranger,\)"),
        (Added(7), TypeError, "Added does not hold what it declares: Expected `str`, got `int`"),  # type: ignore[arg-type]
        (Added(object()), TypeError, "Added does not hold what it declares"),  # type: ignore[arg-type]
        (Added("a" * EVENT_BYTES_MAX), ValueError, f"an event has at most {EVENT_BYTES_MAX}"),
    ],
)
def test_what_cannot_be_emitted_is_refused_where_it_is(wrong, error, says):
    with pytest.raises(error, match=says):
        Words().emit(wrong)


@pytest.mark.parametrize(
    ("emits", "says"),
    [
        ([Added], "emits must be a tuple of classes of events"),
        (Added, "emits must be a tuple of classes of events"),
        ((Added, str), "has <class 'str'>, which is no class of events"),
        ((Event,), "which is no class of events"),
        ((Removed, type("gone", (Event,), {})), "two events named 'gone'"),
        ((type("Odd", (Event,), {"__annotations__": {"what": "Nowhere"}}),), "Odd|Nowhere"),
    ],
)
def test_a_class_that_declares_what_cannot_be_emitted_is_refused(emits, says):
    with pytest.raises(TypeError, match=says):
        type("Bad", (StateMachine,), {"emits": emits})


@pytest.mark.parametrize("name", ["emit", "effects", "context"])
def test_a_machine_has_nothing_of_its_own_under_a_name_of_quorate(name):
    with pytest.raises(TypeError, match=f"Bad.{name}: this name is taken by StateMachine.{name}"):
        type("Bad", (StateMachine,), {"__annotations__": {name: "dict[str, str]"}})
    with pytest.raises(TypeError, match=f"Bad.{name}: this name is taken"):
        type("Bad", (StateMachine,), {name: write(lambda self: None)})


def test_prefixes_tell_events_apart():
    class Gone(Event, tag="go"):
        text: str

    class Many(Event):
        a: int = 0
        b: int = 0
        c: int = 0
        d: int = 0
        e: int = 0
        f: int = 0
        g: int = 0
        h: int = 0
        i: int = 0
        j: int = 0
        k: int = 0
        l: int = 0  # noqa: E741
        m: int = 0
        n: int = 0
        o: int = 0
        p: int = 0

    class Both(Words):
        emits = (Gone, Removed, Many)

    prefixes = describe(Both).events.prefixes
    for value in (Gone("x"), Removed("x", 1), Many()):
        encoded = msgspec.msgpack.encode(value)
        assert [name for name, prefix in prefixes.items() if encoded.startswith(prefix)] == [
            type(value).__struct_config__.tag
        ]


def test_an_older_program_skips_the_fields_that_it_does_not_know():
    class Old(Event, tag="gone"):
        text: str

    decoder = describe(type("OldWords", (Words,), {"emits": (Old,)})).events.decoder
    assert decoder.decode(msgspec.msgpack.encode(Removed("a", 7))) == Old("a")


# Applying.


def test_events_have_the_index_of_their_entry_and_their_place_in_it():
    apply, waits = words(), watcher()
    apply.recent.add(waits, Index(0))
    apply.apply([run_of(1, add("a"), add("b", 2)), run_of(3, remove("a"))])
    assert told(waits) == Events(
        (4, 0),
        (event(1, 0, Added("a")), event(2, 0, Added("b")), event(2, 1, Added("b")), event(3, 0, Removed("a", 3))),
    )


@pytest.mark.parametrize("payload", [remove("nothing"), add("bug"), add("bug", 3)])
@pytest.mark.parametrize("is_in_session", [False, True])
def test_a_write_that_raises_emits_nothing(payload, is_in_session):
    apply, waits = words(), watcher()
    apply.recent.add(waits, Index(0))
    payloads = [add("a"), payload, add("b")]
    if is_in_session:
        payloads[1] = encode_write(1, 1, 1, payload)
        apply.apply([run_of(1, encode_opening(OpenSession(10.0)))])
    first = apply.last_applied + 1
    apply.apply([run_of(first, *payloads)])
    assert told(waits).events == (event(first, 0, Added("a")), event(first + 2, 0, Added("b")))


def test_a_write_that_comes_again_in_its_session_emits_nothing_again():
    apply, waits = words(), watcher()
    apply.recent.add(waits, Index(0))
    once = encode_write(1, 1, 1, add("a"))
    apply.apply([run_of(1, encode_opening(OpenSession(10.0)), once, once)])
    assert told(waits).events == (event(2, 0, Added("a")),)


def test_a_read_cannot_emit():
    apply, waits, asked = words(), watcher(), Noted()
    apply.recent.add(waits, Index(0))
    apply.apply([run_of(1, add("a"))])
    apply.read(Index(1), [asking(Words, Words.look, (), asked)])
    [error] = asked.told
    assert isinstance(error, MachineError)
    assert "a read only looks: it emits nothing" in str(error)
    apply.apply([run_of(2, add("b"))])
    again = watcher(place=(2, 0))
    apply.recent.add(again, Index(2))
    assert told(again).events == (event(2, 0, Added("b")),)


# Those who wait.


def test_who_waits_is_sent_what_is_there_already():
    apply = words()
    apply.apply([run_of(1, add("a"), add("b", 3), add("c"))])
    for place, count in [((1, 0), 5), ((2, 0), 4), ((2, 2), 2), ((3, 0), 1)]:
        waits = watcher(place=place)
        apply.recent.add(waits, Index(3))
        assert len(told(waits).events) == count
        assert told(waits).place == (4, 0)


def test_who_waits_for_some_events_is_not_sent_others_nor_asks_again_behind_them():
    apply, waits = words(), watcher("gone")
    apply.recent.add(waits, Index(0))
    apply.apply([run_of(1, add("a"), add("b"))])
    assert (waits.waiter.told, waits.place) == ([], (3, 0))
    apply.apply([run_of(3, remove("a"), add("c"))])
    assert told(waits) == Events((5, 0), (event(3, 0, Removed("a", 2)),))


def test_who_is_ahead_of_this_peer_is_sent_nothing_twice():
    apply, waits = words(), watcher(place=(3, 1))
    apply.recent.add(waits, Index(0))
    apply.apply([run_of(1, add("a"), add("b"))])
    assert (waits.waiter.told, waits.place) == ([], (3, 1))
    apply.apply([run_of(3, add("c", 2))])
    assert told(waits) == Events((4, 0), (event(3, 1, Added("c")),))


def test_an_answer_holds_a_bounded_number_of_bytes_and_the_next_one_goes_on():
    apply, place, found = words(), (1, 0), []
    apply.apply([run_of(1, add("x" * 1000, 100), add("y" * 1000, 100))])
    answers = 0
    while place < (3, 0):
        waits = watcher(place=place)
        apply.recent.add(waits, Index(2))
        answer = told(waits)
        assert sum(emitted.size for emitted in answer.events) <= ANSWER_BYTES_MAX
        found += [(emitted.index, emitted.place) for emitted in answer.events]
        place, answers = answer.place, answers + 1
    assert found == [(index, place) for index in (1, 2) for place in range(100)]
    assert answers == -(-200 // (ANSWER_BYTES_MAX // (len(event(1, 0, Added("x" * 1000)).event) + OVERHEAD)))


@pytest.mark.parametrize("name", ["Added", "gone"])
def test_for_one_call_a_bounded_number_of_events_is_looked_at_and_the_next_one_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Else each of many who ask for the little that they want holds up the loop while all is looked at."""
    monkeypatch.setattr("quorate.recent.LOOKS_MAX", 10)
    held = Recent(10**9)
    events = [event(index, 0, Removed("a") if index % 35 == 0 else Added("a")) for index in range(1, 101)]
    held.take(events, Index(100))
    place, found, answers = (1, 0), [], 0
    while place < (101, 0) and answers < 100:
        waits = watcher(name, place=place)
        held.add(waits, Index(100))
        if not waits.waiter.told:
            break
        answer = told(waits)
        assert place < answer.place <= (place[0] + 10, 0) or place > (90, 0)
        found += [emitted.index for emitted in answer.events]
        place, answers = answer.place, answers + 1
    assert found == [index for index in range(1, 101) if (index % 35 == 0) is (name == "gone")]
    assert answers == (10 if name == "Added" else 9)  # Of the last ten none is wanted: for more somebody waits.


def test_any_frame_has_room_for_an_answer():
    smallest = 64 * 1024
    recent, waits = Recent(10**9), watcher()
    recent.add(waits, Index(0))
    recent.take([event(1, 0, Added("x" * (EVENT_BYTES_MAX - 20))), event(1, 1, Added("y" * 16_000))], Index(1))
    assert len(encode_value(told(waits))) < smallest - 1024


def test_only_so_many_bytes_are_held_and_whoever_comes_late_is_told_where_they_begin():
    apply = words(5 * (len(msgspec.msgpack.encode(Added("a"))) + OVERHEAD))
    apply.apply([run_of(1, *[add("a", 2)] * 5)])  # The last five of ten are held: 3.1 and on.
    assert apply.recent.first == (3, 1)
    for place in ((1, 0), (3, 0)):
        late = watcher(place=place)
        apply.recent.add(late, Index(5))
        assert isinstance(told(late), Compacted)
        assert told(late).first == 4
        assert "read what they led to, and go on with watch(..., after=3)" in str(told(late))
    in_time = watcher(place=(3, 1))
    apply.recent.add(in_time, Index(5))
    assert len(told(in_time).events) == 5


def test_who_waits_is_sent_even_what_is_not_held():
    apply, waits = words(0), watcher()
    apply.recent.add(waits, Index(0))
    apply.apply([run_of(1, add("a"))])
    assert told(waits) == Events((2, 0), (event(1, 0, Added("a")),))
    assert apply.recent.first == (1, 1)


def test_a_snapshot_tells_no_events():
    apply, waits, ahead = words(), watcher(place=(3, 0)), watcher(place=(9, 0))
    apply.apply([run_of(1, add("a"), add("b"))])
    apply.recent.add(waits, Index(2))
    apply.recent.add(ahead, Index(2))
    apply.restore_to(Replicated(Words(), Tables()), Snapshot(Index(6), Term(1), 0.0, Index(1), b""))
    assert told(waits).first == 7
    assert ahead.waiter.told == []
    late = watcher(place=(6, 0))
    apply.recent.add(late, Index(6))
    assert told(late).first == 7


def test_who_waited_long_enough_learns_where_to_go_on():
    recent = Recent(0)
    first, second = watcher(place=(3, 0), deadline=5.0), watcher(place=(9, 4), deadline=6.0)
    for waits in (first, second):
        recent.add(waits, Index(4))
    assert recent.deadline() == 5.0
    recent.expire(5.0, Index(7), None)
    assert (told(first), second.waiter.told) == (Events((8, 0), ()), [])
    recent.expire(6.0, Index(7), None)
    assert told(second) == Events((9, 4), ())
    assert recent.deadline() == math.inf


def test_who_waited_at_a_peer_without_a_leader_asks_another():
    recent, waits = Recent(0), watcher(deadline=5.0)
    recent.add(waits, Index(0))
    recent.expire(5.0, Index(0), "peer1 knows of no leader")
    assert isinstance(told(waits), Unavailable)


def test_who_waits_at_a_peer_that_stops_is_told(monkeypatch):
    recent, waits, gone = Recent(0), watcher(), watcher()
    recent.add(waits, Index(0))
    recent.add(gone, Index(0))
    recent.remove(gone)
    recent.remove(gone)
    recent.stop("it was stopped")
    assert isinstance(told(waits), Stopped)
    assert gone.waiter.told == []
    monkeypatch.setattr("quorate.recent.WATCHERS_MAX", 1)
    recent.add(watcher(), Index(0))
    many = watcher()
    recent.add(many, Index(0))
    assert isinstance(told(many), Overloaded)


def test_the_error_survives_the_wire():
    error = error_from_failure(failure_from_error(Compacted(57)))
    assert isinstance(error, Compacted)
    assert error.first == 57
    assert isinstance(error_from_failure(Failure("Compacted", "?", None, b"")), Unavailable)
    assert isinstance(error_from_failure(Failure("Compacted", "?", None, b"\x91\xa1x")), Unavailable)
