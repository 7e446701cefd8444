"""Each target takes its seeds and some thousand mutants of them; and a fault planted in what it reads is found."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from quorate.calling import Calls
from quorate.core import replication
from quorate.core import snapshot as core_snapshot
from quorate.errors import Corrupted
from quorate.store import directory, mark, records, snapshots
from quorate.transport import frames

from .mutation import Found, run_mutants
from .targets import TARGETS, clean_up

EXECUTIONS = 2000


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    clean_up()


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_by_some_thousand_mutants(name):
    target = TARGETS[name]
    assert run_mutants(target, seed=1, executions=EXECUTIONS) == EXECUTIONS


def test_the_seeds_of_each_target_are_more_than_its_mutants_need():
    for name, target in TARGETS.items():
        assert 3 <= len(target.seeds()) < EXECUTIONS, name


def test_the_command_prints_what_each_target_came_to():
    command = [sys.executable, "-m", "tests.fuzz", "--target", "snapshots", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    name, inputs, *_, peak = done.stdout.splitlines()[-1].split()
    assert (name, int(inputs) > 0, int(peak) > 0) == ("snapshots", True, True)


# Faults.

FAULTS = {}


def found_by(target, what, seed=1):
    def register(plant):
        FAULTS[f"{plant.__name__}: {target}"] = (plant, target, what, seed)
        return plant

    return register


@found_by("frames", "too long a first frame is refused")
def length_believed_unchecked(monkeypatch):
    read = frames._read_header
    monkeypatch.setattr(frames, "_read_header", lambda received, start, bytes_max: read(received, start, 2**32))


@found_by("connection", "RecursionError")
@found_by("frames", "RecursionError")
def nesting_not_expected(monkeypatch):
    def read_body(kind, frame, checksum):
        try:
            return frames._decode_values(kind, frame[frames.HEADER_BYTES :])
        except ValueError as error:
            raise frames.FrameError(str(error)) from error

    monkeypatch.setattr(frames, "_read_body", read_body)


@found_by("frames", "a split changes what is read")
def start_of_the_next_frame_dropped(monkeypatch):
    feed = frames.FrameDecoder.feed

    def feed_and_forget(self, chunk):
        found = feed(self, chunk)
        if found:
            self._buffer.clear()
        return found

    monkeypatch.setattr(frames.FrameDecoder, "feed", feed_and_forget)


@found_by("core", "Error", seed=6)
def entries_taken_unchecked(monkeypatch):
    monkeypatch.setattr(replication, "is_sound", lambda request: True)
    monkeypatch.setattr(frames, "_check_entries", lambda message: None)


@found_by("calls", "Error")
def snapshots_taken_unchecked(monkeypatch):
    monkeypatch.setattr(core_snapshot, "is_sound", lambda message: True)


@found_by("calls", "MachineError")
def machine_error_let_out(monkeypatch):
    monkeypatch.setattr(Calls, "check", lambda self, encoded: self.decode(encoded))


@found_by("records", "RecursionError")
def nesting_not_expected_in_a_record(monkeypatch):
    monkeypatch.setattr(records, "decode_record", lambda key, record, decoder: decoder.decode(record[4:]))


@found_by("records", "Error")
def hole_in_a_log_not_seen(monkeypatch):
    add = records.LogCheck.add

    def add_anyway(self, run):
        try:
            return add(self, run)
        except Corrupted:
            self._last = run.first - 1
            return add(self, run)

    monkeypatch.setattr(records.LogCheck, "add", add_anyway)


@found_by("snapshots", "a length is checked before it is believed")
def record_of_any_length_read(monkeypatch):
    monkeypatch.setattr(snapshots, "RECORD_BYTES_MAX", 2**32)


@found_by("files", "Error")
def damaged_mark_let_out(monkeypatch):
    monkeypatch.setattr(mark, "Corrupted", Corrupted)
    monkeypatch.setattr(mark, "decode_record", lambda key, record, decoder: list(decoder.decode(record[4:])))


@found_by("files", "ValidationError|DecodeError")
def damaged_identity_let_out(monkeypatch):
    monkeypatch.setattr(directory, "_read", lambda path, kind: msgspec.json.decode(path.read_bytes(), type=kind))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, monkeypatch):
    plant, target, what, seed = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(Found, match=what):
        run_mutants(TARGETS[target], seed=seed, executions=EXECUTIONS)
