"""How often the geometry check is wrong: exact scans of random geometry with noise, right ones and ones with a fault.

    python -m studies.geometry_trials               200 scans, an hour or two on two cores
    python -m studies.geometry_trials --scans 20 --first 40

The data are line integrals of ellipses, averaged over each bin: no projector of the package is used. Each scan is
checked as it is, and with the faults of docs/geometry.md put into what is stated or into the data. A fault is found if
the corrected geometry is right; it is named undetermined if the check says that it cannot tell this parameter.
Exits with code 2 if more than 1% of the right scans are called wrong, or a fault is neither found nor named.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from padis_jax.errors import UserError, one_line_errors
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.geometry_check import check_geometry

SUB = 4  # rays per bin
FALSE_ALARMS = 0.01
SHIFT = 12 / 560  # of the detector's width, as in docs/geometry.md


class Trial(NamedTuple):
    """What is given to the check.

    Attributes:
      fault: "" for none.
      stated: the geometry that is claimed.
      data: [views, bins].
      right: the geometry that the data have; its mirror image is as good.
      words: one of which stands in what the check cannot tell, if that is right to say.
    """

    fault: str
    stated: ScanGeometry
    data: np.ndarray
    right: ScanGeometry
    words: tuple[str, ...]


def line_integrals(geometry: ScanGeometry, ellipses: np.ndarray) -> np.ndarray:
    """Of ellipses [n, 6] (value per mm, centre, half axes, tilt), [views, bins]."""
    t = geometry.radians[:, None]
    b = (np.arange(geometry.bins * SUB) + 0.5) / SUB - geometry.bins / 2
    u = b[None] * geometry.spacing_mm + geometry.offset_mm
    along = np.cos(t), np.sin(t)
    d, e = geometry.source_distance_mm, geometry.detector_distance_mm
    if geometry.beam == "parallel":
        start, way = (u * along[0], u * along[1]), (-along[1] + 0 * u, along[0] + 0 * u)
    else:
        start = d * along[1] + 0 * u, -d * along[0] + 0 * u
        way = -(d + e) * along[1] + u * along[0], (d + e) * along[0] + u * along[1]
    length = np.hypot(*way)
    total = np.zeros((len(t), u.shape[1]))
    for value, x, y, a, c, tilt in ellipses:
        cos, sin = np.cos(tilt), np.sin(tilt)
        at = ((start[0] - x) * cos + (start[1] - y) * sin) / a, ((start[1] - y) * cos - (start[0] - x) * sin) / c
        to = (way[0] * cos + way[1] * sin) / length / a, (way[1] * cos - way[0] * sin) / length / c
        p, q, r = to[0] ** 2 + to[1] ** 2, at[0] * to[0] + at[1] * to[1], at[0] ** 2 + at[1] ** 2 - 1
        total += value * 2 * np.sqrt(np.maximum(q**2 - p * r, 0)) / p
    return total.reshape(len(t), geometry.bins, SUB).mean(2)


def random_scan(key: np.random.Generator) -> tuple[ScanGeometry, np.ndarray]:
    """A scan, and its line integrals with noise of up to 1% of the largest."""
    beam: Literal["fan", "parallel"] = "parallel" if key.uniform() < 0.25 else "fan"
    bins, views = int(key.integers(64, 400)), int(key.integers(60, 400))
    span = float(key.choice([360.0] * 7 + [270.0, 270.0] + [180.0 if beam == "parallel" else 150.0]))
    radius = float(10 ** key.uniform(1, 2))
    magnification, d = 1.0, 0.0
    if beam == "fan":
        d, magnification = radius * 10 ** float(key.uniform(0.4, 1.3)), float(key.uniform(1.1, 2.5))
    half = magnification * radius * float(key.uniform(1.02, 1.3))  # of the detector
    if beam == "fan":
        half /= np.sqrt(1 - (radius / d) ** 2)
    kind = key.choice(["centred", "centred", "beside", "offset"])
    offset = half * {"centred": 0.0, "beside": float(key.uniform(-0.1, 0.1))}.get(kind, 0.0)
    if kind == "offset" and span == 360:  # one half of the object and a part of the other
        shorter = half * float(key.uniform(0.15, 0.5))
        offset, half = float(key.choice([-1, 1])) * (half - shorter) / 2, (half + shorter) / 2
    angles = np.arange(views) * span / views + float(key.uniform(0, 360))
    if key.uniform() < 0.2:  # by the golden ratio
        angles = angles[0] + np.sort(np.mod(np.arange(views) * 0.6180339887498949, 1.0)) * span
    e = d * (magnification - 1)
    geometry = ScanGeometry(
        beam,
        tuple(angles.tolist()),
        "degrees",
        bins,
        2 * half / bins,
        offset,
        d,
        e,
    )
    body = [1.0, 0.0, 0.0, *radius * key.uniform(0.7, 0.9, 2), key.uniform(0, np.pi)]
    ellipses = [body]
    for _ in range(int(key.integers(3, 9))):
        r, phi = radius * 0.5 * np.sqrt(key.uniform()), key.uniform(0, 2 * np.pi)
        axes = radius * key.uniform(0.04, 0.18, 2)
        ellipses.append([key.uniform(-1, 1.5), r * np.cos(phi), r * np.sin(phi), *axes, key.uniform(0, np.pi)])
    data = line_integrals(geometry, np.asarray(ellipses))
    data *= 2 / data.max()
    return geometry, data + 2 * float(key.choice([0, 1e-3, 3e-3, 1e-2])) * key.standard_normal(data.shape)


def trials(geometry: ScanGeometry, data: np.ndarray) -> Iterator[Trial]:
    """The scan as it is, and with each fault that a scan of its kind can have."""
    replace = dataclasses.replace
    anything = ("the geometry",)
    yield Trial("", geometry, data, geometry, ())
    angles, fan = geometry.angles, geometry.beam == "fan"
    shift = SHIFT * geometry.bins * geometry.spacing_mm
    moved = replace(geometry, offset_mm=geometry.offset_mm + shift)
    yield Trial(
        "shift", moved, data, geometry, (*anything, "the axis", "the pitch and small shifts", "the pitch and the axis")
    )
    yield Trial("radians for degrees", replace(geometry, angle_unit="radians"), data, geometry, anything)
    in_radians = replace(geometry, angles=tuple(geometry.radians.tolist()))
    yield Trial("degrees for radians", in_radians, data, geometry, anything)
    if not fan:  # its reversals turn or mirror the image
        return
    mirrored = replace(geometry, angles=tuple(-a for a in angles))
    direction = (*anything, "the sense of rotation")
    yield Trial("sense of rotation", mirrored, data, geometry, direction)
    turned = replace(mirrored, offset_mm=-geometry.offset_mm)
    yield Trial("detector", geometry, data[:, ::-1], turned, direction)
    yield Trial("views", geometry, data[::-1], replace(geometry, angles=angles[::-1]), direction)
    for factor in (1.1, 0.85):
        wrong = replace(geometry, spacing_mm=geometry.spacing_mm * factor, offset_mm=geometry.offset_mm * factor)
        yield Trial(f"pitch x {factor}", wrong, data, geometry, (*anything, "the pitch"))


def is_right(found: ScanGeometry, right: ScanGeometry) -> bool:
    """Whether a geometry is right, up to a rotation of the image, to 1.5 bins and 4% of the pitch."""
    bins = abs(found.offset_mm / found.spacing_mm - right.offset_mm / right.spacing_mm)
    pitch = abs(found.spacing_mm / right.spacing_mm - 1) if found.beam == "fan" else 0.0
    turn = np.exp(1j * (found.radians - right.radians))
    return bool(bins < 1.5 and pitch < 0.04 and np.abs(turn - turn[0]).max() < 1e-6)


def verdict(trial: Trial) -> str:
    """ "right", "false alarm", "found", "cannot tell", "wrong correction" or "missed"."""
    report = check_geometry(trial.stated, trial.data)
    correction = report.best.correction
    if not trial.fault:
        return "false alarm" if correction.faults else "right"
    if correction.faults:
        return "found" if is_right(correction.geometry(trial.stated), trial.right) else "wrong correction"
    return "cannot tell" if any(what.startswith(trial.words) for what in report.unknown) else "missed"


@one_line_errors()
def main() -> None:
    """Runs the trials and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first, which is its seed")
    parser.add_argument("--faults", nargs="*", help="only these; without names none")
    args = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest = 0.0
    for seed in range(args.first, args.first + args.scans):
        geometry, data = random_scan(np.random.default_rng(seed))
        for trial in trials(geometry, data):
            if trial.fault and args.faults is not None and trial.fault not in args.faults:
                continue
            begin = time.monotonic()
            result = verdict(trial)
            slowest = max(slowest, time.monotonic() - begin)
            counts[trial.fault or "none"][result] += 1
            if result in ("false alarm", "wrong correction", "missed"):
                axis = geometry.offset_mm / geometry.spacing_mm
                span = np.degrees(np.ptp(geometry.radians))
                where = f"{geometry.beam}, {data.shape}, {span:.0f} degrees, axis {axis:.1f}"
                print(f"scan {seed}, {where}: {trial.fault or 'none'}: {result}", flush=True)
    for fault, count in counts.items():
        print(f"{fault}: " + ", ".join(f"{n} {name}" for name, n in sorted(count.items())))
    print(f"the slowest check took {slowest:.0f} s")
    bad = sum(count["missed"] + count["wrong correction"] for count in counts.values())
    if counts["none"]["false alarm"] > FALSE_ALARMS * args.scans or bad:
        raise UserError(f"{counts['none']['false alarm']} false alarms, {bad} faults missed or corrected wrongly")


if __name__ == "__main__":
    main()
