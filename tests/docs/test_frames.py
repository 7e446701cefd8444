"""The web services and the script of examples/ as their users run them: real workers, attached to one node by its
local socket, killed and replaced, while nothing acknowledged is lost; and the guide shows what is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quorate.blocking import Node
from quorate.machines import KV

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
SECONDS = 40.0  # until what hangs is given up; none comes near
SHOWN = {"fastapi": "web_fastapi", "django": "web_django", "scripts": "script"}
SERVERS = {
    "web_fastapi": "uvicorn web_fastapi:app --workers 2 --port 0 --no-access-log",
    "web_django": "gunicorn web_django:application --workers 2 --threads 4 --preload --bind 127.0.0.1:0"
    " --no-control-socket",
}


@pytest.fixture
def socket_path() -> Iterator[str]:
    """Give a path for a local socket, short enough for one."""
    with tempfile.TemporaryDirectory(prefix="quorate-") as directory:
        yield f"{directory}/quorate.sock"


@contextlib.contextmanager
def node_at(path: str, data_dir: Path) -> Iterator[Node]:
    """Run the node of the machine: a group of one that keeps what it is told."""
    with Node("127.0.0.1:0", data_dir=data_dir, local=path) as node:
        peer = node.start_peer(KV, name="peer1")
        if not peer.status().group:
            peer.set_configuration(peer.address)
        peer.leader()
        yield node


class Service:
    """A web server with its workers, in processes of their own."""

    def __init__(self, name: str, path: str, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", *SERVERS[name].split()]
        self.process = subprocess.Popen(
            command, cwd=EXAMPLES, env=environment | {"QUORATE": f"unix:{path}"}, stderr=subprocess.PIPE, text=True
        )
        self.place = self.read(r"http://127\.0\.0\.1:\d+")

    def read(self, pattern: str) -> str:
        """Read what the server says until a pattern stands in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(pattern, line)
            if found:
                return found[0]
        raise AssertionError(f"the server has ended with {self.process.wait()}")

    def workers(self) -> set[int]:
        """Give the process ids of the workers, as the system lists them."""
        listed = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
        return {
            int(pid)
            for pid, parent, *arguments in rows
            if int(parent) == self.process.pid and not re.search("resource_tracker|defunct", "".join(arguments))
        }

    def wait_for_workers(self) -> set[int]:
        """Wait until there are as many workers as there should be, and give them."""
        deadline = time.monotonic() + SECONDS
        while len(found := self.workers()) < 2:
            assert time.monotonic() < deadline, "the server starts no worker"
            time.sleep(0.05)
        return found

    def ask(self, method: str, key: str, value: str = "") -> tuple[int, object]:
        """Send a request on a connection of its own, once more where a worker that was killed has dropped it."""
        query = f"?value={value}" if value else ""
        request = urllib.request.Request(f"{self.place}/{key}{query}", method=method)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)["detail"]
            except OSError:  # the connection was reset, or closed without an answer
                assert time.monotonic() < deadline
                time.sleep(0.01)


@contextlib.contextmanager
def served(name: str, path: str, environment: dict[str, str]) -> Iterator[Service]:
    """Run a service, and end it as its users do; by force if it does not."""
    service = Service(name, path, environment)
    try:
        yield service
        service.process.send_signal(signal.SIGTERM)
        service.process.communicate(timeout=SECONDS)
    finally:
        service.process.kill()
        service.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_workers_go_on_when_one_of_them_or_the_node_is_lost(
    name: str, socket_path: str, tmp_path: Path, checkout: dict[str, str]
) -> None:
    with contextlib.ExitStack() as stack:
        with node_at(socket_path, tmp_path / "data"):
            service = stack.enter_context(served(name, socket_path, checkout))
            assert service.ask("GET", "nothing") == (404, "key_not_found: 'nothing'")

            def put(number: int) -> tuple[int, object]:
                return service.ask("PUT", f"key{number}", f"value{number}")

            def show(number: int) -> tuple[int, object]:
                return service.ask("GET", f"key{number}")

            with ThreadPoolExecutor(8) as threads:
                killed = min(service.wait_for_workers())
                answers = [threads.submit(put, number) for number in range(40)]
                os.kill(killed, signal.SIGKILL)
                answers += [threads.submit(put, number) for number in range(40, 80)]
                assert [answer.result() for answer in answers] == [(200, f"value{number}") for number in range(80)]
                assert list(threads.map(show, range(80))) == [(200, f"value{number}") for number in range(80)]
            assert killed not in service.wait_for_workers()
        status, detail = service.ask("PUT", "key0", "lost")
        assert status == 503
        assert "no node has its local socket at this path" in str(detail)
        with node_at(socket_path, tmp_path / "data"):
            assert show(0) == (200, "value0")
            assert service.ask("PUT", "key0", "again") == (200, "again")


def test_the_script_ends_with_a_status_that_says_what_happened(
    socket_path: str, tmp_path: Path, checkout: dict[str, str]
) -> None:
    def script(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, EXAMPLES / "script.py", *arguments]
        done = subprocess.run(
            command, env=checkout, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=tmp_path
        )
        return done.returncode, done.stdout, done.stderr

    address = f"unix:{socket_path}"
    with node_at(socket_path, tmp_path / "data"):
        assert script(address, "set", "foo", "bar") == (0, "bar\n", "")
        assert script(address, "get", "foo") == (0, "bar\n", "")
        assert script(address, "get", "baz") == (1, "", "key_not_found: 'baz'\n")
        status, printed, said = script(address, "turn")
        assert (status, printed) == (os.EX_USAGE, "")
        assert "python script.py" in said


@pytest.mark.parametrize("page", SHOWN)
def test_what_the_guide_shows_is_the_example(page: str) -> None:
    text = (ROOT / "docs" / "guide" / f"{page}.md").read_text("utf-8")
    shown = re.findall(r"^```py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    source = (EXAMPLES / f"{SHOWN[page]}.py").read_text("utf-8")
    assert shown
    assert [block for block in shown if block not in source] == []
