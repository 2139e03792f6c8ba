"""DICOM in: order, units and spacing; series that are mixed, incomplete or damaged are refused by name."""

import nibabel
import numpy as np
import pydicom
import pytest
from medical import ramp, write_enhanced, write_series, write_slice

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN, Window, open_source, read_images
from padis_jax.writers import result, write_result

VOLUME = ramp()


def test_a_series_is_sorted_by_position_and_in_hounsfield_units(tmp_path):
    write_series(tmp_path / "ct", VOLUME)
    (tmp_path / "ct" / "notes.txt").write_text("passed over")
    read = read_images(tmp_path / "ct")
    assert read.window == HOUNSFIELD and read.spacing == (1.5, 0.9, 0.8) and read.notes == ()
    np.testing.assert_allclose(read.images[..., 0], np.clip((VOLUME + 1000.0) / 2000.0, 0, 1), atol=1e-6)
    assert read.names[0] == "004.dcm" and read.origins[0] == (tmp_path / "ct" / "004.dcm", 0, "ct")
    brain = Window("HU", -900.0, -500.0)
    np.testing.assert_allclose(read_images(tmp_path / "ct", fit=brain).images[..., 0], brain.to_unit(VOLUME), atol=1e-6)
    assert read_images(tmp_path / "ct", fit=PLAIN).window == HOUNSFIELD  # of another unit


def test_the_normal_decides_the_order_not_the_axis(tmp_path):
    """Rows that run to the front turn the normal round; sagittal slices are sorted from left to right."""
    for index, values in enumerate(VOLUME):
        write_slice(tmp_path / "up" / f"{index}.dcm", values, z=index, ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
        write_slice(
            tmp_path / "side" / f"{index}.dcm",
            values,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[-2.0 * index, 0, 0],
        )
    up = read_images(tmp_path / "up")
    assert [o.file.stem for o in up.origins] == ["3", "2", "1", "0"] and up.rows_up
    side = read_images(tmp_path / "side")
    assert [o.file.stem for o in side.origins] == ["0", "1", "2", "3"] and not side.rows_up
    assert side.spacing == (2.0, 0.9, 0.8)


def test_each_slice_has_its_own_scaling(tmp_path):
    write_slice(tmp_path / "a.dcm", VOLUME[0], z=0, slope=0.5, intercept=-2000.0)
    write_slice(tmp_path / "b.dcm", VOLUME[1], z=1, slope=1.0, intercept=-1024.0)
    source = open_source(tmp_path)
    np.testing.assert_array_equal([source.read(0)[..., 0], source.read(1)[..., 0]], VOLUME[:2])


def test_files_without_a_suffix_single_files_and_globs(tmp_path):
    write_series(tmp_path, VOLUME)
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_suffix(""))
    assert read_images(tmp_path).images.shape == (4, 6, 5, 1)
    one = read_images(tmp_path / "002")
    np.testing.assert_allclose(one.images[0, ..., 0], HOUNSFIELD.to_unit(VOLUME[2].astype(float)), atol=1e-6)
    assert one.spacing == (1.5, 0.9, 0.8)  # a slice alone has its thickness
    assert [o.file.name for o in read_images(f"{tmp_path}/00[12]").origins] == ["002", "001"]


def test_folders_of_series_are_volumes(tmp_path):
    write_series(tmp_path / "b", VOLUME, series="1.2.4")
    write_series(tmp_path / "a" / "deep", VOLUME[:3] + 1, series="1.2.5")
    read = read_images(tmp_path)
    assert read.volumes == {f"{tmp_path.name}/a/deep": 3, f"{tmp_path.name}/b": 4}
    np.testing.assert_allclose(read.images[3, 0, 0], 0.0)


def test_compressed_pixels(tmp_path):
    data = pydicom.dcmread(write_slice(tmp_path / "x.dcm", VOLUME[0]))
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "x.dcm")
    np.testing.assert_array_equal(open_source(tmp_path / "x.dcm").read(0)[..., 0], VOLUME[0])


def test_other_modalities_need_a_window(tmp_path):
    write_series(tmp_path, VOLUME, Modality="MR", RescaleType=None)
    with pytest.raises(UserError, match="uint16 have no known range; give a window"):
        read_images(tmp_path)
    window = Window("a.u.", -1000.0, 500.0)
    assert read_images(tmp_path, fit=window).window == window


@pytest.mark.parametrize(
    ("stored", "fields", "padding"),
    [
        (-2000, {"PixelRepresentation": 1, "PixelPaddingValue": -2000}, -2000),
        (63536, {"PixelPaddingValue": 63536}, 63536),
        (63536, {"PixelPaddingValue": 63536, "BitsStored": 12, "HighBit": 11}, 63536),
        (-2000, {"PixelRepresentation": 1, "PixelPaddingValue": -2000, "BitsStored": 12, "HighBit": 11}, 2096),
        (7, {"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 5}, 9),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_padding_is_no_image(tmp_path, stored, fields, padding, modality):
    pixels = np.full((6, 5), 1100)
    pixels[3] = 1500
    pixels[:2] = stored
    kind = {"Modality": modality, "RescaleType": "HU" if modality == "CT" else None}
    raw = {"PixelData": pixels.astype("<i4").astype("<u2").tobytes()}
    values = open_source(write_slice(tmp_path / "a.dcm", np.zeros((6, 5)), **kind, **fields, **raw)).read(0)[..., 0]
    assert (values[:2] == (-1000 if modality == "CT" else 76)).all() and (values[3] == 476).all()


def test_padding_of_floats(tmp_path):
    values = np.arange(30, dtype=np.float32).reshape(6, 5) + 0.25
    data = pydicom.dcmread(write_slice(tmp_path / "a.dcm", np.zeros((6, 5)), BitsAllocated=32, intercept=-10.0))
    del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
    data.FloatPixelData, data.FloatPixelPaddingValue, data.FloatPixelPaddingRangeLimit = values.tobytes(), 7.25, 6.0
    pydicom.dcmwrite(tmp_path / "a.dcm", data, enforce_file_format=True)
    right = np.where((values == 6.25) | (values == 7.25), -1000, values - 10)
    np.testing.assert_array_equal(open_source(tmp_path / "a.dcm").read(0)[..., 0], right)


def test_monochrome1_is_turned_unless_its_values_are_in_hounsfield_units(tmp_path):
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    ct = open_source(write_slice(tmp_path / "ct.dcm", VOLUME[0], **inverse))
    np.testing.assert_array_equal(ct.read(0)[..., 0], VOLUME[0])
    plain = {"Modality": "DX", "RescaleType": None, "RescaleSlope": None, "RescaleIntercept": None}
    xray = open_source(write_slice(tmp_path / "dx.dcm", VOLUME[0], **inverse, **plain))
    np.testing.assert_array_equal(xray.read(0)[..., 0], 4095 - (VOLUME[0] + 1024.0))
    assert xray.notes == (f"{tmp_path / 'dx.dcm'}: MONOCHROME1, whose low values are white, read as 4095 - v",)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_enhanced_files_are_series(tmp_path, modality):
    """Frames in any order; slope and intercept of their own in CT, none in MR."""
    ct = modality == "CT"
    path = write_enhanced(tmp_path / "e.dcm", VOLUME, order=(2, 0, 3, 1), modality=modality)
    source = open_source(path)
    assert source.spacing == (1.5, 0.9, 0.8) and source.unit == ("HU" if ct else None) and source.shape == (4, 6, 5, 1)
    assert [o.number for o in source.origins] == [1, 3, 0, 2] and source.names[0] == "e.dcm frame 1"
    for index, expected in enumerate(VOLUME):
        np.testing.assert_allclose(source.read(index)[..., 0], expected + (0 if ct else 1024), atol=1e-3)
    read = read_images(path, window=HOUNSFIELD)
    made = result(read.images, read, "test", window=HOUNSFIELD)
    image = nibabel.load(write_result(tmp_path / "out", "nifti", made)[0])
    np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, [2, 3, 1]), [-11.6, -22.7, 1.5], rtol=1e-5)
    with pytest.raises(UserError, match="enhanced file, whose header is not that of a slice; use nifti"):
        write_result(tmp_path / "out", "dicom", made)
    write_enhanced(tmp_path / "two.dcm", VOLUME, order=(0, 0), modality=modality)
    with pytest.raises(UserError, match="two.dcm frame 0 and two.dcm frame 1 are at the same position"):
        open_source(tmp_path / "two.dcm")


def test_files_without_a_preamble_are_read(tmp_path):
    path = write_slice(tmp_path / "a.dcm", VOLUME[0])
    path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(open_source(path).read(0)[..., 0], VOLUME[0])
    header = pydicom.dcmread(path, force=True)
    pydicom.dcmwrite(path, pydicom.Dataset(header), implicit_vr=True, little_endian=True)  # and without its meta header
    with pytest.raises(UserError, match="no file meta information.; dcmtk's dcmconv adds it"):
        open_source(path)


def test_a_gap_is_noted(tmp_path):
    for index in (0, 1, 2, 4, 5):
        write_slice(tmp_path / f"{index}.dcm", VOLUME[0], z=2.0 * index)
    read = read_images(tmp_path)
    assert read.spacing == (2.0, 0.9, 0.8)
    assert read.notes == (f"{tmp_path}: 2.dcm and 4.dcm are 4 mm apart, others 2 mm; a slice may be missing",)


def mixed(folder):
    write_series(folder, VOLUME)
    write_slice(folder / "x.dcm", VOLUME[0], series="9.9", SeriesDescription="scout")


def pair(folder, **fields):
    write_slice(folder / "a.dcm", VOLUME[0], z=0)
    write_slice(folder / "b.dcm", VOLUME[0], **({"z": 1} | fields))


def one(folder, **fields):
    write_slice(folder / "a.dcm", VOLUME[0], **fields)


def cut(folder, keep):
    one(folder)
    data = (folder / "a.dcm").read_bytes()
    (folder / "a.dcm").write_bytes(data[: int(len(data) * keep)])


BAD = {
    "two series": (
        mixed,
        r"2 series: CT '3 axial thin' \(4 files, 001.dcm\); CT '3 scout' \(1 files, x.dcm\); put each",
    ),
    "one place": (lambda d: pair(d, z=0), "a.dcm and b.dcm are at the same position"),
    "size": (lambda d: pair(d, Rows=3), r"b.dcm: its size is \(3, 5\), but a.dcm has \(6, 5\)"),
    "orientation": (
        lambda d: pair(d, ImageOrientationPatient=[1, 0, 0, 0, 0, 1]),
        r"b.dcm: its orientation is \[1.0, 0.0",
    ),
    "spacing": (lambda d: pair(d, PixelSpacing=[0.9, 0.7]), r"b.dcm: its pixel spacing is \(0.9, 0.7\)"),
    "no position": (lambda d: pair(d, ImagePositionPatient=None), "b.dcm: has no ImagePositionPatient"),
    "is invalid": (lambda d: one(d, RescaleSlope=None), "a.dcm: a CT slice without RescaleSlope"),
    "zero slope": (lambda d: one(d, RescaleSlope=0), "a.dcm: RescaleSlope 0.0 .* is invalid"),
    "frames": (
        lambda d: one(d, NumberOfFrames=2),
        r"a.dcm: has 2 frames, and 0 functional groups .*save its frames as an",
    ),
    "colour": (
        lambda d: one(d, PhotometricInterpretation="RGB"),
        "a.dcm: photometric interpretation 'RGB' .*convert them",
    ),
    "mask": (lambda d: one(d, BitsAllocated=1), "a.dcm: a segmentation"),
    "highest bit": (lambda d: one(d, BitsStored=12, HighBit=15), "a.dcm: its highest bit is 15 of 12; shift"),
    "table": (
        lambda d: one(d, Modality="MR", ModalityLUTSequence=[pydicom.Dataset()]),
        "a.dcm: a Modality LUT, which is not read",
    ),
    "garbage": (lambda d: (d / "a.dcm").write_bytes(b"\2\0" + bytes(range(200))), "a.dcm: "),
    "no image": (lambda d: one(d, Rows=None), "a.dcm: a DICOM file without an image"),
    "huge": (lambda d: one(d, Rows=65535, Columns=65535), "a.dcm: declares 65535 x 65535 pixels"),
    "pixels cut": (lambda d: cut(d, 0.97), "a.dcm: not a readable DICOM image"),
    "header cut": (lambda d: cut(d, 0.3), "a.dcm: "),
    "text": (lambda d: (d / "a.dcm").write_text("DICOM"), "a.dcm: not a readable DICOM header"),
    "empty": (lambda d: (d / "a.dcm").write_bytes(b""), "a.dcm: not a readable DICOM header"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, case):
    make, message = BAD[case]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read_images(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    import sys

    one(tmp_path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"DICOM files need the library pydicom.*pip install pydicom"):
        read_images(tmp_path)
