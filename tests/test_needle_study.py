"""The study of the needle's tilt series: splits, scores, resuming."""

import argparse

import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.errors import UserError
from studies import needle

TILTS = np.arange(-76, 77, 2.0)


@pytest.fixture
def series(tmp_path):
    """A made series of two rows, each a block, and the arguments of the study."""
    volume = np.zeros((2, 128, 128), np.float32)
    volume[:, 50:80, 55:70], volume[1, 60:66, 58:64] = 0.8, 0.3
    y = np.asarray(needle.operator(2, TILTS)(jnp.asarray(volume)))
    path = tmp_path / "series.npz"
    path.write_bytes(b"of another run")
    args = argparse.Namespace(path=str(path), weights="", out=tmp_path / "out")
    return needle.Series(y, TILTS, 300.0), volume, args


def test_no_row_is_both_trained_on_and_tested_and_four_rows_lie_between():
    for tested in (needle.TESTED, needle.VALIDATION):
        assert min(abs(a - b) for a in needle.TRAINED for b in tested) > 2
    assert min(abs(a - b) for a in needle.VALIDATION for b in needle.TESTED) > 8


def test_the_tilts_that_score_are_those_that_were_left_out(series, monkeypatch):
    made, volume, args = series
    seen = {}

    def solve(method, settings, y, a, tv, args):
        seen.update(y=y, a=a)
        return jnp.asarray(volume)

    monkeypatch.setattr(needle, "solve", solve)
    broken = made._replace(y=made.y.copy())
    broken.y[:, 1::2] *= 2  # half: the odd tilts are left out
    found, _ = needle.score("sirt", "half", {}, (0, 1), broken, args)
    np.testing.assert_allclose(seen["y"], made.y[:, ::2], rtol=1e-5)
    np.testing.assert_allclose([found["error"], found["kept"]], [0.5, 0], atol=1e-4)
    found, _ = needle.score("sirt", "within 60", {}, (0, 1), made, args)
    assert seen["y"].shape == (2, 61, 128) and found["error"] < 1e-4


@pytest.mark.parametrize(("method", "settings"), [("sirt", {"iterations": 60}), ("cgls", {"iterations": 12})])
def test_more_than_filtered_backprojection_is_seen_by_the_left_out_tilts(series, method, settings):
    made, _, args = series
    fbp, found = (
        needle.score(*run, (0, 1), made, args)[0] for run in (("fbp", "half", {}), (method, "half", settings))
    )
    assert found["error"] < 0.5 * fbp["error"]


def test_another_file_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "other.npz", projections=np.zeros((3, 4, 5)), tilt_degrees=np.zeros(3))
    for path in (tmp_path / "other.npz", tmp_path / "none.npz"):
        with pytest.raises(UserError, match=path.name):
            needle.read(str(path))
