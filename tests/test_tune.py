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
