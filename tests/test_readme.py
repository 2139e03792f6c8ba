"""The README's examples run as they stand, on a small volume and small weights under the names that they mention."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny import write_weights

import padis_jax
from padis_jax.config import Config
from padis_jax.images import HOUNSFIELD

SIDE = 16


@pytest.fixture(scope="module")
def readme(request):
    return (request.config.rootpath / "README.md").read_text()


@pytest.fixture(scope="module")
def blocks(readme):
    return re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the files of a checkout, small; the current folder while the test runs."""
    (tmp_path / "data").mkdir()
    volume = np.random.default_rng(0).integers(-1024, 1500, (42, SIDE, SIDE)).astype(np.int16)
    np.savez(tmp_path / "data" / "head_ct.npz", volume=volume)
    write_weights(tmp_path / "weights" / "head_ct.safetensors", image_shape=(SIDE, SIDE), window=HOUNSFIELD)
    monkeypatch.chdir(tmp_path)


def run(block, levels=3):
    """Executes a block with fewer noise levels; returns its names."""
    assert block.count("levels=100") == 1
    names = {}
    exec(compile(block.replace("levels=100", f"levels={levels}"), "README.md", "exec"), names)
    return names


def test_scan_example(blocks, checkout, capsys):
    names = run(blocks[0])
    result, truth = names["result"], names["truth"]
    assert result.image.shape == truth.shape == (SIDE, SIDE, 1) and result.residual.shape == (3,)
    assert np.isfinite(result.image).all()
    assert re.fullmatch(r"-?\d+\.\d\d dB, residual \d\.\d{4}\n", capsys.readouterr().out)


def test_own_operator_example(blocks, checkout):
    names = run(blocks[1], levels=30)
    operator, result, truth = names["operator"], names["result"], names["truth"]
    np.testing.assert_allclose(operator.norm, 1 / 4, rtol=1e-3)  # the mean of 16: sqrt(16) / 16
    measured = names["shrink"](truth)
    misfit = np.linalg.norm(operator(result.image) - measured) / np.linalg.norm(measured)
    assert misfit < 0.05  # the measurement is what a random prior can still be held to


def test_settings_example_is_a_config(blocks):
    names = {}
    exec(compile(blocks[2], "README.md", "exec"), names)
    assert isinstance(names["config"], Config) and len(blocks) == 3


def test_examples_are_short(blocks):
    assert [line for line in blocks[0].splitlines() if line.strip()][-1].startswith("print")
    assert sum(bool(line.strip()) for line in blocks[0].splitlines()) <= 12


def test_files_that_the_readme_names_exist(readme, request):
    named = re.findall(r"`((?:docs|data|weights|configs|padis_jax)/[\w./]*)`", readme)
    named += re.findall(r"(?:configs/|python )(\w+\.py)\b", readme)
    root = request.config.rootpath
    assert len(named) > 5
    missing = [name for name in named if not (root / name).exists() and not (root / "configs" / name).exists()]
    assert not [name for name in missing if name != "mine.py"]


def test_public_names():
    assert 20 < len(padis_jax.__all__) < 32 and {"load_prior", "reconstruct", "DPS", "fit"} <= set(padis_jax.__all__)
    assert all(callable(getattr(padis_jax, name)) for name in padis_jax.__all__)


def test_commands_can_be_pasted(readme):
    """No command has a placeholder in capitals, a bracket or dots to be filled in."""
    commands = re.findall(r"^ {4}((?:make|pip|git|cd|source|python|padis-\w+) .*)$", readme, re.MULTILINE)
    commands += re.findall(r"`((?:make|pip|git|source|python|padis-\w+) [^`]*)`", readme)
    assert len(commands) > 8 and "make demo" in commands[0]
    for command in commands:
        words = command.partition(" #")[0]
        assert not re.search(r"[A-Z]{4,}|<\w|\.\.\.|git clone", words), command
