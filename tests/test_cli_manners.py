"""How the programs behave: plans, JSON, silence, exit codes, Ctrl-C, and a measured scan from file to results."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
from tiny import refused, write_weights

from padis_jax.cli import convert, sample, train
from padis_jax.operators.geometry_file import ScanGeometry, write_geometry

ROOT = Path(__file__).parent.parent
QUICK = (
    "--tv.weight 0.01 --tv.iterations 20 --solver.levels 3 --solver.sigma-max 0.5 --solver.average 1 "
    "--solver.cg-steps 3"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, an image, and a measured fan-beam scan of it whose rotation axis is off."""
    folder = tmp_path_factory.mktemp("data")
    write_weights(folder / "w.safetensors")
    y, x = np.mgrid[1:-1:16j, -1:1:16j]
    image = ((np.hypot(x, y) < 0.8) & (np.hypot(x - 0.3, y) > 0.2)).astype(np.float32) * 0.7
    np.save(folder / "image.npy", image)
    geometry = ScanGeometry("fan", tuple(np.arange(24) * 15.0), "degrees", 32, 1.0, 0.6, 60.0, 30.0)
    operator = geometry.operator((16, 16), 1.0)
    np.save(folder / "scan.npy", np.asarray(operator(image)) * 0.02)  # 0.02 per mm
    write_geometry(folder / "scan.json", geometry)
    write_geometry(folder / "wrong.json", dataclasses.replace(geometry, offset_mm=-2.0))
    (folder / "train.py").write_text(
        "from padis_jax.batches import PatchConfig\n"
        "from padis_jax.config import Config, DataConfig, RunConfig\n"
        "from padis_jax.unet import NetworkConfig\n"
        f"config = Config(data=DataConfig(path={str(folder / 'image.npy')!r}),\n"
        "    network=NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1),\n"
        "    patches=PatchConfig(sizes=(8,), probabilities=(1.0,), batch=(2,)),\n"
        "    run=RunConfig(steps=100000, log_every=5, checkpoint_every=100000))\n"
    )
    return folder


def _measured(folder, *more, geometry="scan.json"):
    scan = ["--measurement.path", folder / "scan.npy", "--measurement.geometry", folder / geometry]
    weights = [
        "--weights",
        folder / "w.safetensors",
        "--measurement.attenuation",
        "0.02",
        "--measurement.pixel-mm",
        "1",
    ]
    return [str(a) for a in (*weights, *scan, *QUICK, *more)]


def test_a_measured_scan_becomes_an_image(folder, tmp_path, capsys):
    sample.main(_measured(folder, "--workdir", str(tmp_path), "--json"))
    about = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "geometry.json",
        "metrics.json",
        "reconstruction.npz",
        "reconstruction.png",
    ]
    assert [row["method"] for row in about["rows"]] == ["FBP", "TV", "DDS"]
    assert about["pixel_mm"] == 1 and about["attenuation_per_mm"] == 0.02
    with np.load(tmp_path / "reconstruction.npz") as file:
        tv, truth = file["TV"][..., 0], np.load(folder / "image.npy")
    assert np.linalg.norm(tv - truth) < 0.2 * np.linalg.norm(truth)  # in the image's own values
    assert about["rows"][1]["residual"] < 0.05


def test_the_check_writes_the_corrected_geometry(folder, tmp_path, capsys):
    sample.main(_measured(folder, "--workdir", str(tmp_path), "--measurement.check", geometry="wrong.json"))
    text = capsys.readouterr().out
    assert "likely fault: shifted detector" in text and "offset_mm -2 -> 0." in text
    corrected = json.loads((tmp_path / "geometry_corrected.json").read_text())
    assert abs(corrected["offset_mm"] - 0.6) < 0.2
    sample.main(_measured(folder, "--workdir", str(tmp_path / "b"), "--measurement.check", "--json"))
    assert json.loads(capsys.readouterr().out)["faults"] == [] and not (tmp_path / "b").exists()


@pytest.mark.parametrize("solver", ["dds", "dps"])
def test_dry_run_of_sample(folder, tmp_path, capsys, solver):
    args = _measured(folder, "--workdir", tmp_path / "r", "--dry-run", "--solver.name", solver)
    sample.main([*args, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"] and plan["evaluations"] == 3 and plan["seconds"] > 0 and plan["solver"] == solver
    parameters = sum(np.prod(s) for s in _shapes(folder / "w.safetensors"))
    assert plan["parameters"] == parameters and plan["bytes"] > 4 * parameters
    sample.main(args)
    assert "3 evaluations; about" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


def _shapes(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118


def test_dry_run_of_train(folder, tmp_path, capsys):
    args = ["--config", str(folder / "train.py"), "--workdir", str(tmp_path / "run"), "--dry-run", "--json"]
    train.main(args)
    plan = json.loads(capsys.readouterr().out)
    assert plan["evaluations"] == 100000 and plan["training_images"] == 1 and plan["from_step"] == 0
    assert plan["bytes"] > 16 * plan["parameters"]  # parameters, average and two moments
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("program", [sample, train, convert])
def test_every_program_has_the_same_manners(program, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("--dry-run", "--json", "--quiet", "--verbose", "Exit codes", "130"):
        assert word in text
    assert "contradict" in refused(program.main, ["--quiet", "--verbose"], capsys)


def test_quiet_says_nothing(folder, tmp_path, capsys):
    sample.main(_measured(folder, "--workdir", str(tmp_path), "--quiet"))
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "" and (tmp_path / "reconstruction.npz").exists()


def _interrupted(script, args, ready, limit=240):
    """Starts a program, sends SIGINT when `ready()` holds, returns (exit code, stderr)."""
    started = subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, args)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        # What a shell starts in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + limit
    while not ready() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert started.poll() is None, started.stderr.read()
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=limit)
    return started.returncode, errors


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(folder, tmp_path):
    workdir = tmp_path / "run"

    def ready():
        return (workdir / "log.jsonl").exists() and (workdir / "log.jsonl").read_text().count("\n") > 1

    args = ["--config", folder / "train.py", "--workdir", workdir, "--quiet"]
    code, errors = _interrupted("train.py", args, ready)
    assert code == 130 and "run the same command again" in errors and "Traceback" not in errors, errors
    step = int(errors.split("after step ")[1].split(",")[0])
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == [str(step)]
    train.main([*map(str, args), "--run.steps", str(step + 1)])  # goes on
    assert (workdir / "weights.safetensors").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_the_finished_images(folder, tmp_path):
    workdir = tmp_path / "results"
    args = ["--weights", folder / "w.safetensors", "--image.path", folder / "image.npy", "--image.index", "0",
            "--workdir", workdir, "--scan.protocol", "paper", "--scan.views", "6", "--scan.bins", "24",
            *QUICK, "--solver.levels", "500000"]  # fmt: skip
    start = time.monotonic()
    # Nothing in the folder tells that the solver has begun; the bar on stderr would, but is only read at the end.
    code, errors = _interrupted("sample.py", args, lambda: time.monotonic() - start > 60)
    assert code == 130 and "Traceback" not in errors, errors
    line = errors.splitlines()[-1]
    assert "interrupted after" in line and "Run the same command again" in line
    with np.load(workdir / "reconstruction.npz") as file:
        assert {"truth", "FBP", "TV"} <= set(file.files) and "DDS" not in file.files
