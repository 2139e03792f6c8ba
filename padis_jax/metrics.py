"""How far an image is from the truth: PSNR, SSIM in two variants, RMSE within the head, relative error.

    PSNR = 10 log10(range^2 / mean (x - y)^2)
    SSIM = mean over windows of (2 m_x m_y + c1) (2 v_xy + c2) / ((m_x^2 + m_y^2 + c1) (v_x + v_y + c2))
    c1 = (0.01 range)^2   c2 = (0.03 range)^2        (Wang et al., IEEE TIP 13(4), 2004)

`ssim` has the 7 x 7 uniform window and sample covariance of scikit-image's default, which the PaDIS paper reports;
`ssim_gaussian` the window of Wang et al. They differ by 0.01 to 0.02, so a table states which it shows. Only windows
wholly inside the image count. Nothing is clipped here: the convention for tables is to clip x to [0, 1] first.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from scipy import ndimage

from padis_jax.fields import single
from padis_jax.window import HOUNSFIELD, PLAIN, Window

SKIN = -500.0  # HU, between air and skin
_UNIFORM = tuple([1 / 7] * 7)
_BELL = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # sigma 1.5, cut at 3.5 sigma: 11 pixels
_GAUSSIAN = tuple((_BELL / _BELL.sum()).tolist())


def psnr(x: ArrayLike, y: ArrayLike, *, data_range: float = 1.0) -> Array:
    """Peak signal-to-noise ratio in dB, over all pixels and channels.

    >>> import numpy as np, padis_jax as pj
    >>> round(float(pj.psnr(np.full((8, 8), 0.5), np.full((8, 8), 0.6))), 2)
    20.0

    Args:
      x: an image, any shape.
      y: the truth, of the same shape.
      data_range: the distance between the darkest and the brightest possible value.

    Returns:
      float32 []; infinity where x equals y.

    Raises:
      ValueError: if the shapes differ.
    """
    a, b = _pair(x, y)
    return 20.0 * jnp.log10(jnp.float32(data_range)) - 10.0 * jnp.log10(jnp.mean(jnp.square(a - b)))


def ssim(x: ArrayLike, y: ArrayLike, *, data_range: float = 1.0) -> Array:
    """Structural similarity with a 7 x 7 uniform window and sample covariance (scikit-image's default).

    >>> import numpy as np, padis_jax as pj
    >>> image = np.random.default_rng(0).random((16, 16))
    >>> round(float(pj.ssim(image, image)), 4)
    1.0

    Args:
      x: an image [H, W] or [H, W, C]; channels are averaged.
      y: the truth, of the same shape.
      data_range: the distance between the darkest and the brightest possible value.

    Returns:
      float32 [], at most 1.

    Raises:
      ValueError: if the shapes differ or an image is smaller than the window.
    """
    return _ssim(*_planes(x, y, 7), data_range, weights=_UNIFORM, unbias=49 / 48)


def ssim_gaussian(x: ArrayLike, y: ArrayLike, *, data_range: float = 1.0) -> Array:
    """Structural similarity with an 11 x 11 Gaussian window, sigma 1.5 pixels; arguments and errors as for `ssim`.

    Equal to scikit-image's with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    """
    return _ssim(*_planes(x, y, 11), data_range, weights=_GAUSSIAN, unbias=1.0)


def rmse(x: ArrayLike, y: ArrayLike, *, mask: ArrayLike | None = None, window: Window = PLAIN) -> Array:
    """Root mean square error in the window's unit; with `images.HOUNSFIELD` and `head_mask` that is HU within the head.

    Args:
      x: an image [H, W] or [H, W, C] in the window's [0, 1].
      y: the truth, of the same shape.
      mask: boolean [H, W]; the pixels that count, all without it.
      window: turns differences in [0, 1] into its unit.

    Returns:
      float32 []; NaN where the mask is empty.

    Raises:
      ValueError: if the shapes do not fit.
    """
    a, b = _pair(x, y)
    square = jnp.square(a - b)
    if mask is None:
        mean = jnp.mean(square)
    else:
        inside = jnp.asarray(mask, bool)
        if inside.shape != square.shape[:2]:
            raise ValueError(f"the mask has shape {inside.shape}, the image {square.shape}; the mask must be [H, W]")
        inside = jnp.broadcast_to(inside.reshape(inside.shape + (1,) * (square.ndim - 2)), square.shape)
        mean = jnp.sum(jnp.where(inside, square, 0.0)) / jnp.sum(inside).astype(square.dtype)
    return (window.high - window.low) * jnp.sqrt(mean)


def relative_error(estimate: ArrayLike, reference: ArrayLike) -> Array:
    """||estimate - reference|| / ||reference||, Frobenius; with A x and the measurement y it is the data residual.

    Args:
      estimate: any shape, real or complex.
      reference: of the same shape.

    Returns:
      float32 [].

    Raises:
      ValueError: if the shapes differ.
    """
    a, b = single(estimate), single(reference)
    _same_shape(a.shape, b.shape)
    if jnp.iscomplexobj(a) != jnp.iscomplexobj(b):
        a, b = a.astype(jnp.complex64), b.astype(jnp.complex64)
    return jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel())


def matthews(found: np.ndarray, truth: np.ndarray) -> float:
    """Matthews correlation coefficient of two segmentations: their Pearson correlation as 0 and 1.

    Args:
      found: boolean, any shape.
      truth: boolean, of the same shape.

    Returns:
      In [-1, 1]; 0 where one of them is constant.

    Raises:
      ValueError: if the shapes differ or an array is not boolean.
    """
    a, b = np.asarray(found), np.asarray(truth)
    _same_shape(a.shape, b.shape)
    if a.dtype != bool or b.dtype != bool:
        raise ValueError(f"matthews: both must be boolean, got {a.dtype} and {b.dtype}")
    x, y = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


class Coverage(NamedTuple):
    """How often intervals between order statistics hold the truth.

    Attributes:
      nominal: share expected if truth and samples were drawn alike, (K + 1 - 2 j) / (K + 1).
      found: share of pixels whose truth lies within.
    """

    nominal: float
    found: float


def coverage(samples: ArrayLike, truth: ArrayLike, *, mask: ArrayLike | None = None) -> list[Coverage]:
    """Pixel-wise intervals from the j-th smallest to the j-th largest of K samples, for j = 1 .. K // 2.

    If the truth of a pixel were one more draw from what the samples are drawn from, all K + 1 ranks would be equally
    likely, whatever the distribution; hence the nominal share. Bounds belong to the interval: pixels where all samples
    and the truth are equal (air clipped to 0) always count as held, so take a mask where there are many.

    Args:
      samples: [K, H, W] or [K, H, W, C], K at least 2.
      truth: the shape of one sample.
      mask: boolean [H, W], or of the shape of one sample; the values that count, all without it.

    Returns:
      Widest interval first.

    Raises:
      ValueError: if the shapes do not fit, there are fewer than 2 samples, or the mask is empty.
    """
    drawn, reference = np.asarray(samples, np.float32), np.asarray(truth, np.float32)
    if drawn.ndim < 3 or len(drawn) < 2:
        raise ValueError(f"coverage needs at least 2 samples [K, H, W] or [K, H, W, C], got {drawn.shape}")
    _same_shape(drawn.shape[1:], reference.shape)
    inside = np.ones(reference.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if inside.shape not in (reference.shape[:2], reference.shape) or not inside.any():
        raise ValueError(f"the mask has shape {inside.shape} and {inside.sum()} pixels, the image {reference.shape}")
    count, ordered = len(drawn), np.sort(drawn, axis=0)
    return [
        Coverage(
            (count + 1 - 2 * j) / (count + 1),
            float(((ordered[j - 1] <= reference) & (reference <= ordered[count - j]))[inside].mean()),
        )
        for j in range(1, count // 2 + 1)
    ]


def head_mask(image: ArrayLike, *, window: Window = HOUNSFIELD) -> np.ndarray:
    """The head in a CT slice: the largest connected region above SKIN, its holes (air in sinuses) filled.

    Args:
      image: [H, W] or [H, W, 1] in the window's [0, 1]; take the truth, so that all methods share the mask.
      window: of the image, in HU.

    Returns:
      Boolean numpy array [H, W]; all False where nothing is above SKIN. Not for use under jit.

    Raises:
      ValueError: for another shape.
    """
    plane = np.asarray(image)
    plane = plane[..., 0] if plane.ndim == 3 and plane.shape[-1] == 1 else plane
    if plane.ndim != 2:
        raise ValueError(f"head_mask needs an image [H, W] or [H, W, 1], got {plane.shape}")
    labels, count = ndimage.label(window.from_unit(plane) > SKIN)
    if count == 0:
        return np.zeros(plane.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return ndimage.binary_fill_holes(labels == largest)


def _same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    if a != b:
        raise ValueError(f"images of shapes {a} and {b} cannot be compared; they must be the same")


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    a, b = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    _same_shape(a.shape, b.shape)
    return a, b


def _planes(x: ArrayLike, y: ArrayLike, side: int) -> tuple[Array, Array]:
    """Both images as [H, W, C], checked against a window of `side` pixels."""
    a, b = _pair(x, y)
    if a.ndim not in (2, 3) or min(a.shape[:2]) < side:
        raise ValueError(f"SSIM needs images [H, W] or [H, W, C] of at least {side} x {side} pixels, got {a.shape}")
    return (a[..., None], b[..., None]) if a.ndim == 2 else (a, b)


@functools.partial(jax.jit, static_argnames=("weights", "unbias"))
def _ssim(x: Array, y: Array, data_range: ArrayLike, *, weights: tuple[float, ...], unbias: float) -> Array:
    """Two passes, means and then centred products: E[x^2] - E[x]^2 would cancel in float32 where the image is flat."""
    both, side = jnp.stack([x, y]), len(weights)
    h, w, c = x.shape
    shifts = jnp.stack(jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    kernel = jnp.asarray(np.outer(weights, weights).ravel(), jnp.float32)

    def shifted(shift: Array) -> Array:
        return lax.dynamic_slice(both, (0, shift[0], shift[1], 0), (2, h - side + 1, w - side + 1, c))

    def add_mean(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        return total + item[0] * shifted(item[1]), None

    means, _ = lax.scan(add_mean, jnp.zeros((2, h - side + 1, w - side + 1, c)), (kernel, shifts))

    def add_products(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        a, b = shifted(item[1]) - means
        return total + item[0] * jnp.stack([a * a, b * b, a * b]), None

    products, _ = lax.scan(add_products, jnp.zeros((3, h - side + 1, w - side + 1, c)), (kernel, shifts))
    (m_x, m_y), (v_x, v_y, v_xy) = means, unbias * products
    c1, c2 = jnp.square(0.01 * data_range), jnp.square(0.03 * data_range)
    similarity = (2 * m_x * m_y + c1) * (2 * v_xy + c2) / ((m_x**2 + m_y**2 + c1) * (v_x + v_y + c2))
    return jnp.mean(similarity)
