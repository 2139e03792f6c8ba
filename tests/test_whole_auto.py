"""--auto for volumes that are solved as a whole: trials on all of the volume, views held out, the choice kept."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from linear_problem import denoise
from tiny import write_weights

from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD
from padis_jax.operators import ParallelBeam
from padis_jax.operators.linear import LinearOperator
from padis_jax.patches import Frame
from padis_jax.prior import Prior
from padis_jax.runs import solve_rows
from padis_jax.runs.automatic import chosen_plan
from padis_jax.slabs import VolumeFrame
from padis_jax.solvers import auto
from padis_jax.solvers.auto import choose
from padis_jax.solvers.held_out import held_out
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.reconstruct import Reconstruction
from padis_jax.solvers.search import Choice, Trial
from padis_jax.solvers.volume_tv import VolumeTV
from padis_jax.solvers.volumes import Along
from padis_jax.volume_prior import VolumePrior

PLANE = Frame((3, 4), 2, (2, 3))
PLAN = Plan("pnp_admm", PlugAndPlay(weight=0.05, cg_steps=6), 4, sigma_max=0.8, sigma_min=0.2, start="noise")


def test_views_are_held_out_along_their_axis():
    measured = np.ones((3, 40, 5), bool)
    held = held_out(measured, views=True, axis=1)
    assert held.sum() == 2 * 15 and held[:, 10].all() and held[:, 30].all()
    assert held_out(measured, views=True).sum() == 40 * 5  # of the first axis, one


@pytest.mark.parametrize("known", [True, False], ids=["discrepancy", "held out"])
def test_a_volume_of_one_slice_chooses_what_its_image_does(known):
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(3 * rng.standard_normal((15, 12)), jnp.float32)
    half = rng.standard_normal((40, 40)) / 8
    arrays = tuple(jnp.asarray(a, jnp.float32) for a in (np.full(40, 0.4), *np.linalg.eigh(half @ half.T)))
    norm, found = jnp.float32(np.linalg.norm(matrix, 2)), []
    y = matrix @ jnp.asarray(rng.random(12), jnp.float32) + 0.3 * jnp.asarray(rng.standard_normal(15), jnp.float32)
    for shape, prior in (
        ((3, 4), Prior(Partial(denoise, arrays), PLANE)),
        ((1, 3, 4), VolumePrior(Partial(denoise, arrays), VolumeFrame(PLANE, 1))),
    ):
        operator = LinearOperator(
            lambda v: matrix @ v.ravel(), lambda r, shape=shape: (matrix.T @ r).reshape(shape), shape, (15,), norm
        )
        found.append(choose(0, y, operator, prior, PLAN, noise_std=0.3 if known else None))
    image, volume = found
    assert volume.rule == ("discrepancy" if known else "held out") and len(volume.trials) == len(image.trials) > 2
    np.testing.assert_allclose([t.value for t in volume.trials], [t.value for t in image.trials], rtol=1e-3)
    assert float(volume.plan.settings.weight) == pytest.approx(float(image.plan.settings.weight), rel=1e-2)


def test_trials_are_runs_on_all_of_the_volume(monkeypatch):
    """With what ties its slices, from total variation in three dimensions, without the views that are held out."""
    seen = []

    def reconstruct(key, y, operator, prior, **options):
        seen.append((operator, options))
        return Reconstruction(jnp.zeros((3, 12, 12)), None, None, 1)

    def total_variation(y, operator, *, settings, noise_std):
        seen.append((operator, settings))
        return Reconstruction(jnp.zeros((3, 12, 12)), None, None, 0)

    monkeypatch.setattr(auto, "reconstruct", reconstruct)
    monkeypatch.setattr(auto, "total_variation", total_variation)
    scan = ParallelBeam(volume_shape=(3, 12, 12), angles=np.linspace(0, np.pi, 20, endpoint=False))
    y = scan(jnp.ones((3, 12, 12)))
    frame = VolumeFrame(Frame((12, 12), 4, (4, 4)), 3)
    prior, along = VolumePrior(lambda key, volume, sigma: volume, frame), Along(tv=1e-3)
    choose(0, y, scan, prior, PLAN._replace(start="tv"), views=True, axis=1, along=along)
    (operator, smooth), (_, options), *_ = seen
    assert isinstance(smooth, VolumeTV) and options["along"] is along
    assert np.flatnonzero(np.asarray(operator.root).sum((0, 2)) == 0).tolist() == [10]
    assert np.asarray(operator.root).sum() == 3 * 19 * y.shape[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto")
    write_weights(folder / "hu.safetensors", window=HOUNSFIELD)
    values = np.random.default_rng(0).integers(-500, 500, (3, 16, 16)).astype(np.int16)
    np.savez(folder / "ct.npz", volume=values, spacing=np.asarray([1.5, 1.0, 1.0]))
    return folder


def test_the_choice_is_kept_and_the_solver_has_it(folder, tmp_path, capsys, monkeypatch):
    asked = []

    def choice_of(config, case, plan):
        asked.append((case.views_axis, case.ties, plan.levels))
        settings = dataclasses.replace(plan.settings, weight=0.0123)
        return Choice(plan._replace(settings=settings, levels=2), "discrepancy", (Trial(0.0123, 2, 1.0),), 2)

    monkeypatch.setattr(solve_rows, "choice_of", choice_of)
    given = ["--weights", folder / "hu.safetensors", "--image.path", folder / "ct.npz", "--image.index", "all"]
    given += ["--volume.joint", "--volume.along-tv", "1e-3", "--scan.views", "6", "--scan.bins", "24", "--auto"]
    given += ["--tv.iterations", "5", "--solver.cg-steps", "1", "--workdir", out := tmp_path / "out"]
    main([str(word) for word in given])
    assert "auto: weight 0.0123, 2 iterations, by the discrepancy rule" in capsys.readouterr().err
    about = json.loads((out / "metrics.json").read_text())
    assert [row["method"] for row in about["rows"]] == ["FBP", "TV", "PnP-ADMM"]
    assert about["rows"][-1]["evaluations"] == 2 and about["auto"]["weight"] == 0.0123
    experiment = json.loads((out / "config.json").read_text())["experiment"]
    saved = experiment["solver"]
    assert saved["settings"]["weight"] == 0.0123 and saved["levels"] == 2
    assert experiment["tv"]["iterations"] == 5 and experiment["tv"]["weight"] > 0
    with np.load(out / "rows" / "pnp_admm.npz") as file:
        image = file["PnP-ADMM"]
    (out / "rows" / "pnp_admm.npz").write_bytes(b"cut")
    main([str(word) for word in (*given, "--json")])
    assert json.loads(capsys.readouterr().out)["kept"] == 3  # the choice is one of them
    main([str(word) for word in (*given, "--json", "--dry-run")])
    assert json.loads(capsys.readouterr().out)["trials_counted"] is False
    given[-1] = tmp_path / "without"
    main([str(word) for word in (*given, "--json", "--dry-run") if word != "--auto"])
    assert json.loads(capsys.readouterr().out)["trials_counted"] is True
    with np.load(out / "rows" / "pnp_admm.npz") as file:
        np.testing.assert_array_equal(file["PnP-ADMM"], image)
    assert len(asked) == 1 and asked[0][0] == 1 and asked[0][1] == {"along": Along(tv=1e-3)} and asked[0][2] > 2


def test_a_choice_survives_json():
    plan = PLAN._replace(settings=dataclasses.replace(PLAN.settings, weight=1 / 3), levels=7)
    shown = json.loads(json.dumps(Choice(plan, "held out", (Trial(1 / 3, 7, 0.1),), 7).shown()))
    assert chosen_plan(PLAN, shown) == plan


@pytest.mark.slow
def test_a_joint_volume_by_its_measurement(folder, tmp_path):
    given = ["--weights", folder / "hu.safetensors", "--image.path", folder / "ct.npz", "--image.index", "all"]
    given += [
        "--volume.joint",
        "--scan.views",
        "6",
        "--scan.bins",
        "24",
        "--auto",
        "--quiet",
        "--scan.protocol",
        "paper",
    ]
    given += ["--tv.iterations", "5", "--solver.cg-steps", "1", "--workdir", out := tmp_path / "out"]
    main([str(word) for word in given])
    about = json.loads((out / "metrics.json").read_text())
    assert about["auto"]["rule"] == "held out" and len(about["auto"]["trials"]) > 2
    assert about["rows"][-1]["method"] == "PnP-ADMM"
