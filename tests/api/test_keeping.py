"""Snapshots of machines: what is kept, when it is frozen, what is refused, and what the next program makes of it."""

from __future__ import annotations

import abc
import datetime
import decimal
import enum
import re
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate import Node, keeping
from quorate.calling import describe
from quorate.errors import Corrupted, MachineError
from quorate.machine import StateMachine, write
from quorate.machines import KV, Echo, Stack
from quorate.testing.machine.canonical import canonical

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: str


class Point(msgspec.Struct, frozen=True):
    x: int
    of: tuple[Colour, ...] = ()
    next: Point | None = None


class Box(msgspec.Struct):
    inside: list[int]


class Cell(msgspec.Struct):
    number: int


class Crate(msgspec.Struct, Generic[T]):
    inside: T


class Seal(msgspec.Struct, Generic[T], frozen=True):
    inside: T


class Parent(StateMachine, Generic[T]):
    size: int = 3
    LIMIT: ClassVar[int] = 10

    @cached_property
    def derived(self) -> str:
        return "not state"


class Everything(Parent[int]):
    texts: dict[str, str]
    numbers: list[int | None]
    places: set[tuple[int, str]]
    frozen: frozenset[bytes]
    line: tuple[float, ...]
    queue: deque[int]
    points: dict[int, Point]
    pairs: list[Pair]
    moments: list[datetime.datetime | int]
    spans: list[datetime.timedelta]
    amounts: dict[uuid.UUID, decimal.Decimal]
    nested: dict[str, list[set[int]]]
    boxes: list[Box]
    cells: dict[str, Cell]
    anything: list[object]
    box: Box | None
    one: tuple[int, str]
    colour: Colour

    def __init__(self) -> None:
        self.texts, self.numbers, self.places, self.frozen, self.line = {}, [], set(), frozenset(), ()
        self.queue = deque(maxlen=2000)
        self.points, self.pairs, self.moments, self.spans, self.amounts, self.nested = {}, [], [], [], {}, {}
        self.boxes, self.cells, self.anything, self.box, self.one, self.colour = [], {}, [], None, (0, ""), Colour.RED

    def fill(self) -> None:
        many = range(3000)
        self.texts = {f"key {n}": "value" for n in many}
        self.numbers = [*many, None, 1]
        self.places = {(n, "x") for n in many}
        self.frozen = frozenset(b"%d" % n for n in many)
        self.line = tuple(n / 2 for n in many)
        self.queue.extend(many)
        self.points = {n: Point(n, (Colour.RED,), Point(n)) for n in many}
        self.pairs = [Pair(n, "x") for n in many]
        self.moments = [datetime.datetime(2025, 1, 2, 3, tzinfo=datetime.UTC), 7]
        self.spans = [datetime.timedelta(1, 2, 3)]
        self.amounts = {uuid.UUID(int=7): decimal.Decimal("0.10")}
        self.nested = {f"key {n}": [{n}, set()] for n in many}
        self.boxes = [Box([n]) for n in many]
        self.cells = {f"key {n}": Cell(n) for n in many}
        self.anything = [1, "x", [None, {"a": b"b"}]]
        self.box, self.one, self.size = Box([1]), (1, "x"), 4


def state(machine: StateMachine) -> dict[str, object]:
    return {name: value for name, value in vars(machine).items() if name not in ("context", "derived")}


def moved(machine: StateMachine, to: type[StateMachine] | None = None) -> Any:
    """Give what a peer makes of the machine's snapshot."""
    chunks = list(describe(type(machine)).snapshot(machine))
    return describe(to or type(machine)).restored(chunks)


# What is kept.


@pytest.mark.parametrize(
    ("machine", "calls"),
    [
        (KV, [(KV.set, "a", "b"), (KV.append, "c", "d"), (KV.delete, "a")]),
        (KV, []),
        (Stack, [(Stack.put, 1), (Stack.put, -(2**63)), (Stack.put, 2**64 - 1)]),
        (Echo, [(Echo.say, "x")]),
    ],
)
def test_the_ready_machines_come_back(machine, calls):
    described, lives = describe(machine), machine()
    described.check_state(machine())
    for call in calls:
        described.run_write(lives, described.encode_write(call[0], call[1:]))
    assert state(moved(lives)) == state(lives)


@given(st.dictionaries(st.text(), st.text()), st.lists(st.integers(-(2**63), 2**64 - 1)))
def test_whatever_the_ready_machines_hold_comes_back(entries, values):
    kv, stack = KV(), Stack()
    kv.entries, stack.values = entries, values
    assert list(moved(kv).entries.items()) == list(entries.items())  # in the same order
    assert moved(stack).values == values


def test_every_form_of_state_comes_back_as_it_was():
    describe(Everything).check_state(Everything())
    machine = Everything()
    assert state(moved(machine)) == state(machine) | {"size": 3}
    machine.fill()
    assert machine.derived
    restored = moved(machine)
    assert state(restored) == state(machine)
    assert {name: type(value) for name, value in state(restored).items()} == {
        name: type(value) for name, value in state(machine).items()
    }
    assert restored.queue.maxlen == 2000
    assert type(restored.pairs[0]) is Pair


class Generics(StateMachine):
    crate: Crate[int]
    perhaps: Crate[str] | None
    crates: dict[str, Crate[int]]
    seals: dict[str, Seal[int]]

    def __init__(self) -> None:
        self.crate, self.perhaps = Crate(1), Crate[str]("x")
        self.crates, self.seals = {"a": Crate(1)}, {"a": Seal[int](1)}


def test_structs_with_parameters_come_back_and_may_be_frozen():
    describe(Generics).check_state(Generics())
    assert state(moved(Generics())) == state(Generics())
    immutable = [name for name, attribute in keeping.attributes_of(Generics).items() if attribute.is_immutable]
    assert immutable == ["seals"]


def test_containers_are_cut_into_chunks_of_bounded_size():
    machine = Everything()
    machine.fill()
    machine.texts = {str(n): "x" * 10_000 for n in range(1000)}
    chunks = list(machine.snapshot())
    assert len(chunks) > 50
    parts = [keeping.PART_DECODER.decode(chunk) for chunk in chunks]
    items = [msgspec.msgpack.decode(part.value, strict=False) for part in parts if part.attribute != "points"]
    assert max(len(item) for item in items if isinstance(item, (list, dict))) <= keeping.ITEMS_MAX
    assert max(map(len, chunks)) < 2 * keeping.CHUNK_BYTES


# When it is frozen.


@pytest.mark.covers("pitfall 63")
def test_what_is_written_while_chunks_are_taken_does_not_show():
    machine = Everything()
    machine.fill()
    expected, frozen = Everything(), machine.snapshot()
    expected.fill()
    taken = iter(frozen)
    chunks = [next(taken)]
    for name, value in vars(machine).items():
        match value:
            case dict():
                value.popitem()
            case list() | set() | deque():
                value.pop()
            case _:
                setattr(machine, name, None)
    machine.nested["key 0"][0].add(1234)
    machine.boxes[0].inside.append(1234)
    machine.cells["key 0"].number = 1234
    chunks += taken
    assert state(describe(Everything).restored(chunks)) == state(expected)


def test_only_what_may_change_is_encoded_at_once(monkeypatch):
    encoded: list[str] = []
    encode = keeping.Attribute.encode

    def noted(attribute: keeping.Attribute, value: object) -> bytes:
        encoded.append(attribute.name)
        return encode(attribute, value)

    monkeypatch.setattr(keeping.Attribute, "encode", noted)
    chunks = Everything().snapshot()
    assert set(encoded) == {"size", "nested", "boxes", "cells", "anything", "box", "one", "colour"}
    list(chunks)
    assert {"texts", "places", "points", "queue"} < set(encoded)


# What is refused before the first command.


class Undeclared(StateMachine):
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}


class Defaults(StateMachine):
    """Values at class level that no machine can change for another."""

    box: Box | None = None
    count: int = 0
    place: tuple[int, str] = (0, "")
    point: Point = Point(1)


class Unset(StateMachine):
    entries: dict[str, str]


class Shared(StateMachine):
    entries: dict[str, str] = {}  # noqa: RUF012


class SharedBox(StateMachine):
    box: Box = Box([])


class Strange:
    pass


class Foreign(StateMachine):
    things: dict[str, Strange]

    def __init__(self) -> None:
        self.things = {}


class Locked(StateMachine):
    call: Callable[[], int]

    def __init__(self) -> None:
        self.call = int


class Absent(StateMachine):
    thing: Missing  # type: ignore[name-defined]  # noqa: F821


class Defaulting(StateMachine):
    counts: dict[str, int]

    def __init__(self) -> None:
        self.counts = defaultdict(int)


class Loose(StateMachine):
    entries = {}  # noqa: RUF012


class Mixin:
    boxes = (1, [Box([])])


class Mixed(Mixin, StateMachine):
    pass


class Made(StateMachine):
    thing = Strange()


class Slotted(StateMachine):
    __slots__ = ("entries", "hidden", "unset")
    entries: dict[str, str]

    def __init__(self) -> None:
        self.entries, self.hidden = {}, 0


class Fixed(StateMachine, abc.ABC):
    """What stands at class level without an annotation, and is not state; and what is said not to be."""

    table: ClassVar[dict[str, int]] = {}
    LIMIT = 10
    PLACES = (("a", 1), frozenset({Point(2)}))
    PATTERN = re.compile("x")
    DAY = datetime.date(2025, 1, 2)
    Alias = dict[str, int]

    class Inner:
        pass

    @property
    def size(self) -> int:
        return len(self.table)

    @staticmethod
    def twice(number: int) -> int:
        return 2 * number

    shorter = lambda self: self.LIMIT - 1  # noqa: E731
    length = len
    colour = Colour.RED


class Constant(StateMachine):
    LIMIT: Final = 10


class Wrong(StateMachine):
    count: int

    def __init__(self) -> None:
        self.count = "none"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (Undeclared, r"Undeclared\.entries would be lost: it is not annotated at class level\. Annotate it there"),
        (Unset, r"Unset\.entries has no value: set it in __init__, or give it a default"),
        (Shared, r"Shared\.entries would be shared by all machines of the process: set it in __init__"),
        (SharedBox, r"SharedBox\.box would be shared"),
        (Foreign, r"Foreign\.things cannot be kept in a snapshot: MessagePack has no form for Strange"),
        (Locked, r"Locked\.call cannot be kept in a snapshot: MessagePack has no form for Callable"),
        (Absent, r"the annotations of Absent cannot be resolved: .*Missing.*define the classes"),
        (Defaulting, r"Defaulting\.counts is a defaultdict, and would come back as a dict"),
        (Loose, r"Loose\.entries would be lost, and all machines of the process share it: annotate it .* ClassVar"),
        (Mixed, r"Mixed\.boxes would be lost"),
        (Made, r"Made\.thing would be lost"),
        (Slotted, r"Slotted\.hidden would be lost: it is not annotated at class level"),
        (Constant, r"Constant\.LIMIT cannot be kept .*Final.*; if no write changes it, annotate it as a ClassVar"),
        (Wrong, r"Wrong\.count is not what its annotation says: Expected `int`"),
    ],
)
def test_state_that_snapshots_would_lose_is_refused_with_what_to_do(machine, sentence):
    with pytest.raises(TypeError, match=sentence):
        describe(machine).check_state(machine())


def test_values_at_class_level_are_good_when_they_cannot_change():
    describe(Defaults).check_state(Defaults())
    machine = Defaults()
    machine.box = Box([1])
    assert state(moved(machine)) == {"box": Box([1]), "count": 0, "place": (0, ""), "point": Point(1)}


def test_what_no_machine_can_change_may_stand_at_class_level_without_an_annotation():
    describe(Fixed).check_state(Fixed())
    assert state(moved(Fixed())) == {}


async def test_a_peer_whose_state_would_be_lost_does_not_start():
    async with Node("127.0.0.1:0", store="memory") as node:
        with pytest.raises(TypeError, match=r"Undeclared\.entries would be lost"):
            await node.start_peer(Undeclared, name="peer1")
        assert (await node.start_peer(KV, name="peer1")).name == "peer1"


def test_overriding_both_lifts_the_checks():
    class Own(Undeclared):
        def snapshot(self) -> Iterable[bytes]:
            return [msgspec.msgpack.encode(self.entries)]

        def restore(self, chunks: Iterable[bytes]) -> None:
            (chunk,) = chunks
            self.entries = msgspec.msgpack.decode(chunk)

    describe(Own).check_state(Own())
    machine = Own()
    machine.entries["a"] = "b"
    assert moved(machine).entries == {"a": "b"}

    class Heir(Own):
        def snapshot(self) -> Iterable[bytes]:
            return super().snapshot()

    assert moved(Heir()).entries == {}


def test_a_snapshot_of_its_own_may_keep_what_was_computed():
    class Keeper(Parent[int]):
        @cached_property
        def store(self) -> list[int]:
            return []

        def snapshot(self) -> Iterable[bytes]:
            return [*super().snapshot(), msgspec.msgpack.encode(self.store)]

        def restore(self, chunks: Iterable[bytes]) -> None:
            *others, store = chunks
            super().restore(others)
            self.store.extend(msgspec.msgpack.decode(store))

    machine = Keeper()
    machine.store.append(1)
    assert moved(machine).store == [1]


def test_overriding_one_alone_is_refused():
    with pytest.raises(TypeError, match="OnlySnapshot overrides one of snapshot and restore; override both"):

        class OnlySnapshot(StateMachine):
            def snapshot(self) -> Iterable[bytes]:
                return []

    with pytest.raises(TypeError, match="OnlyRestore overrides one of snapshot and restore; override both"):

        class OnlyRestore(StateMachine):
            def restore(self, chunks: Iterable[bytes]) -> None: ...


def test_a_snapshot_that_would_read_the_living_machine_is_refused():
    with pytest.raises(TypeError, match=r"Live\.snapshot must not yield: its body would run while"):

        class Live(StateMachine):
            def snapshot(self) -> Iterable[bytes]:
                yield b""

            def restore(self, chunks: Iterable[bytes]) -> None: ...


def test_a_write_named_as_what_makes_snapshots_is_refused():
    with pytest.raises(TypeError, match=r'Backup\.restore must be a plain method.*@write\(name="restore"\)'):

        class Backup(StateMachine):
            @write
            def restore(self, name: str) -> None: ...


# What is refused while it runs.


class Growing(StateMachine):
    counts: dict[str, int]

    def __init__(self) -> None:
        self.counts = {}


def broken(change: Callable[[Growing], object]) -> Growing:
    machine = Growing()
    change(machine)
    return machine


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: setattr(m, "later", 1), r"Growing\.snapshot raised TypeError: Growing\.later would be lost"),
        (lambda m: setattr(m, "counts", defaultdict(int)), r"is a defaultdict, and would come back as a dict"),
        (lambda m: m.counts.update(a="b"), r"Growing\.counts\['a'\] is not what its annotation says: Expected `int`"),
        (lambda m: m.counts.update(a=2**64), r"Growing\.counts cannot be kept in a snapshot"),
        (lambda m: delattr(m, "counts"), r"AttributeError"),
    ],
)
def test_a_state_that_could_not_come_back_fails_its_snapshot_and_not_its_restore(change, sentence):
    with pytest.raises(MachineError, match=sentence):
        list(describe(Growing).snapshot(broken(change)))


class Recent(StateMachine):
    recent: deque[int]
    every: deque[int]

    def __init__(self) -> None:
        self.recent, self.every = deque(maxlen=3), deque()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recent": deque([1])}, r"Recent\.recent has no bound, and would come back with one of 3; give it the bound"),
        ({"recent": deque([1], 5)}, r"Recent\.recent has a bound of 5, and would come back with one of 3"),
        ({"every": deque([1], 5)}, r"Recent\.every has a bound of 5, and would come back with none"),
    ],
)
def test_a_deque_that_would_come_back_with_another_bound_is_refused(changes, sentence):
    machine = Recent()
    machine.recent = deque([1, 2], 3)
    assert moved(machine).recent.maxlen == 3
    for name, value in changes.items():
        setattr(machine, name, value)
    with pytest.raises(MachineError, match=sentence):
        list(describe(Recent).snapshot(machine))


def test_checks_of_determinism_tell_the_bounds_of_deques_apart():
    assert canonical(deque([1], 3)) != canonical(deque([1]))
    assert canonical(deque([1], 3)) != canonical(deque([1], 4))
    assert canonical(deque([1], 3)) == canonical(deque([1], 3))


class Counter:
    def __init__(self, size: int) -> None:
        self.size = size


class Computing(StateMachine):
    words: list[str]

    def __init__(self) -> None:
        self.words = ["a"]

    @cached_property
    def longest(self) -> str:
        return max(self.words, key=len)

    @cached_property
    def twice(self) -> str:
        return self.longest * 2

    @cached_property
    def store(self) -> dict[str, int]:
        return {}

    @cached_property
    def methods(self) -> dict[str, Callable[[], str]]:
        return {"look": self.look}

    @cached_property
    def key(self) -> Callable[[str], int]:
        return lambda word: len(word)

    @cached_property
    def lock(self) -> object:
        return object()

    @cached_property
    def counter(self) -> Counter:
        return Counter(len(self.words))

    def look(self) -> str:
        return self.longest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("longest", lambda m: m.words.append("bcd")),
        ("store", lambda m: m.store.update(a=1)),
        ("counter", lambda m: m.words.append("b")),
    ],
)
def test_what_was_computed_and_would_be_something_else_is_refused(name, change):
    machine = Computing()
    kept = getattr(machine, name)
    change(machine)
    before = dict(vars(machine))
    sentence = rf"Computing\.{name} is kept from earlier, and would be computed anew, as something else: make it a prop"
    with pytest.raises(MachineError, match=sentence):
        list(describe(Computing).snapshot(machine))
    assert list(vars(machine).items()) == list(before.items())
    assert getattr(machine, name) is kept


def test_what_would_be_computed_alike_is_kept_in_the_machine():
    machine = Computing()
    names = ["twice", "store", "methods", "key", "lock", "counter"]
    kept = {name: getattr(machine, name) for name in names}
    machine.words.append("b")
    machine.counter.size = 2
    assert moved(machine).words == ["a", "b"]
    assert all(getattr(machine, name) is value for name, value in kept.items())


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ([b""], r"Growing\.restore raised ValueError: not a chunk of a machine's state"),
        ([b"\xff\x00"], "not a chunk"),
        ([msgspec.msgpack.encode(("counts", {}, 1))], "not a chunk"),
        ([msgspec.msgpack.encode(("counts", {"a": "b"}))], r"Growing\.counts\['a'\] is not what its annotation says"),
        ([msgspec.msgpack.encode(("counts", {})), msgspec.msgpack.encode(("other", 1))], "holds other, which Growing"),
    ],
)
def test_chunks_of_something_else_are_refused(chunks, sentence):
    with pytest.raises(MachineError, match=sentence):
        describe(Growing).restored(chunks)


def test_damage_found_while_chunks_are_read_is_no_fault_of_the_machine():
    def chunks() -> Iterable[bytes]:
        yield from Growing().snapshot()
        raise Corrupted("damaged")

    with pytest.raises(Corrupted):
        describe(Growing).restored(chunks())


def test_chunks_that_are_no_bytes_are_refused():
    class Textual(StateMachine):
        def snapshot(self) -> Any:
            return ["text"]

        def restore(self, chunks: Iterable[bytes]) -> None: ...

    with pytest.raises(MachineError, match="a chunk must be bytes, and is str"):
        list(describe(Textual).snapshot(Textual()))


# What the next program makes of it.


class Grown(Growing):
    total: int = 7
    labels: list[str]
    by_name: Mapping[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.labels, self.by_name = ["new"], {}


def test_a_new_attribute_keeps_what_the_program_gave_it():
    old = Growing()
    old.counts["a"] = 1
    describe(Grown).check_state(Grown())
    grown = moved(old, Grown)
    assert (grown.counts, grown.total, grown.labels) == ({"a": 1}, 7, ["new"])
    with pytest.raises(MachineError, match="the snapshot holds total, which Growing does not have"):
        moved(grown, Growing)


def test_a_new_attribute_without_a_value_is_refused():
    with pytest.raises(MachineError, match=r"the snapshot lacks Unset\.entries"):
        moved(Echo(), Unset)
