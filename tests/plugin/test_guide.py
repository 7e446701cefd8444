"""The guide's worked examples: what it shows is what the programs print, and its machines are those of the programs."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHORT, GUIDE = (ROOT / "docs" / "guide" / "testing.md").read_text("utf-8").split("## A machine with a bug")
EXAMPLE = ROOT / "examples" / "waiting_list.py"
HALL = re.compile(r"^```py\n# test_hall.py\n(.*?)^```$.*?^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_guide_shows_what_the_example_prints() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=50)
    shown = "".join(re.findall(r"^```text\n((?:Theatre|command|Third).*?)^```$", GUIDE, re.DOTALL | re.MULTILINE))
    assert shown == done.stdout


def test_the_guide_shows_the_lines_of_the_example() -> None:
    program = EXAMPLE.read_text("utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    assert blocks
    methods = [textwrap.indent(method, "    ") for block in blocks for method in block.rstrip().split("\n\n\n")]
    assert [method for method in methods if method not in program] == []


def test_the_hall_of_the_guide_fails_as_shown_and_its_script_again(pytester: pytest.Pytester) -> None:
    ((program, shown),) = HALL.findall(SHORT)
    pytester.makepyfile(test_hall=program)
    printed = pytester.runpytest_subprocess("--quorate-shrink", "20").stdout.str()
    for line in re.sub(r"[\d.]+ s of a core", "", shown).splitlines():
        for part in line.split("…"):
            assert part.strip() in printed
    (script,) = re.findall(r"replay it: pytest (.*)", printed)
    assert pytester.runpytest_subprocess(*script.split()).ret == pytest.ExitCode.TESTS_FAILED
    pytester.makepyfile(test_hall=program.replace("> 2", "> 99"))
    assert pytester.runpytest_subprocess(*script.split()).ret == pytest.ExitCode.OK
