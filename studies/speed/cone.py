"""ConeBeam against RTK's Joseph projectors on the CPU, and FDK against RTK's, in one process.

    pip install itk-rtk && python -m studies.speed.cone [--sides 64 128] [--views 60] [--seconds 20]

A cube of N^3 voxels, a detector of (1.5 N)^2 pixels of the same size, source and detector at 4 N and 2 N from the
axis. Prints, for the projection and its transpose, seconds of both (median and least of all rounds) and the ratio
ours / RTK: below 1 we are faster. The calls go in turns, so that all suffer the same disturbances. The difference is
that of the projections of a ball, and of the transposes within it: at the faces of the volume both treat voxels
differently. Then the relative errors of FDK against a Shepp-Logan volume, ours and RTK's, from the same projections,
both with the plain ramp: a full turn, a short scan, and a detector beside the axis.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError, one_line_errors
from padis_jax.operators import ConeBeam, ConeTransform, fdk
from studies.shepp_logan import shepp_logan

SOURCE, DETECTOR, ACROSS = 4, 2, 1.5  # distances and detector, in sides of the volume


def toolkit() -> tuple[Any, Any]:
    """itk and its module RTK."""
    try:
        import itk
        from itk import RTK
    except ImportError as error:
        raise UserError("studies.speed.cone compares with RTK: pip install itk-rtk") from error
    return itk, RTK


class Rtk:
    """RTK's filters for one scan, on our arrays: [D, H, W] and [views, rows, columns]."""

    def __init__(self, side: int, pixels: tuple[int, int], angles: np.ndarray, offset: float = 0.0) -> None:
        self.itk, self.rtk = toolkit()
        self.kind = self.itk.Image[self.itk.F, 3]
        self.geometry = self.rtk.ThreeDCircularProjectionGeometry.New()
        for angle in np.degrees(angles):
            self.geometry.AddProjection(float(SOURCE * side), float((SOURCE + DETECTOR) * side), float(angle))
        self.side, self.shape = side, (len(angles), *pixels)
        self.origin = [offset - (pixels[1] - 1) / 2, -(pixels[0] - 1) / 2, 0.0]

    def volume(self, array: np.ndarray) -> Any:
        """RTK's (x, y, z) are our (x, z, -y)."""
        return self._image(array.transpose(1, 0, 2), [-(self.side - 1) / 2] * 3)

    def projections(self, array: np.ndarray) -> Any:
        """As they are."""
        return self._image(array, self.origin)

    def _image(self, array: np.ndarray, origin: list[float]) -> Any:
        image = self.itk.image_from_array(np.ascontiguousarray(array, np.float32))
        image.SetOrigin(origin)
        return image

    def project(self, volume: Any) -> Any:
        """Joseph's projection."""
        chosen = self.rtk.JosephForwardProjectionImageFilter[self.kind, self.kind].New()
        return self._run(chosen, self.projections(np.zeros(self.shape)), volume)

    def backproject(self, projections: Any) -> Any:
        """Its transpose."""
        chosen = self.rtk.JosephBackProjectionImageFilter[self.kind, self.kind].New()
        return self._run(chosen, self.volume(np.zeros((self.side,) * 3)), projections)

    def fdk(self, projections: np.ndarray, kind: str) -> np.ndarray:
        """With the plain ramp, and RTK's weights for short scans or a detector beside the axis."""
        weighed = self.projections(projections)
        names = {"short scan": "ParkerShortScanImageFilter", "half fan": "DisplacedDetectorImageFilter"}
        if kind in names:
            weights = getattr(self.rtk, names[kind])[self.kind].New()
            weights.SetInput(weighed)
            weights.SetGeometry(self.geometry)
            weights.Update()
            weighed = weights.GetOutput()
        chosen = self.rtk.FDKConeBeamReconstructionFilter[self.kind].New()
        found = self._run(chosen, self.volume(np.zeros((self.side,) * 3)), weighed)
        return np.asarray(self.itk.array_from_image(found)).transpose(1, 0, 2)

    def _run(self, chosen: Any, first: Any, second: Any) -> Any:
        chosen.SetInput(0, first)
        chosen.SetInput(1, second)
        chosen.SetGeometry(self.geometry)
        chosen.Update()
        return chosen.GetOutput()


def operator_of(side: int, pixels: tuple[int, int], angles: np.ndarray, offset: float = 0.0) -> ConeTransform:
    """The same scan."""
    return ConeBeam(
        volume_shape=(side,) * 3,
        slice_spacing=1.0,
        angles=angles,
        detector_shape=pixels,
        source_distance=SOURCE * side,
        detector_distance=DETECTOR * side,
        detector_offset=(0.0, offset),
    )


def ball(side: int) -> np.ndarray:
    """Whether a voxel is in the sphere of 0.95 of the volume's side."""
    ends = np.linspace(-1, 1, side) ** 2
    return ends[:, None, None] + ends[:, None] + ends < 0.9


def compare(side: int, views: int, seconds: float) -> None:
    """Prints the times of one size."""
    pixels = (int(ACROSS * side),) * 2
    angles = (np.arange(views) + 0.5) * 2 * np.pi / views
    rtk, start = Rtk(side, pixels, angles), time.perf_counter()
    operator = operator_of(side, pixels, angles)
    print(f"{side}^3, {views} views of {pixels[0]}^2: built in {time.perf_counter() - start:.1f} s, norm included")
    rng, inside = np.random.default_rng(0), ball(side)
    x, y = inside * rng.random((side,) * 3, np.float32), rng.random((views, *pixels), np.float32)
    ours = jnp.asarray(x), jnp.asarray(y)
    forward, back = (jax.jit(f).lower(a).compile() for f, a in zip((operator.__call__, operator.T), ours, strict=True))
    theirs = rtk.volume(x), rtk.projections(y)
    calls: dict[str, Callable[[], Any]] = {
        "ours projection": lambda: forward(ours[0]).block_until_ready(),
        "RTK projection": lambda: rtk.project(theirs[0]),
        "ours transpose": lambda: back(ours[1]).block_until_ready(),
        "RTK transpose": lambda: rtk.backproject(theirs[1]),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours projection"]) < 3:
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    results = {
        "projection": (forward(ours[0]), rtk.itk.array_from_image(rtk.project(theirs[0]))),
        "transpose": (back(ours[1]), rtk.itk.array_from_image(rtk.backproject(theirs[1])).transpose(1, 0, 2)),
    }
    for what, (mine, other) in results.items():
        a, b = np.asarray(times[f"ours {what}"]), np.asarray(times[f"RTK {what}"])
        part = inside if what == "transpose" else np.ones_like(other, bool)
        difference = np.linalg.norm((np.asarray(mine) - other)[part]) / np.linalg.norm(other[part])
        wall, cpu = np.median(a, 0) / np.median(b, 0)
        print(
            f"  {what:10s}  ours {np.median(a[:, 0]):.3f} ({a[:, 0].min():.3f}) s  RTK {np.median(b[:, 0]):.3f} "
            f"({b[:, 0].min():.3f}) s  ratio {wall:.2f} (least {a[:, 0].min() / b[:, 0].min():.2f}, CPU {cpu:.2f})  "
            f"{len(a)} rounds  difference {difference:.1e}",
            flush=True,
        )


def errors(side: int, views: int) -> None:
    """Prints the relative errors of FDK, within the sphere that all views see."""
    volume, inside = shepp_logan((side,) * 3), ball(side)
    fan = np.arctan(0.5 * ACROSS / (SOURCE + DETECTOR))
    turn = (np.arange(views) + 0.5) * 2 * np.pi
    short = (np.arange(views) + 0.5) * (np.pi + 2 * fan)
    scans = {"full turn": (turn, 0.0), "short scan": (short, 0.0), "half fan": (turn, 0.4 * side)}
    for name, (angles, offset) in scans.items():
        pixels = (int(ACROSS * side), int(side if offset else ACROSS * side))
        operator, rtk = operator_of(side, pixels, angles / views, offset), Rtk(side, pixels, angles / views, offset)
        y = np.asarray(operator(jnp.asarray(volume)))
        mine, other = fdk(operator, jnp.asarray(y), filter="ram-lak", cutoff=1.0), rtk.fdk(y, name)
        size = np.linalg.norm(volume[inside])
        ours, theirs = (np.linalg.norm((np.asarray(found) - volume)[inside]) / size for found in (mine, other))
        print(f"  FDK, {views} views, {name}: error {ours:.4f}, RTK's {theirs:.4f}", flush=True)


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=20.0, help="time per size")
    parser.add_argument("--fdk-views", type=int, default=120, help="of the comparison of FDK")
    arguments = parser.parse_args()
    toolkit()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}; median (least) of all rounds, in turns")
    for side in arguments.sides:
        compare(side, arguments.views, arguments.seconds)
    errors(arguments.sides[0], arguments.fdk_views)


if __name__ == "__main__":
    main()
