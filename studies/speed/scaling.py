"""The paper's network on paper: work, traffic, and predicted times on 1 to 512 chips. Nothing here is measured.

python -m studies.speed.scaling            the tables of docs/scaling.md
python -m studies.speed.scaling --xla      also XLA's count of the same work, a minute or two

time = max(flops / (u peak), bytes / bandwidth) of the chip with the most patches, + exchanges
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

from padis_jax.config import Config, load_config_file
from padis_jax.errors import one_line_errors
from padis_jax.patches import frame_for
from studies.speed import network_cost as cost
from studies.speed.network_cost import Cost

CONFIG = "configs/aapm_ct.py"
UTILISATION = 0.4  # of the peak: an assumption
LATENCY = 10e-6  # seconds per hop of an exchange, log2(n) hops: an assumption
COUNTS = (1, 8, 64, 512)
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


def speed(chip: Chip, count: int) -> float:
    """Bytes per second of an exchange among `count` chips."""
    return chip.link if count <= chip.island else chip.beyond


def exchange(chip: Chip, count: int, size: float, *, times: int = 1) -> float:
    """Seconds of a gather (times 1) or an all-reduce (times 2) of `size` bytes."""
    return 0.0 if count == 1 else times * size * (count - 1) / count / speed(chip, count) + LATENCY * math.log2(count)


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


def seconds(config: Config, chip: Chip, task: Task, count: int) -> tuple[float, float]:
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


def binding(computing_and_exchanging: list[tuple[float, float]]) -> str:
    """The first power of two at which the exchange takes more than the computing."""
    found = [n for n, (a, b) in zip(_POWERS, computing_and_exchanging, strict=True) if b > a]
    return str(found[0]) if found else f"not up to {_POWERS[-1]}"


_POWERS = tuple(2**k for k in range(10))


def duration(value: float) -> str:
    """For people."""
    for limit, divisor, unit in ((0.1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / divisor:.3g} {unit}"
    return f"{value / 86400:.3g} d"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)) + "\n"


def tables(config: Config) -> dict[str, str]:
    """All that docs/scaling.md shows, by the name of the section; counted by hand."""
    network = config.network
    work = []
    for size, batch in zip(config.patches.sizes, config.patches.batch, strict=True):
        found = cost.forward(network, size, batch)
        flops, moved = f"{3 * found.flops / 1e12:.2f}", f"{3 * found.bytes / 1e9:.1f}"
        work.append([f"training step, {batch} patches of {size} x {size}", flops, moved])
    mean = cost.training_step(config)
    work.append(["training step, mean, with the update", f"{mean.flops / 1e12:.2f}", f"{mean.bytes / 1e9:.1f}"])
    for task in TASKS:
        one = evaluation(config, patches(config, task.side))
        times = task.images * task.evaluations * task.passes
        name = f"{task.name} ({patches(config, task.side)} patches)"
        work.append([name, f"{times * one.flops / 1e12:,.0f}", f"{times * one.bytes / 1e9:,.0f}"])
    chips = [
        [
            c.name,
            f"{c.flops / 1e12:.0f}",
            f"{c.bandwidth / 1e12:.2f}",
            f"{c.flops / c.bandwidth:.0f}",
            f"{c.link / 1e9:.0f}",
            f"{c.beyond / 1e9:.3g}",
        ]
        for c in CHIPS
    ]
    one = evaluation(config, CHUNK)
    intensity = f"{one.flops / one.bytes:.0f}"
    training = []
    for chip in CHIPS:
        pairs = [training_seconds(config, chip, n) for n in COUNTS]
        cells = [f"{duration(a)} + {duration(b)}" if b else duration(a) for a, b in pairs]
        training.append([chip.name, *cells, binding([training_seconds(config, chip, n) for n in _POWERS])])
    sections = {
        "work": table(["", "TFLOP", "GB moved"], work),
        "chips": table(
            ["", "TFLOP/s", "TB/s", "flop per byte at the ridge", "GB/s to neighbours", "GB/s beyond"], chips
        ),
        "intensity": f"{intensity} flop per byte for {CHUNK} patches of {config.patches.largest} x "
        f"{config.patches.largest}.\n",
        "training": table(["step", *map(str, COUNTS), "exchange exceeds computing from"], training),
    }
    for task in TASKS:
        rows = []
        for chip in CHIPS:
            pairs = [seconds(config, chip, task, n) for n in COUNTS]
            cells = [f"{duration(a)} + {duration(b)}" if b else duration(a) for a, b in pairs]
            rows.append([chip.name, *cells, binding([seconds(config, chip, task, n) for n in _POWERS])])
        sections[task.name] = table([task.name, *map(str, COUNTS), "exchange exceeds computing from"], rows)
    return sections


def comparison(config: Config) -> str:
    """The count by hand beside XLA's."""
    rows = []
    for which, (size, batch) in enumerate(zip(config.patches.sizes, config.patches.batch, strict=True)):
        hand = cost.forward(config.network, size, batch)
        inside = cost.forward(config.network, size, batch, padding=False)
        xla, whole = cost.xla_forward(config.network, size, batch), cost.xla_training_step(config, which)
        numbers = (hand.flops, inside.flops, xla.flops, 3 * inside.flops, whole.flops)
        rows.append([f"{batch} patches of {size} x {size}", *(f"{n / 1e12:.3f}" for n in numbers)])
    head = ["TFLOP", "forward", "without padding", "XLA", "training step, without padding", "XLA"]
    return table(head, rows)


@one_line_errors()
def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--xla", action="store_true", help="also count with XLA")
    arguments = parser.parse_args()
    config = load_config_file(arguments.config, Config)
    for name, text in tables(config).items():
        print(f"{name}\n\n{text}")
    if arguments.xla:
        print(f"XLA\n\n{comparison(config)}")


if __name__ == "__main__":
    main()
