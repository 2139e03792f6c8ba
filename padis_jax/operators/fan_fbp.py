"""Weights of filtered backprojection for fan beams with a flat detector (Kak and Slaney, section 3.4.2).

With the symbols of `fan`, the inversion formula of parallel beams turns, by the change of variables (t, u) -> angle and
offset of the ray, whose Jacobian is (d cos g + a sin g) dg/du with dg/du = cos^2 g / D, into

    f(x, y) = sum_t w_t D/L^2 q_t(u(x, y)),     q_t = s (p_t (d cos g + a sin g) W_t * h)

u(x, y) and L are where a pixel meets the detector and its depth, h the ramp of `fbp`, w_t the angle that the view
stands for, and W the share of the ray (t, g) in the line it measures, which the ray from the other side measures too:

    t' = t + pi + g' - g,     g' = 2 atan(a/d) - g,     W(t, g) + W(t', g') = 1.

`shares` has W.
"""

from __future__ import annotations

import numpy as np

from padis_jax.operators.fbp import view_weights
from padis_jax.operators.shares import TURN, ray_shares


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
    other_gamma = 2 * np.arctan2(rotation_offset, source_distance) - gamma
    other_u = np.where(np.abs(other_gamma) < np.pi / 2, total_distance * np.tan(other_gamma), np.inf)
    shares = ray_shares(angles, u, other_u=other_u, turn=np.pi + other_gamma - gamma)
    return view_weights(angles, TURN)[:, None] * jacobian * shares
