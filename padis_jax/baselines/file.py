"""Files of the networks that are compared with (cnn.py, supervised.py): safetensors, described by JSON metadata.

They hold a kind, the network's config and what it was trained for. They are no priors: `weights.load_weights` refuses
them, and this module refuses the weights of a prior. Nothing in a file is executed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from padis_jax.baselines.cnn import CNNConfig, init_cnn
from padis_jax.errors import UserError
from padis_jax.files import json_text, write_bytes
from padis_jax.serialization import from_json
from padis_jax.unet import NetworkConfig, Params, init_network

KEY = "padis_jax baseline 1"  # one entry: several would be written in random order
C = TypeVar("C", CNNConfig, NetworkConfig)


class Kind(NamedTuple, Generic[C]):
    """A kind of file: its name, the class of its config, and (key, config) -> parameters."""

    name: str
    config: type[C]
    init: Callable[[Any, C], Params]


CNN = Kind("cnn denoiser", CNNConfig, init_cnn)
SUPERVISED = Kind("supervised", NetworkConfig, init_network)


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
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; train a {kind.name} network first (docs/methods.md)") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file (damaged or truncated): {error}") from error
    try:
        described = json.loads(text or "null")
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: its metadata is not JSON: {error}") from error
    if not isinstance(described, dict) or described.get("kind") != kind.name:
        found = described.get("kind") if isinstance(described, dict) else "something else"
        raise UserError(f"{path}: holds {found!r}, not a network of kind {kind.name!r}; name another file")
    config = from_json(kind.config, described.get("config"), f"{path}: config")
    expected = flatten_dict(jax.eval_shape(lambda: kind.init(jax.random.key(0), config)), sep=".")
    for name in sorted(expected.keys() | arrays.keys()):
        wanted = expected[name].shape if name in expected else "nothing"
        given = arrays[name].shape if name in arrays else "nothing"
        if wanted != given:
            raise UserError(f"{path}: array {name} is {given}, but the network in its metadata needs {wanted}")
        if arrays[name].dtype != np.float32 or not np.isfinite(arrays[name]).all():
            raise UserError(f"{path}: array {name} must hold finite float32 numbers; train the network again")
    params = unflatten_dict({name: jnp.asarray(a) for name, a in arrays.items()}, sep=".")
    about = described.get("about")
    return Baseline(params, config, about if isinstance(about, dict) else {})
