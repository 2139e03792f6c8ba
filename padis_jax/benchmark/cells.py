"""One result on disk: a method on one image with one seed, under a name that holds a hash of all it depends on.

A finished cell is not computed again. Change a setting, the problem, the weights or the image, and the cell has another
name; the older file stays. The image of a cell that a picture may show is written before its JSON, so a cell that is
there is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from padis_jax.errors import UserError, cut
from padis_jax.files import json_text, read_records, write_bytes, write_json, write_npy
from padis_jax.serialization import from_json


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a cell is.

    Attributes:
      problem: the problem.
      method: the method.
      image: name of the image.
      seed: root of masks, noise and method.
      config: all else that decides the result: the problem's definition, settings, SHA-256 of the image and of the
        network's file.
    """

    problem: str
    method: str
    image: str
    seed: int
    config: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all fields."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, folder: Path) -> Path:
        """Where its result is kept."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.image).strip("-") or "image"
        return folder / "cells" / self.problem / self.method / f"{name}_{self.seed}_{self.fingerprint[:12]}.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a cell holds; a run that diverged (image or residual not finite) has no scores.

    Attributes:
      fingerprint: of its Cell.
      problem: of its Cell, as are the four next.
      method: likewise.
      image: likewise.
      seed: likewise.
      config: likewise.
      psnr: dB, after clipping to [0, 1]; at most `measure.PSNR_LIMIT`.
      ssim: 7 x 7 uniform window, after clipping.
      residual: ||y - A x|| / ||y||, before clipping; where y = 0, 0 if A x = 0 too, else None.
      evaluations: network evaluations of the image.
      seconds: wall-clock without XLA's compilation, with the start from total variation where the method takes it;
        Python's tracing, a second or so per new shape, is in it.
      compile_seconds: spent by XLA's compiler.
      software: versions and device.
    """

    fingerprint: str
    problem: str
    method: str
    image: str
    seed: int
    config: dict[str, Any]
    psnr: float | None
    ssim: float | None
    residual: float | None
    evaluations: int
    seconds: float
    compile_seconds: float
    software: str


def read_result(folder: Path, cell: Cell, shape: tuple[int, ...] | None = None) -> tuple[Result | None, str]:
    """(the finished result or None, why a file that is there cannot be used or "").

    Args:
      folder: of all results.
      cell: whose.
      shape: of its image, [H, W, C], where that is needed too.
    """
    path = cell.path(folder)
    if not path.exists():
        return None, ""
    try:
        result = from_json(Result, json.loads(path.read_text()), str(path))
        if result.fingerprint != cell.fingerprint:
            raise UserError(f"{path}: holds the result of another cell")
        if shape is not None and result.psnr is not None:
            read_image(folder, cell, shape)
    except UserError as error:
        return None, str(error)
    except (OSError, ValueError, RecursionError) as error:
        return None, f"{path}: damaged: {cut(error)}"
    return result, ""


def write_result(folder: Path, cell: Cell, result: Result, image: np.ndarray | None) -> None:
    """Writes the result, and the image [H, W, C] before it if there is one; atomically."""
    path = cell.path(folder)
    if image is not None:
        write_npy(path.with_suffix(".npy"), np.asarray(image, np.float32))
    write_json(path, result)


def read_lines(path: str) -> dict[str, Result]:
    """fingerprint -> result of a file of finished cells; of one that is not there, none.

    Raises:
      UserError: for a file that cannot be read, and a line that is no cell.
    """
    if not path or not Path(path).exists():
        return {}
    results = [from_json(Result, record, f"{path}: line {n}") for n, record in enumerate(read_records(path), start=1)]
    return {result.fingerprint: result for result in results}


def write_lines(path: str, results: Mapping[str, Result]) -> None:
    """Writes the file of finished cells, in an order of its own; atomically."""
    order = sorted(results.values(), key=lambda r: (r.problem, r.method, r.evaluations, r.image, r.seed, r.fingerprint))
    write_bytes(path, "".join(f"{json_text(r, sort_keys=True)}\n" for r in order).encode())


def read_image(folder: Path, cell: Cell, shape: tuple[int, ...]) -> np.ndarray:
    """The image of a cell that is shown, of that shape [H, W, C].

    Raises:
      OSError, ValueError: if it is missing or damaged.
    """
    path = cell.path(folder).with_suffix(".npy")
    try:
        with open(path, "rb") as file:
            image = np.load(file, allow_pickle=False)
    except (EOFError, zipfile.BadZipFile) as error:  # an empty file; one that begins like an archive
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(image, np.ndarray) or image.shape != shape:
        raise ValueError(f"{path.name} is no array of shape {shape}")
    return image
