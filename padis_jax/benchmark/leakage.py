"""Whether a network was trained on an image that it is tested on: its file says what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from padis_jax.baselines.file import Baseline
from padis_jax.benchmark.data import Pictures
from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.serialization import from_json
from padis_jax.split import limited, same_images, split_of
from padis_jax.weights import Weights


def trained_on(content: Weights | Baseline[Any], pictures: Pictures) -> list[int]:
    """The indices of the pictures that the network was trained on, sorted; none where its file does not tell.

    Weights that others were the start of (`run.start_weights`) have seen what those had seen.
    """
    if isinstance(content, Weights):
        sets = [_of_training(provenance, pictures) for provenance in _generations(content.provenance)]
    else:
        sets = [_of_baseline(content)]
    seen = {index for path, slices in sets if same_images(pictures.path, path) for index in slices}
    return sorted(seen & set(pictures.indices))


def _generations(provenance: Any) -> Iterator[Mapping[str, Any]]:
    """A training's record, and those of what it started from."""
    while isinstance(provenance, Mapping):
        yield provenance
        start = provenance.get("start_weights")
        provenance = start.get("provenance") if isinstance(start, Mapping) else None


def _of_training(provenance: Mapping[str, Any], pictures: Pictures) -> tuple[str, Sequence[int]]:
    """(what was trained on, indices, if that is the set that the pictures are of)."""
    config = provenance.get("config")
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
