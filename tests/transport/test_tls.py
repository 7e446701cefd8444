"""TLS: both sides show a certificate of one authority, and the words when they do not."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from quorate.errors import Unavailable
from quorate.transport import accepting
from quorate.transport.calls import Value
from quorate.transport.security import TLS
from tests.transport.bench import Bench, ask, until, vote
from tests.transport.test_tcp import hear_the_end, open_raw

Issue = Callable[..., TLS]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issue(tmp_path: Path, authority: trustme.CA) -> Issue:
    """Write a certificate of one authority, for a host, and what else makes up a ``TLS`` that trusts an authority."""

    def write(host: str = "127.0.0.1", by: trustme.CA = authority, trusts: trustme.CA = authority) -> TLS:
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        issued = by.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
        issued.private_key_pem.write_to_path(directory / "key.pem")
        trusts.cert_pem.write_to_path(directory / "ca.pem")
        return TLS(certificate=directory / "certificate.pem", key=directory / "key.pem", ca=directory / "ca.pem")

    return write


@pytest.fixture
async def refusals(bench: Bench) -> None:
    """Let handshakes fail: in debug mode asyncio calls each an error that nobody saw."""
    asyncio.get_running_loop().set_debug(False)


async def test_nodes_and_clients_with_certificates_of_one_authority_speak(
    bench: Bench, issue: Issue, caplog: pytest.LogCaptureFixture
):
    left, at_left = await bench.node(tls=issue())
    right, at_right = await bench.node(tls=issue())
    left.send(right.address, [vote(1)])
    right.send(left.address, [vote(2)])
    await until(lambda: vote(1) in at_right.packets and vote(2) in at_left.packets)
    await until(lambda: left.connections_open == right.connections_open == 1)
    channel = await bench.transport(None, tls=issue("client")).connect(left.address)
    replies = await asyncio.gather(*(channel.call(ask(bytes(20_000))) for _ in range(20)))
    assert {reply.answer for reply in replies} == {Value(bytes(20_000))}
    await channel.close()
    await bench.node("0.0.0.0:0", advertise="127.0.0.1:0", tls=issue())
    assert not [
        record for record in caplog.records if record.name.startswith("quorate") and record.levelno > logging.INFO
    ]


@pytest.mark.usefixtures("refusals")
async def test_a_client_without_certificate_is_refused(bench: Bench, issue: Issue, monkeypatch: pytest.MonkeyPatch):
    node, recorder = await bench.node(tls=issue())
    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_, **__: None)
        client = bench.transport(None, tls=issue())
    with pytest.raises(Unavailable, match="closed the connection at once: check the client certificate"):
        await client.connect(node.address)
    assert recorder.requests == []


@pytest.mark.usefixtures("refusals")
async def test_a_client_of_another_authority_is_refused(bench: Bench, issue: Issue, stranger: trustme.CA):
    node, _ = await bench.node(tls=issue())
    with pytest.raises(Unavailable, match="closed the connection at once: check the client certificate"):
        await bench.transport(None, tls=issue(by=stranger)).connect(node.address)


@pytest.mark.usefixtures("refusals")
async def test_a_node_of_another_authority_is_not_trusted(bench: Bench, issue: Issue, stranger: trustme.CA):
    node, _ = await bench.node(tls=issue(by=stranger))
    with pytest.raises(Unavailable, match=r"cannot be trusted: TLS: .*unable to get local issuer certificate"):
        await bench.transport(None, tls=issue()).connect(node.address)


@pytest.mark.usefixtures("refusals")
async def test_a_node_with_the_certificate_of_another_host_is_not_trusted(bench: Bench, issue: Issue):
    node, _ = await bench.node(tls=issue("elsewhere.example"))
    with pytest.raises(Unavailable, match=r"cannot be trusted: TLS: .*127\.0\.0\.1"):
        await bench.transport(None, tls=issue()).connect(node.address)


@pytest.mark.usefixtures("refusals")
async def test_the_host_is_not_checked_where_that_is_turned_off(bench: Bench, issue: Issue, stranger: trustme.CA):
    node, _ = await bench.node(tls=issue("elsewhere.example"))
    given = issue()
    unchecked = TLS(certificate=given.certificate, key=given.key, ca=given.ca, check_hostname=False)
    channel = await bench.transport(None, tls=unchecked).connect(node.address)
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    other, _ = await bench.node(tls=issue(by=stranger))
    with pytest.raises(Unavailable, match="cannot be trusted"):
        await bench.transport(None, tls=unchecked).connect(other.address)


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01"])
async def test_strangers_without_a_certificate_keep_nobody_out(
    bench: Bench, issue: Issue, monkeypatch: pytest.MonkeyPatch, says: bytes
):
    await keep_nobody_out(bench, issue, monkeypatch, says)


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01"])
def test_strangers_keep_nobody_out_on_uvloop(issue: Issue, monkeypatch: pytest.MonkeyPatch, says: bytes):
    uvloop = pytest.importorskip("uvloop")

    async def walk() -> None:
        bench = Bench("tcp")
        await keep_nobody_out(bench, issue, monkeypatch, says)
        await bench.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(walk())


async def keep_nobody_out(bench: Bench, issue: Issue, monkeypatch: pytest.MonkeyPatch, says: bytes) -> None:
    """Let strangers come who never end their handshake, and then a client with a certificate."""
    monkeypatch.setattr(accepting, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(accepting, "HELLO_SECONDS", 1000.0)
    node, _ = await bench.node(tls=issue())
    strangers = [await open_raw(node.address) for _ in range(5)]
    for _, writer in strangers:
        writer.write(says)
    for reader, _ in strangers[:3]:
        await hear_the_end(reader)
    channel = await bench.transport(None, tls=issue()).connect(node.address)
    assert (await channel.call(ask(b"x"))).answer == Value(b"x")
    for _, writer in strangers:
        writer.close()


@pytest.mark.usefixtures("refusals")
async def test_a_handshake_that_failed_takes_no_room(bench: Bench, issue: Issue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accepting, "CONNECTIONS_MAX", 2)
    node, _ = await bench.node(tls=issue())
    first = await bench.transport(None, tls=issue()).connect(node.address)
    for _ in range(3):
        reader, writer = await open_raw(node.address)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await hear_the_end(reader)
        writer.close()
    second = await bench.transport(None, tls=issue()).connect(node.address)
    for channel in (first, second):
        assert (await channel.call(ask(b"x"))).answer == Value(b"x")


@pytest.mark.usefixtures("refusals")
async def test_a_side_without_tls_learns_what_may_be_wrong(bench: Bench, issue: Issue):
    encrypted, _ = await bench.node(tls=issue())
    plain, _ = await bench.node()
    with pytest.raises(Unavailable, match="whether it wants TLS"):
        await bench.transport(None).connect(encrypted.address)
    with pytest.raises(Unavailable, match="TLS: "):
        await bench.transport(None, tls=issue()).connect(plain.address)
    assert plain.bad_frames == 1


def test_only_tls_1_3_with_certificates_both_ways(issue: Issue):
    for context in (issue().accepting_context(), issue().dialling_context()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert issue().dialling_context().check_hostname


async def test_a_certificate_that_is_not_there_is_noticed_before_anything_opens(bench: Bench, tmp_path: Path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(FileNotFoundError):
        bench.transport(tls=TLS(certificate=missing, key=missing, ca=missing))


def test_tls_works_on_uvloop(issue: Issue):
    uvloop = pytest.importorskip("uvloop")

    async def walk() -> None:
        bench = Bench("tcp")
        left, _ = await bench.node(tls=issue())
        right, at_right = await bench.node(tls=issue())
        left.send(right.address, [vote(1)])
        await until(lambda: at_right.packets)
        channel = await left.connect(right.address)
        assert (await channel.call(ask(bytes(100_000)))).answer == Value(bytes(100_000))
        await bench.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(walk())


def test_a_file_that_is_missing_or_none_is_named(issue: Issue, tmp_path: Path) -> None:
    tls = issue()
    nothing, garbage = tmp_path / "nothing.pem", tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for field in ("certificate", "key", "ca"):
        with pytest.raises(FileNotFoundError, match=r"nothing\.pem"):
            msgspec.structs.replace(tls, **{field: nothing}).dialling_context()
        with pytest.raises(ssl.SSLError, match=r"garbage\.pem .*in PEM"):
            msgspec.structs.replace(tls, **{field: garbage}).accepting_context()


def test_the_password_of_a_key_is_not_asked_for(issue: Issue) -> None:
    """At a terminal a node would wait for it, with all its peers."""
    tls = issue()
    key = serialization.load_pem_private_key(Path(tls.key).read_bytes(), None)
    kept = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    Path(tls.key).write_bytes(key.private_bytes(serialization.Encoding.PEM, form, kept))
    with pytest.raises(ssl.SSLError, match="not encrypted"):
        tls.accepting_context()


async def test_a_node_without_certificates_is_said_to_speak_no_tls(bench: Bench, issue: Issue, refusals: None) -> None:
    plain, _ = await bench.node()
    caller = bench.transport(None, tls=issue())
    with pytest.raises(Unavailable, match="speaks no TLS: call it without, or give its node the certificates"):
        await caller.connect(plain.address)


def replace(tls: TLS, by: trustme.CA | None, *trusts: trustme.CA) -> None:
    """Write another certificate in the place of one, of an authority, if one is given; and whom to trust."""
    if by is not None:
        issued = by.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(tls.certificate)
        issued.private_key_pem.write_to_path(tls.key)
    Path(tls.ca).write_bytes(b"".join(authority.cert_pem.bytes() for authority in trusts))


@pytest.mark.usefixtures("refusals")
async def test_certificates_that_are_renewed_while_a_node_runs_are_used_for_new_connections(
    bench: Bench, issue: Issue, authority: trustme.CA, stranger: trustme.CA, caplog: pytest.LogCaptureFixture
):
    """An authority is replaced by another: it is trusted everywhere, then used everywhere, then alone."""
    caplog.set_level(logging.INFO, "quorate")
    at_node, at_client = issue(), issue()
    node, _ = await bench.node(tls=at_node)
    client = bench.transport(None, tls=at_client)
    before = await client.connect(node.address)
    for certificate_of, trusted in (
        (None, [authority, stranger]),
        (stranger, [authority, stranger]),
        (stranger, [stranger]),
    ):
        for tls in (at_node, at_client):
            replace(tls, certificate_of, *trusted)
            assert (await (await client.connect(node.address)).call(ask(b"x"))).answer == Value(b"x")
    assert (await before.call(ask(b"x"))).answer == Value(b"x")  # what is open goes on
    newcomer = bench.transport(None, tls=issue(by=stranger, trusts=stranger))
    assert (await (await newcomer.connect(node.address)).call(ask(b"x"))).answer == Value(b"x")
    with pytest.raises(Unavailable, match="cannot be trusted"):
        await bench.transport(None, tls=issue()).connect(node.address)
    assert [record.levelno for record in caplog.records if "certificates" in record.msg] == [logging.INFO] * 6


@pytest.mark.usefixtures("refusals")
async def test_while_new_certificates_cannot_be_used_those_of_before_are(
    bench: Bench, issue: Issue, authority: trustme.CA, stranger: trustme.CA, caplog: pytest.LogCaptureFixture
):
    at_node = issue()
    node, _ = await bench.node(tls=at_node)
    client = bench.transport(None, tls=issue())
    issued = stranger.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(at_node.certificate)  # and its key is not there yet
    for _ in range(3):
        assert (await (await client.connect(node.address)).call(ask(b"x"))).answer == Value(b"x")
    os.unlink(at_node.key)
    assert (await (await client.connect(node.address)).call(ask(b"x"))).answer == Value(b"x")
    told = [record.getMessage() for record in caplog.records if "certificates" in record.msg]
    assert len(told) == 2
    assert str(at_node.key) in told[0]
    assert str(at_node.key) in told[1]
    replace(at_node, stranger, authority)
    with pytest.raises(Unavailable, match="cannot be trusted"):
        await client.connect(node.address)
