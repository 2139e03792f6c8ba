"""What a cone beam's volume takes beside the network, as it is planned; what the levels do by default."""

import math

import pytest

from padis_jax.patches import frame_for
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.solve_rows import data_bytes
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers.presets import KINDS

SIZES = [
    ((96, 256, 256), (20, 192, 384)),
    ((96, 256, 256), (360, 192, 384)),
    ((256, 256, 256), (60, 384, 384)),
]


def plan(method, kind="counts", **settings):
    return plan_of(Experiment(solver=SolverConfig(method=method, settings=settings)), kind)


@pytest.mark.parametrize("slab", [1, 3])
@pytest.mark.parametrize(("volume", "measured"), SIZES)
def test_the_peak_in_volumes_and_measurements(volume, measured, slab):
    """At most 12 and 2 of plug-and-play, the default; a sampler's padded states take it to 17."""
    frame = VolumeFrame(frame_for(volume[1:], 56), volume[0], slab)
    one, rays = 4 * math.prod(volume), 4 * math.prod(measured)
    taken = {method: (data_bytes(plan(method), frame, measured) - 2 * rays) / one for method in ("pnp_admm", "dds")}
    assert 5 < taken["pnp_admm"] < 12 < taken["dds"] < 17


def test_ten_steps_of_conjugate_gradients_by_default():
    """On every level, as for images; three are a setting."""
    for method in ("dds", "pnp_admm"):
        assert {plan(method, kind).settings.cg_steps for kind in KINDS} == {10}
        assert plan(method, cg_steps=3).settings.cg_steps == 3
