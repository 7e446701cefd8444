"""Asking: one call to one peer, on this node or another, until a deadline; what comes back, or went wrong.

Knows calls and a transport. Decides nothing by the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from quorate.errors import OutcomeUnknown, QuorateError, Unavailable
from quorate.transport import Answer, Transport
from quorate.transport.calls import (
    Call,
    ChangeCall,
    Failure,
    IdentifyCall,
    Identity,
    Reply,
    Request,
    error_from_failure,
)
from quorate.types import Address, parse_node

Ask = Callable[[Address, Call, float], Coroutine[Any, Any, object]]
"""Asks a peer until a deadline, by the event loop's time: gives the answer, or raises what ``quorate.errors`` has."""


def make_ask(
    transport: Callable[[], Transport],
    receive: Callable[[Sequence[Request], Answer], None],
    told: Mapping[str, str],
) -> Ask:
    """Make what asks peers.

    Args:
        transport: gives the network of the node; raises ``Stopped`` when the node does not run.
        receive: carries out requests on this node.
        told: for some names, where they are reached.
    """

    async def ask(member: Address, call: Call, deadline: float) -> object:
        seconds = deadline - asyncio.get_running_loop().time()
        network = transport()
        node = told.get(member.name, member.node)
        is_sent = False
        try:
            async with asyncio.timeout_at(deadline):
                if node == network.address:
                    is_sent = True
                    reply = await ask_here(receive, Request(1, member.name, call))
                else:
                    parse_node(node)
                    channel = await network.connect(node)
                    is_sent = True
                    try:
                        reply = await channel.call(Request(1, member.name, call))
                    finally:
                        await channel.close()
        except TimeoutError:
            raise lost(call, is_sent, f"{member} gave no answer within {max(seconds, 0):.3g} s") from None
        except ConnectionError as error:
            raise lost(call, is_sent, f"the connection to {member} broke: {error}") from error
        if isinstance(reply.answer, Failure):
            raise error_from_failure(reply.answer)
        return reply.answer

    return ask


async def ask_here(receive: Callable[[Sequence[Request], Answer], None], request: Request) -> Reply:
    """Ask a peer of this node."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    receive([request], lambda reply: None if future.done() else future.set_result(reply))
    return await future


def lost(call: Call, is_sent: bool, text: str) -> QuorateError:
    """Give the error for a call without an answer: a change may go on without anybody who waits for it."""
    if is_sent and isinstance(call, ChangeCall):
        return OutcomeUnknown(f"{text}; the change may go on: status() tells")
    return Unavailable(text)


async def identify(ask: Ask, member: Address, deadline: float) -> Identity:
    """Ask a peer who it is.

    Raises:
        Unavailable: it did not answer, or not that.
    """
    return as_identity(await ask(member, IdentifyCall(), deadline))


def as_identity(answer: object) -> Identity:
    """Give an answer as an identity.

    Raises:
        Unavailable: it is none.
    """
    if not isinstance(answer, Identity):
        raise Unavailable(f"it answered with {type(answer).__name__}, which is no identity")
    return answer
