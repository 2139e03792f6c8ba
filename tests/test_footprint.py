"""The memory estimated from a trace against XLA's analysis of the compiled program."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny

from padis_jax.config import Config, load_config_file
from padis_jax.devices.chunk import network_call
from padis_jax.devices.footprint import PACKING, footprint
from padis_jax.devices.memory import analysed
from padis_jax.devices.plan import training_call
from padis_jax.unet import init_network

SIDES = {"tiny": 8, "head_ct": 56, "head_ct_whole": 256, "htc2022": 64, "photos": 56, "aapm_ct": 56}
QUICK = [
    ("tiny", 64, "forward", "float32"),
    ("tiny", 4, "image", "float32"),
    ("tiny", 16, "training", "float32"),
]
SLOW = [("tiny", 4, "image", "bfloat16")]
SLOW += [("head_ct", count, kind, "float32") for count in (1, 4) for kind in ("forward", "image", "training")]
SLOW += [("head_ct", 4, "image", "bfloat16"), ("htc2022", 4, "image", "float32"), ("photos", 8, "forward", "float32")]
SLOW += [("head_ct_whole", 1, "forward", "float32"), ("aapm_ct", 1, "image", "float32")]


def _call(name, count, kind, dtype):
    """The function and the shapes of its arguments."""
    root = Path(__file__).parent.parent
    config = tiny.CONFIG if name == "tiny" else load_config_file(root / "configs" / f"{name}.py", Config)
    network = dataclasses.replace(config.network, dtype=dtype)
    params = jax.eval_shape(lambda: init_network(jax.random.key(0), network))
    sides = (SIDES[name], SIDES[name])
    if kind == "training":
        return training_call(dataclasses.replace(config, network=network), params, (count, *sides))
    return network_call(network, params, sides, count, gradient=kind == "image")


@pytest.mark.parametrize("case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)], ids=str)
def test_the_network_takes_what_its_trace_says(case):
    f, shapes = _call(*case)
    estimated, compiled = footprint(f, *shapes), analysed(jax.jit(f).lower(*shapes).compile())
    assert abs(estimated.total / compiled.total - 1) < 0.25, (estimated, compiled)
    assert abs(estimated.temporary / compiled.temporary - 1) < 0.25, (estimated, compiled)
    assert estimated.arguments == compiled.arguments
    assert abs(estimated.results / compiled.results - 1) < 0.05  # XLA pads small arrays


N = 256


def _end(y):
    """A small result, as XLA keeps other arrays where a large one will be."""
    return y @ jnp.ones((N, 1))


RULES = {  # a function of x [N, N], and how many such arrays are alive at its peak
    "what is fused takes nothing": (lambda x: jnp.tanh(x) * 2 + 1, 0),
    "what a kernel writes is an array": (lambda x: _end(x @ x), 1),
    "what is not returned is not computed": (lambda x: (_end(x @ x), x.T @ x)[0], 1),
    "it lives until its last reader": (lambda x: _end((lambda y: ((y @ x) @ x) @ y)(x @ x.T)), 3),
    "a fused result takes over what dies with it": (lambda x: _end((x @ x + 1) @ x), 2),
    "a product over nothing is fused": (lambda x: _end(jnp.einsum("a,b->ab", x[0], x[1]) @ x), 2),
    "what is cheap is computed for each reader": (lambda x: (lambda y: (y + 1, jnp.roll(y, 1, 0)))(x * 2), 0),
    "what is costly is computed once": (lambda x: (lambda y: (y + 1, jnp.roll(y, 1, 0)))(jnp.exp(x)), 1),
    "what has its operands comes first": (lambda x: _end(x @ x @ x @ (x + 1) @ (x + 2)), 4),
    "calls are looked into": (lambda x: _end(jax.nn.silu(jax.checkpoint(lambda y: y @ y)(x)) @ x), 2),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule):
    f, arrays = RULES[rule]
    x = jax.ShapeDtypeStruct((N, N), jnp.float32)
    estimated, compiled, one = footprint(f, x), analysed(jax.jit(f).lower(x).compile()), 4 * N * N
    assert abs(estimated.temporary / one - PACKING * arrays) < 0.02
    assert abs(compiled.temporary / one - arrays) < 0.02
    assert estimated.arguments == compiled.arguments == one
