"""MATLAB and HDF5 in: the variable that is named or the only one, the axes of each, and damage refused."""

import struct

import h5py
import numpy as np
import pytest
import scipy.io

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, open_source, read_images
from padis_jax.images.matlab import slices_first

IMAGES = np.random.default_rng(0).random((7, 6, 5)).astype(np.float32)


def write_mat73(path, variables):
    """As MATLAB writes version 7.3: HDF5 behind 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in variables.items():
            file.create_dataset(name, data=np.asarray(array).T, compression="gzip")
    data = bytearray(path.read_bytes())
    data[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(bytes(data))
    return path


def write_mat5(path, variables):
    scipy.io.savemat(path, variables, do_compression=True)
    return path


@pytest.mark.parametrize("write", [write_mat5, write_mat73])
def test_matlab_counts_slices_last(tmp_path, write):
    path = write(tmp_path / "x.mat", {"stack": np.moveaxis(IMAGES, 0, -1), "note": np.ones((1, 3))})
    read = read_images(path)
    np.testing.assert_array_equal(read.images[..., 0], IMAGES)
    assert slices_first((6, 5, 7)) == (7, 6, 5) and slices_first((6, 5)) == (6, 5)
    assert read.names[3] == "stack 3" and read.volumes == {"x.mat": 7}
    colour = np.random.default_rng(1).integers(0, 255, (6, 5, 3, 4), np.uint8)  # rows, columns, channels, images
    read = read_images(write(tmp_path / "colour.mat", {"photos": colour}))
    np.testing.assert_allclose(read.images[2], colour[..., 2] / 255, atol=1e-6)


@pytest.mark.parametrize("write", [write_mat5, write_mat73])
def test_a_variable_is_named_where_several_could_be_meant(tmp_path, write):
    path = write(tmp_path / "x.mat", {"a": np.zeros((6, 5)), "b": np.ones((6, 5)), "text": np.array([[1.0]])})
    with pytest.raises(UserError, match=r"several arrays \(a \(6, 5\).*name one: .*x.mat::a"):
        read_images(path)
    assert read_images(f"{path}::b").images.mean() == 1.0
    with pytest.raises(UserError, match="but no array 'c'"):
        read_images(f"{path}::c")


def test_hdf5_is_read_slice_by_slice_with_what_is_told_beside_it(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("scan/volume", data=(IMAGES * 1000).astype(np.int16), chunks=(1, 6, 5))
        data.attrs["spacing"], data.attrs["unit"] = (1.5, 0.9, 0.8), "HU"
        file["other"] = np.zeros(9)
    read = read_images(tmp_path / "x.h5")
    np.testing.assert_allclose(read.images[..., 0], ((IMAGES * 1000).astype(int) + 1000) / 2000, atol=1e-6)
    assert read.window == HOUNSFIELD and read.spacing == (1.5, 0.9, 0.8) and read.names[1] == "scan/volume 1"
    assert open_source(f"{tmp_path / 'x.h5'}::scan/volume").shape == (7, 6, 5, 1)


def _hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def _unwritten(path):
    """A terabyte by the header, none of it in the file."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1000, 16384, 16384), np.float32, chunks=(1, 64, 64))
    return path


def _external(path):
    _hdf5(path.with_name("secret"), x=IMAGES)
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink("secret", "/x")
    return path


def _outside(path):
    path.with_name("raw.bin").write_bytes(IMAGES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("x", IMAGES.shape, "f4", external=[(str(path.with_name("raw.bin")), 0, IMAGES.nbytes)])
    return path


def _cut(path, make, keep):
    make(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def _text(path):
    path.write_bytes(b"text")
    return path


def _objects(path):
    cell = np.empty((2, 2), object)
    cell[:] = "text"
    return write_mat5(path, {"cells": cell})


def _five(path):
    return write_mat5(path, {"x": np.random.default_rng(0).random((40, 40))})


BAD = {
    "unwritten": (lambda d: _unwritten(d / "x.h5"), "x.h5: declares 1073741824000 bytes of values .* but holds 0"),
    "external link": (lambda d: _external(d / "x.h5"), "x.h5: holds nothing, but no array"),
    "external values": (lambda d: _outside(d / "x.h5"), "x.h5: the values of x are in other files"),
    "complex": (lambda d: _hdf5(d / "x.h5", x=np.zeros((6, 5), complex)), "x.h5: holds nothing, but no array"),
    "axes": (lambda d: f"{_hdf5(d / 'x.h5', x=np.zeros(9))}::x", "x.h5: x has 1 axes"),
    "colour": (lambda d: _hdf5(d / "x.h5", x=np.zeros((6, 5, 3))), r"is read as \[N, H, W\]"),
    "cut hdf5": (lambda d: _cut(d / "x.h5", lambda p: _hdf5(p, x=IMAGES), 0.6), "x.h5: not a readable HDF5 file"),
    "no hdf5": (lambda d: _text(d / "x.hdf5"), "x.hdf5: not a readable HDF5 file"),
    "cells": (lambda d: _objects(d / "x.mat"), "x.mat: holds nothing, but no array"),
    "cut mat": (lambda d: _cut(d / "x.mat", _five, 0.7), "x.mat: not a readable"),
    "no mat": (lambda d: _text(d / "x.mat"), "x.mat: not a readable .mat file"),
    "spacing": (
        lambda d: (
            write_mat5(d / "x.mat", {"x": np.zeros((6, 5)), "spacing": np.array([1.0, 0.0, 1.0])}) and d / "x.mat"
        ),
        "`spacing` is .* expected three positive lengths",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        read_images(make(tmp_path))
    assert "\n" not in str(caught.value)


def _by_matlab(path, values, kind, flags=0):
    """As MATLAB writes version 5: the class of numbers is `kind`, bytes are what it stores small whole ones in."""

    def element(form, data):
        return struct.pack("<II", form, len(data)) + data + bytes(-len(data) % 8)

    parts = [
        (6, struct.pack("<II", kind | flags, 0)),
        (5, struct.pack("<2i", *values.shape)),
        (1, b"x"),
        (2, values.T.astype(np.uint8).tobytes()),
    ]
    body = b"".join(element(*part) for part in parts)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + element(14, body))
    return path


def _truth_73(path, values):
    with h5py.File(write_mat73(path, {"x": values.astype(np.uint8)}), "a") as file:
        file["x"].attrs["MATLAB_class"] = np.bytes_("logical")
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda path, values: _by_matlab(path, values, 6),
        lambda path, values: _by_matlab(path, values, 9, 0x200),
        _truth_73,
    ],
    ids=["double", "logical", "logical 7.3"],
)
def test_the_class_says_what_white_is_and_not_the_type_that_it_is_stored_in(tmp_path, write):
    values = IMAGES[0] > 0.5
    np.testing.assert_array_equal(read_images(write(tmp_path / "x.mat", values)).images[0, ..., 0], values)
    _by_matlab(tmp_path / "bytes.mat", values * 255, 9)  # uint8 itself is a picture's
    np.testing.assert_array_equal(read_images(tmp_path / "bytes.mat").images[0, ..., 0], values)


def test_a_set_of_one_image_is_found_and_a_row_of_numbers_is_none(tmp_path):
    path = _hdf5(tmp_path / "x.h5", volume=IMAGES[:1], row=np.zeros((1, 9)), one=np.zeros((1, 1, 3)))
    np.testing.assert_array_equal(read_images(path).images[..., 0], IMAGES[:1])
    np.savez(tmp_path / "x.npz", images=np.stack([IMAGES[:1]] * 3, -1))
    assert read_images(tmp_path / "x.npz").images.shape == (1, 6, 5, 3)


@pytest.mark.parametrize("unit", ["HU", np.bytes_("HU"), np.array([b"HU"]), np.array(["HU"], object)])
def test_a_unit_is_a_text_of_characters_or_bytes_alone_or_in_an_array(tmp_path, unit):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = IMAGES * 1000
        file["x"].attrs["unit"] = unit
    assert read_images(tmp_path / "x.h5").window == HOUNSFIELD


def test_what_holds_nothing_beside_the_images_is_passed_over(tmp_path):
    with h5py.File(_hdf5(tmp_path / "x.h5", x=IMAGES), "a") as file:
        file["nothing"] = h5py.Empty("f4")
    np.testing.assert_array_equal(read_images(tmp_path / "x.h5").images[..., 0], IMAGES)


@pytest.mark.parametrize(
    "write", [write_mat5, write_mat73, lambda path, arrays: _hdf5(path.with_suffix(".h5"), **arrays)]
)
def test_a_spacing_of_another_length_is_refused(tmp_path, write):
    with pytest.raises(UserError, match="`spacing` has shape .* expected three positive lengths in mm"):
        read_images(write(tmp_path / "x.mat", {"x": IMAGES[0], "spacing": np.array([[0.5, 0.5]])}))
