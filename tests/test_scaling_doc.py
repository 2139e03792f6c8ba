"""docs/scaling.md shows what its command prints, and the count by hand is XLA's."""

import re
from pathlib import Path

import pytest

from padis_jax.config import Config, load_config_file
from padis_jax.unet import NetworkConfig
from studies.speed import network_cost as cost
from studies.speed.scaling import CHIPS, CONFIG, exchange, seconds, tables
from studies.speed.scaling import TASKS as TASKS_OF_PAGE

ROOT = Path(__file__).parent.parent
SMALL = NetworkConfig(model_channels=32, channel_mult=(1, 2), num_blocks=1, dropout=0.0)


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
    assert hand == pytest.approx(cost.xla_forward(SMALL, side, 4).flops, rel=0.03)
    assert hand < cost.forward(SMALL, side, 4).flops


@pytest.mark.slow
def test_the_pages_count_by_xla(config):
    page = (ROOT / "docs" / "scaling.md").read_text()
    (row,) = re.findall(r"^\| 128 patches of 56 x 56 \| (.*) \|$", page, re.MULTILINE)
    by_hand, inside, xla, step, xla_step = map(float, row.split(" | "))
    assert xla == pytest.approx(cost.xla_forward(config.network, 56, 128).flops / 1e12, abs=1e-3)
    assert xla_step == pytest.approx(cost.xla_training_step(config, 2).flops / 1e12, abs=1e-3)
    assert inside == pytest.approx(xla, rel=0.01) and step == pytest.approx(xla_step, rel=0.01) and by_hand > inside


def test_exchanges_and_shares(config):
    """One chip exchanges nothing, and neither do the slices of a volume."""
    chip = CHIPS[0]
    assert exchange(chip, 1, 1e9) == 0 and exchange(chip, 8, 8e9) == pytest.approx(7e9 / chip.link + 30e-6)
    for task in TASKS_OF_PAGE:
        alone, shared = seconds(config, chip, task, 1), seconds(config, chip, task, 64)
        assert alone[1] == 0 and shared[0] < alone[0]
        assert (shared[1] == 0) == (task.images > 1)
