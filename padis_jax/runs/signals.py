"""Stopping a run from outside: SIGTERM and Ctrl-C are remembered, and looked at between steps.

A training step gives its input state away (donation), so an exception in the middle of one would leave nothing that
could be saved. The handlers therefore only set a flag. A second Ctrl-C ends the process at once; the checkpoints that
were complete by then stay complete.

Several processes must stop after the same step, because saving is a joint work: there JAX's own preemption service
carries the SIGTERM that one of them received to all, and names the step.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Within `with Interruption() as stop:`, `stop.due(step)` tells after each step whether to save and leave."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Handlers can be set in the main thread only; with several processes SIGTERM belongs to JAX's service.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self, step: int) -> signal.Signals | None:
        """The signal for which the run is to stop after `step`, the same in all processes; None to continue."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # os.write, because a handler may run in the middle of a print
        os.write(2, f"\n{self.received.name}: saving after this step; Ctrl-C stops at once, without saving\n".encode())


def leave(received: signal.Signals, step: int) -> SystemExit:
    """To be raised after the state has been saved: says how to resume; the exit code is 128 + the signal's number."""
    if jax.process_index() == 0:
        print(
            f"stopped by {received.name} after step {step}, which is saved; rerun the same command to resume",
            file=sys.stderr,
        )
    return SystemExit(128 + received)
