"""What is held out: the head CT is known by any name, and a run's settings say what it was trained on."""

import os
import shutil

import numpy as np
import pytest

from padis_jax.benchmark.data import ct_slices
from padis_jax.config import DataConfig
from padis_jax.images import read_images
from padis_jax.runs.image_config import DEFAULT_IMAGE
from padis_jax.split import HEAD_CT_TEST, is_head_ct, limited, same_images, split_of, split_slices, spread
from studies.training import training_slices


@pytest.fixture
def spellings(request, tmp_path):
    """Ways to name the head CT, and copies of it."""
    path = request.config.rootpath / DEFAULT_IMAGE
    shutil.copy(path, tmp_path / "copy.npz")
    os.symlink(path, tmp_path / "link.npz")
    around = path.parent / ".." / "data" / "head_ct.npz"
    here = os.path.relpath(path)
    return [str(p) for p in (path, around, here, f"./{here}", tmp_path / "copy.npz", tmp_path / "link.npz")]


def test_the_head_ct_is_known_by_any_name(spellings, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    volume = read_images(DEFAULT_IMAGE, memory=0)
    for path in (*spellings, f"{DEFAULT_IMAGE}", "data/*.npz"):
        assert is_head_ct(path), path
        tested = ct_slices(path, 4, None)
        assert (tested.title, set(tested.indices), tested.total) == ("head CT", set(HEAD_CT_TEST), 108), path
        assert tuple(training_slices(volume, path, 0)) == split_slices(108).train, path
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((108, 16, 16), np.float32))
    assert not is_head_ct(other) and not is_head_ct("") and not same_images("", "")
    assert training_slices(volume, str(other), 0) == list(range(108))


def test_the_same_images(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "data").mkdir(parents=True)
    for name, value in (("here/a.npy", 0.0), ("here/b.npy", 1.0), ("there/data/a.npy", 0.5), ("there/copy.npy", 0.5)):
        np.save(tmp_path / name, np.full((2, 4, 4), value, np.float32))
    monkeypatch.chdir(tmp_path / "here")
    assert same_images("a.npy", tmp_path / "here" / "a.npy")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 4, 4), np.float32))
    assert same_images("../c.npz::images", tmp_path / "c.npz")
    assert not same_images("a.npy", "b.npy")
    assert same_images("../there/copy.npy", "../there/data/a.npy")  # a copy
    assert same_images(".", tmp_path / "here" / "*.npy") and not same_images("*.npy", "a.npy")
    # What was noted in another working folder is known by the end of its path, where nothing of that name is here.
    assert same_images("../there/data/a.npy", "data/a.npy") and not same_images("../there/copy.npy", "data/a.npy")
    assert not same_images("../there/data/a.npy", "/scratch/data/a.npy")
    assert same_images("../there/data/a.npy", "../../data/a.npy") and not same_images("a.npy", "../../..")


def test_the_split_of_a_run():
    data = DataConfig(path="a.npy", test=(2,), test_gap=1, validation=(8,), validation_gap=0, validation_volumes=("c",))
    split = split_of(data, {"a/b": 10, "a/c": 2}, 12)
    assert split.test == (2,) and split.validation == (8, 10, 11) and split.gap == (1, 3)
    assert limited(split.train, 0) == limited(split.train, 99) == (0, 4, 5, 6, 7, 9)
    assert limited(split.train, 3) == (0, 5, 9)
    assert spread(10, 4) == (0, 3, 6, 9) and spread(3, 5) == spread(3, 3) == (0, 1, 2) and spread(5, 1) == (0,)
