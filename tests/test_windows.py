"""Values that cannot be what their file says are refused, unless a window says what they are."""

import numpy as np
import pytest

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
    for fit in (None, HOUNSFIELD):
        with pytest.raises(UserError, match=f"x.npz: `volume` {words}; give a window"):
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
