"""The settings of an experiment, which sample.py turns into flags: image, scan, solver, baseline.

Frozen dataclasses that validate themselves. `padis_jax/config.py` has those of training.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from padis_jax.errors import UserError
from padis_jax.operators.blur import Boundary
from padis_jax.prior import TilingName
from padis_jax.measurements.load import MeasurementConfig
from padis_jax.solvers.presets import unsuited
from padis_jax.solvers.prior_step import PriorStep
from padis_jax.split import HEAD_CT
from padis_jax.problems.registry import TASKS
from padis_jax.writers import Format

DEFAULT_IMAGE = HEAD_CT
DEFAULT_WEIGHTS = "weights/head_ct.safetensors"
OWN = {"inpaint": "mask", "deblur": "kernel"}  # problems made of a file -> the field that names it
PROBLEMS = (*TASKS, *OWN)
PLUG_AND_PLAY = ("pnp_admm", "pnp_red")
MethodName = Literal[
    "dds", "dps", "langevin", "ddnm", "diffpir", "predictor_corrector", "daps", "tmpd", "pnp_admm", "pnp_red"
]


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image that is measured.

    Attributes:
      path: DICOM, NIfTI, picture, array, MATLAB or HDF5: a file, a folder or a glob (docs/formats.md).
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
      name: "dds" (fast: CG data consistency), "dps" (the paper's VE-DPS), "langevin", "ddnm", "diffpir",
        "predictor_corrector", "daps", "tmpd", or plug-and-play with the prior at one noise level:
        "pnp_admm", "pnp_red"; docs/methods.md compares them.
      levels: noise levels of the ladder; iterations of pnp_admm and pnp_red.
      inner: steps per level.
      sigma_max: first noise level, in image units.
      sigma_min: last noise level.
      ladder: "geometric", or "edm" (rho = 7).
      start: "tv", "operator" (FBP) or "noise" (a zero image); noise of deviation sigma_max is added (not with pnp).
      average: independent chains whose mean is the result; multiplies the cost (not with pnp, nor has it inner steps).
      consistency: dds: lambda relative to ||A||^2.
      cg_steps: dds, diffpir, daps, tmpd, pnp: conjugate-gradient steps per level.
      churn: dds: share of fresh noise, 0 (deterministic) to 1.
      kappa: dds: error of the denoised image relative to sigma; weighs measurement noise. The noise level itself is
        taken from the photon counts.
      zeta: dps, langevin, predictor_corrector: data step; diffpir: share of fresh noise; 0 takes the solver's own
        default.
      prior_step: dps, langevin, ddnm: "langevin" (the paper's), or "ancestral", which needs fewer levels and one step
        on each (solvers/prior_step.py).
      eps: dps, langevin, ddnm: alpha = eps sigma^2 of "langevin".
      step_form: dps, langevin, predictor_corrector: "squared", "norm", "paper" or, dps only, "authors"
        (solvers/dps.py has the table that converts zeta).
      last_level_noise: dps, langevin, ddnm: whether the lowest level adds noise.
      zero_ring: dps: set D to 0 on the whole margin.
      pinv_steps: ddnm: CG steps in the place of the pseudo-inverse; 0 for the pseudo-inverse itself.
      weight: diffpir: lambda, trust in the denoised image.
      predictor: predictor_corrector: "reverse_diffusion" or, for few levels, "ancestral".
      snr: predictor_corrector: the corrector's r.
      corrector: predictor_corrector: "song" or "paper".
      sampler: daps: "langevin" (the paper's) or "cg".
      ode_steps: daps: evaluations per level.
      mcmc_steps: daps: Langevin steps per level.
      pnp_sigma: pnp: the denoiser's noise level.
      pnp_weight: pnp: rho relative to ||A||^2.
    """

    name: MethodName = "dds"
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
    prior_step: PriorStep = "langevin"
    eps: float = 0.5
    step_form: Literal["squared", "norm", "paper", "authors"] = "squared"
    last_level_noise: bool = True
    zero_ring: bool = False
    pinv_steps: int = 0
    weight: float = 8.0
    predictor: Literal["reverse_diffusion", "ancestral"] = "reverse_diffusion"
    snr: float = 0.16
    corrector: Literal["song", "paper"] = "song"
    sampler: Literal["langevin", "cg"] = "langevin"
    ode_steps: int = 5
    mcmc_steps: int = 100
    pnp_sigma: float = 0.03
    pnp_weight: float = 0.01

    def __post_init__(self) -> None:
        for name in ("levels", "inner", "average"):
            if getattr(self, name) < 1:
                raise UserError(f"solver.{name} is {getattr(self, name)}: it must be at least 1")
        if self.prior_step == "ancestral" and self.inner > 1:
            raise UserError(
                f"solver.inner is {self.inner}: ancestral steps are one per level; use 1, or prior_step langevin"
            )
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(f"solver: 0 < sigma_min < sigma_max is needed, got {self.sigma_min} and {self.sigma_max}")

    @property
    def steps(self) -> int:
        """Steps, or iterations, of a reconstruction."""
        return self.levels if self.name in PLUG_AND_PLAY else self.levels * self.inner * self.average


@dataclasses.dataclass(frozen=True)
class TVConfig:
    """Total variation, the classical baseline.

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
      problem: a named problem in the place of the scan, with settings that suit it (settings.py): ct8, ct20, ct60,
        fan180, limited120 (under scan.protocol), deblur9, deblur17, deblur_gauss, deblur_motion, sr2, sr4, sr8,
        sr4_bicubic, inpaint_random, inpaint_box, inpaint_strokes, denoise; inpaint with a mask, deblur with a kernel
        of one's own (docs/problems.md).
      mask: inpaint: a grey picture (lies on the image as it is shown) or array of the image's size, white where known.
      kernel: deblur: a .npy file of [h, w], taken as it is.
      boundary: deblur: what lies outside of the image: circular, reflect or zero.
      noise: standard deviation of the measurement's Gaussian noise; None for the problem's own.
      image: what is measured.
      scan: how it is measured.
      measurement: a measured scan instead of `image` and `scan`.
      solver: how it is reconstructed.
      tv: settings of the baseline.
      seed: root of all randomness.
      compute: type in which the network's convolutions compute: "bfloat16" halves their memory and traffic, and is fast
        on GPUs and TPUs; everything else stays float32. "" for that of the weights (docs/performance.md: precision).
      patch_batch: patches per network call, to bound memory; 0 for all at once, "auto" for what the device can hold.
      tiling: "random", "fixed", "overlap_average" or "overlap_stitch" (prior.patch_prior).
      tilings: random tilings averaged per evaluation.
      overlap: pixels shared by neighbouring patches of the two last.
      samples: so many runs of the solver side by side in the place of `solver.average` one after the other: their mean,
        their deviation, and how often their intervals hold the truth; 0 for none.
      generate: so many images from the prior alone, without any measurement; nothing is reconstructed then.
      generate_levels: steps of annealed Langevin dynamics for each of them.
      save_as: formats that the reconstruction is also written in, in the image's unit: dicom (needs a DICOM image,
        whose header is carried over), nifti, png (16 bits), tiff (16 bits), npz.
      new_frame: allow an image of another size than the weights were trained on; the frame is made anew for it and
        positions are rescaled to it.
      devices: devices that share the patches of the image, or the items of `measurements`; 0 for all there are.
      measurements: a folder of measured sinograms (batch_job.py), all of which are reconstructed in the place of
        `image`; "" for none.
      batch: measurements at a time.
    """

    weights: str = DEFAULT_WEIGHTS
    problem: str = ""
    mask: str = ""
    kernel: str = ""
    boundary: Boundary = "circular"
    noise: float | None = None
    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    scan: ScanConfig = dataclasses.field(default_factory=ScanConfig)
    measurement: MeasurementConfig = dataclasses.field(default_factory=MeasurementConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    tv: TVConfig = dataclasses.field(default_factory=TVConfig)
    seed: int = 0
    compute: Literal["", "float32", "bfloat16"] = ""
    patch_batch: int | Literal["auto"] = 0
    tiling: TilingName = "random"
    tilings: int = 1
    overlap: int = 8
    samples: int = 0
    generate: int = 0
    generate_levels: int = 300
    save_as: tuple[Format, ...] = ()
    new_frame: bool = False
    devices: int = 0
    measurements: str = ""
    batch: int = 8

    def __post_init__(self) -> None:
        if (self.patch_batch != "auto" and self.patch_batch < 0) or self.tilings < 1:
            raise UserError(
                f"patch_batch {self.patch_batch} must be at least 1, 0 or 'auto'; tilings {self.tilings} at least 1"
            )
        if self.samples < 0 or self.samples == 1 or self.generate < 0 or self.generate_levels < 1:
            raise UserError(
                f"samples {self.samples} must be at least 2, or 0; generate {self.generate} not negative, "
                f"generate_levels {self.generate_levels} at least 1"
            )
        if self.devices < 0 or self.batch < 1:
            raise UserError(f"devices {self.devices} must not be negative, batch {self.batch} at least 1")
        self._check_problem()
        if self.solver.name in PLUG_AND_PLAY and (self.samples or self.measurements):
            raise UserError(
                f"solver.name {self.solver.name}: its runs differ in their tilings only; leave --samples out, or take "
                "another solver for samples and for --measurements"
            )

    def _check_problem(self) -> None:
        if self.problem and self.problem not in PROBLEMS:
            raise UserError(f"there is no problem {self.problem!r}; there are {', '.join(PROBLEMS)}")
        for problem, field in OWN.items():
            if bool(getattr(self, field)) != (self.problem == problem):
                raise UserError(f"--problem {problem} and --{field} FILE belong together: give both, or neither")
        if self.boundary != "circular" and self.problem != "deblur":
            raise UserError(f"--boundary {self.boundary}: is of --problem deblur; leave it out")
        if self.noise is not None and not (self.problem and 0 <= self.noise < math.inf):
            raise UserError(f"--noise {self.noise}: must not be negative, and needs a --problem")
        if not self.problem:
            return
        if unused := [f for f in ("views", "bins") if getattr(self.scan, f) != getattr(ScanConfig, f)]:
            raise UserError(f"scan.{unused[0]}: --problem {self.problem} has its own; leave one of the two out")
        counts = TASKS[self.problem].tomography and self.scan.protocol == "honest" if self.problem in TASKS else False
        if counts and self.noise is not None:
            raise UserError("--noise: photons bring their own noise; add --scan.protocol paper, or set --scan.photons")
        if self.measurement.path or self.measurements or self.generate:
            raise UserError("--problem simulates a measurement of --image.path; leave it out with measured data")
        if reason := unsuited(self.solver.name, self.problem):
            raise UserError(
                f"--problem {self.problem}: not with {self.solver.name}: {reason}; take another solver.name"
            )
