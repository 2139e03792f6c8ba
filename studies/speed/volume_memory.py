"""The estimate of a volume's memory before a run, beside what XLA plans, and what the process takes.

    python -m studies.speed.volume_memory                                64^3, 128^3, 108 x 256 x 256; runs nothing
    python -m studies.speed.volume_memory --beam cone --shape 128 128 128
    python -m studies.speed.volume_memory --shape 64 64 64 --run         two levels: what the process grows by

20 views of a parallel or a cone beam, the network of configs/head_ct.py with random parameters, settings of volumes
without noise. `estimate` is what `sample.py --dry-run` says, `planned` XLA's plan of the loop with all that it is
given, `taken` with --run what it is given and the growth of the resident set while it runs. The last column is the
estimate without the network, in volumes of float32 [D, H, W].
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import head_ct
from padis_jax.devices.memory import Growth, Memory
from padis_jax.devices.plan import plan_sampling
from padis_jax.operators import ConeBeam, ParallelBeam
from padis_jax.patches import frame_for
from padis_jax.runs.volume_memory import data_bytes
from padis_jax.solvers.presets import preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.unet import NetworkConfig, init_network
from padis_jax.volume_prior import slab_prior

VIEWS = 20
SHAPES = ((64, 64, 64), (128, 128, 128), (108, 256, 256))
METHODS = ("pnp_admm", "dds", "diffpir")


class Row(NamedTuple):
    """Bytes of a method: estimated, planned, taken (0 without a run), and of the data step with what is kept."""

    estimate: int
    planned: int
    taken: int
    data: int


class _Planned(Exception):
    """Ends a call whose loop is compiled."""


def operator_of(beam: str, shape: tuple[int, int, int]) -> Any:
    """The scan of a volume."""
    angles, (depth, _, width) = np.arange(VIEWS) * np.pi / VIEWS, shape
    if beam == "parallel":
        return ParallelBeam(volume_shape=shape, angles=angles, detector_count=2 * width)
    return ConeBeam(
        volume_shape=shape,
        slice_spacing=1.0,
        angles=2 * angles,
        detector_shape=(3 * depth // 2, 3 * width // 2),
        source_distance=4 * width,
        detector_distance=width,
    )


def measured(
    operator: Any, beam: str, method: str, network: NetworkConfig, patch: int, *, run: bool, patch_batch: int = 0
) -> Row:
    """A row of the table."""
    shape, plan = operator.image_shape, preset(method, "ct")
    frame, params = frame_for(shape[1:], patch), init_network(jax.random.key(0), network)
    prior = slab_prior(network, params, frame, depth=shape[0], patch_batch=patch_batch or None)
    found: list[tuple[Memory, Growth | None]] = []

    def on_memory(memory: Memory) -> None:
        found.append((memory, Growth() if run else None))
        if not run:
            raise _Planned

    y, start = jnp.zeros(operator.measurement_shape), jnp.full(shape, 0.3)
    try:
        call: dict[str, Any] = {"solver": plan.settings, "levels": 2, "start": start, "on_memory": on_memory}
        reconstruct(0, y, operator, prior, **call).image.block_until_ready()
    except _Planned:
        pass
    memory, growth = found[0]
    sizes = {"evaluations": 1, "patch_batch": patch_batch, "gradient": plan.row.gradient}
    estimate = plan_sampling(network, params, frame, **sizes)  # type: ignore[arg-type]
    data = data_bytes(plan, prior.frame, operator.measurement_shape, cone=beam == "cone")
    return Row(estimate.bytes + data, memory.total, memory.arguments + growth() if growth else 0, data)


def main() -> None:
    """Compiles, and runs if asked to; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, help="D H W; three shapes without it")
    parser.add_argument("--beam", choices=("parallel", "cone"), default="parallel")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--run", action="store_true", help="two levels, and what the process takes")
    args = parser.parse_args()
    network, patch = dataclasses.replace(head_ct.config.network, dropout=0.0), head_ct.config.patches.largest
    print("| volume | method | estimate (MB) | planned | of it | taken | data step, volumes less 2 y |")
    print("|---" * 7 + "|")
    for shape in [tuple(args.shape)] if args.shape else SHAPES:
        operator = operator_of(args.beam, shape)
        volume, rays = 4 * math.prod(shape), 4 * math.prod(operator.measurement_shape)
        for method in args.methods:
            row = measured(operator, args.beam, method, network, patch, run=args.run)
            taken = f"{row.taken / 1e6:.0f}" if row.taken else ""
            print(
                f"| {' x '.join(map(str, shape))} | {method} | {row.estimate / 1e6:.0f} | {row.planned / 1e6:.0f} | "
                f"{row.estimate / row.planned - 1:+.0%} | {taken} | {(row.data - 2 * rays) / volume:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
