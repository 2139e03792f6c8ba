"""The reconstructions: which network, what it is told of positions, which slice in which pose; one file each.

20 noiseless views by the presets of 25 evaluations, from total variation; `dds_noise` is DDS from noise of level 1
instead, where nothing but the measurement says where things lie.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from scipy import ndimage

from padis_jax.files import json_text
from padis_jax.images import read_images
from padis_jax.keys import root_key
from padis_jax.noise import geometric_ladder
from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.solvers.presets import Plan, preset
from padis_jax.split import HEAD_CT
from padis_jax.weights import load_weights
from studies import cells
from studies.position import trainings
from studies.position.encodings import Denoiser, Encoding, Given, prior_of
from studies.tasks import Task, solve, task_of

PROBLEM, EVALUATIONS = "ct20", 25
METHODS = ("pnp_admm", "dds", "dds_noise")
POSES = ((0, 0), (8, 0), (24, 0), (0, 5), (0, 15))  # pixels down, degrees


Key = tuple[str, int, int, int, str]  # way, patch, slices, steps, digest of the parameters


class Net(NamedTuple):
    """A network: which, its prior with what is given for positions, what can be given, and what its training says."""

    way: str
    patch: int
    slices: int
    steps: int
    weights: str
    make: Callable[[Given], Prior]
    givens: tuple[Given, ...]
    about: dict[str, Any]

    @property
    def key(self) -> Key:
        """Which network, in a cell."""
        return self.way, self.patch, self.slices, self.steps, self.weights

    def cell(self, image: str, seed: int, given: Given, method: str, shift: int = 0, turn: int = 0) -> Cell:
        """A reconstruction by it."""
        way, patch, slices, steps, weights = self.key
        return Cell(way, patch, slices, steps, weights, image, seed, given, method, shift, turn, settings_of(method))


class Cell(NamedTuple):
    """A reconstruction: network, slice, seed, what is given for positions, method, pose, digest of the preset."""

    way: str
    patch: int
    slices: int
    steps: int
    weights: str
    image: str
    seed: int
    given: Given = "own"
    method: str = "pnp_admm"
    shift: int = 0
    turn: int = 0
    settings: str = ""

    @property
    def key(self) -> Key:
        """Of its network."""
        return self.way, self.patch, self.slices, self.steps, self.weights

    @property
    def name(self) -> str:
        """Of its file."""
        return "_".join(map(str, self)) + ".json"


Found = dict[Cell, dict[str, Any]]


def nets(runs: Path, shipped: str) -> list[Net]:
    """The weights file, unless its name is empty, and the finished trainings, in the order of what they answer."""
    found = [shipped_net(shipped)] if shipped else []
    places: dict[tuple[str, int, int], int] = {place: index for index, place in enumerate(trainings.order())}
    folders = [file.parent for file in runs.glob("*/trained.json")]
    own = sorted((trained_net(folder) for folder in folders), key=lambda net: (places.get(net[:3], 99), net.steps))
    return found + own


def shipped_net(path: str) -> Net:
    """The network of a weights file; its way is the file's name."""
    weights = load_weights(path)
    encoding = Encoding("coordinates" if weights.network.position_channels else "none")

    def make(given: Given) -> Prior:
        return prior_of(Denoiser(encoding, weights.network, given), {"network": weights.params}, weights.frame)

    steps = int(weights.provenance.get("steps", 0))
    givens: tuple[Given, ...] = get_args(Given) if encoding.channels else ("own",)
    return Net(Path(path).stem, weights.frame.patch, 0, steps, weights.digest[:8], make, givens, {})


def trained_net(folder: Path) -> Net:
    """The network of a finished training, read where it is first used."""
    about = trainings.finished(folder) or {}
    training = trainings.Training(**about["training"])

    def make(given: Given) -> Prior:
        done = trainings.load(folder)
        encoding = Encoding(training.way, training.bandwidth)
        return prior_of(Denoiser(encoding, done.network, given), done.params, done.frame)

    said = {name: about[name] for name in ("seconds", "seconds_per_step", "validation_loss")}
    givens: tuple[Given, ...] = ("own", "zero") if training.way in ("coordinates", "dropped") else ("own",)
    way, patch, slices, steps, bandwidth = training
    return Net(way, patch, slices, steps, about["weights"], make, givens, said | {"bandwidth": bandwidth})


def measure_cells(
    chosen: Sequence[Net], methods: Sequence[str], seeds: Sequence[int], images: Sequence[str]
) -> list[Cell]:
    """With their own positions, then without, then with false ones; the first seed of all before the second."""
    return [
        net.cell(image, seed, given, method)
        for seed, method, given, net, image in itertools.product(seeds, methods, get_args(Given), chosen, images)
        if given in net.givens
    ]


def misregister_cells(
    chosen: Sequence[Net], methods: Sequence[str], seeds: Sequence[int], images: Sequence[str]
) -> list[Cell]:
    """Every pose; networks that were trained without positions now and then, without them too."""
    return [
        net.cell(image, seed, given, method, shift, turn)
        for seed, method, net, (shift, turn), image in itertools.product(seeds, methods, chosen, POSES, images)
        for given in (("own", "zero") if net.way == "dropped" else ("own",))
    ]


def measure(chosen: Iterable[Cell], available: Sequence[Net], out: Path, most: int | None = None) -> None:
    """Runs the cells that have no file, at most so many of them."""
    by_key = {net.key: net for net in available}

    @functools.lru_cache(maxsize=2)
    def prior(key: Key, given: Given) -> Prior:
        return by_key[key].make(given)

    def run(cell: Cell) -> dict[str, Any]:
        net = by_key[cell.key]
        plan = plan_of(cell.method)
        given = scene(cell.image, cell.seed, cell.shift, cell.turn)._replace(prior=prior(net.key, cell.given))
        solved = solve(given, plan, geometric_ladder(plan.levels, plan.sigma_max, plan.sigma_min))
        row = {"psnr": solved.psnr, "tv": given.score(given.start), "seconds": solved.seconds}
        return row | {"residual": solved.residual[-1], "training": net.about}

    cells.measure(chosen, out, run, lambda cell: EVALUATIONS, desc="position", most=most)


def read(out: Path) -> Found:
    """The cells that are there."""
    return cells.read(out, Cell)


def plan_of(method: str) -> Plan:
    """The preset of ct20, or DDS from noise."""
    if method != "dds_noise":
        return preset(method, "ct", EVALUATIONS)
    return preset("dds", "ct", EVALUATIONS)._replace(start="noise", sigma_max=1.0)


@functools.cache
def settings_of(method: str) -> str:
    """Six hexadecimal digits of what the preset says: cells of another preset are not those of this one."""
    return hashlib.sha256(json_text(plan_of(method).described(), sort_keys=True).encode()).hexdigest()[:6]


@functools.lru_cache(maxsize=32)
def scene(image: str, seed: int, shift: int, turn: int) -> Task:
    """A slice in a pose; its prior, which leaves noise as it is, stands for that of a network."""
    truth = np.asarray(read_images(HEAD_CT, memory=0).images[[int(image)]][0], np.float32)
    key = jax.random.fold_in(root_key(seed), int(image))
    untold = Prior(lambda key, plane, sigma: plane, frame_for(truth.shape[:2], 16))
    return task_of(PROBLEM, posed(truth, shift, turn), key, untold)


def posed(image: np.ndarray, shift: int, turn: float) -> np.ndarray:
    """[H, W, C], turned about its centre by degrees, counter-clockwise, then moved down by pixels.

    Turns are by cubic splines, clipped to [0, 1]. What comes in is 0; what leaves is gone from truth and measurement.
    """
    if turn:
        image = np.clip(ndimage.rotate(image, turn, axes=(1, 0), reshape=False, order=3), 0, 1)
    if shift:
        image = np.concatenate([np.zeros_like(image[:shift]), image[:-shift]])
    return image.astype(np.float32)
