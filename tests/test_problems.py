"""Named tasks: every one makes an operator that fits its description, and measures with the noise it names."""

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
from padis_jax.problems.registry import TASKS, blurred_task, find_task, markdown, masked_task, simulate

IMAGES = [name for name, task in TASKS.items() if not task.tomography]
PROBLEMS = Path(__file__).parents[1] / "docs" / "problems.md"


@pytest.mark.parametrize("name", IMAGES)
def test_tasks_on_colour_images(name):
    task, shape = TASKS[name], (32, 40)
    operator = task.build(shape, 3, jax.random.key(0))
    assert isinstance(operator, PerChannel)
    image = jnp.full((*shape, 3), 0.5)
    found = simulate(task, jax.random.key(1), image, operator)
    clean = operator(image)
    noise = np.asarray(found.y - clean)
    if name.startswith("inpaint"):
        known = np.asarray(operator.mask) > 0
        assert not noise[~known].any()
        noise = noise[known]
    assert abs(noise.std() / task.sigma - 1) < 0.2
    assert float(found.noise_sigma) == pytest.approx(task.sigma, rel=1e-4)
    np.testing.assert_array_equal(simulate(task, jax.random.key(1), image, operator, sigma=0.0).y, clean)
    factor = {"sr2": 2, "sr4": 4, "sr8": 8, "sr4_bicubic": 4}.get(name, 1)
    assert clean.shape == (32 // factor, 40 // factor, 3)
    if not name.startswith("inpaint"):
        np.testing.assert_allclose(clean, 0.5, atol=1e-5)  # means preserve a constant
    with pytest.raises(ValueError, match="photons are counted in tomography"):
        simulate(task, jax.random.key(1), image, operator, photons=1e4, pixel_mm=1.0)


def test_tomographic_tasks():
    shape, key = (16, 12), jax.random.key(0)
    expected = {"ct8": 8, "ct20": 20, "ct60": 60, "fan180": 180, "limited120": 60}
    assert expected.keys() == {name for name, task in TASKS.items() if task.tomography}
    for name, views in expected.items():
        with pytest.raises(ValueError, match="must have 1 channel, not 3"):
            TASKS[name].build(shape, 3, key)
        assert f"{views} views" in TASKS[name].description
    fan = TASKS["fan180"].build((6, 5), 1, key)
    assert fan.measurement_shape == (180, 12)
    assert fan.geometry.source_distance == fan.geometry.detector_distance == 6
    assert 0 < min(fan.geometry.angles) < max(fan.geometry.angles) < np.pi
    operator = TASKS["ct8"].build(shape, 1, key)
    assert isinstance(operator, RayTransform)
    assert operator.measurement_shape == (8, 32)
    image = jnp.full((*shape, 1), 0.3)
    simulated = functools.partial(simulate, TASKS["ct8"], image=image, operator=operator, photons=1e4, pixel_mm=2.0)
    counted = simulated(jax.random.key(0))
    assert counted.protocol == "honest"
    assert simulate(TASKS["ct8"], key, image, operator).noise_sigma == 0
    bone = simulated(jax.random.key(0), window=Window("HU", -1000.0, 3000.0))
    # Half as many values to a photon lost, but fewer photons come through.
    assert 0.53 < bone.noise_level / counted.noise_level < 0.9
    with pytest.raises(ValueError, match="pixel size"):
        simulate(TASKS["ct8"], key, image, operator, photons=1e4)


def test_masks_follow_the_key():
    for name in ("inpaint_random", "inpaint_box", "inpaint_strokes"):
        masks = [np.asarray(TASKS[name].build((32, 32), 1, jax.random.key(k)).mask) for k in (0, 0, 1)]
        np.testing.assert_array_equal(masks[0], masks[1])
        assert (masks[0] != masks[2]).any()


def test_unknown_tasks_are_named_with_the_known_ones():
    assert find_task("sr4") is TASKS["sr4"]
    with pytest.raises(ValueError, match="no problem 'sr5'.*ct20.*denoise"):
        find_task("sr5")


def test_the_table_of_the_documentation():
    assert markdown() in PROBLEMS.read_text()


def test_a_definition_tells_operators_apart():
    found = {name: json.dumps(task.definition, sort_keys=True) for name, task in TASKS.items()}
    assert len(set(found.values())) == len(TASKS)
    assert TASKS["ct20"].definition == {"operator": "parallel", "views": 20, "span": np.pi}
    for name, task in TASKS.items():  # a parameter with a default could change unseen
        named = [p.name for p in inspect.signature(task.factory.func).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert set(named) == set(task.factory.keywords), name
    wider = dataclasses.replace(
        TASKS["deblur9"], factory=functools.partial(TASKS["deblur9"].factory, kernel=np.full((11, 11), 1 / 121))
    )
    assert wider.definition != TASKS["deblur9"].definition and wider.definition["boundary"] == "circular"
    kernel = np.asarray([[0.25, 0.5, 0.25]])
    assert blurred_task(kernel).definition == blurred_task(kernel * (1 + 1e-15)).definition  # a last bit
    assert blurred_task(kernel).definition != blurred_task(kernel.T).definition
    assert blurred_task(kernel).definition != blurred_task(kernel, "zero").definition
    mask = np.eye(4, dtype=bool)
    assert masked_task(mask).definition == masked_task(jnp.asarray(mask)).definition != masked_task(~mask).definition
