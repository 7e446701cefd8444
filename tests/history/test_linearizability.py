"""Histories that are linearizable, and such as a fault leaves behind: the checker tells them apart, and says why."""

from random import Random

import pytest

from quorate import MachineError, NotLeader, OutcomeUnknown, Rejected, StateMachine, read, write
from quorate.machines import KV, Stack
from quorate.testing.history.kv import check_kv
from quorate.testing.history.linearizability import Verdict, check_history
from quorate.testing.history.operations import Fate, Operation, Recorder

MISSING = Rejected("key_not_found", "k")


class Once(StateMachine):
    """Counts, and refuses the second time."""

    seen: set[str]
    count: int

    def __init__(self) -> None:
        self.seen = set()
        self.count = 0

    @write
    def see(self, name: str) -> int:
        if name in self.seen:
            raise Rejected("seen", name)
        self.seen.add(name)
        self.count += 1
        return self.count

    @write
    def crash(self) -> int:
        self.count += 1
        return 1 // 0

    @read
    def all(self) -> set[str]:
        return self.seen


class Dated(StateMachine):
    """Asks for the time."""

    @write
    def now(self) -> float:
        return self.context.now


def call(
    method: object,
    *args: object,
    at: tuple[int, int | None],
    output: object = None,
    client: int = 1,
    fate: Fate | None = None,
) -> Operation:
    ending: Fate = fate or ("unknown" if at[1] is None else "ok")
    return Operation(client=client, method=method, args=args, called=at[0], returned=at[1], fate=ending, output=output)


def put(value: str, *at: int | None) -> Operation:
    begin, end = at
    assert begin is not None
    return call(KV.set, "k", value, at=(begin, end), output=value if end is not None else None)


def append(value: str, begin: int, end: int | None, output: str | None = None) -> Operation:
    return call(KV.append, "k", value, at=(begin, end), output=output)


def get(output: object, begin: int, end: int) -> Operation:
    return call(KV.get, "k", at=(begin, end), output=output)


def cas(old: str | None, new: str, begin: int, end: int | None, output: bool | None = None) -> Operation:
    return call(KV.compare_and_set, "k", old, new, at=(begin, end), output=output)


def both(*operations: Operation) -> Verdict:
    """Judge a history of KV with and without what is known of KV; both verdicts must be alike."""
    verdict, plain = check_kv(operations), check_history(KV, operations)
    assert verdict.is_linearizable is plain.is_linearizable
    return verdict


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param((), id="nothing happened"),
        pytest.param((get(MISSING, 0, 1), put("a", 2, 3), get("a", 4, 5)), id="one after another"),
        pytest.param((put("a", 0, 1), put("b", 2, 9), get("a", 3, 4)), id="a concurrent get sees the old value"),
        pytest.param((put("a", 0, 1), put("b", 2, 9), get("b", 3, 4)), id="a concurrent get sees the new value"),
        pytest.param(
            (put("a", 0, 1), put("b", 2, 9), get("a", 3, 4), get("b", 5, 6)), id="first the old one, then the new one"
        ),
        pytest.param((put("a", 0, 1), put("b", 1, 2), get("a", 3, 4)), id="returns when the other begins: concurrent"),
        pytest.param((put("a", 0, None), get(MISSING, 1, 2)), id="an unknown write never appears"),
        pytest.param((put("a", 0, None), get(MISSING, 1, 2), get("a", 98, 99)), id="an unknown write appears late"),
        pytest.param(
            (append("a", 0, None), append("b", 1, 2, "b"), get("ba", 3, 4)), id="an unknown append appears later"
        ),
        pytest.param((put("a", 0, 1), cas("a", "b", 2, None), cas("b", "c", 3, 4, True)), id="an unknown cas is seen"),
        pytest.param((cas(None, "a", 0, 9, True), cas(None, "b", 0, 9, False)), id="one of two cas succeeds"),
        pytest.param(
            (append("", 0, None), call(KV.delete, "k", at=(1, 2), output=True), get(MISSING, 3, 4)),
            id="an unknown append of nothing makes the key known",
        ),
        pytest.param(
            (put("a", 0, 1), put("z", 2, None), cas("a", "b", 3, 4, False), get("z", 5, 6)),
            id="an unknown write explains a cas that failed",
        ),
        pytest.param(
            (put("a", 0, 1), append("z", 2, None), cas("a", "b", 3, 4, False), put("c", 5, 6), get("c", 7, 8)),
            id="so does one that nobody saw",
        ),
        pytest.param(
            (put("a", 0, 1), call(KV.delete, "k", at=(2, None)), get(MISSING, 3, 4)), id="an unknown delete is seen"
        ),
        pytest.param(
            (put("a", 0, 1), call(KV.set, "k", "b", at=(2, 3), fate="failed"), get("a", 4, 5)), id="it did not happen"
        ),
    ],
)
def test_a_linearizable_history(operations: tuple[Operation, ...]) -> None:
    verdict = both(*operations)
    assert (verdict.is_linearizable, verdict.text) == (True, "")


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param((put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)), id="a stale read"),
        pytest.param((put("a", 0, 1), get(MISSING, 2, 3)), id="a lost write"),
        pytest.param((put("a", 0, 1), get("a", 2, 3), get(MISSING, 4, 5)), id="a write that is lost later"),
        pytest.param((append("a", 0, 1, "a"), get("aa", 2, 3)), id="a doubled append"),
        pytest.param((append("a", 0, 1, "a"), append("b", 2, 3, "aab")), id="a doubled append, seen by the next one"),
        pytest.param((append("a", 0, None), get("aa", 2, 3)), id="an unknown append that takes effect twice"),
        pytest.param(
            (put("a", 0, None), put("b", 1, 2), get("a", 3, 4), put("c", 5, 6), get("a", 7, 8)),
            id="an unknown write that takes effect twice",
        ),
        pytest.param(
            (put("a", 0, 1), cas("a", "b", 2, 9, True), cas("a", "c", 2, 9, True)), id="two cas succeed on one value"
        ),
        pytest.param((put("a", 0, 1), get("x", 2, 3)), id="a value from nowhere"),
        pytest.param((put("a", 0, 1), get("b", 2, 3), put("b", 4, 5)), id="a value from the future"),
        pytest.param((get("a", 0, 1), put("a", 2, None)), id="an unknown write seen before it began"),
        pytest.param(
            (put("a", 0, 1), put("b", 2, 9), get("b", 3, 4), get("a", 5, 6)), id="first the new one, then the old one"
        ),
        pytest.param((put("a", 0, 1), cas("a", "b", 2, 3, False)), id="a cas that failed for no reason"),
        pytest.param(
            (put("a", 0, 1), call(KV.delete, "k", at=(2, 3), output=False)), id="a delete that did not find the key"
        ),
        pytest.param(
            (put("a", 0, 1), call(KV.set, "k", "b", at=(2, 3), fate="failed"), get("b", 4, 5)), id="a no was a yes"
        ),
        pytest.param((call(KV.set, "k", "a", at=(0, 1), output="b"),), id="the reply of another call"),
    ],
)
def test_a_history_that_is_not_linearizable(operations: tuple[Operation, ...]) -> None:
    verdict = both(*operations)
    assert verdict.is_linearizable is False
    assert "does not fit" in verdict.text


def test_the_explanation_shows_how_far_an_order_was_found() -> None:
    verdict = both(put("a", 0, 3), put("b", 4, 8), put("z", 5, None), get("b", 9, 10), get("a", 11, 12))
    assert verdict.text.splitlines() == [
        "not linearizable, 'k'",
        "  client 1  set('k', 'a') -> 'a'  |---|",
        "  client 1  set('k', 'b') -> 'b'          |---|",
        "  client 1  get('k') -> 'b'                       |---|",
        "  client 1  get('k') -> 'a'                               |---|  <- does not fit",
        "an order for 3 of 5 calls, which ends with:",
        "  client 1  set('k', 'a') -> 'a'",
        "  client 1  set('k', 'b') -> 'b'",
        "  client 1  get('k') -> 'b'",
        "then client 1  get('k') -> 'a' does not fit: 'b' is right",
    ]


def test_a_long_history_is_explained_in_few_lines() -> None:
    operations = [put(str(at), at, at + 1) for at in range(0, 2000, 2)]
    verdict = both(*operations, get("7", 3000, 3001))
    assert len(verdict.text.splitlines()) < 30
    assert "then client 1  get('k') -> '7' does not fit: '1998' is right" in verdict.text


def test_keys_are_decided_alone() -> None:
    others = [
        call(KV.set, f"k{number}", "a", at=(number, number + 50), output="a", client=number) for number in range(30)
    ]
    assert check_kv([*others, put("a", 0, 1), get("a", 2, 3)]).is_linearizable is True
    verdict = check_kv([*others, put("a", 0, 1), get("b", 2, 3)])
    assert verdict.is_linearizable is False
    assert "not linearizable, 'k'" in verdict.text


def test_any_machine_is_its_own_model() -> None:
    pushes = [call(Stack.put, number, at=(0, 9), output=height) for number, height in ((7, 2), (8, 1))]
    assert check_history(Stack, [*pushes, call(Stack.pop, at=(10, 11), output=7)]).is_linearizable is True
    assert check_history(Stack, [*pushes, call(Stack.pop, at=(10, 11), output=8)]).is_linearizable is False
    empty = call(Stack.pop, at=(0, 1), output=Rejected("empty"))
    assert check_history(Stack, [empty, *pushes[1:]]).is_linearizable is True


def test_sets_refusals_and_errors_are_answers() -> None:
    seen = [call(Once.see, "a", at=(0, 9), output=output) for output in (1, Rejected("seen", "a"))]
    rest = call(Once.all, at=(10, 11), output={"a"})
    assert check_history(Once, [*seen, rest]).is_linearizable is True
    assert check_history(Once, [*seen, call(Once.all, at=(10, 11), output=set())]).is_linearizable is False
    assert check_history(Once, [call(Once.see, "a", at=(0, 1), output=Rejected("seen", "a"))]).is_linearizable is False
    crashed = [call(Once.crash, at=(0, 1), output=MachineError("Once.crash raised ZeroDivisionError"))]
    assert check_history(Once, [*crashed, call(Once.see, "a", at=(2, 3), output=2)]).is_linearizable is True
    assert check_history(Once, [*crashed, call(Once.see, "a", at=(2, 3), output=1)]).is_linearizable is False


def test_what_only_the_log_knows_cannot_be_decided() -> None:
    verdict = check_history(Dated, [call(Dated.now, at=(0, 1), output=0.0)])
    assert verdict.is_linearizable is None
    assert "asked for self.context.now" in verdict.text


def test_a_budget_ends_the_search() -> None:
    # Fifty appends of unknown fate, any of which could have taken effect, in any order, before one that does not fit.
    hazy = [call(Stack.put, number, at=(0, None)) for number in range(50)]
    operations = [*hazy, call(Stack.put, 99, at=(1, 2), output=0)]
    assert check_history(Stack, operations, steps_max=500).is_linearizable is None
    assert "more steps than allowed" in check_history(Stack, operations, steps_max=500).text
    assert "longer than allowed" in check_history(Stack, operations, seconds_max=0.0).text


def test_one_part_that_takes_too_long_does_not_hide_another() -> None:
    hazy = [call(KV.append, "a", f"{number}.", at=(0, None)) for number in range(50)]
    endless = [*hazy, call(KV.get, "a", at=(1, 2), output="x")]
    verdict = check_history(
        KV,
        [*endless, put("a", 3, 4), get("b", 5, 6)],
        partition=lambda operation: operation.args[0],
        steps_max=1000,
    )
    assert verdict.is_linearizable is False
    assert check_kv(endless).is_linearizable is False  # What is known of KV leaves nothing to try.


def test_an_operation_of_another_machine_is_refused() -> None:
    with pytest.raises(TypeError, match="no write of Stack"):
        check_history(Stack, [put("a", 0, 1)])


def test_a_recorder_notes_what_clients_see() -> None:
    instants = iter(range(100))
    recorder = Recorder(lambda: next(instants))
    numbers = [recorder.invoke(client, KV.set, "k", str(client)) for client in range(6)]
    recorder.ok(numbers[0], "0")
    recorder.fail(numbers[1])
    recorder.unknown(numbers[2])
    recorder.raised(numbers[3], NotLeader())
    recorder.raised(numbers[4], OutcomeUnknown())
    recorder.raised(numbers[5], MISSING)
    assert [(o.client, o.called, o.returned, o.fate, o.output) for o in recorder.operations()] == [
        (0, 0, 6, "ok", "0"),
        (1, 1, 7, "failed", None),
        (2, 2, None, "unknown", None),
        (3, 3, 8, "failed", None),
        (4, 4, None, "unknown", None),
        (5, 5, 9, "ok", MISSING),
    ]
    for end in (recorder.fail, recorder.unknown):
        with pytest.raises(ValueError, match="has ended"):
            end(numbers[0])


@pytest.mark.parametrize(("at", "fate"), [((3, 2), "ok"), ((3, None), "ok"), ((3, 4), "unknown")])
def test_an_operation_that_cannot_be_is_refused(at: tuple[int, int | None], fate: Fate) -> None:
    with pytest.raises(ValueError, match="set"):
        call(KV.set, "k", "a", at=at, fate=fate)


def test_many_clients_on_one_key_are_judged_quickly() -> None:
    random, machine, operations = Random(5), KV(), []
    for at in range(2000):
        method, args = random.choice(((KV.set, ("k", str(at))), (KV.append, ("k", str(at)[-1])), (KV.get, ("k",))))
        try:
            output: object = method.function(machine, *args)
        except Rejected as refused:
            output = refused
        operations.append(
            call(method, *args, at=(10 * at - random.randrange(40), 10 * at + random.randrange(40)), output=output)
        )
    verdict = check_kv(operations)
    assert verdict.is_linearizable is True
    assert verdict.steps < 20 * len(operations)
