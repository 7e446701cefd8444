"""The bridge to Hypothesis: calls of a machine as a strategy, and a property that every machine must have.

Needs ``pip install 'quorate[testing]'``. The calls are those of ``drawing``; here Hypothesis decides, and shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import hypothesis
from hypothesis import strategies as st

from quorate.machine import StateMachine
from quorate.testing.machine.contract import check_contract
from quorate.testing.machine.drawing import Given, as_draw, check_given, draw_call, drawn_calls
from quorate.testing.machine.values import Draw

Chosen: TypeAlias = st.SearchStrategy[Any] | Sequence[Any]
"""The values of a parameter or type: a strategy, or those to choose from."""


def calls(
    machine: type[StateMachine], types: Mapping[type, Chosen] | None = None, /, **parameters: Chosen
) -> st.SearchStrategy[tuple[Any, ...]]:
    """Give a strategy for calls of a machine, each a method (or a ``Command`` or ``Query``) and its arguments.

    ::

        @given(st.lists(calls(Seats, seat=st.integers(0, 4))))
        def test_seats(drawn): ...

    Arguments fit the annotations, and are drawn from few values, so that calls meet: see ``random_calls``.

    Args:
        machine: the class of the machine.
        types: strategies for all parameters, fields and items of some types, or sequences to choose from.
        parameters: the same for some parameters by name.

    Raises:
        TypeError: the machine has no such parameter, or no values are known for one; the message says what to give.
    """
    known = drawn_calls(machine)
    by_type = types or {}

    untaken = as_draw(())
    check_given(machine, known, Given(dict.fromkeys(by_type, untaken), dict.fromkeys(parameters, untaken)))

    @st.composite
    def drawn(draw: st.DrawFn) -> tuple[Any, ...]:
        chosen = Given(
            {kind: taken(draw, values) for kind, values in by_type.items()},
            {name: taken(draw, values) for name, values in parameters.items()},
        )
        return draw_call(known, chosen, draw(st.randoms(use_true_random=False)))

    return drawn()


def taken(draw: st.DrawFn, values: Chosen) -> Draw:
    """Give the function that draws from a strategy, or from a sequence by whatever ``Random`` it is given."""
    if isinstance(values, st.SearchStrategy):
        return lambda _: draw(values)
    return as_draw(values)


def machine_test(
    machine: type[StateMachine],
    drawn: st.SearchStrategy[tuple[Any, ...]] | None = None,
    *,
    calls_max: int = 30,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """Give a test that any machine must pass: for every list of calls it keeps its contract.

    ::

        test_seats_keep_the_contract = machine_test(Seats)

    A snapshot taken and restored at any point changes nothing; ``Rejected`` and reads leave the state as it was; two
    machines share nothing; and no write reads the machine that it runs on. All of it in this process: for the order of
    sets see ``check_determinism``.

    Args:
        machine: the class of the machine.
        drawn: the calls; ``calls(machine)`` when None.
        calls_max: how many calls a list has at most.
        settings: those of Hypothesis; the current ones, without a deadline, when None.

    Raises:
        TypeError: no values are known for a parameter; the message says what to give.
    """

    # Every call is run about ten times: unless somebody wants it to, the clock judges nobody.
    @(settings or hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]))
    @hypothesis.given(st.lists(calls(machine) if drawn is None else drawn, max_size=calls_max))
    def keeps_its_contract(calls: list[tuple[Any, ...]]) -> None:
        check_contract(machine, calls)

    return keeps_its_contract
