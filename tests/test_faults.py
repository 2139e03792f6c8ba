"""Training that is stopped, politely or not, goes on where it was and ends with the same parameters."""

import os
import signal

import jax
import numpy as np
import pytest
from test_cli_train import CONFIG

from benchmarks.faults import campaign, equal_weights
from padis_jax import checkpoint
from padis_jax.cli import train
from padis_jax.log import Log
from padis_jax.weights import load_weights

STEPS = 6


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with images, their config, and the work folder `whole` of an uninterrupted run."""
    base = tmp_path_factory.mktemp("faults")
    np.save(base / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
    text = CONFIG.format(path=str(base / "images.npy"))
    (base / "tiny.py").write_text(
        text.replace("steps=4", f"steps={STEPS}").replace("validate_every=4", "validate_every=100")
    )
    train.main(_command(base, "whole"))
    return base


def _command(base, name):
    return ["--config", str(base / "tiny.py"), "--workdir", str(base / name)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_start_goes_on(base, capfd, monkeypatch, number):
    """The signal comes in the middle of a step that no checkpoint is due for."""
    name, original, calls = number.name, train.draw_batch, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(train, "draw_batch", interrupted)
        train.main(_command(base, name))
    assert stop.value.code == 128 + number and len(calls) == 3
    errors = capfd.readouterr().err
    assert f"stopped by {name} after step 3, which is saved; run the same command again" in errors
    assert "Traceback" not in errors and not (base / name / "weights.safetensors").exists()
    with checkpoint.open_checkpoints(base / name) as manager:
        assert manager.latest_step() == 3
    train.main(_command(base, name))
    assert equal_weights(base / "whole", base / name)


def test_a_resumed_run_compiles_the_step_once(base, monkeypatch):
    """The restored state lies where a step leaves it, so that the first step and the second share their program."""
    counted, original = [], train.step_function

    def counting(*args, **kwargs):
        step = original(*args, **kwargs)
        counted.append((step, step._cache_size()))
        return step

    before = checkpoint.folder(base / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(train, "step_function", counting)
        for steps in (3, 6):
            train.main([*_command(base, "twice"), "--run.steps", str(steps), "--optimiser.learning-rate", "3e-3"])
    assert before.exists()
    for step, _ in counted:
        assert step._cache_size() == 1


def test_images_that_vanish_under_way_do_no_harm_and_are_named_at_the_next_start(base, monkeypatch, capsys):
    images = base / "gone.npy"
    np.save(images, np.load(base / "images.npy"))
    original = train.load_task

    def load_then_lose(config):
        task = original(config)
        images.unlink()
        return task

    command = [*_command(base, "gone"), "--data.path", str(images)]
    with monkeypatch.context() as patch:
        patch.setattr(train, "load_task", load_then_lose)
        train.main([*command, "--run.steps", "2"])
    assert load_weights(base / "gone" / "weights.safetensors").provenance["steps"] == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train.main([*command, "--run.steps", "4"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {images}: no such file or folder; check the path\n"


def test_a_log_that_was_cut_off_keeps_its_complete_lines(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n{"step": 6, "lo')
    with Log(tmp_path, 2, False) as log:
        log.write(3, loss=0.7)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 2, "loss": 1.0}\n{"step": 3, "loss": 0.7}\n'


@pytest.mark.slow
def test_a_short_campaign_of_kills(tmp_path):
    counts = campaign(tmp_path, kills=4, steps=400)
    assert counts.kills == 4 and counts.resumed > 0 and counts.inside_saves > 0
    assert counts.failures == 0 and counts.equal
    assert jax.process_count() == 1
