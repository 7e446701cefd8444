"""mypy and pyright accept the programs of ``typing/right.py``, and find each error of ``typing/wrong.py``."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "typing"
SOURCE = Path(__file__).parents[2] / "src"
NAMES = ("sample.py", "right.py", "wrong.py")


def expected() -> set[tuple[str, int]]:
    """Give file and line of each error: those that end with a comment."""
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()
    return {("wrong.py", number) for number, line in enumerate(lines, 1) if re.search(r"\)  # \w", line)}


def check(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker over the programs."""
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=PROGRAMS,
        env={**os.environ, "MYPYPATH": os.pathsep.join((str(SOURCE), str(PROGRAMS)))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_something_to_find():
    assert len(expected()) == 33


def test_mypy_finds_each_wrong_use_and_no_other(tmp_path):
    options = (
        "--config-file=",
        "--strict",
        "--explicit-package-bases",
        f"--cache-dir={tmp_path}",
        "--python-version=3.11",
        "--output=json",
    )
    result = check("mypy", *options, *NAMES)
    assert result.returncode == 1, result.stdout + result.stderr
    errors = [error for line in result.stdout.splitlines() if (error := json.loads(line))["severity"] == "error"]
    assert {(error["file"], error["line"]) for error in errors if error["file"] in NAMES} == expected(), result.stdout


def test_pyright_finds_each_wrong_use_and_no_other():
    result = check("pyright", "--project", str(PROGRAMS), "--pythonpath", sys.executable, "--outputjson")
    if not result.stdout.startswith("{"):
        pytest.skip(f"pyright cannot start here (it needs Node.js, or the network to fetch it): {result.stderr[-200:]}")
    found = json.loads(result.stdout)["generalDiagnostics"]
    lines = {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in found}
    assert lines == expected(), result.stdout
