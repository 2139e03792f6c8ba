"""The settings of a run, which sample.py turns into flags: image, scan or problem, solver, baseline.

Frozen dataclasses that validate themselves. `padis_jax/config.py` has those of training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from padis_jax.display import AUTO, check_displays
from padis_jax.errors import UserError, quoted
from padis_jax.fields import check_count, check_fields
from padis_jax.measurements.load import MeasurementConfig
from padis_jax.operators.blur import Boundary
from padis_jax.prior import TilingName
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.image_config import DEFAULT_IMAGE, ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.tv_config import TVConfig
from padis_jax.runs.unused import check_unused
from padis_jax.runs.volume_config import VolumeConfig
from padis_jax.solvers.presets import DEFAULT, SAMPLING, unsuited
from padis_jax.solvers.registry import find_method
from padis_jax.writers import Format

DEFAULT_WEIGHTS = "weights/head_ct.safetensors"
OWN = {"inpaint": "mask", "deblur": "kernel"}  # problems made of a file -> the field that names it
LIKE = {"inpaint": "inpaint_strokes", "deblur": "deblur9"}  # whose kind a user's own mask or kernel is of
LOUDEST = 1e9  # noise of a simulation, whose squares float32 can add up
PROBLEM_NAMES = (*PROBLEMS, *OWN)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a reconstruction depends on.

    Attributes:
      weights: weights file of the prior.
      problem: named problem to simulate instead of the scan (docs/problems.md). It comes with settings that suit it;
        those of tomography follow scan.protocol. "inpaint" takes your mask, "deblur" your kernel.
      mask: for inpaint: a grey picture (oriented as the image is shown) or an array of the image's size, white where
        known.
      kernel: for deblur: a .npy file of [h, w], used as it is.
      boundary: for deblur: what lies outside the image: circular, reflect or zero.
      noise: standard deviation of the measurement's Gaussian noise; None for the problem's default.
      image: what is measured.
      scan: how it is measured.
      measurement: a measured scan instead of `image` and `scan`.
      volume: a volume that is solved as a whole: that of a cone-beam scan, or slices in one data step.
      weighted: whether methods weigh each entry of the measurement by the inverse variance of its noise, where that
        differs, as with photon counts; else they are told its root mean square.
      solver: how it is reconstructed.
      auto: take weight and iterations from the measurement alone. Of plug-and-play (solvers/auto.py); three to
        seven times the evaluations.
      tv: settings of the baseline.
      classical: other baselines: "cgls" and "sirt", stopped at the noise of the measurement (solvers/classical.py).
      seed: root of all randomness.
      compute: type in which the network's convolutions compute. "bfloat16" halves their memory and traffic, and is fast
        on GPUs and TPUs; everything else stays float32. "" for that of the weights (docs/performance.md: precision).
      patch_batch: patches per network call, to bound memory; 0 for all at once, "auto" for what the device can hold.
      tiling: "random", "fixed", "overlap_average" or "overlap_stitch" (prior.patch_prior).
      tilings: random tilings averaged per evaluation.
      overlap: pixels shared by neighbouring patches of the overlap tilings.
      mirror: whether a random tiling is mirrored left to right with probability 1/2, at no cost. "auto" if the weights
        were trained on mirrored images, too (`patches.flips`).
      samples: number of posterior samples: mean, deviation and coverage; 0 for none. They run side by side, but in turn
        those of a volume that is solved as a whole; `solver.average` runs chains in turn.
      generate: number of images to draw from the prior alone; 0 for none.
      generate_levels: steps of annealed Langevin dynamics for each of them.
      save_as: also write the result as dicom, nifti, png, tiff, npz or hdf5. Values are in their unit. A volume is one
        file (DICOM: a series, png: a file a slice). DICOM needs a DICOM image, whose header is carried over, with the
        patient's name, ID, birth date and address; png and tiff have 16 bits.
      anonymise: results without the patient, whose name and ID DICOM carries over. DICOM and NIfTI, by the basic
        profile of PS3.15 (docs/formats.md).
      display: shades of pictures: brain, bone, lung, body, LOW:HIGH. Or auto; several are rows. The first four are
        windows of CT, LOW and HIGH the values that are black and white, and auto is brain and bone for CT of a head,
        else what suits the image (padis_jax/display.py).
      new_frame: allow an image of another size than the weights were trained on. It gets a new frame, to which
        positions are rescaled. Weights without positions need no flag.
      devices: devices that share the patches of the image, or the slices of a volume, or the files of `measurements`;
        0 for all available.
      measurements: folder of measured scans to reconstruct, all of them.
      batch: measurements, or slices of a volume, reconstructed at a time; of slices fewer where memory is short.
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
    volume: VolumeConfig = dataclasses.field(default_factory=VolumeConfig)
    weighted: bool = False
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    auto: bool = False
    tv: TVConfig = dataclasses.field(default_factory=TVConfig)
    classical: tuple[Literal["cgls", "sirt"], ...] = ()
    seed: int = 0
    compute: Literal["", "float32", "bfloat16"] = ""
    patch_batch: int | Literal["auto"] = 0
    tiling: TilingName = "random"
    tilings: int = 1
    overlap: int = 8
    mirror: Literal["auto", "on", "off"] = "auto"
    samples: int = 0
    generate: int = 0
    generate_levels: int = 300
    save_as: tuple[Format, ...] = ()
    anonymise: bool = False
    display: tuple[str, ...] = (AUTO,)
    new_frame: bool = False
    devices: int = 0
    measurements: str = ""
    batch: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("generate_levels", self.generate_levels)
        if self.patch_batch != "auto" and self.patch_batch < 0:
            raise UserError(f"patch_batch is {self.patch_batch}: give patches per network call, 0 for all, or auto")
        if self.mirror == "on" and self.tiling != "random":
            raise UserError(f"--mirror on: --tiling {self.tiling} draws nothing; leave one of the two out")
        if self.samples == 1:
            raise UserError("samples is 1: a deviation needs at least 2; give 0 for none")
        for name, least in (("samples", 0), ("generate", 0), ("devices", 0), ("tilings", 1), ("batch", 1)):
            check_count(name, getattr(self, name), least)
        if (self.image.crop or self.image.resize) and {"dicom", "nifti"} & set(self.save_as):
            raise UserError("--save-as dicom and nifti carry a whole image's header: not with --image.crop or resize")
        check_displays(self.display)
        self._check_problem()
        self._check_volume()
        check_unused(self)
        row = find_method(self.method)
        if row.begin is not None and (self.samples or (self.solver.average or 1) > 1):
            raise UserError(
                f"--solver {self.method}: its runs {row.alone}; leave --samples and --solver.average out, or take "
                f"--solver {SAMPLING}"
            )
        if self.auto:
            self._check_auto()

    def _check_auto(self) -> None:
        row = find_method(self.method)
        if row.begin is None or "weight" not in row.fields:
            raise UserError(
                f"--auto: {self.method} has no weight that a measurement chooses; take --solver {DEFAULT}, or leave "
                "--auto out"
            )
        if named := [f for f in ("levels", "weight") if f in {*self.solver.run_fields, *self.solver.settings}]:
            raise UserError(f"--auto chooses solver.{named[0]}: leave one of the two out")
        if self.measurements or self.generate or (self.several and not self.volume.joint and not self.scan.geometry):
            raise UserError("--auto chooses for one measurement: run it on one file or slice, and give what it chose "
                            "to the others; slices in one data step are one, --volume.joint")  # fmt: skip

    @property
    def method(self) -> str:
        """The name of the solver: the chosen one, else the default of such a run."""
        return self.solver.method or default_method(self.problem, self.samples)

    @property
    def several(self) -> bool:
        """Whether several slices are chosen: a volume."""
        return isinstance(self.image.index, str) or isinstance(self.measurement.row, str)

    def _check_volume(self) -> None:
        index, row = self.image.index, self.measurement.row
        if isinstance(index, str) and (self.measurement.path or self.measurements):
            raise UserError(f"--image.index {quoted(index)}: measured scans have rows; name them by --measurement.row")
        if isinstance(index, str) and self.generate:
            raise UserError(f"--image.index {quoted(index)}: --generate draws images without one; leave it out")
        for flag, given in (("--scan.geometry", self.scan.geometry), (self.volume.given, self.volume.given)):
            if given and (self.measurements or self.generate):
                raise UserError(f"{flag}: of one volume, not of --measurements or --generate; leave it out")
        if self.scan.geometry and (self.measurement.path or self.problem):
            other = "--measurement.path" if self.measurement.path else "--problem"
            raise UserError(f"--scan.geometry simulates a scan, and {other} is another; leave one of the two out")
        if isinstance(row, str) and not self.measurement.path:
            raise UserError(f"--measurement.row {quoted(row)}: belongs to one scan; name it by --measurement.path")

    def _check_problem(self) -> None:
        if self.problem and self.problem not in PROBLEM_NAMES:
            raise UserError(f"there is no problem {self.problem!r}; choose one of {', '.join(PROBLEM_NAMES)}")
        for problem, field in OWN.items():
            if bool(getattr(self, field)) != (self.problem == problem):
                raise UserError(f"--problem {problem} and --{field} FILE belong together: give both, or neither")
        if self.boundary != "circular" and self.problem != "deblur":
            raise UserError(f"--boundary {self.boundary}: belongs to --problem deblur; leave it out")
        if self.noise is not None and not 0 <= self.noise <= LOUDEST:
            raise UserError(f"--noise {self.noise:g}: give a standard deviation from 0 to {LOUDEST:g}")
        if self.noise is not None and not self.problem:
            raise UserError(f"--noise {self.noise:g}: belongs to a --problem; a scan without one has --scan.photons")
        if not self.problem:
            return
        if unused := [f for f in ("views", "bins") if getattr(self.scan, f) != getattr(ScanConfig, f)]:
            raise UserError(f"scan.{unused[0]}: --problem {self.problem} has its own; leave one of the two out")
        named = PROBLEMS.get(self.problem)
        counts = named is not None and named.tomography and self.scan.protocol == "honest"
        if counts and self.noise is not None:
            raise UserError("--noise: photon counts have their own; add --scan.protocol paper, or set --scan.photons")
        if self.measurement.path or self.measurements or self.generate:
            raise UserError("--problem simulates a measurement of --image.path; leave it out with measured data")
        for flag, method in (("solver", self.method), *(("classical", name) for name in self.classical)):
            if reason := unsuited(method, self.problem):
                raise UserError(f"--problem {self.problem}: not with {method}: {reason}; choose another --{flag}")


def default_method(problem: str, samples: int) -> str:
    """The method of a run that names none: DDS for samples and where large parts are missing, else plug-and-play.

    Args:
      problem: its name, "" for a scan.
      samples: their number.
    """
    named = PROBLEMS.get(LIKE.get(problem, problem))
    return SAMPLING if samples or (named is not None and named.kind == "large") else DEFAULT


def missing_default(path: str, default: str, flag: str) -> UserError | None:
    """An error if `path` is the default of a checkout and this is no checkout."""
    if path == default and not Path(path).exists():
        return UserError(
            f"no {default} here: run inside a checkout of padis_jax, or name the file with {flag} (and the settings "
            "with --config)"
        )
    return None


def check_defaults(config: Experiment) -> None:
    """Raises UserError where a file of the config is none, or of a checkout by default, and this is no checkout."""
    files = [(config.weights, DEFAULT_WEIGHTS, "--weights")]
    if not (config.measurement.path or config.measurements or config.generate):
        files.append((config.image.path, DEFAULT_IMAGE, "--image.path"))
    for path, default, flag in files:
        if not path.strip():  # in a config file: flags are looked at before
            raise UserError(f"{flag}: its value is empty; give one")
        if error := missing_default(path, default, flag):
            raise error
