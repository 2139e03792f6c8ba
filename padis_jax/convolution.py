"""The convolution of the network, fast on the CPU, its gradients and loops included.

With odd kernels, stride 1 and zeros around, the gradient in the image is a convolution, too,

    dx = conv(dy, k rotated by 180 degrees, input and output channels swapped).

XLA's CPU compiler gives its fast path to convolutions in canonical layout; those that autodiff makes are brought into
that layout in the entry computation only, not inside the body of a loop (jax issue 12868). DPS differentiates the
network inside one, so dx is written here as a canonical convolution. On the CPU 3 x 3 convolutions and their gradients
take the products of `winograd` where that is faster; the gradient in other kernels is written as matrix products, image
by image and one for each row of the kernel, of the padded image with dy and its shifts along the row side by side,

    dk[i, j] = sum_yx x[y + i, x] dy[y, x - j].

`tests/test_scan_speed.py` measures what this is worth; docs/performance.md has the figures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax

from padis_jax import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_INTERLEAVE = {1: "b h phase w c -> b (h phase) w c", 2: "b h w phase c -> b h (w phase) c"}  # by axis


def _same(x: Array, kernel: Array) -> Array:
    if not winograd.suits(x, kernel):
        return _direct(x, kernel)
    return _on_cpu(winograd.convolve, _direct, x, kernel)


def _on_cpu(fast: Callable[..., Array], plain: Callable[..., Array], *arrays: Array) -> Array:
    """One form on the CPU, another elsewhere; which, is known when the program is lowered."""
    return lax.platform_dependent(*arrays, cpu=fast, default=plain)


def _direct(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv_same(x: Array, kernel: Array) -> Array:
    """Zero-padded convolution of stride 1.

    Args:
      x: [b, h, w, c_in].
      kernel: [k_h, k_w, c_in, c_out], k_h and k_w odd (an even kernel has no symmetric padding, and the gradient
        below would be shifted).

    Returns:
      [b, h, w, c_out].

    Raises:
      ValueError: for a kernel with an even side.
    """
    return _checked(x, kernel)


def _checked(x: Array, kernel: Array) -> Array:
    if not (kernel.shape[0] % 2 and kernel.shape[1] % 2):
        raise ValueError(f"conv_same: a kernel of {kernel.shape[:2]} has an even side; use odd sides")
    return _same(x, kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _checked(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = _same(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    # Where the parameters are constants (sampling), XLA removes what follows as dead code.
    fast = winograd.kernel_gradient if winograd.suits(x, kernel) else functools.partial(_by_products, kernel)
    return dx, _on_cpu(fast, functools.partial(_by_autodiff, kernel), x, dy)


def _by_autodiff(kernel: Array, x: Array, dy: Array) -> Array:
    return jax.vjp(functools.partial(_direct, x), kernel)[1](dy)[0]


def _by_products(kernel: Array, x: Array, dy: Array) -> Array:
    height, width, *_ = kernel.shape
    padded = jnp.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))

    def add(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = image
        shifts = [jnp.pad(dy, ((0, 0), (j, width - 1 - j), (0, 0))) for j in range(width)]
        beside = rearrange(jnp.concatenate(shifts, -1), "h w jo -> (h w) jo")
        rows = [
            jnp.matmul(rearrange(x[i : i + len(dy)], "h w c -> c (h w)"), beside, preferred_element_type=total.dtype)
            for i in range(height)
        ]
        return total + rearrange(jnp.stack(rows), "i c (j o) -> i j c o", j=width), None

    # In half precision a sum over images in the arrays' own type would lose most of a large batch.
    dtype = jnp.float32 if kernel.dtype.itemsize < 4 else kernel.dtype
    return lax.scan(add, jnp.zeros(kernel.shape, dtype), (padded, dy))[0].astype(kernel.dtype)


conv_same.defvjp(_forward, _backward)


def downsample(x: Array, taps: tuple[float, ...], pad: int | None = None) -> Array:
    """Separable low-pass filter with stride 2: [b, h, w, c] -> [b, h/2, w/2, c] (with the default padding).

    Written as a sum of strided slices, because grouped convolutions are slow on the CPU.

    Args:
      x: [b, h, w, c], h and w even.
      taps: the filter along one axis, normalised here to sum 1; [1, 1] is the 2 x 2 mean.
      pad: zeros on each side before filtering; (len(taps) - 1) // 2 if None.
    """
    n = len(taps)
    pad = (n - 1) // 2 if pad is None else pad
    weights = [t / sum(taps) for t in taps]
    for axis in (1, 2):
        padded = _zero_pad(x, axis, pad, pad)
        size = (padded.shape[axis] - n) // 2 + 1
        x = sum(w * lax.slice_in_dim(padded, t, t + 2 * size - 1, stride=2, axis=axis) for t, w in enumerate(weights))  # type: ignore[assignment]
    return x


def upsample(x: Array, taps: tuple[float, ...]) -> Array:
    """The transpose of `downsample` times 4: [b, h, w, c] -> [b, 2h, 2w, c]; [1, 1] repeats each pixel.

    Along one axis out[2 i + s] collects the taps of one parity: written as two interleaved sums of shifted slices.
    """
    n = len(taps)
    pad = (n - 1) // 2
    weights = [2 * t / sum(taps) for t in taps]
    for axis in (1, 2):
        size = x.shape[axis]
        padded = _zero_pad(x, axis, n, n)
        phases = []
        for s in (0, 1):
            # out[j] = sum w[t] x[i], 2 i + t - pad = j; with j = 2 q + s: t = s + pad (mod 2), i = q + (s + pad - t)/2
            terms = [
                weights[t] * lax.slice_in_dim(padded, n + (s + pad - t) // 2, n + (s + pad - t) // 2 + size, axis=axis)
                for t in range((s + pad) % 2, n, 2)
            ]
            phases.append(sum(terms))
        x = rearrange(jnp.stack(phases, axis=axis + 1), _INTERLEAVE[axis])  # type: ignore[arg-type]
    return x


def _zero_pad(x: Array, axis: int, before: int, after: int) -> Array:
    if before == after == 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths)
