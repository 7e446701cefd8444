"""``quorate bench``: what it measures, what it says of it, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

import quorate
from quorate import Node
from quorate.cli import main
from quorate.cli.bench import WRITERS, Case, disk_limits, processor_limit
from quorate.cli.probe import Syncs, probe, quantile
from quorate.machines import KV

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(quorate.__file__).parents[1])}


def case(writers: int, per_second: float, p50: float, client: float = 0.1, nodes: tuple[float, ...] = ()) -> Case:
    return Case(writers, per_second, p50, 2 * p50, 0, client, nodes)


def test_the_disk_is_asked_for_as_long_as_was_said_and_its_file_is_gone(tmp_path: Path) -> None:
    begin = time.perf_counter()
    syncs = probe(tmp_path, 0.05)
    assert time.perf_counter() - begin >= 0.05
    assert 0 < syncs.p50 <= syncs.p99
    assert syncs.per_second > 0
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_synced_for_each_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def sync(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        time.sleep(0.01)

    monkeypatch.setattr(os, "fdatasync", sync, raising=False)
    syncs = probe(tmp_path, 0.1)
    assert len(synced) > 1
    assert synced == [128 * count for count in range(1, len(synced) + 1)]
    assert syncs.p50 >= 0.01
    assert syncs.per_second <= 100


def test_quantiles_are_values_that_were_seen() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0


def test_the_limit_is_said_in_words() -> None:
    syncs = Syncs(1000, 0.001, 0.002)
    slow, fast = case(1, 500, 0.0015), case(1, 50, 0.02)
    many = case(256, 20_000, 0.01)
    assert "waits for the disk." in disk_limits(syncs, [slow, many])[0]
    assert "processes and the network" in disk_limits(syncs, [fast, many])[0]
    assert "20.0 writes for each sync" in disk_limits(syncs, [slow, many])[1]
    assert disk_limits(None, [slow, many]) == []


@pytest.mark.parametrize(
    ("client", "nodes", "said"),
    [
        (0.95, (0.2, 0.1, 0.1), "this command itself"),
        (0.6, (0.5, 0.4, 0.4), "the processor"),
        (0.2, (0.95, 0.1, 0.1), "the leader's process"),
        (0.2, (0.3, 0.1, 0.1), "waiting"),
        (0.2, (), "waiting"),
    ],
)
def test_who_is_busy_is_the_limit(client: float, nodes: tuple[float, ...], said: str) -> None:
    assert f"the limit is {said}" in processor_limit(case(256, 1.0, 1.0, client, nodes), cores=2)


def test_it_measures_three_nodes_and_removes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quorate", "bench", "--json", "--seconds", "0.3", "--directory", str(tmp_path)]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(found.stdout)
    assert [case["writers"] for case in report["cases"]] == list(WRITERS)
    assert all(case["per_second"] > 0 and case["failures"] == 0 for case in report["cases"])
    assert report["syncs"]["per_second"] > 0
    assert report["directory"] == str(tmp_path)
    assert len(report["limits"]) == 3
    assert list(tmp_path.iterdir()) == []


async def test_it_measures_a_group_that_runs() -> None:
    async with Node("127.0.0.1:0", store="memory") as node:
        peer = await node.start_peer(KV, name="peer1")
        await peer.set_configuration(peer.address)
        command = ["-m", "quorate", "bench", "--json", "--seconds", "0.2", "--group", str(peer.address)]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, env=ENVIRONMENT, stdout=PIPE)
        printed, _ = await process.communicate()
        report = json.loads(printed)
        assert report["store"] is None
        assert report["syncs"] is None
        assert [case["writers"] for case in report["cases"]] == list(WRITERS)
        assert peer.status().last_applied > len(WRITERS)


def test_a_signal_ends_it_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quorate", "bench", "--seconds", "30", "--directory", str(tmp_path), "--plain"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/peer3.log")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Interrupted by SIGTERM" in printed
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_measured_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        assert main(["bench", "--directory", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err == (
            f"quorate bench: nothing can be made in {tmp_path / name}; name a directory that is there and may be"
            " written, on the disk to be measured\n"
        )
    with pytest.raises(SystemExit):
        main(["bench", "--seconds", "0"])
    assert "0 is no time above 0" in capsys.readouterr().err


def test_nodes_that_do_not_start_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their logs are gone by then."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert main(["bench", "--store", "memory", "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert " has ended\n" in said
    assert " logged last: quorate shell: quorate checks its invariants with assert; run Python without -O\n" in said
    assert list(tmp_path.iterdir()) == []
