"""Whether a network was trained on an image that it is tested on: its file says what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from padis_jax.baselines.file import Baseline
from padis_jax.benchmark.data import Pictures
from padis_jax.config import DataConfig, from_json
from padis_jax.errors import UserError
from padis_jax.split import limited, same_images, split_of
from padis_jax.weights import Weights


def trained_on(content: Weights | Baseline[Any], pictures: Pictures) -> list[int]:
    """The indices of the pictures that the network was trained on, sorted; none where its file does not tell.

    What the parameters started from (`run.start_weights`) may have seen more, of which the file says nothing.
    """
    path, slices = _of_weights(content, pictures) if isinstance(content, Weights) else _of_baseline(content)
    if not same_images(pictures.path, path):
        return []
    return sorted(set(slices) & set(pictures.indices))


def _of_weights(weights: Weights, pictures: Pictures) -> tuple[str, Sequence[int]]:
    """(what was trained on, indices, if that is the set that the pictures are of)."""
    config = weights.provenance.get("config")
    try:
        data = from_json(DataConfig, config.get("data") if isinstance(config, Mapping) else None)
        split = split_of(data, dict(pictures.volumes), pictures.total)
    except UserError:  # weights of another program, or settings that do not fit this set
        return "", ()
    return data.path, limited(split.train, data.limit)


def _of_baseline(baseline: Baseline[Any]) -> tuple[str, Sequence[int]]:
    path, slices = baseline.about.get("images"), baseline.about.get("slices")
    if not (isinstance(path, str) and isinstance(slices, list)):
        return "", ()
    return path, [index for index in slices if isinstance(index, int)]
