"""The public names: what ``quorate`` exports, what the reference documents and what this file expects are the same."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import quorate
import quorate.blocking
import quorate.errors

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"

EXPECTED = (
    "Address",
    "Change",
    "ChangeInProgress",
    "Client",
    "Command",
    "Compacted",
    "ConfigurationError",
    "Context",
    "Corrupted",
    "DiskFull",
    "Event",
    "InvalidConfiguration",
    "MachineError",
    "MemberStatus",
    "Node",
    "NotCommitted",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "Peer",
    "Query",
    "QuorateError",
    "Rejected",
    "SessionExpired",
    "Settings",
    "StaleRead",
    "StateMachine",
    "Status",
    "StatusWatch",
    "Stopped",
    "StoreError",
    "StoreLocked",
    "TLS",
    "Unavailable",
    "Watch",
    "connect",
    "read",
    "write",
)


def test_exported_names_are_the_expected_ones() -> None:
    assert tuple(sorted(quorate.__all__)) == EXPECTED
    assert [name for name in quorate.__all__ if not hasattr(quorate, name)] == []


def test_nothing_else_looks_public() -> None:
    modules = {module.name for module in pkgutil.iter_modules(quorate.__path__)}
    visible = {name for name in vars(quorate) if name[0] not in "_@"}  # pytest adds names that begin with @
    assert visible - modules - set(EXPECTED) - {"annotations"} == set()


def test_every_error_is_exported() -> None:
    classes = {name: thing for name, thing in vars(quorate.errors).items() if isinstance(thing, type)}
    assert {name for name, thing in classes.items() if issubclass(thing, Exception)} - set(EXPECTED) == set()


def test_every_public_name_is_documented_once_and_no_other() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in sorted(REFERENCE.glob("*.md")))
    modules = {module.name for module in pkgutil.iter_modules(quorate.__path__)}
    documented = [name for name in re.findall(r"^::: quorate\.(\w+)$", pages, re.MULTILINE) if name not in modules]
    assert tuple(sorted(documented)) == EXPECTED


EXTRAS = ("rich", "uvloop", "rocksdict", "lmdb", "pytest", "hypothesis")
WINGS = (
    "quorate.blocking",
    "quorate.cli",
    "quorate.machines",
    "quorate.testing",
    "quorate.store.rocksdb",
    "quorate.store.lmdb",
)
SLOW = ("argparse", "email", "http", "json", "multiprocessing", "sqlite3", "unittest", "xml")


def test_importing_quorate_imports_no_extra_no_wing_and_nothing_slow_that_it_does_not_need() -> None:
    program = "import sys, quorate; print(*sys.modules, sep='\\n')"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert "quorate.client" in found
    assert sorted({*EXTRAS, *WINGS, *SLOW} & set(found)) == []


NODE = """
import asyncio, sys, tempfile
from quorate import Node
from quorate.machines import KV

async def main():
    with tempfile.TemporaryDirectory() as directory:
        async with Node(sys.argv[1], data_dir=directory, store="rocksdb") as node:
            peer = await node.start_peer(KV, name="peer1")
            await peer.set_configuration(peer.address)
            await peer.write(KV.set, "key", "value")

asyncio.run(main())
print(*sys.modules, sep="\\n")
"""
LARGE = ("ctypes", "unicodedata")
"""A megabyte together. The codec of international names has the latter, and is loaded to look an address up as text."""


def test_a_node_loads_nothing_large_that_it_does_not_need() -> None:
    found = subprocess.run([sys.executable, "-c", NODE, "127.0.0.1:0"], check=True, capture_output=True, text=True)
    assert "quorate.store.rocksdb" in found.stdout.split()
    assert sorted({*LARGE} & set(found.stdout.split())) == []


# The blocking twins: the same names, arguments, types and words, without await.

TWINS = ("Client", "Node", "Peer", "StatusWatch", "Watch", "connect")
NOT_FOR_USERS = {"receive_packets", "receive_requests", "lose_node"}  # what the transport calls


def plain(text: str) -> str:
    """Write what a twin says without what it has not: modules, await, async."""
    text = re.sub(r"\bquorate\.[\w.]+\.(?=\w)", "", text)
    for word, twin in (
        ("await ", ""),
        ("async ", ""),
        ("StopAsync", "Stop"),
        ("__a", "__"),
        ("aclose", "close"),
        ("another task", "another thread"),
    ):
        text = text.replace(word, twin)
    return text


def described(function: Any) -> list[str]:
    """Give all that a user sees of a function: its signatures and what it says."""
    function = function.fget if isinstance(function, property) else function
    signatures = [str(inspect.signature(each)) for each in (*typing.get_overloads(function), function)]
    return [plain(text) for text in (*signatures, inspect.getdoc(function) or "")]


def members(kind: type) -> dict[str, Any]:
    """Give what a user calls of a class, and how it is made, if it is a user who makes it."""
    names = {"__aenter__", "__aexit__", "__aiter__", "__anext__", "__enter__", "__exit__", "__iter__", "__next__"}
    names |= {"__repr__"}
    names |= {"__init__"} if kind.__name__ == "Node" else set()
    found = {name: member for name, member in vars(kind).items() if name in names or not name.startswith("_")}
    return {plain(name): member for name, member in found.items() if name not in NOT_FOR_USERS}


def test_the_blocking_names_are_the_same() -> None:
    assert sorted(quorate.blocking.__all__) == sorted(TWINS)
    assert described(quorate.blocking.connect) == described(quorate.connect)
    for name in TWINS[:-1]:
        twin, original = members(getattr(quorate.blocking, name)), members(getattr(quorate, name))
        assert sorted(twin) == sorted(original), name


@pytest.mark.parametrize("name", [f"{kind}.{name}" for kind in TWINS[:-1] for name in members(getattr(quorate, kind))])
def test_a_blocking_method_takes_and_says_what_its_twin_does(name: str) -> None:
    kind, _, method = name.partition(".")
    twin, original = members(getattr(quorate.blocking, kind))[method], members(getattr(quorate, kind))[method]
    assert described(twin) == described(original)
    assert not inspect.iscoroutinefunction(twin)
