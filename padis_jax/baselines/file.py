"""Files of the networks that are compared with (cnn.py, supervised.py): safetensors, described by JSON metadata.

They hold a kind, the network's config and what it was trained for. They are no priors: `weights.load_weights` refuses
them, and this module refuses the weights of a prior. Nothing in a file is executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from padis_jax.baselines.cnn import CNNConfig, cnn_shapes
from padis_jax.conversion.stored import read_header, read_params
from padis_jax.conversion.unet_shapes import Shapes, unet_shapes
from padis_jax.errors import UserError, quoted
from padis_jax.files import json_text, write_bytes
from padis_jax.serialization import from_json, parse_json
from padis_jax.unet import NetworkConfig, Params

KEY = "padis_jax baseline 1"  # one entry: several would be written in random order
C = TypeVar("C", CNNConfig, NetworkConfig)


class Kind(NamedTuple, Generic[C]):
    """A kind of file: its name, the class of its config, and what arrays a network of a config has."""

    name: str
    config: type[C]
    shapes: Callable[[C], Shapes]


CNN = Kind("cnn denoiser", CNNConfig, cnn_shapes)
SUPERVISED = Kind("supervised", NetworkConfig, unet_shapes)


class Baseline(NamedTuple, Generic[C]):
    """Contents of a file; `about` says what it was trained on and for."""

    params: Params
    config: C
    about: Mapping[str, Any]


def save_baseline(path: str | Path, kind: Kind[C], config: C, params: Params, about: Mapping[str, Any]) -> None:
    """Writes a file, atomically.

    Raises:
      ValueError: if a parameter is not finite.
    """
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in flatten_dict(params, sep=".").items()}
    if bad := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
        raise ValueError(f"parameter {bad[0]} is not finite; nothing was written")
    text = json_text({"kind": kind.name, "config": dataclasses.asdict(config), "about": dict(about)}, sort_keys=True)
    write_bytes(path, safetensors.numpy.save(arrays, metadata={KEY: text}))


def load_baseline(path: str | Path, kind: Kind[C]) -> Baseline[C]:
    """Reads a file of that kind.

    Raises:
      UserError: if the file is missing, damaged, of another kind, or does not hold the network that it describes.
    """
    stored = read_header(path, f"no such file; train a {kind.name} network first (docs/methods.md)")
    described = parse_json(stored.metadata.get(KEY, "null"), f"{path}: its metadata")
    if not isinstance(described, dict) or described.get("kind") != kind.name:
        found = described.get("kind") if isinstance(described, dict) else "something else"
        raise UserError(f"{path}: holds {quoted(found)}, not a network of kind {kind.name!r}; name another file")
    config = from_json(kind.config, described.get("config"), f"{path}: config")
    params = read_params(stored, kind.shapes(config), ("F32",))
    about = described.get("about")
    return Baseline(params, config, about if isinstance(about, dict) else {})
