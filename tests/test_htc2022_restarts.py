"""Restarts: one chain after another, from image to image; and rays smoothed until coarse pixels can explain them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import write_weights

from padis_jax import load_prior
from padis_jax.operators import dot_test
from studies.htc2022.data import Arc, scanner
from studies.htc2022.discs import disc

module = pytest.importorskip("studies.htc2022.restarts")
ARC = Arc(
    "a",
    np.deg2rad(np.arange(0, 30, 5.0)),
    np.random.default_rng(0).uniform(size=(6, 40)).astype(np.float32),
)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors", image_shape=(16, 16)))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name, value in dict(FIRST_LEVELS=4, COUNT=3, LEVELS=2, LAST=0.1, CG_STEPS=1).items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.slow
def test_every_restart_starts_from_the_image_before_and_every_chain_from_nothing(prior, monkeypatch):
    noise = np.broadcast_to(np.where(np.arange(40) < 20, 0.06, 0.08), ARC.sinogram.shape)
    calls, images, keys, real = [], [], [], module.reconstruct

    def recorded(key, y, operator, prior_, **options):
        assert prior_ is prior
        solved = real(key, y, operator, prior_, **options)
        calls.append(options | {"y": np.asarray(y)[..., 0]})
        images.append(np.asarray(solved.image[..., 0]))
        keys.append(tuple(np.asarray(jax.random.key_data(key))))
        return solved

    monkeypatch.setattr(module, "reconstruct", recorded)
    monkeypatch.setattr(module, "SHARE", 0.5)
    image = module.restarts(jax.random.key(0), ARC, prior, noise=noise, chains=2)
    assert [(c["sigma_max"], c["levels"]) for c in calls] == ([(3.0, 4)] + [(1.0, 2)] * 3) * 2
    assert all(c["sigma_min"] == 0.1 for c in calls) and len(set(keys)) == 8
    for turn in (0, 4):
        assert not np.asarray(calls[turn]["start"]).any()
    for turn in (1, 2, 3, 5, 6, 7):
        np.testing.assert_array_equal(calls[turn]["start"], images[turn - 1])
    np.testing.assert_allclose(image, (images[2] + images[3] + images[6] + images[7]) / 4, atol=1e-6)
    assert (images[3] != images[7]).any()
    typical = np.sqrt((0.06**2 + 0.08**2) / 2)
    told = calls[5]["solver"]
    assert told.noise == pytest.approx(typical / 2)
    assert (told.floor, told.cg_steps, told.low, told.high) == (0.03, 1, 0.0, 1.2)
    smooth = module.smoothing(scanner(ARC, 16), 1.0)(ARC.sinogram[..., None])[..., 0]
    np.testing.assert_allclose(calls[5]["y"], smooth * typical / noise, rtol=1e-5)
    done = []
    options = dict(noise=noise, progress=lambda: done.append(len(images)))
    alone = module.restarts(jax.random.key(0), ARC, prior, chains=1, **options)
    assert done == [9, 10, 11, 12]
    np.testing.assert_allclose(alone, (images[2] + images[3]) / 2, atol=1e-6)  # however many chains there are


@pytest.mark.slow
def test_what_is_fitted_after_a_run_is_what_the_next_one_starts_from(prior, monkeypatch):
    fitted, starts, real = [], [], module.reconstruct

    def recorded(key, y, operator, prior, **options):
        starts.append(np.asarray(options["start"]))
        return real(key, y, operator, prior, **options)

    def fit(image):
        assert image.shape == (16, 16)
        fitted.append(jnp.full((32, 32), len(fitted) / 10))
        return fitted[-1]

    monkeypatch.setattr(module, "reconstruct", recorded)
    image = module.restarts(jax.random.key(0), ARC, prior, noise=0.1, chains=2, fit=fit)
    assert len(fitted) == 8 and image.shape == (32, 32)
    for turn in (1, 2, 3, 5, 6, 7):
        assert starts[turn].shape == (16, 16)
        np.testing.assert_allclose(starts[turn], (turn - 1) / 10, atol=1e-6)
    np.testing.assert_allclose(image, (0.2 + 0.3 + 0.6 + 0.7) / 4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "value"), [(0, 0.1), (1, 0.2)])
def test_of_no_restart_or_one_the_last_image_is_kept(prior, count, value, monkeypatch):
    images = (jnp.full((32, 32), n / 10) for n in range(1, 9))
    monkeypatch.setattr(module, "COUNT", count)
    image = module.restarts(jax.random.key(0), ARC, prior, noise=0.1, chains=1, fit=lambda _: next(images))
    np.testing.assert_allclose(image, value, atol=1e-6)


@pytest.mark.slow
def test_smoothed_rays_of_coarse_pixels_are_those_of_the_disc():
    arc = Arc("a", np.deg2rad(np.arange(0, 90, 15.0)), np.empty((6, 140)))
    large, small = scanner(arc, 256), scanner(arc, 64)
    fine = disc(0, 3, side=256)
    coarse = fine.reshape(64, 4, 64, 4).mean((1, 3))[..., None]
    rays = large(jnp.asarray(fine)[..., None])

    def misfit(smooth):
        operator = module.weighted(small, jnp.ones(()), smooth)
        return float(jnp.sqrt(jnp.mean(jnp.square(operator(coarse) - smooth(rays)))))

    assert misfit(module.smoothing(small, 1.0)) < misfit(lambda y: y) / 2.5
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, small.measurement_shape)[..., None], jnp.float32)
    operator = module.weighted(small, weights, module.smoothing(small, 1.0))
    assert dot_test(operator, (64, 64, 1), key=jax.random.key(0)) < 1e-5


def test_smoothing_keeps_what_is_flat_away_from_the_ends_of_the_detector():
    smooth = module.smoothing(scanner(Arc("a", np.zeros(1), np.empty((1, 140))), 64), 1.0)
    flat, single = smooth(jnp.ones((1, 140, 1)))[0, :, 0], smooth(jnp.eye(140)[None, 70, :, None])[0, :, 0]
    np.testing.assert_allclose(flat[12:-12], 1.0, rtol=1e-4)
    # a pixel of 1.187 mm, 1.348 times as large on the detector, in bins of 0.8 mm
    deviation = np.sqrt(np.sum(single * (np.arange(140) - 70.0) ** 2) / np.sum(single))
    np.testing.assert_allclose(deviation, 1.1866 * 1.3484 / 0.8, rtol=2e-3)
