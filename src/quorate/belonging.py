"""Belonging: which group a client speaks to, so that none of its calls ever reaches another one.

A machine whose disk was lost may form a group of its own at its old address, and an address may be one of another
deployment. So a peer is asked for its group before the first call on each connection. Knows channels and statuses; does
not know who leads, nor what is asked.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable

from quorate.errors import Unavailable
from quorate.transport import Channel
from quorate.transport.calls import StatusCall, StatusIs
from quorate.transport.local import Target
from quorate.types import Status

OTHERS_SECONDS = 1.0
"""The longest that the peers which a group does not have are given to say of which one they are, seconds: half of the
time that is left, if that is less."""

GROUP_LENGTH_MAX = 32
"""So many characters of a group's id are told: ours have no more."""


class Belonging:
    """The group of one client's calls.

    Attributes:
        group: its id; empty until a peer has told it. Never changes then.
    """

    def __init__(self, group: str = "") -> None:
        """Belong to a group, or to that of the first peer that is asked."""
        self.group: str = group
        self._sound: weakref.WeakKeyDictionary[Channel, set[str]] = weakref.WeakKeyDictionary()
        self._checks: dict[tuple[Channel, str], asyncio.Task[None]] = {}

    def has(self, target: Target, channel: Channel) -> bool:
        """Tell whether a peer is known to be of this group, on this connection."""
        return target.name in self._sound.get(channel, ())

    async def check(
        self,
        target: Target,
        channel: Channel,
        told: Iterable[Target],
        connect: Callable[[Target], Awaitable[Channel]],
        deadline: float,
    ) -> None:
        """Make sure that a peer is of this group, once for each connection; callers that wait for it share that.

        A peer that has no group yet is let through: it takes no call, and is asked again before the next.

        Args:
            target: the peer.
            channel: the connection to it.
            told: all peers that should be of the group.
            connect: connects with one of them.
            deadline: when to give up; for those who share it that of the first of them.

        Raises:
            Unavailable: it is of another group, or it and another one told are of two; or the connection was lost.
            TimeoutError: it did not answer until the deadline.
        """
        if self.has(target, channel):
            return
        key = channel, target.name
        task = self._checks.get(key)
        if task is None:
            check = self._check(target, channel, told, connect, deadline)
            task = self._checks[key] = asyncio.create_task(check, name=f"ask {target} for its group")
            task.add_done_callback(lambda done: self._checked(key, done))
        # Shielded: a caller that gives up must not take the answer away from the others.
        await asyncio.shield(task)

    def start_over(self) -> None:
        """Forget what is being asked: it was by the process which this one was forked from."""
        self._checks = {}

    async def _check(
        self,
        target: Target,
        channel: Channel,
        told: Iterable[Target],
        connect: Callable[[Target], Awaitable[Channel]],
        deadline: float,
    ) -> None:
        """Ask a peer for its group; the first one that has any decides.

        Raises:
            Unavailable: as ``check`` has it.
        """
        status = await status_of(target, channel, deadline)
        if status is None or not status.group:
            return
        if not self.group:
            members = {member.address.name for member in status.members}
            others = [other for other in told if other.name and other.name not in members | {target.name}]
            now = asyncio.get_running_loop().time()
            until = now + min(OTHERS_SECONDS, (deadline - now) / 2)
            groups = await asyncio.gather(*(group_of(other, connect, until) for other in others))
            for other, group in zip(others, groups, strict=True):
                if group not in ("", status.group):
                    raise Unavailable(
                        f"{target} belongs to group {shown(status.group)}, and {other} to group {shown(group)}: call"
                        " the members of one group alone"
                    )
            self.group = self.group or status.group
        if status.group != self.group:
            raise Unavailable(
                f"{target} belongs to group {shown(status.group)}, and this client speaks to group"
                f" {shown(self.group)}: check its address and its data directory, or connect anew to call that group"
            )
        self._sound.setdefault(channel, set()).add(target.name)

    def _checked(self, key: tuple[Channel, str], task: asyncio.Task[None]) -> None:
        """Forget a check that is over; nobody may have waited for how it ended."""
        self._checks.pop(key, None)
        if not task.cancelled():
            task.exception()


async def status_of(target: Target, channel: Channel, deadline: float) -> Status | None:
    """Ask a peer how it stands; None if it is not there, or cannot be told apart from others of its node.

    Raises:
        Unavailable: the connection was lost.
        TimeoutError: there was no answer until the deadline.
    """
    try:
        answer = (await channel.post(target.name, StatusCall(), deadline)).answer
    except ConnectionError as error:
        raise Unavailable(f"{target} was lost: {error}") from error
    return answer.peers[0] if isinstance(answer, StatusIs) and len(answer.peers) == 1 else None


async def group_of(target: Target, connect: Callable[[Target], Awaitable[Channel]], deadline: float) -> str:
    """Ask a peer for its group; empty if it has none, or does not tell in time."""
    try:
        async with asyncio.timeout_at(deadline):
            status = await status_of(target, await connect(target), deadline)
    except (Unavailable, TimeoutError):
        return ""
    return status.group if status is not None else ""


def shown(group: str) -> str:
    """Give the id of a group, which came from the network, for people."""
    return group[:GROUP_LENGTH_MAX]
