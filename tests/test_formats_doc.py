"""docs/formats.md: its worked example runs as it stands, on a small volume and small weights under the same names."""

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

SIDE = 16
QUICK = "--scan.views 5 --scan.bins 24 --tv.iterations 5 --solver.levels 3 --solver.average 1 --solver.cg-steps 2"


@pytest.fixture(scope="module")
def text(request):
    return (request.config.rootpath / "docs" / "formats.md").read_text()


def test_from_dicom_to_dicom(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    volume = np.random.default_rng(0).integers(-1024, 1500, (44, SIDE, SIDE)).astype(np.int16)
    np.savez("data/head_ct.npz", volume=volume, spacing=np.array([1.5, 0.957, 0.957]))
    write_weights(tmp_path / "weights" / "head_ct.safetensors", image_shape=(SIDE, SIDE), window=HOUNSFIELD)
    made, read = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    exec(compile(made, "formats.md", "exec"), {})
    between = text[text.index("Reconstruct its third slice") :].splitlines()
    commands = [shlex.split(line) for line in between if line.startswith("    padis-")]
    assert [command[0] for command in commands] == ["padis-data", "padis-sample"]
    data.main(commands[0][1:])
    assert "5 of 16 x 16" in (printed := capsys.readouterr().out) and "-1000 to 1000 HU" in printed
    sample.main([*commands[1][1:], *QUICK.split()])
    capsys.readouterr()
    exec(compile(read, "formats.md", "exec"), {})
    assert re.fullmatch(r"HU, \(1.5, 0.957, 0.957\) mm, mean difference \d+ HU\n", capsys.readouterr().out)
    # The rows run to the front, so the normal points to the feet: image 2 of five is the middle one all the same.
    old, new = pydicom.dcmread("series/41.dcm"), pydicom.dcmread("results/series/dds/00001.dcm")
    assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.ImagePositionPatient == old.ImagePositionPatient and new.PatientID == "head"
    assert "5 views" in new.DerivationDescription and list(new.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    with np.load("results/series/reconstruction.npz") as arrays:
        values = new.pixel_array * float(new.RescaleSlope) + float(new.RescaleIntercept)
        np.testing.assert_allclose(values, arrays["DDS"][..., 0], atol=0.51 * float(new.RescaleSlope))


def test_every_format_is_described(text):
    reading, writing = text[: text.index("## Writing")], text[text.index("## Writing") :]
    for suffix in set(SUFFIXES) - {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm", ".dicom", ".ima"}:
        assert f"`{suffix}`" in reading, suffix
    for name in FORMATS:
        assert f"`{name}`" in writing, name
