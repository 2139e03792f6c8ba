"""Adapting a prior to a measurement: gradients, what is kept, and that its residual falls for a foreign image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from tiny import NETWORK, random_params

from padis_jax.operators import Inpaint, from_functions
from padis_jax.patches import frame_for
from padis_jax.prior import Prior, patch_prior
from studies.adapt import Adaptation, adapt
from studies.grey_prior import grey_prior

SHAPE = (12, 12, 1)
FRAME = frame_for(SHAPE[:2], 6)
FEW = Adaptation(levels=2, steps=3, learning_rate=1e-2, sigma_max=0.2, sigma_min=0.1, cg_steps=4)
MASK = np.arange(144).reshape(12, 12) % 3 > 0
OPERATOR = Inpaint(mask=MASK)
TRUTH = jnp.asarray(np.random.default_rng(0).random(SHAPE), jnp.float32)


def network():
    return patch_prior(NETWORK, random_params(), FRAME, patch_batch=3)


@functools.cache
def adapted(layers=()):
    settings = FEW if not layers else Adaptation(**{**vars(FEW), "layers": layers})
    return adapt(jax.random.key(1), network(), OPERATOR, OPERATOR(TRUTH), 0.5 * jnp.ones(SHAPE), settings)


def test_one_step_is_adams_on_the_residual():
    """D = a x + b with arrays a, b: the first step of Adam moves each by the learning rate against its gradient."""

    def affine(a, b, key, plane, sigma):
        return a * plane + b

    prior = Prior(Partial(affine, jnp.float32(0.5), jnp.float32(0.1)), FRAME)
    y, rate = OPERATOR(TRUTH), 1e-3
    settings = Adaptation(levels=1, steps=1, learning_rate=rate, sigma_max=1e-6, sigma_min=1e-6)
    found = adapt(jax.random.key(0), prior, OPERATOR, y, TRUTH, settings)
    residual = (0.5 * TRUTH + 0.1 - TRUTH) * jnp.float32(MASK)[..., None]
    signs = np.sign([float(jnp.sum(residual * TRUTH)), float(jnp.sum(residual))])
    np.testing.assert_allclose(jax.tree.leaves(found.prior), np.asarray([0.5, 0.1]) - rate * signs, rtol=1e-4)
    assert float(found.losses[0, 0]) == pytest.approx(float(jnp.sum(residual**2) / jnp.sum(y**2)), rel=1e-4)
    # The data step: (m + w) u = m y + w D where w is the weight, as ||A|| is 1.
    a, b = jax.tree.leaves(found.prior)
    expected = jnp.where(MASK[..., None], (TRUTH + 2e-3 * (a * TRUTH + b)) / 1.002, a * TRUTH + b)
    np.testing.assert_allclose(found.image, expected, atol=1e-4)


def test_the_residual_falls_and_only_the_named_layers_move():
    whole, last = adapted(), adapted(("dec0",))
    assert whole.losses.shape == (2, 3) and float(whole.losses[-1, -1]) < 0.7 * float(whole.losses[0, 0])
    before = jax.tree_util.tree_leaves_with_path(network())
    for found, moves in ((whole, lambda name: True), (last, lambda name: "['dec0" in name)):
        after = jax.tree.leaves(found.prior)
        for (path, old), new in zip(before, after, strict=True):
            name = jax.tree_util.keystr(path)
            assert bool((old != new).any()) or not moves(name) or not old.size, name
            assert moves(name) or bool((old == new).all()), name
    with pytest.raises(ValueError, match="no layer of the network begins with dec9"):
        adapted(("dec9",))


def test_a_grey_prior_is_adapted_through_its_channels():
    def scaled(a, key, plane, sigma):
        return a * plane

    grey = grey_prior(Prior(Partial(scaled, jnp.float32(0.2)), FRAME, channels=3))
    half = from_functions(lambda x: x / 2, image_shape=SHAPE)
    found = adapt(jax.random.key(0), grey, half, half(TRUTH), TRUTH, FEW)
    assert 0.24 < float(jax.tree.leaves(found.prior)[0]) < 0.27  # six steps of 0.01


def test_settings_out_of_range_are_refused():
    for change, message in (
        ({"steps": 0}, "steps"),
        ({"sigma_min": 0.5}, "at most sigma_max"),
        ({"weight": 0.0}, "weight"),
    ):
        with pytest.raises(ValueError, match=message):
            Adaptation(**change)
