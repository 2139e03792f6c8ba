"""Pictures in: depth, colour, pages and rotation."""

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.images import open_source, read_images

DEEP = np.random.default_rng(0).integers(0, 65535, (12, 10, 3), np.uint16, endpoint=True)


def _deep_png(path):
    with open(path, "wb") as handle:
        png.Writer(10, 12, greyscale=False, bitdepth=16).write(handle, DEEP.reshape(12, 30))
    return path


@pytest.mark.parametrize("kind", ["png", "tiff", "planar tiff"])
def test_sixteen_bits_of_colour_are_kept(tmp_path, kind):
    if kind == "png":
        path = _deep_png(tmp_path / "x.png")
    else:
        path = tmp_path / "x.tif"
        planar = kind.startswith("planar")
        layout = {"planarconfig": "separate"} if planar else {}
        tifffile.imwrite(path, np.moveaxis(DEEP, -1, 0) if planar else DEEP, photometric="rgb", **layout)
    read = read_images(path)
    np.testing.assert_allclose(read.images[0], DEEP / 65535.0, atol=1e-7)


def test_pages_are_slices_and_stacks_are_volumes(tmp_path):
    for name, offset in (("b.tif", 100), ("a.tif", 0)):
        pages = [Image.fromarray(np.full((12, 10), offset + i, np.uint16)) for i in range(3)]
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    read = read_images(tmp_path)
    np.testing.assert_allclose(read.images[:, 0, 0, 0] * 65535, [0, 1, 2, 100, 101, 102], atol=1e-2)
    assert read.names == ("a.tif 0", "a.tif 1", "a.tif 2", "b.tif 0", "b.tif 1", "b.tif 2")
    assert read.volumes == {f"{tmp_path.name}/a.tif": 3, f"{tmp_path.name}/b.tif": 3}
    np.testing.assert_allclose(read_images(tmp_path / "b.tif").images[:, 0, 0, 0] * 65535, [100, 101, 102], atol=1e-2)


def test_compressed_tiff_and_a_rotated_jpeg(tmp_path):
    grey = (np.arange(120).reshape(12, 10) * 500).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(open_source(tmp_path / "x.tif").read(0)[..., 0], grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    picture = np.zeros((12, 10), np.uint8)
    picture[:4] = 200
    Image.fromarray(picture).save(tmp_path / "x.jpg", exif=exif, quality=95)
    turned = read_images(tmp_path / "x.jpg").images[0, ..., 0]
    assert turned.shape == (10, 12) and turned[:, 9:].min() > 0.7 and turned[:, :7].max() < 0.1


def test_depths_are_not_mixed(tmp_path):
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((12, 10), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match="b.png: 10 x 12 grey of 16 bits, but a.png is 10 x 12 grey of 8 bits"):
        read_images(tmp_path)


def test_a_deep_picture_that_is_cut(tmp_path):
    path = _deep_png(tmp_path / "x.png")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="x.png: not a readable picture"):
        read_images(path)


def test_a_size_that_the_file_cannot_hold(tmp_path):
    """A decoder would fill what is missing with black."""
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(tmp_path / "x.tif")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    at = data.index(b"\x01\x01\x04\x00") + 8  # ImageLength, 4 bytes
    data[at : at + 4] = (1_000_000).to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(bytes(data))
    with pytest.raises(UserError, match="x.tif: declares 10000000 bytes of values"):
        read_images(tmp_path / "x.tif")
