"""What fuzzing begins with: real messages, records and files, made by code. A corpus of blobs would not follow them."""

from __future__ import annotations

import io

import msgspec

from quorate.core.configuration import Configuration, Member, encode_configuration
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.events import Emitted
from quorate.store.directory import KeptIdentity, PeerIdentity
from quorate.store.mark import Mark
from quorate.store.snapshots import write_snapshot
from quorate.testing.drive import make_configuration, make_log
from quorate.transport import Packet
from quorate.transport.calls import (
    BootstrapCall,
    CancelCall,
    ChangeCall,
    Events,
    Failure,
    IdentifyCall,
    Identity,
    LeaderCall,
    LeaderIs,
    ReadCall,
    Reply,
    Request,
    SnapshotAt,
    SnapshotCall,
    StaleValue,
    StandingIs,
    StatusCall,
    StatusIs,
    Value,
    WatchCall,
    WatchStatusCall,
    WriteCall,
    WritesCall,
    encode_details,
)
from quorate.transport.frames import Hello
from quorate.types import (
    Address,
    Compaction,
    HardState,
    Index,
    Kind,
    MemberStatus,
    PeerId,
    ReadId,
    Run,
    Snapshot,
    Status,
    Term,
)

GROUP = make_configuration(3)
LEADER = PeerId("2")
JOINT = Configuration(GROUP.group, GROUP.members[:2], GROUP.members)
ADDRESS = Address("peer1", "::1", 7001)
SNAPSHOT = Snapshot(Index(4), Term(2), 1.5, Index(1), encode_configuration(GROUP))
COMMANDS = [msgspec.msgpack.encode(call) for call in (["set", "foo", "bar"], ["get", "foo"], ["none", 1, 2], [])]
DEEP = b"\x91" * 60_000 + b"\xc0"
"""What nests deeper than an interpreter goes: 1,000 levels up to 3.12, 10,000 in 3.13, what its stack holds later."""


def run(term: int, first: int, *payloads: bytes, kind: Kind = Kind.COMMAND, time: float = 1.5) -> Run:
    return Run(Term(term), Index(first), kind, time, payloads)


RUNS = [
    run(1, 1, encode_configuration(GROUP), kind=Kind.CONFIGURATION),
    run(2, 2, b"", kind=Kind.NOOP),
    run(2, 3, b"x", b"y" * 40),
    run(3, 5, b"z"),
    run(3, 6, encode_configuration(JOINT), kind=Kind.CONFIGURATION),
    run(3, 7, b"", b"", kind=Kind.BARE),
]


def append(previous: int, term: int, *entries: Run, of: int = 3, commit: int = 2) -> AppendEntries:
    return AppendEntries(Term(of), LEADER, Index(previous), Term(term), Index(commit), 1, entries)


MESSAGES = [
    append(1, 1),
    append(1, 1, *RUNS[1:4]),
    append(4, 2, *RUNS[3:], commit=9),
    append(0, 0, *RUNS),
    AppendEntriesReply(Term(3), True, Index(5), 2, Index(4)),
    AppendEntriesReply(Term(3), False, Index(0), 2, Index(4), Index(3), Term(2)),
    RequestVote(Term(4), LEADER, Index(9), Term(3)),
    RequestVote(Term(4), LEADER, Index(9), Term(3), True),
    RequestVoteReply(Term(4), True),
    RequestPreVote(Term(4), LEADER, Index(9), Term(3)),
    RequestPreVoteReply(Term(3), Term(4), True),
    InstallSnapshot(Term(3), LEADER, Snapshot(Index(9), Term(3), 2.5, Index(6), encode_configuration(JOINT))),
    ReadIndex(Term(3), 17, ReadId(1)),
    ReadIndexReply(Term(3), 17, ReadId(1), Index(2)),
    TimeoutNow(Term(3), LEADER),
]
HELLOS = [Hello("127.0.0.1:7001", "peers"), Hello("", "calls"), Hello("[::1]:7001", "accepted")]
PACKETS = [Packet("group", LEADER, PeerId("1"), message) for message in MESSAGES]
CALLS = [
    *[WriteCall(command, 5.0) for command in COMMANDS],
    WritesCall(COMMANDS, 5.0, 7, 1, 1),
    ReadCall(COMMANDS[1], 5.0),
    ReadCall(COMMANDS[1], 5.0, "stale", True),
    WatchCall(5.0, ("Changed",), (7, 0)),
    WatchStatusCall(5.0, b"0123456789abcdef"),
    CancelCall(7),
    LeaderCall(1.0),
    StatusCall(),
    IdentifyCall(),
    BootstrapCall(GROUP),
    ChangeCall(GROUP.members, (*GROUP.members, Member(PeerId("4"), ADDRESS, "witness", 3)), 5.0),
    SnapshotCall("group", MESSAGES[11], 100, 10, b"piece"),
]
REQUESTS = [Request(number, "peer1", call) for number, call in enumerate(CALLS)]
STATUS = Status(
    name="peer1",
    id=LEADER,
    group="group",
    role="leader",
    term=Term(3),
    leader=ADDRESS,
    configuration=(ADDRESS,),
    commit_index=Index(4),
    last_applied=Index(4),
    last_index=Index(7),
    why=None,
    members=(MemberStatus(address=ADDRESS, id=LEADER, kind="voter", becomes=None, heard=0.5),),
)
ANSWERS = [
    Value(b"\xa3bar"),
    StaleValue(b"\xa3bar", Index(7), 0.5),
    Events((8, 0), (Emitted(Index(7), 0, b"\x92\xa7Changed\x01"),)),
    LeaderIs(ADDRESS),
    StatusIs((STATUS,)),
    StandingIs(b"0123456789abcdef", STATUS),
    Identity(LEADER, "KV", GROUP, ADDRESS),
    SnapshotAt(10),
    Failure("NotLeader", "peer1", ADDRESS),
    Failure("Rejected", "taken", None, encode_details((1, "two", [3.0]))),
    Failure("OutcomeUnknown", "stopped"),
]
REPLIES = [Reply(number, answer) for number, answer in enumerate(ANSWERS)]
RECORDS = [
    *[(b"E", value) for value in RUNS],
    (b"H", HardState(Term(3), LEADER)),
    (b"C", Compaction(SNAPSHOT, Index(2), Term(2))),
    (b"C", Compaction(SNAPSHOT, Index(4), Term(2), replaces_log=True)),
]
MARK = Mark("database-1", 4711)
IDENTITIES = [
    b'{"id":"0123456789abcdef","group":""}\n',
    b'{"id":"0123456789abcdef","group":"fedcba9876543210"}\n',
    msgspec.json.encode(KeptIdentity.of(PeerIdentity(PeerId("0123456789abcdef"), "fedcba9876543210"), "a")) + b"\n",
]
NODE = b'{"id":"0123456789abcdef","address":"127.0.0.1:7001"}\n'
LOG = make_log(GROUP, [1, 2, 2, 3])


def encoded(values: object) -> bytes:
    return msgspec.msgpack.encode(values)


def snapshot_file(*chunks: bytes) -> bytes:
    """Give the file of a snapshot with these chunks."""
    file = io.BytesIO()
    write_snapshot(file, SNAPSHOT, chunks)
    return file.getvalue()
