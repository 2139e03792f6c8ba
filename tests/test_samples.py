"""Several samples side by side: the chains of `reconstruct`, their mean and deviation; and how often intervals hold."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import make

from padis_jax.metrics import coverage
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.samples import draw_samples

_, PROBLEM, PRIOR = make()
FEW = {"levels": 4, "sigma_max": 1.0, "sigma_min": 0.1, "solver": DDS(cg_steps=3)}


def same_key():
    return jax.random.key(2)  # a new one each time: these tests draw the same again on purpose


def test_samples_are_the_chains_of_one_reconstruction():
    arguments = (PROBLEM.measurement, PROBLEM.operator, PRIOR)
    samples = draw_samples(same_key(), *arguments, 3, **FEW)
    together = reconstruct(same_key(), *arguments, average=3, **FEW)
    second = reconstruct(same_key(), *arguments, first_chain=1, **FEW)
    found, expected = (samples.mean, samples.images[1], samples.residual[1]), (together.image, *second[:2])
    chex.assert_trees_all_close(found, expected, atol=1e-4)
    np.testing.assert_allclose(samples.deviation, np.std(samples.images, axis=0, ddof=1), atol=1e-6)
    assert float(jnp.abs(samples.images[0] - samples.images[1]).max()) > 1e-3
    chex.assert_shape([samples.images, samples.residual], [(3, 3, 4, 1), (3, 4)])
    assert samples.evaluations == together.evaluations == 12


def test_samples_from_a_later_chain_on():
    arguments = (PROBLEM.measurement, PROBLEM.operator, PRIOR)
    later, first = (draw_samples(same_key(), *arguments, 3, first_chain=n, **FEW).images for n in (2, 0))
    np.testing.assert_allclose(later[0], first[2], atol=1e-5)
    assert float(jnp.abs(later[1:] - first[:2]).max()) > 1e-3
    with pytest.raises(ValueError, match="first_chain is -1: use at least 0"):
        draw_samples(same_key(), *arguments, 3, first_chain=-1, **FEW)


def test_samples_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="count is 1"):
        draw_samples(same_key(), PROBLEM.measurement, PROBLEM.operator, PRIOR, 1)
    with pytest.raises(ValueError, match="average is no option"):
        draw_samples(same_key(), PROBLEM.measurement, PROBLEM.operator, PRIOR, 2, average=2)


@pytest.mark.parametrize("count", [2, 7, 8])
def test_coverage_is_nominal_where_truth_and_samples_are_drawn_alike(count):
    drawn = np.random.default_rng(0).gamma(2.0, size=(count + 1, 150, 160))
    rows = coverage(drawn[:-1], drawn[-1])
    assert len(rows) == count // 2
    assert rows[0].nominal == pytest.approx((count - 1) / (count + 1))
    for row in rows:
        assert row.found == pytest.approx(row.nominal, abs=4 * np.sqrt(0.25 / 24_000))


def test_coverage_is_low_where_samples_are_too_sure_and_counts_the_mask_only():
    drawn = np.random.default_rng(0).normal(size=(9, 60, 60))
    sure = coverage(0.2 * drawn[:-1], drawn[-1])
    assert sure[0].found < 0.5 * sure[0].nominal
    truth = np.where(np.arange(60) < 30, drawn[-1], 100.0)
    half = np.broadcast_to(np.arange(60) < 30, (60, 60))
    assert coverage(drawn[:-1], truth)[0].found < 0.6 * coverage(drawn[:-1], truth, mask=half)[0].found


def test_coverage_of_single_channels():
    rng = np.random.default_rng(0)
    samples, truth = rng.random((4, 5, 6, 3)), rng.random((5, 6, 3))
    red = np.zeros((5, 6, 3), bool)
    red[..., 0] = True
    assert coverage(samples, truth, mask=red) == coverage(samples[..., :1], truth[..., :1])


def test_coverage_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="at least 2 samples"):
        coverage(np.zeros((1, 4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="0 pixels"):
        coverage(np.zeros((2, 4, 4)), np.zeros((4, 4)), mask=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="cannot be compared"):
        coverage(np.zeros((2, 4, 4)), np.zeros((4, 5)))
