"""docs/scaling.md shows what its command prints, and the count by hand is XLA's."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.loss import DenoisingLoss
from padis_jax.training import init_state, step
from padis_jax.unet import NetworkConfig, init_network
from studies.speed import network_cost as cost
from studies.speed.scaling import CHIPS, CONFIG, exchange, seconds, tables
from studies.speed.scaling import TASKS as TASKS_OF_PAGE
from studies.speed.throughput import flops_of

ROOT = Path(__file__).parent.parent
SMALL = NetworkConfig(model_channels=32, channel_mult=(1, 2), num_blocks=1, dropout=0.0)


def xla_forward(config, side, count):
    """XLA's count of the flops of the program before it is optimised."""
    params = jax.eval_shape(lambda: init_network(jax.random.key(0), config))
    shapes = [(count, side, side, config.image_channels), (count, side, side, 2), (count,)]
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return flops_of(functools.partial(denoise_patches, config), params, *arrays)


def xla_training_step(config, which):
    """Likewise, for a step with the patches of number `which`."""
    params = jax.eval_shape(lambda: init_network(jax.random.key(0), config.network))
    state = jax.eval_shape(lambda params: init_state(params, config.optimiser), params)
    side, batch = config.patches.sizes[which], config.patches.batch[which]
    arrays = [jax.ShapeDtypeStruct((batch, side, side, c), jnp.float32) for c in (config.network.image_channels, 2)]
    loss = DenoisingLoss(config.network, config.noise)
    return flops_of(functools.partial(step, loss, config.optimiser, 1, jax.random.key(0)), state, *arrays)


@pytest.fixture(scope="module")
def config():
    return load_config_file(ROOT / CONFIG, Config)


def test_the_page_shows_what_the_command_prints(config):
    page = (ROOT / "docs" / "scaling.md").read_text()
    for name, text in tables(config).items():
        assert text.strip() in page, name
    assert f"{cost.parameters(config.network):,} parameters" in page


@pytest.mark.parametrize("side", [16, 32])
def test_the_count_by_hand_is_xlas(side):
    """XLA leaves out products with padding; sums and activations, which we leave out, are a few per cent here."""
    hand = cost.forward(SMALL, side, 4, padding=False).flops
    assert hand == pytest.approx(xla_forward(SMALL, side, 4), rel=0.03)
    assert hand < cost.forward(SMALL, side, 4).flops


@pytest.mark.slow
def test_the_pages_count_by_xla(config):
    page = (ROOT / "docs" / "scaling.md").read_text()
    (row,) = re.findall(r"^\| 128 patches of 56 x 56 \| (.*) \|$", page, re.MULTILINE)
    by_hand, inside, xla, training, xla_training = map(float, row.split(" | "))
    assert xla == pytest.approx(xla_forward(config.network, 56, 128) / 1e12, abs=1e-3)
    assert xla_training == pytest.approx(xla_training_step(config, 2) / 1e12, abs=1e-3)
    assert (
        inside == pytest.approx(xla, rel=0.01)
        and training == pytest.approx(xla_training, rel=0.01)
        and by_hand > inside
    )


def test_exchanges_and_shares(config):
    """One chip exchanges nothing, and neither do the slices of a volume."""
    chip = CHIPS[0]
    assert exchange(chip, 1, 1e9) == 0 and exchange(chip, 8, 8e9) == pytest.approx(7e9 / chip.link + 30e-6)
    for task in TASKS_OF_PAGE:
        alone, shared = seconds(config, task, chip, 1), seconds(config, task, chip, 64)
        assert alone[1] == 0 and shared[0] < alone[0]
        assert (shared[1] == 0) == (task.images > 1)
