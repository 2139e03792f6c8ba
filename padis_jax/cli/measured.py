"""Reconstructs a measured scan: sample.py with --measurement.path, where there is no truth to compare with."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import padis_jax
from padis_jax import experiment as ex
from padis_jax.cli.arguments import Manners
from padis_jax.errors import UserError
from padis_jax.figures import save_figure
from padis_jax.files import write_json, write_npz
from padis_jax.images import Window
from padis_jax.metrics import relative_error
from padis_jax.operators.geometry_check import Report, check_geometry
from padis_jax.operators.geometry_file import ScanGeometry, write_geometry
from padis_jax.scans.measured import Scan, load_scan, scaled
from padis_jax.weights import load_weights


def reconstruct_measured(config: ex.Experiment, workdir: Path, manners: Manners) -> None:
    """Prepares the scan, then checks its geometry or reconstructs it, and writes the results folder.

    Raises:
      UserError: for files and settings that do not fit.
    """
    scan = load_scan(config.measurement)
    _tell(manners, f"{config.measurement.path}: {scan.sinogram.shape[0]} views of {scan.sinogram.shape[1]} bins")
    if scan.repaired:
        _tell(
            manners,
            f"{scan.repaired} of {scan.sinogram.size} counts were unusable and were filled from their neighbours",
        )
    if config.measurement.find_centre:
        _tell(manners, f"the rotation axis was found at offset_mm = {scan.geometry.offset_mm:.4f}")
    if config.measurement.check:
        _check(config, scan, workdir, manners)
        return
    weights = load_weights(config.weights).computing(config.compute)
    shape = weights.frame.image_shape
    operator, measurement, pixel, attenuation = scaled(config.measurement, scan, weights.window, shape)
    # No truth: NaN, so that nothing can be compared with it unnoticed.
    truth = np.full((*shape, weights.network.image_channels), np.nan, np.float32)
    scene = ex.Scene(truth, weights.window, Path(config.measurement.path).name, operator, measurement)
    prior = ex.make_prior(config, weights, scene)
    try:
        ex.solver_settings(config.solver, measurement)
        images: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        images["FBP"], seconds["FBP"] = ex.timed(operator.start, measurement.sinogram)
        images["FBP"] = images["FBP"][..., None]
        tv, seconds["TV"] = ex.timed(ex.run_tv, config, _channel_last(scene))
        images["TV"] = tv
        name = config.solver.name.upper()
        try:
            about_run = (config, _channel_last(scene), prior, tv)
            result, seconds[name] = ex.timed(ex.run_solver, *about_run, foretold=manners.foretold)
        except KeyboardInterrupt:
            about = {"measurement": config.measurement.path, "interrupted": True}
            _write(workdir, config, weights.window, weights.digest, scan.geometry, images, about)
            raise KeyboardInterrupt(
                f"interrupted; FBP and TV are in {workdir}. Run the same command again for the whole result, which its "
                "seed decides"
            ) from None
    except ValueError as error:
        raise UserError(str(error)) from error
    images[name], residuals, evaluations = result
    if not np.isfinite(images[name]).all():
        raise UserError(f"{name} diverged: its image is not finite. Raise --solver.consistency, or lower --solver.zeta")
    rows = [
        {
            "method": method,
            "residual": float(relative_error(operator(image[..., 0]), measurement.sinogram)),
            "seconds": seconds[method],
        }
        for method, image in images.items()
    ]
    about = {
        "measurement": config.measurement.path,
        "repaired_counts": scan.repaired,
        "pixel_mm": pixel,
        "attenuation_per_mm": attenuation,
        "relative_noise": float(measurement.noise_level),
        "evaluations": evaluations,
        "rows": rows,
    }
    _write(workdir, config, weights.window, weights.digest, scan.geometry, images, about | {"residuals": residuals})
    if manners.json:
        print(json.dumps(about | {"workdir": str(workdir)}))
    for row in rows:
        _tell(manners, f"{row['method']:>8}  residual {row['residual']:.5f}  {row['seconds']:.1f} s")
    _tell(
        manners,
        f"results in {workdir}: reconstruction.png, reconstruction.npz, geometry.json, metrics.json, config.json",
    )


def _channel_last(scene: ex.Scene) -> ex.Scene:
    """The sinogram as [views, bins, 1], as simulated ones are."""
    m = scene.measurement
    return scene._replace(measurement=m._replace(sinogram=m.sinogram[..., None], ray_sigma=m.ray_sigma[..., None]))


def _check(config: ex.Experiment, scan: Scan, workdir: Path, manners: Manners) -> None:
    try:
        report = check_geometry(scan.geometry, scan.sinogram)
    except ValueError as error:
        raise UserError(f"{config.measurement.path}: {error}") from error
    corrected = report.best.correction.geometry(scan.geometry)
    about = {
        "faults": report.best.correction.faults,
        "correction": report.best.correction._asdict(),
        "residual_as_stated": report.stated,
        "residual_corrected": report.best.residual,
        "others": [f.correction._asdict() | {"residual": f.residual} for f in report.others],
    }
    if report.best.correction.faults and not manners.dry_run:
        write_geometry(workdir / "geometry_corrected.json", corrected)
        about["written"] = str(workdir / "geometry_corrected.json")
    if manners.json:
        print(json.dumps(about))
    else:
        print(describe(report, scan.geometry))
        if "written" in about:
            print(f"corrected geometry: {about['written']}")


def describe(report: Report, stated: ScanGeometry) -> str:
    """A report as text, for people."""
    correction = report.best.correction
    if not correction.faults:
        return f"the geometry fits: residual {report.stated:.4f}; no correction lowers it clearly"
    right = correction.geometry(stated)
    words = []
    if correction.other_unit:
        words.append(f"the angles are in {right.angle_unit}")
    if correction.reverse_views:
        words.append("the views are stored in the reverse order of the angles: reverse `angles`")
    if correction.reverse_bins:
        words.append("negate `angles`, or reverse the bins (the images are mirrored)")
    if correction.pitch != 1:
        words.append(f"spacing_mm {stated.spacing_mm:g} -> {right.spacing_mm:.5g}")
    if correction.shift_mm:
        words.append(f"offset_mm {stated.offset_mm:g} -> {right.offset_mm:.4g}")
    return (
        f"likely fault: {', '.join(correction.faults)}. Correction: {'; '.join(words)}. "
        f"Residual {report.stated:.4f} -> {report.best.residual:.4f}"
    )


def _write(
    workdir: Path,
    config: ex.Experiment,
    window: Window,
    digest: str,
    geometry: ScanGeometry,
    images: dict[str, Any],
    about: dict[str, Any],
) -> None:
    planes = {name: np.asarray(window.from_unit(np.asarray(image)), np.float32) for name, image in images.items()}
    figure = Figure(figsize=(3.2 * len(planes), 3.5), layout="constrained")
    for ax, (name, plane) in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes.items(), strict=True):
        ax.imshow(plane[..., 0], cmap="gray", vmin=window.low, vmax=window.high, interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set_axis_off()
    save_figure(workdir / "reconstruction.png", figure)
    write_npz(workdir / "reconstruction.npz", planes | {"unit": np.asarray(window.unit)})
    write_geometry(workdir / "geometry.json", geometry)
    write_json(workdir / "metrics.json", about)
    settings = {"experiment": dataclasses.asdict(config), "seed": config.seed, "weights_sha256": digest}
    write_json(workdir / "config.json", settings | {"padis_jax": padis_jax.__version__, "jax": jax.__version__})


def _tell(manners: Manners, text: str) -> None:
    if not (manners.quiet or manners.json):
        print(text, file=sys.stdout)
