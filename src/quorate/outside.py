"""What a peer's seat asks of the loop that it sits at. Says what there is; knows no seats and no loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from quorate.transport import Packet
from quorate.types import Index, Run

S_contra = TypeVar("S_contra", contravariant=True)


class Outside(Protocol[S_contra]):
    """What a seat asks of its loop."""

    def wake(self, seat: S_contra) -> None:
        """See to it that the seat has a turn soon."""

    def post(self, node: str, packet: Packet) -> None:
        """Send a packet to a node with the next frame."""

    def read(self, seat: S_contra, first: Index, last: Index, done: Callable[[tuple[Run, ...]], None]) -> None:
        """Read entries from the disk."""

    def time(self) -> float:
        """Give the monotonic clock, seconds."""
        ...

    def wall(self) -> float:
        """Give the wall clock, seconds since 1970."""
        ...

    def act(self, seat: S_contra, act: Callable[..., object], *args: object) -> None:
        """Let the seat act outside its turn; what it raises stops its peer."""

    def fail(self, seat: S_contra, error: BaseException) -> None:
        """Stop the seat's peer because of what it raised."""

    def joined(self, seat: S_contra, group: str) -> None:
        """Note that the seat's peer belongs to that group, and that its log durably says so."""
