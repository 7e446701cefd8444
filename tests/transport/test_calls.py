"""Errors as values of the wire: each comes back as what it was, and none is too strange to be sent."""

from __future__ import annotations

import pytest

from quorate import errors
from quorate.errors import NotLeader, OutcomeUnknown, QuorateError, Rejected
from quorate.transport.calls import PLAIN_ERRORS, Failure, Reply, decode_details, error_from_failure, failure_from_error
from quorate.transport.frames import FrameKind, decode_frame, encode_frame
from quorate.types import Address


def travel(error: BaseException) -> QuorateError:
    """Send an error as a reply, and give what arrives."""
    sent = Reply(1, failure_from_error(error))
    _, [received] = decode_frame(encode_frame(FrameKind.REPLIES, [sent]), 1 << 16)
    assert received == sent
    assert isinstance(received, Reply)
    assert isinstance(received.answer, Failure)
    return error_from_failure(received.answer)


@pytest.mark.parametrize("name", sorted(PLAIN_ERRORS))
def test_an_error_that_is_a_message_keeps_its_class_and_message(name: str):
    received = travel(PLAIN_ERRORS[name]("because"))
    assert type(received) is PLAIN_ERRORS[name]
    assert str(received) == "because"


def test_every_error_has_a_form():
    forms = {*PLAIN_ERRORS, "NotLeader", "Rejected", "Compacted", "QuorateError"}
    assert forms == {name for name, value in vars(errors).items() if isinstance(value, type) and name != "Address"}


@pytest.mark.parametrize("redirect", [None, Address("peer2", "::1", 7002)])
def test_a_redirect_arrives(redirect: Address | None):
    received = travel(NotLeader(redirect, "peer1"))
    assert isinstance(received, NotLeader)
    assert (received.redirect, received.peer) == (redirect, "peer1")


LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("details", "arrive"),
    [
        ((), ()),
        (("foo", 1, None, b"x", [1.5]), ("foo", 1, None, b"x", [1.5])),
        (("foo", 1j), ("foo", "1j")),
        (("foo", 2**70), ("'foo'", str(2**70))),
        (("foo", "\ud800"), ("'foo'", r"'\ud800'")),
        ((LOOP,), ("[[...]]",)),
    ],
)
def test_details_arrive_as_they_are_or_as_python_shows_them(details: tuple[object, ...], arrive: tuple[object, ...]):
    received = travel(Rejected("key_not_found", *details))
    assert isinstance(received, Rejected)
    assert (received.reason, received.details) == ("key_not_found", arrive)


@pytest.mark.parametrize(
    "error", [Rejected("\ud800"), OutcomeUnknown("\ud800"), OSError("\ud800"), NotLeader(None, "\ud800")]
)
def test_text_that_is_not_utf_8_arrives_escaped(error: Exception):
    assert r"\ud800" in str(travel(error))


def test_what_is_no_error_of_ours_is_an_unknown_outcome():
    received = travel(ZeroDivisionError("by zero"))
    assert type(received) is OutcomeUnknown
    assert str(received) == "the peer failed: ZeroDivisionError: by zero"


def test_an_error_of_a_newer_release_is_an_unknown_outcome():
    assert str(error_from_failure(Failure("TooNew", "what"))) == "TooNew: what"


@pytest.mark.parametrize("details", [b"\xc1", b"\x01", b"\x91\xa1\xff", b"\x91" * 100_000])
def test_details_that_cannot_be_read_are_shown_as_they_are(details: bytes):
    assert decode_details(details) == [details]
