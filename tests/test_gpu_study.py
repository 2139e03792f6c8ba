"""studies.gpu on a CPU with a tiny network: batches drawn on the device, steps, the learning rate by time, one run."""

import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, refused

from padis_jax.config import OptimiserConfig
from padis_jax.convolution import conv_same
from padis_jax.positions import plane_positions
from padis_jax.training import init_state, train_step
from padis_jax.weights import load_weights
from studies import gpu
from studies.speed.network_cost import Cost
from studies.speed.peaks import PEAKS, Peak, peak_of
from studies.speed.throughput import flops_of, measured, seconds_of

CONFIG = """
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.batches import PatchConfig
from padis_jax.unet import NetworkConfig
config = Config(
    data=DataConfig(path={path!r}, validation=(1,)),
    network=NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, sigma_data=0.3),
    patches=PatchConfig(sizes=(8,), probabilities=(1.0,), batch=(2,), flips=True),
    optimiser=OptimiserConfig(learning_rate=1e-2, ema_half_life=20),
    run=RunConfig(weights_dtype="float16"),
)
"""


def test_patches_are_crops_at_their_positions_or_mirrored_ones():
    padded = np.random.default_rng(0).random((3, 12, 16, 1)).astype(np.float32)
    plane = plane_positions((12, 16))
    found = jax.jit(gpu.draw, static_argnums=3)(jax.random.key(1), padded, plane, (4, 64, True))
    seen = set()
    for patch, where in zip(*map(np.asarray, found), strict=True):
        top, left = (int(np.argmin(abs(axis - value))) for axis, value in (
            (plane[:, 0, 1], where[0, 0, 1]), (plane[0, :, 0], where[0, 0, 0])))  # fmt: skip
        np.testing.assert_array_equal(where, plane[top : top + 4, left : left + 4])
        both = padded, padded[:, :, ::-1]
        hits = [(i, m) for m in (0, 1) for i in range(3) if (patch == both[m][i, top : top + 4, left : left + 4]).all()]
        assert len(hits) == 1
        seen.add(hits[0])
    assert len(seen) == 6
    straight, where = gpu.draw(jax.random.key(1), padded, plane, (12, 8, False))
    assert straight.shape == (8, 12, 12, 1) and where.shape == (8, 12, 12, 2)


def test_steps_are_those_of_a_training():
    """One batch, a loss without randomness and a constant rate: parameters and average of `training.train_step`."""
    optimiser = OptimiserConfig(learning_rate=0.05, warmup_steps=0, final_fraction=1.0, clip_norm=0.5, ema_half_life=9)
    padded, plane = jnp.full((1, 4, 4, 1), 0.7), jnp.asarray(plane_positions((4, 4)))
    params = {"a": jnp.asarray([0.2, -0.4]), "b": jnp.asarray(1.5)}

    def loss(params, key, patches, where):
        return jnp.mean((params["b"] * patches - (where @ params["a"])[..., None]) ** 2)

    own = init_state(params, optimiser)
    own = own._replace(optimiser=gpu.transform(optimiser).init(params))
    own, values = gpu.advance(loss, optimiser, (4, 3, False), jax.random.key(0), own, jnp.full(5, 0.05), padded, plane)
    state, batch = init_state(params, optimiser), (jnp.repeat(padded, 3, 0), jnp.repeat(plane[None], 3, 0))
    for value in values:
        state, metrics = train_step(loss, optimiser, 5, jax.random.key(0), state, *batch)
        assert float(value) == pytest.approx(float(metrics.loss), rel=1e-5)
    for name in ("params", "ema", "step", "seen"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), getattr(own, name), getattr(state, name))


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    optimiser = OptimiserConfig()
    state = init_state({"a": jnp.asarray(1.0)}, optimiser)
    state = state._replace(optimiser=gpu.transform(optimiser).init(state.params))
    padded, plane = jnp.full((1, 4, 4, 1), 0.7), jnp.asarray(plane_positions((4, 4)))
    ones = jnp.ones(3)
    state, _ = gpu.advance(
        lambda params, *_: params["a"] / 0,
        optimiser,
        (4, 1, False),
        jax.random.key(0),
        state,
        ones,
        padded,
        plane,
    )
    assert float(state.params["a"]) == float(state.ema["a"]) == 1 and int(state.step) == 3 and float(state.seen) == 0


def test_the_rate_follows_the_time():
    optimiser = OptimiserConfig(learning_rate=1e-3, final_fraction=0.1)
    rates = [gpu.rate_at(optimiser, share) for share in (0, 0.01, 0.02, 0.5, 1, 7)]
    assert rates == pytest.approx([0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4], rel=2e-3)


def test_peaks_are_of_the_very_device():
    assert peak_of("NVIDIA H100 80GB HBM3").flops == 989e12 and peak_of("TPU v5 lite").flops == 197e12
    assert peak_of("TPU v5").flops == peak_of("TPU v5p").flops == 459e12 and peak_of("TPU v4").bytes == 1.2e12
    assert peak_of("NVIDIA H100 PCIe") is peak_of("NVIDIA H200 NVL") is peak_of("cpu") is None and len(PEAKS) == 8
    assert Peak(10.0, 2.0).seconds(Cost(100.0, 8.0)) == 10 and Peak(10.0, 2.0).seconds(Cost(10.0, 8.0)) == 4


def test_flops_are_counted_and_calls_are_timed():
    a, b = jnp.zeros((8, 16)), jnp.zeros((16, 4))
    assert flops_of(jnp.dot, a, b) == 2 * 8 * 16 * 4
    image, kernel = jnp.ones((2, 28, 28, 64)), jnp.ones((3, 3, 64, 64))
    inside = (3 * 28 - 2) ** 2  # products without padding
    assert flops_of(conv_same, image, kernel) == pytest.approx(2 * 2 * 64 * 64 * inside, rel=1e-3)
    calls = []
    assert 0 < seconds_of(lambda: calls.append(0) or a, 0.0) < 1 and len(calls) >= 3
    row = measured("inference", None, lambda config: (lambda: a, 3e9, Cost(4e9, 1e6)), Peak(1e12, 1e9), 0.0)
    assert row["aim"] == 0.5 and row["reached"] is (row["share_of_peak"] >= 0.5) and row["flops_by_hand"] == 4e9
    assert row["share_of_peak"] == pytest.approx(3e9 / row["seconds_of_a_call"] / 1e12)
    assert row["roofline_seconds"] == pytest.approx(4e-3)


def quick(network, noise):
    """A loss that compiles at once."""
    return lambda params, key, patches, where: sum(jnp.mean((leaf - jnp.mean(patches)) ** 2) for leaf in leaves(params))


def leaves(params):
    return [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 1][:2]


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Flags of a run on four images of noise."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(0.2, 0.8, (4, 16, 16)).astype(np.float32))
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(path=str(tmp_path / "images.npy")))
    monkeypatch.setattr(gpu, "LEFT", 5.0)
    found = ["--config", config, "--paper", config, "--out", tmp_path / "out", "--factor", 2, "--inner", 3]
    return [str(word) for word in [*found, "--write-every", 0.01]]


def test_one_run_trains_writes_weights_and_goes_on(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "DenoisingLoss", quick)
    monkeypatch.setattr(gpu, "validate", lambda network, noise, ema, batch: float(leaves(ema)[0][0]))
    monkeypatch.setattr(gpu, "measured", lambda name, config, of, peak, seconds: [name, of.__name__, peak.flops])
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=itertools.count().__next__))  # a second each time
    gpu.main([*words, "--train", "40", "--seconds", "90", "--peak", "1"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    training = result["training"]
    assert training["steps"][0] == 0 and training["steps"][1] == 3 * len(training["losses"]) > 9
    assert training["patches"] == 4 * training["steps"][1] and training["losses"][-1][1] < training["losses"][0][1]
    assert training["validation_loss"][0] != training["validation_loss"][1]
    assert result["inference"] == ["inference", "inference", 1e12]
    assert result["training step"] == ["training step", "training_step", 1e12]
    weights = load_weights(tmp_path / "out" / "weights.safetensors")
    assert weights.network.dtype == "float32" and weights.network.model_channels == NETWORK.model_channels
    assert weights.provenance["steps"] == training["steps"][1]
    trained = ["--start-weights", str(tmp_path / "out" / "weights.safetensors"), "--out", str(tmp_path / "more")]
    gpu.main([*words, "--train", "9", "--seconds", "10", *trained])
    gpu.main([*words, "--train", "9", "--seconds", "10", "--out", str(tmp_path / "more")])  # resumed, without the flag
    origin = load_weights(tmp_path / "more" / "weights.safetensors").provenance["start_weights"]
    assert origin == {"sha256": weights.digest, "provenance": weights.provenance}
    gpu.main([*words, "--train", "20", "--seconds", "21"])
    again = json.loads((tmp_path / "out" / "result.json").read_text())
    assert again["training"]["steps"][0] == training["steps"][1] and again["inference"] == "left out: no time left"
    assert "between 0 and --seconds" in refused(gpu.main, ["--train", "9", "--seconds", "8"], capsys)


@pytest.mark.slow
def test_a_run_with_the_network_itself(words, tmp_path):
    gpu.main([*words, "--train", "1", "--seconds", "1000", "--peak", "1"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["training"]["validation_loss"][1] > 0 and result["training"]["tflops"] >= 0
    for name in ("inference", "training step"):
        assert result[name]["flops"] == pytest.approx(result[name]["flops_by_hand"], rel=0.6)
