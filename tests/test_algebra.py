"""Operators put together: transposes, norms, shapes, and what the solvers make of them."""

import doctest
import functools
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import (
    Blur,
    Downsample,
    FanBeam,
    Identity,
    Inpaint,
    ParallelBeam,
    conjugate_gradient,
    dot_test,
    from_functions,
    stack,
)
from padis_jax.operators.algebra import Scaled
from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import TV, total_variation

SHAPE = (8, 8)
ANGLES = np.asarray([0.2, 0.9, 1.4, 2.0, 2.5, 3.0])
RNG = np.random.default_rng(0)
KERNEL = RNG.random((2, 3)) - 0.3  # its centre is off every symmetry
MASK = RNG.random(SHAPE) < 0.6
MATRIX = jnp.asarray(RNG.standard_normal((8, 8)), jnp.float32)
KINDS = {
    "parallel": lambda shape: ParallelBeam(image_shape=shape, angles=ANGLES, detector_count=8),
    "fan": lambda shape: FanBeam(
        image_shape=shape, angles=2 * ANGLES, detector_count=8, source_distance=20, detector_distance=4
    ),
    "blur": lambda shape: Blur(image_shape=shape, kernel=KERNEL, boundary="reflect"),
    "downsample": lambda shape: Downsample(image_shape=shape, factor=2, method="bicubic"),
    "inpaint": lambda shape: Inpaint(mask=MASK[: shape[0], : shape[1]]),
    "identity": lambda shape: Identity(image_shape=shape),
    "functions": lambda shape: from_functions(lambda x: x[::-1] @ MATRIX[: shape[1], : shape[1]], image_shape=shape),
}
# With every other operator: most of these pairs take long to compile.
PAIRS = [name if name == "identity" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
ONE = {name: build(SHAPE) for name, build in KINDS.items()}


def same_key():
    return jax.random.key(0)  # a new one each time: these tests draw the same again on purpose


@jax.jit
def dense(operator):
    """(the matrix of A, that of A', the dot test)."""
    pixels, entries = (jnp.eye(np.prod(s)).reshape(-1, *s) for s in (operator.image_shape, operator.measurement_shape))
    columns, rows = jax.vmap(operator)(pixels), jax.vmap(operator.T)(entries)
    mismatch = dot_test(operator, operator.image_shape, key=same_key())
    return columns.reshape(len(pixels), -1).T, rows.reshape(len(entries), -1).T, mismatch


@functools.cache
def matrix_of(name, shape=SHAPE):
    """The operator of a kind for images of `shape`, and its matrix."""
    operator = ONE[name] if shape == SHAPE else KINDS[name](shape)
    return operator, np.asarray(dense(operator)[0], np.float64)


def check(operator, expected):
    """Forward map, transpose, dot test and norm against a matrix."""
    forward, transposed, mismatch = dense(operator)
    chex.assert_trees_all_close(
        (forward, transposed), (expected, expected.T), rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert mismatch < 1e-5
    np.testing.assert_allclose(operator.norm, np.linalg.norm(expected, 2), rtol=2e-4)


@pytest.mark.parametrize("inner", PAIRS)
def test_every_operator_of_every_other(inner):
    b, second = matrix_of(inner)
    for outer in KINDS:
        a, first = matrix_of(outer, b.measurement_shape)
        check(a @ b, first @ second)


@pytest.mark.parametrize("name", PAIRS)
def test_every_operator_scaled_and_stacked_on_every_other(name):
    a, first = matrix_of(name)
    check(-2.5 * a, -2.5 * first)
    for other in list(KINDS)[list(KINDS).index(name) :]:
        b, second = matrix_of(other)
        check(stack([a, 0.5 * b]), np.concatenate([first, 0.5 * second]))


def test_identities_and_scales_leave_no_norm_to_be_found():
    a, identity = ONE["parallel"], ONE["identity"]
    assert a @ identity is a and Identity(image_shape=(6, 8)) @ a is a
    twice = (2 * a) @ (3 * identity)
    assert isinstance(twice, Scaled) and twice.operator is a
    np.testing.assert_allclose(twice.norm, 6 * a.norm, rtol=1e-6)
    assert float(stack([identity, -2 * identity, 2 * identity]).norm) == 3
    np.testing.assert_allclose(stack([a, 4 * identity]).norm, np.hypot(a.norm, 4), rtol=1e-6)


@pytest.mark.slow
def test_a_composition_of_compositions():
    a, b, c = ONE["parallel"], ONE["blur"], ONE["inpaint"]
    both = stack([0.5 * (a @ b), stack([a, 2 * c @ b])])
    parts = [matrix_of(name)[1] for name in ("parallel", "blur", "inpaint")]
    check(both, np.concatenate([0.5 * parts[0] @ parts[1], parts[0], 2 * parts[2] @ parts[1]]))


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (ONE["downsample"] @ ONE["blur"], (4, 4)),
        (2 * ONE["parallel"], (6, 8)),
        (stack([ONE["parallel"], ONE["fan"]]), (12, 8)),
        (stack([ONE["parallel"], ONE["downsample"]]), (64,)),
    ],
)
def test_channels_stay_last(operator, shape):
    x = jnp.asarray(RNG.random((*SHAPE, 3)), jnp.float32)
    y = operator(x)
    assert operator.measurement_shape == shape and operator.image_shape == SHAPE
    chex.assert_shape([y, operator(x[..., 0])], [(*shape, 3), shape])
    chex.assert_shape([operator.T(y), operator.start(y), operator.pinv(y)], x.shape)
    chex.assert_trees_all_close(
        (y[..., 1], operator.T(y)[..., 1]), (operator(x[..., 1]), operator.T(y[..., 1])), atol=1e-4
    )


@pytest.mark.slow
def test_operators_of_exact_shapes_with_those_that_take_channels():
    exact = from_functions(lambda x: 2 * x[1:], image_shape=(8, 8, 2))
    scan, blur = KINDS["parallel"]((7, 8)), ONE["blur"]
    for operator, shape in (
        (exact @ blur, (7, 8, 2)),
        (scan @ exact, (6, 8, 2)),
        (stack([blur, exact]), (15, 8, 2)),
        (stack([exact, ONE["downsample"]]), (7 * 8 * 2 + 4 * 4 * 2,)),
    ):
        assert operator.image_shape == (8, 8, 2) and operator.measurement_shape == shape
        chex.assert_shape(operator(jnp.ones((8, 8, 2))), shape)
        assert dot_test(operator, (8, 8, 2), key=same_key()) < 1e-5


def test_complex_measurements_of_real_images():
    """And of complex ones, over which the norm may be larger: of x_0 + i x_1, the square root of 2."""

    def total(x):
        x = x.astype(jnp.complex64)
        return (x[0] + jnp.complex64(1j) * x[1])[None]

    for dtype, norm in ((jnp.float32, 1), (jnp.complex64, np.sqrt(2))):
        part = from_functions(total, image_shape=(2, 3), dtype=dtype)
        turned = from_functions(lambda x: x[::-1], image_shape=(2, 3), dtype=dtype)
        whole = from_functions(jnp.fft.fft2, image_shape=(2, 3), dtype=jnp.complex64)  # all of its images are complex
        for operator, expected in (
            (part @ turned, norm),
            (stack([part, turned]), np.hypot(norm, 1)),
            (whole @ turned, np.sqrt(6)),
        ):
            assert dot_test(operator, (2, 3), key=same_key(), dtype=dtype) < 1e-5
            assert operator.T(operator(jnp.ones((2, 3), dtype))).dtype == dtype
            np.testing.assert_allclose(operator.norm, expected, rtol=2e-3)


@pytest.mark.slow
def test_starts_pseudo_inverses_and_what_is_measured():
    scan, blur, holes, small = (ONE[name] for name in ("parallel", "blur", "inpaint", "downsample"))
    x = jnp.asarray(RNG.random(SHAPE), jnp.float32)
    y = scan(blur(x))
    np.testing.assert_array_equal((scan @ blur).start(y), blur.start(scan.start(y)))
    np.testing.assert_allclose((4 * scan).start(4 * y), scan.start(y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((4 * small).pinv(4 * small(x)), small.pinv(small(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal((0 * small).pinv(small(x)), jnp.zeros(SHAPE))
    both = stack([blur, holes])
    np.testing.assert_allclose(both.start(both(x)), (blur.start(blur(x)) + holes.start(holes(x))) / 2, rtol=1e-6)
    for operator in (both, small @ blur):
        matrix = np.asarray(dense(operator)[0], np.float64)
        expected = np.linalg.pinv(matrix) @ np.ravel(operator(x))
        assert operator.iterative
        np.testing.assert_allclose(operator.pinv(operator(x)).ravel(), expected, atol=2e-3)
    assert not getattr(2 * small, "iterative", False) and (2 * scan).iterative
    for bare in (2 * blur, blur @ holes, stack([blur, scan])):
        assert not hasattr(bare, "measured")
    np.testing.assert_array_equal((2 * (holes @ blur)).measured, MASK)
    np.testing.assert_array_equal(both.measured, np.concatenate([np.ones(SHAPE), MASK]))
    channels = from_functions(lambda x: x.ravel()[:3], image_shape=(8, 8, 2))
    expected = np.concatenate([np.repeat(MASK.ravel(), 2), np.ones(3)])
    np.testing.assert_array_equal(stack([holes, channels]).measured, expected)


def test_under_jit_vmap_and_grad():
    """Operators are arguments; put together in a trace they compile once, and all of it has its derivative."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def misfit(scan, blur, scales, x, y):
        def one(scale):
            both = stack([scale * scan @ blur, blur])
            return jnp.sum((both(x) - y) ** 2) + both.norm + both.T(y).sum()

        return jax.vmap(jax.value_and_grad(one))(scales)

    scan, blur = ONE["parallel"], ONE["blur"]
    x = jnp.asarray(RNG.random(SHAPE), jnp.float32)
    y = stack([scan, blur])(x)
    scales = jnp.asarray([0.5, 1.5])
    values, slopes = misfit(scan, blur, scales, x, y)
    for scale, value in zip(scales, values, strict=True):
        both = stack([float(scale) * scan @ blur, blur])
        expected = jnp.sum((both(x) - y) ** 2) + both.norm + both.T(y).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-4)
    above, below = (misfit(scan, blur, scales + step, x, y)[0] for step in (1e-2, -1e-2))
    np.testing.assert_allclose(slopes, (above - below) / 2e-2, rtol=2e-3)
    misfit(KINDS["parallel"](SHAPE), KINDS["blur"](SHAPE), scales, x, y)  # made again it is the same program


def test_the_derivative_of_a_norm():
    """Of [s A; B], against the singular values of the matrix."""
    parts = matrix_of("parallel")[1], matrix_of("functions")[1]
    found = jax.grad(lambda s: stack([s * ONE["parallel"], ONE["functions"]]).norm)(0.3)
    above, below = (np.linalg.norm(np.concatenate([s * parts[0], parts[1]]), 2) for s in (0.301, 0.299))
    np.testing.assert_allclose(found, (above - below) / 2e-3, rtol=5e-3)


@pytest.mark.parametrize(
    "operator",
    [
        ONE["parallel"] @ ONE["blur"],
        pytest.param(stack([ONE["parallel"], 3 * ONE["downsample"]]), marks=pytest.mark.slow),
        pytest.param(5 * ONE["fan"], marks=pytest.mark.slow),
    ],
    ids=["composed", "stacked", "scaled"],
)
def test_solvers_take_them(operator):
    """DDS, DDNM by pinv and total variation explain the data; conjugate gradients solve the normal equations."""
    prior = tiled_prior(lambda x, p, sigma: x / (1 + sigma[:, None, None, None] ** 2), frame_for(SHAPE, 4))
    x = jnp.asarray(0.2 + 0.6 * RNG.random((*SHAPE, 1)), jnp.float32)
    y = operator(x)
    for solver, start in (("dds", "operator"), ("ddnm", "noise")):
        few = {"levels": 6, "sigma_max": 1.0, "sigma_min": 0.01}
        result = reconstruct(same_key(), y, operator, prior, solver=solver, start=start, **few)
        chex.assert_tree_all_finite(result.image)
        misfit = operator(result.image) - y
        assert jnp.linalg.norm(misfit.ravel()) < 0.1 * jnp.linalg.norm(y.ravel()), solver
    smooth = total_variation(y, operator, settings=TV(weight=1e-3, iterations=300)).image
    assert jnp.linalg.norm((operator(smooth) - y).ravel()) < 0.1 * jnp.linalg.norm(y.ravel())
    normal = lambda v: operator.T(operator(v)) + v  # noqa: E731
    solved = conjugate_gradient(normal, operator.T(y), jnp.zeros_like(x), 40)
    np.testing.assert_allclose(normal(solved), operator.T(y), rtol=1e-3, atol=1e-3 * float(operator.norm) ** 2)


OTHER = Blur(image_shape=(8, 9), kernel=KERNEL)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ONE["parallel"] @ OTHER, r"images of shape \(8, 8\), but B gives measurements of shape \(8, 9\)"),
        (lambda: ONE["functions"] @ (2 * OTHER), r"\(8, 8\), but B gives measurements of shape \(8, 9\)"),
        (lambda: stack([ONE["blur"], OTHER]), r"images of shape \(8, 8\) and of \(8, 9\)"),
        (lambda: stack([OTHER, ONE["functions"]]), r"images of shape \(8, 8\) and of \(8, 9\)"),
        (lambda: stack([]), "at least one operator"),
        (lambda: stack([OTHER, abs]), "not Convolution, builtin_function_or_method"),
        (lambda: jnp.ones(3) * OTHER, r"a real number, not float32\[3\]"),
        (lambda: np.ones((2, 2)) * OTHER, r"a real number, not float32\[2, 2\]"),
        (lambda: 1j * OTHER, "a real number, not complex64"),
        (lambda: np.nan * OTHER, "scale is nan"),
        (lambda: stack([OTHER, 2 * OTHER])(jnp.ones((9, 8))), r"image of shape \(8, 9\)"),
        (lambda: stack([OTHER, 2 * OTHER]).T(jnp.ones((15, 9))), r"\(16, 9\) or \(16, 9, 'C'\), got \(15, 9\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_images_of_other_types_are_refused():
    real, complex_ = (
        from_functions(lambda x: 2 * x, image_shape=(3, 3), dtype=t) for t in (jnp.float32, jnp.complex64)
    )
    with pytest.raises(ValueError, match="type float32 and of complex64"):
        stack([real, complex_])


@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), np.float64(2), np.asarray(2), jnp.asarray(2)])
def test_scales_of_any_kind_are_the_same_operator(scale):
    expected = 2.0 * ONE["blur"]
    chex.assert_trees_all_equal(scale * ONE["blur"], expected)
    chex.assert_trees_all_equal_dtypes(scale * ONE["blur"], expected)


@pytest.mark.parametrize("other", [2, jnp.ones(SHAPE), None])
def test_only_operators_are_composed(other):
    with pytest.raises(TypeError, match="@"):
        ONE["blur"] @ other


@pytest.mark.parametrize("module", ["algebra", "stack"])
def test_the_examples(module):
    found = doctest.testmod(importlib.import_module(f"padis_jax.operators.{module}"))
    assert found.attempted > 3 and not found.failed


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_a_norm_is_right_where_singular_values_crowd(dtype):
    """Power iteration from noise would stop 1e-3 below."""
    values = jnp.asarray(1 - 0.02 * np.linspace(0, 1, 400) ** 0.5, jnp.float32)
    once = from_functions(lambda x: values.astype(x.dtype) * x, image_shape=(400,), dtype=dtype)
    for operator, norm in ((once @ once, 1.0), (stack([once, 2 * once]), np.sqrt(5))):
        np.testing.assert_allclose(operator.norm, norm, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, np.int32, np.uint8, np.float64])
def test_inverses_take_measurements_of_any_type(dtype):
    half = ONE["functions"]
    y = jnp.arange(64).reshape(8, 8) % 4
    for operator in (half, half @ ONE["identity"], stack([half]), 2.0 * half):
        expected = operator.pinv(y.astype(jnp.float32))
        given = np.asarray(y).astype(dtype)
        for found in (operator.pinv(given), jax.jit(lambda operator, y: operator.pinv(y))(operator, given)):
            np.testing.assert_allclose(found, expected, atol=1e-4 * float(jnp.abs(expected).max()))
            assert found.dtype == jnp.float32
