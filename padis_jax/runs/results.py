"""The results folder of a case: pictures, reconstruction.npz, metrics.json, config.json, --save-as; report.html."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import padis_jax
from padis_jax.display import check_displays, displays_of
from padis_jax.errors import UserError
from padis_jax.figures import comparison, images_row, maps, save_figure, step_png
from padis_jax.files import base_name, write_json, write_npz
from padis_jax.images import ImageSet, Window
from padis_jax.lock import Lock
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.outputs import check_outputs, claimed, has_field
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import tv_of
from padis_jax.runs.earlier import refuse_patient, remove_patient
from padis_jax.runs.html_report import write_report
from padis_jax.runs.outcome import Outcome
from padis_jax.runs.score import cells, held_lines
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.samples import Samples
from padis_jax.solvers.tv import TV
from padis_jax.split import spread
from padis_jax.writers import check_format, result, write_result

STEPS = 200  # pictures in the stepped view of the report, at most: each is in its file


def write_results(
    workdir: Path,
    config: Experiment,
    case: Case,
    plan: Plan,
    digest: str,
    outcome: Outcome,
    *,
    geometry: ScanGeometry | None = None,
) -> list[str]:
    """Writes all files of the folder, those of --save-as if the run is complete; returns their names.

    The report comes last: if it cannot be made, a warning says why, and the other files are there.
    """
    window, images = case.window, outcome.images
    scale = window.high - window.low
    pictures = {}
    shown_of = case.truth if case.truth is not None else np.asarray(list(images.values())[-1])
    displays = displays_of(config.display, window, shown_of)
    first = next(iter(displays.values()))
    if case.truth is None:
        figure = images_row(images, window=window, displays=displays, origin=case.origin)
        pictures["Reconstructions"] = _drawn(workdir / "reconstruction.png", figure)
    else:
        figure = comparison(case.truth, images, window=window, displays=displays, origin=case.origin)
        pictures["Truth, reconstructions and errors"] = _drawn(workdir / "comparison.png", figure)
    arrays = ({} if case.truth is None else {"truth": case.truth}) | images
    steps: dict[str, bytes] = {}
    planes = {name: np.asarray(window.from_unit(np.asarray(a)), np.float32) for name, a in arrays.items()}
    if (samples := outcome.samples) is not None:
        shown = {"mean": np.asarray(samples.mean), "deviation": np.asarray(samples.deviation)}
        if case.truth is not None:
            shown["|mean - truth|"] = np.abs(shown["mean"] - case.truth)
        figure = maps(shown, window=window, display=first, origin=case.origin)
        steps = _sample_steps(case, samples, first)
        pictures["Mean and deviation of the samples"] = _drawn(workdir / "deviation.png", figure)
        planes["deviation"] = np.asarray(samples.deviation * scale, np.float32)
    write_npz(workdir / "reconstruction.npz", planes | {"unit": np.asarray(window.unit)})
    metrics = {
        "image": case.name,
        **case.about,
        "protocol": case.measurement.protocol,
        "relative_noise": float(case.measurement.noise_level),
        "unit_of_rmse": window.unit,
        "rows": [row.shown() for row in outcome.rows],
        "residual_per_level": outcome.residuals,
        **outcome.more,
    }
    write_json(workdir / "metrics.json", metrics)
    smooth = tv_of(config, case.kind, case.problem, case.evenness)
    about = write_config(workdir, config, digest, plan, smooth)
    files = [*(path.name for path in pictures.values()), "reconstruction.npz", "metrics.json", "config.json"]
    if geometry is not None:
        write_geometry(workdir / "geometry.json", geometry)
        files.append("geometry.json")
    if not outcome.more.get("interrupted"):
        files += save(config, workdir, case, outcome)
    notes = [case.note] if case.note else []
    try:
        write_report(
            workdir / "report.html",
            f"{_title(config, case)}: {list(images)[-1]} from {case.problem.description}",
            pictures={title: path.read_bytes() for title, path in pictures.items()},
            rows=cells(metrics["rows"], window.unit),
            settings=about,
            notes=[*notes, *held_lines(outcome.more.get("samples", {})), f"Unit of values and errors: {window.named}."],
            warnings=outcome.more.get("warnings", ()),
            steps=steps,
        )
    except Exception as error:  # of whatever kind: all else is written
        print(f"warning: {workdir / 'report.html'} could not be written: {error}", file=sys.stderr)
        return files
    return ["report.html", *files]


def _title(config: Experiment, case: Case) -> str:
    """The file of the image or the measurement, and the image in it."""
    measured = config.measurement.path.partition("::")[0]
    file = base_name(measured or config.image.path.partition("::")[0])
    if measured:  # whose name has a digest, for DICOM's identifiers
        return f"{file}, row {config.measurement.number}" if config.measurement.number else file
    return case.name if not file or file in case.name else f"{file}, {case.name}"


def _sample_steps(case: Case, samples: Samples, display: Window) -> dict[str, bytes]:
    """A picture of each sample, at most `STEPS`, beside the truth or, without one, beside their mean."""
    beside, name = (samples.mean, "their mean") if case.truth is None else (case.truth, "truth")
    count = len(samples.images)
    return {
        f"sample {at + 1} of {count} (left: {name})": step_png(
            {name: beside, "sample": samples.images[at]},
            window=case.window,
            display=display,
            rows_up=case.source.rows_up,
        )
        for at in spread(count, STEPS)
    }


def _drawn(path: Path, figure: Any) -> Path:
    save_figure(path, figure)
    return path


def write_config(
    workdir: Path, config: Experiment, digest: str, plan: Plan | None = None, smooth: TV | None = None
) -> dict[str, Any]:
    """config.json: settings, those of the solver and of total variation resolved, seed, hash of the weights, versions.

    Returns what it holds.
    """
    experiment = dataclasses.asdict(config)
    if plan is not None:
        experiment["solver"] = plan.described()
    if smooth is not None:
        experiment["tv"] = {name: getattr(smooth, name) for name in experiment["tv"]}
    about = {"experiment": experiment, "seed": config.seed, "weights_sha256": digest}
    about |= {"padis_jax": padis_jax.__version__, "jax": jax.__version__}
    write_json(workdir / "config.json", about)
    return about


def check_save(config: Experiment, workdir: Path, case: Case) -> list[str]:
    """Refuses what could not be written after the work; leaves nothing behind.

    Returns:
      Names of all the files that `write_results` may write.

    Raises:
      UserError: for a folder that cannot be written to, a display of another unit, a format that needs what the source
        does not tell, and for what `outputs.check_outputs` refuses.
    """
    check_displays(config.display, case.window)
    names = ["reconstruction.npz", "metrics.json", "config.json", "report.html"]
    names += ["reconstruction.png" if case.truth is None else "comparison.png"]
    names += ["deviation.png"] if config.samples else []
    names += ["geometry.json"] if config.measurement.path else []
    names += saved_names(config, workdir, case.source, case.window)
    check_folder(workdir, names, config)
    return names


def saved_names(config: Experiment, workdir: Path, source: ImageSet, window: Window) -> list[str]:
    """The files of --save-as, within the folder; UserError for a format that needs what the source does not tell."""
    blank = result(np.zeros(source.images.shape, np.float32), source, "", window=window, anonymise=config.anonymise)
    paths = []
    for kind in config.save_as:
        try:
            paths += [path for stem in _stems(config, workdir) for path in check_format(stem, kind, blank)]
        except UserError as error:
            raise UserError(f"--save-as {kind}: {error}") from error
    return [str(path.relative_to(workdir)) for path in paths]


def check_folder(workdir: Path, names: list[str], config: Experiment) -> None:
    """Refuses, before the work, a folder that cannot be written to, and what `outputs.check_outputs` refuses.

    Of what earlier runs have left there, an anonymous run refuses what names the patient.
    """
    check_outputs(workdir, names, inputs(config), ours=_ours(workdir))
    if config.anonymise:
        refuse_patient(workdir, names)


def inputs(config: Experiment) -> list[str]:
    """Files and folders that a run reads."""
    measured = config.measurement.path or config.measurements
    read = [config.weights, config.mask, config.kernel, measured, config.measurement.geometry if measured else ""]
    return read if measured or config.generate else [*read, config.image.path, config.scan.geometry]


@contextlib.contextmanager
def results_folder(workdir: Path, names: list[str], config: Experiment, *, lock: bool = True) -> Iterator[Lock | None]:
    """`outputs.claimed` for the results of `config`; what names the patient has gone if it is anonymous."""
    with claimed(workdir, names, inputs(config), ours=_ours(workdir), lock=lock) as held:
        if config.anonymise:
            remove_patient(workdir, names)
        yield held


def _ours(workdir: Path) -> bool:
    return any(has_field(workdir / name, "weights_sha256") for name in ("config.json", "job.json"))


def save(config: Experiment, workdir: Path, case: Case, outcome: Outcome) -> list[str]:
    """Writes the last image in every format of --save-as, and the map of its deviation beside it, as `save_images`."""
    name, image = list(outcome.images.items())[-1]
    spread = None if outcome.samples is None else np.asarray(outcome.samples.deviation)[None]
    about = f"{name}: reconstruction from {case.problem.description}"
    return save_images(config, workdir, np.asarray(image)[None], case.source, case.window, about, spread)


def save_images(
    config: Experiment,
    workdir: Path,
    images: np.ndarray,
    source: ImageSet,
    window: Window,
    about: str,
    deviation: np.ndarray | None = None,
) -> list[str]:
    """Writes images [N, H, W, C] in [0, 1], and their deviation if there is one, in every format of --save-as.

    Returns:
      Paths of what was written, within the folder; of a DICOM series its first file.
    """
    about += f" by padis_jax {padis_jax.__version__}"
    made = [result(images, source, about, window=window, anonymise=config.anonymise)]
    if deviation is not None:
        of = f"Standard deviation of {about}"
        made.append(result(deviation, source, of, window=window, deviation=True, anonymise=config.anonymise))
    stems = _stems(config, workdir)
    return [
        str(write_result(stem, kind, one)[0].relative_to(workdir))
        for kind in config.save_as
        for stem, one in zip(stems, made, strict=True)
    ]


def _stems(config: Experiment, workdir: Path) -> list[Path]:
    """The files of --save-as without their suffix."""
    method = config.method
    return [workdir / method, *([workdir / f"{method}_deviation"] if config.samples else [])]
