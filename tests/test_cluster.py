"""Several processes as one program: two of them on this machine train like one, and mistakes in the flags are named."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_batch_job import QUICK
from test_cli_train import CONFIG
from tiny import write_weights

from padis_jax import checkpoint
from padis_jax.cli import sample, train
from padis_jax.config import Config
from padis_jax.devices import cluster
from padis_jax.errors import UserError
from padis_jax.serialization import from_json
from padis_jax.training import state_shapes
from padis_jax.weights import load_weights

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cluster.coordinator", "localhost:1"], "give all three"),
        (["--cluster.coordinator", "localhost", "--cluster.processes", "2", "--cluster.process", "0"], "HOST:PORT"),
        (["--cluster.coordinator", "h:1", "--cluster.processes", "2", "--cluster.process", "2"], "between 0 and"),
        (["--cluster.auto", "--cluster.process", "1"], "leave the others out"),
        (["--cluster.processes", "two"], "invalid int value"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        cluster.join(flags)


def test_without_flags_nothing_happens():
    assert cluster.join(["--config", "a.py", "--run.steps", "3"]) == ["--config", "a.py", "--run.steps", "3"]
    assert jax.process_count() == 1


def _port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class _Machine:
    """Starts scripts as processes with virtual devices, in a folder with images and their config."""

    def __init__(self, base):
        np.save(base / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
        (base / "tiny.py").write_text(CONFIG.format(path=str(base / "images.npy")))
        self.base = base

    def train(self, name, *more):
        return ["train.py", "--config", self.base / "tiny.py", "--workdir", self.base / name, *more]

    def start(self, devices, script, *more):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(self.base / f"compiled_{devices}"),
        }
        return subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, more)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pair(self, *command):
        """Two processes with two devices each that know each other."""
        shared = ["--cluster.coordinator", f"127.0.0.1:{_port()}", "--cluster.processes", "2"]
        return [self.start(2, *command, *shared, "--cluster.process", number) for number in range(2)]


def _finish(*processes, code=0):
    """What they print on stderr."""
    printed = [process.communicate(timeout=300)[1] for process in processes]
    for process, errors in zip(processes, printed, strict=True):
        assert process.returncode == code, errors[-3000:]
    return printed


@pytest.fixture
def machine(tmp_path):
    return _Machine(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--run.shard-parameters"]])
def test_two_processes_train_like_one(machine, tmp_path, flags):
    """2 processes x 2 devices on loopback, stopped after two steps and resumed; the weights agree to rounding."""
    _finish(*machine.pair(*machine.train("two", *flags, "--run.steps", 2, "--run.checkpoint-every", 1)))
    with checkpoint.open_checkpoints(tmp_path / "two") as manager:
        assert manager.latest_step() == 2
    more = ("--run.steps", 4, "--run.checkpoint-every", 2)
    first, second = _finish(*machine.pair(*machine.train("two", *flags, *more)))
    assert "weights.safetensors written" in first and "written" not in second
    # the learning rate's decay ends at run.steps, so one process is stopped and resumed in the same way
    for steps in (2, 4):
        _finish(machine.start(1, *machine.train("same", *flags, "--run.steps", steps)))
    one, two = (load_weights(tmp_path / name / "weights.safetensors").params for name in ("same", "two"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with checkpoint.open_checkpoints(tmp_path / "two") as manager:  # four devices' checkpoint, read by one
        config = checkpoint.saved_config(manager)["config"]
        assert config["run"]["steps"] == 4
        settings = from_json(Config, config)
        state = checkpoint.restore(manager, state_shapes(settings.network, settings.optimiser))
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_sigterm_to_one_of_two_processes_stops_both_after_the_same_step(machine, tmp_path):
    """It reaches the other through JAX's service; the next start resumes from what they save together."""
    long = ("--run.steps", 100000, "--run.checkpoint-every", 100000, "--run.log-every", 1)
    processes = machine.pair(*machine.train("stopped", *long))
    log = tmp_path / "stopped" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3) and processes[0].poll() is None:
        time.sleep(0.05)
    begin = time.monotonic()
    processes[1].send_signal(signal.SIGTERM)
    first, second = _finish(*processes, code=128 + signal.SIGTERM)
    assert time.monotonic() - begin < 60
    stopped = re.search(r"stopped by SIGTERM after step (\d+), which is saved", first)
    assert stopped and "stopped by" not in second
    with checkpoint.open_checkpoints(tmp_path / "stopped") as manager:
        assert manager.latest_step() == int(stopped.group(1)) >= 3
    steps = int(stopped.group(1)) + 2
    first, _ = _finish(*machine.pair(*machine.train("stopped", "--run.steps", steps)))
    assert "weights.safetensors written" in first
    assert load_weights(tmp_path / "stopped" / "weights.safetensors").provenance["steps"] == steps


@pytest.mark.slow
def test_two_processes_reconstruct_like_one(machine, tmp_path):
    """sample.py on a folder of five measurements: 2 processes x 2 devices, and one process with one device."""
    write_weights(tmp_path / "w.safetensors")
    (tmp_path / "scans").mkdir()
    for number in range(5):
        sinogram = np.random.default_rng(number).random((5, 24), np.float32)
        np.savez(tmp_path / "scans" / f"{number}.npz", sinogram=sinogram, noise_sigma=0.1)
    command = ["sample.py", "--weights", tmp_path / "w.safetensors", "--measurements", tmp_path / "scans", *QUICK]
    _finish(*machine.pair(*command, "--workdir", tmp_path / "two"))
    _finish(machine.start(1, *command, "--workdir", tmp_path / "one"))
    records = {
        name: [json.loads(line) for line in (tmp_path / "two" / name).read_text().splitlines()]
        for name in ("manifest_0000.jsonl", "manifest_0001.jsonl")
    }
    assert [[r["item"] for r in lines] for lines in records.values()] == [["0", "2", "4"], ["1", "3"]]
    for number in range(5):
        two, one = (np.load(tmp_path / name / f"{number}.npz")["image"] for name in ("two", "one"))
        np.testing.assert_allclose(two, one, atol=1e-4)
        assert np.ptp(one) > 0.01


def _flags(text):
    """All --flags in a text."""
    return set(re.findall(r"(?<![\w-])(--[a-z][\w.-]*)", text))


def test_every_flag_of_the_page_exists(capsys):
    """Those of train.py and sample.py in their help, --cluster.* in cluster.py, the others are other programs'."""
    others = {"--nodes", "--gpus-per-node", "--gpus-per-task", "--ntasks-per-node", "--cpus-per-task", "--job-name"}
    others |= {"--time", "--signal", "--requeue", "--open-mode", "--zone", "--worker", "--command"}  # sbatch, gcloud
    others |= {"--xla_force_host_platform_device_count", "--config", "--workdir"}
    known = _flags(cluster.__doc__)
    for main in (train.main, sample.main):
        with pytest.raises(SystemExit):
            main(["--help-all"])
        known |= _flags(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out))
    page = _flags((ROOT / "docs" / "cluster.md").read_text())
    assert {"--cluster.auto", "--run.devices", "--patch-batch", "--measurements"} <= page
    assert page - others <= known, page - others - known
