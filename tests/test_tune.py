"""studies.tune: which images settings may be chosen on, and that every combination is run with its own settings."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from studies import tune


def run(monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", *args])
    tune.main()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--slices", "30", "41"], "settings are tuned on the validation slices (30, 73) only"),
        (["--image.path", "mine.npy"], "--slices: name the images of mine.npy that nothing is trained or tested on"),
    ],
)
def test_settings_are_not_chosen_on_unnamed_or_test_images(monkeypatch, capsys, args, said):
    with pytest.raises(SystemExit):
        run(monkeypatch, *args)
    assert said in capsys.readouterr().err


def test_every_value_is_run_on_the_images_of_a_named_problem(monkeypatch, tmp_path, capsys):
    images = np.random.default_rng(0).uniform(0.2, 0.8, (3, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "mine.npy", images)
    flags = ["--problem", "denoise", "--image.path", str(tmp_path / "mine.npy"), "--slices", "1", "2"]
    flags += ["--method", "tv", "--vary", "tv.weight", "0.01", "0.2", "--out", str(tmp_path / "found.json")]
    run(monkeypatch, *flags)
    found = json.loads((tmp_path / "found.json").read_text())["found"]
    assert [f["flags"] for f in found] == [["--tv.weight", "0.01"], ["--tv.weight", "0.2"]]
    assert all(len(f["rows"]) == 2 for f in found)
    # White noise as the truth: the less it is smoothed, the better.
    assert found[0]["mean_psnr"] > found[1]["mean_psnr"] + 1
    assert "best: --tv.weight 0.01" in capsys.readouterr().out


def test_the_best_of_each_value_is_a_curve(monkeypatch, capsys):
    rows = [(5, 0.1, 20.0), (5, 0.2, 21.0), (10, 0.1, 23.0), (10, 0.2, 22.0)]
    found = [{"flags": ["--a", str(a), "--b", str(b)], "mean_psnr": psnr} for a, b, psnr in rows]
    assert [f["mean_psnr"] for f in tune.best_of(found, "a")] == [21.0, 23.0]
    assert [f["mean_psnr"] for f in tune.best_of(found, "b")] == [23.0, 22.0]
    assert tune.best_of(found) == [found[2]]
    with pytest.raises(SystemExit):
        run(monkeypatch, "--vary", "solver.levels", "5", "--each", "solver.weight")
    assert "--each solver.weight: is not varied; give --vary solver.weight" in capsys.readouterr().err
