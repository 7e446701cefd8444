"""Histories of the machine ``KV``: each key is decided alone, and writes that nobody can have seen are not tried.

Knows what the writes and reads of ``quorate.machines.KV`` mean; the search itself is in ``linearizability.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from quorate.errors import Rejected
from quorate.machine import StateMachine
from quorate.machines import KV
from quorate.testing.history.linearizability import Relevance, Verdict, check_history
from quorate.testing.history.operations import Operation


def check_kv(
    operations: Iterable[Operation], *, steps_max: int | None = None, seconds_max: float | None = None
) -> Verdict:
    """Decide whether a history of ``KV`` is linearizable; see ``check_history``.

    Raises:
        TypeError: an operation is no call of ``KV``.
        MachineError: an answer is not what ``KV`` could give, such as a number.
    """
    return check_history(
        KV, operations, partition=key_of, relevance=relevance, steps_max=steps_max, seconds_max=seconds_max
    )


def key_of(operation: Operation) -> str:
    """Give the key that a call is about."""
    return str(operation.args[0])


def relevance(operations: Sequence[Operation]) -> Relevance:
    """Tell what writes of unknown fate are good for, from all calls about one key.

    A set, append or compare-and-set of unknown fate matters only where it makes the beginning of a value that somebody
    saw, or takes away one of which somebody was told that it was not there, or makes the key known. All else can be
    left out, together with the appends of unknown fate that follow before the value is replaced: whoever looked in
    between would have seen a value that begins with this one. And writes whose text nobody ever saw are alike.
    """
    seen = longest(filter(None, map(value_seen, operations)))
    is_seen_empty = any(value_seen(operation) == "" for operation in operations)
    failed = [o for o in operations if o.method is KV.compare_and_set and o.output is False]
    denied = {operation.args[1] for operation in failed}
    texts = [*seen, *longest(filter(None, denied))]
    unseen = {
        text
        for operation in operations
        if operation.fate == "unknown" and (text := operation.args[-1]) and not any(text in known for known in texts)
    }

    def use(before: StateMachine, operation: Operation, after: StateMachine) -> Hashable:
        assert isinstance(before, KV)
        assert isinstance(after, KV)
        key = key_of(operation)
        old, new = before.entries.get(key), after.entries.get(key)
        if new is None:
            return "delete"
        place = bisect_left(seen, new)
        begins_seen = (place < len(seen) and seen[place].startswith(new)) or (not new and is_seen_empty)
        if begins_seen or ((old is None or old in denied) and operation.args[-1] not in unseen):
            return operation.method.name, *operation.args
        if old is None or old in denied:
            return ("compare", operation.args[1]) if operation.method is KV.compare_and_set else "replace"
        return None

    return use


def longest(texts: Iterable[str]) -> list[str]:
    """Give those texts that no other begins with, in order."""
    ordered = sorted(set(texts))
    return [text for text, following in pairwise([*ordered, ""]) if not following.startswith(text)]


def value_seen(operation: Operation) -> str | None:
    """Give the value of its key that a call proves, if it took effect; None if it proves none."""
    method, output = operation.method, operation.output
    if operation.fate == "ok" and not isinstance(output, Rejected) and method in (KV.get, KV.append):
        return str(output)
    if method is KV.compare_and_set and output is not False and operation.args[1] is not None:
        return str(operation.args[1])
    return None
