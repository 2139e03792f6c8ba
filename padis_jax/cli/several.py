"""Several images at once: sample.py with --samples (runs on one measurement) and with --generate (no measurement)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from padis_jax import experiment as ex
from padis_jax.cli.arguments import OutputOptions
from padis_jax.cli.saving import save
from padis_jax.errors import UserError
from padis_jax.figures import maps, save_figure
from padis_jax.files import write_npz
from padis_jax.images import ImageSet
from padis_jax.metrics import coverage
from padis_jax.prior import Prior
from padis_jax.runs.results import NAMES, origin_of, refuse_divergence, table, write_config, write_results
from padis_jax.solvers.generate import generate
from padis_jax.weights import load_weights
from padis_jax.writers import write_png


def sample_several(
    config: ex.Experiment,
    workdir: Path,
    digest: str,
    scene: ex.Scene,
    source: ImageSet,
    prior: Prior,
    images: dict[str, Any],
    rows: list[ex.Row],
    output: OutputOptions,
) -> list[ex.Row]:
    """Rows for one sample (its seconds: its share) and for the mean of all, the deviation, and the coverage.

    Mean and deviation are also written in the formats of `config.save_as`; `source` is the image that they are of.
    """
    name, count = NAMES[config.solver.name], config.samples
    try:
        drawn, seconds = ex.timed(ex.run_samples, config, scene, prior, images["TV"])
    except ValueError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        write_results(workdir, config, digest, scene, images, rows, np.zeros(0))
        raise KeyboardInterrupt(
            f"interrupted; what came before is in {workdir}. Run the same command again for all {count} samples, which "
            "its seed decides"
        ) from None
    refuse_divergence(name, drawn.images)
    one, mean = f"{name}, one sample", f"{name}, mean of {count}"
    each = drawn.evaluations // count
    rows.append(ex.score(one, drawn.images[0], scene, evaluations=each, seconds=seconds / count))
    rows.append(ex.score(mean, drawn.mean, scene, evaluations=drawn.evaluations, seconds=seconds))
    # Clipped samples hold a truth of 0 or 1 too easily: backgrounds and burnt-out lights would count as success.
    mask, where = ex.score_mask(scene), "the truth within the head"
    if mask is None:
        mask, where = (scene.truth > 0) & (scene.truth < 1), "the truth strictly between 0 and 1"
    held = coverage(np.clip(drawn.images, 0, 1), scene.truth, mask=mask) if mask.any() else []
    about = {
        "count": count,
        "seconds": seconds,
        "coverage": [row._asdict() for row in held],
        "coverage_of": where,
        "mean_deviation": float(jnp.mean(drawn.deviation)) * (scene.window.high - scene.window.low),
        "root_mean_square_deviation": float(jnp.sqrt(jnp.mean(jnp.square(drawn.deviation))))
        * (scene.window.high - scene.window.low),
    }
    if output.json:
        found = {"workdir": str(workdir), "unit": scene.window.unit, "rows": [r._asdict() for r in rows]}
        print(json.dumps(found | {"samples": about}))
    elif not output.quiet:
        print(table(rows, scene.window.unit))
        for row in held:
            print(f"intervals that would hold {row.nominal:.1%} of such draws hold {row.found:.1%} of {where}")
    distance = np.abs(np.asarray(drawn.mean) - scene.truth)
    figure = maps(
        {"mean": np.asarray(drawn.mean), "deviation": np.asarray(drawn.deviation), "|mean - truth|": distance},
        window=scene.window,
        origin=origin_of(scene),
    )
    save_figure(workdir / "deviation.png", figure)
    scale = scene.window.high - scene.window.low
    extra = {"deviation": np.asarray(drawn.deviation * scale, np.float32)}
    shown = images | {one: drawn.images[0], mean: drawn.mean}
    write_results(workdir, config, digest, scene, shown, rows, np.asarray(drawn.residual), extra, {"samples": about})
    what = f"mean of {count} {name} reconstructions from {scene.what}"
    more = save(config, workdir, source, scene.window, drawn.mean, what, deviation=drawn.deviation)
    names = ("report.html", "comparison.png", "deviation.png", "reconstruction.npz", "metrics.json", "config.json")
    if not (output.quiet or output.json):
        print(f"results in {workdir}: {', '.join((*names, *more))}")
    return rows


def generate_images(config: ex.Experiment, workdir: Path, output: OutputOptions) -> None:
    """Images from the prior alone: generated_00.png ..., generated.npz (in the window's unit) and config.json."""
    if error := ex.missing_default(config.weights, ex.DEFAULT_WEIGHTS, "--weights"):
        raise error
    weights = load_weights(config.weights).computing(config.compute)
    prior = ex.build_prior(config, weights, weights.frame)
    images, silent = [], output.quiet or output.json
    for index in range(config.generate):
        with tqdm(total=config.generate_levels, desc=f"image {index}", unit="step", disable=silent) as bar:

            def progress(done: int, total: int, info: Any, bar: Any = bar) -> None:
                bar.update(done - bar.n)

            key = ex.image_key(config.seed, index)
            try:
                images.append(np.asarray(generate(key, prior, levels=config.generate_levels, progress=progress)))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted; {index} of {config.generate} pictures are in {workdir}. Run the same command again "
                    "for all, which its seed decides"
                ) from None
        shown = images[-1][::-1] if weights.window.unit == "HU" else images[-1]  # CT is stored face down
        write_png(workdir / f"generated_{index:02d}.png", shown)
    in_unit = np.asarray(weights.window.from_unit(np.stack(images)), np.float32)
    write_npz(workdir / "generated.npz", {"images": in_unit, "unit": np.asarray(weights.window.unit)})
    write_config(workdir, config, weights.digest)
    if output.json:
        print(json.dumps({"workdir": str(workdir), "images": len(images), "unit": weights.window.unit}))
    elif not output.quiet:
        print(f"results in {workdir}: {len(images)} generated_NN.png, generated.npz, config.json")
