"""What a reader hands over: slices of one size in the file's own values, read when they are asked for."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.streamed import WORKERS
from padis_jax.window import HOUNSFIELD, PLAIN, Window

Spacing = tuple[float, float, float]
MIXED = (
    "give all the same size and type, or train on them with --data.crop H W or --data.resize H W (colour and grey: "
    "--data.grey); sample.py has these as --image.crop and so on"
)


class Origin(NamedTuple):
    """Where an image comes from: its file, its number in that file from 0, and the volume it belongs to.

    A reader leaves `volume` empty, or tells the file where its files are volumes; `open_source` gives it its full name.
    """

    file: Path
    number: int
    volume: str


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Slices of one size.

    Attributes:
      path: what the user named, for messages.
      read: index -> values [H, W, C] of one slice, real numbers; may be called from several threads.
      shape: (N, H, W, C).
      dtype: type of the values as stored.
      names: N names for messages and files.
      origins: N Origins.
      unit: unit of the values where the file tells it ("HU"), else None.
      full: the value that is white, for pictures and bytes; else None.
      spacing: mm between slices, rows and columns, where the file tells it.
      rows_up: row 0 is to be shown at the bottom, as in CT that is stored with the face down.
      notes: what a user should know, each a line.
      sizes: (H, W) of every image as it is read, where crops of `shape` are to be taken of it; else empty.
      places: mm of every slice along the volume, where they are not evenly spaced; else empty.
      mixed: what differs in spacing from what, where volumes or slices do; else "".
      doubt: why the values cannot be in the unit that such files are in; else "".
      other: what the values are, where the file does not name their unit, but says that it is not HU; else "".
    """

    path: str
    read: Callable[[int], np.ndarray]
    shape: tuple[int, int, int, int]
    dtype: np.dtype
    names: tuple[str, ...]
    origins: tuple[Origin, ...]
    unit: str | None = None
    full: float | None = None
    spacing: Spacing | None = None
    rows_up: bool = False
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    places: tuple[float, ...] = ()
    mixed: str = ""
    doubt: str = ""
    other: str = ""

    @property
    def workers(self) -> int:
        """How many slices may be read at once: each takes several copies of its values."""
        return min(WORKERS, 1 + 2**26 // math.prod(self.shape[1:]))

    def windows(self, window: Window | None, fit: Window | None) -> tuple[Window, Window]:
        """(window of the stored values, window to report); see `read_images` for the rule.

        Raises:
          UserError: if neither the file nor the caller says which values become 0 and 1.
        """
        if window is not None:
            return window, window
        if self.doubt:
            raise UserError(f"{self.doubt}; {_remedy(fit)}")
        if self.other and fit is not None and fit.unit == HOUNSFIELD.unit:
            raise UserError(f"{self.path}: values {self.other} are not in HU, as those of the weights; use others")
        if fit is not None and fit != PLAIN and fit.unit == PLAIN.unit and self.unit is None and self.dtype.kind != "f":
            return fit, fit  # of the user's own --data.low and --data.high
        if self.full is not None:
            return Window(PLAIN.unit, 0.0, self.full), PLAIN
        if self.unit == PLAIN.unit:
            return PLAIN, PLAIN
        if self.unit is not None and fit is not None and fit.unit == self.unit:
            return fit, fit
        if self.unit == HOUNSFIELD.unit:
            return HOUNSFIELD, HOUNSFIELD
        if self.unit is not None:
            raise UserError(f"{self.path}: values in {self.unit!r} have no default range; {_remedy(fit)}")
        if self.dtype.kind == "f":
            if fit is None or fit == PLAIN:
                return PLAIN, PLAIN
            middle = self.read(self.shape[0] // 2)
            plain = 0.0 <= float(np.nanmin(middle)) and float(np.nanmax(middle)) <= 1.0
            return (PLAIN, PLAIN) if plain else (fit, fit)
        if fit is not None and fit.unit != PLAIN.unit:
            return fit, fit
        raise UserError(f"{self.path}: values of type {self.dtype} have no known range; {_remedy(fit)}")

    def scaled(self, index: int, window: Window, *, strict: bool) -> np.ndarray:
        """Slice `index` as float32 [H, W, C] in [0, 1].

        Args:
          index: from 0.
          window: of the stored values.
          strict: refuse values outside the window instead of clipping them.

        Raises:
          UserError: if a value is not finite, or outside the window where that is strict.
        """
        return self.converted(index, self.read(index), window, strict=strict)

    def converted(self, index: int, values: np.ndarray, window: Window, *, strict: bool) -> np.ndarray:
        """As `scaled`, of the values of slice `index`."""
        where = f"{self.origins[index].file}: {self.names[index]}"
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = tuple(int(axis) for axis in np.argwhere(~np.isfinite(values))[0])
            shown = bad[:2] if values.shape[-1] == 1 else bad
            raise UserError(f"{where} is {values[bad]} at index {shown}; repair that image or leave it out")
        if strict:
            low, high = float(values.min()), float(values.max())
            if low < window.low or high > window.high:
                raise UserError(f"{where} has values {low:.9g} to {high:.9g}, not within [0, 1]; {_remedy(None)}")
        image = values.astype(np.float32)  # as Window.to_unit, without further copies
        image -= np.float32(window.low)
        image /= np.float32(window.high - window.low)
        return np.clip(image, 0.0, 1.0, out=image)


def _remedy(fit: Window | None) -> str:
    """What to do about values of which nobody says how they become 0 to 1; `fit`: the window of the weights."""
    if fit is None:
        return (
            "give a window (train.py: --data.low and --data.high; padis-data: --low and --high; Python: window=), or "
            "store values from 0 to 1"
        )
    return f"the weights take values of {fit}: store such ones in an .npz, with {fit.unit!r} as `unit` beside them"


def clipping(what: str, count: int, size: int, window: Window) -> list[str]:
    """The note on values that a window clips: `count` of the `size` values in all."""
    return [f"{what}: {count / size:.3g} of the values lie outside {window} and are clipped"] if count else []


def colour_note(path: Path, shape: Sequence[int], colour: str = "[N, H, W, C]") -> tuple[str, ...]:
    """A note where [N, H, W, C] may be one picture whose channels were taken for images; else none."""
    count, height, width, channels = shape
    if (count, channels) != (3, 1):
        return ()
    return (f"{path}: read as 3 grey images of {width} x {height}; if it is one in colour, store it as {colour}",)


def array_source(
    path: Path,
    array: np.ndarray,
    *,
    names: Sequence[str],
    unit: str | None = None,
    spacing: Spacing | None = None,
    colour: str = "[N, H, W, C]",
) -> Source:
    """A Source of an array [N, H, W, C] in memory or mapped from the disk; such files hold colour as `colour`."""
    n, height, width, channels = array.shape
    return Source(
        path=str(path),
        read=lambda index: np.asarray(array[index]),
        shape=(n, height, width, channels),
        dtype=array.dtype,
        names=tuple(names),
        origins=tuple(Origin(path, index, "") for index in range(n)),
        unit=unit,
        full=full_scale(array.dtype) if unit is None else None,
        spacing=spacing,
        notes=colour_note(path, array.shape, colour) if unit is None else (),
    )


def full_scale(dtype: np.dtype) -> float | None:
    """The value of white where the type alone tells it: bytes and truth values."""
    return {"uint8": 255.0, "bool": 1.0}.get(dtype.name)


def stack_arrays(path: Path | str, array: np.ndarray, what: str = "the array") -> np.ndarray:
    """[H, W], [N, H, W] or [N, H, W, C] -> [N, H, W, C], nothing copied.

    Raises:
      UserError: for another shape, no values, or values that are no real numbers.
    """
    shape = tuple(array.shape)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{path}: {what} has dtype {array.dtype}, expected real numbers")
    if len(shape) == 3 and shape[-1] <= 4:
        raise UserError(f"{path}: shape {shape} is read as [N, H, W]; store colour images as [N, H, W, C]")
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise UserError(f"{path}: {what} has shape {shape}, expected [H, W], [N, H, W] or [N, H, W, C], none of them 0")
    return array[None, ..., None] if len(shape) == 2 else array[..., None] if len(shape) == 3 else array


def join(sources: Sequence[Source], path: str, crop: tuple[int, int] | None = None) -> Source:
    """Several sources of one size, unit and depth, one after the other; of any size, if they are to be cropped.

    Raises:
      UserError: which names the first file that differs, and how, or that is smaller than the crop.
    """
    first = sources[0]
    for source in sources:
        if crop and (source.shape[1] < crop[0] or source.shape[2] < crop[1]):
            raise UserError(
                f"{source.origins[0].file}: {_describe(source, 'size')}, smaller than the crop, {crop[1]} x {crop[0]}; "
                "crop less, leave that file out, or resize instead"
            )
    if len(sources) == 1 and not crop:
        return dataclasses.replace(first, path=path)
    notes = [note for source in sources for note in source.notes]
    spacing, mixed = first.spacing, next((source.mixed for source in sources if source.mixed), "")
    for source in sources[1:]:
        for what in ("colour" if crop else "size", "unit", "depth"):
            one, other = _describe(first, what), _describe(source, what)
            if one != other:
                raise UserError(
                    f"{source.origins[0].file}: {other}, but {first.origins[0].file.name} is {one}; {MIXED}"
                )
        if spacing is not None and (source.spacing is None or not np.allclose(spacing, source.spacing, rtol=1e-3)):
            mixed = mixed or f"{source.path}: its spacing {source.spacing} differs from {first.path} ({first.spacing})"
            notes.append(f"{source.path}: its spacing {source.spacing} differs from {first.path} ({first.spacing})")
            spacing = None
    ends = np.cumsum([source.shape[0] for source in sources]).tolist()

    def read(index: int) -> np.ndarray:
        at = bisect.bisect_right(ends, index)
        return sources[at].read(index - (ends[at - 1] if at else 0))

    return Source(
        path=path,
        read=read,
        shape=(ends[-1], *(crop or first.shape[1:3]), first.shape[3]),
        dtype=np.result_type(*{source.dtype for source in sources}),
        names=tuple(name for source in sources for name in source.names),
        origins=tuple(origin for source in sources for origin in source.origins),
        unit=first.unit,
        full=first.full,
        spacing=spacing,
        rows_up=first.rows_up,
        notes=tuple(dict.fromkeys(notes)),
        sizes=tuple(source.shape[1:3] for source in sources for _ in source.names) if crop else (),
        places=_places(sources),
        mixed=mixed,
        doubt=next((source.doubt for source in sources if source.doubt), ""),
        other=next((source.other for source in sources if source.other), ""),
    )


def _places(sources: Sequence[Source]) -> tuple[float, ...]:
    """Of the slices of all volumes, each from 0, where those of one are not evenly spaced."""
    if not any(source.places for source in sources):
        return ()
    apart = [source.spacing[0] if source.spacing else 1.0 for source in sources]
    each = [s.places or tuple(i * gap for i in range(s.shape[0])) for s, gap in zip(sources, apart, strict=True)]
    return tuple(place for places in each for place in places)


def _describe(source: Source, what: str) -> str:
    if what in ("size", "colour"):
        _, height, width, channels = source.shape
        colour = "grey" if channels == 1 else "colour"
        return f"{width} x {height} {colour}" if what == "size" else colour
    if what == "unit":
        return "without a unit" if source.unit in (None, PLAIN.unit) else f"in {source.unit}"
    return "of plain values" if source.full is None else f"of white at {source.full:g}"
