"""``quorate start``, ``shell``, ``status`` and ``demo`` while they run: signals, prompts, what they leave behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

import quorate as quorate_package
from quorate import Node, OutcomeUnknown, connect
from quorate.cli import demo
from quorate.cli.output import CommandError, Output
from quorate.cli.session import Session
from quorate.cli.start import check_runs
from quorate.cli.status import COLUMNS
from quorate.cli.walk import StepFailed, Walk
from quorate.machines import KV
from quorate.types import Address

pytestmark = pytest.mark.slow

SECONDS = 30.0  # until a test that waits for output gives up
SOURCES = str(Path(quorate_package.__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": SOURCES}  # wherever the command is run, it is this quorate


class Running:
    """A command that runs; killed at the end of the block if it still does."""

    def __init__(self, *arguments: str, cwd: Path | None = None, temporary: Path | None = None) -> None:
        environment = ENVIRONMENT | ({"TMPDIR": str(temporary)} if temporary else {})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quorate", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=cwd,
        )
        self.printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def wait_for(self, text: str) -> str:
        """Read until a text is printed; give all that was printed since the last one."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + SECONDS
        before, found, after = self.printed.partition(text)
        while not found:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            assert chunk, f"{text!r} was not printed, but {self.printed!r}"
            self.printed += chunk
            before, found, after = self.printed.partition(text)
        self.printed = after
        return before

    def type(self, line: str) -> str:
        """Type a line at the prompt; give what it prints."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.wait_for(">>> ").strip()

    def end(self) -> tuple[int, str]:
        """End its input and wait for its end; give its exit status and what it wrote to standard error."""
        out, errors = self.process.communicate(timeout=SECONDS)
        self.printed += out.decode()
        return self.process.returncode, errors.decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def node_of(name: str, data_dir: Path, machine: str = "quorate.machines:KV") -> tuple[str, list[str]]:
    """Give the address of a peer, and the arguments that start its node."""
    address = f"{name}@127.0.0.1:{free_port()}"
    return address, [machine, "--peer", address, "--data-dir", str(data_dir)]


@contextmanager
def at_prompt(*arguments: str, cwd: Path | None = None) -> Iterator[Running]:
    with Running("shell", *arguments, cwd=cwd) as shell:
        shell.wait_for(">>> ")
        yield shell


def form(address: str, arguments: list[str], cwd: Path | None = None) -> None:
    """Form a group of one."""
    with at_prompt(*arguments, cwd=cwd) as shell:
        assert shell.type(f'await peer.set_configuration("{address}")') == ""
        assert shell.end()[0] == 0


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quorate", "status", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=ENVIRONMENT)


def processes_with(text: str) -> list[str]:
    """Give the command lines of all processes that hold a text."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if text in line]


# start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_says_when_it_is_ready_and_stops_cleanly_when_signalled(tmp_path: Path, number: signal.Signals) -> None:
    address, arguments = node_of("peer1", tmp_path / "data")
    form(address, arguments)
    for _ in range(2):  # the second time on what the first has left
        with Running("start", *arguments) as node:
            node.wait_for(f"{address} is ready\n")
            node.signal(number)
            code, log = node.end()
        assert code == 0
        assert "started with" in log
        assert f"{address} has stopped" in log


def test_start_says_what_a_peer_without_a_group_waits_for() -> None:
    with Running("start", "quorate.machines:KV", "--peer", "peer1@127.0.0.1:0", "--store", "memory") as node:
        node.wait_for("peer1@127.0.0.1:")
        assert " is ready; it has no configuration yet: " in node.wait_for("\n")


def test_start_listens_where_bind_says(tmp_path: Path) -> None:
    port = free_port()
    peer = ["--peer", f"peer1@localhost:{port}", "--bind", f"127.0.0.1:{port}"]
    with Running("start", "quorate.machines:KV", *peer, "--data-dir", str(tmp_path / "data")) as node:
        node.wait_for(f"peer1@localhost:{port} is ready")
        assert "peer1" in status(f"127.0.0.1:{port}").stdout


BUSY = """
import signal, time
from quorate import StateMachine

class Busy(StateMachine):
    def __init__(self) -> None:
        print("busy", flush=True)
        while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            time.sleep(0.01)
        print("asked to stop", flush=True)
        time.sleep(600)
"""


def test_a_second_signal_ends_start_at_once_even_when_its_loop_is_busy(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    arguments = ["busy:Busy", "--peer", "peer1@127.0.0.1:0", "--store", "memory"]
    with Running("start", *arguments, cwd=tmp_path) as node:
        node.wait_for("busy")
        node.signal(signal.SIGTERM)
        node.wait_for("asked to stop")
        assert node.process.poll() is None
        node.signal(signal.SIGTERM)
        assert node.end()[0] == -signal.SIGTERM  # shells show it as 143


FAILING = """
from quorate import StateMachine, write

class KV(StateMachine):
    @write
    def set(self, key: str, value: str) -> str:
        raise OSError("the moon is full")
"""


async def test_start_ends_when_its_peer_has_stopped_of_itself(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    address, arguments = node_of("peer1", tmp_path / "data", "failing:KV")
    form(address, arguments, cwd=tmp_path)
    with Running("start", *arguments, cwd=tmp_path) as node:
        node.wait_for("is ready")
        async with connect(KV, address) as kv:
            with pytest.raises(OutcomeUnknown):
                await kv.write(KV.set, "foo", "bar")
        code, log = node.end()
    assert code == 1
    assert "quorate start: peer1 has stopped: " in log
    assert "the moon is full" in log


async def test_start_goes_on_though_too_many_wait_at_its_peer_for_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks whether its peer runs, and is refused as they are."""
    monkeypatch.setattr("quorate.errands.ERRANDS_MAX", 1)
    async with Node("127.0.0.1:0", store="memory") as node:
        peer = await node.start_peer(KV, name="peer1")
        waiting = asyncio.create_task(peer.leader())
        await asyncio.sleep(0)
        await check_runs(peer)
    with pytest.raises(CommandError, match="peer1 has stopped"):
        await check_runs(peer)
    await asyncio.gather(waiting, return_exceptions=True)


def test_a_directory_in_use_is_explained(tmp_path: Path) -> None:
    _, arguments = node_of("peer1", tmp_path / "data")
    with at_prompt(*arguments) as first:
        other = ["quorate.machines:KV", "--peer", "peer1@127.0.0.1:0", "--data-dir", str(tmp_path / "data")]
        with Running("start", *other) as second:
            code, errors = second.end()
        assert code == 1
        assert f"is in use by process {first.process.pid}; stop that node first" in errors


def test_start_runs_on_uvloop(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    _, arguments = node_of("peer1", tmp_path / "data")
    with Running("start", *arguments, "--uvloop") as node:
        node.wait_for("is ready")
        node.signal(signal.SIGTERM)
        assert node.end()[0] == 0


# shell


async def test_the_session_of_the_readme_works_at_three_prompts(tmp_path: Path) -> None:
    nodes = [node_of(f"peer{number}", tmp_path / str(number)) for number in (1, 2, 3)]
    addresses = [address for address, _ in nodes]
    with at_prompt(*nodes[0][1]) as a, at_prompt(*nodes[1][1]) as b, at_prompt(*nodes[2][1]) as c:
        shells = dict(zip(addresses, (a, b, c), strict=True))
        members = ", ".join(f'"{address}"' for address in addresses)
        assert a.type(f"await peer.set_configuration({members})") == ""
        assert a.type("leader = await peer.leader()") == ""
        leader = a.type("print(leader)")
        assert leader in addresses
        assert a.type("leader") == f"Address('{leader}')"
        assert a.type("kv = connect(KV, leader)") == ""
        assert a.type('await kv.write(KV.set, "foo", "bar")') == "'bar'"
        assert a.type('await kv.read(KV.get, "foo")') == "'bar'"
        assert a.type('await kv.read(KV.get, "baz")') == "quorate.errors.Rejected: key_not_found: 'baz'"
        assert shells[leader].type("await peer.stop()") == ""
        stopped = f"quorate.errors.Stopped: {leader.partition('@')[0]} was stopped"
        assert shells[leader].type('await peer.read(KV.get, "foo")') == stopped
        left = [address for address in addresses if address != leader]
        new = shells[left[0]].type(f'print(await peer.leader(other_than="{leader}"))')
        other = next(address for address in left if address != new)
        assert shells[other].type(f'print(await peer.leader(other_than="{leader}"))') == new
        redirect = f"quorate.errors.NotLeader: {other.partition('@')[0]} does not lead; try {new}"
        assert shells[other].type('await peer.write(KV.set, "foo", "baz")') == redirect
        assert shells[other].type('await peer.read(KV.get, "foo")') == "'bar'"
        assert shells[new].type('await peer.read(KV.get, "foo")') == "'bar'"
        raised = (addresses[0], leader, other)
        assert [shells[address].end()[0] for address in addresses] == [int(each in raised) for each in addresses]


@pytest.fixture(scope="module")
def memory_node() -> list[str]:
    return ["quorate.machines:KV", "--peer", "peer1@127.0.0.1:0", "--store", "memory"]


def test_the_shell_takes_any_python(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.type("[await asyncio.sleep(0, n) for n in range(3)]") == "[0, 1, 2]"
        assert shell.type("asyncio.get_running_loop() is not None, node.peers == (peer,)") == "(True, True)"
        assert (
            shell.type("NotLeader, Stack") == "(<class 'quorate.errors.NotLeader'>, <class 'quorate.machines.Stack'>)"
        )
        assert shell.type("def half(n):\n    return n / 0\n") == "... ..."
        traceback = shell.type("half(2)").splitlines()
        assert traceback[0] == "Traceback (most recent call last):"
        assert traceback[1] == '  File "<shell>", line 1, in <module>'
        assert traceback[-1] == "ZeroDivisionError: division by zero"
        assert shell.type("1 +") == ""
        code, errors = shell.end()
    assert code == 1  # what was typed has raised, and by no terminal
    assert "SyntaxError" in errors


def test_exit_leaves_the_shell_with_its_status(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.process.stdin is not None
        shell.process.stdin.write(b"import sys; sys.exit(3)\n")
        shell.process.stdin.flush()
        assert shell.process.wait(SECONDS) == 3


def test_ctrl_c_cancels_what_is_awaited_and_keeps_the_shell(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.process.stdin is not None
        shell.process.stdin.write(b'print("waiting"); await asyncio.sleep(600)\n')
        shell.process.stdin.flush()
        shell.wait_for("waiting")
        shell.signal(signal.SIGINT)
        assert "KeyboardInterrupt" in shell.wait_for(">>> ")
        assert shell.type("1 + 1") == "2"
        assert shell.end()[0] == 0


def test_sigterm_stops_the_shell_cleanly(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        shell.signal(signal.SIGTERM)
        assert shell.process.wait(SECONDS) == 0


# Typed code runs on the thread of the loop. A signal that this thread gets does not interrupt what the main thread
# waits for, nor does one that the main thread gets just before it begins to wait.
SIGNAL_TO_THE_OTHER_THREAD = (
    "import signal, threading; "
    "later = asyncio.get_running_loop().call_later(0.5, signal.pthread_kill, threading.get_ident(), signal.{name})"
)


def test_sigterm_to_another_thread_ends_the_prompt(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.type(SIGNAL_TO_THE_OTHER_THREAD.format(name="SIGTERM")) == ""
        assert shell.process.wait(SECONDS) == 0


def test_sigterm_to_another_thread_ends_what_is_awaited(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.process.stdin is not None
        assert shell.type(SIGNAL_TO_THE_OTHER_THREAD.format(name="SIGTERM")) == ""
        shell.process.stdin.write(b"await asyncio.sleep(600)\n")
        shell.process.stdin.flush()
        assert shell.process.wait(SECONDS) == 0


def test_ctrl_c_to_another_thread_keeps_the_shell(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        for _ in range(2):
            assert shell.type(SIGNAL_TO_THE_OTHER_THREAD.format(name="SIGINT")) == ""
            assert shell.wait_for(">>> ") == ""  # a new prompt
        assert "KeyboardInterrupt" in shell.type(
            SIGNAL_TO_THE_OTHER_THREAD.format(name="SIGINT") + "; await asyncio.sleep(600)"
        )
        assert shell.type("1 + 1") == "2"
        code, errors = shell.end()
    assert code == 0
    assert errors.count("KeyboardInterrupt") == 2


# input() forgets what a signal raises while the prompt is written into a pipe.
SIGNAL_WITHIN_THE_PROMPT = (
    "import signal, sys; sys.stdout.flush = lambda: (delattr(sys.stdout, 'flush'), signal.raise_signal(signal.{name}))"
)


def test_sigterm_while_the_prompt_is_written_stops_the_shell_cleanly(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.process.stdin is not None
        shell.process.stdin.write(SIGNAL_WITHIN_THE_PROMPT.format(name="SIGTERM").encode() + b"\n")
        shell.process.stdin.flush()
        assert shell.process.wait(SECONDS) == 0


def test_ctrl_c_while_the_prompt_is_written_keeps_the_shell(memory_node: list[str]) -> None:
    with at_prompt(*memory_node) as shell:
        assert shell.type(SIGNAL_WITHIN_THE_PROMPT.format(name="SIGINT")) == ""
        assert shell.wait_for(">>> ") == ""  # a new prompt
        assert shell.type("1 + 1") == "2"
        code, errors = shell.end()
    assert code == 0
    assert "KeyboardInterrupt" in errors


def test_the_shell_greets_a_person(memory_node: list[str]) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "quorate", "shell", *memory_node]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        os.write(ours, b"\x04")
        printed, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert b"`await` works here. There are peer, node, KV, connect" in printed


# status


def test_status_shows_the_leader_of_a_group(tmp_path: Path) -> None:
    address, arguments = node_of("peer1", tmp_path / "data")
    with at_prompt(*arguments) as shell:
        shell.type(f'await peer.set_configuration("{address}")')
        assert shell.type('await peer.leader(); await peer.write(KV.set, "foo", "bar")').endswith("'bar'")
        node = address.partition("@")[2]
        for asked in (node, address):
            done = status(asked)
            heading, row, sentence = done.stdout.splitlines()[:3]
            assert tuple(heading.split()) == COLUMNS
            assert row.split() == ["peer1", "voter", "leader", "2", "peer1", "3", "3", "3", node]
            assert sentence == "peer1 leads this group in term 2; 1 of its 1 members answered."
            assert done.returncode == 0
        content = json.loads(status(node, "--json").stdout)
        assert content["groups"][0]["leader"] == address
        assert content["groups"][0]["peers"][0]["last_applied"] == 3
        absent = status(f"peer9@{node}")
        assert absent.returncode == 1
        assert "there is no peer named peer9 on this node; it has: peer1" in absent.stdout


def test_a_local_socket_is_named_to_start_shell_and_status() -> None:
    address, arguments = f"peer1@127.0.0.1:{free_port()}", ["quorate.machines:KV", "--store", "memory"]
    with tempfile.TemporaryDirectory(prefix="quorate-") as directory:
        path = f"{directory}/local.sock"
        with at_prompt(*arguments, "--peer", address, "--local", path) as shell:
            shell.type(f'await peer.set_configuration("{address}")')
            shell.type(f'kv = connect(KV, "unix:{path}")')
            assert shell.type('await kv.write(KV.set, "foo", "bar")').endswith("'bar'")
            for asked in (f"unix:{path}", f"peer1@unix:{path}"):
                done = status(asked)
                assert done.stdout.splitlines()[1].split()[-1] == f"unix:{path}"
                assert done.returncode == 0
            content = json.loads(status(f"unix:{path}", "--json").stdout)
            assert content["groups"][0]["peers"][0]["address"] == f"peer1@unix:{path}"
            with Running("start", *arguments, "--peer", f"peer2@127.0.0.1:{free_port()}", "--local", path) as other:
                code, said = other.end()
            assert code == 1
            assert f"cannot listen at {path}: the node {address.partition('@')[2]} listens there" in said
            assert shell.end()[0] == 0
        assert os.listdir(directory) == []


def test_status_asks_the_other_members_and_says_why_nobody_leads(tmp_path: Path) -> None:
    nodes = [node_of(f"peer{number}", tmp_path / str(number)) for number in (1, 2, 3)]
    with at_prompt(*nodes[0][1]) as a, at_prompt(*nodes[1][1]) as b:
        with at_prompt(*nodes[2][1]) as c:
            alone = status(nodes[0][0])
            assert alone.returncode == 1
            assert "peer1 belongs to no group: it has no configuration yet: form a group" in alone.stdout
            members = ", ".join(f'"{address}"' for address, _ in nodes)
            a.type(f"await peer.set_configuration({members})")
            a.type("await peer.leader()")
            assert "3 of its 3 members answered." in status(nodes[0][0]).stdout
            assert c.end()[0] == 0
        assert b.end()[0] == 0
        a.type("while peer.status().leader: await asyncio.sleep(0.02)\n")
        done = status(nodes[0][0])
        assert done.returncode == 1
        assert done.stdout.count("refuses the connection: no node listens there") == 2
        assert "This group has no leader: peer1 says that " in done.stdout


def test_status_of_nobody_says_so() -> None:
    node = f"127.0.0.1:{free_port()}"
    done = status(node)
    assert done.returncode == 1
    assert f"Not reached: {node} refuses the connection: no node listens there" in done.stdout
    content = json.loads(status(node, "--json").stdout)
    assert content["groups"] == []
    assert content["unreachable"][0]["address"] == node


# demo

STEPS = (
    "three followers of nobody.",
    "each of the three knows all three.",
    "leads, and all three say so.",
    "what was written is read.",
    "Rejected, with the reason that the machine gave.",
    "writes are acknowledged so far, and it goes on.",
    "leads now, and the client's writes go on there.",
    "both name the leader, and peer",
    "the same value.",
    "leads now, and the client's writes go on there.",
    "has caught up, and sends callers to peer",
    "acknowledged writes are there",
    "entries are the same in the three logs on disk: index, term, kind, time and content.",
)


@pytest.mark.parametrize("options", [(), ("--store", "lmdb")], ids=" ".join)
def test_the_demo_shows_each_step_and_leaves_nothing_behind(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Running("demo", *options, temporary=tmp_path) as running:
        code, errors = running.end()
    seen = [line for line in running.printed.splitlines() if line.startswith("    ok: ")]
    assert [step in line for step, line in zip(STEPS, seen, strict=True)] == [True] * len(STEPS)
    assert "Each of the 13 steps was seen" in running.printed
    assert "quorate.errors.NotLeader: peer" in running.printed
    assert (code, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_the_demo_works_without_a_disk(tmp_path: Path) -> None:
    with Running("demo", "--store", "memory", "--plain", temporary=tmp_path) as running:
        code, _ = running.end()
    assert "Each of the 12 steps was seen" in running.printed
    assert code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with Running("demo", temporary=tmp_path) as running:
        running.wait_for("ok: three followers of nobody.")
        assert len(processes_with(str(tmp_path))) == 3
        running.signal(number)
        assert running.end()[0] == code
    assert f"Interrupted by {number.name}" in running.printed
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_a_demo_that_nobody_reads_any_longer_leaves_nothing_behind(tmp_path: Path) -> None:
    with Running("demo", temporary=tmp_path) as running:
        running.wait_for("ok: three followers of nobody.")
        assert running.process.stdout is not None
        assert running.process.stderr is not None
        running.process.stdout.close()
        assert running.process.wait(SECONDS) == 1
        assert running.process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []
    assert processes_with(str(tmp_path)) == []


async def test_a_step_that_is_not_seen_ends_the_demo_with_what_was_expected_seen_and_logged(tmp_path: Path) -> None:
    async def fail(walk: Walk) -> str:
        raise StepFailed("a unicorn", "a horse")

    async def never(walk: Walk) -> str:
        raise AssertionError("a step after one that failed")

    plan = demo.Plan("Two steps.", 1, (), 1, (("A unicorn appears.", fail), ("It sings.", never)))
    session = Session(Address("peer1", "127.0.0.1", 1), "memory", tmp_path)
    (tmp_path / "peer1.log").write_text("".join(f"line {number}\n" for number in range(100)))
    stream = io.StringIO()
    assert await demo.show(Output(stream), Walk(Output(stream), [session], "memory"), plan) is False
    assert "Step 1 failed: expected a unicorn; seen: a horse" in stream.getvalue()
    assert "line 99" in stream.getvalue()
    assert "line 9\n" not in stream.getvalue()
