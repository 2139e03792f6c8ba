"""Strictness for all tests; slow tests run with `python -m pytest -m slow`, everything with `-m ""`.

Most of the time would go into compiling small programs that run once. So XLA leaves out LLVM's optimisations, here and
in the programs that tests start; `JAX_DISABLE_MOST_OPTIMIZATIONS=0 python -m pytest` tests what users run.
"""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # read when jax is imported
os.environ["PADIS_JAX_COMPILE_CACHE"] = "off"  # tests count what is compiled, and leave the user's folder alone

import chex
import jax
import optax
import pytest
from jax import lax
from jax.experimental.key_reuse import _core as key_reuse

if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")  # figures in tests are the CPU's; JAX_PLATFORMS chooses another device
jax.config.update("jax_numpy_rank_promotion", "raise")  # a missing axis is a mistake here, never a broadcast
jax.config.update("jax_numpy_dtype_promotion", "strict")  # a mixture of types is a mistake here, never a promotion
jax.config.update("jax_debug_key_reuse", True)  # a test that repeats a draw on purpose clones its key
# The checker does not know transpositions, which vmap makes of the keys of a scan: the keys stay the same.
key_reuse.key_reuse_signatures.setdefault(lax.transpose_p, key_reuse.KeyReuseSignature(key_reuse.Forward(0, 0)))


@pytest.fixture(autouse=True, scope="session")
def optax_promotes():
    """Strict types are for this package: Optax computes with an integer step number and float rates."""

    def promoting(function):
        def call(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return function(*args, **kwargs)

        return call

    adam = optax.adam
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optax, "adam", lambda rate: optax.GradientTransformation(*map(promoting, adam(rate))))
        for name in ("warmup_cosine_decay_schedule", "cosine_decay_schedule"):
            schedule = getattr(optax, name)
            patch.setattr(optax, name, lambda *a, make=schedule, **k: promoting(make(*a, **k)))
        yield


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
