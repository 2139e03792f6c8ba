"""The weight and the iterations that a measurement chooses: the search by hand, trials against NumPy, the command."""

import dataclasses
import json
import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from linear_problem import make
from small_scan import write_scan
from tiny import failing, refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.errors import UserError
from padis_jax.operators import Inpaint, from_functions
from padis_jax.runs import automatic
from padis_jax.runs.automatic import chosen_plan
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.solvers.auto import choose, reconstruct_auto
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.held_out import held_out, measured_entries
from padis_jax.solvers.line_search import crossing, lowest
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.presets import Plan, preset
from padis_jax.solvers.search import search
from padis_jax.solvers.tv import TV

GAUSSIAN, PROBLEM, PRIOR = make()
ARGUMENTS = (PROBLEM.measurement, PROBLEM.operator, PRIOR)
PLAN = Plan("pnp_admm", PlugAndPlay(weight=0.05, cg_steps=16), 4, sigma_max=0.8, sigma_min=0.2, start="noise")


def iterated(weight, levels, root):
    """v of plug-and-play ADMM with A and y times `root`, row by row, in float64, from a zero image."""
    a, y, mean = root[:, None] * GAUSSIAN.matrix, root * GAUSSIAN.y, GAUSSIAN.crop @ GAUSSIAN.mean
    rho = weight * np.linalg.norm(a, 2) ** 2
    x = v = u = np.zeros(12)
    for sigma in 0.8 * (0.2 / 0.8) ** (np.arange(levels) / (levels - 1)):
        x = np.linalg.solve(a.T @ a + rho * np.eye(12), a.T @ y + rho * (v - u))
        v = mean + GAUSSIAN.crop @ GAUSSIAN.wiener(sigma) @ GAUSSIAN.crop.T @ (x + u - mean)
        u = u + x - v
    return v


@pytest.mark.parametrize("away", [0.7, 3.0, 40.0, 1 / 40])
def test_the_lowest_point_of_a_parabola_of_logarithms(away):
    seen = []

    def value(w):
        seen.append(w)
        return math.exp((math.log(w / (0.02 * away)) / 3) ** 2)

    assert lowest(value, 0.02) == pytest.approx(0.02 * away, rel=1e-9)
    assert len(seen) == len(set(seen)) <= 6
    assert lowest(lambda w: 1 / w, 1.0) == 4.0**4  # an end, when the trials are used up
    assert lowest(lambda w: 1.0 if w < 3 else math.inf, 1.0) in (1 / 4, 1.0)
    assert lowest(lambda w: 1.0, 1.0) == 0.25  # nothing to choose by: the first of the lowest


@pytest.mark.parametrize(("away", "kept"), [(2.0, True), (0.5, True), (2.5, False), (0.3, False)])
def test_the_first_number_stands_where_the_others_are_hardly_lower(away, kept):
    def value(w):
        return math.exp(0.06 * (math.log(w / (0.02 * away)) / math.log(2.3)) ** 2)

    assert lowest(value, 0.02, flat=0.05) == pytest.approx(0.02 if kept else 0.02 * away, rel=1e-9)
    assert lowest(lambda w: math.inf, 0.02, flat=0.05) != 0.02  # nothing was found: nothing stands


@pytest.mark.parametrize("gain", [0.9, 1.1])
def test_a_measurement_that_does_not_tell_keeps_the_weight_of_the_plan(gain):
    plan = PLAN._replace(levels=50)

    def trial(plan):
        w = plan.settings.weight
        return (gain if plan.levels == 50 else 1) * (1.04 if w == 0.05 else 1 + (w > 1))

    choice = search(trial, plan, rule="held out")
    assert choice.plan.settings.weight == 0.05 and choice.plan.levels == (50 if gain < 1 else 25)
    assert choice.trials[-1][:2] == (0.05, 50)


@pytest.mark.parametrize("away", [0.5, 1.0, 30.0, 1 / 30])
def test_the_crossing_of_a_power(away):
    assert crossing(lambda w: (w / (0.02 * away)) ** 0.6, 0.02) == pytest.approx(0.02 * away, rel=1e-9)


def test_a_residual_that_never_comes_to_the_noise_ends_the_search():
    assert crossing(lambda w: 2.0 + w, 1.0) == 4.0**-5 and crossing(lambda w: 0.5, 1.0) == 4.0**5


def test_what_is_held_out_is_a_share_of_what_is_measured():
    views = held_out(np.ones((20, 6, 1), bool), views=True)
    assert views.all((1, 2)).tolist() == [i == 10 for i in range(20)] and views.any((1, 2)).sum() == 1
    assert held_out(np.ones((60, 6), bool), views=True).any(1).nonzero()[0].tolist() == [10, 30, 50]
    mask = np.arange(400).reshape(20, 20) % 4 == 0
    measured = measured_entries(Inpaint(mask=mask), (20, 20, 3))
    found = held_out(measured, views=False)
    assert found.any(-1).sum() == 5 and (found.all(-1) == found.any(-1)).all() and not (found & ~measured).any()
    assert held_out(np.ones(7, bool), views=False).sum() == 1
    entries = held_out(np.ones((6, 10, 12), bool), views=False, channels=False)
    assert entries.sum() == 36 and not entries.all(-1).any()
    assert held_out(np.arange(40).reshape(20, 2) % 2 == 0, views=True)[10].tolist() == [True, False]


@pytest.mark.parametrize("missing", [[10], range(5, 20), range(0, 19)])
def test_views_that_are_not_measured_are_not_what_is_held_out(missing):
    """A missing wedge as a mask on the sinogram: another view is held out, as many as of a scan without it."""
    measured = np.ones((20, 6), bool)
    measured[list(missing)] = False
    found = held_out(measured, views=True)
    assert found.any(1).sum() == 1 and found[found.any(1)].all() and not (found & ~measured).any()
    wide = np.repeat(measured, 2, axis=0)
    rows = [i for i in range(40) if wide[i].any()]
    kept = held_out(wide, views=True).any(1).nonzero()[0].tolist()
    count = max(1, round(0.05 * len(rows)))
    assert kept == [rows[int((k + 0.5) * len(rows) / count)] for k in range(count)]


@pytest.mark.parametrize("rule", ["held out", "discrepancy"])
@pytest.mark.parametrize("levels", [20, 50, 100])
def test_the_line_names_the_trials_however_many_iterations_the_plan_has(rule, levels):
    plan = PLAN._replace(levels=levels)
    choice = search(lambda plan: math.exp(abs(math.log(plan.settings.weight / 0.02))), plan, rule=rule)
    few = min(trial.levels for trial in choice.trials)
    seen = [f"{t.value:.4g} at {t.weight:.3g}" for t in sorted(choice.trials) if t.levels == few]
    assert len(seen) > 1 and f"was {', '.join(seen)};" in choice.text


@pytest.mark.parametrize("views", [True, False])
def test_a_trial_sees_nothing_of_what_it_is_judged_by(views):
    choice = choose(0, *ARGUMENTS, PLAN, views=views)
    assert choice.rule == "held out" and choice.plan.levels == 4
    out = held_out(np.ones(7, bool), views=views)
    for trial in choice.trials:
        v = iterated(trial.weight, trial.levels, ~out * 1.0)
        expected = np.linalg.norm(GAUSSIAN.y[out] - GAUSSIAN.matrix[out] @ v) / np.linalg.norm(GAUSSIAN.y[out])
        assert trial.value == pytest.approx(expected, rel=2e-3)
    assert choice.evaluations == 4 * len(choice.trials)


@pytest.mark.parametrize("std", [None, 0.0])
def test_what_is_held_out_moves_no_image_not_by_the_start_either(std):
    out = held_out(np.ones(7, bool), views=True)
    y, seen = np.asarray(PROBLEM.measurement), ([], [])
    for images, measurement in zip(seen, (y, np.where(out, 9.0, y)), strict=True):
        choose(
            0,
            measurement,
            *ARGUMENTS[1:],
            PLAN._replace(start="tv"),
            noise_std=std,
            views=True,
            tv=TV(weight=0.3, iterations=20),
            watch=lambda trial, image, images=images: images.append((trial.weight, image)),
        )
    first, second = (dict(images) for images in seen)
    for weight in first.keys() & second.keys():
        np.testing.assert_array_equal(first[weight], second[weight])
    assert len(first.keys() & second.keys()) >= 3


@pytest.mark.parametrize("std", [5.0, np.linspace(4.0, 8.0, 7)])
def test_known_noise_is_what_the_residual_comes_to(std):
    choice = choose(0, *ARGUMENTS, PLAN, noise_std=std)
    assert choice.rule == "discrepancy" and len(choice.trials) >= 2
    root = np.sqrt(1 / np.mean(1 / (std * np.ones(7)) ** 2)) / std * np.ones(7)

    def found(weight):
        residual = GAUSSIAN.y - GAUSSIAN.matrix @ iterated(weight, 4, root)
        return np.sqrt(np.mean((residual / std) ** 2))

    for trial in choice.trials:
        assert trial.value == pytest.approx(found(trial.weight), rel=2e-3)
    assert found(choice.plan.settings.weight) == pytest.approx(1, rel=0.1)


def test_more_iterations_are_taken_only_where_they_are_better():
    plan = PLAN._replace(levels=50)

    def trial(gain):
        return lambda plan: (1 + math.log(plan.settings.weight / 0.1) ** 2) * (gain if plan.levels == 50 else 1.0)

    more, less = (search(trial(gain), plan, rule="held out") for gain in (0.9, 1.1))
    assert (more.plan.levels, less.plan.levels) == (50, 25)
    assert more.plan.settings.weight == less.plan.settings.weight == pytest.approx(0.1, rel=0.2)
    assert [t.levels for t in more.trials] == [25] * (len(more.trials) - 1) + [50]
    assert more.evaluations == 25 * (len(more.trials) - 1) + 50
    assert "held out" in more.text and "50 iterations" in more.text and more.text.count("\n") == 0


@pytest.mark.parametrize("gain", [0.9, 1.1])
def test_fewer_iterations_have_the_settings_of_their_own_preset(gain):
    plan, short = (preset("pnp_admm", "ct", levels) for levels in (50, 25))
    assert plan.settings.cg_steps != short.settings.cg_steps
    seen = []

    def trial(plan):
        seen.append((plan.levels, plan.settings.cg_steps))
        return (1 + abs(math.log(plan.settings.weight / 0.01))) * (gain if plan.levels == 50 else 1.0)

    choice = search(trial, plan, short=short, rule="held out")
    assert set(seen) == {(50, plan.settings.cg_steps), (25, short.settings.cg_steps)}
    wanted = plan if gain < 1 else short
    weight = choice.plan.settings.weight
    assert choice.plan == wanted._replace(settings=dataclasses.replace(wanted.settings, weight=weight))
    assert chosen_plan(plan, json.loads(json.dumps(choice.shown()))) == choice.plan


def test_a_run_searches_with_the_settings_of_its_few_iterations(monkeypatch):
    config = Experiment(problem="ct20", scan=dataclasses.replace(Experiment().scan, protocol="paper"))
    seen = {}
    monkeypatch.setattr(automatic, "choose", lambda *args, short, **more: seen.update(plan=args[4], short=short))
    case = SimpleNamespace(
        prior=0, kind="ct", problem=SimpleNamespace(tomography=True), evenness=1.0, share=1.0, views_axis=0, ties={}
    )
    case.measurement, case.operator = SimpleNamespace(protocol="paper", y=0), 0
    case.noise_std, case.smoothed_by = jnp.float32(0), lambda tv: tv
    monkeypatch.setattr(automatic, "tv_of", lambda *args: None)
    automatic.choice_of(config, case, plan_of(config, "ct", case))
    assert (seen["plan"].levels, seen["plan"].settings.cg_steps) == (50, 10)
    assert (seen["short"].levels, seen["short"].settings.cg_steps) == (25, 15)


def test_the_function_reconstructs_with_what_it_chose():
    found, choice = reconstruct_auto(0, *ARGUMENTS, kind="noise", noise_std=0.4, views=False)
    assert choice.plan.row.label == "PnP-ADMM" and found.evaluations == choice.plan.levels
    usual = preset("pnp_admm", "noise", 25)._replace(settings=None)
    assert choice.plan._replace(settings=None) == usual


def test_other_methods_are_refused():
    with pytest.raises(UserError, match="auto: DDS has no weight that a measurement chooses: take --solver pnp_admm"):
        choose(0, *ARGUMENTS, PLAN._replace(method="dds", settings=DDS()))


def test_one_view_cannot_be_held_out():
    row = from_functions(lambda x: x.sum((0, 2))[None], image_shape=(3, 4, 1))
    with pytest.raises(UserError, match="auto: the measurement has one view, and nothing is left"):
        choose(0, np.ones((1, 4)), row, PRIOR, PLAN, views=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    write_weights(folder / "w.safetensors")
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    np.save(folder / "images.npy", np.float32(np.hypot(x, y) < 0.7)[None] * 0.7)
    return folder


def test_the_command_says_what_it_chose_and_keeps_it(folder, tmp_path, capsys):
    args = ["--weights", folder / "w.safetensors", "--image.path", folder / "images.npy", "--workdir", tmp_path]
    args += ["--tv.iterations", "5", "--auto", "--problem", "denoise", "--noise", "0.2"]
    main([str(a) for a in args])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("auto: weight ") and " by the discrepancy rule: " in out[0]
    kept, plan = (json.loads((tmp_path / name).read_text()) for name in ("metrics.json", "config.json"))
    assert kept["auto"]["rule"] == "discrepancy" and kept["auto"]["why"] == out[0]
    assert plan["experiment"]["solver"]["settings"]["weight"] == pytest.approx(kept["auto"]["weight"])
    assert len(kept["auto"]["trials"]) >= 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--solver", "dds"], "--auto: dds has no weight"),
        (
            ["--problem", "inpaint_strokes"],
            "--auto: dds has no weight that a measurement chooses; take --solver pnp_admm",
        ),
        (["--solver.levels", "9"], "--auto chooses solver.levels: leave one of the two out"),
        (["--solver.weight", "0.1"], "--auto chooses solver.weight: leave one of the two out"),
        (["--measurements", "scans"], "--auto chooses for one measurement"),
        (["--image.index", "60:70"], "--auto chooses for one measurement"),
    ],
)
def test_contradictions_are_one_line(flags, said, capsys):
    assert said in refused(main, ["--auto", *flags], capsys)


@pytest.mark.parametrize(
    ("flags", "known", "views"),
    [
        (["--measurement.noise", "0.05"], True, True),
        ([], False, True),  # the estimate from neighbouring bins is not taken for the noise
        (["--image.path", "images.npy", "--scan.protocol", "paper"], False, True),
        (["--image.path", "images.npy", "--problem", "sr2"], True, False),
    ],
)
def test_what_is_known_of_the_noise(folder, tmp_path, monkeypatch, flags, known, views):
    seen = {}

    def choose(*_, noise_std, views, **__):
        seen.update(known=noise_std is not None, views=views)
        raise ValueError("enough seen")

    monkeypatch.setattr(automatic, "choose", choose)
    write_scan(tmp_path)
    np.save(tmp_path / "images.npy", np.zeros((1, 16, 16), np.float32))
    measured = ["--measurement.path", "scan.npy", "--measurement.geometry", "scan.json", "--measurement.pixel-mm", "1"]
    measured += ["--measurement.attenuation", "0.02"]
    args = ["--weights", "w.safetensors", *([] if "--image.path" in flags else measured), *flags]
    args += ["--image.index", "0"] if "--image.path" in flags else []
    words = [str(tmp_path / a) if a.partition(".")[2] in ("npy", "json", "safetensors") else a for a in args]
    failing(main, [*words, "--auto", "--workdir", str(tmp_path / "out")], "enough seen")  # after the bar of trials
    assert seen == {"known": known, "views": views}
