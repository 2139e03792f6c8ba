"""Total variation, the classical baseline: isotropic, non-negative, by a primal-dual method.

    min_x  1/2 ||A x - y||^2 + weight TV(x),     TV(x) = sum over pixels and channels of sqrt(dx^2 + dy^2)

with forward differences of neighbouring pixels (in image units, whatever the pixel's size), 0 at the far edges.
This is the problem of what the literature calls ADMM-TV (with x >= 0); only the algorithm that finds its minimum is
another. `weight` has the squared units of y per image unit: for an operator c A and measurements c y it is c^2 weight.
Where the entries of y differ in their noise, A and y are W^(1/2) A and W^(1/2) y (operators/weighting.py).

Both terms are dualised (Chambolle and Pock, J. Math. Imaging Vis. 40, 120, 2011, algorithm 1) with a step size each, in
the sense of diagonal preconditioning (Pock and Chambolle, ICCV 2011):

    x' <- max(0, x - tau (A* p + grad* q))                   xbar <- 2 x' - x
    p  <- (p + s_A (A xbar - y)) / (1 + s_A)                 q <- project(q + s_D grad xbar) on |q| <= weight
    tau = pace / weight,   s_A = share / (tau ||A||^2),   s_D = (1 - share) / (8 tau)

so that tau (s_A ||A||^2 + 8 s_D) = 1, where 8 bounds ||grad||^2. q is at most `weight`, so `pace` is about how far a
pixel moves in one iteration, whatever the units of y. Cost: one A and one A* an iteration; no network.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from padis_jax.errors import UserError
from padis_jax.fields import single
from padis_jax.operators.unit import length, power_of_two
from padis_jax.solvers.checks import as_arrays, check_settings
from padis_jax.solvers.problem import fitting


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TV:
    """Settings. All but `nonnegative` are arguments of the compiled loop, so a search over them compiles once.

    Source: Chambolle and Pock, J. Math. Imaging Vis. 40, 120, 2011, algorithm 1, for min 1/2 ||A x - y||^2 + weight
    TV(x); steps of Pock and Chambolle, ICCV 2011.

    >>> import padis_jax as pj
    >>> pj.TV(weight=0.003).iterations  # total_variation(y, A, settings=...)
    500

    Attributes:
      weight: of the total variation, in the units of the module's equation; positive.
      iterations: each costs one A and one A*.
      pace: sets the speed of convergence, not the answer; in image units.
      share: of the data term in the step sizes, between 0 and 1; likewise.
      nonnegative: constrain x >= 0.

    Raises:
      ValueError: for a field of another type or outside of its interval: weight (0, inf], iterations (0, inf], pace
        (0, inf], share (0, 1).
    """

    weight: float | Array = 0.1
    iterations: int | Array = 500
    pace: float | Array = 0.01
    share: float | Array = 0.8
    nonnegative: bool = dataclasses.field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, weight="(0, inf]", iterations="(0, inf]", pace="(0, inf]", share="(0, 1)")

    @property
    def volumes(self) -> bool:
        """Whether it is of volumes [D, H, W]."""
        return False

    @property
    def bound(self) -> float | Array:
        """8, which bounds ||grad||^2."""
        return 8

    def gradient(self, x: Array) -> Array:
        """The differences whose length is summed; volume_tv.py has others."""
        return gradient(x)

    def gradient_adjoint(self, q: Array) -> Array:
        """The transpose of `gradient`."""
        return gradient_adjoint(q)


class TVResult(NamedTuple):
    """What `total_variation` returns.

    Attributes:
      image: in the shape that A.T gives, [H, W] or [H, W, C].
      change: the largest of ||x' - x|| / ||x'|| and the same for p and q in the last iteration: 0 when converged.
    """

    image: Array
    change: Array


def total_variation(
    measurement: ArrayLike, operator: Any, *, settings: TV | None = None, noise_std: ArrayLike | None = None
) -> TVResult:
    """The image that minimises 1/2 ||A x - y||^2 + weight TV(x), each channel by itself.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> step = jnp.zeros((8, 8, 1)).at[:, 4:].set(1.0)
    >>> half = pj.from_functions(lambda x: x / 2, image_shape=(8, 8, 1))
    >>> image = pj.total_variation(half(step), half, settings=pj.TV(weight=1e-3)).image
    >>> bool(abs(image - step).max() < 0.05)
    True

    Args:
      measurement: y, finite.
      operator: a callable with `.T` and `.norm`; the shape of the image is that of `.T(y)`.
      settings: weight and count; None for the defaults. Operators on volumes want `VolumeTV`.
      noise_std: standard deviation of the noise of y, one number or one for each entry. Entries weigh 1 / variance, on
        average 1: one number, or the same everywhere, changes nothing. See `reconstruct`.

    Raises:
      ValueError: if y does not fit the operator or is not finite, and for a noise of another shape or below 0.
    """
    if not isinstance(settings, TV | None):
        raise UserError(f"settings is a {type(settings).__name__}: give TV(...)")
    settings = settings or TV()
    if getattr(operator, "volumes", False) and not settings.volumes:
        raise UserError(
            "this operator is on volumes, and TV is of images: give settings=VolumeTV(...) (solvers.volume_tv)"
        )
    wrapped, y = fitting("total_variation", measurement, operator, noise_std)
    return _solve(as_arrays(settings), wrapped, y)


@jax.jit
def _solve(settings: TV, operator: Any, y: Array) -> TVResult:
    shape = jax.eval_shape(lambda r: operator.T(r), y).shape
    tau = settings.pace / settings.weight
    norm = 1.01 * jnp.asarray(operator.norm, jnp.float32)  # which may be 1e-3 too small
    data_step = settings.share / (tau * jnp.square(norm))
    data_step = jnp.asarray(data_step, y.dtype)
    gradient_step = (1 - settings.share) / (settings.bound * tau)
    scale = power_of_two(jnp.asarray(settings.weight))

    def iterate(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, p, q = state
        x_next = x - tau * (single(jnp.real(operator.T(p))) + settings.gradient_adjoint(q))
        if settings.nonnegative:
            x_next = jnp.maximum(x_next, 0)
        ahead = 2 * x_next - x
        p = (p + data_step * (single(operator(ahead)) - y)) / (1 + data_step)
        q = q + gradient_step * settings.gradient(ahead)
        size = jnp.sqrt(jnp.sum(jnp.square(scale * q), axis=0, keepdims=True))
        return x_next, p, q * jnp.minimum(1, scale * settings.weight / jnp.maximum(size, jnp.finfo(size.dtype).tiny))

    zero = jnp.zeros(shape, jnp.float32)
    state = (zero, jnp.zeros_like(y), settings.gradient(zero))
    before = lax.fori_loop(jnp.int32(0), settings.iterations - 1, lambda _, s: iterate(s), state)
    after = iterate(before)
    changes = [
        length(b - a) / jnp.maximum(length(b), jnp.finfo(jnp.float32).tiny) for a, b in zip(before, after, strict=True)
    ]
    return TVResult(after[0], jnp.max(jnp.stack(changes)))


def gradient(x: Array) -> Array:
    """Forward differences down and along: [H, W, ...] -> [2, H, W, ...], 0 at the far edges."""
    down = jnp.concatenate([x[1:] - x[:-1], jnp.zeros_like(x[:1])], axis=0)
    along = jnp.concatenate([x[:, 1:] - x[:, :-1], jnp.zeros_like(x[:, :1])], axis=1)
    return jnp.stack([down, along])


def gradient_adjoint(q: Array) -> Array:
    """[2, H, W, ...] -> [H, W, ...]: the transpose of `gradient`, minus a divergence."""
    down, along = q[0, :-1], q[1, :, :-1]
    zero_row, zero_column = jnp.zeros_like(q[0, :1]), jnp.zeros_like(q[1, :, :1])
    first = jnp.concatenate([zero_row, down], axis=0) - jnp.concatenate([down, zero_row], axis=0)
    return first + jnp.concatenate([zero_column, along], axis=1) - jnp.concatenate([along, zero_column], axis=1)
