"""The network in bfloat16, everything else in float32: sample.py takes it, and the image hardly changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_cli_sample import QUICK
from tiny import write_weights

from padis_jax.cli.sample import main
from padis_jax.weights import load_weights


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same reconstruction in both types, and what it printed."""
    folder = tmp_path_factory.mktemp("precision")
    write_weights(folder / "w.safetensors")
    np.save(folder / "images.npy", np.random.default_rng(0).random((1, 16, 16), np.float32))
    found = {}
    for compute in ("float32", "bfloat16"):
        start = ["--weights", folder / "w.safetensors", "--image.path", folder / "images.npy", "--image.index", 0]
        main([str(a) for a in (*start, "--workdir", folder / compute, *QUICK, "--compute", compute)])
        with np.load(folder / compute / "reconstruction.npz") as archive:
            found[compute] = archive["DDS"]
    return found


@pytest.mark.slow
def test_the_image_changes_by_rounding_only(images):
    difference = np.max(np.abs(images["bfloat16"] - images["float32"]))
    assert images["bfloat16"].dtype == np.float32 and 0 < difference < 0.05, difference


def test_parameters_stay_float32(tmp_path):
    weights = load_weights(write_weights(tmp_path / "w.safetensors"))
    assert weights.computing("") is weights and weights.computing("bfloat16").network.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(weights.computing("bfloat16").params)} == {jnp.dtype("float32")}
