"""What one waits for: two starts of sample.py, and calls of `reconstruct` that need no new program or one.

    python -m studies.speed.waiting

Starts sample.py twice with an empty cache of compiled programs (devices/compile_cache.py), for three levels. Then, in
this process without a cache, times the building of a scan, of an equal one and of another, and of plug-and-play on 20
views the first call, a second one, and calls with other levels, another seed and other angles. Prints seconds in all
and in XLA's compiler or loading programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from padis_jax.devices import compile_cache
from padis_jax.errors import one_line_errors
from padis_jax.operators import ParallelBeam
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.weights import load_prior

SIDE, VIEWS, BINS = 256, 20, 512
START = """
import sys
from padis_jax.cli.sample import main
from padis_jax.devices import compile_cache
main(["--solver.levels", "3", "--quiet", "--workdir", sys.argv[1]])
print(compile_cache.spent().seconds)
"""


def start(folder: Path) -> tuple[float, float]:
    """(seconds, those compiling or loading) of a start of sample.py."""
    env = {**os.environ, compile_cache.VARIABLE: str(folder / "cache")}
    begin = time.perf_counter()
    command = [sys.executable, "-c", START, str(folder / "results")]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begin, float(done.stdout.split()[-1])


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Likewise of a call."""
    begin, before = time.perf_counter(), compile_cache.spent().seconds
    jax.block_until_ready(jax.tree.leaves(function()))
    return time.perf_counter() - begin, compile_cache.spent().seconds - before


def scan(turn: float) -> Any:
    """20 views over half a turn, beginning at an angle."""
    angles = turn + np.arange(VIEWS) * np.pi / VIEWS
    return ParallelBeam(image_shape=(SIDE, SIDE), angles=angles, detector_count=BINS)


@one_line_errors()
def main() -> None:
    """Prints the table."""
    rows: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sample.py, first start", "sample.py, second start"):
            rows[name] = start(Path(folder))
    prior = load_prior("weights/head_ct.safetensors")
    for name, turn in (("a scan", 0.0), ("an equal scan", 0.0), ("a scan of other angles", 0.05)):
        rows[name] = timed(lambda turn=turn: scan(turn))  # type: ignore[misc]
    y = scan(0.0)(np.full((SIDE, SIDE, 1), 0.3, np.float32))

    def run(seed: int, levels: int, turn: float) -> Any:
        return reconstruct(seed, y, scan(turn), prior, solver=PlugAndPlay(), levels=levels, start="operator").image

    calls = {"first call": (0, 3, 0.0), "second call": (0, 3, 0.0), "other levels": (0, 4, 0.0)}
    calls |= {"another seed": (1, 3, 0.0), "other angles": (0, 3, 0.05)}
    for name, arguments in calls.items():
        rows[f"reconstruct, {name}"] = timed(lambda arguments=arguments: run(*arguments))  # type: ignore[misc]
    print("| | seconds | compiling or loading |\n|---|---|---|")
    for name, (seconds, compiling) in rows.items():
        print(f"| {name} | {seconds:.2f} | {compiling:.2f} |")


if __name__ == "__main__":
    main()
