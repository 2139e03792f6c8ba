"""padis-data inspect: what is found is printed, as text and as JSON, and drawn on a contact sheet."""

import json
import re

import numpy as np
import pytest
from medical import ramp, write_nifti, write_series
from PIL import Image
from tiny import refused

from padis_jax.cli.data import main
from padis_jax.errors import UserError
from padis_jax.images import Window, read_images


def found(capsys, *args):
    main(["inspect", *map(str, args), "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_series(tmp_path, capsys):
    write_series(tmp_path / "ct", ramp())
    about = found(capsys, tmp_path / "ct")
    assert (about["images"], about["height"], about["width"], about["channels"]) == (4, 6, 5, 1)
    assert about["range"] == [-1000.0, -167.0] and about["unit"] == "HU" and about["dtype"] == "uint16"
    assert about["spacing_mm"] == [1.5, 0.9, 0.8] and about["volumes"] == {"ct": 4} and about["notes"] == []
    assert about["window"] == {"unit": "HU", "low": -1000.0, "high": 1000.0}
    main(["inspect", str(tmp_path / "ct")])
    text = capsys.readouterr().out
    for line in ("4 of 6 x 5", "-1000 to -167", "1.5 x 0.9 x 0.8 mm", "-1000 to 1000 HU", "004.dcm, 001.dcm"):
        assert line in text


def test_a_missing_window_is_told_with_all_the_rest(tmp_path, capsys):
    path = write_nifti(tmp_path / "x.nii", ramp())
    about = found(capsys, path)
    assert about["window"] is None and about["range"] == [-1000.0, -167.0] and about["unit"] is None
    about = found(capsys, path, "--low", -1000, "--high", 0, "--unit", "HU")
    assert about["window"] == {"unit": "HU", "low": -1000.0, "high": 0.0}
    main(["inspect", str(path)])
    assert "none: " in (text := capsys.readouterr().out) and "give a window" in text


def test_what_training_refuses_or_clips_is_told(tmp_path, capsys):
    """As `read_images` says, which training calls."""
    for name, values in {
        "far": [0.0, 0.5, 3.0, 1.0],
        "nan": [0.0, np.nan, 1.0, 1.0],
        "fine": [0.0, 0.5, 1.0, 1.0],
    }.items():
        np.save(tmp_path / f"{name}.npy", np.tile(np.array(values, np.float32), (4, 8, 2)))
        about = found(capsys, tmp_path / f"{name}.npy")
        try:
            read_images(tmp_path / f"{name}.npy")
            assert about["problem"] is None and about["window"] is not None
        except UserError as error:
            assert about["problem"] == str(error) and about["window"] is None
    assert found(capsys, tmp_path / "fine.npy")["problem"] is None
    about = found(capsys, tmp_path / "far.npy", "--low", 0, "--high", 2)
    assert about["notes"] == [f"{tmp_path / 'far.npy'}: 0.25 of the values lie outside 0 to 2 and are clipped"]
    assert list(read_images(tmp_path / "far.npy", window=Window("1", 0.0, 2.0)).notes) == about["notes"]


def test_values_that_are_not_finite_are_counted(tmp_path, capsys):
    array = np.zeros((4, 8, 8), np.float32)
    array[1, :2, 0] = np.nan
    np.save(tmp_path / "x.npy", array)
    about = found(capsys, tmp_path / "x.npy")
    assert about["notes"] == ["2 values are not finite, the first in x 1 (image 1)"] and about["range"] == [0.0, 0.0]


@pytest.mark.parametrize("shape", [(3, 8, 9, 2), (3, 8, 9, 4), (3, 8, 9, 5), (2, 1, 9, 1), (2, 9, 1, 1), (2, 1, 1, 1)])
def test_the_contact_sheet_of_other_channels_shows_them_beside_each_other(tmp_path, capsys, shape):
    images = np.random.default_rng(0).random(shape, np.float32)
    np.save(tmp_path / "x.npy", images)
    found(capsys, tmp_path / "x.npy", "--sheet", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        sheet = np.asarray(picture) / 255
    height, width, channels = shape[1:]
    for channel in range(channels):
        left = channel * (2 * width + 2)
        np.testing.assert_allclose(sheet[:height, left : left + width], images[0, ..., channel], atol=3e-3)


def test_the_contact_sheet_does_not_lie_among_the_images(tmp_path, capsys, monkeypatch):
    """It would be one of them the next time."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for name in ("set/a.png", "set/deep/a.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "set")
    for path, sheet in ((".", "s.png"), ("*.png", "s.png"), ("../set", "s.png"), ("deep", "deep/s.png")):
        line = refused(main, ["inspect", path, "--sheet", sheet], capsys)
        assert f"--sheet {sheet}: lies where {path} finds images" in line and not (tmp_path / "set" / sheet).exists()
    main(["inspect", "deep", "--sheet", "s.png", "--quiet"])
    assert (tmp_path / "set" / "s.png").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_shows_images_in_order(tmp_path, capsys, channels):
    levels = np.linspace(0, 1, 9, dtype=np.float32)
    np.save(tmp_path / "x.npy", levels[:, None, None, None] * np.ones((1, 20, 10, channels), np.float32))
    assert found(capsys, tmp_path / "x.npy", "--sheet", tmp_path / "s.png")["sheet"] == str(tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size == (3 * 12 - 2, 3 * 22 - 2)  # columns x rows with 2 pixels between
    sheet = read_images(tmp_path / "s.png").images[0]
    np.testing.assert_allclose(sheet[10::22, 5::12].mean(-1).ravel(), levels, atol=3e-3)
    found(capsys, tmp_path / "x.npy", "--sheet", tmp_path / "s.png", "--index", "5:9")
    sheet = read_images(tmp_path / "s.png").images[0]
    np.testing.assert_allclose(sheet[10::22, 5::12].mean(-1).ravel(), levels[5:], atol=3e-3)


def test_rows_that_run_up_are_drawn_so(tmp_path, capsys):
    volume = np.full((1, 20, 10), -1000, np.int16)
    volume[:, :5] = 1000
    np.savez(tmp_path / "x.npz", volume=volume)
    found(capsys, tmp_path / "x.npz", "--sheet", tmp_path / "s.png")
    sheet = read_images(tmp_path / "s.png").images[0, ..., 0]
    assert sheet[-5:].min() == 1.0 and sheet[:-5].max() == 0.0


def test_large_images_are_made_smaller(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros((2, 400, 200), np.float32))
    found(capsys, tmp_path / "x.npy", "--sheet", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size == (2 * 80 + 2, 160)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["x.nii", "--sheet", "s.png"], "give a window"),
        (["x.nii", "--low", "1"], "--low and --high belong together"),
        (["x.nii", "--unit", "HU"], "--unit HU is that of --low and --high: give them, or leave it out"),
        (["x.nii", "--low", "0", "--high", "1", "--sheet", "s.png", "--index", "2:9"], "'2:9' reaches beyond the 4"),
        (["x.nii", "--index", "0:1"], "give --sheet FILE, or leave it out"),
        (["x.nii", "--sheet", "s.png", "--index", "few"], "'few' is no number and no range"),
        (["x.nii", "--sheets", "s.png"], "padis-data inspect: Unrecognized options: --sheets"),
        ([], "name a file, a folder or a glob: padis-data inspect PATH"),
        (["cut.npy"], "cut.npy: not a readable .npy"),
    ],
)
def test_mistakes_give_one_line(tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    write_nifti(tmp_path / "x.nii", ramp())
    np.save(tmp_path / "cut.npy", np.zeros((9, 9)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:300])
    assert re.search(message, refused(main, ["inspect", *args], capsys))
    assert not (tmp_path / "s.png").exists()
