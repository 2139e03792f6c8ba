"""Published sets of photographs: their own folders say what is trained, validated and tested on; others are refused."""

import dataclasses
import os
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import CONFIG, NETWORK, refused, write_weights

from padis_jax.benchmark.__main__ import main as benchmark
from padis_jax.benchmark.data import photographs
from padis_jax.benchmark.leakage import trained_on
from padis_jax.cli.train import main as train
from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.images.layouts import LAYOUTS, located, pictures_of, split_name
from padis_jax.runs.training_data import load_data
from padis_jax.weights import load_weights

SHADES = {"train": 40, "val": 80, "valid": 80, "test": 120}  # of the pictures of a part
LONG, SHORT = 481, 321


def made(folder: Path, name: str, below: str = "") -> Path:
    """A folder with all pictures of a layout: links to an upright and a lying file per part, brighter in the middle."""
    for number, (volume, count) in enumerate(LAYOUTS[name].counts.items()):
        part = folder / below / volume
        part.mkdir(parents=True)
        shade = next(value for word, value in SHADES.items() if f"/{word}" in volume or f"_{word}_" in volume)
        for index in range(count):
            target = part / f"{100000 + 1000 * number + index}.png"
            if index < 2:
                size = (LONG, SHORT) if index else (SHORT, LONG)
                picture = np.full((*size[::-1], 3), shade, np.uint8)
                top, left = (size[1] - 256) // 2, (size[0] - 256) // 2
                picture[top : top + 256, left : left + 256] += 100
                Image.fromarray(picture).save(target, compress_level=1)
            else:
                os.link(part / f"{100000 + 1000 * number + index % 2}.png", target)
    (folder / below / "iids_train.txt").write_text("1\n")
    return folder


@pytest.fixture(scope="module")
def bsds(tmp_path_factory):
    return made(tmp_path_factory.mktemp("sets") / "BSR", "bsds500", "BSDS500/data")


@pytest.fixture(scope="module")
def bsd100(tmp_path_factory):
    return made(tmp_path_factory.mktemp("sets") / "BSDS300", "bsd100")


@pytest.fixture
def div2k(tmp_path_factory, monkeypatch):
    fewer = {"DIV2K_train_HR": 8, "DIV2K_valid_HR": 4}  # of the 800 and 100
    assert LAYOUTS["div2k"].counts == {"DIV2K_train_HR": 800, "DIV2K_valid_HR": 100}
    monkeypatch.setitem(LAYOUTS, "div2k", LAYOUTS["div2k"]._replace(counts=fewer))
    folder = made(tmp_path_factory.mktemp("sets") / "DIV2K", "div2k")
    (folder / "DIV2K_train_LR_x8").mkdir()  # which is none of its pictures
    Image.new("RGB", (9, 9)).save(folder / "DIV2K_train_LR_x8" / "0001.png")
    return folder


def shades(images):
    """The grey values of a crop's corner and of its centre."""
    found = np.asarray(images)[..., 0]
    return {round(float(image[0, 0]) * 255) for image in found}, {
        round(float(image[128, 128]) * 255) for image in found
    }


def test_training_takes_what_the_layout_trains_on(bsds, bsd100, div2k):
    network = dataclasses.replace(NETWORK, image_channels=3)
    for name, folder, trained, validates in (
        ("bsds500", bsds, 200, True),
        ("bsd100", bsd100, 200, False),
        ("div2k", div2k, 8, True),
    ):
        data = DataConfig(str(folder), layout=name, memory_gb=0.0)
        found = load_data(dataclasses.replace(CONFIG, data=data, network=network))
        assert len(found.padded) == trained and found.frame.image_shape == (256, 256)
        my, mx = found.frame.margin
        drawn = np.linspace(0, trained - 1, 12).astype(int)
        part = found.padded.draw(np.random.default_rng(0), drawn)
        corners = {round(float(part(i, my, mx, 1, 1).max()) * 255) for i in range(len(drawn))}
        assert corners <= {40, 140} and 40 in corners  # anywhere in pictures of the training part
        assert (found.validation is not None) is validates
        if validates:
            seen = {round(float(v) * 255) for v in np.unique(found.validation.patches)} - {0}
            assert seen == {180}  # the centres of those that validate


def test_the_settings_are_named_once_and_can_be_named_again(bsds):
    data = DataConfig(str(bsds), layout="bsds500")
    named = located(data)
    assert named.path == str(bsds / "BSDS500/data/images") and named.crop == (256, 256) and named.layout == ""
    assert (named.validation_volumes, named.test_volumes) == (("images/val",), ("images/test",))
    assert located(named) == named
    again = dataclasses.replace(named, layout="bsds500", path=str(bsds))  # flags over a checkpoint's settings
    assert located(again) == named
    assert located(dataclasses.replace(named, layout="bsds500")) == named  # the saved path, and the flag again
    assert located(dataclasses.replace(data, resize=(64, 64))).crop is None
    with pytest.raises(UserError, match="data.validation: data.layout bsds500 says what is held out"):
        located(dataclasses.replace(data, validation=(3,)))


def test_the_benchmark_takes_central_crops_of_the_test_pictures(bsds, bsd100, div2k, tmp_path):
    for name, folder, count, shade in (
        ("bsds500", bsds, 200, 220),
        ("bsd100", bsd100, 100, 220),
        ("div2k", div2k, 4, 180),
    ):
        found = photographs(f"{name}:{folder}", 8)
        assert found.image_shape == (256, 256, 3) and len(found.names) == min(8, count)
        assert shades(found.images) == ({shade}, {shade})
        assert f"central crops of 256 x 256 of its {count} test pictures" in found.title
    alone = photographs(f"bsd100:{bsd100 / 'images' / 'test'}", 3)
    assert shades(alone.images)[1] == {220} and alone.total == 100
    small = tmp_path / "DIV2K_valid_HR"
    small.mkdir()
    for i in range(100):
        Image.new("RGB", (4, 4)).save(small / f"{i}.png")
    with pytest.raises(UserError, match="is not laid out as BSD100"):  # a hundred pictures of another set
        pictures_of("bsd100", str(small))
    assert split_name("bsds500") == ("", "bsds500") and split_name("C:/x") == ("", "C:/x")


def test_weights_that_saw_the_test_pictures_are_refused(bsds, tmp_path):
    network = dataclasses.replace(NETWORK, image_channels=3)
    pictures = photographs(f"bsds500:{bsds}", 4)
    for data, seen in (
        (located(DataConfig(str(bsds), layout="bsds500")), 0),
        (DataConfig(str(bsds / "BSDS500/data/images"), crop=(256, 256)), 4),
    ):
        path = write_weights(tmp_path / "w.safetensors", image_shape=(256, 256), network=network)
        about = {"config": {"data": dataclasses.asdict(data)}}
        assert len(trained_on(load_weights(path)._replace(provenance=about), pictures)) == seen


def test_another_folder_is_refused_in_a_line_that_names_what_was_expected(bsds, bsd100, tmp_path, capsys):
    wrong = tmp_path / "few"
    (wrong / "images" / "train").mkdir(parents=True)
    Image.new("RGB", (LONG, SHORT)).save(wrong / "images" / "train" / "1.png")
    expected = (
        "expected images/train (200 pictures), images/val (100 pictures), images/test (200 pictures), in it or in its"
    )
    (tmp_path / "c.py").write_text("import sys; sys.path.insert(0, 'tests')\nfrom tiny import CONFIG as config\n")
    start = ["--config", str(tmp_path / "c.py"), "--workdir", str(tmp_path / "run"), "--data.layout", "bsds500"]
    line = refused(train, [*start, "--data.path", wrong], capsys)
    assert f"{wrong}: is not laid out as BSDS500: {expected}" in line and "found images/train (1)" in line
    line = refused(train, [*start, "--data.path", bsd100], capsys)
    assert "found images/test (100), images/train (200)" in line
    with pytest.raises(UserError, match="an empty path: is not laid out as BSDS500"):
        located(DataConfig(layout="bsds500"))
    flags = ["--only", "sr4/start", "--out", str(tmp_path / "out"), "--weights", "", "--photos"]
    assert "is not laid out as DIV2K: expected DIV2K_train_HR (800 p" in refused(
        benchmark, [*flags, f"div2k:{bsds}"], capsys
    )
    with pytest.raises(UserError, match="is not laid out as BSD100"):
        pictures_of("bsd100", str(bsds))
    assert set(LAYOUTS) | {""} == set(typing.get_args(typing.get_type_hints(DataConfig)["layout"]))
