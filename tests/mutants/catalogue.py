"""The catalogue of faults: what each says, and the small exact replacements that plant it in a copy of the source.

Knows files and texts; does not know what may catch a fault.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

CHAPTERS = ("elections", "log", "reads", "membership", "snapshots", "sessions", "events", "calls", "disk", "network")
"""The files of the catalogue, ``CHAPTER.toml``, in the order in which they are run and shown."""

Origin = Literal["field", "history", "review"]
"""Where a fault comes from: others made it; we made it, and mended it; or a careful reader might let it pass."""


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One replacement.

    Attributes:
        file: the file, below ``src/quorate``.
        old: what stands there, once.
        new: what is put in its place.
    """

    file: str
    old: str
    new: str


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault.

    Attributes:
        says: what goes wrong, in a line.
        origin: where it comes from.
        tier: 1, 2 or 3: how soon a search must find it (``engines.SECONDS``).
        edits: what plants it; empty only with ``needs``.
        pitfall: the number of the mistake in ``docs/reference/suites.md`` that it re-creates; 0 for none.
        tests: the tests that might name it, if those of its file would be too many or too few.
        unseen: why no search can see it: what it changes does not run there. Then none is tried.
        gap: what the search lacks that should find it, as long as only a named test does.
        needs: what the library lacks before it can be planted.
    """

    says: str
    origin: Origin
    tier: Literal[1, 2, 3] = 2
    edits: tuple[Edit, ...] = ()
    pitfall: int = 0
    tests: tuple[str, ...] = ()
    unseen: str = ""
    gap: str = ""
    needs: str = ""


def read_chapter(path: Path) -> dict[str, Mutant]:
    """Read the faults of one chapter, by name."""
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, Mutant])


def read_catalogue() -> dict[str, dict[str, Mutant]]:
    """Read all faults, by chapter and name."""
    return {chapter: read_chapter(HERE / f"{chapter}.toml") for chapter in CHAPTERS}


def planted(catalogue: Mapping[str, Mapping[str, Mutant]]) -> Iterator[tuple[str, str, Mutant]]:
    """Give chapter, name and fault of all that can be planted today."""
    for chapter, mutants in catalogue.items():
        for name, mutant in mutants.items():
            if not mutant.needs:
                yield chapter, name, mutant


def mutated(mutant: Mutant, source: Path) -> dict[str, str]:
    """Give the files that a fault changes, by their path below ``src/quorate``, as they are with it.

    Args:
        mutant: the fault.
        source: where ``src/quorate`` is.

    Raises:
        ValueError: it cannot be planted: the catalogue is out of date.
    """
    files: dict[str, str] = {}
    for edit in mutant.edits:
        text = files.get(edit.file) or (source / edit.file).read_text("utf-8")
        found = text.count(edit.old)
        if found != 1:
            raise ValueError(f"{edit.file} holds {found} times, and not once:\n{edit.old}")
        files[edit.file] = text.replace(edit.old, edit.new)
    return files


def faults(mutant: Mutant, source: Path) -> list[str]:
    """Say what is wrong with an entry of the catalogue."""
    if mutant.needs:
        return ["it needs what is not there yet, and has edits all the same"] if mutant.edits else []
    if not mutant.edits:
        return ["it changes nothing"]
    try:
        files = mutated(mutant, source)
    except (OSError, ValueError) as error:
        return [str(error)]
    found = []
    for file, text in files.items():
        try:
            means = meaning(text)
        except SyntaxError as error:
            found.append(f"{file} does not compile any more: {error}")
        else:
            if means == meaning((source / file).read_text("utf-8")):
                found.append(f"{file} means what it meant")
    return found


@functools.cache
def meaning(text: str) -> str:
    """Give what a program says, however it is laid out.

    Raises:
        SyntaxError: it is none.
    """
    tree = ast.parse(text)
    compile(tree, "", "exec")
    return said(tree)


class _Unexplained(ast.NodeTransformer):
    """Leaves out docstrings and other texts that stand for themselves."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Leave out what is only a text."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def said(node: object) -> str:
    """Write a piece of a program as ``ast.dump`` does, but alike on every Python: that leaves out more on some."""
    if isinstance(node, list):
        return ",".join(map(said, node))
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (f"{name}={said(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({','.join(fields)})"


@functools.cache
def functions(text: str) -> list[tuple[range, str]]:
    """Give the lines of each function of a program and what it says, and of all lines what stands outside of them."""
    tree = _Unexplained().visit(ast.parse(text))
    found = []
    outside = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop(0)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found.append((range(first, (node.end_lineno or first) + 1), said(node)))
            elif isinstance(node, ast.ClassDef):
                waiting.append(node)
            else:
                outside.append(said(node))
    return [*found, (range(1, text.count("\n") + 2), "\n".join(outside))]


def touched(text: str, old: str) -> Iterator[str]:
    """Give what the functions say in which a text stands, and what stands outside of them where it does, too."""
    first = text[: text.find(old)].count("\n") + 1 + len(old) - len(old.lstrip("\n"))
    lines = set(range(first, first + old.strip("\n").count("\n") + 1))
    for where, says in functions(text):
        if lines & set(where):
            yield says
            lines -= set(where)


def digest(mutant: Mutant, source: Path) -> str:
    """Give what a result is kept under: it changes with the fault, and with what the functions say that it changes."""
    seen = hashlib.sha256(msgspec.json.encode(mutant.edits))
    files: dict[str, str] = {}
    for edit in mutant.edits:
        text = files.get(edit.file) or (source / edit.file).read_text("utf-8")
        seen.update("\n".join(touched(text, edit.old)).encode())
        files[edit.file] = text.replace(edit.old, edit.new)
    return seen.hexdigest()[:16]
