"""What is fuzzed: every place where bytes from a network or a disk are read. One function for each.

A target takes any bytes. It raises what it found: an error that is not documented, a broken invariant, a difference
between two readings. Where a checksum guards what is read, the first byte says whether it is made right first:
otherwise nothing behind the checksum would ever be reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from quorate.calling import describe
from quorate.core import Raft
from quorate.core.invariants import check, check_step, facts
from quorate.errors import Corrupted, QuorateError, StoreLocked
from quorate.machines import KV
from quorate.settings import Settings
from quorate.store.directory import DataDirectory
from quorate.store.mark import Mark, read_mark
from quorate.store.records import (
    check_log,
    compaction_key,
    decode_compaction,
    decode_hard_state,
    decode_run,
    entry_key,
    hard_state_key,
)
from quorate.store.snapshots import MAGIC, RECORD_BYTES_MAX, check_received, read_snapshot
from quorate.testing.contents import Contents
from quorate.transport.calls import (
    Failure,
    ReadCall,
    Reply,
    Request,
    SnapshotCall,
    WriteCall,
    error_from_failure,
    singly,
)
from quorate.transport.connection import Connection, Events
from quorate.transport.frames import (
    HEADER_BYTES,
    HELLO_BYTES_MAX,
    FrameDecoder,
    FrameError,
    FrameKind,
    Hello,
    decode_frame,
    encode_frame,
)
from quorate.types import HardState, Index, PeerId, Run, Term

from . import seeds

BYTES_MAX = 1 << 16
"""The longest body of a frame that is taken."""


class Target(NamedTuple):
    """One place where bytes are read.

    Attributes:
        run: takes any bytes; raises what it found.
        seeds: gives what to begin with.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


class Fields:
    """Takes an input apart, from its front; beyond its end there are zeros."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def number(self, size: int = 1) -> int:
        self.at += size
        return int.from_bytes(self.content[self.at - size : self.at], "big")

    def piece(self) -> bytes:
        """Give a piece whose length, 2 bytes, stands before it."""
        length = self.number(2)
        self.at += length
        return self.content[self.at - length : self.at]

    @property
    def rest(self) -> bytes:
        return self.content[self.at :]


def pieces(*parts: bytes) -> bytes:
    """Write pieces as ``Fields.piece`` reads them."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


# Frames.


def sealed(kind: int, body: bytes) -> bytes:
    """Make a frame of a body whose checksum is right, by what docs/protocol.md says."""
    fields = b"qr" + bytes((1, kind)) + len(body).to_bytes(4, "big")
    return fields + zlib.crc32(body, zlib.crc32(fields)).to_bytes(4, "big") + body


HELLO = encode_frame(FrameKind.HELLO, [seeds.HELLOS[0]])


def stream(content: bytes) -> tuple[bytes, int]:
    """Make the bytes of a connection, and where they are split in two."""
    fields = Fields(content)
    mode, split = fields.number(), fields.number(2)
    if mode & 1:
        made = HELLO if mode & 2 else b""
        while fields.rest:
            made += sealed(fields.number() % 5, fields.piece())
    else:
        made = (HELLO if mode & 2 else b"") + fields.rest
    return made, split % (len(made) + 1)


def read_stream(parts: list[bytes]) -> list[object] | None:
    """Read what arrives in these parts; None when it is refused."""
    decoder, frames = FrameDecoder(BYTES_MAX), list[object]()
    try:
        for part in parts:
            frames += decoder.feed(part)
            assert decoder.buffered <= HEADER_BYTES + BYTES_MAX + len(part), "no more is held than a frame asks for"
    except FrameError:
        return None
    return frames


def fuzz_frames(content: bytes) -> None:
    """Frames: the same however the bytes are split, sound values or ``FrameError``, and nothing else."""
    made, split = stream(content)
    whole = read_stream([made])
    assert repr(whole) == repr(read_stream([made[:split], made[split:]])), "a split changes what is read"
    if len(made) >= HEADER_BYTES and int.from_bytes(made[4:8], "big") > HELLO_BYTES_MAX:
        assert whole is None, "too long a first frame is refused as soon as its header is there"
    for kind, values in whole or []:
        frame = encode_frame(kind, values)
        assert repr(decode_frame(frame, 4 * BYTES_MAX)) == repr((kind, values)), "what was read can be written"


def frames_seeds() -> list[bytes]:
    all_values = {2: seeds.PACKETS, 3: seeds.REQUESTS, 4: seeds.REPLIES}
    bodies = [(kind, seeds.encoded(values)) for kind, values in all_values.items()]
    bodies += [(kind, seeds.encoded([value])) for kind, values in all_values.items() for value in values]
    # A value with one field more, as of a later version, that nests deep.
    longer = [(kind, seeds.encoded(values[0])) for kind, values in all_values.items()]
    bodies += [(kind, b"\x91" + bytes((first + 1, *rest)) + seeds.DEEP) for kind, (first, *rest) in longer]
    made = [b"\3\0\x20" + bytes((kind,)) + pieces(body) for kind, body in bodies]
    raw = [b"\0\0\x20" + encode_frame(FrameKind.HELLO, [hello]) for hello in seeds.HELLOS]
    return [*made, *raw, b"\2\0\x40" + sealed(2, seeds.encoded(seeds.PACKETS[:3]))]


# Connections.


class Wire(asyncio.Transport):
    """The other end of a connection, which says nothing and takes everything."""

    def __init__(self):
        super().__init__()
        self.closing = False

    def is_closing(self):
        return self.closing

    def write(self, content):
        assert not self.closing, "nothing is written to a connection that is closed"

    def close(self):
        self.closing = True

    abort = close

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        pass

    def get_write_buffer_size(self):
        return 0


LOOP: list[asyncio.AbstractEventLoop] = []


def fuzz_connection(content: bytes) -> None:
    """A connection: it greets once, passes nothing on before that or after its end, and ends with ``FrameError``."""
    if not LOOP:
        LOOP.append(asyncio.new_event_loop())
    LOOP[0].run_until_complete(connect(*stream(content)))


async def connect(made: bytes, split: int) -> None:
    """Give a connection these bytes in two parts."""
    heard: list[str] = []
    events = Events(
        opened=lambda connection: True,
        greeted=lambda connection, hello: heard.append("hello"),
        received=lambda connection, frame: heard.append("frame"),
        drained=lambda connection: None,
        unfinished=lambda connection, size, is_new: None,
        lost=lambda connection: heard.append("lost"),
    )
    connection = Connection(events, Hello("127.0.0.1:7002", "accepted"), "", BYTES_MAX)
    connection.connection_made(Wire())
    for part in (made[:split], made[split:]):
        was_open, before = connection.open, len(heard)
        connection.data_received(part)
        assert was_open or len(heard) == before, "what comes after the end is not heard"
    assert connection.open == (connection.error is None), "who is not understood is cut off, and no other"
    assert connection.error is None or type(connection.error) is FrameError, repr(connection.error)
    assert heard[:1] in ([], ["hello"]), "a connection begins with a hello"
    assert heard.count("hello") <= 1, "there is one hello"
    connection.connection_lost(None)
    assert heard.count("lost") == 1, "its owner is told of the end once"


# The core.


def make_raft(which: int) -> Raft:
    """Make a peer in one of several states: of three, or a stranger to all; behind, campaigning, leading, compacted."""
    contents = Contents(list(seeds.LOG) if which % 6 != 5 else [])
    hard_state = HardState(Term(3 if contents.entries else 0), None)
    raft = Raft(PeerId("1"), Settings(trailing_entries=0), contents.stored(hard_state), lambda: 0.5, 0.0)
    step(raft, lambda: None)
    if which % 6 in (1, 2, 3):
        step(raft, lambda: raft.tick(10.0))
    if which % 6 in (2, 3):
        votes = [message for message in seeds.MESSAGES if type(message).__name__.endswith("VoteReply")]
        for vote in (votes[1], votes[0]):
            step(raft, partial(raft.receive, seeds.LEADER, vote, 10.0))
    if which % 6 == 3:
        step(raft, lambda: raft.propose([b"a", b"b"], 10.0))
    if which % 6 == 4:
        step(raft, lambda: raft.receive(seeds.LEADER, seeds.append(4, 3, commit=4), 1.0))
        step(raft, lambda: raft.compacted(raft.snapshot_at(Index(3), 0.0)))
    return raft


def step(raft: Raft, act: Callable[[], object]) -> None:
    """Give an input, check the invariants, and obey with a disk that never waits."""
    before = facts(raft.state)
    act()
    check(raft.state)
    check_step(before, facts(raft.state))
    while True:
        ready = raft.ready()
        for envelope in (*ready.messages, *ready.messages_after_persist):
            msgspec.msgpack.encode(envelope.message)
        check(raft.state)
        if not ready.writes:
            return
        raft.persisted(ready.number)


def fuzz_core(content: bytes) -> None:
    """The core: packets that a frame may carry, from members and strangers, raise nothing and break no invariant.

    Nor does a frame that is refused change anything: it never gets there.
    """
    fields = Fields(content)
    raft, now = make_raft(fields.number()), 10.0
    while fields.rest:
        now += fields.number() / 100
        body = fields.piece()
        try:
            _, packets = decode_frame(sealed(FrameKind.PACKETS, body), BYTES_MAX)
        except FrameError:
            continue
        for packet in packets:
            step(raft, partial(raft.receive, packet.sender, packet.message, now))
        step(raft, partial(raft.tick, now))
        raft.status()
        raft.deadline()


def core_seeds() -> list[bytes]:
    bodies = [seeds.encoded([packet]) for packet in seeds.PACKETS]
    singles = [bytes((which, 1)) + pieces(body) for body in bodies for which in range(6)]
    long = [bytes((which,)) + b"".join(b"\1" + pieces(body) for body in bodies) for which in range(6)]
    stranger = msgspec.structs.replace(seeds.PACKETS[6], sender=PeerId("9"))
    return [*singles, *long, b"\1\1" + pieces(seeds.encoded([stranger]))]


# What disks hold.


def fuzz_records(content: bytes) -> None:
    """A stored log: whatever its records hold, it is read whole, or ``Corrupted``; and a core starts from it."""
    fields = Fields(content)
    mode = fields.number()
    runs, hard_state, compaction = [], HardState(), None
    try:
        while fields.rest:
            kind, first, body = fields.number() % 4, fields.number(), fields.piece()
            key = [entry_key("log", Index(first)), hard_state_key("log"), compaction_key("log")][max(0, kind - 1)]
            record = zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "big") + body if mode & 1 else body
            if kind <= 1:
                runs.append(decode_run("log", key, record))
            elif kind == 2:
                hard_state = decode_hard_state("log", record)
            else:
                compaction = decode_compaction("log", record)
        held: list[Run] = []
        stored = check_log("log", runs, hard_state, compaction, held.append)
        raft = Raft(PeerId("1"), Settings(), stored, lambda: 0.5, 0.0)
    except Corrupted:
        return
    assert raft.state.log.last == stored.last
    start = compaction.start if compaction else 0
    assert sum(len(run.payloads) for run in held) == stored.last - start, "a log that is read has no hole"


def records_seeds() -> list[bytes]:
    kinds = {b"E": 1, b"H": 2, b"C": 3}

    def image(*records: tuple[bytes, object]) -> bytes:
        return b"\1" + b"".join(
            bytes((kinds[kind], getattr(value, "first", 0))) + pieces(seeds.encoded(value)) for kind, value in records
        )

    return [image(record) for record in seeds.RECORDS] + [
        image(*seeds.RECORDS[:7]),
        image(seeds.RECORDS[7], *seeds.RECORDS[2:7]),
        b"\0" + image(*seeds.RECORDS[:3])[1:],
        b"\1\2\0" + pieces(b"\x93\x03\xc0" + seeds.DEEP),
    ]


class Bounded(io.BytesIO):
    """A file that notes the most that was asked of it at once."""

    asked = 0

    def read(self, size=-1, /):
        self.asked = max(self.asked, size)
        return super().read(size)


def fuzz_snapshots(content: bytes) -> None:
    """A snapshot's file: verified whole, or refused by ``ValueError``; what a record may hold is asked for at most."""
    made = content[1:]
    if content[:1] and content[0] & 1:
        made, checksum, fields = MAGIC, zlib.crc32(MAGIC), Fields(content[1:])
        while fields.rest:
            kind, body = bytes((fields.number(),)), fields.piece()
            head = kind + len(body).to_bytes(4, "big")
            checksum = zlib.crc32(body, zlib.crc32(head, checksum))
            made += head + body + checksum.to_bytes(4, "big")
    file = Bounded(made)
    with contextlib.suppress(ValueError):
        chunks = list(read_snapshot(file, seeds.SNAPSHOT))
        assert sum(map(len, chunks)) <= len(made)
        check_received(io.BytesIO(made), seeds.SNAPSHOT, len(made))
        assert seeds.snapshot_file(*chunks) == made or any(not chunk for chunk in chunks) or b"+" in made
    assert file.asked <= RECORD_BYTES_MAX, "a length is checked before it is believed"


def snapshots_seeds() -> list[bytes]:
    header = seeds.encoded(seeds.SNAPSHOT)
    records = [(b"H", header), (b"+", b"first "), (b".", b"half"), (b".", b"second"), (b"E", (2).to_bytes(8, "big"))]
    resealed = b"\1" + b"".join(kind + pieces(body) for kind, body in records)
    return [b"\0" + seeds.snapshot_file(b"one", b"two" * 20), b"\0" + seeds.snapshot_file(), resealed]


PLACE: list[Path] = []


def fuzz_files(content: bytes) -> None:
    """The small files of a data directory: read, or refused by an error of the store that says so."""
    if not PLACE:
        PLACE.append(
            Path(tempfile.mkdtemp(prefix="quorate-fuzz-", dir="/dev/shm" if Path("/dev/shm").exists() else None))
        )
    place, fields = PLACE[0], Fields(content)
    mode, body = fields.number(), fields.rest
    if mode % 3 == 0:
        if mode & 4:
            body = zlib.crc32(body, zlib.crc32(b"mark")).to_bytes(4, "big") + body
        (place / "mark").write_bytes(body)
        with contextlib.suppress(Corrupted):
            assert isinstance(read_mark(place), Mark | None)
        return
    home = place / "data"
    (home / "peers" / "a").mkdir(parents=True, exist_ok=True)
    (home / "store").mkdir(exist_ok=True)
    (home / "node.json").write_bytes(body if mode % 3 == 1 else seeds.NODE)
    (home / "peers" / "a" / "identity").write_bytes(body if mode % 3 == 2 else seeds.IDENTITIES[1])
    try:
        with contextlib.closing(DataDirectory.open(home, "127.0.0.1:7001")) as directory:
            identity = directory.identity("a")
            assert identity.id, "an identity is never empty"
            directory.set_group("a", "fedcba9876543210")
    except (Corrupted, StoreLocked):
        pass


def files_seeds() -> list[bytes]:
    identities = [b"\2" + content for content in seeds.IDENTITIES]
    return [b"\4" + seeds.encoded(seeds.MARK), b"\6" + seeds.encoded(seeds.MARK), b"\1" + seeds.NODE, *identities]


# Calls.

MACHINE = describe(KV)


def fuzz_calls(content: bytes) -> None:
    """Calls: read or refused as a frame, then by the machine with ``TypeError``, and what is left harms no core."""
    fields = Fields(content)
    kind = FrameKind.REPLIES if fields.number() & 1 else FrameKind.REQUESTS
    try:
        _, values = decode_frame(sealed(kind, fields.rest), BYTES_MAX)
    except FrameError:
        return
    for value in values:
        if isinstance(value, Reply) and isinstance(value.answer, Failure):
            assert isinstance(error_from_failure(value.answer), QuorateError)
    for request in (each for value in values if isinstance(value, Request) for each in singly(value)):
        match request.call:
            case WriteCall(command=command):
                with contextlib.suppress(TypeError):
                    MACHINE.writes.check(command)
            case ReadCall(query=query):
                with contextlib.suppress(TypeError):
                    MACHINE.reads.check(query)
            case SnapshotCall(message=message):
                raft = make_raft(0)
                step(raft, partial(raft.receive, message.leader_id, message, 10.0))
                step(raft, partial(raft.tick, 20.0))
            case _:
                pass


def calls_seeds() -> list[bytes]:
    return [b"\0" + seeds.encoded([request]) for request in seeds.REQUESTS] + [
        b"\1" + seeds.encoded([reply]) for reply in seeds.REPLIES
    ]


TARGETS: dict[str, Target] = {
    "frames": Target(fuzz_frames, frames_seeds),
    "connection": Target(fuzz_connection, frames_seeds),
    "core": Target(fuzz_core, core_seeds),
    "records": Target(fuzz_records, records_seeds),
    "snapshots": Target(fuzz_snapshots, snapshots_seeds),
    "files": Target(fuzz_files, files_seeds),
    "calls": Target(fuzz_calls, calls_seeds),
}


def clean_up() -> None:
    """Leave nothing behind."""
    for place in PLACE:
        shutil.rmtree(place, ignore_errors=True)
    PLACE.clear()
    for loop in LOOP:
        loop.close()
    LOOP.clear()
