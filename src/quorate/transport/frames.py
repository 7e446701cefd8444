"""Frames: how packets, requests and replies become bytes, and back. Pure: knows no socket, no clock, no asyncio.

A frame is a header of 12 bytes and a body. All numbers are big-endian::

    magic "qr" (2) | version (1) | kind (1) | length of the body (4) | CRC-32 of the 8 bytes before it and the body (4)

The body is a MessagePack array of values, all of the one type that the kind names. Whatever bytes arrive, reading them
either gives values that keep the invariants their types state, or raises ``FrameError``, and never holds more memory
than the largest frame asks for.
"""

from __future__ import annotations

import enum
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import astuple

from quorate.core.messages import AppendEntries, InstallSnapshot, Message
from quorate.transport import Packet
from quorate.transport.calls import Reply, Request, SnapshotCall
from quorate.types import Snapshot, parse_node

VERSION = 1
"""The version of the frames that this release writes and reads."""

HEADER_BYTES = 12
"""The length of a header."""

HELLO_BYTES_MAX = 1024
"""The longest body of a ``Hello``: all that a stranger can make us hold."""

NUMBER_MAX = 2**63 - 1
"""The largest term or index: stores keep them in 8 signed bytes."""

ARRAY_HEADER_BYTES_MAX = 5
"""The longest that MessagePack needs to begin an array, such as a body."""

MAGIC = b"qr"
_FIELDS = struct.Struct(">2sBBI")
_CHECKSUM = struct.Struct(">I")
_HEADER = struct.Struct(">2sBBII")


class FrameKind(enum.IntEnum):
    """What the values of a frame are."""

    HELLO = 1
    PACKETS = 2
    REQUESTS = 3
    REPLIES = 4


# Each look at a member by way of its class costs as much as decoding a small frame, on Python 3.11.
HELLO: Final = FrameKind.HELLO
PACKETS: Final = FrameKind.PACKETS
REQUESTS: Final = FrameKind.REQUESTS
REPLIES: Final = FrameKind.REPLIES


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a connection, each way.

    Attributes:
        node: where the sender is reached, ``host:port``; empty for a client, which is not reached.
        purpose: what the connection is for. The side that dialled says ``"peers"`` for packets both ways or
            ``"calls"`` for requests one way and replies the other; the side that accepted says ``"accepted"``.
    """

    node: str
    purpose: Literal["peers", "calls", "accepted"]


Frame = (
    tuple[Literal[FrameKind.HELLO], list[Hello]]
    | tuple[Literal[FrameKind.PACKETS], list[Packet]]
    | tuple[Literal[FrameKind.REQUESTS], list[Request]]
    | tuple[Literal[FrameKind.REPLIES], list[Reply]]
)
"""A frame that was read: its kind and its values. One of kind ``HELLO`` has exactly one value."""


class FrameError(Exception):
    """Bytes that are no frame, or a frame whose values break an invariant. Ends a connection; never reaches users."""


_KINDS: dict[int, FrameKind] = {kind.value: kind for kind in FrameKind}

_encoder = msgspec.msgpack.Encoder()
_hellos = msgspec.msgpack.Decoder(list[Hello])
_packets = msgspec.msgpack.Decoder(list[Packet])
_requests = msgspec.msgpack.Decoder(list[Request])
_replies = msgspec.msgpack.Decoder(list[Reply])


def encode_value(value: Hello | Packet | Request | Reply) -> bytes:
    """Encode one value of a body, for ``encode_frames``."""
    return _encoder.encode(value)


def encode_frame(kind: FrameKind, values: Sequence[Hello | Packet | Request | Reply]) -> bytes:
    """Write one frame, whatever its length."""
    return _seal(kind, _encoder.encode(values))


def encode_one_frame(
    kind: FrameKind, values: Sequence[Hello | Packet | Request | Reply], bytes_max: int
) -> bytes | None:
    """Write values as one frame; None if its body would be longer than ``bytes_max``."""
    body = _encoder.encode(values)
    return _seal(kind, body) if len(body) <= bytes_max else None


def encode_frames(kind: FrameKind, encoded: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """Write values as frames, in order and as few as hold them.

    Args:
        kind: what the values are.
        encoded: what ``encode_value`` gave for each; ``fits`` must be true of each.
        bytes_max: the longest body.

    Returns:
        The frames; none when there are no values.
    """
    room = bytes_max - ARRAY_HEADER_BYTES_MAX
    if encoded and sum(map(len, encoded)) <= room:
        return [_seal(kind, _join(encoded))]
    frames: list[bytes] = []
    start = 0
    length = 0
    for position, value in enumerate(encoded):
        if length + len(value) > room:
            frames.append(_seal(kind, _join(encoded[start:position])))
            start, length = position, 0
        length += len(value)
    if start < len(encoded):
        frames.append(_seal(kind, _join(encoded[start:])))
    return frames


def fits(value: bytes, bytes_max: int) -> bool:
    """Tell whether an encoded value can go in a frame whose body has at most ``bytes_max`` bytes."""
    return len(value) <= bytes_max - ARRAY_HEADER_BYTES_MAX


def decode_frame(frame: bytes, bytes_max: int) -> Frame:
    """Read exactly one frame.

    Raises:
        FrameError: the bytes are anything else.
    """
    if len(frame) < HEADER_BYTES:
        raise FrameError(f"the frame ends after {len(frame)} bytes, within its header")
    kind, length, checksum = _read_header(frame, 0, bytes_max)
    if len(frame) != HEADER_BYTES + length:
        raise FrameError(f"the frame has {len(frame) - HEADER_BYTES} bytes after its header, which says {length}")
    return _read_body(kind, memoryview(frame), checksum)


class FrameDecoder:
    """Reads the frames of one connection from its bytes as they arrive: a ``Hello`` first, and never again.

    After a ``FrameError`` the place of the next frame is unknown: the connection must be closed.
    """

    def __init__(self, bytes_max: int) -> None:
        """Begin with the first byte of a connection; no body may be longer than ``bytes_max``."""
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._greeted = False

    @property
    def buffered(self) -> int:
        """How many bytes of a frame that is not complete yet are held."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the bytes that arrived, and give the frames that are complete with them.

        Raises:
            FrameError: what arrived is malformed. Frames before it in the same chunk are dropped with it.
        """
        buffer = self._buffer
        if buffer:
            buffer += chunk
        received = buffer or chunk  # Most chunks end with a frame: those are read where they are.
        frames: list[Frame] = []
        start = 0
        size = len(received)
        with memoryview(received) as view:
            while size - start >= HEADER_BYTES:
                bytes_max = self._bytes_max if self._greeted else HELLO_BYTES_MAX
                kind, length, checksum = _read_header(view, start, bytes_max)
                if (kind is HELLO) is self._greeted:
                    text = "a second HELLO frame" if self._greeted else f"a {kind.name} frame before the HELLO frame"
                    raise FrameError(text)
                end = start + HEADER_BYTES + length
                if size < end:
                    break
                frames.append(_read_body(kind, view[start:end], checksum))
                self._greeted = True
                start = end
        if buffer:
            del buffer[:start]
        else:
            buffer += chunk[start:]
        return frames


def _seal(kind: FrameKind, body: bytes) -> bytes:
    """Put the header before a body."""
    fields = _FIELDS.pack(MAGIC, VERSION, kind, len(body))
    return b"".join((fields, _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(fields))), body))


def _join(encoded: Sequence[bytes]) -> bytes:
    """Make one MessagePack array of encoded values."""
    count = len(encoded)
    if count < 16:
        header = bytes((0x90 | count,))
    elif count < 1 << 16:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return b"".join((header, *encoded))


def _read_header(received: bytes | memoryview, start: int, bytes_max: int) -> tuple[FrameKind, int, int]:
    """Read the header that begins at ``start``: the kind, the length of the body, and the checksum, not yet checked.

    Raises:
        FrameError: it is malformed, of another version, or announces too long a body.
    """
    magic, version, number, length, checksum = _HEADER.unpack_from(received, start)
    if magic != MAGIC:
        raise FrameError(f"these bytes are not of quorate: they begin with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise FrameError(f"the other side speaks version {version} of the protocol, this side version {VERSION}")
    kind = _KINDS.get(number)
    if kind is None:
        raise FrameError(f"unknown kind of frame: {number}")
    if length > bytes_max:
        raise FrameError(f"a frame of {length} bytes is too long here: at most {bytes_max} are taken")
    return kind, length, checksum


def _read_body(kind: FrameKind, frame: memoryview, checksum: int) -> Frame:
    """Check a frame against its checksum, decode its body, and check what its values promise.

    Raises:
        FrameError: any of that fails.
    """
    body = frame[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(frame[: _FIELDS.size])) != checksum:
        raise FrameError("the checksum does not match: the frame was altered on its way")
    try:
        return _decode_values(kind, body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the body of a {kind.name} frame is malformed: {error}") from error


def _decode_values(kind: FrameKind, body: memoryview) -> Frame:
    """Decode a body and check its values, none of which keeps a part of it.

    Raises:
        ValueError: it is malformed (``msgspec``'s errors are such), or a value breaks an invariant.
        RecursionError: it is nested too deep.
    """
    if kind is REQUESTS:
        requests = _requests.decode(body)
        for request in requests:
            if isinstance(request.call, SnapshotCall):
                _check_message(request.call.message)
        return REQUESTS, requests
    if kind is REPLIES:
        return REPLIES, _replies.decode(body)
    if kind is PACKETS:
        packets = _packets.decode(body)
        for packet in packets:
            _check_message(packet.message)
        return PACKETS, packets
    hellos = _hellos.decode(body)
    _check_hello(hellos)
    return HELLO, hellos


def _check_hello(hellos: Sequence[Hello]) -> None:
    """Check that there is one hello, with a node's address unless it is a client's.

    Raises:
        ValueError: it is not so.
    """
    if len(hellos) != 1:
        raise ValueError(f"{len(hellos)} hellos in one frame")
    if hellos[0].node or hellos[0].purpose != "calls":
        parse_node(hellos[0].node)


def _check_message(message: Message) -> None:
    """Check that the terms and indexes of a message are possible, and that its entries follow each other.

    Raises:
        ValueError: it is not so.
    """
    _check_numbers(message)
    if isinstance(message, AppendEntries) and message.entries:
        _check_entries(message)
    elif isinstance(message, InstallSnapshot):
        _check_numbers(message.snapshot)
        if not (math.isfinite(message.snapshot.time) and message.snapshot.time >= 0):
            raise ValueError(f"the snapshot has the time {message.snapshot.time}")


def _check_numbers(fields: Message | Snapshot) -> None:
    """Check that all whole numbers can be terms and indexes.

    Raises:
        ValueError: one cannot.
    """
    for place, number in enumerate(astuple(fields)):
        if type(number) is int and not 0 <= number <= NUMBER_MAX:
            raise ValueError(f"{fields.__struct_fields__[place]} is {number}")


def _check_entries(message: AppendEntries) -> None:
    """Check that the runs are what a leader's log can hold after ``prev_log_index``.

    Raises:
        ValueError: it is not so.
    """
    index, term = message.prev_log_index + 1, max(1, message.prev_log_term)
    for run in message.entries:
        if run.first != index:
            raise ValueError(f"a run begins at index {run.first}, where {index} is next")
        if not run.payloads:
            raise ValueError(f"the run at index {index} has no entries")
        if not term <= run.term <= message.term:
            raise ValueError(f"a run of term {run.term} after term {term} from a leader of term {message.term}")
        if not (math.isfinite(run.time) and run.time >= 0):
            raise ValueError(f"the run at index {index} has the time {run.time}")
        index, term = run.last + 1, run.term
    if index > NUMBER_MAX:
        raise ValueError(f"the last run ends at index {index - 1}")
