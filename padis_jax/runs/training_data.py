"""What a training run works on: the images that its config names, without those held out, and its first state."""

from __future__ import annotations

import dataclasses
import sys
from typing import NamedTuple

import jax
import numpy as np

from padis_jax.batches import Batch, crop_batch, pad_images
from padis_jax.config import Config
from padis_jax.errors import UserError
from padis_jax.images import ImageSet, StreamedImages, Window, read_images
from padis_jax.patches import Frame, frame_for
from padis_jax.runs.validation import PICTURE_PATCHES
from padis_jax.solvers.sampling import root_key
from padis_jax.split import Split, limited, split_of
from padis_jax.training import TrainState, init_state
from padis_jax.unet import init_network
from padis_jax.weights import load_weights

VALIDATION_PATCHES = 64  # fewer where they are larger than 64 x 64, so that whole images fit into memory


class TrainingData(NamedTuple):
    """What a run works on: padded training images [n, Hp, Wp, C], a fixed validation batch or None, geometry."""

    padded: np.ndarray | StreamedImages
    validation: Batch | None
    frame: Frame
    window: Window


def load_data(config: Config) -> TrainingData:
    """Reads the images, leaves out the held-out ones, pads the rest.

    Raises:
      UserError: for images that cannot be read, or do not fit the network and the patches.
    """
    if not config.data.path:
        raise UserError("data.path is empty: name a folder of images, a .npy array or a .npz volume with --data.path")
    window = None
    if config.data.low is not None and config.data.high is not None:
        window = Window(config.data.unit, config.data.low, config.data.high)
    images = read_images(config.data.path, window=window, memory=int(config.data.memory_gb * 1e9))
    for note in images.notes:
        print(f"note: {note}", file=sys.stderr)
    n, height, width, channels = images.images.shape
    if channels != config.network.image_channels:
        raise UserError(
            f"{config.data.path}: images have {channels} channels, but network.image_channels is "
            f"{config.network.image_channels}; set it to {channels}"
        )
    frame = frame_for((height, width), config.patches.largest)
    for side in frame.tile_shape:
        try:
            config.network.check_patch(side)
        except ValueError as error:
            raise UserError(f"{config.data.path}: images of {(height, width)} pixels: {error}") from error
    split = split_of(config.data, images.volumes, n)
    train_slices = limited(split.train, config.data.limit)
    padded = pad_images(images.select(train_slices).images, frame)
    return TrainingData(padded, _validation_batch(images, split, frame, config), frame, images.window)


def first_state(config: Config, frame: Frame) -> TrainState:
    """The state before the first step: random parameters, or those of `config.run.start_weights`.

    Raises:
      UserError: if those weights cannot be read, or are of another network or image size.
    """
    if not config.run.start_weights:
        key = jax.random.fold_in(root_key(config.run.seed), 0)
        drawn: TrainState = _draw_state(key, config.network, config.optimiser)
        return drawn
    weights = load_weights(config.run.start_weights)
    network = dataclasses.replace(weights.network, dropout=config.network.dropout)  # of training, not of the parameters
    for name, wanted, found in (("network", config.network, network), ("frame", frame, weights.frame)):
        if wanted != found:
            raise UserError(
                f"run.start_weights {config.run.start_weights}: its {name} is {found}, but this run has {wanted}; make "
                "them equal, or leave --run.start-weights out"
            )
    return init_state(weights.params, config.optimiser)


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
    height, width = frame.tile_shape
    count = min(VALIDATION_PATCHES, max(PICTURE_PATCHES, VALIDATION_PATCHES * 64**2 // (height * width)))
    return crop_batch(np.random.default_rng(0), padded, config.patches.largest, count)
