"""Warnings without a truth: when the prior's image is worse explained than total variation's, beyond the noise."""

import json
from pathlib import Path

import numpy as np
import pytest

from padis_jax.images import read_images
from padis_jax.runs.doubts import doubts, doubts_of_slices, unlike, unlike_slices, unlike_text, worse_explained
from padis_jax.weights import load_weights

DOCS = Path(__file__).parent.parent / "docs"


def rows(prior, tv):
    return [{"method": "FBP", "residual": 0.06}, {"method": "TV", "residual": tv}, {"method": "DDS", "residual": prior}]


@pytest.mark.parametrize(
    ("prior", "tv", "noise", "doubted"),
    [
        (0.05, 0.003, 0.005, True),
        (0.05, 0.003, 0.0, True),  # noise that is not known
        (0.05, 0.003, float("nan"), True),  # of a measurement of zeros
        (0.05, 0.003, 0.04, False),  # within the noise, which TV fits
        (0.05, 0.04, 0.0, False),  # TV leaves as much: the operator, or the noise
        (0.0049, 0.0031, 0.0054, False),  # the demo
        (0.0016, 0.0002, 0.0, False),  # ct20 without noise: seven times TV's, and 6 dB better
        (0.003, 0.05, 0.0, False),
        (None, 0.003, 0.0, False),
        (0.05, None, 0.0, False),
    ],
)
def test_the_bound(prior, tv, noise, doubted):
    assert (worse_explained(rows(prior, tv), noise) is not None) == doubted


def test_what_is_said():
    (text,) = doubts(rows(0.05, 0.003), 0.005)
    assert text.startswith("DDS explains the measurement worse than total variation does, beyond the noise: ")
    assert "it leaves 5.00% of it, TV 0.30%, the noise 0.50%." in text
    assert "the noise" not in doubts(rows(0.05, 0.003), 0.0)[0].replace("beyond the noise", "")
    assert "nan" not in doubts(rows(0.05, 0.003), float("nan"))[0]
    assert doubts([], 0.0) == doubts(rows(0.05, 0.003)[:2], 0.0) == []  # stopped before the solver
    slices = [(7, rows(0.05, 0.003), 0.0), (8, rows(0.003, 0.003), 0.0), (9, rows(0.05, 0.003), 0.0)]
    (text,) = doubts_of_slices(slices)
    assert "in 2 of 3 slices (7, 9)" in text and doubts_of_slices(slices[1:2]) == []


def test_no_recorded_cell_is_doubted_that_is_not_far_below_total_variation():
    """Every method and problem of the recorded benchmark, with the noise of its problem; and some cells are doubted."""
    noise = {"denoise": 0.177}  # of the photograph's crop; 0.018 where sigma is 0.01, 0 in tomography
    counted = doubted = 0
    for name in ("benchmark_quick.jsonl", "benchmark_other.jsonl"):
        cells = [json.loads(line) for line in (DOCS / name).read_text().splitlines()]
        tv = {cell["task"]: cell for cell in cells if cell["method"] == "tv"}
        for cell in cells:
            if cell["config"]["method"]["family"] != "diffusion":
                continue
            task = cell["task"]
            level = noise.get(task, 0.018 if cell["config"]["sigma"] else 0.0)
            found = worse_explained(rows(cell["residual"], tv[task]["residual"]), level)
            counted += 1
            if found is not None:
                doubted += 1
                assert cell["psnr"] < tv[task]["psnr"] - 1.0, (task, cell["method"])
    assert counted > 150 and doubted >= 4


def test_an_image_unlike_the_training_images_is_told_before_the_solver():
    """The head with its brightness inverted; not a left-out slice of the head."""
    blocks = load_weights("head_ct").blocks
    head = np.asarray(read_images("data/head_ct.npz", memory=0).images[[20, 41, 62, 83]])
    assert [unlike(blocks, image) for image in head] == [None] * 4
    distances = [unlike(blocks, 1 - image) for image in head]
    assert None not in distances and min(distances) > 1
    text = unlike_text("head_ct", blocks, distances[0])
    assert text.startswith("the image does not look like those that head_ct was trained on") and "0.35" in text
    assert unlike(None, head[0]) is None and unlike(blocks, head[0][:7]) is None
    assert unlike_slices([], 4) == [] and unlike_slices([3, 5], 4)[0].startswith("2 of 4 slices (3, 5) do not look")
