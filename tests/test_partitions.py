"""Closed forms of tilings of Gaussian images against sampling, and the loop with less fresh noise against DDS."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import padis_jax as pj
from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.operators import ParallelBeam
from padis_jax.patches import frame_for
from padis_jax.prior import Prior, tiled_prior
from studies.partitions import gaussian
from studies.partitions.figure import figure, losses, read_cells
from studies.partitions.measured import moments, offsets_of
from studies.partitions.reconstructions import known_of, reconstructed

FRAME = frame_for((6, 6), 4)  # 2 x 2 tiles, 2 x 2 offsets
CLEAN = gaussian.covariance(6, 2.0)
SIGMA = 0.15


def drawn(count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy images [count, n]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 36)) @ np.linalg.cholesky(CLEAN).T
    return x, x + SIGMA * rng.normal(size=x.shape)


def test_errors_of_denoisers_are_those_of_drawn_images() -> None:
    """All four, against means over 20,000 images; each tile is denoised by its own regression."""
    x, y = drawn()
    noisy = CLEAN + SIGMA**2 * np.eye(36)
    own = y @ np.linalg.inv(noisy) @ CLEAN
    each = []
    for tiling in gaussian.blocks(FRAME):
        d = np.zeros_like(y)
        for p in tiling:
            d[:, p] = y[:, p] @ np.linalg.solve(noisy[np.ix_(p, p)], CLEAN[np.ix_(p, p)])
        each.append(d)
    mean = np.mean(each, axis=0)
    e = gaussian.errors(FRAME, CLEAN, SIGMA)
    assert np.mean((own - x) ** 2) == pytest.approx(e.least, rel=0.01)
    assert np.mean([np.mean((d - x) ** 2) for d in each]) == pytest.approx(e.one, rel=0.01)
    assert np.mean((mean - x) ** 2) == pytest.approx(e.average, rel=0.01)
    assert np.mean([np.mean((d - mean) ** 2) for d in each]) == pytest.approx(e.variance, rel=0.02)
    assert e.one == pytest.approx(e.average + e.variance, rel=1e-9)
    assert e.least < e.average < e.one


def test_every_tiling_covers_the_image_once() -> None:
    """The blocks are a partition of the pixels, and there are as many tilings as offsets."""
    tilings = gaussian.blocks(FRAME)
    assert len(tilings) == FRAME.margin[0] * FRAME.margin[1] == 4
    for tiling in tilings:
        np.testing.assert_array_equal(np.sort(np.concatenate(tiling)), np.arange(36))


@pytest.mark.parametrize("count", [1, 2])
def test_the_covariance_of_annealing_is_that_of_chains(count: int) -> None:
    """Ancestral sampling with one or two random tilings a step, 40,000 chains."""
    rng, ladder, n = np.random.default_rng(1), np.array([1.0, 0.4, 0.15]), 40000
    x = rng.normal(size=(n, 36)) @ np.linalg.cholesky(CLEAN + np.eye(36)).T
    for level, after in zip(ladder, [0.4, 0.15, 0.0], strict=True):
        q = gaussian.precisions(FRAME, CLEAN + level**2 * np.eye(36))
        weight = 1 - (after / level) ** 2
        chosen = np.stack([rng.permutation(4)[:count] for _ in range(n)])
        score = np.zeros_like(x)
        for o in range(4):
            score -= np.sum(chosen == o, axis=1, keepdims=True) / count * (x @ q[o])
        x = x + weight * level**2 * score + after * np.sqrt(weight) * rng.normal(size=x.shape)
    expected = gaussian.annealed(FRAME, CLEAN, ladder, count=count)
    assert np.linalg.norm(np.cov(x.T) - expected) < 0.03 * np.linalg.norm(expected)
    others = gaussian.annealed(FRAME, CLEAN, ladder, count=None)
    assert np.trace(expected) > np.trace(others)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_step_is_the_mean_over_all_choices_of_tilings(count: int) -> None:
    """Exactly: the covariance of a step, given each choice of `count` tilings of 4, with and without the correction."""
    level, after = 0.4, 0.15
    start, weight = CLEAN + level**2 * np.eye(36), 1 - (after / level) ** 2
    q = gaussian.precisions(FRAME, start)
    each = [
        np.eye(36) - weight * level**2 * q[list(chosen)].mean(0) for chosen in itertools.combinations(range(4), count)
    ]
    drawn = after**2 * weight * np.eye(36)
    expected = np.mean([step @ start @ step.T for step in each], axis=0) + drawn
    found = gaussian.annealed(FRAME, CLEAN, np.array([level]), last=after, count=count)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    mean = np.mean(each, axis=0)
    added = expected - drawn - mean @ start @ mean.T
    assert np.linalg.eigvalsh(drawn - added).min() > 0 and np.abs(added).max() > 1e-5
    less = gaussian.annealed(FRAME, CLEAN, np.array([level]), last=after, count=count, corrected=True)
    np.testing.assert_allclose(less, expected - added, atol=1e-12)


def test_proposition_1_holds_for_an_image_that_is_not_gaussian() -> None:
    """A mixture of two Gaussians on 4 pixels, its score and those of two blocks of 2 in closed form, 200,000 images."""
    rng, n, blocks = np.random.default_rng(2), 200000, ([0, 1], [2, 3])
    means, factors = np.array([[0.0, 0.4, 0.1, 0.5], [0.6, 0.1, 0.5, 0.0]]), rng.normal(size=(2, 4, 4)) / 6
    covariances = factors @ factors.transpose(0, 2, 1) + SIGMA**2 * np.eye(4)
    kind = rng.integers(0, 2, n)
    y = means[kind] + np.einsum("nij,nj->ni", np.linalg.cholesky(covariances)[kind], rng.normal(size=(n, 4)))

    def score(of: list[int]) -> np.ndarray:
        """Of the marginal density of the pixels `of`."""
        logs, each = [], []
        for mean, covariance in zip(means[:, of], covariances[:, of][:, :, of], strict=True):
            pull = (mean - y[:, of]) @ np.linalg.inv(covariance)
            logs.append(-np.sum((mean - y[:, of]) * pull, 1) / 2 - np.log(np.linalg.det(covariance)) / 2)
            each.append(pull)
        share = 1 / (1 + np.exp(logs[1] - logs[0]))[:, None]
        return share * each[0] + (1 - share) * each[1]

    own, tiled = score([0, 1, 2, 3]), np.concatenate([score(block) for block in blocks], 1)
    apart = np.mean(np.sum((tiled - own) ** 2, 1))
    assert apart == pytest.approx(np.mean(np.sum(own**2, 1)) - np.mean(np.sum(tiled**2, 1)), rel=0.03)
    assert apart > 0.05 * np.mean(np.sum(own**2, 1))


def test_what_averaging_leaves_of_an_unbiased_variance() -> None:
    """Over all choices of K of 6 numbers; `known_of` is told the variance with the divisor 5."""
    values = np.random.default_rng(0).normal(size=6)
    rows = [{"sigma": 0.1, "variance": values.var(ddof=1)}]
    for count in range(1, 7):
        means = [np.mean(chosen) for chosen in itertools.combinations(values, count)]
        found = float(known_of(rows, count, 6, corrected=True).variance[0])
        assert found == pytest.approx(np.var(means), rel=1e-5, abs=1e-9)
        assert gaussian.of_tilings(count, 6) * values.var() == pytest.approx(np.var(means), abs=1e-12)


def test_corrected_annealing_is_that_of_the_average() -> None:
    """Proposition 3: what the tilings add, taken from what is drawn, leaves the covariance of averaging them all."""
    ladder = np.geomspace(1, 0.1, 12)
    one, corrected, average = (
        gaussian.annealed(FRAME, CLEAN, ladder, last=0.08, count=c, corrected=k)
        for c, k in ((1, False), (1, True), (None, False))
    )
    np.testing.assert_allclose(corrected, average, atol=1e-12)
    assert np.abs(one - average).max() > 1e-4


def test_the_own_score_draws_the_image() -> None:
    """With the image's own score and many levels the covariance is C."""
    assert gaussian.distance(gaussian.annealed(FRAME, CLEAN, np.geomspace(3, 0.005, 400), count=0), CLEAN) < 0.02


def small_prior(tilings: int = 1) -> Prior:
    """Shrinks a patch towards its own mean, so that tilings differ."""

    def denoise(patches: jax.Array, positions: jax.Array, sigma: jax.Array) -> jax.Array:
        keep = 0.1 / (0.1 + jnp.square(sigma))[:, None, None, None]
        mean = patches.mean((1, 2), keepdims=True)
        return mean + keep * (patches - mean)

    return tiled_prior(denoise, frame_for((12, 12), 4), tilings=tilings)


def test_measured_moments_add_up() -> None:
    """Over all tilings the error of one is that of the average and the variance, which is the unbiased one here."""
    prior = small_prior()
    image = np.random.default_rng(0).uniform(size=(1, 12, 12, 1)).astype(np.float32)
    (row,) = moments(prior, image, [0.3])
    count = len(offsets_of(prior, None, 0))
    assert count == 16
    assert row.one == pytest.approx(row.average + row.variance * (count - 1) / count, rel=1e-5)
    assert row.variance > 0


@pytest.mark.parametrize("tilings", [1, 2])
def test_without_a_correction_the_loop_is_that_of_dds(tilings: int) -> None:
    """Bit for bit; with one it is another image."""
    prior = small_prior(tilings)
    operator = ParallelBeam(image_shape=(12, 12), angles=np.arange(5) * np.pi / 5, detector_count=18)
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(12, 12)), jnp.float32)
    y, rows = operator(image), [{"sigma": s, "variance": 0.2 * s**2} for s in (0.01, 0.1, 1.0)]
    settings = pj.DDS(cg_steps=3)
    ours = {
        corrected: reconstructed(
            jax.random.key(3), y, operator, prior, jnp.zeros((12, 12, 1)), settings=settings, levels=6,
            sigma_max=1.0, sigma_min=0.01, known=known_of(rows, tilings, 16, corrected=corrected),
        )
        for corrected in (False, True)
    }  # fmt: skip
    theirs = pj.reconstruct(
        jax.random.key(3), y, operator, prior, solver=settings, levels=6, sigma_max=1.0, sigma_min=0.01
    )
    np.testing.assert_array_equal(ours[False], theirs.image)
    assert float(jnp.max(jnp.abs(ours[True] - theirs.image))) > 1e-3


def test_the_pictures_losses_are_paired_by_slice_and_seed(tmp_path: Path) -> None:
    """Cells of one side only do not count, and corrected ones are of another question."""
    cells = {(20, 0, 1, 0): 30.0, (20, 1, 1, 0): 32.0, (20, 0, 4, 0): 29.0, (20, 1, 4, 0): 30.0, (41, 0, 4, 0): 10.0,
             (20, 0, 4, 1): 50.0}  # fmt: skip
    for name, value in cells.items():
        write_json(tmp_path / "small" / f"{'_'.join(map(str, name))}.json", {"about": {}, "row": {"psnr": value}})
    found = read_cells(tmp_path / "small")
    assert losses(found, 4) == [-1.5] and losses(found, 2) == []
    with pytest.raises(UserError, match="nothing is measured yet: run `python -m studies.partitions measured` first"):
        figure(tmp_path)
    levels = [{"sigma": 0.1, "one": 2.0, "average": 1.0, "variance": 0.001}]
    write_json(tmp_path / "moments_small.json", {"about": {}, "row": {"levels": levels}})
    left, right = figure(tmp_path).axes
    assert left.lines[0].get_ydata().tolist() == [50.0] and left.lines[1].get_ydata() == pytest.approx([10.0])
    assert right.lines[0].get_ydata().tolist() == [0.0, -1.5]
