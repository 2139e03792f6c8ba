"""The research API: every public name is documented, and the example in its docstring runs."""

import dataclasses
import doctest
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import padis_jax
from padis_jax.errors import UserError
from padis_jax.patches import frame_for
from padis_jax.prior import Prior


@pytest.mark.parametrize("name", [name for name in padis_jax.__all__ if not name.startswith("__")])
def test_the_example_of_every_public_name_runs(name, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    public = getattr(padis_jax, name)
    text = inspect.getdoc(public)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert len(test.examples) >= 2, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
    if inspect.isclass(public):
        fields = [field for field in public.__dataclass_fields__ if f"{field}: " not in text]
        assert "Attributes:" in text and not fields, f"{name} does not say what {fields} are"
    else:
        missing = [p for p in inspect.signature(public).parameters if p != "options" and f"{p}: " not in text]
        assert "Raises:" in text or name in ("patch_prior",), f"{name} does not say what it refuses"
        assert not missing, f"{name} does not say what {missing} are"


PRIOR = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((8, 8), 4))
HALF = padis_jax.from_functions(lambda x: x / 2, image_shape=(8, 8, 1))
Y = jnp.full((8, 8, 1), 0.3)
DOOR = {
    "reconstruct": {"key": 0, "measurement": Y, "operator": HALF, "prior": PRIOR, "levels": 2},
    "draw_samples": {"key": 0, "measurement": Y, "operator": HALF, "prior": PRIOR, "count": 2, "levels": 2},
    "generate": {"key": 0, "prior": PRIOR, "levels": 2},
    "total_variation": {"measurement": Y, "operator": HALF},
    "fit": {"key": 0, "state": None, "batches": None, "step": None, "steps": 0},
    "ParallelBeam": {"image_shape": (8, 8), "angles": [0.0, 1.0], "detector_count": 12},
    "Downsample": {"image_shape": (8, 8), "factor": 2},
    "from_functions": {"forward": lambda x: x, "image_shape": (8, 8)},
    "stack": {"operators": [HALF]},
}
KEYED = ["reconstruct", "draw_samples", "generate", "fit"]


def refusal(name, **given):
    """The one line that a public function refuses these arguments by."""
    with pytest.raises(ValueError) as refused:
        getattr(padis_jax, name)(**{**DOOR[name], **given})
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200
    return str(refused.value)


@pytest.mark.parametrize("name", KEYED)
def test_what_is_no_key_is_refused_in_one_line(name):
    for wrong, said in (("a", "str"), (None, "NoneType"), (2.5, "float"), ([1, 2], "list"), (True, "bool")):
        assert f"key is a {said}: give jax.random.key(seed), or the seed" in refusal(name, key=wrong)
    assert "key has shape (2,) and type float32" in refusal(name, key=np.zeros(2, np.float32))
    several = refusal(name, key=jax.random.split(jax.random.key(0), 3))
    assert several == "key has shape (3,): one image takes one key; use jax.vmap over keys for several"
    assert "one key" in refusal(name, key=np.zeros((3, 2), np.uint32))


def test_arguments_of_another_type_are_refused_in_one_line():
    keys = jax.random.split(jax.random.key(0), 3)
    for name in ("reconstruct", "draw_samples", "generate"):
        assert refusal(name, prior="a") == "prior is a str: give a Prior, such as load_prior(path) returns"
        assert "sigma_max is 'a': it must be a number" in refusal(name, sigma_max="a")
    tv = padis_jax.total_variation(Y, HALF, settings=padis_jax.TV(iterations=2))
    assert "start is a TVResult, which is no array: give its `image`" in refusal("reconstruct", start=tv)
    for name in ("reconstruct", "draw_samples", "total_variation"):
        assert "measurement is a list, which is no array" in refusal(name, measurement=[[1.0], [1.0, 2.0]])
        assert "measurement is an array of random keys" in refusal(name, measurement=keys)
        assert "operator has no .T" in refusal(name, operator="a")
    assert "count is 'a': it must be a whole number" in refusal("draw_samples", count="a")
    assert "eps is 'a': it must be a number" in refusal("generate", eps="a")
    assert "ladder is ['edm']" in refusal("reconstruct", ladder=["edm"])
    assert refusal("total_variation", settings="a") == "settings is a str: give TV(...)"
    assert "image_shape must be (H, W)" in refusal("ParallelBeam", image_shape=8)
    assert "detector_count must be a positive whole number" in refusal("ParallelBeam", detector_count="a")
    assert "pixel_size is 'a': it must be a number" in refusal("ParallelBeam", pixel_size="a")
    assert "factor a must be whole" in refusal("Downsample", factor="a")
    assert "image_shape is 8: give what forward takes" in refusal("from_functions", image_shape=8)
    assert "not int" in refusal("stack", operators=3)


def test_what_is_no_path_is_refused_in_one_line():
    for wrong in (None, 3, ["a"]):
        for door in (padis_jax.load_prior, padis_jax.read_images):
            with pytest.raises(UserError, match=f"is a {type(wrong).__name__}: give a path"):
                door(wrong)


def test_keys_of_all_kinds_are_those_of_the_seed():
    found = [padis_jax.generate(key, PRIOR, levels=2) for key in (7, np.int64(7), jax.random.key(7))]
    found.append(padis_jax.generate(np.asarray(jax.random.PRNGKey(7)), PRIOR, levels=2))
    for image in found[1:]:
        np.testing.assert_array_equal(image, found[0])


def sections(name):
    """The text of a public name's docstring by section: "", "Args:", "Raises:" ..."""
    parts = re.split(r"\n(Args|Attributes|Returns|Raises):\n", "\n" + inspect.getdoc(getattr(padis_jax, name)))
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


METHODS = [name for name in padis_jax.__all__ if inspect.isclass(getattr(padis_jax, name))]


@pytest.mark.parametrize("name", padis_jax.__all__)
def test_every_public_name_says_what_it_refuses_and_of_which_shape_or_unit_things_are(name):
    found = sections(name)
    assert re.search(r"\b(User|Value)Error: [\w`]", found["Raises"]), f"{name} does not say what it raises"
    if name not in METHODS:
        assert re.search(r"\[\w+(, \*?\w+)*\]|\(H, W|pixel|unit|\bdB\b|image_shape|shape", " ".join(found.values())), (
            name
        )


@pytest.mark.parametrize("name", METHODS)
def test_settings_name_their_source_and_the_limits_that_they_keep(name):
    """The intervals of the docstring are those that are refused beyond, and no others are."""
    kind, found = getattr(padis_jax, name), sections(name)
    assert re.search(r"Source: .*(arXiv|20\d\d)", found[""], re.DOTALL), f"{name} names no source"
    limits = re.findall(r"(\w+)\s+([(\[])([\d.]+),\s+([\d.]+|inf)([)\]])", found["Raises"])
    numbers = {f.name for f in dataclasses.fields(kind) if f.type.startswith(("float", "int"))}
    assert numbers - {"low", "high", "last_level_noise"} == {field for field, *_ in limits}
    for field, left, low, high, right in limits:
        outside = [-1] if float(low) == 0 else [0]
        outside += [float(low)] * (left == "(") + ([] if high == "inf" else [float(high) + 1])
        outside += [float(high)] * (right == ")")
        for value in (int(value) if value % 1 == 0 else value for value in outside):
            with pytest.raises(ValueError, match=field):
                kind(**{field: value})
        for value in [float(low)] * (left == "[") + [float(high)] * (right == "]" and high != "inf"):
            kind(**{field: int(value) if value % 1 == 0 else value})
