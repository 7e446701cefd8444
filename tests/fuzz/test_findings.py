"""What fuzzing has found, each as small as it can be."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import AppendEntries, InstallSnapshot
from quorate.errors import Corrupted
from quorate.store.records import decode_hard_state, hard_state_key
from quorate.testing.drive import receive, start
from quorate.transport.calls import ChangeCall, Request, SnapshotCall
from quorate.transport.frames import FrameError, FrameKind, decode_frame, encode_frame
from quorate.types import Index, Kind, PeerId, Run, Term

from . import seeds

TOO_LARGE = 2**64 - 1


@pytest.mark.parametrize(
    "message",
    [
        InstallSnapshot(Term(TOO_LARGE), PeerId("2"), seeds.SNAPSHOT),
        InstallSnapshot(Term(3), PeerId("2"), msgspec.structs.replace(seeds.SNAPSHOT, index=TOO_LARGE)),
        InstallSnapshot(Term(3), PeerId("2"), msgspec.structs.replace(seeds.SNAPSHOT, term=-1)),
        InstallSnapshot(Term(3), PeerId("2"), msgspec.structs.replace(seeds.SNAPSHOT, time=float("nan"))),
    ],
    ids=["term", "index", "term of the snapshot", "time"],
)
def test_a_piece_of_a_snapshot_that_no_leader_can_have_is_refused_as_it_is_read(message):
    """Numbers were checked in packets alone: a term of 2^64 - 1 in a request could be taken, and never written."""
    request = Request(1, "peer1", SnapshotCall("group", message, 100, 10, b"piece"))
    with pytest.raises(FrameError):
        decode_frame(encode_frame(FrameKind.REQUESTS, [request]), 1 << 16)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1.0])
def test_a_change_whose_timeout_is_no_time_is_refused_as_it_is_read(timeout):
    """Those of the other calls were checked; one that is not a number would have become a deadline."""
    request = Request(1, "peer1", ChangeCall(seeds.GROUP.members, seeds.GROUP.members, timeout))
    with pytest.raises(FrameError):
        decode_frame(encode_frame(FrameKind.REQUESTS, [request]), 1 << 16)


def test_a_stored_record_that_nests_too_deep_is_corrupted():
    """Fields that a later version adds are skipped, and skipping has a limit: that was a ``RecursionError``."""
    body = b"\x93\x03\xc0" + seeds.DEEP
    record = zlib.crc32(body, zlib.crc32(hard_state_key("log"))).to_bytes(4, "big") + body
    with pytest.raises(Corrupted):
        decode_hard_state("log", record)


FIRST, SECOND, *_ = seeds.GROUP.members


@pytest.mark.parametrize(
    "members",
    [(), (FIRST, FIRST), (SECOND, FIRST), (FIRST, msgspec.structs.replace(SECOND, id=FIRST.id))],
    ids=["nobody", "one twice", "not in order", "one id twice"],
)
def test_an_entry_with_a_configuration_that_no_leader_appends_changes_nothing(members):
    """It was put in force: a group of nobody, or one in which a member counts twice."""
    raft = start("1", log=(1,))
    before = raft.state.configurations
    payload = encode_configuration(Configuration("group", members))
    entry = Run(Term(2), Index(2), Kind.CONFIGURATION, 0.0, (payload,))
    message = AppendEntries(Term(2), PeerId("2"), Index(1), Term(1), Index(0), 0, (entry,))
    assert receive(raft, "2", message) == []
    assert (raft.state.log.last, raft.state.configurations) == (1, before)
