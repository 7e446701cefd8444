"""The exploration visits all there is, finds what is planted, and tells it as a scenario that does it again."""

from __future__ import annotations

import argparse

import msgspec
import pytest

from quorate.core import election, replication, snapshot
from quorate.core.quorum import is_quorum, reached_by_quorum
from quorate.core.state import commit, send
from quorate.testing.exploration import command
from quorate.testing.exploration.copies import copy_peer, peer_key
from quorate.testing.exploration.inputs import Input, give
from quorate.testing.exploration.profiles import PROFILES, Profile, first_peers
from quorate.testing.exploration.search import Search
from quorate.testing.exploration.story import story
from quorate.testing.scenario import ScenarioError, run_text
from quorate.types import Index, PeerId

STATES_MAX = 100_000
TINY = Profile(name="tiny", voters=2, logs=((1,), (1,)), terms_max=2, flight_max=2, commands_max=1)
FIGURE_8 = Profile(name="figure_8", logs=((1, 2), (1, 2), (1, 3)), term=3, terms_max=5, flight_max=1)
CRASH = Profile(name="crash", terms_max=2, flight_max=2, crashes_max=1, writes_max=1)
JOINT = Profile(name="joint", terms_max=2, flight_max=1, change=("1", "2"))
CONFLICT = Profile(
    name="conflict",
    logs=((1, 2, 2), (1, 2, 2), (1, 1, 1, 1, 1)),
    term=2,
    terms_max=3,
    flight_max=1,
    snapshots_max=1,
)
FAULTS = {}


# What there is.


@pytest.mark.parametrize(
    "profile",
    [
        TINY,
        Profile(name="crash", voters=2, logs=((1,), (1,)), terms_max=2, flight_max=1, crashes_max=1, writes_max=1),
        msgspec.structs.replace(
            JOINT, name="replace", voters=2, logs=((1,), (1,)), newcomers=("3",), change=("1", "3")
        ),
        Profile(name="pre-votes", voters=2, logs=((1,), (1,)), terms_max=2, flight_max=2, pre_votes_fly=True),
    ],
    ids=lambda profile: profile.name,
)
def test_a_small_world_is_explored_to_its_end(profile):
    report = Search(profile).run(STATES_MAX)
    assert report.failure is None
    assert report.is_complete
    assert report.states > 100
    assert report.widest <= report.states <= report.moves


def test_what_is_found_does_not_depend_on_the_way():
    first, second = Search(TINY).run(STATES_MAX), Search(TINY).run(STATES_MAX)
    assert (first.states, first.moves, first.depth) == (second.states, second.moves, second.depth)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_profile_begins_well(profile):
    report = Search(profile).run(1000)
    assert report.failure is None


def test_more_states_than_allowed_are_not_complete():
    report = Search(TINY).run(50)
    assert not report.is_complete
    assert report.failure is None


# Copies and keys.


def campaigning():
    """Give a peer that has asked for votes, and the inputs that led there."""
    profile = msgspec.structs.replace(TINY, pre_votes_fly=True)
    return profile, give(first_peers(profile)[PeerId("1")], Input("timeout", PeerId("1")), profile)


def test_a_copy_is_the_same_and_of_its_own():
    _, outcome = campaigning()
    before = peer_key(outcome.peer, with_ages=True)
    copied = copy_peer(outcome.peer)
    assert peer_key(copied, with_ages=True) == before
    copied.raft.state.role.votes[PeerId("2")] = True
    copied.raft.state.log.append(copied.raft.state.term, 1)
    copied.log.entries.clear()
    assert peer_key(outcome.peer, with_ages=True) == before
    assert peer_key(copied, with_ages=True) != before


def test_an_input_leaves_the_peer_before_it_alone():
    profile, outcome = campaigning()
    first = first_peers(profile)[PeerId("1")]
    before = peer_key(first, with_ages=True)
    give(first, Input("timeout", PeerId("1")), profile)
    assert peer_key(first, with_ages=True) == before != peer_key(outcome.peer, with_ages=True)


def test_instants_do_not_tell_peers_apart_but_what_they_know_does():
    profile, outcome = campaigning()
    again = give(outcome.peer, Input("timeout", PeerId("1")), profile)
    assert again.peer.raft.state.now > outcome.peer.raft.state.now
    assert peer_key(again.peer, with_ages=True) == peer_key(outcome.peer, with_ages=True)
    (question,) = outcome.sent
    answer = give(first_peers(profile)[question.peer], question, profile).sent[0]
    granted = give(outcome.peer, answer, profile)
    assert peer_key(granted.peer, with_ages=True) != peer_key(outcome.peer, with_ages=True)


# What is planted.


def fault(profile, found):
    """Register a fault: a function that plants it, the world that must show it, and by what."""

    def register(plant):
        FAULTS[plant.__name__] = (plant, profile, found)
        return plant

    return register


@fault(FIGURE_8, "leader completeness")
def vote_without_the_log_check(monkeypatch):
    monkeypatch.setattr(election, "is_up_to_date", lambda state, term, index: True)


@fault(FIGURE_8, "leader completeness: 3 leads term 5")
def old_term_entry_committed_by_counting(monkeypatch):
    """What comes of it, and not the rule that it breaks, is to show it."""
    for checks in ("exploration.inputs", "group"):
        monkeypatch.setattr(f"quorate.testing.{checks}.check_step", lambda before, after: None)

    def held(state):
        progress, own = state.role.progress, state.persisted_index
        return Index(reached_by_quorum(state.groups, lambda v: progress[v].match_index if v in progress else own))

    monkeypatch.setattr(replication, "advance_commit_index", lambda state: commit(state, held(state)))


@fault(CRASH, "committed but not durable on a majority")
def acknowledged_before_it_is_durable(monkeypatch):
    monkeypatch.setattr(replication, "send_after_persist", send)


@fault(CRASH, "election safety: 1 and 2 both lead term 2")
def vote_sent_before_it_is_durable(monkeypatch):
    monkeypatch.setattr(election, "send_after_persist", send)


@fault(JOINT, "committed but not durable on a majority")
def joint_majority_is_one_of_the_union(monkeypatch):
    def union(groups):
        return [sorted({voter for group in groups for voter in group})]

    monkeypatch.setattr(
        replication, "reached_by_quorum", lambda groups, reached: reached_by_quorum(union(groups), reached)
    )
    monkeypatch.setattr(election, "is_quorum", lambda groups, agrees: is_quorum(union(groups), agrees))


@fault(CONFLICT, "state machine safety: 3 holds other entries committed")
def snapshot_compared_by_its_index_alone(monkeypatch):
    receive = snapshot.receive_install_snapshot

    def receive_and_commit(state, sender, request):
        if request.snapshot.index <= state.log.last:
            commit(state, request.snapshot.index)
        receive(state, sender, request)

    monkeypatch.setattr(snapshot, "receive_install_snapshot", receive_and_commit)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found_and_told(name, monkeypatch):
    plant, profile, found = FAULTS[name]
    plant(monkeypatch)
    report = Search(profile).run(STATES_MAX)
    assert report.failure is not None
    assert found in report.failure
    text = story(profile, report.inputs_to_failure, report.failure)
    # A scenario holds each promise against the disk when it is sent, and so sees some faults before what they lead to.
    seen = "before .* is durable" if name.endswith("before_it_is_durable") else found
    with pytest.raises(ScenarioError, match=seen):
        run_text(text, "story")


def test_a_story_of_nothing_wrong_is_none():
    inputs = [(Input("timeout", PeerId("1")), False)]
    with pytest.raises(AssertionError, match="does not come about again: nothing"):
        story(TINY, inputs, "nothing")


# The command.


def explore(monkeypatch, capsys, profile, *words):
    """Run the command for one profile in this process, and give its status and what it printed."""
    monkeypatch.setattr(command, "PROFILES", {profile.name: profile})
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    status = command.run(parser.parse_args(["--jobs", "1", *words]))
    return status, capsys.readouterr().out


def test_the_command_says_that_all_was_explored(monkeypatch, capsys):
    status, text = explore(monkeypatch, capsys, TINY)
    assert status == 0
    assert "complete: the frontier is empty" in text
    assert "1 profiles: " in text


def test_the_command_says_that_there_is_more(monkeypatch, capsys):
    status, text = explore(monkeypatch, capsys, TINY, "--profile", "tiny", "--states-max", "50")
    assert status == 2
    assert "not complete" in text


def test_the_command_tells_what_is_broken(monkeypatch, capsys):
    vote_without_the_log_check(monkeypatch)
    status, text = explore(monkeypatch, capsys, FIGURE_8)
    assert status == 1
    assert "broken: leader completeness" in text
    assert "peers 3 " in text


# What scenarios were taught for it.


TAUGHT = """\
peers 2
wait 1 2
tick 2 quiet
tick 1
----
ok

deliver 2>1 quiet
heartbeat 2 quiet
repeat 2>1 kind=prevote nth=1
drop 2>1 nth=1
drop 2>1 nth=5
----
"""


def test_a_clock_may_run_ahead_and_one_message_be_named():
    lines = run_text(TAUGHT, "taught").splitlines()
    assert lines[:7] == TAUGHT.splitlines()[:7], "the clock of 2 alone ran ahead"
    assert sum(line.startswith("dropped 2>1") for line in lines) == 1
