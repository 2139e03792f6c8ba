"""Commands to be pasted: how this program was called, and others of the package in the same way."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from padis_jax.config import Config
from padis_jax.errors import UserError
from padis_jax.images import open_source


def called_as(program: str, *, folder: bool = True) -> str:
    """A program in the way that the running one was called: `python sample.py`, `padis-sample`, `python -m ...`.

    Args:
      program: train, sample, convert, data or benchmark.
      folder: with the folder of the script where the command needs it.
    """
    this = Path(sys.argv[0])
    if program == "benchmark":
        return "python -m padis_jax.benchmark"
    if program in ("train", "sample") and this.name in ("train.py", "sample.py"):
        script = this.with_name(f"{program}.py")
        return f"python {shlex.quote(str(script) if folder else script.name)}"
    if program in ("convert", "data") and this.parts[-3:-1] == ("padis_jax", "cli"):
        return f"python -m padis_jax.cli.{program}"
    name = f"padis-{program}"
    if this.name.startswith("padis-"):
        found = not folder or shutil.which(name)
        return name if found else shlex.quote(str(this.with_name(name + this.suffix)))
    return f"python {program}.py" if Path(f"{program}.py").is_file() else name


def sample_command(weights: Path | str, config: Config) -> str:
    """The command that tries the weights of a training run on an image of its data, a held-out one if there is any."""
    index = (*config.data.test, *config.data.validation, 0)[0]
    words = ["--weights", str(weights), "--image.path", config.data.path, "--image.index", str(index)]
    for name, size in (("crop", config.data.crop), ("resize", config.data.resize)):
        words += [f"--image.{name}", *map(str, size)] if size else []
    words += ["--image.grey"] if config.data.grey else []
    if config.network.image_channels > 1:
        words += ["--problem", "deblur9"]
    elif not _has_spacing(config.data.path):
        words += ["--scan.protocol", "paper"]
    return f"{called_as('sample')} {shlex.join(words)}"


def _has_spacing(path: str) -> bool:
    try:
        return open_source(path).spacing is not None
    except (UserError, OSError):  # gone since the training
        return False
