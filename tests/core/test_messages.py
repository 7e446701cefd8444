"""The wire form: every message is read as it was written, and says what it is."""

from __future__ import annotations

import msgspec
import pytest

from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from quorate.testing.drive import decode, encode, make_append
from quorate.types import Index, PeerId, Term

MESSAGES = [
    ("append", make_append("1", 3, (4, 2), [2, 3, 3], commit=4)),
    ("append", AppendEntries(Term(3), PeerId("1"), Index(4), Term(2), Index(1), 7)),
    ("appended", AppendEntriesReply(Term(3), True, Index(9), 7, Index(4))),
    ("appended", AppendEntriesReply(Term(3), False, Index(0), 7, Index(9), Index(4), Term(2))),
    ("vote", RequestVote(Term(3), PeerId("1"), Index(9), Term(2))),
    ("voted", RequestVoteReply(Term(3), True)),
    ("prevote", RequestPreVote(Term(4), PeerId("1"), Index(9), Term(2))),
    ("prevoted", RequestPreVoteReply(Term(3), Term(4), False)),
]


@pytest.mark.parametrize(("tag", "message"), MESSAGES)
def test_a_message_is_read_as_it_was_written(tag, message):
    body = encode(message)
    assert decode(body) == message
    assert msgspec.msgpack.decode(body)[0] == tag


def test_fields_added_at_the_end_may_be_missing():
    message = msgspec.msgpack.decode(encode(AppendEntriesReply(Term(3), True, Index(9))))
    assert decode(msgspec.msgpack.encode(message[:4])) == AppendEntriesReply(Term(3), True, Index(9))


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x91\xa4lost", b"\x92\xa4vote\x01", encode(MESSAGES[0][1])[:-1]])
def test_bytes_that_are_no_message_are_refused(body):
    with pytest.raises(msgspec.MsgspecError):
        decode(body)
