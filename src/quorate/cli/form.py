"""``quorate form``: forms a group of peers that run, from outside, as ``set_configuration`` does on one of them."""

from __future__ import annotations

import argparse
import asyncio
import random

from quorate import TLS, Address, InvalidConfiguration, QuorateError, Settings, StateMachine, Unavailable, connect
from quorate.asking import Ask, make_ask
from quorate.bootstrap import form_group, parse_addresses
from quorate.cli.opening import tls_from
from quorate.cli.output import CommandError, Output
from quorate.store.directory import random_id
from quorate.transport.calls import Call
from quorate.transport.tcp import TCPTransport

PAUSE = 0.5
"""How long after a member did not answer all are asked again, and the least time to find the leader in, seconds."""

PATIENCE = 1.0
"""How long after they were asked it is said who has not answered yet, seconds."""

TRY_SECONDS = 5.0
"""How long each of them has to answer."""


def run_form(options: argparse.Namespace) -> int:
    """Form a group and print who leads it; give the exit status."""
    output = Output()
    leader = asyncio.run(form(options.addresses, options.timeout, tls_from(options), output))
    output.line(f"{leader.name} leads the group of {', '.join(address.name for address in options.addresses)}")
    return 0


async def form(addresses: list[Address], patience: float, tls: TLS | None, output: Output) -> Address:
    """Form a group, once all of its members answer; harmless when it is formed already. Give its leader.

    Args:
        addresses: all members.
        patience: how long to wait for them, and then for their leader, seconds.
        tls: the certificates, if the nodes have them.
        output: told whom it waits for.

    Raises:
        CommandError: they did not answer in time, or cannot be the members of one group.
    """
    transport = TCPTransport(None, settings=Settings(call_timeout=TRY_SECONDS), tls=tls, random=random.random)
    ask = make_ask(lambda: transport, lambda *_: None, {})
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    try:
        await written(ask, addresses, deadline, output)
        # One member after the other: some of a group that is formed already may be down.
        async with connect(StateMachine, *addresses, tls=tls) as group:
            return await group.with_options(timeout=max(deadline - loop.time(), PAUSE)).leader()
    except QuorateError as error:
        raise CommandError(str(error)) from error
    finally:
        await transport.stop()


async def written(ask: Ask, addresses: list[Address], deadline: float, output: Output) -> None:
    """Have the first configuration written on the members, as soon as all of them answer.

    Raises:
        InvalidConfiguration: they cannot be the members of one group.
        Unavailable: one of them did not answer until the deadline.
    """
    loop, told = asyncio.get_running_loop(), ""
    members = parse_addresses(addresses)

    waiting: list[Address] = []

    def tell() -> None:
        output.line(f"waiting: {', '.join(map(str, waiting))} {'have' if len(waiting) > 1 else 'has'} not answered yet")

    async def ask_visibly(member: Address, call: Call, until: float) -> object:
        waiting.append(member)
        try:
            return await ask(member, call, until)
        finally:
            waiting.remove(member)

    async def form_now() -> None:
        telling = loop.call_later(PATIENCE, tell)
        try:
            await form_group(
                members[0], None, members, ask_visibly, min(deadline, loop.time() + TRY_SECONDS), random_id
            )
        finally:
            telling.cancel()

    while True:
        try:
            try:
                await form_now()
            except InvalidConfiguration:
                # Another may have formed this very group meanwhile: then that is found now.
                await form_now()
        except Unavailable as error:
            if loop.time() + PAUSE >= deadline:
                raise
            if str(error) != told:
                told = str(error)
                output.line(f"waiting: {told}")
            await asyncio.sleep(PAUSE)
        else:
            return
