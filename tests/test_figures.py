"""Figures: what is drawn where, in which units, and what is refused."""

from __future__ import annotations

import io
import json

import matplotlib
import numpy as np
import pytest
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.figures import (
    comparison,
    images_row,
    maps,
    montage,
    orthogonal,
    patch_grid,
    save_figure,
    step_png,
    training_curves,
)
from padis_jax.images import HOUNSFIELD, PLAIN, Window

RNG = np.random.default_rng(0)
TRUTH = RNG.random((24, 32)).astype(np.float32)


def pictures(figure):
    """The figure's panels that show a picture."""
    return [ax.images[0] for ax in figure.axes if ax.images]


def texts(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_comparison_in_hounsfield_units():
    near, far = TRUTH + 0.01, TRUTH - 0.1
    figure = comparison(TRUTH, {"far": far, "near": near[..., None]})
    shown = pictures(figure)
    assert len(shown) == 3 + 3 + 2  # brain row, bone row, errors of the two
    assert shown[0].get_clim() == (-20.0, 100.0) and shown[3].get_clim() == (-500.0, 1500.0)
    np.testing.assert_allclose(shown[0].get_array(), 2000 * TRUTH - 1000, atol=1e-3)
    np.testing.assert_allclose(shown[6].get_array(), -200.0, atol=1e-3)
    np.testing.assert_allclose(shown[7].get_array(), 20.0, atol=1e-3)
    assert shown[6].get_clim() == shown[7].get_clim() == (-20.0, 20.0)  # one scale, from the last image
    assert shown[7].get_cmap().name == "RdBu_r" and shown[0].get_cmap().name == "gray"
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert labels == ["brain (HU)", "bone (HU)", "error (HU)"]


def test_titles_give_the_scores_after_clipping():
    truth = np.zeros((24, 32), np.float32)
    titles = texts(comparison(truth, {"a": truth + 0.1, "b": truth - 5.0}))
    assert titles[0] == "truth" and titles[1].startswith("a\n20.00 dB / ") and titles[2] == "b\ninf dB / 1.000"
    small = texts(comparison(truth[:5, :5], {"a": truth[:5, :5] + 0.1}))
    assert small[1] == "a\n20.00 dB"  # too small for SSIM


def test_colour_pictures_have_one_row_and_a_mean_error():
    truth = RNG.random((9, 10, 3))
    other = truth + np.array([0.3, 0.0, 0.0])
    shown = pictures(comparison(truth, {"other": other}, window=PLAIN, error_limit=0.5))
    assert [image.get_array().shape for image in shown] == [(9, 10, 3), (9, 10, 3), (9, 10)]
    np.testing.assert_allclose(shown[2].get_array(), 0.1, atol=1e-6)
    assert shown[2].get_clim() == (-0.5, 0.5)


def test_own_displays_and_orientation():
    figure = comparison(TRUTH, {"x": TRUTH}, displays={"soft": Window("HU", -100.0, 200.0)}, origin="lower")
    shown = pictures(figure)
    assert len(shown) == 3 and shown[0].get_clim() == (-100.0, 200.0) and shown[0].origin == "lower"


def test_a_row_of_images_and_maps_take_displays():
    soft = {"soft": Window("HU", -100.0, 200.0), "all": Window("HU", -1000.0, 1000.0)}
    figure = images_row({"a": TRUTH, "b": TRUTH}, window=HOUNSFIELD, displays=soft)
    assert [image.get_clim() for image in pictures(figure)[:4]] == [(-100, 200)] * 2 + [(-1000, 1000)] * 2
    np.testing.assert_allclose(pictures(figure)[0].get_array(), 2000 * TRUTH - 1000, atol=1e-3)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["soft (HU)", "all (HU)"]
    assert texts(figure) == ["a", "b"]
    colour = pictures(images_row({"a": np.full((4, 5, 3), 0.4)}, displays={"x": Window("1", 0.0, 0.8)}))
    np.testing.assert_allclose(colour[0].get_array(), 0.5, atol=1e-6)
    first = pictures(maps({"mean": TRUTH, "deviation": TRUTH}, display=soft["soft"]))[0].get_array()
    np.testing.assert_allclose(first, soft["soft"].to_unit(2000 * TRUTH - 1000), atol=1e-5)
    np.testing.assert_allclose(pictures(maps({"mean": TRUTH, "x": TRUTH}))[0].get_array(), TRUTH, atol=1e-5)


def test_pictures_of_volumes_take_displays():
    volume = np.stack([TRUTH] * 3)
    shown = Window("HU", -100.0, 200.0)
    expected = shown.to_unit(2000 * TRUTH - 1000)
    np.testing.assert_allclose(pictures(montage(volume, "abc", display=shown))[0].get_array(), expected, atol=1e-5)
    planes = orthogonal(volume, None, displays={"soft": shown, "all": HOUNSFIELD})
    np.testing.assert_allclose(pictures(planes)[0].get_array(), expected, atol=1e-5)
    np.testing.assert_allclose(pictures(planes)[3].get_array(), TRUTH, atol=1e-5)
    assert texts(planes)[0] == "axial, soft" and texts(planes)[3] == "axial, all"
    with Image.open(io.BytesIO(step_png({"a": TRUTH, "b": TRUTH}, display=shown))) as picture:
        np.testing.assert_allclose(np.asarray(picture)[:, :32], 255 * expected, atol=0.51)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "at least one image"),
        ({"x": TRUTH.T}, r"x has shape \(32, 24\), the truth \(24, 32\)"),
        ({"x": np.zeros((24, 32, 2))}, r"x has shape \(24, 64\), the truth \(24, 32\)"),
        ({"x": np.zeros(3)}, r"got \(3,\)"),
    ],
)
def test_comparison_refuses_what_does_not_fit(images, message):
    with pytest.raises(ValueError, match=message):
        comparison(TRUTH, images)


@pytest.mark.parametrize("shape", [(16, 12, 2), (9, 9, 4), (8, 8, 5), (1, 30, 1), (30, 1, 3), (1, 1, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["random", "constant", "NaN"])
def test_every_shape_of_image_is_drawn(shape, kind, tmp_path):
    """Other channels than grey and colour are beside each other."""
    image = RNG.random(shape, np.float32) if kind == "random" else np.full(shape, 0.5, np.float32)
    other = image * 0.9
    if kind == "NaN":
        other[0, 0] = np.nan
    display = Window("1", 0.2, 0.8)
    figures = [comparison(image, {"x": other, "y": image}, window=PLAIN), images_row({"x": other})]
    figures += [maps({"x": image, "y": other}, window=PLAIN, display=display), patch_grid({"a": other[None]})]
    figures += [montage(other[None], ["0"], window=PLAIN), orthogonal(other[None], None, window=PLAIN)]
    for number, figure in enumerate(figures):
        save_figure(tmp_path / f"{number}.png", figure, dpi=40)
    with Image.open(io.BytesIO(step_png({"x": image, "y": other}, window=PLAIN))) as picture:
        wide = shape[1] * (shape[2] if len(shape) == 3 and shape[2] != 3 else 1)
        assert picture.size == (2 * wide + 1, shape[0])


def test_patch_grid_places_patches_by_row_and_column():
    clean, noisy = RNG.random((3, 8, 8, 1)), RNG.random((3, 8, 8, 1)) * 3 - 1
    figure = patch_grid({"clean": clean, "noisy": noisy}, labels=["a", "b", "c"], limits=(0.0, 2.0))
    shown = pictures(figure)
    np.testing.assert_allclose(shown[4].get_array(), clean[2, ..., 0] / 2, atol=1e-6)
    np.testing.assert_allclose(shown[3].get_array(), noisy[1, ..., 0].clip(0, 2) / 2, atol=1e-6)
    assert texts(figure) == ["clean", "noisy"] and figure.axes[2].get_ylabel() == "b"
    for columns, labels in (({"a": clean, "b": noisy[:2]}, []), ({"a": clean}, ["x"]), ({"a": clean[:0]}, [])):
        with pytest.raises(ValueError, match="do not make a grid"):
            patch_grid(columns, labels=labels)


def test_training_curves_read_a_log_that_was_cut_off(tmp_path):
    records = [{"step": i, "patch": (16, 56)[i % 2], "loss": 1.0 + i % 2} for i in range(40)] + [
        {"step": 40, "validation_loss": 3.0}
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps(record) for record in records) + '\n{"step": 41, "lo')
    (ax,) = training_curves(log).axes
    raw16, mean16, raw56, mean56, _, validation = ax.lines
    np.testing.assert_array_equal(raw16.get_xdata(), np.arange(0, 40, 2))
    np.testing.assert_allclose(mean16.get_ydata(), 1.0)
    np.testing.assert_allclose(raw56.get_ydata(), 2.0)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "loss, patch 16",
        "loss, patch 56",
        "validation loss",
    ]
    np.testing.assert_allclose(validation.get_xydata(), [[40.0, 3.0]])
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "step" and ax.get_ylabel() == "loss"


def test_the_running_mean_averages_its_neighbourhood():
    values = [0.0, 3.0, 6.0, 0.0, 0.0]
    (ax,) = training_curves([{"step": i, "loss": v} for i, v in enumerate(values)]).axes
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1.5, 3.0, 3.0, 2.0, 0.0])
    assert ax.get_yscale() == "linear" and ax.get_legend() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "log.jsonl: the log cannot be read"),
        ('{"step": 1, \n{"step": 2, "loss": 1}\n', "log.jsonl: line 1 is not JSON"),
        ('{"step": 1}\n', "log.jsonl: no records with the fields 'step' and 'loss' or 'validation_loss'"),
        ("", "no records"),
    ],
)
def test_unusable_logs_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        training_curves(tmp_path / "log.jsonl")


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_figures_are_written_whole_or_not_at_all(tmp_path, suffix, start):
    path = tmp_path / f"x{suffix}"
    figure = patch_grid({"a": np.zeros((1, 4, 4))})
    save_figure(path, figure)
    assert path.read_bytes().startswith(start)
    before = path.read_bytes()
    figure.savefig = lambda handle, **_: handle.write(b"half") and 1 / 0
    with pytest.raises(ZeroDivisionError):
        save_figure(path, figure)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unknown_figure_types_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"x.bmp: figures are written as .png, .pdf or .svg"):
        save_figure(tmp_path / "x.bmp", patch_grid({"a": np.zeros((1, 4, 4))}))


def test_drawing_changes_nothing_global(tmp_path):
    settings = dict(matplotlib.rcParams)
    save_figure(tmp_path / "x.png", comparison(TRUTH, {"x": TRUTH}), dpi=50)
    assert dict(matplotlib.rcParams) == settings
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 150


def test_pictures_in_the_page_are_the_images_in_their_orientation(tmp_path):
    """A bright top half must come out as a bright top half."""
    truth = np.zeros((24, 24), np.float32)
    truth[:12] = 1.0
    save_figure(tmp_path / "x.png", comparison(truth, {"x": truth}, displays={"all": Window("HU", -1000.0, 1000.0)}))
    with Image.open(tmp_path / "x.png") as picture:
        page = np.asarray(picture.convert("L"), float)
    column = page[: page.shape[0] // 2, 20]  # near the left edge of the panel of the truth, clear of its title
    dark = np.flatnonzero(column < 10)
    assert 100 < np.ptp(dark) < 200 and dark.min() > 150
    assert column[dark.min() - 100] == 255
