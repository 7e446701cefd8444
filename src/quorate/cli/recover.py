"""``quorate recover``: what a saved data directory holds, and new groups made of it."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from quorate import QuorateError
from quorate.cli.interruption import as_by_keyboard
from quorate.cli.output import CommandError, Output
from quorate.core.configuration import names_text
from quorate.recovering import Holding, holdings, recover

COLUMNS = ("PEER", "LAST TERM", "LAST INDEX", "WRITTEN", "MEMBERS")
NUMBERS = ("LAST TERM", "LAST INDEX")


def run_recover(options: argparse.Namespace) -> int:
    """Show what a directory holds, or make a new one of it; give the exit status.

    Raises:
        CommandError: that cannot be done; nothing was made.
    """
    output = Output()
    source = Path(options.source)
    if options.to is None:
        if options.node or options.peer:
            raise CommandError("--node and --peer are of a new directory: name that with --to")
        try:
            found = holdings(source)
        except QuorateError as error:
            raise CommandError(str(error)) from error
        output.table(COLUMNS, [row(holding) for holding in found], right=NUMBERS)
        return 0
    if options.node is None:
        raise CommandError("--node is needed: where the node that will run on the new directory is reached, host:port")
    try:
        with as_by_keyboard(), output.working(f"copying {source} to {options.to}"):
            taken = recover(source, Path(options.to), options.node, options.peer)
    except (QuorateError, ValueError) as error:
        raise CommandError(str(error)) from error
    for holding in taken:
        output.line(f"{holding.name} is a group of its own in {options.to}, with all up to index {holding.stored.last}")
        output.line(f"start it as {holding.name}@{options.node}, and let others join it")
    return 0


def row(holding: Holding) -> tuple[str, ...]:
    """Give what is shown of a peer."""
    stored, configuration = holding.stored, holding.configuration
    members = names_text(configuration.members) if configuration else "no group"
    return (
        holding.name,
        str(holding.last_term),
        str(stored.last),
        when(stored.time),
        members + ("; a witness, no data" if holding.is_witness else ""),
    )


def when(time: float) -> str:
    """Write a wall time, to the second; an empty log has none."""
    if not time:
        return "-"
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
