"""What ``start`` and ``shell`` share: find the machine, open node and peer, and say in a sentence why that failed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import logging
import os
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

import quorate
from quorate import TLS, Node, Peer, QuorateError, Settings, StateMachine
from quorate.cli.output import CommandError, Output
from quorate.cli.progress import member_text, progress_shown
from quorate.store.directory import peers_in


def log_to_stderr(level: str) -> None:
    """Log to standard error, from a level up."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


def load_machine(text: str) -> type[StateMachine]:
    """Import a state machine's class. The current directory is searched first, as by ``python -m``.

    Args:
        text: ``MODULE:CLASS``.

    Raises:
        CommandError: there is no such class, or it is no state machine.
    """
    name, colon, class_name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in [*name.split("."), class_name]):
        raise CommandError(f"{text!r} names no class; write it as MODULE:CLASS, such as quorate.machines:KV")
    module = load_module(name)
    machine = getattr(module, class_name, None)
    if isinstance(machine, type) and issubclass(machine, StateMachine) and machine is not StateMachine:
        return machine
    found = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, StateMachine)]
    others = ", ".join(key for key in found if key != "StateMachine") or "none"
    what = "is no subclass of quorate.StateMachine" if hasattr(module, class_name) else "does not exist"
    raise CommandError(f"{text} {what}; the state machines in {name} are: {others}")


def load_module(name: str) -> ModuleType:
    """Import a module.

    Raises:
        CommandError: it does not exist, or raises while it is imported.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise CommandError("the current directory was removed; go to one that is there, and call this again") from error
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            hint = f"; for the file {name} write {name.removesuffix('.py')}" if name.endswith(".py") else ""
            raise CommandError(
                f"there is no module {error.name}, neither in {here} nor where Python looks{hint}"
            ) from error
        raise CommandError(f"importing {name} failed\n{traceback_text(error)}") from error
    except Exception as error:
        raise CommandError(f"importing {name} failed\n{traceback_text(error)}") from error


def traceback_text(error: BaseException) -> str:
    """Give an error and where it was raised, without the import system's own lines."""
    shown = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in shown.stack if "importlib" not in frame.filename and frame.filename != __file__]
    shown.stack = traceback.StackSummary.from_list(frames)
    return "".join(shown.format(chain=False)).rstrip()


def is_from_quorate(error: BaseException) -> bool:
    """Tell whether an error was raised by quorate itself, and not by what it called."""
    return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(os.path.dirname(quorate.__file__))


def tls_from(options: argparse.Namespace) -> TLS | None:
    """Give the certificates that were named, or None when none was.

    Raises:
        CommandError: one is missing, or cannot be used.
    """
    paths = (options.tls_cert, options.tls_key, options.tls_ca)
    if not any(paths):
        return None
    if not all(paths):
        raise CommandError("TLS needs all three: --tls-cert, --tls-key and --tls-ca")
    for path in paths:
        if not os.access(path, os.R_OK):
            raise CommandError(f"{path} cannot be read; check the path and its permissions")
    tls = TLS(certificate=options.tls_cert, key=options.tls_key, ca=options.tls_ca)
    try:
        tls.accepting_context()
    except (ssl.SSLError, OSError) as error:
        raise CommandError(
            f"the certificates cannot be used: {error}; give PEM files, and the key of the certificate"
        ) from error
    return tls


def settings_from(options: argparse.Namespace) -> Settings:
    """Give the knobs: those that were named, and the defaults.

    Raises:
        CommandError: one is no number, or out of its bounds.
    """
    try:
        return msgspec.convert(dict(options.setting), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(f"--setting cannot be used: {error}") from error


def loop_factory(options: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give what makes the event loop: uvloop's if it was asked for; None for asyncio's own.

    Raises:
        CommandError: uvloop is not installed.
    """
    if not options.uvloop:
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise CommandError("--uvloop needs the package uvloop: pip install 'quorate[uvloop]'") from error
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@contextlib.asynccontextmanager
async def opened(options: argparse.Namespace, machine: type[StateMachine]) -> AsyncIterator[tuple[Node, Peer[Any]]]:
    """Run the node and the peer that the options describe, for as long as the context lasts.

    Raises:
        CommandError: they cannot be started.
        TypeError: as the machine's own code raised it; any other error of it likewise.
        ValueError: likewise.
        RuntimeError: likewise.
    """
    if not options.data_dir and options.store != "memory":
        raise CommandError(
            "--data-dir is needed, a directory of this node's own; --store memory goes without, and forgets"
        )
    if options.kind != "voter" and not options.join:
        raise CommandError(f"--kind {options.kind} is what a peer joins a group as: name a member of that with --join")
    listen, tls = options.bind or options.peer.node, tls_from(options)
    node = Node(
        listen,
        data_dir=options.data_dir,
        advertise=options.peer.node if options.bind else None,
        store=options.store,
        settings=settings_from(options),
        tls=tls,
        addresses={address.name: address.node for address in options.address},
        local=options.local,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            others = peers_in(Path(options.data_dir)) if options.data_dir and options.store != "memory" else []
            if others and options.peer.name not in others:
                raise CommandError(
                    f"{options.data_dir} holds the peer {', '.join(others)}, and none named {options.peer.name}; start"
                    " it under the name that it has, or give this one a directory of its own"
                )
            await listening(stack, node, listen)
            async with progress_shown(Output(plain=True), node, machine, options, tls):
                peer = await node.start_peer(machine, name=options.peer.name, join=options.join, kind=options.kind)
            if options.join:
                Output(plain=True).line(member_text(peer, peer.status()))
        except QuorateError as error:
            raise CommandError(str(error)) from error
        except (TypeError, ValueError, RuntimeError) as error:
            if not is_from_quorate(error):  # but from the machine's own code: where it was raised is what matters
                raise
            raise CommandError(str(error)) from error
        yield node, peer


async def listening(stack: contextlib.AsyncExitStack, node: Node, listen: str) -> None:
    """Start a node, for as long as the stack lasts.

    Raises:
        CommandError: it cannot listen.
    """
    try:
        await stack.enter_async_context(node)
    except OSError as error:
        raise CommandError(listen_error_text(error, listen)) from error


def listen_error_text(error: OSError, listen: str) -> str:
    """Say why a node cannot listen, and what to do."""
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"cannot listen on {listen}: the port is in use; stop the program that has it, or choose another port"
            )
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {listen}: this machine has no such address; name one that it has with --bind"
        case _:
            return error.strerror or str(error)


def ready_text(peer: Peer[Any]) -> str:
    """Say that a peer runs, and what it waits for if it has no group yet."""
    status = peer.status()
    return f"{peer.address} is ready" + (f"; {status.why}" if not status.group else "")
