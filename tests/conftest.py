"""Strictness for all tests; slow tests run with `python -m pytest -m slow`, everything with `-m ""`.

Most of the time would go into compiling small programs that run once. So XLA leaves out LLVM's optimisations, here and
in the programs that tests start; `JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest` tests what users run.
"""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # read when jax is imported

import chex
import jax
import pytest

if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")  # figures in tests are the CPU's; JAX_PLATFORMS chooses another device
jax.config.update("jax_numpy_rank_promotion", "raise")  # a missing axis is a mistake here, never a broadcast


@pytest.fixture(autouse=True)
def no_traces_counted():
    """`chex.assert_max_traces` counts by where a function is defined: each test from 0."""
    chex.clear_trace_counter()


@pytest.fixture(autouse=True, scope="module")
def no_programs_left():
    """After a module: its compiled programs go. Each maps memory, and Linux allows a process 65,530 mappings."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def fully_optimised():
    """For modules that measure time or memory: programs as users run them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def no_temporary_files(tmp_path):
    """After the test: nothing half-written is left in the test's folder."""
    yield
    assert not [path for path in tmp_path.rglob("*.tmp")]
