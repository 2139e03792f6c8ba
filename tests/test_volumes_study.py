"""The study of volumes, tiny: every form runs, rows are kept, scores are those of loops."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from tiny import NETWORK, random_params, write_weights

from padis_jax.images import PLAIN
from padis_jax.metrics import psnr, ssim
from padis_jax.patches import frame_for
from padis_jax.weights import Slab, save_weights
from studies import volumes

SLABS = dataclasses.replace(NETWORK, image_channels=3, position_channels=3)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the study on 5 slices of noise; returns what it prints."""
    np.save(tmp_path / "volume.npy", np.random.default_rng(0).random((7, 16, 16), np.float32))
    write_weights(tmp_path / "w.safetensors")
    save_weights(
        tmp_path / "s.safetensors",
        random_params(SLABS),
        SLABS,
        frame_for((16, 16), 8),
        PLAIN,
        {},
        slab=Slab(3, 7, (1, 3)),
    )

    def call(*flags):
        given = ["--path", "volume.npy", "--weights", "w.safetensors", "--slab-weights", "s.safetensors"]
        given += ["--slice", "3", "--around", "1", "--views", "4", "--evaluations", "2", "--out", "out"]
        monkeypatch.setattr(sys, "argv", ["volumes", *given, *flags])
        volumes.main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    return call


@pytest.mark.slow
def test_rows_are_reconstructed_scored_and_kept(command, tmp_path, monkeypatch):
    text = command("--only", "fbp", "slab_dds_anchored")
    assert text.count("\n") == 5 and "| slab_dds_anchored |" in text
    saved = tmp_path / "out" / "3_0"
    row = json.loads((saved / "slab_dds_anchored.json").read_text())
    found = np.load(saved / "slab_dds_anchored.npz")["volume"]
    truth = np.load(tmp_path / "volume.npy")[2:5]
    assert found.shape == (3, 16, 16) and row["row"]["psnr"] == pytest.approx(float(psnr(np.clip(found, 0, 1), truth)))
    monkeypatch.setattr(volumes, "run", lambda *args: 1 / 0)  # what is finished is not run again
    assert command("--only", "fbp", "slab_dds_anchored") == text
    with pytest.raises(ZeroDivisionError):
        command("--only", "fbp", "--views", "5")


@pytest.mark.slow
@pytest.mark.parametrize("photons", ["0", "1e4"])
def test_every_row_runs(command, photons):
    text = command("--photons", photons)
    assert [line.split()[1] for line in text.strip().splitlines()[2:]] == list(volumes.ROWS) and "nan" not in text


def test_scores():
    """Against loops and scikit-image; a volume of equal slices has no steps."""
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(1)
    truth = rng.random((7, 12, 13)).astype(np.float32)
    x = np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)
    found = volumes.scores(x, truth)
    assert found["psnr"] == pytest.approx(-10 * np.log10(np.square(x - truth).mean()), rel=1e-5)
    planes = [-10 * np.log10(np.square(x[:, r] - truth[:, r]).mean()) for r in range(12)]
    assert found["psnr_coronal"] == pytest.approx(np.mean(planes), rel=1e-5)
    assert found["ssim_axial"] == pytest.approx(np.mean([float(ssim(a, b)) for a, b in zip(x, truth, strict=True)]))
    assert volumes.scores(np.tile(truth[:1], (7, 1, 1)), truth)["step"] == 0
    cubic = metrics.structural_similarity(x[:, :, :], truth, data_range=1.0, win_size=7)
    assert volumes.ssim_volume(truth, truth) == pytest.approx(1)
    assert volumes.ssim_volume(x, truth) == pytest.approx(cubic, abs=0.05)  # whose window is 7 voxels high
