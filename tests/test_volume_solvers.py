"""Solvers on volumes: closed forms of Gaussian volumes, images as volumes of one slice, what ties slices, refusals."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from linear_problem import denoise, relative
from tiny import compiled_loops

from padis_jax.operators import ParallelBeam, from_functions, stack
from padis_jax.operators.linear import LinearOperator
from padis_jax.operators.weighting import weighted
from padis_jax.patches import Frame
from padis_jax.prior import Prior
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers import dds, plug_and_play
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.sampling import Noise
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.solvers.volume_tv import VolumeTV
from padis_jax.solvers.volumes import Along, anchored, build_volume_problem
from padis_jax.volume_prior import VolumePrior

PLANE = Frame((3, 4), 2, (2, 3))  # margins (1, 2), padded (5, 8)
FRAME = VolumeFrame(PLANE, 3, 2)  # padded (5, 5, 8)


class Gaussian(NamedTuple):
    """x ~ N(mean, covariance) on the padded volume (0 outside of the volume), y = A crop(x), in float64."""

    mean: np.ndarray
    covariance: np.ndarray
    crop: np.ndarray
    matrix: np.ndarray
    y: np.ndarray


def selection(frame):
    """crop as a matrix."""
    size = int(np.prod(frame.image_shape))
    numbered = np.asarray(frame.pad(jnp.arange(1.0, size + 1).reshape(frame.image_shape))).ravel()
    return (numbered[None, :] == np.arange(1, size + 1)[:, None]).astype(float)


def make(frame=FRAME):
    """(Gaussian, operator, prior), with neighbours along z that are alike."""
    rng, shape = np.random.default_rng(0), frame.image_shape
    size = int(np.prod(shape))
    crop = selection(frame)
    half = rng.standard_normal((shape[1] * shape[2],) * 2) / 4
    alike = 0.8 ** np.abs(np.subtract.outer(np.arange(shape[0]), np.arange(shape[0])))
    covariance = crop.T @ np.kron(alike, half @ half.T + 0.05 * np.eye(len(half))) @ crop
    mean = crop.T @ rng.uniform(0.2, 0.8, size)
    matrix = 3 * rng.standard_normal((15, size))
    y = matrix @ crop @ mean + rng.standard_normal(15)
    values, vectors = np.linalg.eigh(covariance)
    arrays = tuple(jnp.asarray(a, jnp.float32) for a in (mean, np.maximum(values, 0), vectors))
    a = jnp.asarray(matrix, jnp.float32)
    operator = LinearOperator(
        lambda v: a @ v.ravel(),
        lambda r: (a.T @ r).reshape(shape),
        shape,
        (15,),
        jnp.float32(np.linalg.norm(matrix, 2)),
    )
    return Gaussian(mean, covariance, crop, matrix, y), operator, VolumePrior(Partial(denoise, arrays), frame)


GAUSSIAN, OPERATOR, PRIOR = make()


def problem(along=None, method="dds"):
    return build_volume_problem(OPERATOR, PRIOR, GAUSSIAN.y.astype(np.float32), along, method)


def variation(g, volume, along):
    """tv ||A||^2 times the matrix of sum (u_{k+1} - u_k)^2 / (2 s_k), s from `volume`."""
    d, h, w = FRAME.image_shape
    step = np.kron(np.diff(np.eye(d), axis=0), np.eye(h * w))
    links = 1 / np.sqrt((step @ volume) ** 2 + along.knee**2)
    return along.tv * np.linalg.norm(g.matrix, 2) ** 2 * step.T @ np.diag(links) @ step


@pytest.mark.parametrize("along", [None, Along(tv=2e-3, knee=0.05)], ids=["alone", "tied"])
def test_dds_of_a_gaussian_volume(along):
    """One level: D by Wiener, u by the normal equations of the module, the state by DDIM; no fresh noise."""
    g, settings = GAUSSIAN, dds.DDS(consistency=0.03, cg_steps=60, eta=0.0)
    noise = Noise(jnp.float32(0.5), jnp.float32(0.2))
    x = jax.random.normal(jax.random.key(0), FRAME.padded_shape)
    found, fit = jax.jit(dds.step)(settings, problem(along), jax.random.key(1), x, noise)
    state = np.asarray(x, float).ravel()
    wiener = g.covariance @ np.linalg.inv(g.covariance + 0.25 * np.eye(len(g.mean)))
    denoised = g.mean + wiener @ (state - g.mean)
    clean = g.crop @ denoised
    system = g.matrix.T @ g.matrix + 0.03 * np.linalg.norm(g.matrix, 2) ** 2 * np.eye(len(clean))
    right = g.matrix.T @ (g.y - g.matrix @ clean)
    if along is not None:
        tie = variation(g, clean, along)
        system, right = system + tie, right - tie @ clean
        assert relative(np.linalg.solve(system, right), np.linalg.solve(system - tie, right + tie @ clean)) > 0.05
    u = g.crop.T @ (clean + np.linalg.solve(system, right))
    assert relative(np.asarray(found).ravel(), u + 0.4 * (state - denoised)) < 1e-4
    assert float(fit.residual) == pytest.approx(np.linalg.norm(g.y - g.matrix @ clean) / np.linalg.norm(g.y), rel=1e-4)


@pytest.mark.parametrize("along", [None, Along(tv=2e-3, knee=0.05)], ids=["alone", "tied"])
def test_the_data_step_of_plug_and_play(along):
    """x solves (A*A + rho + tie) x = A*y + rho (v - u), where the tie is that at v: there x and v meet."""
    g, settings = GAUSSIAN, plug_and_play.PlugAndPlay(weight=0.05, cg_steps=60)
    start, dual = np.random.default_rng(3).random((2, *FRAME.image_shape)).astype(np.float32)
    state, _ = jax.jit(plug_and_play.step)(
        settings,
        problem(along, "pnp_admm"),
        jax.random.key(0),
        (*plug_and_play.begin(settings, jnp.asarray(start))[:2], jnp.asarray(dual)),
        Noise(jnp.float32(0.1), jnp.float32(0.05)),
    )
    v, rho = start.ravel().astype(float), 0.05 * np.linalg.norm(g.matrix, 2) ** 2
    system = g.matrix.T @ g.matrix + rho * np.eye(len(v))
    system = system if along is None else system + variation(g, v, along)
    expected = np.linalg.solve(system, g.matrix.T @ g.y + rho * (v - dual.ravel()))
    assert relative(np.asarray(state[0]).ravel(), expected) < 1e-4


def of_image(solver, **options):
    """(image of one slice, the same as a volume of one slice) of one problem."""
    frame = VolumeFrame(PLANE, 1)
    _, operator, prior = make(frame)
    plane = dataclasses.replace(
        operator,
        forward=lambda x: operator.forward(x[None]),
        adjoint=lambda r: operator.adjoint(r)[0],
        image_shape=(3, 4),
    )
    y = jnp.linspace(-1.0, 2.0, 15)
    image = reconstruct(4, y, plane, Prior(prior.denoise, PLANE), solver=solver, levels=4, **options).image
    return image[..., 0], reconstruct(4, y, operator, prior, solver=solver, levels=4, **options).image


@pytest.mark.parametrize("solver", ["dds", "pnp_admm", "dps"])
def test_a_volume_of_one_slice_is_its_image(solver):
    """Bit for bit where nothing is differentiated, else to rounding."""
    image, volume = of_image(solver)
    assert volume.shape == (1, 3, 4) and float(jnp.abs(image).max()) > 0.1
    if solver == "dps":
        np.testing.assert_allclose(volume[0], image, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(volume[0], image)


def test_a_second_volume_compiles_nothing():
    """Other data, another seed and other weights of the variation are arguments of one program."""
    y = GAUSSIAN.y.astype(np.float32)
    along = Along(tv=1e-3)
    reconstruct(0, y, OPERATOR, PRIOR, levels=3, along=along)
    before = compiled_loops()
    first = reconstruct(1, y, OPERATOR, PRIOR, levels=3, along=Along(tv=2e-3)).image
    second = reconstruct(1, 2 * y, OPERATOR, PRIOR, levels=3, along=Along(tv=3e-3, knee=0.1)).image
    assert compiled_loops() == before
    assert not np.allclose(first, second)


def test_the_gradient_through_a_run_is_finite():
    def loss(y):
        return jnp.sum(jnp.square(reconstruct(0, y, OPERATOR, PRIOR, levels=2, along=Along(tv=1e-3)).image))

    gradient = jax.grad(loss)(jnp.asarray(GAUSSIAN.y, jnp.float32))
    assert np.all(np.isfinite(gradient)) and float(jnp.abs(gradient).max()) > 1e-4


def test_anchored_noise_is_normal_and_alike_along_z():
    """Unit variance in every slice; correlation cos of the angle between slices of one interval, 0 between anchors."""
    z = np.asarray(anchored(jax.random.key(0), (9, 60, 70), jnp.float32, 3)).reshape(9, -1)
    correlation = z @ z.T / z.shape[1]
    np.testing.assert_allclose(np.diag(correlation), 1, atol=0.06)
    np.testing.assert_allclose(np.diag(correlation, 1), np.cos(np.pi / 8), atol=0.06)
    np.testing.assert_allclose(correlation[0, [4, 8]], 0, atol=0.06)
    one = np.asarray(anchored(jax.random.key(0), (1, 60, 70), jnp.float32, 2))
    assert one.std() == pytest.approx(1, abs=0.06)


def test_anchored_noise_reaches_the_solvers():
    """Without data, the noise that DDS leaves between levels is what differs: neighbours have it in common."""
    apart, alike = (
        np.asarray(problem(along).drawn(jax.random.key(2), jnp.zeros(FRAME.padded_shape)))
        for along in (Along(), Along(noise="anchored"))
    )
    assert np.abs(np.diff(alike, axis=0)).mean() < 0.7 * np.abs(np.diff(apart, axis=0)).mean()
    noise = Noise(jnp.float32(0.5), jnp.float32(0.2))
    x = jnp.zeros(FRAME.padded_shape)
    steps = [
        jax.jit(dds.step)(dds.DDS(), problem(along), jax.random.key(1), x, noise)[0]
        for along in (None, Along(noise="anchored"))
    ]
    _, key = jax.random.split(jax.random.key(1))
    fresh = problem(Along(noise="anchored")).drawn(key, x) - jax.random.normal(jax.random.clone(key), x.shape)
    np.testing.assert_allclose(steps[1] - steps[0], 0.2 * fresh, atol=1e-5)


def test_total_variation_of_volumes():
    """depth 0 is every slice by itself; above it a step along z costs, and its transpose is one."""
    rng = np.random.default_rng(0)
    volume = jnp.asarray(rng.random((3, 5, 6)), jnp.float32)
    settings = VolumeTV(weight=0.05, depth=0.0, iterations=300)
    same = LinearOperator(lambda v: v, lambda r: r, (3, 5, 6), (3, 5, 6), jnp.float32(1))
    flat = LinearOperator(lambda v: v, lambda r: r, (5, 6), (5, 6), jnp.float32(1))
    found = total_variation(volume, same, settings=settings).image
    expected = [total_variation(v, flat, settings=TV(weight=0.05, iterations=300)).image for v in volume]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-3)
    deeper = VolumeTV(weight=0.05, depth=2.0, iterations=300)
    tied = total_variation(volume, same, settings=deeper).image

    def objective(x):
        length = np.sqrt(np.square(deeper.gradient(x)).sum(0))
        return 0.5 * np.square(x - volume).sum() + 0.05 * length.sum()

    assert np.abs(np.diff(tied, axis=0)).mean() < 0.7 * np.abs(np.diff(found, axis=0)).mean()
    others = [found, volume, 0.98 * tied, tied + 0.01, 0.9 * tied + 0.1 * found]
    assert objective(tied) < min(objective(other) for other in others)
    deep = VolumeTV(depth=0.7)
    q = jnp.asarray(rng.standard_normal((3, 3, 5, 6)), jnp.float32)
    one, two = jnp.vdot(deep.gradient(volume), q), jnp.vdot(volume, deep.gradient_adjoint(q))
    assert float(one) == pytest.approx(float(two), rel=1e-5)
    np.testing.assert_allclose(deep.gradient(volume)[0, :-1], 0.7 * np.diff(volume, axis=0), rtol=1e-5)


def test_scans_of_volumes():
    """Of the package's operators: start, total variation and solver take them; TV of images is refused."""
    angles = np.linspace(0, np.pi, 3, endpoint=False)
    scan = ParallelBeam(volume_shape=(3, 3, 4), angles=angles)
    y = scan(jnp.linspace(0.0, 1.0, 36).reshape(3, 3, 4))
    found = reconstruct(0, y, scan, PRIOR, levels=2, start=TV(weight=0.01, iterations=3)).image
    assert found.shape == (3, 3, 4) and np.all(np.isfinite(found))
    again = reconstruct(0, y, scan, PRIOR, levels=2, start=VolumeTV(weight=0.01, iterations=3)).image
    np.testing.assert_array_equal(found, again)
    for operator in (scan, 2.0 * scan, stack([scan, scan]), weighted(scan, jnp.ones(y.shape), scan.image_shape),
                     from_functions(jnp.negative, image_shape=y.shape) @ scan):  # fmt: skip
        with pytest.raises(ValueError, match=r"on volumes, and TV is of images: give settings=VolumeTV"):
            total_variation(jnp.ones(operator.measurement_shape), operator)
    found = total_variation(2 * y, 2.0 * scan, settings=VolumeTV(weight=0.04, iterations=3)).image
    expected = total_variation(y, scan, settings=VolumeTV(weight=0.01, iterations=3)).image
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"along": Along(tv=1e-3), "solver": "dps"}, "along.tv has no part in dps"),
        ({"along": Along(noise="anchored"), "solver": "pnp_admm"}, "along.noise has no part in pnp_admm"),
        ({"along": "tv"}, r"along is a str: give Along\(...\)"),
        ({"measurement": np.zeros(14)}, r"measurement \(14,\): of volumes \(3, 3, 4\) the operator gives \(15,\)"),
        ({"prior": Prior(PRIOR.denoise, PLANE), "along": Along(), "measurement": np.zeros(15)}, "one of images"),
        ({"start": np.zeros((3, 3, 5))}, "start has shape"),
        (
            {"prior": VolumePrior(PRIOR.denoise, VolumeFrame(PLANE, 4))},
            r"does not take the prior's volumes \(4, 3, 4\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    options = {"measurement": GAUSSIAN.y, "operator": OPERATOR, "prior": PRIOR, "levels": 2, **given}
    with pytest.raises(ValueError, match=message):
        reconstruct(0, **options)


def test_noise_of_each_entry_weighs_a_volume():
    gaussian, operator, prior = make()
    std = np.linspace(0.5, 2, 15).astype(np.float32)
    problem = build_volume_problem(operator, prior, gaussian.y, None, "dds")
    weighted, _ = problem.weighted(jnp.asarray(std))
    root = (1 / std) / np.sqrt(np.mean(std**-2.0))
    volume = jnp.asarray(np.random.default_rng(1).random(FRAME.image_shape), jnp.float32)
    np.testing.assert_allclose(weighted.forward(volume), root * problem.forward(volume), rtol=1e-4)
    np.testing.assert_allclose(weighted.measurement, root * problem.measurement, rtol=1e-4)
    assert weighted.adjoint(weighted.measurement).shape == FRAME.image_shape
