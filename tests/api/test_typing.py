"""mypy and pyright accept the programs of ``typing/right.py``, and find each error of ``typing/wrong.py``.

Both are written once, for ``quorate.Peer``, and checked for all that is called the same way: ``quorate.Client``, and
the blocking twins of both.
"""

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
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".venv" / "cache" / "mypy-programs"
VARIANTS = ("quorate.Peer", "quorate.Client", "quorate.blocking.Peer", "quorate.blocking.Client")


def variant(program: str, asked: str) -> str:
    """Write a program for something else that is asked."""
    module, _, kind = asked.rpartition(".")
    program = program.replace("Asked = Peer", f"Asked = {kind}")
    if module == "quorate.blocking":
        program = program.replace("from quorate import Client", "from quorate.blocking import Client")
        program = re.sub(r"\b(async|await) ", "", program)
    return program


def file_name(program: str, asked: str) -> str:
    return f"{program}_{asked.replace('.', '_').lower()}"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with all programs."""
    directory = tmp_path_factory.mktemp("typing")
    for asked in VARIANTS:
        for program in ("asked", "right", "wrong"):
            text = variant((PROGRAMS / f"{program}.py").read_text("utf-8"), asked)
            text = text.replace("from asked import", f"from {file_name('asked', asked)} import")
            (directory / f"{file_name(program, asked)}.py").write_text(text, "utf-8")
    for name in ("sample.py", "pyrightconfig.json"):
        text = (PROGRAMS / name).read_text("utf-8")
        (directory / name).write_text(text.replace("../../../src", str(ROOT / "src")), "utf-8")
    return directory


def expected() -> set[tuple[str, int]]:
    """Give file and line of each error: those that end with a comment, some of them only where one awaits."""
    found: set[tuple[str, int]] = set()
    for asked in VARIANTS:
        pattern = r"\)  # \w" if "blocking" not in asked else r"\)  # (?!async)\w"
        lines = variant((PROGRAMS / "wrong.py").read_text("utf-8"), asked).splitlines()
        name = f"{file_name('wrong', asked)}.py"
        found |= {(name, number) for number, line in enumerate(lines, 1) if re.search(pattern, line)}
    return found


def check(tool: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker over the programs."""
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=directory,
        env={**os.environ, "MYPYPATH": os.pathsep.join((str(ROOT / "src"), str(directory)))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_something_to_find():
    assert len(expected()) == 4 * 76 + 2


def test_mypy_finds_each_wrong_use_and_no_other(programs):
    options = (
        "--config-file=",
        "--strict",
        "--explicit-package-bases",
        f"--cache-dir={CACHE}",
        "--python-version=3.11",
        "--output=json",
    )
    result = check("mypy", programs, *options, ".")
    assert result.returncode == 1, result.stdout + result.stderr
    errors = [error for line in result.stdout.splitlines() if (error := json.loads(line))["severity"] == "error"]
    assert {(Path(error["file"]).name, error["line"]) for error in errors} == expected(), result.stdout


def test_pyright_finds_each_wrong_use_and_no_other(programs):
    result = check("pyright", programs, "--project", str(programs), "--pythonpath", sys.executable, "--outputjson")
    if not result.stdout.startswith("{"):
        pytest.skip(f"pyright cannot start here (it needs Node.js, or the network to fetch it): {result.stderr[-200:]}")
    found = json.loads(result.stdout)["generalDiagnostics"]
    lines = {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in found}
    assert lines == expected(), result.stdout
