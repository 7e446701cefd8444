"""The guide's worked example: what it shows is what the program prints, and its machines are those of the program."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "guide" / "testing.md").read_text("utf-8")
EXAMPLE = ROOT / "examples" / "waiting_list.py"


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
