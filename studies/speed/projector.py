"""Time of the projectors against ASTRA's on the CPU, in one process: parallel beams against 'linear', fan beams against
'line_fanflat' (ASTRA has no Joseph projector for fans, so the two differ a little in what they sum).

    pip install '.[bench]' && python -m studies.speed.projector [--beam parallel fan] [--views 20 180] [--seconds 8]

A fan's views are over a full turn, source and detector at 300 and 200 pixels from the axis. Prints milliseconds (median
and least of all rounds) of the projection and the backprojection of a 256 x 256 image with 512 bins, and the ratio
ours / ASTRA: below 1 we are faster; for fans also the seconds that FanBeam takes to be built, norm included. The calls
go in turns, so that all suffer the same disturbances. ASTRA's CPU code is serial, XLA uses all cores of the process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.operators import FanBeam, ParallelBeam

SIDE, BINS = 256, 512
SOURCE, DETECTOR = 300.0, 200.0


def astra_pair(
    beam: str, angles: np.ndarray, image: np.ndarray, sinogram: np.ndarray
) -> tuple[Callable[[], object], Callable[[], object], Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """ASTRA's projection of `image` and backprojection of `sinogram`, as calls without copies, and their results."""
    import astra  # here, so that --help works without it

    volume = astra.create_vol_geom(SIDE, SIDE)
    distances = (SOURCE, DETECTOR) if beam == "fan" else ()
    scan = astra.create_proj_geom("fanflat" if beam == "fan" else "parallel", 1.0, BINS, angles, *distances)
    projector = astra.create_projector("line_fanflat" if beam == "fan" else "linear", scan, volume)
    image_in, sinogram_out = astra.data2d.create("-vol", volume, image), astra.data2d.create("-sino", scan)
    sinogram_in, image_out = astra.data2d.create("-sino", scan, sinogram), astra.data2d.create("-vol", volume)
    forward, back = astra.astra_dict("FP"), astra.astra_dict("BP")
    forward.update(ProjectorId=projector, VolumeDataId=image_in, ProjectionDataId=sinogram_out)
    back.update(ProjectorId=projector, ReconstructionDataId=image_out, ProjectionDataId=sinogram_in)
    forward_id, back_id = astra.algorithm.create(forward), astra.algorithm.create(back)
    return (
        lambda: astra.algorithm.run(forward_id),
        lambda: astra.algorithm.run(back_id),
        lambda: (astra.data2d.get(sinogram_out), astra.data2d.get(image_out)),
    )


def compare(beam: str, views: int, seconds: float) -> None:
    """Prints one block of the table."""
    angles = (np.arange(views) + 0.5) * (2 * np.pi if beam == "fan" else np.pi) / views
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    image = ((rows**2 + columns**2 < 0.8) * (1 + 0.1 * rng.standard_normal((SIDE, SIDE)))).astype(np.float32)
    sinogram = rng.random((views, BINS), np.float32)
    scan: dict = {"image_shape": (SIDE, SIDE), "angles": angles, "detector_count": BINS}
    start = time.perf_counter()
    if beam == "fan":
        operator = FanBeam(**scan, source_distance=SOURCE, detector_distance=DETECTOR)
        print(f"{views:4d} views fan: built in {time.perf_counter() - start:.2f} s, norm {float(operator.norm):.2f}")
    else:
        operator = ParallelBeam(**scan)
    x, y = jnp.asarray(image), jnp.asarray(sinogram)
    forward, back = (jax.jit(f).lower(a).compile() for f, a in ((operator.__call__, x), (operator.T, y)))
    astra_forward, astra_back, astra_results = astra_pair(beam, angles, image, sinogram)
    calls: dict[str, Callable[[], object]] = {
        "ours forward": lambda: forward(x).block_until_ready(),
        "ASTRA forward": astra_forward,
        "ours transpose": lambda: back(y).block_until_ready(),
        "ASTRA transpose": astra_back,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["ours forward"]) < 5:
        for name, call in calls.items():
            call()  # the caches belong to whoever ran before: let each warm its own
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    for name, mine, theirs in zip(("forward", "transpose"), (forward(x), back(y)), astra_results(), strict=True):
        a, b = np.asarray(times[f"ours {name}"]), np.asarray(times[f"ASTRA {name}"])
        difference = np.linalg.norm(np.asarray(mine) - theirs) / np.linalg.norm(theirs)
        ratio, least = np.median(a) / np.median(b), a.min() / b.min()
        print(
            f"{views:4d} views {beam:8s} {name:9s}  ours {np.median(a):7.2f} ({a.min():6.2f}) ms  "
            f"ASTRA {np.median(b):7.2f} ({b.min():6.2f}) ms  ratio {ratio:.3f} (least {least:.3f})  "
            f"difference {difference:.1e}"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beam", nargs="+", choices=("parallel", "fan"), default=["parallel", "fan"])
    parser.add_argument("--views", type=int, nargs="+", default=[20, 180])
    parser.add_argument("--seconds", type=float, default=8.0, help="time per number of views")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}; {SIDE} x {SIDE}, {BINS} bins; median (least)")
    for beam in arguments.beam:
        for views in arguments.views:
            compare(beam, views, arguments.seconds)


if __name__ == "__main__":
    main()
