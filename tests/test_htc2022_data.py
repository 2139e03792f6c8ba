"""The reader of the real scans; and, where the file is at hand (HTC2022=...), that their geometry is right."""

import os

import numpy as np
import pytest

from padis_jax.errors import UserError
from studies.htc2022.data import BINS, Arc, bin_detector, draw_views, join, read_htc2022, scanner


def write(path, **change):
    rng = np.random.default_rng(0)
    arrays = {
        "tx_0_3/sinogram": rng.random((7, BINS), np.float32),
        "tx_0_3/angles_degrees": np.arange(0, 3.5, 0.5),
        "tx_2_4/sinogram": rng.random((5, BINS), np.float32),
        "tx_2_4/angles_degrees": np.arange(2, 4.5, 0.5),
        "tx/truth": np.eye(512, dtype=np.uint8),
    }
    arrays |= {name.replace("__", "/"): value for name, value in change.items()}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_arcs_are_read_from_narrow_to_wide_and_joined_without_repeats(tmp_path):
    phantom = read_htc2022(write(tmp_path / "a.npz"))["tx"]
    assert [arc.name for arc in phantom.arcs] == ["tx_2_4", "tx_0_3"]
    assert phantom.truth.dtype == bool and phantom.truth.sum() == 512
    assert [arc.degrees for arc in phantom.arcs] == pytest.approx([2, 3])
    joined = join(phantom.arcs)
    np.testing.assert_allclose(joined.angles, np.deg2rad(np.arange(0, 4.5, 0.5)))
    np.testing.assert_array_equal(joined.sinogram[4:], phantom.arcs[0].sinogram)
    np.testing.assert_array_equal(joined.sinogram[:4], phantom.arcs[1].sinogram[:4])


def test_angles_a_turn_apart_are_one_view_and_views_are_joined_in_the_order_of_the_turn():
    """Of 350, 360 and 370 degrees the last two are 0 and 10, the first of which the other arc has too."""
    late = Arc("late", np.deg2rad([350.0, 360.0, 370.0]), np.full((3, 4), 1.0))
    early = Arc("early", np.deg2rad([0.0, 5.0, -20.0]), np.full((3, 4), 2.0))
    joined = join([late, early], "both")
    assert joined.name == "both"
    np.testing.assert_allclose(np.rad2deg(joined.angles) % 360, [0, 5, 10, 340, 350])
    np.testing.assert_array_equal(joined.sinogram[:, 0], [1, 2, 1, 2, 1])
    np.testing.assert_array_equal(join([early, late]).sinogram[:, 0], [2, 2, 1, 2, 1])


def test_views_are_drawn_evenly_and_bins_joined(tmp_path):
    arc = read_htc2022(write(tmp_path / "a.npz"))["tx"].arcs[1]
    few = draw_views(arc, 3)
    np.testing.assert_allclose(np.rad2deg(few.angles), [0, 1, 2])
    np.testing.assert_array_equal(few.sinogram, arc.sinogram[[0, 2, 4]])
    np.testing.assert_allclose(np.rad2deg(draw_views(arc, 5).angles), [0, 0.5, 1, 2, 2.5])
    binned = bin_detector(arc, 4)
    np.testing.assert_allclose(binned.sinogram[2, 3], arc.sinogram[2, 12:16].mean(), rtol=1e-6)
    geometry = scanner(binned, 32).geometry
    assert geometry.detector_count == 140
    assert geometry.detector_spacing * 140 == pytest.approx(BINS * 0.2)
    assert geometry.pixel_size * 32 == pytest.approx(512 * 0.14832232)


def test_the_shift_of_the_detector_stays_with_the_views():
    arc = Arc("a", np.deg2rad([0.0, 1.0, 2.0]), np.zeros((3, BINS), np.float32), 0.3)
    part = bin_detector(draw_views(join([arc, arc._replace(name="b")]), 2), 4)
    assert part.shift == 0.3 and scanner(part, 32).geometry.detector_offset == 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tx__truth=None), "tx/truth"),
        (dict(tx_0_3__angles_degrees=None), "tx_0_3/angles_degrees"),
        (dict(tx_0_3__angles_degrees=np.arange(3.0)), "tx_0_3/sinogram. should be 3 x 560 finite"),
        (dict(tx_0_3__sinogram=np.full((7, BINS), np.nan)), "tx_0_3/sinogram. should be 7 x 560 finite"),
        (dict(stray__sinogram=np.ones((1, BINS))), "stray should be called"),
        (dict(tx__truth=np.asarray([None])), "holds objects"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path, change, message):
    path = write(tmp_path / "a.npz", **change)
    with pytest.raises(UserError, match=message) as refused:
        read_htc2022(path)
    assert str(path) in str(refused.value)


def test_a_missing_or_damaged_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_htc2022(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="a.npz: not a readable"):
        read_htc2022(tmp_path / "a.npz")


@pytest.mark.slow
@pytest.mark.skipif("HTC2022" not in os.environ, reason="the scans are not part of the project: HTC2022 names the file")
def test_the_joined_arcs_show_the_disc():
    pytest.importorskip("skimage")
    from studies.htc2022.__main__ import joined_score

    phantom = read_htc2022(os.environ["HTC2022"])["tb"]
    half = phantom._replace(arcs=tuple(Arc(a.name, a.angles[::2], a.sinogram[::2]) for a in phantom.arcs))
    assert joined_score(half, 256) > 0.97
    # A wrong sense of rotation is seen at once.
    turned = half._replace(arcs=tuple(arc._replace(angles=-arc.angles) for arc in half.arcs))
    assert joined_score(turned, 64) < 0.7
