"""Results out: in the unit and the format that the source came in, headers carried over, nothing half written."""

import gzip
import hashlib

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from medical import ramp, write_nifti, write_series, write_slice
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN, ImageSet, open_source, read_images
from padis_jax.writers import FORMATS, check_format, result, write_result

VOLUME = ramp()
TEXT = "DDS reconstruction from 20 views"
WRITTEN = f"Not for diagnosis; {TEXT}"


def reconstruction(source, *, deviation=False, seed=0):
    """An arbitrary result of a source's images, partly outside of [0, 1]."""
    images = np.random.default_rng(seed).uniform(0.0 if deviation else -0.1, 1.2, source.images.shape)
    return images, result(images, source, TEXT, window=HOUNSFIELD, deviation=deviation)


def in_hu(images):
    return -1000.0 + 2000.0 * images[..., 0]


@pytest.fixture
def series(tmp_path):
    return read_images(write_series(tmp_path / "ct", VOLUME))


def test_dicom_carries_the_header_over_and_says_that_it_is_derived(series, tmp_path):
    images, made = reconstruction(series)
    files = write_result(tmp_path / "out", "dicom", made)
    assert [f.name for f in files] == ["00001.dcm", "00002.dcm", "00003.dcm", "00004.dcm"]
    new = [pydicom.dcmread(f) for f in files]
    for index, (data, origin) in enumerate(zip(new, series.origins, strict=True)):
        old = pydicom.dcmread(origin.file)
        for (
            name
        ) in "PatientName PatientID StudyInstanceUID FrameOfReferenceUID ImagePositionPatient PixelSpacing".split():
            assert data[name].value == old[name].value, name
        assert list(data.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"] and data.DerivationDescription == WRITTEN
        assert data.SOPInstanceUID != old.SOPInstanceUID == data.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert (data.BitsStored, data.HighBit, data.PixelRepresentation) == (16, 15, 1)
        assert data.pixel_array.dtype == np.int16 and data.RescaleType == "HU" and (0x0009, 0x1010) not in data
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_allclose(values, in_hu(images)[index], atol=0.051)
        assert data.ContributingEquipmentSequence[0].Manufacturer == "padis_jax"
    assert len({data.SeriesInstanceUID for data in new}) == 1 and new[0].SeriesInstanceUID != "1.2.3"
    assert len({data.SOPInstanceUID for data in new}) == 4
    again = read_images(tmp_path / "out")
    assert again.spacing == series.spacing
    np.testing.assert_allclose(again.images, images.clip(0, 1), atol=3e-5)


def test_the_same_result_has_the_same_files(series, tmp_path):
    def digests(seed, name):
        files = write_result(tmp_path / name, "dicom", reconstruction(series, seed=seed)[1])
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    assert digests(0, "a") == digests(0, "b")
    assert not set(digests(0, "a")) & set(digests(1, "c"))


def test_a_series_of_another_encoding_can_be_the_source(tmp_path):
    for file in write_series(tmp_path / "ct", VOLUME).iterdir():
        data = pydicom.dcmread(file)
        data.add_new(0x00280120, "US", 5)  # PixelPaddingValue
        data.add_new(0x60003000, "OW", b"\1\0")
        if file.name == "001.dcm":
            data.compress(pydicom.uid.RLELossless)
            data.save_as(file)
        else:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            data.save_as(file, implicit_vr=True, little_endian=True)
    source = read_images(tmp_path / "ct")
    images, made = reconstruction(source)
    for file, expected in zip(write_result(tmp_path / "out", "dicom", made), in_hu(images), strict=True):
        data = pydicom.dcmread(file)
        assert "PixelPaddingValue" not in data and not data.group_dataset(0x6000)
        np.testing.assert_allclose(data.pixel_array * float(data.RescaleSlope), expected, atol=0.051)


def test_deviations_have_no_offset_and_a_finer_slope(series, tmp_path):
    deviations = np.full(series.images.shape, 0.01)
    made = result(deviations, series, "standard deviation", window=HOUNSFIELD, deviation=True)
    data = pydicom.dcmread(write_result(tmp_path / "sd", "dicom", made)[0])
    np.testing.assert_allclose(data.pixel_array * float(data.RescaleSlope), 20.0, atol=1e-3)
    assert float(data.RescaleSlope) == 0.001 and float(data.WindowCenter) == 1000.0
    with np.load(write_result(tmp_path / "sd", "npz", made)[0]) as file:
        np.testing.assert_allclose(file["volume"], 20.0, rtol=1e-5)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_nifti_goes_back_into_the_place_and_the_axes_of_its_source(tmp_path, axes):
    path = write_nifti(tmp_path / "x.nii", VOLUME, axes=axes)
    source = read_images(path, fit=HOUNSFIELD)
    images, made = reconstruction(source)
    old, new = nibabel.load(path), nibabel.load(write_result(tmp_path / "out", "nifti", made)[0])
    np.testing.assert_allclose(new.affine, old.affine)
    assert new.shape == old.shape and new.get_data_dtype() == np.float32
    assert bytes(new.header["descrip"]).startswith(WRITTEN.encode())
    np.testing.assert_allclose(
        read_images(tmp_path / "out.nii.gz", fit=HOUNSFIELD).images, images.clip(0, 1), atol=1e-6
    )
    # Two slices alone, neighbours or every second one, lie where they were.
    for chosen in ([2, 3], [1, 3], [0, 2]):
        part = result(images[chosen], source.select(chosen), TEXT, window=HOUNSFIELD)
        image = nibabel.load(write_result(tmp_path / "part", "nifti", part)[0])
        whole = np.asarray(new.dataobj)
        inside = np.argwhere(np.ones(image.shape))
        world = nibabel.affines.apply_affine(image.affine, inside)
        there = np.rint(nibabel.affines.apply_affine(np.linalg.inv(new.affine), world)).astype(int)
        np.testing.assert_allclose(np.asarray(image.dataobj)[tuple(inside.T)], whole[tuple(there.T)])
    with pytest.raises(UserError, match="slice 1 and slice 3 are 3 mm apart, others 1.5 mm"):
        odd = [0, 1, 3]
        write_result(tmp_path / "no", "nifti", result(images[odd], source.select(odd), TEXT, window=HOUNSFIELD))


def test_an_anonymous_result_does_not_say_who_the_patient_is(tmp_path):
    """PS3.15, table E.1-1: attributes of each kind, in sequences too; identifiers stay the same for the same."""
    secret = (
        "Phantom",
        "19500102",
        "Ward",
        "Street",
        "20200203",
        "private",
        "Sister",
        "thin",
        "1.2.1",
        "1.2.2",
        "1.2.3",
    )
    for file in write_series(tmp_path / "ct", VOLUME, PatientBirthDate="19500102", StudyDate="20200203").iterdir():
        data = pydicom.dcmread(file)
        data.InstitutionName, data.PatientAddress, data.OperatorsName = "Ward", "Street", "Sister"
        data.AcquisitionDateTime, data.PatientSex, data.KVP = "20200203101112", "F", "120"
        item = pydicom.Dataset()
        item.PatientName, item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID = (
            "Phantom",
            "1.2.3.4",
            data.SOPClassUID,
        )
        data.ReferencedStudySequence, data.RelatedSeriesSequence = [item], [pydicom.Dataset(item)]
        data.add_new(0x50000010, "US", 1)
        data.add_new(0x60004000, "LT", "Phantom")
        data.save_as(file)
    source = read_images(tmp_path / "ct")
    made = result(source.images, source, TEXT, window=HOUNSFIELD, anonymise=True)
    new = [pydicom.dcmread(file) for file in write_result(tmp_path / "out", "dicom", made)]
    for data in new:
        assert not [text for text in secret if text in str(data).replace("2.25.", "")]
        missing = {name for name in TYPE_1 if name not in data or data[name].is_empty}
        assert missing == {"PatientPosition"}  # which the source has not either
        assert data.PatientName == data.PatientID == data.PatientSex == data.StudyDate == "" and data.KVP == 120
        assert data.PatientIdentityRemoved == "YES" and data.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert data.RelatedSeriesSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
        assert data.SourceImageSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
    assert len({data.StudyInstanceUID for data in new}) == len({data.SeriesInstanceUID for data in new}) == 1
    assert len({data.SOPInstanceUID for data in new}) == 4 and read_images(tmp_path / "out").spacing == source.spacing
    plain = pydicom.dcmread(write_result(tmp_path / "plain", "dicom", reconstruction(source)[1])[0])
    assert plain.PatientName == "Phantom^A" and not [e for e in plain if e.tag.group in (0x5000, 0x6000)]

    image = nibabel.Nifti1Image(VOLUME, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Phantom"))
    image.header["db_name"] = b"Phantom"
    nibabel.save(image, tmp_path / "x.nii")
    source = read_images(tmp_path / "x.nii", fit=HOUNSFIELD)
    for anonymous in (True, False):
        made = result(source.images, source, TEXT, window=HOUNSFIELD, anonymise=anonymous)
        kept = gzip.decompress(write_result(tmp_path / "out", "nifti", made)[0].read_bytes())
        assert kept.count(b"Phantom") == (0 if anonymous else 2)


def test_nifti_of_a_dicom_series_lies_where_the_series_lay(series, tmp_path):
    images, made = reconstruction(series)
    image = nibabel.load(write_result(tmp_path / "out", "nifti", made)[0])
    # Column 2, row 3, slice 1 of the series, in DICOM's axes and then in NIfTI's.
    x, y, z = 10.0 + 2 * 0.8, 20.0 + 3 * 0.9, 1 * 1.5
    np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, [2, 3, 1]), [-x, -y, z], rtol=1e-5)
    np.testing.assert_allclose(image.dataobj[2, 3, 1], in_hu(images)[1, 3, 2], rtol=1e-5)
    np.testing.assert_allclose(
        read_images(tmp_path / "out.nii.gz", fit=HOUNSFIELD).images, images.clip(0, 1), atol=1e-6
    )


@pytest.mark.parametrize("deviation", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_nifti_of_a_nifti_has_the_sources_values(tmp_path, kind, deviation):
    volume = (
        np.arange(120).reshape(4, 6, 5) * (2 if kind is np.uint8 else 1 / 119 if kind is np.float32 else 1)
    ).astype(kind)
    source = read_images(write_nifti(tmp_path / "x.nii", volume), window=HOUNSFIELD if kind is np.int16 else None)
    made = result(source.images, source, TEXT, window=source.window, deviation=deviation)
    image = nibabel.load(write_result(tmp_path / "out", "nifti", made)[0])
    shift = 1000.0 if deviation and kind is np.int16 else 0.0  # deviations have no offset
    np.testing.assert_allclose(image.dataobj, nibabel.load(tmp_path / "x.nii").get_fdata() + shift, atol=1e-3)


def test_the_forms_of_a_nifti_do_not_contradict_each_other(tmp_path):
    """A tilted gantry's slices are sheared, which only the sform can say; those of a NIfTI are kept as they were."""
    tilt = np.deg2rad(20)
    for i, values in enumerate(VOLUME):
        turned = [1, 0, 0, 0, round(np.cos(tilt), 6), round(-np.sin(tilt), 6)]
        write_slice(
            tmp_path / "ct" / f"{i}.dcm",
            values,
            ImageOrientationPatient=turned,
            ImagePositionPatient=[-10, -20, 5.0 * i],
        )
    source = read_images(tmp_path / "ct")
    made = result(source.images, source, TEXT, window=HOUNSFIELD)
    image = nibabel.load(write_result(tmp_path / "out", "nifti", made)[0])
    place = np.array([-10, -20, 20.0]) + 5 * 0.8 * np.array([1, 0, 0]) + 3 * 0.9 * np.array([0, *turned[4:]])
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(image.get_sform(), [5, 3, 4]), place * [-1, -1, 1], atol=1e-4
    )
    assert image.get_qform(coded=True)[1] == 0 and image.get_sform(coded=True)[1] == 1
    np.testing.assert_allclose(read_images(tmp_path / "out.nii.gz", fit=HOUNSFIELD).spacing, source.spacing, rtol=1e-5)

    volume = nibabel.Nifti1Image(VOLUME, np.diag([2.0, 2.0, 2.0, 1.0]))
    scanner = np.array([[0, -2.0, 0, 5], [2, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    volume.set_sform(volume.affine, code=4)
    volume.set_qform(scanner, code=1)
    nibabel.save(volume, tmp_path / "two.nii")
    part = read_images(tmp_path / "two.nii", fit=HOUNSFIELD).select([1, 2])
    kept = nibabel.load(write_result(tmp_path / "part", "nifti", result(part.images, part, TEXT, window=HOUNSFIELD))[0])
    for name, (affine, code) in {"sform": (volume.affine, 4), "qform": (scanner, 1)}.items():
        found, kept_code = getattr(kept, f"get_{name}")(coded=True)
        np.testing.assert_allclose(found, affine @ nibabel.affines.from_matvec(np.eye(3), [0, 0, 1]), atol=1e-5)
        assert kept_code == code


def test_pictures_of_sixteen_bits(series, tmp_path):
    images, made = reconstruction(series)
    files = write_result(tmp_path / "x", "png", made)
    assert [f.name for f in files] == [f"x_0000{i}.png" for i in (1, 2, 3, 4)]
    with Image.open(files[0]) as picture:
        assert picture.info["window"] == "0 is -1000 HU, 65535 is 1000 HU" and picture.info["Description"] == WRITTEN
    np.testing.assert_allclose(read_images(tmp_path / "x_*.png").images, images.clip(0, 1), atol=1e-5)
    assert write_result(tmp_path / "x", "tiff", made) == [tmp_path / "x.tif"]
    np.testing.assert_allclose(read_images(tmp_path / "x.tif").images, images.clip(0, 1), atol=1e-5)


def test_results_of_other_channels_are_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 6, 5, 2)))
    source = read_images(tmp_path / "x.npy")
    made = result(source.images, source, TEXT, window=source.window)
    for kind in ("png", "tiff"):
        with pytest.raises(UserError, match="results of 2 channels are neither grey nor colour; use npz or hdf5"):
            write_result(tmp_path / "y", kind, made)
    write_result(tmp_path / "y", "npz", made)
    np.testing.assert_allclose(read_images(tmp_path / "y.npz").images, source.images, atol=1e-6)


def test_colour(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 6, 5, 3)))
    source = read_images(tmp_path / "x.npy")
    made = result(source.images, source, TEXT, window=source.window)
    for kind, name in (("png", "y_*.png"), ("tiff", "y.tif"), ("npz", "y.npz")):
        write_result(tmp_path / "y", kind, made)
        np.testing.assert_allclose(read_images(tmp_path / name).images, source.images, atol=1e-5)
    for kind in ("dicom", "nifti"):
        with pytest.raises(UserError, match="colour results cannot be written .* use "):
            write_result(tmp_path / "y", kind, made)


def _texts(kind, files):
    """Every text that a written file says of itself, and that a reader may cut: field -> text."""
    if kind == "dicom":
        data = pydicom.dcmread(files[0])
        names = "SeriesDescription StudyDescription DerivationDescription ImageComments".split()
        return {name: (str(data[name].value), data[name].VR) for name in names if name in data}
    if kind == "nifti":
        return {"descrip": (nibabel.load(files[0]).header["descrip"].tobytes().rstrip(b"\0").decode(), "80")}
    if kind in ("png", "tiff"):
        with Image.open(files[0]) as picture:
            return {"about": (picture.info["Description"] if kind == "png" else picture.tag_v2[270], "")}
    if kind == "npz":
        with np.load(files[0]) as file:
            return {"description": (str(file["description"]), "")}
    with h5py.File(files[0]) as file:
        return {"description": (next(iter(file.values())).attrs["description"], "")}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("anonymous", [False, True])
def test_not_for_diagnosis_comes_first_and_is_never_cut_off(tmp_path, kind, anonymous):
    """Whatever the source says of itself, and however long the description is."""
    words = {"SeriesDescription": "s" * 64, "ImageComments": "c" * 300, "StudyDescription": "the patient's study"}
    source = read_images(write_series(tmp_path / "ct", VOLUME, **words))
    limits = {"LO": 64, "ST": 1024, "LT": 10240, "80": 79}
    for deviation in (False, True):
        about = ("Standard deviation of a method: " if deviation else "A method: ") + "d" * 2000
        made = result(source.images, source, about, window=HOUNSFIELD, deviation=deviation, anonymise=anonymous)
        found = _texts(kind, write_result(tmp_path / f"out{deviation}", kind, made))
        assert found
        for name, (text, limit) in found.items():
            if name == "StudyDescription":  # of the source, whose other series it describes too
                assert text == words[name] and not anonymous
                continue
            start = f"Not for diagnosis; {about[:20]}"
            assert text.startswith(start) and len(text) <= limits.get(limit, len(text)), (name, text[:80])


def test_not_for_diagnosis_where_there_is_no_source(tmp_path):
    scan = ImageSet(np.zeros((1, 6, 5, 1), np.float32), ("scan.npy " + "a" * 80,), HOUNSFIELD, spacing=(1, 1, 1))
    made = result(scan.images, scan, TEXT, window=HOUNSFIELD)
    found = _texts("dicom", write_result(tmp_path / "out", "dicom", made))
    assert len(found) == 4 and all(text.startswith("Not for diagnosis; ") for text, _ in found.values())
    assert found["SeriesDescription"][0] == WRITTEN and len(found["StudyDescription"][0]) == 64
    bare = result(scan.images, scan, "", window=HOUNSFIELD)
    assert bare.description == "Not for diagnosis"
    colour = ImageSet(np.zeros((1, 6, 5, 3), np.float32), ("x",), PLAIN)
    made = result(colour.images, colour, TEXT, window=PLAIN)
    for kind in ("png", "tiff", "npz", "hdf5"):
        ((text, _),) = _texts(kind, write_result(tmp_path / "colour", kind, made)).values()
        assert text.startswith(WRITTEN), kind


def test_npz_is_read_again_as_it_was(series, tmp_path):
    images, made = reconstruction(series)
    again = read_images(write_result(tmp_path / "x", "npz", made)[0])
    assert again.window == HOUNSFIELD and again.spacing == series.spacing
    np.testing.assert_allclose(again.images, images.clip(0, 1), atol=1e-6)
    assert open_source(tmp_path / "x.npz").read(0).max() > 1000.0  # not clipped in the file


def test_what_a_format_needs_is_asked_for_before_anything_is_written(tmp_path, series):
    np.save(tmp_path / "x.npy", np.zeros((2, 6, 5), np.float32))
    plain = read_images(tmp_path / "x.npy")
    made = result(plain.images, plain, TEXT, window=plain.window)
    with pytest.raises(UserError, match="x.npy: is not DICOM, and DICOM results need its header; use nifti"):
        write_result(tmp_path / "out", "dicom", made)
    with pytest.raises(UserError, match="needs the spacing"):
        write_result(tmp_path / "out", "nifti", made)
    series.origins[2].file.unlink()
    with pytest.raises(UserError, match="002.dcm: not a readable DICOM header"):
        write_result(tmp_path / "out", "dicom", reconstruction(series)[1])
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(ValueError, match="is not of images"):
        result(np.zeros((1, 6, 5, 1)), plain, TEXT, window=plain.window)
    with pytest.raises(ValueError, match="finite"):
        result(np.full((2, 6, 5, 1), np.nan), plain, TEXT, window=plain.window)


def test_an_older_and_longer_series_in_the_folder_is_not_mixed_with_the_new(series, tmp_path):
    images, made = reconstruction(series)
    write_result(tmp_path / "out", "dicom", made)
    write_result(tmp_path / "out", "dicom", made)  # the same names: written again
    one = result(images[:1], series.select([0]), TEXT, window=HOUNSFIELD)
    for function in (write_result, check_format):
        with pytest.raises(UserError, match="00002.dcm: would mix with the new series"):
            function(tmp_path / "out", "dicom", one)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_full_disk_leaves_no_half_written_file(series, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for kind in ("dicom", "nifti", "png", "tiff", "npz"):
        with pytest.raises(UserError, match="could not be written .No space left"):
            write_result(tmp_path / "out" / "x", kind, reconstruction(series)[1])
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_images_without_files_can_be_written_as_pictures(tmp_path):
    source = ImageSet(np.zeros((1, 6, 5, 1), np.float32), ("x",), HOUNSFIELD)
    assert write_result(tmp_path / "x", "png", result(source.images, source, TEXT, window=HOUNSFIELD))
    with pytest.raises(UserError, match="needs a DICOM source, or the size of the pixels"):
        write_result(tmp_path / "x", "dicom", result(source.images, source, TEXT, window=HOUNSFIELD))


# PS3.3, table A.3-1 and the modules it names: type 1 must have a value, type 2 may be empty.
TYPE_1 = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID PatientPosition
 ImageType PixelSpacing ImageOrientationPatient ImagePositionPatient SamplesPerPixel PhotometricInterpretation Rows
 Columns BitsAllocated BitsStored HighBit PixelRepresentation RescaleIntercept RescaleSlope RescaleType PixelData
 DerivationDescription""".split()
TYPE_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
 AccessionNumber SeriesNumber PositionReferenceIndicator Manufacturer InstanceNumber SliceThickness KVP
 AcquisitionNumber""".split()


def test_images_without_files_get_a_header_with_all_that_dicom_demands(tmp_path):
    images = np.random.default_rng(0).uniform(-0.1, 1.2, (2, 6, 5, 1))
    source = ImageSet(np.zeros(images.shape, np.float32), ("scan.npy 01ab", "b"), HOUNSFIELD, spacing=(1.5, 0.9, 0.8))
    made = result(images, source, TEXT, window=HOUNSFIELD)
    files = write_result(tmp_path / "out", "dicom", made)
    spread = result(images.clip(0), source, "standard deviation", window=HOUNSFIELD, deviation=True)
    other = pydicom.dcmread(write_result(tmp_path / "sd", "dicom", spread)[0])
    for index, file in enumerate(files):
        data = pydicom.dcmread(file)
        assert not [name for name in TYPE_1 if name not in data or data[name].is_empty]
        assert not [name for name in TYPE_2 if name not in data]
        assert data.PatientName == "" and "SourceImageSequence" not in data
        assert list(data.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"] and data.InstanceNumber == index + 1
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_allclose(values, in_hu(images)[index], atol=0.051)
        # The middle of the image is the origin.
        middle = np.array(data.ImagePositionPatient, float)[:2] + [2 * 0.8, 2.5 * 0.9]
        np.testing.assert_allclose(middle, 0.0, atol=1e-9)
    assert (data.StudyInstanceUID, data.FrameOfReferenceUID) == (other.StudyInstanceUID, other.FrameOfReferenceUID)
    assert data.SeriesInstanceUID != other.SeriesInstanceUID
    again = read_images(tmp_path / "out")
    assert again.spacing == (1.5, 0.9, 0.8)
    np.testing.assert_allclose(again.images, images.clip(0, 1), atol=3e-5)
