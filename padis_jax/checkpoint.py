"""Checkpoints of a training run with Orbax: asynchronous, atomic, with everything that resuming needs.

One step folder holds `state` (parameters, average, optimiser, step) and `config` (JSON: config, frame, window, and the
digests of all of these). A save that is cut off leaves a temporary folder, which is ignored and removed. A checkpoint
whose content does not have its digests is set aside, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from padis_jax.digest import described, digests
from padis_jax.errors import UserError, reason
from padis_jax.files import in_bucket, place, resolved
from padis_jax.training import TrainState

_UNWRITTEN = (OSError, ValueError, RuntimeError)  # what Orbax and TensorStore make of a full disk
PATIENCE = 10**9  # seconds


class _DamagedError(Exception):
    """A checkpoint that cannot be read, or is not what was written."""


def folder(workdir: str | Path) -> Path:
    """Where the checkpoints of a run are, on the disk or in a bucket."""
    inside = place(workdir) / "checkpoints"
    return inside if in_bucket(workdir) else resolved(inside)


@contextmanager
def open_checkpoints(workdir: str | Path, *, keep: int = 3, reading: bool = False) -> Iterator[ocp.CheckpointManager]:
    """A manager of the folder `workdir`/checkpoints; leaving the block waits for saves under way.

    Args:
      workdir: folder of the run.
      keep: newest checkpoints that are kept.
      reading: change nothing there: another run may be at work in the folder. Who writes holds its lock (lock.py).

    Raises:
      UserError: if a save under way fails.
    """
    # Remains of interrupted saves. Orbax offers to remove them, but in a thread that fails noisily if the block is left
    # before it has started.
    if jax.process_index() == 0 and not reading:
        for remains in folder(workdir).glob("*.orbax-checkpoint-tmp*"):
            _remove(remains)
    # Orbax counts its patience by the time of day, so a clock that is set ahead during a save would end it. The same
    # number limits how long several processes wait for each other; then it stays Orbax's own.
    patience = ocp.options.AsyncOptions(timeout_secs=PATIENCE) if jax.process_count() == 1 else None
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, async_options=patience, create=not reading)
    handlers = {"state": ocp.StandardCheckpointHandler(), "config": ocp.JsonCheckpointHandler()}
    with _muted():
        try:
            manager = ocp.CheckpointManager(folder(workdir), options=options, item_handlers=handlers)
        except OSError as error:
            raise UserError(f"{folder(workdir)}: cannot be used ({error.strerror or error})") from error
        try:
            yield manager
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                manager.close()
            raise
        with _saving(manager):
            manager.close()


@contextmanager
def _muted() -> Iterator[None]:
    """Keeps Orbax, its threads and its tasks from printing the tracebacks of what is said here in one line."""
    absl = logging.getLogger("absl")
    before = absl.disabled, threading.excepthook
    # Tasks that nobody waited for say so when they are freed, which may be as the program ends.
    logging.getLogger("asyncio").addFilter(_not_of_orbax)
    if not _HOOKS:
        _HOOKS.append(sys.unraisablehook)
        sys.unraisablehook = _unraisable
    try:
        absl.disabled, threading.excepthook = True, lambda _: None
        yield
    finally:
        absl.disabled, threading.excepthook = before


_HOOKS: list[Any] = []  # what was there before


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


def _unraisable(args: Any) -> None:
    """TensorStore's answers to tasks that Orbax gave up, and these tasks, are of no use to anybody."""
    of_orbax = "orbax" in getattr(getattr(args.object, "cr_code", None), "co_filename", "")
    if not of_orbax and "Event loop is closed" not in str(args.exc_value):
        _HOOKS[0](args)


def save(manager: ocp.CheckpointManager, state: TrainState, about: dict[str, Any], *, wait: bool = False) -> None:
    """Starts saving `state` under its own step, unless that step is there already.

    Args:
      manager: from `open_checkpoints`.
      state: is copied before this returns, so that the next step may have its buffers.
      about: config, frame and window, fit for JSON.
      wait: until it is on the disk.

    Raises:
      UserError: if this save cannot be started, or the one before it could not be finished (full disk). The checkpoints
        before are not touched: the oldest goes only when a newer one is complete.
    """
    step = int(state.step)
    with _saving(manager):
        if manager.latest_step() != step:
            content = state._asdict()
            sealed = about | {"digests": digests(content) | {"about": _sealed(about)}}
            args = ocp.args.Composite(state=ocp.args.StandardSave(content), config=ocp.args.JsonSave(sealed))
            manager.save(step, args=args)
        if wait:
            manager.wait_until_finished()


def saved_config(manager: ocp.CheckpointManager) -> dict[str, Any] | None:
    """What was saved with the newest checkpoint that can be read, or None if there is no checkpoint.

    Raises:
      UserError: if there are checkpoints, but none can be read.
    """
    damaged = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return _about(manager, step)
        except _DamagedError as error:
            damaged[step] = str(error)
    if damaged:
        raise _all_damaged(manager, damaged)
    return None


def restore(
    manager: ocp.CheckpointManager, like: TrainState, sharding: Any = None, *, aside: bool = True
) -> TrainState | None:
    """The newest intact state, or None if there is no checkpoint. Newer, damaged ones are renamed, with a warning.

    Args:
      manager: from `open_checkpoints`.
      like: a state of the same config (or its `jax.eval_shape`); gives structure, shapes and types.
      sharding: where the arrays go: one sharding, or a state of shardings; None for the first device. It need not be
        the one that they were saved with.
      aside: rename damaged checkpoints; False for who only reads.

    Raises:
      UserError: if no checkpoint is intact, or the newest intact one was made by another architecture.
    """
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if isinstance(sharding, jax.sharding.Sharding):
        one = sharding
        sharding = jax.tree.map(lambda _: one, like)
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), like, sharding)._asdict()
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state = _state(manager, step, target)
        except _DamagedError as error:
            damaged[step] = str(error)
            continue
        if damaged and aside:
            _set_aside(manager, damaged, step)
        return state
    if damaged:
        raise _all_damaged(manager, damaged)
    return None


def _about(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    try:
        found = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]
    except Exception as error:  # damage has many faces, some of them Orbax's own
        _raise_for_memory(error)
        raise _DamagedError(reason(error)) from error
    with contextlib.suppress(AttributeError, KeyError, ValueError, RecursionError):  # JSON of another form
        rest = {name: value for name, value in found.items() if name != "digests"}
        formed = all(isinstance(d, list) for name, d in found.get("digests", {}).items() if name != "about")
        if "digests" not in found or (formed and found["digests"]["about"] == _sealed(rest)):
            return cast(dict[str, Any], found)
    raise _DamagedError("its config is not what was written")


def _state(manager: ocp.CheckpointManager, step: int, target: dict[str, Any]) -> TrainState:
    expected = _about(manager, step).get("digests")
    if expected is not None:
        leaves = jax.tree_util.tree_leaves_with_path(target)
        wanted = {jax.tree_util.keystr(path): described(leaf) for path, leaf in leaves}
        saved = {path: entry[:2] for path, entry in expected.items() if path != "about"}
        if wanted != saved:
            path = sorted(k for k in {*wanted, *saved} if wanted.get(k) != saved.get(k))[0]
            raise UserError(
                f"checkpoint {manager.directory / str(step)}: of another architecture ({path} is "
                f"{saved.get(path, 'absent')}, but this config needs {wanted.get(path, 'none')}); give the settings it "
                "was made with, or choose another --workdir"
            )
    try:
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
    except Exception as error:
        _raise_for_memory(error)
        if expected is None:  # written before there were digests: it may as well be of another architecture
            raise UserError(
                f"checkpoint {manager.directory / str(step)}: damaged or of another architecture ({reason(error)}); "
                "remove this folder to resume from the checkpoint before it, or choose another --workdir"
            ) from error
        raise _DamagedError(reason(error)) from error
    if expected is not None:
        found = digests(state)
        if changed := [path for path in found if found[path] != expected[path]]:
            raise _DamagedError(f"{changed[0]} is not what was written")
    return TrainState(**state)


def _raise_for_memory(error: Exception) -> None:
    """A checkpoint that does not fit into memory is not damaged."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        raise error


def _set_aside(manager: ocp.CheckpointManager, damaged: dict[int, str], used: int) -> None:
    """Renames damaged checkpoints, so that the steps after the one that is used can be saved again."""
    if jax.process_index() == 0:
        for step, damage in damaged.items():
            path = place(str(manager.directory)) / str(step)
            aside = path.with_name(f"damaged_{step}")
            _remove(aside)
            path.rename(aside)
            print(
                f"warning: checkpoint {path} is damaged ({damage}); resuming from step {used}. The damaged one is kept "
                f"as {aside.name}",
                file=sys.stderr,
            )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
    manager.reload()


def _remove(path: Path) -> None:
    if in_bucket(path):
        with contextlib.suppress(Exception):  # of any client library; it is looked for again at the next start
            cast(epath.Path, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _saving(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except _UNWRITTEN as error:
        manager.reload()
        newest = manager.latest_step()
        left = "there is none yet" if newest is None else f"that of step {newest} is the newest complete one"
        raise UserError(
            f"{manager.directory}: a checkpoint could not be written ({reason(error)}); earlier ones are unchanged, "
            f"{left}. Free some space and rerun the same command"
        ) from error


def _all_damaged(manager: ocp.CheckpointManager, damaged: dict[int, str]) -> UserError:
    reasons = "; ".join(f"{step}: {damage}" for step, damage in damaged.items())[:400]
    return UserError(
        f"{manager.directory}: no checkpoint is intact ({reasons}); choose another --workdir, or remove this folder to "
        "start over"
    )


def _sealed(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
