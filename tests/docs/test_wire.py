"""docs/reference/wire.md: its tables are the types of the source, its examples what is sent, and its client works."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from quorate import Node, Peer
from quorate.core.configuration import Configuration, Member
from quorate.core.messages import Message
from quorate.events import Emitted
from quorate.machines import KV
from quorate.sessions import ANSWERS_MAX
from quorate.settings import Settings
from quorate.transport import Packet, accepting, calls, frames
from quorate.transport.calls import (
    COMMANDS_MAX,
    Failure,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    SessionIs,
    Value,
    WriteCall,
    WritesCall,
)
from quorate.transport.connection import HELLO_SECONDS
from quorate.transport.frames import FrameKind, Hello, encode_frame
from quorate.types import Address, Run, Snapshot, Status

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "wire.md").read_text("utf-8")
PLAIN = " ".join(PAGE.split())


def examples() -> list[bytes]:
    """Give the bytes of each example; what stands behind them on a line is for people."""
    blocks = re.findall(r"^```hex\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = [re.findall(r"^((?:[0-9a-f]{2} ?)+)(?: .*)?$", block, re.MULTILINE) for block in blocks]
    assert all(len(found) == len(block.splitlines()) for found, block in zip(lines, blocks, strict=True))
    return [bytes.fromhex("".join(found)) for found in lines]


def tables() -> dict[str, dict[str, list[tuple[str, str, str]]]]:
    """Give the tables of calls, answers and messages: for each tag its fields, as name, type and default."""
    found: dict[str, dict[str, list[tuple[str, str, str]]]] = {"call": {}, "answer": {}, "message": {}}
    for kind, body in re.findall(r"^\| (call|answer|message) \|.*\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        for tag, fields in re.findall(r"^\| `(\w+)` \|(.*?)\|", body, re.MULTILINE):
            assert tag not in found[kind]
            found[kind][tag] = re.findall(r"`(\w+)` (\w+\??)(?: = ([^,|]+?))?\s*(?:,|$)", fields.strip())
    return found


WORDS = {"int": int, "float": float, "bool": bool, "text": str, "bytes": bytes, "address": Address, "map": Status}


def shown(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Give a type as the page shows it."""
    fields = msgspec.structs.fields(struct)
    return [(field.encode_name, word(field.type), "" if field.required else default(field)) for field in fields]


def word(annotation: Any) -> str:
    """Give the page's word for a type."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    annotation = getattr(annotation, "__supertype__", annotation)
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if type(None) in typing.get_args(annotation):
        return f"{word(members[0])}?"
    if typing.get_origin(annotation) is typing.Literal:
        return "text"
    return next((word for word, known in WORDS.items() if known is annotation), "array")


def default(field: msgspec.structs.FieldInfo) -> str:
    """Give a default as the page shows it."""
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    words = {None: "nil", False: "false", b"": '""', (): "[]", "linearizable": '"linearizable"'}
    return words[value] if type(value) is not int else str(value)


def tagged(union: Any) -> dict[str, list[tuple[str, str, str]]]:
    return {str(struct.__struct_config__.tag): shown(struct) for struct in typing.get_args(union)}


def test_every_call_is_in_the_tables_with_its_fields():
    assert tables()["call"] == tagged(calls.Call)


def test_every_answer_is_in_the_tables_with_its_fields():
    assert tables()["answer"] == tagged(typing.get_type_hints(Reply)["answer"])


def test_every_message_is_in_the_tables_with_its_fields():
    assert tables()["message"] == tagged(Message)


@pytest.mark.parametrize("struct", [Request, Reply, Hello, Packet, Emitted, Run, Snapshot, Configuration, Member])
def test_values_without_a_tag_are_named_with_their_fields(struct):
    assert f"`[{', '.join(struct.__struct_fields__)}]`" in PLAIN


def test_every_error_is_in_the_table():
    table = PAGE.partition("## Errors")[2].partition("## Sessions")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {*calls.PLAIN_ERRORS, "NotLeader", "Rejected", "Compacted"}


def test_the_numbers_are_those_of_the_source():
    kinds = ", ".join(f"{kind.value} `{kind.name}`" for kind in FrameKind)
    for text in (
        f"version: {frames.VERSION}",
        f"kind: {kinds}",
        f"A header of {frames.HEADER_BYTES} bytes",
        f"A hello's body has {frames.HELLO_BYTES_MAX:,} bytes at most",
        f"`frame_bytes_max`, {Settings().frame_bytes_max >> 20} MiB",
        f"`command_bytes_max` ({Settings().command_bytes_max >> 20} MiB)",
        f"within {HELLO_SECONDS:.0f} s",
        f"A node takes {accepting.CONNECTIONS_MAX:,} connections",
        f"no more than {accepting.STRANGERS_MAX:,} of them before they have said hello",
        f"the answers of the last {ANSWERS_MAX:,} writes",
        f"`commands`, {COMMANDS_MAX:,} at most",
        "0 to 2^63 - 1",
    ):
        assert text in PLAIN
    assert frames.NUMBER_MAX == 2**63 - 1


def test_the_examples_are_what_is_sent():
    def call(number: int, asked: Any) -> bytes:
        return encode_frame(FrameKind.REQUESTS, [Request(number, "peer1", asked)])

    def reply(number: int, answer: Any) -> bytes:
        return encode_frame(FrameKind.REPLIES, [Reply(number, answer)])

    encode = msgspec.msgpack.encode
    command = encode(["set", "foo", "bar"])
    assert examples() == [
        encode_frame(FrameKind.HELLO, [Hello("", "calls")]),
        encode_frame(FrameKind.HELLO, [Hello("127.0.0.1:7001", "accepted")]),
        call(1, WriteCall(command, 5.0)),
        reply(1, Value(encode("bar"))),
        call(3, ReadCall(encode(["get", "baz"]), 5.0, "linearizable", True)),
        reply(3, Failure("Rejected", "key_not_found", None, encode(["baz"]))),
        call(1, OpenSessionCall(600.0, 5.0)),
        reply(1, SessionIs(7)),
        call(2, WriteCall(command, 5.0, 7, 1, 1)),
        call(3, WritesCall([command, encode(["delete", "foo"])], 5.0, 7, 2, 2)),
        reply(2, Failure("NotLeader", "peer1", Address("peer2", "127.0.0.1", 7002))),
    ]


# The client.


def load(path: Path) -> ModuleType:
    """Run the page's program; give its names."""
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


async def form(nodes: list[Node]) -> list[Peer[KV]]:
    peers = [await node.start_peer(KV, name=f"peer{place}") for place, node in enumerate(nodes, 1)]
    await peers[0].set_configuration(*(peer.address for peer in peers))
    await peers[0].leader()
    return peers


async def test_the_client_of_the_page_writes_once_reads_and_follows_the_leader(
    tmp_path: Path, free_ports: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The program knows nothing of quorate but what the page says."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.partition("## A client")[2], re.DOTALL | re.MULTILINE)
    program = free_ports("\n".join(blocks).replace('"127.0.0.1", ', '"127.0.0.1:')).replace(
        "127.0.0.1:", '127.0.0.1", '
    )
    assert "quorate" not in program
    (tmp_path / "program.py").write_text(program, "utf-8")
    ports = [int(port) for port in re.findall(r'"127.0.0.1", (\d+)', program)]
    nodes = [Node(f"127.0.0.1:{port}", store="memory") for port in ports]
    for node in nodes:
        await node.start()
    peers = await form(nodes)
    names = await asyncio.to_thread(load, tmp_path / "program.py")
    assert capsys.readouterr().out == "bar\nbar\n"
    kv = names.kv

    def ask() -> None:
        with pytest.raises(names.Refused, match=r"\('Rejected', 'key_not_found', 'baz'\)"):
            kv.read("get", "baz")
        kv.write("append", "log", "a.")
        kv.sequence -= 1  # As if the answer had been lost.
        assert kv.write("append", "log", "a.") == "a."

    await asyncio.to_thread(ask)
    leader = await peers[0].leader()
    await nodes[[peer.address for peer in peers].index(leader)].stop()
    assert await asyncio.to_thread(kv.write, "append", "log", "b.") == "a.b."
    assert await asyncio.to_thread(kv.read, "get", "log") == "a.b."
    kv.hang_up()
    for node in nodes:
        await node.stop()
