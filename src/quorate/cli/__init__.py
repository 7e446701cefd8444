"""The command line: ``quorate demo``, ``bench``, ``start``, ``form``, ``shell``, ``status``, ``recover``.

Each command is a module with a function ``run_…(options)`` that gives the exit status, imported when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from quorate.cli.arguments import make_parser
from quorate.cli.output import CommandError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: those after the program's name; by default those of the process.

    Returns:
        The exit status: 0 when all went well, 1 when it did not, 130 after Ctrl-C. Arguments that cannot be read end
        the program with 2.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return run(options)
    except CommandError as error:
        print(f"quorate {options.command}: {error}", file=sys.stderr)
        drop_unwritten()
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        drop_unwritten()  # Whoever read what is printed has left, such as `head`.
        return 1


def drop_unwritten() -> None:
    """Have what Python still holds for the standard output go nowhere, if it cannot be written: else it ends with 120.

    There is none in a process that was started with it closed.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(options: argparse.Namespace) -> int:
    """Run the command that was chosen; give its exit status."""
    # Imported here so that each command loads only what it needs.
    match options.command:
        case "demo":
            from quorate.cli.demo import run_demo  # noqa: PLC0415

            return run_demo(options)
        case "bench":
            from quorate.cli.bench import run_bench  # noqa: PLC0415

            return run_bench(options)
        case "start":
            from quorate.cli.start import run_start  # noqa: PLC0415

            return run_start(options)
        case "form":
            from quorate.cli.form import run_form  # noqa: PLC0415

            return run_form(options)
        case "shell":
            from quorate.cli.shell import run_shell  # noqa: PLC0415

            return run_shell(options)
        case "recover":
            from quorate.cli.recover import run_recover  # noqa: PLC0415

            return run_recover(options)
        case _:
            from quorate.cli.status import run_status  # noqa: PLC0415

            return run_status(options)
