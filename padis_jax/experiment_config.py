"""The settings of an experiment, which sample.py turns into flags: image, scan, solver, yardstick.

Frozen dataclasses that validate themselves. `experiment.py` runs what they describe; `config.py` has those of training.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from padis_jax.errors import UserError

DEFAULT_IMAGE = "data/head_ct.npz"
DEFAULT_WEIGHTS = "weights/head_ct.safetensors"


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image that is measured.

    Attributes:
      path: .npz volume, .npy array, folder of pictures or one picture.
      index: which image of the file or folder, from 0.
    """

    path: str = DEFAULT_IMAGE
    index: int = 41


@dataclasses.dataclass(frozen=True)
class ScanConfig:
    """The parallel-beam scan that is simulated; angles are (i + 1/2) pi / views.

    Attributes:
      views: number of views over half a turn.
      bins: detector bins, one pixel wide.
      protocol: "honest" (object on a 4x finer grid, bins with a width, photon counts) or "paper" (noiseless, the same
        projector that reconstructs).
      photons: per ray without object; honest protocol only.
      pixel_mm: side of a pixel in mm, for the attenuation; 0 takes it from the image file.
    """

    views: int = 20
    bins: int = 512
    protocol: Literal["honest", "paper"] = "honest"
    photons: float = 1e5
    pixel_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.views < 1 or self.bins < 1:
            raise UserError(f"scan: views {self.views} and bins {self.bins} must be at least 1")
        if self.protocol not in ("honest", "paper"):
            raise UserError(f"scan.protocol is {self.protocol!r}: use 'honest' or 'paper'")
        if not self.photons > 0 or self.pixel_mm < 0:
            raise UserError(f"scan: photons {self.photons} must be positive and pixel_mm {self.pixel_mm} not negative")


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """The diffusion solver. Fields that a solver does not name are not used by it.

    Attributes:
      name: "dds" (fast: CG data consistency), "dps" (the paper's VE-DPS) or "langevin".
      levels: noise levels of the ladder.
      inner: steps per level.
      sigma_max: first noise level, in image units.
      sigma_min: last noise level.
      ladder: "geometric", or "edm" (rho = 7).
      start: "tv", "operator" (FBP) or "noise" (a zero image); noise of deviation sigma_max is added.
      average: independent chains whose mean is the result; multiplies the cost.
      consistency: dds: lambda relative to ||A||^2.
      cg_steps: dds: conjugate-gradient steps per level.
      churn: dds: share of fresh noise, 0 (deterministic) to 1.
      kappa: dds: error of the denoised image relative to sigma; weighs measurement noise. The noise level itself is
        taken from the photon counts.
      zeta: dps, langevin: data step; 0 takes the solver's own default.
      eps: dps, langevin: alpha = eps sigma^2.
      step_form: dps: "squared", "norm", "paper" or "authors" (solvers/dps.py has the table that converts zeta).
      last_level_noise: dps: whether the lowest level adds noise.
      zero_ring: dps: set D to 0 on the whole margin.
    """

    name: Literal["dds", "dps", "langevin"] = "dds"
    levels: int = 50
    inner: int = 1
    sigma_max: float = 0.2
    sigma_min: float = 0.003
    ladder: Literal["geometric", "edm"] = "geometric"
    start: Literal["tv", "operator", "noise"] = "tv"
    average: int = 2
    consistency: float = 2e-3
    cg_steps: int = 10
    churn: float = 1.0
    kappa: float = 1.0
    zeta: float = 0.0
    eps: float = 0.5
    step_form: Literal["squared", "norm", "paper", "authors"] = "squared"
    last_level_noise: bool = True
    zero_ring: bool = False

    def __post_init__(self) -> None:
        for name in ("levels", "inner", "average"):
            if getattr(self, name) < 1:
                raise UserError(f"solver.{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(f"solver: 0 < sigma_min < sigma_max is needed, got {self.sigma_min} and {self.sigma_max}")


@dataclasses.dataclass(frozen=True)
class TVConfig:
    """Total variation, the classical yardstick.

    Attributes:
      weight: of the total variation; 0 takes the best of ten on the validation slices for the protocol at 20 views:
        1 under the honest protocol (1e5 photons), 0.003 without noise.
      iterations: primal-dual iterations.
    """

    weight: float = 0.0
    iterations: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf or self.iterations < 1:
            raise UserError(f"tv: weight {self.weight} must not be negative, iterations {self.iterations} at least 1")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a reconstruction depends on.

    Attributes:
      weights: weights file from train.py.
      image: what is measured.
      scan: how it is measured.
      solver: how it is reconstructed.
      tv: settings of the yardstick.
      seed: root of all randomness.
      patch_batch: patches per network call, to bound memory; 0 for all at once, "auto" for what the device can hold.
      tilings: random tilings averaged per evaluation.
      new_frame: allow an image of another size than the weights were trained on; the frame is made anew for it and
        positions are rescaled to it.
      devices: devices that share the patches of the image, or the items of `measurements`; 0 for all there are.
      measurements: a folder of measured sinograms (batch_job.py), all of which are reconstructed in the place of
        `image`; "" for none.
      batch: measurements at a time.
    """

    weights: str = DEFAULT_WEIGHTS
    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    scan: ScanConfig = dataclasses.field(default_factory=ScanConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    tv: TVConfig = dataclasses.field(default_factory=TVConfig)
    seed: int = 0
    patch_batch: int | Literal["auto"] = 0
    tilings: int = 1
    new_frame: bool = False
    devices: int = 0
    measurements: str = ""
    batch: int = 8

    def __post_init__(self) -> None:
        if (self.patch_batch != "auto" and self.patch_batch < 0) or self.tilings < 1:
            raise UserError(
                f"patch_batch {self.patch_batch} must be at least 1, 0 or 'auto'; tilings {self.tilings} at least 1"
            )
        if self.devices < 0 or self.batch < 1:
            raise UserError(f"devices {self.devices} must not be negative, batch {self.batch} at least 1")
