"""The table of settings: what its docstring says is what it holds, and what follows from a task does."""

import dataclasses

import pytest

from padis_jax.problems.registry import TASKS
from padis_jax.solvers import presets as settings
from padis_jax.solvers.presets import (
    MANY,
    SMALL_STEPS,
    plug_and_play_settings,
    schedule,
    solver_settings,
    tv_settings,
    unsuited,
)
from padis_jax.solvers.reconstruct import SOLVERS


def test_the_table_of_the_docstring():
    rows = [
        line.split()
        for line in settings.__doc__.splitlines()
        if line.split()[:1] and line.split()[0] in settings.TV_WEIGHT
    ]
    columns = (
        settings.TV_WEIGHT,
        settings.FIRST_LEVEL,
        settings.PNP_SIGMA,
        settings.PNP_WEIGHT,
        settings.DPS_ZETA,
        settings.DIFFPIR_WEIGHT,
    )
    for number, column in enumerate(columns, -len(columns)):
        assert {row[0]: float(row[number]) for row in rows} == column
    assert {task.kind for task in TASKS.values()} | {"counts"} == {row[0] for row in rows}


def test_the_weight_of_total_variation_follows_the_noise():
    task = TASKS["denoise"]
    usual = tv_settings(task).weight
    assert usual == settings.TV_WEIGHT["noise"] == tv_settings(task, noise=task.sigma).weight
    assert tv_settings(task, noise=3 * task.sigma).weight == pytest.approx(3 * usual)
    assert tv_settings(task, noise=0.0).weight == pytest.approx(0.1 * usual)  # some of it always
    scan = dataclasses.replace(TASKS["ct20"], sigma=0.0)  # nothing to be in proportion to
    assert tv_settings(scan, noise=5.0).weight == settings.TV_WEIGHT["ct"]
    assert tv_settings(scan, counts=True).weight == settings.TV_WEIGHT["counts"]


def test_plug_and_play_follows_the_kind_of_problem():
    scan = plug_and_play_settings("admm", TASKS["ct20"])
    assert (scan.method, scan.sigma, scan.weight) == ("admm", settings.PNP_SIGMA["ct"], settings.PNP_WEIGHT["ct"])
    counted = plug_and_play_settings("red", TASKS["ct20"], counts=True)
    assert (counted.method, counted.weight) == ("red", settings.PNP_WEIGHT["counts"])


def test_one_and_four_tilings_of_the_papers_budget_are_run_alike():
    one, four = (schedule("dps", TASKS["ct20"], 1000, tilings=n) for n in (1, 4))
    assert one.settings == four.settings
    assert (one.options["levels"], four.options["levels"]) == (100, 25)
    assert one.options | {"levels": 25} == four.options


@pytest.mark.parametrize("solver", SOLVERS)
def test_few_evaluations_start_from_total_variation_and_many_from_noise(solver):
    task = TASKS["inpaint_box"]
    few, many = (schedule(solver, task, n) for n in (MANY - 1, MANY))
    assert few.options["start"] == "tv" and few.options["inner"] == 1
    assert few.options["sigma_max"] == settings.FIRST_LEVEL[task.kind]
    assert many.options["start"] == "noise" and many.options["sigma_max"] == 1.0
    assert many.options["inner"] == (10 if solver in SMALL_STEPS else 1)
    assert few.options["sigma_min"] == many.options["sigma_min"] == settings.SIGMA_MIN
    if solver in SMALL_STEPS:
        assert few.settings.prior_step == "ancestral" and many.settings.prior_step == "langevin"
    if solver == "daps":
        assert few.settings.sampler == "cg" and many.settings.sampler == "langevin"
    if solver == "predictor_corrector":
        assert few.settings.predictor == "ancestral" and many.settings.predictor == "reverse_diffusion"
    assert schedule(solver, task, 1).options["levels"] == schedule(solver, task, 1, tilings=9).options["levels"] == 1
    per_tiling = [schedule(solver, task, n, tilings=4).options["start"] for n in (MANY, 4 * MANY - 1, 4 * MANY)]
    assert per_tiling == ["tv", "tv", "noise"]  # a recipe of many for a quarter of its steps would fit nothing
    blur, counted = TASKS["deblur9"], schedule(solver, TASKS["ct20"], 100, counts=True)
    assert schedule(solver, blur, 100).options["sigma_max"] == settings.FIRST_LEVEL["small"]
    assert counted.options["sigma_max"] == settings.FIRST_LEVEL["counts"]


def test_denoising_has_steps_of_its_own():
    noisy, blurred = ({n: solver_settings(n, TASKS[t], many=False) for n in SOLVERS} for t in ("denoise", "deblur9"))
    assert (noisy["dps"].zeta, blurred["dps"].zeta) == (0.3, 1.7)
    assert (noisy["diffpir"].weight, blurred["diffpir"].weight) == (1, 8)


def test_methods_that_weigh_the_noise_are_told_it():
    task = dataclasses.replace(TASKS["denoise"], sigma=0.123)
    for many in (False, True):
        told = {name: solver_settings(name, task, many=many) for name in SOLVERS}
        assert {name for name, s in told.items() if getattr(s, "noise", None) == 0.123} == set(SOLVERS) - {"ddnm"}
        assert told["ddnm"].cg_steps == 0 and solver_settings("ddnm", task, many=many, counts=True).cg_steps == 10
        assert told["dds"].cg_steps == 10
    assert "DDS takes ten CG steps" in " ".join(settings.__doc__.split())
    assert "rounding" in unsuited("ddnm", "deblur9")  # also where there is no noise
    assert unsuited("ddnm", "denoise") and unsuited("ddnm", "deblur17")
    assert not unsuited("ddnm", "sr4") and not unsuited("dds", "denoise")
    with pytest.raises(ValueError, match="solver is 'ddpm'"):
        solver_settings("ddpm", task, many=True)
