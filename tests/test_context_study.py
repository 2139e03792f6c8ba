"""The study of context: what the channel holds, that training sees one noise, that it resumes, and its rule."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from study_tasks import still
from test_cli_train import CONFIG
from tiny import NETWORK, random_params, refused, write_weights

from padis_jax.baselines.file import load_baseline, save_baseline
from padis_jax.batches import PatchConfig, draw_batch, pad_images
from padis_jax.errors import UserError
from padis_jax.noise import NoiseConfig, draw_sigma
from padis_jax.patches import frame_for
from padis_jax.prior import patch_prior
from padis_jax.unet import NetworkConfig
from padis_jax.weights import load_weights
from studies import tasks
from studies.context import measured, network, report, training
from studies.context.__main__ import main
from studies.context.measured import Cell

FRAME = frame_for((16, 16), 8)  # a plane of 32 pixels
PATCHES = PatchConfig(sizes=(4, 8), probabilities=(0.5, 0.5), batch=(4, 2), flips=True)
TINY = {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "sigma_data": 0.3}  # as CONFIG's
FLAGS = ("--minutes", 1, "--start", "start.safetensors", "--out", "out", "--runs", "out_runs")
STILL = dataclasses.replace(NETWORK, dropout=0.0)


def means(planes, size):
    """Means of equal blocks of planes [b, Hp, Wp, 1]."""
    b, h, w, _ = planes.shape
    return planes.reshape(b, size, h // size, size, w // size, 1).mean((2, 4))


def test_the_reduction_is_an_average_and_its_noise_is_known():
    plane = np.random.default_rng(0).standard_normal((1, 32, 32, 1)).astype(np.float32)
    gain = network.noise_gain((32, 32), 8)
    assert gain == pytest.approx(1 / 4)
    found = network.context(0.3, jnp.asarray(plane), jnp.asarray([0.7]), 8)
    np.testing.assert_allclose(found, means(plane, 8) / np.hypot(0.7 / 4, 0.3), atol=1e-5)
    uneven = network.averaging(30, 8)  # 3.75 pixels a cell
    np.testing.assert_allclose(uneven.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(uneven.sum(0), 8 / 30, rtol=1e-5)  # every pixel counts as much
    noise = np.random.default_rng(1).standard_normal((400, 30, 34))
    spread = (uneven @ noise @ network.averaging(34, 8).T).std()
    assert network.noise_gain((30, 34), 8) == pytest.approx(spread, rel=0.02)


def test_both_trainings_see_the_same_patches():
    padded = pad_images(np.random.default_rng(0).random((5, 16, 16, 1), np.float32), FRAME)
    sizes = set()
    for step in range(8):
        plain, drawn = draw_batch(padded, PATCHES, 3, step), network.draw_planes(padded, PATCHES, 3, step)
        p = plain.patches.shape[1]
        cut = [x[i : i + p, j : j + p] for x, (i, j) in zip(drawn.planes, drawn.corners, strict=True)]
        np.testing.assert_array_equal(np.stack(cut), plain.patches)
        np.testing.assert_array_equal(drawn.positions, plain.positions)
        sizes.add(p)
    assert sizes == {4, 8}


def test_patch_and_context_have_the_noise_of_one_plane(monkeypatch):
    padded = pad_images(np.random.default_rng(0).random((5, 16, 16, 1), np.float32), FRAME)
    drawn = network.draw_planes(padded, PATCHES, 3, 0)
    p, seen = drawn.positions.shape[1], {}

    def denoise(config, params, patches, positions, sigma, *, dropout_key):
        seen.update(patches=patches, positions=positions, sigma=sigma)
        return patches

    monkeypatch.setattr(network, "denoise_patches", denoise)
    wide = dataclasses.replace(STILL, position_channels=3)
    value = network.ContextLoss(wide)({}, jax.random.key(7), *map(jnp.asarray, drawn))
    sigma_key, noise_key, _ = jax.random.split(jax.random.key(7), 3)
    sigma = np.asarray(draw_sigma(sigma_key, NoiseConfig(), len(drawn.planes)))
    noise = np.asarray(jax.random.normal(noise_key, drawn.planes.shape))
    noisy = drawn.planes + sigma[:, None, None, None] * noise
    cut = np.stack([x[i : i + p, j : j + p] for x, (i, j) in zip(noisy, drawn.corners, strict=True)])
    np.testing.assert_allclose(seen["patches"], cut, rtol=1e-6)
    np.testing.assert_array_equal(seen["positions"][..., :2], drawn.positions)
    scale = np.hypot(sigma * p / 32, 0.3)[:, None, None, None]
    np.testing.assert_allclose(seen["positions"][..., 2:], means(noisy, p) / scale, atol=1e-4)
    own = np.stack([x[i : i + p, j : j + p] for x, (i, j) in zip(noise, drawn.corners, strict=True)])
    weight = (1 + np.square(sigma / 0.3))[:, None, None, None]  # (sigma^2 + s^2) / s^2, of an error of sigma noise
    assert float(value) == pytest.approx(np.mean(weight * np.square(own)), rel=1e-4)


def test_a_widened_network_is_what_it_was_until_its_new_kernels_are():
    params = random_params(STILL)
    wide, config = network.widened(params, STILL)
    plane = FRAME.pad(jax.random.normal(jax.random.key(1), (16, 16, 1)))

    @jax.jit
    def denoised(prior, plane):
        return prior.denoise(jax.random.key(2), plane, jnp.float32(0.4))

    plain = denoised(patch_prior(STILL, params, FRAME), plane)
    np.testing.assert_allclose(denoised(network.context_prior(config, wide, FRAME), plane), plain, atol=1e-5)
    wide["enc0_conv"]["kernel"] = wide["enc0_conv"]["kernel"].at[:, :, -1].set(0.3)
    prior = network.context_prior(config, wide, FRAME)
    changed = plane.at[8, 8].add(40.0)  # within one tile of any tiling
    parts = denoised(prior, changed) - denoised(prior, plane)
    assert (np.abs(parts) > 1e-4).mean() > 0.5  # all tiles see it; 3 x 3 tiles cover 24 of 32 pixels a side
    with pytest.raises(ValueError, match="2 position channels"):
        network.widened(wide, config)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """(runs the command, numbers of the steps that were drawn) with a tiny network and four steps an arm."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
    (tmp_path / "tiny.py").write_text(CONFIG.format(path=str(tmp_path / "images.npy")))
    write_weights(tmp_path / "start.safetensors", network=NetworkConfig(**TINY), image_shape=(12, 14), patch=4)
    monkeypatch.setattr(training, "CONFIG", str(tmp_path / "tiny.py"))
    monkeypatch.setattr(training, "SAVES", 2)
    drawn, original = [], network.draw_planes

    def draw(padded, config, seed, step):
        drawn.append(step)
        if drawn == [0, 1, 2]:
            raise KeyboardInterrupt
        return original(padded, config, seed, step)

    monkeypatch.setattr(training, "draw_planes", draw)
    arms = {arm: {"seconds_per_step": 15.0, "steps": 4} for arm in training.ARMS}
    for out in ("out", "whole"):
        (tmp_path / out / "start_1min").mkdir(parents=True)
        (tmp_path / out / "start_1min" / "steps.json").write_text(json.dumps({"minutes": 1.0, "arms": arms}))
    monkeypatch.chdir(tmp_path)

    def run(part, *words, out="out"):
        main([part, "--minutes", "1", "--start", "start.safetensors", "--out", out, "--runs", f"{out}_runs", *words])

    return run, drawn


@pytest.mark.slow
def test_an_interrupted_training_ends_as_one_that_was_not(study, tmp_path, capsys):
    run, drawn = study
    with pytest.raises(SystemExit):
        run("train", "--arms", "context")
    run("train", "--arms", "context")
    assert drawn == [0, 1, 2, 2, 3]
    run("train", "--arms", "context")  # finished
    assert len(drawn) == 5
    run("train", "--arms", "context", out="whole")
    files = [tmp_path / f"{out}_runs" / "start_1min" / "context_0" / "weights.safetensors" for out in ("out", "whole")]
    resumed, whole = (load_baseline(file, training.KIND) for file in files)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    start = load_weights(tmp_path / "start.safetensors").params["enc0_conv"]["kernel"]
    kernel = np.asarray(whole.params["enc0_conv"]["kernel"])
    assert 0 < np.abs(kernel[:, :, 3]).max() < 0.1 and 0 < np.abs(kernel[:, :, :3] - start).max() < 0.1
    files[0].write_bytes(b"other")
    capsys.readouterr()
    assert "of another training" in refused(main, ["train", *FLAGS, "--arms", "context"], capsys)


def test_a_budget_is_a_time(study, tmp_path, monkeypatch, capsys):
    run, drawn = study
    drawn.append(0)  # nothing is interrupted here
    asked = []

    def timed(config, draw, state, take):
        asked.append((len(draw(0)), take.args[0].network.position_channels, state.params["enc0_conv"]["kernel"].shape))
        return 1.0 + len(asked)

    monkeypatch.setattr(training, "timed", timed)
    run("train", "--arms", "shipped", out="new")  # none is trained
    assert asked == [(2, 2, (3, 3, 3, 8)), (3, 3, (3, 3, 4, 8))]
    kept = json.loads((tmp_path / "new" / "start_1min" / "steps.json").read_text())
    assert [kept["arms"][arm]["steps"] for arm in training.ARMS] == [30, 20]
    other = NetworkConfig(**TINY | {"sigma_data": 0.5})
    write_weights(tmp_path / "other.safetensors", network=other, image_shape=(12, 14), patch=4)
    words = ["train", "--start", "other.safetensors", "--out", "out", "--runs", "out_runs"]
    assert "other.safetensors: not of the network" in refused(main, words, capsys)


def test_arms_are_measured_beside_each_other_and_resume(study, tmp_path, monkeypatch, capsys):
    run, _ = study
    seen = []

    def solve(given, plan, ladder):
        seen.append((plan.levels, given.prior.denoise, round(float(ladder[0]), 3)))
        return tasks.Solved(np.zeros((12, 14, 1)), 30 + len(seen), [0.5], 2.0)

    monkeypatch.setattr(measured, "task", still("few"))
    monkeypatch.setattr(measured, "solve", solve)
    monkeypatch.setattr(measured, "START", "start.safetensors")
    monkeypatch.setattr(measured, "digest_of", lambda path: str(path))
    monkeypatch.setattr(measured, "slices", lambda chosen: np.full((len(chosen), 12, 14, 1), 0.5, np.float32))
    run("measure", "--arms", "shipped", "--problems", "ct8", "--slices", "validation", "--most", "1")
    assert [line[0] for line in seen] == [25] and seen[0][2] == 0.5  # the preset of few views
    capsys.readouterr()
    assert "run `python -m studies.context train` first" in refused(main, ["measure", *FLAGS], capsys)
    for arm in training.ARMS:
        wide = NetworkConfig(**TINY, position_channels=3 if arm == "context" else 2)
        about = {"frame": dataclasses.asdict(frame_for((12, 14), 4))}
        file = tmp_path / "out_runs" / "start_1min" / f"{arm}_0" / "weights.safetensors"
        save_baseline(file, training.KIND, wide, random_params(wide), about)
    words = ("--problems", "ct8", "sigma0.2", "--slices", "validation")
    run("measure", *words)
    kinds = [type(denoise.func).__name__ if hasattr(denoise, "func") else "tilings" for _, denoise, _ in seen]
    assert kinds == ["tilings", "tilings", "ContextDenoise", "tilings", "tilings", "ContextDenoise"]
    run("measure", *words)
    assert len(seen) == 6 and "0 cells to run" in capsys.readouterr().out
    run("table")
    text = capsys.readouterr().out
    assert "| ct8 | 6 | 20.00 | 32.50 | 33.50 | 34.50 | +1.00 | +1.00, +1.00 |" in text
    levels = [json.loads(file.read_text())["row"] for file in (tmp_path / "out/start_1min/cells").glob("sigma0.2*")]
    # The plain arm is made of the shipped parameters here, and has their noise and tilings.
    assert len(levels) == 6 and len({row["psnr"] for row in levels}) == 4


def test_the_rule_wants_two_of_three_and_no_loss_at_20_views():
    gains = {"ct8": 0.6, "limited120": 0.5, "fan180": -3.0, "ct20": -0.1}
    assert "context is kept" in report.verdict(gains)[0]
    assert "not kept" in report.verdict(gains | {"ct20": -0.11})[0]
    assert "not kept" in report.verdict(gains | {"ct8": 0.49})[0]
    assert not report.verdict({"ct8": 1.0})


def test_the_table_has_the_rule_and_the_supervised_figures():
    values = {"ct8": 1.0, "limited120": 1.0, "fan180": 0.0, "ct20": 0.0}
    found = {
        Cell(problem, image, arm, 0): {"psnr": 30 + (gain if arm == "context" else 0), "tv": 20.0}
        for problem, gain in values.items()
        for image in measured.GROUPS["test"]
        for arm in measured.ARMS
    }
    text = report.tables(found)
    assert "| limited120 | 12 | 20.00 | 30.00 | 30.00 | 31.00 | +1.00 | +1.00, +1.00, +1.00, +1.00 |" in text
    assert "Gains of 0.5 dB: ct8, limited120. At 20 views +0.00 dB. By the rule context is kept." in text
    assert "| fan180 | 30.00 | 30.00 | 30.00 | 32.53 |" in text and "validation" not in text
    found.pop(Cell("ct8", 20, "plain", 0))
    assert "By the rule" not in report.tables(found)


def test_cells_of_two_trainings_are_no_table(tmp_path):
    (tmp_path / "cells").mkdir()
    for image, digest in ((30, "a"), (73, "b")):
        cell = Cell("ct8", image, "context", 0)
        saved = {"about": {"cell": cell._asdict(), "weights": digest}, "row": {"psnr": 30.0, "tv": 20.0}}
        (tmp_path / "cells" / cell.name).write_text(json.dumps(saved))
    with pytest.raises(UserError, match="another training"):
        measured.read(tmp_path)
