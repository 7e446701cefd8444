"""What the type checkers are shown: three machines, two structs and two events."""

from __future__ import annotations

from quorate import Command, Event, Query, StateMachine, read, write


class Set(Command[str]):
    key: str
    value: str = ""


class Get(Query[str | None], tag="fetch"):
    key: str


class Changed(Event):
    key: str


class Wiped(Event):
    pass


class KV(StateMachine):
    emits = (Changed, Wiped)

    @write
    def set(self, key: str, value: str, times: int = 1) -> str:
        return value * times

    @write(name="rm")
    def delete(self, key: str) -> None: ...

    @read
    def get(self, key: str) -> str | None:
        return key

    @read(name="n")
    def count(self) -> int:
        return 0

    def handle_write(self, command: Set) -> str:
        return command.value

    def handle_read(self, query: Get) -> str | None:
        return query.key


class Ordered(KV):
    @read
    def first(self) -> str:
        return ""


class Stack(StateMachine):
    @write
    def put(self, value: int) -> int:
        return value

    @read
    def top(self) -> int:
        return 0
