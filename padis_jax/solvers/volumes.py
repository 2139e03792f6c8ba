"""The problem y = A x of a volume: one data step for all slices, and what may tie neighbouring slices in it.

Volumes are [D, H, W], states [Dp, Hp, Wp]; steps are those of images, which see arrays and a frame. The options of
`Along`, from nothing to both:

    tv       the data step adds 2 tv ||A||^2 sum |u_{k+1} - u_k|, by the quadratic that touches it at the denoised D,
             sum (u_{k+1} - u_k)^2 / (2 s_k) + const with s_k = sqrt((D_{k+1} - D_k)^2 + knee^2) (lagged diffusivity;
             Vogel and Oman, SIAM J. Sci. Comput. 17, 227, 1996): one more term in the same conjugate gradients, and one
             volume of weights, where splitting the variable would keep two
    noise    fresh noise z_k of slice k from n anchors e_j, standard normal, spread evenly over the padded slices:
             z_k = cos(t pi/2) e_j + sin(t pi/2) e_{j+1}, t the distance to anchor j in spacings of anchors. That is the
             spherical interpolation of orthogonal vectors, which normal ones of many entries nearly are, and leaves
             every z_k standard normal, exactly

Neither changes the equations where there is one slice.

Where the prior's frame has a `skip`, the slices of its slabs are that far apart on every other level, counted from the
lowest, on which they are neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.errors import UserError
from padis_jax.fields import single
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers.checks import as_arrays, check_operator, check_settings, checked, measured_by, refuse_batch
from padis_jax.solvers.draws import Mix, in_parts, mixed, normal
from padis_jax.solvers.problem import NUMPY, Problem, as_pytree
from padis_jax.solvers.sampling import Noise
from padis_jax.volume_prior import VolumePrior

TIED = ("dds", "diffpir", "pnp_admm", "pnp_red")  # methods whose data step knows `tv`
DRAWING = ("dds", "diffpir", "pigdm", "dps")  # methods whose fresh noise is the problem's


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Along:
    """What ties the slices of a volume, beside the prior; the default is nothing.

    >>> from padis_jax.solvers.volumes import Along
    >>> Along(tv=1e-4).noise  # reconstruct(key, y, A, prior, along=...)
    'fresh'

    Attributes:
      tv: weight of the total variation along z in the data step, in image units; see the module's text.
      knee: differences of neighbouring slices, in image units, below which the variation is as good as quadratic.
      noise: "fresh" for every voxel, or "anchored".
      anchors: n, at least 2; of "anchored".

    Raises:
      ValueError: for a field of another type or outside of its interval: tv [0, inf], knee (0, inf], anchors [2, inf].
    """

    tv: float | Array = 0.0
    knee: float | Array = 0.01
    noise: Literal["fresh", "anchored"] = dataclasses.field(default="fresh", metadata={"static": True})
    anchors: int = dataclasses.field(default=2, metadata={"static": True})

    def __post_init__(self) -> None:
        check_settings(self, tv="[0, inf]", knee="(0, inf]", anchors="[2, inf]")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VolumeProblem(Problem):
    """`Problem` for volumes [D, H, W], without a channel axis. A pytree.

    Attributes:
      along: what ties the slices; None for nothing.
      tied: whether the data step does.
      links: [D - 1, H, W], 1 / s of the data step's variation along z; None outside of such a step.
      left: levels below that of the step, which choose the slices of a slab; None where these are always neighbours.
    """

    frame: VolumeFrame = dataclasses.field(metadata={"static": True})  # type: ignore[assignment]
    along: Along | None = None
    tied: bool = dataclasses.field(default=False, metadata={"static": True})
    links: Array | None = None
    left: Array | int | None = None

    def at(self, noise: Noise) -> VolumeProblem:
        """The problem of a step."""
        return dataclasses.replace(self, left=noise.left)

    def denoised(self, key: Array, plane: Array, sigma: Array) -> Array:
        """D, float32."""
        if self.left is None:
            return super().denoised(key, plane, sigma)
        return single(self.denoise(key, plane, sigma, jnp.asarray(self.left) % 2 == 1))

    def image_shape(self, channels: int) -> tuple[int, ...]:
        """(D, H, W)."""
        return self.frame.image_shape

    def adjoint(self, y: Array) -> Array:
        """A* y as a volume [D, H, W]."""
        return super().adjoint(y)[..., 0]

    def pinv(self, y: Array, *, tolerance: float | Array) -> Array:
        """A+ y as a volume [D, H, W]."""
        linear = dataclasses.replace(self, left=None)  # of which a whole number is no part
        return Problem.pinv(linear, y, tolerance=tolerance).reshape(self.frame.image_shape)

    def drawn(self, key: Array, plane: Array) -> Array:
        """Standard normal noise, correlated along z if the slices are tied by it."""
        if self.along is not None and self.along.noise != "fresh":
            return anchored(key, plane.shape, plane.dtype, self.along.anchors)
        return normal(key, plane.shape) if in_parts(key, plane) else super().drawn(key, plane)

    def mixed(self, mix: Mix, key: Array, plane: Array, *others: Array) -> Array:
        """mix(plane, *others, z), of fresh noise a part of the slices at a time, where the plane is."""
        fresh = self.along is None or self.along.noise == "fresh"
        call = mixed if fresh and in_parts(key, plane) else super().mixed
        return call(mix, key, plane, *others)

    def about(self, image: Array) -> VolumeProblem:
        """The problem whose data term holds the quadratic that touches the variation along z at a volume."""
        if self.along is None or not self.tied:
            return self
        step = image[1:] - image[:-1]
        return dataclasses.replace(self, links=1 / jnp.sqrt(jnp.square(step) + jnp.square(self.along.knee)))

    def normal(self, image: Array) -> Array:
        """A* A x, and what ties the slices."""
        return super().normal(image) + self._tension(image) if self.links is not None else super().normal(image)

    def descent(self, image: Array, residual: Array) -> Array:
        """Minus the gradient of the data term."""
        pull = self.adjoint(residual)
        return pull - self._tension(image) if self.links is not None else pull

    def _tension(self, image: Array) -> Array:
        """tv ||A||^2 times the gradient of sum links (x_{k+1} - x_k)^2 / 2."""
        assert self.along is not None and self.links is not None
        flow = self.along.tv * jnp.square(self.norm) * self.links * (image[1:] - image[:-1])
        zero = jnp.zeros_like(image[:1])
        return jnp.concatenate([zero, flow]) - jnp.concatenate([flow, zero])


def anchored(key: Array, shape: tuple[int, ...], dtype: Any, anchors: int) -> Array:
    """Standard normal noise [Dp, ...], of which slices between two anchors interpolate these on the sphere."""
    ends = jax.random.normal(key, (anchors, *shape[1:]), dtype)
    at = np.linspace(0, anchors - 1, shape[0])
    before = np.minimum(at.astype(int), anchors - 2)
    angle = jnp.asarray((at - before) * np.pi / 2, dtype).reshape(-1, *(1,) * (len(shape) - 1))
    return jnp.cos(angle) * ends[before] + jnp.sin(angle) * ends[before + 1]


def step_at(step: Any, problem: VolumeProblem, key: Array, state: Any, noise: Noise) -> tuple[Any, Any]:
    """A step whose problem knows the level: step(problem, key, state, noise)."""
    found: tuple[Any, Any] = step(problem.at(noise), key, state, noise)
    return found


def build_volume_problem(
    operator: Any, prior: VolumePrior, measurement: ArrayLike, along: Along | None, method: str
) -> VolumeProblem:
    """Checks that operator, measurement and frame fit, and joins them.

    Args:
      operator: any callable with `.T` and `.norm` for volumes [D, H, W].
      prior: of volumes of that shape.
      measurement: y, finite.
      along: what ties the slices; None for nothing.
      method: the solver's name in the registry.

    Raises:
      UserError: with what does not fit and the remedy.
    """
    tied = along is not None and _check_along(along, method)
    check_operator(operator)
    y, shape = checked("measurement", measurement), prior.frame.image_shape
    try:
        out = jax.eval_shape(lambda x: operator(x), jax.ShapeDtypeStruct(shape, jnp.float32))
        back = jax.eval_shape(lambda r: operator.T(r), out)
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(NUMPY) from error
    except (TypeError, ValueError, AssertionError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the operator does not take the prior's volumes {shape} ({why}): {_remedy(shape)}") from error
    if getattr(out, "shape", None) != y.shape or getattr(back, "shape", None) != shape:
        refuse_batch("reconstruct", y.shape, getattr(out, "shape", None), "keys and measurements")
        found = f"gives {getattr(out, 'shape', '?')} and .T of it {getattr(back, 'shape', '?')}"
        raise UserError(f"measurement {y.shape}: of volumes {shape} the operator {found}; {_remedy(shape)}")
    return VolumeProblem(
        as_pytree(operator),
        prior.denoise,
        measured_by(out.dtype, y),
        prior.frame,
        along=None if along is None else as_arrays(along),
        tied=tied and shape[0] > 1,
    )


def _remedy(shape: tuple[int, ...]) -> str:
    return f"build it for volume_shape {shape} and this measurement, or take a prior for the operator's volumes"


def _check_along(along: Any, method: str) -> bool:
    """Whether the data step ties the slices; UserError where the method does not know of what is asked for."""
    if not isinstance(along, Along):
        raise UserError(f"along is a {type(along).__name__}: give Along(...)")
    tied = not isinstance(along.tv, (int, float)) or along.tv > 0
    for wanted, name, known in ((tied, "tv", TIED), (along.noise != "fresh", "noise", DRAWING)):
        if wanted and method not in known:
            raise UserError(f"along.{name} has no part in {method}: leave it out, or use one of {', '.join(known)}")
    return tied
