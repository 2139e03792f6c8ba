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

import numpy as np
from flax.traverse_util import unflatten_dict

from padis_jax.conversion.stored import check_shapes
from padis_jax.conversion.unet_shapes import unet_shapes
from padis_jax.errors import UserError, cut, quoted
from padis_jax.unet import NetworkConfig, Params

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
        with np.errstate(all="ignore"):  # what is not finite is refused where it is written
            flat |= _translate(name, np.asarray(array, np.float32), resolutions)
    shapes, needs = {name: array.shape for name, array in flat.items()}, "the architecture deduced has"
    check_shapes(shapes, unet_shapes(config), "state dict: parameter ", needs, "missing")
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
                f"state dict: {quoted(name)[1:-1]} belongs to a class-conditional or 'skip' network; not supported"
            )

    def kernel(name: str) -> tuple[int, ...]:
        if name not in named:
            raise UserError(f"state dict: array {name} is missing")
        found = tuple(named[name].shape)
        if len(found) != 4 or 0 in found:
            raise UserError(f"state dict: array {name} is {found}, expected [out, in, kh, kw], none of them 0")
        return found

    channels, inputs = kernel(f"enc.{top}_conv.weight")[:2]
    outputs = kernel(f"dec.{top}_aux_conv.weight")[0]
    if taps is None:
        buffers = [array for name, array in named.items() if name.endswith("resample_filter")]
        if not buffers and len(resolutions) > 1:
            raise UserError(
                "state dict: it holds no `resample_filter` buffer; give resample_filter=(1, 1) or (1, 3, 3, 1)"
            )
        table = np.asarray(buffers[0], np.float64) if buffers else np.ones((1, 1, 2, 2))
        if table.ndim != 4 or 0 in table.shape or max(table.shape) > 16 or not table[0, 0].sum(0)[0]:
            raise UserError(f"state dict: the buffer resample_filter of shape {table.shape} is no filter [1, 1, n, n]")
        with np.errstate(all="ignore"):
            rows = table[0, 0].sum(0)
            taps = tuple(float(t) for t in np.round(rows / rows[0], 6))
    widths = [kernel(f"enc.{r}x{r}_block0.conv0.weight")[0] for r in resolutions]
    if any(w % channels for w in widths):
        raise UserError(f"state dict: level widths {cut(widths, 60)} are not multiples of the first's {channels}")
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
        raise UserError(f"state dict: the shapes do not describe a supported network: {cut(error)}") from error


def _translate(name: str, array: np.ndarray, resolutions: list[int]) -> dict[str, Any]:
    """Our name and layout for one array."""
    if name == "map_noise.freqs":
        return {"freqs": array}
    if match := _LEVELLED.fullmatch(name):
        side, resolution, block, rest = match.groups()
        ours = f"{side}{resolutions.index(int(resolution))}_{block}.{rest}"
    else:
        ours = name
    path, _, leaf = ours.rpartition(".")
    if leaf == "bias":
        return {_attention_path(path) + ".bias": array}
    if leaf != "weight" or array.ndim not in (1, 2, 4):
        raise UserError(f"state dict: array {quoted(name)[1:-1]} of shape {array.shape} is unknown")
    if array.ndim == 1:
        return {_attention_path(path) + ".scale": array}
    if array.ndim == 4:
        array = array[:, :, 0, 0] if array.shape[2:] == (1, 1) else array
    kernel = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    return {_attention_path(path) + ".kernel": np.ascontiguousarray(kernel)}


def _attention_path(path: str) -> str:
    return re.sub(r"\.(norm2|qkv|proj)$", r".attention.\1", path)
