"""`reconstruct`: operators of any kind, one compilation, keys, starts, averages, and clear refusals."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from linear_problem import FRAME, make, shrink

from padis_jax.operators import ParallelBeam, from_functions
from padis_jax.prior import Prior
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.diffpir import DiffPIR
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.registry import METHODS
from padis_jax.solvers.tv import TV, total_variation

GAUSSIAN, PROBLEM, PRIOR = make()
Y = np.asarray(PROBLEM.measurement)
SHORT = {"levels": 6, "sigma_max": 1.0, "sigma_min": 0.01}


def same_key():
    return jax.random.key(0)  # a new one each time: these tests draw the same again on purpose


class Matrix:
    """A plain class that is no pytree and takes images [H, W]."""

    def __init__(self, matrix):
        self.matrix, self.norm = matrix, float(np.linalg.norm(matrix, 2))

    def __call__(self, image):
        if image.shape != (3, 4):
            raise TypeError(f"image of shape {image.shape}, wanted (3, 4)")
        return jnp.asarray(self.matrix, jnp.float32) @ image.ravel()

    def T(self, y):
        return (jnp.asarray(self.matrix, jnp.float32).T @ y).reshape(3, 4)


@pytest.mark.slow
def test_an_operator_of_ones_own_gives_the_same_image():
    ours = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, **SHORT)
    plain = reconstruct(same_key(), Y, Matrix(GAUSSIAN.matrix), PRIOR, **SHORT)
    derived = from_functions(lambda x: jnp.asarray(GAUSSIAN.matrix, jnp.float32) @ x.ravel(), image_shape=(3, 4))
    third = reconstruct(same_key(), Y, derived, PRIOR, **SHORT)
    chex.assert_shape([ours.image, ours.residual], [(3, 4, 1), (6,)])
    assert ours.evaluations == 6
    np.testing.assert_allclose(plain.image, ours.image, atol=1e-4)
    np.testing.assert_allclose(third.image, ours.image, atol=2e-3)  # its norm is a power iteration's


@pytest.mark.parametrize(
    ("solver", "change"),
    [
        ("dds", DDS(consistency=0.1)),
        ("dps", DPS(zeta=0.5)),
        ("langevin", None),
        ("pnp_admm", PlugAndPlay(sigma=0.3, power=1.0, damping=0.0)),
    ],
)
def test_a_second_call_with_other_data_compiles_nothing(solver, change):
    @chex.assert_max_traces(n=1)
    def denoise(scale, key, plane, sigma):
        return scale * plane / (1 + sigma**2)

    one, other = (Prior(Partial(denoise, jnp.float32(scale)), FRAME) for scale in (1, 0.9))
    reconstruct(same_key(), Y, PROBLEM.operator, one, solver=solver, **SHORT)
    operator = dataclasses.replace(PROBLEM.operator, norm=jnp.float32(7))
    for chunk in (None, 4):
        reconstruct(jax.random.key(1), Y + 1, operator, other, solver=change or solver, chunk=chunk, **SHORT)


def test_a_second_call_with_an_opaque_operator_compiles_nothing():
    traces = []

    class Counted(Matrix):
        def __call__(self, image):
            traces.append(1)
            return super().__call__(image)

    operator = Counted(GAUSSIAN.matrix)
    reconstruct(same_key(), Y, operator, PRIOR, **SHORT)
    traces.clear()
    reconstruct(jax.random.key(1), Y + 1, operator, PRIOR, **SHORT)
    assert len(traces) <= 2  # the shape check alone


@pytest.mark.parametrize("solver", METHODS)
def test_units_of_the_operator_do_not_matter(solver):
    conditioned = {"diffpir": DiffPIR(floor=0.1), "pnp_red": PlugAndPlay(method="red", weight=0.05)}
    settings = conditioned.get(solver)  # this is no test of rounding
    _, thousand, _ = make(scale=1000.0)
    one, two = (
        reconstruct(same_key(), p.measurement, p.operator, PRIOR, solver=settings or solver, **SHORT).image
        for p in (PROBLEM, thousand)
    )
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_batches_under_vmap_equal_single_runs():
    ys = Y + np.arange(3)[:, None].astype(np.float32)
    keys = [jax.random.fold_in(same_key(), index) for index in range(3)]
    one = lambda key, y: reconstruct(key, y, PROBLEM.operator, PRIOR, **SHORT).image  # noqa: E731
    many = jax.vmap(one)(jnp.stack(keys), ys)
    chex.assert_trees_all_close(list(many), [one(key, y) for key, y in zip(keys, ys, strict=True)], atol=1e-4)


def test_the_mean_of_four_chains_has_a_quarter_of_the_variance():
    keys = jax.random.split(same_key(), 400)

    def variance(average):
        def one(key):
            few = {"levels": 2, "sigma_max": 1.0, "sigma_min": 0.1, "solver": DDS(cg_steps=2)}
            return reconstruct(key, Y, PROBLEM.operator, PRIOR, average=average, **few).image

        return float(jnp.sum(jnp.var(jax.vmap(one)(keys), axis=0)))

    assert variance(4) / variance(1) == pytest.approx(0.25, rel=0.15)
    result = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, average=4, inner=2, **SHORT)
    assert result.evaluations == 48 and result.residual.shape == (6,)


def test_evaluations_are_those_of_the_prior():
    """Counted by a denoiser that reports each call while the loop runs."""
    calls = []

    def counted(key, plane, sigma):
        jax.debug.callback(lambda: calls.append(1))
        return plane / (1 + sigma**2)

    for solver in ("dds", "predictor_corrector", "daps"):
        result = reconstruct(same_key(), Y, PROBLEM.operator, Prior(counted, FRAME), solver=solver, inner=2, **SHORT)
        jax.effects_barrier()
        assert len(calls) == result.evaluations > 0, solver
        calls.clear()


def test_progress_counts_all_chains_and_changes_nothing():
    calls = []
    quiet = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, average=2, inner=2, **SHORT)
    shown = reconstruct(
        same_key(),
        Y,
        PROBLEM.operator,
        PRIOR,
        average=2,
        inner=2,
        chunk=5,
        progress=lambda *c: calls.append(c[:2]),
        **SHORT,
    )
    assert calls == [(done, 24) for done in (5, 10, 12, 17, 22, 24)]
    chex.assert_trees_all_equal(quiet, shown)


def test_the_image_explains_the_data():
    """The residual falls along the ladder, and the ladder is the one asked for."""
    result = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, levels=40, sigma_max=2.0, sigma_min=0.003)
    assert float(result.residual[-1]) < 0.02 < float(result.residual[0])
    assert result.sigmas.shape == (40,) and float(result.sigmas[0]) == 2.0


def test_levels_that_are_listed_are_the_ladder():
    """The named ladder's bits where they are its levels, and each its own where they are others."""
    named = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, levels=5, sigma_max=2.0, sigma_min=0.1)
    listed = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, ladder=np.asarray(named.sigmas))
    chex.assert_trees_all_equal(named, listed)
    own = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, ladder=(1.0, 0.9, 0.1))
    np.testing.assert_array_equal(own.sigmas, np.float32([1.0, 0.9, 0.1]))
    assert own.evaluations == 3


@pytest.mark.parametrize(
    ("ladder", "more", "message"),
    [
        ((0.1, 0.2), {}, "must descend"),
        ((0.2, 0.2), {}, "must descend"),
        ((), {}, "one list of noise levels"),
        (((0.2, 0.1),), {}, "one list of noise levels"),
        ((0.2, 0.0), {}, "between 1e-08 and"),
        ((0.2, float("nan")), {}, "between 1e-08 and"),
        ((0.2, 0.1), {"sigma_max": 0.2}, "leave sigma_max and sigma_min out"),
    ],
)
def test_a_list_that_is_no_ladder_is_refused(ladder, more, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, ladder=ladder, **more)


@pytest.mark.parametrize("ladder", [[0.8, 0.3, 0.1], np.array([0.8, 0.3, 0.1], np.float32)])
def test_a_batch_takes_levels_as_a_list(ladder):
    more = {"settings": [DDS()], "starts": jnp.zeros((1, 3, 4, 1)), "ladder": ladder}
    batch = reconstruct_batch(same_key()[None], Y[None], PROBLEM.operator, PRIOR, **more)
    one = reconstruct(same_key(), Y, PROBLEM.operator, PRIOR, solver=DDS(), ladder=ladder, start=jnp.zeros((3, 4, 1)))
    np.testing.assert_allclose(batch.images[0], one.image, atol=1e-5)
    assert batch.residual.shape == (1, 3)


def test_a_batch_looks_at_what_no_trace_can_see():
    ys, starts = np.stack([Y, Y]), np.zeros((2, 3, 4, 1))
    keys, more = jax.random.split(same_key(), 2), {"settings": [DDS()] * 2, "levels": 2}
    missing = np.where(np.arange(ys.size).reshape(ys.shape) == 3, np.nan, ys)
    flat = dataclasses.replace(PROBLEM.operator, norm=jnp.float32(0))
    for given, operator, start, message in (
        (missing, PROBLEM.operator, starts, "measurements has 1 values of 14 that are NaN"),
        (ys, PROBLEM.operator, np.inf + starts, "starts has 24 values of 24 that are NaN or infinite"),
        (ys, flat, starts, "the operator's norm is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            reconstruct_batch(keys, given, operator, PRIOR, starts=start, **more)


def kept_start(start, **more):
    """The image of a chain that keeps its start: a denoiser that returns its input, and no data step."""
    prior = Prior(Partial(shrink, jnp.float32(1)), FRAME)
    still = {"solver": Langevin(zeta=1e-12, eps=1e-12), "levels": 1, "sigma_max": 0.5}
    return reconstruct(same_key(), Y, PROBLEM.operator, prior, start=start, **still, **more).image


def test_start_from_an_image():
    given = np.random.default_rng(0).uniform(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(kept_start(given, start_noise=False)[..., 0], given, atol=1e-4)
    np.testing.assert_allclose((kept_start(given) - kept_start("noise"))[..., 0], given, atol=1e-4)


def test_start_from_noise():
    np.testing.assert_allclose(kept_start("noise", start_noise=False), 0, atol=1e-4)
    assert 0.2 < float(jnp.std(kept_start("noise"))) < 0.9


def test_start_from_the_operator():
    expected = jnp.clip(PROBLEM.operator.start(PROBLEM.measurement), 0, 1)
    np.testing.assert_allclose(kept_start("operator", start_noise=False), expected, atol=1e-4)


def test_start_from_total_variation():
    settings = TV(weight=0.5, iterations=50)
    expected = total_variation(Y, PROBLEM.operator, settings=settings).image
    np.testing.assert_allclose(kept_start(settings, start_noise=False), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measurement": Y[:-1]}, r"measurement \(6,\).*do not fit"),
        ({"measurement": np.where(np.arange(7) == 2, np.nan, Y)}, "measurement has 1 values of 7 that are NaN"),
        ({"measurement": np.full(7, np.inf)}, "7 values of 7"),
        ({"operator": lambda image: image}, "no .T"),
        ({"solver": "ddss"}, "there is no solver .*; choose one of dds, dps, langevin"),
        ({"settings": DPS()}, "settings are DPS but solver is 'dds'"),
        ({"levels": 0}, "levels is 0"),
        ({"inner": 0}, "inner is 0"),
        ({"average": 0}, "average is 0"),
        ({"sigma_min": 2.0}, "must be positive and descend"),
        ({"sigma_min": 0.0}, "must be positive and descend"),
        ({"ladder": "linear"}, "use one of geometric, edm"),
        ({"start": "fbp"}, "use 'noise', 'operator', 'tv'"),
        ({"start": np.zeros((4, 3))}, r"start has shape \(4, 3\)"),
        ({"start": np.full((3, 4), np.nan)}, "start has 12 values"),
        ({"operator": Matrix(GAUSSIAN.matrix), "start": "operator"}, "no .start"),
    ],
)
def test_bad_input_is_refused_with_one_line(change, message):
    arguments = {"measurement": Y, "operator": PROBLEM.operator, **SHORT} | change
    measurement, operator = arguments.pop("measurement"), arguments.pop("operator")
    with pytest.raises(ValueError, match=message) as error:
        reconstruct(same_key(), measurement, operator, PRIOR, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flat", [False, True])
def test_a_batch_without_vmap_is_refused_with_the_remedy(flat):
    operator = ParallelBeam(image_shape=(3, 4), angles=[0.1, 1.2], detector_count=5)
    batch = np.ones((6, 2, 5) if flat else (6, 2, 5, 1), np.float32)
    message = (
        rf"shape {batch.shape}: one axis more than the operator's {batch.shape[1:]}; .* use jax.vmap over keys and"
    )
    for solver in ("dds", "pnp_admm"):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")) as error:
            reconstruct(same_key(), batch, operator, PRIOR, solver=solver)
        assert "\n" not in str(error.value)


class NumPyMatrix(Matrix):
    def __call__(self, image):
        return self.matrix @ np.asarray(image).ravel()


def test_an_operator_that_calls_numpy_is_refused_with_the_remedy():
    message = r"^the operator calls NumPy on a traced array: write it with jax.numpy$"
    with pytest.raises(ValueError, match=message):
        reconstruct(same_key(), Y, NumPyMatrix(GAUSSIAN.matrix), PRIOR)
    with pytest.raises(ValueError, match=message):
        total_variation(Y, NumPyMatrix(GAUSSIAN.matrix))


def test_an_operator_for_other_images_is_refused_with_both_shapes():
    operator = from_functions(lambda x: 2 * x, image_shape=(4, 4))
    with pytest.raises(ValueError, match=r"\(4, 4\).*image_shape \(3, 4\)"):
        reconstruct(same_key(), np.zeros((4, 4)), operator, PRIOR)
