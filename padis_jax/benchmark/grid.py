"""The grid: which problems and methods, on how many images, with how many seeds and network evaluations."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Literal, NamedTuple

import tyro

from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.methods import METHODS, refusal
from padis_jax.benchmark.networks import Networks
from padis_jax.errors import UserError
from padis_jax.fields import check_fields
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.config import DEFAULT_WEIGHTS
from padis_jax.runs.image_config import DEFAULT_IMAGE


class Preset(NamedTuple):
    """A grid.

    Attributes:
      problems: names in `PROBLEMS`.
      images: per problem, at most.
      evaluations: network evaluations of the image per run.
      thorough: solver -> evaluations of its own.
      methods: names in `METHODS`; () for all.
    """

    problems: tuple[str, ...]
    images: int
    evaluations: int
    thorough: dict[str, int]
    methods: tuple[str, ...] = ()


QUICK = ("ct8", "ct20", "ct60", "fan180", "limited120", "deblur9", "sr4", "inpaint_random", "denoise")
PRESETS = {
    # Sizes of PaDIS, arXiv 2406.02462, section 4: 25 test images, 1000 evaluations for the samplers that it compares.
    "paper": Preset(
        ("ct8", "ct20", "ct60", "fan180", "limited120", "deblur9", "deblur17", "sr4", "sr8"),
        25,
        100,
        {name: 1000 for name in ("dps", "langevin", "ddnm", "predictor_corrector")},
    ),
    "quick": Preset(QUICK, 1, 25, {}),
    # Of the head CT, which has four test slices, those: with two seeds, eight cells of each field (paired.py).
    "table": Preset(
        QUICK,
        8,
        25,
        {},
        (
            *("start", "cgls", "sirt", "tv", "pnp_admm_cnn", "pnp_admm", "pnp_admm_average", "pnp_red", "dds"),
            *("dds_mean8", "diffpir", "daps", "ddnm", "pigdm", "red_diff", "dps"),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is compared.

    Attributes:
      preset: the grid. "quick": one image per problem, 25 network evaluations (two CPU cores); "paper": 25 images, 1000
        evaluations for the samplers of the paper, 100 for the fast ones (a GPU); "table": eight images, or the four
        test slices of the head CT, 25 evaluations, sixteen methods, for intervals of differences (benchmark/paired.py).
      only: part of the grid, with * and ?; may be repeated. Problems outside of the preset are allowed. Tables and
        pictures are then results_only.md, results_only.json and pictures_only/, so that those of the whole grid stay;
        the cells are the same.
      weights: patch prior for CT; "" for none.
      weights_rgb: patch prior for colour pictures (configs/photos.py, configs/celebahq.py).
      weights_whole: whole-image model for CT (configs/head_ct_whole.py).
      weights_whole_rgb: whole-image model for colour pictures.
      cnn: plain denoiser for CT (studies.cnn_denoiser); --cnn-rgb for colour pictures.
      cnn_rgb: the same for colour pictures.
      supervised: FBP + U-Net, one file per problem (studies.supervised); may be repeated.
      ct: CT test images. Of the head CT only the held-out slices are used.
      photos: colour test pictures; "" for crops from scikit-image. bsd100:DIR, bsds500:DIR and div2k:DIR take the test
        pictures of such a folder, each as its central crop of 256 x 256 (docs/formats.md).
      restore: images of the problems other than CT. "ct" takes the prior for CT.
      images: images per problem; 0 for the preset's.
      seeds: seeds of masks, noise and methods.
      evaluations: network evaluations per run, for every method; 0 for the preset's.
      patch_batch: patches per network call, to save memory; 0 for all at once. Results change by rounding only, so that
        finished cells stay finished.
      out: folder for the results; finished cells in it are kept.
      lines: JSON lines of finished cells, which are kept too. New ones are added to the file; "" for none.
    """

    preset: Literal["quick", "paper", "table"] = "quick"
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    weights: str = DEFAULT_WEIGHTS
    weights_rgb: str = ""
    weights_whole: str = ""
    weights_whole_rgb: str = ""
    cnn: str = ""
    cnn_rgb: str = ""
    supervised: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    ct: str = DEFAULT_IMAGE
    photos: str = ""
    restore: Literal["photos", "ct"] = "photos"
    images: int = 0
    seeds: tuple[int, ...] = (0,)
    evaluations: int = 0
    patch_batch: int = 0
    out: str = "results/benchmark"
    lines: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.images < 0 or self.evaluations < 0:
            raise UserError(
                f"images {self.images} and evaluations {self.evaluations} must be at least 1, or 0 for the preset's"
            )
        if self.patch_batch < 0:
            raise UserError(f"patch_batch is {self.patch_batch}: it must be at least 1, or 0 for all patches at once")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds are {self.seeds}: give different numbers, none of them negative")

    @property
    def image_count(self) -> int:
        """Images per problem, at most."""
        return self.images or PRESETS[self.preset].images

    def evaluations_of(self, method: str) -> int:
        """The budget of a method's single run."""
        preset = PRESETS[self.preset]
        return self.evaluations or preset.thorough.get(METHODS[method].solver, preset.evaluations)

    def pairs(self) -> list[tuple[str, str]]:
        """(problem, method) of the table, in order.

        Raises:
          UserError: for an `only` that fits nothing.
        """
        methods = PRESETS[self.preset].methods or tuple(METHODS)
        if not self.only:
            return [(problem, method) for problem in PRESETS[self.preset].problems for method in methods]
        every = [(problem, method) for problem in PROBLEMS for method in METHODS]
        chosen = set()
        for pattern in self.only:
            full = pattern if "/" in pattern else f"{pattern}/*"
            found = {pair for pair in every if fnmatch.fnmatchcase("/".join(pair), full)}
            if "/" not in pattern:  # a problem, with the methods of the preset
                found = {pair for pair in found if pair[1] in methods}
            if "/" in pattern and pattern.split("/")[0] == "*":  # every problem of the preset, not of the project
                found = {pair for pair in found if pair[0] in PRESETS[self.preset].problems}
            if not found:
                raise UserError(
                    f"--only {pattern}: matches no problem and method; problems are {', '.join(PROBLEMS)}; methods are "
                    f"{', '.join(METHODS)}"
                )
            chosen |= found
        return [pair for pair in every if pair in chosen]

    def on_ct(self, problem: str) -> bool:
        """Whether the problem's images are CT slices."""
        return PROBLEMS[problem].tomography or self.restore == "ct"


class Entry(NamedTuple):
    """One field of the table: a method on a problem.

    Attributes:
      problem: its name.
      method: its name.
      refused: why it is not run, or "".
    """

    problem: str
    method: str
    refused: str


def entries(config: Benchmark, pictures: dict[str, Pictures], networks: Networks) -> list[Entry]:
    """All fields of the table; `pictures` by problem."""
    return [
        Entry(problem, method, refusal(method, problem, pictures[problem], networks))
        for problem, method in config.pairs()
    ]
