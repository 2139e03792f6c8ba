"""The log of a training run: log.jsonl, one JSON object per line, and TensorBoard events if asked for.

Of several processes the first one writes; the others keep the same books and write nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from padis_jax.batches import Batch
from padis_jax.errors import UserError
from padis_jax.files import in_bucket, json_text, write_bytes
from padis_jax.slab_batches import SlabBatch
from padis_jax.training import Metrics, TrainState


class Log:
    """log.jsonl (and TensorBoard if asked): one line per interval; lines after the resumed step are dropped first."""

    def __init__(self, workdir: Path, start: int, tensorboard: bool) -> None:
        self.path = workdir / "log.jsonl"
        self.file: TextIO | None = None
        self.events: Any = None
        if jax.process_index() == 0:
            lines = self.path.read_text().splitlines() if self.path.exists() else []
            kept = [line for line in lines if _step_of(line) <= start]
            write_bytes(self.path, "".join(line + "\n" for line in kept).encode())
            self.lines = kept
            self.file = None if in_bucket(workdir) else self.path.open("a")
            self.events = _tensorboard(workdir) if tensorboard else None
        self.patches, self.clock = 0, time.perf_counter()  # not the time of day, which may be set back

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self.file:
            with contextlib.suppress(OSError):  # what could not be written was said
                self.file.close()
        if self.events:
            self.events.close()

    def count(self, batch: Batch | SlabBatch) -> None:
        """Counts the patches of a step."""
        self.patches += len(batch.patches)

    def training(self, state: TrainState, metrics: Metrics) -> dict[str, float]:
        """Logs the mean of the metrics [n] of the steps since the last line; returns the line."""
        seconds = time.perf_counter() - self.clock
        record = {
            "loss": float(np.mean(metrics.loss)),
            "grad_norm": float(np.mean(metrics.grad_norm)),
            "learning_rate": float(metrics.learning_rate[-1]),
            "patches_seen": float(state.seen),
            "patches_per_second": self.patches / seconds,
            "seconds": seconds,
        }
        self.write(int(state.step), **record)
        self.patches, self.clock = 0, time.perf_counter()
        return record

    def write(self, step: int, **values: float) -> None:
        """Appends a line."""
        line = json_text({"step": step, **values})
        if self.file:
            try:
                self.file.write(line + "\n")
                self.file.flush()
            except OSError as error:
                raise UserError(
                    f"{self.path}: could not be written ({error.strerror or error}); free some space and rerun the "
                    "same command to resume"
                ) from error
        elif jax.process_index() == 0:  # objects in a bucket cannot be appended to
            self.lines.append(line)
            write_bytes(self.path, "".join(line + "\n" for line in self.lines).encode())
        if self.events:
            for name, value in values.items():
                self.events.add_scalar(name, value, step)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that was cut off is dropped


def _tensorboard(workdir: Path) -> Any:
    if in_bucket(workdir):
        raise UserError(f"run.tensorboard writes to a folder, but --workdir is {workdir}: leave one of them out")
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("run.tensorboard needs tensorboardX: pip install tensorboardX") from error
    return SummaryWriter(str(workdir / "tensorboard"))
