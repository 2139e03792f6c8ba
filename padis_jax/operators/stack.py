"""Several measurements of one image as one operator.

    [A; B] x = [A x; B x]        [A; B]' [y; z] = A' y + B' z        ||[A; s I]||^2 = ||A||^2 + s^2

Other norms as in `algebra`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.operators.algebra import FLOAT, Composable, Scaled, Shape, fits, gives_real, with_norm
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.per_channel import check_shape, with_channels


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["parts", "norm"],
    meta_fields=["image_shape", "shapes", "channelwise", "dtype", "real"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Stack(Composable):
    """[A; B; ...]; built by `stack`. `start` is the mean of the parts' starts.

    Attributes:
      parts: the operators.
      norm: ||[A; B; ...]||.
      image_shape: of x.
      shapes: of the parts' measurements.
      channelwise: whether channels may be last in all of them.
      dtype: of the images.
      real: whether the parts' measurements are: one that is complex makes all of y complex.
    """

    parts: tuple[Any, ...]
    norm: Array
    image_shape: Shape
    shapes: tuple[Shape, ...]
    channelwise: bool
    dtype: Any
    real: tuple[bool, ...]
    iterative = True  # pinv is by CG

    def structure(self) -> Hashable:
        """Of the parts."""
        return "stack", *(part.structure() for part in self.parts)

    @property
    def measurement_shape(self) -> Shape:
        """(sum of the first axes, the other axes), or (sum of the sizes,)."""
        return (sum(self._lengths), *(() if self._flat else self.shapes[0][1:]))

    @property
    def volumes(self) -> bool:
        """Whether images are volumes."""
        return any(getattr(part, "volumes", False) for part in self.parts)

    @property
    def measured(self) -> Array:
        """That of the parts, 1 for those without; not there where no part has it."""
        if not any(hasattr(part, "measured") for part in self.parts):
            raise AttributeError("measured")
        pairs = zip(self.parts, self.shapes, strict=True)
        return self._joined([with_channels(getattr(part, "measured", jnp.ones(shape)), shape) for part, shape in pairs])

    @property
    def _flat(self) -> bool:
        return () in self.shapes or len({shape[1:] for shape in self.shapes}) > 1

    @property
    def _lengths(self) -> list[int]:
        return [math.prod(shape) if self._flat else shape[0] for shape in self.shapes]

    def _joined(self, parts: Sequence[Array]) -> Array:
        if self._flat:
            parts = [y.reshape(-1, *y.shape[len(shape) :]) for y, shape in zip(parts, self.shapes, strict=True)]
        with jax.numpy_dtype_promotion("standard"):  # a complex part makes all of y complex
            return jnp.concatenate(parts)

    def _split(self, measurement: Array) -> list[Array]:
        y = jnp.asarray(measurement)
        check_shape("measurement", y, self.measurement_shape, channels=self.channelwise)
        channels = y.shape[len(self.measurement_shape) :]
        pieces = jnp.split(y, list(itertools.accumulate(self._lengths))[:-1])
        pieces = [jnp.real(piece) if real else piece for piece, real in zip(pieces, self.real, strict=True)]
        return [piece.reshape(*shape, *channels) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def __call__(self, image: Array) -> Array:
        """[A x; B x; ...]."""
        return self._joined([part(image) for part in self.parts])

    def T(self, measurement: Array) -> Array:
        """A' y + B' z + ..."""
        images = [part.T(y) for part, y in zip(self.parts, self._split(measurement), strict=True)]
        return sum(images[1:], images[0])

    def start(self, measurement: Array) -> Array:
        """The mean of the parts' starts."""
        images = [part.start(y) for part, y in zip(self.parts, self._split(measurement), strict=True)]
        return sum(images[1:], images[0]) / len(images)

    def pinv(self, measurement: Array) -> Array:
        """[A; B; ...]+ y (`least_squares.pseudo_inverse`)."""
        return pseudo_inverse(self.__call__, self.T, measurement)


def stack(operators: Sequence[Any]) -> Stack:
    """[A; B; ...]: several measurements of one image as one operator.

    The measurement is one array. Where those of the parts differ in no axis but the first, it is their concatenation
    along that: a scan of 20 views and one of 30 are a scan of 50. Else each is flattened, and they make a vector.
    Channels stay last in both.

        >>> import jax.numpy as jnp
        >>> from padis_jax.operators import Downsample, Inpaint, stack
        >>> mask = Inpaint(mask=jnp.eye(8, 12))
        >>> stack([mask, mask])(jnp.ones((8, 12, 3))).shape
        (16, 12, 3)
        >>> stack([mask, Downsample(image_shape=(8, 12), factor=4)])(jnp.ones((8, 12, 3))).shape
        (102, 3)

    To least squares, all entries of a measurement are equally noisy. Where the noise of A x has the deviation s and
    that of B x has t, stack([(1 / s) * A, (1 / t) * B]) takes y / s and z / t.

    Args:
      operators: of this package, for the same images.

    Raises:
      ValueError: no operators, others than this package's, or some for images of another shape or type.
    """
    parts = tuple(operators) if isinstance(operators, Sequence) else (operators,)
    if not parts or not all(isinstance(part, Composable) for part in parts):
        raise ValueError(
            f"stack: give at least one operator, all of this package or made by from_functions, not "
            f"{', '.join(type(part).__name__ for part in parts) or 'none'}"
        )
    free = [getattr(part, "channelwise", True) for part in parts]
    first = parts[0] if all(free) else parts[free.index(False)]
    dtype = getattr(first, "dtype", FLOAT)
    for part, any_channels in zip(parts, free, strict=True):
        if not fits(first.image_shape, part.image_shape, channels=any_channels and not all(free)):
            raise ValueError(f"stack: operators for images of shape {first.image_shape} and of {part.image_shape}")
        if not any_channels and part.dtype != dtype:
            raise ValueError(f"stack: operators for images of type {dtype} and of {part.dtype}")
    shapes = tuple((*part.measurement_shape, *first.image_shape[len(part.image_shape) :]) for part in parts)
    real = tuple(not all(free) and gives_real(part, first.image_shape, dtype) for part in parts)
    whole = Stack(parts, jnp.float32(0), first.image_shape, shapes, all(free), dtype, real)
    plain = [part.operator if isinstance(part, Scaled) else part for part in parts]
    units = [part for part, inner in zip(parts, plain, strict=True) if getattr(inner, "identity", False)]
    if not units and len(parts) > 1:
        return with_norm(whole)
    rest = [part for part in parts if part not in units]
    known = units + ([stack(rest)] if len(rest) > 1 else rest)
    return dataclasses.replace(whole, norm=jnp.sqrt(sum(jnp.square(part.norm) for part in known)))
