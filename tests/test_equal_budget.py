"""The study of equal budgets trains as train.py does: what was interrupted resumes, what is finished is left alone."""

import json
import sys

import numpy as np
import pytest
from test_cli_train import CONFIG

from padis_jax.config import Config, load_config_file
from padis_jax.runs import training
from padis_jax.weights import load_weights
from studies import equal_budget


@pytest.fixture
def study(tmp_path, monkeypatch):
    """(runs the command; numbers of the steps that were drawn), with a tiny network and four steps for each prior."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
    (tmp_path / "tiny.py").write_text(CONFIG.format(path=str(tmp_path / "images.npy")))
    file, drawn, original = str(tmp_path / "tiny.py"), [], training.draw_batch
    priors = {"patch": (file, {}), "whole": (file, {}), "no_positions": (file, {"position_channels": 0})}
    monkeypatch.setattr(equal_budget, "PRIORS", priors)
    monkeypatch.setattr(equal_budget, "evaluate", lambda base, path: {"20": {"psnr": 30.0}, "41": {"psnr": 31.0}})
    counted = {"seconds_per_step": 1.0, "steps": 4}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "steps.json").write_text(json.dumps({"minutes": 1.0, "priors": dict.fromkeys(priors, counted)}))

    def draw(padded, config, seed, step):
        drawn.append(step)
        if drawn == [0, 1, 2]:
            raise KeyboardInterrupt
        return original(padded, config, seed, step)

    def run():
        flags = ["--minutes", "1", "--only", "no_positions/10/1", "--out", "out", "--runs", "runs"]
        monkeypatch.setattr(sys, "argv", ["equal_budget", *flags])
        equal_budget.main()

    monkeypatch.setattr(training, "draw_batch", draw)
    monkeypatch.chdir(tmp_path)
    return run, drawn


@pytest.mark.slow
def test_an_interrupted_study_resumes(study, tmp_path, capsys):
    run, drawn = study
    with pytest.raises(SystemExit):
        run()
    run()
    assert drawn == [0, 1, 2, 2, 3]  # from the checkpoint after step 2
    weights = load_weights(tmp_path / "runs" / "no_positions_10_1" / "weights.safetensors")
    config = weights.provenance["config"]
    assert weights.network.position_channels == 0 and weights.provenance["steps"] == 4
    assert (config["run"]["seed"], config["data"]["limit"], config["optimiser"]["warmup_steps"]) == (1, 10, 0)
    run()
    assert len(drawn) == 5
    assert "| no_positions | 10 | 1 | 30.00, 31.00 | 30.50 |" in capsys.readouterr().out


def test_a_step_is_timed(study, tmp_path):
    assert 0 < equal_budget.step_seconds(load_config_file(tmp_path / "tiny.py", Config)) < 60
