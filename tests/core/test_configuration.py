from __future__ import annotations

import pytest

from quorate.core.configuration import decode_configuration, encode_configuration
from quorate.testing.drive import make_configuration
from quorate.types import Address, PeerId


def test_a_configuration_is_read_as_it_was_written():
    configuration = make_configuration(3)
    assert decode_configuration(encode_configuration(configuration)) == configuration


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x92\xa1g", b"\x92\xa1g\x90\x00", b"\x91" * 100_000], ids=range(5))
def test_bytes_that_are_no_configuration_are_refused(payload):
    with pytest.raises(ValueError, match="not a configuration"):
        decode_configuration(payload)


def test_members_are_found_by_id_and_named_for_people():
    configuration = make_configuration(2)
    assert configuration.ids == ("1", "2")
    member = configuration.member(PeerId("2"))
    assert member is not None
    assert member.address == Address("2", "127.0.0.1", 7002)
    assert configuration.member(PeerId("3")) is None
    assert configuration.member(None) is None
    assert (configuration.name(PeerId("2")), configuration.name(PeerId("stranger"))) == ("2", "stranger")
