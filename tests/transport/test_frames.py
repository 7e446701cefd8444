"""Frames: whatever bytes arrive, reading them gives sound values or raises ``FrameError``."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from quorate.core.configuration import Configuration, Member
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from quorate.transport import Packet
from quorate.transport.calls import (
    COMMANDS_MAX,
    BootstrapCall,
    ChangeCall,
    Failure,
    IdentifyCall,
    Identity,
    LeaderCall,
    LeaderIs,
    OpenSessionCall,
    ReadCall,
    Reply,
    Request,
    StaleValue,
    StatusCall,
    StatusIs,
    Value,
    WriteCall,
    WritesCall,
)
from quorate.transport.frames import (
    HEADER_BYTES,
    HELLO_BYTES_MAX,
    NUMBER_MAX,
    VERSION,
    FrameDecoder,
    FrameError,
    FrameKind,
    Hello,
    decode_frame,
    encode_frame,
    encode_frames,
    encode_value,
    fits,
)
from quorate.types import Address, Index, Kind, PeerId, Run, Status, Term

BYTES_MAX = 1 << 16
HELLO = encode_frame(FrameKind.HELLO, [Hello("127.0.0.1:7001", "peers")])
CONFIGURATION = Configuration("g", (Member(PeerId("i1"), Address("peer1", "::1", 7001)),))


def run(first: int, *payloads: bytes, term: int = 2, kind: Kind = Kind.COMMAND, time: float = 1.5) -> Run:
    return Run(Term(term), Index(first), kind, time, payloads)


def append(*runs: Run, previous: int = 4, previous_term: int = 1, term: int = 3) -> AppendEntries:
    return AppendEntries(Term(term), PeerId("a"), Index(previous), Term(previous_term), Index(2), 7, runs)


def packet(message: Message) -> Packet:
    return Packet("group", PeerId("a"), PeerId("b"), message)


MESSAGES: list[Message] = [
    append(),
    append(run(5, b"", kind=Kind.NOOP), run(6, b"x", b"y" * 300), run(8, b"z", term=3)),
    append(run(1, b"x"), previous=0, previous_term=0),
    AppendEntriesReply(Term(3), False, Index(0), 7, Index(4), Index(2), Term(1)),
    RequestVote(Term(3), PeerId("a"), Index(4), Term(2)),
    RequestVoteReply(Term(NUMBER_MAX), True),
    RequestPreVote(Term(3), PeerId("a"), Index(4), Term(2)),
    RequestPreVoteReply(Term(3), Term(4), False),
]
REQUESTS = [
    Request(1, "peer1", WriteCall(b"command", 0.0)),
    Request(NUMBER_MAX, "peer1", WritesCall([b"command", b"another"], 1.0, 2, NUMBER_MAX, 3)),
    Request(2, "peer1", ReadCall(b"query", 5.0)),
    Request(6, "peer1", ReadCall(b"query", 5.0, "lease", True)),
    Request(3, "peer1", LeaderCall(1.0)),
    Request(4, "", StatusCall()),
    Request(5, "peer1", IdentifyCall()),
    Request(6, "peer1", BootstrapCall(CONFIGURATION)),
    Request(7, "peer1", ChangeCall(CONFIGURATION.members, (), 5.0)),
]
STATUS = Status(
    name="peer1",
    id=PeerId("i1"),
    group="g",
    role="leader",
    term=Term(1),
    leader=None,
    configuration=(Address("peer1", "::1", 7001),),
    commit_index=Index(1),
    last_applied=Index(1),
    last_index=Index(1),
    why="because",
)
REPLIES = [
    Reply(1, Value(b"value")),
    Reply(6, StaleValue(b"value", Index(7), float("inf"))),
    Reply(2, LeaderIs(Address("peer1", "::1", 7001))),
    Reply(3, StatusIs((STATUS,))),
    Reply(4, Identity(PeerId("i1"), "KV", CONFIGURATION, Address("peer1", "::1", 7001))),
    Reply(5, Failure("NotLeader", "peer1", Address("peer2", "h", 1))),
]
PACKETS = [packet(message) for message in MESSAGES]
WHOLE = [
    encode_frame(FrameKind.PACKETS, PACKETS),
    encode_frame(FrameKind.REQUESTS, REQUESTS),
    encode_frame(FrameKind.REPLIES, REPLIES),
]


def seal(kind: int, body: bytes, *, magic: bytes = b"qr", version: int = VERSION, length: int | None = None) -> bytes:
    """Write a frame with a right checksum and anything else wrong."""
    fields = struct.pack(">2sBBI", magic, version, kind, len(body) if length is None else length)
    return fields + struct.pack(">I", zlib.crc32(body, zlib.crc32(fields))) + body


def seal_values(kind: int, values: Any) -> bytes:
    return seal(kind, msgspec.msgpack.encode(values))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (FrameKind.PACKETS, PACKETS),
        (FrameKind.REQUESTS, REQUESTS),
        (FrameKind.REPLIES, REPLIES),
        (FrameKind.PACKETS, []),
    ],
)
def test_what_is_written_is_what_is_read(kind: FrameKind, values: Sequence[Any]):
    assert decode_frame(encode_frame(kind, values), BYTES_MAX) == (kind, values)


@pytest.mark.parametrize("step", [1, 5, HEADER_BYTES, 64, 1 << 20])
def test_frames_are_read_in_whatever_pieces_they_arrive(step: int):
    stream = b"".join((HELLO, *WHOLE))
    decoder = FrameDecoder(BYTES_MAX)
    frames = [frame for start in range(0, len(stream), step) for frame in decoder.feed(stream[start : start + step])]
    assert frames == [
        (FrameKind.HELLO, [Hello("127.0.0.1:7001", "peers")]),
        (FrameKind.PACKETS, PACKETS),
        (FrameKind.REQUESTS, REQUESTS),
        (FrameKind.REPLIES, REPLIES),
    ]
    assert decoder.buffered == 0


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_joined_values_read_like_values_encoded_together(count: int):
    values = [Reply(number, Value(b"")) for number in range(count)]
    [frame] = encode_frames(FrameKind.REPLIES, [encode_value(value) for value in values], 1 << 24)
    assert decode_frame(frame, 1 << 24) == (FrameKind.REPLIES, values)


@pytest.mark.parametrize("bytes_max", [110, 111, 200, 1000, BYTES_MAX])
def test_one_long_turn_goes_as_several_frames_in_order_and_none_too_long(bytes_max: int):
    values = [Reply(number, Value(bytes(number % 90))) for number in range(200)]
    encoded = [encode_value(value) for value in values]
    assert all(fits(value, bytes_max) for value in encoded)
    frames = encode_frames(FrameKind.REPLIES, encoded, bytes_max)
    assert max(map(len, frames)) <= HEADER_BYTES + bytes_max
    read = [value for frame in frames for value in decode_frame(frame, bytes_max)[1]]
    assert read == values
    assert encode_frames(FrameKind.REPLIES, [], bytes_max) == []


def test_the_longest_value_that_fits_is_read_and_one_byte_more_does_not_fit():
    longest = b"x" * (BYTES_MAX - 5)
    assert fits(longest, BYTES_MAX)
    assert not fits(longest + b"x", BYTES_MAX)
    value = encode_value(Reply(1, Value(bytes(BYTES_MAX - 5 - 14))))
    [frame] = encode_frames(FrameKind.REPLIES, [value], len(value) + 5)
    assert decode_frame(frame, len(value) + 5)[1] == [Reply(1, Value(bytes(BYTES_MAX - 5 - 14)))]


def deep(levels: int) -> bytes:
    """A request with one more element than this release knows, which is skipped, nested."""
    return b"\x91\x94\x01\xa1p\x91\xa6status" + b"\x91" * levels + b"\xc0"


MALFORMED: list[tuple[str, bytes, str]] = [
    ("magic", seal(FrameKind.PACKETS, b"\x90", magic=b"GE"), "not of quorate"),
    ("version", seal(FrameKind.PACKETS, b"\x90", version=9), f"version 9 of the protocol, this side version {VERSION}"),
    ("kind", seal(9, b"\x90"), "unknown kind of frame: 9"),
    ("length", seal(FrameKind.PACKETS, b"", length=BYTES_MAX + 1), "too long"),
    ("checksum of the body", WHOLE[0][:-1] + b"?", "checksum"),
    ("checksum of the header", WHOLE[1][:3] + bytes([FrameKind.REPLIES]) + WHOLE[1][4:], "checksum"),
    ("no body", seal(FrameKind.PACKETS, b""), "malformed"),
    ("bad opcode", seal(FrameKind.PACKETS, b"\xc1"), "malformed"),
    ("more bytes after the values", seal(FrameKind.PACKETS, b"\x90\x90"), "malformed"),
    ("an array that claims 4 G elements", seal(FrameKind.PACKETS, b"\xdd\xff\xff\xff\xff"), "malformed"),
    ("text that is not UTF-8", seal(FrameKind.REQUESTS, b"\x91\x93\x01\xa1\xff\x91\xa6status"), "malformed"),
    ("values of another kind", seal_values(FrameKind.PACKETS, REQUESTS), "malformed"),
    ("nesting", seal(FrameKind.REQUESTS, deep(50_000)), "malformed"),
    ("unknown message", seal_values(FrameKind.PACKETS, [["g", "a", "b", ["no such", 1]]]), "malformed"),
    ("no hello", seal_values(FrameKind.HELLO, []), "0 hellos"),
    ("two hellos", seal_values(FrameKind.HELLO, [Hello("h:1", "peers")] * 2), "2 hellos"),
    ("hello of a peer without address", seal_values(FrameKind.HELLO, [Hello("", "peers")]), "node's address"),
    ("hello without port", seal_values(FrameKind.HELLO, [Hello("host", "peers")]), "node's address"),
    ("hello that would forge our log", seal_values(FrameKind.HELLO, [Hello("a\nx:1", "peers")]), "address"),
    ("hello with colours", seal_values(FrameKind.HELLO, [Hello("a\x1bc:1", "peers")]), "node's address"),
    ("purpose", seal_values(FrameKind.HELLO, [["h:1", "fun"]]), "malformed"),
    ("timeout", seal_values(FrameKind.REQUESTS, [Request(1, "p", WriteCall(b"", -1.0))]), "Expected `float`"),
    ("session", seal_values(FrameKind.REQUESTS, [Request(1, "p", WriteCall(b"", 1.0, -1))]), "Expected `int` >= 0"),
    ("sequence", seal_values(FrameKind.REQUESTS, [Request(1, "p", WriteCall(b"", 1.0, 1, -1))]), "Expected `int`"),
    ("settled", seal_values(FrameKind.REQUESTS, [Request(1, "p", WriteCall(b"", 1.0, 1, 1, -1))]), "Expected `int`"),
    ("no command", seal_values(FrameKind.REQUESTS, [Request(1, "p", WritesCall([b""], 1.0, 1, 1, 1))]), "length >= 1"),
    (
        "commands",
        seal_values(FrameKind.REQUESTS, [Request(1, "p", WritesCall([b"c"] * (COMMANDS_MAX + 1), 1.0, 1, 1, 1))]),
        "length <= 1024",
    ),
    (
        "numbers that cannot be counted on from",
        seal_values(FrameKind.REQUESTS, [Request(1, "p", WritesCall([b"c"], 1.0, 1, NUMBER_MAX + 1, 1))]),
        "Expected `int` <= ",
    ),
    ("id", seal_values(FrameKind.REQUESTS, [Request(NUMBER_MAX + 1, "p", StatusCall())]), "Expected `int` <= "),
    ("negative id", seal_values(FrameKind.REQUESTS, [Request(-1, "p", StatusCall())]), "Expected `int` >= 0"),
    ("no number", seal_values(FrameKind.REQUESTS, [["x"]]), "malformed"),
]
for timeout in (math.nan, math.inf, -math.inf):
    body = seal_values(FrameKind.REQUESTS, [Request(1, "p", LeaderCall(timeout))])
    MALFORMED.append((f"timeout {timeout}", body, "Expected `float`"))
    for call in (OpenSessionCall(60.0, timeout), ChangeCall((), (), timeout)):
        body = seal_values(FrameKind.REQUESTS, [Request(1, "p", call)])
        MALFORMED.append((f"timeout {timeout} of {type(call).__name__}", body, "Expected `float`"))
WRONG_MESSAGES: list[tuple[str, Message, str]] = [
    ("negative term", RequestVote(Term(-1), PeerId("a"), Index(0), Term(0)), "term is -1"),
    ("negative index", RequestVote(Term(1), PeerId("a"), Index(-4), Term(0)), "last_log_index is -4"),
    ("huge index", RequestVote(Term(1), PeerId("a"), Index(NUMBER_MAX + 1), Term(0)), "last_log_index is"),
    ("negative term in a reply", RequestVoteReply(Term(-1), True), "term is -1"),
    ("negative round", AppendEntries(Term(1), PeerId("a"), Index(0), Term(0), Index(0), -1), "round is -1"),
    ("a run without payloads", append(run(5)), "has no entries"),
    ("a run from 0", append(run(0, b"x")), "begins at index 0, where 5 is next"),
    ("a gap", append(run(6, b"x")), "begins at index 6, where 5 is next"),
    ("a gap between runs", append(run(5, b"x"), run(7, b"y")), "begins at index 7, where 6 is next"),
    ("an overlap", append(run(5, b"x", b"y"), run(6, b"y")), "begins at index 6, where 7 is next"),
    ("a run of term 0", append(run(5, b"x", term=0)), "a run of term 0"),
    ("a run of a later term than the leader's", append(run(5, b"x", term=4)), "a run of term 4"),
    ("terms that fall", append(run(5, b"x", term=1), previous_term=2), "a run of term 1 after term 2"),
    (
        "terms that fall between runs",
        append(run(5, b"x", term=3), run(6, b"y", term=2)),
        "a run of term 2 after term 3",
    ),
    ("no time", append(run(5, b"x", time=math.nan)), "has the time nan"),
    ("a time before 1970", append(run(5, b"x", time=-1.0)), "has the time -1"),
    ("the end of numbers", append(run(NUMBER_MAX, b"x", b"y"), previous=NUMBER_MAX - 1), "ends at index"),
]
for name, message, words in WRONG_MESSAGES:
    MALFORMED.append((name, seal_values(FrameKind.PACKETS, [packet(message)]), words))
UNKNOWN_KIND = [["g", "a", "b", ["append", 3, "a", 0, 0, 0, 0, [[1, 1, 77, 0.0, [b"x"]]]]]]
MALFORMED.append(("unknown kind of run", seal_values(FrameKind.PACKETS, UNKNOWN_KIND), "malformed"))


@pytest.mark.parametrize(("frame", "words"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_is_malformed_raises_one_error_that_says_why(frame: bytes, words: str):
    with pytest.raises(FrameError, match=words):
        decode_frame(frame, BYTES_MAX)
    decoder = FrameDecoder(BYTES_MAX)
    if frame[3] != FrameKind.HELLO:
        decoder.feed(HELLO)
    with pytest.raises(FrameError, match=words):
        decoder.feed(frame)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, len(WHOLE[0]) - 1])
def test_a_part_of_a_frame_is_no_frame(length: int):
    with pytest.raises(FrameError):
        decode_frame(WHOLE[0][:length], BYTES_MAX)


def test_a_frame_and_more_is_no_frame():
    with pytest.raises(FrameError, match="says"):
        decode_frame(WHOLE[0] + b"x", BYTES_MAX)


def test_a_body_is_refused_by_its_header_before_any_of_it_arrives():
    decoder = FrameDecoder(BYTES_MAX)
    decoder.feed(HELLO)
    with pytest.raises(FrameError, match="too long"):
        decoder.feed(seal(FrameKind.PACKETS, b"", length=0xFFFF_FFFF))


def test_a_stranger_can_make_us_hold_a_hello_and_no_more():
    with pytest.raises(FrameError, match="too long"):
        FrameDecoder(BYTES_MAX).feed(seal(FrameKind.HELLO, b"", length=HELLO_BYTES_MAX + 1))


def test_a_hello_comes_first():
    with pytest.raises(FrameError, match="before the HELLO frame"):
        FrameDecoder(BYTES_MAX).feed(encode_frame(FrameKind.PACKETS, []))


def test_a_hello_comes_once():
    with pytest.raises(FrameError, match="second HELLO"):
        FrameDecoder(BYTES_MAX).feed(HELLO + HELLO)


def test_a_newer_release_may_add_fields_at_the_end():
    body = msgspec.msgpack.encode([["group", "a", "b", ["voted", 3, True, "new"], "newer still"]])
    assert decode_frame(seal(FrameKind.PACKETS, body), BYTES_MAX)[1] == [packet(RequestVoteReply(Term(3), True))]


@pytest.mark.parametrize("seed", range(4))
def test_mutated_frames_raise_frame_errors_only_and_hold_no_more_than_a_frame(seed: int):
    dice = random.Random(seed)
    tracemalloc.start()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        frame = bytearray(dice.choice(WHOLE))
        resealed = dice.random() < 0.8
        for _ in range(dice.randint(1, 4)):
            position = dice.randrange(HEADER_BYTES if resealed else 0, len(frame))
            if dice.random() < 0.2:
                del frame[position : position + dice.randint(1, 8)]
            else:
                frame[position : position + 1] = dice.choice((b"\xdd\xff\xff\xff\xff", b"\xc1", dice.randbytes(1)))
            if len(frame) <= HEADER_BYTES:
                break
        mutated = (
            seal(frame[3], bytes(frame[HEADER_BYTES:])) if resealed and len(frame) > HEADER_BYTES else bytes(frame)
        )
        decoder = FrameDecoder(BYTES_MAX)
        decoder.feed(HELLO)
        try:
            for start in range(0, len(mutated), 100):
                decoder.feed(mutated[start : start + 100])
            outcomes["read"] += 1
        except FrameError:
            outcomes["refused"] += 1
        assert decoder.buffered <= HEADER_BYTES + BYTES_MAX
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert min(outcomes.values()) > 20, outcomes
