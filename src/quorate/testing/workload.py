"""What clients do in a simulation, and what they may be told.

A ``Workload`` draws calls and judges their replies; ``KVWorkload`` is the one for ``quorate.machines.KV``. Each value
written is unique, so a reply tells which write it saw. Knows no nodes: who makes the calls is in ``clients.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from quorate.errors import Rejected
from quorate.machine import ReadMethod, StateMachine, WriteMethod
from quorate.machines import KV
from quorate.testing.history.kv import check_kv
from quorate.testing.history.linearizability import Partition, Verdict, check_history
from quorate.testing.history.operations import Operation, shorten
from quorate.testing.profile import Profile
from quorate.testing.telling import TellingKV
from quorate.types import Consistency, Index, StaleRead

STEPS_MAX = 5_000
"""How many steps it may take to judge what the clients saw; beyond that it stays undecided."""


class Call(msgspec.Struct, frozen=True):
    """One call of a client.

    Attributes:
        method: ``KV.set``, or a ``Command`` or ``Query``.
        args: its arguments.
        is_write: whether it is a write.
        consistency: of a read: what it must see.
    """

    method: Any
    args: tuple[Any, ...]
    is_write: bool
    consistency: Consistency = "linearizable"

    def __str__(self) -> str:
        """Give it as a person would write it, long values cut short."""
        name = self.method.name if isinstance(self.method, (WriteMethod, ReadMethod)) else repr(self.method)
        said = "" if self.consistency == "linearizable" else f" {self.consistency}"
        return f"{name}({', '.join(map(shorten, self.args))}){said}"


class Workload(Protocol):
    """What the clients of one run do. One object serves all of them."""

    machine: type[StateMachine]

    def draw(self, random: Random) -> Call:
        """Draw the next call."""
        ...

    def began(self, call: Call) -> object:
        """Note that a call begins; what is returned comes back with its reply."""
        ...

    def answered(self, call: Call, floor: object, reply: object) -> str | None:
        """Judge a reply, ``Rejected`` among them; say what is wrong with it, or None.

        Args:
            call: the call.
            floor: what ``began`` returned for it.
            reply: the reply; of a stale read a ``StaleRead``.
        """
        ...

    def judge(self, operations: Sequence[Operation]) -> Verdict:
        """Judge all that the clients saw when the run is over, but for stale reads: is it linearizable?"""
        ...


class DrawnCalls:
    """A workload for any machine: calls are drawn by a function, and replies are judged by the machine itself."""

    def __init__(
        self,
        machine: type[StateMachine],
        draw: Callable[[Random], tuple[Any, ...]],
        partition: Partition | None = None,
    ) -> None:
        """Call what ``draw`` gives: a method (or ``Command`` or ``Query``) and its arguments.

        Args:
            machine: the class of the machine.
            draw: draws a call.
            partition: gives what a call is about, if no call influences the answers about anything else: then a
                history is decided more quickly. See ``check_history``.
        """
        self.machine = machine
        self._draw = draw
        self._partition = partition

    def draw(self, random: Random) -> Call:
        """Draw the next call."""
        method, *args = self._draw(random)
        return Call(method, tuple(args), not isinstance(method, ReadMethod))

    def began(self, call: Call) -> object:
        """Note nothing."""
        return None

    def answered(self, call: Call, floor: object, reply: object) -> str | None:
        """Find nothing wrong with one reply alone."""
        return None

    def judge(self, operations: Sequence[Operation]) -> Verdict:
        """Hold all that the clients saw against the machine's own class."""
        return check_history(self.machine, operations, partition=self._partition, steps_max=STEPS_MAX)


class KVWorkload:
    """Texts by key.

    A key ``a…`` is only appended to. So of any two values seen, one begins with the other; and a call that begins after
    another was answered sees at least what that one saw: no look at the log is needed to judge that. A stale read sees
    what everybody sees after the same index. A key ``x…`` is set, deleted and compared; its values are only compared
    between peers, and all of them are judged at the end.
    """

    machine: type[StateMachine]

    def __init__(self, value_bytes: int, machine: type[KV] = KV, first: int = 1) -> None:
        """Write values of up to that many bytes, each unique by its number, from ``first`` on.

        Args:
            value_bytes: the longest value.
            machine: one that answers as ``KV`` does.
            first: the first number.
        """
        self.machine = machine
        self._value_bytes = value_bytes
        self._count = itertools.count(first)
        self._longest: dict[str, str] = {}
        self._stale: dict[tuple[str, Index], str] = {}

    def draw(self, random: Random) -> Call:
        """Draw the next call."""
        key = f"{random.choice('aax')}{random.randrange(3)}"
        if random.random() < 0.35:
            return Call(KV.get, (key,), False)
        token = f"{next(self._count)}."
        if key[0] == "a":
            return Call(KV.append, (key, token), True)
        value = token + "v" * random.randint(0, self._value_bytes)
        match random.randrange(6):
            case 0:
                return Call(KV.delete, (key,), True)
            case 1:
                return Call(KV.compare_and_set, (key, None, value), True)
            case _:
                return Call(KV.set, (key, value), True)

    def began(self, call: Call) -> str:
        """Give the longest value of the key that anybody had been told of."""
        return self._longest.get(call.args[0], "")

    def answered(self, call: Call, floor: object, reply: object) -> str | None:
        """Judge the value of a key that is only appended to."""
        key = call.args[0]
        if key[0] != "a":
            return None
        if call.consistency == "stale":
            if not isinstance(reply, StaleRead):
                return None
            value = str(reply.value)
            known = self._stale.setdefault((key, reply.index), value)
            if value != known:
                return f"{call} gave {shorten(value)} after index {reply.index}, and {shorten(known)} was seen there"
        else:
            value = "" if isinstance(reply, Rejected) else str(reply)
            if not value.startswith(str(floor)):
                return f"{call} gave {shorten(value)}, and {shorten(floor)} had been seen before it began"
        longest = self._longest.get(key, "")
        if not (value.startswith(longest) or longest.startswith(value)):
            return f"{call} gave {shorten(value)}, and {shorten(longest)} was seen too: neither begins with the other"
        if call.is_write and not value.endswith(call.args[1]):
            return f"{call} gave {shorten(value)}, which does not end with what it appended"
        self._longest[key] = max(value, longest, key=len)
        return None

    def judge(self, operations: Sequence[Operation]) -> Verdict:
        """Hold all that the clients saw against ``KV``."""
        return check_kv(operations, steps_max=STEPS_MAX)


def usual_workload(profile: Profile, first: int = 1) -> KVWorkload:
    """Give the calls of a world that is asked for nothing else; each value written has a number, from ``first`` on."""
    return KVWorkload(profile.value_bytes, TellingKV if profile.tells else KV, first)
