"""What the commands print: plain text, and with rich on a terminal the same in colours.

Everything is flushed line by line, so that whoever reads along through a pipe sees it as it happens.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


class CommandError(Exception):
    """A command cannot do what it was asked; the message says why and what to do, in a sentence for a person."""


class Output:
    """Where a command prints."""

    def __init__(self, stream: TextIO | None = None, *, plain: bool = False) -> None:
        """Print to a stream, by default the standard output.

        Args:
            stream: where to.
            plain: no colours, even where rich is installed and a person is watching.
        """
        # There is none in a process that was started with its standard output closed.
        self._stream = stream or cast("TextIO | None", sys.stdout)
        is_watched = self._stream is not None and self._stream.isatty()
        self._rich = rich_console(self._stream) if is_watched and not plain else None

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line.

        Args:
            text: the line.
            style: how it looks where there are colours, such as ``"bold"`` or ``"dim cyan"``.

        Raises:
            CommandError: it cannot be written, as to a file on a full disk.
            BrokenPipeError: whoever read along has left.
        """
        if self._rich is not None:
            self._rich.print(text, style=style)
            return
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"what it prints cannot be written: {error.strerror or error}") from error

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), indent: int = 0
    ) -> None:
        """Print a table.

        Args:
            columns: the headings.
            rows: a text for each column.
            right: the columns that are aligned to the right.
            indent: how many spaces precede each line.
        """
        heading, *lines = aligned((columns, *rows), [column in right for column in columns])
        self.line(" " * indent + heading, "bold")
        for text in lines:
            self.line(" " * indent + text)

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show, while the context lasts, that something is under way; on a terminal with rich only.

        Gives what puts another text in the place of the first.
        """
        if self._rich is None:
            yield lambda text: None
        else:
            with self._rich.status(text) as status:
                yield status.update


def rich_console(stream: TextIO | None) -> Console | None:
    """Give rich's console for a stream, which prints texts as they are; None when rich is not installed."""
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import

    return Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=True)


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Put the cells of each row under those of the row before.

    Args:
        rows: a text for each column.
        right: for each column, whether it is aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def cell(text: str, width: int, is_right: bool) -> str:
        return text.rjust(width) if is_right else text.ljust(width)

    return ["  ".join(map(cell, row, widths, right)).rstrip() for row in rows]
