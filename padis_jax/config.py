"""The settings of a training run: one frozen dataclass, made by a config file, changed by flags, saved as JSON.

A config file in configs/ is the one kind of file that is executed, and only from the user's own disk. Everything else
that describes a run (checkpoints, weights, results) holds the JSON of this dataclass, which is rebuilt field by field.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Literal, TypeVar

from padis_jax.batches import PatchConfig
from padis_jax.errors import UserError
from padis_jax.fields import check_fields
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
      path: file, folder or glob of images. DICOM, NIfTI, pictures, arrays, MATLAB or HDF5 (docs/formats.md).
      low: value that becomes 0; with `high` it overrides the file's own window (HU: -1000 to 1000).
      high: value that becomes 1.
      unit: unit of `low` and `high`, such as HU; "1" for plain numbers.
      test: slices held out for the reported figures. `test_gap` neighbours on either side are left out too.
      test_gap: neighbours left out with each test slice.
      validation: slices held out for tuning. `validation_gap` neighbours on either side are left out too.
      validation_gap: neighbours left out with each validation slice.
      test_volumes: names of whole volumes (padis-data inspect lists them) that are tested on and not trained on.
      validation_volumes: the same for tuning.
      memory_gb: sets that need more gigabytes as float32 are read on demand; 0 for every set.
      limit: train on this many images only, spread evenly; 0 means all.
      crop: height and width of random crops, for images of several sizes. Every draw crops anywhere, validation in the
        middle; the weights are for images of the crop's size.
      scales: smallest and largest factor, at most 1, by which a draw of `crop` reduces its image first, at random.
      resize: height and width that every image is scaled to; it keeps its proportions, and what reaches beyond is cut.
      grey: colour images become grey, 0.299 R + 0.587 G + 0.114 B.
      provenance: where the images come from and under which licence; copied into the weights.
      layout: `path` is the folder of a published set: bsd100 (BSDS300), bsds500 or div2k. Its own folders say what is
        trained on, validated and tested on, and `crop` is 256 x 256 unless a size is given (docs/formats.md).
    """

    path: str = ""
    low: float | None = None
    high: float | None = None
    unit: str = "1"
    test: tuple[int, ...] = ()
    test_gap: int = 0
    validation: tuple[int, ...] = ()
    validation_gap: int = 0
    test_volumes: tuple[str, ...] = ()
    validation_volumes: tuple[str, ...] = ()
    memory_gb: float = 2.0
    limit: int = 0
    crop: tuple[int, int] | None = None
    scales: tuple[float, float] | None = None
    resize: tuple[int, int] | None = None
    grey: bool = False
    provenance: str = ""
    layout: Literal["", "bsd100", "bsds500", "div2k"] = ""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if (self.low is None) != (self.high is None):
            raise UserError("data.low and data.high belong together: give both or neither")
        if not 0 <= self.memory_gb < math.inf:
            raise UserError(f"data.memory_gb is {self.memory_gb}: it must be finite and not negative")
        check_shaping("data", self.crop, self.resize)
        if self.scales is not None and not (self.crop and 0.01 <= self.scales[0] <= self.scales[1] <= 1):
            raise UserError(
                f"data.scales is {self.scales}: give a smallest and a largest factor, 0.01 to 1, and the crop's size "
                "with --data.crop"
            )
        if self.limit < 0:
            raise UserError(f"data.limit is {self.limit}: give 0 for all images, or how many")


def check_shaping(where: str, crop: tuple[int, int] | None, resize: tuple[int, int] | None) -> None:
    """UserError unless `WHERE.crop` and `WHERE.resize` are sizes, one of them at most."""
    for name, size in (("crop", crop), ("resize", resize)):
        if size is not None and not 1 <= min(size) <= max(size) <= 2**14:
            raise UserError(f"{where}.{name} is {size}: height and width must be 1 to {2**14} pixels")
    if crop and resize:
        raise UserError(f"{where}.crop and {where}.resize both give the size of the images: leave one of them out")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """Adam with linear warm-up, cosine decay and clipping by the global norm.

    Attributes:
      learning_rate: peak learning rate.
      final_fraction: learning rate at the last step as a fraction of the peak.
      warmup_steps: steps of linear warm-up from 0.
      clip_norm: gradients with a larger global norm are scaled down to it; 0 switches clipping off.
      ema_half_life: patches after which the weight of old parameters in the average has halved.
      ema_ramp: the half-life is at most this fraction of the patches seen so far, so that the start is forgotten.
    """

    learning_rate: float = 2e-4
    final_fraction: float = 0.01
    warmup_steps: int = 1000
    clip_norm: float = 1.0
    ema_half_life: float = 500_000
    ema_ramp: float = 0.05

    def __post_init__(self) -> None:
        check_fields(self, "optimiser.")
        for name in ("learning_rate", "ema_half_life", "ema_ramp"):
            if not 1e-30 < getattr(self, name) < 1e30:
                raise UserError(f"optimiser.{name} is {getattr(self, name)}: it must be positive and finite")
        if not 0 <= self.warmup_steps < 2**31 or not self.clip_norm >= 0 or not 0 <= self.final_fraction <= 1:
            raise UserError("optimiser: warmup_steps and clip_norm must not be negative, final_fraction in [0, 1]")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length and bookkeeping of a training run.

    Attributes:
      steps: training steps; the cosine decay ends there.
      seed: root of all randomness.
      start_weights: weights file to start from, instead of random parameters. To continue training from elsewhere, or
        to adapt a prior to few images; network and image size must be the same. A training on slabs (patches.depth)
        also starts from weights of images, with a network that is the same but for its channels.
      log_every: steps between lines of the log; the loss is also checked for NaN then.
      checkpoint_every: steps between checkpoints.
      keep: checkpoints kept.
      validate_every: steps between evaluations of the validation slices' loss and pictures of denoised patches.
      weights_dtype: type of the arrays in weights.safetensors; "float16" halves the file.
      tensorboard: also write TensorBoard events (pip install tensorboardX).
      devices: devices that the batch is split over; 0 for all available. Batch sizes must be multiples of it.
      shard_parameters: split parameters, average and moments over the devices too, for networks that are too large for
        one; costs communication.
    """

    steps: int = 100_000
    seed: int = 0
    start_weights: str = ""
    log_every: int = 50
    checkpoint_every: int = 1000
    keep: int = 3
    validate_every: int = 1000
    weights_dtype: Literal["float32", "float16"] = "float32"
    tensorboard: bool = False
    devices: int = 0
    shard_parameters: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "run.")
        for name in ("steps", "log_every", "checkpoint_every", "keep", "validate_every"):
            if not 1 <= getattr(self, name) < 2**31:
                raise UserError(f"run.{name} is {getattr(self, name)}: it must be at least 1, below 2^31")
        for name, bits in (("seed", 63), ("devices", 31)):
            if not 0 <= getattr(self, name) < 2**bits:
                raise UserError(f"run.{name} is {getattr(self, name)}: it must not be negative, and below 2^{bits}")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a training run depends on."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    patches: PatchConfig = dataclasses.field(default_factory=PatchConfig)
    noise: NoiseConfig = dataclasses.field(default_factory=NoiseConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.patches.depth > 1:
            self._check_slabs()
        elif self.network.position_channels == 3:
            raise UserError("network.position_channels is 3 (x, y, z), which slabs have: set patches.depth, or use 2")
        for size in self.patches.sizes:
            if size:  # the sides of whole images are known when they are read
                self.network.check_patch(size)

    def _check_slabs(self) -> None:
        """UserError for settings that training on slabs does not have."""
        depth, data = self.patches.depth, self.data
        if self.network.image_channels != depth:
            raise UserError(
                f"network.image_channels is {self.network.image_channels}, but patches.depth is {depth}: the slices of "
                f"a slab are the network's channels; set both to {depth}"
            )
        if data.crop is not None:
            raise UserError("data.crop cuts every slice elsewhere, and patches.depth wants neighbours: use data.resize")
        if data.limit:
            raise UserError("data.limit takes slices that are apart, and patches.depth wants neighbours: leave it 0")


def load_config_file(path: str | Path, kind: type[T]) -> T:
    """Runs the user's own config file and takes its `config`.

    Args:
      path: a Python file, for example from configs/.
      kind: the dataclass that `config` must be: `Config` to train, `experiment.Experiment` to sample.

    Raises:
      UserError: if the file is missing, fails, or defines no `config` of that kind.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location("padis_config", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--config {path}: no such Python file; configs/ has examples")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own file: any error in it is theirs to see, in one line
        raise UserError(f"--config {path}: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, kind):
        raise UserError(f"--config {path}: it must define `config`, a {kind.__module__}.{kind.__name__}")
    return config
