"""The networks that are compared with: what they compute, that they learn, and their files."""

import argparse
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny import NETWORK, random_like, write_weights

from padis_jax.baselines import cnn
from padis_jax.baselines.cnn import CNNConfig, cnn_loss, cnn_prior, denoise_images, init_cnn
from padis_jax.baselines.file import CNN, KEY, SUPERVISED, load_baseline, save_baseline
from padis_jax.baselines.supervised import restore, supervised_loss
from padis_jax.errors import UserError
from padis_jax.operators import from_functions
from padis_jax.problems.registry import PROBLEMS, measure_image
from padis_jax.runs.case import image_key
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.unet import NetworkConfig, apply_network, init_network
from padis_jax.weights import load_weights
from studies import cnn_denoiser, supervised, training

CONFIG = CNNConfig(features=6, layers=3, sigma_min=0.05, sigma_max=0.3)
UNET = NetworkConfig(model_channels=8, channel_mult=(1, 1), num_blocks=1, position_channels=0, dropout=0.0)


def squares(seed, count=4, side=16):
    """Images of bright boxes."""
    rng, images = np.random.default_rng(seed), np.zeros((count, side, side, 1), np.float32)
    for image in images:
        y, x, h, w = rng.integers(1, side // 2, 4)
        image[y : y + h, x : x + w] = 0.8
    return images


def test_the_denoiser_learns_and_sees_the_noise_level():
    params = init_cnn(jax.random.key(0), CONFIG)
    images = jnp.asarray(squares(9))
    sigma = jnp.full(4, 0.2)
    noisy = images + 0.2 * jax.random.normal(jax.random.key(1), images.shape)
    np.testing.assert_array_equal(denoise_images(CONFIG, params, noisy, sigma), noisy)  # untrained: the input
    loss, args = functools.partial(cnn_loss, CONFIG), argparse.Namespace(steps=150, batch=4, learning_rate=1e-2)
    assert float(loss(params, jax.random.key(2), images)) == pytest.approx(1.0, abs=0.15)
    before = jax.tree.map(np.array, params)
    trained, about = training.train(loss, params, lambda i: (squares(i),), args, 0)
    assert about["last_losses"] < 0.6
    jax.tree.map(np.testing.assert_array_equal, params, before)  # a copy was trained
    params = trained
    clean = denoise_images(CONFIG, params, noisy, sigma)
    assert float(jnp.mean((clean - images) ** 2)) < 0.5 * 0.2**2
    assert float(jnp.abs(denoise_images(CONFIG, params, noisy, 0.5 * sigma) - clean).max()) > 1e-3


def test_the_denoiser_as_a_prior():
    params = random_like(jax.eval_shape(lambda: init_cnn(jax.random.key(0), CONFIG)))
    prior = cnn_prior(CONFIG, params, (6, 9))
    x = jax.random.normal(jax.random.key(1), (6, 9, 1))
    expected = denoise_images(CONFIG, params, x[None], jnp.full(1, 0.1))[0]
    np.testing.assert_allclose(prior.denoise(jax.random.key(2), x, jnp.float32(0.1)), expected, atol=1e-5)
    operator = from_functions(lambda image: image[::2], image_shape=(6, 9, 1))
    run = reconstruct(jax.random.key(0), operator(x), operator, prior, solver=PlugAndPlay(), levels=2, start="noise")
    assert run.image.shape == (6, 9, 1) and bool(jnp.all(jnp.isfinite(run.image)))


def test_the_denoiser_subtracts_the_noise_in_units_of_its_level():
    """A last layer of zeros and a bias makes R = 3 everywhere, so that D = x - 3 sigma."""
    params = random_like(jax.eval_shape(lambda: init_cnn(jax.random.key(0), CONFIG)))
    last = f"conv{CONFIG.layers - 1}"
    params |= {last: {"kernel": jnp.zeros_like(params[last]["kernel"]), "bias": jnp.full(1, 3.0)}}
    images, sigma = jnp.asarray(squares(0, 2, 8)), np.asarray([0.1, 0.2], np.float32)
    expected = images - 3 * sigma[:, None, None, None]
    np.testing.assert_allclose(denoise_images(CONFIG, params, images, jnp.asarray(sigma)), expected, atol=1e-6)


def test_noise_levels_of_training_are_even_in_their_logarithm(monkeypatch):
    """With the noise level itself as the network's error, the loss is the mean of (s^2 / s)^2 = s^2 over the levels."""
    monkeypatch.setattr(
        cnn, "denoise_images", lambda config, params, x, s: jnp.zeros_like(x) + s[:, None, None, None] ** 2
    )
    low, high = CONFIG.sigma_min, CONFIG.sigma_max
    loss = cnn_loss(CONFIG, {}, jax.random.key(0), jnp.zeros((20_000, 1, 1, 1)))
    expected = (high**2 - low**2) / (2 * np.log(high / low))
    assert float(loss) == pytest.approx(expected, rel=0.05)


def test_the_supervised_loss_is_the_mean_square_and_its_key_that_of_dropout(monkeypatch):
    """With F(x) = x / 2 the restored image is 3/2 of the start."""
    keys = []

    def half(config, params, images, label, *, dropout_key):
        keys.append(dropout_key)
        return images / 2

    monkeypatch.setattr("padis_jax.baselines.supervised.apply_network", half)
    starts, truths = (jnp.asarray(squares(seed, 2, 8)) for seed in (0, 1))
    key = jax.random.key(3)
    expected = jnp.mean((1.5 * starts - truths) ** 2)
    np.testing.assert_allclose(supervised_loss(UNET, {}, key, starts, truths), expected, rtol=1e-5)
    assert keys == [key]


def test_restoring_adds_what_the_network_says_and_needs_a_network_without_positions():
    params = random_like(jax.eval_shape(lambda: init_network(jax.random.key(0), UNET)))
    images, run = jnp.asarray(squares(0, 2, 8)), jax.jit(restore, static_argnums=0)
    label = jnp.zeros(2)
    expected = images + jax.jit(apply_network, static_argnums=0)(UNET, params, images, label)
    np.testing.assert_allclose(run(UNET, params, images), expected, atol=1e-4)
    silent = params | {"dec0_aux_conv": jax.tree.map(jnp.zeros_like, params["dec0_aux_conv"])}
    np.testing.assert_array_equal(run(UNET, silent, images), images)
    with pytest.raises(ValueError, match="position_channels to 0"):
        restore(NETWORK, params, images)
    with pytest.raises(ValueError, match="does not suit 2 levels"):
        restore(UNET, params, images[:, :7])


def run(main, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["prog", *map(str, flags)])
    main()


@pytest.mark.slow
def test_the_supervised_command_learns_to_improve_its_scan(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "images.npy", squares(0, 3)[..., 0])
    flags = ["--image.path", tmp_path / "images.npy", "--scan.protocol", "paper", "--scan.views", "4"]
    flags += ["--scan.bins", "24", "--steps", "40", "--channels", "8", "--multipliers", "1", "1", "--batch", "2"]
    run(supervised.main, monkeypatch, *flags, "--learning-rate", "3e-3", "--out", tmp_path / "s.safetensors")
    loaded = load_baseline(tmp_path / "s.safetensors", SUPERVISED)
    assert loaded.config.position_channels == 0 and loaded.about["scan"]["views"] == 4
    assert loaded.about["slices"] == [0, 1, 2]
    before, after = (float(line.split(" dB")[0].split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert after > before + 1
    with pytest.raises(UserError, match="no 'network'"):  # a baseline is not taken for a prior
        load_weights(tmp_path / "s.safetensors")


@pytest.mark.slow
def test_the_supervised_command_measures_as_the_named_problem_does(tmp_path, monkeypatch, capsys):
    """Operator and noise are the problem's; what is random is drawn again, and never as the benchmark draws it."""
    np.save(tmp_path / "images.npy", np.repeat(squares(0, 2), 3, axis=-1))
    base = ["--image.path", tmp_path / "images.npy", "--channels", "8", "--multipliers", "1", "1"]
    drawn = []
    monkeypatch.setattr(supervised, "train", lambda loss, params, draw, args, seed: (params, {}))
    monkeypatch.setattr(supervised, "restore", lambda config, params, images: images)
    monkeypatch.setattr(supervised, "quick", lambda operator, y: drawn.append((operator, y)) or operator.start(y))
    run(supervised.main, monkeypatch, *base, "--problem", "inpaint_random", "--draws", "2", "--out", tmp_path / "i")
    about = load_baseline(tmp_path / "i", SUPERVISED).about
    problem = PROBLEMS["inpaint_random"]
    assert about["problem"] == "inpaint_random" and about["definition"] == problem.definition
    assert about["sigma"] == problem.sigma and about["image_shape"] == [16, 16] and "protocol" not in about
    _, measurement = measure_image(problem, image_key(0, 0), jnp.asarray(squares(0, 2)[0]).repeat(3, -1))
    masks = {np.asarray(operator.mask).tobytes() for operator, _ in drawn}
    assert len(drawn) == len(masks) == 4
    assert not any(np.array_equal(y, measurement.y) for _, y in drawn)
    for (operator, y), truth in zip(drawn, np.repeat(squares(0, 2), 2, axis=0), strict=True):
        error = np.asarray(y - operator(jnp.asarray(truth).repeat(3, -1)))[np.asarray(operator.mask) > 0]
        assert error.std() == pytest.approx(problem.sigma, rel=0.3)

    np.save(tmp_path / "images.npy", squares(0, 2)[..., 0])
    drawn.clear()
    run(supervised.main, monkeypatch, *base, "--problem", "fan180", "--scan.protocol", "paper", "--out", tmp_path / "f")
    about = load_baseline(tmp_path / "f", SUPERVISED).about
    assert about["definition"] == PROBLEMS["fan180"].definition and about["protocol"] == "paper"
    assert len(drawn) == 2 and drawn[0][0] is drawn[1][0]  # without noise one draw each; built once
    assert drawn[0][0].measurement_shape == (180, 32)
    np.testing.assert_allclose(drawn[1][1], drawn[1][0](jnp.asarray(squares(0, 2)[1])), rtol=1e-5, atol=1e-5)

    with pytest.raises(SystemExit, match="2"):
        run(supervised.main, monkeypatch, *base, "--problem", "inpaint", "--mask", "m.png", "--out", tmp_path / "o")
    assert "--problem inpaint: a mask or kernel from a file has no name" in capsys.readouterr().err


def test_the_cnn_command_leaves_held_out_slices_alone(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "images.npy", squares(0, 3)[..., 0])
    flags = ["--images", tmp_path / "images.npy", "--steps", "3", "--patch", "8", "--features", "4", "--layers", "2"]
    run(cnn_denoiser.main, monkeypatch, *flags, "--limit", "2", "--out", tmp_path / "c.safetensors")
    loaded = load_baseline(tmp_path / "c.safetensors", CNN)
    assert loaded.config.features == 4 and loaded.about["slices"] == [0, 2]
    assert "written; mean loss" in capsys.readouterr().out
    head = type("Images", (), {"names": tuple(range(108))})()
    chosen = training.training_slices(head, "data/head_ct.npz", 0)
    assert not {20, 41, 62, 83, 30, 73, 38, 44} & set(chosen) and len(chosen) > 60


def test_a_file_comes_back_as_it_was_and_is_the_same_each_time(tmp_path):
    params = random_like(jax.eval_shape(lambda: init_cnn(jax.random.key(0), CONFIG)))
    for name in ("a", "b"):
        save_baseline(tmp_path / name, CNN, CONFIG, params, {"steps": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_baseline(tmp_path / "a", CNN)
    assert loaded.config == CONFIG and loaded.about == {"steps": 3}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    with pytest.raises(ValueError, match="is not finite"):
        save_baseline(tmp_path / "a", CNN, CONFIG, jax.tree.map(lambda p: p * jnp.nan, params), {})
    assert load_baseline(tmp_path / "a", CNN).about == {"steps": 3}


def test_files_that_do_not_fit_are_refused(tmp_path):
    params = random_like(jax.eval_shape(lambda: init_cnn(jax.random.key(0), CONFIG)))
    path = tmp_path / "f.safetensors"

    def message(kind=CNN):
        with pytest.raises(UserError) as error:
            load_baseline(path, kind)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
        return str(error.value)

    assert "no such file" in message()
    write_weights(path)
    assert "not a network of kind 'cnn denoiser'" in message()
    save_baseline(path, CNN, CONFIG, params, {})
    assert "holds 'cnn denoiser'" in message(SUPERVISED)
    path.write_bytes(path.read_bytes()[:-9])
    assert "damaged or truncated" in message()
    wider = {"kind": CNN.name, "config": {"features": 7, "layers": 3}, "about": {}}
    arrays = {f"{a}.{b}": np.array(leaf) for a, leaves in params.items() for b, leaf in leaves.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata={KEY: json.dumps(wider)}))
    assert "but the network in its metadata needs" in message()
    wider["config"] = {"widths": 3}
    path.write_bytes(safetensors.numpy.save(arrays, metadata={KEY: json.dumps(wider)}))
    assert "unknown field 'widths'" in message()
    arrays["conv0.bias"][0] = np.nan
    wider["config"] = vars(CONFIG)
    path.write_bytes(safetensors.numpy.save(arrays, metadata={KEY: json.dumps(wider)}))
    assert "finite float32" in message()
