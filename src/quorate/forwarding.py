"""Forwarding: what clients ask at the local socket of a node is answered here, or asked of whoever leads.

So such a client needs no way to the other machines, and no certificate: its node has both. Knows calls, and the way of
a client's calls (``following.py``); knows no sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain

import msgspec

from quorate.attempts import Expired
from quorate.errors import NotLeader, Overloaded, QuorateError, SessionExpired, described
from quorate.following import Following
from quorate.serving import TIMEOUT_MAX, Place
from quorate.transport import Answer, Packet
from quorate.transport.calls import (
    BootstrapCall,
    Call,
    CancelCall,
    ChangeCall,
    Failure,
    IdentifyCall,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    SnapshotCall,
    StatusCall,
    WriteCall,
    failure_from_error,
    singly,
)
from quorate.types import Address

logger: logging.Logger = logging.getLogger("quorate.forwarding")

NODE_CALLS = (IdentifyCall, BootstrapCall, ChangeCall, SnapshotCall)
"""What nodes alone ask of one another, and not at a local socket."""

LEADER_KNOWS = ("NotLeader", "Compacted")
"""The errors with which a peer here is not the last to be asked: another leads, or may hold the events wanted."""

SHARE = 0.9
"""What part of a call's time the leader is looked for: the rest is for the answer that says why there is none."""

CALL_BYTES = 1024
"""What a call that is being forwarded is taken to cost, beside its command or query."""


Key = tuple[Answer, int]
"""What a call under way goes by: the way back to its client, and the number that it has there."""


class Asked(msgspec.Struct, eq=False):
    """A call of a client that is under way.

    Attributes:
        request: what is asked.
        take: takes what a peer here answers.
        asked_at: when it came, seconds on the loop's clock.
        task: asks the leader; None while a peer here is asked.
        is_given_up: whether its client waits no longer.
    """

    request: Request
    take: Answer
    asked_at: float
    task: asyncio.Task[None] | None = None
    is_given_up: bool = False


class Forwarding:
    """What a local socket delivers to: a ``Receiver`` of clients' requests alone."""

    def __init__(
        self,
        places: Mapping[str, Place],
        receive: Callable[[Sequence[Request], Answer], None],
        follow: Callable[[tuple[Address, ...], str], Following],
        bytes_max: int,
    ) -> None:
        """Forward nothing yet.

        Args:
            places: the peers of this node, by their names.
            receive: carries out requests on this node.
            follow: makes the way to the leader, of some members and the id of their group.
            bytes_max: how many bytes of calls may be on that way at once.
        """
        self._places = places
        self._receive = receive
        self._follow = follow
        self._bytes_max = bytes_max
        self._bytes = 0
        self._ways: dict[tuple[str, str], Following] = {}  # By the names of peers here, and their groups.
        self._asked: dict[Key, Asked] = {}  # In the order in which they came.

    def receive_packets(self, source: str, packets: Sequence[Packet]) -> None:
        """Take no packets: the transport lets none through."""

    def lose_node(self, node: str) -> None:
        """Learn nothing: there are no neighbours here."""

    def receive_requests(self, requests: Sequence[Request], answer: Answer) -> None:
        """Carry out requests here; what no peer here can answer is asked of the leader."""
        now = asyncio.get_running_loop().time()
        for_all: list[Request] = []
        for request in chain.from_iterable(map(singly, requests)):
            if isinstance(request.call, CancelCall):
                self._give_up(request, (answer, request.call.request))
                continue
            named = self._named(request)
            if isinstance(named, Failure):
                answer(Reply(request.id, named))
                continue
            if not named.peer:  # All peers here are looked at once for all who ask how they stand.
                for_all.append(named)
                continue
            key = answer, named.id
            take = partial(self._take, key)
            self._asked[key] = Asked(named, take, now)
            self._receive([named], take)
        if for_all:
            self._receive(for_all, answer)

    async def stop(self) -> None:
        """Forward no more. Idempotent."""
        tasks = [asked.task for asked in self._asked.values() if asked.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ways, self._ways = self._ways, {}
        for way in ways.values():
            await way.close()

    def _named(self, request: Request) -> Request | Failure:
        """Give a request as this node understands it: to a peer by its name, which reads where it is asked."""
        call = request.call
        if isinstance(call, NODE_CALLS):
            return Failure("Unavailable", "the local socket is for clients: the address of the node takes this call")
        if isinstance(call, ReadCall) and call.leader_only:
            call = msgspec.structs.replace(call, leader_only=False)
        name = request.peer
        if not name and not isinstance(call, StatusCall):
            if not self._places:
                return Failure("Unavailable", "no peer runs on this node")
            if len(self._places) > 1:
                running = ", ".join(self._places)
                return Failure("Unavailable", f"say which peer is meant, as in peer1@unix:PATH; it has: {running}")
            (name,) = self._places
        return Request(request.id, name, call)

    def _take(self, key: Key, reply: Reply) -> None:
        """Pass on what a peer here answers, unless somebody else must be asked."""
        asked = self._asked.get(key)
        if asked is None:
            return  # It was given up.
        request, failure = asked.request, reply.answer
        place = self._places.get(request.peer)
        if place is None or not isinstance(failure, Failure) or failure.error not in LEADER_KNOWS:
            self._answer(key, reply)
            return
        size = size_of(request.call)
        if self._bytes + size > self._bytes_max:
            full = Overloaded("too much waits for the leader already: write less at once")
            self._answer(key, Reply(request.id, failure_from_error(full)))
            return
        status, own = place.seat.status(), place.peer.address
        way = self._ways.get((own.name, status.group))
        if way is None:
            others = [each.address for each in status.members if each.address.name != own.name]
            # Itself last: it may be the leader by then, and is the only one that a group of one has.
            way = self._ways[own.name, status.group] = self._follow((*others, own), status.group)
        if failure.redirect is not None:
            way.expect(failure.redirect)
        self._bytes += size
        asked.task = asyncio.create_task(self._ask(way, asked, key), name=f"forward for {request.peer}")
        asked.task.add_done_callback(partial(self._done, key, size))

    def _answer(self, key: Key, reply: Reply) -> None:
        """Answer a call, and forget it."""
        self._asked.pop(key, None)
        key[0](reply)

    def _done(self, key: Key, size: int, _: asyncio.Task[None]) -> None:
        """Forget a call that was forwarded."""
        self._bytes -= size
        self._asked.pop(key, None)

    def _give_up(self, request: Request, key: Key) -> None:
        """Let go of a call for whose answer nobody waits any longer.

        A write in a session is only let go together with those behind it: the group takes them in their order.
        """
        asked = self._asked.get(key)
        if asked is None:
            return  # It was answered just now.
        asked.is_given_up = True
        session = session_of(asked.request.call)
        if session == 0:
            self._let_go(key, asked, request)
            return
        behind: list[tuple[Key, Asked]] = []
        for other, write in reversed(self._asked.items()):
            if other[0] == key[0] and session_of(write.request.call) == session:
                if not write.is_given_up:
                    break
                behind.append((other, write))
        for other, write in behind:
            self._let_go(other, write, request)

    def _let_go(self, key: Key, asked: Asked, request: Request) -> None:
        """End a call that was given up, here or on its way."""
        if asked.task is not None:
            asked.task.cancel()
            return
        self._asked.pop(key, None)
        self._receive([Request(request.id, asked.request.peer, CancelCall(key[1]))], asked.take)

    async def _ask(self, way: Following, asked: Asked, key: Key) -> None:
        """Ask the leader, and pass on what it answers.

        A write behind others of its session is tried once. Repeated by itself it would come before those, and be
        refused: its client repeats it, when the first of them is answered.
        """
        call = asked.request.call
        told = getattr(call, "timeout", 0.0)
        timeout = told if told < TIMEOUT_MAX else TIMEOUT_MAX  # As ``serving.deadline_of``: it may be no number.
        is_once = isinstance(call, OpenSessionCall) or session_of(call) != 0
        repeats = not isinstance(call, WriteCall) or call.sequence <= call.settled
        is_write = isinstance(call, WriteCall | OpenSessionCall)

        def make(left: float) -> Call:
            return msgspec.structs.replace(call, timeout=left)

        try:
            deadline = asked.asked_at + SHARE * timeout
            found = await way.ask(make, deadline, is_write=is_write, is_once=is_once, repeats=repeats)
        except Expired as expired:
            found = failure_from_error(expired.__cause__ or expired)  # What the leader says, as it says it.
        except SessionExpired as error:
            # A try of ours may have had an effect. Of that the client must not hear as of a session that had ended
            # before: it would write once more, in another one.
            found = Failure("OutcomeUnknown", str(error))
        except NotLeader as error:
            found = Failure("Unavailable", str(error))  # The client has no way to whoever leads.
        except QuorateError as error:
            found = failure_from_error(error)
        except Exception as error:
            # As of certificates that cannot be read any more. A call that nobody answers would count for ever.
            logger.error("a call of a client at the local socket fails", exc_info=error)
            found = Failure("OutcomeUnknown" if is_write else "Unavailable", f"its node failed: {described(error)}")
        self._answer(key, Reply(asked.request.id, found))  # type: ignore[arg-type]


def session_of(call: Call) -> int:
    """Give the session in which a call writes; 0 for none."""
    return call.session if isinstance(call, WriteCall) else 0


def size_of(call: Call) -> int:
    """Give how many bytes a call is taken to cost while it is forwarded."""
    match call:
        case WriteCall(command=encoded) | ReadCall(query=encoded):
            return CALL_BYTES + len(encoded)
        case _:
            return CALL_BYTES
