"""A volume as files and pictures: places, spacing and orientation of the source; planes in proportion."""

import io
import re

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from medical import ramp, write_nifti, write_series, write_slice
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.figures import montage, orthogonal, step_png
from padis_jax.images import HOUNSFIELD, PLAIN, ImageSet, read_images
from padis_jax.runs.html_report import report_html
from padis_jax.writers import result, write_result

VOLUME = ramp()


def of(source, window=HOUNSFIELD):
    return result(np.asarray(source.images), source, "about", window=window)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_the_affine_of_arrays_is_that_of_nifti(tmp_path, axes):
    """Each voxel of a selection lies where NIfTI says that the value of the source lies."""
    path = write_nifti(tmp_path / "x.nii", VOLUME, axes=axes)
    old = nibabel.load(path)
    made = of(read_images(path, fit=HOUNSFIELD).select([1, 3]))
    with np.load(write_result(tmp_path / "a", "npz", made)[0]) as file:
        volume, affine, spacing = file["volume"], file["affine"], file["spacing"]
    np.testing.assert_allclose(spacing, (3.0, 0.9, 0.8), rtol=1e-6)
    places = np.argwhere(np.ones(volume.shape))
    world = nibabel.affines.apply_affine(affine, places[:, ::-1])
    there = np.rint(nibabel.affines.apply_affine(np.linalg.inv(old.affine), world)).astype(int)
    np.testing.assert_allclose(volume[tuple(places.T)], np.asarray(old.dataobj)[tuple(there.T)], atol=1e-3)


def test_the_affine_of_a_series_is_that_of_its_nifti(tmp_path):
    made = of(read_images(write_series(tmp_path / "ct", VOLUME)))
    image = nibabel.load(write_result(tmp_path / "a", "nifti", made)[0])
    with h5py.File(write_result(tmp_path / "a", "hdf5", made)[0], "r") as file:
        np.testing.assert_allclose(file["volume"].attrs["affine"], image.affine)


def test_hdf5_is_read_again_as_it_was(tmp_path):
    made = of(read_images(write_series(tmp_path / "ct", VOLUME)))
    (path,) = write_result(tmp_path / "a", "hdf5", made)
    assert path.name == "a.h5"
    again = read_images(path)
    assert again.spacing == made.source.spacing and again.window == HOUNSFIELD
    np.testing.assert_allclose(again.images, made.source.images, atol=1e-6)
    with h5py.File(path, "r") as file:
        assert file["volume"].attrs["description"] == "Not for diagnosis; about"
    colour = ImageSet(np.random.default_rng(0).random((2, 6, 5, 3), np.float32), ("a", "b"), PLAIN)
    np.testing.assert_allclose(
        read_images(write_result(tmp_path / "c", "hdf5", of(colour, PLAIN))[0]).images, colour.images, atol=1e-6
    )


def test_slices_that_are_missing_keep_the_places_of_the_others(tmp_path):
    """DICOM and arrays say where each slice is; NIfTI, which cannot, refuses by name."""
    for index, z in enumerate((0.0, 1.5, 4.5, 6.0)):
        write_slice(tmp_path / "ct" / f"{index}.dcm", VOLUME[index], z=z)
    source = read_images(tmp_path / "ct")
    assert any("1.dcm and 2.dcm are 3 mm apart, others 1.5 mm; a slice may be missing" in n for n in source.notes)
    made = of(source.select([0, 1, 2, 3]))
    files = write_result(tmp_path / "out", "dicom", made)
    assert [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in files] == [0.0, 1.5, 4.5, 6.0]
    with np.load(write_result(tmp_path / "a", "npz", made)[0]) as file:
        np.testing.assert_allclose(file["places"], (0.0, 1.5, 4.5, 6.0))
        assert "affine" not in file
    with pytest.raises(UserError, match="1.dcm and 2.dcm are 3 mm apart, others 1.5 mm: NIfTI"):
        write_result(tmp_path / "out", "nifti", made)
    write_result(tmp_path / "even", "nifti", of(source.select([0, 1])))  # on one side of the gap


def test_a_volume_without_files_has_its_places_in_dicom_too(tmp_path):
    images = np.random.default_rng(0).random((3, 12, 9, 1), np.float32)
    source = ImageSet(images, ("a", "b", "c"), PLAIN, spacing=(2.0, 1.0, 0.5))
    files = write_result(tmp_path / "out", "dicom", of(source, PLAIN))
    assert [float(pydicom.dcmread(f).ImagePositionPatient[2]) for f in files] == [0.0, 2.0, 4.0]
    (path,) = write_result(tmp_path / "t", "tiff", of(source, PLAIN))
    with Image.open(path) as pages:
        assert pages.n_frames == 3 and "2 x 1 x 0.5 mm between slices, rows and columns" in pages.tag_v2[270]


def test_planes_are_in_proportion_and_the_right_way_up():
    """The head is up, the front is up in the axial plane and left in the sagittal one."""
    volume = np.zeros((5, 8, 16, 1), np.float32)
    volume[4], volume[:, 0] = 0.5, 1.0  # the uppermost slice; the row that is stored first
    for rows_up in (False, True):
        figure = orthogonal(volume, (3.0, 2.0, 1.0), window=PLAIN, rows_up=rows_up)
        axial, coronal, sagittal = (ax.images[0].get_array() for ax in figure.axes)
        assert [ax.get_aspect() for ax in figure.axes] == [2.0, 3.0, 1.5]
        assert axial.shape == (8, 16) and coronal.shape == (5, 16) and sagittal.shape == (5, 8)
        front = -1 if rows_up else 0
        assert (axial[front] == 1).all() and (sagittal[:, front] == 1).all()
        assert (coronal[0] == 0.5).all() and (coronal[1:] == 0).all()
        assert "3 x 2 x 1 mm" in figure.get_supxlabel()
    assert "unknown" in orthogonal(volume, None, window=PLAIN).get_supxlabel()
    assert len(orthogonal(volume, None).axes) == 6  # in HU: brain and bone


def test_a_montage_spreads_over_a_long_volume():
    volume = np.linspace(0, 1, 90, dtype=np.float32)[:, None, None] * np.ones((90, 4, 4), np.float32)
    figure = montage(volume, [f"slice {i}" for i in range(90)], window=PLAIN, most=7)
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert len(titles) == 7 and titles[0] == "slice 0" and titles[-1] == "slice 89"
    np.testing.assert_allclose(figure.axes[6].images[0].get_array(), 1.0)


def test_a_step_shows_the_images_side_by_side():
    left, right = np.zeros((6, 5, 1)), np.ones((6, 5, 1))
    left[0] = 1
    for rows_up in (False, True):
        picture = np.asarray(Image.open(io.BytesIO(step_png({"a": left, "b": right}, window=PLAIN, rows_up=rows_up))))
        assert picture.shape == (6, 11)  # a gap of one pixel between
        assert (picture[5 if rows_up else 0, :5] == 255).all() and picture[:, :5].sum() == 5 * 255
    assert Image.open(io.BytesIO(step_png({"a": np.zeros((800, 1000, 1))}, window=PLAIN))).size == (384, 307)


def test_the_page_steps_through_slices_without_a_network():
    steps = {f"slice <{i}>": step_png({"a": np.full((4, 4, 1), i / 4)}, window=PLAIN) for i in range(5)}
    rows = [{"slice": 1, "psnr": 30.0}, {"slice": 2, "psnr": None}]
    text = report_html("t", pictures={}, rows=[], settings={}, steps=steps, details={"a & b": rows})
    shown = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)"( hidden)?>', text)
    assert [alt for alt, _ in shown] == [f"slice &lt;{i}&gt;" for i in range(5)]
    assert [bool(hidden) for _, hidden in shown] == [True, True, False, True, True]  # without JavaScript: the middle
    assert 'type="range" min="0" max="4" value="2"' in text and text.count("<script>") == 1
    assert not re.search(r"https?://|src=\"(?!data:)", text)
    assert "<summary>a &amp; b</summary>" in text and "<td>1</td><td>30</td>" in text
    with pytest.raises(ValueError, match="no PNG"):
        report_html("t", pictures={}, rows=[], settings={}, steps={"a": b"GIF"})


def test_what_maps_the_sources_pixels_to_values_does_not_stay(tmp_path):
    path = write_slice(tmp_path / "ct" / "1.dcm", ramp()[0])
    header, mapping = pydicom.dcmread(path), pydicom.Dataset()
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = -1024.0, 1.0
    header.RealWorldValueMappingSequence, header.FloatPixelPaddingValue = [mapping], -2000.0
    header.save_as(path)
    source = read_images(tmp_path / "ct")
    (new,) = write_result(tmp_path / "out", "dicom", result(source.images, source, "", window=source.window))
    written = pydicom.dcmread(new)
    assert "RealWorldValueMappingSequence" not in written and "FloatPixelPaddingValue" not in written
    np.testing.assert_allclose(read_images(new).images, source.images, atol=1e-4)


@pytest.mark.parametrize("rows_up", [True, False])
def test_a_volume_that_is_shown_with_row_0_at_the_bottom_has_its_front_there_in_nifti_too(tmp_path, rows_up):
    about = {} if rows_up else {"unit": "HU"}
    np.savez(tmp_path / "x.npz", volume=VOLUME, spacing=[1.5, 0.9, 0.8], **about)
    source = read_images(tmp_path / "x.npz")
    assert source.rows_up == rows_up
    (written,) = write_result(tmp_path / "out", "nifti", of(source))
    shown = source.images[:, :: -1 if rows_up else 1]  # from the front to the back
    np.testing.assert_allclose(read_images(written, window=HOUNSFIELD).images, shown, atol=1e-6)


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_places_and_the_sense_of_rows_come_back(tmp_path, kind):
    for index, z in enumerate((0.0, 1.5, 4.5, 6.0)):
        write_slice(tmp_path / "ct" / f"{index}.dcm", VOLUME[index], z=z)
    (path,) = write_result(tmp_path / "a", kind, of(read_images(tmp_path / "ct")))
    again = read_images(path)
    assert again.places == (0.0, 1.5, 4.5, 6.0) and again.select([0, 1, 3]).places == (0.0, 1.5, 6.0)
    with pytest.raises(UserError, match="are 3 mm apart, others 1.5 mm: NIfTI has one distance"):
        write_result(tmp_path / "a", "nifti", of(again))
    np.savez(tmp_path / "up.npz", volume=VOLUME, spacing=[1.5, 0.9, 0.8])
    for source, up in ((read_images(tmp_path / "up.npz"), True), (read_images(tmp_path / "ct").select([0, 1]), False)):
        assert read_images(write_result(tmp_path / f"{up}", kind, of(source))[0]).rows_up == up
    np.savez(tmp_path / "bad.npz", volume=VOLUME, spacing=[1.5, 0.9, 0.8], places=[0.0, 1.0, 1.0, 2.0])
    with pytest.raises(UserError, match=r"bad.npz: `places` has shape \(4,\), expected 4 ascending lengths"):
        read_images(tmp_path / "bad.npz")
