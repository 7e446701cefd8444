from __future__ import annotations

import pytest

from quorate.core.configuration import (
    Configuration,
    Member,
    check_members,
    configuration_text,
    decode_configuration,
    encode_configuration,
)
from quorate.errors import InvalidConfiguration
from quorate.testing.drive import make_configuration, make_member
from quorate.types import Address, PeerId


def test_a_configuration_is_read_as_it_was_written():
    configuration = make_configuration(3)
    assert decode_configuration(encode_configuration(configuration)) == configuration


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\xa1g", b"\x92\xa1g\x90\x00", b"\x91" * 100_000], ids=range(5))
def test_bytes_that_are_no_configuration_are_refused(payload):
    with pytest.raises(ValueError, match="not a configuration"):
        decode_configuration(payload)


def test_configurations_that_no_leader_appends_are_refused():
    one, two = make_member("1"), make_member("2")
    for configuration, text in (
        (Configuration("g", ()), "none"),
        (Configuration("g", (two, one)), "2, 1"),
        (Configuration("g", (one, Member(two.id, one.address))), "1, 1"),
        (Configuration("g", (one, Member(one.id, two.address))), "1, 2"),
        (Configuration("g", (one,), (Member(two.id, two.address), Member(two.id, two.address))), "1; joint with 2, 2"),
        (Configuration("g", (one,), (), (one,)), "1; catching up: none"),
        (Configuration("g", (one,), (one,), (two,), (one,)), "1; joint with 1"),
    ):
        with pytest.raises(ValueError, match=f"^not a sound configuration: {text}$"):
            decode_configuration(encode_configuration(configuration))


def test_members_are_found_by_id_and_named_for_people():
    configuration = make_configuration(2)
    assert [member.id for member in configuration.members] == ["1", "2"]
    member = configuration.member(PeerId("2"))
    assert member is not None
    assert member.address == Address("2", "127.0.0.1", 7002)
    assert configuration.member(PeerId("3")) is None
    assert configuration.member(None) is None
    assert (configuration.name(PeerId("2")), configuration.name(PeerId("stranger"))) == ("2", "stranger")


OLD, NEW = (make_member("1"), make_member("2")), (make_member("2"), make_member("3"))
LEARNING = (*OLD, make_member("3", "learner"))
CATCHING_UP = Configuration("group", LEARNING, (), NEW, OLD)
JOINT = Configuration("group", NEW, OLD)


def ids(members):
    return "".join(member.id for member in members)


def test_a_change_goes_through_three_configurations():
    """Thesis 4.2.1, 4.3: newcomers without a vote, then old and new together, then the new one alone."""
    assert (ids(CATCHING_UP.voters), ids(CATCHING_UP.newcomers), CATCHING_UP.groups) == ("12", "3", (("1", "2"),))
    assert (ids(JOINT.voters), JOINT.groups) == ("23", (("2", "3"), ("1", "2")))
    assert [ids(found.everyone) for found in (CATCHING_UP, JOINT)] == ["123", "231"]
    assert [ids(found.goal) for found in (CATCHING_UP, JOINT)] == ["23", "23"]
    settled = Configuration("group", NEW)
    assert [found.is_settled for found in (CATCHING_UP, JOINT, settled)] == [False, False, True]
    for configuration in (CATCHING_UP, JOINT, settled):
        assert decode_configuration(encode_configuration(configuration)) == configuration


def test_where_a_change_stands_is_said_in_words():
    assert configuration_text(CATCHING_UP) == "1, 2, 3 (learner); catching up: 3"
    assert configuration_text(JOINT) == "2, 3; joint with 1, 2"


def test_a_witness_is_one_from_the_moment_it_is_wanted():
    """It is sent no payloads, and must never come to be taken for one who holds them."""
    wanted = (*OLD, make_member("3", "witness"))
    for configuration in (Configuration("group", LEARNING, (), wanted, OLD), Configuration("group", OLD, wanted)):
        assert configuration.is_witness(PeerId("3"))
        assert not configuration.is_witness(PeerId("1"))
        assert not configuration.is_witness(PeerId("9"))


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (["learner"], "a group needs a voter at least"),
        (["voter", "witness"], "witnesses must be fewer than half"),
        (["voter", "witness", "learner", "learner"], "witnesses must be fewer than half"),
        (["voter", "voter", "witness"], None),
        (["voter", "voter", "voter", "witness", "witness"], None),
    ],
)
def test_who_can_be_a_group(kinds, reason):
    members = tuple(make_member(str(number), kind) for number, kind in enumerate(kinds, 1))
    if reason is None:
        check_members(members)
        return
    with pytest.raises(InvalidConfiguration, match=reason):
        check_members(members)


def test_nobody_is_in_a_group_twice_by_name_or_by_id():
    one, two = make_member("1"), make_member("2")
    text = "^the members must have distinct ids and names, and stand in the order of their names$"
    for members in ((two, one), (one, one), (one, Member(two.id, one.address)), (one, Member(one.id, two.address))):
        with pytest.raises(InvalidConfiguration, match=text):
            check_members(members)
