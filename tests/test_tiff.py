"""TIFF in: what tags say of black, depth, orientation and stacks, against the arrays that were written."""

import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from members.pictures import CODECS, tiff
from PIL import Image
from test_limit import bounded

from padis_jax.errors import UserError
from padis_jax.images import Window, open_source, read_images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 2**16, (12, 20), np.uint16)
COLOUR = RNG.integers(0, 2**16, (12, 20, 3), np.uint16)
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def stored(path):
    """The only slice of a file, [H, W] or [H, W, 3]."""
    source = open_source(path)
    assert source.shape[0] == 1
    found = source.read(0)
    assert found.shape == source.shape[1:] and found.dtype == source.dtype
    return found[..., 0] if found.shape[-1] == 1 else found


def raw_tiff(path, data, shape, bits, photometric=1, **tags):
    """A TIFF of one strip, tag by tag."""
    entries = {256: shape[1], 257: shape[0], 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: shape[0]}
    entries |= {279: len(data)} | {int(tag[1:]): value for tag, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(4) + data)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, "tiles"])
@pytest.mark.parametrize("kind", "uint8 int8 uint16 int16 uint32 int32 float16 float32 float64".split())
def test_every_type_is_read_as_it_is_stored(tmp_path, kind, layout, byteorder):
    layout = {"tile": (16, 16)} if layout == "tiles" else layout
    dtype = np.dtype(kind)
    if dtype.kind == "f" and "predictor" in layout:
        pytest.skip("tifffile writes this with imagecodecs only")
    low, high = (0, 1) if dtype.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = RNG.uniform(low, high, (12, 20)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", values, byteorder=byteorder, **layout)
    np.testing.assert_array_equal(stored(tmp_path / "x.tif"), values)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float16", "float32", "bool"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero(tmp_path, kind, compression):
    values = GREY / 65535 if kind.startswith("float") else GREY > 2**15 if kind == "bool" else GREY
    values = values.astype(kind)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite", compression=compression)
    white = {"f": 1, "b": True}.get(values.dtype.kind) or np.iinfo(kind).max
    np.testing.assert_array_equal(stored(tmp_path / "x.tif"), white ^ values if kind == "bool" else white - values)


def test_white_is_zero_where_black_is_not_known(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GREY.astype(np.float32), photometric="miniswhite")
    with pytest.raises(UserError, match="x.tif: white is 0, and which float32 is black is not told"):
        stored(tmp_path / "x.tif")


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_packed_depths_have_their_own_white(tmp_path, bits, photometric):
    values = RNG.integers(0, 2**bits, (11, 19))
    width = -(-19 * bits // 8) * 8
    rows = ["".join(f"{v:0{bits}b}" for v in row).ljust(width, "0") for row in values]
    data = int("".join(rows), 2).to_bytes(11 * width // 8, "big")
    path = raw_tiff(tmp_path / "x.tif", data, (11, 19), bits, photometric)
    white = 2**bits - 1
    expected = (values if photometric else white - values) / white
    np.testing.assert_allclose(read_images(path).images[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("codec", ["raw", "deflate", "lzw", "packbits"])
def test_the_last_bit_may_come_first(tmp_path, bits, codec):
    """FillOrder 2: every byte of the file is turned around, after its compression."""
    values = RNG.integers(0, 2**bits, (11, 19), np.uint16).astype("u2" if bits > 8 else "u1")
    turned = {**CODECS, "turned": (CODECS[codec][0], lambda data: reversed_bits(CODECS[codec][1](data)))}
    data = tiff(values, bits=bits, codec="turned", codecs=turned, fill_order=2)
    (tmp_path / "x.tif").write_bytes(data)
    np.testing.assert_array_equal(stored(tmp_path / "x.tif"), values)


def reversed_bits(data):
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("layout", [{}, {"compression": "zlib"}, "lzw", "planar", "deep lzw"])
def test_orientation_turns_once(tmp_path, orientation, layout):
    values = COLOUR if layout in ("planar", {}) else GREY
    tag = [(274, "H", 1, orientation, True)]
    if layout == "lzw":
        values = (GREY >> 8).astype(np.uint8)
        Image.fromarray(values).save(tmp_path / "x.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    elif layout == "deep lzw":
        Image.fromarray(values).save(tmp_path / "x.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    elif layout == "planar":
        planes = np.moveaxis(values, -1, 0)
        tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate", extratags=tag)
    else:
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(tmp_path / "x.tif", values, photometric=photometric, extratags=tag, **layout)
    np.testing.assert_array_equal(stored(tmp_path / "x.tif"), TURNS[orientation](values))


def test_palettes_and_jpeg_inside_are_colour(tmp_path):
    picture = Image.fromarray((COLOUR >> 8).astype(np.uint8))
    picture.quantize(16).save(tmp_path / "p.tif")
    np.testing.assert_array_equal(stored(tmp_path / "p.tif"), np.asarray(picture.quantize(16).convert("RGB")))
    smooth = Image.fromarray(np.full((32, 32, 3), (200, 100, 50), np.uint8))
    smooth.save(tmp_path / "j.tif", compression="jpeg")
    assert abs(stored(tmp_path / "j.tif").astype(int) - (200, 100, 50)).max() < 4


STACK = RNG.integers(0, 2**16, (5, 12, 20), np.uint16)
STACKS = {
    "pages": {"photometric": "minisblack"},
    "compressed pages": {"photometric": "minisblack", "compression": "zlib"},
    "ImageJ": {"imagej": True},
    "ImageJ, one page entry": {"imagej": True, "truncate": True},
    "tifffile, one page entry": {"truncate": True, "photometric": "minisblack"},
    "volumetric": {"volumetric": True, "photometric": "minisblack"},
    "volumetric tiles": {"volumetric": True, "photometric": "minisblack", "tile": (16, 16, 16), "compression": "zlib"},
    "BigTIFF": {"bigtiff": True, "photometric": "minisblack"},
}


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_stack_has_all_its_slices(tmp_path, kind, dtype):
    tifffile.imwrite(tmp_path / "x.tif", STACK.astype(dtype), **STACKS[kind])
    source = open_source(tmp_path / "x.tif")
    assert source.shape == (5, 12, 20, 1) and source.names[3] == "x.tif 3"
    for index in (4, 0, 2):
        np.testing.assert_array_equal(source.read(index)[..., 0], STACK[index])


def test_pages_that_pillow_decodes_are_not_read_from_the_first_one_on(tmp_path):
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    source = open_source(tmp_path / "x.tif")
    np.testing.assert_array_equal([source.read(index)[..., 0] for index in range(5)], STACK)


def test_libtiff_says_nothing_by_itself(tmp_path, capfd):
    Image.fromarray(GREY).save(tmp_path / "x.tif", compression="tiff_lzw")
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[8:300] = bytes(292)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(UserError, match="x.tif: not a readable"):
        stored(tmp_path / "x.tif")
    assert capfd.readouterr().err == ""


def test_a_stack_that_was_cut(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", STACK, imagej=True, truncate=True)
    (tmp_path / "x.tif").write_bytes((tmp_path / "x.tif").read_bytes()[: -2 * 12 * 20])
    with pytest.raises(UserError, match=r"x\.tif: declares (2400 bytes|5 images)"):
        open_source(tmp_path / "x.tif")


def test_pages_in_a_circle(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", STACK, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        first, last = tif.pages[0].offset, tif.pages[4]
        where = last.offset + 2 + 12 * len(last.tags)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[where : where + 4] = first.to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tif: has more than \d+ pages, or pages in a circle"):
        open_source(tmp_path / "x.tif")


def test_thumbnails_are_no_slices(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as tif:
        tif.write(GREY, metadata=None)
        tif.write(GREY[::2, ::2], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(stored(tmp_path / "x.tif"), GREY)


def test_a_thousand_pages_take_seconds(tmp_path):
    """Time grows with the number of pages, not with its square."""
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((1000, 4, 4), np.uint16), photometric="minisblack", metadata=None)
    start = time.process_time()
    assert read_images(tmp_path / "x.tif").images.shape == (1000, 4, 4, 1)
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    ("values", "tags", "message"),
    [
        (
            COLOUR[..., :2],
            {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
            "2 samples per pixel of MINISBLACK",
        ),
        (np.zeros((8, 8, 4), np.uint8), {"photometric": "separated"}, "4 samples per pixel of SEPARATED"),
        (np.zeros((8, 8), np.complex64), {}, "64 bits of complex64 in MINISBLACK are not supported"),
    ],
)
def test_what_has_no_grey_or_colour_is_refused(tmp_path, values, tags, message):
    tifffile.imwrite(tmp_path / "x.tif", values, **tags)
    with pytest.raises(UserError, match=f"x.tif: {message}"):
        open_source(tmp_path / "x.tif")


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_a_strip_that_inflates_to_more_than_its_page(tmp_path, dtype):
    """100 MB behind a page of 12 x 20; nothing beyond the page is inflated."""
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((12, 20), dtype), compression="zlib", metadata=None)
    bomb = zlib.compress(bytes(10**8), 1)
    data = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as tif:
        page = tif.pages[0]
        where, count = page.tags[273].valueoffset, page.tags[279].valueoffset
    data[where : where + 4] = len(data).to_bytes(4, "little")
    data[count : count + 4] = len(bomb).to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(bytes(data) + bomb)
    with bounded(megabytes=50), pytest.raises(UserError, match="x.tif: a part of it inflates to more than"):
        stored(tmp_path / "x.tif")


def test_values_beyond_31_bits(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.full((9, 9), 3_000_000_000, np.uint32))
    assert read_images(tmp_path / "x.tif", window=Window("x", 0.0, 4e9)).images[0, 0, 0, 0] == pytest.approx(0.75)
