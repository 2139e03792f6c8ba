"""Which values are black and white in a picture: CT windows by name, LOW:HIGH, or those that suit the image.

    brain   level   40, width  120 HU    a head; wider than the usual 80, for few views
    bone    level  500, width 2000 HU
    lung    level -600, width 1500 HU
    body    level   50, width  400 HU    soft tissue of chest, abdomen and pelvis
    auto    brain and bone for CT of a head, else percentiles of the image itself (ENDS); colours as they are

Lung and body are as Radiopaedia's article "Windowing (CT)" gives them; its bone window is 400, 1800. A display changes
pictures alone: no number that a run writes depends on it.

What is a head is seen in the image (`shows_head`), so a spine or a chest, of whatever file, is not shown as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from padis_jax.errors import UserError, quoted
from padis_jax.metrics import head_mask
from padis_jax.window import HOUNSFIELD, Window

BRAIN = Window("HU", -20.0, 100.0)
BONE = Window("HU", -500.0, 1500.0)
CT_DISPLAYS = {"brain": BRAIN, "bone": BONE}
CT_WINDOWS = CT_DISPLAYS | {"lung": Window("HU", -1350.0, 150.0), "body": Window("HU", -150.0, 250.0)}
AUTO = "auto"

AIR = -950.0  # HU: what is around a body does not count for its percentiles
ENDS = (0.5, 99.5)  # percentiles
DIRECTIONS, SKULL = 72, 300.0  # from the middle of the body outwards; HU
RING, INSIDE, TISSUE, FAT = 0.9, 0.15, 0.6, 0.1  # what a head has, see `shows_head`
LOOKED_AT = 15  # slices of a volume, at most, a quarter of which show a head


def check_displays(words: Sequence[str], window: Window | None = None) -> None:
    """Refuses what is no display, and, where the window of the values is given, a CT window for other values.

    Raises:
      UserError: with what there is.
    """
    if not words:
        raise UserError(f"--display: needs a value; {_forms()}")
    for word in words:
        if word in CT_WINDOWS and window is not None and window.unit != HOUNSFIELD.unit:
            raise UserError(
                f"--display {word}: is a window of CT in HU, and these are {window.named}; use {AUTO}, or LOW:HIGH"
            )
        if word not in CT_WINDOWS and word != AUTO:
            _ends(word, window)


def as_plane(image: ArrayLike) -> np.ndarray:
    """What a picture shows of an image: [H, W] of a grey one, [H, W, 3] of colour, other channels beside each other.

    Args:
      image: [H, W] or [H, W, C].

    Raises:
      ValueError: for another shape.
    """
    plane = np.asarray(image, np.float32)
    if plane.ndim not in (2, 3) or 0 in plane.shape:
        raise ValueError(f"a picture shows images [H, W] or [H, W, C], got {plane.shape}")
    if plane.ndim == 2 or plane.shape[-1] == 3:
        return plane
    return np.concatenate([plane[..., channel] for channel in range(plane.shape[-1])], axis=1)


def displays_of(words: Sequence[str], window: Window, images: np.ndarray) -> dict[str, Window]:
    """Name -> the values that are black and white, for images [H, W, C] or [N, H, W, C] in the window's [0, 1].

    Raises:
      UserError: as `check_displays`.
    """
    check_displays(words, window)
    found: dict[str, Window] = {}
    for word in words:
        if word == AUTO:
            found |= _fitting(window, np.asarray(images, np.float32))
        elif word in CT_WINDOWS:
            found[word] = CT_WINDOWS[word]
        else:
            ends = _ends(word, window)
            found[f"{ends.low:g} to {ends.high:g}"] = ends
    return found


def shows_head(plane: np.ndarray) -> bool:
    """Whether a slice [H, W] in HU shows a head with its brain.

    Seen from the middle of the body there is bone in nearly every direction (RING); what lies before it is a good part
    of the body (INSIDE), mostly of 0 to 80 HU (TISSUE), with little fat (FAT). A spine has its bone in the middle, a
    chest air before the ribs, an abdomen fat and gaps.
    """
    body = head_mask(HOUNSFIELD.to_unit(plane), window=HOUNSFIELD)
    if not body.any():
        return False
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    down, right = rows - rows[body].mean(), columns - columns[body].mean()
    distance = np.hypot(down, right)
    turn = np.asarray(np.arctan2(down, right) / (2 * np.pi) + 0.5)
    direction = (turn * DIRECTIONS).astype(int) % DIRECTIONS
    nearest = np.full(DIRECTIONS, np.inf)
    bone = body & (plane > SKULL)
    np.minimum.at(nearest, direction[bone], distance[bone])
    inside = body & np.isfinite(nearest)[direction] & (distance < nearest[direction])
    if np.isfinite(nearest).mean() < RING or inside.sum() < INSIDE * body.sum():
        return False
    values = plane[inside]
    tissue, fat = (values > 0) & (values < 80), (values > -150) & (values < -30)
    return bool(tissue.mean() >= TISSUE and fat.mean() <= FAT)


def _fitting(window: Window, images: np.ndarray) -> dict[str, Window]:
    """The displays of `auto`."""
    stack = images[None] if images.ndim == 3 else images
    if stack.shape[-1] != 1:
        return {"image": window}
    values = np.asarray(window.from_unit(stack[..., 0]), np.float32)
    hounsfield = window.unit == HOUNSFIELD.unit
    if hounsfield:
        looked = np.linspace(0, len(values) - 1, min(LOOKED_AT, len(values))).round().astype(int)
        heads = [shows_head(values[at]) for at in looked]
        if np.mean(heads) >= 0.25:
            return dict(CT_DISPLAYS)
    counted = values[values > AIR] if hounsfield else values
    if not counted.size:
        return {"image": window}
    low, high = np.percentile(counted, ENDS)
    low -= 0.1 * (high - low) if hounsfield else 0.0  # the softest tissue is not as black as air
    low, high = max(float(low), window.low), min(float(high), window.high)
    if not high - low > 1e-3 * (window.high - window.low):  # one value, or nearly
        return {"image": window}
    return {"image": Window(window.unit, low, high)}


def _ends(word: str, window: Window | None) -> Window:
    """The window of LOW:HIGH."""
    parts = word.split(":")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise UserError(f"--display {quoted(word)}: there is no such display; {_forms()}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--display {quoted(word)}: the first number must be below the second, both finite")
    try:
        return Window(window.unit if window is not None else "1", low, high)
    except UserError:
        raise UserError(f"--display {quoted(word)}: beyond single precision; take numbers that differ more") from None


def _forms() -> str:
    return f"use {', '.join(CT_WINDOWS)} (CT in HU), {AUTO}, or LOW:HIGH, the values that are black and white"
