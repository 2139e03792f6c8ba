"""Sets larger than memory: read on demand, and nothing else changes."""

import dataclasses
import os

import numpy as np
import pytest
from medical import ramp, write_series
from PIL import Image
from tiny import CONFIG as CONFIG_OF_TRAINING

from padis_jax.batches import PatchConfig, draw_batch, pad_images
from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.images import StreamedImages, read_images
from padis_jax.patches import frame_for
from padis_jax.runs.training_data import load_data
from padis_jax.split import slices_of_volumes, split_slices

CONFIG = PatchConfig(sizes=(4, 8), probabilities=(0.5, 0.5), batch=(6, 5), flips=True)


@pytest.fixture(params=["npy", "dicom", "png"])
def path(request, tmp_path):
    volume = np.random.default_rng(0).integers(-1000, 1000, (7, 16, 12)).astype(np.int16)
    if request.param == "npy":
        np.save(tmp_path / "x.npy", np.float32(volume + 1000) / 2000)
        return tmp_path / "x.npy"
    if request.param == "dicom":
        return write_series(tmp_path / "ct", volume)
    for index, values in enumerate(volume):
        Image.fromarray((values + 1000).astype(np.uint16)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_batches_of_streamed_images_are_those_of_images_in_memory(path):
    whole, streamed = read_images(path), read_images(path, memory=0)
    assert isinstance(streamed.images, StreamedImages) and isinstance(whole.images, np.ndarray)
    assert streamed.names == whole.names and streamed.window == whole.window
    np.testing.assert_array_equal(np.asarray(streamed.images), whole.images)
    frame = frame_for((16, 12), 8)
    chosen = [5, 0, 3]
    one = pad_images(whole.select(chosen).images, frame)
    other = pad_images(streamed.select(chosen).images, frame)
    assert other.shape == one.shape and isinstance(other, StreamedImages)
    for step in range(6):
        expected, batch = draw_batch(one, CONFIG, 3, step), draw_batch(other, CONFIG, 3, step)
        np.testing.assert_array_equal(batch.patches, expected.patches)
        np.testing.assert_array_equal(batch.positions, expected.positions)
    np.testing.assert_array_equal(streamed.select(chosen).select([2, 0]).images[:], whole.images[[3, 5]])
    np.testing.assert_array_equal(other[1], one[1])
    np.testing.assert_array_equal(other[0:2], one[0:2])


def test_only_what_is_asked_for_is_read_and_once(monkeypatch):
    read = []

    def image(index):
        read.append(index)
        return np.full((8, 8, 1), index, np.float32)

    streamed = StreamedImages(image, (1000, 8, 8, 1))
    assert streamed.shape == (1000, 8, 8, 1) and not read
    view = streamed.select([900, 3, 5])
    draw_batch(view, PatchConfig((4,), (1.0,), (1,)), 0, 0)
    assert len(read) == 1 and {*read} < {900, 3, 5}
    draw_batch(view, PatchConfig((4,), (1.0,), (40,)), 0, 0)
    assert sorted(read) == [3, 5, 900]
    with pytest.raises(ValueError, match="read-only"):
        streamed[3][0] = 1.0


def test_the_cache_is_bounded(monkeypatch):
    read = []
    monkeypatch.setattr("padis_jax.streamed.CACHE_BYTES", 2 * 4 * 8 * 8)
    streamed = StreamedImages(lambda i: read.append(i) or np.zeros((8, 8, 1), np.float32), (9, 8, 8, 1))
    for index in (0, 1, 0, 2, 1):
        streamed[index]
    assert read == [0, 1, 2, 1]


def test_a_set_beyond_the_limit_is_streamed_by_itself(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 16, 16), np.float32))
    assert isinstance(read_images(tmp_path / "x.npy", memory=3 * 16 * 16 * 4).images, np.ndarray)
    assert isinstance(read_images(tmp_path / "x.npy", memory=3 * 16 * 16 * 4 - 1).images, StreamedImages)


def test_a_damaged_image_is_refused_when_its_turn_comes(tmp_path):
    array = np.zeros((3, 16, 16), np.float32)
    array[2, 1, 4] = np.nan
    np.save(tmp_path / "x.npy", array)
    streamed = read_images(tmp_path / "x.npy", memory=0)
    assert streamed.images[1].sum() == 0.0
    with pytest.raises(UserError, match=r"x.npy: x 2 is nan at index \(1, 4\)"):
        streamed.images.fetch([0, 2])


def test_training_draws_from_streamed_images_and_holds_volumes_out(tmp_path):
    for name, series in (("anna", "1.1"), ("bert", "1.2"), ("carl", "1.3")):
        write_series(tmp_path / name, ramp(4, 16, 12), series=series)
    whole, streamed = (
        load_data(
            dataclasses.replace(
                CONFIG_OF_TRAINING,
                data=DataConfig(
                    path=str(tmp_path),
                    memory_gb=memory,
                    test_volumes=("bert",),
                    validation=(0,),
                    validation_gap=1,
                ),
            )
        )
        for memory in (2.0, 0.0)
    )
    assert isinstance(streamed.padded, StreamedImages) and isinstance(whole.padded, np.ndarray)
    assert len(whole.padded) == len(streamed.padded) == 6
    np.testing.assert_array_equal(np.asarray(streamed.padded), whole.padded)
    np.testing.assert_array_equal(streamed.validation.patches, whole.validation.patches)


def test_whole_volumes_are_held_out_and_gaps_end_with_their_volume(tmp_path):
    for name, series in (("anna", "1.1"), ("bert", "1.2"), ("carl", "1.3")):
        write_series(tmp_path / name, ramp(), series=series)
    volumes = read_images(tmp_path).volumes
    assert list(volumes.values()) == [4, 4, 4]
    test = slices_of_volumes(volumes, ["bert"])
    assert test == (4, 5, 6, 7)
    split = split_slices(12, test=test, validation=(11,), test_gap=3, validation_gap=2, volumes=[4, 4, 4])
    assert split.train == (0, 1, 2, 3, 8) and split.gap == (9, 10)
    alone = split_slices(12, test=(), validation=(8,), validation_gap=2, volumes=[4, 4, 4])
    assert alone.gap == (9, 10) and alone.train == (*range(8), 11)
    with pytest.raises(UserError, match="0 volumes are called 'dora'; known: .*/anna"):
        slices_of_volumes(volumes, ["dora"])


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    """Beyond the end of a mapped file there is no exception, but SIGBUS."""
    path = tmp_path / "set.npy"
    np.save(path, np.random.default_rng(0).random((50, 64, 64), np.float32))
    images = read_images(path, memory=0).images
    assert images[0].shape == (64, 64, 1)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="became shorter while it was being read") as refused:
        images[40]
    assert str(path) in str(refused.value)
    path.unlink()
    with pytest.raises(UserError, match="disappeared while it was being read"):
        images[41]


def test_an_index_is_that_of_an_array():
    images = np.random.default_rng(0).random((5, 2, 3, 1), np.float32)
    streamed = StreamedImages(lambda index: images[index].copy(), images.shape)
    odd = np.arange(5) % 2 == 1
    for index in (3, -1, slice(4, None, -2), [4, 0, 4], np.array([-1, 2]), odd, odd.tolist(), [], slice(0, 0)):
        np.testing.assert_array_equal(streamed[index], images[index] if np.size(index) else images[:0])
    np.testing.assert_array_equal(streamed.select(odd)[:], images[odd])
    for index in (odd[:4], 1.5, [0.0], [[0, 1]], "0"):
        with pytest.raises(IndexError, match="by whole numbers, or by 5 booleans"):
            streamed[index]
