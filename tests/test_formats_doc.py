"""docs/formats.md: its worked example runs as it stands, on the shipped head, with small weights."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pydicom
import pytest
from tiny import write_weights

from padis_jax.cli import data, sample
from padis_jax.images import HOUNSFIELD
from padis_jax.images.locate import SUFFIXES
from padis_jax.writers import FORMATS

QUICK = "--scan.views 5 --tv.iterations 5 --solver.levels 2 --solver.average 1 --solver.cg-steps 2"


@pytest.fixture(scope="module")
def text(request):
    return (request.config.rootpath / "docs" / "formats.md").read_text()


def test_from_dicom_to_dicom(text, request, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(request.config.rootpath / "data")
    write_weights(tmp_path / "weights" / "head_ct.safetensors", image_shape=(256, 256), patch=64, window=HOUNSFIELD)
    made, read = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    exec(compile(made, "formats.md", "exec"), {})
    between = text[text.index("Reconstruct its third slice") :].splitlines()
    commands = [shlex.split(line) for line in between if line.startswith("    padis-")]
    assert [command[0] for command in commands] == ["padis-data", "padis-sample"]
    data.main(commands[0][1:])
    assert "5 of 256 x 256" in (printed := capsys.readouterr().out) and "-1000 to 1000 HU" in printed
    sample.main([*commands[1][1:], *QUICK.split()])
    capsys.readouterr()
    exec(compile(read, "formats.md", "exec"), {})
    assert re.fullmatch(r"HU, \(1.5, 0.957\d*, 0.957\d*\) mm, mean difference \d+ HU\n", capsys.readouterr().out)
    # The series is the head's slices 39 to 43, in Hounsfield units.
    volume = np.load("data/head_ct.npz")["volume"]
    for index in (39, 43):
        slice_ = pydicom.dcmread(f"series/{index}.dcm")
        np.testing.assert_array_equal(slice_.pixel_array + float(slice_.RescaleIntercept), volume[index])
    # The rows run to the front, so the normal points to the feet: image 2 of five is the middle one all the same.
    old, new = pydicom.dcmread("series/41.dcm"), pydicom.dcmread("results/series/pnp_admm/00001.dcm")
    assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.ImagePositionPatient == old.ImagePositionPatient and new.PatientID == "head"
    assert "5 views" in new.DerivationDescription and list(new.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    with np.load("results/series/reconstruction.npz") as arrays:
        values = new.pixel_array * float(new.RescaleSlope) + float(new.RescaleIntercept)
        np.testing.assert_allclose(values, arrays["PnP-ADMM"][..., 0], atol=0.51 * float(new.RescaleSlope))


def test_every_format_is_described(text):
    reading, writing = text[: text.index("## Writing")], text[text.index("## Writing") :]
    for suffix in set(SUFFIXES) - {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm", ".dicom", ".ima"}:
        assert f"`{suffix}`" in reading, suffix
    for name in FORMATS:
        assert f"`{name}`" in writing, name
