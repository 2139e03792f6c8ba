"""The cells of a grid: which they are, which are finished, and the loop over the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from padis_jax.benchmark.cells import Cell, Result, read_lines, read_result, write_lines, write_result
from padis_jax.benchmark.data import Pictures, ct_slices, photographs
from padis_jax.benchmark.grid import Benchmark, Entry, entries
from padis_jax.benchmark.measure import Scene, run_cell
from padis_jax.benchmark.methods import METHODS, described
from padis_jax.benchmark.networks import Networks, load_networks, with_supervised
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.config import missing_default
from padis_jax.runs.image_config import DEFAULT_IMAGE


class Job(NamedTuple):
    """A cell with where it belongs.

    Attributes:
      cell: the cell.
      number: of its image among those of its problem.
      kept: whether its image is kept: that of the first, for every seed, since another run may show another seed's.
      shown: whether a picture of this run shows it: kept, and of the first seed.
    """

    cell: Cell
    number: int
    kept: bool
    shown: bool


class Work(NamedTuple):
    """All there is to do.

    Attributes:
      pictures: problem -> its images.
      networks: at hand.
      fields: fields of the table.
      jobs: cells, those of one measured image in a row.
    """

    pictures: dict[str, Pictures]
    networks: Networks
    fields: list[Entry]
    jobs: list[Job]


def prepare(config: Benchmark) -> Work:
    """Reads networks and images and lists the cells.

    Raises:
      UserError: for files that cannot be read or do not fit, and an --only that fits nothing.
    """
    problems = list(dict.fromkeys(problem for problem, _ in config.pairs()))
    grey = any(config.on_ct(problem) for problem in problems)
    if grey and (error := missing_default(config.ct, DEFAULT_IMAGE, "--ct")):
        raise error
    files = {("patch", 1): config.weights, ("whole", 1): config.weights_whole, ("cnn", 1): config.cnn}
    files |= {("patch", 3): config.weights_rgb, ("whole", 3): config.weights_whole_rgb, ("cnn", 3): config.cnn_rgb}
    networks = with_supervised(load_networks(files), config.supervised)
    prior = networks.find("patch", 1, "") or networks.find("whole", 1, "")
    slices = ct_slices(config.ct, config.image_count, prior.content.window if prior else None) if grey else None
    coloured = not all(config.on_ct(problem) for problem in problems)
    colour = photographs(config.photos, config.image_count) if coloured else None
    pictures = {problem: slices if config.on_ct(problem) else colour for problem in problems}
    found = {problem: shown for problem, shown in pictures.items() if shown is not None}
    fields = entries(config, found, networks)
    return Work(found, networks, fields, _jobs(config, found, networks, fields))


def _jobs(config: Benchmark, pictures: dict[str, Pictures], networks: Networks, fields: Sequence[Entry]) -> list[Job]:
    jobs = []
    for problem, images in pictures.items():
        for number, name in enumerate(images.names):
            digest = images.digest(number)
            for seed in config.seeds:
                for entry in fields:
                    if entry.problem != problem or entry.refused:
                        continue
                    trained = networks.find(METHODS[entry.method].network, images.channels, problem)
                    evaluations = config.evaluations_of(entry.method)
                    about: dict[str, Any] = described(entry.method, problem, evaluations, trained)
                    about |= {"image_sha256": digest, "image_index": images.indices[number]}
                    kept = number == 0
                    shown = kept and seed == config.seeds[0]
                    jobs.append(Job(Cell(problem, entry.method, name, seed, about), number, kept, shown))
    return jobs


def finished_results(folder: Path, work: Work, lines: str = "") -> tuple[dict[str, Result], list[str]]:
    """(fingerprint -> result of the cells that are done, what is wrong with files that cannot be used).

    Args:
      folder: of all results.
      work: its cells.
      lines: a file that holds finished cells too.

    Raises:
      UserError: if it cannot be read.
    """
    known = read_lines(lines)
    found = {job.cell.fingerprint: known[job.cell.fingerprint] for job in work.jobs if job.cell.fingerprint in known}
    damaged = []
    for job in work.jobs:
        if job.cell.fingerprint in found:
            continue
        result, damage = read_result(
            folder, job.cell, work.pictures[job.cell.problem].image_shape if job.shown else None
        )
        if result is not None:
            found[job.cell.fingerprint] = result
        if damage:
            damaged.append(damage)
    return found, damaged


def run(
    config: Benchmark,
    work: Work,
    folder: Path,
    finished: dict[str, Result],
    failed: dict[str, str],
    *,
    silent: bool = False,
) -> None:
    """Computes the cells that are missing, writes each as it is done, and continues where one fails.

    Args:
      config: of the grid.
      work: its cells.
      folder: of all results.
      finished: fingerprint -> result; receives those that are computed.
      failed: receives fingerprint -> why, of the cells whose method or problem refuses, or whose memory does not
        suffice. Nothing is written of them, so that the next run tries again.
      silent: no progress bar.

    Raises:
      UserError: for a result that cannot be written.
    """
    scene: Scene | None = None
    measured: tuple[str, int, int] | None = None
    with tqdm(total=len(work.jobs), initial=len(finished), unit="cell", dynamic_ncols=True, disable=silent) as bar:
        for cell, number, kept, _ in work.jobs:
            if cell.fingerprint in finished:
                continue
            bar.set_description(f"{cell.problem}/{cell.method}")
            images = work.pictures[cell.problem]
            try:
                if scene is None or measured != (cell.problem, number, cell.seed):
                    # The geometry of a scan does not depend on the key: one operator serves all images.
                    same = scene is not None and PROBLEMS[cell.problem].tomography and scene.problem == cell.problem
                    known = scene.case.operator if scene is not None and same else None
                    scene = Scene(cell.problem, images, number, cell.seed, known)
                    measured = cell.problem, number, cell.seed
                trained = work.networks.find(METHODS[cell.method].network, images.channels, cell.problem)
                evaluations = config.evaluations_of(cell.method)
                result, image = run_cell(cell, scene, trained, evaluations, config.patch_batch)
            except (ValueError, MemoryError, jax.errors.JaxRuntimeError) as error:
                if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                failed[cell.fingerprint] = _reason(error)
                bar.update()
                continue
            write_result(folder, cell, result, image if kept and result.psnr is not None else None)
            finished[cell.fingerprint] = result
            if config.lines:
                write_lines(config.lines, read_lines(config.lines) | {cell.fingerprint: result})
            bar.update()


def _reason(error: Exception) -> str:
    """An exception in one short line."""
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    lines = str(error).splitlines()  # XLA adds a table of its buffers
    return f"out of memory: {lines[0].strip()[:160]}" if lines else "out of memory"
