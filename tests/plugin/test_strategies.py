"""The bridge to Hypothesis: its calls are the drawn ones, it shrinks them, and the ready property finds faults."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.calling import describe
from quorate.machines import KV, Stack
from quorate.testing import BrokenContract
from quorate.testing.machine.contract import encode
from quorate.testing.strategies import calls, machine_test
from tests.plugin.machines import HalfRows, Kinds, Refusing


@settings(max_examples=20)
@given(calls(Kinds))
def test_calls_fit_their_signatures(call: tuple[Any, ...]) -> None:
    encode(describe(Kinds), *call)


@settings(max_examples=20)
@given(calls(KV, {str: st.text("xyz", max_size=2)}, key=["one", "two"]))
def test_strategies_and_sequences_take_the_place_of_what_is_known(call: tuple[Any, ...]) -> None:
    _, key, *values = call
    assert key in ("one", "two")
    assert all(set(value) <= set("xyz") for value in values if value is not None)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="no write or read of KV takes kee"):
        calls(KV, kee=st.text())


def test_calls_shrink() -> None:
    smallest = hypothesis.find(st.lists(calls(Stack)), lambda drawn: sum(call[0] is Stack.put for call in drawn) >= 2)
    assert smallest == [(Stack.put, -1), (Stack.put, -1)]


few = settings(max_examples=15)
test_kv_keeps_its_contract = machine_test(KV, settings=few)
test_stack_keeps_its_contract = machine_test(Stack, calls(Stack, value=st.integers(0, 3)), settings=few)
test_kinds_keep_their_contract = machine_test(Kinds, calls_max=10, settings=few)


@pytest.mark.parametrize("machine", [Refusing, HalfRows], ids=lambda machine: machine.__name__)
def test_a_planted_fault_is_found_and_shrunk(machine: type[Any]) -> None:
    with pytest.raises(BrokenContract) as caught:
        machine_test(machine)()
    (falsifying,) = [note for note in caught.value.__notes__ if "calls=" in note]
    assert falsifying.count("<WriteMethod") <= 6
