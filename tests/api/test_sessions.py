"""Client sessions: a write that comes twice is applied once, and answered twice with the same reply (thesis 6.3)."""

from __future__ import annotations

import asyncio
import struct
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest

from quorate import (
    Client,
    OutcomeUnknown,
    Overloaded,
    Peer,
    Rejected,
    SessionExpired,
    Settings,
    StateMachine,
    Unavailable,
    connect,
    write,
)
from quorate.apply import Apply
from quorate.calling import call_heads, describe
from quorate.errors import MachineError
from quorate.machines import KV
from quorate.sessions import (
    ANSWERS_MAX,
    MARK,
    NUMBER_MAX,
    TICK,
    OpenSession,
    Sessions,
    SessionWrite,
    decode_command,
    encode_opening,
    encode_write,
    is_over,
    machine_command,
    without_heads,
)
from quorate.tables import encode_tables, restored
from quorate.testing.effects import effects
from quorate.tickets import Ticket, Tickets
from quorate.transport.calls import Failure, Request, Value, WriteCall
from quorate.transport.frames import FrameError, FrameKind, decode_frame, encode_frame
from quorate.transport.memory import MemoryTransport
from quorate.types import Index, Kind, Run, Snapshot, Term
from tests.api.test_apply import Noted
from tests.api.virtual import World, run_world

KV_TYPE = describe(KV)


def answer(text: str) -> Value:
    return Value(text.encode())


def find(sessions: Sessions, now: float, number: int, sequence: int, settled: int = 1):
    """Give the session of a write, and what that was answered before."""
    session = sessions.use(number, now)
    return session, session.earlier(sequence, settled)


# The table.


def test_a_write_that_comes_again_is_answered_as_it_was():
    sessions = Sessions()
    number = sessions.open(OpenSession(10.0), 7, 1.0)
    session, before = find(sessions, 1.0, number, 1)
    assert before is None
    session.keep(answer("one"))
    assert find(sessions, 2.0, number, 1) == (session, answer("one"))
    assert find(sessions, 2.0, number, 2) == (session, None)


def test_numbers_of_one_client_say_nothing_of_another_s():
    sessions = Sessions()
    one, other = [sessions.open(OpenSession(10.0), index, 1.0) for index in (7, 8)]
    find(sessions, 1.0, one, 1)[0].keep(answer("one"))
    assert find(sessions, 1.0, other, 1)[1] is None


def test_a_write_waits_for_those_before_it_unless_they_are_given_up():
    sessions = Sessions()
    number = sessions.open(OpenSession(10.0), 7, 1.0)
    with pytest.raises(Unavailable, match="write 3 of the session came before write 1"):
        find(sessions, 1.0, number, 3)
    session, before = find(sessions, 1.0, number, 3, settled=3)
    assert (session.next, before) == (3, None)
    with pytest.raises(OutcomeUnknown, match="given up"):
        find(sessions, 1.0, number, 2)


def test_answers_are_kept_until_they_are_settled_and_no_more_of_them_than_is_agreed():
    sessions = Sessions()
    number = sessions.open(OpenSession(10.0), 7, 1.0)
    for sequence in range(1, ANSWERS_MAX + 3):
        find(sessions, 1.0, number, sequence)[0].keep(answer(str(sequence)))
    session = sessions.by_id[number]
    assert session.answers == [answer(str(sequence)) for sequence in range(3, ANSWERS_MAX + 3)]
    with pytest.raises(OutcomeUnknown, match="kept no longer"):
        find(sessions, 1.0, number, 2)
    find(sessions, 1.0, number, ANSWERS_MAX + 3, settled=ANSWERS_MAX)
    assert session.answers == [answer(str(sequence)) for sequence in range(ANSWERS_MAX, ANSWERS_MAX + 3)]
    find(sessions, 1.0, number, ANSWERS_MAX + 3, settled=3)  # One that was sent before, and comes late.
    assert (session.first, session.next) == (ANSWERS_MAX, ANSWERS_MAX + 3)
    find(sessions, 1.0, number, ANSWERS_MAX + 9, settled=ANSWERS_MAX + 9)
    assert (session.answers, session.next) == ([], ANSWERS_MAX + 9)


def test_a_session_ends_by_the_time_of_the_log():
    sessions = Sessions()
    number = sessions.open(OpenSession(10.0), 7, 1.0)
    find(sessions, 11.0, number, 1)
    find(sessions, 21.0, number, 1)  # Each use counts.
    with pytest.raises(SessionExpired, match=f"session {number} has expired"):
        find(sessions, 31.1, number, 1)
    assert sessions.by_id == {}
    with pytest.raises(SessionExpired):
        find(sessions, 0.0, number, 1)


def test_expired_sessions_are_forgotten_with_the_next_write_of_anybody():
    """Else the answers of clients that are gone would stay for good, in every snapshot, too."""
    sessions = Sessions()
    gone = [sessions.open(OpenSession(10.0), index, 1.0) for index in (7, 8)]
    alive = sessions.open(OpenSession(100.0), 9, 1.0)
    for number in gone:
        find(sessions, 1.0, number, 1)[0].keep(answer("large"))
    find(sessions, 11.0, alive, 1)
    assert list(sessions.by_id) == [*gone, alive], "they may still write"
    find(sessions, 11.1, alive, 1)
    assert list(sessions.by_id) == [alive]


def test_nobody_looks_for_expired_sessions_before_one_may_have_expired(monkeypatch):
    """To find the one used least recently costs more than all else of a write, where there are many."""
    asked = []
    monkeypatch.setattr("quorate.sessions.is_over", lambda session, now: asked.append(session) or is_over(session, now))
    sessions = Sessions()
    ids = [sessions.open(OpenSession(10.0), index, 1.0) for index in range(1, 10)]
    asked.clear()
    used = [sessions.use(number, 11.0) for number in ids]
    assert asked == used


def test_a_table_that_was_restored_forgets_the_same_sessions_at_the_same_writes():
    random = Random(1)
    sessions, ids, now = Sessions(), [1], 1.0
    for index in range(2, 3_000):
        now += random.choice((0.0, 0.1, 0.1, 2.0))
        other = msgspec.convert(msgspec.to_builtins(sessions), Sessions)
        number, timeout = random.choice(ids[-20:]), random.choice((1.0, 5.0, 20.0))
        if random.random() < 0.1:
            ids.append({table.open(OpenSession(timeout), index, now) for table in (sessions, other)}.pop())
        elif number in sessions.by_id and not is_over(sessions.by_id[number], now):
            assert sessions.use(number, now) == other.use(number, now)
            first = next(iter(sessions.by_id))
            assert first == number or not is_over(sessions.by_id[first], now)
        assert list(sessions.by_id.items()) == list(other.by_id.items())


def test_the_session_used_least_recently_ends_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("quorate.sessions.SESSIONS_MAX", 3)
    sessions = Sessions()
    first, _, third = [sessions.open(OpenSession(10.0), index, 1.0) for index in (1, 2, 3)]
    find(sessions, 2.0, first, 1)
    fourth = sessions.open(OpenSession(10.0), 4, 3.0)
    assert list(sessions.by_id) == [third, first, fourth]
    fifth = sessions.open(OpenSession(10.0), 5, 12.5)
    assert list(sessions.by_id) == [fourth, fifth]


@pytest.mark.parametrize(
    "payload", [MARK, MARK + b"\x01", MARK + b"o", MARK + b"o" + bytes(9), MARK + b"w" + bytes(23)]
)
def test_what_is_no_command_for_sessions_is_an_error_alike_on_every_peer(payload):
    with pytest.raises(MachineError, match="not a command for sessions"):
        decode_command(payload)


def test_the_machine_s_command_is_found_in_a_payload():
    assert machine_command(b"\x91\xa1x") == b"\x91\xa1x"
    assert machine_command(encode_write(1, 2, 1, b"\x91\xa1x")) == b"\x91\xa1x"
    assert machine_command(encode_opening(OpenSession(1.0))) is None


def test_known_commands_are_told_by_how_they_begin():
    heads = call_heads(["set", "x" * 40])
    known = [msgspec.msgpack.encode([name, "key"]) for name in ("set", "x" * 40)]
    lookalike = msgspec.msgpack.encode(["ten letter", "fourteen lette", "set"])
    others = [msgspec.msgpack.encode([name]) for name in ("se", "sets", "x" * 39)]
    others += [lookalike, encode_opening(OpenSession(1.0)), TICK, b"", MARK]
    assert lookalike[27:31] == heads[0], "a head stands where it would stand in a command for a session"
    in_sessions = [encode_write(1, 2, 1, command) for command in (*known, *others[:4])]
    assert without_heads([*known, *others, *in_sessions], heads) == [*others, *in_sessions[2:]]
    assert without_heads(known, ()) == known


def test_a_command_is_read_as_it_was_written():
    assert decode_command(encode_opening(OpenSession(1.5))) == OpenSession(1.5)
    for number in (0, 1, NUMBER_MAX):
        written = SessionWrite(number, 2, 3, b"command")
        assert decode_command(encode_write(number, 2, 3, b"command")) == written


# Applying.


class Fussy(StateMachine):
    log: list[str]

    def __init__(self) -> None:
        self.log = []

    @write
    def add(self, text: str) -> int:
        if text == "bad":
            raise ValueError(f"no {object()}")
        if text == "no":
            raise Rejected("refused", text)
        self.log.append(text)
        return len(self.log)


FUSSY = describe(Fussy)


def adds(session: int, sequence: int, text: str, settled: int = 1) -> bytes:
    return encode_write(session, sequence, settled, FUSSY.encode_write(Fussy.add, (text,)))


def run_of(first: int, payloads: list[bytes], time: float = 0.0) -> Run:
    return Run(Term(1), Index(first), Kind.COMMAND, time, tuple(payloads))


def fussy() -> Apply:
    apply = Apply(Fussy(), FUSSY)
    apply.apply([run_of(1, [encode_opening(OpenSession(10.0))])])
    return apply


def applied(apply: Apply, payloads: list[bytes], time: float = 0.0) -> list[object]:
    """Apply the payloads, and give what those who wait for each are told."""
    first = Index(apply.last_applied + 1)
    waiters = [Noted() for _ in payloads]
    apply.expect(first, Term(1), waiters)
    apply.apply([run_of(first, payloads, time)])
    assert all(len(waiter.told) == 1 for waiter in waiters)
    return [waiter.told[0] for waiter in waiters]


@pytest.mark.covers("pitfall 79")
def test_a_command_is_applied_once_and_its_reply_is_the_first_one_s():
    """Row 79."""
    apply = fussy()
    told = applied(apply, [adds(1, 1, "a"), adds(1, 2, "b"), adds(1, 1, "a"), adds(1, 2, "b")])
    assert told == [Value(b"\x01"), Value(b"\x02"), Value(b"\x01"), Value(b"\x02")]
    assert apply.machine.log == ["a", "b"]


def test_refusals_and_bugs_are_answers_too_and_what_a_bug_says_of_itself_is_not_kept():
    apply = fussy()
    refused, bug = applied(apply, [adds(1, 1, "no"), adds(1, 2, "bad")])
    again = applied(apply, [adds(1, 1, "no"), adds(1, 2, "bad")])
    assert refused == again[0] == Failure("Rejected", "refused", None, b"\x91\xa2no")
    assert (bug.error, "no <object object at" in bug.message) == ("MachineError", True)
    assert again[1] == Failure("MachineError", "the handler raised when this was first applied")
    assert apply.machine_errors == 1


def test_what_is_not_applied_says_why():
    apply = fussy()
    gap, unknown = applied(apply, [adds(1, 2, "b"), adds(5, 1, "a")])
    assert [type(error) for error in (gap, unknown)] == [Unavailable, SessionExpired]
    assert apply.machine.log == []


@pytest.mark.parametrize("payload", [MARK, MARK + b"x", encode_write(1, 4, 1, b"")[:-1]])
def test_what_another_version_wrote_stops_the_peer_before_it_parts_from_those_that_know_it(payload):
    apply = fussy()
    with pytest.raises(TypeError, match=r"what is not a command for sessions: .* Another version of quorate wrote it"):
        applied(apply, [adds(1, 1, "a"), payload, adds(1, 2, "b")])
    assert (apply.machine.log, apply.last_applied) == (["a"], 1)


def test_in_a_run_of_all_kinds_of_commands_each_is_told_its_own():
    apply = fussy()
    plain = FUSSY.encode_write(Fussy.add, ("plain",))
    opening = encode_opening(OpenSession(10.0))
    told = applied(
        apply, [plain, adds(1, 1, "a"), adds(1, 2, "b"), plain, opening, TICK, adds(6, 1, "c"), adds(1, 3, "d")]
    )
    assert told == [1, Value(b"\x02"), Value(b"\x03"), 4, 6, 7, Value(b"\x05"), Value(b"\x06")]
    told = applied(apply, [adds(1, 4, "no"), plain, adds(6, 3, "e"), adds(1, 5, "f"), adds(6, 1, "c")])
    assert [type(one) for one in told] == [Failure, int, Unavailable, Value, Value]
    assert apply.machine.log == ["plain", "a", "b", "plain", "c", "d", "plain", "f"]
    assert [list(apply.tables.sessions.by_id), apply.tables.sessions.by_id[6].next] == [[1, 6], 2]


def test_a_session_that_another_one_ends_in_the_same_run_is_written_in_no_more(monkeypatch):
    monkeypatch.setattr("quorate.sessions.SESSIONS_MAX", 1)
    apply = fussy()
    first, opened, late = applied(apply, [adds(1, 1, "a"), encode_opening(OpenSession(10.0)), adds(1, 2, "b")])
    assert (first, opened, type(late), apply.machine.log) == (Value(b"\x01"), 3, SessionExpired, ["a"])


@pytest.mark.covers("pitfall 67")
def test_sessions_are_in_the_snapshot():
    """Row 67: whoever goes on from it knows which writes were applied, and what they were answered."""
    apply = fussy()
    applied(apply, [adds(1, 1, "a")])
    chunks = apply.freeze()
    applied(apply, [adds(1, 2, "b")])  # It is a view of one point in time, of the tables too.
    again = Apply(Fussy(), FUSSY)
    again.restore_to(restored(FUSSY, chunks), Snapshot(Index(2), Term(1), 0.0, Index(1), b""))
    assert applied(again, [adds(1, 1, "a"), adds(1, 2, "b")]) == [Value(b"\x01"), Value(b"\x02")]
    assert again.machine.log == apply.machine.log == ["a", "b"]
    assert encode_tables(again.tables) == encode_tables(apply.tables)


def test_a_session_of_a_group_that_was_wiped_or_set_back_is_none_of_the_group_that_took_its_place():
    """Whoever wrote on in it had its writes answered, and not applied, where another client had a session at its index.

    Both groups have their first session at index 1; the second one was formed a moment later.
    """
    ids: list[int] = []
    for time in (1.7e9, 1.7e9 + 0.001):
        apply = Apply(Fussy(), FUSSY)
        ids += applied(apply, [encode_opening(OpenSession(10.0))], time)
    [write] = applied(apply, [adds(ids[1], 1, "a")], 1.7e9 + 1)
    [stray] = applied(apply, [adds(ids[0], 1, "b")], 1.7e9 + 1)
    assert (write, type(stray), apply.machine.log) == (Value(b"\x01"), SessionExpired, ["a"])


def test_the_writes_of_a_log_whose_sessions_were_known_by_their_index_are_applied():
    """These bytes stand in the logs of before: whoever reads them otherwise loses every write of a client in them."""
    apply = Apply(Fussy(), FUSSY)
    opening = b"\xc1o" + struct.pack(">d", 600.0)
    write = b"\xc1w" + struct.pack(">QQQ", 1, 1, 1) + FUSSY.encode_write(Fussy.add, ("a",))
    assert applied(apply, [opening, write], 1.7e9) == [1, Value(b"\x01")]
    [later] = applied(apply, [encode_opening(OpenSession(600.0))], 1.7e9)
    assert applied(apply, [adds(later, 1, "b"), adds(1, 2, "c")], 1.7e9 + 1) == [Value(b"\x02"), Value(b"\x03")]
    assert apply.machine.log == ["a", "b", "c"]
    assert encode_opening(decode_command(opening)) == opening


def test_no_two_sessions_of_a_group_have_one_id():
    """Also where many are opened in one entry's time, where the clock stands still, and where it shows nonsense."""
    apply, ids = Apply(Fussy(), FUSSY), list[int]()
    for time in (0.0, 1.7e9, 1.7e9, 1.7e9 + 1e-6, 1e12, 1e300):
        ids += applied(apply, [encode_opening(OpenSession(1e308))] * 3, time)
    assert len(set(ids)) == len(apply.tables.sessions.by_id) == 18
    assert all(0 < number < 2**63 for number in ids)


@pytest.mark.parametrize("refused", [2**63, NUMBER_MAX])
def test_no_place_comes_from_the_network_behind_which_there_is_none_that_a_snapshot_can_hold(refused):
    """MessagePack has no number behind the largest: with it in a session no peer could take a snapshot any more."""
    command = FUSSY.encode_write(Fussy.add, ("a",))
    far = WriteCall(command, 1.0, 1, refused, refused)
    with pytest.raises(FrameError):
        decode_frame(encode_frame(FrameKind.REQUESTS, [Request(1, "peer1", far)]), 1 << 20)
    last = WriteCall(command, 1.0, 1, 2**63 - 1, 2**63 - 1)
    frame = encode_frame(FrameKind.REQUESTS, [Request(1, "peer1", last)])
    assert decode_frame(frame, 1 << 20) == (FrameKind.REQUESTS, [Request(1, "peer1", last)])
    apply = fussy()
    assert applied(apply, [adds(1, last.sequence, "a", last.settled)]) == [Value(b"\x01")]
    again = restored(FUSSY, apply.freeze())
    assert encode_tables(again.tables) == encode_tables(apply.tables)


@pytest.mark.covers("pitfall 80")
def test_sessions_expire_by_the_time_in_the_log_whatever_the_clocks_say(monkeypatch):
    """Row 80."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    one, two = fussy(), fussy()
    for apply in (one, two):
        [first] = applied(apply, [adds(1, 1, "a")], time=10.0)
        [late] = applied(apply, [adds(1, 2, "b")], time=20.1)
        assert (first, type(late)) == (Value(b"\x01"), SessionExpired)
    assert encode_tables(one.tables) == encode_tables(two.tables)


@pytest.mark.parametrize("seed", range(20))
def test_what_takes_effect_is_what_a_simpler_description_says(seed):
    """``quorate.testing.effects`` was written without a look at ``quorate.sessions``."""
    dice = Random(seed)
    apply, runs, now = Apply(Fussy(), FUSSY), [], 0.0
    for _ in range(40):
        now += dice.choice([0.0, 0.5, 2.0])
        payloads = []
        for _ in range(dice.randrange(1, 5)):
            text = str(len(runs) * 10 + len(payloads))
            session = dice.randrange(1, apply.last_applied + 2)
            sequence = dice.randrange(1, 6)
            payloads.append(
                dice.choice(
                    [
                        encode_opening(OpenSession(dice.choice([1.0, 3.0]))),
                        FUSSY.encode_write(Fussy.add, (text,)),
                        adds(session, sequence, text, dice.randrange(1, sequence + 1)),
                        adds(session, sequence, text, dice.randrange(1, sequence + 1)),
                    ]
                )
            )
        runs.append(run_of(apply.last_applied + 1, payloads, now))
        apply.apply(runs[-1:])
    found = [command for _, _, command in effects(runs)]
    assert [FUSSY.encode_write(Fussy.add, (text,)) for text in apply.machine.log] == found


# Clients.


def client_of(world: World, peers: list[Peer[KV]], **options: Any) -> Client[KV]:
    """Connect to a group of the world."""
    addresses = [peer.address for peer in peers]
    transport = partial(MemoryTransport, world.network, "client:1", world.settings)
    return connect(KV, *addresses, settings=world.settings, transport=transport, random=Random(3).random, **options)


def lose_replies(world: World, share: float, dice: Random) -> list[int]:
    """Lose a share of the replies that nodes send; give how many, as it grows."""
    lost = [0]
    deliver = world.network.deliver

    def losing(source: str, target: str, frame: bytes, arrive) -> None:
        kind, _ = decode_frame(frame, 2**30)
        if kind is FrameKind.REPLIES and dice.random() < share:
            lost[0] += 1
            return
        deliver(source, target, frame, arrive)

    world.network.deliver = losing
    return lost


QUICK = Settings(call_timeout=20.0)


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_fifth_of_the_replies_lost_and_each_write_applied_once(exactly_once):
    """And without sessions it is told of each that its outcome is not known: it is the sessions that do it."""

    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers, exactly_once=exactly_once)
        lost = lose_replies(world, 0.2, Random(4))
        calls = [kv.write(KV.append, "k", f"{n}.") for n in range(300)]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        unknown = [reply for reply in replies if isinstance(reply, OutcomeUnknown)]
        [value] = {peer._seat.apply.machine.entries["k"] for peer in peers[:1]}
        found = [int(token) for token in value.split(".") if token]
        assert lost[0] > 0
        if exactly_once:
            assert (unknown, found) == ([], list(range(300)))
            assert replies[-1] == value
        else:
            assert unknown
        await kv.close()

    run_world(3, QUICK, tell)


def test_writes_of_one_client_keep_their_order_over_changes_of_the_leader():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        await kv.write(KV.set, "k", "")

        async def change() -> None:
            for _ in range(3):
                leader = next(peer for peer in peers if peer.status().role == "leader")
                await leader.transfer_leadership()
                await asyncio.sleep(0.1)

        async def write_many() -> None:
            for n in range(0, 200, 20):
                await asyncio.gather(*(kv.write(KV.append, "k", f"{n + place}.") for place in range(20)))
                await asyncio.sleep(0.02)

        await asyncio.gather(change(), write_many())
        value = await kv.read(KV.get, "k")
        assert value == "".join(f"{n}." for n in range(200))
        await kv.close()

    run_world(3, QUICK, tell)


def test_a_session_that_ended_in_idleness_is_replaced_and_one_that_ended_in_doubt_is_told():
    """The log's time must pass for that; here somebody else's writes carry it."""
    now = [1.7e9]

    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        for peer in peers:
            peer._seat._outside.wall = lambda: now[0]
        kv = client_of(world, peers)
        assert await kv.write(KV.append, "k", "a") == "a"
        now[0] += 601.0
        assert await kv.write(KV.append, "k", "b") == "ab"
        lost = lose_replies(world, 1.0, Random(1))
        doubtful = asyncio.create_task(kv.write(KV.append, "k", "c"))
        await world.until(lambda: lost[0])
        now[0] += 601.0
        del world.network.deliver  # All replies arrive again.
        with pytest.raises(SessionExpired):
            await doubtful
        assert not kv._tickets._session, "the next write begins in another"
        assert await kv.write(KV.append, "k", "d") == "abcd"
        await kv.close()

    run_world(3, QUICK, tell)


def test_more_writes_at_once_than_answers_are_kept_are_refused():
    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1")
        kv = client_of(world, peers)
        await kv.write(KV.set, "k", "")
        replies = await asyncio.gather(
            *(kv.write(KV.set, "k", str(n)) for n in range(ANSWERS_MAX + 5)), return_exceptions=True
        )
        assert [type(reply).__name__ for reply in replies[-6:]] == ["str", *["Overloaded"] * 5]
        await kv.close()

    run_world(1, QUICK, tell)


@pytest.mark.parametrize("loses", ["stop", "transfer", "cut"])
def test_many_writes_under_way_survive_the_loss_of_their_leader_in_order(loses):
    """Those that come to the new leader before the first of them are refused: they must not fill its log with tries."""
    count = 500

    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        kv = client_of(world, peers)
        await kv.write(KV.set, "k", "")
        before = peers[1].status().last_index
        calls = [asyncio.create_task(kv.write(KV.append, "k", f"{n}.")) for n in range(count)]
        await asyncio.sleep(0.0005)
        match loses:
            case "stop":
                await peers[0].stop()
            case "transfer":
                await peers[0].transfer_leadership()
            case "cut":
                world.network.isolate(peers[0].address.node)
        replies = await asyncio.gather(*calls)
        assert replies[-1] == "".join(f"{n}." for n in range(count))
        assert peers[1].status().last_index - before < 3 * count
        await kv.close()

    run_world(3, Settings(call_timeout=5.0), tell)


@pytest.mark.parametrize("seed", range(5))
def test_writes_of_one_client_keep_their_order_over_the_end_of_its_session(seed):
    now = [1.7e9]

    async def tell(world: World) -> None:
        peers = await world.form(KV, "peer1", "peer2", "peer3")
        for peer in peers:
            peer._seat._outside.wall = lambda: now[0]
        kv = client_of(world, peers)
        await kv.write(KV.set, "k", "")
        now[0] += 601.0
        lose_replies(world, 0.5, Random(seed))
        calls = []
        for n in range(40):
            calls.append(asyncio.create_task(kv.write(KV.append, "k", f"{n}.")))
            await asyncio.sleep(0.002)
        await asyncio.gather(*calls, return_exceptions=True)
        del world.network.deliver
        found = [int(token) for token in (await kv.read(KV.get, "k")).split(".") if token]
        assert found == sorted(found)
        await kv.close()

    run_world(3, QUICK, tell)


# A client's own side.


class Opener:
    """Opens sessions when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.opened = 6

    async def open(self) -> int:
        await self.gate.wait()
        self.opened += 1
        return self.opened


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


async def seated(tickets: Tickets, opener: Opener, ticket: Ticket) -> tuple[int, int]:
    if not tickets.is_seated(ticket):
        await tickets.seat(ticket, opener.open, soon())
    return ticket.session, ticket.sequence


async def left_behind(count: int) -> tuple[Tickets, Opener, list[Ticket]]:
    """Give writes whose session, the first one, ended before they were answered."""
    tickets, opener = Tickets(), Opener()
    opener.gate.set()
    drawn = [tickets.draw() for _ in range(count)]
    for ticket in drawn:
        await seated(tickets, opener, ticket)
    tickets.expired(7)
    return tickets, opener, drawn


async def test_a_write_made_as_the_session_opens_comes_after_those_that_wait_for_it():
    tickets, opener = Tickets(), Opener()
    tasks = [asyncio.create_task(seated(tickets, opener, tickets.draw())) for _ in range(3)]
    await asyncio.sleep(0)
    opener.gate.set()
    await asyncio.sleep(0)
    last = await seated(tickets, opener, tickets.draw())
    assert [*await asyncio.gather(*tasks), last] == [(7, 1), (7, 2), (7, 3), (7, 4)]


async def test_all_who_wait_for_the_session_are_let_go_in_one_turn_of_the_loop():
    tickets, opener = Tickets(), Opener()
    turns: list[int] = []
    turn = 0

    async def write() -> None:
        await seated(tickets, opener, tickets.draw())
        turns.append(turn)

    writes = [asyncio.create_task(write()) for _ in range(100)]
    await asyncio.sleep(0)
    opener.gate.set()
    while len(turns) < len(writes):
        turn += 1
        await asyncio.sleep(0)
    assert turns[-1] - turns[0] <= 1  # The one that opens it, and the others.


async def test_when_a_session_cannot_be_opened_the_next_one_tries_and_the_deadline_of_each_is_its_own():
    tickets, loop = Tickets(), asyncio.get_running_loop()
    tries: list[str] = []

    async def write(name: str, seconds: float) -> str:
        deadline = loop.time() + seconds

        async def open_session() -> int:
            tries.append(name)
            if name == "third":
                return 7
            await asyncio.sleep(deadline - loop.time())
            raise Unavailable("nobody is there")

        ticket = tickets.draw()
        try:
            await tickets.seat(ticket, open_session, deadline)
        except Unavailable as error:
            tickets.give_back(ticket, finds_leader=False)
            return str(error)
        return f"{name} {ticket.sequence}"

    names = (("first", 0.02), ("second", 0.01), ("third", 5.0), ("fourth", 5.0))
    told = await asyncio.gather(*(write(name, seconds) for name, seconds in names))
    late = "no session could be opened in time; nothing was written"
    assert told == ["nobody is there", late, "third 1", "fourth 2"]
    assert tries == ["first", "third"]


async def test_what_is_settled_follows_the_first_write_that_needs_an_answer():
    tickets, opener = Tickets(), Opener()
    opener.gate.set()
    drawn = [tickets.draw() for _ in range(5)]
    assert [await seated(tickets, opener, ticket) for ticket in drawn] == [(7, place) for place in range(1, 6)]
    for given_back, settled in ((2, 1), (1, 3), (4, 3), (3, 5)):
        tickets.give_back(drawn[given_back - 1], finds_leader=True)
        assert tickets.settled(drawn[4]) == settled


async def test_no_write_is_made_that_would_have_the_group_drop_the_answer_of_the_first_that_needs_one():
    """The group keeps the answers of the last places, and not of those that wait: one may wait long."""
    tickets, opener = Tickets(), Opener()
    opener.gate.set()
    first, second, *others = [tickets.draw() for _ in range(ANSWERS_MAX)]
    for ticket in (first, second, *others):
        await seated(tickets, opener, ticket)
    for ticket in others:
        tickets.give_back(ticket, finds_leader=True)
    with pytest.raises(Overloaded, match="or were made behind one that does"):
        tickets.draw()
    tickets.give_back(first, finds_leader=True)
    last = tickets.draw()
    assert (last.sequence, second.sequence + ANSWERS_MAX) == (ANSWERS_MAX + 1, ANSWERS_MAX + 2)
    with pytest.raises(Overloaded):
        tickets.draw()
    tickets.give_back(second, finds_leader=True)
    drawn = [tickets.draw() for _ in range(ANSWERS_MAX - 1)]
    assert drawn[-1].sequence == last.sequence + ANSWERS_MAX - 1
    tickets.expired(7)
    for ticket in (last, *drawn[1:]):
        tickets.give_back(ticket, finds_leader=True)
    assert await seated(tickets, opener, drawn[0]) == (8, 1)
    assert [tickets.draw().sequence for _ in range(ANSWERS_MAX - 1)] == [*range(2, ANSWERS_MAX + 1)]
    with pytest.raises(Overloaded):
        tickets.draw()
    tickets.expired(8)
    with pytest.raises(Overloaded):  # All of them need a place in the next one.
        tickets.draw()


async def test_what_an_ended_session_left_is_seated_before_what_comes_later_and_in_its_order():
    tickets, opener, (first, second, third) = await left_behind(3)
    tickets.expired(7)  # Each of them is told.
    later, after_it = (asyncio.create_task(seated(tickets, opener, ticket)) for ticket in (tickets.draw(), third))
    await asyncio.sleep(0.01)
    assert not later.done()  # The first of them may have been applied, for all that is known.
    assert not after_it.done()
    tickets.give_back(first, finds_leader=True)
    assert await seated(tickets, opener, second) == (8, 1)
    assert (await after_it, await later) == ((8, 2), (8, 3))
    assert [tickets.settled(ticket) for ticket in (first, second, third)] == [1, 1, 1]


async def test_nothing_that_an_ended_session_left_overtakes_in_the_next_one_what_does_not_know_of_it_yet():
    tickets, opener, (first, second, third) = await left_behind(3)
    assert await seated(tickets, opener, first) == (8, 1)
    waiting = asyncio.create_task(seated(tickets, opener, third))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await seated(tickets, opener, second) == (8, 2)
    assert await waiting == (8, 3)


async def test_a_session_that_cannot_be_opened_is_opened_by_the_next():
    tickets, opener = Tickets(), Opener()
    first, second = tickets.draw(), tickets.draw()
    waiting = asyncio.create_task(seated(tickets, opener, second))
    with pytest.raises(Unavailable, match="no session could be opened in time"):
        await tickets.seat(first, opener.open, 0.0)
    tickets.give_back(first, finds_leader=False)
    opener.gate.set()
    assert await waiting == (7, 1)


async def test_writes_whose_tries_failed_are_tried_again_in_their_order_when_the_first_is_answered():
    tickets, opener = Tickets(), Opener()
    opener.gate.set()
    drawn = [tickets.draw() for _ in range(4)]
    for ticket in drawn:
        await seated(tickets, opener, ticket)
    gone: list[int] = []

    async def fail(ticket: Ticket) -> None:
        assert await tickets.turn(ticket, soon())
        gone.append(ticket.sequence)

    assert not await tickets.turn(drawn[0], soon())  # It looks for the leader.
    tasks = [asyncio.create_task(fail(ticket)) for ticket in (drawn[3], drawn[1], drawn[2])]
    await asyncio.sleep(0)
    tickets.give_back(drawn[0], finds_leader=False)  # It gave up: the next one looks.
    await asyncio.sleep(0)
    assert gone == [2]
    tickets.give_back(drawn[1], finds_leader=True)
    await asyncio.gather(*tasks)
    assert gone == [2, 3, 4]
    assert tickets.settled(drawn[3]) == 3


async def test_waiting_for_a_turn_ends_with_the_deadline_and_with_the_session():
    tickets, opener = Tickets(), Opener()
    opener.gate.set()
    first, second = tickets.draw(), tickets.draw()
    for ticket in (first, second):
        await seated(tickets, opener, ticket)
    assert await tickets.turn(second, 0.0)
    waiting = asyncio.create_task(tickets.turn(second, soon()))
    await asyncio.sleep(0)
    tickets.expired(7)
    assert await waiting
    assert not await tickets.turn(second, soon())
