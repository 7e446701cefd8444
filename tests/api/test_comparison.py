"""What a snapshot would bring back as something else: refused by its place; all else comes back as it was."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import math
import re
import uuid
import zoneinfo
from collections import deque
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.calling import describe
from quorate.errors import MachineError
from quorate.machine import StateMachine

T = TypeVar("T")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    YES = "yes"


class Size(enum.IntEnum):
    SMALL = 1


@dataclasses.dataclass
class Shape:
    name: str
    parts: list[Shape] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def title(self) -> str:
        return self.name.title()


@dataclasses.dataclass
class Circle(Shape):
    radius: int = 0


@dataclasses.dataclass(frozen=True)
class Mark:
    at: tuple[int, ...]


@dataclasses.dataclass
class Crate(Generic[T]):
    inside: T


@dataclasses.dataclass
class Idle:
    """Has nothing that could change."""


class Pair(NamedTuple):
    left: int
    right: float


class Row(TypedDict):
    price: float


class Point(msgspec.Struct, frozen=True):
    x: float
    tags: tuple[str, ...] = ()


class Box(msgspec.Struct):
    inside: list[int]


class State(StateMachine):
    number: int
    share: float
    text: str
    pair: Pair | None
    at: datetime.datetime | None
    opens: datetime.time | None
    anything: object
    colour: Colour | None
    texts: dict[str, str]
    shares: dict[str, float]
    shapes: dict[str, Shape]
    line: list[Shape]
    rows: list[Row]
    points: dict[int, Point]
    places: set[tuple[int, float]]
    words: frozenset[str]
    trail: tuple[float, ...]
    queue: deque[float]
    nested: dict[str, list[set[float]]]
    boxes: list[Box | int]
    marks: list[Mark]
    idle: list[Idle]
    crates: dict[str, Crate[int]]
    raw: bytearray
    shape: Shape
    raws: dict[str, list[bytearray]]
    amounts: dict[uuid.UUID, decimal.Decimal]

    def __init__(self) -> None:
        self.number, self.share, self.text, self.pair, self.at = 0, 0.0, "", None, None
        self.anything, self.colour, self.opens = None, None, None
        self.texts, self.shares, self.shapes, self.line, self.rows = {}, {}, {}, [], []
        self.points, self.places, self.words, self.trail, self.queue = {}, set(), frozenset(), (), deque()
        self.nested, self.boxes, self.marks, self.idle, self.raw, self.amounts = {}, [], [], [], bytearray(), {}
        self.crates, self.raws, self.shape = {}, {}, Shape("")


def kept(**changes: Any) -> Any:
    """Give what comes back of a state that differs so from a fresh one."""
    machine = State()
    for name, value in changes.items():
        setattr(machine, name, value)
    described = describe(State)
    return described.restored(list(described.snapshot(machine)))


def dressed() -> Shape:
    shape = Shape("a")
    shape.size = 3  # type: ignore[attr-defined]
    return shape


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"share": 3}, r"State\.share is an int, and would come back as a float; make it one, annotate it otherwise"),
        ({"text": Word.YES}, r"State\.text is a Word, and would come back as a str"),
        ({"pair": Pair(1, 2)}, r"State\.pair\[1\] is an int, and would come back as a float"),
        ({"pair": (1, 2.0)}, r"State\.pair is a tuple, and would come back as a Pair"),
        ({"at": datetime.datetime(2026, 1, 1, 0, 30, tzinfo=BERLIN)}, r"State\.at is .*Berlin.*: keep it in datetime"),
        ({"at": datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))}, r"keep it in datetime\.UTC"),
        ({"opens": datetime.time(1, 2, fold=1)}, r"State\.opens is datetime.*fold=1\), and would come back as"),
        ({"anything": [1, (2, 3)]}, r"State\.anything\[1\] is a tuple, and would come back as a list"),
        ({"anything": uuid.UUID(int=7)}, r"State\.anything is an UUID, and would come back as a str"),
        ({"anything": Shape("a")}, r"State\.anything is a Shape, and would come back as a dict"),
        ({"colour": "red"}, r"State\.colour is a str, and would come back as a Colour"),
        ({"texts": {"a": "b", Word.YES: "c"}}, r"the key <Word\.YES: 'yes'> of State\.texts is a Word"),
        ({"texts": {"a": Word.YES}}, r"State\.texts\['a'\] is a Word"),
        ({"shares": {str(n): n / 2 for n in range(3000)} | {"x": 1}}, r"State\.shares\['x'\] is an int"),
        ({"shapes": {"a": Shape("a"), "b": Circle("c", radius=5)}}, r"State\.shapes\['b'\] is a Circle, .* a Shape"),
        ({"line": [Shape("a", [Shape("b"), Circle("c")])]}, r"State\.line\[0\]\.parts\[1\] is a Circle"),
        ({"line": [Shape("a"), dressed()]}, r"State\.line\[1\]\.size would be lost: it is no field of Shape"),
        ({"rows": [{"price": 1.0}, {"price": 1}]}, r"State\.rows\[1\]\['price'\] is an int"),
        ({"rows": [{"price": 1.0, "vat": 2}]}, r"State\.rows\[0\] holds 2 items, and would come back with 1"),
        ({"points": {1: Point(1.0), 2: Point(2)}}, r"State\.points\[2\]\.x is an int"),
        ({"points": {1: Point(1.0, ("a", Word.YES))}}, r"State\.points\[1\]\.tags\[1\] is a Word"),
        ({"places": {(1, 2.0), (2, 3)}}, r"\(2, 3\) in State\.places\[1\] is an int"),
        ({"places": {(1, math.nan)}}, r"\(1, nan\) in State\.places would not be found there again"),
        ({"words": frozenset({"a", Word.YES})}, r"<Word\.YES: 'yes'> in State\.words is a Word"),
        ({"trail": (*(n / 2 for n in range(3000)), 1)}, r"State\.trail\[3000\] is an int"),
        ({"queue": deque([0.5, 1])}, r"State\.queue\[1\] is an int"),
        ({"nested": {"a": [{0.5}, {1}]}}, r"1 in State\.nested\['a'\]\[1\] is an int"),
        ({"boxes": [1, Box([]), Size.SMALL]}, r"State\.boxes\[2\] is a Size"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused_by_its_place(changes, sentence):
    with pytest.raises(MachineError, match=sentence):
        kept(**changes)


SHAPE = Shape("a")
LIST: list[int] = []
TEXTS = {"a": "b"}
RAW = bytearray(b"abc")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shapes": {"a": SHAPE}, "line": [SHAPE]}, r"State\.line\[0\] is the same Shape as State\.shapes\['a'\], and"),
        (
            {"line": [SHAPE, Shape("b"), SHAPE]},
            r"State\.line\[2\] is the same Shape as State\.line\[0\], .* as another",
        ),
        ({"line": [Shape("b", [SHAPE]), SHAPE]}, r"the same Shape as State\.line"),
        ({"boxes": [Box(LIST), Box(LIST)]}, r"State\.boxes\[1\]\.inside is the same list as State\.boxes\[0\]\.inside"),
        ({"line": [*(Shape(str(n)) for n in range(3000)), SHAPE, SHAPE]}, r"State\.line\[3001\] is the same Shape"),
        ({"texts": TEXTS, "anything": TEXTS}, r"is the same dict as State\."),
        ({"raw": RAW, "raws": {"a": [RAW]}}, r"State\.raws\['a'\]\[0\] is the same bytearray as State\.raw, and"),
    ],
)
def test_what_can_change_and_stands_in_two_places_is_refused(changes, sentence):
    """It would come back as two: what changes in one place would stay as it was in the other."""
    with pytest.raises(MachineError, match=sentence):
        kept(**changes)


def test_what_cannot_change_may_stand_in_two_places():
    mark, point, idle = Mark((1, 2)), Point(1.0), Idle()
    changes = {
        "marks": [mark, mark],
        "idle": [idle, idle],
        "points": {1: point, 2: point},
        "anything": "x" * 100,
        "text": "x",
    }
    restored = kept(**changes)
    assert {name: getattr(restored, name) for name in changes} == changes


def test_what_comes_back_as_it_was_is_kept():
    shape = Shape("a", [Shape("b")])
    assert shape.title == "A"  # is computed again
    changes: dict[str, Any] = {
        "share": -0.0,
        "pair": Pair(1, math.inf),
        "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "opens": datetime.time(1, 2, tzinfo=datetime.UTC),
        "anything": {"a": [1, 2.0, None, True, b"x", {"b": {}}]},
        "colour": Colour.RED,
        "shapes": {"a": shape, "b": Shape("b", [Shape("b")])},
        "rows": [{"price": 1.0}],
        "places": {(n, n / 2) for n in range(3000)},
        "nested": {"a": [{0.5, 1.0}, set()], "b": []},
        "boxes": [1, Box([1]), Box([]), 2],
        "marks": [Mark(())],
        "crates": {"a": Crate[int](1), "b": Crate(2)},  # Python notes in the first what it was made by.
        "raw": bytearray(b"abc"),
        "amounts": {uuid.UUID(int=1): decimal.Decimal("1.00")},
    }
    restored = kept(**changes)
    assert {name: repr(getattr(restored, name)) for name in changes if name != "places"} == {
        name: repr(value) for name, value in changes.items() if name != "places"
    }
    assert restored.places == changes["places"]
    assert math.copysign(1, restored.share) == -1
    for opens in (datetime.time(1, 2), datetime.time(1, 2, tzinfo=datetime.UTC)):
        assert kept(opens=opens).opens == opens


def test_nan_comes_back_as_nan():
    restored = kept(share=math.nan, trail=(1.0, math.nan), shares={"a": math.nan}, nested={"a": []})
    assert math.isnan(restored.share)
    assert math.isnan(restored.trail[1])
    assert math.isnan(restored.shares["a"])


def test_what_changes_while_it_is_compared_does_not_show():
    machine = State()
    machine.nested, machine.line = {"a": [{0.5}]}, [Shape("a", [Shape("b")])]
    machine.raw, machine.raws = bytearray(b"abc"), {"a": [bytearray(b"abc")]}
    frozen = describe(State).snapshot(machine)
    machine.raw[0], machine.raws["a"][0][1] = 0, 0
    machine.nested["a"][0].add(1)
    machine.line[0].parts.append(Circle("c"))
    machine.line[0].name = 3  # type: ignore[assignment]
    restored: Any = describe(State).restored(list(frozen))
    assert (restored.nested, restored.line) == ({"a": [{0.5}]}, [Shape("a", [Shape("b")])])
    assert (restored.raw, restored.raws) == (bytearray(b"abc"), {"a": [bytearray(b"abc")]})


def test_a_fresh_state_that_would_come_back_otherwise_is_a_mistake_that_is_told_at_the_start():
    class Fresh(StateMachine):
        total: float

        def __init__(self) -> None:
            self.total = 0

    with pytest.raises(TypeError, match=r"Fresh\.total is an int, and would come back as a float"):
        describe(Fresh).check_state(Fresh())


def test_what_has_another_form_than_its_annotation_is_named_by_its_place():
    with pytest.raises(
        MachineError, match=r"State\.texts\['b'\] is not what its annotation says: Expected `str`.*; keep"
    ):
        kept(texts={"a": "b", "b": None})
    with pytest.raises(MachineError, match=r"State\.line\[1\] is not what its annotation says"):
        kept(line=[Shape("a"), None])
    with pytest.raises(MachineError, match=r"State\.words is not what its annotation says"):
        kept(words=frozenset({1}))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"line": [*(Shape(str(n)) for n in range(50)), None]}, "State.line[50]"),
        ({"line": [*(Shape(str(n)) for n in range(3000)), None]}, "State.line[3000]"),
        ({"shape": Shape("a", 3)}, "State.shape"),  # type: ignore[arg-type]
        ({"pair": Pair("a", 3.0)}, "State.pair"),  # type: ignore[arg-type]
        ({"queue": deque([0.5, "a"])}, "State.queue"),
        ({"trail": (0.5, "a")}, "State.trail"),
    ],
)
def test_the_place_of_what_has_another_form_is_that_in_the_whole_or_none(changes, place):
    with pytest.raises(MachineError, match=f"ValueError: {re.escape(place)} is not what its annotation says"):
        kept(**changes)


def test_the_place_of_what_a_snapshot_brings_back_counts_all_chunks():
    chunks = [msgspec.msgpack.encode(("line", items)) for items in ([{"name": "a"}] * 3, [{"name": "b"}, 3])]
    with pytest.raises(MachineError, match=r"State\.line\[4\] is not what its annotation says: .*`\$\[4\]`"):
        describe(State).restored(chunks)


leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=2) | st.binary(max_size=2)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


@given(anything, st.lists(anything))
def test_whatever_message_pack_has_comes_back(value: Any, values: list[Any]) -> None:
    restored = kept(anything=value)
    assert repr(restored.anything) == repr(value)
    assert repr(kept(anything=values).anything) == repr(values)
