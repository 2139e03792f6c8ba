"""Patch prior, whole-image model and patch prior without positions, trained for the same time on the head CT.

    python -m studies.equal_budget --minutes 30                        all twelve trainings, one after the other
    python -m studies.equal_budget --only patch/10/0 --only whole/10/0 some of them: PRIOR/SLICES/SEED
    python -m studies.equal_budget --minutes 0.5 --scan.views 60       other flags are those of sample.py

Every prior is trained on 10 slices and on all (0), with two seeds, and then reconstructs the four test slices
(noiseless 20-view CT and DDS unless flags say otherwise). A budget is a number of steps: those that fit into --minutes
on this machine, timed before the first training with nothing else running and kept in --out/steps.json, so that the
learning rate can decay on schedule and an interrupted run can resume. Without positions a step costs the same, so it
has the patch prior's number. Rerun the same command to resume: finished trainings have a JSON file in --out, others
checkpoints in --runs. results.md has means, and differences paired by slice and seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from padis_jax.batches import draw_batch
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.config import Config, load_config_file
from padis_jax.devices.mesh import make_mesh
from padis_jax.devices.parallel import put_batch
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes, write_json
from padis_jax.images import read_images
from padis_jax.runs.config import Experiment
from padis_jax.runs.outcome import reconstruct_image
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.training import begin, train
from padis_jax.runs.training_data import load_data
from padis_jax.split import HEAD_CT_TEST
from padis_jax.training import TrainState
from padis_jax.weights import load_weights

PRIORS: dict[str, tuple[str, dict[str, Any]]] = {  # config file, and how its network differs
    "patch": ("configs/head_ct.py", {}),
    "whole": ("configs/head_ct_whole.py", {}),
    "no_positions": ("configs/head_ct.py", {"position_channels": 0}),
}
SLICES, SEEDS = (10, 0), (0, 1)
TIMED = 3  # steps of each patch size, after one that compiles
Run = tuple[str, int, int]  # prior, slices (0: all), seed


@one_line_errors()
def main() -> None:
    """Trains, reconstructs, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each training, without compilation")
    parser.add_argument("--only", action="append", default=[], metavar="PRIOR/SLICES/SEED")
    parser.add_argument("--out", type=Path, default=Path("results/equal_budget"), help="figures")
    parser.add_argument("--runs", type=Path, default=Path("runs/equal_budget"), help="checkpoints and weights")
    args, rest = parser.parse_known_args()
    if not args.minutes > 0:
        raise UserError(f"--minutes {args.minutes}: it must be positive")
    paper = Experiment(scan=ScanConfig(protocol="paper"), solver=SolverConfig("dds"))
    base = parse_experiment(rest, default=paper, prog="studies.equal_budget", description=__doc__ or "")
    runs = [(prior, slices, seed) for seed in SEEDS for slices in SLICES for prior in PRIORS]
    chosen = [_find(name, runs) for name in args.only] or runs
    steps = _steps(args.out / "steps.json", args.minutes)
    for run in chosen:
        if not _file(args.out, run).exists():
            folder = args.runs / "_".join(map(str, run))
            weights, _ = train(training_config(run, int(steps[run[0]]["steps"])), folder)
            rows = evaluate(base, weights)
            write_json(_file(args.out, run), {"run": run, "steps": steps[run[0]], "experiment": base, "rows": rows})
    done = {run: json.loads(_file(args.out, run).read_text())["rows"] for run in runs if _file(args.out, run).exists()}
    text = markdown(done)
    write_bytes(args.out / "results.md", text.encode())
    print(text)


def _find(name: str, runs: list[Run]) -> Run:
    for run in runs:
        if "/".join(map(str, run)) == name:
            return run
    raise UserError(f"--only {name}: there are {', '.join('/'.join(map(str, run)) for run in runs)}")


def _file(out: Path, run: Run) -> Path:
    return out / f"{'_'.join(map(str, run))}.json"


def _steps(path: Path, minutes: float) -> dict[str, dict[str, float]]:
    """Steps of each prior that take as long, from the file or timed now."""
    if path.exists():
        found = json.loads(path.read_text())
        if found["minutes"] != minutes:
            raise UserError(f"{path} is for --minutes {found['minutes']}: choose another --out for {minutes}")
        return dict(found["priors"])
    priors = {}
    for name in ("patch", "whole"):
        seconds = step_seconds(_config(name))
        priors[name] = {"seconds_per_step": seconds, "steps": max(1, round(60 * minutes / seconds))}
        print(f"{name}: {seconds:.3f} s a step, {priors[name]['steps']} steps in {minutes:g} min", flush=True)
    priors["no_positions"] = priors["patch"]
    write_json(path, {"minutes": minutes, "device": jax.devices()[0].device_kind, "priors": priors})
    return priors


def _config(prior: str) -> Config:
    file, different = PRIORS[prior]
    config = load_config_file(file, Config)
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **different))


def step_seconds(config: Config) -> float:
    """Seconds of a training step, the median of each patch size weighted by how often it is drawn."""
    data, mesh = load_data(config), make_mesh(config.run.devices)
    state, take = begin(config, data.frame, mesh)

    def draw(step: int) -> tuple[Any, ...]:
        return put_batch(mesh, draw_batch(data.padded, config.patches, config.run.seed, step))

    return timed(config, draw, state, take)


def timed(config: Config, draw: Callable[[int], tuple[Any, ...]], state: TrainState, take: Callable[..., Any]) -> float:
    """`step_seconds` of any batches (the second array is that of positions) and step (key, state, *batch)."""
    key = jax.random.key(config.run.seed)
    times: dict[int, list[float]] = {}
    step = 0
    while len(times) < len(config.patches.sizes) or min(map(len, times.values())) <= TIMED:
        before = time.perf_counter()
        batch = draw(step)
        state, metrics = take(key, state, *batch)
        jax.block_until_ready((state, metrics))
        times.setdefault(batch[1].shape[1], []).append(time.perf_counter() - before)
        step += 1
    # Sizes in the order of `times` and of the config: the whole image is size 0 there.
    medians = [np.median(times[size][1:]) for size in sorted(times)]
    order = np.argsort(config.patches.sizes)
    return float(sum(np.asarray(config.patches.probabilities)[order] * medians))


def training_config(run: Run, steps: int) -> Config:
    """Settings of a training."""
    prior, slices, seed = run
    config, every = _config(prior), max(1, steps // 4)
    warmup = min(config.optimiser.warmup_steps, steps // 10)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, limit=slices),
        optimiser=dataclasses.replace(config.optimiser, warmup_steps=warmup),
        run=dataclasses.replace(config.run, seed=seed, steps=steps, checkpoint_every=every, validate_every=every),
    )


def evaluate(base: Experiment, path: Path) -> dict[str, dict[str, Any]]:
    """The test slices' rows of the table, by slice."""
    weights, images, rows = load_weights(path), read_images(base.image.path), {}
    for index in HEAD_CT_TEST:
        config = dataclasses.replace(base, weights=str(path), image=dataclasses.replace(base.image, index=index))
        _, tv, row = reconstruct_image(config, images, weights)[1].rows
        rows[str(index)] = row.shown() | {"tv_psnr": tv.psnr, "weights": weights.digest}
    return rows


def markdown(done: dict[Run, dict[str, dict[str, Any]]]) -> str:
    """Mean PSNR of each training, and the patch prior's lead over the others, paired by slice and seed."""

    def psnr(run: Run) -> np.ndarray:
        return np.array([done[run][index]["psnr"] for index in sorted(done[run])])

    lines = ["| prior | slices | seed | PSNR of the test slices (dB) | mean |", "|---|---|---|---|---|"]
    for run in sorted(done, key=lambda r: (-r[1], list(PRIORS).index(r[0]), r[2])):
        values = psnr(run)
        each = ", ".join(f"{v:.2f}" for v in values)
        lines.append(f"| {run[0]} | {run[1] or 'all'} | {run[2]} | {each} | {values.mean():.2f} |")
    head = ("patch prior less", "slices", "seeds", "mean difference (dB)", "spread", "wins")
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for other in ("whole", "no_positions"):
        for slices in SLICES:
            seeds = [s for s in SEEDS if {("patch", slices, s), (other, slices, s)} <= set(done)]
            if seeds:
                d = np.concatenate([psnr(("patch", slices, s)) - psnr((other, slices, s)) for s in seeds])
                lines.append(
                    f"| {other} | {slices or 'all'} | {len(seeds)} | {d.mean():+.2f} | {d.std(ddof=1):.2f} | "
                    f"{(d > 0).sum()} of {d.size} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
