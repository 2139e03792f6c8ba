"""A level set fitted to the measured rays: what follows each restart of a prior of coarse pixels (restarts.py).

Coarse pixels get edges wrong by more than the noise, so TMPD with a coarse prior has to assume more noise than the rays
have. Here a disc is where a function phi on a grid is above 0, with an edge as sharp as the projector's pixels:

    minimise over phi    sum (A x - y)^2 / (2 s^2)  +  SMOOTHNESS sum (L phi)^2,    x = sigmoid(STEEPNESS phi),

x on pixels four times as fine as those of phi, A their line integrals (two by two joined), L the discrete Laplacian, s
the deviation of the noise of each value. It starts from phi = 2 image - 1 and takes a fixed number of steps of Adam
(Kingma and Ba, arXiv 1412.6980), short of convergence: the image that it starts from says which holes there are. (Level
sets for inverse problems: Santosa, ESAIM: Control, Optimisation and Calculus of Variations 1 (1996).)
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from studies.htc2022.data import Arc, scanner

FINER = 4  # pixels of x along the side of one of phi's
SMOOTHNESS, STEEPNESS = 3.0, 8.0  # the latter: phi from 0 to 1 / 8 is from a half to 73 % material
STEPS, RATE = 300, 0.06  # of Adam; its first step size, in units of phi, which falls to 0 along a cosine


def level_set_fit(arc: Arc, side: int, *, noise: float | np.ndarray) -> Callable[[Array], Array]:
    """A compiled function: image of any size -> image [side, side] with contours that fit the rays.

    Args:
      arc: its values are paths in mm.
      side: of the grid of phi.
      noise: deviation of the values, in mm, above 0; one, or [views, bins].
    """
    scan, y = scanner(arc, side * FINER // 2), jnp.asarray(arc.sinogram)[..., None]
    weights = jnp.asarray(np.broadcast_to(0.5 / np.square(noise), arc.sinogram.shape), jnp.float32)[..., None]
    adam = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def loss(phi: Array) -> Array:
        residual = scan(_joined(_material(phi), 2)[..., None]) - y
        return jnp.sum(weights * jnp.square(residual)) + SMOOTHNESS * jnp.sum(jnp.square(_laplacian(phi)))

    @jax.jit
    def fit(image: Array) -> Array:
        phi = 2 * jnp.clip(jax.image.resize(image, (side, side), "linear"), 0, 1) - 1

        def step(state: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
            phi, moments = state
            update, moments = adam.update(jax.grad(loss)(phi), moments)
            return (phi + update, moments), None

        (phi, _), _ = jax.lax.scan(step, (phi, adam.init(phi)), None, length=STEPS)
        return _joined(_material(phi), FINER)

    return fit


def _material(phi: Array) -> Array:
    """x, on pixels FINER times as fine as phi's."""
    return jax.nn.sigmoid(STEEPNESS * jax.image.resize(phi, [FINER * n for n in phi.shape], "cubic"))


def _joined(x: Array, by: int) -> Array:
    """The mean of by x by pixels."""
    height, width = x.shape
    return jnp.mean(x.reshape(height // by, by, width // by, by), axis=(1, 3))


def _laplacian(phi: Array) -> Array:
    """Of the points that have four neighbours."""
    return 4 * phi[1:-1, 1:-1] - phi[2:, 1:-1] - phi[:-2, 1:-1] - phi[1:-1, 2:] - phi[1:-1, :-2]
