"""The checker against every order there is, on thousands of small histories."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.machines import KV
from quorate.testing.history.kv import check_kv
from quorate.testing.history.linearizability import check_history
from tests.history.drawn import KEY, draw_history, forget, is_linearizable, perturb


@pytest.mark.parametrize("texts", [("a", "b"), ("", "a", "aa"), ("1.", "2.", "3.", "4.", "5.")], ids=repr)
def test_the_verdict_is_that_of_trying_every_order(texts: tuple[str, ...]) -> None:
    verdicts = {True: 0, False: 0}
    for seed in range(300):
        random = Random(seed)
        operations = draw_history(random, random.randint(2, 6), texts=texts)
        for _ in range(random.randrange(1, 5)):
            operations = perturb(random, operations)
        if seed % 2:
            operations = forget(random, operations)
        expected = is_linearizable(operations)
        verdicts[expected] += 1
        for verdict in (check_kv(operations), check_history(KV, operations)):
            assert verdict.is_linearizable is expected, f"seed {seed}: {verdict.text}"
            assert bool(verdict.text) is not expected
    assert min(verdicts.values()) > 30  # both kinds were compared


@given(seed=st.integers(), length=st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_history_of_a_machine_that_works_is_linearizable(seed: int, length: int) -> None:
    random = Random(seed)
    operations = draw_history(random, length)
    random.shuffle(operations)
    assert check_kv(operations).is_linearizable is True


@given(seed=st.integers(), length=st.integers(1, 5), cut=st.integers(0, 5))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_less_known_is_no_less_linearizable(seed: int, length: int, cut: int) -> None:
    # An unknown fate allows all that a known one does.
    operations = draw_history(Random(seed), length)
    assert all(operation.args[0] == KEY for operation in operations)
    hazy = [
        type(o)(client=o.client, method=o.method, args=o.args, called=o.called, returned=None, fate="unknown")
        if number == cut and o.fate == "ok"
        else o
        for number, o in enumerate(operations)
    ]
    assert check_kv(hazy).is_linearizable is True
