"""Scans whose voxels are smaller than a micrometre: no tolerance in mm swallows a slice or a pixel."""

import nibabel
import numpy as np
import pytest
from medical import ramp, write_series, write_slice

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, read_images

MM = 3e-4  # a voxel
VOLUME = ramp(slices=5)


def test_a_selection_with_a_gap_keeps_its_places(tmp_path):
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.diag([1000 * MM] * 3 + [1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "x.nii")
    read = read_images(tmp_path / "x.nii", window=HOUNSFIELD)
    np.testing.assert_allclose(read.select([0, 1, 3]).places, [0, MM, 3 * MM], rtol=1e-6)
    even = read.select([0, 2, 4])
    assert even.places == () and even.spacing == pytest.approx((2 * MM, MM, MM))


def test_slices_are_at_places_of_their_own_and_one_may_be_missing(tmp_path):
    write_series(tmp_path / "all", VOLUME, spacing=MM)
    read = read_images(tmp_path / "all")
    np.testing.assert_allclose(read.window.from_unit(read.images[..., 0]), VOLUME.clip(-1000, 1000), atol=1e-3)
    assert read.spacing[0] == pytest.approx(MM) and not read.notes and not read.places
    (tmp_path / "all" / "003.dcm").unlink()
    read = read_images(tmp_path / "all")
    assert "a slice may be missing" in read.notes[0]
    np.testing.assert_allclose(read.places, [0, MM, 3 * MM, 4 * MM])


def test_other_pixels_are_refused(tmp_path):
    write_slice(tmp_path / "a.dcm", VOLUME[0], z=0.0, PixelSpacing=[MM, MM])
    write_slice(tmp_path / "b.dcm", VOLUME[1], z=MM, PixelSpacing=[2 * MM, 2 * MM])
    with pytest.raises(UserError, match="b.dcm: its pixel spacing is .0.0006, 0.0006., but a.dcm has"):
        read_images(tmp_path)
    write_slice(tmp_path / "b.dcm", VOLUME[1], z=0.0, PixelSpacing=[MM, MM])
    with pytest.raises(UserError, match="are at the same position"):
        read_images(tmp_path)
