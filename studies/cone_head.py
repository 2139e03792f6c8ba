"""A cone-beam scan of the head CT: the volume cropped in z, few views, photon counts; FDK, total variation, prior.

    python -m studies.cone_head                                    96 x 256 x 256 voxels, 30 views, 1e5 photons
    python -m studies.cone_head --views 60 --only fdk tv pnp
    python -m studies.cone_head --shape 32 256 256 --views 30 --evaluations 15

    row        what it is
    fdk        filtered backprojection (Feldkamp)
    tv         total variation of the volume, differences in millimetres
    pnp, dds   the prior of images slice by slice inside one data step for the volume, from that of `tv`
    ..._tv     likewise, with a variation along z in the data step (--along-tv)
    slab_...   the prior of slabs (--slab-weights)

The source turns once around the z axis, at 2.5 times the width of a slice, the detector is half as far behind the axis;
its pixels are those of the volume, magnified, and it sees the whole cylinder in the volume. Counts are those of an
object on a grid twice as fine (--refinement), averaged over 2 x 2 rays in each pixel of the detector; --photons 0 takes
the projector that reconstructs, without noise.

Most slices of the volume were trained on: scores are pooled over a slab of held-out slices alone (--slice, --around),
as in `studies.volumes`. Seconds are with compilation, memory is what XLA plans for the solver's loop. A row that is
finished has its volume in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.devices.memory import Memory
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import file_hash, write_bytes, write_npz
from padis_jax.images import read_images
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.simulate import Measurement, paper_measurement
from padis_jax.measurements.simulate_cone import cone_measurement
from padis_jax.operators.cone import ConeTransform
from padis_jax.shipped import locate
from padis_jax.solvers.presets import Kind, Plan, preset, tv_preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import total_variation
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.solvers.volumes import Along
from padis_jax.split import split_slices
from padis_jax.volume_weights import load_volume_prior
from studies.cells import kept
from studies.volumes import SOLVERS, markdown, scores, slice_key

ROWS = ("fdk", "tv", "pnp", "pnp_tv", "dds", "dds_tv", "slab_pnp", "slab_dds")
HEAD = "data/head_ct.npz"


class Scene(NamedTuple):
    """What is measured: truth [D, H, W], number of its first slice, the slab that is scored, operator, measurement."""

    truth: np.ndarray
    first: int
    slab: slice
    operator: ConeTransform
    measurement: Measurement
    flatness: float


@one_line_errors()
def main() -> None:
    """Reconstructs, scores, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows; all without it")
    parser.add_argument("--shape", nargs=3, type=int, default=(96, 256, 256), help="slices, rows and columns")
    parser.add_argument("--views", type=int, default=30)
    parser.add_argument("--photons", type=float, default=1e5, help="per ray; 0 for no noise")
    parser.add_argument("--refinement", type=int, default=2, help="of the object whose photons are counted")
    parser.add_argument("--evaluations", type=int, default=50, help="of the network, for every slice")
    parser.add_argument("--tv-iterations", type=int, default=500)
    parser.add_argument("--along-tv", type=float, default=3e-6, help="Along.tv of the rows that end in _tv")
    parser.add_argument("--slice", type=int, default=41, help="test slice in the middle of those that are scored")
    parser.add_argument("--around", type=int, default=3, help="slices on either side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", default=HEAD, help="the volume")
    parser.add_argument("--weights", default="weights/head_ct.safetensors", help="of images")
    parser.add_argument("--slab-weights", default="", help="of slabs; their rows are left out without it")
    parser.add_argument("--out", type=Path, default=Path("results/cone_head"))
    args = parser.parse_args()
    wanted = [name for name in args.only or ROWS if args.slab_weights or not name.startswith("slab")]
    if not wanted:
        raise UserError("--only names rows of slabs: give --slab-weights too")
    scene, rows = measured(args), {}
    for name in wanted:
        rows[name] = row(name, args, scene)
    text = markdown(rows)
    write_bytes(folder(args) / "results.md", text.encode())
    print(text)


def folder(args: argparse.Namespace) -> Path:
    """Of a scan's rows."""
    return args.out / f"{'x'.join(map(str, args.shape))}_{args.views}_{args.photons:g}"


def described(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a row depends on."""
    keys = ("shape", "views", "photons", "refinement", "slice", "around", "seed")
    about: dict[str, Any] = {key: getattr(args, key) for key in keys} | {"volume": file_hash(args.path)}
    about |= {"shape": list(args.shape)}
    if name != "fdk":
        about |= {
            "tv_iterations": args.tv_iterations,
            "tv_weight": tv_preset(kind_of(args)).weight,
        }  # all others start there
    if name not in ("fdk", "tv"):
        used = args.slab_weights if name.startswith("slab") else args.weights
        about |= {"plan": plan_of(name, args).described(), "weights": file_hash(locate(used)), "mirror": False}
    return about | ({"along_tv": args.along_tv} if name.endswith("_tv") else {})


def kind_of(args: argparse.Namespace) -> Kind:
    """The kind of preset."""
    return "counts" if args.photons else "ct"


def plan_of(name: str, args: argparse.Namespace) -> Plan:
    """How the solver of a row runs."""
    solver = SOLVERS[name.removeprefix("slab_").removesuffix("_tv")]
    return preset(solver, kind_of(args), args.evaluations)


def measured(args: argparse.Namespace) -> Scene:
    """The scan, simulated."""
    images = read_images(args.path)
    if images.spacing is None:
        raise UserError(f"{args.path}: does not tell how far apart its slices are")
    sides, shape = (len(images.names), *images.images.shape[1:3]), tuple(args.shape)
    corner = [(n - m) // 2 for n, m in zip(sides, shape, strict=True)]
    if min(corner) < 0:
        raise UserError(f"--shape {' '.join(map(str, shape))}: the volume has {' x '.join(map(str, sides))} voxels")
    first, scored = corner[0], range(args.slice - args.around, args.slice + args.around + 1)
    if args.around < 1 or scored[0] < first or scored[-1] >= first + shape[0]:
        last = first + shape[0] - 1
        raise UserError(f"--slice {args.slice} --around {args.around}: the cropped volume has slices {first} to {last}")
    if args.path == HEAD and set(scored) & set(split_slices(sides[0]).train):
        raise UserError(f"--slice {args.slice} --around {args.around}: the slab holds slices that are trained on")
    rows, columns = (slice(at, at + n) for at, n in zip(corner[1:], shape[1:], strict=True))
    truth = np.asarray(images.images[list(range(first, first + shape[0]))])[:, rows, columns, 0]
    between, _, pixel = images.spacing
    operator = orbit(truth.shape, pixel, between, args.views).operator(truth.shape, pixel, between)
    key = slice_key(args, 0, first)
    if args.photons:
        attenuation, background = linear_attenuation(images.window)
        found = cone_measurement(
            key,
            jnp.asarray(truth),
            operator,
            photons=args.photons,
            pixel_mm=pixel,
            attenuation=attenuation,
            background=background,
            refinement=args.refinement,
        )
    else:
        found = paper_measurement(key, jnp.asarray(truth), operator)  # type: ignore[arg-type]
    slab = slice(scored[0] - first, scored[-1] - first + 1)
    return Scene(truth, first, slab, operator, found, pixel / between)


def orbit(shape: tuple[int, ...], pixel: float, between: float, views: int) -> ConeScan:
    """A full turn whose detector sees the whole cylinder in the volume, its pixels as large as voxels at the axis."""
    depth, height, width = shape
    radius = max(height, width) * pixel / 2
    source = 5 * radius
    behind, pitch = source / 2, 1.5 * pixel
    across = (source + behind) * radius / math.sqrt(source**2 - radius**2)
    along = (source + behind) * depth * between / 2 / (source - radius)
    rows, columns = (2 * math.ceil(half / pitch) + 2 for half in (along, across))
    angles = tuple((np.arange(views) * 360 / views).tolist())
    return ConeScan("cone", rows, columns, angles, "degrees", pitch, pitch, 0.0, 0.0, source, behind)


def row(name: str, args: argparse.Namespace, scene: Scene) -> dict[str, float]:
    """A row of the table, from its file if that is of these settings."""
    path = folder(args) / f"{name}.json"
    return kept(path, described(args, name), functools.partial(run, name, args, scene))


def run(name: str, args: argparse.Namespace, scene: Scene) -> dict[str, float]:
    """Reconstructs, keeps the volume, scores its slab."""
    memory: list[Memory] = []
    options = {} if name in ("fdk", "tv") else {"start": started(args, scene), "on_memory": memory.append}
    begin = time.perf_counter()
    volume = np.asarray(jax.block_until_ready(solved(name, args, scene, options)))
    seconds = time.perf_counter() - begin
    write_npz(folder(args) / f"{name}.npz", {"volume": volume, "first": np.asarray(scene.first)})
    row = scores(volume[scene.slab], scene.truth[scene.slab]) | {"seconds": seconds}
    return row | ({"memory_mb": memory[0].total / 1e6} if memory else {})


def started(args: argparse.Namespace, scene: Scene) -> np.ndarray:
    """The volume of total variation."""
    row("tv", args, scene)
    with np.load(folder(args) / "tv.npz") as file:
        return np.asarray(file["volume"])


def solved(name: str, args: argparse.Namespace, scene: Scene, options: dict[str, Any]) -> Any:
    """The volume of a row."""
    y, operator = scene.measurement.y, scene.operator
    if name == "fdk":
        return operator.start(y)
    if name == "tv":
        settings = dataclasses.replace(for_volumes(tv_preset(kind_of(args))), iterations=args.tv_iterations)
        settings = dataclasses.replace(settings, depth=scene.flatness)
        return total_variation(y, operator, settings=settings).image
    depth = len(scene.truth)
    if name.startswith("slab"):
        # not mirrored, as all figures of its page
        prior = load_volume_prior(args.slab_weights, depth=depth, first=scene.first, mirror=False)
    else:
        prior = load_volume_prior(args.weights, depth=depth, mirror=False)
    plan = plan_of(name, args)
    options = {"solver": plan.settings, **plan.options(), **options}
    if args.photons:
        options["noise_std"] = scene.measurement.noise_sigma
    if name.endswith("_tv"):
        options["along"] = Along(tv=args.along_tv)
    return reconstruct(slice_key(args, 1, scene.first), y, operator, prior, **options).image


if __name__ == "__main__":
    main()
