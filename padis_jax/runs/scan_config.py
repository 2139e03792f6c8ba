"""The settings of a simulated scan, which sample.py turns into flags --scan.FIELD."""

from __future__ import annotations

import dataclasses
from typing import Literal

from padis_jax.errors import UserError
from padis_jax.fields import check_count, check_fields, check_length


@dataclasses.dataclass(frozen=True)
class ScanConfig:
    """The scan that is simulated, a parallel beam unless a geometry says otherwise; angles are (i + 1/2) pi / views.

    Attributes:
      views: number of views over half a turn.
      bins: detector bins, one pixel wide.
      protocol: simulation with ("paper") or without ("honest") an inverse crime. Honest: object on a 4x finer grid,
        bins with a width, photon counts. Paper: noiseless, by the same projector that reconstructs.
      photons: photons per ray without an object. Honest protocol only.
      pixel_mm: side of a pixel in mm, for the attenuation; 0 takes width and height from the image file.
      geometry: geometry file of a cone beam (JSON), which measures the volume of --image.index instead.
    """

    views: int = 20
    bins: int = 512
    protocol: Literal["honest", "paper"] = "honest"
    photons: float = 1e5
    pixel_mm: float = 0.0
    geometry: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "scan.")
        check_count("scan.views", self.views)
        check_count("scan.bins", self.bins)
        if not self.photons > 0:
            raise UserError(f"scan.photons is {self.photons:g}: it must be positive")
        if self.pixel_mm < 0:
            raise UserError(f"scan.pixel_mm is {self.pixel_mm:g}: it must not be negative")
        check_length("scan.pixel_mm", self.pixel_mm, 1e-9)
        if self.geometry and (given := [f for f in ("views", "bins") if getattr(self, f) != getattr(ScanConfig, f)]):
            raise UserError(f"scan.{given[0]}: those of scan.geometry are taken; leave one of the two out")
