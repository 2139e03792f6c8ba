"""Finished pieces of a study: a JSON file each, which says what it depends on. So a study resumes and never mixes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from padis_jax.errors import UserError
from padis_jax.files import check_writable, file_hash, write_json
from padis_jax.shipped import locate

C = TypeVar("C", bound=tuple)  # a NamedTuple with a `name`


@functools.cache
def digest_of(weights: str) -> str:
    """SHA-256 of a weights file, by its path or name."""
    return file_hash(locate(weights))


def known(path: Path, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of a file, if it is there and depends on the same."""
    saved = json.loads(path.read_text()) if path.exists() else {}
    return saved["row"] if saved.get("about") == json.loads(json.dumps(about)) else None


def kept(path: Path, about: Mapping[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of a file that depends on the same, else that of a new run, which is kept there.

    Args:
      path: the file.
      about: what the row depends on; anything JSON can hold.
      run: makes the row.
    """
    row = known(path, about)
    if row is None:
        check_writable(path.parent)
        row = run()
        write_json(path, {"about": about, "row": row})
    return row


def belongs(out: Path, about: Mapping[str, Any]) -> None:
    """Refuses a folder whose cells depend on something else; one without cells is told what its cells depend on.

    Args:
      out: folder of a grid.
      about: what all its cells depend on beside their own names; anything JSON can hold.

    Raises:
      UserError: for cells of something else, or that do not say of what, and a folder that nothing can be written to.
    """
    check_writable(out)
    file, own = out / "settings.json", json.loads(json.dumps(about))
    saved = json.loads(file.read_text()) if file.exists() else None
    if saved is None and not any((out / "cells").glob("*.json")):
        write_json(file, own)
    elif saved != own:
        changed = [name for name in own if saved is None or saved.get(name) != own[name]]
        raise UserError(f"{out}: its cells are of other {' and '.join(changed)}; take another --out, or delete them")


def read(out: Path, kind: type[C]) -> dict[C, dict[str, Any]]:
    """The cells of a grid that are there, with all that their files hold.

    Args:
      out: folder of the grid, or a file of its cells as lines of JSON, such as those in docs/.
      kind: of the cells.

    Raises:
      UserError: for a file that is not there.
    """
    if out.suffix == ".jsonl":
        if not out.is_file():
            raise UserError(f"{out}: no such file; name one of docs/, or the folder that cells were measured into")
        texts = out.read_text().splitlines()
    else:
        texts = [file.read_text() for file in sorted((out / "cells").glob("*.json"))]
    every = [json.loads(text) for text in texts]
    return {kind(**{name: row[name] for name in kind._fields}): row for row in every}  # type: ignore[attr-defined]


def measure(
    cells: Iterable[C],
    out: Path,
    run: Callable[[C], dict[str, Any]],
    evaluations: Callable[[C], int],
    *,
    desc: str,
    most: int | None = None,
) -> None:
    """Runs the cells of a grid that have no file, at most so many of them, and says what they cost.

    Args:
      cells: of the grid; their `name` is that of their file.
      out: folder.
      run: of a cell, its "psnr" and "seconds" and what else is to be kept.
      evaluations: of a cell.
      desc: of the bar.
      most: new cells in this call.
    """
    every: list[Any] = [cell for cell in cells if not (out / "cells" / cell.name).exists()]  # type: ignore[attr-defined]
    if not every:
        print("no cell is missing")
        return
    check_writable(out)
    rates = [v["seconds"] / evaluations(c) for c, v in read(out, type(every[0])).items()]
    each = f", {np.median(rates):.1f} s each by those there are" if rates else ""
    print(f"{len(every)} cells to run, {sum(map(evaluations, every))} evaluations{each}", flush=True)
    for cell in tqdm(every[:most], desc=desc, unit="cell"):
        row = run(cell)
        write_json(out / "cells" / cell.name, cell._asdict() | row)
        tqdm.write(f"{row['psnr']:6.2f} dB  {cell.name}")
