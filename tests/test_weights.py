"""Weights files: a round trip, and one clear line for everything that is not such a file."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from tiny import NETWORK, random_params, write_weights

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN
from padis_jax.patches import frame_for
from padis_jax.prior import patch_prior
from padis_jax.unet import NetworkConfig
from padis_jax.weights import file_hash, load_prior, load_weights, save_weights

SHIPPED = Path(__file__).parent.parent / "weights" / "head_ct.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def test_weights_without_positions_serve_any_size(good, tmp_path):
    free = write_weights(tmp_path / "free.safetensors", network=dataclasses.replace(NETWORK, position_channels=0))
    weights, placed = load_weights(free), load_weights(good)
    assert weights.frame_for((16, 16)) == weights.frame and weights.frame_for((21, 40)) == frame_for((21, 40), 8)
    assert placed.frame_for((16, 16)) == placed.frame and placed.frame_for((21, 40)) is None
    assert weights._replace(frame=frame_for((16, 16), 0)).frame_for((21, 40)) is None
    prior = load_prior(free, image_shape=(21, 13))
    plane = jnp.ones((*prior.frame.padded_shape, 1))
    assert prior.denoise(jax.random.key(0), plane, jnp.float32(0.1)).shape == plane.shape
    with pytest.raises(UserError, match=r"images of \(16, 16\), whose positions the network knows; \(21, 13\) needs"):
        load_prior(good, image_shape=(21, 13))


def test_round_trip(tmp_path, no_temporary_files):
    network = dataclasses.replace(NETWORK, channel_mult=(1, 2), resample_filter=(1.0, 3.0, 3.0, 1.0), dtype="bfloat16")
    params, frame = random_params(network), frame_for((16, 12), 6)
    provenance = {"data": "a scan", "steps": 7, "nested": {"loss": [0.5, 0.25]}}
    path = tmp_path / "folder" / "w.safetensors"
    save_weights(path, params, network, frame, HOUNSFIELD, provenance)
    found = load_weights(path)
    assert (found.network, found.frame, found.window) == (network, frame, HOUNSFIELD)
    assert found.provenance == provenance
    assert found.digest == file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert jax.tree.structure(found.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_any_reader_of_safetensors_finds_the_metadata(good):
    with safetensors.safe_open(good, framework="numpy") as file:
        about = file.metadata()
    assert json.loads(about["network"])["model_channels"] == NETWORK.model_channels
    assert json.loads(about["frame"]) == {"image_shape": [16, 16], "patch": 8, "tiles": [3, 3]}
    assert json.loads(about["window"]) == {"unit": "1", "low": 0.0, "high": 1.0}


def test_the_hash_follows_the_content(good, tmp_path):
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    again = write_weights(tmp_path / "again.safetensors")
    assert file_hash(good) == file_hash(again) != file_hash(other)


def test_the_prior_of_a_file_is_that_of_its_contents(good):
    frame = frame_for((16, 16), 8)
    plane = jnp.asarray(np.random.default_rng(0).random((*frame.padded_shape, 1)), jnp.float32)
    key, sigma = jax.random.key(0), jnp.asarray(0.5)
    call = jax.jit(lambda prior: prior.denoise(key, plane, sigma))
    ours = load_prior(good, tiling="fixed")
    assert ours.frame == frame
    np.testing.assert_array_equal(call(ours), call(patch_prior(NETWORK, random_params(), frame, tiling="fixed")))


def _rewritten(good, path, *, arrays=None, **metadata):
    """The good file with other arrays (functions of the flat dict) or other metadata; None takes a key away."""
    with safetensors.safe_open(good, framework="numpy") as file:
        about = file.metadata() | metadata
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    found = arrays(found) if arrays else found
    about = {name: text for name, text in about.items() if text is not None}
    path.write_bytes(safetensors.numpy.save(found, metadata=about))


def _edited(good, name, **fields):
    with safetensors.safe_open(good, framework="numpy") as file:
        about = json.loads(file.metadata()[name])
    return {name: json.dumps(about | fields)}


KERNEL = "enc0_conv.kernel"
CASES = {
    "truncated": (lambda good, path: path.write_bytes(good.read_bytes()[:-100]), "damaged or truncated"),
    "empty": (lambda good, path: path.write_bytes(b""), "damaged or truncated"),
    "text": (lambda good, path: path.write_text("hello, these are no weights\n"), "damaged or truncated"),
    "a folder": (lambda good, path: path.mkdir(), "damaged or truncated"),
    "missing": (lambda good, path: None, "no such weights file; check the path, or train one with train.py"),
    "foreign": (
        lambda good, path: path.write_bytes(safetensors.numpy.save({"a": np.zeros(3, np.float32)})),
        "metadata has no 'network'",
    ),
    "bfloat16 arrays": (
        lambda good, path: _rewritten(
            good, path, arrays=lambda a: a | {KERNEL: np.asarray(jnp.asarray(a[KERNEL], jnp.bfloat16))}
        ),
        "bfloat16",
    ),
    "float64 array": (
        lambda good, path: _rewritten(good, path, arrays=lambda a: a | {KERNEL: a[KERNEL].astype(np.float64)}),
        f"array {KERNEL} is float64, expected float32 or float16",
    ),
    "NaN": (
        lambda good, path: _rewritten(good, path, arrays=lambda a: a | {KERNEL: a[KERNEL] * np.nan}),
        f"array {KERNEL} holds NaN",
    ),
    "missing array": (
        lambda good, path: _rewritten(good, path, arrays=lambda a: {n: v for n, v in a.items() if n != KERNEL}),
        f"array {KERNEL} is nothing, but the network in its metadata needs (3, 3, 3, 8)",
    ),
    "extra array": (
        lambda good, path: _rewritten(good, path, arrays=lambda a: a | {"zz.kernel": np.zeros(1, np.float32)}),
        "array zz.kernel is (1,), but the network in its metadata needs nothing",
    ),
    "another architecture": (
        lambda good, path: _rewritten(good, path, **_edited(good, "network", model_channels=12)),
        "but the network in its metadata needs",
    ),
    "unknown field": (
        lambda good, path: _rewritten(good, path, **_edited(good, "network", model_chanels=8)),
        "network: unknown field 'model_chanels'; known fields: attention_levels",
    ),
    "wrong type": (
        lambda good, path: _rewritten(good, path, **_edited(good, "network", num_blocks="1")),
        "network.num_blocks is '1': expected int",
    ),
    "out of range": (
        lambda good, path: _rewritten(good, path, **_edited(good, "network", dropout=2.0)),
        "network.dropout is 2.0",
    ),
    "impossible frame": (
        lambda good, path: _rewritten(good, path, **_edited(good, "frame", tiles=[2, 2])),
        "leave no offset",
    ),
    "incomplete frame": (
        lambda good, path: _rewritten(good, path, frame=json.dumps({"patch": 8})),
        "image_shape",
    ),
    "patch that does not suit the network": (
        lambda good, path: _rewritten(
            good, path, **_edited(good, "frame", patch=7), **_edited(good, "network", channel_mult=[1, 1])
        ),
        "a patch of 7 pixels does not suit 2 levels",
    ),
    "empty window": (
        lambda good, path: _rewritten(good, path, **_edited(good, "window", low=1.0)),
        "low 1.0 must be below high 1.0",
    ),
    "no JSON": (lambda good, path: _rewritten(good, path, network="{"), "metadata is not JSON"),
    "JSON of another kind": (lambda good, path: _rewritten(good, path, frame="3"), "frame: expected fields, got int"),
    "provenance of another kind": (lambda good, path: _rewritten(good, path, provenance="[]"), "provenance"),
    "no provenance": (lambda good, path: _rewritten(good, path, provenance=None), "metadata has no 'provenance'"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_weights_file_is_refused_in_one_line(good, tmp_path, case):
    make, message = CASES[case]
    path = tmp_path / "w.safetensors"
    make(good, path)
    with pytest.raises(UserError) as refused:
        load_weights(path)
    text = str(refused.value)
    assert str(path) in text and message in text, text
    assert "\n" not in text


def test_a_failed_write_leaves_the_older_file(good, tmp_path, no_temporary_files):
    path = tmp_path / "w.safetensors"
    path.write_bytes(good.read_bytes())
    params = random_params() | {"strange": {"kernel": np.asarray(["text"])}}
    with pytest.raises((ValueError, TypeError, KeyError, safetensors.SafetensorError)):
        save_weights(path, params, NETWORK, frame_for((16, 16), 8), HOUNSFIELD, {})
    assert path.read_bytes() == good.read_bytes()


@pytest.mark.skipif(not SHIPPED.exists(), reason="the weights are not in this checkout")
def test_the_shipped_weights():
    assert SHIPPED.stat().st_size < 12e6
    weights = load_weights(SHIPPED)
    assert (weights.frame, weights.window) == (frame_for((256, 256), 56), HOUNSFIELD)
    assert weights.network.sigma_data == 0.28 and isinstance(weights.network, NetworkConfig)
    assert {"data", "steps", "config"} <= set(weights.provenance) and "GPL-2" in weights.provenance["data"]


def test_half_precision_halves_the_file_and_comes_back_as_float32(tmp_path):
    for dtype in ("float32", "float16"):
        frame = frame_for((16, 16), 8)
        save_weights(tmp_path / dtype, random_params(), NETWORK, frame, PLAIN, {}, dtype=dtype)
    half, full = (load_weights(tmp_path / dtype).params for dtype in ("float16", "float32"))
    assert (tmp_path / "float16").stat().st_size < 0.7 * (tmp_path / "float32").stat().st_size
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7), half, full)
    kernel = random_params()["enc0_conv"]["kernel"]
    assert 0 < np.abs(half["enc0_conv"]["kernel"] - kernel).max() < 1e-3  # it was rounded


def test_what_float16_cannot_hold_is_not_written(tmp_path):
    params = jax.tree.map(lambda a: a + 1e6, random_params())
    with pytest.raises(ValueError, match="is not finite as float16"):
        save_weights(tmp_path / "w", params, NETWORK, frame_for((16, 16), 8), PLAIN, {}, dtype="float16")
    assert not list(tmp_path.iterdir())
