"""What a peer logs of itself: every change, and what repeats itself ever more rarely."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quorate import Settings
from quorate.core import Event, EventKind
from quorate.diary import Diary
from quorate.machines import KV
from quorate.types import Term

from .virtual import World, run_world


def told(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


def test_what_repeats_itself_is_logged_ever_more_rarely_until_something_else_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "quorate.raft")
    diary = Diary("peer1")
    for _ in range(9):
        diary.tell(Event(EventKind.ROLE, Term(3), "again"))
        diary.tell(Event(EventKind.VOTE, Term(3), "a vote is refused"))
    diary.tell(Event(EventKind.ROLE, Term(4), "something else"))
    diary.tell(Event(EventKind.ROLE, Term(4), "again"))
    assert [text for text in told(caplog, "peer1") if "vote" not in text] == [
        "peer1 [term 3] again",
        "peer1 [term 3] again (time 2 in a row)",
        "peer1 [term 3] again (time 4 in a row)",
        "peer1 [term 3] again (time 8 in a row)",
        "peer1 [term 4] something else",
        "peer1 [term 4] again",
    ]
    assert {record.levelno for record in caplog.records if "vote" in record.getMessage()} == {logging.DEBUG}
    diary.ignore()
    assert [diary.count(kind) for kind in (EventKind.ROLE, EventKind.VOTE, EventKind.IGNORED)] == [11, 9, 1]
    assert diary.count(EventKind.TERM) == 0


def test_a_peer_that_is_cut_off_for_an_hour_fills_no_disk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "quorate.raft")

    async def tell(world: World) -> None:
        alone = (await world.form(KV, "peer1", "peer2", "peer3"))[-1]
        kept = world.place(alone)
        for node in world.nodes[:kept] + world.nodes[kept + 1 :]:
            await node.stop()
        caplog.clear()
        await asyncio.sleep(3600)
        assert told(caplog, "pre-candidate")
        assert len(caplog.records) < 30

    run_world(3, Settings(), tell)
