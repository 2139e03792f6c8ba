"""SIGTERM as an exception, so that a run which a queue or a person ends leaves its tables, as after Ctrl-C.

A cell that is being computed is lost and nothing else: files are written atomically (files.py), so the exception may
come anywhere. (A training run cannot be left in the middle of a step: runs/signals.py.)
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """SIGTERM was received; what nobody catches ends the process with exit code 143."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within its block SIGTERM raises `Terminated`, once: a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # the only one that handlers can be set in
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def without_teardown() -> Iterator[None]:
    """For the outermost block of a program: after Ctrl-C or SIGTERM (exit codes above 128) the process ends at once.

    XLA may still be computing what nobody waits for, and Python's teardown would take its memory away: a segmentation
    fault instead of the exit code.
    """
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > 128:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(stop.code)
        raise


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated(CODE)
