"""Cells of the study: slices that are denoised, and problems that are solved, with the prior of an arm."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from padis_jax.errors import UserError
from padis_jax.metrics import psnr
from padis_jax.noise import geometric_ladder
from padis_jax.prior import Prior
from padis_jax.problems.registry import PROBLEMS
from padis_jax.solvers.presets import preset
from padis_jax.split import HEAD_CT, HEAD_CT_TEST, HEAD_CT_VALIDATION
from padis_jax.weights import load_prior
from studies.cells import digest_of, kept, known
from studies.context.training import START, prior_of, weights_file
from studies.patch_size import slices
from studies.tasks import solve, task

SHIPPED, PLAIN, CONTEXT = ARMS = ("shipped", "plain", "context")
LEVELS = {f"sigma{level:g}": level for level in (0.05, 0.2, 0.5, 1.0)}  # whole slices, denoised
SOLVED = ("ct8", "limited120", "fan180", "ct20")
GROUPS = {"validation": HEAD_CT_VALIDATION, "test": HEAD_CT_TEST}
SOLVER, EVALUATIONS = "pnp_admm", 25


class Cell(NamedTuple):
    """A problem on a slice with an arm's prior; the seed is that of its training, of the noise and of the tilings."""

    problem: str
    image: int
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return "_".join(map(str, self)) + ".json"


Found = dict[Cell, dict[str, Any]]


def cells_of(args: argparse.Namespace) -> Iterator[Cell]:
    """Those that the flags name; all arms of a slice in a row, the validation slices first."""
    for group in (group for group in GROUPS if group in args.slices):
        for seed, problem, image in itertools.product(args.seeds, args.problems, GROUPS[group]):
            yield from (Cell(problem, image, arm, seed) for arm in args.arms)


def place(out: Path, cell: Cell) -> Path:
    """The file of a cell."""
    return out / "cells" / cell.name


def described(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """What a cell depends on."""
    weights = START if cell.arm == SHIPPED else str(weights_file(args, cell.arm, cell.seed))
    about = {"cell": cell._asdict(), "weights": digest_of(weights), "images": digest_of(HEAD_CT)}
    if cell.problem in LEVELS:
        return about | {"sigma": LEVELS[cell.problem]}
    row = PROBLEMS[cell.problem]
    return about | {"definition": row.definition, "plan": preset(SOLVER, row.kind, EVALUATIONS).described()}


def measure(args: argparse.Namespace, out: Path) -> None:
    """Runs the cells without a file, at most --most of them."""
    priors: dict[tuple[str, int], Prior] = {}
    for cell in cells_of(args):  # what is missing is said before the work
        if (own := (cell.arm, cell.seed)) not in priors:
            priors[own] = load_prior(START, mirror=False) if cell.arm == SHIPPED else prior_of(args, *own)
    missing = [cell for cell in cells_of(args) if known(place(out, cell), described(args, cell)) is None]
    print(f"{len(missing)} cells to run", flush=True)
    for cell in tqdm(missing[: args.most], desc="context", unit="cell"):
        run = functools.partial(score, cell, priors[cell.arm, cell.seed])
        row = kept(place(out, cell), described(args, cell), run)
        tqdm.write(f"{row['psnr']:6.2f} dB  {cell.name}")


def read(out: Path) -> Found:
    """The cells that are there.

    Raises:
      UserError: if those of an arm and seed are of two trainings.
    """
    found: Found = {}
    weights: dict[tuple[str, int], str] = {}
    for file in sorted((out / "cells").glob("*.json")):
        saved = json.loads(file.read_text())
        cell = Cell(**saved["about"]["cell"])
        if weights.setdefault((cell.arm, cell.seed), digest := saved["about"]["weights"]) != digest:
            raise UserError(f"{file}: of another training than other cells; run `python -m studies.context measure`")
        found[cell] = saved["row"]
    return found


def score(cell: Cell, prior: Prior) -> dict[str, Any]:
    """PSNR (dB) and seconds, compilation included; of a problem that of total variation and the residuals, too."""
    if cell.problem in LEVELS:
        (truth,) = slices([cell.image])
        begin = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(cell.seed), cell.image)
        image = np.asarray(_denoised(prior, key, jnp.asarray(truth), jnp.float32(LEVELS[cell.problem])))
        found = float(psnr(np.clip(image, 0, 1), truth))
        return {"psnr": found, "seconds": time.perf_counter() - begin}
    given = task(cell.problem, str(cell.image), cell.seed)
    plan = preset(SOLVER, given.kind, EVALUATIONS)
    solved = solve(given._replace(prior=prior), plan, geometric_ladder(plan.levels, plan.sigma_max, plan.sigma_min))
    about = {"psnr": solved.psnr, "tv": given.score(given.start), "seconds": solved.seconds}
    return about | {"residual": solved.residual}


@jax.jit
def _denoised(prior: Prior, key: Array, truth: Array, sigma: Array) -> Array:
    noise_key, tiling_key = jax.random.split(key)
    plane = prior.frame.pad(truth)
    noisy = plane + sigma * jax.random.normal(noise_key, plane.shape)
    return prior.frame.crop(prior.denoise(tiling_key, noisy, sigma))
