"""Pictures in: depth, colour, pages, rotation, transparency, masks, and what is no picture."""

import functools
import importlib
import os
import sys
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image
from test_tiff import TURNS

from padis_jax.errors import UserError
from padis_jax.images import open_source, read_images
from padis_jax.problems.user_files import read_mask

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


def _with_exif(path, orientation):
    """Puts the orientation into a PNG, after its header."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content, about = path.read_bytes(), exif.tobytes()[6:]
    checked = b"eXIf" + about
    chunk = len(about).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")
    path.write_bytes(content[:33] + chunk + content[33:])


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["deep", "deep grey", "colour", "palette"])
def test_png_of_any_depth_is_turned(tmp_path, kind, orientation):
    path = tmp_path / "x.png"
    stored = {"deep": DEEP, "deep grey": DEEP[..., :1], "colour": (DEEP >> 8).astype(np.uint8)}.get(kind)
    if kind == "deep":
        _deep_png(path)
    elif kind == "palette":
        picture = Image.fromarray((DEEP >> 8).astype(np.uint8)).quantize(8)
        picture.save(path)
        stored = np.asarray(picture.convert("RGB"))
    else:
        Image.fromarray(stored.squeeze()).save(path)
    _with_exif(path, orientation)
    np.testing.assert_array_equal(open_source(path).read(0), TURNS[orientation](stored))


@pytest.mark.parametrize("layout", [{}, {"interlace": True}])
def test_sixteen_bits_of_colour_in_png_need_no_further_library(tmp_path, layout, monkeypatch):
    with open(tmp_path / "x.png", "wb") as handle:
        png.Writer(10, 12, greyscale=False, bitdepth=16, **layout).write(handle, DEEP.reshape(12, 30))
    monkeypatch.setitem(sys.modules, "png", None)
    np.testing.assert_array_equal(open_source(tmp_path / "x.png").read(0), DEEP)


GREY8 = (DEEP[..., 0] >> 8).astype(np.uint8)
RGB8 = (DEEP >> 8).astype(np.uint8)
CLEAR = {
    "grey": lambda path: Image.fromarray(GREY8).save(path, transparency=0),
    "deep grey": lambda path: Image.fromarray(DEEP[..., 0]).save(path, transparency=0),
    "colour": lambda path: Image.fromarray(RGB8).save(path, transparency=(1, 2, 3)),
    "palette": lambda path: Image.fromarray(RGB8).quantize(8).save(path, transparency=bytes([0, 128, 255])),
    "one of a palette": lambda path: Image.fromarray(RGB8).quantize(8).save(path, transparency=2),
    "grey with alpha": lambda path: Image.fromarray(np.dstack([GREY8, GREY8]), "LA").save(path),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_transparency_is_refused(tmp_path, kind):
    CLEAR[kind](tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x.png: (has transparent pixels|colour mode LA).* it to grey or RGB"):
        open_source(tmp_path / "x.png")


def test_a_palette_whose_alpha_hides_nothing_is_read(tmp_path):
    Image.fromarray(RGB8).quantize(8).save(tmp_path / "x.png", transparency=bytes([255] * 8))
    assert open_source(tmp_path / "x.png").shape == (1, 12, 10, 3)


@pytest.mark.parametrize("kind", ["MPO", "PNG"])
def test_of_several_pictures_in_one_the_first_is_read(tmp_path, kind):
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (50, 200)]
    for name in "ab":
        path = tmp_path / f"{name}.{'jpg' if kind == 'MPO' else 'png'}"
        frames[0].save(path, format=kind, save_all=True, append_images=frames[1:])
    source = open_source(tmp_path)
    assert source.shape == (2, 16, 16, 1) and abs(source.read(1).astype(int) - 50).max() < 3
    assert source.notes == (f"2 files hold several pictures each, of which the first is read (a{path.suffix} ...)",)


FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n",
    "BMP": "BMP",
    "GIF": "GIF",
    "WebP": "WEBP",
}
PROGRAMS = "gs gswin32c gswin64c djpeg cjpeg ppmtogif convert magick display curl wget xz unzip h5dump dcmdjpeg"


events: list[str] = []
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "socket.connect")


@functools.cache
def watch():
    """Notes every start of a program in this process from now on."""
    importlib.import_module("h5py")  # which asks uname for the processor, whatever the file
    sys.addaudithook(lambda event, _: events.append(event) if event in STARTS else None)


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """Stand-ins of programs on PATH, and a look at every start of one and at every connection."""
    (tmp_path / "bin").mkdir()
    for name in PROGRAMS.split():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    watch()
    events.clear()
    yield
    assert not (tmp_path / "started").exists() and events == []


def test_files_that_a_tiff_names_are_not_opened(tmp_path):
    """OME-TIFF, the Micro-Manager and MD Gel formats name further files; a pipe would be waited for without end."""
    os.mkfifo(tmp_path / "other.ome.tif")
    pixels = '<Pixels ID="p" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="2" SizeC="1" SizeT="1">'
    data = '<TiffData FirstZ="1" IFD="0"><UUID FileName="other.ome.tif">urn:uuid:2</UUID></TiffData></Pixels>'
    text = f'<?xml version="1.0"?><OME xmlns="ome" UUID="urn:uuid:1"><Image ID="i">{pixels}{data}</Image></OME>'
    tifffile.imwrite(tmp_path / "x.ome.tif", np.ones((8, 8), np.uint8), description=text, metadata=None)
    assert open_source(tmp_path / "x.ome.tif").read(0).min() == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".dcm", ".npy", ".npz", ".mat", ".h5"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_nothing_but_pictures_is_decoded_and_no_program_is_started(tmp_path, no_programs, kind, suffix):
    path = tmp_path / f"x{suffix}"
    if isinstance(FOREIGN[kind], bytes):
        path.write_bytes(FOREIGN[kind])
    else:
        with open(path, "wb") as handle:
            Image.fromarray(RGB8).save(handle, FOREIGN[kind])
    expected = f"not a readable picture; it is {kind}, no PNG" if suffix in (".png", ".jpg", ".tif") else ""
    for read in (open_source, lambda file: read_mask(str(file), (8, 8))):
        with pytest.raises(UserError, match=f"x{suffix}: .*{expected}"):
            read(path)


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "JPEG"), (".jpg", "PNG"), (".png", "TIFF")])
def test_the_contents_decide_between_the_pictures_that_are_read(tmp_path, suffix, kind):
    with open(tmp_path / f"x{suffix}", "wb") as handle:
        Image.fromarray(RGB8).save(handle, kind)
    assert open_source(tmp_path / f"x{suffix}").shape == (1, 12, 10, 3)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "int64", "uint64", "float32", "float64"])
def test_masks_of_zeros_and_ones_of_any_type(tmp_path, dtype):
    known = DEEP[..., 0] > 2**15
    np.save(tmp_path / "m.npy", known.astype(dtype))
    np.testing.assert_array_equal(read_mask(str(tmp_path / "m.npy"), (12, 10)), known)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (lambda known: known * np.uint8(255), True),
        (lambda known: known * np.uint8(1), True),
        (lambda known: known * np.uint16(65535), True),
        (lambda known: known * np.uint16(1), True),
        (lambda known: known, True),
        (lambda known: known * np.uint8(100), False),
    ],
)
def test_masks_that_are_pictures(tmp_path, values, expected):
    known = DEEP[..., 0] > 2**15
    Image.fromarray(values(known)).save(tmp_path / "m.png")
    if expected:
        np.testing.assert_array_equal(read_mask(str(tmp_path / "m.png"), (12, 10)), known)
    else:
        with pytest.raises(UserError, match=r"--mask .*m.png: no pixel is above half of white"):
            read_mask(str(tmp_path / "m.png"), (12, 10))


@pytest.mark.parametrize("values", [[[0, 1, 2]], [[-1, 0, 1]], [[0.0, np.nan, 1.0]], [[0, 0, 0]]])
def test_what_is_no_mask(tmp_path, values):
    np.save(tmp_path / "m.npy", np.array(values).repeat(4, 0))
    with pytest.raises(UserError, match="--mask .*m.npy: (values from|is in colour, or not finite|no pixel)"):
        read_mask(str(tmp_path / "m.npy"), (4, 3))
