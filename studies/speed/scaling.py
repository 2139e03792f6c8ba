"""The paper's network on paper: work, traffic, and predicted times on 1 to 512 chips. Nothing here is measured.

python -m studies.speed.scaling            the tables of docs/scaling.md

time = max(flops / (u peak), bytes / bandwidth) of the chip with the most patches, + exchanges
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from padis_jax.config import Config, load_config_file
from padis_jax.patches import frame_for
from studies.speed import network_cost as cost
from studies.speed.network_cost import Cost

CONFIG = "configs/aapm_ct.py"
UTILISATION = 0.4  # of the peak: an assumption
LATENCY = 10e-6  # seconds per hop of an exchange, log2(n) hops: an assumption
COUNTS, POWERS = (1, 8, 64, 512), tuple(2**k for k in range(10))
CHUNK = 64  # patches at a time
VIEWS, BINS_PER_SIDE = 20, 2  # of the scan whose projections DPS sums


class Chip(NamedTuple):
    """Published figures of one chip.

    Attributes:
      name: of the chip.
      flops: per second, dense bfloat16.
      bandwidth: of its memory, bytes per second.
      link: bytes per second that it can send to its neighbours.
      island: chips that are joined by `link`.
      beyond: bytes per second and chip between islands.
    """

    name: str
    flops: float
    bandwidth: float
    link: float
    island: int
    beyond: float


CHIPS = (
    Chip("H100 SXM", 989e12, 3.35e12, 450e9, 8, 50e9),
    Chip("H200 SXM", 989e12, 4.8e12, 450e9, 8, 50e9),
    Chip("TPU v5e", 197e12, 819e9, 200e9, 256, 3.1e9),
    Chip("TPU v5p", 459e12, 2765e9, 600e9, 8960, 6.25e9),
)


class Task(NamedTuple):
    """`images` slices of side x side pixels; `evaluations` of each, every one costing `passes` forward passes."""

    name: str
    side: int
    images: int
    evaluations: int
    passes: int


DDS, DPS = (100, 1), (1000, 3)  # evaluations, passes: forward, again for the gradient, and the gradient
TASKS = tuple(
    Task(f"{size}, {name}", side, images, *method)
    for size, side, images in (("512 x 512", 512, 1), ("2048 x 2048", 2048, 1), ("512 x 512 x 512", 512, 512))
    for name, method in (("DDS", DDS), ("DPS", DPS))
)


def exchange(chip: Chip, count: int, size: float, *, times: int = 1) -> float:
    """Seconds of a gather (times 1) or an all-reduce (times 2) of `size` bytes among `count` chips."""
    speed = chip.link if count <= chip.island else chip.beyond
    return 0.0 if count == 1 else times * size * (count - 1) / count / speed + LATENCY * math.log2(count)


def roofline(chip: Chip, work: Cost) -> float:
    """Seconds on one chip, without exchanges."""
    return max(work.flops / (UTILISATION * chip.flops), work.bytes / chip.bandwidth)


def patches(config: Config, side: int) -> int:
    """In one evaluation of an image."""
    return frame_for((side, side), config.patches.largest).patch_count


def evaluation(config: Config, count: int) -> Cost:
    """Of `count` patches, `CHUNK` at a time."""
    full, rest = divmod(count, CHUNK)
    parts = [cost.forward(config.network, config.patches.largest, b) for b in [CHUNK] * full + [rest] * bool(rest)]
    return Cost(sum(p.flops for p in parts), sum(p.bytes for p in parts))


def seconds(config: Config, task: Task, chip: Chip, count: int) -> tuple[float, float]:
    """(computing, exchanging) of a reconstruction. Several images are spread whole, one by its patches."""
    number = patches(config, task.side)
    if task.images > 1:
        each = math.ceil(task.images / count) * task.evaluations * task.passes
        return each * roofline(chip, evaluation(config, number)), 0.0
    computing = task.evaluations * task.passes * roofline(chip, evaluation(config, math.ceil(number / count)))
    talk = exchange(chip, count, 4 * number * config.patches.largest**2)
    if task.passes > 1:
        talk += exchange(chip, count, 4 * VIEWS * BINS_PER_SIDE * task.side, times=2)
    return computing, task.evaluations * talk


def training_seconds(config: Config, chip: Chip, count: int) -> tuple[float, float]:
    """(computing, exchanging) of a training step, the gradient in float32. The update is done by every chip."""
    whole, update = cost.training_step(config), 9 * 4 * cost.parameters(config.network)
    share = Cost(whole.flops / count, (whole.bytes - update) / count + update)
    return roofline(chip, share), exchange(chip, count, 4 * cost.parameters(config.network), times=2)


def duration(value: float) -> str:
    """For people."""
    for limit, divisor, unit in ((0.1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if value < limit:
            return f"{value / divisor:.3g} {unit}"
    return f"{value / 3600:.3g} h"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)) + "\n"


def times(name: str, of: Callable[[Chip, int], tuple[float, float]]) -> str:
    """(computing, exchanging) of each chip, and the first power of two at which exchanging takes longer; Markdown."""
    rows = []
    for chip in CHIPS:
        cells = [duration(a) + (f" + {duration(b)}" if b else "") for a, b in (of(chip, n) for n in COUNTS)]
        binding = next((str(n) for n in POWERS if (pair := of(chip, n))[1] > pair[0]), f"not up to {POWERS[-1]}")
        rows.append([chip.name, *cells, binding])
    return table([name, *map(str, COUNTS), "exchange exceeds computing from"], rows)


def tables(config: Config) -> dict[str, str]:
    """All that docs/scaling.md shows, by the name of the section; counted by hand."""
    largest, work = config.patches.largest, []
    for size, batch in zip(config.patches.sizes, config.patches.batch, strict=True):
        found = cost.forward(config.network, size, batch)
        flops, moved = f"{3 * found.flops / 1e12:.2f}", f"{3 * found.bytes / 1e9:.1f}"
        work.append([f"training step, {batch} patches of {size} x {size}", flops, moved])
    mean = cost.training_step(config)
    work.append(["training step, mean, with the update", f"{mean.flops / 1e12:.2f}", f"{mean.bytes / 1e9:.1f}"])
    for task in TASKS:
        number, passes = patches(config, task.side), task.images * task.evaluations * task.passes
        whole = evaluation(config, number)
        flops, moved = f"{passes * whole.flops / 1e12:,.0f}", f"{passes * whole.bytes / 1e9:,.0f}"
        work.append([f"{task.name} ({number} patches)", flops, moved])
    chips = []
    for c in CHIPS:
        peaks = [f"{c.flops / 1e12:.0f}", f"{c.bandwidth / 1e12:.2f}", f"{c.flops / c.bandwidth:.0f}"]
        chips.append([c.name, *peaks, f"{c.link / 1e9:.0f}", f"{c.beyond / 1e9:.3g}"])
    one = evaluation(config, CHUNK)
    units = ["", "TFLOP/s", "TB/s", "flop per byte at the ridge", "GB/s to neighbours", "GB/s beyond"]
    return {
        "work": table(["", "TFLOP", "GB moved"], work),
        "chips": table(units, chips),
        "intensity": f"{one.flops / one.bytes:.0f} flop per byte for {CHUNK} patches of {largest} x {largest}.\n",
        "training": times("step", functools.partial(training_seconds, config)),
        **{task.name: times(task.name, functools.partial(seconds, config, task)) for task in TASKS},
    }


def main() -> None:
    """Prints the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, text in tables(load_config_file(CONFIG, Config)).items():
        print(f"{name}\n\n{text}")


if __name__ == "__main__":
    main()
