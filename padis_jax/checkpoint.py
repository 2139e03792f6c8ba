"""Checkpoints of a training run with Orbax: asynchronous, atomic, with everything that resuming needs.

One step folder holds `state` (parameters, average, optimiser, step) and `config` (JSON: config, frame, window). A save
that is cut off leaves a temporary folder, which is ignored and removed; the checkpoint before stays the newest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from padis_jax.errors import UserError
from padis_jax.training import TrainState


def folder(workdir: str | Path) -> Path:
    """Where the checkpoints of a run are."""
    return (Path(workdir) / "checkpoints").resolve()


@contextmanager
def open_checkpoints(workdir: str | Path, *, keep: int = 3) -> Iterator[ocp.CheckpointManager]:
    """A manager of the folder `workdir`/checkpoints; leaving the block waits for saves under way.

    Args:
      workdir: folder of the run.
      keep: newest checkpoints that are kept.
    """
    # Remains of interrupted saves. Orbax offers to remove them, but in a thread that fails noisily if the block is left
    # before it has started.
    for remains in folder(workdir).glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(remains, ignore_errors=True)
    options = ocp.CheckpointManagerOptions(max_to_keep=keep)
    with ocp.CheckpointManager(
        folder(workdir),
        options=options,
        item_handlers={"state": ocp.StandardCheckpointHandler(), "config": ocp.JsonCheckpointHandler()},
    ) as manager:
        yield manager


def save(manager: ocp.CheckpointManager, state: TrainState, config: dict[str, Any]) -> None:
    """Starts saving `state` under its own step, unless that step is there already."""
    step = int(state.step)
    if manager.latest_step() == step:
        return
    args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), config=ocp.args.JsonSave(config))
    manager.save(step, args=args)


def saved_config(manager: ocp.CheckpointManager) -> dict[str, Any] | None:
    """The config of the newest checkpoint, or None if there is no checkpoint.

    Raises:
      UserError: if it cannot be read.
    """
    step = manager.latest_step()
    if step is None:
        return None
    try:
        found = manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise _damaged(manager, step, error) from error
    if not isinstance(found, dict):
        raise _damaged(manager, step, "its config is not a mapping")
    return found


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state, or None if there is no checkpoint.

    Args:
      manager: from `open_checkpoints`.
      like: a state of the same config (or its `jax.eval_shape`); gives structure, shapes and types.

    Raises:
      UserError: if the checkpoint is damaged, or was made by another architecture.
    """
    step = manager.latest_step()
    if step is None:
        return None
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), like._asdict())
    try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return TrainState(**manager.restore(step, args=args)["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(manager, step, error) from error


def _damaged(manager: ocp.CheckpointManager, step: int, error: object) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"checkpoint {manager.directory / str(step)}: damaged or of another architecture ({reason}); remove this "
        "folder to go on from the checkpoint before it, or choose another --workdir"
    )
