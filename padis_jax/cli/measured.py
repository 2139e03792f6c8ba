"""Reconstructs a measured scan: sample.py with --measurement.path, where there is no truth to compare with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from padis_jax import experiment as ex
from padis_jax.cli.arguments import OutputOptions
from padis_jax.cli.geometry import check
from padis_jax.cli.progress import solver_progress
from padis_jax.cli.saving import check_save, save
from padis_jax.errors import UserError
from padis_jax.figures import maps, save_figure
from padis_jax.files import write_json, write_npz
from padis_jax.images import ImageSet, Window
from padis_jax.measurements.geometry import write_geometry
from padis_jax.measurements.load import Posed, Scan, load_scan, pose_scan
from padis_jax.metrics import relative_error
from padis_jax.runs.html_report import write_report
from padis_jax.runs.results import NAMES, refuse_divergence, write_config
from padis_jax.weights import Weights, load_weights


def reconstruct_measured(config: ex.Experiment, workdir: Path, output: OutputOptions) -> None:
    """Prepares the scan, then checks its geometry or reconstructs it, and writes the results folder.

    Interrupted by Ctrl-C, it writes the images that are finished and says how to go on.

    Raises:
      UserError: for files and settings that do not fit.
    """
    scan = load_scan(config.measurement)
    if not (output.quiet or output.json):
        _tell(config, scan)
    if config.measurement.check:
        check(config.measurement.path, scan, workdir, output)
        return
    weights = load_weights(config.weights).computing(config.compute)
    shape = (*weights.frame.image_shape, weights.network.image_channels)
    if shape[-1] != 1:
        raise UserError(f"{config.weights}: made for {shape[-1]} channels, but sinograms are grey")
    posed = pose_scan(config.measurement, scan, weights.window, shape[:2])
    source = _source(config, scan, posed, weights)
    check_save(config, workdir, source, weights.window)
    m = posed.measurement
    m = m._replace(y=m.y[..., None], noise_std=m.noise_std[..., None])
    # No truth: NaN, so that nothing can be compared with it unnoticed.
    scene = ex.Scene(np.full(shape, np.nan, np.float32), weights.window, source.names[0], posed.operator, m)
    prior = ex.make_prior(config, weights, scene)
    name = NAMES[config.solver.name]
    images: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []

    def add(method: str, image: Any, seconds: float, evaluations: int = 0) -> None:
        refuse_divergence(method, image)
        images[method] = image
        residual = float(relative_error(posed.operator(image), m.y))
        rows.append({"method": method, "residual": residual, "evaluations": evaluations, "seconds": seconds})

    about = {
        "measurement": config.measurement.path,
        "repaired_counts": scan.repaired,
        "pixel_mm": posed.pixel_mm,
        "attenuation_per_mm": [posed.attenuation.low, posed.attenuation.high],
        "relative_noise": float(m.noise_level),
        "rows": rows,
    }
    deviation = None
    try:
        ex.solver_settings(config.solver, m)  # a wrong one is refused before TV takes its time
        add("FBP", *ex.timed(posed.operator.start, m.y))
        tv, seconds = ex.timed(ex.run_tv, config, scene)
        add("TV", tv, seconds)
        with solver_progress(config.solver, name, output) as progress:
            try:
                if config.samples:
                    drawn, seconds = ex.timed(ex.run_samples, config, scene, prior, tv)
                    share = (seconds / config.samples, drawn.evaluations // config.samples)
                    add(f"{name}, one sample", drawn.images[0], *share)
                    add(f"{name}, mean of {config.samples}", drawn.mean, seconds, drawn.evaluations)
                    residuals, deviation = np.asarray(drawn.residual), np.asarray(drawn.deviation)
                else:
                    options = {"progress": progress, "on_memory": output.on_memory}
                    solved, seconds = ex.timed(ex.run_solver, config, scene, prior, tv, **options)
                    image, residuals, evaluations = solved
                    add(name, image, seconds, evaluations)
            except KeyboardInterrupt:
                _write(config, workdir, weights, scan, images, about | {"interrupted": True})
                raise KeyboardInterrupt(
                    f"interrupted after {progress.done} of {progress.total} steps of {name}; what came before is "
                    f"in {workdir}. Run the same command again for the whole result, which its seed decides"
                ) from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    files = _write(config, workdir, weights, scan, images, about | {"residuals": residuals}, deviation)
    method, image = list(images.items())[-1]
    what = f"{method}: reconstruction from {len(scan.sinogram)} measured views"
    files += save(config, workdir, source, weights.window, image, what, deviation=deviation)
    if output.json:
        print(json.dumps(about | {"workdir": str(workdir), "unit": weights.window.unit}))
    elif not output.quiet:
        width = max(len(row["method"]) for row in rows)
        for row in rows:
            print(f"{row['method']:>{width}}  residual {row['residual']:.5f}  {row['seconds']:.1f} s")
        print(f"results in {workdir}: {', '.join(files)}")


def _tell(config: ex.Experiment, scan: Scan) -> None:
    """Prints what was read and what was done to it."""
    views, bins = scan.sinogram.shape
    print(f"{config.measurement.path}: {views} views of {bins} bins")
    if scan.repaired:
        print(f"{scan.repaired} of {scan.sinogram.size} counts were unusable and were filled from their neighbours")
    if config.measurement.find_centre:
        print(f"the rotation axis was found at offset_mm = {scan.geometry.offset_mm:.4f}")


def _source(config: ex.Experiment, scan: Scan, posed: Posed, weights: Weights) -> ImageSet:
    """What a result is of: one image that comes from no image file, named by the measurement and its digest."""
    digest = hashlib.sha256(scan.sinogram.tobytes()).hexdigest()[:16]
    name = f"{Path(config.measurement.path).name} {digest}"
    blank = np.zeros((1, *weights.frame.image_shape, 1), np.float32)
    return ImageSet(blank, (name,), weights.window, spacing=(posed.pixel_mm,) * 3)


def _write(
    config: ex.Experiment,
    workdir: Path,
    weights: Weights,
    scan: Scan,
    images: dict[str, Any],
    about: dict[str, Any],
    deviation: np.ndarray | None = None,
) -> list[str]:
    """Writes the files of the folder but those of --save-as; returns their names."""
    window = weights.window
    planes = {name: np.asarray(window.from_unit(np.asarray(image)), np.float32) for name, image in images.items()}
    save_figure(workdir / "reconstruction.png", _figure(planes, window))
    pictures = {"Reconstructions": workdir / "reconstruction.png"}
    if deviation is not None:
        name, image = list(images.items())[-1]
        save_figure(workdir / "deviation.png", maps({name: image, "deviation": deviation}, window=window))
        pictures["Mean and deviation of the samples"] = workdir / "deviation.png"
        planes["deviation"] = np.asarray(deviation * (window.high - window.low), np.float32)
    write_npz(workdir / "reconstruction.npz", planes | {"unit": np.asarray(window.unit)})
    write_geometry(workdir / "geometry.json", scan.geometry)
    write_json(workdir / "metrics.json", about)
    settings = write_config(workdir, config, weights.digest)
    notes = [f"{scan.sinogram.shape[0]} views of {scan.sinogram.shape[1]} bins, {scan.repaired} repaired counts."]
    write_report(
        workdir / "report.html",
        f"{Path(config.measurement.path).name}: {list(images)[-1]}",
        pictures={title: path.read_bytes() for title, path in pictures.items()},
        rows=about["rows"],
        settings=settings,
        notes=[*notes, f"Values are in {window.unit}. Not for clinical use."],
    )
    drawn = [path.name for path in pictures.values()]
    return ["report.html", *drawn, "reconstruction.npz", "geometry.json", "metrics.json", "config.json"]


def _figure(planes: dict[str, np.ndarray], window: Window) -> Figure:
    figure = Figure(figsize=(3.2 * len(planes), 3.5), layout="constrained")
    for ax, (name, plane) in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes.items(), strict=True):
        ax.imshow(plane[..., 0], cmap="gray", vmin=window.low, vmax=window.high, interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.set_axis_off()
    return figure
