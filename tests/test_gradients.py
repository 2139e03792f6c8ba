"""Derivatives of `reconstruct` by the measurement and by the start, of every solver with every kind of operator."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax import reconstruct
from padis_jax.operators import Blur, Downsample, Inpaint, ParallelBeam, from_functions, gaussian_kernel
from padis_jax.operators.least_squares import conjugate_gradient
from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.solvers.problem import build_problem
from padis_jax.solvers.registry import METHODS

N = 8
MASK = np.arange(N * N).reshape(N, N) % 3 != 0
OPERATORS = {
    "inpaint": lambda: Inpaint(mask=MASK),
    "ct": lambda: ParallelBeam(image_shape=(N, N), angles=np.arange(3) * np.pi / 3, detector_count=12),
    "blur": lambda: Blur(image_shape=(N, N), kernel=gaussian_kernel(0.5, 3), boundary="reflect"),
    "downsample": lambda: Downsample(image_shape=(N, N), factor=2),
    "complex": lambda: from_functions(lambda x: jnp.fft.fft2(x[..., 0])[:5] / N, image_shape=(N, N, 1)),
}
FAST = {*(("inpaint", name) for name in ("dds", "diffpir", "tmpd", "pnp_admm")), ("ct", "ddnm"), ("downsample", "dps")}
CASES = [
    pytest.param(operator, solver, marks=() if (operator, solver) in FAST else pytest.mark.slow)
    for operator in OPERATORS
    for solver in METHODS
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """A matrix as an operator."""

    matrix: jax.Array
    norm: float = dataclasses.field(default=5.0, metadata={"static": True})

    def __call__(self, image):
        return self.matrix @ image.ravel()

    def T(self, y):
        return (self.matrix.T @ y).reshape(4, 4, 1)


def smooth(patches, positions, sigma):
    """A denoiser of patches that is no linear map and sees its neighbours."""
    s = sigma[:, None, None, None]
    return jnp.tanh((patches + 0.2 * jnp.roll(patches, 1, axis=1)) / (1 + s**2))


@pytest.mark.parametrize(("operator", "solver"), CASES)
def test_gradients_are_finite_and_those_of_differences(operator, solver):
    made, prior = OPERATORS[operator](), tiled_prior(smooth, frame_for((N, N), 4))
    rng = np.random.default_rng(0)
    truth, weight, along_x, of_y = (jnp.asarray(rng.normal(size=(N, N, 1)), jnp.float32) for _ in range(4))
    y, along_y = made(truth), made(of_y)
    # More steps bend so much that differences of float32 resolve no derivative.
    settings = METHODS[solver].settings(**({"cg_steps": 3} if solver == "tmpd" else {}))

    def figure(y, start):
        result = reconstruct(0, y, made, prior, solver=settings, levels=3, sigma_max=0.5, start=start)
        return jnp.vdot(weight, result.image)

    both = jax.jit(jax.value_and_grad(figure, (0, 1)))
    gradients = both(y, truth)[1]
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)
    for direction, step in (((along_y, 0 * truth), 3e-3), ((0 * y, along_x), 3e-3)):
        ahead, behind = (
            both(*(a + s * step * d for a, d in zip((y, truth), direction, strict=True)))[0] for s in (1, -1)
        )
        expected = float(ahead - behind) / (2 * step)
        found = sum(float(jnp.real(jnp.sum(g * d))) for g, d in zip(gradients, direction, strict=True))
        scale = sum(float(jnp.linalg.norm(g) * jnp.linalg.norm(d)) for g, d in zip(gradients, direction, strict=True))
        assert abs(found - expected) <= 2e-2 * abs(expected) + 2e-3 * scale + 1e-4


@pytest.mark.parametrize("unit", [1.0, 1e-11])
def test_a_system_that_is_solved_long_before_the_last_step_has_the_derivative_of_its_solution(unit):
    matrix = jnp.diag(jnp.asarray([1.0, 1.0, 2.0, 2.0]))
    right = unit * jnp.asarray([1.0, 2.0, -1.0, 3.0])

    def figure(matrix, right):
        return jnp.sum(conjugate_gradient(lambda v: matrix @ v, right, jnp.zeros(4), 30))

    of_matrix, of_right = jax.grad(figure, (0, 1))(matrix, right)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(of_right, inverse.sum(0), rtol=1e-4)
    np.testing.assert_allclose(of_matrix, -np.outer(inverse.sum(0), inverse @ right), rtol=1e-3, atol=1e-3 * unit)


def test_a_pseudo_inverse_by_iteration_has_the_derivative_of_its_operator():
    rng = np.random.default_rng(0)
    dense = jnp.asarray(rng.normal(size=(5, 16)), jnp.float32).at[4].set(0)  # of rank 4: neither full columns nor rows
    y, weight = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (5, 16))

    def figure(scale, exact):
        matrix = scale[:, None] * dense
        if exact:
            return weight @ (jnp.linalg.pinv(matrix[:4]) @ y[:4])
        frame = frame_for((4, 4), 0)
        problem = build_problem(Dense(matrix), lambda key, plane, sigma: plane, y, frame, channels=1)
        return jnp.vdot(weight, problem.pinv(y, tolerance=1e-6).ravel())

    ones = jnp.ones(5)
    np.testing.assert_allclose(
        jax.grad(figure)(ones, False)[:4], jax.grad(figure)(ones, True)[:4], rtol=1e-2, atol=1e-3
    )
