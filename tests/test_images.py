"""Images, files, windows, splits, and one-line errors: what is read, and what is refused in which words."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from padis_jax import files
from padis_jax.errors import UserError, one_line_errors
from padis_jax.images import HOUNSFIELD, PLAIN, Window, read_images
from padis_jax.split import split_slices
from padis_jax.writers import write_png

GREY = (np.arange(12 * 10).reshape(12, 10) * 2).astype(np.uint8)


def png(path, pixels=GREY):
    Image.fromarray(pixels).save(path)
    return path


class Payload:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


# Windows


def test_hounsfield_window_maps_air_water_and_bone():
    values = np.array([-1024, -1000, 0, 500, 1000, 2986], np.int16)
    np.testing.assert_allclose(HOUNSFIELD.to_unit(values), [0, 0, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(HOUNSFIELD.from_unit(np.array([0.0, 0.25, 1.0])), [-1000, -500, 1000])
    assert isinstance(HOUNSFIELD.from_unit(jnp.ones(3)), type(jnp.ones(3)))


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_window_must_be_an_interval(low, high):
    with pytest.raises(UserError, match="low .* must be below high"):
        Window("HU", low, high)


# Reading


def test_a_volume_is_read_in_its_window(tmp_path):
    volume = np.linspace(-1024, 1500, 3 * 8 * 9).reshape(3, 8, 9).astype(np.int16)
    np.savez(tmp_path / "ct.npz", volume=volume, spacing=np.array([1.5, 0.9, 0.8]))
    read = read_images(tmp_path / "ct.npz")
    assert read.images.shape == (3, 8, 9, 1) and read.images.dtype == np.float32
    np.testing.assert_allclose(read.images[..., 0], np.clip((volume + 1000.0) / 2000.0, 0, 1), atol=1e-6)
    assert read.spacing == (1.5, 0.9, 0.8) and read.window == HOUNSFIELD and read.names[2] == "slice 2"
    brain = Window("HU", 0.0, 80.0)
    narrow = read_images(tmp_path / "ct.npz", window=brain)
    np.testing.assert_allclose(narrow.images[..., 0], np.clip(volume / 80.0, 0, 1), atol=1e-6)
    assert narrow.window == brain


def test_the_shipped_head_is_as_described(request):
    head = read_images(request.config.rootpath / "data" / "head_ct.npz")
    assert head.images.shape == (108, 256, 256, 1) and head.spacing is not None
    np.testing.assert_allclose(head.spacing, (1.5, 0.957, 0.957), atol=1e-3)
    assert 0.25 < head.images.std() < 0.31  # 0.28 by the documents


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    png(tmp_path / "b.png", GREY + 1)
    png(tmp_path / "a.png", GREY)
    (tmp_path / "notes.txt").write_text("passed over")
    (tmp_path / ".hidden.png").write_text("passed over")
    read = read_images(tmp_path)
    assert read.names == ("a.png", "b.png") and read.images.shape == (2, 12, 10, 1)
    np.testing.assert_allclose(read.images[..., 0] * 255, np.stack([GREY, GREY + 1]), atol=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_colour_pictures(tmp_path, suffix):
    colour = np.full((12, 10, 3), (200, 100, 50), np.uint8)
    Image.fromarray(colour).save(tmp_path / f"x{suffix}")
    read = read_images(tmp_path / f"x{suffix}")
    np.testing.assert_allclose(read.images[0] * 255, colour, atol=3)
    assert read.images.shape == (1, 12, 10, 3) and read.window == PLAIN


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_grey_are_kept(tmp_path, suffix):
    fine = (30000 + np.arange(120).reshape(12, 10)).astype(np.uint16)  # all equal at 8 bits
    Image.fromarray(fine).save(tmp_path / f"x{suffix}")
    np.testing.assert_allclose(read_images(tmp_path).images[0, ..., 0], fine / 65535.0, atol=1e-7)


def test_a_palette_is_resolved_and_float_pictures_are_read(tmp_path):
    Image.fromarray(np.full((8, 8, 3), (10, 200, 30), np.uint8)).quantize(4).save(tmp_path / "p.png")
    np.testing.assert_allclose(read_images(tmp_path / "p.png").images[0, 0, 0] * 255, (10, 200, 30), atol=2)
    Image.fromarray(np.full((8, 8), -250.0, np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_allclose(read_images(tmp_path / "f.tif", window=HOUNSFIELD).images, 0.375)


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 7), (1, 6, 7, 1)), ((5, 6, 7), (5, 6, 7, 1)), ((5, 6, 7, 3), (5, 6, 7, 3))]
)
def test_arrays_of_two_to_four_axes(tmp_path, shape, expected):
    array = np.random.default_rng(0).random(shape)
    np.save(tmp_path / "x.npy", array)
    read = read_images(tmp_path / "x.npy")
    assert read.images.shape == expected and read.images.dtype == np.float32
    np.testing.assert_allclose(read.images.ravel(), array.ravel(), atol=1e-7)


def test_select_keeps_names_with_images(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0)[:, None, None] * np.ones((8, 8)) / 5)
    chosen = read_images(tmp_path / "x.npy").select([3, 1])
    assert chosen.names == ("x 3", "x 1")
    np.testing.assert_allclose(chosen.images[:, 0, 0, 0], [0.6, 0.2])
    with pytest.raises(UserError, match="no image 2 of 2, counted from 0 to 1"):
        chosen.select([2])
    with pytest.raises(UserError, match="no image -1"):
        chosen.select([-1])


# Refusing


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def save_npy(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def with_bytes(path, data):
    path.write_bytes(data)
    return path


def two_sizes(folder):
    png(folder / "a.png")
    png(folder / "b.png", GREY[:, :9])
    return folder


def two_kinds(folder):
    png(folder / "a.png")
    png(folder / "b.png", np.stack([GREY] * 3, -1))
    return folder


def several_kinds(folder):
    two_kinds(folder)
    save_npy(folder / "x.npy", np.zeros((8, 8)))
    return folder


def truncated(folder, name="cut.png"):
    png(folder / name, np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    data = (folder / name).read_bytes()
    return with_bytes(folder / name, data[: len(data) // 2])


def pages(path):
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY[:9])])
    return path


def with_nan(shape, index):
    array = np.full(shape, 0.5)
    array[index] = np.nan
    return array


def cut_archive(path):
    save_npz(path, volume=np.random.default_rng(0).random((3, 32, 32)))
    return with_bytes(path, path.read_bytes()[:2000])


BAD = {
    "missing": (lambda d: d / "nowhere", "nowhere: no such file or folder; check the path"),
    "empty folder": (lambda d: d, "no images in this folder; it should hold files of type .npy, .npz"),
    "mixed sizes": (
        two_sizes,
        r"b.png: 9 x 12 grey of 8 bits, but a.png is 10 x 12 grey of 8 bits; give all the same size",
    ),
    "mixed kinds": (two_kinds, r"b.png: 10 x 12 colour of 8 bits, but a.png is 10 x 12 grey"),
    "truncated png": (truncated, "cut.png: not a readable picture; it is damaged or truncated"),
    "truncated tiff": (lambda d: truncated(d, "cut.tif"), "cut.tif: declares 4096 bytes of values .* but holds 2109"),
    "no png at all": (lambda d: with_bytes(d / "x.png", b"text"), "x.png: not a readable picture"),
    "alpha": (lambda d: png(d / "x.png", np.zeros((8, 8, 4), np.uint8)), "x.png: colour mode RGBA .* without alpha"),
    "pages": (lambda d: pages(d / "x.tif"), "x.tif, page 1: 10 x 9 grey of 8 bits, but x.tif is 10 x 12 grey"),
    "unknown suffix": (lambda d: with_bytes(d / "x.gif", b""), r"'.gif' are not supported; give .npy, .npz, .mat"),
    "zero byte": (lambda d: f"{d}/a\0b.png", "no such file or folder"),
    "name too long": (lambda d: d / ("x" * 300), "no such file or folder"),
    "name of an array": (lambda d: f"{png(d / 'x.png')}::volume", r"::volume names an array in a .npz, .mat or .hdf5"),
    "several kinds": (several_kinds, r"2 picture \(a.png\) and 1 npy \(x.npy\); name one kind, for example .*/\*.png"),
    "nan": (
        lambda d: save_npy(d / "x.npy", with_nan((3, 8, 8), (2, 1, 4))),
        r"x.npy: x 2 is nan at index \(1, 4\)",
    ),
    "inf": (
        lambda d: save_npz(d / "x.npz", volume=np.full((1, 8, 8), np.inf)),
        r"slice 0 is inf at index \(0, 0\)",
    ),
    "complex": (lambda d: save_npy(d / "x.npy", np.zeros((8, 8), complex)), "complex128, expected real numbers"),
    "text": (lambda d: save_npy(d / "x.npy", np.array([["a", "b"]])), "expected real numbers"),
    "integers": (
        lambda d: save_npy(d / "x.npy", np.zeros((8, 8), np.int16)),
        "int16 have no known range; give a window",
    ),
    "out of range": (
        lambda d: save_npy(d / "x.npy", np.full((8, 8), 7.5)),
        r"has values 7.5 to 7.5, not within \[0, 1\]",
    ),
    "one axis": (lambda d: save_npy(d / "x.npy", np.zeros(8)), r"shape \(8,\), expected \[H, W\]"),
    "no pixel": (lambda d: save_npy(d / "x.npy", np.zeros((0, 8, 8))), "expected .* none of them 0"),
    "colour without N": (lambda d: save_npy(d / "x.npy", np.zeros((8, 8, 3))), r"is read as \[N, H, W\]; store colour"),
    "objects": (lambda d: save_npy(d / "x.npy", np.array([[None]])), "x.npy: not a readable .npy .*Python objects"),
    "pickle": (lambda d: with_bytes(d / "x.npy", pickle.dumps([1])), "x.npy: not a readable .npy"),
    "cut npy": (lambda d: with_bytes(d / "x.npy", b"\x93NUMPY\x01\x00v\x00"), "x.npy: not a readable .npy"),
    "no volume": (
        lambda d: save_npz(d / "x.npz", data=np.zeros(3), b=np.zeros(1)),
        r"holds data \(3,\), b \(1,\), but no array `volume`",
    ),
    "flat volume": (lambda d: save_npz(d / "x.npz", volume=np.zeros((8, 8))), r"shape \(8, 8\), expected \[slices"),
    "unit volume": (
        lambda d: save_npz(d / "x.npz", volume=np.full((1, 8, 8), 0.5)),
        "not in Hounsfield units; give a window",
    ),
    "object volume": (
        lambda d: save_npz(d / "x.npz", volume=np.array([[[None]]])),
        "x.npz: holds nothing, but no array",
    ),
    "cut npz": (lambda d: cut_archive(d / "x.npz"), "x.npz: not a readable .npz of arrays"),
    "no zip": (lambda d: with_bytes(d / "x.npz", b"text"), "x.npz: not a readable .npz"),
    "array called npz": (lambda d: with_bytes(d / "x.npz", npy_bytes()), "x.npz: not a readable .npz"),
    "spacing": (
        lambda d: save_npz(d / "x.npz", volume=np.full((1, 8, 8), 20), spacing=np.array([1.0, -1.0, 1.0])),
        r"`spacing` is \[1.0, -1.0, 1.0\], expected three positive lengths in mm",
    ),
}


def npy_bytes():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_clear_line(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        read_images(make(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_nothing_is_unpickled(tmp_path):
    trap = tmp_path / "unpickled"
    array = np.empty((1, 1), object)
    array[0, 0] = Payload(trap)
    save_npy(tmp_path / "x.npy", array)
    save_npz(tmp_path / "x.npz", volume=array)
    with_bytes(tmp_path / "y.npy", pickle.dumps(Payload(trap)))
    for name in ("x.npy", "x.npz", "y.npy"):
        with pytest.raises(UserError):
            read_images(tmp_path / name)
    assert not trap.exists()


# Writing


def test_png_round_trip(tmp_path, no_temporary_files):
    ramp = np.linspace(-0.2, 1.2, 120).reshape(12, 10)
    write_png(tmp_path / "sub" / "x.png", ramp[..., None])
    np.testing.assert_allclose(read_images(tmp_path / "sub").images[0, ..., 0], ramp.clip(0, 1), atol=0.5 / 255 + 1e-6)
    write_png(tmp_path / "rgb.png", jnp.ones((4, 5, 3)) * 0.2)
    np.testing.assert_allclose(read_images(tmp_path / "rgb.png").images, 0.2, atol=1e-6)
    write_png(tmp_path / "two.png", np.stack([ramp, 1 - ramp], -1))  # beside each other
    found = read_images(tmp_path / "two.png").images[0, ..., 0]
    np.testing.assert_allclose(found, np.hstack([ramp, 1 - ramp]).clip(0, 1), atol=0.5 / 255 + 1e-6)
    with pytest.raises(ValueError, match=r"got \(4,\)"):
        write_png(tmp_path / "x.png", np.zeros(4))


def test_arrays_and_json_round_trip(tmp_path, no_temporary_files):
    files.write_npy(tmp_path / "x.npy", jnp.arange(3.0))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), [0, 1, 2])
    files.write_npz(tmp_path / "x.npz", {"a": jnp.arange(3), "b": 2.0})
    with np.load(tmp_path / "x.npz") as archive:
        assert sorted(archive.files) == ["a", "b"] and archive["b"] == 2.0
    value = {"window": HOUNSFIELD, "psnr": jnp.float32(30.5), "worst": float("inf"), "shape": (3, 4), "at": tmp_path}
    files.write_json(
        tmp_path / "x.json", value | {"nested": [np.float32("nan"), np.arange(2)], "none": None, "yes": True}
    )
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "window": {"unit": "HU", "low": -1000.0, "high": 1000.0},
        "psnr": 30.5,
        "worst": None,
        "shape": [3, 4],
        "at": str(tmp_path),
        "nested": [None, [0, 1]],
        "none": None,
        "yes": True,
    }


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError("x")]
)
def test_a_failed_write_leaves_the_older_file(tmp_path, no_temporary_files, failure):
    target = tmp_path / "x.json"
    files.write_json(target, {"old": 1})
    with pytest.raises((UserError, KeyboardInterrupt, ValueError)) as caught, files.replacing(target) as handle:
        handle.write(b"half of the new")
        raise failure
    assert json.loads(target.read_text()) == {"old": 1}
    if isinstance(failure, OSError):
        assert isinstance(caught.value, UserError) and "x.json: could not be written (No space left" in str(
            caught.value
        )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_at_the_last_flush_leaves_the_older_file(tmp_path, monkeypatch):
    files.write_bytes(tmp_path / "x.bin", b"old")
    monkeypatch.setattr(files, "open", lambda path, mode: open("/dev/full", "wb"), raising=False)
    with pytest.raises(UserError, match="x.bin: could not be written .*No space left.* earlier file .* is unchanged"):
        files.write_bytes(tmp_path / "x.bin", b"new")
    assert (tmp_path / "x.bin").read_bytes() == b"old"


def test_a_folder_in_the_way_is_named(tmp_path, no_temporary_files):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(UserError, match="x.json: could not be written"):
        files.write_json(tmp_path / "x.json", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="y.json: .*file is a file, not a folder"):
        files.write_json(tmp_path / "file" / "y.json", {})


def test_a_link_is_followed_and_the_mode_is_the_users(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    files.write_bytes(tmp_path / "link.txt", b"new")
    assert (tmp_path / "real.txt").read_bytes() == b"new" and (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


# The split


def test_the_split_of_the_head():
    split = split_slices(108)
    assert split.test == (20, 41, 62, 83) and split.validation == (30, 73)
    assert len(split.train) == 70
    assert sorted(split.train + split.validation + split.test + split.gap) == list(range(108))
    assert {split.distance(index) for index in split.test} == {4}
    assert {split.distance(index) for index in split.validation} == {3}
    assert split.distance(split.train[5]) == 0 and split.distance(22) == 2


def test_overlapping_gaps_are_allowed():
    split = split_slices(12, test=(3,), validation=(5,), test_gap=2, validation_gap=1)
    assert split == ((0, 7, 8, 9, 10, 11), (5,), (3,), (1, 2, 4, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": (12,), "validation": ()}, "no test slice 12, the set has 12"),
        ({"test": (), "validation": (-1,)}, "no validation slice -1"),
        ({"test": (3,), "validation": (3,)}, "slice 3 is named for test and for validation"),
        ({"test": (6,), "validation": (), "test_gap": 9}, "none of 12 slices is left"),
        ({"test": (6,), "validation": (), "test_gap": -1}, "gaps must be 0 or more"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        split_slices(12, **arguments)


# One line for the user


@pytest.mark.parametrize(
    ("raised", "line", "code"),
    [
        (UserError("x.png: two\n lines"), "error: x.png: two lines\n", 2),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n", 2),
        (PermissionError(errno.EACCES, "Permission denied", "x.json"), "error: x.json: Permission denied\n", 2),
        (KeyboardInterrupt(), "error: interrupted\n", 130),
    ],
)
def test_mistakes_become_one_line_and_an_exit_code(capsys, raised, line, code):
    @one_line_errors()
    def main():
        raise raised

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert capsys.readouterr() == ("", line)


def test_defects_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018
    with one_line_errors():
        pass


def test_every_known_suffix_is_read(tmp_path):
    for suffix in (".png", ".tif", ".tiff", ".jpg", ".jpeg"):
        png(tmp_path / f"x{suffix}")
        assert read_images(tmp_path / f"x{suffix}").images.shape == (1, 12, 10, 1)
