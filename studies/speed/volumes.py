"""Memory and time of a volume's solver against the side of a cube, and what that says of larger ones.

    python -m studies.speed.volumes                        cubes of 64, 96 and 128, carried on to 256 and 512
    python -m studies.speed.volumes --sides 32 48 --to 64  a check of the line: 64 can be measured

Plug-and-play ADMM on 20 parallel views of a cube, one data step for all of it, with the network of configs/head_ct.py
and random parameters (a time does not depend on them). For every side: bytes that XLA plans for the loop, seconds of a
level (a run of four levels less one of two), and those of the same level with a denoiser that computes nothing, which
is the data step and the handling of the volume. Lines through the smallest and the largest cube, in voxels, give the
larger ones; the network's time goes with the patches instead, and the patches of the cubes between hold it to account.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import head_ct
from padis_jax.devices.memory import Memory
from padis_jax.operators import ParallelBeam
from padis_jax.patches import frame_for
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.unet import NetworkConfig, init_network
from padis_jax.volume_prior import VolumePrior, slab_prior

VIEWS, CG_STEPS = 20, 3


class Cost(NamedTuple):
    """Of one side: patches of a level, planned bytes, seconds of a level, and of one without the network."""

    patches: int
    memory: float
    level: float
    data: float


def measured(side: int, network: NetworkConfig, patch: int, patch_batch: int | None = None) -> Cost:
    """Costs of a cube."""
    angles = np.arange(VIEWS) * np.pi / VIEWS
    operator = ParallelBeam(volume_shape=(side,) * 3, angles=angles, detector_count=2 * side)
    params = init_network(jax.random.key(0), network)
    prior = slab_prior(network, params, frame_for((side, side), patch), depth=side, patch_batch=patch_batch)
    nothing = VolumePrior(lambda key, volume, sigma: volume * jnp.exp(-sigma), prior.frame)
    level, planned = level_of(operator, prior)
    slices, rows, columns = prior.frame.tiles
    return Cost(slices * rows * columns, planned, level, level_of(operator, nothing)[0])


def level_of(operator: Any, prior: VolumePrior) -> tuple[float, float]:
    """(seconds of a level, bytes planned)."""
    y = operator(jnp.full(prior.frame.image_shape, 0.3))
    plans: list[Memory] = []
    solver = PlugAndPlay(cg_steps=CG_STEPS)

    def run(levels: int) -> float:
        call: dict[str, Any] = dict(solver=solver, levels=levels, sigma_max=0.05, sigma_min=0.01, start="operator")
        reconstruct(0, y, operator, prior, **call, on_memory=plans.append).image.block_until_ready()
        begin = time.perf_counter()
        reconstruct(0, y, operator, prior, **call).image.block_until_ready()
        return time.perf_counter() - begin

    two, four = run(2), run(4)
    return max(four - two, 0.0) / 2, float(plans[0].total)


def carried(costs: dict[int, Cost], to: int, patch: int) -> Cost:
    """The line through the smallest and the largest side, at another."""
    low, high = min(costs), max(costs)
    share = (to**3 - low**3) / (high**3 - low**3)

    def line(field: str) -> float:
        a, b = getattr(costs[low], field), getattr(costs[high], field)
        return a + share * (b - a)

    rows, columns = frame_for((to, to), patch).tiles
    patches = to * rows * columns
    each = (costs[high].level - costs[high].data) / costs[high].patches
    return Cost(patches, line("memory"), patches * each + line("data"), line("data"))


def main() -> None:
    """Measures, carries on, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 96, 128])
    parser.add_argument("--to", nargs="*", type=int, default=[256, 512], help="sides that are not measured")
    args = parser.parse_args()
    network, patch = dataclasses.replace(head_ct.config.network, dropout=0.0), head_ct.config.patches.largest
    costs = {side: measured(side, network, patch) for side in args.sides}
    print("| side | patches | memory (MB) | volumes of float32 | seconds of a level | of these, the data step | |")
    print("|---" * 7 + "|")
    for side, cost in {**costs, **{to: carried(costs, to, patch) for to in args.to}}.items():
        print(
            f"| {side} | {cost.patches} | {cost.memory / 1e6:.0f} | {cost.memory / (4 * side**3):.1f} | "
            f"{cost.level:.3g} | {cost.data:.3g} | {'measured' if side in costs else 'the line'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
