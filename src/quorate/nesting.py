"""How deep what MessagePack carries may nest. Knows bytes alone."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

NESTING_MAX = 64
"""How deep the arrays and maps of a call may nest, its own array included. The decoder's own limit depends on the stack
at hand: it could be reached on one peer and not on another."""

# The first bytes of MessagePack's arrays and maps are 0x80 to 0x9f and 0xdc to 0xdf; these are all others.
NOT_CONTAINERS = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))

ANYTHING = msgspec.msgpack.Decoder()


def nests_too_deep(encoded: bytes) -> bool:
    """Tell whether the encoded value nests deeper than ``NESTING_MAX``, or cannot be walked."""
    if len(encoded.translate(None, NOT_CONTAINERS)) <= NESTING_MAX:
        return False  # there are not even so many arrays and maps in it
    try:
        level: list[object] = [ANYTHING.decode(encoded)]
    except (msgspec.MsgspecError, RecursionError):
        return True
    for _ in range(NESTING_MAX):
        level = [inner for outer in level for inner in parts(outer)]
    return any(isinstance(value, (dict, list, tuple)) for value in level)


def parts(value: object) -> Iterator[object]:
    """Yield what a list, tuple or dict contains."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
