"""The study of adaptation: its ways cost what they say, it runs in a small form, and resumes."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import NETWORK, refused, write_weights

from padis_jax.solvers.presets import preset
from studies import adaptation, other_images
from studies.adapt import Adaptation


def test_the_longer_run_takes_what_adaptation_takes():
    settings = Adaptation()
    assert adaptation.spent(settings) == 105
    assert preset(adaptation.SOLVER, "ct", adaptation.EVALUATIONS + 105).evaluations == 130
    assert adaptation.ways(["*/last"]) == [(pair, "last") for pair in adaptation.PAIRS]


def test_a_part_runs_and_resumes(tmp_path, monkeypatch, capsys):
    array = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)
    few = other_images._images("noise", array, ["x", "y", "z"], ["x", "y", "z"])
    monkeypatch.setattr(adaptation, "brain", lambda path: few)
    monkeypatch.setattr(adaptation, "EVALUATIONS", 2)
    weights = write_weights(tmp_path / "head.safetensors", network=dataclasses.replace(NETWORK, dropout=0.0))
    flags = ["--head-weights", weights, "--out", tmp_path / "out", "--images", 1, "--levels", 1, "--steps", 2]
    flags = [str(flag) for flag in (*flags, "--learning-rate", 1e-3, "--patch-batch", 4)]
    flags += [word for way in ("plain", "longer", "last") for word in ("--only", f"brain_head/{way}")]
    adaptation.main([*flags, "--dry-run"])
    assert "3 of 3 images are missing" in capsys.readouterr().out and not (tmp_path / "out").exists()
    adaptation.main(flags)
    folder = tmp_path / "out" / "levels1_steps2_rate0.001"
    cells = {
        way: json.loads((folder / f"cells/brain_head/{way}/x.json").read_text())["row"]
        for way in ("plain", "longer", "last")
    }
    assert [c["evaluations"] for c in cells.values()] == [2, 11, 2]
    assert [len(c["losses"]) for c in cells.values()] == [0, 0, 2]
    assert len({c["psnr"] for c in cells.values()}) == 3  # the adapted prior is another
    gain = cells["last"]["psnr"] - cells["plain"]["psnr"]
    assert (
        f"| brain_head | last | 1 | {cells['last']['tv_psnr']:.2f} | {cells['last']['psnr']:.2f} | {gain:+.2f} |"
        in (folder / "table.md").read_text()
    )
    monkeypatch.setattr(adaptation, "cell", lambda *_: pytest.fail("computed again"))
    adaptation.main(flags)
    assert "0 of 3 images are missing" in capsys.readouterr().out
    assert "--only head: names nothing" in refused(adaptation.main, [*flags, "--only", "head"], capsys)
