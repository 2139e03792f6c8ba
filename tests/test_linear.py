"""Operators from functions, their norm and pseudo-inverse, and conjugate gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.operators import (
    Blur,
    FanBeam,
    Inpaint,
    ParallelBeam,
    conjugate_gradient,
    dot_test,
    from_functions,
    operator_norm,
    stack,
)
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.linear import Operator
from padis_jax.operators.norm import lanczos_norm
from padis_jax.operators.weighting import weigh

MATRIX = np.random.default_rng(0).standard_normal((12, 20)).astype(np.float32)  # more unknowns than equations


def forward(x):
    return jnp.asarray(MATRIX) @ x.ravel()


def transpose(y):
    return (jnp.asarray(MATRIX).T @ y).reshape(5, 4)


def make():
    return from_functions(forward, transpose, image_shape=(5, 4))


def test_an_operator_of_two_functions():
    operator = make()
    x = jax.random.normal(jax.random.key(0), (5, 4))
    assert isinstance(operator, Operator)
    assert operator.measurement_shape == (12,)
    np.testing.assert_array_equal(operator(x), forward(x))
    np.testing.assert_array_equal(operator.T(operator(x)), transpose(forward(x)))
    np.testing.assert_allclose(operator.norm, np.linalg.norm(MATRIX, 2), rtol=1e-3)
    np.testing.assert_allclose(operator.start(operator(x)), operator.T(operator(x)) / operator.norm**2)


def test_it_passes_through_jit_as_an_argument_and_compiles_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(operator, x):
        return operator.T(operator(x)) / operator.norm

    operator, x = make(), jnp.ones((5, 4))
    np.testing.assert_array_equal(apply(operator, x), apply(operator, x))


def test_the_derived_transpose_is_the_transpose():
    operator = from_functions(forward, image_shape=(5, 4))
    y = jax.random.normal(jax.random.key(0), (12,))
    np.testing.assert_allclose(operator.T(y), transpose(y), rtol=1e-5, atol=1e-5)
    assert dot_test(operator, (5, 4), key=jax.random.key(1)) < 1e-6


@pytest.mark.parametrize(("dtype", "norm"), [(jnp.float32, 1), (jnp.complex64, np.sqrt(2))])
def test_the_norm_is_over_images_of_the_given_type(dtype, norm):
    """|x + i y| is the length of a real (x, y), and up to root 2 times that of a complex one."""
    operator = from_functions(
        lambda x: (x[0].astype(complex) + 1j * x[1].astype(complex))[None], image_shape=(2,), dtype=dtype
    )
    np.testing.assert_allclose(operator.norm, norm, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_for_complex_data_the_derived_transpose_is_conjugated(dtype):
    mask = jnp.asarray(np.exp(1j * np.arange(20.0).reshape(5, 4)), jnp.complex64)
    operator = from_functions(lambda x: mask * jnp.fft.fft2(x), image_shape=(5, 4), dtype=dtype)
    assert operator.T(jnp.ones((5, 4), jnp.complex64)).dtype == dtype
    assert dot_test(operator, (5, 4), key=jax.random.key(0), dtype=dtype) < 1e-6
    np.testing.assert_allclose(operator.norm, np.sqrt(20), rtol=1e-3)  # unitary up to the FFT's scaling


SCAN = dict(image_shape=(8, 9), angles=[0.2, 1.1, 2.5], detector_count=14)


@pytest.mark.parametrize("fan", [False, True])
def test_scans_with_their_own_transpose_can_be_composed(fan):
    scan = FanBeam(**SCAN, source_distance=20, detector_distance=5) if fan else ParallelBeam(**SCAN)
    operator = from_functions(lambda x: 2 * scan(x[:, ::-1]), image_shape=(8, 9))
    assert dot_test(operator, (8, 9), key=jax.random.key(0)) < 1e-6
    y = jax.random.normal(jax.random.key(1), (3, 14))
    np.testing.assert_allclose(operator.T(y), 2 * scan.T(y)[:, ::-1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(operator.norm, 2 * scan.norm, rtol=2e-3)


def test_the_dot_test_sees_a_wrong_transpose():
    class Wrong:
        norm = 1.0

        def __call__(self, x):
            return forward(x)

        def T(self, y):
            return 1.01 * transpose(y)

    assert dot_test(Wrong(), (5, 4), key=jax.random.key(0)) > 1e-4


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.0, -1.0])
def test_the_dot_test_is_relative(factor):
    """Of a single number <a, x>, A x y is ||A x|| ||y|| but for its sign: f times A.T is off by |1 - f|."""

    class Scaled:
        norm = 1.0

        def __call__(self, x):
            return 1e3 * forward(x)[:1]

        def T(self, y):
            return factor * 1e3 * transpose(jnp.pad(y, (0, 11)))

    for seed in range(3):
        found = dot_test(Scaled(), (5, 4), key=jax.random.key(seed))
        np.testing.assert_allclose(found, abs(1 - factor), atol=1e-5)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ((forward, lambda y: 2 * transpose(y)), "dot test"),
        ((forward, lambda y: transpose(y).T), r"gives shape \(4, 5\)"),
        ((lambda x: forward(x) ** 2,), "linear"),
        ((lambda x: forward(x) + 1, transpose), "linear"),
        ((lambda x: x @ jnp.ones((3, 3)),), r"image of shape \(5, 4\)"),
        ((lambda x: (x, x),), "one array"),
        ((lambda x: MATRIX @ np.asarray(x).ravel(),), "calls NumPy on a traced array: write it with jax.numpy"),
    ],
)
def test_functions_that_are_no_operator_are_refused(functions, message):
    with pytest.raises(ValueError, match=message) as error:
        from_functions(*functions, image_shape=(5, 4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bend", [lambda x: x + 0.02 * x**2, jnp.abs, lambda x: x + 1e-4])
def test_functions_of_large_images_that_are_not_linear_are_refused(bend):
    """Of which the dot test would see a thousandth: a random image is nearly orthogonal to anything."""
    with pytest.raises(ValueError, match="not linear"):
        from_functions(bend, lambda y: y, image_shape=(1500, 1500))
    with pytest.raises(ValueError, match="not linear"):
        from_functions(bend, image_shape=(1500, 1500))


def test_wrong_shapes_are_refused():
    operator = make()
    with pytest.raises(ValueError, match=r"image of shape \(5, 4\), got \(4, 5\)"):
        operator(jnp.ones((4, 5)))
    for method in (operator.T, operator.start, operator.pinv):
        with pytest.raises(ValueError, match=r"measurement of shape \(12,\), got \(11,\)"):
            method(jnp.ones(11))


def test_the_norm_is_right_where_singular_values_crowd():
    values = jnp.linspace(0.9, 1.0, 400)  # power iteration is slowest here
    norm = operator_norm(lambda x: values * x, lambda y: values * y, image_shape=(400,))
    assert abs(float(norm) - 1) < 1e-3


@pytest.mark.parametrize("gain", [1.02, 1.3])
def test_the_norm_is_right_where_one_pixel_stands_out(gain):
    """A random image of 128 x 128 hardly holds it: of functions, of what is put together, and of weights."""
    gains = jnp.ones((128, 128)).at[20, 35].set(gain)
    whole = Inpaint(mask=np.ones((128, 128)))
    operator = from_functions(lambda x: gains * x, image_shape=(128, 128))
    np.testing.assert_allclose(operator.norm, gain, rtol=1e-3)
    np.testing.assert_allclose(stack([operator, whole]).norm, np.hypot(gain, 1), rtol=1e-3)
    weighted, _, _ = weigh(whole, jnp.zeros((128, 128)), 0.1 / gains, (128, 128))
    np.testing.assert_allclose(weighted.norm, weighted.root.max(), rtol=1e-2 if gain < 1.1 else 1e-3)


def test_the_norm_of_nothing_is_zero():
    assert operator_norm(lambda x: 0 * x, lambda y: 0 * y, image_shape=(3, 3)) == 0


def test_pinv_is_the_moore_penrose_inverse():
    y = np.random.default_rng(1).standard_normal(12).astype(np.float32)
    np.testing.assert_allclose(make().pinv(y).ravel(), np.linalg.pinv(MATRIX) @ y, rtol=1e-3, atol=1e-4)
    # more equations than unknowns, and a measurement outside the range: least squares
    tall, b = MATRIX.T, np.random.default_rng(2).standard_normal(20).astype(np.float32)
    x = pseudo_inverse(lambda x: jnp.asarray(tall) @ x, lambda y: jnp.asarray(tall).T @ y, b)
    np.testing.assert_allclose(x, np.linalg.pinv(tall) @ b, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(make().pinv(jnp.zeros(12)), np.zeros((5, 4)))


def test_the_gradient_of_pinv_is_its_transpose():
    """Also of tall matrices, where the cotangent has parts that A' A x = c has no solution for, and of complex ones."""
    rng = np.random.default_rng(4)
    for shape, dtype in (((12, 20), np.float32), ((20, 12), np.float32), ((12, 20), np.complex64)):
        matrix = rng.standard_normal(shape).astype(dtype)
        if dtype is np.complex64:
            matrix = matrix + 1j * rng.standard_normal(shape).astype(np.float32)
        a, c = jnp.asarray(matrix), jnp.asarray(rng.standard_normal(shape[1]), dtype)
        y = jnp.asarray(rng.standard_normal(shape[0]), dtype)
        solve = lambda y, a=a: pseudo_inverse(lambda x: a @ x, lambda r: a.conj().T @ r, y)  # noqa: E731
        (pulled,) = jax.vjp(jax.jit(solve), y)[1](c)
        np.testing.assert_allclose(pulled, np.linalg.pinv(matrix).T @ np.asarray(c), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "operator",
    [
        from_functions(forward, image_shape=(5, 4)),
        ParallelBeam(**SCAN),
        Blur(image_shape=(8, 9), kernel=[[0.2, 0.6, 0.1]], boundary="reflect"),
    ],
    ids=["function", "scan", "blur"],
)
def test_a_loss_through_pinv_is_differentiated(operator):
    """The measurement that a least-squares image fits best is moved along; against a finite difference."""
    shape = (12,) if operator.image_shape == (5, 4) else operator.measurement_shape
    y, way = jax.random.normal(jax.random.key(0), (2, *shape))
    loss = jax.jit(lambda y: jnp.sum(jnp.sin(operator.pinv(operator(operator.T(y))))))  # in the range: no digits lost
    slope = jnp.vdot(jax.grad(loss)(y), way)
    np.testing.assert_allclose(slope, (loss(y + 1e-2 * way) - loss(y - 1e-2 * way)) / 2e-2, rtol=0.05, atol=0.05)


def spd(size):
    a = np.random.default_rng(3).standard_normal((size, size))
    return jnp.asarray(a @ a.T / size + np.eye(size), jnp.float32)


def test_conjugate_gradients_solve_in_as_many_steps_as_unknowns():
    m, b = spd(6), jnp.arange(6.0)
    few = [np.linalg.norm(m @ conjugate_gradient(lambda v: m @ v, b, jnp.ones(6), k) - b) for k in (0, 2, 4, 6)]
    assert few[0] > few[1] > few[2] > few[3]
    np.testing.assert_allclose(conjugate_gradient(lambda v: m @ v, b, jnp.ones(6), 6), np.linalg.solve(m, b), atol=1e-4)


def test_conjugate_gradients_stand_still_after_exact_convergence():
    # On a multiple of the identity the first step is exact and every later one would divide 0 by 0.
    x = conjugate_gradient(lambda v: 2 * v, jnp.arange(4.0), jnp.zeros(4), 5)
    np.testing.assert_array_equal(x, np.arange(4) / 2)
    gradient = jax.grad(lambda b: conjugate_gradient(lambda v: 2 * v, b, jnp.zeros(4), 5).sum())(jnp.arange(4.0))
    assert np.isfinite(gradient).all()


def test_conjugate_gradients_end_where_the_curvature_is_less_than_it_can_be():
    """Of eigenvalues 2, 1 and -0.9 the last is met in the second step."""
    m, b = jnp.diag(jnp.asarray([2.0, 1.0, -0.9])), jnp.asarray([1.0, 1.0, 0.3])
    first = float(b @ b / (b @ m @ b)) * b
    for steps in (1, 2, 5):
        found = conjugate_gradient(lambda v: m @ v, b, jnp.zeros(3), steps, least=1.0)
        np.testing.assert_allclose(found, first, rtol=1e-6)
    # a bound that all directions keep changes nothing
    n, c = spd(6), jnp.arange(6.0)
    exact = conjugate_gradient(lambda v: n @ v, c, jnp.zeros(6), 6)
    np.testing.assert_array_equal(conjugate_gradient(lambda v: n @ v, c, jnp.zeros(6), 6, least=0.5), exact)


def test_conjugate_gradients_keep_the_shape_of_an_image():
    m, b = spd(12), jnp.arange(12.0).reshape(2, 2, 3)
    image = conjugate_gradient(lambda v: (m @ v.ravel()).reshape(v.shape), b, jnp.zeros_like(b), 12)
    np.testing.assert_allclose(image.ravel(), np.linalg.solve(m, b.ravel()), atol=1e-4)


@pytest.mark.parametrize("gap", [1.0, 0.02])
def test_lanczos_norm_is_the_largest_singular_value(gap):
    """Also where it needs more products than the basis holds, and of 0."""
    rng = np.random.default_rng(0)
    left, right = (np.abs(np.linalg.qr(rng.standard_normal((n, n)))[0]) for n in (40, 40))
    matrix = jnp.asarray(left @ np.diag(1 + gap * np.linspace(0, 1, 40)) @ right, jnp.float32)
    for basis, tolerance in ((10, 1e-3), (3, 1e-5)):
        found = lanczos_norm(
            lambda x: matrix @ x.ravel(),
            lambda y: (matrix.T @ y).reshape(5, 8),
            (5, 8),
            tolerance=tolerance,
            basis=basis,
        )
        np.testing.assert_allclose(found, np.linalg.norm(np.asarray(matrix), 2), rtol=tolerance)
    assert lanczos_norm(lambda x: 0 * x, lambda y: 0 * y, (5, 8)) == 0


def chain(calls, n=60):
    """x_{i-1} + x_i + x_{i+1}, zero beyond the ends, of which the largest singular values crowd; and its transpose."""

    def sums(x):
        jax.debug.callback(lambda: calls.append(1))
        padded = jnp.pad(x.ravel(), 1)
        return (padded[:-2] + padded[1:-1] + padded[2:]).reshape(x.shape)

    return sums, sums, (n // 4, 4), 1 + 2 * np.cos(np.pi / (n + 1))


@pytest.mark.parametrize(("basis", "tolerance"), [(10, 1e-5), (4, 1e-4), (3, 1e-3)])
def test_lanczos_norm_restarts_when_its_basis_is_full(basis, tolerance):
    """A chain's singular values are 1 + 2 cos(k pi / (n + 1))."""
    forward, adjoint, shape, norm = chain(calls := [])
    found = lanczos_norm(forward, adjoint, shape, basis=basis, tolerance=tolerance)
    jax.effects_barrier()
    assert 2 * basis < len(calls) / 2 < 300
    np.testing.assert_allclose(found, norm, rtol=tolerance)


def test_iterations_are_limited():
    forward, adjoint, shape, norm = chain(calls := [])
    for function, products in (
        (lambda: lanczos_norm(forward, adjoint, shape, max_iterations=3), 3),
        (lambda: operator_norm(forward, adjoint, image_shape=shape, max_iterations=3), 1 + 3),
        (lambda: pseudo_inverse(forward, adjoint, jnp.ones(shape), max_iterations=3), 3),
    ):
        calls.clear()
        function()
        jax.effects_barrier()
        assert abs(len(calls) - 2 * products) <= 2, products  # and at most one product before the loop


def test_lanczos_norm_takes_fewer_products():
    calls = []

    def count(x):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.asarray(np.abs(MATRIX)) @ x.ravel()

    def back(y):
        return (jnp.asarray(np.abs(MATRIX)).T @ y).reshape(5, 4)

    few = lanczos_norm(count, back, (5, 4))
    jax.effects_barrier()
    lanczos = len(calls)
    many = operator_norm(count, back, image_shape=(5, 4))
    jax.effects_barrier()
    np.testing.assert_allclose(few, many, rtol=1e-3)
    assert 1 <= lanczos < len(calls) - lanczos
