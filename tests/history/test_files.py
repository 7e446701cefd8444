"""Histories as files: what is written is read again, what is not of the form is refused, and the command judges."""

import argparse
import json
from pathlib import Path
from random import Random

import pytest

from quorate import Rejected
from quorate.machines import KV, Stack
from quorate.testing.history import files as history_files
from quorate.testing.history.files import read_history, write_history
from quorate.testing.history.operations import Fate, Operation
from tests.history.drawn import draw_history, perturb

GOOD = {
    "client": 1,
    "op": "put",
    "key": "k",
    "value": "a",
    "old": None,
    "ok": True,
    "output": "a",
    "call": 5,
    "return": 9,
}


def called(
    method: object, *args: object, output: object = None, fate: Fate = "ok", returned: int | None = 9
) -> Operation:
    return Operation(client=1, method=method, args=args, called=5, returned=returned, fate=fate, output=output)


def judge(path: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    history_files.add_arguments(parser)
    return history_files.run(parser.parse_args([str(path), *arguments]))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for seed in range(50):
        operations = draw_history(Random(seed), 30)
        write_history(path, operations)
        read = read_history(path)
        in_order = sorted(operations, key=lambda operation: operation.called)
        assert [str(operation) for operation in read] == [str(operation) for operation in in_order]
        assert [(o.called, o.returned, o.fate) for o in read] == [(o.called, o.returned, o.fate) for o in in_order]


def test_each_call_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    operations = [
        called(KV.set, "k", "a", output="a"),
        called(KV.append, "k", "b", output="ab"),
        called(KV.get, "k", output="ab"),
        called(KV.get, "k", output=Rejected("key_not_found", "k")),
        called(KV.compare_and_set, "k", None, "c", output=False),
        called(KV.delete, "k", output=True),
        called(KV.set, "k", "d", fate="failed"),
        called(KV.compare_and_set, "k", "d", "e", fate="unknown", returned=None),
    ]
    write_history(path, operations)
    names = ("client", "op", "key", "value", "old", "ok", "output", "call", "return")
    assert [tuple(json.loads(line).values()) for line in path.read_text().splitlines()] == [
        (1, "put", "k", "a", None, True, "a", 5, 9),
        (1, "append", "k", "b", None, True, "ab", 5, 9),
        (1, "get", "k", None, None, True, "ab", 5, 9),
        (1, "get", "k", None, None, True, None, 5, 9),
        (1, "cas", "k", "c", None, True, False, 5, 9),
        (1, "delete", "k", None, None, True, True, 5, 9),
        (1, "put", "k", "d", None, False, None, 5, 9),
        (1, "cas", "k", "e", "d", None, None, 5, None),
    ]
    assert all(tuple(json.loads(line)) == names for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"op": "increment"}, "Invalid enum value 'increment'"),
        ({"client": "1"}, "Expected `int`, got `str`"),
        ({"client": -1}, "client is -1"),
        ({"call": 5.5}, "Expected `int`, got `float`"),
        ({"value": None}, "value is None in a put"),
        ({"old": "a"}, "old is 'a' in a put"),
        ({"return": 4}, "return is 4, before call, which is 5"),
        ({"return": None}, "return is None and ok is True"),
        ({"ok": None}, "return is 9 and ok is None"),
        ({"ok": False}, "output is 'a', though ok is not true"),
        ({"output": True}, "output is True, which a put never answers"),
        ({"op": "get", "value": None, "output": 7}, "got `int` - at `$.output`"),
        ({"op": "get"}, "value is 'a' in a get"),
        ({"op": "delete", "value": None}, "output is 'a', which a delete never answers"),
        ({"more": 1}, "unknown field `more`"),
    ],
)
def test_a_line_of_another_form_is_refused(change: dict[str, object], what: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(ValueError, match=r"history\.jsonl:2: ") as refused:
        read_history(path)
    assert what in str(refused.value)


@pytest.mark.parametrize("line", ["", "null", "{}", "{", '{"client": 1}', "\xff"])
def test_a_line_that_is_no_call_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"history\.jsonl:1: "):
        read_history(path)


@pytest.mark.parametrize(
    "operation",
    [
        called(Stack.put, 1, output=1),
        called("set", "k", "a"),
        called(KV.set, "k", output="a"),
        called(KV.set, "k", 7, output="a"),
        called(KV.set, "k", "a", output=None),
        called(KV.set, "k", "a", output=Rejected("key_not_found", "k")),
        called(KV.get, "k", output=Rejected("too_late")),
    ],
)
def test_what_is_no_call_of_the_machine_is_not_written(operation: Operation, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with pytest.raises(ValueError):
        write_history(path, [operation])
    assert not path.exists()


def test_the_command_judges_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, [called(KV.set, "k", "a", output="a"), called(KV.set, "k", "b", fate="failed")])
    assert judge(path) == 0
    assert capsys.readouterr().out == "linearizable: 1 of 2 calls judged in 1 steps\n"
    write_history(path, [called(KV.set, "k", "a", output="b")])
    assert judge(path) == 1
    assert "not linearizable, 'k'" in capsys.readouterr().out
    write_history(path, perturb(Random(1), draw_history(Random(1), 300)))
    assert judge(path, "--seconds", "0") == 2
    assert "longer than allowed" in capsys.readouterr().out
    path.write_text("nonsense\n")
    assert judge(path) == 2
    assert "history.jsonl:1: " in capsys.readouterr().out
    assert judge(tmp_path / "missing") == 2
