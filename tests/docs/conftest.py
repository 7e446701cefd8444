"""What the tests of the documents share: a place where a program of a document runs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOCKETS = "/run/app/"  # where the documents have sockets
RUN_SECONDS = 50.0  # a program that hangs is ended; none comes near


def on_free_ports(program: str) -> str:
    """Put a free port in the place of each that the text names on loopback, the same one each time."""
    found = dict.fromkeys(re.findall(r"127\.0\.0\.1:[1-9]\d*", program))
    sockets = {address: socket.socket() for address in found}
    free: dict[str, str] = {}
    for address, bound in sockets.items():
        bound.bind(("127.0.0.1", 0))
        free[address] = f"127.0.0.1:{bound.getsockname()[1]}"
    for bound in sockets.values():
        bound.close()
    return re.sub(r"127\.0\.0\.1:[1-9]\d*", lambda address: free[address[0]], program)


@pytest.fixture
def free_ports() -> Callable[[str], str]:
    """Give ``on_free_ports``."""
    return on_free_ports


@pytest.fixture
def checkout() -> dict[str, str]:
    """Give an environment in which Python finds this checkout first."""
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def run_directory() -> Iterator[str]:
    """Give a directory for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="quorate-") as directory:
        yield f"{directory}/"


@pytest.fixture
def run(tmp_path: Path, checkout: dict[str, str], run_directory: str) -> Callable[..., str]:
    """Give a function that runs a program in a new directory, on free ports, and gives what it printed.

    What it has in ``/run/app/`` is in a directory of its own too.

    A bad exit fails the test, and so does anything on stderr. The interpreter sees this checkout
    unless another one is named: that one sees what is installed in its own environment, and nothing else.
    """

    def run_program(text: str, python: str | None = None) -> str:
        program = tmp_path / "program.py"
        program.write_text(on_free_ports(text).replace(SOCKETS, run_directory), "utf-8")
        done = subprocess.run(
            [python or sys.executable, program],
            cwd=tmp_path,
            env=checkout | {"PYTHONPATH": ""} if python else checkout,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run_program
