"""Values that cannot be what their file says are refused, unless a window says what they are."""

import h5py
import numpy as np
import pytest
import scipy.io
from medical import ramp, write_series

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN, Window, read_images

PLAIN_VALUES = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
BYTES = np.random.default_rng(1).integers(0, 256, (2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("volume", "window", "words"),
    [
        (PLAIN_VALUES, PLAIN, r"lies in \[0, 1\], so it is not in Hounsfield units"),
        (BYTES, Window("1", 0.0, 255.0), "is uint8, which does not hold Hounsfield units"),
        (BYTES > 127, PLAIN, "is bool, which does not hold Hounsfield units"),
    ],
    ids=["floats", "bytes", "truth values"],
)
def test_a_volume_that_is_not_in_hounsfield_units_needs_a_window(tmp_path, volume, window, words):
    np.savez(tmp_path / "x.npz", volume=volume)
    remedy = r"give a window \(train.py: --data.low and --data.high; "
    for fit, then in ((None, remedy), (HOUNSFIELD, "the weights take values of -1000 to 1000 HU: store such ones")):
        with pytest.raises(UserError, match=f"x.npz: `volume` {words}; {then}"):
            read_images(tmp_path / "x.npz", fit=fit)
    read = read_images(tmp_path / "x.npz", window=window)
    np.testing.assert_allclose(read.images[..., 0], volume / window.high, atol=1e-7)


def test_bytes_that_say_their_unit_are_in_it(tmp_path):
    np.savez(tmp_path / "x.npz", volume=BYTES, unit="HU")
    np.testing.assert_allclose(read_images(tmp_path / "x.npz").images[..., 0], (BYTES + 1000.0) / 2000, atol=1e-6)


def test_whole_numbers_beside_floats_are_not_clipped_to_one(tmp_path):
    np.save(tmp_path / "a.npy", PLAIN_VALUES)
    np.save(tmp_path / "b.npy", BYTES.astype(np.int16) * 4 - 500)
    with pytest.raises(UserError, match=r"b.npy: b 0 has values -476 to 520, not within \[0, 1\]; give a window"):
        read_images(tmp_path)
    np.save(tmp_path / "b.npy", (BYTES > 127).astype(np.int16))
    read = read_images(tmp_path).images
    np.testing.assert_array_equal(read[..., 0], np.concatenate([PLAIN_VALUES, BYTES > 127]))


def test_a_picture_whose_channels_may_have_been_taken_for_images_is_told(tmp_path):
    chw, matlab = BYTES[:1].repeat(3, 0), np.moveaxis(BYTES[:1].repeat(3, 0), 0, -1)
    np.save(tmp_path / "x.npy", chw)
    scipy.io.savemat(tmp_path / "x.mat", {"x": matlab})
    with h5py.File(tmp_path / "y.mat", "w", userblock_size=512) as file:
        file["x"] = matlab.T
    for name, colour in (("x.npy", "N, H, W, C"), ("x.mat", "rows, columns, ch"), ("y.mat", "rows, columns, ch")):
        (note,) = [note for note in read_images(tmp_path / name).notes if "grey images" in note]
        assert f"{name}: read as 3 grey images of 8 x 8; if it is one in colour, store it as [{colour}" in note
    np.savez(tmp_path / "x.npz", volume=chw.astype(np.int16))  # slices, as it says
    assert not read_images(tmp_path / "x.npz").notes


def test_the_values_that_are_refused_are_told_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", np.full((8, 8), 1.000001))
    with pytest.raises(UserError, match="has values 1.000001 to 1.000001, not within"):
        read_images(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Modality": "MR", "RescaleType": "US"}, "of modality MR"),
        ({"Modality": "PT", "RescaleType": None}, "of modality PT"),
        ({"RescaleType": "MGML"}, "in MGML .RescaleType."),
    ],
)
def test_values_that_dicom_says_are_no_hounsfield_units_are_not_taken_for_them(tmp_path, fields, words):
    write_series(tmp_path / "ct", ramp(), **fields)
    with pytest.raises(UserError, match=f"ct: values {words} are not in HU, as those of the weights; use others"):
        read_images(tmp_path / "ct", fit=HOUNSFIELD)
    for window in (Window("1", -1000.0, 500.0), Window("mg/ml", -1000.0, 500.0)):
        read = read_images(tmp_path / "ct", fit=window)
        np.testing.assert_allclose(read.images[..., 0], (ramp() + 1000.0) / 1500, atol=1e-6)
    write_series(tmp_path / "unspecified", ramp(), RescaleType="US")
    assert read_images(tmp_path / "unspecified", fit=HOUNSFIELD).window == HOUNSFIELD
    write_series(tmp_path / "small", ramp(), RescaleType="hu")
    assert read_images(tmp_path / "small").window == HOUNSFIELD
