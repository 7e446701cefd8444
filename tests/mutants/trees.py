"""Copies of source and tests in which faults are planted: the working tree is never touched.

Knows files; does not know what is run in them.
"""

from __future__ import annotations

import compileall
import contextlib
import py_compile
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .catalogue import Mutant, mutated

COPIED = ("src", "tests", "pyproject.toml", "README.md")
PACKAGE = Path("src") / "quorate"


def copy(root: Path, to: Path) -> None:
    """Copy what is run, compiled ahead: every process that is started in a copy would else compile it anew."""
    without = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=without)
        else:
            shutil.copy(root / name, to / name)
    # By their content: a file that is changed in the same second, and keeps its length, must count as another.
    compileall.compile_dir(to / "src", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


@contextlib.contextmanager
def tree_with(mutant: Mutant | None, original: Path) -> Iterator[Path]:
    """Give a copy of an original with a fault planted in it, or with none, for as long as the ``with`` lasts.

    Raises:
        ValueError: the fault cannot be planted.
    """
    with tempfile.TemporaryDirectory(prefix="quorate-mutant-", ignore_cleanup_errors=True) as directory:
        tree = Path(directory).resolve() / "tree"
        shutil.copytree(original, tree)
        if mutant is not None:
            for file, text in mutated(mutant, tree / PACKAGE).items():
                (tree / PACKAGE / file).write_text(text, "utf-8")
        yield tree
