"""studies.position: encodings beside the library's network, and trainings that resume."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cli_train import CONFIG
from tiny import NETWORK, random_params, refused, write_weights

from padis_jax import batches
from padis_jax.loss import DenoisingLoss
from padis_jax.noise import NoiseConfig
from padis_jax.patches import frame_for
from padis_jax.positions import plane_positions
from padis_jax.weights import load_prior
from studies.position import cells, encodings, report, trainings
from studies.position.__main__ import main
from studies.position.encodings import Denoiser, Encoding, Loss, encode, init, looked_up
from studies.position.trainings import Training

NOISE = NoiseConfig()
PLANE = jnp.asarray(plane_positions((24, 20)))[None]  # [1, 24, 20, 2]


def batch(count=4, side=4):
    rng = np.random.default_rng(0)
    patches = jnp.asarray(rng.random((count, side, side, 1)), jnp.float32)
    return patches, jnp.broadcast_to(PLANE[:, 3 : 3 + side, 5 : 5 + side], (count, side, side, 2))


@pytest.mark.parametrize(("way", "channels"), [("coordinates", 2), ("none", 0)])
def test_coordinates_and_none_are_the_librarys_own(way, channels):
    """Loss and prior, bit for bit."""
    network = dataclasses.replace(NETWORK, position_channels=channels)
    params = random_params(network)
    ours, theirs = Loss(Encoding(way), network, NOISE), DenoisingLoss(network, NOISE)
    found = jax.jit(ours)({"network": params}, jax.random.key(1), *batch())
    np.testing.assert_array_equal(found, jax.jit(theirs)(params, jax.random.key(1), *batch()))


def test_a_weights_file_gives_the_prior_that_load_prior_gives(tmp_path):
    net = cells.shipped_net(str(write_weights(tmp_path / "own.safetensors")))
    assert (net.way, net.patch, net.steps) == ("own", 8, 0)
    plane = jax.random.normal(jax.random.key(0), (*frame_for((16, 16), 8).padded_shape, 1))
    theirs = load_prior(tmp_path / "own.safetensors")

    def denoised(prior):
        return jax.jit(prior.denoise)(jax.random.key(1), plane, jnp.float32(0.2))

    assert net.givens == ("own", "zero", "turned", "scaled")
    np.testing.assert_array_equal(denoised(net.make("own")), denoised(theirs))


def test_what_is_given_for_positions():
    """A denoiser that returns what it is told: its own positions, 0, the opposite side's, a larger plane's."""
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "denoise", lambda e, n, params, patches, positions, sigma: positions)
        for given in ("own", "zero", "turned", "scaled"):
            seen[given] = Denoiser(Encoding(), NETWORK, given)({}, PLANE, PLANE, jnp.ones(1))
    np.testing.assert_array_equal(seen["own"], PLANE)
    np.testing.assert_array_equal(seen["zero"], 0)
    np.testing.assert_allclose(seen["turned"], PLANE[:, ::-1, ::-1], atol=1e-6)
    larger = plane_positions((256 + 128, 256 + 128))[40:-40, 40:-40]  # the plane of 64 pixels' padding, where 24 were
    np.testing.assert_allclose(seen["scaled"], encodings.SCALE * PLANE, atol=1e-6)
    np.testing.assert_allclose(encodings.SCALE * plane_positions((304, 304)), larger, atol=0.01)


def test_fourier_features_are_waves_of_the_positions():
    narrow, wide = Encoding("fourier", 0.5), Encoding("fourier", 2.0)
    np.testing.assert_allclose(wide.frequencies, 4 * narrow.frequencies, rtol=1e-6)
    found = encode(wide, {}, PLANE)
    assert found.shape == (1, 24, 20, wide.channels)
    np.testing.assert_allclose(found[0, 0, 0, 0], np.cos(-2 * np.pi * wide.frequencies[0].sum()), atol=1e-5)
    np.testing.assert_allclose(found[..., :16] ** 2 + found[..., 16:] ** 2, 1, atol=1e-5)


def test_a_table_is_bilinear_and_learns_where_it_is_looked_at():
    rows, columns = np.mgrid[-1:1:5j, -1:1:7j]
    table = jnp.asarray(np.stack([columns, rows, columns * rows], -1), jnp.float32)
    found = looked_up(table, PLANE)
    x, y = PLANE[..., 0], PLANE[..., 1]
    np.testing.assert_allclose(found, jnp.stack([x, y, x * y], -1), atol=0.07)  # x y bends between places
    np.testing.assert_allclose(found[..., :2], PLANE, atol=1e-5)
    corner = jax.grad(lambda table: jnp.sum(looked_up(table, PLANE[:, :3, :3])))(table)
    assert set(zip(*np.nonzero(np.asarray(corner[..., 0])), strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_parameters_differ_in_nothing_but_the_first_kernel_and_the_table():
    made = {way: init(jax.random.key(0), Encoding(way, 1.0), NETWORK) for way in report.WAYS}
    kernels = {way: params["network"].pop("enc0_conv")["kernel"] for way, params in made.items()}
    assert {way: kernel.shape[2] for way, kernel in kernels.items()} == {
        "coordinates": 3, "none": 1, "dropped": 3, "fourier": 33, "table": 17
    }  # fmt: skip
    assert {way for way, params in made.items() if "table" in params} == {"table"}
    jax.tree.map(np.testing.assert_array_equal, made["none"]["network"], made["table"]["network"])
    bound = np.sqrt(3 / (9 * (17 + 8) / 2))  # uniform with the variance 1 / mean of fan in and fan out
    assert 0.95 * bound < float(jnp.max(jnp.abs(kernels["table"]))) <= bound


def test_half_of_the_patches_are_trained_without_positions():
    seen = []

    def told(encoding, network, params, patches, positions, sigma, *, dropout_key):
        seen.append((positions, dropout_key))
        return patches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "denoise", told)
        loss = Loss(Encoding("dropped"), NETWORK, NOISE)
        for each in (loss, dataclasses.replace(loss, train=False)):
            each({}, jax.random.key(0), *batch(400))
    (dropped, key), (own, no_key) = seen
    whole = {bool(np.any(np.asarray(p))) for p in dropped}
    kept = sum(bool(np.any(np.asarray(p))) for p in dropped)
    assert whole == {True, False} and 160 < kept < 240
    assert all(not np.any(p) or np.array_equal(p, q) for p, q in zip(np.asarray(dropped), np.asarray(own), strict=True))
    np.testing.assert_array_equal(own, batch(400)[1])
    assert key is not None and no_key is None


@pytest.fixture
def study(tmp_path, monkeypatch):
    """(runs the command; the steps that were drawn) in its own folder; the network is a linear map of a pixel."""

    def apply(config, params, x, label, *, dropout_key):
        return jnp.einsum("bhwi,io->bhwo", x, params["enc0_conv"]["kernel"][1, 1, :, :1])

    monkeypatch.setattr(encodings, "init_network", lambda key, config: {"enc0_conv": {"bias": jnp.zeros(8)}})
    monkeypatch.setattr(encodings, "apply_network", apply)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((6, 16, 16), np.float32))
    (tmp_path / "tiny.py").write_text(CONFIG.format(path=str(tmp_path / "images.npy")))
    monkeypatch.setattr(trainings, "CONFIG", str(tmp_path / "tiny.py"))
    monkeypatch.setattr(trainings, "BATCH", dict.fromkeys(trainings.BATCH, 2))
    monkeypatch.setattr(trainings, "BANDWIDTHS", (1.0, 2.0))
    monkeypatch.chdir(tmp_path)
    drawn = []

    def draw(padded, config, seed, step):
        drawn.append((config.sizes, step))
        if drawn == [((16,), 0), ((16,), 1), ((16,), 2)]:
            raise KeyboardInterrupt
        return batches.draw_batch(padded, config, seed, step)

    monkeypatch.setattr(trainings, "draw_batch", draw)
    return (lambda *words: main([*words, "--out", "out", "--runs", "runs"])), drawn


def test_a_training_resumes_and_is_read_back(study, tmp_path):
    run, drawn = study
    words = ("train", "--steps", "4", "--only", "table/16/10")
    monkey = trainings.order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainings, "order", lambda: [*monkey(), ("table", 16, 10)])
        with pytest.raises(SystemExit):
            run(*words)
        run(*words)
        assert [step for _, step in drawn] == [0, 1, 2, 2, 3]
        run(*words)
    assert len(drawn) == 5
    (net,) = cells.nets(tmp_path / "runs", "")
    assert net.key[:4] == ("table", 16, 10, 4) and net.givens == ("own",) and net.about["validation_loss"] > 0
    done = trainings.load(tmp_path / "runs" / "table_16_10_4")
    config = trainings.config_of(done.training)
    assert (config.data.limit, config.patches.sizes, config.optimiser.ema_ramp) == (10, (16,), 0.1)
    assert done.params["table"].shape == (16, 16, 16) and done.frame == frame_for((16, 16), 16)
    prior = net.make("own")
    plane = jnp.zeros((*done.frame.padded_shape, 1))
    assert prior.denoise(jax.random.key(0), plane, jnp.float32(0.1)).shape == plane.shape
    row = json.loads((tmp_path / "runs" / "table_16_10_4" / "trained.json").read_text())
    (tmp_path / "runs" / "table_16_10_4" / "trained.json").write_text(json.dumps(row | {"weights": "0"}))
    with pytest.raises(trainings.UserError, match="not that of trained.json"):
        trainings.load(tmp_path / "runs" / "table_16_10_4")


def test_the_bandwidth_is_that_of_the_lowest_validation_loss(monkeypatch, tmp_path):
    ran = []

    def train(training, folder):
        ran.append((training, folder.parent.name))
        return {"validation_loss": abs(training.bandwidth - 2.0)}

    monkeypatch.setattr(trainings, "train", train)
    assert trainings.bandwidth(56, 0, 400, tmp_path) == 2.0
    assert ran == [(Training("fourier", 56, 0, 100, each), "bandwidth") for each in trainings.BANDWIDTHS]


def test_budgets_are_timed_once_and_the_order_is_that_of_the_question(monkeypatch, tmp_path, capsys):
    timed = []
    monkeypatch.setattr(trainings, "step_seconds", lambda config: timed.append(config.patches.sizes) or 0.5)
    assert [trainings.budget(tmp_path, patch, 20.0, None) for patch in (56, 56, 16)] == [2400] * 3
    assert timed == [(56,), (16,)] and trainings.budget(tmp_path, 32, 20.0, 7) == 7
    order = trainings.order()
    assert order[:4] == [("coordinates", 56, 0), ("none", 56, 0), ("coordinates", 16, 0), ("none", 16, 0)]
    assert len(order) == len(set(order)) == 18
    assert all(patch**2 * trainings.BATCH[patch] == pytest.approx(25_000, rel=0.11) for _, patch, _ in order)
    assert "--only none/57/0: there are coordinates/56/0" in refused(main, ["train", "--only", "none/57/0"], capsys)
