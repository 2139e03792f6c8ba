"""Pictures of several sizes and colours train by crops, resized or in grey; without a flag they are refused by name."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import CONFIG, NETWORK, refused, write_weights

from padis_jax.batches import PatchConfig, draw_batch, pad_images
from padis_jax.cli import sample
from padis_jax.cli.commands import sample_command
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.cli.train import main as train
from padis_jax.config import Config, DataConfig
from padis_jax.devices.plan import Estimate
from padis_jax.errors import UserError
from padis_jax.images import CroppedImages, Shaping, read_images
from padis_jax.patches import frame_for
from padis_jax.positions import plane_positions
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.training_data import load_data
from padis_jax.streamed import StreamedImages

SIZES = {"a.png": (30, 40), "b.png": (25, 33), "c.png": (41, 29)}
CROP = (16, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        Image.fromarray(rng.integers(1, 256, size, np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(folder / "b.png")
    return folder


def config(path, **fields):
    patches = PatchConfig(sizes=(8,), probabilities=(1.0,), batch=(24,), flips=fields.pop("flips", False))
    return dataclasses.replace(CONFIG, data=DataConfig(path=str(path), **fields), patches=patches)


def test_without_a_flag_sizes_and_flags_are_named(folder, coloured):
    with pytest.raises(UserError, match=r"b.png: 33 x 25 .* a.png is 40 x 30 .*--data.crop H W or --data.resize H W"):
        load_data(config(folder))
    with pytest.raises(UserError, match=r"b.png: .*grey.* colour.*--data.grey"):
        load_data(config(coloured))
    with pytest.raises(UserError, match=r"b.png: grey, but a.png is colour; .*--data.grey"):
        load_data(config(coloured, crop=(8, 8)))
    with pytest.raises(UserError, match=r"b.png: 33 x 25 grey, smaller than the crop, 20 x 26"):
        load_data(config(folder, crop=(26, 20)))
    with pytest.raises(UserError, match="leave one of them out"):
        DataConfig(crop=(8, 8), resize=(8, 8))
    for size in ((0, 8), (8, 2**15), (-1, -1)):
        with pytest.raises(UserError, match="must be 1 to 16384"):
            DataConfig(crop=size)


@pytest.mark.parametrize("flips", [False, True])
def test_every_draw_is_a_crop_of_its_image_and_positions_are_the_crops(folder, flips):
    """Images whose pixels tell their place: a patch inside the crop is a piece of one image, zero beyond the crop."""
    sizes = [(30, 40), (25, 33)]
    images = [(1 + np.arange(h * w, dtype=np.float32)).reshape(h, w, 1) + 10_000 * i for i, (h, w) in enumerate(sizes)]
    frame = frame_for(CROP, 8)
    cropped = pad_images(CroppedImages(lambda i: images[i], (2, *CROP, 1), sizes), frame)
    plane, corners = plane_positions(frame.padded_shape), set()
    (my, mx), (height, width) = frame.margin, frame.padded_shape
    for step in range(40):
        batch = draw_batch(cropped, config(folder, flips=flips).patches, 3, step)
        for patch, position in zip(batch.patches, batch.positions, strict=True):
            x, y = position[0, 0]
            top, left = round((y + 1) / 2 * (height - 1)), round((x + 1) / 2 * (width - 1))
            np.testing.assert_array_equal(position, plane[top : top + 8, left : left + 8])
            rows, columns = np.arange(top, top + 8) - my, np.arange(left, left + 8) - mx
            inside = ((rows >= 0) & (rows < CROP[0]))[:, None] & ((columns >= 0) & (columns < CROP[1]))
            np.testing.assert_array_equal(patch[..., 0] > 0, inside)
            if inside.any():
                r, c = np.argwhere(inside)[0]
                number, place = divmod(int(patch[r, c, 0]) - 1, 10_000)
                at = divmod(place, sizes[number][1])
                part = images[number][at[0] :, at[1] :, 0] if not flips else None
                if part is not None:
                    size = inside.sum(0).max(), inside.sum(1).max()
                    np.testing.assert_array_equal(patch[inside, 0].reshape(size), part[: size[0], : size[1]])
                    corner = at[0] - rows[r], at[1] - columns[c]
                    assert 0 <= corner[0] <= sizes[number][0] - CROP[0] and 0 <= corner[1] <= sizes[number][1] - CROP[1]
                    corners.add((number, corner))
    assert flips or len(corners) > 200  # of 15 x 21 + 10 x 14 = 455


def test_a_batch_is_a_function_of_seed_and_step_however_the_images_are_kept(folder):
    kept, streamed = (load_data(config(folder, crop=CROP, memory_gb=memory)) for memory in (2.0, 0.0))
    assert kept.frame == frame_for(CROP, 8) and len(kept.padded) == 3
    draw_batch(kept.padded, CONFIG.patches, 0, 0)
    for step in (0, 5):
        one, other = (draw_batch(data.padded, CONFIG.patches, 3, step) for data in (kept, streamed))
        np.testing.assert_array_equal(one.patches, other.patches)
        np.testing.assert_array_equal(one.positions, other.positions)
    again = draw_batch(kept.padded, CONFIG.patches, 3, 6)
    assert again.patches.shape != other.patches.shape or not np.array_equal(again.patches, other.patches)


def test_a_scaled_draw_is_a_larger_part_of_its_image(folder):
    """Images whose values are coordinates: a draw that is reduced by f is a ramp of slope 1 / f inside the image."""
    sizes = [(30, 40), (64, 48), (16, 20)]
    grids = [np.stack(np.mgrid[:h, :w], axis=-1).astype(np.float32) for h, w in sizes]
    images = pad_images(CroppedImages(lambda i: grids[i], (3, *CROP, 2), sizes, scales=(0.5, 0.9)), frame_for(CROP, 8))
    (my, mx), chosen = images._margin, np.arange(300) % 3
    part, factors, corners = images.draw(np.random.default_rng(0), chosen), [], []
    for number, image in enumerate(chosen):
        crop = part(number, my, mx, *CROP)
        slopes = [np.diff(crop[1:-1, 1:-1, axis], axis=axis) for axis in (0, 1)]
        (h, w), slope = sizes[image], np.mean(slopes[0])
        for found in slopes:
            np.testing.assert_allclose(found, slope, rtol=0.15)  # the filter's weights are not the same at every pixel
            np.testing.assert_allclose(np.mean(found), slope, rtol=0.02)
        least = max(0.5, CROP[0] / h, CROP[1] / w)
        assert least - 0.02 < 1 / slope < max(0.9, least) + 0.02
        assert crop.min() >= 0 and (crop.max(axis=(0, 1)) <= (h - 1, w - 1)).all()
        factors.append(1 / slope), corners.append(crop[0, 0])
        np.testing.assert_allclose(part(number, my + 3, mx + 5, 6, 7), crop[3:9, 5:12], atol=1e-4)
        edge = part(number, 0, 0, my + 4, mx + 4)
        assert not edge[:my].any() and not edge[:, :mx].any()
        np.testing.assert_allclose(edge[my:, mx:], crop[:4, :4], atol=1e-4)
    assert (
        np.ptp(np.asarray(factors)[chosen == 1]) > 0.35 and np.ptp(np.asarray(corners)[chosen == 1], axis=0).min() > 20
    )
    for scales in ((0.5, 1.1), (0.0, 1.0), (0.9, 0.5)):
        with pytest.raises(UserError, match="data.scales is"):
            DataConfig(crop=CROP, scales=scales)
    with pytest.raises(UserError, match="with --data.crop"):
        DataConfig(scales=(0.5, 1.0))
    assert load_data(config(folder, crop=CROP, scales=(0.8, 1.0))).padded._scales == (0.8, 1.0)


def test_validation_is_the_middle(folder):
    data = load_data(config(folder, crop=CROP, validation=(1,)))
    assert len(data.padded) == 2
    picture = np.asarray(Image.open(folder / "b.png"), np.float32) / 255
    middle = read_images(folder, shaping=Shaping(crop=CROP)).images[1][..., 0]
    np.testing.assert_allclose(middle, picture[4:20, 6:26], atol=1e-6)
    (my, mx), patches = data.frame.margin, data.validation.patches[..., 0]
    padded = np.pad(middle, ((my, my), (mx, mx)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8)).reshape(-1, 8, 8)
    assert all((windows == patch).all((1, 2)).any() for patch in patches)


def test_resizing_keeps_proportions_and_the_middle(folder, tmp_path):
    images = read_images(folder, shaping=Shaping(resize=CROP)).images
    assert images.shape == (3, *CROP, 1) and isinstance(images, np.ndarray)
    assert isinstance(read_images(folder, shaping=Shaping(resize=CROP), memory=0).images, StreamedImages)
    ramp = np.tile(np.arange(0, 192, 2, dtype=np.uint8), (32, 1))  # 32 x 96: the 32 x 32 in the middle is taken
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    small = read_images(tmp_path / "ramp.png", shaping=Shaping(resize=(16, 16))).images[0, :, :, 0] * 255
    np.testing.assert_allclose(small[:, 1:-1], np.tile(64 + 1 + 4 * np.arange(1, 15), (16, 1)), atol=1e-3)
    Image.fromarray(np.full((9, 7), 255, np.uint8)).save(tmp_path / "white.png")
    assert (read_images(tmp_path / "white.png", shaping=Shaping(resize=(5, 20))).images == 1).all()


def test_the_command_that_training_ends_with_reads_the_same_images(folder, coloured):
    for data in (DataConfig(str(folder), crop=CROP), DataConfig(str(folder), resize=CROP),
                 DataConfig(str(coloured), grey=True)):  # fmt: skip
        words = shlex.split(sample_command("w", dataclasses.replace(CONFIG, data=data)))
        image = parse_experiment(words[words.index("--weights") :], default=Experiment(), prog="", description="").image
        assert (image.crop, image.resize, image.grey) == (data.crop, data.resize, data.grey)
    with pytest.raises(UserError, match="not with --image.crop"):
        Experiment(image=ImageConfig("a.dcm", crop=CROP), save_as=("dicom",))


def test_grey_is_pillows(coloured, tmp_path):
    images = read_images(coloured, shaping=Shaping(grey=True)).images
    expected = [np.asarray(Image.open(coloured / name).convert("L")) / 255 for name in ("a.png", "b.png")]
    assert images.shape == (2, 24, 24, 1)
    np.testing.assert_allclose(images[..., 0], expected, atol=1.01 / 255)
    np.save(tmp_path / "white.npy", np.ones((1, 8, 8, 3), np.float32))
    assert (read_images(tmp_path / "white.npy", shaping=Shaping(grey=True)).images == 1).all()


def test_the_command_takes_the_flags(folder, coloured, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("padis_jax.cli.train.plan_training", lambda *_, **__: Estimate(0, 0, None, 0, ""))  # no trace
    (tmp_path / "c.py").write_text("import sys; sys.path.insert(0, 'tests')\nfrom tiny import CONFIG as config\n")
    start = ["--config", str(tmp_path / "c.py"), "--workdir", str(tmp_path / "run"), "--dry-run", "--json"]
    for flags in (["--data.path", str(folder), "--data.crop", "16", "20"],
                  ["--data.path", str(folder), "--data.resize", "16", "16"],
                  ["--data.path", str(coloured), "--data.grey"]):  # fmt: skip
        train([*start, *flags])
        assert json.loads(capsys.readouterr().out)["training_images"] == (2 if "--data.grey" in flags else 3)
    line = refused(train, [*start, "--data.path", coloured / "a.png"], capsys)
    assert "images have 3 channels, but network.image_channels is 1; set it to 3, or add --data.grey" in line
    assert isinstance(Config().data.crop, type(None))


def test_channels_that_do_not_fit_are_refused_before_the_work(coloured, tmp_path, capsys, monkeypatch):
    grey = write_weights(tmp_path / "grey.safetensors", image_shape=(24, 24))
    colour = dataclasses.replace(NETWORK, image_channels=3)
    rgb = write_weights(tmp_path / "rgb.safetensors", image_shape=(24, 24), network=colour)

    def work(*_, **__):
        raise AssertionError("work has begun")

    monkeypatch.setattr(sample, "simulated_case", work)
    start = ["--workdir", tmp_path / "out", "--problem", "sr2", "--image.index", "0"]
    line = refused(sample.main, [*start, "--weights", grey, "--image.path", coloured / "a.png"], capsys)
    assert "trained on images of 1 channels, not 3; add --image.grey, or name others with --weights" in line
    line = refused(sample.main, [*start, "--weights", rgb, "--image.path", coloured / "b.png"], capsys)
    assert "trained on images of 3 channels, not 1; save the image in as many" in line
    with pytest.raises(AssertionError, match="work has begun"):
        sample.main([*map(str, start), "--weights", str(grey), "--image.path", str(coloured / "a.png"), "--image.grey"])
