"""The functions of source files, and changes of them as texts.

Knows source texts; does not know how a change is found, nor what is run.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Function:
    """A function of a source file, without its decorators.

    Attributes:
        file: where it is, below the folder that is mutated.
        name: its qualified name.
        first: the number of its first line, from 1.
        text: its lines, as they stand there.
    """

    file: str
    name: str
    first: int
    text: str


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        function: what is changed.
        text: what takes its place.
        lines: the numbers of the lines of what is changed, in the file.
    """

    function: Function
    text: str
    lines: range

    @property
    def key(self) -> str:
        """Give what names it, wherever in the file the function stands."""
        parts = (self.function.file, self.function.name, self.function.text, self.text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def edit(self) -> tuple[str, str]:
        """Give the lines that it changes, without their common indentation: as they are, and as it has them."""
        before, after = self.function.text.splitlines(), self.text.splitlines()
        spans = [
            span for span in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if span[0] != "equal"
        ]
        was, now = before[spans[0][1] : spans[-1][2]], after[spans[0][3] : spans[-1][4]]
        lines = textwrap.dedent("\n".join([*was, "\0", *now]).replace("\0", "")).splitlines()
        return "\n".join(lines[: len(was)]), "\n".join(lines[len(was) + 1 :])

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Give what it changes, and where: the same for mutants that change equal lines of a function."""
        return (self.function.file, self.function.name, *self.edit)

    def source(self, source: str) -> str:
        """Give the source of the file with the change made."""
        lines = source.splitlines(keepends=True)
        start = self.function.first - 1
        end = start + len(self.function.text.splitlines())
        return "".join([*lines[:start], self.text, *lines[end:]])


def functions(folder: Path) -> Iterator[Function]:
    """Give the functions and methods of all files in a folder; those within others belong to these."""
    for path in sorted(folder.glob("*.py")):
        source = path.read_text("utf-8")
        lines = source.splitlines(keepends=True)
        for name, node in named_functions(ast.parse(source)):
            yield Function(path.name, name, node.lineno, "".join(lines[node.lineno - 1 : node.end_lineno]))


def named_functions(scope: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Give the functions of a module or class by their qualified names."""
    for node in scope.body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from named_functions(node, f"{prefix}{node.name}.")
