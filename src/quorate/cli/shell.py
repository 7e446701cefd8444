"""``quorate shell``: one node, and a Python prompt where ``await`` works.

The prompt has the main thread, so that Ctrl-C reaches it; the node has a thread with an event loop, and what is typed
runs there too, as any code that uses quorate does.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import builtins
import code
import concurrent.futures
import inspect
import io
import signal
import sys
import threading
import traceback
from collections.abc import Coroutine
from types import CodeType, FunctionType
from typing import Any, NoReturn

import quorate
from quorate import QuorateError, StateMachine
from quorate.cli.opening import load_machine, log_to_stderr, loop_factory, opened, ready_text
from quorate.cli.output import CommandError, Output
from quorate.cli.signals import wake_main_thread_when_signalled

FILENAME = "<shell>"
"""What tracebacks call the code that was typed."""


def run_shell(options: argparse.Namespace) -> int:
    """Run a node until its prompt ends; give the exit status."""
    log_to_stderr(options.log_level)
    machine = load_machine(options.machine)
    keeper = Keeper(options, machine)
    factory = loop_factory(options)

    def serve() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(keeper.run())

    end_at_once_when_signalled()
    thread = threading.Thread(target=serve, name="quorate-shell")
    thread.start()
    names = keeper.started.result()
    wake_main_thread_when_signalled()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, leave)
        return prompt(keeper.loop, names, machine)
    finally:
        end_at_once_when_signalled()
        keeper.loop.call_soon_threadsafe(keeper.asked_to_stop.set)
        thread.join()


def end_at_once_when_signalled() -> None:
    """Let signals end the process, as they do by default, while no one is at the prompt to be told of them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def leave(number: int, frame: object) -> NoReturn:
    """End the prompt: the node then stops cleanly, unless a second signal comes.

    Raises:
        SystemExit: always.
    """
    end_at_once_when_signalled()
    raise SystemExit(0)


class Keeper:
    """Keeps the node running, on the thread of the event loop.

    Attributes:
        loop: the event loop, known once ``started`` is resolved.
        started: resolved with what the prompt has from the beginning, or with why the node cannot run.
        asked_to_stop: set, on the loop's thread, to stop the node.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, options: argparse.Namespace, machine: type[StateMachine]) -> None:
        """Describe the node; nothing is opened yet."""
        self.started: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        self.asked_to_stop: asyncio.Event = asyncio.Event()
        self._options = options
        self._machine = machine

    async def run(self) -> None:
        """Run the node until it is asked to stop."""
        self.loop = asyncio.get_running_loop()
        try:
            async with opened(self._options, self._machine) as (node, peer):
                Output(plain=True).line(ready_text(peer))
                self.started.set_result(names_of(self._machine) | {"node": node, "peer": peer})
                await self.asked_to_stop.wait()
        except Exception as error:
            if self.started.done():
                raise
            self.started.set_exception(error)


def names_of(machine: type[StateMachine]) -> dict[str, Any]:
    """Give the names that the prompt has: as after an import of all from quorate, and from the machine's module."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, "asyncio": asyncio}
    names |= {name: getattr(quorate, name) for name in quorate.__all__}
    names |= {name: value for name, value in vars(sys.modules[machine.__module__]).items() if not name.startswith("_")}
    return names | {machine.__name__: machine}


def prompt(loop: asyncio.AbstractEventLoop, names: dict[str, Any], machine: type[StateMachine]) -> int:
    """Read and run what is typed until it ends; give the exit status.

    Raises:
        CommandError: what was piped into it ended within a statement.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What is typed may print and then wait: whoever reads along through a pipe sees the line all the same.
        sys.stdout.reconfigure(line_buffering=True)
    if sys.stdin.isatty():
        complete_and_remember(names)
        Output(plain=True).line(
            f"`await` works here. There are peer, node, {machine.__name__}, connect and all public names of quorate. "
            "Ctrl-D stops the node."
        )
    console = Console(loop, names)
    try:
        console.interact(banner="", exitmsg="")
        # A block runs at the empty line behind it, and a file may end without one.
        is_cut_off = bool(console.buffer) and not sys.stdin.isatty() and console.push("")
    except SystemExit as error:
        return status_of(error)
    print(flush=True)
    if is_cut_off:
        raise CommandError("the input ended within a statement, which did not run")
    return 1 if console.has_failed and not sys.stdin.isatty() else 0


def status_of(asked_to_leave: SystemExit) -> int:
    """Give the exit status that was asked for, as Python does: a text is printed, and stands for 1."""
    code = asked_to_leave.code
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr, flush=True)
    return 1


def complete_and_remember(names: dict[str, Any]) -> None:
    """Have the keys of a line editor: arrows for the lines typed before, Tab to complete; where Python has one."""
    try:
        # Lazy, because there are interpreters built without it.
        import readline  # noqa: PLC0415
        import rlcompleter  # noqa: PLC0415
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")


class Console(code.InteractiveConsole):
    """A prompt whose lines run on the thread of an event loop, and may await."""

    def __init__(self, loop: asyncio.AbstractEventLoop, names: dict[str, Any]) -> None:
        """Run lines on ``loop``, with these names and those they make."""
        super().__init__(names, FILENAME)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop = loop
        self._names = names
        self._task: asyncio.Task[None] | None = None
        self.has_failed: bool = False

    def raw_input(self, prompt: str = "") -> str:
        """Read a line.

        Into a pipe or a file, ``input()`` would write the prompt in a way that forgets what a signal raises meanwhile.
        """
        if sys.stdin.isatty() and sys.stdout.isatty():
            return super().raw_input(prompt)
        print(prompt, end="", flush=True)
        return super().raw_input()

    def runcode(self, code: CodeType) -> None:
        """Run what was typed, and show what it raised; Ctrl-C cancels it.

        Raises:
            SystemExit: it asked to leave.
        """
        outcome: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            try:
                self._loop.call_soon_threadsafe(self._begin, code, outcome)
                outcome.result()
            except KeyboardInterrupt:
                self._loop.call_soon_threadsafe(self._cancel)
                outcome.result()
        except SystemExit:
            raise
        except asyncio.CancelledError:
            print("\nKeyboardInterrupt", flush=True)
        except BaseException as error:
            self.has_failed = True
            print(error_text(error), flush=True)

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Show why what was typed cannot be run."""
        self.has_failed = True
        super().showsyntaxerror(*args, **kwargs)

    def _begin(self, code: CodeType, outcome: concurrent.futures.Future[None]) -> None:
        """Run what was typed, on the loop's thread. If it awaits, it is a coroutine now, and goes on as a task."""
        self._task = None
        try:
            awaited = FunctionType(code, self._names)()
        except BaseException as error:
            outcome.set_exception(error)
            return
        if inspect.iscoroutine(awaited):
            self._task = self._loop.create_task(self._finish(awaited, outcome))
        else:
            outcome.set_result(None)

    async def _finish(self, awaited: Coroutine[Any, Any, None], outcome: concurrent.futures.Future[None]) -> None:
        """Wait for what was typed. Whatever it raises is for the prompt, and must not end the loop."""
        try:
            await awaited
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    def _cancel(self) -> None:
        """Cancel what was typed, if it awaits."""
        if self._task is not None:
            self._task.cancel()


def error_text(error: BaseException) -> str:
    """Give an error as the prompt shows it: quorate's own in one line, others with where they were raised."""
    if isinstance(error, QuorateError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename != FILENAME:
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place)).rstrip()
