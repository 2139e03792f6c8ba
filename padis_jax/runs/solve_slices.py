"""The rows of several slices: baselines one by one, the solver side by side, where the slices share an operator.

One by one, a slice runs the very functions of a single run. In a batch its image differs by rounding: the program is
another one, whose sums are laid out differently.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from padis_jax.blocks import Blocks
from padis_jax.devices.memory import free_memory
from padis_jax.devices.plan import Estimate, plan_sampling
from padis_jax.errors import UserError
from padis_jax.patches import Frame, frame_for
from padis_jax.prior import Prior
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.divergence import refuse_divergence
from padis_jax.runs.doubts import unlike
from padis_jax.runs.job import Done, Item, Solve
from padis_jax.runs.outcome import Outcome
from padis_jax.runs.prior import patch_batch
from padis_jax.runs.score import score, score_samples
from padis_jax.runs.solve import TV_ROW, rows_of, run_batch
from padis_jax.runs.volume import one_of
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.sampling import OnMemory
from padis_jax.weights import Weights

SHARE = 0.5  # of the free memory that a batch may take


def slices_solver(
    config: Experiment,
    prior: Prior,
    *,
    size: int,
    mesh: Mesh | None = None,
    on_memory: OnMemory | None = None,
    blocks: Blocks | None = None,
) -> Solve:
    """A `Solve` for `run_job`: every slice's images by the names of their rows, in [0, 1], and their scores.

    Args:
      config: of the volume.
      prior: for slices one by one it may share patches over devices; in batches it has no mesh.
      size: of a batch; 1 for slices one by one.
      mesh: devices that share the slices of a batch.
      on_memory: called with the memory of the compiled loop before it runs.
      blocks: of the training images, to tell slices that look unlike them.
    """

    def solve(numbers: Sequence[int], items: Sequence[Item]) -> list[Done]:
        cases = [dataclasses.replace(item.case, prior=prior) for item in items]
        alike = all(case.operator is cases[0].operator for case in cases)
        if size == 1 or config.samples or not alike:
            return [
                done_of(
                    case, _filled(one_of(config, number), case, plan_of(config, case.kind, case), on_memory), blocks
                )
                for number, case in zip(numbers, cases, strict=True)
            ]
        return _side_by_side(config, numbers, cases, blocks, size=size, mesh=mesh, on_memory=on_memory)

    return solve


def _filled(config: Experiment, case: Case, plan: Plan | None, on_memory: OnMemory | None) -> Outcome | UserError:
    """The rows of a slice, without the solver's where there is no plan, or why there are none."""
    outcome = Outcome(dict(case.simple))
    try:
        outcome.fill(case, rows_of(config, case, plan, on_memory=on_memory))
    except UserError as error:
        return error
    return outcome


def _side_by_side(
    config: Experiment,
    numbers: Sequence[int],
    cases: Sequence[Case],
    blocks: Blocks | None,
    *,
    size: int,
    **options: Any,
) -> list[Done]:
    outcomes = {i: _filled(one_of(config, numbers[i]), case, None, None) for i, case in enumerate(cases)}
    held = {i: outcome for i, outcome in outcomes.items() if isinstance(outcome, Outcome)}
    if held:
        plan = plan_of(config, cases[0].kind, cases[0])
        starts = [outcome.images[TV_ROW] for outcome in held.values()] if plan.start == "tv" else ()
        begin = time.perf_counter()
        chosen, keys = [cases[i] for i in held], [numbers[i] for i in held]
        found = jax.block_until_ready(run_batch(config, chosen, keys, starts=starts, size=size, **options))
        seconds, label = (time.perf_counter() - begin) / len(held), plan.row.label
        for (i, outcome), image, residual in zip(held.items(), found.images, found.residual, strict=True):
            try:
                refuse_divergence(label, image)
            except UserError as error:
                outcomes[i] = error
                continue
            outcome.rows.append(score(label, image, cases[i], evaluations=plan.evaluations, seconds=seconds))
            outcome.images[label], outcome.residuals = image, residual
    return [done_of(case, outcomes[i], blocks) for i, case in enumerate(cases)]


def done_of(case: Case, outcome: Outcome | UserError, blocks: Blocks | None = None) -> Done:
    """What the job keeps of a case: its images by the names of their rows, its scores, or why there are none."""
    if isinstance(outcome, UserError):
        return Done(reason=str(outcome))
    arrays = {name: np.asarray(image, np.float32) for name, image in outcome.images.items()}
    about: dict[str, Any] = {"rows": [row.shown() for row in outcome.rows]}
    about["relative_noise"] = float(case.measurement.noise_level)
    if blocks is not None and TV_ROW in arrays:
        about["unlike"] = unlike(blocks, arrays[TV_ROW])
    if outcome.samples is not None:
        arrays["deviation"] = np.asarray(outcome.samples.deviation, np.float32)
        about["samples"] = score_samples(outcome.samples, case)[0]
    else:
        about["residual_per_level"] = outcome.residuals
    return Done(arrays, about)


def estimate_of(
    config: Experiment, plan: Plan, weights: Weights, frame: Frame, slices: int, at_once: int, *, timed: bool = False
) -> Estimate:
    """Of all slices, `at_once` side by side on a device."""
    runs = config.samples / plan.average if config.samples else 1
    return plan_sampling(
        weights.network,
        weights.params,
        frame,
        evaluations=slices * round(runs * plan.evaluations * config.tilings),
        patch_batch=patch_batch(config, weights, frame, 1, images=at_once) or 0,
        gradient=plan.row.gradient,
        images=at_once,
        timed=timed,
    )


def frame_of(weights: Weights, shape: Sequence[int]) -> Frame:
    """The frame of images of (H, W, C)."""
    height, width, _ = shape
    return weights.frame_for((height, width)) or frame_for((height, width), weights.frame.patch)


def batch_size(
    config: Experiment,
    plan: Plan,
    weights: Weights,
    frame: Frame,
    slices: int,
    devices: int,
    *,
    free: Callable[[], int] = free_memory,
) -> int:
    """Slices at a time: `config.batch`, or as many as fit into half of the free memory; 1 with samples.

    Args:
      config: of the volume.
      plan: how the solver runs.
      weights: of the network.
      frame: of a slice.
      slices: in all.
      devices: that share the slices of a batch.
      free: the memory of a device, in bytes.
    """
    most = min(config.batch, slices)
    if config.samples or most == 1:
        return 1
    if config.patch_batch == "auto":  # which is chosen for that many
        return most
    each = -(-most // devices)
    try:
        room = SHARE * free()
    except UserError:  # a device that does not tell
        return most
    one, all_of_them = (estimate_of(config, plan, weights, frame, 1, n).bytes for n in (1, each))
    if each > 1 and all_of_them > room:
        step = (all_of_them - one) / (each - 1)
        each = max(1, int(1 + (room - one) / step)) if step > 0 else 1
    return min(most, each * devices)
