"""padis-convert: other programs' checkpoints become weights with the same output; hostile files run nothing."""

import dataclasses
import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch_writer as tw
from tiny import CONFIG, random_state, refused, write_weights

from padis_jax import checkpoint
from padis_jax.cli.convert import main
from padis_jax.conversion.pickled import Budget, Vocabulary, read_pickle
from padis_jax.conversion.torch_files import read_torch
from padis_jax.conversion.torch_objects import NAMES, calls
from padis_jax.denoiser import denoise_patches
from padis_jax.images import HOUNSFIELD, PLAIN
from padis_jax.patches import frame_for
from padis_jax.weights import Slab, file_hash, load_weights

FIXTURES = Path(__file__).parent / "fixtures"
FRAME = ["--image-shape", "64", "48", "--patch", "32", "--low", "0", "--high", "1"]


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "ddpmpp_small.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return {k.removeprefix("weights/"): v for k, v in arrays.items() if k.startswith("weights/")}, arrays


def _files(flat):
    body, arrays = tw.state_dict(flat)
    return {
        "authors.pkl": tw.network_pickle(flat),
        "zip.pt": tw.archive(body, arrays, version=b"3\n", byteorder=b"little"),
        "older.pt": tw.stream(body, arrays),
        "nested.ckpt": tw.archive(tw.mapping({"state_dict": body, "epoch": tw.integer(3)}), arrays),
    }


@pytest.mark.parametrize("name", ["authors.pkl", "zip.pt", "older.pt", "nested.ckpt"])
def test_output_after_conversion_equals_pytorchs(reference, tmp_path, name, no_temporary_files):
    flat, ref = reference
    source, target = tmp_path / name, tmp_path / "out.safetensors"
    source.write_bytes(_files(flat)[name])
    main([str(source), str(target), *FRAME, "--quiet"])
    weights = load_weights(target)
    assert (weights.frame, weights.window) == (frame_for((64, 48), 32), PLAIN)
    assert weights.provenance["converted_from"] == name
    assert weights.provenance["converted_from_sha256"] == file_hash(source)
    x, position = (jnp.asarray(ref[f"input/{k}"].transpose(0, 2, 3, 1)) for k in ("x", "position"))
    out = denoise_patches(weights.network, weights.params, x, position, jnp.asarray(ref["input/sigma"]))
    wanted = ref["output/denoised"].transpose(0, 2, 3, 1)
    assert np.linalg.norm(out - wanted) < 1e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_python_writes_is_read(protocol):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = {"a": [1, -2, 2**40], "b": (True, None, 2.5), "c": {"text": b"bytes"}, "d": OrderedDict(x=1)}
    vocabulary = Vocabulary(calls(bytes), NAMES)
    assert read_pickle(io.BytesIO(pickle.dumps(plain, protocol)), vocabulary, Budget()) == plain
    if protocol < 5:  # arrays of protocol 5 are another call
        arrays = {"a": array, "b": np.asfortranarray(array.astype(">f8")), "c": np.float64(0.25)}
        found = read_pickle(io.BytesIO(pickle.dumps(arrays, protocol)), vocabulary, Budget())
        assert found["c"] == 0.25
        np.testing.assert_array_equal(found["a"].tensor().array(), array)
        np.testing.assert_array_equal(found["b"].tensor().array(), array)


@pytest.mark.parametrize(
    "given, flags, expected, told", [(0.25, [], 0.25, "file"), (0.25, ["--sigma-data", "0.4"], 0.4, "argument")]
)
def test_sigma_data_is_read_from_the_file(reference, tmp_path, given, flags, expected, told, capsys):
    source, target = tmp_path / "a.pkl", tmp_path / "w.safetensors"
    source.write_bytes(tw.network_pickle(reference[0], sigma_data=tw.scalar(given, "f4")))
    main([str(source), str(target), *FRAME, *flags, "--json"])
    about = json.loads(capsys.readouterr().out)
    assert about["network"]["sigma_data"] == load_weights(target).network.sigma_data == expected
    assert about["provenance"]["sigma_data_from"] == told and about["sha256"] == file_hash(target)


def test_dry_run_writes_nothing(reference, tmp_path, capsys):
    source, target = tmp_path / "a.pkl", tmp_path / "w.safetensors"
    source.write_bytes(tw.network_pickle(reference[0]))
    main([str(source), str(target), *FRAME, "--dry-run", "--json"])
    about = json.loads(capsys.readouterr().out)
    assert not about["written"] and about["parameters"] > 10_000 and list(tmp_path.iterdir()) == [source]


def test_other_types_and_strides():
    rng = np.random.default_rng(0)
    half, wide = rng.random(6).astype(np.float16), rng.random(12)
    body = tw.ordered({
        "half": tw.tensor(tw.persistent(half, "0"), (2, 3)),
        "wide": tw.tensor(tw.persistent(wide, "1"), (3, 2), offset=1, stride=(1, 4)),
        "none": tw.tensor(tw.persistent(wide, "1"), (0, 2)),
    })  # fmt: skip
    found = _read(tw.archive(body, {"0": half, "1": wide})).arrays
    np.testing.assert_array_equal(found["half"], half.reshape(2, 3))
    np.testing.assert_array_equal(found["wide"], wide[1:].reshape(-1)[np.arange(3)[:, None] + np.arange(2) * 4])
    assert found["none"].shape == (0, 2)


def _read(data, **options):
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        file.write(data)
        file.flush()
        return read_torch(file.name, **options)


CANARY = "touch CANARY"
OS, EVAL = tw.name("os", "system"), tw.name("builtins", "eval")
ORDERED = tw.name("collections", "OrderedDict")
LOOP = b"}" + b"q\x00" + tw.text("_modules") + b"h\x00s"  # a dict that contains itself
ONE, MANY = np.ones(4, np.float32), np.ones(9999, np.float32)


def _deep(levels):
    return b"]" * levels + b"a" * (levels - 1)


def _module_loop():
    """A module whose child is itself."""
    start = tw.name("torch.nn.modules.container", "ModuleDict") + b")\x81q\x01"
    return tw.mapping({"ema": start + tw.mapping({"_modules": tw.mapping({"a": b"h\x01"})}) + b"b"})


def _doubling():
    """Tuples of pairs, 2^60 leaves from 60 opcodes."""
    return tw.integer(0) + b"".join(b"q\x01h\x01\x86" for _ in range(60))


def _claimed(count):
    """A storage that says it has `count` elements."""
    inner = tw.stream(tw.persistent(ONE, "0"), {"0": ONE})
    return inner[: -ONE.nbytes - 8] + struct.pack("<q", count) + ONE.tobytes()


def _storage(data):
    return tw.tensor(tw.call(tw.name("torch.storage", "_load_from_bytes"), tw.binary(data)), (4,))


PICKLES = {
    "os.system": (tw.call(OS, tw.text(CANARY)), "'os.system'"),
    "posix.system": (tw.call(tw.name("posix", "system"), tw.text(CANARY)), "'posix.system'"),
    "builtins.eval": (tw.call(EVAL, tw.text("__import__('os').system('touch CANARY')")), "builtins.eval"),
    "builtins.eval, protocol 4": (tw.call(tw.name("builtins", "eval", 4), tw.text("1")), "'builtins.eval'"),
    "getattr": (tw.call(tw.name("builtins", "getattr"), tw.text("a"), tw.text("b")), "'builtins.getattr'"),
    "a name with dots": (tw.call(tw.name("torch", "Size.__init__", 4), tw.text("a")), "Size.__init__"),
    "the module's own source": (tw.name("torch_utils.persistence", "_src_to_module"), "_src_to_module"),
    "nested reduce": (tw.call(tw.call(ORDERED), tw.text(CANARY)), "calls 'dict'"),
    "reduce in an argument": (tw.call(tw.name("torch", "Size"), tw.call(OS, tw.text(CANARY))), "'os.system'"),
    "a class called": (tw.call(tw.name("torch", "FloatStorage"), tw.integer(3)), "calls 'torch.FloatStorage'"),
    "a text called": (tw.call(tw.text("os.system"), tw.text(CANARY)), "calls 'str'"),
    "in the state of a module": (tw.persistent_object("N", {"a": tw.call(OS, tw.text(CANARY))}), "'os.system'"),
    "inside of a storage": (_storage(tw.stream(tw.call(OS, tw.text(CANARY)), {})), "'os.system'"),
    "a call inside of a storage": (_storage(tw.stream(tw.call(ORDERED), {})), "OrderedDict"),
    "an object of the old kind": (b"(ios\nsystem\n" , "opcode INST"),
    "an object of the other old kind": (b"(cos\nsystem\no", "'os.system'"),
    "build on a name": (tw.name("torch", "FloatStorage") + b"}b", "BUILD on Global"),
    "an extension code": (b"\x82\x01", "opcode EXT1"),
    "persistent id": (tw.text("key") + b"Q", "persistent id"),
    "huge text": (b"\x8d" + struct.pack("<Q", 2**62) + b"abc", "expected"),
    "huge bytes": (b"\x8e" + struct.pack("<Q", 2**40) + b"abc", "expected"),
    "huge integer": (b"\x8b" + struct.pack("<i", 4000) + b"\x7f" * 4000, "more than 128 bits"),
    "huge tensor": (tw.tensor(_storage(_claimed(4))[:0] + tw.load_from_bytes(ONE), (2**30, 2**30)), "reaches beyond"),
    "stretched tensor": (tw.tensor(tw.load_from_bytes(ONE), (2**30,), stride=(0,)), "reaches beyond"),
    "tensor before its storage": (tw.tensor(tw.load_from_bytes(ONE), (2,), offset=-3), "reaches beyond"),
    "negative size": (tw.tensor(tw.load_from_bytes(ONE), (-2,), stride=(1,)), "size of a tensor is damaged"),
    "huge storage": (_storage(_claimed(2**61)), "not there"),
    "storage of a negative size": (_storage(_claimed(-5)), "not there"),
    "storage of another size": (tw.mapping({"ema": tw.mapping({"a": _storage(_claimed(2))})}), "holds 2 elements"),
    "memo loop": (tw.mapping({"ema": LOOP}), "no tensors found"),
    "module loop": (_module_loop(), "nested without end"),
    "memo from nowhere": (b"h\x07", "object 7, which it has not stored"),
    "memo far away": (b"]r\xff\xff\xff\xff", "not a dict of names"),
    "exponential tuple": (tw.mapping({"ema": _doubling()}), "not a dict of names"),
    "exponential tuple as a key": (b"}" + _doubling() + b"Ns", "a key is of type tuple"),
    "deep nesting": (_deep(200_000), "not a dict of names"),
    "stack underflow": (b"\x85", "more from its stack"),
    "no mark": (b"]e", "no mark"),
    "an unknown opcode": (b"\xff", "opcode"),
    "object array": (tw.call(tw.name("numpy", "dtype"), tw.text("O"), b"\x89", b"\x88"), "not a plain number type"),
    "another preconditioning": (tw.mapping({"ema": tw.persistent_object("VPPrecond", {})}), "VPPrecond"),
    "two networks, none known": (tw.mapping({"a": b"}", "b": b"}"}), "it holds a, b: name one with --key"),
    "a plain list": (b"](K\x01K\x02e", "not a dict of names"),
}  # fmt: skip


@pytest.fixture
def safe(tmp_path, monkeypatch):
    """A folder to be in; the command of the hostile files would make a file in it."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "CANARY").exists()
    assert not (tmp_path / "out.safetensors").exists()


def _refused(path, capsys):
    line = refused(main, [path, "out.safetensors", *FRAME], capsys)
    assert str(path) in line and len(line) < 400, line
    return line


@pytest.mark.parametrize("case", PICKLES)
def test_hostile_pickles_run_nothing(safe, capsys, case):
    body, message = PICKLES[case]
    path = safe / "bad.pkl"
    path.write_bytes(tw.pickled(body))
    assert message in _refused(path, capsys)


def _zip_cases():
    body, arrays = tw.state_dict({"a": ONE})
    good = tw.archive(body, arrays)
    return {
        "bomb": (tw.bomb(50_000_000), "compressed"),
        "entries larger than the file": (tw.claim(good, "state/data/0", 2**31), "larger than the file"),
        "truncated": (good[:-40], "zip"),
        "no object": (good.replace(b"data.pkl", b"data.pck"), "0 entries data.pkl"),
        "big-endian": (tw.archive(body, arrays, byteorder=b"big"), "little-endian"),
        "a storage is missing": (tw.archive(body, {}), "storage '0' is missing"),
        "a short storage": (tw.archive(body, {"0": ONE[:2]}), "holds 2 elements, but says 4"),
        "hostile": (tw.archive(tw.call(OS, tw.text(CANARY)), {}), "'os.system'"),
        "stream cut off": (tw.stream(body, arrays)[:-3], "not there"),
        "stream of a big-endian machine": (tw.stream(body, arrays, little=False), "little-endian"),
        "hostile stream": (tw.stream(tw.call(OS, tw.text(CANARY)), {}), "'os.system'"),
        "many tensors of one storage": (
            tw.archive(tw.ordered({str(i): tw.tensor(tw.persistent(MANY, "0"), (1,)) for i in range(99)}), {"0": MANY}),
            "more than the file holds"),
        "empty": (b"", "empty"),
        "text": (b"hello", "neither a pickle"),
    }  # fmt: skip


@pytest.mark.parametrize("case", _zip_cases())
def test_hostile_archives_run_nothing(safe, capsys, case):
    data, message = _zip_cases()[case]
    (safe / "bad.pt").write_bytes(data)
    assert message in _refused(safe / "bad.pt", capsys)


def test_every_truncation_of_a_network_is_refused(reference, safe):
    data = tw.network_pickle({k: v for k, v in list(reference[0].items())[:6]})
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(ValueError, match="bad"):
            (safe / "bad.pkl").write_bytes(data[:length])
            read_torch(safe / "bad.pkl")


def test_the_budget_ends_long_pickles():
    endless = tw.mapping({"ema": b"](" + b"N" * 5000 + b"e"})
    with pytest.raises(ValueError, match="too many opcodes"):
        _read(tw.pickled(endless), budget=Budget(opcodes=1000))
    with pytest.raises(ValueError, match="not read within 0 s"):
        _read(tw.pickled(endless), budget=Budget(seconds=0))


def test_what_the_file_cannot_tell_is_asked_for(reference, tmp_path, capsys):
    source = tmp_path / "a.pkl"
    source.write_bytes(tw.network_pickle(reference[0]))
    target = tmp_path / "w.safetensors"
    assert "add them, for the paper's CT prior --image-shape 256 256" in refused(
        main, [source, tmp_path / "w.safetensors"], capsys
    )
    assert "a patch of 31 pixels" in refused(main, [source, target, *FRAME, "--patch", "31"], capsys)
    assert "give the target that suffix" in refused(main, [source, tmp_path / "w.npz", *FRAME], capsys)
    assert "no network under 'net'" in refused(main, [source, target, *FRAME, "--key", "net"], capsys)
    assert "no such file" in refused(main, [tmp_path / "none.pkl", target, *FRAME], capsys)
    target.write_text("mine")
    assert "already exists" in refused(main, [source, target, *FRAME], capsys)
    assert target.read_text() == "mine"


def test_a_checkpoint_becomes_weights(tmp_path, capsys):
    frame, window = frame_for((16, 16), 8), HOUNSFIELD
    about = {"config": CONFIG, "frame": frame, "window": window}
    state = random_state(step=20)
    with checkpoint.open_checkpoints(tmp_path / "run") as manager:
        checkpoint.save(manager, state, {name: dataclasses.asdict(item) for name, item in about.items()})
    main([str(tmp_path / "run"), str(tmp_path / "w.safetensors"), "--quiet"])
    weights = load_weights(tmp_path / "w.safetensors")
    assert (weights.network, weights.frame, weights.window) == (CONFIG.network, frame, window)
    assert weights.provenance["steps"] == 20 and weights.provenance["data"] == "images.npy"
    np.testing.assert_array_equal(weights.params["enc0_conv"]["kernel"], state.ema["enc0_conv"]["kernel"])
    assert capsys.readouterr().out == ""
    line = refused(main, [tmp_path / "run", tmp_path / "v.safetensors", *FRAME], capsys)
    assert "frame, window and network are those of the checkpoint; leave --image-shape out" in line
    for option in (["--high", "1000"], ["--unit", "HU"], ["--sigma-data", "0"]):
        line = refused(main, [tmp_path / "run", tmp_path / "v.safetensors", *option], capsys)
        assert f"leave {option[0]} out" in line


def test_weights_become_a_checkpoint_and_come_back(tmp_path, capsys):
    source = write_weights(tmp_path / "w.safetensors", window=HOUNSFIELD)
    main([str(source), str(tmp_path / "run")])
    assert "step: 0" in capsys.readouterr().out
    main([str(tmp_path / "run"), str(tmp_path / "again.safetensors")])
    first, again = load_weights(source), load_weights(tmp_path / "again.safetensors")
    assert (first.network, first.frame, first.window) == (again.network, again.frame, again.window)
    np.testing.assert_array_equal(first.params["enc0_conv"]["kernel"], again.params["enc0_conv"]["kernel"])
    assert "already exists" in refused(main, [source, tmp_path / "run"], capsys)
    for option in (["--low", "-100"], ["--unit", "1/mm"], ["--dtype", "float16"], ["--data", "mine"]):
        assert f"leave {option[0]} out" in refused(main, [source, tmp_path / "new", *option], capsys)
    origin = again.provenance["start_weights"]
    assert origin["sha256"] == first.digest and origin["provenance"]["data"] == "noise"


@pytest.mark.parametrize("seen", [2, 3])
def test_checkpoints_of_slabs_become_weights_and_come_back(tmp_path, capsys, seen):
    """With what the network's z refers to; a checkpoint that does not tell it is refused where the network sees z."""
    network = dataclasses.replace(CONFIG.network, image_channels=3, position_channels=seen)
    patches = dataclasses.replace(CONFIG.patches, depth=3)
    config, slab = dataclasses.replace(CONFIG, network=network, patches=patches), Slab(3, 40)
    frame, window, state = frame_for((16, 16), 8), HOUNSFIELD, random_state(config, step=20)
    about = {
        "config": dataclasses.asdict(config),
        "window": dataclasses.asdict(window),
        "slab": dataclasses.asdict(slab),
    }
    about["frame"] = dataclasses.asdict(frame) | {"slab": 3, "skips": (1,)}
    for name in ("run", "older"):
        with checkpoint.open_checkpoints(tmp_path / name) as manager:
            checkpoint.save(manager, state, {k: v for k, v in about.items() if (k, name) != ("slab", "older")})
    main([str(tmp_path / "run"), str(tmp_path / "w.safetensors"), "--quiet"])
    weights = load_weights(tmp_path / "w.safetensors", volumes=True)
    assert (weights.network, weights.frame, weights.slab) == (network, frame, slab)
    main([str(tmp_path / "w.safetensors"), str(tmp_path / "more"), "--quiet"])
    with checkpoint.open_checkpoints(tmp_path / "more", reading=True) as manager:
        saved = checkpoint.saved_config(manager)
    assert saved["frame"] == json.loads(json.dumps(about["frame"])) and saved["config"]["patches"]["depth"] == 3
    argv = [str(tmp_path / "older"), str(tmp_path / "o.safetensors"), "--quiet"]
    if seen == 3:
        assert "resume with train.py, which writes the weights" in refused(main, argv, capsys)
    else:
        main(argv)
        assert load_weights(tmp_path / "o.safetensors", volumes=True).slab == Slab(3)


def test_a_zip_is_no_state_dict_for_lack_of_trying(tmp_path):
    """A .npz is a zip too; it has no data.pkl."""
    np.savez(tmp_path / "a.npz", a=ONE)
    with pytest.raises(ValueError, match="0 entries data.pkl"):
        read_torch(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.pt", "w"):
        pass
    with pytest.raises(ValueError, match="b.pt: "):
        read_torch(tmp_path / "b.pt")
