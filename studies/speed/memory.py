"""Peak memory and time of one DPS step against the side of the image: patches in chunks, all at once, whole image.

    python -m studies.speed.memory                                        sides 256, 512, 1024, 2048; 4096 analysed only
    python -m studies.speed.memory --config configs/smoke.py --sides 64 128 --analysed 256 --patch-batch 4

DPS differentiates the network, which is what takes memory. The operator is a mask of pixels, so that it takes none. The
network is a small one (`SMALL`), so that all of it ends in minutes on two cores. Two figures for each case: what the
compiled step adds as XLA foretells it (temporary arrays and results), and by how much the resident set of a process of
its own grows at its peak while the step runs (Linux). A case whose estimated memory exceeds what is available is not
run. "no network" is the same step with a network that does nothing: what is left is
what grows with the plane. Writes memory.json, memory.md and memory.png to --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from matplotlib.figure import Figure

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.devices.memory import Growth, analysed, free_memory
from padis_jax.errors import one_line_errors
from padis_jax.figures import save_figure
from padis_jax.files import write_bytes, write_json
from padis_jax.operators.linear import from_functions
from padis_jax.patches import Frame, frame_for
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior, patch_prior, tiled_prior
from padis_jax.solvers import dps
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.problem import build_problem
from padis_jax.solvers.sampling import Noise
from padis_jax.unet import NetworkConfig, init_network

SMALL = Config(
    network=NetworkConfig(model_channels=8, channel_mult=(1, 2), num_blocks=1, dropout=0.0, sigma_data=0.3),
    patches=PatchConfig(sizes=(64,), probabilities=(1.0,), batch=(8,)),
)
MODES = ("chunked", "unchunked", "whole image", "no network")


def whole_image_prior(config: Config, params: Any, frame: Frame) -> Prior:
    """The network on the whole image as one patch; the ring around it is 0."""

    def denoise(params: Any, key: Array, plane: Array, sigma: Array) -> Array:
        image, where = frame.crop(plane), frame.crop(jnp.asarray(plane_positions(frame.padded_shape)))
        return frame.pad(denoise_patches(config.network, params, image[None], where[None], sigma[None])[0])

    return Prior(Partial(denoise, params), frame, channels=config.network.image_channels)


def _no_network(patches: Array, positions: Array, sigma: Array) -> Array:
    """Uses all that a network is given."""
    scale = jnp.exp(-sigma)[:, None, None, None]
    return jnp.tanh(patches * scale + jnp.sum(positions, axis=-1, keepdims=True))


def measure(config: Config, side: int, mode: str, patch_batch: int, run: bool) -> dict[str, float | None]:
    """One case, in this process.

    Args:
      config: gives network and patch.
      side: of the image, a multiple of what the network halves.
      mode: one of `MODES`.
      patch_batch: of "chunked".
      run: whether to run it if there is enough memory.

    Returns:
      OnMemory MiB, growth of the process's peak in MiB and seconds of a second step, None where not run.
    """
    frame = frame_for((side, side), config.patches.largest)
    params = init_network(jax.random.key(0), config.network)
    if mode == "whole image":
        prior = whole_image_prior(config, params, frame)
    elif mode == "no network":
        prior = tiled_prior(_no_network, frame, patch_batch=patch_batch)
    else:
        prior = patch_prior(config.network, params, frame, patch_batch=patch_batch if mode == "chunked" else None)
    shape = (side, side, config.network.image_channels)
    operator = from_functions(lambda x: x, lambda y: y, image_shape=shape)
    y = jax.random.uniform(jax.random.key(1), shape)
    x = frame.pad(y)

    @jax.jit
    def step(prior: Prior, y: Array, key: Array, x: Array) -> Array:
        problem = build_problem(operator, prior.denoise, y, frame, channels=prior.channels)
        return dps.step(DPS(), problem, key, x, Noise(jnp.float32(0.5), jnp.float32(0.4)))[0]

    compiled = step.lower(prior, y, jax.random.key(2), x).compile()
    memory = analysed(compiled)
    found: dict[str, float | None] = {"estimated_mib": memory.added / 2**20}
    if not run or memory.total > 0.9 * free_memory():
        return found | {"measured_mib": None, "seconds": None}
    keys = jax.block_until_ready((jax.random.key(2), jax.random.key(3), x))[:2]
    growth = Growth()
    jax.block_until_ready(compiled(prior, y, keys[0], x))
    peak = growth() / 2**20
    begin = time.perf_counter()
    jax.block_until_ready(compiled(prior, y, keys[1], x))
    return found | {"measured_mib": peak, "seconds": time.perf_counter() - begin}


def in_a_process(arguments: argparse.Namespace, side: int, mode: str, run: bool) -> dict[str, Any]:
    """One case in a process of its own, so that its peak is its own."""
    command = [sys.executable, "-m", "studies.speed.memory", "--config", arguments.config, "--one", mode, str(side)]
    command += ["--patch-batch", str(arguments.patch_batch)] + ([] if run else ["--no-run"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # killed for memory, or refused by the compiler
        reason = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return {"side": side, "mode": mode, "failed": reason[0][:200]}
    return {"side": side, "mode": mode} | json.loads(done.stdout.splitlines()[-1])


def markdown(rows: list[dict[str, Any]], patch_batch: int) -> str:
    """OnMemory MiB / measured MiB / seconds."""
    sides = sorted({row["side"] for row in rows})
    lines = ["| | " + " | ".join(f"{side} x {side}" for side in sides) + " |", "|---" * (len(sides) + 1) + "|"]
    for mode in MODES:
        cells = []
        for side in sides:
            row = next(r for r in rows if (r["mode"], r["side"]) == (mode, side))
            cells.append("does not fit" if "failed" in row else " / ".join(map(_number, list(row.values())[2:])))
        name = f"patches, {patch_batch} at a time" if mode == "chunked" else mode.replace("unchunked", "patches, all")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 10 else f"{value:.0f}"


def plot(rows: list[dict[str, Any]]) -> Figure:
    """Memory and time against the side, both axes logarithmic."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, field, label in zip(axes, ("estimated_mib", "seconds"), ("MiB", "s per step"), strict=True):
        for mode in MODES:
            found = [(r["side"], r[field]) for r in rows if r["mode"] == mode and r.get(field)]
            if found:
                ax.loglog(*zip(*found, strict=True), marker="o", label=f"{mode}")
        if field == "estimated_mib":
            measured = [(r["side"], r["measured_mib"]) for r in rows if r.get("measured_mib")]
            ax.plot(*zip(*measured, strict=True), "kx", label="measured") if measured else None
            ax.legend(fontsize=7)
        sides = sorted({r["side"] for r in rows if r.get(field)})
        ax.set_xticks(sides, [str(side) for side in sides])
        ax.minorticks_off()
        ax.set_xlabel("side of the image")
        ax.set_ylabel(label)
    return figure


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="", help="of the network, in the place of the small one")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--analysed", type=int, nargs="*", default=[4096], help="sides that are compiled, not run")
    parser.add_argument("--patch-batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("results/memory"))
    parser.add_argument("--one", nargs=2, metavar=("MODE", "SIDE"), help="one case in this process, as JSON")
    parser.add_argument("--no-run", action="store_true", help="with --one: compile only")
    arguments = parser.parse_args()
    if arguments.one:
        config = load_config_file(arguments.config, Config) if arguments.config else SMALL
        mode, side = arguments.one[0], int(arguments.one[1])
        print(json.dumps(measure(config, side, mode, arguments.patch_batch, not arguments.no_run)))
        return
    rows = []
    for side in sorted({*arguments.sides, *arguments.analysed}):
        for mode in MODES:
            rows.append(in_a_process(arguments, side, mode, side in arguments.sides))
            print(rows[-1], flush=True)
    text = markdown(rows, arguments.patch_batch)
    write_bytes(arguments.out / "memory.md", text.encode())
    write_json(arguments.out / "memory.json", {"config": arguments.config, "rows": rows})
    save_figure(arguments.out / "memory.png", plot(rows))
    print(text)


if __name__ == "__main__":
    main()
