"""What clients saw of a group, and whether one machine could have answered so: is it linearizable?

::

    recorder = Recorder()
    number = recorder.invoke(1, Seats.take, 4, "ann")
    ...
    verdict = check_history(Seats, recorder.operations())
    assert verdict.is_linearizable, verdict.text
"""

from quorate.testing.history.files import read_history, write_history
from quorate.testing.history.kv import check_kv
from quorate.testing.history.linearizability import Verdict, check_history
from quorate.testing.history.operations import Fate, Operation, Recorder

__all__ = [
    "Fate",
    "Operation",
    "Recorder",
    "Verdict",
    "check_history",
    "check_kv",
    "read_history",
    "write_history",
]
