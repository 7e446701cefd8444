"""Signals that reach a main thread which waits in the operating system.

Python's own part of a signal runs in the main thread, between two steps of its code. Python only notes a signal that
another thread gets, or that comes just before the main thread begins to wait; the main thread then waits on, in
``read()`` or for a lock, and does not look at the note.
"""

from __future__ import annotations

import os
import signal
import threading
import time

PERIOD = 0.05
"""Seconds between two attempts to interrupt the main thread."""


def wake_main_thread_when_signalled() -> None:
    """Have each signal that Python takes note of interrupt what the main thread waits for, from now on.

    A thread learns of each signal through a pipe, and interrupts the main thread with SIGURG until that has run
    Python code again. A SIGURG that comes too late does no harm: it has nothing to do, and is ignored by default.

    Must be called in the main thread, once in a process.
    """
    main = threading.main_thread().ident
    assert main is not None, "the main thread runs"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakings = 0

    def woken(number: int, frame: object) -> None:
        nonlocal wakings
        wakings += 1

    def watch() -> None:
        while True:
            if os.read(reading, 1) == bytes([signal.SIGURG]):
                continue
            before = wakings
            while wakings == before:
                signal.pthread_kill(main, signal.SIGURG)
                time.sleep(PERIOD)

    signal.signal(signal.SIGURG, woken)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="quorate-signals", daemon=True).start()
