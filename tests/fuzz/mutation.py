"""A plain driver: mutates seeds at random, without feedback. For interpreters that atheris is not built for."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from .targets import Target

LENGTH_MAX = 4096
"""The longest input."""

INTERESTING = [0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC4, 0xCB, 0xCF, 0xD3, 0xD9, 0xDC, 0xDD, 0xDF, 0xFF]
"""Bytes at the edges of numbers, and those with which MessagePack says what follows."""


def mutants(corpus: list[bytes], seed: int) -> Iterator[bytes]:
    """Give inputs without end: first the seeds themselves, then mutants of them."""
    yield from corpus
    dice = random.Random(seed)
    while True:
        content = bytearray(dice.choice(corpus))
        for _ in range(dice.choice([1, 1, 2, 4, 8])):
            mutate(content, corpus, dice)
        yield bytes(content[:LENGTH_MAX])


def mutate(content: bytearray, corpus: list[bytes], dice: random.Random) -> None:
    """Change something somewhere."""
    at = dice.randrange(len(content) + 1)
    end = min(len(content), at + dice.choice([1, 1, 2, 4, 8, 32]))
    match dice.randrange(8):
        case 0 if at < len(content):
            content[at] ^= 1 << dice.randrange(8)
        case 1 if at < len(content):
            content[at] = dice.choice(INTERESTING)
        case 2 if at < len(content):
            content[at] = (content[at] + dice.choice([-1, 1])) % 256
        case 3:
            del content[at:end]
        case 4:
            content[at:at] = content[at:end] * dice.choice([1, 1, 3, 64])
        case 5:
            content[at:at] = bytes(dice.choice(INTERESTING) for _ in range(dice.choice([1, 2, 8])))
        case 6:
            other = dice.choice(corpus)
            content[at:] = other[dice.randrange(len(other) + 1) :]
        case _:
            content[at:end] = dice.choice([b"\xff", b"\0", b"\x91", b"\x81\xc0"]) * (end - at)


def run_mutants(target: Target, seed: int, *, executions: int | None = None, seconds: float | None = None) -> int:
    """Give a target mutants, as many or for as long as is said; give how many.

    Raises:
        Found: what the target raised, with the input.
    """
    stop_at = time.monotonic() + seconds if seconds is not None else float("inf")
    for number, content in enumerate(mutants(target.seeds(), seed)):
        if number == executions or time.monotonic() >= stop_at:
            return number
        try:
            target.run(content)
        except Exception as error:
            raise Found(f"{type(error).__name__}: {error}; by the input {content!r}") from error
    raise AssertionError("mutants have no end")


class Found(Exception):
    """A target raised."""
