"""The results folder of a volume: one volume in each format, the scores of every slice, pictures and report.html."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from padis_jax.display import check_displays, displays_of
from padis_jax.figures import montage, orthogonal, save_figure, step_png
from padis_jax.files import base_name, write_json, write_npz
from padis_jax.images import PLAIN, Window
from padis_jax.images.guard import decoding
from padis_jax.measurements.geometry import write_geometry
from padis_jax.runs.config import Experiment
from padis_jax.runs.doubts import doubts_of_slices, unlike_slices
from padis_jax.runs.html_report import write_report
from padis_jax.runs.job import DIGESTS
from padis_jax.runs.results import STEPS, check_folder, save_images, saved_names, write_config
from padis_jax.runs.score import cells, headings, held_lines
from padis_jax.runs.volume import Volume, item_name
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.tv import TV
from padis_jax.split import spread

SCORES = ("psnr", "ssim", "ssim_gaussian", "rmse", "residual", "seconds")

Line = Mapping[str, Any]  # of the manifest


class Found(NamedTuple):
    """What a job has found.

    Attributes:
      stacks: method -> [D, H, W, C] in [0, 1], the solver's last, and the deviation of its samples as "deviation".
      metrics: what metrics.json says of it.
      table: the same for people, cells under their headings.
      warnings: what speaks against the result.
      details: title -> rows of a further table.
    """

    stacks: dict[str, np.ndarray]
    metrics: dict[str, Any]
    table: list[dict[str, str]]
    warnings: list[str]
    details: dict[str, list[dict[str, str]]]


def volume_names(
    config: Experiment, workdir: Path, volume: Volume, window: Window, *, items: str = "slices/"
) -> list[str]:
    """The files that a volume may write; refuses, before the work, what could not be written.

    Args:
      config: of the run.
      workdir: of the job.
      volume: to be reconstructed.
      window: of its values.
      items: folder of the job's items.

    Raises:
      UserError: as `results.check_save`.
    """
    check_displays(config.display, window)
    names = ["job.json", "manifest.jsonl", items, "reconstruction.npz", "metrics.json", "config.json"]
    names += ["report.html", "montage.png", "orthogonal.png"]
    names += ["orthogonal_truth.png"] if volume.truth else []
    names += ["montage_deviation.png"] if config.samples else []
    names += ["geometry.json"] if volume.geometry is not None else []
    names += saved_names(config, workdir, volume.source, window)
    check_folder(workdir, names, config)
    return names


def summary(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For each method the mean over the slices, their standard deviation and the extremes; scores as in `Row`.

    {"method", "slices", "psnr": {"mean", "deviation", "least", "most"}, ...}; a slice without a score (its truth is
    constant, say) is left out of that score's mean, which then has its own "slices".
    """
    methods = dict.fromkeys(row["method"] for line in lines for row in line["rows"])
    found = []
    for method in methods:
        rows = [row for line in lines for row in line["rows"] if row["method"] == method]
        about: dict[str, Any] = {"method": method, "slices": len(rows), "evaluations": rows[0].get("evaluations", 0)}
        for name in SCORES:
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                spread_of = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                about[name] = {
                    "mean": float(np.mean(values)),
                    "deviation": spread_of,
                    "least": min(values),
                    "most": max(values),
                } | ({"slices": len(values)} if len(values) < len(rows) else {})
        found.append(about)
    return found


def summary_rows(found: Sequence[Mapping[str, Any]], unit: str) -> list[dict[str, str]]:
    """The summary as a table for people: mean and deviation over the slices."""
    columns = {name: headings(unit)[name] for name in ("psnr", "ssim", "rmse", "residual")}
    used = {name: column for name, column in columns.items() if any(name in row for row in found)}
    rows = []
    for row in found:
        shown = {"method": row["method"]}
        for name, (title, form) in used.items():
            about = row.get(name)
            shown[title] = "-" if about is None else f"{form.format(about['mean'])} ± {form.format(about['deviation'])}"
        rows.append(shown | {"evaluations": str(row["evaluations"]), "seconds": f"{row['seconds']['mean']:.1f}"})
    return rows


def found_slices(workdir: Path, volume: Volume, window: Window, lines: Sequence[Line]) -> Found:
    """Of slices that were solved one by one; `lines` are of the manifest, one for each slice, in order."""
    stacks, found, warnings = _stacks(workdir, volume), summary(lines), volume_doubts(lines)
    details = cells([_detail(line) for line in lines], window.unit)
    metrics = {"rows": found, "slices": [_shown(line) for line in lines]}
    return Found(
        stacks, metrics, summary_rows(found, window.unit), warnings, {f"Every slice, {_last(stacks)}": details}
    )


def write_volume(
    workdir: Path,
    config: Experiment,
    volume: Volume,
    window: Window,
    plan: Plan,
    smooth: TV,
    digest: str,
    found: Found,
) -> list[str]:
    """Writes all files of the folder; returns their names.

    The report comes last: if it cannot be made, a warning says why, and the other files are there.

    Args:
      workdir: of the job.
      config: of the run, as it was given.
      volume: what was reconstructed.
      window: of its values.
      plan: of the solver.
      smooth: settings of total variation, of noise that is equal everywhere.
      digest: of the weights.
      found: by the job.
    """
    stacks = dict(found.stacks)
    name, deviation = _last(stacks), stacks.pop("deviation", None)
    images = stacks[name]
    source, scale = volume.source, window.high - window.low
    truth = np.asarray(source.images[:], np.float32) if volume.truth else None
    labels = [f"{volume.what} {number}" for number in volume.numbers]
    planes = {"truth": truth} if truth is not None else {}
    planes = {key: np.asarray(window.from_unit(a), np.float32) for key, a in (planes | stacks).items()}
    if deviation is not None:
        planes["deviation"] = np.asarray(deviation * scale, np.float32)
    about: dict[str, Any] = {"unit": np.asarray(window.unit), "slices": np.asarray(volume.numbers)}
    if source.spacing is not None:
        about["spacing"] = np.asarray(source.spacing)
    write_npz(workdir / "reconstruction.npz", planes | about)
    metrics: dict[str, Any] = {
        "volume": volume.path,
        "choice": volume.choice,
        "measured": volume.problem.description,
        "unit_of_rmse": window.unit,
        "spacing_mm": source.spacing,
        **found.metrics,
        "notes": volume.notes,
    }
    if found.warnings:
        metrics["warnings"] = found.warnings
    write_json(workdir / "metrics.json", metrics)
    settings = write_config(workdir, config, digest, plan, smooth)
    files = ["reconstruction.npz", "metrics.json", "config.json"]
    if volume.geometry is not None:
        write_geometry(workdir / "geometry.json", volume.geometry)
        files.append("geometry.json")
    files += save_images(
        config, workdir, images, source, window, f"{name}: reconstruction from {volume.problem.description}", deviation
    )
    try:
        displays = displays_of(config.display, window, images if truth is None else truth)
        pictures = _pictures(workdir, volume, window, displays, labels, images, truth, deviation)
        first_name, first = next(iter(displays.items()))
        shown = {} if truth is None else {"truth": truth}
        steps = {}
        for at in spread(len(labels), STEPS):
            each = {key: a[at] for key, a in (shown | {name: images}).items()}
            caption = labels[at] + (f": truth, then {name}" if shown else "")
            steps[caption] = step_png(each, window=window, display=first, rows_up=source.rows_up)
        shades = f"{first_name}: {first}" if first_name != "image" else str(first)
        notes = [f"{len(labels)} slices, {volume.choice}.", *(f"{note}." for note in volume.notes)]
        notes += held_lines(found.metrics.get("samples", {}))
        write_report(
            workdir / "report.html",
            f"{base_name(volume.path)}: {name} of a volume from {volume.problem.description}",
            pictures={title: (workdir / file).read_bytes() for title, file in pictures.items()},
            rows=found.table,
            settings=settings,
            notes=[*notes, f"Unit of values and errors: {window.named}. Slices in the display {shades}."],
            warnings=found.warnings,
            steps=steps,
            details=found.details,
        )
    except Exception as error:  # of whatever kind: all else is written
        print(f"warning: {workdir / 'report.html'} could not be written: {error}", file=sys.stderr)
        return files
    return ["report.html", *pictures.values(), *files]


def volume_doubts(lines: Sequence[Line]) -> list[str]:
    """What speaks against slices of the volume, at most a line for each reason."""
    found = [line["slice"] for line in lines if line.get("unlike") is not None]
    explained = [(line["slice"], line["rows"], line.get("relative_noise") or 0.0) for line in lines]
    return [*unlike_slices(found, len(lines)), *doubts_of_slices(explained)]


def _last(stacks: Mapping[str, Any]) -> str:
    """The method whose volume is the result."""
    return [name for name in stacks if name != "deviation"][-1]


def _stacks(workdir: Path, volume: Volume) -> dict[str, np.ndarray]:
    """Name -> [D, H, W, C], from the files of the slices."""
    stacks: dict[str, np.ndarray] = {}
    for at, number in enumerate(volume.numbers):
        path = workdir / f"{item_name(number)}.npz"
        with decoding(path, "slice of this job"), np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                plane = archive[name]
                stack = stacks.setdefault(name, np.empty((len(volume.numbers), *plane.shape), np.float32))
                stack[at] = plane
    return stacks


def _pictures(
    workdir: Path,
    volume: Volume,
    window: Window,
    displays: Mapping[str, Window],
    labels: Sequence[str],
    images: np.ndarray,
    truth: np.ndarray | None,
    deviation: np.ndarray | None,
) -> dict[str, str]:
    """Draws the pictures; title -> file."""
    up, spacing, first = volume.source.rows_up, volume.source.spacing, next(iter(displays.values()))
    named = {"" if name == "image" else name: display for name, display in displays.items()}
    figure = orthogonal(images, spacing, window=window, displays=named, rows_up=up)
    figures = {"orthogonal.png": ("Planes through the centre", figure)}
    if truth is not None:
        figure = orthogonal(truth, spacing, window=window, displays=named, rows_up=up)
        figures["orthogonal_truth.png"] = ("The same of the truth", figure)
    figures["montage.png"] = ("Slices", montage(images, labels, window=window, display=first, rows_up=up))
    if deviation is not None:
        limit = max(float(np.percentile(deviation, 99.5)), 1e-6)
        figure = montage(deviation / limit, labels, window=PLAIN, rows_up=up)
        ends = f"Deviation of the samples; white is {limit * (window.high - window.low):.3g} {window.unit}"
        figures["montage_deviation.png"] = (ends, figure)
    for file, (_, figure) in figures.items():
        save_figure(workdir / file, figure)
    return {title: file for file, (title, _) in figures.items()}


def _shown(line: Line) -> dict[str, Any]:
    """A slice in metrics.json."""
    hidden = ("item", "status", *DIGESTS)
    return {name: value for name, value in line.items() if name not in hidden}


def _detail(line: Line) -> dict[str, Any]:
    """A slice in the report: the scores of the last row."""
    return {
        "slice": line["slice"],
        "name": line["name"],
        **{k: v for k, v in line["rows"][-1].items() if k != "method"},
    }
