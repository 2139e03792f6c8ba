"""CGLS and SIRT against their definitions in NumPy, and how they stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import make, relative

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, read_images
from padis_jax.operators import Inpaint, ParallelBeam, from_functions
from padis_jax.runs.case import simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solve import run_classical
from padis_jax.solvers.classical import cgls, sirt

GAUSSIAN, PROBLEM, _ = make()
A, OPERATOR, Y = GAUSSIAN.matrix, PROBLEM.operator, PROBLEM.measurement
RNG = np.random.default_rng(0)
POSITIVE = np.abs(RNG.standard_normal((15, 12)))


def positive():
    a = jnp.asarray(POSITIVE, jnp.float32)
    return from_functions(lambda x: a @ x.ravel(), image_shape=(3, 4))


def krylov(matrix, y, steps):
    """The minimum of ||y - A x|| over the span of A'y, A'A A'y, ..."""
    vectors = [matrix.T @ y]
    for _ in range(steps - 1):
        vectors.append(matrix.T @ (matrix @ vectors[-1]))
    basis = np.linalg.qr(np.stack([v / np.linalg.norm(v) for v in vectors], 1))[0]
    return basis @ np.linalg.lstsq(matrix @ basis, y, rcond=None)[0]


def test_cgls_minimises_over_the_krylov_space():
    for steps in (1, 3, 5):
        found = cgls(Y, OPERATOR, iterations=steps)
        expected = krylov(A, GAUSSIAN.y, steps)
        assert relative(np.asarray(found.image).ravel(), expected) < 1e-4 and int(found.iterations) == steps
        np.testing.assert_allclose(found.residual, np.linalg.norm(GAUSSIAN.y - A @ expected), rtol=1e-3)
    assert relative(np.asarray(cgls(Y, OPERATOR, iterations=40).image).ravel(), np.linalg.pinv(A) @ GAUSSIAN.y) < 1e-3


@pytest.mark.parametrize("nonnegative", [True, False])
def test_sirt_follows_its_iteration(nonnegative):
    y = POSITIVE @ np.linspace(-0.5, 1, 12)
    x = np.zeros(12)
    for _ in range(7):
        x = x + 1.5 / POSITIVE.sum(0) * (POSITIVE.T @ ((y - POSITIVE @ x) / POSITIVE.sum(1)))
        x = np.maximum(x, 0) if nonnegative else x
    found = sirt(jnp.asarray(y, jnp.float32), positive(), iterations=7, relaxation=1.5, nonnegative=nonnegative)
    assert relative(np.asarray(found.image).ravel(), x) < 1e-5


@pytest.mark.parametrize("method", [cgls, sirt])
def test_both_stop_at_the_noise(method):
    truth = np.linspace(0.2, 1, 12)
    y = jnp.asarray(POSITIVE @ truth + 0.1 * RNG.standard_normal(15), jnp.float32)
    level = 0.1 * np.sqrt(15)
    found = method(y, positive(), iterations=500, noise_norm=level)
    before = method(y, positive(), iterations=int(found.iterations) - 1)
    assert float(found.residual) <= level < float(before.residual) and 1 < int(found.iterations) < 500


@pytest.mark.parametrize("method", [cgls, sirt])
def test_entries_weigh_by_their_noise(method):
    """Three wrong equations whose noise is huge change little."""
    y, std = jnp.asarray(POSITIVE @ np.linspace(0.2, 1, 12), jnp.float32), jnp.ones(15).at[:3].set(1e4)
    wrong = y.at[:3].add(5.0)
    kept = method(wrong, positive(), iterations=20_000, noise_std=std).image
    assert relative(np.asarray(kept).ravel(), np.linspace(0.2, 1, 12)) < 0.05
    assert relative(np.asarray(method(wrong, positive(), iterations=300).image).ravel(), np.linspace(0.2, 1, 12)) > 0.2


def test_tomography_and_masks():
    scan = ParallelBeam(image_shape=(16, 16), angles=np.arange(12) * np.pi / 12, detector_count=24)
    truth = jnp.zeros((16, 16, 1)).at[5:11, 4:9].set(1.0)
    for found in (cgls(scan(truth), scan, iterations=30), sirt(scan(truth), scan, iterations=300)):
        assert float(jnp.linalg.norm(found.image - truth) / jnp.linalg.norm(truth)) < 0.25
    mask = Inpaint(mask=np.eye(16) < 1)
    np.testing.assert_allclose(sirt(mask(truth), mask, iterations=3).image, mask(truth), atol=1e-6)


def test_a_run_stops_at_the_noise_of_its_measurement(tmp_path):
    """The rows of sample.py and of the benchmark: unweighted, and where counts weigh the rays."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    volume = np.where(np.hypot(x, y) < 0.7, 40, -1000).astype(np.int16)
    np.savez(tmp_path / "v.npz", volume=volume[None], spacing=np.ones(3))
    counts, exact = ScanConfig(views=9, bins=36, photons=1e4), ScanConfig(views=9, bins=36, protocol="paper")
    for scan, weighted in ((counts, True), (counts, False), (exact, False)):
        chosen = ImageConfig(str(tmp_path / "v.npz"), 0)
        config = Experiment(image=chosen, scan=scan, classical=("cgls", "sirt"), weighted=weighted)
        images = read_images(config.image.path, fit=HOUNSFIELD)
        case = simulated_case(config, images)
        noise = np.asarray(case.measurement.noise_std, np.float64)
        for name in config.classical:
            image = run_classical(case, name)
            weight = noise**-2 / np.mean(noise**-2) if weighted else 1.0
            misfit = np.sqrt((weight * np.asarray(case.measurement.y - case.operator(image)) ** 2).sum())
            expected = np.sqrt(noise.size / np.mean(noise**-2)) if weighted else np.linalg.norm(noise)
            assert image.shape == (24, 24, 1) and (misfit <= expected * 1.0001 or not noise.any())
    with pytest.raises(UserError, match="not with sirt: its kernel has negative entries; choose another --classical"):
        Experiment(problem="sr4_bicubic", classical=("sirt",))


def test_what_is_refused():
    with pytest.raises(ValueError, match="sirt: the operator has negative entries"):
        sirt(Y, from_functions(lambda x: -x, image_shape=(7,)))
    with pytest.raises(ValueError, match="relaxation is 2.0: it must be above 0 and below 2"):
        sirt(jnp.ones(15), positive(), relaxation=2.0)
    with pytest.raises(ValueError, match="cgls: noise_norm is -1"):
        cgls(Y, OPERATOR, noise_norm=-1)
    with pytest.raises(ValueError, match="iterations"):
        cgls(Y, OPERATOR, iterations=0)
    with pytest.raises(ValueError, match="cgls takes one image: use jax.vmap over measurements"):
        cgls(jnp.stack([Y, Y]), OPERATOR)
    fourier = from_functions(jnp.fft.fft2, image_shape=(4, 4))
    with pytest.raises(ValueError, match="sirt: the measurement is complex"):
        sirt(fourier(jnp.ones((4, 4))), fourier)
    many = jax.vmap(lambda y: cgls(y, OPERATOR, iterations=5).image)(jnp.stack([Y, 2 * Y]))
    np.testing.assert_allclose(many[1], 2 * many[0], rtol=1e-3, atol=1e-5)
