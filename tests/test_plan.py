"""What a run will take, traced and timed."""

import dataclasses

import jax
import pytest
from tiny import CONFIG, NETWORK, random_params

from padis_jax.batches import PatchConfig
from padis_jax.devices.plan import plan_sampling, plan_training
from padis_jax.patches import frame_for
from padis_jax.unet import parameter_count

FRAME = frame_for((16, 16), 8)


@pytest.fixture
def compilations():
    """The seconds of each compilation since."""
    heard = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            heard.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield heard
    jax.monitoring.unregister_event_duration_listener(listen)


def test_sampling(compilations):
    params = random_params()
    begun = len(compilations)
    plans = {
        (gradient, patches): plan_sampling(
            NETWORK, params, FRAME, evaluations=7, patch_batch=patches, gradient=gradient
        )
        for gradient in (False, True)
        for patches in (0, 2)
    }
    assert len(compilations) == begun
    for plan in plans.values():
        assert plan[:3] == (parameter_count(params), 7, None) and plan.bytes > 4 * plan.parameters
        assert f"7 evaluations; about {plan.bytes / 1e6:.0f} MB of arrays, on " in plan.text()
    assert plans[True, 0].bytes > 2 * plans[False, 0].bytes > 2 * plans[False, 2].bytes
    timed = plan_sampling(NETWORK, params, FRAME, evaluations=7, patch_batch=2, gradient=False, timed=True)
    assert len(compilations) > begun and timed.seconds > 0
    assert "evaluations; about " in timed.text() and " s and " in timed.text()
    assert timed._replace(seconds=7200.0).text().count("about 120.0 min and ") == 1
    assert abs(plans[False, 2].bytes / timed.bytes - 1) < 0.25


@pytest.mark.parametrize("sizes", [(4, 8), pytest.param((0,), marks=pytest.mark.slow)])
def test_training(compilations, sizes):
    """Patches, and whole images."""
    patches = PatchConfig(sizes, (1 / len(sizes),) * len(sizes), (2,) * len(sizes))
    config = dataclasses.replace(CONFIG, patches=patches)
    frame = frame_for((24, 16), max(sizes))
    plan = plan_training(config, frame, 5)
    assert not compilations
    assert plan.evaluations == 5 and plan.seconds is None
    assert plan.bytes > 16 * plan.parameters + 4 * 2 * 8 * 8  # parameters, average, two moments; the patches
    timed = plan_training(config, frame, 5, timed=True)
    assert compilations and timed.seconds > 0 and abs(plan.bytes / timed.bytes - 1) < 0.25
