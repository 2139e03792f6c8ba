"""Statistics of blocks: counted right, held against each other, refused where damaged, saved with weights."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import NETWORK, random_params

from padis_jax.blocks import CELLS, FLOOR, LEAST, SIDE, Blocks, blocks_of
from padis_jax.errors import UserError
from padis_jax.images import read_images
from padis_jax.patches import frame_for
from padis_jax.split import HEAD_CT, split_slices
from padis_jax.weights import load_weights, save_weights
from padis_jax.window import Window

PLAIN = Window("1", 0.0, 1.0)


def images(count=5, low=0.2, high=0.8, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.uniform(low, high, (count, 4, 4, 1))
    return np.kron(levels, np.ones((1, SIDE, SIDE, 1))) + rng.uniform(-0.1, 0.1, (count, 4 * SIDE, 4 * SIDE, 1))


def test_a_block_is_counted_in_its_cell():
    """Of mean 0.5 and deviation 0.2: row 8, and the column of ln(0.2 / floor) / ln(1 / floor)."""
    block = np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 0.3, 0.7)[None, ..., None]
    blocks = blocks_of(np.repeat(block, 3, axis=0))
    column = int(np.log(0.2 / FLOOR) / np.log(1 / FLOOR) * CELLS)
    found = np.asarray(blocks.counts)
    assert found.sum() == 3 and found[8, column] == 3


def test_what_lies_outside_is_in_the_last_cell():
    flat = np.full((3, SIDE, SIDE, 1), 7.0)
    assert np.asarray(blocks_of(flat).counts)[-1, 0] == 3
    assert np.asarray(blocks_of(-flat).counts)[0, 0] == 3


def test_likeness():
    """Images drawn as the training images are usual, brighter ones are strange; colour is averaged."""
    blocks = blocks_of(images(20))
    assert not blocks.strange(images(1, seed=1)[0]) and blocks.strange(images(1, 0.9, 1.0, seed=1)[0])
    colour = np.repeat(images(1, seed=1)[0], 3, axis=-1)
    assert blocks.distance(colour) == pytest.approx(blocks.distance(images(1, seed=1)[0]))


def test_usual_is_of_each_against_the_others():
    """One of forty that is unlike the others does not raise the bound much; eight of them do."""
    own, other = images(40), images(8, 0.9, 1.0)
    usual = blocks_of(own).usual
    assert blocks_of([*own[:39], other[0]]).usual < 2 * usual < blocks_of([*own[:32], *other]).usual


def test_no_slice_that_training_left_out_is_strange_to_the_shipped_weights():
    """All 38: docs/studies/fit.md."""
    blocks, head = load_weights("weights/head_ct.safetensors").blocks, read_images(HEAD_CT, memory=0)
    split = split_slices(len(head.names))
    left = sorted({*split.test, *split.validation, *split.gap})
    far = [blocks.distance(np.asarray(head.images[[k]])[0]) for k in left]
    assert len(far) == 38 and max(far) == pytest.approx(0.09, abs=0.005) and not any(d > LEAST for d in far)
    assert blocks.strange(np.full((256, 256, 1), 0.9, np.float32))


def test_too_few_or_too_small_images_have_none():
    assert blocks_of(images(2)) is None and blocks_of(images()[:, :7]) is None


def test_they_are_kept_with_the_weights(tmp_path):
    blocks = blocks_of(images())
    about = (random_params(), NETWORK, frame_for((16, 16), 8), PLAIN, {})
    save_weights(tmp_path / "w.safetensors", *about, blocks=blocks)
    assert load_weights(tmp_path / "w.safetensors").blocks == blocks
    save_weights(tmp_path / "none.safetensors", *about)
    assert load_weights(tmp_path / "none.safetensors").blocks is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"usual": float("inf")}, "usual"),
        ({"usual": -1.0}, "usual"),
        ({"counts": ((1,) * CELLS,)}, "16 x 16"),
        ({"counts": ((-1,) * CELLS,) * CELLS}, "0 to 2"),
        ({"counts": ((0,) * CELLS,) * CELLS}, "not all"),
        ({"counts": "many"}, "counts"),
    ],
)
def test_damaged_statistics_are_one_line(tmp_path, change, words):
    path, blocks = tmp_path / "w.safetensors", blocks_of(images())
    save_weights(path, random_params(), NETWORK, frame_for((16, 16), 8), PLAIN, {}, blocks=blocks)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"]["blocks"] = json.dumps(dataclasses.asdict(blocks) | change)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(UserError, match=words):
        load_weights(path)
    with pytest.raises(ValueError, match="blocks"):
        Blocks((), 0.1)
