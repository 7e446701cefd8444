"""Histories of the machine ``KV`` as files that any checker can judge: JSON lines, one object for each call.

Each object has exactly these members:

========== =========================================================================================================
``client`` who called, a whole number from 0 on; one client may have several calls under way
``op``     ``"put"``, ``"get"``, ``"append"``, ``"cas"`` (compare and set) or ``"delete"``
``key``    the key
``value``  what is put, appended, or stored by a cas; null for a get and a delete
``old``    what a cas expects there, null for "the key is unknown"; null for all others
``ok``     true: it took effect between ``call`` and ``return``, and ``output`` is the answer. false: it certainly did
           not take effect, and never will. null: unknown; it may take effect at any time after ``call``, or never
``output`` put: the value, as it was put. append: the whole value behind it. get: the value, null if the key is unknown.
           cas: true if it stored its value, false if it found another one than ``old``. delete: true if the key was
           known, false if not. Null unless ``ok`` is true
``call``   when it began, whole nanoseconds on one clock for all clients, which never goes back
``return`` when it ended, on the same clock, not before ``call``; null exactly if ``ok`` is null
========== =========================================================================================================

An append to an unknown key begins with the empty value. All keys are unknown at the beginning. Two calls of which one
returns at the instant when the other begins are concurrent. The lines may be in any order.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from quorate.errors import Rejected
from quorate.machines import KV
from quorate.testing.history.kv import check_kv
from quorate.testing.history.operations import Operation

METHODS: dict[str, Any] = {
    "put": KV.set,
    "get": KV.get,
    "append": KV.append,
    "cas": KV.compare_and_set,
    "delete": KV.delete,
}
NAMES: dict[Any, str] = {method: name for name, method in METHODS.items()}
ANSWERS: dict[str, type | tuple[type, ...]] = {
    "put": str,
    "get": (str, type(None)),
    "append": str,
    "cas": bool,
    "delete": bool,
}
"""What each answers."""

Name = Literal["put", "get", "append", "cas", "delete"]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"returned": "return"}):
    """One line of a file; see above."""

    client: int
    op: Name
    key: str
    value: str | None
    old: str | None
    ok: bool | None
    output: str | bool | None
    call: int
    returned: int | None


def write_history(path: str | Path, operations: Iterable[Operation]) -> None:
    """Write a history of ``KV``, in the order in which the calls began.

    Raises:
        ValueError: an operation is no call of ``KV``, or was not answered as ``KV`` answers; the file is as it was.
        OSError: the file cannot be written.
    """
    ordered = sorted(operations, key=lambda operation: operation.called)
    encoded = [msgspec.json.encode(row_of(operation)) + b"\n" for operation in ordered]
    Path(path).write_bytes(b"".join(encoded))


def read_history(path: str | Path) -> list[Operation]:
    """Read a history of ``KV``.

    Raises:
        ValueError: the file is not of this form; the message names the line, and says what is wrong.
        OSError: the file cannot be read.
    """
    decoder = msgspec.json.Decoder(Row)
    operations: list[Operation] = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = decoder.decode(line)
                check_row(row)
            except (msgspec.MsgspecError, ValueError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            operations.append(operation_of(row))
    return operations


def row_of(operation: Operation) -> Row:
    """Give the line of a call.

    Raises:
        ValueError: it is no call of ``KV``, or was not answered as ``KV`` answers.
    """
    name = NAMES.get(operation.method) if isinstance(operation.method, type(KV.set) | type(KV.get)) else None
    if name is None:
        raise ValueError(f"{operation.call} is no call of KV")
    output = operation.output
    if isinstance(output, Rejected) and output.reason == "key_not_found":
        output = None
    value, old = None, None
    match name, operation.args:
        case "put" | "append", (key, value):
            pass
        case "cas", (key, old, value):
            pass
        case "get" | "delete", (key,):
            pass
        case _:
            raise ValueError(f"{operation.call} has not the arguments of a {name}")
    members = {
        "client": operation.client,
        "op": name,
        "key": key,
        "value": value,
        "old": old,
        "ok": {"ok": True, "failed": False, "unknown": None}[operation.fate],
        "output": output,
        "call": operation.called,
        "return": operation.returned,
    }
    try:
        row = msgspec.convert(members, Row)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{operation}: {error}") from error
    check_row(row)
    return row


def operation_of(row: Row) -> Operation:
    """Give the call of a line that was checked."""
    output: object = row.output
    if row.op == "get" and row.ok and output is None:
        output = Rejected("key_not_found", row.key)
    return Operation(
        client=row.client,
        method=METHODS[row.op],
        args={"put": (row.key, row.value), "append": (row.key, row.value), "cas": (row.key, row.old, row.value)}.get(
            row.op, (row.key,)
        ),
        called=row.call,
        returned=row.returned,
        fate="ok" if row.ok else "unknown" if row.ok is None else "failed",
        output=output,
    )


def check_row(row: Row) -> None:
    """Check what the types of a line leave open.

    Raises:
        ValueError: something does not fit; the message says what.
    """
    if row.client < 0:
        raise ValueError(f"client is {row.client}; it is a whole number from 0 on")
    if (row.value is None) != (row.op in ("get", "delete")):
        raise ValueError(f"value is {row.value!r} in a {row.op}; put, append and cas have one, and no others")
    if row.old is not None and row.op != "cas":
        raise ValueError(f"old is {row.old!r} in a {row.op}; only a cas has one")
    if (row.returned is None) != (row.ok is None):
        raise ValueError(f"return is {row.returned} and ok is {row.ok}; both are null, or none")
    if row.returned is not None and row.returned < row.call:
        raise ValueError(f"return is {row.returned}, before call, which is {row.call}")
    if row.ok and not isinstance(row.output, ANSWERS[row.op]):
        raise ValueError(f"output is {row.output!r}, which a {row.op} never answers")
    if not row.ok and row.output is not None:
        raise ValueError(f"output is {row.output!r}, though ok is not true")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``check-history`` takes."""
    parser.add_argument("file", help="a history of the machine KV, in JSON lines")
    parser.add_argument("--seconds", type=float, help="give up after so many (no bound)")


def run(chosen: argparse.Namespace) -> int:
    """Judge a file and print the verdict; give the exit status: 0 linearizable, 1 not, 2 unreadable or undecided."""
    try:
        operations = read_history(chosen.file)
    except (OSError, ValueError) as error:
        print(error)
        return 2
    verdict = check_kv(operations, seconds_max=chosen.seconds)
    if verdict.is_linearizable:
        print(f"linearizable: {verdict.operations} of {len(operations)} calls judged in {verdict.steps} steps")
        return 0
    print(verdict.text)
    return 2 if verdict.is_linearizable is None else 1
