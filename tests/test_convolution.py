"""The network's convolution and resampling: values and gradients against plain formulations, also inside a scan."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax import lax

from padis_jax.convolution import conv_same, downsample, upsample

TAPS = [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0), (2.0, 1.0)]


def _plain(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


class Gradients(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((3, 3, 3, 5), (1, 1, 3, 2), (5, 3, 3, 4), (1, 7, 3, 1), (9, 3, 3, 2))
    def test_value_and_gradients_equal_autodiff(self, *kernel_shape):
        x, kernel, dy = _arrays((2, 6, 7, 3), kernel_shape, (2, 6, 7, kernel_shape[-1]))

        @self.variant
        def value_and_gradients(x, kernel, dy):
            (ours, vjp), (plain, plain_vjp) = jax.vjp(conv_same, x, kernel), jax.vjp(_plain, x, kernel)
            return (ours, vjp(dy)), (plain, plain_vjp(dy))

        chex.assert_trees_all_close(*value_and_gradients(x, kernel, dy), rtol=1e-4, atol=1e-4)


def test_gradients_inside_a_jitted_scan():
    x, kernel, dy = _arrays((1, 5, 5, 4), (3, 3, 4, 4), (1, 5, 5, 4))

    def gradients(conv):
        def body(carry, _):
            dx, dk = jax.vjp(lambda x, k: jnp.sin(conv(x, k)), *carry)[1](dy)
            return (carry[0] - 0.1 * dx, carry[1] - 0.1 * dk), None

        return jax.jit(lambda x, k: lax.scan(body, (x, k), length=3)[0])(x, kernel)

    chex.assert_trees_all_close(gradients(conv_same), gradients(_plain), rtol=1e-4, atol=2e-4)


def test_the_gradient_in_x_is_a_canonical_convolution():
    """What keeps DPS fast in a scan on the CPU: no convolution with swapped kernel axes is left for the compiler."""
    x, kernel, dy = _arrays((1, 5, 5, 4), (3, 3, 4, 6), (1, 5, 5, 6))

    def kernel_layouts(conv):
        jaxpr = jax.make_jaxpr(lambda x, dy: jax.vjp(lambda x: conv(x, kernel), x)[1](dy)[0])(x, dy)
        return {
            equation.params["dimension_numbers"].rhs_spec
            for equation in _equations(jaxpr.jaxpr)
            if equation.primitive.name == "conv_general_dilated" and equation.outvars[0].aval.shape == x.shape
        }

    canonical = (3, 2, 0, 1)  # HWIO
    assert kernel_layouts(conv_same) == {canonical}
    assert kernel_layouts(_plain) - {canonical}


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices keep autodiff's convolution")
def test_the_gradient_in_the_kernel_is_no_convolution():
    """What keeps a loop over training steps fast on the CPU."""
    x, kernel, dy = _arrays((2, 5, 5, 4), (3, 3, 4, 6), (2, 5, 5, 6))

    def convolutions(conv):
        gradient = jax.jit(lambda x, dy: jax.vjp(lambda k: conv(x, k), kernel)[1](dy)[0])
        return "convolution(" in gradient.lower(x, dy).compile().as_text()

    assert convolutions(_plain)
    assert not convolutions(conv_same)


def test_the_gradient_in_the_kernel_under_vmap():
    x, kernel, dy = _arrays((3, 2, 6, 7, 3), (3, 3, 3, 5), (3, 2, 6, 7, 5))

    def gradients(conv):
        return jax.jit(jax.vmap(lambda x, dy: jax.vjp(lambda k: conv(x, k), kernel)[1](dy)[0]))(x, dy)

    chex.assert_trees_all_close(gradients(conv_same), gradients(_plain), rtol=1e-4, atol=1e-4)


def test_the_gradient_in_the_kernel_sums_half_precision_in_float32():
    """512 images of one and the same gradient: a sum in bfloat16 stays below 256 of them."""
    x, kernel = jnp.ones((512, 1, 1, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    (gradient,) = jax.vjp(lambda k: conv_same(x, k), kernel)[1](x)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[0, 0, 0, 0]) == 512


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                yield from _equations(inner)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\).*odd"):
        conv_same(jnp.zeros((1, 4, 4, 1)), jnp.zeros((2, 3, 1, 1)))
    with pytest.raises(ValueError, match="odd"):
        jax.grad(lambda x: conv_same(x, jnp.zeros((2, 2, 1, 1))).sum())(jnp.zeros((1, 4, 4, 1)))


def test_one_one_is_the_mean_and_the_repeat():
    (x,) = _arrays((2, 6, 8, 3))
    mean = x.reshape(2, 3, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(downsample(x, (1.0, 1.0)), mean, atol=1e-6)
    np.testing.assert_array_equal(upsample(x, (1.0, 1.0)), x.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("taps", TAPS)
def test_down_and_up_equal_a_plain_grouped_convolution(taps):
    (x,) = _arrays((2, 6, 8, 3))
    f = np.outer(taps, taps) / np.sum(taps) ** 2
    kernel = jnp.asarray(np.tile(f[:, :, None, None], (1, 1, 1, 3)), jnp.float32)
    pad = [((len(taps) - 1) // 2,) * 2] * 2
    plain = lax.conv_general_dilated(
        x, kernel, (2, 2), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    chex.assert_trees_all_close(downsample(x, taps), plain, atol=1e-6)


@pytest.mark.parametrize("taps", TAPS)
def test_up_is_four_times_the_transpose_of_down(taps):
    fine, coarse = _arrays((2, 6, 8, 3), (2, 3, 4, 3))
    left, right = jnp.vdot(4 * downsample(fine, taps), coarse), jnp.vdot(fine, upsample(coarse, taps))
    scale = jnp.linalg.norm(fine.ravel()) * jnp.linalg.norm(coarse.ravel())
    assert abs(left - right) < 1e-6 * scale
    (by_autodiff,) = jax.jit(jax.vjp(lambda x: downsample(x, taps), fine)[1])(coarse)
    assert _relative(upsample(coarse, taps), 4 * by_autodiff) < 1e-6


def test_padding_of_its_own():
    (x,) = _arrays((1, 6, 8, 2))
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = (1.0, 3.0, 3.0, 1.0)
    np.testing.assert_allclose(downsample(around, taps, pad=0), downsample(x, taps), atol=1e-6)
    chex.assert_shape(downsample(x, taps, pad=0), (1, 2, 3, 2))
