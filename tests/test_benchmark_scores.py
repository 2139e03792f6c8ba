"""What the benchmark says of a cell is what one gets by hand from the public functions, for each seed."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_weights

from padis_jax.benchmark import work
from padis_jax.benchmark.cells import Result
from padis_jax.benchmark.grid import Benchmark
from padis_jax.benchmark.measure import Scene
from padis_jax.images import PLAIN, ImageSet
from padis_jax.measurements.simulate import Measurement
from padis_jax.metrics import ssim
from padis_jax.problems.registry import PROBLEMS, simulate
from padis_jax.runs.case import Case
from padis_jax.runs.score import PSNR_LIMIT, Row, score, table
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import load_prior

FIELDS = ("ct8/start", "ct8/tv", "ct8/dds", "ct8/dds_mean8", "inpaint_random/tv", "inpaint_random/dds")
TV_WEIGHTS = {"ct8": 0.003, "inpaint_random": 0.001}
LEVELS = 3
AN_HOUR = 3600.0


@pytest.fixture
def config(tmp_path):
    """One image of 16 x 16 pixels, a prior for it, two seeds."""
    image = np.kron(np.random.default_rng(0).uniform(0.0, 1.0, (1, 4, 4)), np.ones((4, 4)))
    np.save(tmp_path / "images.npy", image.astype(np.float32))
    weights = write_weights(tmp_path / "prior.safetensors")
    return Benchmark(
        ct=str(tmp_path / "images.npy"),
        weights=str(weights),
        only=FIELDS,
        restore="ct",
        seeds=(0, 1),
        evaluations=LEVELS,
        out=str(tmp_path / "out"),
    )


def by_hand(config, truth, field, seed):
    """(image, measurement, operator) of a cell, the image before clipping."""
    problem, method = field.split("/")
    key = jax.random.fold_in(jax.random.key(seed), 0)  # of image 0
    operator = PROBLEMS[problem].build(truth.shape[:2], 1, jax.random.fold_in(key, 2))
    y = simulate(PROBLEMS[problem], jax.random.fold_in(key, 0), truth, operator).y
    if method == "start":
        return operator.start(y).reshape(truth.shape), y, operator
    smooth = total_variation(y, operator, settings=TV(weight=TV_WEIGHTS[problem], iterations=500)).image
    smooth = smooth.reshape(truth.shape)
    if method == "tv":
        return smooth, y, operator
    run = functools.partial(
        reconstruct,
        jax.random.fold_in(key, 1),
        y,
        operator,
        load_prior(config.weights),
        solver=DDS(cg_steps=10, noise=PROBLEMS[problem].sigma),
        start=smooth,
        levels=LEVELS,
        inner=1,
        sigma_max=0.2,
        sigma_min=0.003,
    )
    samples = [run(first_chain=chain).image for chain in range(8 if method == "dds_mean8" else 1)]
    return sum(samples[1:], samples[0]) / len(samples), y, operator


@pytest.mark.slow
def test_scores_are_those_that_one_gets_by_hand(config, tmp_path, monkeypatch):
    smooth = Scene.tv
    monkeypatch.setattr(Scene, "tv", lambda scene: (smooth(scene)[0], AN_HOUR))
    finished, failed, found = {}, {}, work.prepare(config)
    work.run(config, found, tmp_path / "out", finished, failed, silent=True)
    assert not failed and len(finished) == 2 * len(FIELDS)
    truth = jnp.asarray(np.load(config.ct)[0][..., None])
    scored = {}
    for job in found.jobs:
        cell, result = job.cell, finished[job.cell.fingerprint]
        field = f"{cell.problem}/{cell.method}"
        image, y, operator = by_hand(config, truth, field, cell.seed)
        kept = np.load(cell.path(tmp_path / "out").with_suffix(".npy"))
        np.testing.assert_allclose(kept, image, atol=2e-3)  # rounding grows in the network
        clipped, data = np.clip(np.float64(image), 0, 1), np.float64(y)
        error = np.mean((clipped - np.float64(truth)) ** 2)
        assert result.psnr == pytest.approx(-10 * np.log10(error), abs=0.02), field
        assert result.ssim == pytest.approx(float(ssim(np.float32(clipped), truth)), abs=1e-3), field
        residual = np.linalg.norm(data - np.float64(operator(image))) / np.linalg.norm(data)
        assert result.residual == pytest.approx(residual, rel=0.01, abs=1e-5), field
        scored[field, cell.seed] = result
        if field.startswith("ct8/dds"):  # else the test would not see which image the residual is of
            other = np.linalg.norm(data - np.float64(operator(np.float32(clipped)))) / np.linalg.norm(data)
            assert abs(other - residual) > 0.02 * residual, field
    spent = {field: scored[field, 0].evaluations for field in FIELDS}
    assert spent == dict(zip(FIELDS, (0, 0, LEVELS, 8 * LEVELS, 0, LEVELS), strict=True))
    for field in FIELDS:
        first, second = (scored[field, seed] for seed in (0, 1))
        # Nothing is drawn for a scan without noise.
        assert (first.psnr == second.psnr) == (field in ("ct8/start", "ct8/tv")), field
        assert (first.seconds >= AN_HOUR) == (field != "ct8/start") and first.seconds < 2 * AN_HOUR


def test_another_image_or_network_makes_other_cells(config, tmp_path):
    def prints():
        return {(j.cell.problem, j.cell.method, j.cell.seed): j.cell.fingerprint for j in work.prepare(config).jobs}

    before = prints()
    assert len(set(before.values())) == 2 * len(FIELDS)
    write_weights(tmp_path / "prior.safetensors", seed=1)
    after = prints()
    assert {cell for cell in before if before[cell] != after[cell]} == {c for c in before if c[1].startswith("dds")}
    image = np.load(config.ct)
    image[0, 3, 5] += 1e-3
    np.save(config.ct, image)
    third = prints()
    assert not {cell for cell in after if after[cell] == third[cell]}


def measured(truth, y):
    """A case whose operator multiplies by ten."""
    measurement = Measurement(jnp.asarray(y), jnp.zeros(y.shape), "paper")
    source = ImageSet(truth[None], ("a",), PLAIN)
    return Case(lambda image: 10 * image, measurement, PLAIN, source, PROBLEMS["denoise"], truth)


def test_scores_at_the_ends_of_the_numbers():
    truth = np.full((12, 12, 1), 0.5, np.float32)
    case, dark = measured(truth, 10 * truth), measured(0 * truth, 0 * truth)
    exact = score("a", truth, case)
    assert exact.psnr == PSNR_LIMIT == 150 and exact.residual == 0 and exact.ssim == pytest.approx(1)
    for wrong in (np.nan, np.inf, 1e25):  # the last is finite, its square in the residual is not
        row = score("b", np.where(truth == 0.5, np.float32(wrong), truth), case, evaluations=3)
        assert row == Row("b", evaluations=3), wrong
    assert table([exact, row], "1").splitlines()[-1].split() == ["b", "-", "-", "-", "-", "3", "0.0"]
    assert score("a", 0 * truth, dark).residual == 0  # not 0 / 0
    found = score("a", truth, dark)
    assert found.residual is None and found.psnr == pytest.approx(6.02, abs=0.01)  # the rest is known
    assert json.loads(json.dumps(found.psnr)) == found.psnr and {"psnr", "ssim", "residual"} < {*Result.__annotations__}
