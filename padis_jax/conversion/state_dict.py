"""Parameters under the names that the PaDIS authors' (and EDM's) PyTorch networks use -> our config and parameters.

The architecture is read off the names and shapes: `enc.56x56_block0.conv0.weight` is the first convolution of the first
encoder block at the level of nominal resolution 56, and so on. Arrays arrive in PyTorch's layouts (convolutions [out,
in, kh, kw], linear maps [out, in]) and leave in ours ([kh, kw, in, out], [in, out]). Only DDPM++ and NCSN++ are
accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from padis_jax.errors import UserError
from padis_jax.unet import NetworkConfig, Params, init_network

_LEVELLED = re.compile(r"(enc|dec)\.(\d+)x\2_(\w+)\.(.+)")
# Present in some checkpoints and without effect on sampling: the embedding of EDM's augmentation labels, which are
# absent then.
_IGNORED = ("map_augment.weight", "map_augment.bias")


def import_state_dict(
    arrays: Mapping[str, np.ndarray],
    *,
    sigma_data: float = 0.5,
    dropout: float = 0.05,
    resample_filter: tuple[float, ...] | None = None,
) -> tuple[NetworkConfig, Params]:
    """Turns named arrays into (config, params).

    Args:
      arrays: name -> array, with or without a common prefix such as `model.`; buffers included.
      sigma_data: the data deviation of the preconditioning, which no array tells (the authors use 0.5).
      dropout: likewise; it has no effect on sampling.
      resample_filter: taps of the resampling filter; needed only if the arrays hold no `resample_filter` buffer.

    Returns:
      The network's config and its parameters (nested dict, float32) for `denoiser.denoise_patches`.

    Raises:
      UserError: naming the array that is missing, unknown, or of an unexpected shape.
    """
    named = _strip_prefix(arrays)
    config = _deduce(named, sigma_data, dropout, resample_filter)
    resolutions = _resolutions(named)
    flat: dict[str, np.ndarray] = {}
    for name, array in named.items():
        if name in _IGNORED or name.endswith("resample_filter"):
            continue
        flat |= _translate(name, np.asarray(array, np.float32), resolutions)
    expected = flatten_dict(jax.eval_shape(lambda: init_network(jax.random.key(0), config)), sep=".")
    for ours in sorted(expected.keys() | flat.keys()):
        if ours not in flat or ours not in expected or flat[ours].shape != expected[ours].shape:
            found = flat[ours].shape if ours in flat else "missing"
            wanted = expected[ours].shape if ours in expected else "no such parameter"
            raise UserError(
                f"state dict: parameter {ours} is {found}, but the architecture deduced has {wanted}: {config}"
            )
    return config, unflatten_dict(flat, sep=".")


def _strip_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    marker = "map_layer0.weight"
    prefixes = {name[: -len(marker)] for name in arrays if name.endswith(marker)}
    if len(prefixes) != 1:
        raise UserError(
            f"state dict: expected one array named '...{marker}', found {len(prefixes)}; is this a U-Net of EDM's?"
        )
    prefix = prefixes.pop()
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _resolutions(named: Mapping[str, np.ndarray]) -> list[int]:
    found = {int(match[2]) for name in named if (match := _LEVELLED.fullmatch(name))}
    if not found:
        raise UserError("state dict: no array is named like 'enc.64x64_conv.weight'; is this a U-Net of EDM's?")
    return sorted(found, reverse=True)


def _deduce(
    named: Mapping[str, np.ndarray], sigma_data: float, dropout: float, taps: tuple[float, ...] | None
) -> NetworkConfig:
    resolutions = _resolutions(named)
    top = f"{resolutions[0]}x{resolutions[0]}"
    for name in named:
        if name.startswith("map_label") or "_aux_skip" in name or "_aux_down" in name or "_aux_up" in name:
            raise UserError(
                f"state dict: {name} belongs to a class-conditional or 'skip' network, which is not supported"
            )

    def shape(name: str) -> tuple[int, ...]:
        if name not in named:
            raise UserError(f"state dict: array {name} is missing")
        return tuple(named[name].shape)

    channels, inputs = shape(f"enc.{top}_conv.weight")[:2]
    outputs = shape(f"dec.{top}_aux_conv.weight")[0]
    if taps is None:
        buffers = [array for name, array in named.items() if name.endswith("resample_filter")]
        if not buffers and len(resolutions) > 1:
            raise UserError(
                "state dict: it holds no `resample_filter` buffer; give resample_filter=(1, 1) or (1, 3, 3, 1)"
            )
        rows = np.asarray(buffers[0], np.float64)[0, 0].sum(0) if buffers else np.ones(2)
        taps = tuple(float(t) for t in np.round(rows / rows[0], 6))
    widths = [shape(f"enc.{r}x{r}_block0.conv0.weight")[0] for r in resolutions]
    if any(w % channels for w in widths):
        raise UserError(f"state dict: level widths {widths} are not multiples of the first convolution's {channels}")
    try:
        return NetworkConfig(
            image_channels=outputs,
            position_channels=inputs - outputs,
            model_channels=channels,
            channel_mult=tuple(w // channels for w in widths),
            num_blocks=sum(re.fullmatch(rf"enc\.{top}_block\d+\.conv0\.weight", name) is not None for name in named),
            attention_levels=tuple(i for i, r in enumerate(resolutions) if f"enc.{r}x{r}_block0.qkv.weight" in named),
            dropout=dropout,
            embedding="fourier" if "map_noise.freqs" in named else "positional",
            encoder="residual" if any("_aux_residual" in name for name in named) else "standard",
            resample_filter=taps,
            sigma_data=sigma_data,
        )
    except ValueError as error:
        raise UserError(f"state dict: the shapes do not describe a supported network: {error}") from error


def _translate(name: str, array: np.ndarray, resolutions: list[int]) -> dict[str, Any]:
    """Our name and layout for one array."""
    if name == "map_noise.freqs":
        return {"freqs": array}
    if match := _LEVELLED.fullmatch(name):
        side, resolution, block, rest = match.groups()
        ours = f"{side}{resolutions.index(int(resolution))}_{block}.{rest}"
    else:
        ours = name
    path, leaf = ours.rsplit(".", 1)
    if leaf == "bias":
        return {_attention_path(path) + ".bias": array}
    if leaf != "weight" or array.ndim not in (1, 2, 4):
        raise UserError(f"state dict: array {name} of shape {array.shape} is unknown")
    if array.ndim == 1:
        return {_attention_path(path) + ".scale": array}
    if array.ndim == 4:
        array = array[:, :, 0, 0] if array.shape[2:] == (1, 1) else array
    kernel = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    return {_attention_path(path) + ".kernel": np.ascontiguousarray(kernel)}


def _attention_path(path: str) -> str:
    return re.sub(r"\.(norm2|qkv|proj)$", r".attention.\1", path)
