"""``quorate start --join`` in processes of their own: what it prints, and that it may be interrupted and repeated."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .test_cli_processes import Running, at_prompt, free_port, node_of, status


def test_a_node_joins_shows_how_far_it_is_and_is_ready_at_once_the_next_time(tmp_path: Path) -> None:
    one, first = node_of("peer1", tmp_path / "1")
    two, second = node_of("peer2", tmp_path / "2")
    with at_prompt(*first) as shell:
        shell.type(f'await peer.set_configuration("{one}")')
        shell.type("await peer.leader()")
        for _ in range(2):
            with Running("start", *second, "--join", one) as node:
                before = node.wait_for(f"{two} is ready\n")
                assert before.splitlines()[-1] == "peer2 is a voter"
                assert status(one).stdout.count("voter") == 2
                node.signal(signal.SIGTERM)
                code, log = node.end()
            assert (code, "has stopped" in log) == (0, True)


def test_a_learner_is_listed_as_such(tmp_path: Path) -> None:
    one, first = node_of("peer1", tmp_path / "1")
    two, second = node_of("peer2", tmp_path / "2")
    with at_prompt(*first) as shell:
        shell.type(f'await peer.set_configuration("{one}")')
        shell.type("await peer.leader()")
        with Running("start", *second, "--join", one, "--kind", "learner") as node:
            assert "peer2 is a learner" in node.wait_for(f"{two} is ready\n")
            done = status(one)
            assert (done.returncode, "learner" in done.stdout) == (0, True)
            assert "2 of its 2 members answered" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_joining_nobody_goes_on_until_it_is_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    _, arguments = node_of("peer2", tmp_path / "2")
    nobody = f"peer1@127.0.0.1:{free_port()}"
    with Running("start", *arguments, "--join", nobody) as node:
        node.wait_for(f"peer2 asks {nobody} to let it join; no leader has answered yet\n")
        node.signal(number)
        assert node.end()[0] == 0


def test_a_refusal_ends_it_with_the_reason(tmp_path: Path) -> None:
    one, first = node_of("peer1", tmp_path / "1")
    with at_prompt(*first) as shell:
        shell.type(f'await peer.set_configuration("{one}")')
        shell.type("await peer.leader()")
        _, other = node_of("peer2", tmp_path / "2", "quorate.machines:Stack")
        with Running("start", *other, "--join", one) as node:
            code, log = node.end()
        assert code == 1
        assert "peer2 runs Stack, and the group of peer1@" in log
