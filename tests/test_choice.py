"""Which slices: numbers, ranges as Python's slices, lists; what is not there is refused, and named."""

import numpy as np
import pytest

from padis_jax.errors import UserError
from padis_jax.images.choice import check_choice, chosen, described


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (41, [41]),
        ("41", [41]),
        ("60:70", range(60, 70)),
        ("100:", range(100, 108)),
        (":3", range(3)),
        ("-3:", range(105, 108)),
        ("10:-90", range(10, 18)),
        ("0:10:4", [0, 4, 8]),
        ("9:3:-2", [5, 7, 9]),
        ("9,3, 5", [3, 5, 9]),
        ("3,60:62,61", [3, 60, 61]),
        ("all", range(108)),
        ("0:108", range(108)),
    ],
)
def test_choices_are_those_of_python(choice, expected):
    assert chosen("--image.index", choice, 108) == tuple(expected)
    if ":" in str(choice) and "," not in str(choice):  # the same by Python itself
        numbers = [int(word) if word else None for word in choice.split(":")]
        assert sorted(range(108)[slice(*numbers)]) == list(expected)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("60:109", "'60:109' reaches beyond the 108 images, counted from 0 to 107"),
        ("-109:", "reaches beyond the 108 images"),
        ("3,108", "--image.index '3,108': '108' reaches beyond the 108 images"),
        (108, "'108' reaches beyond the 108 images"),
        ("70:60", "70:60 holds none of the 108 images"),
        ("5:5", "5:5 holds none"),
        ("0:10:0", "'0:10:0' has the step 0"),
        ("0:1:2:3", "more than two colons"),
        ("last", "'last' is no number and no range; use a number, a range 60:70, a list 3,5,9 or all"),
        ("3,,5", "'' is no number"),
        ("", "--image.index is empty"),
        ("1.5", "is no number"),
        ("-1,3", "single numbers are counted from 0"),
        ("9" * 5000, "is no number"),
    ],
)
def test_what_is_not_there_is_refused_in_one_short_line(choice, message):
    with pytest.raises(UserError) as refused:
        check_choice("--image.index", choice)
        chosen("--image.index", choice, 108)
    assert message in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_named_as_they_are_chosen(seed):
    numbers = tuple(np.flatnonzero(np.random.default_rng(seed).random(40) < 0.6).tolist())
    assert chosen("", described(numbers), 40) == numbers
    assert described((3, 4, 5, 9)) == "3:6,9"
