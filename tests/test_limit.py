"""--max-memory: what a file may take when decoded is known from its header, and refused before it is decoded."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny import refused

from padis_jax.cli import data
from padis_jax.devices.memory import Growth, available
from padis_jax.errors import UserError
from padis_jax.images import open_source, read_images
from padis_jax.images.limit import check_decoded_bytes, max_memory, set_max_memory
from padis_jax.problems.user_files import read_mask


@contextlib.contextmanager
def bounded(megabytes):
    """Fails if the process grows by more, at any time, within the block."""
    growth = Growth()
    yield
    assert growth() < megabytes * 2**20


@pytest.fixture
def limit():
    yield set_max_memory
    set_max_memory(None)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path, width, height, colour, pixels):
    """A PNG by hand; `colour` 0 is grey, 2 RGB."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("text", "expected"), [("500M", 500 * 2**20), ("1.5 GiB", 3 * 2**29), ("8gb", 2**33), ("700", 700), (9, 9)]
)
def test_sizes(limit, text, expected):
    limit(text)
    assert max_memory() == expected


@pytest.mark.parametrize("text", ["0", "-1", "8 X", "lots", "1e99"])
def test_what_is_no_size(limit, text, capsys):
    line = refused(data.main, ["inspect", "x.png", f"--max-memory={text}"], capsys)
    assert line.startswith(f"error: --max-memory {text!r}: give bytes, or a number with K, M, G or T")


def test_by_default_it_is_half_of_what_is_free():
    assert max_memory() == pytest.approx(available() / 2, rel=0.2)
    with pytest.raises(UserError, match=rf"x: takes {10**15} bytes of memory .*, over the limit of \d+ \(half of"):
        check_decoded_bytes("x", 10**15)


def test_the_line_has_both_numbers(tmp_path, limit, capsys):
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / "x.png")
    line = refused(data.main, ["inspect", str(tmp_path / "x.png"), "--max-memory", "59999"], capsys)
    assert (
        "x.png: takes 60000 bytes of memory when decoded (1x100x200x3), over the limit of 59999 (--max-memory)" in line
    )
    data.main(["inspect", str(tmp_path / "x.png"), "--max-memory", "60000", "--json"])


@pytest.mark.parametrize("kind", ["png", "tiff", "mask"])
def test_large_pictures_of_few_bytes_are_refused_by_their_header(tmp_path, kind):
    if kind == "tiff":  # 50000 x 50000, of which one strip is there
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tif:
            for tag in (256, 257):
                at = tif.pages[0].tags[tag].valueoffset
                content[at : at + 4] = struct.pack("<HH", 50_000, 0)
        path.write_bytes(content + bytes(4 * 10**6))
    else:
        path = png(tmp_path / "x.png", 13_000, 13_000, 2, bytes(10**6))
    with bounded(megabytes=100), pytest.raises(UserError, match=r"x\.\w+: declares a slice of \d+ values .*bytes when"):
        read_mask(str(path), (8, 8)) if kind == "mask" else open_source(path)


def test_a_png_with_more_pixels_than_its_size(tmp_path):
    """The surplus of 100 MB is neither read into the picture nor inflated."""
    rows = b"".join(b"\0" + bytes([y] * 8) for y in range(8))
    path = png(tmp_path / "x.png", 8, 8, 0, zlib.compress(rows + bytes(10**8), 1))
    with bounded(megabytes=50):
        assert (read_images(path).images[0, :, 0, 0] * 255).tolist() == list(range(8))


def test_a_set_beyond_the_limit_is_read_as_it_is_needed(tmp_path, limit):
    np.save(tmp_path / "x.npy", np.zeros((10, 50, 50), np.float32))
    limit(50_000)
    assert not isinstance(read_images(tmp_path / "x.npy").images, np.ndarray)
