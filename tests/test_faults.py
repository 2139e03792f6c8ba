"""Training that is stopped, politely or not, resumes where it was and ends with the same parameters."""

import contextlib
import io
import os
import shutil
import signal

import numpy as np
import pytest
from fault_drills import FAULTS, drills
from test_cli_train import CONFIG

from padis_jax import checkpoint
from padis_jax.cli import train
from padis_jax.runs import training
from padis_jax.runs.training_log import Log
from padis_jax.weights import load_weights
from studies.faults.kills import campaign
from studies.faults.run import difference

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
    name, original, calls = number.name, training.draw_batch, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(training, "draw_batch", interrupted)
        train.main(_command(base, name))
    assert stop.value.code == 128 + number and len(calls) == 3
    errors = capfd.readouterr().err
    assert f"stopped by {name} after step 3, which is saved; rerun the same command" in errors
    assert "Traceback" not in errors and not (base / name / "weights.safetensors").exists()
    with checkpoint.open_checkpoints(base / name) as manager:
        assert manager.latest_step() == 3
    train.main(_command(base, name))
    assert difference(base / "whole", base / name) == 0


@pytest.fixture(scope="module")
def lost_and_found(base):
    """A run whose images vanish after they were read; the next start without them; then one with them again.

    (its error line, and how many programs the step of the first and of the last start added to those compiled before)
    """
    images = base / "gone.npy"
    shutil.copy(base / "images.npy", images)
    compiled, load, step = [], training.load_data, training.step_on_mesh
    command = [*_command(base, "gone"), "--data.path", str(images)]

    def load_then_lose(config):
        loaded = load(config)
        images.unlink()
        return loaded

    def counted(*args):
        function = step(*args)
        compiled.append((function, function._cache_size()))  # jax shares the cache of one Python function
        return function

    def added():
        function, before = compiled.pop()
        return function._cache_size() - before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_data", load_then_lose)
        patch.setattr(training, "step_on_mesh", counted)
        train.main([*command, "--run.steps", "3"])
        programs = [added()]
    steps = load_weights(base / "gone" / "weights.safetensors").provenance["steps"]
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stop:
        train.main([*command, "--run.steps", "6"])
    shutil.copy(base / "images.npy", images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "step_on_mesh", counted)
        train.main([*command, "--run.steps", "7"])  # a number that no other test of this process trains for
        programs.append(added())
    return steps, stop.value.code, errors.getvalue(), images, programs


@pytest.mark.slow
def test_images_that_vanish_under_way_do_no_harm_and_are_named_at_the_next_start(lost_and_found):
    steps, code, errors, images, _ = lost_and_found
    assert steps == 3 and code == 2
    assert errors == f"error: {images}: no such file or folder; check the path\n"


@pytest.mark.slow
def test_a_resumed_run_compiles_the_step_once(lost_and_found):
    """The restored state lies where a step leaves it, so that the first step and the second share their program."""
    assert lost_and_found[-1] == [1, 1]  # another number of steps is another program


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


@pytest.mark.slow
def test_the_other_faults_one_by_one(tmp_path):
    found = drills(tmp_path)
    assert len(found) == 1 + len(FAULTS)
    assert all(drill.passed for drill in found), [drill for drill in found if not drill.passed]
