"""Weights by name."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from padis_jax import load_prior, shipped
from padis_jax.cli.data import main
from padis_jax.errors import UserError
from padis_jax.weights import load_weights

WEIGHTS = Path(__file__).parents[1] / "weights"


@pytest.mark.parametrize("name", shipped.CARDS)
def test_a_name_is_its_file(name):
    folder = shipped.OWN if name == "photos" else WEIGHTS
    data = (folder / f"{name}.safetensors").read_bytes()
    assert shipped.CARDS[name].digest == hashlib.sha256(data).hexdigest()
    assert shipped.locate(name).read_bytes() == data


def test_every_prior_that_comes_along_has_a_name():
    found = [path.stem for folder in (WEIGHTS, shipped.OWN) for path in folder.glob("*.safetensors")]
    assert sorted(name for name in found if not name.startswith("cnn_")) == sorted(shipped.CARDS)


def test_a_prior_by_name_is_that_of_the_path():
    assert load_prior("discs").frame == load_prior(WEIGHTS / "discs.safetensors").frame


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UserError, match="'phots'.*names are head_ct, .*photos"):
        load_weights("phots")
    with pytest.raises(UserError, match="no such weights file; check the path"):  # a path
        load_weights("phots.safetensors")


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS / "discs.safetensors", "head_ct")
    assert load_weights("head_ct").frame.image_shape == (64, 64)


def test_another_file_under_the_name_is_refused(tmp_path, monkeypatch):
    shutil.copy(WEIGHTS / "discs.safetensors", tmp_path / "photos.safetensors")
    monkeypatch.setattr(shipped, "FOLDERS", (tmp_path,))
    with pytest.raises(UserError, match="not the file that photos stands for"):
        load_weights("photos")
    with pytest.raises(UserError, match="not here; run inside a checkout"):
        load_weights("head_ct")


def test_the_command_lists_them(capsys, tmp_path, monkeypatch):
    main(["weights"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(shipped.CARDS) and lines[1].startswith("head_ct ")
    shutil.copy(WEIGHTS / "discs.safetensors", tmp_path / "photos.safetensors")
    monkeypatch.setattr(shipped, "FOLDERS", (tmp_path,))
    main(["weights", "--json"])
    found = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert found["head_ct"]["path"] is None and "damaged" in found["photos"]["problem"]
