"""Calls drawn from annotations: every type that a machine may take, within its bounds, from few values."""

from __future__ import annotations

import datetime
from collections import Counter
from random import Random
from typing import Annotated, Any

import msgspec
import pytest

from quorate import Command, StateMachine, machines, write
from quorate.calling import describe
from quorate.testing import random_calls
from quorate.testing.machine.contract import encode
from tests.plugin.machines import Kinds, Paint, Painted, Tree


def draw_many(machine: type[StateMachine], count: int = 300, **parameters: Any) -> list[tuple[Any, ...]]:
    draw, random = random_calls(machine, **parameters), Random(7)
    return [draw(random) for _ in range(count)]


@pytest.mark.parametrize("machine", [machines.KV, machines.Stack, Kinds], ids=lambda machine: machine.__name__)
def test_every_call_fits_its_signature(machine: type[StateMachine]) -> None:
    described = describe(machine)
    names = {encode(described, *call).name for call in draw_many(machine)}
    assert names == described.write_names | described.reads.by_name.keys()


def test_only_the_random_decides() -> None:
    assert draw_many(Kinds) == draw_many(Kinds)


def test_calls_meet() -> None:
    keys = Counter(args[0] for method, *args in draw_many(machines.KV))
    assert len(keys) <= 7
    assert keys["a"] > 20


def test_structs_carry_their_arguments() -> None:
    alone = [call[0] for call in draw_many(Kinds) if len(call) == 1]
    assert {type(struct) for struct in alone} == {Paint, Painted}
    assert {struct.place.row for struct in alone if isinstance(struct, Paint)} == {10, 11, 12}


def test_what_holds_itself_ends() -> None:
    def depth(tree: Tree) -> int:
        return 1 + max(map(depth, tree.parts), default=0)

    depths = {depth(args[4]) for method, *args in draw_many(Kinds) if method is Kinds.containers}
    assert 1 in depths
    assert 2 <= max(depths) <= 6


class Bounds(StateMachine):
    @write
    def keep(
        self,
        large: Annotated[int, msgspec.Meta(ge=1000)],
        negative: Annotated[int, msgspec.Meta(lt=-5)],
        dozens: Annotated[int, msgspec.Meta(multiple_of=12, gt=0)],
        share: Annotated[float, msgspec.Meta(ge=0, le=1)],
        name: Annotated[str, msgspec.Meta(min_length=3, max_length=5)],
        many: Annotated[list[int], msgspec.Meta(min_length=5)],
        local: Annotated[datetime.datetime, msgspec.Meta(tz=False)],
        zoned: Annotated[datetime.datetime, msgspec.Meta(tz=True)],
        buffer: bytearray,
    ) -> None:
        pass


def test_bounds_are_kept() -> None:
    described = describe(Bounds)
    for call in draw_many(Bounds):
        encode(described, *call)


class Coded(StateMachine):
    @write
    def enter(self, code: Annotated[str, msgspec.Meta(pattern="^[0-9]{4}$")], tags: list[msgspec.Raw]) -> None:
        pass


def test_what_cannot_be_drawn_is_named_with_what_to_give() -> None:
    with pytest.raises(TypeError, match=r"Coded\.enter: code: no values are known for str with pattern=.*code=\[…\]"):
        random_calls(Coded)
    with pytest.raises(TypeError, match=r"Coded\.enter: tags: no values are known for Raw; give some"):
        random_calls(Coded, code=["0000"])
    with pytest.raises(TypeError, match="no write or read of Coded takes cod; they take code, tags"):
        random_calls(Coded, cod=["0000"])


class Narrow(Command[None]):
    share: Annotated[float, msgspec.Meta(gt=0.1, lt=0.2)]


class Sharing(StateMachine):
    def handle_write(self, command: Narrow) -> object:
        return None


def test_bounds_that_no_known_value_keeps_are_named() -> None:
    with pytest.raises(TypeError, match=r"Narrow: share: no values are known for float with gt=0.1, lt=0.2"):
        random_calls(Sharing)
    assert random_calls(Sharing, share=[0.15])(Random(0)) == (Narrow(0.15),)


def test_values_may_be_given_by_parameter_and_by_type() -> None:
    assert {args[0] for _, *args in draw_many(machines.KV, key=["only"])} == {"only"}
    drawn = draw_many(machines.Stack, value=lambda random: random.randrange(50, 60))
    assert {args[0] for _, *args in drawn if args} == set(range(50, 60))
    draw, random = random_calls(machines.KV, {str: ["x", "y"]}, value=["z"]), Random(0)
    calls = [draw(random) for _ in range(100)]
    assert {args[0] for _, *args in calls} == {"x", "y"}
    assert {args[1] for method, *args in calls if method is machines.KV.set} == {"z"}


def test_a_machine_without_calls_is_refused() -> None:
    class Nothing(StateMachine):
        pass

    with pytest.raises(TypeError, match="Nothing has no write and no read"):
        random_calls(Nothing)
