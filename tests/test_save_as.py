"""--save-as with --samples: mean and deviation in the format of the image, the deviation without an offset."""

import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from medical import write_nifti, write_series
from PIL import Image
from tiny import refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.images import HOUNSFIELD, read_images

FLAGS = (
    "--scan.views 5 --scan.bins 24 --tv.weight 0.01 --tv.iterations 5 --solver.levels 3 --solver.cg-steps 2 "
    "--samples 3 --image.index 1 --quiet"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(results folder, arrays) of a DICOM slice and of the same slice of a NIfTI volume."""
    folder = tmp_path_factory.mktemp("samples")
    volume = np.random.default_rng(0).integers(-1000, 1000, (3, 16, 16)).astype(np.int16)
    write_series(folder / "ct", volume)
    write_nifti(folder / "x.nii", volume, axes="RAS")
    write_weights(folder / "w.safetensors", window=HOUNSFIELD)
    made = {}
    for kind, source, formats in (
        ("dicom", folder / "ct", ("dicom", "nifti", "png", "tiff", "npz")),
        ("nifti", folder / "x.nii", ("nifti",)),
    ):
        workdir = folder / kind
        given = ["--weights", folder / "w.safetensors", "--image.path", source, "--workdir", workdir]
        main([str(a) for a in (*given, *FLAGS, "--save-as", *formats)])
        with np.load(workdir / "reconstruction.npz") as file:
            made[kind] = workdir, file["DDS, mean of 3"][..., 0], file["deviation"][..., 0]
    return folder, made


def test_mean_and_deviation_as_dicom(run):
    folder, made = run
    workdir, mean, deviation = made["dicom"]
    old = pydicom.dcmread(read_images(folder / "ct").origins[1].file)
    for name, expected, words in (("dds", mean, "DDS, mean of 3"), ("dds_deviation", deviation, "Standard deviation")):
        data = pydicom.dcmread(workdir / name / "00001.dcm")
        slope = float(data.RescaleSlope)
        stored = data.pixel_array * slope + float(data.RescaleIntercept)
        np.testing.assert_allclose(stored, expected, atol=0.51 * slope)
        assert data.DerivationDescription.startswith(f"Not for diagnosis; {words}") and data.RescaleType == "HU"
        assert data.PatientID == old.PatientID and data.ImagePositionPatient == old.ImagePositionPatient
        assert data.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert deviation.max() > 1  # HU: an offset of -1000 would be seen
    assert stored.min() >= 0


@pytest.mark.parametrize("source", ["dicom", "nifti"])
def test_mean_and_deviation_as_nifti(run, source):
    folder, made = run
    workdir, mean, deviation = made[source]
    images = [nibabel.load(workdir / f"{name}.nii.gz") for name in ("dds", "dds_deviation")]
    np.testing.assert_allclose(images[0].affine, images[1].affine)
    for image, expected in zip(images, (mean, deviation), strict=True):
        values = np.asarray(image.dataobj)[..., 0].T
        # A RAS volume has its rows to the front and its columns to the right.
        np.testing.assert_allclose(values[::-1, ::-1] if source == "nifti" else values, expected, rtol=1e-5, atol=1e-4)
    assert image.header["descrip"].tobytes().startswith(b"Not for diagnosis; Standard deviation of DDS, mean of 3")


def test_deviation_in_pictures_and_arrays(run):
    workdir, mean, deviation = run[1]["dicom"]
    for name in ("dds_deviation.png", "dds_deviation.tif"):
        with Image.open(workdir / name) as picture:
            assert "0 is 0 HU, 65535 is 2000 HU" in str(picture.info.get("window") or picture.tag_v2[270])
            np.testing.assert_allclose(np.asarray(picture, float), deviation / 2000 * 65535, atol=0.6)
    with np.load(workdir / "dds_deviation.npz") as file:
        np.testing.assert_allclose(file["volume"][0], deviation, rtol=1e-5)
        assert str(file["unit"]) == "HU"
    with np.load(workdir / "dds.npz") as file:
        np.testing.assert_allclose(file["volume"][0], mean, rtol=1e-5, atol=1e-3)


def _contents(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_patient_stays_in_the_folder_of_an_anonymous_run(run, tmp_path, monkeypatch, capsys):
    """Of an earlier run that was not; the volume's DICOM and NIfTI files carry the header of the source."""
    folder, made = run
    workdir = shutil.copytree(made["dicom"][0], tmp_path / "out")
    assert b"Phantom" in _contents(workdir)
    given = ["--weights", folder / "w.safetensors", "--image.path", folder / "ct", "--workdir", workdir, *FLAGS]
    given = [str(a) for a in (*given, "--anonymise", "--save-as", "dicom")]
    for more in ([], ["--dry-run"]):
        line = refused(main, [*given, *more], capsys)
        assert f"{workdir}: --anonymise: dds.nii.gz, dds_deviation.nii.gz of an earlier run without it" in line
    assert b"Phantom" in _contents(workdir)
    for name in ("dds.nii.gz", "dds_deviation.nii.gz"):
        (workdir / name).unlink()

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("padis_jax.cli.sample.rows_of", stop)
        main(given)
    assert not list(workdir.rglob("*.dcm")) and b"Phantom" not in _contents(workdir)
    main(given)
    kept = (workdir / "dds" / "00001.dcm").stat()
    main([*given, "--save-as", "png", "--dry-run"])  # the last run was anonymous: what it left may stay
    assert (workdir / "dds" / "00001.dcm").stat() == kept and b"Phantom" not in _contents(workdir)


def test_what_an_earlier_run_left_is_named(run, tmp_path, capsys):
    folder, made = run
    workdir = shutil.copytree(made["dicom"][0], tmp_path / "out")
    given = ["--weights", folder / "w.safetensors", "--image.path", folder / "ct", "--workdir", workdir]
    given = [str(a) for a in (*given, *FLAGS)]
    main([*given, "--save-as", "dicom", "nifti", "png"])
    said = "dds.npz, dds.tif, dds_deviation.npz and 1 more: of an earlier run, not of this one; delete what is not"
    assert f"note: {workdir}: {said} needed\n" in capsys.readouterr().err
    main([*given, "--save-as", "dicom", "nifti", "png", "tiff", "npz"])
    assert "earlier" not in capsys.readouterr().err
