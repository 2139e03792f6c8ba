"""NIfTI in: the same images whatever the order of the stored axes, units by a window, damage refused."""

import gzip

import nibabel
import numpy as np
import pytest
from medical import ramp, write_nifti, write_series

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, Window, open_source, read_images
from padis_jax.writers import result, write_result

VOLUME = ramp()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SAL", "PIR", "ASR"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_are_shown_the_same_way_whatever_the_axes(tmp_path, axes, suffix):
    source = open_source(write_nifti(tmp_path / f"x{suffix}", VOLUME, axes=axes))
    assert source.shape == (4, 6, 5, 1) and source.dtype == np.int16 and source.unit is None
    np.testing.assert_allclose(source.spacing, (1.5, 0.9, 0.8), rtol=1e-6)
    for index, expected in enumerate(VOLUME):
        np.testing.assert_array_equal(source.read(index)[..., 0], expected)


def test_as_dicom_shows_the_same_patient(tmp_path):
    dicom = read_images(write_series(tmp_path / "ct", VOLUME))
    nifti = read_images(write_nifti(tmp_path / "x.nii", VOLUME, axes="RAS"), fit=HOUNSFIELD)
    np.testing.assert_allclose(dicom.images, nifti.images, atol=1e-6)
    assert nifti.window == HOUNSFIELD


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_headers_scaling_is_applied(tmp_path, suffix):
    source = open_source(write_nifti(tmp_path / f"x{suffix}", VOLUME.astype(float), slope=0.5))
    np.testing.assert_allclose(source.read(2)[..., 0], VOLUME[2], atol=0.26)
    assert abs(source.read(2)).max() > 300


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("micron", 1e3), ("meter", 1e-3), ("unknown", 1.0)])
def test_spacing_is_in_millimetres_whatever_the_unit(tmp_path, unit, scale):
    image = nibabel.Nifti1Image(VOLUME, np.diag([0.005 * scale, 0.006 * scale, 0.007 * scale, 1.0]))
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "x.nii")
    read = read_images(tmp_path / "x.nii", fit=HOUNSFIELD)
    np.testing.assert_allclose(read.spacing, (0.007, 0.006, 0.005), rtol=1e-6)
    made = result(read.images, read, "test", window=HOUNSFIELD)
    again = read_images(write_result(tmp_path / "out", "nifti", made)[0], fit=HOUNSFIELD)
    np.testing.assert_allclose(again.spacing, read.spacing, rtol=1e-6)


def test_a_window_of_plain_numbers_that_the_user_trained_with_is_taken(tmp_path):
    window = Window("1", -1000.0, 200.0)
    for kind in (np.int16, np.uint8):
        volume = VOLUME.astype(kind)
        read = read_images(_saved(tmp_path / "x.nii", volume), fit=window)
        assert read.window == window == read.stored
        np.testing.assert_allclose(np.sort(read.images.ravel()), np.sort(window.to_unit(volume.astype(float)).ravel()))


def test_the_unit_is_not_guessed(tmp_path):
    path = write_nifti(tmp_path / "x.nii", VOLUME)
    with pytest.raises(UserError, match="x.nii: values of type int16 have no known range; give a window"):
        read_images(path)
    np.testing.assert_allclose(
        read_images(path, window=HOUNSFIELD).images[..., 0], HOUNSFIELD.to_unit(VOLUME.astype(float)), atol=1e-6
    )
    plain = write_nifti(tmp_path / "y.nii", np.linspace(0, 1, 120, dtype=np.float32).reshape(4, 6, 5))
    assert read_images(plain, fit=HOUNSFIELD).window.unit == "1"  # within [0, 1]: no Hounsfield units


def _saved(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def _cut(path, keep, packed=False):
    write_nifti(path, VOLUME)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def _declares(path, size):
    """A header that claims a huge volume over a small file."""
    write_nifti(path, VOLUME)
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([size] * 3, "<i2").tobytes()
    path.write_bytes(bytes(data))
    return path


def _text(path):
    path.write_bytes(gzip.compress(b"text") if path.suffix == ".gz" else b"text")
    return path


def _unit(path):
    write_nifti(path, VOLUME)
    data = bytearray(path.read_bytes())
    data[123] = 7
    path.write_bytes(data)
    return path


def _trailer(path, change):
    """The checksum and the length at the end of a packed file, changed; it is longer than a buffer of gzip."""
    _saved(path, np.random.default_rng(0).integers(-1000, 1000, (60, 50, 70), np.int16))
    data = path.read_bytes()
    path.write_bytes(data[:-8] + change(data[-8:]))
    return path


def _longer(path):
    write_nifti(path, VOLUME)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**24 + 1)))
    return path


BAD = {
    "checksum": (lambda d: _trailer(d / "x.nii.gz", lambda end: b"abcd" + end[4:]), "x.nii.gz: not a readable NIfTI"),
    "no checksum": (lambda d: _trailer(d / "x.nii.gz", lambda end: b""), "x.nii.gz: not a readable NIfTI file"),
    "cut checksum": (lambda d: _trailer(d / "x.nii.gz", lambda end: end[:7]), "x.nii.gz: not a readable NIfTI file"),
    "longer gz": (lambda d: _longer(d / "x.nii.gz"), "x.nii.gz: .* holds far more than its header says"),
    "unit": (lambda d: _unit(d / "x.nii"), "x.nii: its unit of length .* is none of NIfTI's"),
    "four axes": (lambda d: _saved(d / "x.nii", np.zeros((4, 4, 4, 2), np.int16)), r"x.nii: has 4 axes \(4, 4, 4, 2\)"),
    "complex": (lambda d: _saved(d / "x.nii", np.zeros((4, 4, 4), np.complex64)), "complex64 are not real numbers"),
    "cut": (lambda d: _cut(d / "x.nii", 0.8), "x.nii: declares 240 bytes of values .* but holds 121; truncated"),
    "cut header": (lambda d: _cut(d / "x.nii", 0.4), "x.nii: not a readable NIfTI file"),
    "cut gz": (lambda d: _cut(d / "x.nii.gz", 0.8), "x.nii.gz: not a readable NIfTI file"),
    "huge": (lambda d: _declares(d / "x.nii", 30000), "x.nii: declares a slice of 900000000 values"),
    "too large": (lambda d: _declares(d / "x.nii", 1000), "x.nii: declares 2000000000 bytes .* but holds 240"),
    "text": (lambda d: _text(d / "x.nii"), "x.nii: not a readable NIfTI file"),
    "packed text": (lambda d: _text(d / "x.nii.gz"), "x.nii.gz: not a readable NIfTI file"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_of_a_series_is_named(tmp_path, suffix):
    series = np.random.default_rng(0).random((5, 6, 4, 3)).astype(np.float32)
    path = _saved(tmp_path / f"x{suffix}", series)
    for frame in range(3):
        alone = read_images(_saved(tmp_path / f"alone{suffix}", series[..., frame]))
        found = read_images(f"{path}::{frame}")
        np.testing.assert_array_equal(found.images, alone.images)
        assert found.origins[0].file == path and found.spacing == alone.spacing
    for name in ("", "::3", "::-1", "::x", "::01"):
        with pytest.raises(UserError, match=rf"3 volumes; name one of them: .*x{suffix}::0 to x{suffix}::2"):
            read_images(f"{path}{name}")
    with pytest.raises(UserError, match="1 volumes; name one of them: leave ::1 out"):
        read_images(f"{_saved(tmp_path / f'alone{suffix}', series[..., 0])}::1")


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        read_images(make(tmp_path), fit=HOUNSFIELD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("stored", "named"), [("x.nii.gz", "y.nii"), ("x.nii", "y.nii.gz")])
def test_a_name_that_says_otherwise_than_the_contents_is_told(tmp_path, stored, named):
    write_nifti(tmp_path / stored, VOLUME).rename(tmp_path / named)
    right = stored.replace("x", "y")
    with pytest.raises(UserError, match=f"{named}: is .*compressed by gzip, against its name; rename it to {right}$"):
        open_source(tmp_path / named)
    (tmp_path / named).rename(tmp_path / right)
    np.testing.assert_array_equal(open_source(tmp_path / right).read(1)[..., 0], VOLUME[1])
