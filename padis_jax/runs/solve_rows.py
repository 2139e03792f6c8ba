"""The rows of a volume that is solved as a whole, as items of the job: each is kept when it is finished.

Samples run one after the other and are items too, so that a volume takes the memory of one, and a killed run has those
that are finished. Their mean and deviation are made of their files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from padis_jax.blocks import Blocks
from padis_jax.errors import UserError
from padis_jax.images.guard import decoding
from padis_jax.runs.automatic import choice_of, chosen_plan
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.doubts import doubts, unlike, unlike_slices
from padis_jax.runs.job import DIGESTS, Done, Item, Solve, read_manifest
from padis_jax.runs.outcome import Outcome
from padis_jax.runs.score import cells
from padis_jax.runs.solve import TV_ROW, Solved, rows_of, run_sample
from padis_jax.runs.solve_slices import done_of
from padis_jax.runs.volume import Volume
from padis_jax.runs.volume_case import with_volume_prior
from padis_jax.runs.volume_results import Found
from padis_jax.solvers import sampling
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.samples import Samples
from padis_jax.volume_prior import VolumePrior
from padis_jax.window import Window

AUTO = "auto"  # the step that chooses by the measurement


def labels_of(config: Experiment, volume: Volume, plan: Plan) -> list[str]:
    """The names of the rows of the table, in order."""
    named: Any = Case(None, None, volume.source.window, volume.source, volume.problem)  # type: ignore[arg-type]
    return list(rows_of(config, named, plan))


def steps_of(config: Experiment, labels: Sequence[str], plan: Plan) -> list[str]:
    """What the job does, in order: the rows; before the solver's what --auto chooses, before a mean its samples."""
    if config.auto:
        return [*labels[:-1], AUTO, labels[-1]]
    if not config.samples:
        return list(labels)
    return [*labels[:-1], *(f"{plan.row.label}, sample {k}" for k in range(2, config.samples + 1)), labels[-1]]


def rows_solver(
    config: Experiment,
    prior: VolumePrior,
    names: Mapping[str, str],
    workdir: Path,
    progress: sampling.Progress | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> Solve:
    """A `Solve` for `run_job`, one row at a time.

    Args:
      config: of the run; its image's number is what the keys are folded from.
      prior: of the volume.
      names: label of a step (`steps_of`) -> name of its item.
      workdir: of the job, where finished rows are.
      progress: as in `rows_of`.
      on_memory: likewise.
    """
    labels = list(names)

    def solve(numbers: Sequence[int], items: Sequence[Item]) -> list[Done]:
        (number,), (item,) = numbers, items
        case = with_volume_prior(item.case, prior)
        plan, label, outcome = plan_of(config, case.kind, case), labels[number], Outcome()
        before = labels.index(TV_ROW)
        samples = labels[before + 1 : -1] if config.samples else []
        lines = {line["item"]: line for line in read_manifest(workdir) if line["status"] == "done"}

        def finished(needed: str) -> np.ndarray:
            path = workdir / f"{names[needed]}.npz"
            if names[needed] not in lines or not path.is_file():
                raise UserError(f"{label} needs {needed}, which there is not")
            return _image(path, needed)

        def mean(_: Mapping[str, Array]) -> Solved:
            of = [lines[names[sample]] for sample in samples if names[sample] in lines]
            found = samples_of([finished(sample) for sample in samples], of)
            seconds = sum(line["rows"][0]["seconds"] for line in of)
            return Solved(found.mean, found.evaluations, None, seconds, found)  # type: ignore[arg-type]

        def sample(done: Mapping[str, Array]) -> Solved:
            chain, steps = samples.index(label), plan.levels * plan.inner
            shifted = None if progress is None else sampling.shifted(progress, chain * steps, len(samples) * steps)
            return run_sample(config, case, plan, done.get(TV_ROW), chain, progress=shifted, on_memory=on_memory)

        def search() -> Done:
            begin = time.perf_counter()
            choice = choice_of(config, case, plan).shown()
            return Done(about={"auto": choice, "rows": [{"method": AUTO, "seconds": time.perf_counter() - begin}]})

        try:
            if label == AUTO:
                return [search()]
            if config.auto and number > before:
                if names[AUTO] not in lines:
                    raise UserError(f"{label} needs what {AUTO} chooses, which there is not")
                plan = chosen_plan(plan, lines[names[AUTO]]["auto"])
            if number <= before or not config.samples:
                rows = rows_of(config, case, plan, progress=progress, on_memory=on_memory)
            else:
                rows = {label: sample if label in samples else mean}
            if number > before and plan.start == "tv" and rows[label] is not mean:
                outcome.images = {TV_ROW: finished(TV_ROW)}
            outcome.fill(case, {label: rows[label]})
        except UserError as error:
            return [Done(reason=str(error))]
        outcome.images = {label: outcome.images[label]}
        return [done_of(case, outcome)]

    return solve


def samples_of(images: Sequence[np.ndarray], lines: Sequence[Mapping[str, Any]]) -> Samples:
    """Of samples that are finished: their mean and deviation, in the memory of the machine.

    Args:
      images: [D, H, W] each.
      lines: of the manifest, one for each.
    """
    count, mean = len(images), np.mean(images, axis=0, dtype=np.float64)
    squares = sum(np.square(image - mean) for image in images)
    deviation, residual = np.sqrt(squares / (count - 1)), np.asarray([line["residual_per_level"] for line in lines])
    evaluations = sum(line["rows"][0]["evaluations"] for line in lines)
    found: Any = (np.stack(images), mean.astype(np.float32), deviation.astype(np.float32), residual, evaluations)
    return Samples(*found)


def found_rows(
    workdir: Path,
    names: Mapping[str, str],
    window: Window,
    lines: Sequence[Mapping[str, Any]],
    blocks: Blocks | None = None,
) -> Found:
    """Of rows that are all finished.

    Args:
      workdir: of the job.
      names: label -> name of its item.
      window: of the values.
      lines: of the manifest, in the order of `names`.
      blocks: of the training images, to tell slices that look unlike them.
    """
    stacks = {label: _image(workdir / f"{name}.npz", label)[..., None] for label, name in names.items()}
    rows, last = [line["rows"][0] for line in lines], lines[-1]
    if "samples" in last:
        stacks["deviation"] = _image(workdir / f"{last['item']}.npz", "deviation")[..., None]
    hidden = ("item", "file", "status", "rows", "seconds", *DIGESTS)
    about = {name: value for name, value in last.items() if name not in hidden}
    slices = stacks[TV_ROW]
    strange = [at for at, image in enumerate(slices) if unlike(blocks, image) is not None]
    warnings = [*unlike_slices(strange, len(slices)), *doubts(rows, last.get("relative_noise") or 0.0)]
    table = cells(rows, window.unit, leave_out=("ssim_gaussian",))
    return Found(stacks, {**about, "rows": rows}, table, warnings, {})


def _image(path: Path, label: str) -> np.ndarray:
    with decoding(path, "row of this job"), np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[label])
