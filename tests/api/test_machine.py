"""The programming model: what a user declares, and how the shell turns it into bytes, runs it, and answers."""

from __future__ import annotations

import contextlib
import copy
import enum
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.calling import command_name, describe
from quorate.context import Context, ReadContext
from quorate.errors import Compacted, MachineError, NotLeader, QuorateError, Rejected, Unavailable
from quorate.events import Event
from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod, read, write
from quorate.nesting import NESTING_MAX
from quorate.transport.calls import error_from_failure, failure_from_error
from quorate.types import Address


class KV(StateMachine):
    """A store in the form of methods."""

    entries: dict[str, str]

    def __init__(self) -> None:
        self.entries = {}

    @write
    def set(self, key: str, value: str, times: int = 1) -> str:
        """Store."""
        self.entries[key] = value * times
        return self.entries[key]

    @write(name="rm")
    def delete(self, key: str) -> bool:
        return self.entries.pop(key, None) is not None

    @read
    def get(self, key: str) -> str:
        if key not in self.entries:
            raise Rejected("key_not_found", key)
        return self.entries[key]

    @read
    def all(self) -> dict[str, str]:
        return self.entries


class Set(Command[str], tag="set"):
    key: str
    value: str
    times: int = 1


class Delete(Command[bool], tag="rm"):
    key: str


class Get(Query[str], tag="get"):
    key: str


class All(Query[dict[str, str]], tag="all"):
    pass


class MatchedKV(StateMachine):
    """The same store in the form of structs."""

    entries: dict[str, str]

    def __init__(self) -> None:
        self.entries = {}

    def handle_write(self, command: Set | Delete) -> str | bool:
        match command:
            case Set(key, value, times):
                self.entries[key] = value * times
                return self.entries[key]
            case Delete(key):
                return self.entries.pop(key, None) is not None

    def handle_read(self, query: Get | All) -> str | dict[str, str]:
        match query:
            case Get(key):
                if key not in self.entries:
                    raise Rejected("key_not_found", key)
                return self.entries[key]
            case All():
                return self.entries


class Increment(Command[int]):
    by: int = 1


class Mixed(StateMachine):
    """Both forms in one machine, one struct without a tag of its own."""

    total: int = 0

    @write
    def double(self) -> int:
        self.total *= 2
        return self.total

    def handle_write(self, command: Increment) -> int:
        self.total += command.by
        return self.total


class Failing(StateMachine):
    """Raises whatever it is asked to."""

    items: list[object]

    def __init__(self) -> None:
        self.items = [1]

    @write
    def fail(self, how: str) -> str:
        failures: dict[str, BaseException] = {
            "key": KeyError("x"),
            "machine": MachineError("mine"),
            "mute": Mute(),
            "memory": MemoryError(),
            "recursion": RecursionError(),
            "disk": FileNotFoundError(),
            "exit": SystemExit(),
            "reject": Rejected("no"),
            "leak": Rejected("no", self.items, 1),
            "odd": Rejected("no", object()),
        }
        raise failures[how]

    @read
    def fail_reading(self) -> str:
        raise ValueError("read")

    @write
    def lie(self) -> str:
        return 1

    @write
    def wrong(self) -> list[int]:
        return ["x"]

    @write
    def odd(self) -> object:
        return object()


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class Open(StateMachine):
    """Takes and gives values of any shape."""

    @write
    def keep(self, value: object) -> object:
        return value

    @read
    def items(self, type: list[str] | None = None) -> tuple[str, ...]:
        return tuple(type or ())


def shapes() -> list[tuple[Any, Any]]:
    """Each call of the two stores in both forms."""
    return [
        ((KV.set, ("a", "b")), Set("a", "b")),
        ((KV.set, ("a", "b", 3)), Set("a", "b", times=3)),
        ((KV.delete, ("a",)), Delete("a")),
    ]


def run(machine: StateMachine, call: Any, *args: object, **kwargs: object) -> object:
    """Write by way of bytes."""
    described = describe(type(machine))
    return described.run_write(machine, described.encode_write(call, args, kwargs))


# The class as its own sequential model.


@pytest.mark.covers("toniqsystems/raft state machine")
def test_a_plain_instance_just_runs_the_method():
    kv = KV()
    assert kv.set("a", "b") == "b"
    assert kv.set(key="a", value="b", times=2) == "bb"
    assert kv.get("a") == "bb"
    with pytest.raises(Rejected) as refusal:
        kv.get("z")
    assert (refusal.value.reason, refusal.value.details) == ("key_not_found", ("z",))


def test_on_the_class_a_method_is_a_reference_with_its_name_and_docstring():
    assert isinstance(KV.set, WriteMethod)
    assert isinstance(KV.get, ReadMethod)
    assert not isinstance(KV.set, ReadMethod)
    assert not isinstance(KV.get, WriteMethod)
    assert (KV.set.name, KV.delete.name, KV.set.__doc__) == ("set", "rm", "Store.")
    assert repr(KV.set) == "<WriteMethod KV.set>"


# Bytes.


@pytest.mark.covers("toniqsystems/raft state machine")
@pytest.mark.parametrize(("method", "struct"), shapes())
def test_both_forms_are_the_same_bytes_and_run_the_same(method, struct):
    name_and_arguments = describe(KV).encode_write(*method)
    assert name_and_arguments == describe(MatchedKV).encode_write(struct)
    ours, theirs = KV(), MatchedKV()
    assert describe(KV).run_write(ours, name_and_arguments) == describe(MatchedKV).run_write(theirs, name_and_arguments)
    assert ours.entries == theirs.entries


def test_both_forms_of_reads_are_the_same_bytes():
    assert describe(KV).encode_read(KV.get, ("a",)) == describe(MatchedKV).encode_read(Get("a"))
    machine = MatchedKV()
    run(machine, Set("a", "b"))
    assert describe(MatchedKV).run_read(machine, describe(KV).encode_read(KV.get, ("a",))) == "b"


def test_the_wire_form_is_an_array_of_the_name_and_all_arguments():
    encoded = describe(KV).encode_write(KV.set, ("a",), {"value": "b"})
    assert msgspec.msgpack.decode(encoded) == ["set", "a", "b", 1]
    assert msgspec.msgpack.decode(describe(Mixed).encode_write(Increment())) == ["Increment", 1]
    assert command_name(encoded) == "set"


def test_one_machine_may_use_both_forms():
    machine = Mixed()
    assert run(machine, Increment(5)) == 5
    assert run(machine, Mixed.double) == 10
    assert describe(Mixed).write_names == {"Increment", "double"}
    assert describe(Mixed).reads.by_name == {}


def test_a_description_names_everything():
    described = describe(KV)
    assert described.name == "KV"
    assert described.write_names == {"set", "rm"}
    assert described.reads.by_name.keys() == {"get", "all"}


def test_a_parameter_may_have_the_name_of_anything():
    described = describe(Open)
    assert described.run_read(Open(), described.encode_read(Open.items, (), {"type": ["x"]})) == ("x",)


# Names and arguments over time.


class RenamedKV(StateMachine):
    @write(name="set")
    def store(self, key: str, value: str, times: int = 1) -> str:
        return f"{key}={value * times}"


class ShortKV(StateMachine):
    @write
    def set(self, key: str) -> str:
        return key


class GrownKV(StateMachine):
    @write
    def set(self, key: str, value: str = "new", labels: list[str] = [], expires: float | None = None) -> str:  # noqa: B006
        labels.append("mine")
        return f"{key}={value} {labels} {expires}"


class Child(KV):
    @write
    def set(self, key: str, value: str, times: int = 1) -> str:
        return "child's " + super().set(key, value, times)

    @write
    def clear(self) -> None:
        self.entries.clear()


def test_a_renamed_method_keeps_its_name_in_the_log():
    old = describe(KV).encode_write(KV.set, ("a", "b"))
    assert describe(RenamedKV).encode_write(RenamedKV.store, ("a", "b")) == old
    assert describe(RenamedKV).run_write(RenamedKV(), old) == "a=b"


def test_new_parameters_with_defaults_read_old_commands():
    old = describe(ShortKV).encode_write(ShortKV.set, ("a",))
    for _ in range(2):  # a default list is a new one each time
        assert describe(GrownKV).run_write(GrownKV(), old) == "a=new ['mine'] None"


def test_an_old_program_refuses_arguments_it_does_not_know():
    new = describe(GrownKV).encode_write(GrownKV.set, ("a", "b"))
    with pytest.raises(TypeError, match=r"ShortKV\.set: Expected `array` of at most length"):
        describe(ShortKV).run_write(ShortKV(), new)


def test_a_subclass_inherits_overrides_and_adds():
    child = Child()
    assert describe(Child).write_names == {"set", "rm", "clear"}
    assert run(child, KV.set, "a", "b") == "child's b"  # what is named is the write, not the function
    assert run(child, Child.set, "a", "b") == "child's b"
    assert run(child, Child.clear) is None
    assert child.entries == {}
    with pytest.raises(TypeError, match=r"no write of KV"):
        describe(KV).encode_write(Child.clear)


# What the caller is told at once.


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        (("a",), {}, r"KV\.set: Missing required argument 'value'"),
        (("a", "b", 1, 2), {}, r"KV\.set: Extra positional arguments"),
        (("a", "b"), {"key": "c"}, r"KV\.set: Argument 'key' given by name and position"),
        (("a", "b"), {"more": 1}, r"KV\.set: Unexpected keyword argument 'more'"),
        (("a", 1), {}, r"KV\.set: Expected `str`, got `int` - at `value`"),
        (("a", "b", 2**70), {}, r"KV\.set: can't serialize ints"),
        (("a", "\ud800"), {}, r"KV\.set: .*surrogates not allowed"),
        (("a", object()), {}, r"KV\.set: Encoding objects of type object is unsupported"),
    ],
)
def test_arguments_that_do_not_fit_are_a_type_error(args, kwargs, sentence):
    with pytest.raises(TypeError, match=sentence):
        describe(KV).encode_write(KV.set, args, kwargs)


@pytest.mark.parametrize(
    "encode",
    [
        lambda: describe(KV).encode_write(KV.get, ("a",)),
        lambda: describe(KV).encode_read(KV.set, ("a", "b")),
        lambda: describe(KV).encode_write("set", ("a", "b")),
        lambda: describe(KV).encode_write(Set("a", "b")),
        lambda: describe(KV).encode_write(RenamedKV.store, ("a", "b")),
        lambda: describe(MatchedKV).encode_write(Increment()),
        lambda: describe(MatchedKV).encode_write(Get("a")),
        lambda: describe(MatchedKV).encode_read(Set("a", "b")),
    ],
)
def test_what_is_no_write_or_read_of_the_machine_is_a_type_error(encode):
    with pytest.raises(TypeError, match=r"is no (write|read) of (KV|MatchedKV)"):
        encode()


def test_a_reference_that_is_called_and_a_method_of_one_machine_are_told_what_to_pass():
    with pytest.raises(TypeError, match=r"KV\.set is no function: pass `KV\.set` and its arguments, such as write\(KV"):
        KV.set("a", "b")
    with pytest.raises(TypeError, match=r"KV\.set of one machine \(pass `KV\.set`, of the class, and its arguments\)"):
        describe(KV).encode_write(KV().set, ("a", "b"))


def test_a_struct_takes_no_arguments_beside_it_and_none_of_a_wrong_type():
    with pytest.raises(TypeError, match="nothing may follow"):
        describe(MatchedKV).encode_write(Set("a", "b"), ("c",))
    with pytest.raises(TypeError, match=r"Set: Expected `str`, got `int` - at `value`"):
        describe(MatchedKV).encode_write(Set("a", 1))


class Grumpy(Command[None]):
    number: int

    def __post_init__(self) -> None:
        if IS_GRUMPY:
            raise ValueError("not today")


class Lenient(Command[None], forbid_unknown_fields=False):
    number: int


class Bounded(StateMachine):
    """Its annotations, or the code of its structs, refuse what a look at the types alone would let through."""

    @write
    def merged(self, number: int | Annotated[int, msgspec.Meta(lt=9)]) -> None: ...

    @write
    def wrong(self, text: str = 3) -> None: ...

    @write
    def any(self, number: int | float | None, rest: Any = None) -> None: ...

    def handle_write(self, command: Grumpy | Lenient) -> None: ...


IS_GRUMPY: list[None] = []


@pytest.mark.parametrize("call", [(Bounded.merged, 9), (Bounded.wrong,), (Bounded.any, True), (Bounded.any, 1, 2**64)])
def test_what_could_not_be_decoded_is_not_encoded(call):
    with pytest.raises(TypeError, match="Bounded"):
        describe(Bounded).encode_write(call[0], call[1:])


def test_the_code_of_a_struct_may_refuse_it_and_unknown_fields_may_nest(monkeypatch):
    described = describe(Bounded)
    grumpy, lenient = Grumpy(1), described.encode_write(Lenient(1))
    described.encode_write(grumpy)
    monkeypatch.setattr(sys.modules[__name__], "IS_GRUMPY", [None])
    with pytest.raises(TypeError, match=r"Grumpy: .*not today"):
        described.encode_write(grumpy)
    described.writes.check(lenient)
    with pytest.raises(TypeError, match="nest deeper"):
        described.writes.check(b"\x93" + lenient[1:] + b"\x91" * NESTING_MAX + b"\x00")


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), max_size=3))
def test_whatever_is_encoded_can_be_decoded(arguments):
    described = describe(Bounded)
    for call in (Bounded.merged, Bounded.wrong, Bounded.any, KV.set):
        machine = describe(KV) if call is KV.set else described
        with contextlib.suppress(TypeError):
            machine.writes.decode(machine.encode_write(call, tuple(arguments)))


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_arguments_nest_to_a_limit_that_is_alike_on_every_peer():
    described = describe(Open)
    deepest = nested(NESTING_MAX - 1)  # the call's own array is one level
    assert described.run_write(Open(), described.encode_write(Open.keep, (deepest,))) == deepest
    assert described.encode_write(Open.keep, ([[]] * 1000,))
    for value in (nested(NESTING_MAX), {"k": nested(NESTING_MAX - 1)}, nested(5000), nested(100_000)):
        with pytest.raises(TypeError):
            described.encode_write(Open.keep, (value,))


class Point(msgspec.Struct, frozen=True):
    x: int


class Map(StateMachine):
    @write
    def draw(self, points: dict[Point, int], lines: list[list[int]]) -> int:
        return len(points) + len(lines)


def test_what_cannot_be_walked_is_not_taken_to_be_shallow():
    assert run(Map(), Map.draw, {Point(1): 1}, [[]] * 9) == 10
    with pytest.raises(TypeError, match="nest deeper than 64 levels, or have maps as keys"):
        run(Map(), Map.draw, {Point(1): 1}, [[]] * 90)


def test_what_came_over_the_network_is_checked_before_it_enters_the_log():
    described = describe(KV)
    described.writes.check(described.encode_write(KV.set, ("a", "b")))
    described.reads.check(described.encode_read(KV.get, ("a",)))
    with pytest.raises(TypeError, match="KV has no write named 'get'"):
        described.writes.check(described.encode_read(KV.get, ("a",)))
    with pytest.raises(TypeError, match="KV has no read named 'set'"):
        described.reads.check(described.encode_write(KV.set, ("a", "b")))
    deep = b"\x92\xa4keep" + b"\x91" * NESTING_MAX + b"\x00"
    with pytest.raises(TypeError, match="nest deeper"):
        describe(Open).writes.check(deep)


# What is in the log already.

HOSTILE = [
    b"",
    b"\x00",
    b"\xff" * 9,
    b"\x90",
    b"\x91\xa3set",
    b"\x91\x01",
    b"\x81\xa3set\xa1a",
    b"\x93\xa3set\xa1a",
    b"\x93\xa3set\xa1a\x01",
    b"\x93\xa3set\xa1a\xa1\xff",
    b"\x92\xa3sat\xa1a",
    b"\x92\xa1\xff\xa1a",
    b"\x93\xa3set\xa1a\xdb\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff\xa3set",
    b"\x91" * 100_000,
    b"\x92\xa3set" + b"\x91" * 100_000,
    b"\x92\xa3rm" + b"\x81" * 100_000,
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("machine", [KV, MatchedKV, Open, StateMachine])
def test_hostile_payloads_are_refused_and_never_run(payload, machine):
    described = describe(machine)
    with pytest.raises(TypeError):
        described.writes.check(payload)
    with pytest.raises(TypeError):
        described.run_write(machine(), payload)
    with pytest.raises(MachineError):
        described.run_read(machine(), payload)


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda rest: b"\x94\xa3set" + rest))
def test_any_bytes_run_or_cannot_be_read(payload):
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(describe(KV).run_write(KV(), payload))
        except TypeError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_name_without_sense_is_no_command():
    with pytest.raises(MachineError, match="not a command"):
        command_name(b"\x91\x01")


# Outcomes.


@pytest.mark.parametrize(
    ("how", "sentence"),
    [("key", "Failing.fail raised KeyError: 'x'"), ("machine", "mine"), ("mute", "Failing.fail raised .*Mute")],
)
def test_a_bug_in_the_machine_is_a_machine_error_with_its_cause(how, sentence):
    with pytest.raises(MachineError, match=sentence) as failure:
        run(Failing(), Failing.fail, how)
    assert isinstance(failure.value.__cause__, Exception)
    assert failure.value.__cause__.__traceback__ is not None


def test_a_bug_in_a_read_is_a_machine_error():
    described = describe(Failing)
    with pytest.raises(MachineError, match=r"Failing\.fail_reading raised ValueError: read"):
        described.run_read(Failing(), described.encode_read(Failing.fail_reading))


@pytest.mark.parametrize(
    ("how", "error"),
    [("memory", MemoryError), ("recursion", RecursionError), ("disk", OSError), ("exit", SystemExit)],
)
def test_what_need_not_be_alike_on_every_peer_passes_through(how, error):
    with pytest.raises(error):
        run(Failing(), Failing.fail, how)


def test_a_refusal_is_the_answer_and_holds_nothing_of_the_machine():
    machine = Failing()
    with pytest.raises(Rejected, match=r"^no$"):
        run(machine, Failing.fail, "reject")
    with pytest.raises(Rejected) as refusal:
        run(machine, Failing.fail, "leak")
    machine.items.append(2)
    assert refusal.value.details == ([1], 1)
    with pytest.raises(Rejected) as refusal:
        run(machine, Failing.fail, "odd")
    assert refusal.value.details == ("object",)


class Reason(str, enum.Enum):  # noqa: UP042 - as it was written before there was StrEnum
    POOR = "poor"


def test_a_reason_is_the_same_text_wherever_a_refusal_is_met():
    """Also of an enum whose members are texts, which Python shows by their names."""
    refused = Rejected(Reason.POOR, 5)
    received = error_from_failure(failure_from_error(refused))
    for error in (refused, received):
        assert type(error.reason) is str
        assert (error.reason, str(error)) == ("poor", "poor: 5")
    for reason in (404, None, enum.Enum("Plain", "POOR").POOR):
        with pytest.raises(TypeError, match="the reason of a Rejected is a short text, such as 'key_not_found', and"):
            Rejected(reason)


@pytest.mark.parametrize(
    "error",
    [
        NotLeader(Address("peer1", "10.0.0.1", 7001), "peer2"),
        NotLeader(None, "peer2", "it has no configuration yet"),
        Compacted(57),
        Rejected("poor", 5),
        Unavailable("nobody answered"),
    ],
    ids=str,
)
def test_an_error_is_the_same_in_another_process(error: QuorateError) -> None:
    """Whoever calls in a process of a pool is given it as Python copies it."""
    other = copy.copy(error)
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


class Picky(Command[None]):
    number: int

    def __post_init__(self) -> None:
        if self.number > 8:
            raise FileNotFoundError
        if self.number > 1:
            raise ArithmeticError("too much")


class PickyMachine(StateMachine):
    def handle_write(self, command: Picky) -> None: ...


def test_a_struct_that_refuses_its_fields_cannot_be_read():
    with pytest.raises(TypeError, match="Picky: ArithmeticError: too much"):
        describe(PickyMachine).run_write(PickyMachine(), b"\x92\xa5Picky\x02")
    with pytest.raises(FileNotFoundError):
        describe(PickyMachine).run_write(PickyMachine(), b"\x92\xa5Picky\x09")
    assert run(PickyMachine(), Picky(1)) is None


# Replies.


def test_no_caller_holds_a_part_of_the_machine():
    machine, described = KV(), describe(KV)
    machine.set("a", "b")
    reply = described.run_read(machine, described.encode_read(KV.all))
    kept = described.detach_reply("all", reply)
    assert kept == {"a": "b"}
    machine.set("a", "c")
    assert kept == {"a": "b"}


def test_an_immutable_reply_is_passed_as_it_is():
    value = "x" * 1000
    assert describe(KV).detach_reply("set", value) is value
    assert describe(Open).detach_reply("keep", value) is value


def test_replies_survive_the_wire_with_their_types():
    for machine, name, value in (
        (KV, "set", "b"),
        (KV, "all", {"a": "b"}),
        (Open, "items", ("a", "b")),
        (Mixed, "double", 1),
    ):
        described = describe(machine)
        assert described.replies[name].decode(described.replies[name].encode(value)) == value
    assert describe(MatchedKV).replies["rm"].decode(describe(MatchedKV).replies["rm"].encode(True)) is True


@pytest.mark.parametrize("method", [Failing.lie, Failing.wrong, Failing.odd])
def test_a_reply_that_is_not_what_its_annotation_says_is_a_machine_error(method):
    value = run(Failing(), method)
    with pytest.raises(MachineError, match=f"the reply of Failing.{method.name}"):
        describe(Failing).detach_reply(method.name, value)


def test_a_reply_that_cannot_be_read_is_a_machine_error():
    for encoded in (b"", b"\xff", b"\x01", b"\x91" * 100_000):
        with pytest.raises(MachineError, match=r"the reply of KV\.set"):
            describe(KV).replies["set"].decode(encoded)
    with pytest.raises(MachineError, match=r"the reply of Open\.keep"):
        describe(Open).replies["keep"].encode(nested(100_000))


# Context.


class Clock(StateMachine):
    """Has an __init__ that calls no other, and shows its context."""

    start: int

    def __init__(self, start: int = 0) -> None:
        self.start = start

    @write
    def show(self) -> tuple[float, int, float]:
        return self.context.now, self.context.index, self.context.random.random()


def show(now: float, index: int) -> object:
    machine = Clock(1)
    machine.context = Context(now, index)
    return run(machine, Clock.show)


def test_the_context_comes_from_the_log_alone():
    assert show(5.5, 7) == show(5.5, 7)
    assert show(5.5, 7)[:2] == (5.5, 7)
    assert show(5.5, 7)[2] != show(5.5, 8)[2] != show(6.5, 8)[2]


def test_each_command_has_its_own_randomness():
    machine = Clock(1)
    seen = []
    for index in (1, 2, 1):
        machine.context = Context(0.5, index)
        seen.append(machine.show())
    assert seen[0] == seen[2] != seen[1]


def test_a_plain_instance_has_a_context_of_its_own():
    one, other = Clock(1), Clock(1)
    assert [one.show(), one.show()] == [other.show(), other.show()]
    assert one.show()[:2] == (0.0, 0)
    assert one.context is not other.context
    assert one.context.random is one.context.random


def test_randomness_is_alike_in_every_process():
    program = "from quorate.context import Context; print(Context(1.5, 7).random.random())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {repr(Context(1.5, 7).random.random())}


class Said(Event):
    text: str


class Trying(StateMachine):
    __slots__ = ("limit",)
    emits = (Said,)
    limit: int
    said: list[str]

    def __init__(self) -> None:
        self.limit, self.said = 2, []

    @write
    def say(self, text: str) -> int:
        self.said = [*self.said, f"{text} at {self.context.now}"][: self.limit]
        self.emit(Said(text))
        return len(self.said)

    @read
    def would_say(self, text: str) -> int:
        return copy.copy(self).say(text) + copy.deepcopy(self).say(text)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_read_may_try_a_write_on_a_copy(copied: Callable[[Trying], Trying]) -> None:
    machine = Trying()
    machine.say("a")
    machine.context = ReadContext(5.0, 7)
    assert machine.would_say("b") == 4
    other = copied(machine)
    assert other.say("c") == 2
    assert (other.said, other.context.index) == (["a at 0.0", "c at 5.0"], 7)
    assert (len(other.effects.events), len(machine.effects.events)) == (1, 1)
    assert machine.said == ["a at 0.0"]
    with pytest.raises(TypeError, match="a read only looks"):
        machine.say("d")


def test_a_copy_that_a_write_makes_goes_on_in_that_write() -> None:
    machine = Trying()
    assert copy.copy(machine).context.index == 0
    machine.context = Context(5.0, 7, 3)
    assert copy.copy(machine).context is machine.context
    assert copy.copy(KV()).entries == {}
