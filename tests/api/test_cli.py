"""The commands as a person runs them: each test starts real processes and reads what they print."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import quorate as quorate_package
from quorate import Node, Settings
from quorate.cli import main
from quorate.cli.opening import load_machine, settings_from
from quorate.cli.output import CommandError, Output
from quorate.cli.start import check_runs
from quorate.cli.status import COLUMNS, NUMBERS, Found, Group, grouped, json_text, show, summary
from quorate.machines import KV
from quorate.types import Address, Index, MemberStatus, PeerId, Role, Status, Term

SECONDS = 30  # far more than any command takes
SOURCES = str(Path(quorate_package.__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": SOURCES}  # wherever the command is run, it is this quorate


def quorate(*arguments: str, typed: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quorate", *arguments]
    return subprocess.run(
        command, input=typed, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=cwd, env=ENVIRONMENT
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# quorate alone


def test_quorate_alone_explains_itself_with_examples() -> None:
    done = quorate()
    assert done.returncode == 0
    for words in ("demo", "start", "shell", "status", "examples:", "await peer.set_configuration("):
        assert words in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("command", [("status", "127.0.0.1:1"), ("form", "peer1@127.0.0.1:1", "--timeout", "1")])
def test_what_cannot_be_printed_is_told_in_a_sentence(command: tuple[str, ...]) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "quorate", *command],
            env=buffered,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    why = "what it prints cannot be written: No space left on device"
    assert (ended.returncode, ended.stderr) == (1, f"quorate {command[0]}: {why}\n")


def test_nobody_need_read_what_is_printed() -> None:
    command = 'exec "$0" -m quorate status 127.0.0.1:1 >&-'
    ended = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_version_is_that_of_the_package() -> None:
    done = quorate("--version")
    try:
        version = importlib.metadata.version("quorate")
    except importlib.metadata.PackageNotFoundError:
        version = "(run from its sources, not installed)"
    assert done.returncode == 0
    assert done.stdout.startswith(f"quorate {version}, Python {sys.version_info[0]}.")


@pytest.mark.parametrize("module", ["rich", "uvloop", "rocksdict", "readline", "quorate.cli.demo", "quorate.machines"])
def test_the_command_line_loads_only_what_it_needs(module: str) -> None:
    program = f"import sys, quorate.cli; quorate.cli.make_parser(); sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "nowhere"], "'nowhere' is not a node's address; write it as host:port"),
        (["status", "a b@127.0.0.1:1"], "is not a peer's address; write it as name@host:port"),
        (["start", "quorate.machines:KV", "--peer", "127.0.0.1:7001"], "write it as name@host:port"),
        (["start", "quorate.machines:KV", "--peer", "a@0.0.0.0:7001"], "others cannot reach a@0.0.0.0:7001"),
        (["start", "quorate.machines:KV", "--peer", "a@127.0.0.1:1", "--bind", "here"], "write it as host:port"),
        (["start", "quorate.machines:KV"], "--peer"),
        (
            ["start", "quorate.machines:KV", "--setting", "snapshot_entries"],
            "'snapshot_entries' sets nothing; write it as",
        ),
        (["start", "quorate.machines:KV", "--setting", "moon=1"], "there is no moon; there are heartbeat_interval, "),
        (["frobnicate"], "frobnicate"),
        (["start", "quorate.machines:KV", "--local", "kv.sock"], "it begins with a slash"),
        (["status", "unix:kv.sock"], "it begins with a slash"),
    ],
)
def test_arguments_that_cannot_be_read_are_explained(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


# what start and shell cannot open

MACHINES = """
from quorate import StateMachine

class Counter(StateMachine):
    pass

class Plain:
    pass
"""


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        ("quorate.machines", "names no class; write it as MODULE:CLASS"),
        ("mine.py:Counter", "there is no module mine.py"),
        ("nowhere:KV", "there is no module nowhere, neither in "),
        ("mine:Missing", "mine:Missing does not exist; the state machines in mine are: Counter"),
        ("mine:Plain", "mine:Plain is no subclass of quorate.StateMachine; the state machines in mine are: Counter"),
        ("mine:StateMachine", "mine:StateMachine is no subclass"),
        ("needs:KV", "importing needs failed\nTraceback (most recent call last):\n"),
        ("broken:KV", "TypeError: KV.set: key needs an annotation"),
    ],
)
def test_a_machine_that_cannot_be_loaded_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, sentence: str
) -> None:
    (tmp_path / "mine.py").write_text(MACHINES)
    (tmp_path / "needs.py").write_text("import something_that_is_not_there\n")
    (tmp_path / "broken.py").write_text(
        "from quorate import StateMachine, write\n"
        "class KV(StateMachine):\n"
        "    @write\n"
        "    def set(self, key) -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "needs", "broken"):
        sys.modules.pop(name, None)  # of the test before
    with pytest.raises(CommandError) as error:
        load_machine(machine)
    assert sentence in str(error.value)
    assert "importlib" not in str(error.value)


STATES = """
from quorate import StateMachine

class Bare(StateMachine):
    def __init__(self) -> None:
        self.entries = {}

class Asking(StateMachine):
    def __init__(self, size: int) -> None: ...

class Buggy(StateMachine):
    def __init__(self) -> None:
        len(5)

class Reading(StateMachine):
    def __init__(self) -> None:
        open("/nowhere/settings.toml")

class Parsing(StateMachine):
    def __init__(self) -> None:
        int("five")

class Raising(StateMachine):
    def __init__(self) -> None:
        raise RuntimeError("not now")
"""


@pytest.mark.parametrize(
    ("machine", "sentence", "tracebacks"),
    [
        ("Bare", "quorate start: Bare.entries would be lost: it is not annotated at class level.", 0),
        ("Asking", "quorate start: Asking.__init__ needs the argument size", 0),
        ("Buggy", "    len(5)\n", 1),
        ("Reading", "No such file or directory: '/nowhere/settings.toml'\n", 1),
        ("Parsing", '    int("five")\n', 1),
        ("Raising", "RuntimeError: not now\n", 1),
    ],
)
def test_a_machine_that_cannot_be_started_is_explained_and_a_bug_of_its_own_is_shown_where_it_is(
    tmp_path: Path, machine: str, sentence: str, tracebacks: int
) -> None:
    (tmp_path / "states.py").write_text(STATES)
    done = quorate("start", f"states:{machine}", "--peer", "a@127.0.0.1:0", "--store", "memory", cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("Traceback") == tracebacks


def test_a_machine_is_found_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MACHINES)
    done = quorate(
        "shell", "mine:Counter", "--peer", "a@127.0.0.1:0", "--store", "memory", typed="Counter\n", cwd=tmp_path
    )
    assert done.returncode == 0
    assert "<class 'mine.Counter'>" in done.stdout


def test_a_current_directory_that_was_removed_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["start", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--data-dir", "data"]) == 1
    assert "the current directory was removed; go to one that is there" in capsys.readouterr().err
    assert main(["recover", "data", "--to", "new", "--node", "127.0.0.1:7001"]) == 1
    assert "making new failed: [Errno 2] No such file or directory" in capsys.readouterr().err


def test_a_durable_store_needs_a_directory() -> None:
    done = quorate("start", "quorate.machines:KV", "--peer", "a@127.0.0.1:0")
    assert done.returncode == 1
    assert "--data-dir is needed" in done.stderr


def test_a_kind_without_a_group_to_join_is_refused() -> None:
    done = quorate("start", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory", "--kind", "witness")
    assert done.returncode == 1
    assert "--kind witness is what a peer joins a group as: name a member of that with --join" in done.stderr


def test_knobs_are_numbers_within_their_bounds() -> None:
    chosen = settings_from(argparse.Namespace(setting=[("snapshot_entries", "10"), ("heartbeat_interval", "0.1")]))
    assert chosen == Settings(snapshot_entries=10, heartbeat_interval=0.1)
    for value, sentence in (
        ("many", "Expected `int`"),
        ("0", "snapshot_entries and snapshot_bytes must be at least 1"),
    ):
        with pytest.raises(CommandError, match=sentence):
            settings_from(argparse.Namespace(setting=[("snapshot_entries", value)]))


@pytest.mark.parametrize(
    ("knob", "value", "kind"),
    [
        ("snapshot_entries", 1e6, "a whole number"),
        ("apply_entries_max", True, "a whole number"),
        ("trailing_entries", None, "a whole number"),
        ("heartbeat_interval", "0.05", "a number"),
        ("call_timeout", True, "a number"),
    ],
)
def test_a_knob_in_a_program_is_a_number_of_its_kind(knob: str, value: object, kind: str) -> None:
    """One that is not would stop every peer of a group, when it comes to be used."""
    with pytest.raises(TypeError, match=re.escape(f"{knob} must be {kind}, not {value!r}")):
        Settings(**{knob: value})  # type: ignore[arg-type]
    assert Settings(call_timeout=5).call_timeout == 5


def test_a_port_in_use_is_explained() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = quorate("start", "quorate.machines:KV", "--peer", f"a@127.0.0.1:{port}", "--store", "memory")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in done.stderr


def test_a_directory_that_is_not_a_nodes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    done = quorate("shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "is not empty, and not the data directory of a node" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_data_directory_and_data_is_not_left_alone(tmp_path: Path) -> None:
    node, directory = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0"], tmp_path / "data"
    (tmp_path / "file").write_text("mine")
    done = quorate(*node, "--data-dir", str(tmp_path / "file"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "file is a file, and no data directory; give this node a directory, which need not exist" in done.stderr
    assert quorate(*node, "--store", "memory", "--data-dir", str(directory)).returncode == 0  # there is nothing
    assert quorate(*node, "--data-dir", str(directory)).returncode == 0
    done = quorate(*node, "--store", "memory", "--data-dir", str(directory))
    assert done.returncode == 1
    assert 'data holds the data of a node, and the store "memory" would begin without it' in done.stderr


@pytest.mark.parametrize("typed", ["1 / 0", "await peer.leader(timeout=0.01)", "1 +* 2", "if True:\n    nobody\n\n"])
def test_what_is_piped_into_the_shell_and_raises_ends_it_with_status_1(typed: str) -> None:
    node = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    done = quorate(*node, typed=f"{typed}\nprint('it goes', 'on')\n")
    assert "it goes on" in done.stdout
    assert done.returncode == 1
    assert quorate(*node, typed="print(peer)\n").returncode == 0


def test_the_shell_says_what_was_never_awaited() -> None:
    node = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    done = quorate(*node, typed="peer.leader()\n1\n")
    assert "RuntimeWarning: coroutine 'Peer.leader' was never awaited" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_block_at_the_end_of_what_is_piped_into_the_shell_runs(end: str) -> None:
    node = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    done = quorate(*node, typed=f"for i in range(3):\n    print('number', await asyncio.sleep(0, i)){end}")
    assert [f"number {i}" in done.stdout for i in range(4)] == [True, True, True, False]
    assert done.returncode == 0
    assert quorate(*node, typed=f"for i in range(3):\n    1 / 0{end}").returncode == 1


@pytest.mark.parametrize("typed", ['print("ran"', "if True:", '"""', "x = [\n"])
def test_what_is_piped_into_the_shell_and_ends_within_a_statement_ends_it_with_status_1(typed: str) -> None:
    node = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    done = quorate(*node, typed=typed)
    assert done.returncode == 1
    assert "quorate shell: the input ended within a statement, which did not run" in done.stderr


@pytest.mark.parametrize(
    ("code", "status", "text"), [("None", 0, ""), ("4", 4, ""), ("'it went wrong'", 1, "it went wrong\n")]
)
def test_what_leaves_the_shell_gives_its_status(code: str, status: int, text: str) -> None:
    node = ["shell", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    done = quorate(*node, typed=f"raise SystemExit({code})\n")
    assert (done.returncode, done.stderr) == (status, text)


@pytest.mark.parametrize("has_moved", [False, True])
def test_a_directory_of_another_peer_is_refused(tmp_path: Path, has_moved: bool) -> None:
    """Or that peer would stay away, and one that belongs to nobody would be ready in its place."""
    node, port = ["quorate.machines:KV", "--data-dir", str(tmp_path / "data")], free_port()
    assert quorate("shell", *node, "--peer", f"a@127.0.0.1:{port}").returncode == 0
    done = quorate("shell", *node, "--peer", f"b@127.0.0.1:{free_port() if has_moved else port}")
    assert done.returncode == 1
    assert "data holds the peer a, and none named b; start it under the name that it has" in done.stderr
    assert quorate("shell", *node, "--peer", f"a@127.0.0.1:{port}").returncode == 0


def test_tls_needs_all_three_files_and_sound_ones(tmp_path: Path) -> None:
    node = ["start", "quorate.machines:KV", "--peer", "a@127.0.0.1:0", "--store", "memory"]
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    done = quorate(*node, "--tls-cert", str(junk))
    assert (done.returncode, "TLS needs all three" in done.stderr) == (1, True)
    done = quorate(*node, "--tls-cert", str(junk), "--tls-key", str(junk), "--tls-ca", str(tmp_path / "missing.pem"))
    assert (done.returncode, "missing.pem cannot be read" in done.stderr) == (1, True)
    done = quorate(*node, "--tls-cert", str(junk), "--tls-key", str(junk), "--tls-ca", str(junk))
    assert (done.returncode, "the certificates cannot be used" in done.stderr) == (1, True)


# status


def status_of(
    name: str, *, group: str = "g", role: Role = "follower", term: int = 2, leader: str | None = None
) -> Status:
    members = (Address("a", "h", 1), Address("b", "h", 2), Address("c", "h", 3)) if group else ()
    return Status(
        name=name,
        id=PeerId(f"id-{name}"),
        group=group,
        role=role,
        term=Term(term),
        leader=next((member for member in members if member.name == leader), None),
        configuration=members,
        commit_index=Index(7),
        last_applied=Index(6),
        last_index=Index(8),
        why=None if leader else "it waits",
        members=tuple(
            MemberStatus(address=member, id=PeerId(f"id-{member.name}"), kind="voter", becomes="voter")
            for member in members
        ),
    )


def found(status: Status) -> Found:
    return Found(Address(status.name, "h", "abc".index(status.name) + 1), status)


def test_members_that_did_not_answer_stand_in_the_table_of_their_group_with_the_reason() -> None:
    answered = [found(status_of("b", leader="a")), found(status_of("a", role="leader", leader="a"))]
    silent = {
        Address("c", "h", 3): "h:3 is silent",
        Address("", "h", 3): "h:3 is silent",
        Address("", "h", 9): "h:9 is silent",
    }
    groups, left = grouped(answered, silent)
    assert list(left) == [Address("", "h", 9)]
    stream = io.StringIO()
    show(Output(stream), groups, left)
    assert stream.getvalue().splitlines() == [
        "NAME  KIND   ROLE         TERM  LEADER  COMMIT  APPLIED  LAST  ADDRESS",
        "a     voter  leader          2  a            7        6     8  h:1",
        "b     voter  follower        2  a            7        6     8  h:2",
        "c     voter  not reached     -  -            -        -     -  h:3",
        "c was not reached: h:3 is silent",
        "a leads this group in term 2; 2 of its 3 members answered.",
        "",
        "Not reached: h:9 is silent",
    ]


def test_a_change_under_way_is_shown_with_how_far_each_has_come() -> None:
    leader = msgspec.structs.replace(
        status_of("a", role="leader", leader="a"),
        members=(
            MemberStatus(address=Address("a", "h", 1), id=PeerId("id-a"), kind="voter", becomes=None),
            MemberStatus(
                address=Address("b", "h", 2), id=PeerId("2"), kind="learner", becomes="voter", match_index=Index(5)
            ),
            MemberStatus(
                address=Address("c", "h", 3), id=PeerId("3"), kind="learner", becomes="voter", is_installing=True
            ),
        ),
    )
    silent = {Address("b", "h", 2): "h:2 is silent", Address("c", "h", 3): "h:3 is silent"}
    groups, _ = grouped([found(leader)], silent)
    assert list(groups[0].unreachable) == list(silent), "learners are members too"
    stream = io.StringIO()
    show(Output(stream), groups, {})
    assert stream.getvalue().splitlines()[-4:-1] == [
        "a is about to leave.",
        "b is a learner, and becomes a voter: it holds 5 of 8 entries.",
        "c is a learner, and becomes a voter, and receives a snapshot.",
    ]
    (fields,) = json.loads(json_text(groups, {}))["groups"][0]["peers"]
    assert [(member["address"], member["becomes"]) for member in fields["members"]][:2] == [
        ("a@h:1", None),
        ("b@h:2", "voter"),
    ]


def test_a_peer_that_was_replaced_under_its_name_is_not_taken_for_the_member() -> None:
    leader = found(status_of("a", role="leader", leader="a"))
    status = msgspec.structs.replace(status_of("c", term=3), id=PeerId("id-old"), why="it was removed")
    old = Found(Address("c", "elsewhere", 3), status)
    stream = io.StringIO()
    groups, _ = grouped([leader, found(status_of("b", leader="a")), old], {})
    show(Output(stream), groups, {})
    assert stream.getvalue().splitlines() == [
        "NAME  KIND   ROLE         TERM  LEADER  COMMIT  APPLIED  LAST  ADDRESS",
        "a     voter  leader          2  a            7        6     8  h:1",
        "b     voter  follower        2  a            7        6     8  h:2",
        "c     -      follower        3  -            7        6     8  elsewhere:3",
        "c     voter  not reached     -  -            -        -     -  h:3",
        "c was not reached: another peer answers as c@h:3",
        "c at elsewhere:3 is no member: it was removed",
        "a leads this group in term 2; 2 of its 3 members answered.",
        "",
    ]


def test_of_two_leaders_the_one_of_the_higher_term_counts() -> None:
    old, new = status_of("a", role="leader", term=2, leader="a"), status_of("b", role="leader", term=3, leader="b")
    assert Group("g", [found(old), found(new)], {}).leader == new
    assert Group("g", [found(new), found(old)], {}).leader == new


def test_a_leader_of_an_earlier_term_is_none() -> None:
    old, new = status_of("a", role="leader", term=2, leader="a"), status_of("b", role="candidate", term=3)
    group = Group("g", [found(old), found(new)], {})
    assert group.leader is None
    assert summary(group) == "This group has no leader: b says that it waits; 2 of its 3 members answered."


def test_a_leader_that_did_not_answer_is_none() -> None:
    group = Group("g", [found(status_of("b", leader="a"))], {Address("a", "h", 1): "h:1 is silent"})
    assert group.leader is None
    assert summary(group) == "b follows a in term 2, which did not answer; 1 of its 3 members answered."


def test_peers_without_a_group_are_not_one_group() -> None:
    groups, _ = grouped([found(status_of("a", group="")), found(status_of("b", group=""))], {})
    assert [summary(group) for group in groups] == [
        "a belongs to no group: it waits.",
        "b belongs to no group: it waits.",
    ]
    assert [entry["group"] for entry in json.loads(json_text(groups, {}))["groups"]] == [None, None]


def test_a_colourful_terminal_gets_the_same_words() -> None:
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    output = Output(stream)
    output.table(COLUMNS, [("[bold]a", "voter", "leader", "2", "a", "7", "6", "8", "h:1")], right=NUMBERS)
    with output.working("wait"):
        output.line("a leads :smile:", "green")
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "[bold]a  voter  leader     2  a            7        6     8  h:1" in words
    assert "a leads :smile:" in words


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
