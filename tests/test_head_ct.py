"""studies.head_ct: what a slice could have from memory alone, and medians by the distance to what was trained on."""

from types import SimpleNamespace

import numpy as np

from padis_jax.runs.score import Row
from padis_jax.split import split_slices
from studies.head_ct import mean_row, medians, nearest_mean

SPLIT = split_slices(12, test=(0, 6), validation=(), test_gap=1)  # trained on: 2, 3, 4, 8 .. 11


def test_memory_is_the_mean_of_the_nearest_training_slices():
    images = SimpleNamespace(images=np.arange(12.0)[:, None, None, None])
    assert [float(nearest_mean(images, SPLIT, i).item()) for i in (5, 6, 7)] == [6.0, 6.0, 6.0]
    assert nearest_mean(images, SPLIT, 0).item() == 2.5  # 2 and 3: there is nothing on the other side


def test_the_medians_of_each_distance():
    def row(method, psnr):
        return SimpleNamespace(method=method, psnr=psnr)

    found = {5: (30, 20), 7: (31, 20), 1: (38, 21), 6: (25, 20)}
    rows = {i: [row("DDS", dds), row("TV", tv)] for i, (dds, tv) in found.items()}
    assert medians(rows, SPLIT).splitlines() == [
        "| distance | 1 | 2 |",
        "|---|---|---|",
        "| DDS | 31.0 dB | 25.0 dB |",
        "| TV | 20.0 dB | 20.0 dB |",
    ]


def test_the_row_of_several_seeds_is_their_mean():
    rows = [Row("DDS", 0.1, 50, 3.0, 30.0, 0.9, 0.8, 60.0), Row("DDS", 0.3, 50, 5.0, 32.0, 0.7, 0.6, 50.0)]
    assert mean_row(rows).method == "DDS"
    np.testing.assert_allclose(mean_row(rows)[1:], (0.2, 50, 4.0, 31.0, 0.8, 0.7, 55.0))
