"""``Raft``: its inputs and outputs at their edges, and local misuse."""

from __future__ import annotations

import pytest

from quorate.core.configuration import Configuration, encode_configuration
from quorate.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    RequestPreVote,
    RequestPreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from quorate.core.raft import Raft
from quorate.core.ready import EventKind
from quorate.errors import Corrupted, InvalidConfiguration, NotLeader
from quorate.settings import Settings
from quorate.testing.drive import lead, make_append, make_configuration, make_member, obey, receive, start
from quorate.types import Address, HardState, Index, Kind, PeerId, Snapshot, Status, Stored, Term


def new(stored, name="1"):
    return Raft(PeerId(name), Settings(), stored, lambda: 0.0, 0.0)


# Starting.


def test_a_start_from_disk_takes_up_term_vote_and_log_and_knows_of_no_commit():
    raft = start(log=(1, 2, 2), term=3, voted_for="2")
    assert raft.state.hard_state == raft.state.durable == HardState(Term(3), PeerId("2"))
    assert (raft.state.log.last, raft.state.persisted_index, raft.state.commit_index) == (3, 3, 0)
    ready = raft.ready()
    assert (ready.hard_state, ready.entries, ready.commit_index) == (None, (), 0)


def test_the_first_ready_tells_of_the_start_and_writes_nothing():
    raft = new(Stored())
    ready = raft.ready()
    assert not ready.writes
    [event] = ready.events
    assert (event.kind, event.text) == (EventKind.STARTED, "started with 0 entries in term 0 -> follower")


def test_a_stored_configuration_that_cannot_be_read_is_corruption():
    with pytest.raises(Corrupted, match="a configuration entry in the log is not a configuration"):
        new(Stored(HardState(Term(1)), ((Index(1), Term(1)),), Index(1), ((Index(1), b"\xc1"),)))


# The first configuration.


def test_the_first_configuration_is_the_same_entry_on_every_member():
    runs, deadlines = [], []
    for name in "123":
        raft = start(name, log=())
        raft.form(make_configuration(3), 5.0)
        ready = raft.ready()
        assert ready.hard_state == HardState(Term(1), None)
        assert raft.state.configuration == make_configuration(3)
        runs += ready.entries
        deadlines.append(raft.deadline())
    # The last to be formed campaigns at once; the others only if that comes to nothing.
    assert deadlines[2] == 5.0
    assert min(deadlines[:2]) >= 5.0 + raft.state.settings.election_timeout_min
    assert runs[0] == runs[1] == runs[2]
    assert (runs[0].term, runs[0].first, runs[0].kind, runs[0].time) == (1, 1, Kind.CONFIGURATION, 0.0)


def test_the_same_configuration_again_changes_nothing():
    raft = start()
    raft.form(make_configuration(3), 5.0)
    assert not raft.ready().writes


def test_a_peer_that_has_seen_a_later_term_keeps_it():
    raft = start(log=(), term=0)
    receive(raft, "2", make_append("2", 7, (4, 4)))
    raft.form(make_configuration(3), 0.0)
    assert raft.state.term == 7


def reversed_configuration():
    configuration = make_configuration(2)
    return Configuration(configuration.group, configuration.members[::-1])


def doubled_configuration():
    configuration = make_configuration(2)
    return Configuration(configuration.group, (configuration.members[0], configuration.members[0]))


def joint_configuration():
    members = make_configuration(3).members
    return Configuration("group", members, members[:1])


@pytest.mark.parametrize(
    ("log", "configuration", "reason"),
    [
        ((1,), make_configuration(5), "already belongs to the group of 1, 2, 3"),
        ((), Configuration("group", make_configuration(3).members[1:]), "not among the members 2, 3"),
        ((), reversed_configuration(), "in the order of their names"),
        ((), doubled_configuration(), "distinct ids and names"),
        ((), joint_configuration(), "^a first configuration cannot be in the middle of a change$"),
    ],
)
def test_configurations_that_are_refused(log, configuration, reason):
    raft = start(log=log)
    with pytest.raises(InvalidConfiguration, match=reason):
        raft.form(configuration, 0.0)
    assert not raft.ready().writes


def test_a_log_without_a_configuration_is_not_empty():
    raft = start(log=(), term=0)
    receive(raft, "2", make_append("2", 1, entries=[1]))
    with pytest.raises(InvalidConfiguration, match="already belongs to the group of none"):
        raft.form(make_configuration(3), 0.0)


def test_events_have_the_kind_by_which_they_are_counted():
    raft = start(log=(1, 1))
    raft.receive(PeerId("2"), RequestVote(Term(2), PeerId("2"), Index(2), Term(1)), 10.0)
    payload = encode_configuration(make_configuration(3))
    snapshot = Snapshot(Index(2), Term(1), 0.0, Index(1), payload)
    raft.receive(PeerId("2"), InstallSnapshot(Term(2), PeerId("2"), snapshot), 10.0)
    events = raft.ready().events
    assert [event.kind for event in events] == [
        EventKind.TERM,
        EventKind.VOTE,
        EventKind.LEADER,
        EventKind.SNAPSHOT,
    ]
    assert {event.term for event in events} == {2}


# Asking who does not lead.


def test_proposals_are_refused_with_the_leader_if_it_is_known():
    raft = start()
    with pytest.raises(NotLeader, match="an election is in progress") as unknown:
        raft.propose([b"a"], 0.0)
    assert unknown.value.redirect is None
    receive(raft, "2", make_append("2", 1, (1, 1)))
    with pytest.raises(NotLeader, match="1 does not lead; try 2@") as known:
        raft.propose([b"a"], 0.0)
    assert known.value.redirect == Address("2", "127.0.0.1", 7002)
    assert raft.state.log.last == 1


def test_the_address_of_a_leader_that_the_configuration_does_not_know_is_not_known():
    raft = start()
    receive(raft, "stranger", make_append("stranger", 1, (1, 1)))
    assert raft.leader_address() is None
    assert start(log=()).leader_address() is None


# Messages that change nothing, not even the term.


@pytest.mark.covers("pitfall 78")
@pytest.mark.parametrize(
    "message",
    [
        make_append("3", 9, (1, 1)),
        RequestVote(Term(9), PeerId("3"), Index(9), Term(9)),
        RequestPreVote(Term(9), PeerId("3"), Index(9), Term(9)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_nobody_speaks_for_another(message):
    """Row 78: nor for us."""
    raft = start("1")
    raft.receive(PeerId("2"), message, 10.0)
    ready = raft.ready()
    assert (ready.messages, ready.messages_after_persist, ready.hard_state) == ((), (), None)
    [event] = ready.events
    assert (event.kind, event.text) == (EventKind.IGNORED, "2 speaks for 3 -> ignore")
    raft = start("3")
    assert receive(raft, "3", message, 10.0) == []
    assert raft.state.term == 1


def test_only_the_leader_itself_asks_for_a_campaign_of_whatever_term():
    raft = start()
    receive(raft, "3", TimeoutNow(Term(9), PeerId("2")))
    assert raft.state.term == 1


def test_what_no_leader_can_send_is_noted():
    raft = start()
    raft.receive(PeerId("2"), AppendEntries(Term(2), PeerId("2"), Index(-1), Term(0), Index(0)), 0.0)
    [event] = raft.ready().events
    assert (event.kind, event.text) == (EventKind.IGNORED, "2 sends what no leader can -> ignore")


def test_a_leader_hears_no_other_leader_of_its_term():
    raft = start()
    lead(raft)
    assert receive(raft, "2", make_append("2", 2, (1, 1), [2, 2])) == []
    assert raft.state.leader == "1"


@pytest.mark.covers("pitfall 5", "pitfall 78")
@pytest.mark.parametrize(
    "reply",
    [
        AppendEntriesReply(Term(9), False, Index(0)),
        RequestVoteReply(Term(9), False),
        RequestPreVoteReply(Term(9), Term(2), False),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_replies_of_strangers_tell_no_term(reply):
    asking, leading = start(), start()
    asking.tick(10.0)
    lead(leading)
    for raft in (asking, leading):
        before = raft.state.term
        receive(raft, "stranger", reply)
        assert raft.state.term == before


# Time.


def test_ticks_before_the_deadline_are_harmless():
    raft = start()
    raft.tick(0.1)
    assert obey(raft) == []
    lead(raft)
    raft.tick(raft.state.now)
    assert obey(raft) == []


def test_a_peer_that_is_no_member_never_campaigns():
    for raft in (start("9", peers=3), start(log=())):
        assert raft.deadline() == float("inf")
        raft.tick(1000.0)
        assert obey(raft) == []


# Durability.


@pytest.mark.parametrize(
    "give",
    [
        lambda raft, now: raft.tick(now),
        lambda raft, now: raft.propose([b"x"], now),
        lambda raft, now: raft.read(now),
        lambda raft, now: raft.transfer(PeerId("2"), now),
        lambda raft, now: raft.change(raft.state.configuration.members, now),
        lambda raft, now: raft.form(raft.state.configuration, now),
        lambda raft, now: raft.receive(PeerId("2"), AppendEntriesReply(Term(2), True, Index(2)), now),
        lambda raft, now: raft.unreachable(PeerId("2"), now),
    ],
    ids=["tick", "propose", "read", "transfer", "change", "form", "receive", "unreachable"],
)
def test_every_input_that_says_what_time_it_is_is_believed(give):
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)))
    now = raft.state.now + 0.01
    give(raft, now)
    assert raft.state.now == now


def test_persisted_names_one_ready_and_all_before_it():
    raft = start()
    numbers = []
    for term in (2, 3):
        raft.receive(PeerId("2"), make_append("2", term, (1, 1), [term]), 0.0)
        numbers.append(raft.ready().number)
    raft.persisted(numbers[1])
    assert (raft.state.persisted_index, raft.state.durable) == (2, HardState(Term(3)))
    assert not raft.state.unpersisted
    raft.persisted(numbers[0])  # late, and known
    assert raft.state.durable == HardState(Term(3))


# Status.


def test_status_of_a_new_peer():
    assert start(log=()).status() == Status(
        name="",
        id=PeerId("1"),
        group="",
        role="follower",
        term=Term(0),
        leader=None,
        configuration=(),
        commit_index=Index(0),
        last_applied=Index(0),
        last_index=Index(0),
        why="it has no configuration yet: form a group, by quorate form or set_configuration, or start it with join; "
        "if it was a member before, this is not its data directory",
    )


def test_status_of_a_leader():
    raft = start(peers=1)
    lead(raft)
    status = raft.status()
    assert (status.name, status.group, status.role, status.term) == ("1", "group", "leader", 2)
    assert status.leader == Address("1", "127.0.0.1", 7001)
    assert status.configuration == (status.leader,)
    assert (status.commit_index, status.last_index, status.why) == (2, 2, None)


def test_a_leader_says_how_long_ago_it_heard_each_member_and_who_just_answered_it():
    raft = start()
    lead(raft)
    receive(raft, "2", AppendEntriesReply(Term(2), True, Index(2)), raft.state.now + 0.125)
    now = raft.state.now + 0.25
    raft.tick(now)
    heard = {member.address.name: member.heard for member in raft.status().members}
    assert heard == pytest.approx({"1": 0.0, "2": 0.25, "3": 0.375})
    assert [member.is_installing for member in raft.status().members] == [False] * 3
    assert [member.heard for member in start().status().members] == [None] * 3


def test_status_says_why_there_is_no_leader():
    assert start("9", peers=2).status().why == "it is not a member of the group of 1, 2"
    assert start().status().why == "it has heard no leader in term 1; an election starts in 0.3 s"


# A disk that hangs (row 75).


def hung_leader(commands):
    """Lead, and propose what our own disk never confirms; the other two acknowledge it."""
    raft = start()
    lead(raft)
    raft.propose(commands, raft.state.now)
    raft.ready()
    return raft


def test_what_the_others_commit_still_counts_until_our_own_disk_has_it():
    raft = hung_leader([b"x" * 84])
    waiting = raft.state.uncommitted_bytes
    for follower in ("2", "3"):
        reply = AppendEntriesReply(raft.state.term, success=True, match_index=raft.state.log.last)
        raft.receive(PeerId(follower), reply, raft.state.now)
    assert raft.state.commit_index == raft.state.log.last
    assert (waiting, raft.state.uncommitted_bytes) == (116, 100)
    raft.persisted(raft.state.unpersisted[-1].number)
    assert raft.state.uncommitted_bytes == 0


@pytest.mark.covers("pitfall 75")
def test_a_leader_whose_disk_confirms_nothing_for_long_steps_down():
    raft = hung_leader([b"x"])
    settings = raft.state.settings
    begin = now = raft.state.now
    while raft.status().role == "leader" and now < begin + 60:
        now += settings.heartbeat_interval
        raft.tick(now)
        for follower in ("2", "3"):
            reply = AppendEntriesReply(raft.state.term, success=True, match_index=Index(0))
            raft.receive(PeerId(follower), reply, now)
    assert raft.status().role == "follower"
    assert now - begin >= 5 * settings.election_timeout_max
    assert raft.ready().events[-1].text == "our disk has confirmed nothing for long -> follower"


@pytest.mark.covers("pitfall 75")
def test_a_leader_that_goes_on_writing_to_a_hung_disk_steps_down_as_soon():
    raft = hung_leader([b"x"])
    settings, begin = raft.state.settings, raft.state.now
    now = begin
    while raft.status().role == "leader" and now < begin + 60:
        raft.propose([b"y"], now)
        raft.ready()
        now += settings.heartbeat_interval
        raft.tick(now)
        for follower in ("2", "3"):
            reply = AppendEntriesReply(raft.state.term, success=True, match_index=Index(0))
            raft.receive(PeerId(follower), reply, now)
    assert raft.status().role == "follower"
    assert raft.ready().events[-1].text == "our disk has confirmed nothing for long -> follower"


def test_a_leader_whose_disk_hangs_leads_on_where_nobody_else_could():
    """It would be elected anew at once, by its own vote alone, and step down again: a term for each time."""
    raft = start(peers=1)
    lead(raft)
    raft.change([make_member("1"), make_member("2", "learner")], raft.state.now)
    obey(raft)
    raft.propose([b"x"], raft.state.now)
    number, term, last = raft.ready().number, raft.state.term, raft.state.log.last
    begin = raft.state.now
    while raft.state.now < begin + 20 * raft.state.settings.election_timeout_max:
        raft.tick(raft.deadline())
        raft.ready()
    assert (raft.status().role, raft.state.term, raft.state.log.last) == ("leader", term, last)
    raft.persisted(number)
    assert raft.state.commit_index == last
