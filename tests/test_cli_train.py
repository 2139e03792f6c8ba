"""train.py: a tiny run from images to weights, its resumption, and one line for everything a user can get wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import refused

from padis_jax import checkpoint
from padis_jax.cli import convert
from padis_jax.cli.train import main
from padis_jax.config import Config, load_config_file
from padis_jax.lock import locked
from padis_jax.weights import load_weights

ROOT = Path(__file__).parent.parent
CONFIG = """
from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(path={path!r}, validation=(3,), provenance="discs"),
    network=NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1, sigma_data=0.3),
    patches=PatchConfig(sizes=(4,), probabilities=(1.0,), batch=(4,)),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=1),
    run=RunConfig(steps=4, log_every=2, checkpoint_every=2, validate_every=4),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """images.npy and the config that names it."""
    folder = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).random((6, 12, 14), np.float32)
    np.save(folder / "images.npy", images)
    (folder / "tiny.py").write_text(CONFIG.format(path=str(folder / "images.npy")))
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The folder of a finished run of four steps, then of two more by a flag."""
    workdir = tmp_path_factory.mktemp("runs") / "first"
    main(["--config", str(folder / "tiny.py"), "--workdir", str(workdir)])
    after_four = {path.name: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    main(["--workdir", str(workdir), "--run.steps", "6"])  # the config comes from the checkpoint
    return workdir, after_four


def _lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_leaves_what_sampling_needs(run, folder):
    workdir, after_four = run
    assert {"log.jsonl", "config.json", "weights.safetensors", "loss.png"} <= set(after_four)
    assert (workdir / "pictures" / "step_0000004.png").exists()
    saved = json.loads(after_four["config.json"])
    assert saved["config"]["run"]["steps"] == 4 and saved["frame"]["patch"] == 4
    weights = load_weights(workdir / "weights.safetensors")
    config = load_config_file(folder / "tiny.py", Config)
    assert weights.network == config.network and weights.frame.image_shape == (12, 14)
    assert weights.provenance["data"] == "discs" and weights.provenance["steps"] == 6
    assert weights.provenance["training_images"] == 5  # the validation image was left out


def test_the_log_is_one_line_per_interval(run):
    workdir, after_four = run
    first, lines = _lines(after_four["log.jsonl"].decode()), _lines((workdir / "log.jsonl").read_text())
    assert [line["step"] for line in first if "loss" in line] == [2, 4]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in lines if "validation_loss" in line] == [4, 6]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert lines[0]["patches_seen"] == 8.0 and lines[-2]["patches_seen"] == 24.0


def test_a_resumed_run_goes_on_from_the_newest_checkpoint(run):
    workdir, after_four = run
    with checkpoint.open_checkpoints(workdir) as manager:
        assert manager.latest_step() == 6
        assert checkpoint.saved_config(manager)["config"]["run"]["steps"] == 6
    assert (workdir / "weights.safetensors").read_bytes() != after_four["weights.safetensors"]


@pytest.mark.slow
def test_a_run_can_start_from_weights(run, folder, tmp_path):
    """A learning rate of next to nothing leaves the parameters where the weights had them; dropout may differ."""
    start = run[0] / "weights.safetensors"
    flags = {"run.start-weights": start, "optimiser.learning-rate": 1e-12, "run.steps": 1, "network.dropout": 0.3}
    words = [str(word) for flag, value in flags.items() for word in (f"--{flag}", value)]
    main(["--config", str(folder / "tiny.py"), "--workdir", str(tmp_path / "more"), *words])
    old, new = load_weights(start), load_weights(tmp_path / "more" / "weights.safetensors")
    for a, b in zip(jax.tree.leaves(old.params), jax.tree.leaves(new.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    origin = {"sha256": old.digest, "provenance": old.provenance}
    assert new.provenance["start_weights"] == origin and old.provenance["start_weights"] is None
    assert new.provenance["config"]["run"]["start_weights"] == "weights.safetensors"


@pytest.mark.slow
def test_a_resumed_run_knows_its_start_weights_though_their_file_is_gone(run, folder, tmp_path):
    start = str(shutil.copy(run[0] / "weights.safetensors", tmp_path / "start.safetensors"))
    workdir = str(tmp_path / "more")
    main(["--config", str(folder / "tiny.py"), "--workdir", workdir, "--run.start-weights", start, "--run.steps", "1"])
    Path(start).unlink()
    main(["--workdir", workdir, "--run.steps", "2"])
    provenance = load_weights(tmp_path / "more" / "weights.safetensors").provenance
    assert provenance["steps"] == 2
    assert provenance["start_weights"]["sha256"] == load_weights(run[0] / "weights.safetensors").digest


@pytest.mark.slow
def test_what_a_run_is_called_compiles_nothing(run, folder, tmp_path):
    """Path, provenance, seed and intervals are no part of a program: the second run finds all of its programs there."""
    compiled = []

    def listen(event, duration, **about):
        compiled.append(event)

    def start(name, *flags):
        rate = ["--optimiser.learning-rate", "2e-3"]  # of this test only
        main(["--config", str(folder / "tiny.py"), "--workdir", str(tmp_path / name), *rate, *flags])
        return sum("backend_compile" in event for event in compiled)

    other = str(shutil.copy(folder / "images.npy", tmp_path / "other.npy"))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first = start("one")
        assert first > 0
        flags = ("--data.path", other, "--data.provenance", "boxes", "--run.log-every", "1", "--run.seed", "9")
        assert start("two", *flags) == first
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("flag", "value", "name"), [("network.model-channels", "16", "network"), ("patches.sizes", "8", "frame")]
)
def test_start_weights_of_another_network_or_frame(run, folder, capsys, tmp_path, flag, value, name):
    words = ["--run.start-weights", run[0] / "weights.safetensors", f"--{flag}", value]
    for more in ([], ["--dry-run"]):
        args = ["--config", folder / "tiny.py", "--workdir", tmp_path / "other", *words, *more]
        message = refused(main, args, capsys)
        assert f"its {name} is" in message and "leave --run.start-weights out" in message


def test_a_dry_run_refuses_what_the_run_would(run, folder, tmp_path, capsys):
    """Devices, weights and checkpoints are looked at too; a damaged checkpoint stays where it is."""
    new = ["--config", folder / "tiny.py", "--workdir", tmp_path / "new", "--dry-run"]
    assert "there are" in refused(main, [*new, "--run.devices", "64"], capsys)
    assert "no such weights file" in refused(main, [*new, "--run.start-weights", tmp_path / "no.safetensors"], capsys)
    assert not (tmp_path / "new").exists()
    workdir = shutil.copytree(run[0], tmp_path / "copy")
    newest = checkpoint.folder(workdir) / "6"
    (newest / "state" / "_METADATA").write_text("")
    before = _contents(workdir)
    main(["--workdir", str(workdir), "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["from_step"] == 4
    for earlier in checkpoint.folder(workdir).iterdir():
        if earlier != newest:
            shutil.rmtree(earlier)
    assert "no checkpoint is intact" in refused(main, ["--workdir", workdir, "--dry-run"], capsys)
    assert {path: before[path] for path in _contents(workdir)} == _contents(workdir)


def test_a_finished_run_says_so_and_keeps_its_files(run, folder, capsys):
    """Contents, times and inodes; of the folder itself the lock changes the time."""

    def seen():
        files = {path: path.stat() for path in run[0].rglob("*") if path.is_file()}
        return {path: (path.read_bytes(), about.st_mtime_ns, about.st_ino) for path, about in files.items()}

    before = seen()
    assert len(before) > 10
    for flags in (["--workdir", run[0]], ["--config", folder / "tiny.py", "--workdir", run[0], "--run.steps", "6"]):
        main([str(flag) for flag in flags])
        said = capsys.readouterr().err
        assert "trained for 6 steps already; raise --run.steps to continue" in said
        assert f"the weights are {run[0] / 'weights.safetensors'}; reconstruct with" in said
        assert seen() == before


def test_a_finished_run_refuses_other_settings(run, capsys):
    before = _contents(run[0])
    flags = ["--optimiser.learning-rate", "0.5", "--run.weights-dtype", "float16", "--run.steps", "3"]
    for more in ([], ["--dry-run"]):
        line = refused(main, ["--workdir", run[0], *flags, *more], capsys)
        assert (
            f"{run[0]}: is trained to the end, and optimiser.learning_rate is 0.001, not 0.5, "
            "run.weights_dtype is float32, not float16; raise --run.steps"
        ) in line
    assert _contents(run[0]) == before


def test_a_finished_run_with_weights_of_fewer_steps_writes_them(run, tmp_path, capsys):
    """It was killed between its last checkpoint and its weights."""
    workdir = shutil.copytree(run[0], tmp_path / "run")
    (workdir / "weights.safetensors").write_bytes(run[1]["weights.safetensors"])
    main(["--workdir", str(workdir), "--quiet"])
    assert (workdir / "weights.safetensors").read_bytes() == (run[0] / "weights.safetensors").read_bytes()


def test_a_finished_run_without_its_log_writes_its_weights(run, capsys, tmp_path):
    """As of checkpoints that were copied elsewhere to make weights of them."""
    shutil.copytree(run[0] / "checkpoints", tmp_path / "checkpoints")
    main(["--workdir", str(tmp_path)])
    assert "loss.png could not be drawn" in capsys.readouterr().err
    arrays = [
        load_weights(folder / "weights.safetensors").params["enc0_conv"]["kernel"] for folder in (run[0], tmp_path)
    ]
    np.testing.assert_array_equal(*arrays)


def test_what_a_changed_config_file_says_is_named(run, folder, capsys, tmp_path):
    """Its checkpoint's settings are used; the same file and flags as at first say nothing."""
    workdir = shutil.copytree(run[0], tmp_path / "run")
    edited = tmp_path / "edited.py"
    edited.write_text((folder / "tiny.py").read_text().replace("steps=4", "steps=9").replace("1e-3", "5e-4"))
    main(["--config", str(edited), "--workdir", str(workdir)])
    said = capsys.readouterr().err
    assert "optimiser.learning_rate is 0.001, not 0.0005, run.steps is 6, not 9; give as flags" in said
    assert "trained for 6 steps already" in said
    main(["--config", str(folder / "tiny.py"), "--workdir", str(workdir), "--run.steps", "6"])
    assert "note:" not in capsys.readouterr().err


def test_start_weights_of_a_run_that_has_begun(run, capsys):
    flags = ["--run.start-weights", "other.safetensors", "--run.steps", "8"]
    assert f"--run.start-weights: {run[0]} has checkpoints, which" in refused(
        main, ["--workdir", run[0], *flags], capsys
    )


def test_another_architecture_in_the_work_folder(run, folder, capsys, tmp_path):
    before = _contents(run[0])
    message = refused(main, ["--workdir", run[0], "--network.model-channels", "12"], capsys)
    assert "of another architecture" in message and str(run[0]) in message
    other = tmp_path / "other.py"
    other.write_text((folder / "tiny.py").read_text().replace("model_channels=8", "model_channels=16"))
    message = refused(main, ["--config", other, "--workdir", run[0]], capsys)
    assert "holds checkpoints of another network" in message and "choose another --workdir" in message
    assert _contents(run[0]) == before


@pytest.mark.slow
def test_nan_stops_the_run_and_keeps_the_checkpoints(run, folder, capsys, tmp_path):
    """A learning rate without measure: the loss overflows, the run stops, the newest checkpoint is from before."""
    workdir = shutil.copytree(run[0], tmp_path / "diverging")
    weights = (workdir / "weights.safetensors").read_bytes()
    with pytest.raises(SystemExit) as stop:
        flags = ["--run.steps", "40", "--run.log-every", "1", "--optimiser.learning-rate", "1e15"]
        main(["--workdir", str(workdir), *flags, "--run.checkpoint-every", "100"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert last.startswith("error: the loss or its gradient stopped being finite") and "newest checkpoint" in last
    with checkpoint.open_checkpoints(workdir) as manager:
        assert manager.latest_step() == 6
    assert (workdir / "weights.safetensors").read_bytes() == weights


def test_help_shows_the_sections(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help-all"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for flag in ("--data.path", "--network.channel-mult", "--patches.sizes", "--noise.log-mean", "--run.steps"):
        assert flag in text
    assert "--workdir" in text and "peak" in text  # the docstrings are the help


def _pictures(folder, *sizes):
    folder.mkdir(exist_ok=True)
    for index, (height, width) in enumerate(sizes):
        Image.fromarray(np.full((height, width), 100, np.uint8)).save(folder / f"{index}.png")
    return folder


def _truncated(folder):
    path = _pictures(folder, (12, 14), (12, 14)) / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    return folder


def _with_nan(folder):
    images = np.full((6, 12, 14), 0.5, np.float32)
    images[2, 3, 4] = np.nan
    np.save(folder.with_suffix(".npy"), images)
    return folder.with_suffix(".npy")


def _one_row(folder):
    np.save(folder.with_suffix(".npy"), np.full((6, 1, 14), 0.5, np.float32))
    return folder.with_suffix(".npy")


def _colour(folder):
    np.save(folder.with_suffix(".npy"), np.full((6, 12, 14, 3), 0.5, np.float32))
    return folder.with_suffix(".npy")


DATA = {
    "mixed sizes": (lambda f: _pictures(f, (12, 14), (12, 15)), "give all the same size"),
    "empty folder": (lambda f: _pictures(f), "no images in this folder"),
    "no folder": (lambda f: f, "no such file or folder"),
    "truncated picture": (_truncated, "1.png: not a readable picture; it is damaged or truncated"),
    "NaN": (_with_nan, "images 2 is nan at index (3, 4)"),
    "colour": (_colour, "images have 3 channels, but network.image_channels is 1; set it to 3"),
}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--patches.sizes 0", "images of (1, 14) pixels: whole ones (patches.sizes 0) need 2 pixels a side"),
        ("--data.resize 16384 16384", "images of (16384, 16384) pixels: frame: (4097, 4097) tiles of 4 pixels pad an"),
    ],
)
def test_images_whose_size_no_frame_takes(folder, tmp_path, capsys, flags, expected):
    path = _one_row(tmp_path / "images")
    start = ["--config", folder / "tiny.py", "--workdir", tmp_path / "w", "--data.path", path]
    line = refused(main, [*start, *flags.split()], capsys)
    assert f"{path}: {expected}" in line and not list((tmp_path / "w").rglob("*.json*"))


@pytest.mark.parametrize("case", DATA)
def test_images_that_cannot_be_trained_on(folder, tmp_path, capsys, case):
    make, expected = DATA[case]
    data = make(tmp_path / "images")
    message = refused(main, ["--config", folder / "tiny.py", "--workdir", tmp_path / "w", "--data.path", data], capsys)
    assert expected in message and str(data) in message
    assert not list((tmp_path / "w").rglob("*.json*"))  # nothing is written but an empty folder


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--run.stepz", "3"], ["--run.stepz", "--run.steps"]),
        (["--run.steps", "three"], ["--run.steps", "'three'"]),
        (["--run.steps", "0"], ["run.steps is 0"]),
        (["--network.dropout", "2"], ["network.dropout is 2.0"]),
        (["--network.channel-mult", "1", "1", "1", "1"], ["a patch of 4 pixels does not suit 4 levels"]),
        (["--patches.sizes", "4", "8"], ["one entry per patch size"]),
        (["--optimiser.learning-rate", "nan"], ["optimiser.learning_rate is nan"]),
        (["--config"], ["--config", "expected one argument"]),
        (["--data.low", "0.5"], ["data.low and data.high belong together"]),
    ],
)
def test_mistyped_settings_touch_nothing(folder, tmp_path, capsys, flags, expected):
    start = ["--workdir", tmp_path / "w"] if "--config" in flags else ["--config", folder / "tiny.py"]
    message = refused(main, [*start, "--workdir", tmp_path / "w", *flags], capsys)
    assert all(part in message for part in expected), message
    assert not (tmp_path / "w").exists()


def test_what_is_held_out_must_exist(folder, tmp_path, capsys):
    start = ["--config", folder / "tiny.py", "--workdir", tmp_path / "w"]
    assert "there is no validation slice 6, the set has 6" in refused(main, [*start, "--data.validation", "6"], capsys)
    assert "none of 6 slices is left" in refused(main, [*start, "--data.validation-gap", "9"], capsys)
    assert "no.npy: no such file" in refused(main, [*start, "--data.path", "no.npy"], capsys)
    (tmp_path / "none.py").write_text("from padis_jax.config import Config\nconfig = Config()\n")
    assert "data.path is empty" in refused(main, ["--config", tmp_path / "none.py", *start[2:]], capsys)


def test_where_to_work_must_be_said(folder, tmp_path, capsys):
    assert "--workdir DIR" in refused(main, ["--config", folder / "tiny.py"], capsys)
    assert "no checkpoint to resume from" in refused(main, ["--workdir", tmp_path / "w"], capsys)
    assert "no such Python file" in refused(main, ["--config", tmp_path / "no.py", "--workdir", tmp_path / "w"], capsys)
    assert not (tmp_path / "w").exists()
    checkpoint.folder(tmp_path / "w").mkdir(parents=True)  # a run that was stopped before its first checkpoint
    assert "no checkpoint to resume from" in refused(main, ["--workdir", tmp_path / "w"], capsys)


def test_the_program_itself(tmp_path, folder):
    """A process of its own, far enough to open the checkpoints: one line, and no chatter of the libraries."""
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(folder / "tiny.py"), "--workdir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--data.path", "nothing.npy"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: nothing.npy: no such file or folder; check the path\n"


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _resumed(run, tmp_path, images, *flags):
    """Arguments that resume a copy of the run on other images; no step is left to do."""
    workdir = shutil.copytree(run[0], tmp_path / "resumed")
    np.save(tmp_path / "other.npy", images)
    return ["--workdir", str(workdir), "--data.path", str(tmp_path / "other.npy"), *flags]


@pytest.mark.parametrize(
    ("shape", "flags", "message"),
    [
        ((6, 24, 14), [], "checkpoints are of another frame (image_shape, tiles: [12, 14]"),
        ((6, 14, 12), [], "another frame"),
        ((6, 12, 14), ["--patches.sizes", "8"], "another frame (patch"),
        (
            (6, 12, 14),
            ["--data.low", "0", "--data.high", "2"],
            "another window (high: 1.0) than these images give (2.0)",
        ),
        ((6, 12, 14), ["--data.low", "0", "--data.high", "1", "--data.unit", "HU"], "another window (unit"),
        ((6, 12, 14, 3), [], "images have 3 channels"),
        ((6, 12, 14, 3), ["--network.image-channels", "3"], "another architecture"),
    ],
)
def test_a_run_is_not_resumed_on_another_frame_window_or_colour(run, tmp_path, capsys, shape, flags, message):
    args = _resumed(run, tmp_path, np.zeros(shape, np.float32), *flags)
    before = {p: p.read_bytes() for p in (tmp_path / "resumed").rglob("*") if p.is_file()}
    for more in ([], ["--dry-run"]):
        assert message in refused(main, [*args, *more], capsys)
    assert before == {p: p.read_bytes() for p in (tmp_path / "resumed").rglob("*") if p.is_file()}


def test_other_training_images_are_said(run, folder, tmp_path, capsys):
    images = np.load(folder / "images.npy")
    for name, count, said in (
        ("same", 6, ""),
        ("values", 6, "the training images have other values than when its newest checkpoint was saved"),
        ("fewer", 5, "4 training images, not 5 as when its newest checkpoint was saved"),
    ):
        (tmp_path / name).mkdir()
        changed = images[:count].copy()
        changed[0] *= 0.999 if name == "values" else 1
        main(_resumed(run, tmp_path / name, changed))
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert len(notes) == bool(said) and all(said in note for note in notes)


def test_a_folder_of_a_run_at_work_is_not_touched(run, folder, tmp_path, capsys):
    """Neither by another training, nor by those that only look: the save under way stays."""
    workdir = shutil.copytree(run[0], tmp_path / "busy")
    under_way = workdir / "checkpoints" / "9.orbax-checkpoint-tmp"
    under_way.mkdir()
    with locked(workdir):
        message = refused(main, ["--workdir", workdir, "--run.steps", "9"], capsys)
        assert "in use by another run (process" in message and "choose another --workdir" in message
        main(["--workdir", str(workdir), "--dry-run"])
        convert.main([str(workdir), str(tmp_path / "preview.safetensors"), "--quiet"])
        assert under_way.exists()
    main(["--workdir", str(workdir)])
    assert not under_way.exists() and not (workdir / "lock.json").exists()


def test_all_that_a_run_writes_is_listed(run):
    listed = json.loads((run[0] / "results.json").read_text())["files"]
    assert {p.name + "/" * p.is_dir() for p in run[0].iterdir()} <= set(listed)
