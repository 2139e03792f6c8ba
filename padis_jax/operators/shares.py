"""The shares of two rays that measure one line, from one side and from the other, in filtered backprojection.

The ray (t, u) of a view t meets the detector at u; that of the other side is (t', u'). Their shares W add to 1. Both
are 1/2 on a full turn. On less than that Parker's weights (Med. Phys. 9, 254, 1982) avoid the jump between lines
measured twice and once: W = sin^2(pi/2 m/(m + m')), where m is the angle between the view and the nearest end of
the scan and m' that of the other side. In this form they hold for arcs of any length, several arcs too, and where a
line is measured once, m' = 0 and W = 1. Where the detector reaches less far on one side, so that some rays have no
partner in any view, m and m' are multiplied by the distances of both to the detector's ends, in the way of Wang (Med.
Phys. 29, 1634, 2002); where the detector is symmetric these factors cancel.
"""

from __future__ import annotations

import numpy as np

from padis_jax.operators.fbp import gaps

TURN = 2 * np.pi
END = 4.0  # a gap of more than so many typical ones between two views is an end of the scan


def ray_shares(angles: tuple[float, ...], u: np.ndarray, *, other_u: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """W of every ray, [views, bins].

    Args:
      angles: [views] in radians.
      u: [bins], ascending and evenly spaced.
      other_u: [bins], where the other ray meets the detector, which may be beyond its ends.
      turn: [bins] or a number, from the angle of the view to that of the other.
    """
    theta = np.asarray(angles, np.float64)[:, None]
    spacing = u[1] - u[0] if len(u) > 1 else 1.0
    ends = u[0] - spacing / 2, u[-1] + spacing / 2

    def depth_in_detector(at: np.ndarray) -> np.ndarray:
        return np.maximum(0, np.minimum(at - ends[0], ends[1] - at))

    mine = depth_in_scan(theta, angles) * depth_in_detector(u)
    other = depth_in_scan(theta + turn, angles) * depth_in_detector(other_u)
    return np.sin(np.pi / 2 * mine / (mine + other)) ** 2


def depth_in_scan(theta: np.ndarray, angles: tuple[float, ...]) -> np.ndarray:
    """Angle from `theta` to the nearest end of the arc of views it is in: 0 in no arc, 1 where there are no ends.

    A gap of more than END typical ones is an end; arcs reach half a typical gap beyond their last views.
    """
    order, after, _, typical = gaps(angles, TURN)
    folded = np.mod(np.asarray(angles, np.float64), TURN)[order]
    wide = np.flatnonzero(after > END * typical)
    if not len(wide):
        return np.ones_like(theta)
    depth = np.zeros_like(theta)
    for gap, following in zip(wide, np.roll(wide, -1), strict=True):
        first = folded[(gap + 1) % len(folded)] - typical / 2
        length = np.mod(folded[following] - first, TURN) + typical / 2
        along = np.mod(theta - first, TURN)
        depth = np.maximum(depth, np.minimum(along, length - along))
    return depth


def full_turn(angles: tuple[float, ...]) -> bool:
    """Whether the views have no end: all lines of an object are seen from both sides by a detector that covers it."""
    _, after, _, typical = gaps(angles, TURN)
    return bool(after.max() <= END * typical and after.max() < np.pi)
