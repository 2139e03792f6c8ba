"""Weights as one safetensors file: float32 or float16 arrays, and all that is needed to use them as JSON metadata.

The metadata holds the network config, the frame (patch size, image size, padding: positions depend on them), the window
(what 0 and 1 stand for) and the provenance (data, licence, how they were trained); of a network of slabs, the slab
(slices, and those of the volume that z refers to); and statistics of the training images (blocks.py), which older files
do not have. Nothing in the file is executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from padis_jax.blocks import Blocks
from padis_jax.conversion.state_dict import import_state_dict
from padis_jax.conversion.stored import read_header, read_params
from padis_jax.conversion.unet_shapes import unet_shapes
from padis_jax.errors import UserError, quoted
from padis_jax.files import file_hash, json_text, write_bytes
from padis_jax.patches import Frame, frame_for
from padis_jax.prior import Prior, TilingName, patch_prior
from padis_jax.serialization import from_json, parse_json
from padis_jax.shipped import locate
from padis_jax.unet import NetworkConfig, Params
from padis_jax.window import Window

__all__ = [
    "Slab",
    "Weights",
    "file_hash",
    "import_state_dict",
    "load_prior",
    "load_weights",
    "save_weights",
]

_METADATA = ("network", "frame", "window", "provenance")


@dataclasses.dataclass(frozen=True)
class Slab:
    """Of a network of slabs: what its frame is along z.

    Attributes:
      slices: d, which are the network's channels.
      total: slices of the volumes that it was trained on; 0 where they differ.
      skips: distances of the slices of slabs that it was trained on.
    """

    slices: int
    total: int = 0
    skips: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if 1 not in self.skips or not 1 <= min(self.skips) <= max(self.skips) <= 64:
            raise ValueError(f"slabs of slices that are {self.skips} apart: use 1, and up to 64")
        if not 2 <= self.slices <= 64 or not 0 <= self.total <= 10**6:
            raise ValueError(f"a slab of {self.slices} slices in a volume of {self.total}: use 2 to 64, and 0 to 10^6")


class Weights(NamedTuple):
    """Contents of a weights file.

    `provenance` maps names to texts or numbers, `digest` is the file's SHA-256, `blocks` are statistics of the training
    images or None.
    """

    params: Params
    network: NetworkConfig
    frame: Frame
    window: Window
    provenance: Mapping[str, Any]
    digest: str
    slab: Slab | None = None
    blocks: Blocks | None = None

    def frame_for(self, image_shape: tuple[int, int]) -> Frame | None:
        """The frame of images [H, W]: the file's own for its size; another where the network sees no positions.

        None for a network that knows positions, or whole images only, of another size.
        """
        if image_shape == self.frame.image_shape:
            return self.frame
        free = self.network.position_channels == 0 and self.frame.patch > 0
        return frame_for(image_shape, self.frame.patch) if free else None

    @property
    def mirrored(self) -> bool:
        """Whether the network was trained on images and their mirror images, as far as the provenance says."""
        found: Any = self.provenance
        for name in ("config", "patches", "flips"):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found is True

    def computing(self, dtype: str) -> Weights:
        """The same with convolutions in another type, "float32" or "bfloat16"; "" changes nothing."""
        if not dtype:
            return self
        return self._replace(network=dataclasses.replace(self.network, dtype=dtype))  # type: ignore[arg-type]


def save_weights(
    path: str | Path,
    params: Params,
    network: NetworkConfig,
    frame: Frame,
    window: Window,
    provenance: Mapping[str, Any],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    slab: Slab | None = None,
    blocks: Blocks | None = None,
) -> None:
    """Writes a weights file, atomically.

    Args:
      path: the file, by convention `.safetensors`.
      params: nested dict of arrays.
      network: the network's config.
      frame: geometry of the images that were trained on.
      window: their intensity window.
      provenance: data, licence, training; anything JSON can hold.
      dtype: type of the stored arrays; "float16" halves the file and rounds the parameters to 11 bits.
      slab: of a network of slabs; None for images.
      blocks: of the training images; None where they are not known.

    Raises:
      ValueError: if a parameter is not finite in that type.
    """
    with np.errstate(over="ignore"):  # what overflows is refused below
        arrays = {name: np.ascontiguousarray(a, dtype) for name, a in flatten_dict(params, sep=".").items()}
    if bad := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
        raise ValueError(f"parameter {bad[0]} is not finite as {dtype}; nothing was written")
    about: dict[str, Any] = {"network": network, "frame": frame, "window": window}
    about |= {name: item for name, item in (("slab", slab), ("blocks", blocks)) if item is not None}
    metadata = {name: json.dumps(dataclasses.asdict(item)) for name, item in about.items()}
    metadata |= {"provenance": json_text(dict(provenance)), "format": "padis_jax 1"}
    write_bytes(path, with_metadata(safetensors.numpy.save(arrays, metadata=metadata)))


def with_metadata(data: bytes, added: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """A safetensors file with these metadata too, all of them sorted, and the same arrays byte for byte.

    The library writes metadata in random order; equal weights should have equal files, and so equal hashes.

    A file is the length of the header (8 bytes, little-endian), the header in JSON, and the arrays, whose places are
    counted from the end of the header.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted((header["__metadata__"] | dict(added)).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_weights(path: str | Path, *, volumes: bool = False) -> Weights:
    """Reads a weights file, named by its path or, of those that come with the program, its name (`shipped.CARDS`).

    Args:
      path: the file.
      volumes: whether a network of slabs will do; it denoises no single images.

    Raises:
      UserError: for a name that there is not; if the file is missing, damaged, not from `save_weights`, or does not
        hold the network that its own metadata describes; for a network of slabs, unless `volumes`.
    """
    path = locate(path)
    stored = read_header(path, "no such weights file; check the path, or train one with train.py")
    if missing := [name for name in _METADATA if name not in stored.metadata]:
        raise UserError(
            f"{path}: its metadata has no {missing[0]!r}; it was not written by padis_jax.weights.save_weights"
        )
    about = {name: parse_json(stored.metadata[name], f"{path}: {name} in its metadata") for name in _METADATA}
    network = from_json(NetworkConfig, about["network"], f"{path}: network")
    frame = from_json(Frame, about["frame"], f"{path}: frame")
    window = from_json(Window, about["window"], f"{path}: window")
    slab = None
    if "slab" in stored.metadata:
        slab = from_json(Slab, parse_json(stored.metadata["slab"], f"{path}: slab in its metadata"), f"{path}: slab")
        if slab.slices != network.image_channels:
            raise UserError(
                f"{path}: slab and network in its metadata do not fit: {slab.slices} slices, {network.image_channels} "
                "channels"
            )
    if slab and not volumes:
        raise UserError(
            f"{path}: a network of slabs of {slab.slices} slices, which denoises volumes (load_volume_prior); single "
            "images want weights of images"
        )
    if network.position_channels == 3 and not slab:
        raise UserError(f"{path}: its network sees z, but its metadata have no slab")
    if not isinstance(about["provenance"], Mapping):
        raise UserError(f"{path}: provenance in its metadata is {quoted(about['provenance'])}: expected fields")
    try:
        for side in frame.tile_shape:
            network.check_patch(side)
    except ValueError as error:
        raise UserError(f"{path}: frame and network in its metadata do not fit: {error}") from error
    blocks = None
    if "blocks" in stored.metadata:
        counted = parse_json(stored.metadata["blocks"], f"{path}: blocks in its metadata")
        blocks = from_json(Blocks, counted, f"{path}: blocks")
    params = read_params(stored, unet_shapes(network), ("F32", "F16"))
    return Weights(params, network, frame, window, about["provenance"], file_hash(path), slab, blocks)


def load_prior(
    path: str | Path,
    *,
    image_shape: tuple[int, int] | None = None,
    tiling: TilingName = "random",
    tilings: int = 1,
    overlap: int = 8,
    patch_batch: int | None = None,
    mirror: bool | None = None,
) -> Prior:
    """The whole-image prior of a weights file: `load_weights`, then `patch_prior` with the frame saved in it.

    >>> import padis_jax as pj
    >>> prior = pj.load_prior("weights/head_ct.safetensors")
    >>> prior.frame.image_shape, prior.channels
    ((256, 256), 1)

    Args:
      path: the weights file, or the name of one that comes with the program, such as "head_ct".
      image_shape: (H, W) of the images; None for that of the training images. Weights without positions
        (`position_channels=0`) serve any size, others only their own.
      tiling: see `prior.patch_prior`.
      tilings: likewise.
      overlap: likewise.
      patch_batch: likewise.
      mirror: likewise; None if the weights were trained on mirrored images, too (`Weights.mirrored`).

    Raises:
      UserError: see `load_weights`; or if `image_shape` is another than the weights serve.
    """
    weights = load_weights(path)
    frame = weights.frame if image_shape is None else weights.frame_for(image_shape)
    if frame is None:
        raise UserError(
            f"{path}: trained on images of {weights.frame.image_shape}, whose positions the network knows; "
            f"{image_shape} needs weights without positions, or `patch_prior` with a frame of your own"
        )
    return patch_prior(
        weights.network,
        weights.params,
        frame,
        tiling=tiling,
        tilings=tilings,
        overlap=overlap,
        patch_batch=patch_batch,
        mirror=weights.mirrored if mirror is None else mirror,
    )
