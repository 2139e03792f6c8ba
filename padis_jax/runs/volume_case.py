"""A case of a volume [D, H, W] that is solved as a whole: what differs from the case of an image."""

from __future__ import annotations

import dataclasses
from typing import Any

from padis_jax.runs.case import Case
from padis_jax.solvers.tv import TV
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.solvers.volumes import Along
from padis_jax.volume_prior import VolumePrior


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeCase(Case):
    """A case of a volume; `source` has its slices [D, H, W, 1], measurement and truth [D, H, W] no channels.

    Attributes:
      flatness: weight of differences along z in total variation: the side of a pixel over the distance of slices.
      along_tv: weight of the variation along z in the data step.
      of_slices: whether the measurement's first axis is that of slices.
    """

    prior: VolumePrior | None = None  # type: ignore[assignment]
    flatness: float = 1.0
    along_tv: float = 0.0
    of_slices: bool = False

    @property
    def views_axis(self) -> int:
        """The axis of a scan's measurement that its views lie along."""
        return int(self.of_slices)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(D, H, W)."""
        return tuple(self.source.images.shape[:3])

    @property
    def ties(self) -> dict[str, Any]:
        """What ties the slices beside the prior."""
        return {"along": Along(tv=self.along_tv)} if self.along_tv else {}

    def smoothed_by(self, settings: TV) -> TV:
        """The settings of total variation, with differences in millimetres."""
        return dataclasses.replace(for_volumes(settings), depth=self.flatness)

    def planes(self, image: Any) -> Any:
        """The slices, [D, H, W, 1]."""
        return image[..., None]


def with_volume_prior(case: Case, prior: VolumePrior) -> Case:
    """The case with its prior."""
    return dataclasses.replace(case, prior=prior)  # type: ignore[arg-type]
