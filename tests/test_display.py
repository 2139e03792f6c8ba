"""Displays: CT windows by name, LOW:HIGH, and what suits the image; no image that is no head is shown as one."""

import numpy as np
import pytest

from padis_jax.display import AUTO, BONE, BRAIN, CT_WINDOWS, check_displays, displays_of, shows_head
from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, PLAIN, Window, read_images
from padis_jax.split import HEAD_CT

Y, X = np.mgrid[-1:1:96j, -1:1:96j]
RADIUS = np.hypot(X, Y)


def head():
    values = np.full(RADIUS.shape, -1000.0, np.float32)
    values[RADIUS < 0.8] = 900.0
    values[RADIUS < 0.7] = 35.0
    return values


def spine():
    """Fat around muscle, a vertebra near the back, its canal."""
    values = np.full(RADIUS.shape, -1000.0, np.float32)
    values[(X / 0.9) ** 2 + (Y / 0.65) ** 2 < 1] = -100.0
    values[(X / 0.8) ** 2 + (Y / 0.55) ** 2 < 1] = 50.0
    values[(X / 0.2) ** 2 + ((Y - 0.25) / 0.16) ** 2 < 1] = 400.0
    values[np.hypot(X, Y - 0.46) < 0.06] = 30.0
    return values


def chest():
    """Lungs within ribs all around, the heart between them."""
    values = np.full(RADIUS.shape, -1000.0, np.float32)
    values[RADIUS < 0.9] = 600.0
    values[RADIUS < 0.85] = -800.0
    values[RADIUS < 0.3] = 40.0
    return values


def abdomen():
    """Ribs at the sides only, organs in fat."""
    values = np.full(RADIUS.shape, -1000.0, np.float32)
    values[RADIUS < 0.9] = np.where(np.sin(40 * X) > 0, 50.0, -100.0)[RADIUS < 0.9]
    values[(RADIUS < 0.85) & (RADIUS > 0.8)] = 600.0
    return values


def half():
    """Water behind bone on one side alone."""
    values = head()
    values[(RADIUS >= 0.7) & (RADIUS < 0.8) & (X > 0)] = 35.0
    return values


def neck():
    """Muscle around a vertebra and its canal in the middle, which is seen as bone in every direction."""
    values = np.full(RADIUS.shape, -1000.0, np.float32)
    values[RADIUS < 0.8] = 50.0
    values[RADIUS < 0.3] = 700.0
    values[RADIUS < 0.2] = 30.0
    return values


def unit(values, window=HOUNSFIELD):
    return window.to_unit(values)[..., None].astype(np.float32)


def test_a_head_has_brain_and_bone():
    assert displays_of((AUTO,), HOUNSFIELD, unit(head())) == {"brain": BRAIN, "bone": BONE}
    slices = read_images(HEAD_CT, memory=0)
    assert displays_of((AUTO,), HOUNSFIELD, np.asarray(slices.images[41])) == {"brain": BRAIN, "bone": BONE}
    plane = np.asarray(HOUNSFIELD.from_unit(slices.images[41][..., 0]))
    assert shows_head(plane) and shows_head(plane[::-1]) and shows_head(plane.T)
    volume = np.stack([unit(spine())] * 2 + [unit(head())])
    assert list(displays_of((AUTO,), HOUNSFIELD, volume)) == ["brain", "bone"]  # a quarter of the slices, or more
    assert list(displays_of((AUTO,), HOUNSFIELD, np.concatenate([volume[:2], volume]))) == ["image"]


@pytest.mark.parametrize("body", [spine, chest, abdomen, half, neck])
def test_what_is_no_head_is_not_shown_as_one(body):
    ((name, shown),) = displays_of((AUTO,), HOUNSFIELD, unit(body())).items()
    inside = body()[body() > -950]
    assert name == "image" and shown.unit == "HU" and -950 < shown.low < np.percentile(inside, 5)
    assert shown.high >= np.percentile(inside, 99)
    assert not shows_head(np.full((20, 20), -1000.0)) and not shows_head(np.full((20, 20), 40.0))


def test_auto_is_of_the_image_where_there_are_no_hounsfield_units():
    mr = Window("1", 0.0, 4000.0)
    values = np.linspace(0, 800, 10000, dtype=np.float32).reshape(100, 100)
    values[0, 0] = 3900  # a hot pixel
    (shown,) = displays_of((AUTO,), mr, unit(values, mr)).values()
    assert (shown.low, shown.high) == pytest.approx((4.0, 796.0), abs=0.5)
    assert displays_of((AUTO,), PLAIN, np.full((9, 9, 1), 0.5, np.float32)) == {"image": PLAIN}  # of one value
    colour = np.random.default_rng(0).uniform(0.2, 0.4, (9, 9, 3)).astype(np.float32)
    assert displays_of((AUTO,), PLAIN, colour) == {"image": PLAIN}
    assert displays_of((AUTO,), HOUNSFIELD, np.zeros((9, 9, 1), np.float32)) == {"image": HOUNSFIELD}  # air


def test_windows_by_level_and_width_and_by_their_ends():
    assert {name: ((w.low + w.high) / 2, w.high - w.low) for name, w in CT_WINDOWS.items()} == {
        "brain": (40, 120),
        "bone": (500, 2000),
        "lung": (-600, 1500),
        "body": (50, 400),
    }
    found = displays_of(("lung", "-160:240", AUTO), HOUNSFIELD, unit(head()))
    assert list(found) == ["lung", "-160 to 240", "brain", "bone"]
    assert found["-160 to 240"] == Window("HU", -160.0, 240.0)
    assert displays_of(("0.2:0.6",), PLAIN, unit(head())) == {"0.2 to 0.6": Window("1", 0.2, 0.6)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("spine",), "'spine': there is no such display; use brain, bone, lung, body"),
        (("10:",), "there is no such display"),
        (("1:2:3",), "there is no such display"),
        (("240:-160",), "the first number must be below the second"),
        (("nan:3",), "both finite"),
        (("0:inf",), "both finite"),
        (("1:1.0000000001",), "beyond single precision"),
        ((), "needs a value"),
    ],
)
def test_other_words_are_refused(words, message):
    with pytest.raises(UserError, match=f"--display.*{message}"):
        check_displays(words)


def test_ct_windows_are_for_hounsfield_units():
    with pytest.raises(
        UserError, match="--display bone: is a window of CT in HU, and these are image values .0 to 1.;"
    ):
        check_displays(("bone",), PLAIN)
    check_displays(("bone",), HOUNSFIELD)
