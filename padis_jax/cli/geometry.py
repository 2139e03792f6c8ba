"""`sample.py --measurement.check`: what may be wrong with a scan's geometry, in words, JSON and a corrected file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from padis_jax.cli.arguments import OutputOptions
from padis_jax.errors import UserError
from padis_jax.files import json_text
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.measurements.geometry_check import check_enough, check_geometry
from padis_jax.measurements.geometry_residual import Report
from padis_jax.measurements.load import MeasuredScan
from padis_jax.outputs import check_outputs, claimed


def check(path: str, scan: MeasuredScan, workdir: Path, output: OutputOptions, inputs: Sequence[str]) -> None:
    """Prints the likely fault of a scan's geometry and the correction, which is written too.

    Args:
      path: of the measurements, for messages.
      scan: line integrals with the geometry as stated.
      workdir: receives geometry_corrected.json if there is a fault.
      output: how to speak.
      inputs: files that were read.

    Raises:
      UserError: for too few views or bins; before the work, if the correction would be written over one of the inputs
        or a file that no run has written.
    """
    target = workdir / "geometry_corrected.json"
    check_outputs(workdir, [target.name], inputs)
    try:
        if output.dry_run:
            check_enough(scan.geometry, scan.sinogram)
            return _plan(path, target, output)
        report = check_geometry(scan.geometry, scan.sinogram)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    corrected = report.best.correction.geometry(scan.geometry)
    about: dict[str, Any] = {
        "faults": report.best.correction.faults,
        "correction": report.best.correction._asdict(),
        "residual_as_stated": report.stated if report.stated == report.stated else None,
        "residual_corrected": report.best.residual,
        "cannot_tell": report.unknown,
        "others": [f.correction._asdict() | {"residual": f.residual} for f in report.others],
    }
    refused = None
    if report.best.correction.faults:
        try:
            with claimed(workdir, [target.name], inputs, lock=not output.no_lock):
                write_geometry(target, corrected)
            about["written"] = str(target)
        except UserError as error:  # a full disk, or another run that has begun meanwhile
            refused = error
    if output.json:
        print(json_text(about))
    elif not output.quiet:
        print(describe(report, scan.geometry))
        if "written" in about:
            print(f"corrected geometry: {about['written']}")
    if refused is not None:
        raise refused


def _plan(path: str, target: Path, output: OutputOptions) -> None:
    """Prints what the check would do."""
    if output.json:
        print(json_text({"dry_run": True, "measurement": path, "check": "geometry", "correction": str(target)}))
    else:
        print(f"{path}: its geometry would be checked, and a correction written to {target}")


def describe(report: Report, stated: ScanGeometry) -> str:
    """A report as text, for people."""
    correction = report.best.correction
    unknown = "".join(f"\ncannot tell {what}" for what in report.unknown)
    if not correction.faults:
        if any(what.startswith("the geometry ") for what in report.unknown):
            return unknown.strip()
        return f"the geometry fits: residual {report.stated:.4f}; no correction lowers it clearly{unknown}"
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
        f"Residual {report.stated:.4f} -> {report.best.residual:.4f}{unknown}"
    )
