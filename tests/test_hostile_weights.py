"""Weights, baselines, converter and checkpoints against hostile files: a value or one short line, in seconds, from a
few hundred mutations that the seed decides."""

import dataclasses
import json
import os
import time
import tracemalloc

import jax
import numpy as np
import pytest
import torch_writer as tw
from flax.traverse_util import flatten_dict
from tiny import CONFIG, NETWORK, refused, write_weights

from padis_jax.baselines import file as baselines
from padis_jax.baselines.cnn import CNNConfig
from padis_jax.batches import PatchConfig
from padis_jax.cli.convert import main as convert
from padis_jax.config import Config, OptimiserConfig, RunConfig
from padis_jax.conversion.state_dict import import_state_dict
from padis_jax.conversion.stored import MAX_HEADER
from padis_jax.conversion.torch_files import read_torch
from padis_jax.conversion.unet_shapes import unet_shapes
from padis_jax.errors import UserError
from padis_jax.noise import NoiseConfig
from padis_jax.patches import Frame
from padis_jax.serialization import from_json, parse_json
from padis_jax.unet import NetworkConfig, init_network
from padis_jax.weights import load_weights
from padis_jax.window import Window

DEEP, DIGITS = "[" * 100_000, '{"low": ' + "9" * 5000 + "}"
VALUES = (None, True, -1, 0, 3, 3000, 2**31, 2**63, 10**400, -(10**400), 0.0, -0.5, 1e-320, 1e300, float("nan"),
          float("inf"), "", "x" * 5000, "a\nb\x1b[31m\ud800", [], [0], [1] * 5000, [10**9] * 2, [2**62, 1], [[[1]]], {},
          {"a": 1})  # fmt: skip


def outcome(call, *arguments):
    """What a reader makes of it: "value", or its one short line; anything else is an error of the test."""
    begin = time.process_time()
    try:
        call(*arguments)
        line = "value"
    except UserError as error:
        line = str(error)
        assert 0 < len(line) < 700 and line.isprintable(), line
    assert time.process_time() - begin < 5
    return line


def header(data):
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rebuilt(head, body):
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("hostile") / "w.safetensors")


def with_metadata(good, path, **texts):
    head, body = header(good.read_bytes())
    head["__metadata__"] |= texts
    path.write_bytes(rebuilt(head, body))
    return path


@pytest.mark.parametrize("name, text, message", [
    ("provenance", DEEP, "provenance in its metadata is not JSON: nested too deeply"),
    ("provenance", "[" * 240 + "]" * 240, "nested deeper than 200"),
    ("window", DIGITS, "window in its metadata is not JSON: a number of more than 4300 digits"),
    ("window", '{"unit": "1", "low": -1%s, "high": 1}' % ("0" * 400), "window.low is -1"),
    ("window", '{"unit": "1", "low": 0, "high": 1e300}', "single precision"),
    ("window", '{"unit": "1", "low": 1e10, "high": 10000000001}', "single precision"),
    ("window", json.dumps({"unit": "a\nb", "low": 0, "high": 1}), r"the unit 'a\nb' must be a short text"),
    ("network", {"num_blocks": 3000}, "network.num_blocks is 3000: it must be 1 to 64"),
    ("network", {"num_blocks": 64}, "but the network in its metadata needs"),
    ("network", {"model_channels": 2**31}, "network.model_channels is 2147483648: it must be 1 to 4096"),
    ("network", {"model_channels": 4096}, "but the network in its metadata needs"),
    ("network", {"channel_mult": [1] * 5000}, "5000 levels of 1 blocks"),
    ("network", {"channel_mult": [1] * 13}, "13 levels of 1 blocks"),
    ("network", {"sigma_data": 1e-300}, "sigma_data is 1e-300"),
    ("network", {"resample_filter": [1, 1e300]}, "resample_filter"),
    ("network", {"embedding": "x" * 5000}, "..."),
    ("network", {"x" * 5000: 1}, "unknown field 'xxx"),
    ("frame", {"tiles": [10**9, 10**9]}, "more than 268435456 pixels"),
    ("frame", {"tiles": [3, 9]}, "a margin of more than 4 patches"),
    ("frame", {"image_shape": [2**40, 16]}, "frame"),
    ("frame", {"patch": 2**40, "tiles": [1, 1]}, "frame"),
])  # fmt: skip
def test_metadata_are_bounded(good, tmp_path, name, text, message):
    if isinstance(text, dict):
        text = json.dumps(json.loads(header(good.read_bytes())[0]["__metadata__"][name]) | text)
    line = outcome(load_weights, with_metadata(good, tmp_path / "bad.safetensors", **{name: text}))
    assert str(tmp_path) in line and message in line, line


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "BF16", "I64", "BOOL"])
def test_types_are_those_that_were_written(good, tmp_path, kind):
    head, _ = header(good.read_bytes())
    end = 0
    for name in [name for name in head if name != "__metadata__"]:
        size = int(np.prod(head[name]["shape"])) * {"BF16": 2, "I64": 8}.get(kind, 1)
        head[name] |= {"dtype": kind, "data_offsets": [end, end + size]}
        end += size
    (tmp_path / "bad.safetensors").write_bytes(rebuilt(head, bytes(end)))
    assert "expected float32 or float16" in outcome(load_weights, tmp_path / "bad.safetensors")


@pytest.mark.parametrize("kind", ["text", "arrays"])
def test_a_header_of_megabytes_is_refused_unread(good, tmp_path, kind):
    head, body = header(good.read_bytes())
    if kind == "text":
        head["__metadata__"]["more"] = "x" * MAX_HEADER
    else:
        head |= {f"a{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(70_000)}
    (tmp_path / "w.safetensors").write_bytes(rebuilt(head, body))
    tracemalloc.start()
    try:
        assert "more than 4194304" in outcome(load_weights, tmp_path / "w.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "w.safetensors")
    assert "no regular file" in outcome(load_weights, tmp_path / "w.safetensors")
    assert "no such file or folder" in refused(convert, [tmp_path / "w.safetensors", tmp_path / "out"], capsys)


def test_names_of_arrays_are_cut(good, tmp_path):
    head, body = header(good.read_bytes())
    for name in ("x" * 5000, "a\nb\x1b[31m"):
        changed = {**head, name: {"dtype": "F32", "shape": [0], "data_offsets": [len(body)] * 2}}
        (tmp_path / "bad.safetensors").write_bytes(rebuilt(changed, body))
        assert "is (0,), but the network" in outcome(load_weights, tmp_path / "bad.safetensors")


def mutated(rng, value):
    """JSON with one field, anywhere, replaced, doubled or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        kind = rng.integers(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {f"{key}_" if kind == 1 else key: mutated(rng, value[key])}
    return VALUES[rng.integers(len(VALUES))]


@pytest.mark.parametrize("seed", range(3))
def test_mutated_metadata(good, tmp_path, seed):
    cnn = CNNConfig(features=4, layers=2)
    params = {f"conv{i}": {"kernel": np.ones((3, 3, 2, 1), np.float32)} for i in range(2)}
    baselines.save_baseline(tmp_path / "cnn", baselines.CNN, cnn, params, {"images": "a"})
    fields = {"weights": ("network", "frame", "window", "provenance"), "cnn": (baselines.KEY,)}
    found = []
    for case in range(60):
        rng = np.random.default_rng([seed, case])
        kind = "cnn" if case % 6 == 0 else "weights"
        head, body = header((good if kind == "weights" else tmp_path / "cnn").read_bytes())
        name = fields[kind][rng.integers(len(fields[kind]))]
        head["__metadata__"][name] = json.dumps(mutated(rng, json.loads(head["__metadata__"][name])))
        (tmp_path / "bad").write_bytes(rebuilt(head, body))
        read = load_weights if kind == "weights" else lambda path: baselines.load_baseline(path, baselines.CNN)
        found.append(outcome(read, tmp_path / "bad"))
    assert sum(line != "value" for line in found) > 30


@pytest.mark.parametrize("kind", [NetworkConfig, PatchConfig, NoiseConfig, OptimiserConfig, RunConfig, CNNConfig, Frame,
                                  Window, Config])  # fmt: skip
def test_no_field_takes_any_number(kind):
    """Of every dataclass that files hold: a value out of bounds is one line, and an accepted one is small."""
    start = dataclasses.asdict(
        {Frame: Frame((16, 16), 8, (3, 3)), Window: Window("HU", 0.0, 1.0), Config: CONFIG}.get(kind) or kind()
    )
    for field in start:
        for value in VALUES:
            line = outcome(from_json, kind, start | {field: value}, "file: it")
            if line == "value" and type(value) is int and kind.__annotations__[field] == "int":
                assert abs(value) < 2**63
    assert outcome(parse_json, DIGITS, "file") != "value"


@pytest.fixture(scope="module")
def flat():
    with np.load("tests/fixtures/ddpmpp_small.npz") as file:
        return {k.removeprefix("weights/"): file[k] for k in file.files if k.startswith("weights/")}


@pytest.mark.parametrize("name, change, message", [
    ("model.enc.32x32_conv.weight", lambda a: a[:0], "none of them 0"),
    ("model.enc.32x32_conv.weight", lambda a: a[:, :0], "none of them 0"),
    ("model.enc.32x32_block0.conv0.weight", lambda a: a.ravel()[0], "expected [out, in, kh, kw]"),
    ("model.enc.32x32_block0.conv1.weight", lambda a: a.ravel()[0], "is unknown"),
    ("model.dec.32x32_aux_conv.weight", lambda a: a.ravel(), "expected [out, in, kh, kw]"),
    ("model.enc.16x16_down.conv0.resample_filter", lambda a: a.ravel(), "no filter"),
    ("model.enc.16x16_down.conv0.resample_filter", lambda a: a * 0, "no filter"),
    ("model.enc.16x16_down.conv0.resample_filter", lambda a: a * np.nan, "resample_filter"),
    ("model.enc.16x16_down.conv0.resample_filter", lambda a: np.ones((1, 1, 900, 900)), "no filter"),
    ("model.map_layer0.weight", lambda a: a[None], "is unknown"),
])  # fmt: skip
def test_shapes_of_a_state_dict(flat, name, change, message):
    assert name in flat
    line = outcome(import_state_dict, flat | {name: np.asarray(change(flat[name]), np.float32)})
    assert message in line, line


@pytest.mark.parametrize("seed", range(2))
def test_mutated_state_dicts(flat, seed):
    names, changes = list(flat), (
        lambda a: a[:0], lambda a: a.ravel(), lambda a: a.ravel()[0], lambda a: a[None], lambda a: a.T,
        lambda a: np.repeat(a, 2, 0), lambda a: a * np.inf, lambda a: np.zeros((0, 0, 3, 3)), lambda a: a.astype(bool),
        lambda a: np.full(a.shape, 1e300),
    )  # fmt: skip
    for case in range(30):
        rng = np.random.default_rng([seed, case])
        name = names[rng.integers(len(names))]
        bad = dict(flat)
        if rng.random() < 0.7:
            bad[name] = np.asarray(changes[rng.integers(len(changes))](flat[name]))
        else:
            new = name.replace("32x32", str(rng.choice(["99999x99999", "0x0", "x" * 150, "a\nb"])))
            bad[new] = bad.pop(name)
        outcome(import_state_dict, bad)


def test_a_numpy_array_of_a_type_that_is_none(tmp_path):
    kind = tw.call(tw.name("numpy", "dtype"), tw.text("f1"), b"\x89", b"\x88")
    state = tw.many(tw.integer(1), tw.many(tw.integer(1)), kind, b"\x89", tw.binary(b"a"))
    array = tw.call(tw.name("numpy._core.multiarray", "_reconstruct")) + state + b"b"
    (tmp_path / "bad.pkl").write_bytes(tw.pickled(tw.mapping({"a": array})))
    assert "not a plain number type" in outcome(read_torch, tmp_path / "bad.pkl")


def big(value):
    return b"\x8a\x11" + int(value).to_bytes(17, "little", signed=True)


@pytest.mark.parametrize("size", [(1,), (0,), (2,), (0, 2**100), (2**47, 0, 2**47), (2**62,) * 3, (1,) * 8])
@pytest.mark.parametrize("stride", [1, 0, 2**40, 2**62, 2**100])
def test_sizes_and_strides_of_tensors(tmp_path, size, stride):
    array = np.arange(6, dtype=np.float32)
    rebuild = tw.name("torch._utils", "_rebuild_tensor_v2")
    sizes = (tw.many(*map(big, size)), tw.many(*(big(stride) for _ in size)))
    end = (b"\x89", tw.name("collections", "OrderedDict") + b")R")
    body = tw.mapping({"a.weight": tw.call(rebuild, tw.load_from_bytes(array), tw.integer(0), *sizes, *end)})
    (tmp_path / "bad.pkl").write_bytes(tw.pickled(body))
    line = outcome(read_torch, tmp_path / "bad.pkl")
    assert line != "value" or max(*size, stride) < 2**48


SIZES = {"small": NETWORK, "ddpm++": NetworkConfig(model_channels=8, channel_mult=(1, 2, 2), num_blocks=2),
         "ncsn++": NetworkConfig(image_channels=3, position_channels=0, model_channels=8, channel_mult=(2, 1, 4),
                                 num_blocks=1, attention_levels=(0, 2), embedding="fourier", encoder="residual",
                                 resample_filter=(1.0, 3.0, 3.0, 1.0))}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_shapes_by_arithmetic_are_those_of_the_network(name):
    config = SIZES[name]
    traced = flatten_dict(jax.eval_shape(lambda: init_network(jax.random.key(0), config)), sep=".")
    assert unet_shapes(config) == {path: leaf.shape for path, leaf in traced.items()}


def test_the_largest_networks_are_within_bounds():
    config = dataclasses.replace(NETWORK, num_blocks=16, channel_mult=(1, 2, 3, 4), model_channels=4096)
    assert outcome(unet_shapes, config) == "value"
