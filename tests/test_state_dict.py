"""Networks under the authors' names: architecture deduced, output and gradient equal to PyTorch's."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.conversion.state_dict import import_state_dict
from padis_jax.denoiser import denoise_patches
from padis_jax.errors import UserError
from padis_jax.unet import NetworkConfig, init_network, parameter_count

FIXTURES = Path(__file__).parent / "fixtures"


def _reference(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with np.load(FIXTURES / name) as file:
        weights = {k.removeprefix("weights/"): file[k] for k in file.files if k.startswith("weights/")}
        rest = {k: file[k] for k in file.files if not k.startswith("weights/")}
    return weights, rest


def _relative(a: jax.Array, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", ["ddpmpp_small.npz", "ncsnpp_small.npz"])
def test_output_and_gradient_equal_pytorch(name: str) -> None:
    weights, ref = _reference(name)
    config, params = import_state_dict(weights)
    x, position, cotangent = (ref[f"input/{k}"].transpose(0, 2, 3, 1) for k in ("x", "position", "cotangent"))

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        sigma = jnp.asarray(ref["input/sigma"])
        out, vjp = jax.vjp(lambda x: denoise_patches(config, params, x, jnp.asarray(position), sigma), x)
        return out, vjp(jnp.asarray(cotangent))[0]

    denoised, gradient = both(jnp.asarray(x))
    assert _relative(denoised.transpose(0, 3, 1, 2), ref["output/denoised"]) < 1e-4
    assert _relative(gradient.transpose(0, 3, 1, 2), ref["output/vjp"]) < 1e-4


def test_architecture_is_deduced() -> None:
    config, _ = import_state_dict(_reference("ddpmpp_small.npz")[0])
    assert config == NetworkConfig(model_channels=16, channel_mult=(1, 2), num_blocks=1, attention_levels=(1,))
    config, _ = import_state_dict(_reference("ncsnpp_small.npz")[0], sigma_data=0.28)
    assert (config.embedding, config.encoder, config.resample_filter) == ("fourier", "residual", (1.0, 3.0, 3.0, 1.0))
    assert config.sigma_data == 0.28


def test_the_authors_ct_network() -> None:
    shapes = json.loads((FIXTURES / "authors_checkpoint_shapes.json").read_text())
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in arrays:
        if name.endswith("resample_filter"):
            arrays[name][...] = 0.25
    config, params = import_state_dict(arrays)
    assert (config.channel_mult, config.num_blocks, config.model_channels) == ((2, 2, 2), 4, 128)
    assert parameter_count(params) == 54_409_729


@pytest.mark.parametrize(
    "channel_mult, positions, count", [((1, 2, 2, 2), 2, 60_483_713), ((1, 2, 2, 4), 0, 114_641_281)]
)
def test_parameter_counts_of_the_paper(channel_mult: tuple[int, ...], positions: int, count: int) -> None:
    config = NetworkConfig(channel_mult=channel_mult, position_channels=positions)
    assert parameter_count(jax.eval_shape(lambda: init_network(jax.random.key(0), config))) == count


def test_what_does_not_fit_is_named() -> None:
    weights, _ = _reference("ddpmpp_small.npz")
    with pytest.raises(UserError, match="dec0_up.conv1.kernel is missing"):
        import_state_dict({k: v for k, v in weights.items() if k != "model.dec.32x32_up.conv1.weight"})
    with pytest.raises(UserError, match="enc0_block9"):
        import_state_dict(weights | {"model.enc.32x32_block9.norm0.bias": np.zeros(3)})
    with pytest.raises(UserError, match="map_label"):
        import_state_dict(weights | {"model.map_label.weight": np.zeros((3, 3))})
    with pytest.raises(UserError, match=r"give resample_filter=\(1, 1\)"):
        import_state_dict({k: v for k, v in weights.items() if "resample_filter" not in k})
    with pytest.raises(UserError, match="is this a U-Net"):
        import_state_dict({"conv.weight": np.zeros((3, 3))})
