"""Kills training again and again, and shows that it always goes on and ends with the same parameters.

    python -m benchmarks.faults                30 kills, of which every second is aimed at the inside of a save
    python -m benchmarks.faults --kills 3

A tiny network is trained once without interruption, and once by `python train.py` in a process that gets kill -9 at a
random moment, started again until it has been killed often enough, then left to finish. The parameters in the two
weights files must be equal bit for bit. Programs are compiled once, into a cache folder of the campaign.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from padis_jax.checkpoint import folder
from padis_jax.errors import UserError, one_line_errors
from padis_jax.weights import load_weights

ROOT = Path(__file__).resolve().parent.parent
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


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the campaign found.

    Attributes:
      kills: processes that were ended by kill -9.
      inside_saves: kills after which the remains of an unfinished save were found.
      before_first: kills before there was any checkpoint.
      resumed: starts from a checkpoint.
      failures: starts that ended by themselves with an error.
      equal: whether the parameters are those of the uninterrupted run, bit for bit.
    """

    kills: int
    inside_saves: int
    before_first: int
    resumed: int
    failures: int
    equal: bool


class Run(NamedTuple):
    """A training command and its work folder."""

    command: list[str]
    workdir: Path
    environment: dict[str, str]

    def start(self) -> subprocess.Popen[bytes]:
        """A process that trains."""
        with open(self.workdir.with_suffix(".txt"), "ab") as output:
            return subprocess.Popen(self.command, stdout=output, stderr=output, env=self.environment)

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


def make_run(base: Path, name: str, steps: int) -> Run:
    """A run of its own in `base`/`name`, on images that are the same in each."""
    images, config = base / "images.npy", base / "config.py"
    np.save(images, np.random.default_rng(0).random((6, 12, 14), np.float32))
    config.write_text(CONFIG.format(images=str(images), steps=steps))
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--workdir", str(base / name)]
    return Run(command, base / name, environment)


def campaign(base: Path, kills: int, steps: int, seed: int = 0) -> Counts:
    """Runs the two trainings in `base` and compares them.

    Args:
      base: an empty folder.
      kills: how often to kill.
      steps: training steps of a run; has to be long enough not to finish before the last kill.
      seed: of the moments.

    Raises:
      UserError: if the uninterrupted run fails.
    """
    whole, broken = make_run(base, "whole", steps), make_run(base, "broken", steps)
    begin = time.monotonic()
    if whole.start().wait() != 0:
        raise UserError(f"the uninterrupted run failed: {base / 'whole.txt'} has its output")
    length = time.monotonic() - begin

    moments = random.Random(seed)
    killed = inside = before_first = resumed = failures = 0
    while killed < kills:
        done, cut_off = broken.steps(), broken.unfinished()
        resumed += bool(done)
        process = broken.start()
        # From the first moment of the process to about a tenth of the run beyond its first new checkpoint.
        patience = moments.uniform(0, 1)
        if killed % 2 == 0 and _until(functools.partial(_newer, broken, done), process):
            _wait(process, patience * 0.1 * length)
            _until(lambda: bool(broken.unfinished()), process)
        elif killed % 4 == 1 and _until(functools.partial(_newer, broken, done), process):
            _wait(process, patience * 0.1 * length)
        else:
            _wait(process, patience * 0.5 * length)
        if process.poll() is None:
            process.kill()
            process.wait()
            killed += 1
            inside += bool(broken.unfinished() - cut_off)
            before_first += not broken.steps()
        elif process.returncode != 0:
            failures += 1
            if failures > kills:
                break
        else:
            break  # finished before it could be killed often enough
        print(f"kill {killed}: newest checkpoint {broken.steps()[-1:]}, {inside} inside a save so far", flush=True)
    resumed += bool(broken.steps())
    failures += broken.start().wait() != 0
    return Counts(killed, inside, before_first, resumed, failures, equal_weights(whole.workdir, broken.workdir))


def equal_weights(a: Path, b: Path) -> bool:
    """Whether two work folders end with the same parameters, bit for bit."""
    if not (b / "weights.safetensors").exists():
        return False
    # load_weights refuses another network than the file's config, so equal configs mean equal trees
    first, second = (load_weights(d / "weights.safetensors").params for d in (a, b))
    return all(map(np.array_equal, _leaves(first), _leaves(second)))


def _leaves(tree: object) -> list[np.ndarray]:
    return [np.asarray(leaf).view(np.uint8) for leaf in jax.tree.leaves(tree)]


def _newer(run: Run, before: list[int]) -> bool:
    return run.steps()[-1:] > before[-1:]


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Waits for a condition; False if the process ends first."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return True


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)


@one_line_errors()
def main() -> None:
    """Runs the campaign and prints the counts; exit code 1 if a start failed or the parameters differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2000, help="of a run; too few end before the last kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        counts = campaign(Path(base), args.kills, args.steps, args.seed)
    for field, value in dataclasses.asdict(counts).items():
        print(f"{field.replace('_', ' ')}: {value}")
    if counts.kills < args.kills:
        raise UserError(f"the run ended after {counts.kills} kills: give it more --steps")
    if counts.failures or not counts.equal:
        sys.exit(1)


if __name__ == "__main__":
    main()
