"""Kills training again and again, and shows that it always resumes and ends with the same parameters.

    python -m studies.faults.kills                30 kills, of which every second is aimed at the inside of a save
    python -m studies.faults.kills --kills 3

A tiny network is trained once without interruption, and once by `python train.py` in a process that gets kill -9 at a
random moment, started again until it has been killed often enough, then left to finish. The parameters in the two
weights files must be equal bit for bit. Programs are compiled once, into a cache folder of the campaign. Other faults,
one by one: `python -m pytest -m slow tests/test_faults.py`.
"""

from __future__ import annotations

import argparse
import functools
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from padis_jax.errors import UserError, one_line_errors
from studies.faults.run import difference, make_run, wait_until


class Counts(NamedTuple):
    """What the campaign found."""

    kills: int
    inside_saves: int  # kills after which the remains of an unfinished save were found
    resumed: int  # starts from a checkpoint
    failures: int  # starts that ended by themselves with an error
    equal: bool  # the parameters to those of the uninterrupted run, bit for bit


def campaign(base: Path, kills: int, steps: int, seed: int = 0) -> Counts:
    """Runs the two trainings in `base`, an empty folder, and compares them.

    Args:
      base: the folder.
      kills: how often to kill.
      steps: training steps of a run; has to be long enough not to finish before the last kill.
      seed: of the moments.

    Raises:
      UserError: if the uninterrupted run fails, or `steps` are too few.
    """
    whole, broken = make_run(base, "whole", steps), make_run(base, "broken", steps)
    begin, process = time.monotonic(), whole.start()
    wait_until(lambda: bool(whole.steps()), process)
    first = time.monotonic()
    if process.wait() != 0:
        raise UserError(f"the uninterrupted run failed: {whole.output} has its output")
    opening, pace = first - begin, 2 * (time.monotonic() - first) / steps  # seconds to the first, and to each further
    moments = random.Random(seed)
    killed = inside = resumed = failures = 0
    while killed < kills and failures <= kills:
        done, cut_off = broken.steps(), broken.unfinished()
        resumed += bool(done)
        process = broken.start()
        if killed % 4 == 3:  # from the first moment of the process on
            _wait(process, moments.uniform(0, 1.2 * opening))
        elif wait_until(functools.partial(broken.newer, done), process):
            _wait(process, moments.uniform(0, 6 * pace))
            if killed % 2 == 0:
                wait_until(lambda: bool(broken.unfinished()), process)
        if process.poll() is None:
            process.kill()
            process.wait()
            killed += 1
            inside += bool(broken.unfinished() - cut_off)
        elif process.returncode != 0:
            failures += 1
        else:
            raise UserError(f"the run ended after {killed} kills: give it more --steps")
        print(f"kill {killed}: newest checkpoint {broken.steps()[-1:]}, {inside} inside a save so far", flush=True)
    resumed += bool(broken.steps())
    failures += broken.start().wait() != 0
    return Counts(killed, inside, resumed, failures, difference(whole.workdir, broken.workdir) == 0)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)


@one_line_errors()
def main() -> None:
    """Runs the campaign and prints the counts; exit code 1 if a start failed or the parameters differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=800, help="of a run; too few end before the last kill")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        counts = campaign(Path(base), args.kills, args.steps, args.seed)
    print(counts)
    raise SystemExit(bool(counts.failures) or not counts.equal)


if __name__ == "__main__":
    main()
