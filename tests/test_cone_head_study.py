"""The study of a cone beam, tiny: every row runs, is kept, and is scored on held-out slices alone."""

import json
import sys

import numpy as np
import pytest
from tiny import write_weights

from padis_jax.images import HOUNSFIELD
from padis_jax.metrics import psnr
from studies import cone_head


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the study on the middle 7 of 9 slices of noise; returns what it prints."""
    values = np.random.default_rng(0).integers(-1000, 1000, (9, 16, 16)).astype(np.int16)
    np.savez(tmp_path / "volume.npz", volume=values, spacing=np.asarray([1.5, 1.0, 1.0]))
    write_weights(tmp_path / "w.safetensors", window=HOUNSFIELD)

    def call(*flags):
        given = "--path volume.npz --weights w.safetensors --shape 7 16 16 --slice 4 --around 1 --views 6 --photons 1e5"
        given += " --evaluations 2 --tv-iterations 5 --out out"
        monkeypatch.setattr(sys, "argv", ["cone_head", *given.split(), *flags])
        cone_head.main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    return call


@pytest.mark.slow
def test_rows_are_kept_and_scored_on_the_slab(command, tmp_path, monkeypatch):
    text = command()
    assert [line.split()[1] for line in text.strip().splitlines()[2:]] == list(cone_head.ROWS[:6]) and "nan" not in text
    saved = tmp_path / "out" / "7x16x16_6_100000"
    found, row = np.load(saved / "tv.npz")["volume"], json.loads((saved / "tv.json").read_text())["row"]
    truth = (np.load(tmp_path / "volume.npz")["volume"][3:6] + 1000) / np.float32(2000)
    assert found.shape == (7, 16, 16)
    assert row["psnr"] == pytest.approx(float(psnr(np.clip(found[2:5], 0, 1), truth)), rel=1e-4)
    monkeypatch.setattr(cone_head, "run", lambda *args: 1 / 0)
    assert command() == text
    with pytest.raises(ZeroDivisionError):
        command("--only", "tv", "--tv-iterations", "6")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "10", "16", "16"], "--shape 10 16 16: the volume has 9 x 16 x 16 voxels"),
        (["--slice", "1"], "the cropped volume has slices 1 to 7"),
        (["--only", "slab_pnp"], "give --slab-weights too"),
    ],
)
def test_mistakes(command, flags, message, capsys):
    with pytest.raises(SystemExit):
        command(*flags)
    assert message in capsys.readouterr().err


def test_the_detector_sees_the_whole_cylinder():
    shape = (96, 256, 256)
    scan = cone_head.orbit(shape, 0.957, 1.5, 30)
    assert scan.note(shape, 0.957, 1.5) == "" and scan.measurement_shape == (30, scan.rows, scan.columns)
    less = cone_head.dataclasses.replace(scan, rows=scan.rows - 24)
    assert "of the rays" in less.note(shape, 0.957, 1.5)
