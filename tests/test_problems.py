"""Named problems: every one makes an operator that fits its description, and measures with the noise it names."""

import dataclasses
import functools
import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.images import Window
from padis_jax.operators import RayTransform
from padis_jax.operators.per_channel import PerChannel
from padis_jax.problems.registry import PROBLEMS, blurred_problem, markdown, masked_problem, simulate

IMAGES = [name for name, problem in PROBLEMS.items() if not problem.tomography]
PAGE = Path(__file__).parents[1] / "docs" / "problems.md"


@pytest.mark.parametrize("name", IMAGES)
def test_problems_on_colour_images(name):
    problem, shape = PROBLEMS[name], (32, 40)
    operator = problem.build(shape, 3, jax.random.key(0))
    assert isinstance(operator, PerChannel)
    image = jnp.full((*shape, 3), 0.5)
    found = simulate(problem, jax.random.key(1), image, operator)
    clean = operator(image)
    noise = np.asarray(found.y - clean)
    if name.startswith("inpaint"):
        known = np.asarray(operator.mask) > 0
        assert not noise[~known].any()
        noise = noise[known]
    assert abs(noise.std() / problem.sigma - 1) < 0.2
    assert float(found.noise_sigma) == pytest.approx(problem.sigma, rel=1e-4)
    np.testing.assert_array_equal(simulate(problem, jax.random.key(1), image, operator, sigma=0.0).y, clean)
    factor = {"sr2": 2, "sr4": 4, "sr8": 8, "sr4_bicubic": 4}.get(name, 1)
    assert clean.shape == (32 // factor, 40 // factor, 3)
    if not name.startswith("inpaint"):
        np.testing.assert_allclose(clean, 0.5, atol=1e-5)  # means preserve a constant
    with pytest.raises(ValueError, match="photons are counted in tomography"):
        simulate(problem, jax.random.key(1), image, operator, photons=1e4, pixel_mm=1.0)


def test_tomographic_problems():
    shape, key = (16, 12), jax.random.key(0)
    expected = {"ct8": 8, "ct20": 20, "ct60": 60, "fan180": 180, "limited120": 60}
    assert expected.keys() == {name for name, problem in PROBLEMS.items() if problem.tomography}
    for name, views in expected.items():
        with pytest.raises(ValueError, match="must have 1 channel, not 3"):
            PROBLEMS[name].build(shape, 3, key)
        assert f"{views} views" in PROBLEMS[name].description
    fan = PROBLEMS["fan180"].build((6, 5), 1, key)
    assert fan.measurement_shape == (180, 12)
    assert fan.geometry.source_distance == fan.geometry.detector_distance == 6
    assert 0 < min(fan.geometry.angles) < max(fan.geometry.angles) < np.pi
    operator = PROBLEMS["ct8"].build(shape, 1, key)
    assert isinstance(operator, RayTransform)
    assert operator.measurement_shape == (8, 32)
    image = jnp.full((*shape, 1), 0.3)
    simulated = functools.partial(simulate, PROBLEMS["ct8"], image=image, operator=operator, photons=1e4, pixel_mm=2.0)
    counted = simulated(jax.random.key(0))
    assert counted.protocol == "honest"
    assert simulate(PROBLEMS["ct8"], key, image, operator).noise_sigma == 0
    bone = simulated(jax.random.key(0), window=Window("HU", -1000.0, 3000.0))
    # Half as many values to a photon lost, but fewer photons come through.
    assert 0.53 < bone.noise_level / counted.noise_level < 0.9
    with pytest.raises(ValueError, match="pixel size"):
        simulate(PROBLEMS["ct8"], key, image, operator, photons=1e4)


def test_masks_follow_the_key():
    for name in ("inpaint_random", "inpaint_box", "inpaint_strokes", "inpaint_free25"):
        masks = [np.asarray(PROBLEMS[name].build((32, 32), 1, jax.random.key(k)).mask) for k in (0, 0, 1)]
        np.testing.assert_array_equal(masks[0], masks[1])
        assert (masks[0] != masks[2]).any()


def test_the_table_of_the_documentation():
    assert markdown() in PAGE.read_text()


def test_a_definition_tells_operators_apart():
    found = {name: json.dumps(problem.definition, sort_keys=True) for name, problem in PROBLEMS.items()}
    assert len(set(found.values())) == len(PROBLEMS)
    assert PROBLEMS["ct20"].definition == {"operator": "parallel", "views": 20, "span": np.pi}
    for name, problem in PROBLEMS.items():  # a parameter with a default could change unseen
        named = [
            p.name for p in inspect.signature(problem.factory.func).parameters.values() if p.kind is p.KEYWORD_ONLY
        ]
        assert set(named) == set(problem.factory.keywords), name
    wider = dataclasses.replace(
        PROBLEMS["deblur9"], factory=functools.partial(PROBLEMS["deblur9"].factory, kernel=np.full((11, 11), 1 / 121))
    )
    assert wider.definition != PROBLEMS["deblur9"].definition and wider.definition["boundary"] == "circular"
    kernel = np.asarray([[0.25, 0.5, 0.25]])
    assert blurred_problem(kernel).definition == blurred_problem(kernel * (1 + 1e-15)).definition  # a last bit
    assert blurred_problem(kernel).definition != blurred_problem(kernel.T).definition
    assert blurred_problem(kernel).definition != blurred_problem(kernel, "zero").definition
    mask = np.eye(4, dtype=bool)
    assert (
        masked_problem(mask).definition
        == masked_problem(jnp.asarray(mask)).definition
        != masked_problem(~mask).definition
    )
