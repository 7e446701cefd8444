"""The ready machines, each as its own sequential model and by way of bytes."""

from __future__ import annotations

import pytest

from quorate.calling import describe
from quorate.errors import Rejected
from quorate.machines import KV, Echo, Stack


def write(machine, method, *args):
    described = describe(type(machine))
    reply = described.run_write(machine, described.encode_write(method, args))
    return described.replies[method.name].decode(described.replies[method.name].encode(reply))


def read(machine, method, *args):
    described = describe(type(machine))
    reply = described.run_read(machine, described.encode_read(method, args))
    return described.replies[method.name].decode(described.replies[method.name].encode(reply))


def test_kv_sets_gets_and_deletes():
    kv = KV()
    assert write(kv, KV.set, "foo", "bar") == "bar"
    assert read(kv, KV.get, "foo") == "bar"
    assert write(kv, KV.delete, "foo") is True
    assert write(kv, KV.delete, "foo") is False
    with pytest.raises(Rejected) as refusal:
        read(kv, KV.get, "foo")
    assert (refusal.value.reason, refusal.value.details) == ("key_not_found", ("foo",))


def test_kv_deletes_an_empty_value_too():
    kv = KV()
    write(kv, KV.set, "foo", "")
    assert write(kv, KV.delete, "foo") is True
    assert kv.entries == {}


def test_kv_appends():
    kv = KV()
    assert write(kv, KV.append, "foo", "a") == "a"
    assert write(kv, KV.append, "foo", "b") == "ab"
    assert read(kv, KV.get, "foo") == "ab"


def test_kv_compares_before_it_sets():
    kv = KV()
    assert write(kv, KV.compare_and_set, "foo", "x", "a") is False
    assert kv.entries == {}
    assert write(kv, KV.compare_and_set, "foo", None, "a") is True
    assert write(kv, KV.compare_and_set, "foo", None, "b") is False
    assert write(kv, KV.compare_and_set, "foo", "x", "b") is False
    assert read(kv, KV.get, "foo") == "a"
    assert write(kv, KV.compare_and_set, "foo", "a", "b") is True
    assert read(kv, KV.get, "foo") == "b"


def test_stack_gives_the_last_first():
    stack = Stack()
    assert [write(stack, Stack.put, number) for number in (1, 2, 3)] == [1, 2, 3]
    assert read(stack, Stack.all) == [1, 2, 3]
    assert [write(stack, Stack.pop) for _ in range(3)] == [3, 2, 1]
    with pytest.raises(Rejected, match=r"^empty$"):
        write(stack, Stack.pop)
    assert read(stack, Stack.all) == []


def test_echo_gives_back_what_it_gets():
    assert write(Echo(), Echo.say, "hello") == "hello"
    assert read(Echo(), Echo.hear, "hello") == "hello"


def test_names_in_the_log_are_stable():
    assert describe(KV).write_names == {"set", "append", "compare_and_set", "delete"}
    assert describe(KV).reads.by_name.keys() == {"get"}
    assert describe(Stack).write_names == {"put", "pop"}
    assert describe(Stack).reads.by_name.keys() == {"all"}
    assert describe(Echo).write_names == {"say"}
    assert describe(Echo).reads.by_name.keys() == {"hear"}
