"""Training on slabs: neighbours of one volume, never a held-out slice; weights that say what they are; refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import NETWORK, random_params, write_weights

from padis_jax.batches import PatchConfig, crop_batch, pad_images
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.errors import UserError
from padis_jax.images import PLAIN
from padis_jax.loss import denoising_loss
from padis_jax.noise import NoiseConfig
from padis_jax.patches import frame_for
from padis_jax.runs.training import train
from padis_jax.runs.training_data import check_resumed, load_data
from padis_jax.slab_batches import Run, crop_slabs, draw_slabs, runs_of
from padis_jax.slabs import VolumeFrame
from padis_jax.streamed import StreamedImages
from padis_jax.volume_prior import slab_positions
from padis_jax.volume_weights import load_volume_prior
from padis_jax.weights import Slab, load_prior, load_weights, save_weights

SLABS = dataclasses.replace(NETWORK, image_channels=3, position_channels=3)
FRAME = frame_for((6, 8), 4)
CONFIG = PatchConfig(sizes=(2, 4), probabilities=(0.5, 0.5), batch=(30, 20), flips=True, depth=3)


def numbered(count, first=1.0):
    """Slices whose pixels tell slice (before the point) and place (behind it)."""
    place = np.arange(48, dtype=np.float32).reshape(6, 8, 1) / 100
    return np.stack([first + k + place for k in range(count)])


def test_runs_end_where_slices_or_volumes_do():
    assert runs_of((0, 1, 2, 5, 6, 8, 9), (7, 3)) == (Run(0, 3, 0, 7), Run(3, 2, 5, 7), Run(5, 2, 1, 3, 1))
    assert runs_of((2, 3), (3, 3)) == (Run(0, 1, 2, 3), Run(1, 1, 0, 3, 1))


def test_slabs_are_neighbours_of_one_run_and_zeros_beyond():
    """Every place of every run is drawn; the slices of a slab count up; `kept` is where there are such."""
    padded = pad_images(numbered(9), FRAME)
    runs = runs_of((0, 1, 2, 3, 10, 11, 13, 14, 15), (20,))
    inside = padded[:, FRAME.margin[0], FRAME.margin[1], 0].astype(int)
    seen = set()
    for step in range(12):
        batch = draw_slabs(
            padded, runs, dataclasses.replace(CONFIG, sizes=(0,), probabilities=(1.0,), batch=(30,)), 0, step
        )
        corner = batch.patches[:, FRAME.margin[0], FRAME.margin[1]].astype(int)
        corner = np.where(corner == 0, batch.patches[:, FRAME.margin[0], -FRAME.margin[1] - 1].astype(int), corner)
        for slab, kept in zip(corner, batch.kept, strict=True):
            found = slab[kept > 0]
            assert (
                np.all(np.diff(found) == 1)
                and np.all(slab[kept == 0] == 0)
                and np.all(np.diff(np.flatnonzero(kept)) == 1)
            )
            run = next(r for r in runs if r.start <= found[0] - 1 < r.start + r.count)
            begin = found[0] - 1 - run.start - int(np.argmax(kept))
            assert found.size == min(begin + 3, run.count) - max(begin, 0)
            seen.add((run.start, begin))
    assert seen == {(run.start, begin) for run in runs for begin in range(-2, run.count)}
    assert inside.tolist() == list(range(1, 10))


@pytest.mark.parametrize("flips", [False, True])
def test_d_1_has_the_patches_of_images(flips):
    """Places are drawn in the same order, so a slab of one slice is the patch of an image, bit for bit."""
    padded = pad_images(numbered(7), FRAME)
    for seed in range(3):
        one = crop_batch(np.random.default_rng(seed), padded, 4, 20, flips=flips)
        slab = crop_slabs(np.random.default_rng(seed), padded, runs_of(range(7), (7,)), 4, 20, depth=1, flips=flips)
        np.testing.assert_array_equal(slab.patches, one.patches)
        np.testing.assert_array_equal(slab.positions, one.positions)
        assert np.all(slab.kept == 1)


def test_a_batch_is_a_function_of_seed_and_step_also_of_streamed_slices():
    padded, runs = pad_images(numbered(6), FRAME), runs_of((0, 1, 2, 4, 5, 6), (8,))
    streamed = pad_images(StreamedImages(lambda i: numbered(6)[i], (6, 6, 8, 1)), FRAME)
    for step in range(4):
        batch, again = (draw_slabs(images, runs, CONFIG, 3, step, seen=3) for images in (padded, streamed))
        for one, other in zip(batch, again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(draw_slabs(padded, runs, CONFIG, 3, 3).kept, draw_slabs(padded, runs, CONFIG, 4, 3).kept)


def test_positions_are_those_of_sampling():
    """A slab drawn in training has the x, y and z that the same slab has when the volume is tiled."""
    volume = VolumeFrame(FRAME, 5, 3)
    runs = runs_of(range(5), (5,))
    batch = crop_slabs(np.random.default_rng(0), pad_images(numbered(5), FRAME), runs, 4, 200, depth=3, seen=3)
    drawn = {slab.tobytes() for slab in batch.positions}
    for z in range(3):
        for x in range(2):
            offset = np.asarray([z, 1, x], np.int32)
            tiled = np.asarray(slab_positions(volume, offset, np.arange(volume.patch_count), 3))
            first = np.arange(volume.patch_count) // FRAME.patch_count * 3 + z - 2
            heights = {float(t[0, 0, 2]) for t, begin in zip(tiled, first, strict=True) if begin < 5}
            assert heights <= {float(slab[0, 0, 2]) for slab in batch.positions}
            assert {t.tobytes() for t in tiled[first < 5]} & drawn


def test_slices_beyond_the_ends_are_not_in_the_loss():
    """Other values there change nothing but what the network sees; without `kept` the loss is as it was."""
    params = random_params(dataclasses.replace(SLABS, dropout=0.0))
    network = dataclasses.replace(SLABS, dropout=0.0)
    rng = np.random.default_rng(0)
    patches, positions = rng.random((4, 8, 8, 3), np.float32), rng.random((4, 8, 8, 3), np.float32)
    kept = np.ones((4, 3), np.float32)
    kept[0, 2] = kept[1, :2] = 0

    @jax.jit
    def loss(kept):
        return denoising_loss(jax.random.key(0), network, NoiseConfig(), params, patches, positions, kept=kept)

    whole = jax.jit(lambda: denoising_loss(jax.random.key(0), network, NoiseConfig(), params, patches, positions))()
    assert float(loss(np.ones((4, 3), np.float32))) == pytest.approx(float(whole), rel=1e-5)
    parts = [float(loss((np.arange(12).reshape(4, 3) == i).astype(np.float32))) for i in range(12)]
    assert float(loss(kept)) == pytest.approx(np.mean(np.asarray(parts)[kept.ravel() > 0]), rel=1e-4)
    assert np.std(parts) > 0 and np.isfinite(float(loss(np.zeros((4, 3), np.float32))))


def config(path, **data):
    return Config(
        data=DataConfig(path=str(path), **data),
        network=SLABS,
        patches=PatchConfig(sizes=(4,), probabilities=(1.0,), batch=(4,), depth=3),
        optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=1),
        run=RunConfig(steps=2, log_every=1, checkpoint_every=1, validate_every=2),
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A file of 16 slices whose values tell their number."""
    path = tmp_path_factory.mktemp("data") / "volume.npy"
    np.save(path, np.repeat(np.arange(16, dtype=np.float32) / 16, 48).reshape(16, 6, 8))
    return path


HELD = {"test": (4,), "test_gap": 1, "validation": (10,), "validation_gap": 1, "low": 0.0, "high": 1.0}


def test_no_slab_holds_a_slice_that_is_held_out(volume):
    data = load_data(config(volume, **HELD))
    assert data.runs == (Run(0, 3, 0, 16), Run(3, 3, 6, 16), Run(6, 4, 12, 16)) and data.slab == Slab(3, 16)
    held, seen = {3, 4, 5, 9, 10, 11}, set()
    for step in range(30):
        batch = draw_slabs(data.padded, data.runs, config(volume).patches, 0, step)
        seen |= set(np.round(batch.patches.max(axis=(1, 2))[batch.kept > 0] * 16).astype(int).tolist())
    assert not seen & held and {1, 2, 7, 8, 13, 15} <= seen  # 0 is what the padding is, too
    validation = np.round(data.validation.patches.max(axis=(1, 2))[data.validation.kept > 0] * 16).astype(int)
    assert set(validation.tolist()) - {0} == {9, 10, 11}


def test_a_training_with_other_distances_is_not_resumed(volume):
    settings = config(volume, **HELD)
    both = dataclasses.replace(settings, patches=dataclasses.replace(settings.patches, skips=(1, 3)))
    saved = load_data(settings).about()
    check_resumed(json.loads(json.dumps(saved)), load_data(settings), "run")
    with pytest.raises(UserError, match=r"run: its checkpoints are of another frame \(skips"):
        check_resumed(json.loads(json.dumps(saved)), load_data(both), "run")


@pytest.mark.slow
def test_training_on_slabs_resumes_and_its_weights_are_of_volumes(volume, tmp_path, capsys):
    settings = config(volume, **HELD)
    path, steps = train(settings, tmp_path / "run", silent=True)
    assert steps == 2
    more = dataclasses.replace(settings, run=dataclasses.replace(settings.run, steps=3))
    _, steps = train(more, tmp_path / "run", silent=True)
    weights = load_weights(path, volumes=True)
    assert steps == 3 and weights.slab == Slab(3, 16) and weights.provenance["training_images"] == 10
    assert (tmp_path / "run" / "pictures").exists()
    assert load_volume_prior(path, depth=16).frame.slab == 3


def test_weights_of_slabs_are_of_volumes(tmp_path):
    path, frame = tmp_path / "slab.safetensors", frame_for((6, 8), 4)
    save_weights(path, random_params(SLABS), SLABS, frame, PLAIN, {}, slab=Slab(3, 16))
    assert load_volume_prior(path, depth=16).frame == VolumeFrame(frame, 16, 3, 0, 16)
    assert load_volume_prior(path, depth=4, first=3).frame.padded_shape[0] == 8
    for call, message in (
        (lambda: load_weights(path), "a network of slabs of 3 slices"),
        (lambda: load_prior(path), "single images want weights of images"),
        (lambda: load_volume_prior(path, depth=4), "trained on volumes of 16 slices.* at most 12"),
        (lambda: load_volume_prior(path, depth=4, first=13), "at most 12"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_weights_of_images_serve_volumes_and_their_files_are_as_before(tmp_path):
    path = write_weights(tmp_path / "w.safetensors")
    assert load_weights(path).slab is None and b'"slab"' not in path.read_bytes()
    assert load_volume_prior(path, depth=5).frame == VolumeFrame(frame_for((16, 16), 8), 5)
    colour = dataclasses.replace(NETWORK, image_channels=3)
    with pytest.raises(ValueError, match="of images of 3 channels"):
        load_volume_prior(write_weights(tmp_path / "c.safetensors", network=colour), depth=5)
    save_weights(
        tmp_path / "bad.safetensors", random_params(SLABS), SLABS, frame_for((16, 16), 8), PLAIN, {}, slab=Slab(2)
    )
    with pytest.raises(ValueError, match="slab and network in its metadata do not fit: 2 slices, 3 channels"):
        load_weights(tmp_path / "bad.safetensors", volumes=True)
    save_weights(tmp_path / "none.safetensors", random_params(SLABS), SLABS, frame_for((16, 16), 8), PLAIN, {})
    with pytest.raises(ValueError, match="sees z, but its metadata have no slab"):
        load_weights(tmp_path / "none.safetensors", volumes=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": NETWORK}, "network.image_channels is 1, but patches.depth is 3"),
        ({"data": DataConfig(path="x", limit=3)}, "data.limit takes slices that are apart"),
        ({"data": DataConfig(path="x", crop=(4, 4))}, "data.crop cuts every slice elsewhere"),
        ({"patches": PatchConfig((4,), (1.0,), (4,))}, "position_channels is 3"),
    ],
)
def test_settings_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config("x"), **change)
    with pytest.raises(ValueError, match="depth is 0"):
        PatchConfig(depth=0)


def test_too_few_neighbours(volume):
    with pytest.raises(ValueError, match="no 3 neighbouring slices are left"):
        load_data(config(volume, test=(2, 5, 8, 11, 14)))
