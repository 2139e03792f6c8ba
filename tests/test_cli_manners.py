"""How the programs behave: plans, JSON, silence, exit codes, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
from small_scan import QUICK, arguments, write_scan
from tiny import refused

from padis_jax.cli import convert, sample, train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, an image, a measured scan, and the config of a short training run."""
    folder = write_scan(tmp_path_factory.mktemp("data"))
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


def _simulated(folder, *more):
    given = ["--weights", folder / "w.safetensors", "--image.path", folder / "image.npy", "--image.index", "0",
             "--scan.protocol", "paper", "--scan.views", "6", "--scan.bins", "24"]  # fmt: skip
    return [str(a) for a in (*given, *QUICK, *more)]


@pytest.mark.parametrize("solver", ["dds", pytest.param("dps", marks=pytest.mark.slow)])
def test_dry_run_of_sample(folder, tmp_path, capsys, solver):
    args = arguments(folder, "--workdir", tmp_path / "r", "--dry-run", "--solver", solver)
    if solver == "dps":  # which has no such steps
        at = args.index("--solver.cg-steps")
        del args[at : at + 2]
    sample.main([*args, "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"] and plan["evaluations"] == 3 and plan["seconds"] is None and plan["solver"] == solver
    parameters = sum(np.prod(s) for s in _shapes(folder / "w.safetensors"))
    assert plan["parameters"] == parameters and plan["bytes"] > 4 * parameters
    sample.main(args)
    text = capsys.readouterr().out
    assert "3 evaluations; about" in text and " MB of arrays" in text and " s and " not in text
    sample.main([*args, "--estimate", "--json"])
    timed = json.loads(capsys.readouterr().out)
    assert timed["seconds"] > 0 and abs(plan["bytes"] / timed["bytes"] - 1) < 0.25
    sample.main([*args, "--json", "--samples", "4"])
    assert json.loads(capsys.readouterr().out)["evaluations"] == 12
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
    assert plan["seconds"] is None
    train.main([*args, "--estimate"])
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("program", [sample, train, convert])
def test_every_program_has_the_same_manners(program, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("--dry-run", "--estimate", "--json", "--quiet", "--verbose", "Exit codes", "130"):
        assert word in text
    assert "contradict" in refused(program.main, ["--quiet", "--verbose"], capsys)
    assert "--dry-run" in refused(program.main, ["--estimate"], capsys)


@pytest.mark.parametrize("platform", ["cuda", "nothing"])
@pytest.mark.parametrize("program", ["sample.py", "-m padis_jax.benchmark --dry-run"])
def test_a_device_that_is_not_there_is_one_line(tmp_path, program, platform):
    if platform == "cuda" and shutil.which("nvidia-smi"):
        pytest.skip("it is there")
    words = [str(ROOT / word) if word.endswith(".py") else word for word in program.split()]
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: JAX_PLATFORMS={platform}: JAX finds no such device here")
    assert "Traceback" not in done.stderr


def test_quiet_says_nothing(folder, tmp_path, capsys):
    sample.main(arguments(folder, "--workdir", str(tmp_path), "--quiet"))
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "" and (tmp_path / "reconstruction.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--samples", "2"], ["--generate", "1", "--generate-levels", "2"]])
def test_several_images_are_as_quiet_and_speak_json(folder, tmp_path, capsys, flags):
    args = [*flags, "--workdir", str(tmp_path)]
    args = ["--weights", str(folder / "w.safetensors"), *args] if "--generate" in flags else _simulated(folder, *args)
    sample.main([*args, "--quiet"])
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""
    sample.main([*args, "--json"])
    about = json.loads(capsys.readouterr().out)
    assert about["workdir"] == str(tmp_path) and about["unit"] == "1"
    assert about.get("images") == 1 or [row["evaluations"] for row in about["rows"]] == [0, 0, 3, 6]


@pytest.mark.parametrize("flags", [[], ["--samples", "2"]])
def test_what_is_finished_when_ctrl_c_comes_is_written(folder, tmp_path, capsys, monkeypatch, flags):
    """The solver is where Ctrl-C arrives; the slow tests below send the signal itself."""

    def stopped(*args, progress=None, **kwargs):
        if progress is not None:
            progress(2, 3, type("Info", (), {"residual": 0.5}))
        raise KeyboardInterrupt

    monkeypatch.setattr("padis_jax.runs.solve.run_solver", stopped)
    monkeypatch.setattr("padis_jax.runs.solve.run_samples", stopped)
    for number, args in enumerate((_simulated(folder, *flags), arguments(folder, *flags))):
        workdir = tmp_path / str(number)
        with pytest.raises(SystemExit) as stop:
            sample.main([*args, "--workdir", str(workdir), "--quiet"])
        assert stop.value.code == 130
        line = capsys.readouterr().err
        assert f"what is finished is in {workdir}. Rerun the same command" in line and line.count("\n") == 1
        assert flags or "after 2 of 3 steps" in line
        with np.load(workdir / "reconstruction.npz") as file:
            assert {"FBP", "TV"} <= set(file.files) and "PnP-ADMM" not in file.files
        assert (workdir / "report.html").exists()


@pytest.mark.parametrize("kind", ["simulated", "measured"])
def test_ctrl_c_before_the_first_image_is_one_line(folder, tmp_path, capsys, monkeypatch, kind):
    """There is nothing to draw yet, nor to lose."""

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("padis_jax.runs.solve.run_start", stopped)
    make = _simulated if kind == "simulated" else arguments
    with pytest.raises(SystemExit) as stop:
        sample.main([*make(folder, "--workdir", str(tmp_path / "out")), "--quiet"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "error: interrupted before the first image; nothing was written\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def _interrupted(script, args, log, ready, limit=240):
    """Starts a program, sends SIGINT when `ready(what it printed on stderr)` holds, returns (exit code, stderr)."""
    with open(log, "w") as errors:
        started = subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, args)],
            stderr=errors,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            # What a shell starts in the background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    end = time.monotonic() + limit
    while not ready(log.read_text()) and started.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert started.poll() is None, log.read_text()
    started.send_signal(signal.SIGINT)
    started.wait(timeout=limit)
    return started.returncode, log.read_text()


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(folder, tmp_path):
    workdir = tmp_path / "run"

    def ready(_):
        return (workdir / "log.jsonl").exists() and (workdir / "log.jsonl").read_text().count("\n") > 1

    args = ["--config", folder / "train.py", "--workdir", workdir, "--quiet"]
    code, errors = _interrupted("train.py", args, tmp_path / "errors", ready)
    assert code == 130 and "rerun the same command" in errors and "Traceback" not in errors, errors
    step = int(errors.split("after step ")[1].split(",")[0])
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == [str(step)]
    train.main([*map(str, args), "--run.steps", str(step + 1)])  # resumes
    assert (workdir / "weights.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["simulated", "measured"])
def test_ctrl_c_leaves_the_finished_images(folder, tmp_path, kind):
    workdir = tmp_path / "results"
    simulated = _simulated(folder, "--workdir", workdir, "--solver.levels", "50000")
    measured = arguments(folder, "--workdir", workdir, "--solver.levels", "50000")
    args = simulated if kind == "simulated" else measured
    code, errors = _interrupted("sample.py", args, tmp_path / "errors", lambda printed: "PnP-ADMM:" in printed)
    assert code == 130 and "Traceback" not in errors, errors
    line = errors.splitlines()[-1]
    assert "interrupted after" in line and "Rerun the same command" in line
    with np.load(workdir / "reconstruction.npz") as file:
        assert {"FBP", "TV"} <= set(file.files) and "PnP-ADMM" not in file.files


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("inspect $IMAGES >&-", 0),
        ("inspect $IMAGES.gone >&- 2>&-", 2),
        ("inspect $IMAGES.gone 2>&-", 2),
        ("inspect $IMAGES | true", 141),
        ("inspect $IMAGES > /dev/full", 2),
    ],
)
def test_streams_that_take_nothing(folder, command, code):
    """Closed, without a reader, full: no traceback, no error on stdout, and the exit code of the program."""
    if "full" in command and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    line = f"set -o pipefail; {sys.executable} -m padis_jax.cli.data {command}"
    env = {**os.environ, "IMAGES": str(folder / "image.npy")}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    assert done.returncode == code and done.stdout == "", done
    assert done.stderr == ("error: No space left on device\n" if "full" in command else "")
