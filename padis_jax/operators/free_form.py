"""Free-form masks: gaps as if painted over by a broad brush, of a given share of the image.

Random strokes with random turns and widths are how irregular gaps are drawn since Yu et al. (ICCV 2019, arXiv
1806.03589). Here every pixel has the time at which the brush first reaches it, strokes follow one another until enough
pixels have one, and the earliest are missing: the share is met to a pixel, and a mask of a smaller share is a part of
that of a larger one of the same key.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from padis_jax.operators.per_channel import checked_size

NEVER = float("inf")
LEAST = 1.5  # pixels across a brush, so that it always covers the centre of one
TURN = 0.8  # radians, deviation of the angle from piece to piece


def free_form_mask(
    key: Array, image_shape: tuple[int, int], *, missing: float = 0.25, steps: int = 8, width: float = 0.07
) -> Array:
    """[H, W], True where known: all but freehand brush strokes over `missing` of the pixels.

    A stroke starts anywhere and has `steps` straight pieces with round ends, each 1/2 to 3 of its widths long, which
    turn by a normal angle of 0.8 radians. The last stroke ends where the share is met.

    Args:
      key: decides all.
      image_shape: (H, W).
      missing: share of the pixels, 0.001 to 0.9; met to a pixel, but for pixels that the brush reaches at one time.
      steps: pieces per stroke.
      width: of a stroke, as a fraction of the image's smaller side; each is between 2/5 and all of it.

    Raises:
      ValueError: for a value out of range.
    """
    h, w = checked_size("free_form_mask", image_shape)
    if not 0.001 <= missing <= 0.9 or steps < 1 or not 0 < width < 1:
        raise ValueError(
            f"free_form_mask: missing {missing} must be 0.001 to 0.9, steps {steps} at least 1, width {width} in (0, 1)"
        )
    return _painted(key, h, w, max(1, round(missing * h * w)), steps, width)


@functools.partial(jax.jit, static_argnames=("h", "w", "count", "steps"))
def _painted(key: Array, h: int, w: int, count: int, steps: int, width: Array) -> Array:
    """[h, w], False in the `count` pixels that the brush reaches first."""
    rows, columns = jnp.arange(0.5, h, dtype=jnp.float32)[:, None], jnp.arange(0.5, w, dtype=jnp.float32)[None]

    def stroke(state: tuple[Array, Array]) -> tuple[Array, Array]:
        number, times = state
        begin_key, turn_key, length_key, width_key = jax.random.split(jax.random.fold_in(key, number), 4)
        begin = jax.random.uniform(begin_key, (1, 2), jnp.float32) * jnp.asarray([[h, w]], jnp.float32)
        turns = TURN * jax.random.normal(turn_key, (steps,), jnp.float32)
        first = jax.random.uniform(jax.random.fold_in(turn_key, 1), (), jnp.float32, 0.0, 2 * jnp.pi)
        across = jnp.maximum(width * min(h, w) * jax.random.uniform(width_key, (), jnp.float32, 0.4), LEAST)
        lengths = across * jax.random.uniform(length_key, (steps,), jnp.float32, 0.5, 3.0)
        heading = first + jnp.cumsum(turns)
        ways = lengths[:, None] * jnp.stack([jnp.sin(heading), jnp.cos(heading)], -1)
        starts = begin + jnp.cumsum(ways, 0) - ways
        spot = jnp.hypot(rows - begin[0, 0], columns - begin[0, 1]) / (across / 2)

        def piece(i: Array, found: Array) -> Array:
            dr, dc = rows - starts[i, 0], columns - starts[i, 1]
            return jnp.minimum(found, 1 + i + _reached(dr, dc, ways[i], lengths[i], across / 2))

        # The brush comes down and spreads, and then follows its pieces, each in a unit of time.
        found = lax.fori_loop(0, steps, piece, jnp.where(spot < 1, spot, NEVER))
        return number + 1, jnp.minimum(times, number.astype(jnp.float32) * (steps + 1) + found)

    def more(state: tuple[Array, Array]) -> Array:
        return jnp.sum(state[1] < NEVER) < count

    _, times = lax.while_loop(more, stroke, (jnp.int32(0), jnp.full((h, w), NEVER, jnp.float32)))
    return times > jnp.sort(times.ravel())[count - 1]


def _reached(dr: Array, dc: Array, way: Array, length: Array, radius: Array) -> Array:
    """0 to 1, when a brush on a straight way first touches a pixel that lies (dr, dc) from its start; else NEVER."""
    along = (dr * way[0] + dc * way[1]) / length
    aside = dr**2 + dc**2 - along**2
    half = jnp.sqrt(jnp.maximum(radius**2 - aside, 0))
    touched = (aside < radius**2) & (along + half > 0) & (along - half < length)
    return jnp.where(touched, jnp.clip((along - half) / length, 0, 1), NEVER)
