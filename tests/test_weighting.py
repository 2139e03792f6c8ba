"""Noise per entry: W^(1/2) A as an operator, what solvers and total variation make of it, and what is refused."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import FRAME, PLANE, make, relative
from test_reconstruct import Matrix

from padis_jax.errors import UserError
from padis_jax.measurements.simulate import paper_measurement
from padis_jax.operators import Blur, Downsample, Inpaint, ParallelBeam, dot_test, from_functions, stack, uniform_kernel
from padis_jax.operators.weighting import Weighted, root_weights, weigh, weighted
from padis_jax.patches import frame_for
from padis_jax.prior import Prior, tiled_prior
from padis_jax.solvers import daps, dds, diffpir, dps, tmpd
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.registry import METHODS
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.tv import TV, total_variation

GAUSSIAN, PROBLEM, PRIOR = make()
A, Y = PROBLEM.operator, PROBLEM.measurement
STD = np.asarray([0.2, 1.0, 0.5, 0.1, 2.0, 0.3, 0.7])
SHAPE = (6, 8)
MASK = np.arange(48).reshape(SHAPE) % 3 != 0
SHORT = {"levels": 3, "sigma_max": 0.5}
OPERATORS = {
    "parallel": lambda: ParallelBeam(image_shape=SHAPE, angles=np.arange(3.0), detector_count=10),
    "inpaint": lambda: Inpaint(mask=MASK),
    "downsample": lambda: Downsample(image_shape=SHAPE, factor=2),
    "stacked": lambda: stack([2.0 * Inpaint(mask=MASK), Downsample(image_shape=SHAPE, factor=2)]),
    "composed": lambda: (
        Downsample(image_shape=SHAPE, factor=2) @ Blur(image_shape=SHAPE, kernel=uniform_kernel(3), boundary="reflect")
    ),
    "complex": lambda: from_functions(lambda x: jnp.fft.fft2(x[..., 0])[:4] / 6, image_shape=(*SHAPE, 1)),
}


FAST = [("parallel", (3,)), ("inpaint", ()), ("stacked", (1,)), ("complex", (1,))]
KINDS = [
    pytest.param(name, channels, marks=() if (name, channels) in FAST else pytest.mark.slow)
    for name in OPERATORS
    for channels in ([(1,)] if name == "complex" else [(), (1,), (3,)])
]


def image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def dense(function, shape):
    """The matrix of a linear function of images."""
    pixels = jnp.eye(np.prod(shape)).reshape(-1, *shape)
    return np.asarray(jax.vmap(function)(pixels)).reshape(len(pixels), -1).T


def test_weights_have_the_mean_1_over_what_is_measured_and_know_the_common_scale():
    std = np.asarray([[0.5, 2.0, 0.0], [1.0, 0.0, 4.0]])
    root, scale = root_weights(jnp.asarray(std, jnp.float32))
    variance = 1 / np.mean(1 / std[std > 0] ** 2)
    np.testing.assert_allclose(root**2, np.where(std > 0, variance / np.where(std > 0, std, 1) ** 2, 0), rtol=1e-6)
    np.testing.assert_allclose(scale, np.sqrt(variance), rtol=1e-6)
    again, tiny = root_weights(jnp.asarray(1e-15 * std, jnp.float32))  # whose squares are 0 in float32
    np.testing.assert_allclose(again, root, rtol=1e-6)
    np.testing.assert_allclose(tiny, 1e-15 * scale, rtol=1e-6)
    ones, none = root_weights(jnp.zeros(3))
    assert bool((ones == 1).all()) and none == 0


@pytest.mark.parametrize(("name", "channels"), KINDS)
def test_transpose_norm_and_inverse_of_every_kind(name, channels):
    operator, shape = OPERATORS[name](), (*SHAPE, *channels)
    y = operator(image(*shape))
    std = jnp.asarray(np.random.default_rng(2).uniform(0.3, 3, y.shape), jnp.float32)
    found, z, _ = weigh(operator, y, std, shape)
    assert dot_test(found, shape, key=jax.random.key(0)) < 1e-6
    matrix = dense(found, shape)
    real = np.concatenate([matrix.real, matrix.imag])
    np.testing.assert_allclose(found.norm, np.linalg.norm(real, 2), rtol=2e-3)
    np.testing.assert_allclose(found.unweighted(z), jnp.where(found.root > 0, y, 0), atol=1e-5)
    if name != "complex":
        z = found.times(y + image(*y.shape))  # that no image explains
        expected = np.linalg.lstsq(matrix, np.asarray(z).ravel(), rcond=1e-5)[0].reshape(shape)
        np.testing.assert_allclose(found(found.pinv(z)), found(jnp.asarray(expected)), atol=1e-3)
        assert jnp.linalg.norm(found.pinv(z)) < 1.001 * np.linalg.norm(expected)  # of all solutions the shortest
    np.testing.assert_allclose(found.start(found.times(y)), operator.start(y), atol=1e-5)


def test_an_inverse_in_closed_form_stays_where_any_measurement_is_met():
    kinds = {name: make() for name, make in OPERATORS.items()}
    found = {name for name, made in kinds.items() if not Weighted(made, jnp.ones(1), jnp.float32(1), SHAPE).iterative}
    assert found == {"inpaint", "downsample"}
    for name in found:  # A A+ = 1 at measured entries
        operator, y = kinds[name], kinds[name](image(*SHAPE))
        np.testing.assert_allclose(operator(operator.pinv(y)), y, atol=1e-5)


def test_an_inverse_does_not_fit_what_weighs_nothing():
    """Of a bicubic reduction, whose rows share pixels, A+ of zeros for missing entries would fit the zeros."""
    operator = Downsample(image_shape=SHAPE, factor=2, method="bicubic")
    root = jnp.asarray(np.random.default_rng(1).random((3, 4)) > 0.4, jnp.float32)
    found = weighted(operator, root, SHAPE)
    y = found(image(*SHAPE))
    expected = np.linalg.pinv(dense(found, SHAPE)) @ np.asarray(y).ravel()
    np.testing.assert_allclose(found.pinv(y), expected.reshape(SHAPE), atol=1e-4)
    assert not operator.onto and Downsample(image_shape=SHAPE, factor=2).onto


def test_other_weights_compile_nothing_and_equal_ones_have_the_norm_of_the_operator():
    scan = OPERATORS["parallel"]()
    root = jnp.ones((3, 10))
    equal = weighted(scan, root, SHAPE)
    assert equal.norm == scan.norm and not hasattr(weighted(Plain(), jnp.ones(48), SHAPE), "pinv")

    @jax.jit
    @chex.assert_max_traces(n=1)
    def norm(root):
        return weighted(scan, root, SHAPE).norm

    # Its derivative is u_i (A v)_i, of the singular vectors u and v.
    found = weighted(A, jnp.asarray(1 / STD, jnp.float32), (3, 4, 1))
    left, _, right = np.linalg.svd(GAUSSIAN.matrix / STD[:, None])
    slope = jax.grad(lambda root: weighted(A, root, (3, 4, 1)).norm)(found.root)
    np.testing.assert_allclose(
        slope, left[:, 0] * (GAUSSIAN.matrix @ right[0]), atol=0.02 * float(jnp.abs(slope).max())
    )
    norms = [float(norm(jnp.asarray(np.random.default_rng(k).uniform(0.1, 2, (3, 10)), jnp.float32))) for k in range(3)]
    assert len(set(norms)) == 3 and norm(root) == scan.norm


class Plain:
    """A callable with .T and .norm and nothing else."""

    norm = jnp.float32(1)

    def __call__(self, x):
        return x.ravel()

    def T(self, y):
        return y.reshape(SHAPE)


jax.tree_util.register_static(Plain)


BAYES = {
    "dds": (dds.DDS(consistency=0.0, kappa=1.0, cg_steps=24), dds.step),
    "diffpir": (diffpir.DiffPIR(weight=1.0, floor=1e-9, cg_steps=24), diffpir.step),
    "daps": (daps.DAPS(ode_steps=1, sampler="cg", cg_steps=24, floor=1e-9), daps.step),
    "tmpd": (tmpd.TMPD(floor=0.0, cg_steps=24), tmpd.step),
}


@pytest.mark.parametrize("factor", [1.0, 7.0])
@pytest.mark.parametrize("name", BAYES)
def test_methods_that_know_the_noise_follow_bayes_rule_for_unequal_variances(name, factor):
    """At the last level: u of x0 ~ N(D, tau^2) (tmpd: the prior's covariance given x) and y = A x0 + n, n_i ~ s_i."""
    g, k, sigma = GAUSSIAN, GAUSSIAN.crop, 0.8
    settings, step = BAYES[name]
    x = np.random.default_rng(3).normal(size=len(g.mean))
    precision = g.matrix.T @ np.diag(1 / (factor * STD) ** 2)
    denoised = k @ (g.mean + g.wiener(sigma) @ (x - g.mean))
    inverse = np.eye(len(k)) / sigma**2
    if name == "tmpd":
        inverse = np.linalg.inv(k @ g.covariance @ k.T) + inverse
    expected = np.linalg.solve(precision @ g.matrix + inverse, precision @ g.y + inverse @ denoised)
    problem, noise = PROBLEM.weighted(jnp.asarray(factor * STD, jnp.float32))

    settings = dataclasses.replace(settings, noise=noise)
    last = Noise(jnp.float32(sigma), jnp.float32(0.0))
    got, _ = jax.jit(lambda x: step(settings, problem, jax.random.key(0), x, last))(
        jnp.asarray(x.reshape(PLANE), jnp.float32)
    )
    assert relative(np.asarray(FRAME.crop(got), np.float64).ravel(), expected) < 1e-3


def test_a_dps_step_divides_by_the_norm_and_the_noise_of_the_weighted_problem():
    """x' = D + zeta / (||W^1/2 A||^2 + (s / sigma)^2) J' K' A' W (y - A K D) at the last level."""
    g, k, sigma = GAUSSIAN, GAUSSIAN.crop, 0.8
    x = np.random.default_rng(4).normal(size=len(g.mean))
    variance = 1 / np.mean(1 / STD**2)
    w = np.diag(variance / STD**2)
    wiener = g.wiener(sigma)
    denoised = g.mean + wiener @ (x - g.mean)
    norm = np.linalg.norm(np.sqrt(w) @ g.matrix, 2)
    step_size = 0.6 / (norm**2 + variance / sigma**2)
    expected = denoised + step_size * wiener.T @ k.T @ g.matrix.T @ w @ (g.y - g.matrix @ k @ denoised)
    problem, noise = PROBLEM.weighted(jnp.asarray(STD, jnp.float32))
    settings = dps.DPS(zeta=0.6, prior_step="ancestral", noise=noise)
    last = Noise(jnp.float32(sigma), jnp.float32(0.0))
    got, fit = dps.step(settings, problem, jax.random.key(0), jnp.asarray(x.reshape(PLANE), jnp.float32), last)
    assert relative(np.asarray(got).ravel(), expected) < 1e-3  # the norm is right to that
    plain = np.linalg.norm(g.y - g.matrix @ k @ denoised) / np.linalg.norm(g.y)
    np.testing.assert_allclose(fit.residual, plain, rtol=1e-5)  # what is reported is not weighted


@pytest.mark.parametrize(
    "solver", [name if name == "dds" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_every_method_solves_the_weighted_problem(solver):
    """It gives the image of the operator and the measurement that were multiplied by W^(1/2) beforehand."""
    scale = np.sqrt(1 / np.mean(1 / STD**2))
    root = jnp.asarray(scale / STD, jnp.float32)
    matrix = root[:, None] * jnp.asarray(GAUSSIAN.matrix, jnp.float32)
    whitened = from_functions(lambda x: matrix @ x.ravel(), image_shape=(3, 4, 1))
    settings = METHODS[solver].make()
    if hasattr(settings, "noise"):
        settings = dataclasses.replace(settings, noise=scale)
    expected = reconstruct(0, root * Y, whitened, PRIOR, solver=settings, **SHORT)
    for operator in (A, Matrix(GAUSSIAN.matrix)):  # a pytree, and any callable
        found = reconstruct(0, Y, operator, PRIOR, solver=solver, noise_std=STD, **SHORT)
        np.testing.assert_allclose(found.image, expected.image, atol=5e-3 * float(jnp.abs(expected.image).max()))
    unweighted = reconstruct(0, Y, A, PRIOR, solver=solver, **SHORT).image
    assert float(jnp.abs(unweighted - expected.image).max()) > 0.02


def test_total_variation_is_that_of_the_weighted_problem():
    settings = TV(weight=0.3, iterations=200)
    root = jnp.asarray(1 / STD / np.sqrt(np.mean(1 / STD**2)), jnp.float32)
    matrix = root[:, None] * jnp.asarray(GAUSSIAN.matrix, jnp.float32)
    whitened = from_functions(lambda x: matrix @ x.ravel(), image_shape=(3, 4))
    expected = total_variation(root * Y, whitened, settings=settings).image
    found = total_variation(Y, Matrix(GAUSSIAN.matrix), settings=settings, noise_std=STD).image
    np.testing.assert_allclose(found, expected, atol=2e-3)
    start = {"start": settings, "start_noise": False}
    begun = reconstruct(0, Y, A, PRIOR, solver=PlugAndPlay(weight=1e6), noise_std=STD, levels=1, **start)
    seen = reconstruct(0, Y, A, PRIOR, solver=PlugAndPlay(weight=1e6), levels=1, start=found)
    np.testing.assert_allclose(begun.image, seen.image, atol=2e-3)  # "tv" as a start weighs too


@pytest.mark.parametrize("solver", ["pnp_admm", "pnp_red", "tv"])
def test_the_unit_of_the_noise_does_not_matter_where_weights_are_relative(solver):
    def image_of(std):
        if solver == "tv":
            return total_variation(Y, A, settings=TV(weight=0.3, iterations=50), noise_std=std).image
        return reconstruct(0, Y, A, PRIOR, solver=solver, noise_std=std, **SHORT).image

    np.testing.assert_allclose(image_of(37 * STD), image_of(STD), atol=1e-5)
    assert float(jnp.abs(image_of(np.full(7, 0.3)) - image_of(STD)).max()) > 0.02


def test_equal_noise_is_one_number_bit_for_bit_and_zero_is_none():
    def image_of(**options):
        return np.asarray(reconstruct(0, Y, A, PRIOR, **options, **SHORT).image)

    told = image_of(solver=dds.DDS(noise=0.3))
    np.testing.assert_array_equal(image_of(noise_std=0.3), told)
    np.testing.assert_array_equal(image_of(noise_std=np.full(7, 0.3)), told)
    np.testing.assert_array_equal(image_of(noise_std=np.zeros(7)), image_of())
    traced = jax.jit(lambda std: reconstruct(0, Y, A, PRIOR, noise_std=std, **SHORT).image)
    np.testing.assert_allclose(traced(jnp.full(7, 0.3)), told, atol=1e-5)
    np.testing.assert_allclose(traced(jnp.zeros(7)), image_of(), atol=1e-5)
    settings = TV(weight=0.3, iterations=50)
    expected = total_variation(Y, A, settings=settings).image
    for std in (0.3, np.full(7, 0.3), np.zeros(7)):
        found = total_variation(Y, A, settings=settings, noise_std=std).image
        np.testing.assert_array_equal(found, expected)


def test_equal_noise_that_is_traced_keeps_an_inverse_in_closed_form():
    """DDNM takes A+; that of a blur is its own, which drops the frequencies that hardly pass."""
    operator, truth = Blur(image_shape=SHAPE, kernel=uniform_kernel(3)), image(*SHAPE, 1)
    prior = tiled_prior(lambda patches, positions, sigma: 0.9 * patches, frame_for(SHAPE, 4))
    y = operator(truth) + 0.1 * image(*SHAPE, 1, seed=1)

    def solved(std):
        return reconstruct(0, y, operator, prior, solver="ddnm", noise_std=std, **SHORT).image

    traced = jax.jit(solved)
    np.testing.assert_allclose(traced(jnp.full((*SHAPE, 1), 0.1)), solved(0.1), atol=2e-4)
    uneven = 0.1 + 0.1 * MASK[..., None].astype(np.float32)
    np.testing.assert_allclose(traced(uneven), solved(uneven), atol=2e-3)


def test_complex_noise_is_told_as_that_of_the_whole_number():
    """E|n|^2 = s^2, as `paper_measurement` draws it: Bayes' rule for it as a real problem of twice the size."""
    rng, k, sigma, s = np.random.default_rng(1), GAUSSIAN.crop, 0.8, 2.0
    matrix = 2 * (rng.standard_normal((7, 12)) + 1j * rng.standard_normal((7, 12)))
    wide = jnp.asarray(matrix, jnp.complex64)
    operator = from_functions(lambda x: wide @ x.ravel().astype(jnp.complex64), image_shape=(3, 4, 1))
    truth = jnp.asarray((k @ GAUSSIAN.mean).reshape(3, 4, 1), jnp.float32)
    y = paper_measurement(jax.random.key(3), truth, operator, sigma=s).y
    start = rng.random((3, 4, 1)).astype(np.float32)
    x = k.T @ start.ravel()
    denoised = k @ (GAUSSIAN.mean + GAUSSIAN.wiener(sigma) @ (x - GAUSSIAN.mean))
    rows, values = np.concatenate([matrix.real, matrix.imag]), np.concatenate([np.real(y), np.imag(y)])
    precision = rows.T @ rows / (s**2 / 2) + np.eye(12) / sigma**2
    expected = np.linalg.solve(precision, rows.T @ values / (s**2 / 2) + denoised / sigma**2)
    for std in (s, np.full(7, s)):
        found = reconstruct(
            0,
            y,
            operator,
            PRIOR,
            solver=dds.DDS(consistency=0.0, cg_steps=30),
            ladder=[sigma],
            start=start,
            start_noise=False,
            noise_std=std,
        )
        assert relative(np.asarray(found.image).ravel(), expected) < 1e-4


def test_a_pixel_that_is_not_measured_weighs_nothing():
    operator, truth = Inpaint(mask=MASK), image(*SHAPE, 1)
    prior = tiled_prior(lambda patches, positions, sigma: 0.9 * patches, frame_for(SHAPE, 4))
    std = 0.1 + np.random.default_rng(0).random((*SHAPE, 1)) * MASK[..., None]
    here, nowhere = (np.where(MASK[..., None], std, missing) for missing in (0.0, 5.0))
    images = [reconstruct(0, operator(truth), operator, prior, noise_std=s, **SHORT).image for s in (here, nowhere)]
    np.testing.assert_array_equal(*images)
    root, scale = root_weights(jnp.asarray(here, jnp.float32), operator.measured)
    np.testing.assert_allclose(np.mean(np.asarray(root)[MASK] ** 2), 1, rtol=1e-5)
    np.testing.assert_allclose(scale, np.sqrt(1 / np.mean(1 / std[MASK] ** 2)), rtol=1e-5)
    equal = np.where(MASK[..., None], 0.2, 0)
    options = {**SHORT, "start": "operator"}
    found = reconstruct(0, operator(truth), operator, prior, noise_std=equal, **options).image
    np.testing.assert_array_equal(
        found, reconstruct(0, operator(truth), operator, prior, noise_std=0.2, **options).image
    )


@pytest.mark.slow
def test_measurements_side_by_side_with_noise_of_their_own():
    stds = jnp.asarray([STD, 2 * STD[::-1], np.full(7, 0.3), np.zeros(7)], jnp.float32)
    ys = jnp.stack([Y, Y + 1, Y - 1, 2 * Y])

    def one(y, std):
        return reconstruct(0, y, A, PRIOR, noise_std=std, start="tv", **SHORT).image

    many = jax.vmap(one)(ys, stds)
    np.testing.assert_allclose(many, jnp.stack([one(y, s) for y, s in zip(ys, stds, strict=True)]), atol=1e-4)
    keys = jnp.stack([jax.random.key(0)] * 4)
    starts = jnp.zeros((4, 3, 4, 1))
    batch = reconstruct_batch(keys, ys, A, PRIOR, settings=[dds.DDS()] * 4, starts=starts, noise_std=stds, **SHORT)
    alone = reconstruct(0, ys[1], A, PRIOR, noise_std=stds[1], start=starts[1], **SHORT)
    np.testing.assert_allclose(batch.images[1], alone.image, atol=1e-4)
    np.testing.assert_allclose(batch.residual[1], alone.residual, atol=1e-4)


def test_other_noise_compiles_nothing():
    @chex.assert_max_traces(n=1)
    def denoiser(key, plane, sigma):
        return plane / (1 + sigma**2)

    prior = Prior(denoiser, FRAME)
    for std in (STD, STD[::-1]):
        reconstruct(0, Y, A, prior, noise_std=std, start="tv", **SHORT)


@pytest.mark.slow
def test_the_derivative_by_the_noise_is_that_of_differences():
    def figure(std):
        # Without a consistency ||A|| does not count, of which differences see how power iteration rounds.
        settings = dds.DDS(consistency=0.0, cg_steps=2)
        return jnp.sum(reconstruct(0, Y, A, PRIOR, solver=settings, noise_std=std, **SHORT).image ** 2)

    std, along = jnp.asarray(STD, jnp.float32), jnp.asarray(STD[::-1].copy(), jnp.float32)
    slope = jax.jit(jax.value_and_grad(figure))
    found = slope(std)[1]
    expected = (slope(std + 5e-3 * along)[0] - slope(std - 5e-3 * along)[0]) / 1e-2
    np.testing.assert_allclose(jnp.vdot(found, along), expected, rtol=1e-2)
    for flat in (jnp.zeros(7), jnp.full(7, 0.3)):
        assert bool(jnp.isfinite(slope(flat)[1]).all())


@pytest.mark.parametrize(
    ("std", "message"),
    [
        (STD[:3], r"noise_std has shape \(3,\)"),
        (STD + 0j, "complex64: give a real number"),
        (-STD, "down to -2: a standard deviation must not be negative"),
        (-0.1, "must not be negative"),
        (np.where(STD > 1.5, np.nan, STD), "noise_std has 1 values of 7 that are NaN"),
        (np.inf, "NaN or infinite"),
        (np.where(STD > 1.5, 0, STD), "noise_std is 0 at 1 of 7 measured entries and positive elsewhere"),
        ("0.1", "give an array of numbers"),
    ],
)
def test_impossible_noise_is_refused_in_one_line(std, message):
    for call in (
        lambda: reconstruct(0, Y, A, PRIOR, noise_std=std, **SHORT),
        lambda: total_variation(Y, A, noise_std=std),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_noise_that_is_told_twice_is_refused():
    with pytest.raises(UserError, match=r"DDS: noise is 0.1, and noise_std is given too"):
        reconstruct(0, Y, A, PRIOR, solver=dds.DDS(noise=0.1), noise_std=STD, **SHORT)
