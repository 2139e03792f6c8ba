"""Total variation: a closed form, the optimality conditions, and how soon it has converged."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.restoration import denoise_tv_chambolle

from padis_jax.operators import ParallelBeam, from_functions
from padis_jax.solvers.tv import TV, gradient, gradient_adjoint, total_variation


class Identity:
    """A = 1, as a user's plain class."""

    norm = 1.0

    def __call__(self, x):
        return x

    def T(self, y):
        return y


IDENTITY = Identity()


def phantom(n):
    """Two discs in a box."""
    y, x = np.mgrid[:n, :n] / n - 0.5
    image = 0.3 * (np.abs(x) < 0.35) * (np.abs(y) < 0.4)
    image = image + 0.5 * (np.hypot(x, y + 0.1) < 0.15) - 0.2 * (np.hypot(x - 0.1, y - 0.2) < 0.1)
    return jnp.asarray(image, jnp.float32)


def test_gradient_and_its_adjoint_pass_the_dot_test():
    x = jax.random.normal(jax.random.key(0), (7, 9, 2))
    q = jax.random.normal(jax.random.key(1), (2, 7, 9, 2))
    np.testing.assert_allclose(jnp.vdot(gradient(x), q), jnp.vdot(x, gradient_adjoint(q)), rtol=1e-5)


@pytest.mark.parametrize("horizontal", [True, False])
def test_a_step_shrinks_by_the_weight_over_the_width(horizontal):
    """Denoising two plateaus of n columns: each moves towards the other by weight / n."""
    n, weight = 6, 0.3
    expected = np.repeat([[0.2 + weight / n, 0.9 - weight / n]], n, axis=1).ravel()
    image = np.tile(np.repeat([0.2, 0.9], n), (5, 1)).astype(np.float32)
    result = total_variation(image if horizontal else image.T, IDENTITY, settings=TV(weight=weight, iterations=2000))
    got = result.image if horizontal else result.image.T
    np.testing.assert_allclose(got, np.tile(expected, (5, 1)), atol=1e-4)
    assert float(result.change) < 1e-5


def test_denoising_equals_scikit_image():
    """Both are isotropic with forward differences; a sum of absolute differences would be 0.09 away."""
    rng = np.random.default_rng(0)
    noisy = np.asarray(phantom(20)) + 0.3 + 0.1 * rng.standard_normal((20, 20))
    theirs = denoise_tv_chambolle(noisy, weight=0.2, eps=1e-12, max_num_iter=20_000)
    ours = total_variation(noisy, IDENTITY, settings=TV(weight=0.2, iterations=5000)).image
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_no_other_image_has_a_lower_objective():
    a = ParallelBeam(image_shape=(24, 24), angles=np.linspace(0, np.pi, 6, endpoint=False), detector_count=40)
    truth = phantom(24)
    y = a(truth) + 0.05 * jax.random.normal(jax.random.key(0), (6, 40))
    weight = 0.1

    def objective(x):
        return 0.5 * jnp.sum((a(x) - y) ** 2) + weight * jnp.sum(jnp.sqrt(jnp.sum(gradient(x) ** 2, axis=0)))

    x = total_variation(y, a, settings=TV(weight=weight, iterations=4000)).image
    least = float(objective(x))
    assert float(x.min()) >= 0
    directions = [truth - x, jnp.mean(x) - x, 0.02 * jax.random.normal(jax.random.key(1), x.shape)]
    for direction in directions:
        for t in (1e-3, 1e-2, 0.1):
            assert float(objective(jnp.maximum(x + t * direction, 0))) > least - 1e-5 * least
    loose = total_variation(y, a, settings=TV(weight=weight, iterations=4000, nonnegative=False)).image
    assert float(loose.min()) < 0 and float(objective(loose)) < least


@pytest.mark.slow
def test_the_default_count_has_converged():
    a = ParallelBeam(image_shape=(64, 64), angles=(np.arange(20) + 0.5) * np.pi / 20, detector_count=128)
    truth = phantom(64)
    y = a(truth) + 0.1 * jax.random.normal(jax.random.key(0), (20, 128))

    def psnr(iterations):
        image = total_variation(y, a, settings=TV(iterations=iterations)).image
        return float(-10 * jnp.log10(jnp.mean((image - truth) ** 2)))

    converged = psnr(5000)
    assert abs(psnr(TV().iterations) - converged) < 0.02
    assert abs(psnr(30) - converged) > 0.02


def test_units_of_the_operator_scale_the_weight_by_their_square():
    matrix = np.random.default_rng(0).standard_normal((20, 36)).astype(np.float32)
    images = []
    for c in (1.0, 1000.0):
        a = from_functions(lambda x, c=c: c * (matrix @ x.ravel()), image_shape=(6, 6))
        images.append(total_variation(c * (matrix @ np.ones(36, np.float32)), a, settings=TV(weight=0.2 * c**2)).image)
    np.testing.assert_allclose(*images, atol=1e-4)


def test_channels_are_independent():
    rng = np.random.default_rng(0)
    y = rng.uniform(size=(8, 9, 2)).astype(np.float32)
    both = total_variation(y, IDENTITY).image
    each = [total_variation(y[..., i], IDENTITY).image for i in range(2)]
    np.testing.assert_allclose(both, jnp.stack(each, axis=-1), atol=1e-5)


@pytest.mark.parametrize("channels", [(), (1,)])
def test_a_batch_without_vmap_is_refused_with_the_remedy(channels):
    """But not a measurement that does not fit for another reason."""
    a = ParallelBeam(image_shape=(6, 7), angles=[0.1, 1.2, 2.0], detector_count=9)
    y = jnp.stack([a(jnp.ones((6, 7, *channels)))] * 4)
    with pytest.raises(
        ValueError, match=r"one axis more than .*total_variation takes one image: use jax.vmap over meas"
    ):
        total_variation(y, a)
    chex.assert_shape(
        jax.vmap(lambda y: total_variation(y, a, settings=TV(iterations=2)).image)(y), (4, 6, 7, *channels)
    )
    with pytest.raises(ValueError, match="expected measurement of shape"):
        total_variation(y[:, :, :-1], a)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        total_variation(np.full((4, 4), np.nan), IDENTITY)
    with pytest.raises(ValueError, match="weight is 0"):
        TV(weight=0.0)
    with pytest.raises(ValueError, match="iterations is 0"):
        TV(iterations=0)
    with pytest.raises(ValueError, match="TV: share is 1.0: it must be above 0 and below 1"):
        TV(share=1.0)
