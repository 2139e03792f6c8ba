"""A tiny training as a command with a work folder of its own, which the campaign of faults starts again and again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from padis_jax.checkpoint import folder
from padis_jax.errors import UserError
from padis_jax.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(path={images!r}),
    network=NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, sigma_data=0.3),
    patches=PatchConfig(sizes=(4,), probabilities=(1.0,), batch=(4,)),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=1),
    run=RunConfig(steps={steps}, log_every=10, checkpoint_every=2, validate_every=1000),
)
"""


class Run(NamedTuple):
    """A training command and its work folder."""

    command: list[str]
    workdir: Path
    environment: dict[str, str]

    @property
    def output(self) -> Path:
        """What its processes print."""
        return self.workdir.with_suffix(".txt")

    def start(
        self,
        *flags: str,
        wrapper: str = "",
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> subprocess.Popen[bytes]:
        """A process that trains.

        Args:
          flags: more of them.
          wrapper: Python that is run before `main()` of `padis_jax.cli.train`, to bring about a fault.
          environment: more of it.
          piped: what it prints goes to a pipe and not to `output`, which limits of the process on files would cut.
        """
        start = [sys.executable, "-c", f"{wrapper}\nfrom padis_jax.cli.train import main; main()"] if wrapper else None
        command = [*(start or self.command[:2]), *self.command[2:], *flags]
        with open(self.output, "ab") as output:
            printed = subprocess.PIPE if piped else output
            return subprocess.Popen(
                command, stdout=printed, stderr=subprocess.STDOUT, env=self.environment | dict(environment or {})
            )

    def steps(self) -> list[int]:
        """Complete checkpoints."""
        return sorted(int(p.name) for p in folder(self.workdir).glob("*") if p.name.isdigit())

    def unfinished(self) -> set[tuple[str, int]]:
        """Saves that are under way, or were cut off: folder and its number on the disk."""
        found = set()
        for path in folder(self.workdir).glob("*.orbax-checkpoint-tmp*"):
            with contextlib.suppress(FileNotFoundError):  # finished in this moment
                found.add((path.name, path.stat().st_ino))
        return found

    def newer(self, before: Sequence[int]) -> bool:
        """Whether there is a checkpoint after the newest of `before`."""
        return self.steps()[-1:] > list(before[-1:])


def make_run(base: Path, name: str, steps: int) -> Run:
    """A run of its own in `base`/`name`, on images that are the same in each."""
    images, config = base / "images.npy", base / f"config_{steps}.py"
    np.save(images, np.random.default_rng(0).random((6, 12, 14), np.float32))
    config.write_text(CONFIG.format(images=str(images), steps=steps))
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--workdir", str(base / name)]
    return Run(command, base / name, environment)


def finish(run: Run) -> None:
    """Trains to the end.

    Raises:
      UserError: if that fails.
    """
    if run.start().wait() != 0:
        raise UserError(f"a run that was left alone failed: {run.output} has its output")


def difference(a: Path, b: Path) -> float:
    """Largest difference between the final parameters of two work folders; 0 only if they are equal bit for bit."""
    if not (b / "weights.safetensors").exists():
        return float("inf")
    # load_weights refuses another network than the file's config, so equal configs mean equal trees
    first, second = (load_weights(d / "weights.safetensors").params for d in (a, b))
    pairs = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (first, second)), strict=True)
    far = 0.0
    for x, y in pairs:
        if x.tobytes() != y.tobytes():  # -0 and 0 count as different
            far = max(far, float(np.max(np.abs(x - y))), float(np.finfo(np.float32).tiny))
    return far


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Waits for a condition; False if the process ends first."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return True
