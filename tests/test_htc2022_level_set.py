"""The level set moves contours to where the rays say that they are, and keeps them smooth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from studies.htc2022.data import Arc, scanner

level_set = pytest.importorskip("studies.htc2022.level_set")


def disc(side, centre, radius):
    """Fractions of pixels, from 4 x 4 points each."""
    axis = (np.arange(4 * side) + 0.5) / 4
    inside = (axis[None] - centre[0]) ** 2 + (axis[:, None] - centre[1]) ** 2 < radius**2
    return inside.reshape(side, 4, side, 4).mean((1, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def scan():
    """A disc of 32 pixels, finely scanned from all round, and a start that is off by a pixel and too large."""
    empty = Arc("a", np.deg2rad(np.arange(0, 360, 15.0)), np.empty((24, 70)))
    truth = disc(32, (17.0, 15.0), 8.0)
    rays = scanner(empty, 256)(jnp.asarray(disc(256, (136.0, 120.0), 64.0)))
    return empty._replace(sinogram=np.asarray(rays)), truth, disc(32, (16.0, 16.0), 9.0)


def test_the_contour_moves_to_where_the_rays_say(scan):
    arc, truth, start = scan
    image = np.asarray(level_set.level_set_fit(arc, 32, noise=0.3)(jnp.asarray(start)))
    assert image.shape == (32, 32) and image.min() >= 0 and image.max() <= 1
    before, after = (np.sqrt(np.mean((i - truth) ** 2)) for i in (start, image))
    assert after < before / 5

    def misfit(i):
        return np.sqrt(np.mean((np.asarray(scanner(arc, 32)(jnp.asarray(i))) - arc.sinogram) ** 2))

    assert misfit(image) < misfit(start) / 2


def test_the_start_may_be_of_any_size(scan):
    arc, truth, _ = scan
    image = level_set.level_set_fit(arc, 32, noise=0.3)(jnp.asarray(disc(16, (8.0, 8.0), 4.5)))
    assert image.shape == (32, 32) and np.sqrt(np.mean(np.square(image - truth))) < 0.05


def test_smoothness_and_noise_weigh_against_each_other(scan, monkeypatch):
    arc, _, start = scan
    noisy = arc._replace(sinogram=arc.sinogram + np.random.default_rng(0).normal(0, 3.0, arc.sinogram.shape))

    def fitted(noise, smoothness):
        monkeypatch.setattr(level_set, "SMOOTHNESS", smoothness)
        return np.asarray(level_set.level_set_fit(noisy, 32, noise=noise)(jnp.asarray(start)))

    monkeypatch.setattr(level_set, "STEPS", 100)

    one = fitted(1.0, 2.0)
    np.testing.assert_allclose(fitted(0.5, 8.0), one, atol=2e-3)  # the loss four times over
    assert np.abs(fitted(0.5, 2.0) - one).max() > 0.02


def test_a_value_of_little_noise_counts_more(scan, monkeypatch):
    arc, _, start = scan
    wrong = arc.sinogram.copy()
    wrong[:, :35] *= 0.8
    noise = np.broadcast_to(np.where(np.arange(70) < 35, 30.0, 0.3), wrong.shape)
    monkeypatch.setattr(level_set, "STEPS", 200)

    def right_half(noise):
        image = level_set.level_set_fit(arc._replace(sinogram=wrong), 32, noise=noise)(start)
        return np.sqrt(np.mean((np.asarray(scanner(arc, 32)(image)) - arc.sinogram)[:, 36:] ** 2))

    assert right_half(noise) < right_half(0.3) / 1.5


def test_the_second_fit_does_not_compile_again(scan, monkeypatch):
    arc, _, start = scan
    monkeypatch.setattr(level_set, "STEPS", 2)
    fit = level_set.level_set_fit(arc, 32, noise=0.3)
    fit(jnp.asarray(start))
    fit(jnp.asarray(start) / 2)
    assert fit._cache_size() == 1


def test_material_is_even_about_the_contour():
    phi = jax.random.normal(jax.random.key(0), (8, 8))
    x, flipped = level_set._material(phi), level_set._material(-phi)
    assert x.shape == (32, 32)
    np.testing.assert_allclose(x + flipped, 1, atol=1e-5)
