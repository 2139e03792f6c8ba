"""The network beside the same one in PyTorch: float32, the same weights and inputs, in turns in one process.

    python -m venv .venv-torch && .venv-torch/bin/pip install -r requirements.lock
    .venv-torch/bin/pip install torch       its build for CPUs is enough
    PYTHONPATH=. taskset -c 0,1 .venv-torch/bin/python -m studies.speed.torch_network
    PYTHONPATH=. .venv-torch/bin/python -m studies.speed.torch_network --check     agreement alone, on a small input

PyTorch is no dependency of this package, hence an environment of its own. The other side is a plain function of the
same `NetworkConfig` (DDPM++ with the filter (1, 1)) and of the parameters, whose layouts are changed once: convolutions
by `conv2d`, normalisation by `group_norm`, attention by matrix products.

Both outputs must agree to 1e-4 before anything is timed. Timed are the forward pass, the pass with the gradient of a
sum in the image, and a training step (mean square of the output, gradient in the parameters, Adam; dropout off on both
sides). PyTorch runs as written, and with channels last in memory; XLA takes as many threads as there are cores, so name
two.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from padis_jax.config import Config, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.errors import UserError, one_line_errors
from padis_jax.unet import NetworkConfig, init_network

THREADS = 2
TOLERANCE = 1e-4
RATE = 1e-4  # of Adam, on both sides
Calls = dict[str, Callable[[], Any]]


@functools.cache
def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError(f"torch is not installed: {__doc__.splitlines()[2].strip()}, and what follows there") from error


def torch_params(params: Any) -> dict[str, Any]:
    """Our parameters by name, as tensors in PyTorch's layouts: [out, in, kh, kw] and [out, in]."""

    def laid_out(array: np.ndarray) -> np.ndarray:
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
        return np.array(array if axes is None else array.transpose(axes), np.float32, order="C")

    flat = flatten_dict(params, sep="/")
    return {name: _torch().from_numpy(laid_out(np.asarray(array))) for name, array in flat.items()}


def torch_denoise(config: NetworkConfig, params: dict[str, Any], patches: Any, positions: Any, sigma: Any) -> Any:
    """`denoiser.denoise_patches` in PyTorch.

    Args:
      config: the network's.
      params: of `torch_params`.
      patches: [b, c, p, p].
      positions: [b, 2, p, p].
      sigma: [b].

    Raises:
      UserError: for a residual encoder, another embedding or another filter.
    """
    if (config.encoder, config.embedding, tuple(config.resample_filter)) != ("standard", "positional", (1.0, 1.0)):
        raise UserError("torch_network: DDPM++ with the filter (1, 1) only; take configs/head_ct.py or aapm_ct.py")
    torch = _torch()
    s2, d2 = (sigma**2)[:, None, None, None], config.sigma_data**2
    x = patches / (s2 + d2).sqrt()
    x = torch.cat([x, positions], 1) if config.position_channels else x
    raw = _unet(config, params, x, sigma.log() / 4)
    return d2 / (s2 + d2) * patches + s2.sqrt() * config.sigma_data / (s2 + d2).sqrt() * raw


def _unet(config: NetworkConfig, params: dict[str, Any], x: Any, label: Any) -> Any:
    torch = _torch()
    functional = torch.nn.functional

    def linear(name: str, x: Any) -> Any:
        return functional.linear(x, params[f"{name}/kernel"], params[f"{name}/bias"])

    def conv(name: str, x: Any) -> Any:
        kernel = params[f"{name}/kernel"]
        kernel = kernel[:, :, None, None] if kernel.ndim == 2 else kernel
        return functional.conv2d(x, kernel, params[f"{name}/bias"], padding=kernel.shape[-1] // 2)

    def norm(name: str, x: Any) -> Any:
        groups = min(32, x.shape[1] // 4)
        return functional.group_norm(x, groups, params[f"{name}/scale"], params[f"{name}/bias"], 1e-6)

    def attention(name: str, x: Any) -> Any:
        b, c, h, w = x.shape
        q, k, v = conv(f"{name}/qkv", norm(f"{name}/norm2", x)).reshape(b, c, 3, h * w).unbind(2)
        mixed = v @ torch.softmax(q.transpose(1, 2) @ k / c**0.5, -1).transpose(1, 2)
        return conv(f"{name}/proj", mixed.reshape(b, c, h, w))

    def block(name: str, x: Any, resample: str = "none") -> Any:
        maps = {
            "none": lambda a: a,
            "down": lambda a: functional.avg_pool2d(a, 2),
            "up": lambda a: functional.interpolate(a, scale_factor=2, mode="nearest"),
        }
        h = conv(f"{name}/conv0", maps[resample](functional.silu(norm(f"{name}/norm0", x))))
        h = functional.silu(norm(f"{name}/norm1", h + linear(f"{name}/affine", embedding)[:, :, None, None]))
        h, skip = conv(f"{name}/conv1", h), maps[resample](x)
        out = (h + (conv(f"{name}/skip", skip) if f"{name}/skip/kernel" in params else skip)) * 0.5**0.5
        return (
            (out + attention(f"{name}/attention", out)) * 0.5**0.5 if f"{name}/attention/qkv/kernel" in params else out
        )

    n = config.noise_channels
    angle = label[:, None] * (10000.0 ** (-torch.arange(n // 2) / (n / 2 - 1))).float()[None]
    embedding = torch.cat([angle.sin(), angle.cos()], 1)
    for name in ("map_layer0", "map_layer1"):
        embedding = functional.silu(linear(name, embedding))
    x = conv("enc0_conv", x)
    skips = [x]
    for level in range(config.levels):
        if level:
            x = block(f"enc{level}_down", x, "down")
            skips.append(x)
        for i in range(config.num_blocks):
            x = block(f"enc{level}_block{i}", x)
            skips.append(x)
    for level in reversed(range(config.levels)):
        if level == config.levels - 1:
            x = block(f"dec{level}_in1", block(f"dec{level}_in0", x))
        else:
            x = block(f"dec{level}_up", x, "up")
        for i in range(config.num_blocks + 1):
            x = block(f"dec{level}_block{i}", torch.cat([x, skips.pop()], 1))
    return conv("dec0_aux_conv", functional.silu(norm("dec0_aux_norm", x)))


def ours(config: NetworkConfig, params: Any, patches: np.ndarray, where: np.ndarray, sigma: np.ndarray) -> Calls:
    """What is timed, by JAX."""
    inputs = tuple(map(jnp.asarray, (patches, where, sigma)))
    adam = optax.adam(RATE)

    def loss(params: Any, x: Any) -> Any:
        return jnp.mean(jnp.square(denoise_patches(config, params, x, *inputs[1:])))

    @jax.jit
    def step(params: Any, moments: Any, x: Any) -> tuple[Any, Any]:
        updates, moments = adam.update(jax.grad(loss)(params, x), moments)
        return optax.apply_updates(params, updates), moments

    forward = jax.jit(functools.partial(denoise_patches, config))
    both = jax.jit(jax.value_and_grad(lambda x: jnp.sum(denoise_patches(config, params, x, *inputs[1:]))))
    held = [(params, adam.init(params))]

    def train() -> Any:
        held[0] = step(*held[0], inputs[0])
        return held[0]

    calls = {
        "forward": lambda: forward(params, *inputs),
        "image gradient": lambda: both(inputs[0]),
        "training step": train,
    }
    return {name: functools.partial(_ready, call) for name, call in calls.items()}


def _ready(call: Callable[[], Any]) -> Any:
    return jax.block_until_ready(call())


def theirs(
    config: NetworkConfig, params: Any, patches: np.ndarray, where: np.ndarray, sigma: np.ndarray, *, last: bool = False
) -> Calls:
    """What is timed, by PyTorch; `last`: channels last in memory."""
    torch = _torch()
    layout = torch.channels_last if last else torch.contiguous_format
    tensors = torch_params(params)
    tensors = {n: t.contiguous(memory_format=layout) if t.ndim == 4 else t for n, t in tensors.items()}
    x, positions = (
        torch.from_numpy(np.moveaxis(a, -1, 1).copy()).contiguous(memory_format=layout) for a in (patches, where)
    )
    level = torch.from_numpy(sigma)
    own = {n: t.clone().requires_grad_() for n, t in tensors.items()}
    optimiser = torch.optim.Adam(own.values(), lr=RATE)

    def forward() -> Any:
        with torch.no_grad():
            return torch_denoise(config, tensors, x, positions, level)

    def both() -> Any:
        image = x.clone().requires_grad_()
        torch_denoise(config, tensors, image, positions, level).sum().backward()
        return image.grad

    def train() -> Any:
        optimiser.zero_grad()
        torch_denoise(config, own, x, positions, level).square().mean().backward()
        optimiser.step()

    return {"forward": forward, "image gradient": both, "training step": train}


def difference(config: NetworkConfig, *, side: int, count: int) -> float:
    """The largest difference of both outputs and of both gradients in the image, of random weights and inputs."""
    arguments = drawn(config, side, count)
    one, other = ours(config, *arguments), theirs(config, *arguments)
    pairs = [(one["forward"](), other["forward"]()), (one["image gradient"]()[1], other["image gradient"]())]
    return max(float(np.abs(np.asarray(a) - np.moveaxis(b.numpy(), 1, -1)).max()) for a, b in pairs)


def drawn(config: NetworkConfig, side: int, count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, patches, positions and levels; the weights vary so that outputs are of order 1 and no branch is 0."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_network(jax.random.key(0), config))

    def array(shape: tuple[int, ...]) -> Any:
        size = 1 if len(shape) == 1 else np.prod(shape[:-1])
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(size), jnp.float32)

    params = jax.tree.map(lambda leaf: array(leaf.shape), shapes)
    patches = rng.standard_normal((count, side, side, config.image_channels)).astype(np.float32)
    where = rng.uniform(-1, 1, (count, side, side, 2)).astype(np.float32)
    return params, patches, where, rng.uniform(0.1, 1, count).astype(np.float32)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Checks, then times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/head_ct.py")
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--check", action="store_true", help="agreement alone")
    args = parser.parse_args(argv)
    config = load_config_file(args.config, Config)
    network, side = config.network, config.patches.largest
    _torch().set_num_threads(THREADS)
    apart = difference(network, side=2 ** (network.levels + 1), count=2)
    print(f"jax {jax.__version__}, torch {_torch().__version__}: largest difference {apart:.2e}", flush=True)
    if not apart < TOLERANCE:
        raise UserError(f"torch_network: both networks differ by {apart:.2e}, beyond {TOLERANCE:g}: nothing is timed")
    if args.check:
        return
    arguments = drawn(network, side, args.patches)
    sides = {
        "jax": ours(network, *arguments),
        "torch": theirs(network, *arguments),
        "torch, channels last": theirs(network, *arguments, last=True),
    }
    for name in ("forward", "image gradient", "training step"):
        best = {who: (np.inf, np.inf) for who in sides}
        for number in range(args.rounds + 1):
            for who, calls in sides.items():
                wall, cpu = time.perf_counter(), time.process_time()
                calls[name]()
                took = time.perf_counter() - wall, time.process_time() - cpu
                if number:  # the first compiles
                    best[who] = min(best[who][0], took[0]), min(best[who][1], took[1])
        for who, (seconds, busy) in best.items():
            print(f"{name}, {args.patches} of {side} x {side}, {who}: {seconds:.3f} s, {busy:.3f} CPU s", flush=True)


if __name__ == "__main__":
    main()
