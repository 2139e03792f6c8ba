"""Strictness for all tests; slow tests run with `python -m pytest -m slow`, everything with `-m ""`."""

import os

import jax
import pytest

if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")  # figures in tests are the CPU's; JAX_PLATFORMS chooses another device
jax.config.update("jax_numpy_rank_promotion", "raise")  # a missing axis is a mistake here, never a broadcast


@pytest.fixture(autouse=True, scope="module")
def no_programs_left():
    """After a module: its compiled programs go. Each maps memory, and Linux allows a process 65,530 mappings."""
    yield
    jax.clear_caches()


@pytest.fixture
def no_temporary_files(tmp_path):
    """After the test: nothing half-written is left in the test's folder."""
    yield
    assert not [path for path in tmp_path.rglob("*.tmp")]
