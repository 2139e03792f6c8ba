"""sample.py with a measured scan: from the file to an image in every format, and the check of its geometry."""

import dataclasses
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from small_scan import ATTENUATION, GEOMETRY, arguments, write_scan
from tiny import NETWORK, refused, write_weights

from padis_jax.cli import sample
from padis_jax.images import HOUNSFIELD, read_images
from padis_jax.measurements.geometry import ScanGeometry, write_geometry

HTC = Path(os.environ.get("HTC2022", ""))  # the user's copy; it is not part of the project


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def hounsfield(tmp_path_factory):
    """The same scan for a prior of Hounsfield units; air is 0 and 1 is 1000 HU, so water is half of ATTENUATION."""
    return write_scan(tmp_path_factory.mktemp("hu"), window=HOUNSFIELD)


WATER = ["--measurement.attenuation", str(ATTENUATION / 2)]
FORMATS = ["--save-as", "dicom", "nifti", "png", "tiff", "npz"]


def _arrays(workdir):
    with np.load(workdir / "reconstruction.npz") as file:
        return {name: file[name] for name in file.files}


def test_a_measured_scan_becomes_an_image(folder, tmp_path, capsys):
    sample.main(arguments(folder, "--workdir", str(tmp_path), "--json"))
    about = json.loads(capsys.readouterr().out)
    names = "config.json geometry.json metrics.json reconstruction.npz reconstruction.png report.html results.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == names.split()
    assert [row["method"] for row in about["rows"]] == ["FBP", "TV", "PnP-ADMM"]
    assert [row["evaluations"] for row in about["rows"]] == [0, 0, 3]
    assert about["pixel_mm"] == 1 and about["attenuation_per_mm"] == [0, ATTENUATION] and about["unit"] == "1"
    tv, truth = _arrays(tmp_path)["TV"][..., 0], np.load(folder / "image.npy")
    assert np.linalg.norm(tv - truth) < 0.2 * np.linalg.norm(truth)  # in the image's own values
    assert about["rows"][1]["residual"] < 0.05


def test_the_report_and_the_bar(folder, tmp_path, capsys, monkeypatch):
    """All paths lead through `..`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sample.main(arguments(Path(os.path.relpath(folder)), "--workdir", "../out"))
    assert not any(Path().iterdir()) and sorted(p.name for p in tmp_path.iterdir()) == ["here", "out"]
    tmp_path = tmp_path / "out"
    printed = capsys.readouterr()
    assert (
        "24 views of 32 bins" in printed.out and "residual  evaluations" in printed.out and "report.html" in printed.out
    )
    assert "PnP-ADMM: 100%" in printed.err and "3/3" in printed.err and "residual=" in printed.err
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page and "<script" not in page
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert f"<td>{metrics['rows'][2]['residual']:.5f}</td>" in page and "PnP-ADMM from 24 measured views" in page


def test_a_reconstruction_in_hounsfield_units_in_every_format(hounsfield, tmp_path):
    sample.main(arguments(hounsfield, *WATER, "--workdir", str(tmp_path), "--quiet", *FORMATS))
    arrays = _arrays(tmp_path)
    truth = 2000 * np.load(hounsfield / "image.npy") - 1000
    assert np.linalg.norm(arrays["TV"][..., 0] - truth) < 0.2 * np.linalg.norm(truth + 1000)
    image = arrays["PnP-ADMM"][..., 0]
    data = pydicom.dcmread(tmp_path / "pnp_admm" / "00001.dcm")
    stored = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    np.testing.assert_allclose(stored, image, atol=0.51 * float(data.RescaleSlope))
    assert data.RescaleType == "HU" and list(data.PixelSpacing) == [1, 1] and data.Modality == "CT"
    assert "24 measured views" in data.DerivationDescription and data.StudyDescription.startswith(
        "Not for diagnosis; scan.npy "
    )
    volume = nibabel.load(tmp_path / "pnp_admm.nii.gz")
    np.testing.assert_allclose(np.asarray(volume.dataobj)[..., 0].T, image, rtol=1e-5, atol=1e-3)
    for name in ("pnp_admm.png", "pnp_admm.tif"):
        with Image.open(tmp_path / name) as picture:
            pixels = np.asarray(picture, np.float64)
        np.testing.assert_allclose(pixels, 65535 * np.clip((image + 1000) / 2000, 0, 1), atol=0.6)
    with np.load(tmp_path / "pnp_admm.npz") as file:
        np.testing.assert_allclose(file["volume"][0], image, rtol=1e-5, atol=1e-3)
        assert str(file["unit"]) == "HU" and file["spacing"].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_samples_give_a_deviation_in_hounsfield_units(hounsfield, tmp_path, capsys):
    sample.main(arguments(hounsfield, *WATER, "--workdir", str(tmp_path), "--samples", "3", *FORMATS))
    arrays = _arrays(tmp_path)
    mean, deviation = arrays["DDS, mean of 3"][..., 0], arrays["deviation"][..., 0]
    assert deviation.min() >= 0 and deviation.max() > 1 and "dds_deviation/00001.dcm" in capsys.readouterr().out
    np.testing.assert_allclose(read_images(tmp_path / "dds").images[0, ..., 0], HOUNSFIELD.to_unit(mean), atol=1e-3)
    data = pydicom.dcmread(tmp_path / "dds_deviation" / "00001.dcm")
    slope = float(data.RescaleSlope)
    assert float(data.RescaleIntercept) == 0
    np.testing.assert_allclose(data.pixel_array * slope, deviation, atol=0.51 * slope)
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 2


def _counts(folder, tmp_path):
    """The scan as photon counts with flat and dark fields, a dead bin and three starved counts."""
    lines = np.load(folder / "scan.npy")
    flat, dark = np.full((2, 32), 5000.0), np.full(32, 40.0)
    counts = dark + (flat[0] - dark) * np.exp(-lines)
    counts[2, 3:6] = 0
    flat[:, 9] = 40
    np.savez(tmp_path / "counts.npz", counts=counts, flat=flat, dark=dark)
    write_geometry(tmp_path / "scan.json", GEOMETRY)
    write_weights(tmp_path / "w.safetensors")
    return tmp_path


def test_repaired_counts_are_reported(folder, tmp_path, capsys):
    _counts(folder, tmp_path)
    flags = ["--workdir", str(tmp_path / "out")]
    sample.main(arguments(tmp_path, *flags, scan="counts.npz"))
    assert f"{24 + 3} of {24 * 32} counts were unusable" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["repaired_counts"] == 27
    assert "27 repaired counts" in (tmp_path / "out" / "report.html").read_text()
    tv, truth = _arrays(tmp_path / "out")["TV"][..., 0], np.load(folder / "image.npy")
    assert np.linalg.norm(tv - truth) < 0.3 * np.linalg.norm(truth)


def test_the_centre_is_found(folder, tmp_path, capsys):
    flags = ["--workdir", str(tmp_path), "--measurement.find-centre"]
    sample.main(arguments(folder, *flags, geometry="wrong.json"))
    assert "the rotation axis was found at offset_mm" in capsys.readouterr().out
    assert abs(json.loads((tmp_path / "geometry.json").read_text())["offset_mm"] - GEOMETRY.offset_mm) < 0.2


def test_the_check_writes_the_corrected_geometry(folder, tmp_path, capsys):
    sample.main(arguments(folder, "--workdir", str(tmp_path), "--measurement.check", geometry="wrong.json"))
    text = capsys.readouterr().out
    assert "likely fault: shifted detector" in text and "offset_mm -2 -> 0." in text
    corrected = json.loads((tmp_path / "geometry_corrected.json").read_text())
    assert abs(corrected["offset_mm"] - GEOMETRY.offset_mm) < 0.2
    sample.main(arguments(folder, "--workdir", str(tmp_path / "b"), "--measurement.check", "--json"))
    assert json.loads(capsys.readouterr().out)["faults"] == [] and not (tmp_path / "b").exists()
    sample.main(arguments(folder, "--workdir", str(tmp_path / "b"), "--measurement.check", "--quiet"))
    assert capsys.readouterr().out == ""


def test_a_correction_over_a_foreign_file_is_refused_before_the_check(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("padis_jax.cli.geometry.check_geometry", None)
    (tmp_path / "geometry_corrected.json").write_text("mine")
    flags = ["--workdir", str(tmp_path), "--measurement.check"]
    assert "is no result of an earlier run" in refused(sample.main, arguments(folder, *flags), capsys)
    assert (tmp_path / "geometry_corrected.json").read_text() == "mine"


def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, tmp_path, capsys):
    def line(*more, **files):
        return refused(sample.main, arguments(folder, "--workdir", str(tmp_path / "out"), *more, **files), capsys)

    assert "no such file" in line(scan="none.npy")
    assert "geometry cannot be read" in line(geometry="none.json")
    assert "consistency" in line("--solver", "dds", "--solver.consistency", "-1")
    assert "measurement.noise is -1.0" in line("--measurement.noise", "-1")
    np.save(tmp_path / "negative.npy", np.full((24, 32), -1.0))
    estimated = ["--measurement.attenuation", "0", "--measurement.path", str(tmp_path / "negative.npy")]
    assert "its FBP has no positive values; give --measurement.attenuation" in line(*estimated)
    network = dataclasses.replace(NETWORK, image_channels=3)
    colour = write_weights(tmp_path / "colour.safetensors", network=network)
    assert "made for 3 channels, but sinograms are grey" in line("--weights", str(colour))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["measured", "simulated"])
def test_a_folder_that_takes_no_file_is_refused_before_the_work(folder, tmp_path, capsys, monkeypatch, kind):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    def work(*args, **kwargs):
        raise AssertionError("the work began")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    monkeypatch.setattr("padis_jax.runs.solve.run_tv", work)
    args = arguments(folder)
    if kind == "simulated":
        image = ["--image.path", str(folder / "image.npy"), "--image.index", "0", "--scan.protocol", "paper"]
        args = [*args[: args.index("--measurement.path")], *image]
    args += ["--workdir", str(tmp_path / "out" / "deep")]
    assert "out/deep: cannot be written to (Permission denied); choose another" in refused(sample.main, args, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HTC.is_file(), reason="name the file htc2022.npz with the environment variable HTC2022")
@pytest.mark.parametrize("kind", ["all arcs", "one arc"])
def test_the_check_of_a_real_scan_prints_fault_and_correction(tmp_path, capsys, kind):
    """A detector that is shifted is found in all arcs together; one arc as it is stored gives no false alarm."""
    stated = {"beam": "fan", "bins": 560, "spacing_mm": 0.2, "offset_mm": 4.0 if kind == "all arcs" else 0.0} | {
        "source_distance_mm": 410.66, "detector_distance_mm": 143.08}  # fmt: skip
    (tmp_path / "g.json").write_text(json.dumps(stated))
    path = f"{HTC}::tb_184_254"
    if kind == "all arcs":
        with np.load(HTC) as file:
            arcs = [n.removesuffix("/sinogram") for n in file.files if n.startswith("tb_") and n.endswith("/sinogram")]
            views = {float(a): y for n in arcs
                     for a, y in zip(file[f"{n}/angles_degrees"], file[f"{n}/sinogram"], strict=True)}  # fmt: skip
        angles = sorted(views)
        path = tmp_path / "all.npz"
        np.savez(path, sinogram=np.stack([views[a] for a in angles]), angles_degrees=np.array(angles))
    flags = ["--measurement.path", path, "--measurement.geometry", tmp_path / "g.json", "--workdir", tmp_path]
    sample.main([str(a) for a in (*flags, "--measurement.check")])
    text = capsys.readouterr().out
    if kind == "one arc":
        assert "the geometry fits" in text and "its views span 70 degrees only" in text, text
        return
    assert "likely fault: shifted detector. Correction: offset_mm 4 -> " in text, text
    before, after = (float(word) for word in text.split("Residual ")[1].split("\n")[0].split(" -> "))
    assert before > 0.1 and after < 0.02
    corrected = ScanGeometry(**json.loads((tmp_path / "geometry_corrected.json").read_text()))
    assert abs(corrected.offset_mm) < 0.15 and len(corrected.angles) == len(angles)
