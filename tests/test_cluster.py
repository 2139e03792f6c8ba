"""Several processes as one program: two of them on this machine train like one, and mistakes in the flags are named."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_cli_train import CONFIG

from padis_jax import checkpoint
from padis_jax.devices import cluster
from padis_jax.errors import UserError
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


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--run.shard-parameters"]])
def test_two_processes_train_like_one(tmp_path, flags):
    """2 processes x 2 devices on loopback, stopped after two steps and resumed; the weights agree to rounding."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
    text = CONFIG.format(path=str(tmp_path / "images.npy"))
    (tmp_path / "tiny.py").write_text(text)

    def start(name, devices, *more):
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(tmp_path / "tiny.py")]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"compiled_{devices}"),
        }
        return subprocess.Popen(
            [*command, "--workdir", str(tmp_path / name), *flags, *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(*processes):
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
            yield errors

    def pair(*more):
        port = _port()
        both = [
            start("two", 2, "--cluster.coordinator", f"127.0.0.1:{port}", "--cluster.processes", "2", *more, *mine)
            for mine in (["--cluster.process", "0"], ["--cluster.process", "1"])
        ]
        return list(finish(*both))

    pair("--run.steps", "2", "--run.checkpoint-every", "1")
    with checkpoint.open_checkpoints(tmp_path / "two") as manager:
        assert manager.latest_step() == 2
    first, second = pair("--run.steps", "4", "--run.checkpoint-every", "2")
    assert "weights.safetensors written" in first and "written" not in second
    # the learning rate's decay ends at run.steps, so one process is stopped and resumed in the same way
    list(finish(start("same", 1, "--run.steps", "2")))
    list(finish(start("same", 1, "--run.steps", "4")))
    one, two = (load_weights(tmp_path / name / "weights.safetensors").params for name in ("same", "two"))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with checkpoint.open_checkpoints(tmp_path / "two") as manager:  # four devices' checkpoint, read by one
        assert checkpoint.saved_config(manager)["config"]["run"]["steps"] == 4
