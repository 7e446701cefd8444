"""``python -m quorate.testing``: what is run by itself to find faults, each as a command.

Each command is a module, or a package's, with ``add_arguments`` and ``run``, which gives the exit status.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from quorate.testing import determinism, once, runner
from quorate.testing.chaos import command as chaos
from quorate.testing.exploration import command as exploration
from quorate.testing.history import files
from quorate.testing.shrinking import command as shrinking
from quorate.testing.specification import traces


class Command(NamedTuple):
    """One command: what it is for, what it takes, and what it does."""

    purpose: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "sim": Command("run the simulator: one seed with its trace, or many", runner.add_arguments, runner.run),
    "shrink": Command("make a script of a few events from a seed that fails", shrinking.add_arguments, shrinking.run),
    "replay": Command("run such a script, or any scenario", shrinking.add_replay_arguments, shrinking.replay),
    "once": Command(
        "many writes, a fifth of the replies lost: did each take effect once?", once.add_arguments, once.run
    ),
    "determinism": Command(
        "run each seed six times, and compare the traces", determinism.add_arguments, determinism.run
    ),
    "digests": Command(
        "print the digest of the trace of each seed", determinism.add_seed_arguments, determinism.run_digests
    ),
    "explore": Command(
        "visit every state of small groups of the real core", exploration.add_arguments, exploration.run
    ),
    "specification": Command(
        "explain each step of walks of the core by an abstract Raft", traces.add_arguments, traces.run
    ),
    "check-history": Command("tell whether a history is linearizable", files.add_arguments, files.run),
    "chaos": Command("faults on real processes", chaos.add_arguments, chaos.run),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named; give its exit status."""
    parser = argparse.ArgumentParser(prog="python -m quorate.testing", description="Tools for testing quorate.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.purpose, description=command.purpose))
    chosen = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Traces have signs that not every terminal knows.
    return COMMANDS[chosen.command].run(chosen)


if __name__ == "__main__":
    sys.exit(main())
