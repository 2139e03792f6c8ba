"""Trains a patch prior on the images that a config names.

    python train.py --config configs/smoke.py --workdir runs/smoke             a minute on two cores
    python train.py --config configs/head_ct.py --workdir runs/ct --dry-run --estimate    memory and runtime
    python train.py --config configs/head_ct.py --workdir runs/ct --run.steps 2000
    python train.py --workdir runs/ct                                          resume
    python train.py --config mine.py --workdir runs/bsds --data.path BSR/ --data.layout bsds500     a published set

The work folder receives checkpoints/, log.jsonl, config.json, pictures of denoised patches and, at the end,
weights.safetensors (the averaged parameters with config, frame and provenance), which sample.py takes as --weights.
After an interruption, rerun the same command to resume: it continues from the newest intact checkpoint with that
checkpoint's config, under the flags given now; what a config file says otherwise is named and not used. SIGTERM and
Ctrl-C save after the current step and exit with 128 + their number.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from padis_jax import checkpoint
from padis_jax.cli.arguments import OutputOptions, parse, split_args, split_output_options
from padis_jax.cli.commands import called_as, sample_command
from padis_jax.cli.help_text import Page
from padis_jax.config import Config, load_config_file
from padis_jax.devices import cluster
from padis_jax.devices.mesh import is_leader
from padis_jax.devices.plan import plan_training
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import check_bucket, check_writable, json_text
from padis_jax.images.layouts import located
from padis_jax.lock import locked
from padis_jax.runs.training import changed, check_folder, first_step, train
from padis_jax.runs.training_data import load_data
from padis_jax.runs.unused import check_training
from padis_jax.serialization import from_json

HELP = Page(
    "train",
    f"{__doc__}\n{cluster.__doc__}",
    Config,
    "data.path=PATH data.layout=bsd100|bsds500|div2k "
    "data.low=X data.high=X data.unit=UNIT data.test=N... data.validation=N... data.crop=H,W data.grey "
    "network.image_channels=N network.model_channels=N patches.sizes=N... patches.batch=N... "
    "optimiser.learning_rate=X run.steps=N run.seed=N run.start_weights=FILE run.checkpoint_every=N "
    "run.devices=N run.tensorboard",
    own=(
        ("--config FILE", "Python file with `config`, a Config (examples in configs/)"),
        ("--workdir DIR", "folder for checkpoints, log and weights.safetensors; rerun to resume"),
    ),
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of train.py and padis-train."""
    output, args = split_output_options(sys.argv[1:] if argv is None else argv, HELP)
    config_file, workdir, rest = split_args(cluster.join(args))
    given = load_config_file(config_file, Config) if config_file else None
    if given is not None or "--help-all" in rest:  # before the work folder is touched
        given = _parse(rest, given or Config())
    if not workdir:
        raise UserError("name the folder for results: --workdir DIR (and the settings: --config configs/NAME.py)")
    check_bucket(workdir)
    check_writable(workdir)  # of a file it would be said that it has no checkpoint
    if given is None and not checkpoint.folder(workdir).is_dir():
        raise UserError(f"{workdir} has no checkpoint to resume from: name the settings with --config FILE")
    saved, start = None, 0
    if checkpoint.folder(workdir).is_dir():
        with locked(workdir, lock=not (output.no_lock or output.dry_run)):
            pass  # whoever is at work there changes what is read: refused before
        with checkpoint.open_checkpoints(workdir, reading=True) as manager:
            saved, start = checkpoint.saved_config(manager), manager.latest_step() or 0
    config = _resolve(given, saved, rest, workdir)
    if given is not None and not output.silent and is_leader():
        _say_changed(given, config, workdir)
    config = dataclasses.replace(config, data=located(config.data))
    check_folder(config, workdir)
    if output.dry_run or output.verbose:
        _plan(config, workdir, start, output)
    if output.dry_run:
        return
    silent = output.quiet or output.json or not is_leader()
    weights, steps = train(config, workdir, silent=silent, lock=not output.no_lock)
    if is_leader() and output.json:
        print(json_text({"workdir": workdir, "step": steps, "weights": str(weights)}))
    elif is_leader() and not output.quiet:
        print(f"the weights are {weights}; reconstruct with: {sample_command(weights, config)}", file=sys.stderr)


def _plan(config: Config, workdir: str, start: int, output: OutputOptions) -> None:
    """Prints what would be done, and what it takes; a dry run refuses what the run would."""
    data = load_data(config)
    if output.dry_run:
        start = first_step(config, data, workdir)
    images = len(data.padded)
    estimate = plan_training(config, data.frame, max(config.run.steps - start, 0), timed=output.estimate)
    about = {"data": config.data.path, "training_images": images, "workdir": workdir, "from_step": start}
    if output.json and output.dry_run:
        print(json_text({"dry_run": True} | about | estimate._asdict()))
    elif not output.json:
        print(
            f"{images} images of {config.data.path} into {workdir}, steps {start} to {config.run.steps}; "
            f"{estimate.text()}"
        )


def _parse(args: Sequence[str], default: Config) -> Config:
    config = parse(Config, args, default=default, prog=called_as("train"), description=HELP.full())
    check_training(config, default)
    return config


def _resolve(given: Config | None, saved: Mapping[str, Any] | None, args: Sequence[str], workdir: str) -> Config:
    """The checkpoint's settings if there is one, otherwise the given ones; flags count in both cases."""
    if saved is None:
        if given is None:
            raise UserError(f"{workdir} has no checkpoint to resume from: name the settings with --config FILE")
        return given
    before = from_json(Config, saved.get("config"), f"{workdir}: the checkpoint's config")
    config = _parse(args, before)
    if config.run.start_weights != before.run.start_weights:
        raise UserError(
            f"--run.start-weights: {workdir} has checkpoints, which are gone on with; leave it out, or choose another "
            "--workdir"
        )
    if given is not None and given.network != config.network:
        raise UserError(
            f"{workdir} holds checkpoints of another network ({config.network}) than --config gives ({given.network}); "
            "choose another --workdir, or leave --config out to resume with the checkpoint's"
        )
    return config


def _say_changed(given: Config, used: Config, workdir: str) -> None:
    """Names what a config file says and the checkpoint, whose settings are used, says otherwise."""
    if given.data.layout:  # whose folders have been named since
        given = dataclasses.replace(given, data=used.data)
    if found := changed(dataclasses.asdict(given), dataclasses.asdict(used)):
        print(
            f"note: {workdir}: the checkpoint's settings are used, not those of --config: {', '.join(found)}; give "
            "as flags what is to change",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
