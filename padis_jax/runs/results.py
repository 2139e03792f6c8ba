"""The results folder of sample.py: comparison.png, reconstruction.npz, metrics.json, config.json, report.html."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import jax
import numpy as np

import padis_jax
from padis_jax import experiment as ex
from padis_jax.errors import UserError
from padis_jax.figures import comparison, save_figure
from padis_jax.files import write_json, write_npz
from padis_jax.runs.html_report import write_report

NAMES = {
    "dds": "DDS",
    "dps": "DPS",
    "langevin": "Langevin",
    "ddnm": "DDNM",
    "diffpir": "DiffPIR",
    "predictor_corrector": "predictor-corrector",
    "daps": "DAPS",
    "tmpd": "TMPD",
    "pnp_admm": "PnP-ADMM",
    "pnp_red": "PnP-RED",
}


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


def write_results(
    workdir: Path,
    config: ex.Experiment,
    digest: str,
    scene: ex.Scene,
    images: dict[str, Any],
    rows: Sequence[ex.Row],
    residuals: np.ndarray,
    more_arrays: Mapping[str, np.ndarray] = MappingProxyType({}),
    more_metrics: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Writes all files of the folder but those of --save-as; images are [H, W, C] in [0, 1]."""
    figure = comparison(scene.truth, images, window=scene.window, origin=origin_of(scene))
    save_figure(workdir / "comparison.png", figure)
    arrays = {"truth": scene.truth} | {name: np.asarray(image) for name, image in images.items()}
    in_unit = {name: np.asarray(scene.window.from_unit(a), np.float32) for name, a in arrays.items()}
    write_npz(workdir / "reconstruction.npz", {**in_unit, "unit": np.asarray(scene.window.unit), **more_arrays})
    write_json(
        workdir / "metrics.json",
        {
            "image": scene.name,
            **({"problem": config.problem, "measured": scene.what} if scene.task else {}),
            "protocol": scene.measurement.protocol,
            "relative_noise": float(scene.measurement.noise_level),
            "unit_of_rmse": scene.window.unit,
            "rows": [r._asdict() for r in rows],
            "residual_per_level": residuals,
            **more_metrics,
        },
    )
    about = write_config(workdir, config, digest)
    write_report(
        workdir / "report.html",
        f"{scene.name}: {rows[-1].method} from {scene.what}",
        pictures={"Truth, reconstructions and errors": (workdir / "comparison.png").read_bytes()},
        rows=[row._asdict() for row in rows],
        settings=about,
        notes=[f"Errors (rmse) are in {scene.window.unit}. Not for clinical use."],
    )


def origin_of(scene: ex.Scene) -> Literal["upper", "lower"]:
    """Where row 0 of the scene's images is drawn."""
    return "lower" if scene.rows_up else "upper"


def write_config(workdir: Path, config: ex.Experiment, digest: str) -> dict[str, Any]:
    """config.json: resolved settings, seed, hash of the weights, versions; returns what it holds."""
    about = {"experiment": dataclasses.asdict(config), "seed": config.seed, "weights_sha256": digest}
    about |= {"padis_jax": padis_jax.__version__, "jax": jax.__version__}
    write_json(workdir / "config.json", about)
    return about


def refuse_divergence(name: str, image: Any) -> None:
    """Raises UserError for an image with NaN or infinity."""
    if not np.isfinite(image).all():
        raise UserError(f"{name} diverged: its image is not finite. Lower --solver.zeta, or raise --solver.consistency")
