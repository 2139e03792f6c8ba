"""What the geometries of all scans state: image, angles, detector, and where the axis is."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """Static geometry of a scan: lengths in one unit, angles in radians."""

    image_shape: tuple[int, int]
    angles: tuple[float, ...]
    detector_count: int
    detector_spacing: float
    pixel_size: float
    detector_offset: float
    rotation_offset: float = 0.0

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return len(self.angles), self.detector_count
