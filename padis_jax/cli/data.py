"""Inspects image files as the programs would read them, and lists the shipped weights.

    padis-data inspect series/                            a DICOM series: size, range, spacing
    padis-data inspect scan.nii.gz --low -160 --high 240 --unit HU
    padis-data inspect 'slices/*.png' --sheet sheet.png   a contact sheet of evenly spread images
    padis-data inspect series/ --sheet s.png --index 60:70     of these
    padis-data inspect scan.mat::recon --json             one variable; the answer as JSON
    padis-data weights                                    the weights that --weights NAME takes

A path is a file, a folder, a folder of folders or a glob; FILE::NAME names an array in a .npz, .mat or .hdf5 file.
Every image is read once, as training reads it: what it would refuse or clip is found here.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from padis_jax.cli.arguments import parse, split_output_options
from padis_jax.cli.commands import called_as
from padis_jax.cli.help_text import Page
from padis_jax.cli.weights_table import describe_weights, weights_text
from padis_jax.errors import UserError, one_line_errors, printable
from padis_jax.files import check_writable, json_text
from padis_jax.images import PLAIN, ImageSet, Source, Window, open_source, read_images
from padis_jax.images.choice import Choice, check_choice, chosen
from padis_jax.images.source import clipping
from padis_jax.outputs import mixes, refuse_inputs
from padis_jax.split import spread
from padis_jax.streamed import in_parallel
from padis_jax.writers import write_png

SHEET_MARK = "padis-data inspect --sheet"  # by which an earlier sheet is known, and replaced
SHEET, CELL = 25, 160  # images on a contact sheet, and the longest side of each in pixels


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is looked into.

    Attributes:
      path: file, folder or glob, with ::NAME for an array in a file.
      low: value that becomes 0 (with --high).
      high: value that becomes 1.
      unit: unit of `low` and `high`, such as HU; "1" for plain numbers.
      sheet: write a contact sheet, a .png file.
      index: which images the sheet is of: 41, 60:70 (as Python's slices), 3,5,9 or all.
    """

    path: tyro.conf.Positional[str] = ""
    low: float | None = None
    high: float | None = None
    unit: str = "1"
    sheet: str = ""
    index: Choice = "all"

    def __post_init__(self) -> None:
        check_choice("--index", self.index)


HELP = Page("data", __doc__ or "", Inspection, "PATH low=X high=X unit=UNIT sheet=FILE index=N|60:70|all")


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of padis-data."""
    output, rest = split_output_options(sys.argv[1:] if argv is None else argv, HELP)
    prog = f"{called_as('data')} inspect"
    if rest == ["weights"]:
        lines = describe_weights()
        print(json_text(lines, indent=2) if output.json else weights_text(lines))
        return
    if rest[:1] != ["inspect"]:
        if "--help-all" not in rest:
            name = called_as("data")
            raise UserError(f"the commands are {prog} PATH and {name} weights; see {name} --help")
        rest = ["inspect", "--help-all"]
    given = parse(Inspection, rest[1:], default=Inspection(), prog=prog, description=HELP.full())
    if not given.path:
        raise UserError(f"name a file, a folder or a glob: {prog} PATH")
    window = None
    if given.low is not None and given.high is not None:
        window = Window(given.unit, given.low, given.high)
    elif given.low is not None or given.high is not None:
        raise UserError("--low and --high belong together: give both or neither")
    elif given.unit != PLAIN.unit:
        raise UserError(f"--unit {given.unit} is that of --low and --high: give them, or leave it out")
    if given.index != "all" and not given.sheet:
        raise UserError("--index chooses the images of a contact sheet: give --sheet FILE, or leave it out")
    if given.sheet:
        _check_sheet(Path(given.sheet), given.path)
    source = open_source(given.path)
    numbers = chosen("--index", given.index, source.shape[0])
    found = describe(source, window)
    if given.sheet:
        if found["problem"]:
            raise UserError(found["problem"])
        if not output.dry_run:
            images = read_images(given.path, window=window, memory=0).select(numbers)
            write_png(given.sheet, contact_sheet(images), software=SHEET_MARK)
        found["sheet"] = given.sheet
    if output.json:
        print(json_text(found, indent=2))
    elif not output.quiet:
        print(_text(found))


def _check_sheet(sheet: Path, path: str) -> None:
    """Refuses to write over an input or beside it, over a file that is no contact sheet, and where nothing can be."""
    refuse_inputs([sheet], [path])
    check_writable(sheet.parent)
    if mixes(sheet.parent, [sheet.name], path):
        raise UserError(
            f"--sheet {sheet}: lies where {path} finds images, and would be one of them; name another folder"
        )
    if not sheet.exists():
        return
    try:
        with Image.open(sheet, formats=("PNG",)) as picture:
            own = picture.info.get("Software") == SHEET_MARK
    except Exception:  # whatever Pillow raises on foreign bytes
        own = False
    if not own:
        raise UserError(f"--sheet {sheet}: exists and is no contact sheet of {SHEET_MARK}; choose another name")


def describe(source: Source, window: Window | None = None) -> dict[str, Any]:
    """What a source holds, as JSON can hold it; reads every image once.

    Args:
      source: of `open_source`.
      window: from the user, or None for the file's own.

    Returns:
      Among others `window`, and `problem`: why training would refuse these images, or None.

    Raises:
      UserError: for an image that cannot be read.
    """
    count, height, width, channels = source.shape
    low, high = np.full(count, math.inf), np.full(count, -math.inf)
    bad, outside = np.zeros(count, np.int64), np.zeros(count, np.int64)
    problems: dict[int, str] = {}
    stored: Window | None = None
    reported: Window | None = None
    try:
        stored, reported = source.windows(window, None)
    except UserError as error:  # all else is known, and worth printing: a window is what is missing
        problems[0] = str(error)
    strict = stored == PLAIN and window is None

    def measure(index: int) -> None:
        values = source.read(index)
        finite = np.isfinite(values)
        bad[index] = values.size - np.count_nonzero(finite)
        if bad[index] < values.size:
            within = values if bad[index] == 0 else values[finite]
            low[index], high[index] = float(within.min()), float(within.max())
        if stored is not None:
            outside[index] = np.count_nonzero((values < stored.low) | (values > stored.high))
            try:
                source.converted(index, values, stored, strict=strict)
            except UserError as error:
                problems[index] = str(error)

    in_parallel(measure, range(count), workers=source.workers)
    problem = problems[min(problems)] if problems else None
    volumes: dict[str, int] = {}
    for origin in source.origins:
        volumes[origin.volume] = volumes.get(origin.volume, 0) + 1
    notes = list(source.notes)
    if bad.any():
        index = int(np.argmax(bad > 0))
        notes.append(f"{int(bad.sum())} values are not finite, the first in {source.names[index]} (image {index})")
    if stored is not None and not problem:
        notes += clipping(source.path, int(outside.sum()), math.prod(source.shape), stored)
    seen = bool(np.isfinite(low).any())
    return {
        "path": source.path,
        "images": count,
        "height": height,
        "width": width,
        "channels": channels,
        "dtype": str(source.dtype),
        "range": [float(low.min()), float(high.max())] if seen else None,
        "unit": source.unit,
        "full_scale": source.full,
        "window": None if problem or reported is None else dataclasses.asdict(reported),
        "problem": problem,
        "spacing_mm": None if source.spacing is None else list(source.spacing),
        "gigabytes_in_memory": round(4 * math.prod(source.shape) / 1e9, 6),
        "volumes": volumes,
        "first": source.names[0],
        "last": source.names[-1],
        "notes": notes,
    }


def contact_sheet(images: ImageSet) -> np.ndarray:
    """At most `SHEET` images of a set, evenly spread, side by side: [h, w, C] in [0, 1]. Small ones keep their size."""
    total, height, width, channels = images.images.shape
    shown = spread(total, SHEET)
    scale = min(1.0, CELL / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    sheet = np.ones((rows * (h + 2) - 2, columns * (w + 2) - 2, channels), np.float32)
    for place, index in enumerate(shown):
        top, left = (place // columns) * (h + 2), (place % columns) * (w + 2)
        image = images.images[index][:: -1 if images.rows_up else 1]
        planes = [
            np.asarray(Image.fromarray(np.ascontiguousarray(image[..., c])).resize((w, h), Image.Resampling.BOX))
            for c in range(channels)
        ]
        sheet[top : top + h, left : left + w] = np.stack(planes, -1)
    return sheet


def _text(found: dict[str, Any]) -> str:
    unit = "none: grey values" if found["full_scale"] else "unknown: the file has none"
    if found["unit"]:
        unit = "none: plain numbers" if found["unit"] == PLAIN.unit else found["unit"]
    spread, spacing, window = found["range"], found["spacing_mm"], found["window"]
    kind = {1: "grey", 3: "colour"}.get(found["channels"], f"{found['channels']} channels")
    lines = [
        ("images", f"{found['images']} of {found['height']} x {found['width']} (rows x columns), {kind}"),
        ("stored as", found["dtype"]),
        ("range", f"{spread[0]:g} to {spread[1]:g}" if spread else "no finite value"),
        ("unit", unit),
        ("spacing", " x ".join(f"{s:g}" for s in spacing) + " mm (slices, rows, columns)" if spacing else "unknown"),
        ("window", str(Window(**window)) if window else f"none: {found['problem']}"),
        ("in memory", f"{found['gigabytes_in_memory']:.3g} GB"),
        ("first, last", f"{found['first']}, {found['last']}"),
        *(("volume", f"{name}: {count} images") for name, count in found["volumes"].items()),
        *(("note", note) for note in found["notes"]),
    ]
    if "sheet" in found:
        lines.append(("sheet", found["sheet"]))
    return "\n".join(f"{name:<12} {printable(str(value))}" for name, value in [("path", found["path"]), *lines])


if __name__ == "__main__":
    sys.exit(main())
