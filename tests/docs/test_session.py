"""The session of the README, typed into three real shells: the commands and lines are those of the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

README = Path(__file__).parent.parent.parent / "README.md"
PROMPT = b">>> "

pytestmark = pytest.mark.slow


class Shell:
    """One ``quorate shell``, and its prompt."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.read()

    def read(self) -> str:
        """Read up to the next prompt."""
        assert self.process.stdout is not None
        seen = b""
        while not seen.endswith(PROMPT):
            byte = self.process.stdout.read(1)
            assert byte, f"the shell ended after {seen!r}"
            seen += byte
        return seen.removesuffix(PROMPT).decode()

    def type(self, line: str) -> str:
        """Type a line; give what it prints."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.read()


@contextmanager
def shell(command: str, directory: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """Run a shell in a process of its own, and end it as Ctrl-D does."""
    words = [sys.executable, "-m", *shlex.split(command)]
    process = subprocess.Popen(
        words, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            yield Shell(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) in (0, 1)  # 1 where the page shows what raises
        finally:
            process.kill()


def session(block: str) -> list[tuple[str, str]]:
    """Give each line that is typed, with what the page shows after it."""
    return re.findall(r"^>>> (.*)\n((?:(?!>>> ).*\n)*)", block, re.MULTILINE)


def shown(output: str) -> str:
    """Give the pattern of what the page shows: any peer may be the one that leads."""
    return re.sub(r"peer\\*\d(@127\\\.0\\\.0\\\.1:\d+)?", r"peer\\d(@127\\.0\\.0\\.1:\\d+)?", re.escape(output))


def test_the_session_of_the_readme(tmp_path: Path, free_ports: Callable[[str], str], checkout: dict[str, str]) -> None:
    text = free_ports(README.read_text("utf-8"))
    (program,) = re.findall(r"^```python\n(# kv.py\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "kv.py").write_text(program, "utf-8")
    commands = re.findall(r"^[abc]\$ (.*)$", text, re.MULTILINE)
    first, second = re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    with ExitStack() as stack:
        shells = [stack.enter_context(shell(command, tmp_path, checkout)) for command in commands]
        assert len(shells) == 3
        for line, output in session(first):
            assert re.fullmatch(shown(output), shells[0].type(line)), line

        leader = int(shells[0].type("print(leader.name)").removeprefix("peer")) - 1
        assert shells[leader].type("await peer.stop()") == ""
        left = [number for number in range(3) if number != leader]
        addresses = [
            shells[number].type(f"await peer.leader(other_than={leader_text(text, leader)!r})") for number in left
        ]
        assert addresses[0] == addresses[1]
        follower = next(number for number in left if f"peer{number + 1}@" not in addresses[0])
        ((line, output),) = session(second)
        said = shells[follower].type(line)
        assert re.fullmatch(shown(output), said)
        assert said.startswith(f"quorate.errors.NotLeader: peer{follower + 1} does not lead; try peer")


def leader_text(text: str, number: int) -> str:
    """Give the address of a peer, by its place."""
    found = re.search(rf"--peer (peer{number + 1}@\S+)", text)
    assert found
    return found[1]
