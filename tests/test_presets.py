"""Settings stand once: the command line, the presets, the benchmark and the documents agree for every method."""

import dataclasses
from pathlib import Path

import pytest

from padis_jax.benchmark.methods import METHODS as BENCHMARK
from padis_jax.benchmark.methods import described, plan_of
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import UserError
from padis_jax.problems.registry import PROBLEMS, parallel_scan
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import kind_named
from padis_jax.runs.defaults import plan_of as plan_of_run
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.solvers import presets
from padis_jax.solvers.presets import (
    CHAINS,
    FIRST_LEVEL,
    KINDS,
    MANY,
    SMALL_STEPS,
    TV_WEIGHT,
    kind_of,
    markdown,
    preset,
    tv_preset,
    unsuited,
)
from padis_jax.solvers.registry import METHODS, name_of

DOCS = Path(__file__).parent.parent / "docs"


def from_flags(*flags):
    return parse_experiment(list(flags), default=Experiment(), prog="test", description="")


@pytest.mark.parametrize("name", METHODS)
def test_flags_presets_and_the_benchmark_agree_for_every_problem(name):
    for problem, named in {"": parallel_scan(20, 512), **PROBLEMS}.items():
        for counts in (False, True) if named.tomography else (False,):
            if unsuited(name, problem):
                continue
            protocol = ["--scan.protocol", "honest" if counts else "paper"]
            config = from_flags("--solver", name, *protocol, *(["--problem", problem] if problem else []))
            kind = kind_of(named.kind, counts=counts)
            expected = preset(name, kind)._replace(average=1 if METHODS[name].begin else CHAINS)
            assert kind_named(config) == kind and plan_of_run(config, kind) == expected
            if problem and not counts and name in BENCHMARK:
                assert plan_of(BENCHMARK[name], named, presets.EVALUATIONS) == expected._replace(average=1)
                plan = described(name, problem, presets.EVALUATIONS)["plan"]
                assert plan["settings"] == expected.described()["settings"]


def test_a_scan_of_20_views_has_one_set_of_settings_through_whichever_door():
    """By itself, as a named problem, measured, and in a folder of measured scans."""
    for name in METHODS:
        doors = [("--problem", "ct20"), (), ("--measurement.path", "scan.npz"), ("--measurements", "scans")]
        plans = []
        for flags in doors:
            config = from_flags("--solver", name, *flags)
            plans.append(plan_of_run(config, kind_named(config)))
        assert all(plan == plans[0] for plan in plans)


def test_without_a_preset_a_method_runs_with_its_own_defaults():
    for name, row in METHODS.items():
        assert row.make() == row.settings(**row.fixed) and name_of(row.make()) == name
        tuned = {field for table in (presets.SETTINGS, presets.FEW) for field in table.get(name, {})}
        for kind in KINDS:
            settings = preset(name, kind).settings
            changed = {f for f in row.fields if getattr(settings, f) != getattr(row.make(), f)}
            assert changed <= tuned


def test_the_documents_hold_the_table():
    assert markdown() in (DOCS / "methods.md").read_text()


def test_what_is_given_counts_before_the_preset_and_zero_is_a_value():
    config = from_flags("--solver", "diffpir", "--solver.zeta", "0", "--problem", "denoise")
    plan = plan_of_run(config, kind_named(config))
    assert plan.settings.zeta == 0 and plan.settings.weight == 1.0
    assert config.solver == SolverConfig("diffpir", zeta=0.0)
    run = from_flags("--solver.levels", "7", "--solver.ladder", "edm").solver
    assert run == SolverConfig("pnp_admm", levels=7, ladder="edm") and run.settings == {}


def test_without_a_name_plug_and_play_runs_and_dds_for_samples_and_large_gaps():
    large = ("--problem", "inpaint_strokes")
    for flags, method in (
        ((), "pnp_admm"),
        (("--samples", "2"), "dds"),
        (("--measurements", "y"), "pnp_admm"),
        (large, "dds"),
    ):
        assert from_flags(*flags).method == from_flags(*flags).solver.method == method
    assert Experiment().method == "pnp_admm" and Experiment(samples=2).method == "dds"
    drawn = parse_experiment([], default=Experiment(samples=2), prog="test", description="")
    assert drawn.method == "dds"
    levels = dataclasses.replace(Experiment(samples=2), solver=SolverConfig(levels=7))
    assert parse_experiment([], default=levels, prog="", description="").solver == SolverConfig("dds", levels=7)
    with pytest.raises(UserError, match="take --solver dds"):
        from_flags("--samples", "2", "--solver", "pnp_admm")


def test_one_level_of_plug_and_play_and_a_ladder_contradict_each_other():
    config = from_flags("--solver.sigma", "0.02", "--solver.levels", "7")
    assert plan_of_run(config, "ct").settings.sigma == 0.02
    with pytest.raises(UserError, match="solver.sigma is 0.02, one level .* leave out --solver.sigma-max"):
        plan_of_run(from_flags("--solver.sigma", "0.02", "--solver.sigma-max", "0.1"), "ct")
    assert plan_of_run(from_flags(), "noise").settings.sigma == 0.1  # of the preset, which a ladder replaces
    assert plan_of_run(from_flags("--solver.sigma-max", "0.2"), "noise").settings.sigma == 0


def test_the_weight_of_total_variation_follows_the_noise():
    usual = tv_preset("noise").weight
    assert usual == TV_WEIGHT["noise"] == tv_preset("noise", noise=0.1, usual=0.1).weight
    assert tv_preset("noise", noise=0.3, usual=0.1).weight == pytest.approx(3 * usual)
    assert tv_preset("noise", noise=0.0, usual=0.1).weight == pytest.approx(0.1 * usual)  # some of it always
    assert tv_preset("ct", noise=5.0, usual=0.0).weight == TV_WEIGHT["ct"]  # nothing to be in proportion to


def test_one_and_four_tilings_of_the_papers_budget_are_run_alike():
    one, four = (preset("dps", "ct", 1000, tilings=n) for n in (1, 4))
    assert (one.levels, four.levels) == (100, 25) and one._replace(levels=25) == four


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.begin is None])
def test_few_evaluations_start_from_total_variation_and_many_from_noise(name):
    few, many = (preset(name, "large", n) for n in (MANY - 1, MANY))
    assert few.start == "tv" and few.inner == 1 and few.sigma_max == FIRST_LEVEL["large"]
    assert many.start == "noise" and many.sigma_max == 1.0
    assert many.inner == (10 if name in SMALL_STEPS else 1)
    assert preset(name, "large", 1).levels == preset(name, "large", 1, tilings=9).levels == 1
    per_tiling = [preset(name, "large", n, tilings=4).start for n in (MANY, 4 * MANY - 1, 4 * MANY)]
    assert per_tiling == ["tv", "tv", "noise"]  # a recipe of many for a quarter of its steps would fit nothing


def test_recipes_of_few_and_of_many_evaluations():
    for name, field, few, many in (
        *((name, "prior_step", "ancestral", "langevin") for name in SMALL_STEPS),
        ("daps", "sampler", "cg", "langevin"),
        ("predictor_corrector", "predictor", "ancestral", "reverse_diffusion"),
    ):
        assert getattr(preset(name, "ct", MANY - 1).settings, field) == few
        assert getattr(preset(name, "ct", MANY).settings, field) == many


def test_momentum_is_of_long_runs_and_a_solved_data_step_of_short_ones():
    runs = {levels: preset("pnp_admm", "ct", levels).settings for levels in (5, 9, 10, 19, 20, 40, 41)}
    assert [run.momentum for run in runs.values()] == [0.0, 0.0, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert [run.averaging for run in runs.values()] == [0.0, 0.0, 0.0, 0.0, 0.7, 0.7, 0.7]
    assert [run.cg_steps for run in runs.values()] == [15, 15, 15, 15, 15, 15, 10]
    assert preset("pnp_admm", "ct", 5, given={"momentum": 0.2}).settings.momentum == 0.2
    for levels, run in runs.items():  # by flags as well
        assert plan_of_run(Experiment(solver=SolverConfig("pnp_admm", levels=levels)), "ct").settings == run
    assert preset("pnp_admm", "small", 50).settings.momentum == 0


def test_every_kind_of_problem_has_a_preset():
    assert (
        {problem.kind for problem in PROBLEMS.values()} | {"counts"} == set(KINDS) == set(TV_WEIGHT) == set(FIRST_LEVEL)
    )
    assert preset("dps", "noise").settings.zeta == 0.3 and preset("dps", "small").settings.zeta == 1.7
    assert preset("ddnm", "counts").settings.cg_steps == 10 and preset("ddnm", "ct").settings.cg_steps == 0
    assert "rounding" in unsuited("ddnm", "deblur9") and unsuited("ddnm", "denoise") and unsuited("ddnm", "deblur17")
    assert not unsuited("ddnm", "sr4") and not unsuited("dds", "denoise")
    with pytest.raises(ValueError, match="there is no solver 'ddpm'"):
        preset("ddpm", "ct")


def test_a_setting_that_came_later_does_not_change_what_finished_results_are_known_by():
    """Plug-and-play as cells from before `momentum` and `averaging` describe it."""
    settings = {"method": "admm", "sigma": 0.03, "weight": 0.03, "power": 0.0, "damping": 1.0, "cg_steps": 10}
    options = {"levels": 25, "inner": 1, "sigma_max": 0.2, "sigma_min": 0.003, "ladder": "geometric", "start": "tv"}
    known = {"method": "pnp_admm", "settings": settings, **options, "average": 1}
    assert preset("pnp_admm", "small", 25, given={"averaging": 0.0}).described() == known
    given = preset("pnp_admm", "ct", given={"momentum": 0.5}).described()["settings"]
    assert given["momentum"] == 0.5
