"""What the type checkers are shown: two machines, two structs, and a peer with the signatures of the real one."""

from __future__ import annotations

from typing import Any, Generic, ParamSpec, TypeVar, overload

from quorate.machine import Command, Query, ReadMethod, StateMachine, WriteMethod, read, write
from quorate.types import Consistency, StaleRead

M = TypeVar("M", bound=StateMachine)
P = ParamSpec("P")
R = TypeVar("R")


class Peer(Generic[M]):
    @overload
    async def write(self, method: WriteMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def write(self, command: Command[R], /) -> R: ...
    async def write(self, call: object, /, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @overload
    async def read(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def read(self, query: Query[R], /) -> R: ...
    async def read(self, call: object, /, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    @overload
    async def read_stale(self, method: ReadMethod[M, P, R], /, *args: P.args, **kwargs: P.kwargs) -> StaleRead[R]: ...
    @overload
    async def read_stale(self, query: Query[R], /) -> StaleRead[R]: ...
    async def read_stale(self, call: object, /, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def with_options(self, *, timeout: float | None = None, consistency: Consistency | None = None) -> Peer[M]:
        raise NotImplementedError


class Set(Command[str]):
    key: str
    value: str = ""


class Get(Query[str | None], tag="fetch"):
    key: str


class KV(StateMachine):
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
