"""What a training run works on: the images that its config names, without those held out, and its first state."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from padis_jax.batches import Batch, crop_batch, pad_images
from padis_jax.blocks import Blocks, blocks_of
from padis_jax.config import Config
from padis_jax.errors import UserError
from padis_jax.images import CroppedImages, ImageSet, Shaping, StreamedImages, Window, read_images
from padis_jax.images.layouts import located
from padis_jax.inflate import inflatable, inflate
from padis_jax.keys import root_key
from padis_jax.patches import Frame, frame_for
from padis_jax.runs.validation import PICTURE_PATCHES
from padis_jax.slab_batches import Run, SlabBatch, crop_slabs, runs_of
from padis_jax.split import Split, limited, split_of, spread
from padis_jax.training import TrainState, init_state
from padis_jax.unet import init_network
from padis_jax.weights import Slab, load_weights

VALIDATION_PATCHES = 64  # fewer where they are larger than 64 x 64, so that whole images fit into memory
DIGESTED = 64  # images of a set that is read on demand
BLOCKED, DRAWS = 1000, 20  # images whose blocks are counted; crops of each, where images are cropped at random


class TrainingData(NamedTuple):
    """What a run works on: padded training images [n, Hp, Wp, C], a fixed validation batch or None, geometry.

    `digest` is one of the training images: of all their values, or for a set that is read on demand, of its shape and
    64 images. `runs` are the neighbours among the images of a training on slabs, which `slab` describes.
    """

    padded: np.ndarray | StreamedImages
    validation: Batch | SlabBatch | None
    frame: Frame
    window: Window
    digest: str
    runs: tuple[Run, ...] = ()
    slab: Slab | None = None

    def about(self) -> dict[str, Any]:
        """What a checkpoint says of it, fit for JSON."""
        return {
            "frame": dataclasses.asdict(self.frame)
            | ({"slab": self.slab.slices, "skips": self.slab.skips} if self.slab else {}),
            "window": dataclasses.asdict(self.window),
            "data": {"images": len(self.padded), "digest": self.digest},
        } | ({"slab": dataclasses.asdict(self.slab)} if self.slab else {})


def load_data(config: Config) -> TrainingData:
    """Reads the images, leaves out the held-out ones, pads the rest.

    Raises:
      UserError: for images that cannot be read, or do not fit the network and the patches.
    """
    config = dataclasses.replace(config, data=located(config.data))
    if not config.data.path:
        raise UserError("data.path is empty: name a folder of images, a .npy array or a .npz volume with --data.path")
    window = None
    if config.data.low is not None and config.data.high is not None:
        window = Window(config.data.unit, config.data.low, config.data.high)
    data = config.data
    shaping = Shaping(data.crop, data.resize, data.grey, data.scales)
    images = read_images(data.path, window=window, memory=int(data.memory_gb * 1e9), shaping=shaping)
    depth = config.patches.depth
    for note in images.notes:
        print(f"note: {note}", file=sys.stderr)
    n, height, width, channels = images.images.shape
    if depth > 1 and channels != 1:
        raise UserError(
            f"{data.path}: slices have {channels} channels; slabs (patches.depth) are of grey ones: --data.grey"
        )
    if depth == 1 and channels != config.network.image_channels:
        raise UserError(
            f"{config.data.path}: images have {channels} channels, but network.image_channels is "
            f"{config.network.image_channels}; set it to {channels}" + (", or add --data.grey" if channels == 3 else "")
        )
    try:
        frame = frame_for((height, width), config.patches.largest)
        for side in frame.tile_shape:
            config.network.check_patch(side)
    except ValueError as error:
        raise UserError(
            f"{data.path}: images of {(height, width)} pixels: {error}; see --patches.sizes, --data.resize"
        ) from error
    if min(frame.padded_shape) < 2:
        raise UserError(
            f"{data.path}: images of {(height, width)} pixels: whole ones (patches.sizes 0) need 2 pixels a side; take "
            "patches of another size"
        )
    split = split_of(config.data, images.volumes, n)
    train_slices = limited(split.train, config.data.limit)
    chosen = images.select(train_slices).images
    padded, digest = pad_images(chosen, frame), _digest(chosen)
    if depth == 1:
        return TrainingData(padded, _validation_batch(images, split, frame, config), frame, images.window, digest)
    volumes = tuple(images.volumes.values()) or (n,)
    slab = Slab(depth, volumes[0] if len(set(volumes)) == 1 else 0, config.patches.skips)
    runs = runs_of(train_slices, volumes)
    if max(run.count for run in runs) < depth:
        raise UserError(
            f"{data.path}: no {depth} neighbouring slices are left to train on; hold out fewer, or use a smaller "
            "patches.depth"
        )
    validation = _validation_slabs(images, split, frame, config, volumes)
    return TrainingData(padded, validation, frame, images.window, digest, runs, slab)


def training_blocks(data: TrainingData) -> Blocks | None:
    """Statistics of the training images, or of the crops that are drawn from them, at most BLOCKED of them."""
    (my, mx), (h, w) = data.frame.margin, data.frame.image_shape
    planes: Iterable[np.ndarray]
    if isinstance(data.padded, CroppedImages):
        rng, count = np.random.default_rng(0), min(BLOCKED, DRAWS * len(data.padded))
        planes = (crop_batch(rng, data.padded, 0, 1).patches[0] for _ in range(count))
    else:
        planes = (data.padded[i] for i in spread(len(data.padded), BLOCKED))
    return blocks_of(plane[my : my + h, mx : mx + w] for plane in planes)


def check_resumed(saved: Mapping[str, Any] | None, data: TrainingData, workdir: str | Path) -> None:
    """Holds the data of a resumed run against those that it began with; other images are named on stderr.

    Args:
      saved: of the newest checkpoint, or None.
      data: of now.
      workdir: for messages.

    Raises:
      UserError: for another frame or window: the parameters would belong to both and to neither.
    """
    now = json.loads(json.dumps(data.about()))
    for name in ("frame", "window"):
        before = (saved or {}).get(name, now[name])
        if before != now[name]:
            changed = [
                field for field in now[name] if not isinstance(before, dict) or before.get(field) != now[name][field]
            ]
            raise UserError(
                f"{workdir}: its checkpoints are of another {name} ({', '.join(changed)}: {_values(before, changed)}) "
                f"than these images give ({_values(now[name], changed)}); resume with the images, patches and window "
                "that it began with, or begin in another --workdir"
            )
    before = (saved or {}).get("data", now["data"])
    then = _values(before, ["images"])
    if before != now["data"]:
        same = isinstance(before, dict) and before.get("images") == now["data"]["images"]
        count = now["data"]["images"]
        what = "the training images have other values than" if same else f"{count} training images, not {then} as"
        print(
            f"note: {workdir}: {what} when its newest checkpoint was saved; the run continues with those of now",
            file=sys.stderr,
        )


def _values(found: Any, names: Sequence[str]) -> str:
    return ", ".join(str(found.get(name) if isinstance(found, dict) else found)[:60] for name in names)


def _digest(images: np.ndarray | StreamedImages) -> str:
    found = hashlib.sha256(str(images.shape).encode())
    for index in range(len(images)) if isinstance(images, np.ndarray) else spread(len(images), DIGESTED):
        found.update(np.ascontiguousarray(images[index]).tobytes())
    return found.hexdigest()


def first_state(config: Config, frame: Frame) -> TrainState:
    """The state before the first step: random parameters, or those of `config.run.start_weights`.

    A training on slabs also starts from weights of images, whose network `inflate` widens.

    Raises:
      UserError: if those weights cannot be read, or are of another network or image size.
    """
    if not config.run.start_weights:
        key = jax.random.fold_in(root_key(config.run.seed), 0)
        drawn: TrainState = _draw_state(key, config.network, config.optimiser)
        return drawn
    weights = load_weights(config.run.start_weights, volumes=config.patches.depth > 1)
    params, network = weights.params, weights.network
    if weights.slab is None and config.patches.depth > 1 and inflatable(network, config.network):
        params, network = inflate(params, network, config.network), config.network
    network = dataclasses.replace(network, dropout=config.network.dropout)  # of training, not of the parameters
    for name, wanted, found in (("network", config.network, network), ("frame", frame, weights.frame)):
        if wanted != found:
            raise UserError(
                f"run.start_weights {config.run.start_weights}: its {name} is {found}, but this run has {wanted}; make "
                "them equal, or leave --run.start-weights out"
            )
    return init_state(params, config.optimiser)


# It runs once, and what it draws does not depend on how well LLVM optimises it, which takes most of the time.
_draw_state = jax.jit(
    lambda key, network, optimiser: init_state(init_network(key, network), optimiser),
    static_argnums=(1, 2),
    compiler_options={"xla_backend_optimization_level": 0},
)


def _validation_batch(images: ImageSet, split: Split, frame: Frame, config: Config) -> Batch | None:
    if not split.validation:
        return None
    padded = pad_images(images.select(split.validation).images, frame)
    padded = padded.centred() if isinstance(padded, CroppedImages) else padded
    return crop_batch(np.random.default_rng(0), padded, config.patches.largest, _validation_count(frame))


def _validation_slabs(
    images: ImageSet, split: Split, frame: Frame, config: Config, volumes: Sequence[int]
) -> SlabBatch | None:
    """Slabs of the validation slices and of the neighbours that were left out with them."""
    near = [i for i in split.gap if any(abs(i - v) <= config.data.validation_gap for v in split.validation)]
    near = [i for i in near if all(abs(i - t) > config.data.test_gap for t in split.test)]
    chosen = sorted({*split.validation, *near})
    if not split.validation:
        return None
    padded = pad_images(images.select(chosen).images, frame)
    seen, depth = max(2, config.network.position_channels), config.patches.depth
    runs, count = runs_of(chosen, volumes), _validation_count(frame)
    return crop_slabs(np.random.default_rng(0), padded, runs, config.patches.largest, count, depth=depth, seen=seen)


def _validation_count(frame: Frame) -> int:
    height, width = frame.tile_shape
    return min(VALIDATION_PATCHES, max(PICTURE_PATCHES, VALIDATION_PATCHES * 64**2 // (height * width)))
