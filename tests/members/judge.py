"""What came of a case: a value, one line of refusal, or what must not be (a traceback, a hang, a library's chatter)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import members
from padis_jax.devices.memory import Growth
from padis_jax.errors import UserError
from padis_jax.images.limit import set_max_memory

SECONDS = 10.0  # of the processor; three times as long by the clock
ROOT = Path(__file__).parent.parent.parent


class Hang(BaseException):
    """A case took too long."""


def attempt(case: Callable[[], object]) -> tuple[str, str]:
    """(what came of it, message): value, refused, traceback or hang."""

    def stop(*_: object) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 3 * SECONDS))
    old = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case()
    except UserError as error:
        message = str(error)
        one_line = 0 < len(message) < 2000 and "\n" not in message
        return ("refused" if one_line else "traceback"), message
    except Hang:
        return "hang", ""
    except SystemExit as error:
        return ("refused" if error.code == 2 else "traceback"), str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library too, which is no Exception
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        for (number, timer, _), handler in zip(timers, old, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
    return "value", ""


@contextlib.contextmanager
def overheard() -> Iterator[io.BytesIO]:
    """What libraries print on stderr meanwhile, below Python too."""
    found, kept = io.BytesIO(), os.dup(2)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            found.write(file.read())


def judged(member: members.Member, folder: Path) -> tuple[str, str, Path]:
    """(right, refused or what is wrong; message; the path that was read) of a member, in an empty folder."""
    path = member.make(folder)
    found: list[object] = []
    set_max_memory(member.limit)
    try:
        growth, begin = Growth() if member.limit else lambda: 0, time.process_time()
        with overheard() as printed:
            outcome, message = attempt(lambda: found.append(member.read(path)))
        seconds, taken = time.process_time() - begin, growth()
    finally:
        set_max_memory(None)
    if outcome not in ("value", "refused"):
        return outcome, message, path
    said = [line for line in printed.getvalue().decode(errors="replace").splitlines() if not line.startswith("note: ")]
    if said:
        return "chatter", "; ".join(said), path
    if member.limit and (taken > members.MEMORY or seconds > members.SECONDS):
        return "too late", f"{taken / 2**20:.0f} MB and {seconds:.1f} s: {message}", path
    if outcome == "refused":
        allowed = member.right in (members.REFUSED, members.EITHER) if _is_mark(member.right) else member.refusable
        return ("refused" if allowed else "wrongly refused"), message, path
    if member.right is members.REFUSED:
        return "wrongly read", "", path
    differs = "" if member.right is members.EITHER else members.difference(found[0], member.right)
    return ("wrong value" if differs else "right"), differs, path


def _is_mark(right: object) -> bool:
    return right is members.REFUSED or right is members.EITHER


def commanded(member: members.Member, path: Path, outcome: str) -> tuple[str, str]:
    """(right, refused or what is wrong; message) of its program, which has to come to the same end as `outcome`."""
    assert member.command is not None
    program, *words = member.command(path)
    words += ["--max-memory", member.limit] if member.limit else []
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from padis_jax.cli.{program} import main; main()", *words],
            capture_output=True, timeout=16 * SECONDS, cwd=path.parent, stdin=subprocess.DEVNULL,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "hang", ""
    errors = done.stderr.decode(errors="replace")
    if done.returncode == 2 and errors.startswith("error: ") and errors.count("\n") == 1:
        return ("refused" if outcome == "refused" or member.right is members.EITHER else "wrongly refused"), errors
    if done.returncode != 0 or "Traceback" in errors:
        return "traceback", errors
    if outcome != "right" and member.right is not members.EITHER:
        return "wrongly read", ""
    if program == "data" and isinstance(member.right, np.ndarray):
        about = json.loads(done.stdout)
        shape = tuple(about[name] for name in ("images", "height", "width", "channels"))
        differs = members.difference(about["range"], [member.right.min(), member.right.max()])
        if shape != member.right.shape or differs:
            return "wrong value", f"{shape}: {differs}"
    return "right", ""
