"""The folder of photographs: made from unpacked packages, with credits, or refused whole."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import refused

from padis_jax.benchmark.photos import SCENES, table_crops
from padis_jax.config import Config, load_config_file
from padis_jax.errors import UserError
from studies import photos


def test_the_folder_is_made_from_the_packages(tmp_path, capsys):
    root, folder = tmp_path / "root", tmp_path / "photos"
    for number, picture in enumerate(photos.chosen(["CC0"])):
        (root / picture.file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1600, 1000), (10 * number, 90, 200)).save(root / picture.file)
    photos.main([str(folder), "--root", str(root), "--licences", "CC0"])
    with Image.open(folder / "seeding_by_Clements_Engelhardt.jpg") as image:
        assert image.size == (1229, 768) and image.format == "JPEG"
        assert np.abs(np.asarray(image).mean((0, 1)) - (0, 90, 200)).max() < 2
    assert "Clemens Engelhardt, CC0-1.0 (lomiri-wallpapers-16.04: /usr/share" in (folder / "CREDITS.txt").read_text()
    assert "1 pictures" in capsys.readouterr().out
    line = refused(photos.main, [folder, "--root", root], capsys)
    assert (
        "and 35 more; install their packages (apt-get install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04" in line
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "CREDITS.txt").write_text("of somebody else")
    assert "CREDITS.txt" in refused(photos.main, [tmp_path / "mine", "--root", root, "--licences", "CC0"], capsys)
    assert (tmp_path / "mine" / "CREDITS.txt").read_text() == "of somebody else"


def test_small_pictures_keep_their_size(tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg")
    with Image.open(io.BytesIO(photos.reduced(tmp_path / "a.jpg"))) as image:
        assert image.size == (300, 200)


def test_the_split_is_that_of_the_configuration():
    """Indices in the configuration are of the names in order, capitals first."""
    names = sorted(picture.name for picture in photos.PICTURES)
    data = load_config_file("configs/photos_all.py", Config).data
    assert len(set(names)) == 37 and len(photos.chosen(["CC0", "CC-BY"])) == 9
    assert [names[i].split("_by_")[0] for i in data.test] == ["ColorfulCups", "EveningGlow", "Kleiber", "mate_LadyBird"]
    assert [names[i].split("_by_")[0] for i in data.validation] == ["BytheWater", "Dragonfly", "mate_RainDrops"]


def test_the_free_pictures_are_eleven_with_those_of_scikit_image(tmp_path):
    """configs/photos.py validates on rocket, and trains on no picture that is tested on."""
    pytest.importorskip("skimage")
    free = photos.chosen(["CC0", "CC-BY"], scikit=True)
    names = sorted(picture.name for picture in free)
    data = load_config_file("configs/photos.py", Config).data
    assert len(names) == 11 and [names[i] for i in data.validation] == ["rocket"]
    assert not {"astronaut", "chelsea", *SCENES} & set(names)
    root, folder = tmp_path / "root", tmp_path / "photos"
    for picture in photos.chosen(["CC0"]):
        (root / picture.file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 200)).save(root / picture.file)
    photos.main([str(folder), "--root", str(root), "--licences", "CC0", "--scikit-image"])
    with Image.open(folder / "coffee.jpg") as image:
        assert image.size == (600, 400)
    assert "rocket.jpg: SpaceX, public-domain (scikit-image: rocket.jpg)" in (folder / "CREDITS.txt").read_text()


def test_crops_to_test_on_are_the_middle_of_each_picture_or_two_about_it(tmp_path):
    """Columns hold their own number, halved by the reduction."""
    columns = np.tile(np.arange(1040) // 6, (600, 1))[..., None].repeat(3, -1).astype(np.uint8)
    for name in SCENES:
        Image.fromarray(columns).save(tmp_path / f"{name}.jpg", quality=100)
    one, two = table_crops(tmp_path), table_crops(tmp_path, 2)
    assert one.shape == (8, 256, 256, 3) and two.shape == (12, 256, 256, 3)
    np.testing.assert_array_equal(one[:4], two[:4])
    starts = [int(crop[0, 0, 0]) * 3 for crop in (one[4], two[4], two[5])]
    np.testing.assert_allclose(starts, [132, 4, 260], atol=6)
    Image.fromarray(columns[:, :900]).save(tmp_path / f"{SCENES[0]}.jpg")
    with pytest.raises(UserError, match=rf"{SCENES[0]}.jpg: .*at least 256 x 512 are needed"):
        table_crops(tmp_path, 2)
    assert len(table_crops(tmp_path)) == 8
