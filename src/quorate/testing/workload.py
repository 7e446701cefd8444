"""What clients do in a simulation, and what they may be told.

A ``Workload`` draws calls and judges their replies; ``KVWorkload`` is the one for ``quorate.machines.KV``. Each value
written is unique, so a reply tells which write it saw. Knows no nodes: who makes the calls is in ``clients.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from quorate.errors import Rejected
from quorate.machine import ReadMethod, StateMachine, WriteMethod
from quorate.machines import KV
from quorate.types import Consistency, Index, StaleRead


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


class DrawnCalls:
    """A workload for any machine: calls are drawn by a function, and replies are not judged."""

    def __init__(self, machine: type[StateMachine], draw: Callable[[Random], tuple[Any, ...]]) -> None:
        """Call what ``draw`` gives: a method (or ``Command`` or ``Query``) and its arguments."""
        self.machine = machine
        self._draw = draw

    def draw(self, random: Random) -> Call:
        """Draw the next call."""
        method, *args = self._draw(random)
        return Call(method, tuple(args), not isinstance(method, ReadMethod))

    def began(self, call: Call) -> object:
        """Note nothing."""
        return None

    def answered(self, call: Call, floor: object, reply: object) -> str | None:
        """Find nothing wrong."""
        return None


class KVWorkload:
    """Texts by key.

    A key ``a…`` is only appended to. So of any two values seen, one begins with the other; and a call that begins after
    another was answered sees at least what that one saw: no look at the log is needed to judge that. A stale read sees
    what everybody sees after the same index. A key ``x…`` is set, deleted and compared; its values are only compared
    between peers.
    """

    machine: type[StateMachine] = KV

    def __init__(self, value_bytes: int) -> None:
        """Write values of up to that many bytes."""
        self._value_bytes = value_bytes
        self._count = itertools.count(1)
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


def shorten(value: object) -> str:
    """Give a value as Python shows it, at most 24 characters of it."""
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:12]}…{text[-11:]}"
