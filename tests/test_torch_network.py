"""studies.speed.torch_network: where PyTorch is installed both networks agree; elsewhere a line says how to have it."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from tiny import refused

from padis_jax.unet import NetworkConfig
from studies.speed import torch_network

NETWORK = NetworkConfig(model_channels=16, channel_mult=(1, 2), num_blocks=2)
THERE = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(THERE, reason="PyTorch is installed")
def test_without_pytorch_a_line_says_how_to_have_it(capsys):
    assert "error: torch is not installed: python -m venv" in refused(torch_network.main, ["--check"], capsys)


@pytest.mark.skipif(not THERE, reason="PyTorch is not installed")
@pytest.mark.parametrize("change", [{}, {"position_channels": 0, "image_channels": 3}, {"attention_levels": (1,)}])
def test_both_networks_agree(change):
    config = dataclasses.replace(NETWORK, **change)
    assert torch_network.difference(config, side=8, count=2) < torch_network.TOLERANCE
    with pytest.raises(ValueError, match="DDPM"):
        torch_network.difference(dataclasses.replace(config, resample_filter=(1.0, 3.0, 3.0, 1.0)), side=8, count=2)


def test_drawn_weights_and_inputs_are_of_order_one():
    params, patches, where, sigma = torch_network.drawn(NETWORK, 8, 3)
    assert patches.shape == (3, 8, 8, 1) and where.shape == (3, 8, 8, 2) and sigma.shape == (3,)
    clean = torch_network.ours(NETWORK, params, patches, where, sigma)["forward"]()
    assert 0.3 < float(np.std(np.asarray(clean))) < 3
