"""One bare ``Raft`` object, driven by hand: logs as the paper draws them, a disk that never waits, elections won.

What tests of the core share. It may not know what a test expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from quorate.core import Configuration, Envelope, Member, Message, Raft, encode_configuration
from quorate.core.invariants import check, check_step, facts
from quorate.core.messages import AppendEntries, RequestPreVoteReply, RequestVoteReply
from quorate.settings import Settings
from quorate.testing.contents import Contents, join
from quorate.types import Address, HardState, Index, Kind, MemberKind, PeerId, Run, Term

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def make_member(name: str, kind: MemberKind = "voter", priority: int = 0, node: str | None = None) -> Member:
    """Make the member with that name, a digit, which is its id too; ``node`` is where it is reached, if elsewhere."""
    return Member(PeerId(name), Address.parse(f"{name}@{node or f'127.0.0.1:{7000 + int(name)}'}"), kind, priority)


def make_configuration(count: int) -> Configuration:
    """Make a group of ``count`` voters, 1 to 9, whose names and ids are ``1``, ``2`` and so on."""
    return Configuration("group", tuple(make_member(str(number)) for number in range(1, count + 1)))


def make_log(configuration: Configuration, terms: Sequence[int]) -> list[Run]:
    """Make a log of one entry for each term, the first of them the configuration: logs as the paper draws them."""
    log = [Run(Term(term), Index(index), Kind.COMMAND, 0.0, (b"",)) for index, term in enumerate(terms, 1)]
    if log:
        log[0] = Run(log[0].term, Index(1), Kind.CONFIGURATION, 0.0, (encode_configuration(configuration),))
    return log


def start(
    name: str = "1",
    *,
    peers: int = 3,
    log: Sequence[int] = (1,),
    term: int | None = None,
    voted_for: str | None = None,
    settings: Settings | None = None,
    chance: float = 0.0,
) -> Raft:
    """Start one peer of a group at time 0.0 from a log that is given as the paper draws it: the term of each entry.

    Args:
        name: its name and id, a digit.
        peers: how many voters the group has.
        log: the term of each entry from index 1 on, where the configuration stands; empty for a new peer.
        term: its current term; that of the last entry when not given.
        voted_for: whom it voted for in that term.
        settings: the knobs; the defaults when not given.
        chance: what the dice always show, from 0.0 (the shortest election timeout) to below 1.0.

    Returns:
        The peer, with its first ``Ready`` taken.
    """
    hard_state = HardState(
        Term(term if term is not None else max(log, default=0)), None if voted_for is None else PeerId(voted_for)
    )
    stored = Contents(make_log(make_configuration(peers), log)).stored(hard_state)
    raft = Raft(PeerId(name), settings or Settings(), stored, lambda: chance, 0.0)
    raft.ready()
    return raft


def obey(raft: Raft) -> list[Envelope]:
    """Take ``ready()`` with a disk that never waits, until there is nothing more to do; give all messages in order."""
    sent: list[Envelope] = []
    while True:
        ready = raft.ready()
        sent += ready.messages
        sent += ready.messages_after_persist
        check(raft.state)
        if not ready.writes:
            return sent
        raft.persisted(ready.number)


def receive(raft: Raft, sender: str, message: Message, now: float | None = None) -> list[Message]:
    """Let a peer receive one message, by default at the time of its last input, and give what it sends back."""
    before = facts(raft.state)
    raft.receive(PeerId(sender), decode(encode(message)), raft.state.now if now is None else now)
    check_step(before, facts(raft.state))
    return [envelope.message for envelope in obey(raft) if envelope.to == sender]


def lead(raft: Raft) -> list[Envelope]:
    """Let a peer win the next election with the votes of all others; give what it sends when it has won."""
    raft.tick(raft.deadline())
    sent = obey(raft)
    for voter in raft.state.others:
        raft.receive(voter, RequestPreVoteReply(raft.state.term, Term(raft.state.term + 1), True), raft.state.now)
        obey(raft)
    for voter in raft.state.others:
        raft.receive(voter, RequestVoteReply(raft.state.term, vote_granted=True), raft.state.now)
        sent = obey(raft) or sent
    return sent


# Messages.


def make_append(
    leader: str, term: int, prev: tuple[int, int] = (0, 0), entries: Iterable[int] = (), commit: int = 0
) -> AppendEntries:
    """Make an AppendEntries whose entries, given by their terms, follow on ``prev``, an index and its term."""
    index = prev[0]
    runs = [Run(Term(of), Index(index + n), Kind.COMMAND, 0.0, (b"",)) for n, of in enumerate(entries, 1)]
    return AppendEntries(Term(term), PeerId(leader), Index(index), Term(prev[1]), Index(commit), 0, join(runs))


def encode(message: Message) -> bytes:
    """Write a message as it goes over the wire."""
    return _encoder.encode(message)


def decode(body: bytes) -> Message:
    """Read a message as it came over the wire."""
    return _decoder.decode(body)
