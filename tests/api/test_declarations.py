"""What a machine's class may declare: what is refused where it is written, with what to write; and what works."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import pytest

from quorate.calling import describe
from quorate.machine import Command, Query, StateMachine, read, write


class KV(StateMachine):
    @write
    def set(self, key: str, value: str) -> str:
        return value


class Set(Command[str], tag="set"):
    key: str
    value: str


class Delete(Command[bool]):
    key: str


class Get(Query[str]):
    key: str


def test_handlers_that_are_no_plain_functions_are_refused():
    with pytest.raises(TypeError, match=r"Bad\.go must be a plain def"):

        class Bad(StateMachine):
            @write
            async def go(self) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad2\.go must be a plain def"):

        class Bad2(StateMachine):
            @read
            def go(self) -> Any:
                yield 1

    with pytest.raises(TypeError, match=r"Bad3\.go must be a plain def"):

        class Bad3(StateMachine):
            @read
            async def go(self) -> Any:
                yield 1

    with pytest.raises(TypeError, match="is not a plain method"):

        class Bad4(StateMachine):
            @write
            @staticmethod
            def go() -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad5\.go must take self"):

        class Bad5(StateMachine):
            @write
            def go() -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad6\.handle_write must be a plain def"):

        class Bad6(StateMachine):
            async def handle_write(self, command: Set) -> str:
                return ""


def test_parameters_without_a_place_or_type_are_refused():
    with pytest.raises(TypeError, match=r"Bad\.go: \*names.* has no fixed position"):

        class Bad(StateMachine):
            @write
            def go(self, *names: str) -> str:
                return ""

    with pytest.raises(TypeError, match=r"\*\*names.* has no fixed position"):

        class Bad2(StateMachine):
            @write
            def go(self, **names: str) -> str:
                return ""

    with pytest.raises(TypeError, match="has no fixed position"):

        class Bad3(StateMachine):
            @write
            def go(self, *, name: str) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad4\.go: name needs an annotation, such as name: str"):

        class Bad4(StateMachine):
            @write
            def go(self, name) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad5\.go needs the type of its reply"):

        class Bad5(StateMachine):
            @write
            def go(self, name: str):
                return ""

    with pytest.raises(TypeError, match=r"Bad6\.go: Type unions may not contain"):

        class Bad6(StateMachine):
            @write
            def go(self, names: dict[str, int] | dict[int, str]) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad8\.go: Type unions may not contain"):

        class Bad8(StateMachine):
            @read
            def go(self) -> dict[str, int] | dict[int, str]:
                return {}

    with pytest.raises(TypeError, match=r"Bad7\.go: Using a non-empty mutable"):

        class Bad7(StateMachine):
            @write
            def go(self, names: list[int] = [1]) -> str:  # noqa: B006
                return ""


class Opaque:
    """A class that is neither a dataclass nor a struct."""


class Title(str):
    """A text of its own class, which no text becomes again."""

    __slots__ = ()


def test_a_class_that_messagepack_has_no_form_for_is_refused_where_it_is_declared():
    with pytest.raises(TypeError, match=r"Bad\.take: MessagePack has no form for Opaque; build it"):

        class Bad(StateMachine):
            @write
            def take(self, things: list[Opaque]) -> None: ...

    with pytest.raises(TypeError, match=r"Bad2\.give: MessagePack has no form for complex; build it"):

        class Bad2(StateMachine):
            @read
            def give(self) -> dict[str, complex]:
                return {}

    with pytest.raises(TypeError, match=r"Bad3\.call: MessagePack has no form for Title; build it"):

        class Bad3(StateMachine):
            @write
            def call(self, title: Title | None) -> object: ...


def test_annotations_that_cannot_be_resolved_are_refused():
    with pytest.raises(TypeError, match=r"annotations of Bad\.go cannot be resolved: .*Elsewhere.*above the machine"):

        class Bad(StateMachine):
            @write
            def go(self, name: Elsewhere) -> str:  # noqa: F821
                return ""

    with pytest.raises(TypeError, match=r"annotations of Bad2\.handle_write cannot be resolved"):

        class Bad2(StateMachine):
            def handle_write(self, command: Set | Elsewhere) -> str:  # noqa: F821
                return ""


def test_two_calls_of_one_name_are_refused():
    with pytest.raises(TypeError, match=r"Bad\.two and Bad\.one are both named 'one'"):

        class Bad(StateMachine):
            @write
            def one(self) -> str:
                return ""

            @read(name="one")
            def two(self) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Set and Bad2\.set are both named 'set'"):

        class Bad2(StateMachine):
            @write
            def set(self) -> str:
                return ""

            def handle_write(self, command: Set | Delete) -> str:
                return ""


def test_a_write_is_not_hidden_by_something_else():
    with pytest.raises(TypeError, match=r"Bad\.set hides <WriteMethod KV\.set>; decorate it alike"):

        class Bad(KV):
            def set(self, key: str, value: str) -> str:
                return ""

    with pytest.raises(TypeError, match=r"Bad2\.set hides <WriteMethod KV\.set>"):

        class Bad2(KV):
            @read
            def set(self, key: str, value: str) -> str:
                return ""


def timed(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


@pytest.mark.parametrize(
    ("around", "method"),
    [
        (classmethod, "write"),
        (staticmethod, "write"),
        (property, "read"),
        (functools.cached_property, "read"),
        (timed, "write"),
    ],
)
def test_a_write_or_read_within_another_decorator_is_refused(around, method):
    def go(self) -> int:
        return 1

    with pytest.raises(
        TypeError, match=rf"Bad\.go: @{method} must be the outermost decorator, of a def that takes self"
    ):
        type("Bad", (StateMachine,), {"go": around({"write": write, "read": read}[method](go))})


class Loose(msgspec.Struct):
    key: str


class Bare(Command):
    key: str


class Numbered(Command[str], tag=7):
    key: str


class Mapped(Command[str], array_like=False):
    key: str


class Unresolved(Command[str]):
    key: Nowhere  # noqa: F821


class Dangling(Command["Nowhere"]):
    key: str


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (str, "must take one Command"),
        (Loose, "must take one Command"),
        (Get, "must take one Command"),
        (Set | Get, "must take one Command"),
        (Set | None, "must take one Command"),
        (Command[str], "must take one Command"),
        (Command, "must take one Command"),
        (Bare, r"class Bare\(Command\[str\]\)"),
        (Dangling, r"without quotes: class Dangling\(Command\[str\]\)"),
        (Unresolved, "Unresolved: name 'Nowhere' is not defined"),
        (Numbered, "Numbered: the only option"),
        (Mapped, "Mapped: the only option"),
    ],
)
def test_handle_write_must_say_which_commands_it_takes(annotation, sentence):
    def handle_write(self, command): ...

    handle_write.__annotations__ = {"command": annotation, "return": str}
    with pytest.raises(TypeError, match=sentence):
        type("Bad", (StateMachine,), {"handle_write": handle_write})


def test_handle_read_takes_one_query():
    def handle_read(self, query, more): ...

    handle_read.__annotations__ = {"query": Get, "more": Get, "return": str}
    with pytest.raises(TypeError, match="handle_read must take one Query"):
        type("Bad", (StateMachine,), {"handle_read": handle_read})


# Other declarations that work.

T = TypeVar("T")
Name = Annotated[str, msgspec.Meta(max_length=3)]


class Item(msgspec.Struct, frozen=True):
    name: Name
    tags: frozenset[str] = frozenset()


class Placing(Command[Item]):
    item: Item


class Put(Placing):
    pass


class Shelf(StateMachine, Generic[T]):
    items: list[Item]

    def __init__(self) -> None:
        self.items = []

    def handle_write(self, command: Put) -> Item:
        self.items.append(command.item)
        return command.item

    @read
    def find(self, name: Name) -> Item | None:
        return next((item for item in self.items if item.name == name), None)


def test_arguments_and_replies_may_be_structs_with_constraints():
    shelf, described = Shelf[int](), describe(Shelf)
    item = Item("abc", frozenset({"x"}))
    assert described.run_write(shelf, described.encode_write(Put(item))) == item
    found = described.run_read(shelf, described.encode_read(Shelf.find, ("abc",)))
    assert described.replies["find"].decode(described.replies["find"].encode(found)) == item
    assert described.detach_reply("find", None) is None
    assert described.replies["Put"].decode(described.replies["Put"].encode(item)) == item
    with pytest.raises(TypeError, match=r"Shelf\.find: Expected `str` of length <= 3 - at `name`"):
        described.encode_read(Shelf.find, ("abcd",))
    with pytest.raises(TypeError, match=r"Put: Expected `str` of length <= 3 - at `item\.name`"):
        described.encode_write(Put(Item("abcd")))


def test_a_command_is_frozen():
    with pytest.raises(AttributeError):
        Set("a", "b").key = "c"


def test_a_machine_that_cannot_be_made_without_arguments_is_refused_with_what_to_do():
    class Bounded(KV):
        def __init__(self, most: int, least: int = 0) -> None: ...

    class Named(KV):
        def __init__(self, most: int = 9, *, name: str) -> None: ...

    class Defaulted(KV):
        def __init__(self, most: "Nowhere" = 9, *names: str, least: int = 0, **rest: int) -> None: ...  # noqa: F821, UP037

    for machine, argument in ((Bounded, "most"), (Named, "name")):
        sentence = (
            rf"needs the argument {argument}; each peer makes its machine by {machine.__name__}\(\): give it a default"
        )
        with pytest.raises(TypeError, match=sentence):
            describe(machine)
    assert describe(Defaulted).name == "Defaulted"
    assert describe(KV).name == "KV"
