"""Faults one by one, each on a copy of a run that was stopped half-way: what the next starts say, and how they end.

Each drill must end as it should (exit code, a line of text) and, when started again without the fault, with the
parameters of the run that was left alone: bit for bit, or to rounding on another number of devices.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from padis_jax.checkpoint import folder
from studies.faults.run import Run, difference, finish, make_run, wait_until

STEPS = 100
GRACE = 30  # seconds, what SLURM and Kubernetes give by default
LARGEST_FILE = 20_000  # bytes: the log fits, a checkpoint does not
ROUNDING = 1e-4

_CLOCK = """
import time
real, begin = time.time, time.monotonic()
time.time = lambda: real() + (0, -1e6, 1e6)[int(time.monotonic() - begin) % 3]
"""
_NAN = """
from padis_jax.runs import training
draw = training.draw_batch
def poisoned(padded, config, seed, step):
    batch = draw(padded, config, seed, step)
    if step == {step}:
        batch.patches[0, 0, 0] = float("nan")
    return batch
training.draw_batch = poisoned
"""
_LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"
_NO_CACHE = "from padis_jax import streamed; streamed.CACHE_BYTES = 1\n"


class Drill(NamedTuple):
    """A fault, what it should lead to in words, and whether it did; `seen` is the evidence."""

    fault: str
    passed: bool
    seen: str


def drills(base: Path) -> list[Drill]:
    """All of them, in `base`."""
    whole = make_run(base, "left_alone", STEPS)
    finish(whole)
    half = make_run(base, "half", STEPS)
    found = [_terminated(whole, half)]
    print(found[-1], flush=True)
    for name, fault in FAULTS.items():
        run = make_run(base, name.replace(" ", "_"), STEPS)
        shutil.copytree(half.workdir, run.workdir)
        (run.workdir / "weights.safetensors").unlink(missing_ok=True)
        passed, seen = fault(run, whole)
        found.append(Drill(name, passed, seen))
        print(found[-1], flush=True)
    return found


def _terminated(whole: Run, half: Run) -> Drill:
    """SIGTERM after some checkpoints; a copy of what it leaves is trained to the end."""
    process = half.start()
    wait_until(lambda: len(half.steps()) >= 3 and half.steps()[-1] >= STEPS // 3, process)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, seconds = process.wait(), time.monotonic() - begin
    resumed = make_run(whole.workdir.parent, "resumed", STEPS)
    shutil.copytree(half.workdir, resumed.workdir)
    finish(resumed)
    passed = code == 128 + signal.SIGTERM and seconds < GRACE and "which is saved" in half.output.read_text()
    equal = difference(whole.workdir, resumed.workdir) == 0
    return Drill("SIGTERM", passed and equal, f"exit code {code} after {seconds:.2f} s, {_bitwise(equal)}")


def _bitwise(equal: bool) -> str:
    return "then bit for bit equal" if equal else "then NOT equal"


def _ends(run: Run, whole: Run, seen: str, passed: bool) -> tuple[bool, str]:
    """Starts again without a fault, to the end."""
    code = run.start().wait()
    equal = code == 0 and difference(whole.workdir, run.workdir) == 0
    return passed and equal, f"{seen}, {_bitwise(equal)}"


def _damaged(damage: Callable[[Path], None]) -> Callable[[Run, Run], tuple[bool, str]]:
    def drill(run: Run, whole: Run) -> tuple[bool, str]:
        newest, before = run.steps()[-1], run.steps()[-2]
        damage(folder(run.workdir) / str(newest))
        code = run.start().wait()
        text = run.output.read_text()
        warned = f"{newest} is damaged" in text and f"resuming from step {before}" in text
        equal = code == 0 and difference(whole.workdir, run.workdir) == 0
        return warned and equal, f"{'warning, one before used' if warned else 'NO warning'}, {_bitwise(equal)}"

    return drill


def _numbers(checkpoint: Path) -> list[Path]:
    """Files with the numbers; which of them a value is in, and whether it is used, differs from save to save."""
    return [f for f in checkpoint.glob("state/ocdbt.process_*/d/*") if f.stat().st_size > 5000]


def _truncate(checkpoint: Path) -> None:
    for file in _numbers(checkpoint):
        os.truncate(file, file.stat().st_size // 2)


def _flip(checkpoint: Path) -> None:
    for file in _numbers(checkpoint):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(content)


def _lose_state(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "state")


def _full_disk(run: Run, whole: Run) -> tuple[bool, str]:
    before = run.steps()
    process = run.start(wrapper=_LIMIT.format(LARGEST_FILE), piped=True)
    printed = process.communicate()[0].decode(errors="replace")
    run.output.write_text(printed)
    code, said = process.returncode, "a checkpoint could not be written" in printed
    intact = run.steps() == before
    seen = f"exit code {code}, {'said so' if said else 'NOT said'}, older ones {'kept' if intact else 'LOST'}"
    return _ends(run, whole, seen, code == 2 and said and intact)


def _two_devices(run: Run, whole: Run) -> tuple[bool, str]:
    code = run.start(environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}).wait()
    far = difference(whole.workdir, run.workdir)
    return code == 0 and far < ROUNDING, f"exit code {code}, parameters within {far:.1e}"


def _nan(run: Run, whole: Run) -> tuple[bool, str]:
    code = run.start(wrapper=_NAN.format(step=run.steps()[-1] + 5)).wait()
    said = "the loss or its gradient stopped being finite" in run.output.read_text()
    return _ends(run, whole, f"exit code {code}, {'said so' if said else 'NOT said'}", code == 2 and said)


def _dead_file(run: Run, whole: Run) -> tuple[bool, str]:
    """Streamed images whose file is cut off while the run reads it; repaired for the next start."""
    images, own = whole.workdir.parent / "images.npy", run.workdir.with_suffix(".npy")
    shutil.copy(images, own)
    before = run.steps()
    process = run.start("--data.path", str(own), "--data.memory-gb", "0", wrapper=_NO_CACHE)
    wait_until(lambda: run.newer(before), process)
    os.truncate(own, own.stat().st_size // 2)
    code = process.wait()
    lines = run.output.read_text().splitlines()
    said = any(line.startswith("error: ") and str(own) in line for line in lines)
    shutil.copy(images, own)
    return _ends(run, whole, f"exit code {code}, {'file named' if said else 'file NOT named'}", code == 2 and said)


def _clock(run: Run, whole: Run) -> tuple[bool, str]:
    code = run.start(wrapper=_CLOCK).wait()
    equal = code == 0 and difference(whole.workdir, run.workdir) == 0
    return equal, f"exit code {code}, {_bitwise(equal)}"


FAULTS: dict[str, Callable[[Run, Run], tuple[bool, str]]] = {
    "newest checkpoint cut off": _damaged(_truncate),
    "newest checkpoint with a flipped bit": _damaged(_flip),
    "newest checkpoint half-written": _damaged(_lose_state),
    "disk full during a save": _full_disk,
    "two devices instead of one": _two_devices,
    "NaN in a batch": _nan,
    "data file cut off mid-epoch": _dead_file,
    "clock jumps by 11 days every second": _clock,
}
