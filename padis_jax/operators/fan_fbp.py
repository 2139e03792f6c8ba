"""Weights of filtered backprojection for fan beams with a flat detector (Kak and Slaney, section 3.4.2).

With the symbols of `fan`, the inversion formula of parallel beams turns, by the change of variables (t, u) -> angle and
offset of the ray, whose Jacobian is (d cos g + a sin g) dg/du with dg/du = cos^2 g / D, into

    f(x, y) = sum_t w_t D/L^2 q_t(u(x, y)),     q_t = s (p_t (d cos g + a sin g) W_t * h)

u(x, y) and L are where a pixel meets the detector and its depth, h the ramp of `fbp`, w_t the angle that the view
stands for, and W the share of the ray (t, g) in the line it measures, which the ray from the other side measures too:

    t' = t + pi + g' - g,     g' = 2 atan(a/d) - g,     W(t, g) + W(t', g') = 1.

Both shares are 1/2 on a full turn. On a short scan Parker's weights (Med. Phys. 9, 254, 1982) avoid the jump between
lines measured twice and once: W = sin^2(pi/2 m/(m + m')), where m is the angle between the view and the nearest end of
the scan and m' that of the other side. In this form they hold for arcs of any length, several arcs too, and where a
line is measured once, m' = 0 and W = 1. Where the detector reaches less far on one side, so that some rays have no
partner in any view, m and m' are multiplied by the distances of both to the detector's ends, in the way of Wang (Med.
Phys. 29, 1634, 2002); where the detector is symmetric these factors cancel.
"""

from __future__ import annotations

import numpy as np

from padis_jax.operators.fbp import WEDGE, view_weights

TURN = 2 * np.pi


def fan_weights(
    angles: tuple[float, ...],
    u: np.ndarray,
    *,
    source_distance: float,
    total_distance: float,
    rotation_offset: float = 0.0,
) -> np.ndarray:
    """Weights of all rays before filtering: w_t (d cos g + a sin g) W_t(g), [views, bins].

    Args:
      angles: [views] in radians.
      u: [bins], ascending and evenly spaced, from the foot of the perpendicular from the source.
      source_distance: d.
      total_distance: D, from source to detector.
      rotation_offset: a.
    """
    gamma = np.arctan2(u, total_distance)
    jacobian = source_distance * np.cos(gamma) + rotation_offset * np.sin(gamma)
    shares = ray_shares(angles, u, total_distance=total_distance, skew=np.arctan2(rotation_offset, source_distance))
    return view_weights(angles, TURN)[:, None] * jacobian * shares


def ray_shares(angles: tuple[float, ...], u: np.ndarray, *, total_distance: float, skew: float = 0.0) -> np.ndarray:
    """W: the share of every ray in its line, [views, bins]; `skew` is atan(a/d)."""
    gamma = np.arctan2(u, total_distance)
    other_gamma = 2 * skew - gamma
    theta = np.asarray(angles, np.float64)[:, None]
    spacing = u[1] - u[0] if len(u) > 1 else 1.0
    ends = u[0] - spacing / 2, u[-1] + spacing / 2

    def depth_in_detector(at: np.ndarray) -> np.ndarray:
        return np.maximum(0, np.minimum(at - ends[0], ends[1] - at))

    mine = depth_in_scan(theta, angles) * depth_in_detector(u)
    other_u = np.where(np.abs(other_gamma) < np.pi / 2, total_distance * np.tan(other_gamma), np.inf)
    other = depth_in_scan(theta + np.pi + other_gamma - gamma, angles) * depth_in_detector(other_u)
    return np.sin(np.pi / 2 * mine / (mine + other)) ** 2


def depth_in_scan(theta: np.ndarray, angles: tuple[float, ...]) -> np.ndarray:
    """Angle from `theta` to the nearest end of the arc of views it is in: 0 in no arc, 1 where there are no ends.

    A gap of more than WEDGE typical ones is an end; arcs reach half a typical gap beyond their last views.
    """
    folded = np.sort(np.mod(np.asarray(angles, np.float64), TURN))
    gaps = np.diff(folded, append=folded[0] + TURN)
    distinct = gaps[gaps > 1e-9]
    typical = float(np.median(distinct))
    wide = np.flatnonzero(gaps > WEDGE * typical)
    if not len(wide):
        return np.ones_like(theta)
    depth = np.zeros_like(theta)
    for gap, following in zip(wide, np.roll(wide, -1), strict=True):
        first = folded[(gap + 1) % len(folded)] - typical / 2
        length = np.mod(folded[following] - first, TURN) + typical / 2
        along = np.mod(theta - first, TURN)
        depth = np.maximum(depth, np.minimum(along, length - along))
    return depth
