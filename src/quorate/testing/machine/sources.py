"""What a write reads of the machine that it runs on, such as clocks and files, and what it starts there; with the line.

While ``watching`` lasts, every function written in C that is called is looked up in a table. So it makes no
difference under which name a program imported it, and nothing is replaced. Knows nothing of state machines.
"""

from __future__ import annotations

import _thread
import asyncio
import builtins
import contextlib
import datetime
import io
import os
import random
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import msgspec

CLOCK = ("reads the clock", "self.context.now is the time of the command, alike on every peer")
DURATION = ("measures time", "a state or reply that holds it differs from peer to peer")
CHANCE = ("draws randomness", "self.context.random is seeded from the log, alike on every peer")
OUTSIDE = ("reaches outside", "ask before the write, and pass the answer as an argument")
THREAD = ("starts a thread", "what runs there has no place in the log: let the caller do it")
LOOP = ("asks for the event loop", "what runs there has no place in the log: set a timer, or let the caller do it")
ENVIRONMENT = ("reads the environment", "pass what it says as an argument")
HASH = ("takes a hash", "that of a str or bytes differs from process to process")
ADDRESS = ("takes an address", "id() differs from process to process")

Told = tuple[str, str]
"""What a function does, and what to know of it."""

ONLY_EXPLAINS = (DURATION, HASH, ADDRESS)
"""What does no harm unless a reply or state holds what came of it."""


def named(module: object, *names: str) -> list[Any]:
    """Give what a module has of these names: not every system has all."""
    return [getattr(module, name) for name in names if hasattr(module, name)]


def c_functions() -> dict[Any, Told]:
    """Give the functions written in C that are looked for."""
    clocks = [*named(time, "time", "time_ns", "monotonic", "monotonic_ns", "clock_gettime", "clock_gettime_ns")]
    clocks += [datetime.datetime.now, datetime.datetime.utcnow, datetime.datetime.today, datetime.date.today]
    durations = named(
        time, "perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time", "thread_time_ns"
    )
    chances = [random.random, random.getrandbits, *named(os, "urandom", "getrandom")]
    outside = [io.open, *named(os, "open", "read", "write", "listdir", "scandir", "stat", "lstat", "remove", "rename")]
    outside += [*named(os, "getpid", "getcwd", "uname", "system", "mkdir", "cpu_count"), *named(socket, "gethostname")]
    groups = (clocks, CLOCK), (durations, DURATION), (chances, CHANCE), (outside, OUTSIDE)
    return {
        **{function: told for functions, told in groups for function in functions},
        builtins.hash: HASH,
        builtins.id: ADDRESS,
        builtins.input: OUTSIDE,
        **dict.fromkeys(named(_thread, "start_new_thread", "start_joinable_thread"), THREAD),
        **dict.fromkeys((asyncio.get_running_loop, asyncio.get_event_loop), LOOP),
    }


def python_functions() -> dict[CodeType, Told]:
    """Give the code of those written in Python, whose own calls of C do not tell enough."""
    return {
        socket.socket.__init__.__code__: OUTSIDE,
        socket.getaddrinfo.__code__: OUTSIDE,
        subprocess.Popen.__init__.__code__: OUTSIDE,
        type(os.environ).__getitem__.__code__: ENVIRONMENT,
    }


SEEDING = random.Random.seed.__code__
QUIET = ("logging", "importlib", "_frozen_importlib", "warnings", "traceback", "linecache")
"""Modules that may look at the clock and at files on a write's behalf: nothing of it comes back to the write."""

OURS = "quorate."
STDLIB = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")})


class Source(msgspec.Struct, frozen=True):
    """One place where a handler reads what need not be alike on every peer.

    Attributes:
        what: what it does there, such as ``"reads the clock"``.
        advice: what to know of it.
        place: the file and line.
        is_forbidden: whether it is wrong whatever comes of it.
    """

    what: str
    advice: str
    place: str
    is_forbidden: bool


@contextlib.contextmanager
def watching(found: list[Source]) -> Iterator[None]:
    """Note each source that is read inside the ``with``, by this thread."""
    in_c, in_python = c_functions(), python_functions()

    def note(told: Told | None, frame: FrameType | None) -> None:
        if told is not None and (place := caller(frame)) is not None:
            source = Source(*told, place, told not in ONLY_EXPLAINS)
            if source not in found:
                found.append(source)

    def profile(frame: FrameType, event: str, function: Any) -> None:  # noqa: ANN401
        if event == "c_call":
            note(in_c.get(function), frame)
        elif event == "call":
            is_unseeded = frame.f_code is SEEDING and frame.f_locals.get("a") is None
            note(CHANCE if is_unseeded else in_python.get(frame.f_code), frame.f_back)

    before: Callable[..., Any] | None = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def caller(frame: FrameType | None) -> str | None:
    """Give the line of the program that led to a call, be it through the standard library; None for none of its own."""
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name.partition(".")[0] in QUIET or name.startswith(OURS):
            return None
        is_library = file.startswith("<") or (file.startswith(STDLIB) and "-packages" not in file)
        if not is_library:
            return f"{os.path.basename(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return None
