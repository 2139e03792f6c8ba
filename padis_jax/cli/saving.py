"""The formats of --save-as: looked at before the long work, written after it."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

import padis_jax
from padis_jax import experiment as ex
from padis_jax.files import check_writable
from padis_jax.images import ImageSet, Window
from padis_jax.writers import check_format, result, write_result


def check_save(config: ex.Experiment, workdir: Path, source: ImageSet, window: Window) -> None:
    """Refuses a folder that cannot be written to, and what `save` would refuse; leaves nothing behind.

    Args:
      config: the formats, the solver and the number of samples.
      workdir: the results folder.
      source: the one image that a result will be of.
      window: of the prior.

    Raises:
      UserError: for such a folder, and for a format that needs what the source does not tell.
    """
    check_writable(workdir)
    blank = result(np.zeros(source.images.shape), source, "", window=window)
    for kind in config.save_as:
        check_format(workdir / config.solver.name, kind, blank)
        if config.samples:
            check_format(_deviation_stem(config, workdir), kind, blank)


def save(
    config: ex.Experiment,
    workdir: Path,
    source: ImageSet,
    window: Window,
    image: np.ndarray | jax.Array,
    what: str,
    *,
    deviation: np.ndarray | jax.Array | None = None,
) -> list[str]:
    """Writes an image [H, W, C] in [0, 1] in every format, and the map of its deviation beside it.

    Args:
      config: the formats and the solver, whose name is that of the files.
      workdir: the results folder.
      source: the one image that this is a reconstruction of.
      window: of the prior.
      image: the reconstruction.
      what: what was done; goes into the headers.
      deviation: standard deviation [H, W, C] in units of the window.

    Returns:
      Paths of what was written, within the folder; of a DICOM series its first file.
    """
    about = f"{what} by padis_jax {padis_jax.__version__}; not for diagnosis"
    made = [(workdir / config.solver.name, result(np.asarray(image)[None], source, about, window=window))]
    if deviation is not None:
        of = f"Standard deviation of {about}"
        spread = result(np.asarray(deviation)[None], source, of, window=window, deviation=True)
        made.append((_deviation_stem(config, workdir), spread))
    return [str(write_result(stem, kind, one)[0].relative_to(workdir)) for kind in config.save_as for stem, one in made]


def _deviation_stem(config: ex.Experiment, workdir: Path) -> Path:
    return workdir / f"{config.solver.name}_deviation"
