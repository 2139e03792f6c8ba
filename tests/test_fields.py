"""Numbers that would make NaN inside: one line each, in the research API and in the commands."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import refused

import padis_jax as pj
from padis_jax.cli.sample import main as sample_main
from padis_jax.config import Config, OptimiserConfig, RunConfig
from padis_jax.errors import UserError
from padis_jax.fields import check_fields
from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.runs.config import Experiment
from padis_jax.runs.scan_config import ScanConfig
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.runs.tv_config import TVConfig
from padis_jax.solvers.registry import METHODS

PRIOR = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((8, 8), 4))
HALF = pj.from_functions(lambda x: x / 2, image_shape=(8, 8, 1))
Y = np.full((8, 8, 1), 0.3, np.float32)


def with_norm(norm):
    return dataclasses.replace(HALF, norm=norm)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"measurement": 1e300 * Y.astype(float)}, "too large"),
        ({"measurement": 1e30 * Y}, "too large"),
        ({"measurement": Y * np.inf}, "NaN or infinite"),
        ({"measurement": Y + 1j}, "complex"),
        ({"measurement": np.full((8, 8, 1), "a")}, "array of numbers"),
        ({"measurement": np.full((8, 8, 1), np.timedelta64(1))}, "array of numbers"),
        ({"start": 1e300 * Y.astype(float)}, "too large"),
        ({"operator": with_norm(jnp.nan)}, "norm"),
        ({"operator": with_norm(0.0)}, "norm"),
        ({"operator": with_norm(-1.0)}, "norm"),
        ({"operator": with_norm(np.inf)}, "norm"),
        ({"operator": with_norm(np.ones(3))}, "norm"),
        ({"operator": with_norm(1e30)}, "norm"),
        ({"levels": 2.5}, "levels is 2.5"),
        ({"levels": True}, "levels is True"),
        ({"levels": 10**12}, "levels"),
        ({"inner": 1.5}, "inner is 1.5"),
        ({"average": np.nan}, "average is nan"),
        ({"sigma_min": 1e-40}, "sigma_min"),
        ({"sigma_min": np.nan}, "sigma_min"),
        ({"sigma_max": 1e30}, "sigma_max"),
        ({"levels": 10**9}, "levels is 1000000000: use at least 1, and at most 10.6"),
        ({"levels": 10**4, "inner": 10**4}, "levels x inner is 100000000"),
        ({"chunk": 1.5}, "chunk is 1.5"),
        ({"first_chain": -1}, "first_chain is -1"),
        ({"first_chain": 2**40}, "first_chain is 1099511627776"),
        ({"first_chain": 0.5}, "first_chain is 0.5"),
        ({"start": Y + 1j}, "start is complex"),
        ({"key": 2**70}, "64 bits"),
        ({"key": -(2**70)}, "64 bits"),
    ],
)
def test_what_makes_nan_inside_is_refused(changed, words):
    given = {"key": 0, "measurement": Y, "operator": HALF, "prior": PRIOR, "levels": 2} | changed
    with pytest.raises(UserError, match=words) as refusal:
        pj.reconstruct(**given)
    assert "\n" not in str(refusal.value)


def test_total_variation_and_generation_refuse_the_same():
    for operator in (with_norm(np.nan), with_norm(0.0)):
        with pytest.raises(UserError, match="norm"):
            pj.total_variation(Y, operator)
    with pytest.raises(UserError, match="complex"):
        pj.total_variation(Y + 1j, HALF)
    for options in ({"levels": 2.5}, {"inner": 0.5}, {"sigma_min": 1e-40}, {"sigma_max": np.inf}):
        with pytest.raises(UserError, match=next(iter(options))):
            pj.generate(0, PRIOR, **options)


def test_numbers_of_hundreds_of_digits_are_refused():
    """Where the default is infinite, and of whole numbers that 32 bits do not hold."""
    for make in (lambda: pj.TMPD(low=-(10**400)), lambda: pj.TMPD(cg_steps=2**40), lambda: pj.TV(iterations=2**31)):
        with pytest.raises(UserError, match="TMPD: low is|TMPD: cg_steps is|TV: iterations is"):
            make()


BAD = {
    int: (2.5, True, "3", None, 10**30, np.nan),
    float: (math.nan, 1e300, "1", None, True, 1j, [1.0], np.float32(np.nan)),
    bool: (1, "yes", None),
    str: ("nothing of the kind", 3, None),
}


@pytest.mark.parametrize("name", [*METHODS, "tv"])
def test_every_field_of_every_method_is_checked_by_its_type(name):
    settings = METHODS[name].make() if name != "tv" else pj.TV()
    fields = METHODS[name].fields if name != "tv" else [field.name for field in dataclasses.fields(settings)]
    static = {field.name for field in dataclasses.fields(settings) if field.metadata.get("static")}
    for field in fields:
        default = getattr(settings, field)
        unbounded = isinstance(default, float) and math.isinf(default)
        infinite = (math.inf, np.asarray(np.inf)) if isinstance(default, float) and not unbounded else ()
        for bad in (*BAD[type(default)], *infinite):
            with pytest.raises(UserError, match=field):
                dataclasses.replace(settings, **{field: bad})
            if name != "tv":
                with pytest.raises(UserError, match=field):
                    SolverConfig(name, **{field: bad})
        traced = () if field in static else (jnp.float32(0.5),)
        for good in (np.float64(0.5), *traced) if isinstance(default, float) and "low" not in field else ():
            dataclasses.replace(settings, **{field: good})
    assert jax.tree.map(lambda leaf: leaf, settings) == settings


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Experiment(seed=2**70), "seed"),
        (lambda: Experiment(seed=1.5), "seed"),
        (lambda: Experiment(tilings=2.5), "tilings"),
        (lambda: Experiment(samples="3"), "samples"),
        (lambda: Experiment(noise=1e300, problem="denoise"), "noise"),
        (lambda: Experiment(patch_batch=0.5), "patch_batch"),
        (lambda: Experiment(scan=ScanConfig(photons=np.inf)), "scan.photons"),
        (lambda: Experiment(scan=ScanConfig(views=2.5)), "scan.views"),
        (lambda: Experiment(tv=TVConfig(iterations=2.5)), "tv.iterations"),
        (lambda: SolverConfig(levels=2.5), "solver.levels"),
        (lambda: SolverConfig(sigma_min=math.nan), "solver.sigma_min"),
        (lambda: Config(run=RunConfig(seed=2**70)), "run.seed"),
        (lambda: Config(run=RunConfig(steps=2.5)), "run.steps"),
        (lambda: Config(optimiser=OptimiserConfig(clip_norm=math.inf)), "optimiser.clip_norm"),
    ],
)
def test_settings_of_the_commands_are_checked_by_their_types(make, field):
    with pytest.raises(UserError, match=field):
        make()


def test_default_settings_are_what_they_say():
    for settings in (Experiment(), Config()):
        check_fields(settings)


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", str(2**70)],
        ["--solver.sigma-min", "1e-40"],
        ["--solver.sigma-max", "inf"],
        ["--solver", "dds", "--solver.consistency", "inf"],
        ["--solver", "dds", "--solver.noise", "1e300"],
        ["--solver.levels", "2.5"],
        ["--tv.weight", "1e300"],
        ["--scan.photons", "inf"],
        ["--scan.pixel-mm", "1e-300"],
        ["--scan.views", "1000000000"],
        ["--samples", "1000000000"],
        ["--generate", "1000000000"],
        ["--tv.iterations", "1000000000000"],
        ["--generate", "1", "--generate-levels", "100000000000"],
    ],
)
def test_sample_refuses_them_in_one_line(flags, tmp_path, capsys):
    refused(sample_main, [*flags, "--workdir", tmp_path / "out"], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "solver", [name if name in ("dds", "tmpd") else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
@pytest.mark.parametrize("scale", [0.0, 1e9])
def test_what_is_taken_stays_finite(solver, scale):
    measurement, operator = scale * Y, HALF
    result = pj.reconstruct(0, measurement, operator, PRIOR, solver=solver, levels=2, sigma_max=0.5, sigma_min=1e-8)
    assert np.isfinite(result.image).all()
    assert np.isfinite(result.residual).all()
