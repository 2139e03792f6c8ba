"""Simulates a CT scan of an image and reconstructs it with a trained patch prior.

    python sample.py                                          the demo: held-out slice 41, 20 views, 1e5 photons per ray
    python sample.py --image.index 62 --scan.views 60         another slice, more views
    python sample.py --scan.protocol paper                    noiseless, the same projector, as in the paper
    python sample.py --config configs/dps.py                   the paper's VE-DPS, 1000 evaluations
    python sample.py --measurements scans/ --workdir out       every sinogram of a folder, resumable
    python sample.py --weights runs/mine/weights.safetensors --image.path pictures/ --scan.protocol paper

The results folder (--workdir, by default results/) receives comparison.png, reconstruction.npz (truth, FBP, TV and the
solver's image in the image's unit), metrics.json and config.json (the resolved settings, seed and hash of the weights).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tqdm import tqdm

import padis_jax
from padis_jax import cluster
from padis_jax import experiment as ex
from padis_jax.cli import batch
from padis_jax.cli.arguments import parse, split_args
from padis_jax.config import load_config_file
from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import comparison, save_figure
from padis_jax.files import write_json, write_npz
from padis_jax.weights import load_weights

NAMES = {"dds": "DDS", "dps": "DPS", "langevin": "Langevin"}


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of sample.py and padis-sample."""
    config_file, workdir, rest = split_args(cluster.join(sys.argv[1:] if argv is None else argv))
    given = load_config_file(config_file, ex.Experiment) if config_file else ex.Experiment()
    config = parse(
        ex.Experiment, rest, default=given, prog="sample.py [--config FILE] [--workdir DIR]", description=__doc__ or ""
    )
    if jax.process_count() > 1 and not config.measurements:
        raise UserError("several processes share the items of a folder: give --measurements, or leave --cluster out")
    if config.measurements:
        batch.run(config, Path(workdir or "results"))
    else:
        sample(config, Path(workdir or "results"))


def sample(config: ex.Experiment, workdir: Path) -> list[ex.Row]:
    """Runs the experiment, prints the table, writes the results folder.

    Raises:
      UserError: for files, settings and images that do not fit.
    """
    for path, default, flag in (
        (config.weights, ex.DEFAULT_WEIGHTS, "--weights"),
        (config.image.path, ex.DEFAULT_IMAGE, "--image.path"),
    ):
        if error := ex.missing_default(path, default, flag):
            raise error
    weights = load_weights(config.weights)
    scene = ex.load_scene(config)
    prior = ex.make_prior(config, weights, scene)
    try:
        ex.solver_settings(config.solver, scene.measurement)  # a wrong one is refused before TV takes its time
    except ValueError as error:
        raise UserError(str(error)) from error

    start, fbp_seconds = ex.timed(scene.operator.start, scene.measurement.sinogram)
    rows = [ex.score("FBP", start, scene, seconds=fbp_seconds)]
    tv, tv_seconds = ex.timed(ex.run_tv, config, scene)
    rows.append(ex.score("TV", tv, scene, seconds=tv_seconds))
    name = NAMES[config.solver.name]
    with tqdm(total=config.solver.levels * config.solver.inner * config.solver.average, desc=name, unit="step") as bar:

        def progress(done: int, total: int, info: Any) -> None:
            bar.update(done - bar.n)
            bar.set_postfix(residual=f"{float(info.residual):.4f}")

        try:
            result, seconds = ex.timed(ex.run_solver, config, scene, prior, tv, progress=progress)
        except ValueError as error:
            raise UserError(str(error)) from error
    image, residuals, evaluations = result
    if not np.isfinite(image).all():
        raise UserError(f"{name} diverged: its image is not finite. Lower --solver.zeta, or raise --solver.consistency")
    rows.append(ex.score(name, image, scene, evaluations=evaluations, seconds=seconds))

    print(table(rows, scene.window.unit))
    _write(workdir, config, weights.digest, scene, {"FBP": start, "TV": tv, name: image}, rows, residuals)
    print(f"results in {workdir}: comparison.png, reconstruction.npz, metrics.json, config.json")
    return rows


def table(rows: Sequence[ex.Row], unit: str) -> str:
    """The rows as aligned text; the error is within the head where the unit is HU."""
    error = f"RMSE ({unit}{', head' if unit == 'HU' else ''})"
    head = ("method", "PSNR (dB)", "SSIM", error, "residual", "evaluations", "seconds")
    body = [
        (
            r.method,
            f"{r.psnr:.2f}",
            f"{r.ssim:.4f}",
            f"{r.rmse:.4g}",
            f"{r.residual:.5f}",
            f"{r.evaluations}",
            f"{r.seconds:.1f}",
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in (head, *body))


def _write(
    workdir: Path,
    config: ex.Experiment,
    digest: str,
    scene: ex.Scene,
    images: dict[str, Any],
    rows: Sequence[ex.Row],
    residuals: np.ndarray,
) -> None:
    origin: Literal["upper", "lower"] = "lower" if scene.window.unit == "HU" else "upper"  # CT is stored face down
    figure = comparison(scene.truth, images, window=scene.window, origin=origin)
    save_figure(workdir / "comparison.png", figure)
    arrays = {"truth": scene.truth} | {name: np.asarray(image) for name, image in images.items()}
    in_unit = {name: np.asarray(scene.window.from_unit(a), np.float32) for name, a in arrays.items()}
    write_npz(workdir / "reconstruction.npz", in_unit | {"unit": np.asarray(scene.window.unit)})
    write_json(
        workdir / "metrics.json",
        {
            "image": scene.name,
            "protocol": scene.measurement.protocol,
            "relative_noise": float(scene.measurement.noise_level),
            "unit_of_rmse": scene.window.unit,
            "rows": [r._asdict() for r in rows],
            "residual_per_level": residuals,
        },
    )
    about = {"experiment": dataclasses.asdict(config), "seed": config.seed, "weights_sha256": digest}
    write_json(workdir / "config.json", about | {"padis_jax": padis_jax.__version__, "jax": jax.__version__})
