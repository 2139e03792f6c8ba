"""What a volume that is solved as a whole takes: the estimate against what XLA plans; what the levels do by default."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK

from padis_jax.cli.whole import sharers
from padis_jax.operators import ParallelBeam, from_functions
from padis_jax.patches import frame_for
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.volume_memory import data_bytes, trial_bytes
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers.auto import choose
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.presets import KINDS
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.volume_prior import VolumePrior
from studies.speed import volume_memory

SIZES = [
    ((96, 256, 256), (20, 192, 384)),
    ((96, 256, 256), (360, 192, 384)),
    ((256, 256, 256), (60, 384, 384)),
]


def plan(method, kind="counts", **settings):
    return plan_of(Experiment(solver=SolverConfig(method=method, settings=settings)), kind)


CASES = [("pnp_admm", "parallel"), ("dds", "parallel"), ("diffpir", "parallel"), ("dds", "cone")]
MORE = [("pnp_red", "parallel"), ("dps", "parallel"), ("pigdm", "parallel"), ("pnp_admm", "cone")]


@pytest.mark.parametrize(("method", "beam"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)])
def test_the_estimate_is_within_a_quarter_of_what_xla_plans(method, beam):
    """A small network that sees a few patches at a time, so that the data step is the peak."""
    operator = volume_memory.operator_of(beam, (48, 48, 48))
    row = volume_memory.measured(operator, beam, method, NETWORK, 16, run=False, patch_batch=4)
    assert row.estimate == pytest.approx(row.planned, rel=0.25) and row.data > 0.5 * row.planned


def test_a_trial_holds_what_the_estimate_says():
    """As the arrays that live after a trial, but for tables: the run's image, which its state counts, and these."""
    frame = VolumeFrame(frame_for((16, 16), 8), 16, 1)
    prior = VolumePrior(lambda key, volume, sigma: volume * 0.5, frame)
    operator = ParallelBeam(volume_shape=(16, 16, 16), angles=np.arange(6) * np.pi / 6, detector_count=24)
    y, held = operator(jnp.full((16, 16, 16), 0.2)), []

    def living():
        return sum(array.nbytes for array in jax.live_arrays() if array.size >= y.size)

    before, volume = living(), 4 * 16**3
    few_levels = plan("pnp_admm", cg_steps=1)._replace(levels=2)
    choose(0, y, operator, prior, few_levels, views=True, axis=1, watch=lambda *_: held.append(living() - before))
    assert max(held) - volume == trial_bytes(frame, y.shape)


@pytest.mark.parametrize("slab", [1, 3])
@pytest.mark.parametrize(("volume", "measured"), SIZES)
def test_the_peak_in_volumes_and_measurements(volume, measured, slab):
    """At most 12 and 2; momentum and averaging take one more each, and noise that is drawn at once more."""
    frame = VolumeFrame(frame_for(volume[1:], 56), volume[0], slab)
    one, rays = 4 * math.prod(volume), 4 * math.prod(measured)

    def taken(method, **settings):
        return (data_bytes(plan(method, **settings), frame, measured, cone=True) - 2 * rays) / one

    still = {"momentum": 0.0, "averaging": 0.0}
    usual = [taken("pnp_admm", **still), taken("pnp_red", **still), *map(taken, ("dds", "diffpir", "dps", "pigdm"))]
    assert max(usual) < 12 < taken("langevin") and taken("pnp_admm") == pytest.approx(usual[0] + 2)


@pytest.mark.parametrize(("momentum", "averaging"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.7), (0.4, 0.7)])
def test_the_state_of_plug_and_play_is_what_the_estimate_says(momentum, averaging):
    """As XLA plans a run: momentum and averaging keep one more volume each, which a call is given and returns."""
    prior = VolumePrior(lambda key, volume, sigma: volume * 0.5, VolumeFrame(frame_for((16, 16), 8), 16, 1))
    operator = from_functions(lambda x: x / 2, image_shape=(16, 16, 16))
    planned = []
    settings = PlugAndPlay(momentum=momentum, averaging=averaging, cg_steps=2)
    y, start = jnp.full((16, 16, 16), 0.2), jnp.zeros((16, 16, 16))
    reconstruct(0, y, operator, prior, solver=settings, levels=2, start=start, on_memory=planned.append)
    states = planned[0].results / (4 * 16**3)
    assert round(states) == 3 + bool(momentum) + bool(averaging)
    one, with_ = (
        data_bytes(plan("pnp_admm", momentum=m, averaging=a), prior.frame, (9, 16, 16), cone=True)
        for m, a in ((0.0, 0.0), (momentum, averaging))
    )
    assert with_ - one == 4 * 16**3 * (bool(momentum) + bool(averaging))


def test_ten_steps_of_conjugate_gradients_by_default():
    """On every level, as for images; three are a setting."""
    for method in ("dds", "pnp_admm"):
        assert {plan(method, kind).settings.cg_steps for kind in KINDS} == {10}
        assert plan(method, cg_steps=3).settings.cg_steps == 3


def test_devices_of_one_memory_hold_a_volume_each():
    cpu, gpu = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="gpu")
    meshes = [SimpleNamespace(devices=np.array([[device] * 3]), size=3) for device in (cpu, gpu)]
    assert [sharers(mesh) for mesh in (None, *meshes)] == [1, 3, 1]
