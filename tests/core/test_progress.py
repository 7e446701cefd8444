from __future__ import annotations

from quorate.core.progress import Progress
from quorate.types import Index


def make(next_index=5, match_index=0, *, probing=True, in_flight=()):
    progress = Progress(Index(next_index), 0.0, Index(match_index), probing)
    progress.in_flight.extend(map(Index, in_flight))
    return progress


def seen(progress):
    return progress.match_index, progress.next_index, progress.probing, list(progress.in_flight)


def test_a_probe_goes_out_once_and_does_not_move_on():
    progress = make()
    assert progress.has_room(8)
    progress.send(Index(9))
    assert seen(progress) == (0, 5, True, [9])
    assert not progress.has_room(8)


def test_a_pipeline_goes_on_unasked_up_to_its_window():
    progress = make(probing=False)
    progress.send(Index(6))
    assert progress.has_room(2)
    progress.send(Index(9))
    assert seen(progress) == (0, 10, False, [6, 9])
    assert not progress.has_room(2)


def test_nothing_is_sent_while_a_snapshot_is_on_its_way():
    progress = make(5, 4, probing=False)
    progress.installing = Index(7)
    assert not progress.has_room(8)


def test_an_acknowledgement_opens_the_window_and_raises_both_indexes():
    progress = make(12, 4, probing=False, in_flight=(6, 9, 11))
    progress.acknowledge(Index(9))
    assert seen(progress) == (9, 12, False, [11])
    progress.acknowledge(Index(6))  # late
    assert seen(progress) == (9, 12, False, [11])


def test_the_first_acknowledgement_of_a_probe_begins_the_pipeline_and_sends_again():
    progress = make(5, 0, in_flight=(9,))
    progress.acknowledge(Index(4))  # of a heartbeat: what the probe carried may be lost
    assert seen(progress) == (4, 5, False, [])


def test_an_acknowledgement_beyond_next_index_raises_it():
    progress = make(3, 0)
    progress.acknowledge(Index(7))
    assert seen(progress) == (7, 8, False, [])


def test_a_refusal_goes_back_to_probing():
    progress = make(12, 4, probing=False, in_flight=(6, 9, 11))
    progress.probe(Index(5))
    assert seen(progress) == (4, 5, True, [])


def test_less_sent_than_offered_is_offered_again():
    progress = make(12, 4, probing=False, in_flight=(6, 11))
    progress.send_less(Index(8))
    assert seen(progress) == (4, 9, False, [6, 8])


def test_nothing_sent_of_what_was_offered():
    progress = make(12, 4, probing=False, in_flight=(6, 11))
    progress.send_less(Index(6))
    assert seen(progress) == (4, 7, False, [6])
    progress = make(12, 4, probing=False, in_flight=(11,))
    progress.send_less(Index(4))
    assert seen(progress) == (4, 5, False, [])


def test_less_sent_of_a_probe_that_is_to_be_offered_again_takes_no_room():
    progress = make(5, 4, in_flight=(11,))
    progress.acknowledge(Index(4))  # of a heartbeat; only then were the entries of the probe read from the disk
    progress.send_less(Index(8))
    assert seen(progress) == (4, 5, False, [])
    assert progress.has_room(1)


def test_what_was_acknowledged_meanwhile_is_not_offered_again():
    progress = make(12, 8, probing=False, in_flight=(11,))
    progress.send_less(Index(4))
    assert seen(progress) == (8, 9, False, [])


def test_less_sent_of_a_probe():
    progress = make(5, 0, in_flight=(9,))
    progress.send_less(Index(6))
    assert seen(progress) == (0, 5, True, [6])
